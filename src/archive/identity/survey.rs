//! What a place without `archive.json` holds: whose WAL, and whether other tools stored it.

use crate::archive::lookup::{self, Limit, Sample};
use crate::archive::object::{Opener, Verdict};
use crate::object::{Checks, Stored};
use crate::storage::{Error, Kind, Result, Storage};
use crate::wal::{SegmentSize, SystemId};
use std::io;

/// What was found, as far as it tells anything.
#[derive(Default)]
pub(super) struct Holds {
    /// The key of a WAL file; `None` where there is none at all.
    pub(super) example: Option<String>,
    pub(super) system_id: Option<SystemId>,
    pub(super) segment_size: Option<SegmentSize>,
    /// Whether one of the files looked at was stored by another tool.
    pub(super) foreign: bool,
    /// The key of one that is not encrypted, and of one that is.
    pub(super) plain: Option<String>,
    pub(super) encrypted: Option<String>,
    /// Whether there are more files than were looked at.
    pub(super) more: bool,
}

/// All keys are listed where no file can be read: there may be one.
const LIMIT: Limit = Limit { files: 16, keys: usize::MAX };

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
    let Sample { keys, example, plain, encrypted, foreign, more } = lookup::sample(storage, true, LIMIT)?;
    let mut holds = Holds { example, plain, encrypted, foreign, more, ..Holds::default() };
    for key in keys {
        let opened = Opener::of_any_cluster(checks).open(storage, &key, &mut io::sink())?;
        let size = match opened.map(|opened| opened.verdict) {
            Some(Verdict::Intact(found)) => {
                holds.foreign |= found.trailer.is_none();
                holds.system_id = found.system_id();
                found.size
            }
            Some(Verdict::Shut(seal)) => {
                holds.system_id = seal.system_id;
                seal.size
            }
            _ => continue,
        };
        intact = true;
        if holds.system_id.is_some() {
            let is_whole = matches!(Stored::of(&key), Stored::Wal(name, _) if name.is_pages());
            holds.segment_size = is_whole.then(|| SegmentSize::new(size)).flatten();
            break;
        }
    }
    Ok((holds, intact))
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
    .hint(format!(
        "archive to an empty prefix of its own, made by \"wal-archive init\"; {}",
        lookup::WAL_G_DECRYPTS
    ))
}
