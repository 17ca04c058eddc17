//! The encodings that WAL files are found in, and strict readers of them.
//!
//! WAL-G writes `.lz4`, `.lzma`, `.br`, `.zst` or bare files; people with `cp` and `gzip` in
//! their `archive_command` write bare ones and `.gz`. Only [`Encoding::Zstd`] is ever written
//! here. Each reader ends where its encoding ends and fails where that is not the end of the
//! object. What an encoding cannot tell (brotli and bare files have no checksum) is left to the
//! proofs over the whole file.
//!
//! Memory: a window that grows with the output up to what the object's header asks for, which may
//! be [`MAX_DICTIONARY`]; up to 13 MiB of blocks for LZ4.

use super::digest::CHUNK;
use super::identity::Encryption;
use super::lz4::Lz4;
use super::proof::DecodeError;
use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::LzmaReader;
use std::cell::Cell;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

/// The largest dictionary of an `.lzma` file: what `xz -9` asks for. Brotli has at most 16 MiB.
pub const MAX_DICTIONARY: u32 = 64 << 20;

/// How an object holds its WAL file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// zstd: our own format, WAL-G's, or plain.
    Zstd,
    /// An LZ4 frame.
    Lz4,
    /// The `.lzma` format of LZMA Utils ("LZMA alone").
    Lzma,
    Brotli,
    Gzip,
    /// The raw bytes.
    Bare,
    /// An age file that holds an object of ours.
    Age,
}

impl Encoding {
    /// Those of an archive that is not encrypted, in the order in which they are looked for.
    pub const PLAIN: [Encoding; 6] =
        [Encoding::Zstd, Encoding::Lz4, Encoding::Lzma, Encoding::Brotli, Encoding::Gzip, Encoding::Bare];

    /// What follows the WAL file's name in the key, without the dot; empty for bare.
    pub fn extension(self) -> &'static str {
        match self {
            Encoding::Zstd => "zst",
            Encoding::Lz4 => "lz4",
            Encoding::Lzma => "lzma",
            Encoding::Brotli => "br",
            Encoding::Gzip => "gz",
            Encoding::Bare => "",
            Encoding::Age => "age",
        }
    }

    /// The encoding with this extension.
    pub fn of_extension(extension: &str) -> Option<Self> {
        let mut all = Encoding::PLAIN.into_iter().chain([Encoding::Age]);
        all.find(|encoding| encoding.extension() == extension)
    }

    /// In which this program stores what it archives.
    pub fn own(encryption: Encryption) -> Self {
        match encryption {
            Encryption::None => Encoding::Zstd,
            Encryption::Age => Encoding::Age,
        }
    }

    /// Whether objects of such an archive are read in it.
    pub fn is_read(self, encryption: Encryption) -> bool {
        (self == Encoding::Age) == (encryption == Encryption::Age)
    }
}

/// The content of an object, decoded as it is read.
pub(super) struct Content<'a> {
    reader: Box<dyn Read + 'a>,
    failure: Failure,
}

/// What the source failed of. Kept here, because decoders swallow, rewrite or delay it.
type Failure = Rc<Cell<Option<io::Error>>>;

impl<'a> Content<'a> {
    /// Of an object in an encoding other than [`Encoding::Zstd`], which has a decoder of its own.
    pub(super) fn new(encoding: Encoding, object: &'a mut dyn Read) -> Self {
        let failure = Failure::default();
        let source = StoredBytes { object, failure: Rc::clone(&failure), failed: false };
        let reader: Box<dyn Read + 'a> = match encoding {
            Encoding::Lz4 => Box::new(Lz4::new(BufReader::with_capacity(CHUNK, source))),
            Encoding::Lzma => Box::new(Lzma::Unopened(source)),
            Encoding::Brotli => Box::new(Brotli::new(source)),
            Encoding::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(CHUNK, source))),
            Encoding::Zstd | Encoding::Bare | Encoding::Age => Box::new(source),
        };
        Content { reader, failure }
    }

    /// Adds the next bytes to an empty buffer with room for [`CHUNK`]; none at the proper end.
    pub(super) fn read_chunk(&mut self, buffer: &mut Vec<u8>) -> Result<usize, DecodeError> {
        let read = self.reader.by_ref().take(CHUNK as u64).read_to_end(buffer);
        if let Some(failure) = self.failure.take() {
            return Err(DecodeError::Read(failure));
        }
        read.map_err(|error| {
            DecodeError::Damaged(match error.kind() {
                io::ErrorKind::UnexpectedEof => "it is empty or cut".to_owned(),
                _ => format!("it cannot be decompressed: {error}"),
            })
        })
    }
}

/// The object's bytes; an error of reading them is put aside and then repeated for ever.
struct StoredBytes<'a> {
    object: &'a mut dyn Read,
    failure: Failure,
    failed: bool,
}

impl Read for StoredBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.failed {
            match self.object.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = true;
                    self.failure.set(Some(error));
                }
                read => return read,
            }
        }
        Err(io::Error::other("the object cannot be read"))
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// One `.lzma` stream, to its end marker or its known size, and nothing after it.
enum Lzma<'a> {
    Unopened(StoredBytes<'a>),
    Open(Box<LzmaReader<StoredBytes<'a>>>),
    Ended,
}

impl Read for Lzma<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let mut reader = match std::mem::replace(self, Lzma::Ended) {
            Lzma::Unopened(source) => {
                let limit = MAX_DICTIONARY / 1024 + 4096; // KiB; with the largest probability model
                let mut reader = LzmaReader::new_mem_limit(source, limit, None)?;
                reader.set_relaxed_end_condition(false);
                Box::new(reader)
            }
            Lzma::Open(reader) => reader,
            Lzma::Ended => return Ok(0),
        };
        let read = reader.read(buffer)?;
        if read > 0 {
            *self = Lzma::Open(reader);
            return Ok(read);
        }
        let (mut source, unused) = reader.into_parts();
        if !unused.is_empty() || source.read(&mut [0])? > 0 {
            return Err(invalid("something follows its end"));
        }
        Ok(0)
    }
}

/// One brotli stream (RFC 7932, windows up to 16 MiB) and nothing after it.
struct Brotli<'a> {
    source: StoredBytes<'a>,
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    input: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<'a> Brotli<'a> {
    fn new(source: StoredBytes<'a>) -> Self {
        let [bytes, words, codes] = [StandardAlloc::default(); 3];
        let state = Box::new(BrotliState::new_strict(bytes, words, codes));
        Brotli { source, state, input: Vec::new(), at: 0, ended: false }
    }

    /// Makes input available; `false` at the end of the object.
    fn refill(&mut self) -> io::Result<bool> {
        if self.at == self.input.len() {
            self.input.clear();
            self.at = 0;
            self.source.by_ref().take(CHUNK as u64).read_to_end(&mut self.input)?;
        }
        Ok(!self.input.is_empty())
    }
}

impl Read for Brotli<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !buffer.is_empty() {
            let (mut room, mut written, mut total) = (buffer.len(), 0, 0);
            let mut available = self.input.len() - self.at;
            let result = BrotliDecompressStream(
                &mut available,
                &mut self.at,
                &self.input,
                &mut room,
                &mut written,
                buffer,
                &mut total,
                &mut self.state,
            );
            match result {
                BrotliResult::ResultFailure => return Err(invalid("it is not a brotli stream")),
                BrotliResult::NeedsMoreInput if written == 0 && !self.refill()? => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                BrotliResult::ResultSuccess => {
                    self.ended = true;
                    if self.refill()? {
                        return Err(invalid("something follows its end"));
                    }
                }
                _ => {}
            }
            if written > 0 {
                return Ok(written);
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn read(encoding: Encoding, mut object: &[u8]) -> Result<Vec<u8>, DecodeError> {
        drain(Content::new(encoding, &mut object))
    }

    fn drain(mut content: Content<'_>) -> Result<Vec<u8>, DecodeError> {
        let mut whole = Vec::new();
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            if content.read_chunk(&mut chunk)? == 0 {
                return Ok(whole);
            }
            whole.extend(chunk);
        }
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    const TEXT: &[u8] = b"1\t0/1B6BDA0\tno recovery target specified\n";
    /// `00000002.history` as WAL-G writes it.
    const LZMA: &[u8] =
        include_bytes!("../../tests/vectors/foreign/wal-g-lzma/wal_005/00000002.history.lzma");
    const LZ4: &[u8] = include_bytes!("../../tests/vectors/foreign/wal-g-lz4/wal_005/00000002.history.lz4");
    const BROTLI: &[u8] =
        include_bytes!("../../tests/vectors/foreign/wal-g-brotli/wal_005/00000002.history.br");

    fn samples() -> [(Encoding, Vec<u8>); 5] {
        [
            (Encoding::Lz4, LZ4.to_vec()),
            (Encoding::Lzma, LZMA.to_vec()),
            (Encoding::Brotli, BROTLI.to_vec()),
            (Encoding::Gzip, gzip(TEXT)),
            (Encoding::Bare, TEXT.to_vec()),
        ]
    }

    #[test]
    fn extensions_tell_encodings_apart() {
        for encoding in Encoding::PLAIN {
            assert_eq!(Encoding::of_extension(encoding.extension()), Some(encoding));
        }
        assert_eq!(Encoding::of_extension("xz"), None);
    }

    #[test]
    fn every_encoding_is_read_and_a_cut_or_something_after_the_end_is_damage() {
        for (encoding, object) in samples() {
            assert_eq!(read(encoding, &object).unwrap(), TEXT, "{encoding:?}");
            if encoding == Encoding::Bare {
                continue;
            }
            for len in 0..object.len() {
                let cut = read(encoding, &object[..len]);
                assert!(matches!(cut, Err(DecodeError::Damaged(_))), "{encoding:?} cut to {len}: {cut:?}");
            }
            for byte in 0..=255 {
                let longer = read(encoding, &[&object[..], &[byte]].concat());
                assert!(
                    matches!(longer, Err(DecodeError::Damaged(_))),
                    "{encoding:?} and {byte}: {longer:?}"
                );
            }
        }
    }

    #[test]
    fn members_and_frames_may_follow_each_other_and_streams_may_not() {
        for (encoding, object) in samples() {
            let twice = read(encoding, &[&object[..], &object].concat());
            match encoding {
                Encoding::Lzma | Encoding::Brotli => assert!(twice.is_err(), "{encoding:?}"),
                _ => assert_eq!(twice.unwrap(), [TEXT, TEXT].concat(), "{encoding:?}"),
            }
        }
    }

    #[test]
    fn a_failing_source_is_never_called_damage() {
        struct Breaking<'a>(&'a [u8], bool);
        impl Read for Breaking<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if self.0.is_empty() {
                    return Err(io::Error::other("the network is down"));
                }
                self.1 = !self.1;
                if self.1 {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let one = buffer.len().min(1);
                self.0.by_ref().take(one as u64).read(buffer)
            }
        }
        for (encoding, object) in samples() {
            // At the end too: the decoder may have all it needs, but nobody knows that it is the end.
            for len in 0..=object.len() {
                match drain(Content::new(encoding, &mut Breaking(&object[..len], false))) {
                    Err(DecodeError::Read(error)) => assert!(error.to_string().contains("network is down")),
                    other => panic!("{encoding:?} after {len}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_size_in_the_header_of_an_lzma_file_is_exact() {
        let with = |size: u64| read(Encoding::Lzma, &[&LZMA[..5], &size.to_le_bytes(), &LZMA[13..]].concat());
        assert_eq!(with(TEXT.len() as u64).unwrap(), TEXT);
        for size in [0, TEXT.len() as u64 - 1, TEXT.len() as u64 + 1, u64::MAX / 2] {
            assert!(matches!(with(size), Err(DecodeError::Damaged(_))), "{size}");
        }
    }

    #[test]
    fn an_absurd_dictionary_is_refused_and_the_largest_of_xz_is_not() {
        let with = |size: u32| [&LZMA[..1], &size.to_le_bytes(), &LZMA[5..]].concat();
        assert_eq!(read(Encoding::Lzma, &with(MAX_DICTIONARY)).unwrap(), TEXT);
        for size in [MAX_DICTIONARY * 2, u32::MAX] {
            assert!(matches!(read(Encoding::Lzma, &with(size)), Err(DecodeError::Damaged(_))), "{size}");
        }
        // Large-window brotli, which asks for up to 1 GiB: 6 bits 0x11, then the window's.
        assert!(matches!(read(Encoding::Brotli, &[0x11, 0x1E, 0, 0]), Err(DecodeError::Damaged(_))));
    }
}
