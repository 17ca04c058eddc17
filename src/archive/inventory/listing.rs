//! Every object of a destination, typed, in the order of the WAL files' names: [`WAL_FOLDER`] and
//! what stands directly under the prefix as one stream.

use super::Runs;
use crate::archive::lookup::folders;
use crate::object::key::{self, WAL_FOLDER};
use crate::object::{Key, Stored};
use crate::storage::{self, Entry, Listing, Storage};
use crate::wal::{SegmentName, SegmentSize, WalName};
use std::iter::Peekable;
use std::time::SystemTime;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is, by its key.
    pub stored: Stored,
    /// Where it stands, relative to the destination's prefix.
    pub key: String,
    /// Length in bytes, as stored.
    pub size: u64,
    /// When it was created, by the store's clock.
    pub modified: SystemTime,
}

impl Item {
    fn of(entry: Entry) -> Self {
        let stored = Stored::parse(file(&entry.key));
        Item { stored, key: entry.key, size: entry.size, modified: entry.modified }
    }

    /// The key, to be asked for; `None` for a stranger whose name no request can carry.
    pub fn key(&self) -> Option<Key> {
        Key::parse(&self.key)
    }
}

/// See [`items`].
pub struct Items {
    folder: Peekable<Listing>,
    root: Peekable<Listing>,
}

/// Lists every object but the archive's own (`archive.json`, the probe), sorted by the name
/// behind the folder; of two equal ones that in [`WAL_FOLDER`] comes first. So what belongs to one
/// segment stands together. An error ends it.
pub fn items(storage: &dyn Storage) -> storage::Result<Items> {
    Ok(Items { folder: storage.list(WAL_FOLDER, "")?.peekable(), root: storage.list("", "")?.peekable() })
}

fn file(key: &str) -> &str {
    key.strip_prefix(WAL_FOLDER).unwrap_or(key)
}

impl Iterator for Items {
    type Item = storage::Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let from_root = match (self.folder.peek(), self.root.peek()) {
                (Some(Ok(one)), Some(Ok(other))) => file(&one.key) > file(&other.key),
                (Some(_), Some(Err(_))) | (None, _) => true,
                (Some(_), _) => false,
            };
            let entry = match if from_root { self.root.next() } else { self.folder.next() }? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error)),
            };
            if key::is_of_the_archive_itself(&entry.key) {
                continue;
            }
            return Some(Ok(Item::of(entry)));
        }
    }
}

/// The WAL files around some segments, of every timeline: its history, those segments, and the first file of what lies
/// between them, which is leapt over. `plain`: directly under the prefix, too.
pub(super) fn items_around(
    storage: &dyn Storage,
    plain: bool,
    size: SegmentSize,
    wanted: &Runs,
) -> storage::Result<Vec<Item>> {
    let mut found = Vec::new();
    for folder in folders(plain) {
        let mut after = Some(String::new());
        while let Some(from) = after.take() {
            for entry in storage.list(folder, &from)? {
                let item = Item::of(entry?);
                let Some(name) = item.stored.name() else { continue };
                found.push(item);
                after = behind(name, size, wanted).map(|name| format!("{folder}{name}"));
                if after.is_some() {
                    break;
                }
            }
        }
    }
    Ok(found)
}

/// Where to go on behind a file that is not wanted: before the next segment of its timeline that is, else behind the
/// timeline. "~" sorts after everything that a name can go on with.
fn behind(name: WalName, size: SegmentSize, wanted: &Runs) -> Option<String> {
    let number = name.segment()?.number(size).filter(|number| !wanted.contains(*number))?;
    let next = wanted.ranges().map(|(first, _)| first).find(|first| *first > number);
    Some(match next {
        Some(next) => format!("{}~", SegmentName::numbered(name.timeline(), next - 1, size)),
        None => format!("{:08X}~", name.timeline().get()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Body;
    use crate::storage::memory::Memory;

    #[test]
    fn around_some_segments_little_else_is_listed_and_no_timeline_is_overlooked() {
        let memory = Memory::default();
        let create =
            |name: &str| memory.create(&Key::parse(name).unwrap(), &Body::from(b"x".to_vec())).unwrap();
        let name = |timeline: u32, number: u32| format!("wal_005/{timeline:08X}00000000{number:08X}.zst");
        (1..=2).for_each(|timeline| (0..40).for_each(|number| create(&name(timeline, number))));
        ["wal_005/00000002.history.zst", "wal_005/00000003.history.zst"].into_iter().for_each(create);
        let wanted: Runs = [9, 10, 30].into_iter().collect();
        let size = SegmentSize::new(16 << 20).unwrap();
        let found: Vec<String> =
            items_around(&memory, true, size, &wanted).unwrap().into_iter().map(|item| item.key).collect();
        let of = |timeline| [0, 9, 10, 11, 30, 31].map(|number| name(timeline, number)).to_vec();
        let histories = |timeline: u32| vec![format!("wal_005/{timeline:08X}.history.zst")];
        assert_eq!(found, [of(1), histories(2), of(2), histories(3)].concat());
    }

    #[test]
    fn both_folders_are_one_sorted_stream_and_the_archives_own_files_are_no_part_of_it() {
        let memory = Memory::default();
        let keys = [
            "000000010000000000000002",
            "000000010000000000000003.gz",
            "archive.json",
            "notes.txt",
            "quarantine/000000010000000000000001.e3b0c44298fc1c14",
            "wal-archive-probe",
            "wal_005/000000010000000000000001.zst",
            "wal_005/000000010000000000000002",
            "wal_005/000000010000000000000003.lz4",
            "wal_005/00000002.history.zst",
        ];
        for key in keys {
            memory.create(&Key::parse(key).unwrap(), &Body::from(b"x".to_vec())).unwrap();
        }
        let found: Vec<_> = items(&memory).unwrap().map(|item| item.unwrap().key).collect();
        assert_eq!(
            found,
            [
                "wal_005/000000010000000000000001.zst",
                "wal_005/000000010000000000000002",
                "000000010000000000000002",
                "000000010000000000000003.gz",
                "wal_005/000000010000000000000003.lz4",
                "wal_005/00000002.history.zst",
                "notes.txt",
            ]
        );
    }
}
