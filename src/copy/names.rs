//! The WAL files of an archive in order, each with all the objects that hold it.
//!
//! The listing comes in the order of the names, so that what belongs to one segment stands
//! together and millions of objects never sit in memory.

use crate::archive::inventory::{self, Items};
use crate::object::key::WAL_FOLDER;
use crate::object::{Encryption, Key, Stored};
use crate::storage::{Result, Storage};
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
    pub(super) copies: Vec<Key>,
    /// Different content of the name, kept beside it.
    pub(super) variants: Vec<Key>,
    /// In encodings that are not read here.
    pub(super) unread: Vec<Key>,
}

/// All of them, each once. An error ends it.
pub(super) fn names(storage: &dyn Storage, encryption: Encryption) -> Result<NamedFiles> {
    Ok(NamedFiles { items: inventory::items(storage)?.peekable(), encryption, ready: VecDeque::new() })
}

pub(super) struct NamedFiles {
    items: Peekable<Items>,
    /// Of the archive: what is in other encodings is not read.
    encryption: Encryption,
    ready: VecDeque<Item>,
}

/// What all keys of one segment, or of one history file, begin with.
fn stem(name: WalName) -> String {
    name.segment().map_or_else(|| name.to_string(), |segment| segment.to_string())
}

impl NamedFiles {
    /// Takes what belongs to one stem, and the strangers between.
    fn advance(&mut self) -> Result<()> {
        let mut found: BTreeMap<WalName, Named> = BTreeMap::new();
        let mut taken = None;
        while let Some(item) = self.items.next_if(|item| match (item, &taken) {
            (Ok(item), Some(taken)) => item.stored.name().is_none_or(|name| stem(name) == *taken),
            (_, taken) => taken.is_none(),
        }) {
            let item = item?;
            let (Some(name), Some(key)) = (item.stored.name(), item.key()) else {
                self.ready.push_back(Item::Stranger(item.key));
                continue;
            };
            taken = Some(stem(name));
            let named = found.entry(name).or_insert_with(|| Named {
                name,
                copies: Vec::new(),
                variants: Vec::new(),
                unread: Vec::new(),
            });
            match item.stored.within(self.encryption) {
                Stored::Wal(..) => named.copies.push(key),
                // Only in our own folder do we keep variants.
                Stored::Variant(..) if key.as_str().starts_with(WAL_FOLDER) => named.variants.push(key),
                Stored::Variant(..) | Stored::Unknown(..) => named.unread.push(key),
                Stored::Stranger => {}
            }
        }
        for mut named in found.into_values() {
            Key::sort(named.name, &mut named.copies);
            self.ready.push_back(Item::Wal(named));
        }
        Ok(())
    }
}

impl Iterator for NamedFiles {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        if self.ready.is_empty()
            && let Err(error) = self.advance()
        {
            self.ready.clear();
            return Some(Err(error));
        }
        self.ready.pop_front().map(Ok)
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
        for item in names(&memory, Encryption::None).unwrap() {
            shown.push(match item.unwrap() {
                Item::Stranger(key) => format!("stranger {key}"),
                Item::Wal(Named { name, copies, variants, unread }) => {
                    let copies: Vec<_> = copies.iter().map(Key::as_str).collect();
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
