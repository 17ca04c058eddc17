//! What PostgreSQL's own copy of a segment in pg_wal is worth, which it reads where the archive has
//! none.
//!
//! The segment that was being written when a snapshot was taken has its full size and a good first
//! page. Only its records tell where it ends. Source: PostgreSQL
//! `src/backend/access/transam/xlogrecovery.c` (`XLogFileReadAnyTLI`).

use crate::archive::absent::OwnCopy;
use crate::host::data_directory;
use crate::wal::records::{Start, Walker};
use crate::wal::{Lsn, SegmentName, SegmentSize, SystemId};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes read at once.
const BLOCK: usize = 128 * 1024;

/// Reads its records to their end. What cannot be read, or is of another cluster, name or size, is no
/// copy.
pub(super) fn of_segment(
    path: &Path,
    name: SegmentName,
    system_id: Option<SystemId>,
    size: Option<SegmentSize>,
) -> OwnCopy {
    let checked = || -> io::Result<Option<SegmentSize>> {
        let len = std::fs::metadata(path)?.len();
        let Some(page) = data_directory::first_page(path)? else { return Ok(None) };
        let is_ours = system_id.is_none_or(|id| id == page.system_id());
        Ok(page.check(name, len).ok().filter(|found| is_ours && size.is_none_or(|size| size == *found)))
    };
    let Ok(Some(size)) = checked() else { return OwnCopy::None };
    let mut walker = Walker::new(Start::Anywhere);
    walker.begin(name);
    if let Err(error) = walk(path, &mut walker) {
        log::debug!("\"{}\" cannot be read: {error}", path.display());
        return OwnCopy::None;
    }
    let found = walker.walk();
    match found.complete {
        true => OwnCopy::Complete,
        false => {
            let start = name.start(size).unwrap_or(Lsn(0));
            OwnCopy::EndsAt(found.end.or(found.stop.position()).unwrap_or(start))
        }
    }
}

fn walk(path: &Path, walker: &mut Walker) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; BLOCK];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 || !walker.push(buffer.get(..read).unwrap_or_default()) {
            return Ok(());
        }
    }
}
