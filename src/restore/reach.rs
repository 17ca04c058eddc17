//! What the destinations hold together, and what their records tell of times.

use super::choose::Evidence;
use super::{Result, could_not, refused};
use crate::archive::backups;
use crate::archive::inventory::Inventory;
use crate::archive::lookup;
use crate::archive::object::{OpenError, Opener, Verdict};
use crate::base_backup::Record;
use crate::failure::Failure;
use crate::object::Checks;
use crate::storage::Shared;
use crate::wal::{Branch, Lsn, Mark, SegmentName, Start, WalName, Walk, Walker};
use log::Level;
use std::time::SystemTime;

/// All destinations seen as one.
pub struct Archive {
    pub inventory: Inventory,
    /// Complete at one of them at least, in the order of their beginning.
    pub backups: Vec<Record>,
    /// Those that answered.
    pub destinations: Vec<Shared>,
}

/// Looks at every destination. One that cannot be listed is passed over, while another one can.
pub fn look(destinations: &[Shared]) -> Result<Archive> {
    let (mut archive, mut failed): (Option<Archive>, _) = (None, None);
    for storage in destinations {
        let looked = Inventory::read_archive(storage.as_ref())
            .and_then(|inventory| Ok((inventory, backups::all(storage.as_ref())?)));
        let (inventory, held) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                let failure = Failure::from_storage(super::Cause::CouldNot, &error);
                failure.log(Level::Warn);
                failed.get_or_insert(failure);
                continue;
            }
        };
        let complete = held.iter().filter_map(|held| held.record()).cloned();
        match &mut archive {
            None => {
                let destinations = vec![storage.clone()];
                archive = Some(Archive { inventory, backups: complete.collect(), destinations });
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
                for record in complete {
                    if !archive.backups.iter().any(|known| known.id == record.id) {
                        archive.backups.push(record);
                    }
                }
            }
        }
    }
    let mut archive = archive.ok_or_else(|| failed.unwrap_or_else(|| could_not("no archive is named")))?;
    archive.backups.sort_by_key(|record| record.id);
    Ok(archive)
}

impl Archive {
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
                    failed = Some(Failure::from_storage(super::Cause::CouldNot, &error));
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
                        other => {
                            let what = format!("\"{}/{key}\" is {other}", storage.place());
                            failed =
                                Some(refused(what).hint("\"wal-archive verify\" shows what else is damaged"));
                        }
                    },
                    Ok(None) => {}
                    Err(OpenError::Storage(error)) => {
                        failed = Some(Failure::from_storage(super::Cause::CouldNot, &error));
                    }
                    Err(OpenError::Output(error)) => failed = Some(could_not(error.to_string())),
                }
            }
        }
        Err(failed.unwrap_or_else(|| refused(format!("\"{segment}\" is not in the archive any more"))))
    }

    /// What the records of one segment tell.
    pub(super) fn ends_in(&self, branch: &Branch, number: u64) -> Result<Walk> {
        let size =
            self.inventory.segment_size.ok_or_else(|| could_not("the size of a segment is not known"))?;
        let mut walker = Walker::new(Start::Anywhere);
        self.walk(branch.file(number, size), &mut walker)?;
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
