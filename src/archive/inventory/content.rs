//! The few objects that an inventory reads: history files, and a segment to learn the size by.

use super::{Content, Item, Unreadable, items};
use crate::archive::lookup;
use crate::object::{Checks, Key, Stored};
use crate::storage::{Kind, Result, Storage};
use crate::wal::{SegmentSize, SystemId, WalName};

/// The first intact copy, in the order in which they are believed.
pub(super) fn read_text<T>(
    storage: &dyn Storage,
    name: WalName,
    copies: &[Item],
    parse: impl Fn(&[u8]) -> std::result::Result<T, String>,
) -> Content<T> {
    let mut failed = None;
    for (key, encoding) in Key::all_of(name) {
        if !copies.iter().any(|copy| copy.key == key.as_str()) {
            continue;
        }
        let mut bytes = Vec::new();
        let (damaged, reason) = match lookup::read(storage, &key, encoding, name, Checks::Header, &mut bytes)
        {
            Ok(Ok(_)) => match parse(&bytes) {
                Ok(content) => return Ok(content),
                Err(reason) => (true, reason),
            },
            Ok(Err(reason)) => (true, reason),
            Err(error) => (false, error.to_string()),
        };
        failed.get_or_insert(Unreadable { key: key.as_str().to_owned(), damaged, reason });
    }
    Err(failed.unwrap_or_else(|| Unreadable {
        key: copies.first().map(|copy| copy.key.clone()).unwrap_or_default(),
        damaged: false,
        reason: "it is in an encoding that this version does not read".to_owned(),
    }))
}

/// How many objects are read to learn the segment size: some may be damaged.
const SAMPLE: usize = 16;

/// The cluster and segment size of an archive without an identity, by the first segments that
/// can be read.
pub(super) fn sample(storage: &dyn Storage) -> Result<(Option<SystemId>, Option<SegmentSize>)> {
    let mut tried = 0;
    for item in items(storage)? {
        let item = item?;
        let (Stored::Wal(name, encoding), Some(key)) = (&item.stored, item.key()) else { continue };
        if !name.is_pages() {
            continue;
        }
        match lookup::read(storage, &key, *encoding, *name, Checks::Header, &mut std::io::sink()) {
            Ok(Ok(found)) => return Ok((found.system_id(), SegmentSize::new(found.size))),
            Ok(Err(reason)) => log::debug!("\"{}/{key}\": {reason}", storage.place()),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
        tried += 1;
        if tried == SAMPLE {
            break;
        }
    }
    Ok((None, None))
}
