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
use crate::archive::inventory::Runs;
use crate::failure::Failure;
use crate::wal::{Branch, Lsn, SegmentName, SegmentSize, Timeline, WalName};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

/// What the destinations hold together.
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

/// A named backup and what the archive says of it.
struct Candidate {
    backup: Backup,
    complete: bool,
    why: Option<String>,
}

/// Makes the plan, or says why nothing may be deleted.
pub fn plan(facts: &Facts, named: Vec<Backup>, rules: &Rules, now: SystemTime) -> Result<Plan> {
    let mut candidates = Vec::with_capacity(named.len());
    for backup in merged(named) {
        let complete = is_complete(facts, &backup)?;
        candidates.push(Candidate { backup, complete, why: None });
    }
    candidates
        .sort_by_key(|one| std::cmp::Reverse((one.backup.finished, one.backup.start, one.backup.timeline)));
    if candidates.is_empty() {
        return Err(Failure::new(
            (),
            "no backup to keep is named, or none of them is there, so nothing may be deleted",
        )
        .hint("--label and --backups name backups; \"wal-archive list\" shows the labels that are there"));
    }
    if !candidates.iter().any(|one| one.complete) {
        return Err(Failure::new(
            (),
            "the archive holds the whole WAL from start to stop of none of the named backups, so nothing may be deleted",
        )
        .hint("name the backups that exist; \"wal-archive verify\" says what is missing"));
    }
    choose(&mut candidates, rules, now);
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
        true => Some(kept_ranges(facts, &candidates)?),
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

/// A backup that is named twice, by its label and in the list, is one.
fn merged(named: Vec<Backup>) -> impl Iterator<Item = Backup> {
    let mut backups: BTreeMap<(Lsn, Timeline), Backup> = BTreeMap::new();
    for backup in named {
        match backups.entry((backup.start, backup.timeline)) {
            Entry::Vacant(entry) => {
                entry.insert(backup);
            }
            Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                known.stop = known.stop.max(backup.stop);
                known.finished = known.finished.max(backup.finished);
                if known.label.is_empty() {
                    known.label = backup.label;
                }
            }
        }
    }
    backups.into_values()
}

/// Marks those that are kept; by several rules, what any of them keeps. `candidates` are sorted,
/// newest first, and one of them is complete.
fn choose(candidates: &mut [Candidate], rules: &Rules, now: SystemTime) {
    let all = |candidates: &mut [Candidate], why: &str| candidates.iter_mut().for_each(|one| one.keep(why));
    if rules.keep_backups.is_none() && rules.keep_days.is_none() {
        all(candidates, "named");
    }
    if let Some(count) = rules.keep_backups {
        let why = format!("one of the newest {count}");
        if candidates.iter().filter(|one| one.complete).count() < count {
            all(candidates, &format!("fewer than {count} are complete"));
        }
        candidates.iter_mut().filter(|one| one.complete).take(count).for_each(|one| one.keep(&why));
    }
    if let Some(days) = rules.keep_days {
        let begin = now.checked_sub(Duration::from_secs(24 * 3600 * u64::from(days)));
        let begin = begin.unwrap_or(SystemTime::UNIX_EPOCH);
        let (young, last) =
            (format!("of the last {days} days"), format!("the last before the last {days} days"));
        candidates.iter_mut().filter(|one| one.backup.finished > begin).for_each(|one| one.keep(&young));
        match candidates.iter_mut().find(|one| one.complete && one.backup.finished <= begin) {
            Some(one) => one.keep(&last),
            None => all(candidates, &format!("none before the last {days} days is complete")),
        }
    }
    // Perhaps its last segment is on its way.
    let newer = candidates.iter_mut().take_while(|one| !one.complete);
    newer.for_each(|one| one.keep("newer than the newest that is complete"));
}

impl Candidate {
    fn keep(&mut self, why: &str) {
        self.why.get_or_insert_with(|| why.to_owned());
    }
}

/// Whether recovery from the backup finds all it needs to become consistent, along its own
/// timeline or one that leads on from it.
fn is_complete(facts: &Facts, backup: &Backup) -> Result<bool> {
    let own = branch(facts, backup.timeline)?;
    let finds = |branch: &Branch| is_complete_along(facts, backup, branch);
    let children = facts.timelines.values().filter_map(|line| match &line.history {
        History::Known(branch) if leads(backup, branch) => Some(branch),
        _ => None,
    });
    Ok(finds(&own) || children.into_iter().any(finds))
}

fn is_complete_along(facts: &Facts, backup: &Backup, branch: &Branch) -> bool {
    let number = |lsn: Lsn| lsn.0 / facts.size.bytes();
    let (first, last) = (number(backup.start), number(last_byte(backup)));
    (first..=last).all(|number| is_there(facts, branch, backup.timeline, number))
}

/// Whether one of the files is there that serve a segment of a backup of this timeline: of the timelines
/// of the branch that had begun by then, and had not been left before. Never of an ancestor, whose file
/// of the segment in which the timeline begins has none of its records.
fn is_there(facts: &Facts, branch: &Branch, of: Timeline, number: u64) -> bool {
    let mut end = u64::MAX;
    branch.parts().any(|(timeline, begin)| {
        let begin = begin.0 / facts.size.bytes();
        // Switch points may go backwards: what was left earliest counts.
        let left = end;
        end = end.min(begin);
        let serves = timeline >= of && begin <= number && number <= left;
        serves && facts.timelines.get(&timeline).is_some_and(|line| line.segments.contains(number))
    })
}

/// Whether a backup can be recovered along a branch: its timeline was not left before its stop
/// (`xlogrecovery.c`, `CheckRecoveryConsistency` and the checks before it in `InitWalRecovery`).
/// The stop address is that behind the last byte: recovery to the end of the backup and no further
/// begins a timeline right there.
fn leads(backup: &Backup, branch: &Branch) -> bool {
    branch.passes(backup.timeline, backup.start) && branch.passes(backup.timeline, last_byte(backup))
}

/// The last address that recovery from the backup needs to become consistent.
fn last_byte(backup: &Backup) -> Lsn {
    backup.stop.map_or(backup.start, |stop| Lsn(stop.0.saturating_sub(1)).max(backup.start))
}

fn branch(facts: &Facts, timeline: Timeline) -> Result<Branch> {
    match facts.timelines.get(&timeline).map(|line| &line.history) {
        Some(History::Known(branch)) => Ok(branch.clone()),
        Some(History::Unreadable(reason)) => Err(Failure::new(
            (),
            format!(
                "the history file of timeline {timeline} cannot be read, so nothing may be deleted: {reason}"
            ),
        )
        .hint("\"wal-archive verify\" says more; \"wal-archive copy --repair\" brings a good one")),
        // PostgreSQL takes such a timeline to have no ancestors.
        Some(History::Missing) | None => Ok(Branch::without_history(timeline)),
    }
}

/// What stays of each timeline where WAL between backups goes.
fn kept_ranges(facts: &Facts, candidates: &[Candidate]) -> Result<BTreeMap<Timeline, Vec<(u64, u64)>>> {
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
    let older: BTreeSet<Timeline> = kept.iter().map(|one| one.backup.timeline).collect();
    for (timeline, line) in &facts.timelines {
        if matches!(line.history, History::Missing) && older.iter().any(|kept| kept < timeline) {
            let what = format!(
                "the history file of timeline {timeline} is missing, so nothing tells which backups lead to it"
            );
            return Err(Failure::new((), what).hint("bring the file, or do without --between-backups"));
        }
        let branch = branch(facts, *timeline)?;
        let leading = kept.iter().map(|one| &one.backup).filter(|backup| leads(backup, &branch));
        // The newest that is complete on this way; without one the newest of the others.
        let best = leading.max_by_key(|backup| (is_complete_along(facts, backup, &branch), backup.start));
        let Some(Backup { start, .. }) = best else { continue };
        let mut last = u64::MAX;
        for (part, begin) in branch.parts() {
            if let Some(ranges) = stays.get_mut(&part) {
                ranges.push((number(*start), last));
            }
            // The parent's file of the segment in which it was left is tried where the child's is missing.
            last = number(begin);
        }
    }
    Ok(stays)
}
