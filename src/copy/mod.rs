//! `wal-archive copy`: every WAL file of one archive brought into another.
//!
//! Serves migration (other tools' objects are encoded anew), the off-site copy (our own objects
//! are passed on byte for byte) and repair (what is damaged at the destination is moved aside and
//! created anew). Each file is decoded and proved before it is created; what stands there is never
//! replaced; what is identical is skipped, so that a run can be killed and repeated at any moment.
//!
//! History files come first and the rest in order, so that a reader of the destination never sees a
//! timeline without its history, and never the files of one server under the history of another. Until a copy has ended without findings its destination is no
//! archive to recover from: PostgreSQL would take its end for the end of the WAL.
//!
//! Encrypted objects are passed on by whoever has no identity, too: what is stored is proved to be what was
//! written, and compared by the tags of the recipients.

mod histories;
mod names;
mod object;
mod one;
mod records;

use crate::archive::forms::Forms;
use crate::archive::identity::{self, Claimant, Owner, Refusal};
use crate::archive::inventory::STRANGERS_KEPT;
use crate::archive::object::{Opener, SHUT_HINT};
use crate::failure::Failure;
use crate::finding::Finding;
use crate::host::side_by_side::by_many;
use crate::object::{Checks, Encryption, Identity};
use crate::storage::giving_up::FAILED_OBJECTS;
use crate::storage::{Error, Shared, Storage};
use crate::wal::{Timeline, WalName};
use histories::HeldBack;
use names::{Item, Named};
use one::Done;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// What to copy, and how.
pub struct Request<'a> {
    /// Any archive.
    pub from: &'a Shared,
    /// An archive of the same cluster, or a place to become one; may be `from` itself.
    pub to: &'a Shared,
    /// Whether pages are looked at.
    pub checks: Checks,
    /// zstd's, for what is encoded anew.
    pub level: i32,
    /// Whether damaged objects at the destination are moved aside and created anew. Then each is
    /// read in full, not only its trailer.
    pub repair: bool,
    /// What becomes of encrypted objects.
    pub encrypted: Encrypted,
    /// Files at once, at least 1.
    pub jobs: usize,
    /// Told after each file.
    pub progress: &'a (dyn Fn(&Copied) + Sync),
}

/// What becomes of encrypted objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encrypted {
    /// They are passed on as they are, and keep their recipients.
    PassOn,
    /// They are encrypted for the recipients of the destination.
    Anew,
    /// They are stored decrypted.
    Decrypted,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// WAL files that the source lists.
    pub listed: u64,
    /// Of these looked at so far.
    pub seen: u64,
    /// Created as they are.
    pub copied: u64,
    /// Created after being encoded anew.
    pub encoded: u64,
    /// Moved aside and created again.
    pub repaired: u64,
    /// There already.
    pub identical: u64,
    /// Other tools' objects that stay as they are under the key of ours.
    pub left: u64,
    /// Files that were not looked at, since the history of their timeline is not the same at the
    /// destination, or could not be brought there.
    pub held_back: u64,
    /// Of those copied, the ones that nothing here decrypts: their stored bytes were proved.
    pub sealed: u64,
    /// Of those copied, the ones that are encrypted for none of the destination's recipients.
    pub for_others: u64,
    /// Bytes created, as stored.
    pub bytes: u64,
    /// Keys that belong to no WAL file and were not copied: the first [`STRANGERS_KEPT`] of them.
    pub strangers: Vec<String>,
    /// How many there are.
    pub strangers_total: u64,
    /// What was not copied, and why: damaged, a conflict, or in an encoding that is not read.
    pub findings: Vec<Finding>,
    /// What could not be told, because a place failed.
    pub failures: Vec<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brought {
    Created { bytes: u64, encoded: bool, for_others: bool, sealed: bool },
    Repaired { bytes: u64 },
    Identical,
    Left,
}

/// What one copy works with.
struct Copier<'a> {
    from: &'a dyn Storage,
    to: &'a dyn Storage,
    opener: Opener,
    level: i32,
    repair: bool,
    in_place: bool,
    /// How both store objects, and whether they are passed on as they are.
    encryption: (Encryption, Encryption),
    passes_on: bool,
    /// Likewise of what is encoded anew.
    forms: Forms,
    /// Whether the destination may hold a name in another encoding.
    other_encodings: bool,
}

/// Runs it. An error is what kept it from beginning; what happened later is in the report.
pub fn copy(request: &Request<'_>) -> Result<Copied, Failure> {
    let (from, to) = (request.from.as_ref(), request.to.as_ref());
    let owner = identity::owner(from, request.checks).map_err(|error| failed(&error))?;
    let identity = claim(&owner, to, request.checks)?;
    let in_place = from.address() == to.address();
    let encryption = (owner.encryption, identity.encryption);
    refuse_to_convert(request, encryption)?;
    let copy = Copier {
        from,
        to,
        opener: Opener { system_id: Some(identity.system_id), ..Opener::of_any_cluster(request.checks) },
        level: request.level,
        repair: request.repair,
        in_place,
        encryption,
        passes_on: encryption.0 == encryption.1 && request.encrypted != Encrypted::Anew,
        forms: Forms::of([request.to]),
        other_encodings: identity.foreign && !in_place,
    };
    let state = SharedReport { report: Mutex::default(), progress: request.progress };
    let (histories, timelines) = state.count(from, encryption.0)?;
    let held_back = copy.bring_histories(&histories, &timelines, &state);
    if state.goes_on() {
        match names::names(from, encryption.0) {
            Ok(names) => {
                let rest = names.filter(|item| !matches!(item, Ok(Item::Wal(named)) if is_history(named)));
                copy.bring_all(rest, &held_back, request.jobs, &state);
            }
            Err(error) => state.report().failures.push(failed(&error)),
        }
    }
    if !in_place
        && state.goes_on()
        && let Err(error) = records::carry(from, to)
    {
        state.report().failures.push(failed(&error));
    }
    let mut report = state.report.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Several threads found them in no order.
    report.findings.sort_by(|one, other| (&one.key, &one.place).cmp(&(&other.key, &other.place)));
    Ok(report)
}

/// Makes sure that the destination is an archive of the source's cluster.
fn claim(source: &Owner, to: &dyn Storage, checks: Checks) -> Result<Identity, Failure> {
    let Owner { system_id, segment_size, .. } = *source;
    let claimant = Claimant { system_id, segment_size, checks };
    identity::claim(to, &claimant, None, SystemTime::now()).map_err(|refusal| match refusal {
        Refusal::OtherCluster { message, hint } | Refusal::Encryption { message, hint } => {
            Failure::new((), message).hint(hint)
        }
        Refusal::Storage(error) => failed(&error),
        Refusal::NoArchive(error) => match system_id.zip(segment_size) {
            None => failed(&error),
            Some((id, size)) => failed(&error).hint(format!(
                "correct the path; for a new archive run: wal-archive init {} --system-id {id} --segment-size {}",
                to.place(),
                size.bytes()
            )),
        },
    })
}

/// Refuses what needs a word or a key that is not there.
fn refuse_to_convert(request: &Request<'_>, encryption: (Encryption, Encryption)) -> Result<(), Failure> {
    let (from, to) = (request.from.place(), request.to.place());
    let refuse = |what: String, hint: &str| Err(Failure::new((), what).hint(hint));
    match encryption {
        (Encryption::Age, Encryption::Age) if request.encrypted == Encrypted::PassOn => Ok(()),
        (Encryption::Age, _) if request.from.keys().identities.is_empty() => refuse(
            format!("\"{from}\" is encrypted, and there is no identity to decrypt and prove it"),
            SHUT_HINT,
        ),
        (Encryption::Age, Encryption::None) if request.encrypted != Encrypted::Decrypted => refuse(
            format!("\"{from}\" is encrypted, and \"{to}\" is not"),
            "make an encrypted one with \"wal-archive init\", or store everything decrypted with --decrypt",
        ),
        (Encryption::None, _) if request.encrypted != Encrypted::PassOn => refuse(
            format!("\"{from}\" is not encrypted, so nothing can be encrypted anew or decrypted"),
            "leave --reencrypt and --decrypt out: what goes into an encrypted archive is encrypted",
        ),
        _ => Ok(()),
    }
}

fn failed(error: &Error) -> Failure {
    Failure::from_storage((), error)
}

fn is_history(named: &Named) -> bool {
    matches!(named.name, WalName::TimelineHistory(_))
}

/// The report while several threads write it.
struct SharedReport<'a> {
    report: Mutex<Copied>,
    progress: &'a (dyn Fn(&Copied) + Sync),
}

impl SharedReport<'_> {
    fn report(&self) -> MutexGuard<'_, Copied> {
        // Every change is a count or a push, so a poisoned lock still guards a whole report.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what the source lists; its histories, and the timelines of all its files.
    fn count(
        &self,
        from: &dyn Storage,
        encryption: Encryption,
    ) -> Result<(Vec<Named>, BTreeSet<Timeline>), Failure> {
        let (mut histories, mut timelines) = (Vec::new(), BTreeSet::new());
        for item in names::names(from, encryption).map_err(|error| failed(&error))? {
            let mut report = self.report();
            match item.map_err(|error| failed(&error))? {
                Item::Stranger(key) => {
                    report.strangers_total += 1;
                    if report.strangers.len() < STRANGERS_KEPT {
                        report.strangers.push(key);
                    }
                }
                Item::Wal(named) => {
                    report.listed += 1;
                    timelines.insert(named.name.timeline());
                    if is_history(&named) {
                        histories.push(named);
                    }
                }
            }
        }
        Ok((histories, timelines))
    }

    fn goes_on(&self) -> bool {
        self.report().failures.len() < FAILED_OBJECTS as usize
    }

    /// A file of a timeline that is held back.
    fn hold_back(&self) {
        let mut report = self.report();
        report.seen += 1;
        report.held_back += 1;
        (self.progress)(&report);
    }

    fn add(&self, done: Done, failure: Option<Error>) {
        let mut report = self.report();
        report.seen += 1;
        for outcome in done.outcomes {
            match outcome {
                Brought::Created { bytes, encoded, for_others, sealed } => {
                    report.sealed += u64::from(sealed);
                    report.for_others += u64::from(for_others);
                    *(if encoded { &mut report.encoded } else { &mut report.copied }) += 1;
                    report.bytes += bytes;
                }
                Brought::Repaired { bytes } => {
                    report.repaired += 1;
                    report.bytes += bytes;
                }
                Brought::Identical => report.identical += 1,
                Brought::Left => report.left += 1,
            }
        }
        report.findings.extend(done.findings);
        report.failures.extend(failure.map(|error| failed(&error)));
        (self.progress)(&report);
    }
}

impl Copier<'_> {
    /// Brings the files of a listing, several at once, in its order.
    fn bring_all(
        &self,
        items: impl Iterator<Item = crate::storage::Result<Item>> + Send,
        held_back: &HeldBack,
        jobs: usize,
        state: &SharedReport<'_>,
    ) {
        let items = Mutex::new(items);
        let next = || match state.goes_on() {
            true => items.lock().unwrap_or_else(PoisonError::into_inner).next(),
            false => None,
        };
        let work = || {
            while let Some(item) = next() {
                let mut done = Done::default();
                match item {
                    Ok(Item::Wal(named)) if held_back.contains(&named.name.timeline()) => state.hold_back(),
                    Ok(Item::Wal(named)) => {
                        let failure = self.bring(&named, &mut done).err();
                        state.add(done, failure);
                    }
                    Ok(Item::Stranger(_)) => {} // counted before
                    Err(error) => state.report().failures.push(failed(&error)),
                }
            }
        };
        by_many(jobs, work);
    }
}

#[cfg(test)]
mod tests;
