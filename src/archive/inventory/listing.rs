//! Every object of a destination, typed, in the order of the WAL files' names: [`WAL_FOLDER`] and
//! what stands directly under the prefix as one stream.

use crate::object::key::{self, WAL_FOLDER};
use crate::object::{Key, Stored};
use crate::storage::{self, Listing, Storage};
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
            let stored = Stored::parse(file(&entry.key));
            return Some(Ok(Item { stored, key: entry.key, size: entry.size, modified: entry.modified }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Body;
    use crate::storage::memory::Memory;

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
