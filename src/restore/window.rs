//! From when to when each backup can be recovered, along each timeline.
//!
//! A time is reached where a transaction that ended later is archived; what a backup holds at its end
//! cannot be taken out of it. So a window is open at its end, and begins with the last transaction that
//! the backup holds. Its end is never later than what PostgreSQL reaches; where the server's clock was set
//! back it may be earlier.

use super::choose::{Evidence, Way, Wish};
use super::reach::Archive;
use super::target::Target;
use super::{Cause, Result, could_not};
use crate::archive::inventory::Unreadable;
use crate::base_backup::{BackupId, Record};
use crate::failure::Failure;
use crate::wal::{Branch, Lsn, SegmentName, Timeline, Walk};
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

const CONSISTENT: Wish = Wish { backup: None, target: Target::Immediate, exclusive: false, timeline: None };

fn way<'a>(
    archive: &'a Archive,
    timeline: Timeline,
    wish: &'a Wish,
) -> std::result::Result<Way<'a>, &'a Unreadable> {
    let branch = archive.inventory.branch(timeline)?;
    Ok(Way { inventory: &archive.inventory, branch, timeline, wish, evidence: archive })
}

/// What is known of windows.
pub struct Known {
    /// By backup and timeline.
    pub windows: Vec<Window>,
    /// Why others are not known: WAL at their ends is damaged. Each reason once.
    pub refused: Vec<Failure<Cause>>,
}

/// Every window. What cannot become consistent has none; damage on one timeline hides no window along another.
pub fn known_windows(archive: &Archive) -> Result<Known> {
    let mut known = Known { windows: Vec::new(), refused: Vec::new() };
    let mut ends = Ends::new();
    for record in &archive.backups {
        for timeline in archive.inventory.timelines.keys() {
            match window(archive, record, *timeline, &mut ends) {
                Ok(window) => known.windows.extend(window),
                Err(failure) if failure.kind == Cause::Refused => {
                    let failure = failure.within(&format!("how far recovery goes along timeline {timeline}"));
                    if !known.refused.contains(&failure) {
                        known.refused.push(failure);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
    }
    Ok(known)
}

/// By timeline and number of the last segment.
type Ends = BTreeMap<(Timeline, u64), End>;

fn window(archive: &Archive, record: &Record, timeline: Timeline, ends: &mut Ends) -> Result<Option<Window>> {
    let Ok(way) = way(archive, timeline, &CONSISTENT) else { return Ok(None) };
    if way.leads(record)?.is_err() {
        return Ok(None);
    }
    let (last, gap) = way.contiguous(record);
    let end = match ends.get(&(timeline, last)) {
        Some(end) => *end,
        None => {
            let end = end_of(archive, record, &way.branch, last)?;
            ends.insert((timeline, last), end);
            end
        }
    };
    let from = archive.newest_within(record, &way.branch)?.unwrap_or(record.finished);
    Ok(Some(Window {
        backup: record.id,
        timeline,
        from,
        before: end.greatest.filter(|end| *end > from),
        last_commit: end.last_commit,
        end: end.at,
        hole: gap.map(|gap| way.missing(gap)),
    }))
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

/// What the archive's records say of recovery from a segment along a timeline, to an address or to where
/// the WAL ends that is there without a hole. `None`: there is none of it.
pub fn reached(archive: &Archive, timeline: Timeline, from: Lsn, to: Option<Lsn>) -> Result<Option<Walk>> {
    let way =
        way(archive, timeline, &CONSISTENT).map_err(|unreadable| could_not(unreadable.reason.clone()))?;
    let size = archive.segment_size()?.bytes();
    let first = from.0 / size;
    let (end, _) = way.contiguous_from(first, first);
    let last = to.map_or(end, |to| to.0.saturating_sub(1) / size);
    if last > end || last < first {
        return Ok(None);
    }
    // From the last segment, and then from further and further before it: what ends there may begin there.
    let mut back = 0;
    loop {
        let begin = last.saturating_sub(back).max(first);
        let walk = archive.records(&way.branch, (begin, last), to)?;
        if begin == first || (walk.last_completed.is_some() && walk.end.is_some()) {
            return Ok(Some(walk));
        }
        back = 2 * back + 1;
    }
}

/// The first segment that shows a transaction that ended after a time, where one does.
pub fn segment(
    archive: &Archive,
    record: &Record,
    timeline: Timeline,
    time: SystemTime,
) -> Result<SegmentName> {
    let way =
        way(archive, timeline, &CONSISTENT).map_err(|unreadable| could_not(unreadable.reason.clone()))?;
    let (last, _) = way.contiguous(record);
    let ended = |number| Ok(archive.ends_in(&way.branch, number)?.greatest_completed);
    let number = first_after((record.segments().0, last), time, ended)?;
    Ok(way.branch.file(number, record.segment_size))
}

/// The first of these segments in which a transaction ended after a time, by halving: times rise from one
/// to the next, but for clocks that were set. The last one where none shows it.
fn first_after(
    (first, last): (u64, u64),
    time: SystemTime,
    mut ended: impl FnMut(u64) -> Result<Option<SystemTime>>,
) -> Result<u64> {
    let (mut low, mut high, mut found) = (first, last + 1, last);
    while low < high {
        let middle = low + (high - low) / 2;
        // Nothing may have ended in a segment of an idle server.
        let mut shown = None;
        for number in middle..high {
            shown = ended(number)?.map(|at| (number, at));
            if shown.is_some() {
                break;
            }
        }
        match shown {
            Some((number, at)) if at <= time => low = number + 1,
            Some((number, _)) => (found, high) = (number, middle),
            None => high = middle,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_first_segment_behind_a_time_is_found_by_reading_few() {
        let at = |second: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        // In every third one nothing ended.
        let ended = |number: u64| (!number.is_multiple_of(3)).then(|| at(number));
        for (first, last) in [(4, 1003), (4, 4), (5, 7)] {
            for time in first - 1..last {
                let mut reads = 0;
                let found = first_after((first, last), at(time), |number| {
                    reads += 1;
                    Ok(ended(number))
                });
                let right = (first..=last).find(|number| ended(*number) > Some(at(time)));
                assert_eq!(found.unwrap(), right.unwrap_or(last), "{time}");
                assert!(reads <= 22, "{reads}");
            }
        }
        assert_eq!(first_after((1, 9), at(5), |_| Ok(None)).unwrap(), 9);
    }
}
