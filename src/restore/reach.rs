//! What the destinations hold together, and what their records tell of times.

use super::choose::Evidence;
use super::{Cause, Result, could_not, refused};
use crate::archive::backups::{self, Held, State};
use crate::archive::identity;
use crate::archive::inventory::Inventory;
use crate::archive::lookup;
use crate::archive::object::{OpenError, Opener, SHUT_HINT, Verdict};
use crate::base_backup::{BackupId, Record};
use crate::failure::Failure;
use crate::object::{Checks, Encryption};
use crate::storage::{self, Shared};
use crate::wal::{Branch, Lsn, Mark, SegmentName, SegmentSize, Start, WalName, Walk, Walker};
use log::Level;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// All destinations seen as one.
pub struct Archive {
    pub inventory: Inventory,
    /// Those of which everything is there, at one destination or another, in the order of their beginning.
    pub backups: Vec<Record>,
    /// Those that answered.
    pub destinations: Vec<Shared>,
    /// What is known of each backup.
    sources: BTreeMap<BackupId, Vec<Source>>,
    /// Why a destination could not be asked.
    unasked: Option<Failure<Cause>>,
    /// Why one that was asked answers no wal-fetch of this host.
    sealed: Option<Failure<Cause>>,
}

/// A destination with its own record of a backup.
#[derive(Clone)]
pub struct Source {
    pub storage: Shared,
    pub record: Record,
    /// Whether it has all of it, as far as its listing shows.
    pub whole: bool,
}

/// Looks at every destination. One that cannot be asked is passed over, while another one can.
pub fn look(destinations: &[Shared]) -> Result<Archive> {
    together(destinations.iter().map(|storage| {
        let read = |inventory| Ok((inventory, backups::all(storage.as_ref())?));
        (storage, Inventory::read_archive(storage.as_ref()).and_then(read))
    }))
}

/// The same of what was listed already: each destination, and what it holds.
pub fn together<'s>(
    destinations: impl IntoIterator<Item = (&'s Shared, storage::Result<(Inventory, Vec<Held>)>)>,
) -> Result<Archive> {
    let (mut archive, mut unasked, mut sealed): (Option<Archive>, _, _) = (None, None, None);
    let mut held: BTreeMap<BackupId, Vec<(Shared, Held)>> = BTreeMap::new();
    for (storage, listed) in destinations {
        let looked = listed.and_then(|listed| {
            identity::refuse_plain(storage.as_ref(), listed.0.identity.as_ref())?;
            Ok(listed)
        });
        let (inventory, all) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                let failure = Failure::from_storage(Cause::CouldNot, &error);
                failure.log(Level::Warn);
                unasked.get_or_insert(failure);
                continue;
            }
        };
        let encryption = inventory.identity.map_or(Encryption::None, |identity| identity.encryption);
        if encryption == Encryption::Age && storage.keys().identities.is_empty() {
            let what =
                format!("\"{}\" is encrypted, and there is no identity to decrypt it", storage.place());
            sealed.get_or_insert(could_not(what).hint(SHUT_HINT));
        }
        match &mut archive {
            None => {
                archive = Some(Archive {
                    inventory,
                    backups: Vec::new(),
                    destinations: vec![storage.clone()],
                    sources: BTreeMap::new(),
                    unasked: None,
                    sealed: None,
                });
            }
            Some(archive) => {
                if archive.inventory.system_id != inventory.system_id {
                    let what = format!(
                        "\"{}\" and \"{}\" are not archives of one cluster",
                        archive.inventory.place, inventory.place
                    );
                    return Err(could_not(what).hint("name the destinations of one cluster"));
                }
                archive.inventory.absorb(&inventory);
                archive.destinations.push(storage.clone());
            }
        }
        for one in all {
            held.entry(one.id).or_default().push((storage.clone(), one));
        }
    }
    let Some(mut archive) = archive else {
        return Err(unasked.unwrap_or_else(|| could_not("no archive is named")));
    };
    (archive.unasked, archive.sealed) = (unasked, sealed);
    archive.take(held);
    Ok(archive)
}

impl Archive {
    fn take(&mut self, held: BTreeMap<BackupId, Vec<(Shared, Held)>>) {
        for (id, copies) in held {
            for (storage, held) in &copies {
                if let State::Damaged(_, reason) | State::Unreadable(reason) = &held.state {
                    log::warn!("the backup {id} in \"{}\" is damaged: {reason}", storage.place());
                }
            }
            let whole = backups::whole_together(copies.iter().map(|(_, held)| held));
            self.backups.extend(whole.cloned());
            let source = |(storage, held): (Shared, Held)| {
                Some(Source { storage, record: held.known()?.clone(), whole: held.record().is_some() })
            };
            self.sources.insert(id, copies.into_iter().filter_map(source).collect());
        }
    }

    /// Where a backup, or something of it, is.
    pub fn sources(&self, id: BackupId) -> &[Source] {
        self.sources.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Why a destination could not be asked, whose WAL may lead further.
    pub fn unasked(&self) -> Option<&str> {
        self.unasked.as_ref().map(|failure| failure.message.as_str())
    }

    /// Why wal-fetch on this host never gets to say that a file is nowhere, which ends every recovery.
    pub fn silent(&self) -> Option<&Failure<Cause>> {
        self.unasked.as_ref().or(self.sealed.as_ref())
    }

    /// A refusal, which is none where somebody who was not asked might have what is missing.
    pub fn undecided(&self, failure: Failure<Cause>) -> Failure<Cause> {
        match (failure.kind, &self.unasked) {
            (Cause::Refused, Some(unasked)) => Failure {
                kind: Cause::CouldNot,
                message: format!(
                    "{}; and a destination could not be asked: {}",
                    failure.message, unasked.message
                ),
                hint: unasked.hint.clone(),
            },
            _ => failure,
        }
    }

    /// Walks the records of one segment.
    fn walk(&self, segment: SegmentName, walker: &mut Walker) -> Result<()> {
        let name = WalName::Segment(segment);
        let opener = Opener::of_any_cluster(Checks::Header);
        let mut failed = None;
        for storage in &self.destinations {
            let plain = storage.nature().is_directory() || self.inventory.root_is_read;
            let copies = match lookup::copies(storage.as_ref(), name, plain) {
                Ok(copies) => copies.keys,
                Err(error) => {
                    failed = Some(Failure::from_storage(Cause::CouldNot, &error));
                    continue;
                }
            };
            for key in copies {
                let mut attempt = walker.clone();
                attempt.begin(segment);
                match opener.open(storage.as_ref(), &key, &mut attempt) {
                    Ok(Some(opened)) => match opened.verdict {
                        Verdict::Intact(_) => {
                            *walker = attempt;
                            return Ok(());
                        }
                        shut @ Verdict::Shut(_) => {
                            let what = format!("\"{}/{key}\" is {shut}", storage.place());
                            failed = Some(could_not(what).hint(SHUT_HINT));
                        }
                        other => {
                            let what = format!("\"{}/{key}\" is {other}", storage.place());
                            failed =
                                Some(refused(what).hint("\"wal-archive verify\" shows what else is damaged"));
                        }
                    },
                    Ok(None) => {}
                    Err(OpenError::Storage(error)) => {
                        failed = Some(Failure::from_storage(Cause::CouldNot, &error));
                    }
                    Err(OpenError::Output(error)) => failed = Some(could_not(error.to_string())),
                }
            }
        }
        Err(failed.unwrap_or_else(|| refused(format!("\"{segment}\" is not in the archive any more"))))
    }

    pub(super) fn segment_size(&self) -> Result<SegmentSize> {
        self.inventory.segment_size.ok_or_else(|| could_not("the size of a segment is not known"))
    }

    /// What the records of one segment tell.
    pub(super) fn ends_in(&self, branch: &Branch, number: u64) -> Result<Walk> {
        self.records(branch, (number, number), None)
    }

    /// What those of some segments tell, up to an address.
    pub(super) fn records(
        &self,
        branch: &Branch,
        (first, last): (u64, u64),
        until: Option<Lsn>,
    ) -> Result<Walk> {
        let size = self.segment_size()?;
        let mut walker = Walker::new(Start::Anywhere);
        if let Some(until) = until {
            walker = walker.until(until);
        }
        for number in first..=last {
            self.walk(branch.file(number, size), &mut walker)?;
        }
        Ok(walker.walk())
    }
}

impl Evidence for Archive {
    fn newest_within(&self, record: &Record, branch: &Branch) -> Result<Option<SystemTime>> {
        let (first, last) = record.segments();
        let mut walker = Walker::new(Start::At(record.id.start)).until(record.stop);
        for number in first..=last {
            self.walk(branch.file(number, record.segment_size), &mut walker)?;
        }
        Ok(walker.walk().greatest_completed)
    }

    fn ended_after(
        &self,
        branch: &Branch,
        (first, last): (u64, u64),
        time: SystemTime,
    ) -> Result<std::result::Result<(), Option<SystemTime>>> {
        let mut greatest = None;
        // From the end: the times rise, if not from record to record.
        for number in (first..=last).rev() {
            let ended = self.ends_in(branch, number)?.greatest_completed;
            greatest = greatest.max(ended);
            if ended.is_some_and(|ended| ended > time) {
                return Ok(Ok(()));
            }
            let long_before = |ended: SystemTime| ended.checked_add(DISORDER).is_some_and(|at| at < time);
            if ended.is_some_and(long_before) {
                break;
            }
        }
        Ok(Err(greatest))
    }

    fn last_record(&self, branch: &Branch, (first, last): (u64, u64)) -> Result<Option<Lsn>> {
        for number in (first..=last).rev() {
            if let Some(begin) = self.ends_in(branch, number)?.last {
                return Ok(Some(begin));
            }
        }
        Ok(None)
    }

    fn first(&self, record: &Record, branch: &Branch, last: u64, mark: &Mark) -> Result<Option<Lsn>> {
        let mut walker = Walker::new(Start::At(record.id.start)).looking_for(mark.clone());
        for number in record.segments().0..=last {
            self.walk(branch.file(number, record.segment_size), &mut walker)?;
            if let Some(found) = walker.walk().marked {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// By so much two servers' clocks, or one that was set, may make the times of the records fall.
const DISORDER: std::time::Duration = std::time::Duration::from_secs(3600);
