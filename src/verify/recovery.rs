//! How far recovery would go, from each backup along each branch.

use super::chains::{Chains, Stretch};
use super::names::Names;
use crate::inventory::{Need, Runs};
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
}

pub(super) fn recoverable(
    names: &Names,
    intact: &BTreeMap<Timeline, Runs>,
    chains: Option<&Chains>,
) -> Vec<Recoverable> {
    names.needs.iter().map(|need| one(names, need, intact, chains)).collect()
}

fn one(
    names: &Names,
    need: &Need,
    intact: &BTreeMap<Timeline, Runs>,
    chains: Option<&Chains>,
) -> Recoverable {
    let size = names.size();
    let content = need.backup.and_then(|index| names.union.backups.get(index)?.content.as_ref().ok());
    let mut reached = by_files(names, need, intact);
    let (mut end, mut last_commit) = (None, None);
    if let Some(chains) = chains {
        let (by_records, walk) = by_records(names, need, chains);
        reached = reached.min(by_records);
        end = walk.as_ref().and_then(|walk| walk.end);
        last_commit = walk.as_ref().and_then(|walk| walk.last_commit);
    }
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
    }
}

/// The last segment before the first that is not there or not intact.
fn by_files(names: &Names, need: &Need, intact: &BTreeMap<Timeline, Runs>) -> Option<u64> {
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
fn part_end(names: &Names, need: &Need, from: u64) -> u64 {
    let bytes = names.size().bytes();
    let next = need.branch.parts().map(|(_, begin)| begin.0 / bytes).filter(|begin| *begin > from).min();
    next.map_or(need.last, |next| (next - 1).min(need.last))
}

/// The last segment that the chain of records reaches, and the walk to its end.
fn by_records(names: &Names, need: &Need, chains: &Chains) -> (Option<u64>, Option<Walk>) {
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
            return (from.checked_sub(1).filter(|_| before.is_some()), chains.before(timeline, from));
        };
        let to = part_end(names, need, from);
        if stretch.last < to || (stretch.stopped && stretch.last == to) || to == need.last {
            return (Some(stretch.last.min(to)), Some(stretch.walk.clone()));
        }
        before = Some((index, stretch));
        from = to + 1;
    }
}
