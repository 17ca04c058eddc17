//! The files of all destinations in the order of their names, all copies of one together, so that
//! memory does not grow with the archive.

use super::copies::FileCopy;
use super::objects::Objects;
use crate::archive::inventory::{Item, Items, items};
use crate::finding::{Finding, FindingKind};
use crate::object::{Encryption, Key, Stored};
use crate::storage::{self, Error, Storage};
use crate::wal::WalName;
use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;

/// One WAL file.
pub(super) struct WalFile {
    pub(super) name: WalName,
    /// In the order in which fetch believes them; variants, which it believes never, last.
    pub(super) copies: Vec<FileCopy>,
}

/// Lists every destination once more.
pub(super) struct Files<'a> {
    objects: &'a Objects<'a>,
    streams: Vec<(usize, Peekable<WalItems>)>,
    /// Those of one segment, still to be given out.
    ready: VecDeque<WalFile>,
    /// Listings that broke off.
    pub(super) failures: Vec<Finding>,
}

impl<'a> Files<'a> {
    pub(super) fn list(objects: &'a Objects<'a>) -> Self {
        let (mut streams, mut failures) = (Vec::new(), Vec::new());
        for (destination, storage) in objects.storages.iter().enumerate() {
            match items(storage.as_ref()) {
                Ok(items) => streams.push((destination, WalItems(items).peekable())),
                Err(error) => failures.push(not_listed(storage.as_ref(), &error)),
            }
        }
        Files { objects, streams, ready: VecDeque::new(), failures }
    }

    /// Takes every object of the next segment, at whichever destination; `None` at the end.
    fn advance(&mut self) -> Option<()> {
        let Files { objects, streams, failures, .. } = self;
        streams.retain_mut(|(destination, stream)| match stream.peek() {
            Some(Err(error)) => {
                let storage = objects.storages.get(*destination);
                failures.extend(storage.map(|storage| not_listed(storage.as_ref(), error)));
                false
            }
            Some(Ok(_)) => true,
            None => false,
        });
        let stem = |item: &Item| stem_of(&item.key).to_owned();
        let next =
            streams.iter_mut().filter_map(|(_, stream)| stream.peek()?.as_ref().ok().map(stem)).min()?;
        let mut group: BTreeMap<WalName, Vec<FileCopy>> = BTreeMap::new();
        for (destination, stream) in streams {
            while let Some(Ok(item)) =
                stream.next_if(|item| item.as_ref().is_ok_and(|item| stem(item) == next))
            {
                if let Some((name, copy)) = objects.wanted(*destination, item) {
                    group.entry(name).or_default().push(copy);
                }
            }
        }
        for (name, mut copies) in group {
            let own = Key::of(name, Encryption::Age);
            let places: Vec<Key> = Key::all_of(name).chain([own]).collect();
            let place =
                |copy: &FileCopy| places.iter().position(|place| *place == copy.key).unwrap_or(places.len());
            let is_variant = |copy: &FileCopy| matches!(copy.stored, Stored::Variant(..));
            copies.sort_by_key(|copy| (is_variant(copy), copy.destination, place(copy)));
            self.ready.push_back(WalFile { name, copies });
        }
        Some(())
    }
}

impl Iterator for Files<'_> {
    type Item = WalFile;

    fn next(&mut self) -> Option<WalFile> {
        while self.ready.is_empty() {
            self.advance()?;
        }
        self.ready.pop_front()
    }
}

impl Objects<'_> {
    /// A listed object, where it is to be looked at.
    fn wanted(&self, destination: usize, item: Item) -> Option<(WalName, FileCopy)> {
        let (name, key, inventory) = (item.stored.name()?, item.key()?, self.inventories.get(destination)?);
        let stored = item.stored.within(inventory.encryption());
        (inventory.reads(&item.key) && self.is_wanted(name) && !matches!(stored, Stored::Unknown(..)))
            .then_some((name, FileCopy { destination, key, stored, size: item.size }))
    }

    /// Whether the scope holds it.
    fn is_wanted(&self, name: WalName) -> bool {
        let (WalName::Segment(segment) | WalName::Partial(segment)) = name else { return true };
        let size = self.names.size();
        let Some(number) = segment.number(size) else { return false };
        let young = self.scope.since.is_none_or(|since| number >= since);
        let asked_for = || {
            let mut needs = self.names.needs.iter();
            needs.any(|n| {
                (n.first..=n.last).contains(&number) && n.branch.serving(number, size) == segment.timeline()
            })
        };
        young && (self.scope.label.is_none() || asked_for())
    }
}

/// The objects of WAL files; the others have no place in the order of segments.
struct WalItems(Items);

impl Iterator for WalItems {
    type Item = storage::Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.find(|item| item.as_ref().map_or(true, |item| item.stored.name().is_some()))
    }
}

/// The digits that the names of one segment's files share.
fn stem_of(key: &str) -> &str {
    let file = key.rsplit('/').next().unwrap_or(key);
    file.split('.').next().unwrap_or(file)
}

fn not_listed(storage: &dyn Storage, error: &Error) -> Finding {
    let what = format!("the listing broke off: {error}");
    Finding::new(FindingKind::NotRead, "archive.json", storage.place(), what).hint("verify it again")
}
