//! Which backup is restored, along which timeline, and whether the WAL leads to the target; if not, what
//! is missing. Pure: what is in the segments is asked of [`Evidence`].

use super::target::Target;
use super::{Cause, Result, could_not, refused};
use crate::archive::backups::{newest_without_backup, passes};
use crate::archive::inventory::{Gap, Inventory, Unreadable};
use crate::base_backup::{BackupId, Record};
use crate::failure::{Failure, exact_time};
use crate::wal::{Branch, Lsn, Mark, Timeline};
use std::time::{Duration, SystemTime};

/// What is restored.
#[derive(Clone, Debug)]
pub struct Choice {
    pub record: Record,
    /// To which recovery goes.
    pub timeline: Timeline,
    pub target: Target,
    /// The newest timeline, where no backup that may be taken leads to it, and none was asked for.
    pub unreached: Option<Timeline>,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// `None`: the newest that leads there.
    pub backup: Option<BackupId>,
    pub target: Target,
    /// Whether the target itself is left out.
    pub exclusive: bool,
    /// `None`: the newest timeline.
    pub timeline: Option<Timeline>,
}

/// What only the records tell.
pub trait Evidence {
    /// When the last transaction ended, by time, that a backup holds at its stop. `None`: none that its
    /// WAL shows.
    fn newest_within(&self, record: &Record, branch: &Branch) -> Result<Option<SystemTime>>;

    /// Whether a transaction ended after a time in these segments of a branch; else the last one that did
    /// end, as far as it was looked for.
    fn ended_after(
        &self,
        branch: &Branch,
        segments: (u64, u64),
        time: SystemTime,
    ) -> Result<std::result::Result<(), Option<SystemTime>>>;

    /// Where the last record of these segments of a branch begins.
    fn last_record(&self, branch: &Branch, segments: (u64, u64)) -> Result<Option<Lsn>>;

    /// Where the first record of that kind begins, from the start of a backup to a segment.
    fn first(&self, record: &Record, branch: &Branch, last: u64, mark: &Mark) -> Result<Option<Lsn>>;
}

/// Chooses, or says why there is nothing to choose.
pub fn choose(
    inventory: &Inventory,
    backups: &[Record],
    wish: &Wish,
    evidence: &dyn Evidence,
) -> Result<Choice> {
    let named: Vec<&Record> =
        backups.iter().filter(|record| wish.backup.is_none_or(|id| id == record.id)).collect();
    if named.is_empty() {
        return Err(match wish.backup {
            Some(id) => refused(format!("there is no complete backup {id}")),
            None => refused("there is no complete backup"),
        }
        .hint("\"wal-archive list\" shows the backups"));
    }
    let timeline = match wish.timeline {
        Some(timeline) => timeline,
        None => newest_timeline(inventory, &named)?,
    };
    if timeline != Timeline::FIRST && !inventory.timelines.contains_key(&timeline) {
        return Err(refused(format!("nothing of timeline {timeline} is in the archive"))
            .hint("\"wal-archive list\" shows the timelines"));
    }
    let unreached = match wish.timeline {
        Some(_) => None,
        None => newest_without_backup(inventory, named.iter().copied()),
    };
    if let (Some(newest), Target::End, None) = (unreached, &wish.target, wish.backup) {
        return Err(unled(newest).hint(format!(
            "\"wal-archive backup\" takes one of the server that is on it; \"wal-archive restore --target-timeline \
             {timeline}\" goes along timeline {timeline} instead"
        )));
    }
    let branch = inventory.branch(timeline).map_err(|unreadable| unknown_way(timeline, unreadable))?;
    let way = Way { inventory, branch, timeline, wish, evidence };
    let mut why: Option<(Failure<Cause>, bool)> = None;
    // The newest one first; why the newest does not lead there that is on the way is said.
    for record in named.iter().rev() {
        match way.leads(record)? {
            Ok(()) => {
                let (record, target) = ((*record).clone(), wish.target.clone());
                return Ok(Choice { record, timeline, target, unreached });
            }
            Err(reason) => {
                let passes = passes(&way.branch, record);
                if why.as_ref().is_none_or(|(_, passed)| passes && !passed) {
                    why = Some((reason, passes));
                }
            }
        }
    }
    Err(why.map_or_else(|| could_not("no backup was looked at"), |(reason, _)| reason))
}

/// The newest timeline that any of the backups leads to; that of the newest one where none has a child.
fn newest_timeline(inventory: &Inventory, backups: &[&Record]) -> Result<Timeline> {
    for timeline in inventory.timelines.keys().rev() {
        let branch = inventory.branch(*timeline).map_err(|unreadable| unknown_way(*timeline, unreadable))?;
        if backups.iter().any(|record| passes(&branch, record)) {
            return Ok(*timeline);
        }
    }
    let last = backups.last().map(|record| record.stop_timeline);
    last.ok_or_else(|| could_not("no backup was looked at"))
}

/// What was written on the newest timeline cannot be recovered.
pub fn unled(newest: Timeline) -> Failure<Cause> {
    refused(format!("no base backup leads to timeline {newest}, the newest"))
        .hint("take one of the server that is on it with \"wal-archive backup\"")
}

/// Nobody knows whether a backup leads to a timeline.
fn unknown_way(timeline: Timeline, unreadable: &Unreadable) -> Failure<Cause> {
    let Unreadable { key, reason, damaged, .. } = unreadable;
    let what = format!("the way to timeline {timeline} is not known: \"{key}\": {reason}");
    let kind = if *damaged { Cause::Refused } else { Cause::CouldNot };
    Failure::new(kind, what).hint("repair it, or name another timeline with --target-timeline")
}

/// One timeline to recover to.
pub(super) struct Way<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) branch: Branch,
    pub(super) timeline: Timeline,
    pub(super) wish: &'a Wish,
    pub(super) evidence: &'a dyn Evidence,
}

impl Way<'_> {
    /// Whether recovery from a backup gets to the target; the inner error says why not.
    pub(super) fn leads(&self, record: &Record) -> Result<std::result::Result<(), Failure<Cause>>> {
        let id = record.id;
        if !passes(&self.branch, record) {
            let what = format!(
                "the backup {id} of timeline {} does not lead to timeline {}",
                id.timeline, self.timeline
            );
            return Ok(Err(refused(what).hint("name another --target-timeline, or leave it out")));
        }
        let (first, consistent) = record.segments();
        if let Some(gap) = self.first_gap(first, consistent) {
            let what =
                format!("the backup {id} cannot become consistent: {} in the archive", self.missing(gap));
            return Ok(Err(refused(what).hint("its WAL may still be on its way: look at pg_stat_archiver")));
        }
        match &self.wish.target {
            Target::Immediate => Ok(Ok(())),
            Target::End => Ok(self.whole(record, consistent)),
            Target::Lsn(lsn) => self.reaches_address(record, *lsn),
            Target::Time(time) => self.reaches_time(record, *time),
            Target::Mark(mark) => self.reaches_mark(record, mark),
        }
    }

    fn first_gap(&self, first: u64, last: u64) -> Option<Gap> {
        self.inventory.missing(&self.branch, first, last).into_iter().min_by_key(|gap| gap.first)
    }

    pub(super) fn missing(&self, gap: Gap) -> String {
        let name = |number| self.inventory.name(gap.timeline, number);
        match gap.first == gap.last {
            true => format!("\"{}\" is not", name(gap.first)),
            false => format!("\"{}\" to \"{}\" are not", name(gap.first), name(gap.last)),
        }
    }

    /// The newest segment of the branch that is there, or that another file shows.
    fn newest(&self) -> Option<u64> {
        let of = |timeline| {
            let files = self.inventory.timelines.get(&timeline)?;
            files.segments.last().max(self.inventory.newest_shown(timeline))
        };
        let size = self.inventory.segment_size?.bytes();
        let mut end = u64::MAX;
        let mut newest = None;
        for (timeline, begin) in self.branch.parts() {
            newest = newest.max(of(timeline).map(|last| last.min(end)));
            end = (begin.0 / size).saturating_sub(1);
        }
        newest
    }

    /// Nothing is missing up to the newest segment: what is behind a hole would be lost without a word.
    fn whole(&self, record: &Record, consistent: u64) -> std::result::Result<(), Failure<Cause>> {
        let last = self.newest().unwrap_or(consistent).max(consistent);
        match self.first_gap(record.segments().0, last) {
            None => Ok(()),
            Some(gap) => Err(refused(format!(
                "recovery cannot get to the end of timeline {}: {} in the archive",
                self.timeline,
                self.missing(gap)
            ))
            .hint("find it on a server or standby; or recover to a time before the hole with --target-time")),
        }
    }

    fn before_stop(&self, record: &Record, what: &str) -> Failure<Cause> {
        refused(format!("{what} lies before the backup {} is consistent, at {}", record.id, record.stop))
            .hint("no older backup leads there; \"wal-archive list\" shows them")
    }

    /// PostgreSQL stops at the first record that begins there or later (`xlogrecovery.c`,
    /// `recoveryStopsBefore` and `recoveryStopsAfter`), not in the padding of the last segment.
    fn reaches_address(&self, record: &Record, lsn: Lsn) -> Result<std::result::Result<(), Failure<Cause>>> {
        if lsn < record.stop {
            return Ok(Err(self.before_stop(record, &format!("the address {lsn}"))));
        }
        let number = lsn.0 / record.segment_size.bytes();
        if let Some(gap) = self.first_gap(record.segments().0, number) {
            let what = format!("the address {lsn} cannot be reached: {} in the archive", self.missing(gap));
            return Ok(Err(refused(what).hint("\"wal-archive list\" shows how far the WAL goes")));
        }
        let (last, _) = self.contiguous(record);
        let known = match self.evidence.last_record(&self.branch, (number, last))? {
            Some(begin) if begin >= lsn => return Ok(Ok(())),
            Some(begin) => format!("the last record of the archived WAL begins at {begin}"),
            None => "no record begins there or later in the archived WAL".to_owned(),
        };
        let what = format!("the address {lsn} cannot be reached: {known}");
        Ok(Err(refused(what).hint("without a target recovery goes to the end")))
    }

    fn reaches_time(
        &self,
        record: &Record,
        time: SystemTime,
    ) -> Result<std::result::Result<(), Failure<Cause>>> {
        let shown = exact_time(time).unwrap_or_default();
        // What the backup holds cannot be taken out of it. Where its WAL shows no end of a transaction, only
        // what is after it is certain.
        let holds = self.evidence.newest_within(record, &self.branch)?.unwrap_or(record.finished);
        if time < holds || (self.wish.exclusive && time == holds) {
            return Ok(Err(self.before_stop(record, &format!("the time {shown}"))));
        }
        let first = record.segments().0;
        let (last, gap) = self.contiguous(record);
        // Without the target itself it stops before the first that ended then or later.
        let after = if self.wish.exclusive { time - Duration::from_micros(1) } else { time };
        let last_end = match self.evidence.ended_after(&self.branch, (first, last), after)? {
            Ok(()) => return Ok(Ok(())),
            Err(last_end) => last_end,
        };
        let known = match last_end.and_then(exact_time) {
            Some(end) => format!("the last transaction that the archived WAL shows ended at {end}"),
            None => "the archived WAL shows no transaction that ended".to_owned(),
        };
        let hole = gap.map_or_else(String::new, |gap| format!(", and {}", self.missing(gap)));
        let what = format!("the time {shown} cannot be reached: {known}{hole}");
        Ok(Err(refused(what).hint(
            "PostgreSQL recovers to a time only where a later transaction follows; without a target it goes to the end",
        )))
    }

    /// The last segment before the first hole, and the hole.
    pub(super) fn contiguous(&self, record: &Record) -> (u64, Option<Gap>) {
        let (first, consistent) = record.segments();
        self.contiguous_from(first, consistent)
    }

    /// The same from one segment on, at least to another.
    pub(super) fn contiguous_from(&self, first: u64, least: u64) -> (u64, Option<Gap>) {
        let newest = self.newest().unwrap_or(least).max(least);
        let gap = self.first_gap(first, newest);
        (gap.map_or(newest, |gap| gap.first.saturating_sub(1)), gap)
    }

    fn reaches_mark(&self, record: &Record, mark: &Mark) -> Result<std::result::Result<(), Failure<Cause>>> {
        let what = match mark {
            Mark::Transaction(id) => format!("end of transaction {id}"),
            Mark::RestorePoint(name) => format!("restore point \"{name}\""),
        };
        let (last, gap) = self.contiguous(record);
        Ok(match self.evidence.first(record, &self.branch, last, mark)? {
            Some(at) if at >= record.stop => Ok(()),
            Some(_) => Err(self.before_stop(record, &format!("the {what}"))),
            None => {
                let hole = gap.map_or_else(String::new, |gap| format!(", and {}", self.missing(gap)));
                let known = format!("no {what} is in the archived WAL after the backup {}{hole}", record.id);
                Err(refused(known).hint("a prepared transaction is not found by its id: take a time"))
            }
        })
    }
}

#[cfg(test)]
mod tests;
