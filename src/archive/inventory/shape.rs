//! An inventory as [`crate::archive::absent`] sees a destination.

use super::{Backup, Inventory};
use crate::archive::absent::{Evidence, Seen, Shape, shows};
use crate::wal::{SegmentName, TimelineHistory, WalName};
use std::time::Duration;

impl Inventory {
    /// What it shows around a name. Everything counts as old.
    pub fn shape(&self, name: WalName) -> Shape {
        let age = Some(Duration::MAX);
        let evidence = self.evidence(name).map(|file| Evidence {
            seen: Seen::File(file),
            place: self.place.clone(),
            age,
        });
        Shape {
            place: self.place.clone(),
            identity: self.identity,
            held_by: self.system_id,
            holds_wal: self.total.objects > 0,
            copy: self.has(name).then(|| name.to_string()),
            evidence,
            histories: self.histories().map(|history| (history.clone(), age)).collect(),
        }
    }

    /// The histories that can be read.
    pub fn histories(&self) -> impl Iterator<Item = &TimelineHistory> {
        self.timelines.values().filter_map(|files| files.history.as_ref()?.as_ref().ok())
    }

    /// The lowest-addressed file that shows that the one of the name existed.
    fn evidence(&self, name: WalName) -> Option<WalName> {
        let timeline = name.timeline();
        let files = self.timelines.get(&timeline)?;
        let from = match name.segment() {
            Some(segment) => self.number(segment)?.saturating_add(1),
            None => 0,
        };
        let named = |number| -> SegmentName { self.name(timeline, number) };
        let segment = files.segments.ranges().find(|(_, last)| *last >= from);
        let segment = segment.map(|(first, _)| WalName::Segment(named(first.max(from))));
        let partial = files.partials.range(from..).next().map(|(number, _)| WalName::Partial(named(*number)));
        let backups = self.backups.iter().map(Backup::name);
        let all = segment.into_iter().chain(partial).chain(backups);
        all.filter(|file| file.timeline() == timeline && shows(*file, name)).min_by_key(|file| file.segment())
    }

    fn has(&self, name: WalName) -> bool {
        match name {
            WalName::Segment(segment) => self.holds(segment),
            WalName::TimelineHistory(timeline) => {
                self.timelines.get(&timeline).is_some_and(|files| files.history.is_some())
            }
            WalName::BackupHistory(..) => self.backups.iter().any(|backup| backup.name() == name),
            WalName::Partial(segment) => {
                let files = self.timelines.get(&segment.timeline());
                let partials = self.number(segment).and_then(|number| files?.partials.get(&number));
                partials.into_iter().flatten().any(|item| item.stored.name() == Some(name))
            }
        }
    }
}
