//! A part of a backup: an object of the archive's format, a zstd frame and its trailer, of up to
//! [`SIZE`] bytes of a tar, or the manifest.

use super::id::BackupId;
use crate::object::{DecodeError, EncodeError, Encoder, Sha256Sum, Trailer};
use crate::wal::SystemId;
use sha2::{Digest, Sha256};
use std::io::{self, BufRead, BufReader, Read, Write};
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

/// Decodes and proves a part of `size` bytes, which is read to its end.
pub fn decode(
    (id, file): (&BackupId, &str),
    system_id: SystemId,
    size: u64,
    stored: &mut dyn Read,
    output: &mut dyn Write,
) -> Result<(), DecodeError> {
    let mut source = BufReader::with_capacity(BLOCK, Watched { inner: stored, read: 0, failed: false });
    let decoded = decode_frame(&mut source, size, output);
    let frame = source.get_ref().read - source.buffer().len() as u64;
    let mut rest = Vec::new();
    let decoded = decoded.and_then(|sha256| {
        source.by_ref().take(Trailer::LEN as u64 + 1).read_to_end(&mut rest).map_err(DecodeError::Read)?;
        Ok(sha256)
    });
    let sha256 = decoded.map_err(|error| match error {
        // What the decompressor says of a source that cannot be read says nothing of its bytes.
        DecodeError::Damaged(reason) if source.get_ref().failed => {
            DecodeError::Read(io::Error::other(reason))
        }
        other => other,
    })?;
    let damaged = |reason: &str| Err(DecodeError::Damaged(reason.to_owned()));
    let trailer: Trailer<String> = Trailer::read(&rest).map_err(DecodeError::Damaged)?;
    match () {
        () if trailer.name != name(id, file) => {
            Err(DecodeError::Damaged(format!("it is the object of \"{}\"", trailer.name)))
        }
        () if trailer.system_id != Some(system_id) => damaged("it is of another cluster"),
        () if (trailer.frame, trailer.size, trailer.sha256) != (frame, size, sha256) => {
            damaged("its content is not what its trailer says")
        }
        () => Ok(()),
    }
}

/// Bytes that are read at once.
const BLOCK: usize = 128 * 1024;

/// Writes what one frame holds, if that is `size` bytes.
fn decode_frame(
    source: &mut dyn BufRead,
    size: u64,
    output: &mut dyn Write,
) -> Result<Sha256Sum, DecodeError> {
    let unread = |error: io::Error| DecodeError::Damaged(format!("it cannot be decompressed: {error}"));
    let mut frame = Decoder::with_buffer(source).map_err(unread)?.single_frame();
    let mut sha = Sha256::new();
    let mut buffer = vec![0; BLOCK];
    let mut left = size;
    loop {
        let read = frame.read(&mut buffer).map_err(unread)?;
        if read == 0 {
            break;
        }
        let more = || DecodeError::Damaged(format!("it holds more than {size} bytes"));
        left = left.checked_sub(read as u64).ok_or_else(more)?;
        let piece = buffer.get(..read).unwrap_or_default();
        sha.update(piece);
        output.write_all(piece).map_err(DecodeError::Write)?;
    }
    match left {
        0 => Ok(Sha256Sum::from(sha)),
        left => Err(DecodeError::Damaged(format!("it holds {} bytes, not {size}", size - left))),
    }
}

/// Counts what is read, and remembers whether that failed.
struct Watched<'a> {
    inner: &'a mut dyn Read,
    read: u64,
    failed: bool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer).inspect_err(|_| self.failed = true)?;
        self.read += read as u64;
        Ok(read)
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

    fn decoded(file: &str, size: u64, stored: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut out = Vec::new();
        decode((&id(), file), SystemId(u64::MAX), size, &mut &stored[..], &mut out)?;
        assert_eq!(size, out.len() as u64);
        Ok(out)
    }

    #[test]
    fn a_part_comes_out_as_it_went_in_and_its_longest_name_has_room() {
        let longest = file(Some(u32::MAX), 99_999);
        let content = vec![7; 300_000];
        for name in [longest.as_str(), MANIFEST, &file(None, 1)] {
            assert_eq!(decoded(name, 300_000, &encoded(name, &content)).unwrap(), content);
            assert_eq!(decoded(name, 0, &encoded(name, b"")).unwrap(), b"");
        }
        assert_eq!(file(None, 1), "base-00001.tar.zst");
    }

    #[test]
    fn a_part_under_another_name_cut_or_changed_is_damage() {
        let (first, good) = (file(None, 1), encoded(&file(None, 1), &b"abcdefgh".repeat(100)));
        assert!(decoded(&file(None, 2), 800, &good).is_err());
        let of_another = decode((&id(), &first), SystemId(1), 800, &mut &good[..], &mut io::sink());
        assert!(
            matches!(of_another, Err(DecodeError::Damaged(reason)) if reason.contains("another cluster"))
        );
        for cut in 0..good.len() {
            assert!(decoded(&first, 800, &good[..cut]).is_err(), "{cut}");
        }
        assert!(decoded(&first, 800, &[good.as_slice(), good.as_slice()].concat()).is_err());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            // An unused bit of the frame's header changes nothing.
            if let Ok(content) = decoded(&first, 800, &bad) {
                assert_eq!(content, b"abcdefgh".repeat(100), "byte {at}");
            }
        }
    }

    #[test]
    fn a_part_that_holds_more_or_less_than_its_record_says_is_damage_and_bounded() {
        let (first, bomb) = (file(None, 1), encoded(&file(None, 1), &vec![0; 4 << 20]));
        for size in [0, 1000, (4 << 20) - 1, (4 << 20) + 1] {
            let mut out = Vec::new();
            let read = decode((&id(), &first), SystemId(u64::MAX), size, &mut &bomb[..], &mut out);
            assert!(matches!(read, Err(DecodeError::Damaged(_))) && out.len() as u64 <= size, "{size}");
        }
    }

    #[test]
    fn a_source_that_cannot_be_read_is_no_damage() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let (first, good) = (file(None, 1), encoded(&file(None, 1), &vec![7; 300_000]));
        for cut in [0, 10, good.len() - 1] {
            let mut source = good[..cut].chain(Broken);
            let read = decode((&id(), &first), SystemId(u64::MAX), 300_000, &mut source, &mut io::sink());
            assert!(matches!(read, Err(DecodeError::Read(_))), "{cut}: {read:?}");
        }
    }
}
