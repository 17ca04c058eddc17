//! Which WAL files no kept backup needs: a pure plan.
//!
//! Recovery from a backup begins with the segment of its start address and asks for every later
//! one along the branch that leads to the target timeline (PostgreSQL
//! `src/backend/access/transam/xlogrecovery.c`, `XLogFileReadAnyTLI`: the newest timeline of the
//! branch that had begun by then and whose file is there). So files of a lower segment number
//! than the start of the oldest kept backup go, whatever their timeline, as with pg_archivecleanup.
//!
//! Between backups more can go: each kept backup keeps the segments from its start to its stop on
//! every timeline, since the last of them may exist only under a child's name; and for each timeline
//! the newest kept backup that leads to it keeps everything from its start to the timeline's end.
//!
//! In doubt a file stays: a backup that is incomplete does not count as one of those to keep, a
//! timeline that the plan does not know is not touched, and what cannot be told is an error.

use super::backups::Backup;
use super::choose::{Candidate, branch, choose, is_complete_along, leads, recovers_at};
use crate::archive::inventory::Runs;
use crate::failure::Failure;
use crate::wal::{Branch, Lsn, SegmentName, SegmentSize, Timeline, WalName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

/// What one destination holds, or all of them together.
#[derive(Clone, Debug)]
pub struct Facts {
    pub size: SegmentSize,
    /// Every timeline that has any file.
    pub timelines: BTreeMap<Timeline, Line>,
}

#[derive(Clone, Debug)]
pub struct Line {
    /// How it came to be.
    pub history: History,
    /// The numbers of the segments that can be restored.
    pub segments: Runs,
    /// When the newest of them was stored.
    pub stored: Option<SystemTime>,
}

/// One of several destinations. It knows the timelines that any of them knows, with its own segments.
#[derive(Clone, Debug)]
pub struct Place {
    pub name: String,
    pub facts: Facts,
}

/// What is known of a timeline's ancestors.
#[derive(Clone, Debug)]
pub enum History {
    Known(Branch),
    /// Nothing: it has segments and no history file.
    Missing,
    /// Nothing: its history file cannot be read. Why.
    Unreadable(String),
}

/// What is to be kept. With no rule but the names, every named backup is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// The newest so many that are complete.
    pub keep_backups: Option<usize>,
    /// What recovers to any moment of so many days.
    pub keep_days: Option<u32>,
    /// Nothing from here on goes.
    pub before: Option<Before>,
    /// Whether WAL between kept backups goes.
    pub between_backups: bool,
}

/// A place in the WAL, whatever the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    Segment(SegmentName),
    /// The segment that holds the address.
    Address(Lsn),
}

#[derive(Clone, Debug)]
pub struct Plan {
    /// The named backups, newest first, and what becomes of each.
    pub backups: Vec<(Backup, Fate)>,
    size: SegmentSize,
    /// The number of the segment in which the oldest kept backup starts.
    oldest: u64,
    before: Option<u64>,
    /// Between backups: what stays of each timeline, first and last of each range.
    kept: Option<BTreeMap<Timeline, Vec<(u64, u64)>>>,
}

/// What becomes of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its WAL stays. Why.
    Kept(String),
    /// Nothing is kept for it.
    Dropped,
}

/// Why a file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is older than the start of the oldest kept backup.
    Older,
    /// It lies between kept backups, or on a timeline that none of them leads to.
    Between,
}

type Result<T> = std::result::Result<T, Failure>;

/// Makes the plan, or says why nothing may be deleted. `places`: where there are several destinations,
/// what each holds.
pub fn plan(
    facts: &Facts,
    places: &[Place],
    named: Vec<Backup>,
    rules: &Rules,
    now: SystemTime,
) -> Result<Plan> {
    let mut candidates = choose(facts, places, named, rules, now)?;
    let number = |lsn: Lsn| lsn.0 / facts.size.bytes();
    let starts = candidates.iter().filter(|one| one.why.is_some()).map(|one| number(one.backup.start));
    let oldest = starts.min().unwrap_or(0);
    let before = rules.before.map(|before| match before {
        Before::Address(lsn) => Ok(number(lsn)),
        Before::Segment(segment) => segment.number(facts.size).ok_or_else(|| {
            Failure::new((), format!("no segment of {} has the name \"{segment}\"", facts.size))
        }),
    });
    let before = before.transpose()?;
    let kept = match rules.between_backups {
        true => Some(kept_ranges(facts, places, &candidates)?),
        false => {
            for one in candidates.iter_mut().filter(|one| one.why.is_none()) {
                if number(one.backup.start) >= oldest {
                    one.why = Some("not older than the oldest that is kept".to_owned());
                }
            }
            None
        }
    };
    let backups = candidates.into_iter().map(|one| {
        let fate = one.why.map_or(Fate::Dropped, |why| match one.complete {
            true => Fate::Kept(why),
            false => Fate::Kept(format!("{why}; its WAL is incomplete")),
        });
        (one.backup, fate)
    });
    Ok(Plan { backups: backups.collect(), size: facts.size, oldest, before, kept })
}

impl Plan {
    /// Whether a WAL file goes, and why. History files never do.
    pub fn deletes(&self, name: WalName) -> Option<Why> {
        let segment = name.segment()?;
        let number = segment.number(self.size)?;
        if self.before.is_some_and(|before| number >= before) {
            return None;
        }
        if number < self.oldest {
            return Some(Why::Older);
        }
        // A timeline that came since the plan was made is not in it.
        let kept = self.kept.as_ref()?.get(&segment.timeline())?;
        let stays = kept.iter().any(|(first, last)| (*first..=*last).contains(&number));
        (!stays).then_some(Why::Between)
    }

    /// Which of these segments go.
    pub fn of(&self, timeline: Timeline, segments: &Runs) -> Runs {
        let numbers = segments.ranges().flat_map(|(first, last)| first..=last);
        numbers.filter(|n| self.deletes(WalName::Segment(self.name(timeline, *n))).is_some()).collect()
    }

    /// The segment with a number.
    pub fn name(&self, timeline: Timeline, number: u64) -> SegmentName {
        SegmentName::numbered(timeline, number, self.size)
    }

    /// The number of a segment, for whoever groups them.
    pub fn number(&self, segment: SegmentName) -> Option<u64> {
        segment.number(self.size)
    }
}

/// What stays of each timeline where WAL between backups goes.
fn kept_ranges(
    facts: &Facts,
    places: &[Place],
    candidates: &[Candidate],
) -> Result<BTreeMap<Timeline, Vec<(u64, u64)>>> {
    let number = |lsn: Lsn| lsn.0 / facts.size.bytes();
    let kept: Vec<_> = candidates.iter().filter(|one| one.why.is_some()).collect();
    let mut ranges = Vec::with_capacity(kept.len());
    for Candidate { backup, .. } in &kept {
        let stop = backup.stop.ok_or_else(|| {
            let what = format!("where the backup that starts at {} stops is not known", backup.start);
            Failure::new((), what).hint("--between-backups needs STOP_LSN in each line of the list")
        })?;
        ranges.push((number(backup.start), number(stop)));
    }
    let mut stays: BTreeMap<Timeline, Vec<(u64, u64)>> =
        facts.timelines.keys().map(|timeline| (*timeline, ranges.clone())).collect();
    let is_newest = |timeline| facts.timelines.keys().next_back() == Some(timeline);
    let older: BTreeSet<Timeline> = kept.iter().map(|one| one.backup.timeline).collect();
    for (timeline, line) in &facts.timelines {
        if matches!(line.history, History::Missing) && older.iter().any(|kept| kept < timeline) {
            let what = format!(
                "the history file of timeline {timeline} is missing, so nothing tells which backups lead to it"
            );
            return Err(Failure::new((), what).hint("bring the file, or do without --between-backups"));
        }
        let branch = branch(facts, *timeline)?;
        let backups = || kept.iter().map(|one| &one.backup);
        let leading = backups().filter(|backup| leads(backup, &branch));
        // The newest that is complete on this way; without one the newest of the others.
        let together = leading.max_by_key(|backup| (is_complete_along(facts, backup, &branch), backup.start));
        let alone = places.iter().enumerate().filter_map(|place| {
            let complete = backups().filter(|backup| recovers_at(place, backup, &branch));
            complete.max_by_key(|backup| backup.start)
        });
        let Some(start) = together.into_iter().chain(alone).map(|backup| backup.start).min() else {
            // What is written now stays: the first backup of it may be on its way.
            if let Some(ranges) = stays.get_mut(timeline).filter(|_| is_newest(timeline)) {
                ranges.push((0, u64::MAX));
            }
            continue;
        };
        let mut last = u64::MAX;
        for (part, begin) in branch.parts() {
            if let Some(ranges) = stays.get_mut(&part) {
                ranges.push((number(start), last));
            }
            // The parent's file of the segment in which it was left is tried where the child's is missing.
            last = number(begin);
        }
    }
    Ok(stays)
}
