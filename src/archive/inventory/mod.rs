//! What stands at a destination: its timelines, segments, backups, and what belongs to none.
//!
//! One listing, read once; segments are kept as ranges, so that a million of them cost nothing.
//! Whoever needs every key again reads [`items`] again. Timeline and backup history files are read
//! and proved; one that cannot be is kept as such, never guessed at.
//!
//! Does not know: whether what the names promise is true of segments, or what should be there.

mod content;
mod expired;
mod listing;
mod merge;
mod required;
mod runs;
mod shape;

pub use expired::{Gaps, record, records};
use listing::items_around;
pub use listing::{Item, Items, items};
pub use required::{Need, coalesce, needs};
pub use runs::Runs;

use crate::archive::identity::{self, survey};
use crate::object::key::WAL_FOLDER;
use crate::object::{Encryption, Identity, Stored};
use crate::storage::{Result, Storage};
use crate::wal::{
    BackupHistory, Branch, SegmentName, SegmentSize, SystemId, Timeline, TimelineHistory, WalName,
};
use content::read_text;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::SystemTime;

/// Of strangers so many are kept by name, the others counted.
pub const STRANGERS_KEPT: usize = 1000;

#[derive(Clone, Debug)]
pub struct Inventory {
    /// The destination, for messages.
    pub place: String,
    /// `archive.json`; `None` where there is none.
    pub identity: Option<Identity>,
    /// By the identity, else by a segment that stands there; `None` where nothing tells. Gaps
    /// cannot be known then.
    pub segment_size: Option<SegmentSize>,
    /// The cluster, from the same source.
    pub system_id: Option<SystemId>,
    /// Every timeline that has any file, oldest first.
    pub timelines: BTreeMap<Timeline, TimelineFiles>,
    /// Every backup history file, in the order of names.
    pub backups: Vec<Backup>,
    /// Objects that are no WAL file: the first [`STRANGERS_KEPT`] of them.
    pub strangers: Vec<Item>,
    /// How many there are, and their bytes.
    pub strangers_total: Total,
    /// Objects of WAL files in an encoding that is not read here: likewise.
    pub unknown: Vec<Item>,
    /// How many there are, and their bytes.
    pub unknown_total: Total,
    /// Different content kept beside an object of the same name (`NAME.<16 hex>.zst`).
    pub variants: Vec<Item>,
    /// WAL files directly under the prefix of an archive that is wal-archive's own, where nothing of
    /// ours is stored: the first [`STRANGERS_KEPT`] of them.
    pub misplaced: Vec<Item>,
    /// How many there are, and their bytes.
    pub misplaced_total: Total,
    /// Whether wal-fetch looks directly under the prefix, too: in a directory, and where other tools
    /// wrote to the archive.
    pub root_is_read: bool,
    /// The segments that were removed on purpose, by the archive's own records.
    pub expired: BTreeMap<Timeline, Runs>,
    /// Records of that kind that cannot be read.
    pub unreadable_records: Vec<Unreadable>,
    /// Every object of a WAL file, in whatever encoding.
    pub total: Total,
}

/// A number of objects and their bytes as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub objects: u64,
    pub bytes: u64,
}

impl Total {
    fn add(&mut self, item: &Item) {
        self.objects += 1;
        self.bytes += item.size;
    }
}

impl AddAssign for Total {
    fn add_assign(&mut self, other: Total) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

/// What stands there of one timeline.
#[derive(Clone, Debug, Default)]
pub struct TimelineFiles {
    /// Its history file; `None` where there is none, as is right for timeline 1 only.
    pub history: Option<Content<TimelineHistory>>,
    /// Its segments, by number (see [`Inventory::name`]).
    pub segments: Runs,
    /// Those of them of which no object is in an encoding that is read here.
    pub unread: Runs,
    /// Its unfinished segments, by number: `.partial` ones and those that were archived cut. None of
    /// them stands in for a segment.
    pub partials: BTreeMap<u64, Vec<Item>>,
    /// The objects of its segments.
    pub stored: Total,
    /// When the oldest and the newest of them were stored.
    pub times: Option<(SystemTime, SystemTime)>,
    /// Them by the day on which they were stored, in UTC, counted from 1970.
    pub days: BTreeMap<u64, Day>,
}

/// The segments of a timeline that were stored on one day.
#[derive(Clone, Copy, Debug)]
pub struct Day {
    pub stored: Total,
    /// The lowest and the highest number, and when each was stored.
    pub first: (u64, SystemTime),
    pub last: (u64, SystemTime),
}

impl Day {
    fn add(&mut self, number: u64, item: &Item) {
        let stored = (number, item.modified);
        self.stored.add(item);
        self.first = self.first.min(stored);
        self.last = self.last.max(stored);
    }
}

/// A file's content, or why it is not known.
pub type Content<T> = std::result::Result<T, Unreadable>;

/// Why the content of a file that is there is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub key: String,
    /// Whether the object itself is at fault; else it could not be read, which says nothing.
    pub damaged: bool,
    /// Whether it is whole, and no identity here decrypts it.
    pub shut: bool,
    /// Whether two destinations hold different ones.
    pub conflict: bool,
    pub reason: String,
}

/// Files that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    pub timeline: Timeline,
    /// The number of the first segment.
    pub first: u64,
    /// The number of the last one.
    pub last: u64,
}

/// A backup history file: that a backup was once finished, not that it still exists.
#[derive(Clone, Debug)]
pub struct Backup {
    /// By its name, the segment in which recovery from it starts.
    pub start_segment: SegmentName,
    /// The offset in that segment, from the name.
    pub offset: u32,
    pub content: Content<BackupHistory>,
}

impl Backup {
    pub fn name(&self) -> WalName {
        WalName::BackupHistory(self.start_segment, self.offset)
    }
}

impl Inventory {
    /// Lists a destination, then reads its history files. An error of the listing is an error:
    /// what is not complete is no inventory.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let mut inventory = Inventory::empty(storage)?;
        inventory.fill(storage, items(storage)?)?;
        inventory.read_expired(storage)?;
        Ok(inventory)
    }

    /// Only what tells whether the segments of these numbers are there, and which timelines have any: by a few
    /// listings.
    pub fn read_around(storage: &dyn Storage, wanted: &Runs) -> Result<Self> {
        let mut inventory = Inventory::empty(storage)?;
        let (plain, size) = (inventory.root_is_read, inventory.numbering());
        inventory.fill(storage, items_around(storage, plain, size, wanted)?.into_iter().map(Ok))?;
        Ok(inventory)
    }

    fn empty(storage: &dyn Storage) -> Result<Self> {
        let identity = identity::identity(storage)?;
        let (system_id, segment_size) = match identity {
            Some(identity) => (Some(identity.system_id), Some(identity.segment_size)),
            None => survey::cluster(storage)?,
        };
        Ok(Inventory {
            place: storage.place().to_owned(),
            identity,
            segment_size,
            system_id,
            timelines: BTreeMap::new(),
            backups: Vec::new(),
            strangers: Vec::new(),
            strangers_total: Total::default(),
            unknown: Vec::new(),
            unknown_total: Total::default(),
            variants: Vec::new(),
            misplaced: Vec::new(),
            misplaced_total: Total::default(),
            root_is_read: identity.is_none_or(|identity| identity.foreign) || storage.nature().is_directory(),
            expired: BTreeMap::new(),
            unreadable_records: Vec::new(),
            total: Total::default(),
        })
    }

    fn fill(&mut self, storage: &dyn Storage, items: impl Iterator<Item = Result<Item>>) -> Result<()> {
        // Copies of history files in the order of their names; each is read once the listing is over.
        let mut texts: BTreeMap<WalName, Vec<Item>> = BTreeMap::new();
        for item in items {
            let item = item?;
            let stored = item.stored.within(self.encryption());
            self.add(Item { stored, ..item }, &mut texts);
        }
        for (name, copies) in texts {
            self.read_text(storage, name, copies);
        }
        Ok(())
    }

    /// Whether wal-fetch looks where an object stands.
    pub fn reads(&self, key: &str) -> bool {
        self.root_is_read || key.starts_with(WAL_FOLDER)
    }

    /// How it stores objects.
    pub fn encryption(&self) -> Encryption {
        self.identity.map_or(Encryption::None, |identity| identity.encryption)
    }

    /// Whether the archive is wal-archive's own: made by it, with no other tool's file there.
    pub fn is_own(&self) -> bool {
        self.identity.is_some_and(|identity| !identity.foreign)
    }

    /// The same where an archive is expected: an unmounted disk or a mistyped prefix, which looks
    /// like an empty one, is an error.
    pub fn read_archive(storage: &dyn Storage) -> Result<Self> {
        let inventory = Inventory::read(storage)?;
        if inventory.identity.is_none() && inventory.total.objects == 0 {
            identity::refuse_empty(storage)?;
        }
        Ok(inventory)
    }

    /// The size by which segments are numbered. Where it is not known the smallest, which gives
    /// every possible name a number of its own, in order.
    fn numbering(&self) -> SegmentSize {
        self.segment_size.unwrap_or(SegmentSize::MIN)
    }

    /// The name of a segment with a number.
    pub fn name(&self, timeline: Timeline, number: u64) -> SegmentName {
        SegmentName::numbered(timeline, number, self.numbering())
    }

    /// A segment's number; `None` where no segment of this archive's size has the name.
    pub fn number(&self, segment: SegmentName) -> Option<u64> {
        segment.number(self.numbering())
    }

    /// Whether a segment is there, readable or not.
    pub fn holds(&self, segment: SegmentName) -> bool {
        let files = self.timelines.get(&segment.timeline());
        files.zip(self.number(segment)).is_some_and(|(files, number)| files.segments.contains(number))
    }

    /// The way to a timeline from its ancestors; `Err` where its history file cannot be read.
    /// Where it is missing PostgreSQL takes the timeline to have no ancestors.
    pub fn branch(&self, timeline: Timeline) -> std::result::Result<Branch, &Unreadable> {
        match self.timelines.get(&timeline).and_then(|files| files.history.as_ref()) {
            Some(Ok(history)) => Ok(Branch::of(history)),
            Some(Err(unreadable)) => Err(unreadable),
            None => Ok(Branch::without_history(timeline)),
        }
    }

    /// The files that recovery along the branch asks for from one segment number to another, both
    /// included, and that are not there, in order.
    pub fn missing(&self, branch: &Branch, first: u64, last: u64) -> Vec<Gap> {
        let Some(size) = self.segment_size else { return Vec::new() };
        let mut missing = Vec::new();
        let mut from = first;
        while from <= last {
            let timeline = branch.serving(from, size);
            let next = branch.parts().map(|(_, begin)| begin.0 / size.bytes()).filter(|at| *at > from).min();
            let to = next.map_or(last, |next| (next - 1).min(last));
            let ranges = match self.timelines.get(&timeline) {
                Some(files) => files.segments.missing(from, to),
                None => vec![(from, to)],
            };
            missing.extend(ranges.into_iter().map(|(first, last)| Gap { timeline, first, last }));
            from = to + 1;
        }
        missing
    }

    /// What a backup needs to become consistent and is not there: segments from its start to its
    /// stop. `Err` where its history file cannot be read, or that of its timeline.
    pub fn missing_of(&self, backup: &Backup) -> Content<Vec<Gap>> {
        let content = backup.content.as_ref().map_err(Unreadable::clone)?;
        let branch = self.branch(content.stop_segment.timeline()).map_err(Unreadable::clone)?;
        let range = self.number(content.start_segment).zip(self.number(content.stop_segment));
        Ok(range.map_or_else(Vec::new, |(first, last)| self.missing(&branch, first, last)))
    }

    fn add(&mut self, item: Item, texts: &mut BTreeMap<WalName, Vec<Item>>) {
        let name = match item.stored.name() {
            // A name that no segment of this size has.
            Some(name) if name.segment().is_some_and(|segment| self.number(segment).is_none()) => None,
            name => name,
        };
        let Some(name) = name else {
            self.strangers_total.add(&item);
            if self.strangers.len() < STRANGERS_KEPT {
                self.strangers.push(item);
            }
            return;
        };
        self.total.add(&item);
        if self.is_own() && !item.key.starts_with(WAL_FOLDER) {
            self.misplaced_total.add(&item);
            if self.misplaced.len() < STRANGERS_KEPT {
                self.misplaced.push(item.clone());
            }
        }
        if !self.reads(&item.key) {
            return;
        }
        if let Some((segment, number)) = item.stored.partial().and_then(|s| Some((s, self.number(s)?))) {
            let files = self.timelines.entry(segment.timeline()).or_default();
            files.partials.entry(number).or_default().push(item.clone());
        }
        if matches!(item.stored, Stored::Variant(..)) {
            self.variants.push(item);
            return;
        }
        let readable = matches!(item.stored, Stored::Wal(..));
        if !readable {
            self.unknown_total.add(&item);
            if self.unknown.len() < STRANGERS_KEPT {
                self.unknown.push(item.clone());
            }
        }
        match name {
            WalName::Partial(_) => {}
            WalName::Segment(segment) => {
                let Some(number) = self.number(segment) else { return };
                let files = self.timelines.entry(name.timeline()).or_default();
                // Copies of one segment stand together, so the set is small.
                match (readable, files.segments.contains(number)) {
                    (true, _) => files.unread.remove(number),
                    (false, false) => files.unread.insert(number),
                    (false, true) => {}
                }
                files.segments.insert(number);
                files.stored.add(&item);
                let stored = (number, item.modified);
                let day = item.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let nothing = Day { stored: Total::default(), first: stored, last: stored };
                files.days.entry(day.as_secs() / 86_400).or_insert(nothing).add(number, &item);
                let (oldest, newest) = files.times.get_or_insert((item.modified, item.modified));
                *oldest = item.modified.min(*oldest);
                *newest = item.modified.max(*newest);
            }
            WalName::BackupHistory(..) | WalName::TimelineHistory(_) => {
                texts.entry(name).or_default().push(item);
            }
        }
    }

    fn read_text(&mut self, storage: &dyn Storage, name: WalName, copies: Vec<Item>) {
        match name {
            WalName::TimelineHistory(timeline) => {
                let content = read_text(storage, name, &copies, |bytes| {
                    TimelineHistory::parse(timeline, bytes).map_err(|bad| bad.to_string())
                });
                self.timelines.entry(timeline).or_default().history = Some(content);
            }
            WalName::BackupHistory(start_segment, offset) => {
                let content = read_text(storage, name, &copies, |bytes| {
                    let content = BackupHistory::parse(bytes).ok_or("it is not a backup history file")?;
                    match content.start_segment == start_segment {
                        true => Ok(content),
                        false => Err("it is that of another backup".to_owned()),
                    }
                });
                self.timelines.entry(start_segment.timeline()).or_default();
                self.backups.push(Backup { start_segment, offset, content });
            }
            WalName::Segment(_) | WalName::Partial(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
