//! How far recovery would go, from each backup along each branch.

use super::chains::{Chains, Stretch};
use super::names::ByNames;
use crate::archive::inventory::{Need, Runs};
use crate::wal::{Lsn, SegmentName, Timeline, Walk};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// What one way to recover comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recoverable {
    /// The backup's label; `None` where no backup is known, or `--since` begins after it.
    pub label: Option<String>,
    /// The segment in which recovery begins.
    pub from: SegmentName,
    /// The timeline to recover to.
    pub timeline: Timeline,
    /// The last segment that can be replayed; `None` where already the first cannot.
    pub to: Option<SegmentName>,
    /// Whether that is far enough for the backup to be consistent.
    pub consistent: bool,
    /// Whether that is the newest segment of the timeline.
    pub complete: bool,
    /// Where the last record ends; known only where records were walked.
    pub end: Option<Lsn>,
    /// When the last transaction before it was committed; likewise.
    pub last_commit: Option<SystemTime>,
    /// Whether it goes no further because `wal-archive expire` removed what follows.
    pub expired: bool,
    /// The unfinished segments that follow the newest one: how far recovery goes with each, which
    /// wal-fetch gives only where --partial asks for it.
    pub partials: Vec<Unfinished>,
}

/// An unfinished segment at the end of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// `NAME.partial`; with `.<16 hex>` a variant of it, or a segment that was archived cut.
    pub file: String,
    /// Where its last record ends; known only where records were walked.
    pub end: Option<Lsn>,
    /// When the last transaction before that was committed; likewise.
    pub last_commit: Option<SystemTime>,
}

pub(super) fn recoverable(
    names: &ByNames,
    intact: &BTreeMap<Timeline, Runs>,
    chains: Option<&Chains>,
) -> Vec<Recoverable> {
    names.needs.iter().filter(|need| need.is_begun).map(|need| along(names, need, intact, chains)).collect()
}

fn along(
    names: &ByNames,
    need: &Need,
    intact: &BTreeMap<Timeline, Runs>,
    chains: Option<&Chains>,
) -> Recoverable {
    let size = names.size();
    let content = need.backup.and_then(|index| names.union.backups.get(index)?.content.as_ref().ok());
    let mut reached = by_files(names, need, intact);
    let (mut end, mut last_commit, mut last_stretch) = (None, None, None);
    if let Some(chains) = chains {
        let by_records = by_records(names, need, chains);
        reached = reached.min(by_records.to);
        end = by_records.walk.as_ref().and_then(|walk| walk.end);
        last_commit = by_records.walk.as_ref().and_then(|walk| walk.last_commit);
        last_stretch = by_records.stretch;
    }
    let next = reached.map_or(need.first, |last| last.saturating_add(1));
    let partials = match (reached == Some(need.last), chains) {
        (false, _) => Vec::new(),
        (true, None) => by_partials(names, need, next),
        (true, Some(chains)) => by_tails(names, need, next, chains, last_stretch),
    };
    let consistent = reached.is_some_and(|last| last >= need.consistent)
        && end.zip(content).is_none_or(|(end, content)| end >= content.stop);
    Recoverable {
        label: content.map(|content| content.label.clone()),
        from: need.branch.file(need.first, size),
        timeline: need.target(),
        to: reached.map(|last| need.branch.file(last, size)),
        consistent,
        complete: reached == Some(need.last),
        end,
        last_commit,
        expired: next <= need.last && names.union.is_expired(need.branch.serving(next, size), next),
        partials,
    }
}

/// Whether an unfinished segment may be given for the segment: not where a child leaves the timeline in
/// or before it, since then the child's file counts (as wal-fetch `--partial` has it).
fn may_be_given(names: &ByNames, need: &Need, number: u64) -> bool {
    let end = number.saturating_add(1).saturating_mul(names.size().bytes());
    let mut leaves = names.union.histories().flat_map(|history| &history.ancestors);
    need.branch.serving(number, names.size()) == need.target()
        && !leaves.any(|left| left.timeline == need.target() && left.switch.0 < end)
}

/// The unfinished segments of that number, by their names.
fn by_partials(names: &ByNames, need: &Need, number: u64) -> Vec<Unfinished> {
    if !may_be_given(names, need, number) {
        return Vec::new();
    }
    let files = names.union.timelines.get(&need.target());
    let items = files.and_then(|files| files.partials.get(&number)).into_iter().flatten();
    let mut found: Vec<Unfinished> = Vec::new();
    for file in items.filter_map(|item| item.stored.title()) {
        if !found.iter().any(|known| known.file == file) {
            found.push(Unfinished { file, end: None, last_commit: None });
        }
    }
    found
}

/// The same by their records, which must continue those before.
fn by_tails(
    names: &ByNames,
    need: &Need,
    number: u64,
    chains: &Chains,
    stretch: Option<usize>,
) -> Vec<Unfinished> {
    if !may_be_given(names, need, number) {
        return Vec::new();
    }
    let segment = need.branch.file(number, names.size());
    let mut found = Vec::new();
    for tail in &chains.tails {
        let follows = tail.segment == segment && tail.after.is_some() && tail.after == stretch;
        let unfinished =
            Unfinished { file: tail.title.clone(), end: tail.walk.end, last_commit: tail.walk.last_commit };
        if follows && !found.contains(&unfinished) {
            found.push(unfinished);
        }
    }
    found
}

/// The last segment before the first that is not there or not intact.
fn by_files(names: &ByNames, need: &Need, intact: &BTreeMap<Timeline, Runs>) -> Option<u64> {
    let size = names.size();
    let mut from = need.first;
    loop {
        let timeline = need.branch.serving(from, size);
        let to = part_end(names, need, from);
        let gap = match intact.get(&timeline) {
            Some(runs) => runs.missing(from, to).first().map(|(first, _)| *first),
            None => Some(from),
        };
        match gap {
            Some(first) => return first.checked_sub(1).filter(|last| *last >= need.first),
            None if to == need.last => return Some(to),
            None => from = to + 1,
        }
    }
}

/// The last segment that the serving timeline of this one serves.
fn part_end(names: &ByNames, need: &Need, from: u64) -> u64 {
    let bytes = names.size().bytes();
    let next = need.branch.parts().map(|(_, begin)| begin.0 / bytes).filter(|begin| *begin > from).min();
    next.map_or(need.last, |next| (next - 1).min(need.last))
}

/// How far the chain of records goes.
struct ByRecords {
    /// The last segment.
    to: Option<u64>,
    /// The walk to its end.
    walk: Option<Walk>,
    /// The stretch whose end is reached, where the records do not break off there.
    stretch: Option<usize>,
}

fn by_records(names: &ByNames, need: &Need, chains: &Chains) -> ByRecords {
    let size = names.size();
    let mut from = need.first;
    let mut before: Option<(usize, &Stretch)> = None;
    loop {
        let timeline = need.branch.serving(from, size);
        let found = chains.stretches.iter().enumerate().find(|(_, stretch)| {
            // A child must go on from where its parent stood.
            stretch.timeline == timeline
                && (stretch.first..=stretch.last).contains(&from)
                && before.is_none_or(|(index, _)| stretch.parent == Some(index))
        });
        let Some((index, stretch)) = found else {
            // The parent may have run on: what counts is where it stood when the child left.
            return ByRecords {
                to: from.checked_sub(1).filter(|_| before.is_some()),
                walk: chains.before(timeline, from),
                stretch: before.map(|(index, _)| index),
            };
        };
        let to = part_end(names, need, from);
        if stretch.last < to || (stretch.stopped && stretch.last == to) || to == need.last {
            let last = stretch.last.min(to);
            // The parent may have run on after a child that has only an unfinished segment.
            let ran_on = stretch.last > last;
            let walk = chains.before(need.target(), last + 1).filter(|_| ran_on);
            return ByRecords {
                to: Some(last),
                walk: Some(walk.unwrap_or_else(|| stretch.walk.clone())),
                stretch: Some(index).filter(|_| ran_on || !stretch.stopped),
            };
        }
        before = Some((index, stretch));
        from = to + 1;
    }
}
