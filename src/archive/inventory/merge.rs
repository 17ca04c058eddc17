//! Two inventories as one: of two destinations, or of one at two moments.

use super::{Backup, Inventory, TimelineFiles};

impl Inventory {
    /// Adds what another destination of the same archive holds, as fetch sees both: a file that
    /// is in either is there, and of a history file any copy that can be read will do.
    pub fn absorb(&mut self, other: &Inventory) {
        self.segment_size = self.segment_size.or(other.segment_size);
        for (timeline, theirs) in &other.timelines {
            let ours = self.timelines.entry(*timeline).or_default();
            if !matches!(ours.history, Some(Ok(_))) && theirs.history.is_some() {
                ours.history.clone_from(&theirs.history);
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
