//! The WAL files of an archive in order, each with all the objects that hold it.
//!
//! Two listings, of [`WAL_FOLDER`] and of what stands directly under the prefix, are merged as
//! they come, so that millions of objects never sit in memory: both are sorted, and all objects of
//! one segment begin with the same 24 characters, those of a history file with the same 16.

use crate::object::key::WAL_FOLDER;
use crate::object::{Encoding, Key, Stored};
use crate::storage::{Entry, Listing, Result, Storage};
use crate::wal::WalName;
use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;

/// One step of the listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    Wal(Named),
    /// The key of what belongs to no WAL file.
    Stranger(String),
}

/// A WAL file and its objects.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: WalName,
    /// In the order in which they are believed.
    pub(super) copies: Vec<(Key, Encoding)>,
    /// Different content of the name, kept beside it.
    pub(super) variants: Vec<Key>,
    /// In encodings that are not read here.
    pub(super) unread: Vec<Key>,
}

/// What this program keeps directly under the prefix besides WAL files.
const OWN: [&str; 2] = ["archive.json", "wal-archive-probe"];

/// All of them, each once.
pub(super) fn names(storage: &dyn Storage) -> Result<Names> {
    let folder = |folder: &'static str| {
        Ok::<_, crate::storage::Error>(Folder { folder, entries: storage.list(folder, "")?.peekable() })
    };
    Ok(Names { folders: [folder(WAL_FOLDER)?, folder("")?], ready: VecDeque::new(), failed: false })
}

pub(super) struct Names {
    folders: [Folder; 2],
    ready: VecDeque<Item>,
    failed: bool,
}

struct Folder {
    folder: &'static str,
    entries: Peekable<Listing>,
}

/// What comes next in a folder.
enum Next {
    End,
    Stranger(String),
    /// A WAL file whose objects begin so.
    Stem(String),
}

fn stem(name: WalName) -> String {
    name.segment().map_or_else(|| name.to_string(), |segment| segment.to_string())
}

impl Folder {
    fn stored(&self, key: &str) -> Stored {
        Stored::parse(key.strip_prefix(self.folder).unwrap_or(key))
    }

    /// What comes next; a stranger is taken, the objects of a WAL file stay.
    fn look(&mut self) -> Result<Next> {
        loop {
            let key = match self.entries.peek() {
                None => return Ok(Next::End),
                Some(Ok(entry)) => entry.key.clone(),
                Some(Err(_)) => match self.entries.next() {
                    Some(Err(error)) => return Err(error),
                    _ => continue,
                },
            };
            if let Some(name) = self.stored(&key).name() {
                return Ok(Next::Stem(stem(name)));
            }
            self.entries.next();
            if !OWN.contains(&key.as_str()) {
                return Ok(Next::Stranger(key));
            }
        }
    }

    /// Takes the entries of one stem.
    fn take(&mut self, wanted: &str, found: &mut Found) -> Result<()> {
        loop {
            match self.look()? {
                Next::Stem(next) if next == wanted => {}
                Next::Stranger(key) => {
                    found.strangers.push(key);
                    continue;
                }
                _ => return Ok(()),
            }
            let Some(Ok(Entry { key, .. })) = self.entries.next() else { return Ok(()) };
            let stored = self.stored(&key);
            let (Some(name), Some(key)) = (stored.name(), Key::parse(&key)) else { continue };
            let named = found.named.entry(name).or_insert_with(|| Named {
                name,
                copies: Vec::new(),
                variants: Vec::new(),
                unread: Vec::new(),
            });
            match stored {
                Stored::Wal(_, encoding) => named.copies.push((key, encoding)),
                // Only in our own folder do we keep variants.
                Stored::Variant(..) if self.folder == WAL_FOLDER => named.variants.push(key),
                Stored::Variant(..) | Stored::Unknown(..) => named.unread.push(key),
                Stored::Stranger => {}
            }
        }
    }
}

/// What stands under one stem, and the strangers met on the way.
#[derive(Default)]
struct Found {
    named: BTreeMap<WalName, Named>,
    strangers: Vec<String>,
}

impl Names {
    fn advance(&mut self) -> Result<Option<Item>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            let mut stems = Vec::new();
            for folder in &mut self.folders {
                match folder.look()? {
                    Next::End => {}
                    Next::Stranger(key) => return Ok(Some(Item::Stranger(key))),
                    Next::Stem(stem) => stems.push(stem),
                }
            }
            let Some(next) = stems.into_iter().min() else { return Ok(None) };
            let mut found = Found::default();
            for folder in &mut self.folders {
                folder.take(&next, &mut found)?;
            }
            self.ready.extend(found.strangers.into_iter().map(Item::Stranger));
            for mut named in found.named.into_values() {
                let places: Vec<_> = Key::all_of(named.name).collect();
                named.copies.sort_by_key(|copy| places.iter().position(|place| place == copy));
                self.ready.push_back(Item::Wal(named));
            }
        }
    }
}

impl Iterator for Names {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        if self.failed {
            return None;
        }
        let next = self.advance();
        self.failed = next.is_err();
        next.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Body;
    use crate::storage::memory::Memory;

    const B: &str = "00000001000000000000001B";
    const C: &str = "00000001000000000000001C";

    #[test]
    fn every_object_of_a_name_comes_at_once_whichever_folder_it_stands_in() {
        let memory = Memory::default();
        let keys = [
            "00000002.history".to_owned(),
            format!("{B}.gz"),
            "archive.json".to_owned(),
            "readme".to_owned(),
            "wal-archive-probe".to_owned(),
            format!("wal_005/{B}.lz4"),
            format!("wal_005/{B}.00000028.backup.zst"),
            format!("wal_005/{B}.partial.0123456789abcdef.zst"),
            format!("wal_005/{B}.partial.zst"),
            format!("wal_005/{B}.json"),
            format!("wal_005/{B}.zst"),
            format!("wal_005/{C}.gpg"),
        ];
        for key in &keys {
            memory.create(&Key::parse(key).unwrap(), &Body::from(b"x".to_vec())).unwrap();
        }
        let mut shown = Vec::new();
        for item in names(&memory).unwrap() {
            shown.push(match item.unwrap() {
                Item::Stranger(key) => format!("stranger {key}"),
                Item::Wal(Named { name, copies, variants, unread }) => {
                    let copies: Vec<_> = copies.iter().map(|(key, _)| key.as_str()).collect();
                    format!("{name}: {} +{} ?{}", copies.join(" "), variants.len(), unread.len())
                }
            });
        }
        shown.sort();
        assert_eq!(
            shown,
            [
                format!("{B}.00000028.backup: wal_005/{B}.00000028.backup.zst +0 ?0"),
                format!("{B}.partial: wal_005/{B}.partial.zst +1 ?0"),
                format!("{B}: wal_005/{B}.zst wal_005/{B}.lz4 {B}.gz +0 ?0"),
                format!("{C}:  +0 ?1"),
                "00000002.history: 00000002.history +0 ?0".to_owned(),
                "stranger readme".to_owned(),
                format!("stranger wal_005/{B}.json"),
            ]
        );
    }
}
