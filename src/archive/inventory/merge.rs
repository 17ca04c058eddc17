//! Two inventories as one: of two destinations, or of one at two moments.

use super::{Backup, Inventory, TimelineFiles, Unreadable};
use crate::wal::{Lsn, Timeline, TimelineHistory, WalName};

/// Where the ancestors were left.
fn way(history: &TimelineHistory) -> Vec<(Timeline, Lsn)> {
    history.ancestors.iter().map(|ancestor| (ancestor.timeline, ancestor.switch)).collect()
}

impl Inventory {
    /// Adds what another destination of the same archive holds, as fetch sees both: a file that
    /// is in either is there, and of a history file any copy that can be read will do.
    pub fn absorb(&mut self, other: &Inventory) {
        self.segment_size = self.segment_size.or(other.segment_size);
        for (timeline, theirs) in &other.timelines {
            let ours = self.timelines.entry(*timeline).or_default();
            match (&ours.history, &theirs.history) {
                // Recovery goes another way by the one than by the other.
                (Some(Ok(one)), Some(Ok(other_one))) if way(one) != way(other_one) => {
                    ours.history = Some(Err(Unreadable {
                        key: WalName::TimelineHistory(*timeline).to_string(),
                        damaged: true,
                        shut: false,
                        conflict: true,
                        reason: format!("\"{}\" and \"{}\" hold different ones", self.place, other.place),
                    }));
                }
                (Some(Ok(_)), _) | (_, None) => {}
                (Some(Err(unreadable)), _) if unreadable.conflict => {}
                (_, history) => ours.history.clone_from(history),
            }
            let unread: Vec<_> = ours.unread.ranges().chain(theirs.unread.ranges()).collect();
            let readable = |files: &TimelineFiles, number| {
                files.segments.contains(number) && !files.unread.contains(number)
            };
            let still = unread.into_iter().flat_map(|(first, last)| first..=last);
            let still =
                still.filter(|number| !readable(ours, *number) && !readable(theirs, *number)).collect();
            for (first, last) in theirs.segments.ranges() {
                ours.segments.insert_range(first, last);
            }
            ours.unread = still;
            for (number, partials) in &theirs.partials {
                ours.partials.entry(*number).or_default().extend(partials.iter().cloned());
            }
        }
        for (timeline, theirs) in &other.expired {
            let ours = self.expired.entry(*timeline).or_default();
            theirs.ranges().for_each(|(first, last)| ours.insert_range(first, last));
        }
        for theirs in &other.backups {
            match self.backups.iter_mut().find(|ours| ours.name() == theirs.name()) {
                Some(ours) if ours.content.is_err() => ours.clone_from(theirs),
                Some(_) => {}
                None => self.backups.push(theirs.clone()),
            }
        }
        self.backups.sort_by_key(Backup::name);
    }

    /// Takes over from a later listing the segments that lie within this one's gaps.
    pub fn fill_gaps(&mut self, later: &Inventory) {
        for (timeline, files) in &mut self.timelines {
            let Some(theirs) = later.timelines.get(timeline) else { continue };
            let gaps: Vec<_> = files.segments.gaps().collect();
            for (first, last) in gaps {
                let arrived = (first..=last).take_while(|_| last - first < 4096);
                arrived
                    .filter(|number| theirs.segments.contains(*number))
                    .for_each(|n| files.segments.insert(n));
            }
        }
    }
}
