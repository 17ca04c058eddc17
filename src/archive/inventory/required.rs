//! What an archive must hold: every segment from the start of a backup to the end of each timeline
//! that it can be recovered to.
//!
//! Never required: segments older than the oldest backup; a parent's copy of the segment in which
//! its child begins. What an old primary wrote after its child had begun is required only of
//! whoever recovers to that old timeline: from its first segment there to its last.

use super::{Gap, Inventory};
use crate::wal::{Branch, Lsn, Timeline};

/// One way to recover: from a backup, or from the oldest segment where no backup is known, along
/// one branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Which of [`Inventory::backups`]; `None` where recovery begins with just a segment.
    pub backup: Option<usize>,
    /// The way to the timeline to recover to.
    pub branch: Branch,
    /// The number of the first segment.
    pub first: u64,
    /// The segment at which the backup is consistent; recovery cannot end before.
    pub consistent: u64,
    /// The newest segment of the timeline that is there, or must be by what else is.
    pub last: u64,
}

impl Need {
    /// The timeline to recover to.
    pub fn target(&self) -> Timeline {
        self.branch.timeline()
    }
}

/// Every way to recover to the end of a timeline that has segments, from the backups that `wanted`
/// accepts. Without any backup history file (a backup of a standby writes none) everything from the
/// oldest segment of a branch on is needed. Timelines whose history file cannot be read are left
/// out: nothing can be said of them.
pub fn needs(inventory: &Inventory, wanted: &dyn Fn(usize) -> bool) -> Vec<Need> {
    let mut needs = Vec::new();
    if inventory.segment_size.is_none() {
        return needs;
    }
    for (timeline, files) in &inventory.timelines {
        let last = files.segments.last().max(shown_by_others(inventory, *timeline));
        let (Some(last), Ok(branch)) = (last, inventory.branch(*timeline)) else { continue };
        for (index, backup) in inventory.backups.iter().enumerate().filter(|(index, _)| wanted(*index)) {
            let Ok(content) = &backup.content else { continue };
            let range = inventory.number(content.start_segment).zip(inventory.number(content.stop_segment));
            let Some((first, consistent)) = range else { continue };
            // Along a branch that left while the backup was taken, it never becomes consistent.
            let end = Lsn(content.stop.0.saturating_sub(1));
            let begins = branch.passes(content.start_segment.timeline(), content.start);
            if begins && branch.passes(content.stop_segment.timeline(), end) && first <= last {
                let last = last.max(consistent);
                needs.push(Need { backup: Some(index), branch: branch.clone(), first, consistent, last });
            }
        }
        if inventory.backups.is_empty() {
            let Some(first) = oldest(inventory, &branch).filter(|first| *first <= last) else { continue };
            needs.push(Need { backup: None, branch, first, consistent: first, last });
        }
    }
    needs
}

/// The newest whole segment of a timeline by what else is there: everything before an unfinished
/// segment was finished, and so was everything before a fork. wal-fetch takes both for a proof that
/// the archive does not end earlier.
fn shown_by_others(inventory: &Inventory, timeline: Timeline) -> Option<u64> {
    let unfinished = inventory.timelines.get(&timeline).and_then(|files| files.partials.keys().next_back());
    let size = inventory.segment_size?.bytes();
    let histories = inventory.timelines.values().filter_map(|files| files.history.as_ref()?.as_ref().ok());
    let left = histories.flat_map(|history| &history.ancestors).filter(|left| left.timeline == timeline);
    let forks = left.map(|left| left.switch.0 / size);
    unfinished.copied().into_iter().chain(forks).max()?.checked_sub(1)
}

/// The first segment that is there of those which the branch asks for.
fn oldest(inventory: &Inventory, branch: &Branch) -> Option<u64> {
    let mut oldest = None;
    let mut end = u64::MAX;
    for (timeline, begin) in branch.parts() {
        let begin = inventory.segment_size.map_or(0, |size| begin.0 / size.bytes());
        let runs = inventory.timelines.get(&timeline).map(|files| &files.segments);
        let first = runs.and_then(|runs| runs.ranges().find(|(_, last)| *last >= begin));
        let first = first.map(|(first, _)| first.max(begin)).filter(|first| *first < end);
        oldest = first.or(oldest);
        end = begin;
    }
    oldest
}

/// Gaps of one timeline that overlap or touch as one.
pub fn coalesce(mut gaps: Vec<Gap>) -> Vec<Gap> {
    gaps.sort_unstable();
    gaps.dedup_by(|next, kept| {
        let touches = next.timeline == kept.timeline && next.first <= kept.last.saturating_add(1);
        if touches {
            kept.last = kept.last.max(next.last);
        }
        touches
    });
    gaps
}
