//! From when to when each backup can be recovered, along each timeline.
//!
//! A time is reached where a transaction that ended later is archived; what a backup holds at its end
//! cannot be taken out of it. So a window is open at its end, and begins with the last transaction that
//! the backup holds. Its end is never later than what PostgreSQL reaches; where the server's clock was set
//! back it may be earlier.

use super::choose::{Evidence, Way, Wish};
use super::reach::Archive;
use super::target::Target;
use super::{Result, could_not};
use crate::base_backup::{BackupId, Record};
use crate::wal::{Branch, Lsn, SegmentName, Timeline};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// What can be recovered from a backup along a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub backup: BackupId,
    pub timeline: Timeline,
    /// The first time that may be a target.
    pub from: SystemTime,
    /// Every target is before this; `None`: no transaction ended after the backup.
    pub before: Option<SystemTime>,
    pub last_commit: Option<SystemTime>,
    /// Where the WAL ends that is there without a hole.
    pub end: Option<Lsn>,
    /// What is missing then, where later WAL is there.
    pub hole: Option<String>,
}

/// The end of a stretch of WAL.
#[derive(Clone, Copy, Default)]
struct End {
    greatest: Option<SystemTime>,
    last_commit: Option<SystemTime>,
    at: Option<Lsn>,
}

/// So many more segments are read behind the first that shows the end of a transaction.
const BEHIND: u64 = 2;

/// Every window, by backup and timeline. What cannot become consistent has none.
pub fn windows(archive: &Archive) -> Result<Vec<Window>> {
    let wish = Wish { backup: None, target: Target::Immediate, exclusive: false, timeline: None };
    let mut windows = Vec::new();
    let mut ends: BTreeMap<(Timeline, u64), End> = BTreeMap::new();
    for record in &archive.backups {
        for timeline in archive.inventory.timelines.keys() {
            let Ok(branch) = archive.inventory.branch(*timeline) else { continue };
            let way = Way {
                inventory: &archive.inventory,
                branch,
                timeline: *timeline,
                wish: &wish,
                evidence: archive,
            };
            if way.leads(record)?.is_err() {
                continue;
            }
            let (last, gap) = way.contiguous(record);
            let end = match ends.get(&(*timeline, last)) {
                Some(end) => *end,
                None => {
                    let end = end_of(archive, record, &way.branch, last)?;
                    ends.insert((*timeline, last), end);
                    end
                }
            };
            let from = archive.newest_within(record, &way.branch)?.unwrap_or(record.finished);
            windows.push(Window {
                backup: record.id,
                timeline: *timeline,
                from,
                before: end.greatest.filter(|end| *end > from),
                last_commit: end.last_commit,
                end: end.at,
                hole: gap.map(|gap| way.missing(gap)),
            });
        }
    }
    Ok(windows)
}

fn end_of(archive: &Archive, record: &Record, branch: &Branch, last: u64) -> Result<End> {
    let mut end = End::default();
    let mut more = BEHIND;
    for number in (record.segments().0..=last).rev() {
        let walk = archive.ends_in(branch, number)?;
        if number == last {
            end.at = walk.end;
        }
        end.greatest = end.greatest.max(walk.greatest_completed);
        end.last_commit = end.last_commit.or(walk.last_commit);
        if end.greatest.is_some() {
            if more == 0 {
                break;
            }
            more -= 1;
        }
    }
    Ok(end)
}

/// The first segment that shows a transaction that ended after a time.
pub fn segment(
    archive: &Archive,
    record: &Record,
    timeline: Timeline,
    time: SystemTime,
) -> Result<SegmentName> {
    let branch =
        archive.inventory.branch(timeline).map_err(|unreadable| could_not(unreadable.reason.clone()))?;
    let mut number = record.segments().0;
    loop {
        if archive.ends_in(&branch, number)?.greatest_completed.is_some_and(|ended| ended > time) {
            return Ok(branch.file(number, record.segment_size));
        }
        number += 1;
    }
}
