//! Proves what can be proved of an archive without PostgreSQL: nothing that recovery asks for is
//! missing, every object holds what its name promises, destinations agree, and, where asked, the
//! WAL records form one chain from a backup to the end.
//!
//! The ends of the timelines are those of one listing at the start, so WAL that arrives meanwhile
//! is never a gap. Does not know: whether a backup that a history file speaks of still exists.

mod backups;
mod chains;
mod copies;
mod files;
mod examine;
mod names;
mod objects;
mod recovery;

pub use backups::{unled, verify_backups};
pub use names::{ByNames, Scope, by_names, range};
pub use objects::Depth;
pub use recovery::{Recoverable, Unfinished};

use crate::archive::inventory::{Inventory, items};
use crate::archive::object::SHUT_HINT;
use crate::failure::Failure;
use crate::finding::{Finding, FindingKind};
use crate::host::side_by_side::side_by_side;
use crate::object::{Checks, Encryption, Key, Stored};
use crate::storage::{self, Shared, Storage};
use crate::wal::{SegmentName, Timeline, WalName};
use chains::Chains;
use copies::Patience;
use objects::{Checked, Objects};
use std::time::{Duration, Instant, SystemTime};

/// What to look at, and how closely.
#[derive(Clone, Debug)]
pub struct Options {
    /// How closely.
    pub depth: Depth,
    /// Nothing that is older.
    pub since: Option<Since>,
    /// Only what the backups with this label need.
    pub label: Option<String>,
    /// Segments known to be lost, first and last.
    pub accepted: Vec<(SegmentName, SegmentName)>,
    /// Timelines whose history file is known to be lost.
    pub accepted_histories: Vec<Timeline>,
    /// Objects looked at at once.
    pub jobs: usize,
    /// Whether pages are looked at.
    pub checks: Checks,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With the segment of this name, on any timeline.
    Segment(SegmentName),
    /// With the segment of this address.
    Lsn(crate::wal::Lsn),
    /// With what was stored so long ago.
    Ago(Duration),
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Objects.
    pub objects: u64,
    /// Their bytes as stored.
    pub stored: u64,
    /// The bytes they hold, where they were decoded.
    pub raw: u64,
    /// Objects that no identity here decrypts: their stored bytes were proved.
    pub shut: u64,
}

/// The answer.
#[derive(Debug)]
pub struct Verified {
    /// What each destination holds, in the order given; those that could not be listed are missing.
    pub inventories: Vec<Inventory>,
    /// What was looked at.
    pub checked: Count,
    /// By destination and name.
    pub findings: Vec<Finding>,
    /// Gaps that were accepted and are there.
    pub accepted: Vec<String>,
    /// How far recovery would go.
    pub recoverable: Vec<Recoverable>,
}

/// What is seen while it goes on: objects done, and how many there are.
pub type Progress<'a> = &'a mut dyn FnMut(&Count, u64);

/// Verifies an archive of one or more destinations. An error: the request makes no sense.
pub fn verify(
    storages: &[Shared],
    options: &Options,
    now: SystemTime,
    progress: Progress<'_>,
) -> Result<Verified, Failure> {
    if storages.is_empty() {
        return Err(no_destination());
    }
    let (mut inventories, storages, mut findings) = list(storages);
    for (inventory, storage) in inventories.iter_mut().zip(&storages) {
        if let Err(error) = backups::add_own(inventory, storage.as_ref()) {
            findings.push(Finding::new(FindingKind::NotRead, "backups/", storage.place(), error.to_string()));
        }
    }
    let mut mixed = names::two_clusters(&inventories);
    if inventories.is_empty() || !mixed.is_empty() {
        mixed.append(&mut findings);
        return Ok(Verified::of_findings(inventories, mixed));
    }
    refuse_to_walk_in_the_dark(options.depth, &inventories, &storages)?;
    let scope = options.scope(since(options.since, &inventories, &storages, now)?);
    await_arrivals(&storages, &mut inventories, now);
    let names = by_names(&inventories, &scope).ok_or_else(no_destination)?;
    let is_unread = names.union.backups.iter().all(|backup| backup.content.is_err());
    let is_unknown = is_unread || names.needs.is_empty();
    if let (Some(label), true) = (&options.label, is_unknown) {
        let what = format!("no backup with the label \"{label}\" can be recovered from here");
        return Err(Failure::new((), what).hint("\"wal-archive list\" shows the backups and their labels"));
    }
    let mut chains = (options.depth == Depth::Records).then(|| Chains::new(&names));
    let patience: Vec<_> = storages.iter().map(|_| Patience::default()).collect();
    let objects = Objects {
        storages: &storages,
        inventories: &inventories,
        names: &names,
        scope: &scope,
        options,
        patience: &patience,
    };
    let Checked { count, findings: found, intact } = objects.check(chains.as_mut(), progress);
    findings.extend(names.findings.iter().cloned());
    // A history file that cannot be read was found by the inventory already.
    let same = |one: &Finding, other: &Finding| {
        one.kind == other.kind && one.name == other.name && one.place == other.place
    };
    let new: Vec<_> =
        found.into_iter().filter(|new| !findings.iter().any(|known| same(known, new))).collect();
    findings.extend(new);
    let recoverable = recovery::recoverable(&names, &intact, chains.as_ref());
    if let Some(chains) = chains {
        let places: Vec<_> = inventories.iter().map(|inventory| inventory.place.as_str()).collect();
        findings.extend(chains.findings(&names, &places.join(", ")));
    }
    let order = |finding: &Finding| inventories.iter().position(|i| i.place == finding.place);
    findings.sort_by_cached_key(|finding| (order(finding), finding.name.clone(), finding.kind));
    Ok(Verified { checked: count, accepted: names.accepted, inventories, findings, recoverable })
}

fn no_destination() -> Failure {
    Failure::new((), "no destination is named")
}

impl Options {
    fn scope(&self, since: Option<u64>) -> Scope {
        Scope {
            since,
            label: self.label.clone(),
            accepted: self.accepted.clone(),
            accepted_histories: self.accepted_histories.clone(),
        }
    }
}

impl Verified {
    /// Nothing was looked at beyond what the findings say.
    fn of_findings(inventories: Vec<Inventory>, findings: Vec<Finding>) -> Self {
        let (accepted, recoverable) = (Vec::new(), Vec::new());
        Verified { inventories, checked: Count::default(), findings, accepted, recoverable }
    }
}

/// Records are seen only where something decrypts them.
fn refuse_to_walk_in_the_dark(
    depth: Depth,
    inventories: &[Inventory],
    storages: &[Shared],
) -> Result<(), Failure> {
    let dark = |(inventory, storage): &(&Inventory, &Shared)| {
        inventory.encryption() == Encryption::Age && storage.keys().identities.is_empty()
    };
    match inventories.iter().zip(storages).find(dark) {
        Some((inventory, _)) if depth == Depth::Records => {
            let what = format!(
                "\"{}\" is encrypted, and without an identity its records cannot be walked",
                inventory.place
            );
            Err(Failure::new((), what).hint(SHUT_HINT))
        }
        _ => Ok(()),
    }
}

/// A destination that could not be listed.
pub fn not_listed(storage: &dyn Storage, error: &storage::Error) -> Finding {
    let hint = error.hint_text().unwrap_or("try it again once it can be reached");
    Finding::new(FindingKind::NotRead, "archive.json", storage.place(), error.to_string()).hint(hint)
}

/// The destinations that can be listed, and why others cannot.
fn list(storages: &[Shared]) -> (Vec<Inventory>, Vec<Shared>, Vec<Finding>) {
    let read = |storage: &Shared| Inventory::read_archive(storage.as_ref());
    let (mut inventories, mut listed, mut findings) = (Vec::new(), Vec::new(), Vec::new());
    for (storage, result) in storages.iter().zip(side_by_side(storages, read)) {
        match result {
            Ok(inventory) => {
                inventories.push(inventory);
                listed.push(storage.clone());
            }
            Err(error) => findings.push(not_listed(storage.as_ref(), &error)),
        }
    }
    (inventories, listed, findings)
}

/// The first segment number that counts.
fn since(
    since: Option<Since>,
    inventories: &[Inventory],
    storages: &[Shared],
    now: SystemTime,
) -> Result<Option<u64>, Failure> {
    let unknown = || Failure::new((), "--since cannot be used: the segment size of the archive is not known");
    let size = inventories.iter().find_map(|inventory| inventory.segment_size).ok_or_else(unknown);
    match since {
        None => Ok(None),
        Some(Since::Segment(name)) => name.number(size?).map(Some).ok_or_else(|| {
            Failure::new(
                (),
                format!(
                    "\"{name}\" is not the name of a segment in this archive: its segments have another size"
                ),
            )
        }),
        Some(Since::Lsn(lsn)) => Ok(Some(lsn.0 / size?.bytes())),
        Some(Since::Ago(age)) => {
            let cutoff = now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
            let mut oldest = None;
            for (inventory, storage) in inventories.iter().zip(storages) {
                let failed = |error: &storage::Error| Failure::from_storage((), error);
                for item in items(storage.as_ref()).map_err(|error| failed(&error))? {
                    let item = item.map_err(|error| failed(&error))?;
                    if let (Some(WalName::Segment(name)), true) =
                        (item.stored.name(), item.modified >= cutoff)
                        && !matches!(item.stored, Stored::Variant(..))
                        && let Some(number) = inventory.number(name)
                    {
                        oldest = Some(oldest.map_or(number, |oldest: u64| oldest.min(number)));
                    }
                }
            }
            // Nothing is that young: only what is not there yet would count.
            Ok(Some(oldest.unwrap_or(u64::MAX)))
        }
    }
}

/// wal-push stores 32 files ahead where nobody says otherwise, so a gap this near to the end may
/// be one that closes by itself.
const AHEAD: u64 = 64;

/// How long such a gap is given, and how old what follows it may be.
const PATIENCE: Duration = Duration::from_secs(15);

/// A listing may show a segment and not yet the one before it, which is stored at the same time.
/// Where that may be so, it is read again until the gap closes or was given its time.
fn await_arrivals(storages: &[Shared], inventories: &mut [Inventory], now: SystemTime) {
    let start = Instant::now();
    loop {
        let pairs = inventories.iter().zip(storages);
        let young = pairs.filter(|(inventory, storage)| has_young_gap(inventory, storage, now)).count();
        if young == 0 || start.elapsed() > PATIENCE {
            return;
        }
        log::info!("listing again: a segment may be just being stored");
        std::thread::sleep(Duration::from_millis(500));
        for (inventory, storage) in inventories.iter_mut().zip(storages) {
            if let Ok(newer) = Inventory::read(storage.as_ref()) {
                inventory.fill_gaps(&newer);
            }
        }
    }
}

/// Whether the segment after a gap near the end was stored a moment ago.
fn has_young_gap(inventory: &Inventory, storage: &Shared, now: SystemTime) -> bool {
    inventory.timelines.iter().any(|(timeline, files)| {
        let near = |(_, last): &(u64, u64)| files.segments.last().is_some_and(|end| end - last <= AHEAD);
        files.segments.gaps().filter(near).any(|(_, last)| {
            let encryption = inventory.encryption();
            let next = Key::of(WalName::Segment(inventory.name(*timeline, last + 1)), encryption);
            let stored = storage.head(&next).map(|entry| entry.modified);
            stored.is_ok_and(|stored| now.duration_since(stored).map_or(true, |age| age < PATIENCE))
        })
    })
}

#[cfg(test)]
mod tests;
