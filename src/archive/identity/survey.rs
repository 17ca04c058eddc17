//! What a place without `archive.json` holds: whose WAL, and whether other tools stored it.
//!
//! A few files tell. A directory may hold a million, so they are taken in whatever order they come.

use crate::archive::lookup;
use crate::archive::object::Opener;
use crate::object::key::WAL_FOLDER;
use crate::object::{Checks, Encoding, Key, Stored};
use crate::storage::{Error, Kind, Result, Storage};
use crate::wal::{SegmentSize, SystemId, WalName};

/// What was found, as far as it tells anything.
#[derive(Default)]
pub(super) struct Holds {
    /// The key of a WAL file; `None` where there is none at all.
    pub(super) example: Option<String>,
    pub(super) system_id: Option<SystemId>,
    pub(super) segment_size: Option<SegmentSize>,
    /// Whether one of the files looked at was stored by another tool.
    pub(super) foreign: bool,
    /// Whether there are more files than were looked at.
    pub(super) more: bool,
}

/// How many objects are read to learn whose they are: some may be damaged.
const SAMPLE: usize = 16;

/// Reads files until one tells whose they are. WAL files none of which can be read are an error.
pub(super) fn survey(storage: &dyn Storage, checks: Checks) -> Result<Holds> {
    let (holds, intact) = read(storage, checks)?;
    match &holds.example {
        Some(example) if !intact => Err(unreadable(storage, example)),
        _ => Ok(holds),
    }
}

/// The cluster and segment size of a place without `archive.json`, as far as its files tell.
pub(in crate::archive) fn cluster(storage: &dyn Storage) -> Result<(Option<SystemId>, Option<SegmentSize>)> {
    read(storage, Checks::Header).map(|(holds, _)| (holds.system_id, holds.segment_size))
}

/// Segments before others; and whether one of them was intact.
fn read(storage: &dyn Storage, checks: Checks) -> Result<(Holds, bool)> {
    let mut intact = false;
    let (mut holds, sample) = sample(storage)?;
    for (key, name) in sample {
        let Some(found) = Opener::of_any_cluster(checks).intact(storage, &key)? else { continue };
        intact = true;
        holds.foreign |= found.trailer.is_none();
        holds.system_id = found.system_id();
        if holds.system_id.is_some() {
            holds.segment_size = name.is_pages().then(|| SegmentSize::new(found.size)).flatten();
            break;
        }
    }
    Ok((holds, intact))
}

type Sample = Vec<(Key, WalName)>;

/// Lists until enough segments were seen; those first, then the files that are none.
fn sample(storage: &dyn Storage) -> Result<(Holds, Sample)> {
    let (mut pages, mut texts, mut holds) = (Vec::new(), Vec::new(), Holds::default());
    for folder in lookup::folders(true) {
        for entry in storage.list_unordered(folder)? {
            let key = entry?.key;
            let stored = Stored::parse(key.strip_prefix(folder).unwrap_or(&key));
            if stored.name().is_none() {
                continue;
            }
            if pages.len() == SAMPLE {
                holds.more = true;
                pages.append(&mut texts);
                return Ok((holds, pages));
            }
            // This program puts nothing else there, and nothing elsewhere.
            let may_be_ours = matches!(stored, Stored::Wal(_, Encoding::Zstd) | Stored::Variant(..));
            holds.foreign |= !may_be_ours || *folder != WAL_FOLDER;
            holds.example.get_or_insert_with(|| key.clone());
            if let (Stored::Wal(name, _), Some(key)) = (stored, Key::parse(&key)) {
                let sample = if name.is_pages() { &mut pages } else { &mut texts };
                if sample.len() < SAMPLE {
                    sample.push((key, name));
                }
            }
        }
    }
    pages.append(&mut texts);
    Ok((holds, pages))
}

fn unreadable(storage: &dyn Storage, key: &str) -> Error {
    Error::new(
        Kind::Invalid,
        format!(
            "\"{}\" holds WAL files, such as \"{key}\", but none that was tried can be read: they are encrypted, damaged \
             or in an unknown encoding",
            storage.place()
        ),
    )
    .hint("archive to an empty prefix of its own")
}
