//! What a place without `archive.json` holds: whose WAL, and whether other tools stored it.
//!
//! A few files tell. A directory may hold a million, so they are taken in whatever order they come.

use crate::archive::lookup;
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

/// Reads files, segments before others, until one tells whose they are.
pub(super) fn survey(storage: &dyn Storage, checks: Checks) -> Result<Holds> {
    let (mut holds, sample) = sample(storage)?;
    let Some(example) = &holds.example else { return Ok(holds) };
    let mut intact = false;
    for (key, name, encoding) in sample {
        let found = match lookup::read(storage, &key, encoding, name, checks, &mut std::io::sink()) {
            Ok(Ok(found)) => found,
            Ok(Err(reason)) => {
                log::debug!("\"{}/{key}\": {reason}", storage.place());
                continue;
            }
            Err(error) if error.kind() == Kind::NotFound => continue,
            Err(error) => return Err(error),
        };
        intact = true;
        holds.foreign |= found.trailer.is_none();
        holds.system_id = found.system_id();
        if holds.system_id.is_some() {
            holds.segment_size = name.is_pages().then(|| SegmentSize::new(found.size)).flatten();
            break;
        }
    }
    if intact { Ok(holds) } else { Err(unreadable(storage, example)) }
}

type Sample = Vec<(Key, WalName, Encoding)>;

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
            if let (Stored::Wal(name, encoding), Some(key)) = (stored, Key::parse(&key)) {
                let sample = if name.is_pages() { &mut pages } else { &mut texts };
                if sample.len() < SAMPLE {
                    sample.push((key, name, encoding));
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
