//! A part of a backup: an object of the archive's format, a zstd frame and its trailer, of up to
//! [`SIZE`] bytes of a tar, or the manifest; in an encrypted archive, inside an age file.

use super::id::BackupId;
use crate::object::age::{self, Content, Identities};
use crate::object::{DecodeError, EncodeError, Encoder, Encoding, Encryption, Sha256Sum, Trailer};
use crate::wal::SystemId;
use sha2::{Digest, Sha256};
use std::io::{self, BufRead, BufReader, Read, Write};
use zstd::stream::read::Decoder;

/// Bytes of a tar in each part but its last.
pub const SIZE: usize = 32 << 20;

/// The manifest's file, without its last extension.
pub const MANIFEST: &str = "manifest";

/// The name of a part's file without its last extension: of a tablespace's tar, or of the data
/// directory's; counted from 1.
pub fn stem(tablespace: Option<u32>, number: usize) -> String {
    match tablespace {
        Some(oid) => format!("{oid}-{number:05}.tar"),
        None => format!("base-{number:05}.tar"),
    }
}

/// The name of a file, as such an archive has it.
pub fn file(stem: &str, encryption: Encryption) -> String {
    format!("{stem}.{}", Encoding::own(encryption).extension())
}

/// How a file is stored, by its name; and the name without the last extension.
pub fn encryption(file: &str) -> Option<(&str, Encryption)> {
    let (stem, _) = file.rsplit_once('.')?;
    let of = [Encryption::None, Encryption::Age].into_iter().find(|of| self::file(stem, *of) == file)?;
    Some((stem, of))
}

/// What the trailer of a part calls it: its key without the last extension.
fn name(id: &BackupId, stem: &str) -> String {
    format!("{}{stem}", id.folder())
}

/// Writes the object of a part of exactly `size` bytes, and returns its trailer.
pub fn encode(
    encoder: &mut Encoder,
    (id, stem): (&BackupId, &str),
    size: u64,
    system_id: SystemId,
    source: &mut dyn Read,
    output: &mut dyn Write,
) -> Result<Trailer<String>, EncodeError> {
    encoder.encode(name(id, stem), size, Some(system_id), source, output)
}

/// What shows that a part holds what was put into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The hash in its trailer.
    Content,
    /// The record's hash of the stored bytes, which are these: what is in them is not hashed again.
    Stored,
}

/// Decodes and proves a part of `size` bytes, which is read to its end. Where it is encrypted and no
/// identity fits, its stored bytes are proved.
pub fn decode(
    (id, file): (&BackupId, &str),
    (system_id, size): (SystemId, u64),
    (identities, proof): (&Identities, Proof),
    stored: &mut dyn Read,
    output: &mut dyn Write,
) -> Result<Content<(), String>, DecodeError> {
    let unknown = || DecodeError::Damaged("it has the name of no part".to_owned());
    let (stem, encryption) = encryption(file).ok_or_else(unknown)?;
    let name = name(id, stem);
    let mut plain = |stored: &mut dyn Read| {
        decode_plain(&name, (system_id, size), proof, stored, output).map(|trailer| ((), trailer))
    };
    match encryption {
        Encryption::None => plain(stored).map(|_| Content::Open((), None)),
        Encryption::Age => match age::open(&name, identities, stored, plain)? {
            Content::Shut(seal) if (seal.size, seal.system_id) != (size, Some(system_id)) => {
                Err(DecodeError::Damaged("it is of another size or cluster".to_owned()))
            }
            content => Ok(content),
        },
    }
}

fn decode_plain(
    name: &str,
    (system_id, size): (SystemId, u64),
    proof: Proof,
    stored: &mut dyn Read,
    output: &mut dyn Write,
) -> Result<Trailer<String>, DecodeError> {
    let mut source = BufReader::with_capacity(BLOCK, Watched { inner: stored, read: 0, failed: false });
    let mut sha = (proof == Proof::Content).then(Sha256::new);
    let decoded = decode_frame(&mut source, size, &mut |piece| {
        if let Some(sha) = &mut sha {
            sha.update(piece);
        }
        output.write_all(piece)
    });
    let frame = source.get_ref().read - source.buffer().len() as u64;
    let mut rest = Vec::new();
    let decoded = decoded.and_then(|()| {
        source.by_ref().take(Trailer::LEN as u64 + 1).read_to_end(&mut rest).map_err(DecodeError::Read)
    });
    decoded.map_err(|error| match error {
        // What the decompressor says of a source that cannot be read says nothing of its bytes.
        DecodeError::Damaged(reason) if source.get_ref().failed => {
            DecodeError::Read(io::Error::other(reason))
        }
        other => other,
    })?;
    let damaged = |reason: &str| Err(DecodeError::Damaged(reason.to_owned()));
    let trailer: Trailer<String> = Trailer::read(&rest).map_err(DecodeError::Damaged)?;
    match () {
        () if trailer.name != name => {
            Err(DecodeError::Damaged(format!("it is the object of \"{}\"", trailer.name)))
        }
        () if trailer.system_id != Some(system_id) => damaged("it is of another cluster"),
        () if (trailer.frame, trailer.size) != (frame, size)
            || sha.is_some_and(|sha| trailer.sha256 != Sha256Sum::from(sha)) =>
        {
            damaged("its content is not what its trailer says")
        }
        () => Ok(trailer),
    }
}

/// Bytes that are read at once.
const BLOCK: usize = 128 * 1024;

/// Hands on what one frame holds, if that is `size` bytes.
fn decode_frame(
    source: &mut dyn BufRead,
    size: u64,
    output: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), DecodeError> {
    let unread = |error: io::Error| DecodeError::Damaged(format!("it cannot be decompressed: {error}"));
    let mut frame = Decoder::with_buffer(source).map_err(unread)?.single_frame();
    let mut buffer = vec![0; BLOCK];
    let mut left = size;
    loop {
        let read = frame.read(&mut buffer).map_err(unread)?;
        if read == 0 {
            break;
        }
        let more = || DecodeError::Damaged(format!("it holds more than {size} bytes"));
        left = left.checked_sub(read as u64).ok_or_else(more)?;
        output(buffer.get(..read).unwrap_or_default()).map_err(DecodeError::Write)?;
    }
    match left {
        0 => Ok(()),
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
    use crate::object::age::{Identity, Recipient, Sealer};
    use crate::wal::{Lsn, Timeline};
    use std::time::{Duration, SystemTime};

    fn id() -> BackupId {
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        BackupId::new(started, Lsn(u64::MAX), Timeline::new(u32::MAX).unwrap()).unwrap()
    }

    const PLAIN: Encryption = Encryption::None;

    fn encoded(stem: &str, content: &[u8]) -> Vec<u8> {
        let (mut out, mut encoder) = (Vec::new(), Encoder::new(1).unwrap());
        let system_id = SystemId(u64::MAX);
        encode(&mut encoder, (&id(), stem), content.len() as u64, system_id, &mut &content[..], &mut out)
            .unwrap();
        out
    }

    /// The same in an age file.
    fn sealed(stem: &str, content: &[u8], recipient: &Recipient) -> Vec<u8> {
        let recipients = [recipient.clone()];
        let mut sealer = Sealer::begin(&recipients, Vec::new()).unwrap();
        let mut encoder = Encoder::new(1).unwrap();
        let (of, size) = ((&id(), stem), content.len() as u64);
        let trailer =
            encode(&mut encoder, of, size, SystemId(u64::MAX), &mut &content[..], &mut sealer).unwrap();
        let (payload, sealed) = sealer.finish(&trailer).unwrap();
        [sealed.header, payload].concat()
    }

    fn read(
        file: &str,
        size: u64,
        identities: &Identities,
        mut stored: impl Read,
        out: &mut Vec<u8>,
    ) -> Result<Content<(), String>, DecodeError> {
        let cluster = (SystemId(u64::MAX), size);
        decode((&id(), file), cluster, (identities, Proof::Content), &mut stored, out)
    }

    fn decoded(stem: &str, size: u64, stored: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut out = Vec::new();
        read(&file(stem, PLAIN), size, &Identities::NONE, stored, &mut out)?;
        assert_eq!(size, out.len() as u64);
        Ok(out)
    }

    #[test]
    fn a_part_comes_out_as_it_went_in_and_its_longest_name_has_room() {
        let longest = stem(Some(u32::MAX), 99_999);
        let content = vec![7; 300_000];
        for name in [longest.as_str(), MANIFEST, &stem(None, 1)] {
            assert_eq!(decoded(name, 300_000, &encoded(name, &content)).unwrap(), content);
            assert_eq!(decoded(name, 0, &encoded(name, b"")).unwrap(), b"");
        }
        assert_eq!(file(&stem(None, 1), PLAIN), "base-00001.tar.zst");
        assert_eq!(file(MANIFEST, Encryption::Age), "manifest.age");
        assert_eq!(encryption("base-00001.tar.age"), Some(("base-00001.tar", Encryption::Age)));
        assert_eq!(encryption("base-00001.tar.lz4"), None);
    }

    #[test]
    fn an_encrypted_part_is_read_with_its_key_and_proved_without() {
        let (key, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let identities = |of: &Identity| Identities::parse(&of.write("now")).unwrap();
        let (first, content) = (stem(None, 1), vec![7; 300_000]);
        let (good, name) = (sealed(&first, &content, key.recipient()), file(&first, Encryption::Age));
        let read = |name: &str, size, identities: &Identities, stored: &[u8]| {
            let mut out = Vec::new();
            read(name, size, identities, stored, &mut out).map(|content| (content, out))
        };
        let (opened, out) = read(&name, 300_000, &identities(&key), &good).unwrap();
        assert!(matches!(opened, Content::Open((), Some(_))) && out == content);
        for without in [&Identities::NONE, &identities(&other)] {
            let (shut, out) = read(&name, 300_000, without, &good).unwrap();
            assert!(matches!(shut, Content::Shut(_)) && out.is_empty());
        }
        let second = file(&stem(None, 2), Encryption::Age);
        for of in [&identities(&key), &Identities::NONE] {
            assert!(read(&second, 300_000, of, &good).is_err(), "under another name");
            assert!(read(&name, 299_999, of, &good).is_err(), "of another size");
            for at in (0..good.len()).step_by(11) {
                assert!(read(&name, 300_000, of, &good[..at]).is_err(), "cut at {at}");
            }
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(read(&name, 300_000, &identities(&key), &bad).is_err(), "byte {at}");
        }
        // What stands in the clear under the name of an encrypted one is not read.
        assert!(read(&name, 300_000, &identities(&key), &encoded(&first, &content)).is_err());
    }

    #[test]
    fn a_part_under_another_name_cut_or_changed_is_damage() {
        let (first, good) = (stem(None, 1), encoded(&stem(None, 1), &b"abcdefgh".repeat(100)));
        assert!(decoded(&stem(None, 2), 800, &good).is_err());
        let of = (&id(), file(&first, PLAIN));
        let of_another = decode(
            (of.0, &of.1),
            (SystemId(1), 800),
            (&Identities::NONE, Proof::Content),
            &mut &good[..],
            &mut io::sink(),
        );
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
        let (first, bomb) = (stem(None, 1), encoded(&stem(None, 1), &vec![0; 4 << 20]));
        for size in [0, 1000, (4 << 20) - 1, (4 << 20) + 1] {
            let mut out = Vec::new();
            let damage = read(&file(&first, PLAIN), size, &Identities::NONE, bomb.as_slice(), &mut out);
            assert!(matches!(damage, Err(DecodeError::Damaged(_))) && out.len() as u64 <= size, "{size}");
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
        let (first, good) = (stem(None, 1), encoded(&stem(None, 1), &vec![7; 300_000]));
        for cut in [0, 10, good.len() - 1] {
            let (source, mut out) = (good[..cut].chain(Broken), Vec::new());
            let read = read(&file(&first, PLAIN), 300_000, &Identities::NONE, source, &mut out);
            assert!(matches!(read, Err(DecodeError::Read(_))), "{cut}: {read:?}");
        }
    }
}
