//! All copies of one WAL file: each looked at, intact ones compared, and what is wrong put in words.
//!
//! Runs in several threads at once. A destination that refuses, or fails again and again, is left
//! alone after that has been said once.

use super::Count;
use super::examine::{Content, Seen, Wrong, examine};
use super::files::WalFile;
use super::objects::Objects;
use crate::archive::identity;
use crate::archive::inventory::Inventory;
use crate::archive::object::SHUT_HINT;
use crate::finding::{Finding, FindingKind};
use crate::object::age::Recipient;
use crate::object::{Key, Stored};
use crate::storage::giving_up::FAILED_OBJECTS;
use crate::storage::{Error, Kind, Storage};
use crate::wal::WalName;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// One object of a WAL file.
pub(super) struct FileCopy {
    pub(super) destination: usize,
    pub(super) key: Key,
    pub(super) stored: Stored,
    pub(super) size: u64,
}

/// What a worker says of one file, in order.
pub(super) enum Piece {
    /// Raw bytes of the copy at hand, for the records.
    Bytes(Vec<u8>),
    /// The copy of a segment at hand is over; whether it was intact.
    Copy(bool),
    /// The unfinished segment at hand is over; its name where it was intact.
    Partial(Option<String>),
    /// That is all.
    Done(FileChecked),
}

#[derive(Default)]
pub(super) struct FileChecked {
    pub(super) count: Count,
    pub(super) findings: Vec<Finding>,
    /// Whether the WAL file itself has an intact copy; a variant is none.
    pub(super) intact: bool,
}

/// Whether a destination is still asked.
#[derive(Default)]
pub(super) struct Patience {
    given_up: AtomicBool,
    /// Objects in a row that could not be read.
    failures: AtomicU32,
}

impl Objects<'_> {
    /// Looks at every copy of one file; says how that went, and hands over what the records are
    /// walked in.
    pub(super) fn look_at(&self, file: &WalFile, with_records: bool, answer: &mut (dyn FnMut(Piece) + Send)) {
        let mut outcome = FileChecked::default();
        let mut intact: Vec<(&FileCopy, Content)> = Vec::new();
        for copy in &file.copies {
            let at = copy.destination;
            let (Some(storage), Some(inventory), Some(patience)) =
                (self.storages.get(at), self.inventories.get(at), self.patience.get(at))
            else {
                continue;
            };
            if patience.given_up.load(Ordering::Relaxed) {
                continue;
            }
            let is_partial = copy.stored.partial().is_some();
            let is_segment = matches!(copy.stored, Stored::Wal(WalName::Segment(_), _)) && intact.is_empty();
            let piped = with_records && (is_partial || is_segment);
            let seen = self.read(storage.as_ref(), inventory, file.name, copy, piped.then_some(&mut *answer));
            let of_object = |found: &mut FileChecked| {
                patience.failures.store(0, Ordering::Relaxed);
                found.count.objects += 1;
                found.count.stored += copy.size;
            };
            match seen {
                Ok(Ok(seen)) => {
                    of_object(&mut outcome);
                    outcome.count.raw += seen.raw.unwrap_or(0);
                    outcome.count.shut += u64::from(seen.is_shut);
                    if seen.is_shut && with_records {
                        outcome.findings.push(not_walked(inventory, file.name, copy));
                    }
                    if matches!(copy.stored, Stored::Wal(..)) {
                        outcome.intact = true;
                        intact.push((copy, seen.content));
                    }
                }
                Ok(Err(wrong)) => {
                    of_object(&mut outcome);
                    outcome.findings.push(self.wrong(inventory, file.name, copy, wrong));
                }
                // Expired or quarantined since it was listed.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => {
                    let finding = patience.failed(storage.as_ref(), file.name, copy, &error);
                    outcome.findings.extend(finding);
                }
            }
        }
        outcome.findings.extend(self.compare(file.name, &intact));
        answer(Piece::Done(outcome));
    }

    /// Reads one copy.
    fn read(
        &self,
        storage: &dyn Storage,
        inventory: &Inventory,
        name: WalName,
        copy: &FileCopy,
        piped: Option<&mut (dyn FnMut(Piece) + Send)>,
    ) -> crate::storage::Result<Result<Seen, Wrong>> {
        let Some(to) = piped else {
            return examine(storage, inventory, name, copy, self.options, &mut io::sink());
        };
        let seen = examine(storage, inventory, name, copy, self.options, &mut Pipe(&mut *to));
        let intact = matches!(&seen, Ok(Ok(seen)) if !seen.is_shut);
        to(match copy.stored.partial() {
            Some(_) => Piece::Partial(copy.stored.title().filter(|_| intact)),
            None => Piece::Copy(intact),
        });
        seen
    }

    fn wrong(&self, inventory: &Inventory, name: WalName, copy: &FileCopy, (kind, reason): Wrong) -> Finding {
        let aside = copy.key.to_quarantine();
        let hint = match kind {
            FindingKind::OtherCluster => format!(
                "find out which cluster's archive this is; \"wal-archive quarantine {aside}\" moves it aside"
            ),
            _ if self.storages.len() > 1 => {
                "\"wal-archive copy --repair\" brings a good copy from another destination".to_owned()
            }
            _ => format!(
                "\"wal-archive quarantine {aside}\" moves it aside, so that a server that still has the file can push it again"
            ),
        };
        let what = format!("\"{}\" is damaged or not the file of its name: {reason}", copy.key);
        Finding::new(kind, name, &inventory.place, what).key(&copy.key).hint(hint)
    }

    /// Intact copies of one file must be equal; a variant is what differs on purpose. Destinations may
    /// have got the partial segments of two promoted servers in different order.
    fn compare(&self, name: WalName, intact: &[(&FileCopy, Content)]) -> Option<Finding> {
        let known: Vec<Recipient> = self.storages.iter().flat_map(|storage| storage.keys().known()).collect();
        let (first, other) = (1..).zip(intact).find_map(|(next, (first, content))| {
            let mut others = intact.get(next..)?.iter();
            others.find(|(_, other)| content.differs(other, &known)).map(|(other, _)| (first, other))
        })?;
        let place = |copy: &FileCopy| self.inventories.get(copy.destination).map_or("", |i| i.place.as_str());
        let kind =
            if first.destination == other.destination { FindingKind::Conflict } else { FindingKind::Differs };
        if kind == FindingKind::Differs && matches!(name, WalName::Partial(_)) {
            return None;
        }
        let what = format!(
            "\"{}/{}\" and \"{}/{}\" are both intact and hold different content",
            place(first),
            first.key,
            place(other),
            other.key
        );
        let (timeline, at) = (name.timeline(), place(other));
        Some(Finding::new(kind, name, at, what).key(&other.key).hint(format!(
            "two servers or two tools archived there: find out which file belongs to this history; \"wal-archive quarantine \
             --force --from {at} {key}\" moves this one aside, and \"--timeline {timeline}\" in place of the key all of its timeline",
            key = other.key
        )))
    }
}

impl Patience {
    /// What is to be said of an object that could not be read. A store that refuses even
    /// `archive.json` now refuses everything: that is said once, and not of every object.
    fn failed(
        &self,
        storage: &dyn Storage,
        name: WalName,
        copy: &FileCopy,
        error: &Error,
    ) -> Option<Finding> {
        let refused = error.kind() == Kind::Denied
            && identity::identity(storage).is_err_and(|error| error.kind() == Kind::Denied);
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let finding = |name: &str, what: String| {
            let hint = error.hint_text().unwrap_or("verify it again");
            Finding::new(FindingKind::NotRead, name, storage.place(), what).hint(hint)
        };
        if !refused && failures < FAILED_OBJECTS {
            let what = format!("\"{}\" could not be read: {error}", copy.key);
            return Some(finding(&name.to_string(), what).key(&copy.key));
        }
        let before = self.given_up.swap(true, Ordering::Relaxed);
        let why = if refused { "refuses every request by now" } else { "fails again and again" };
        let what = format!("the destination {why}, and was asked for nothing more: {error}");
        (!before).then(|| finding("archive.json", what))
    }
}

/// Its records are those of nobody who cannot decrypt it.
fn not_walked(inventory: &Inventory, name: WalName, copy: &FileCopy) -> Finding {
    let what = format!("the records of \"{}\" were not walked, as no identity here decrypts it", copy.key);
    Finding::new(FindingKind::NotRead, name, &inventory.place, what).key(&copy.key).hint(SHUT_HINT)
}

/// Hands raw bytes over to whoever walks the records.
struct Pipe<'a>(&'a mut (dyn FnMut(Piece) + Send));

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(Piece::Bytes(bytes.to_vec()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
