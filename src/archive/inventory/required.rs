//! What an archive must hold: every segment from the start of a backup to the end of each timeline
//! that it can be recovered to.
//!
//! Never required: segments older than the oldest backup; a parent's copy of the segment in which
//! its child begins. What an old primary wrote after its child had begun is required only of
//! whoever recovers to that old timeline: from its first segment there to its last.

use super::{Backup, Gap, Inventory};
use crate::archive::absent::{left_at, newest_before, newest_shown};
use crate::wal::{Branch, Lsn, Timeline, WalName};

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
    /// The newest segment of the timeline that is there, or must be by what else is; where nothing of
    /// the timeline is, the last one before it begins.
    pub last: u64,
    /// Whether anything tells how far the timeline itself goes. Else recovery goes on with what its parent
    /// wrote after it was left, as far as that is there.
    pub is_begun: bool,
}

impl Need {
    /// The timeline to recover to.
    pub fn target(&self) -> Timeline {
        self.branch.timeline()
    }
}

/// Every way to recover to the end of a timeline, from the backups that `wanted` accepts. Without any backup history file (a backup of a standby writes none) everything from the
/// oldest segment of a branch on is needed. Timelines whose history file cannot be read are left
/// out: nothing can be said of them. Of what nobody here decrypts only the names count: a timeline is needed
/// from its own first segment on.
pub fn needs(inventory: &Inventory, wanted: &dyn Fn(usize) -> bool) -> Vec<Need> {
    let mut needs = Vec::new();
    if inventory.segment_size.is_none() {
        return needs;
    }
    for (timeline, files) in &inventory.timelines {
        let branch = match inventory.branch(*timeline) {
            Ok(branch) => branch,
            Err(history) if history.shut => Branch::without_history(*timeline),
            Err(_) => continue,
        };
        let own = files.segments.last().max(inventory.newest_shown(*timeline));
        let before = before(inventory, &branch);
        // A server that stopped short of where the timeline begins leaves it there, too.
        let is_begun = own > before;
        let Some(last) = own.max(before) else { continue };
        for (index, backup) in inventory.backups.iter().enumerate().filter(|(index, _)| wanted(*index)) {
            let Ok(content) = &backup.content else { continue };
            let range = inventory.number(content.start_segment).zip(inventory.number(content.stop_segment));
            let Some((first, consistent)) = range else { continue };
            // Along a branch that left while the backup was taken, it never becomes consistent.
            let end = Lsn(content.stop.0.saturating_sub(1));
            let begins = branch.passes(content.start_segment.timeline(), content.start);
            let passes = begins && branch.passes(content.stop_segment.timeline(), end);
            // The end of a backup in the segment in which the timeline begins is not archived so far.
            let is_archived = is_begun || consistent <= last;
            if passes && first <= last && is_archived {
                let last = last.max(consistent);
                needs.push(Need {
                    backup: Some(index),
                    branch: branch.clone(),
                    first,
                    consistent,
                    last,
                    is_begun,
                });
            }
        }
        let is_unknown = |backup: &Backup| backup.content.as_ref().is_err_and(|content| content.shut);
        if inventory.backups.iter().all(is_unknown) {
            let Some(first) = oldest(inventory, &branch).filter(|first| *first <= last) else { continue };
            needs.push(Need { backup: None, branch, first, consistent: first, last, is_begun });
        }
    }
    needs
}

impl Inventory {
    /// The newest segment of a timeline that other files show: unfinished ones, backups, histories of
    /// timelines that left it. What wal-fetch takes for a proof that the archive does not end earlier.
    pub fn newest_shown(&self, timeline: Timeline) -> Option<u64> {
        let size = self.segment_size?;
        let unfinished = self.timelines.get(&timeline).and_then(|files| files.partials.keys().next_back());
        let unfinished = unfinished.map(|number| WalName::Partial(self.name(timeline, *number)));
        let backups = self.backups.iter().map(Backup::name).filter(|name| name.timeline() == timeline);
        let shown = unfinished.into_iter().chain(backups).filter_map(|name| newest_shown(name, size));
        let left = self.histories().filter_map(|history| newest_before(left_at(history, timeline)?, size));
        shown.chain(left).max()
    }
}

/// The newest segment before the timeline itself begins. Whoever follows its history needs all that
/// leads there, even where nothing else of it is archived so far.
fn before(inventory: &Inventory, branch: &Branch) -> Option<u64> {
    let (_, begin) = branch.parts().next()?;
    newest_before(begin, inventory.segment_size?)
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
