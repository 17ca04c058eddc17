//! The objects of a folder in order. A directory has no order of its own, and PostgreSQL's archives reach millions
//! of files: names are held as far as there is room, and the directory is read again for those behind them.

use super::names::{Names, Smallest};
use super::root::{Root, failed};
use crate::storage::{Entry, Result};

/// So many bytes of names are held at once: 1,165,000 segments.
pub(super) const ROOM: usize = 40 << 20;

pub(super) struct Sorted {
    root: Root,
    folder: String,
    /// How the names begin.
    start: String,
    /// The last name of those that were read.
    after: String,
    room: usize,
    found: Names,
    /// Whether there are names behind those.
    more: bool,
}

impl Sorted {
    /// Those whose names begin with `start` and sort after `after`.
    pub(super) fn read(
        root: &Root,
        (folder, start): (&str, &str),
        after: String,
        room: usize,
    ) -> Result<Self> {
        let mut sorted = Sorted {
            root: root.clone(),
            folder: folder.to_owned(),
            start: start.to_owned(),
            after,
            room,
            found: Names::default(),
            more: true,
        };
        sorted.pass()?;
        Ok(sorted)
    }

    /// Reads the smallest names behind the last.
    fn pass(&mut self) -> Result<()> {
        self.more = false;
        let Some(entries) = self.root.read_folder(&self.folder)? else { return Ok(()) };
        let mut smallest = Smallest::within(self.room);
        for entry in entries {
            let entry =
                entry.map_err(|error| failed("cannot list", &self.root.path().join(&self.folder), error))?;
            // A name that is not UTF-8 cannot be a key of ours.
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if !name.starts_with('.') && name.starts_with(&self.start) && *name > *self.after {
                smallest.add(name);
            }
        }
        self.root.still_the_same()?;
        (self.found, self.more) = smallest.sorted();
        if let Some(last) = self.found.last() {
            last.clone_into(&mut self.after);
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        loop {
            while let Some(name) = self.found.next() {
                if let Some(entry) = self.root.entry(&self.folder, name)? {
                    return Ok(Some(entry));
                }
            }
            if !self.more {
                return Ok(None);
            }
            self.pass()?;
        }
    }
}

impl Iterator for Sorted {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        let next = self.advance();
        if next.is_err() {
            // An error ends the listing.
            self.found = Names::default();
            self.more = false;
        }
        next.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use tempfile::TempDir;

    /// A directory with a folder `wal` of such files.
    fn folder<'a>(names: impl IntoIterator<Item = &'a str>) -> (TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("wal")).unwrap();
        names.into_iter().for_each(|name| fs::write(directory.path().join("wal").join(name), name).unwrap());
        let root = Root::new(directory.path().to_owned());
        (directory, root)
    }

    fn sorted(root: &Root, start: &str, after: &str, room: usize) -> Sorted {
        Sorted::read(root, ("wal/", start), after.to_owned(), room).unwrap()
    }

    fn keys(listing: impl Iterator<Item = Result<Entry>>) -> Vec<String> {
        listing.map(|entry| entry.unwrap().key).collect()
    }

    #[test]
    fn what_is_deleted_and_what_comes_between_two_passes_breaks_no_order() {
        let (directory, root) = folder(["a", "b", "c", "d", "e", "f"]);
        // Room for two names.
        let mut listing = sorted(&root, "", "", 18);
        assert_eq!(listing.next().unwrap().unwrap().key, "wal/a");
        fs::remove_file(directory.path().join("wal/e")).unwrap();
        fs::write(directory.path().join("wal/aa"), "late").unwrap();
        fs::write(directory.path().join("wal/dd"), "in time").unwrap();
        let left = keys(&mut listing);
        let expected = ["b", "c", "d", "dd", "f"].map(|name| format!("wal/{name}"));
        assert_eq!(left.into_iter().filter(|key| key != "wal/aa").collect::<Vec<_>>(), expected);
        assert!(listing.next().is_none());
    }

    #[test]
    fn a_folder_that_goes_away_between_two_passes_ends_the_listing_and_a_root_fails_it() {
        let (directory, root) = folder(["a", "b", "c", "d"]);
        let mut listing = sorted(&root, "", "", 18);
        fs::rename(directory.path().join("wal"), directory.path().join("other")).unwrap();
        assert!(listing.next().is_none());
        let (directory, root) = folder(["a", "b", "c", "d"]);
        let mut listing = sorted(&root, "", "", 18);
        let place = directory.keep();
        fs::remove_dir_all(&place).unwrap();
        assert!(listing.next().unwrap().is_err() && listing.next().is_none());
    }

    #[test]
    fn hidden_names_and_those_that_no_key_can_be_are_left_out() {
        let (directory, root) = folder([".a", ".wal.tmp", "x", "ä"]);
        fs::write(directory.path().join("wal").join(OsStr::from_bytes(b"b\xff")), "not UTF-8").unwrap();
        fs::create_dir(directory.path().join("wal/y")).unwrap();
        for room in [0, ROOM] {
            assert_eq!(keys(sorted(&root, "", "", room)), ["wal/x", "wal/ä"]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn passes_of_any_size_give_every_name_once_and_in_order(
            names in proptest::collection::btree_set("[a-cä]{1,6}", 0..60),
            room in 0usize..400, start in "[a-c]{0,1}", after in "[a-c]{0,2}"
        ) {
            let (_directory, root) = folder(names.iter().map(String::as_str));
            let model: BTreeSet<String> = names
                .into_iter()
                .filter(|name| name.starts_with(&start) && *name > after)
                .map(|name| format!("wal/{name}"))
                .collect();
            prop_assert_eq!(keys(sorted(&root, &start, &after, room)), model.into_iter().collect::<Vec<_>>());
        }
    }
}
