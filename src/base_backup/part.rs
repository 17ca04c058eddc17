//! A part of a backup: an object of the archive's format, a zstd frame and its trailer, of up to
//! [`SIZE`] bytes of a tar, or the manifest.

use super::id::BackupId;
use crate::object::{EncodeError, Encoder, Sha256Sum, Trailer};
use crate::wal::SystemId;
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};
use zstd::stream::read::Decoder;

/// Bytes of a tar in each part but its last.
pub const SIZE: usize = 32 << 20;

/// The extension of every part.
pub const EXTENSION: &str = ".zst";

/// The manifest's file.
pub const MANIFEST: &str = "manifest.zst";

/// The name of a part's file: of a tablespace's tar, or of the data directory's; counted from 1.
pub fn file(tablespace: Option<u32>, number: usize) -> String {
    match tablespace {
        Some(oid) => format!("{oid}-{number:05}.tar{EXTENSION}"),
        None => format!("base-{number:05}.tar{EXTENSION}"),
    }
}

/// What the trailer of a part calls it: its key without the last extension.
fn name(id: &BackupId, file: &str) -> String {
    format!("{}{}", id.folder(), file.strip_suffix(EXTENSION).unwrap_or(file))
}

/// Writes the object of a part of exactly `size` bytes.
pub fn encode(
    encoder: &mut Encoder,
    (id, file): (&BackupId, &str),
    size: u64,
    system_id: SystemId,
    source: &mut dyn Read,
    output: &mut dyn Write,
) -> Result<(), EncodeError> {
    encoder.encode(name(id, file), size, Some(system_id), source, output).map(drop)
}

/// Why a part cannot be decoded.
#[derive(Debug)]
pub enum PartError {
    /// It is not what was stored. The reason.
    Damaged(String),
    Write(io::Error),
}

/// Decodes and proves the stored bytes of a part.
pub fn decode(
    (id, file): (&BackupId, &str),
    system_id: SystemId,
    stored: &mut dyn Read,
    len: u64,
    output: &mut dyn Write,
) -> Result<u64, PartError> {
    let damaged = |reason: &str| PartError::Damaged(reason.to_owned());
    let unread = |error: io::Error| PartError::Damaged(format!("it cannot be decompressed: {error}"));
    let frame = len.checked_sub(Trailer::LEN as u64).ok_or_else(|| damaged("it is cut"))?;
    let mut source = stored.take(frame);
    let (size, sha256) = {
        let decoder = Decoder::new(&mut source).map_err(unread)?;
        copy(&mut decoder.single_frame(), output)?
    };
    let mut rest = Vec::new();
    let left = source.limit();
    source.into_inner().take(Trailer::LEN as u64 + 1).read_to_end(&mut rest).map_err(unread)?;
    if left != 0 {
        return Err(damaged("something is between its frame and its trailer"));
    }
    let trailer: Trailer<String> = Trailer::read(&rest).map_err(PartError::Damaged)?;
    match () {
        () if trailer.name != name(id, file) => {
            Err(PartError::Damaged(format!("it is the object of \"{}\"", trailer.name)))
        }
        () if trailer.system_id != Some(system_id) => Err(damaged("it is of another cluster")),
        () if trailer.frame != frame || trailer.size != size || trailer.sha256 != sha256 => {
            Err(damaged("its content is not what its trailer says"))
        }
        () => Ok(size),
    }
}

/// What is copied is bounded by the frame's own checksum only at its end; a part is small, and the
/// manifest's writer goes to a file.
fn copy(source: &mut dyn Read, output: &mut dyn Write) -> Result<(u64, Sha256Sum), PartError> {
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    let mut size = 0;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => return Ok((size, Sha256Sum::from(sha))),
            Ok(read) => read,
            Err(error) => return Err(PartError::Damaged(format!("it cannot be decompressed: {error}"))),
        };
        let piece = buffer.get(..read).unwrap_or_default();
        sha.update(piece);
        output.write_all(piece).map_err(PartError::Write)?;
        size += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::{Lsn, Timeline};
    use std::time::{Duration, SystemTime};

    fn id() -> BackupId {
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        BackupId::new(started, Lsn(u64::MAX), Timeline::new(u32::MAX).unwrap()).unwrap()
    }

    fn encoded(file: &str, content: &[u8]) -> Vec<u8> {
        let (mut out, mut encoder) = (Vec::new(), Encoder::new(1).unwrap());
        let system_id = SystemId(u64::MAX);
        encode(&mut encoder, (&id(), file), content.len() as u64, system_id, &mut &content[..], &mut out)
            .unwrap();
        out
    }

    fn decoded(file: &str, stored: &[u8]) -> Result<Vec<u8>, PartError> {
        let mut out = Vec::new();
        let size =
            decode((&id(), file), SystemId(u64::MAX), &mut &stored[..], stored.len() as u64, &mut out)?;
        assert_eq!(size, out.len() as u64);
        Ok(out)
    }

    #[test]
    fn a_part_comes_out_as_it_went_in_and_its_longest_name_has_room() {
        let longest = file(Some(u32::MAX), 99_999);
        let content = vec![7; 300_000];
        for name in [longest.as_str(), MANIFEST, &file(None, 1)] {
            assert_eq!(decoded(name, &encoded(name, &content)).unwrap(), content);
            assert_eq!(decoded(name, &encoded(name, b"")).unwrap(), b"");
        }
        assert_eq!(file(None, 1), "base-00001.tar.zst");
    }

    #[test]
    fn a_part_under_another_name_cut_or_changed_is_damage() {
        let good = encoded(&file(None, 1), &b"abcdefgh".repeat(100));
        assert!(decoded(&file(None, 2), &good).is_err());
        assert!(
            decode((&id(), &file(None, 1)), SystemId(1), &mut &good[..], good.len() as u64, &mut io::sink())
                .is_err()
        );
        for cut in 0..good.len() {
            assert!(decoded(&file(None, 1), &good[..cut]).is_err(), "{cut}");
        }
        assert!(decoded(&file(None, 1), &[good.as_slice(), good.as_slice()].concat()).is_err());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            // An unused bit of the frame's header changes nothing.
            if let Ok(content) = decoded(&file(None, 1), &bad) {
                assert_eq!(content, b"abcdefgh".repeat(100), "byte {at}");
            }
        }
    }
}
