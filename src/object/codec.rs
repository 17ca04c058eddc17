//! Raw WAL file to object and back: one pass, bounded memory, nothing believed unchecked.
//!
//! An object is one zstd frame with content size and checksum, then a [`Trailer`]. The decoder
//! also reads zstd objects without a trailer (WAL-G's, or plain `zstd`), checked as far as their
//! encoding allows, and those in every other [`Encoding`]. Callers must treat the output as
//! unproved until the decoder returns.

use super::digest::{CHUNK, Sha256Sum};
use super::encoding::{Content, Encoding};
use super::frames::Frames;
use super::hasher::{Hasher, Output};
use super::proof::{Checks, DecodeError, Decoded, RawFile, damaged};
use super::trailer::Trailer;
use crate::wal::{SystemId, WalName};
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use zstd::stream::raw;
use zstd::zstd_safe::{CCtx, CParameter};

/// Why a file could not be encoded.
#[derive(Debug)]
pub enum EncodeError {
    Read(io::Error),
    Write(io::Error),
    /// The source did not have the promised length; the bytes that were read.
    Length(u64),
}

/// Writes the object for one raw WAL file; [`Encoder::encode`] with an encoder of its own.
pub fn encode(
    name: WalName,
    size: u64,
    system_id: Option<SystemId>,
    level: i32,
    source: &mut dyn Read,
    output: &mut dyn Write,
) -> Result<Trailer, EncodeError> {
    let mut encoder = Encoder::new(level).map_err(EncodeError::Write)?;
    encoder.encode(name, size, system_id, source, output)
}

/// Encodes one file after the other. The memory of the compressor is made, and touched for the
/// first time, only once.
pub struct Encoder {
    context: CCtx<'static>,
    alone: bool,
}

impl Encoder {
    /// `level` is zstd's, -5 to 19.
    pub fn new(level: i32) -> io::Result<Self> {
        let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::ChecksumFlag(true),
            CParameter::ContentSizeFlag(true),
        ] {
            let set = context.set_parameter(parameter);
            set.map_err(|code| io::Error::other(zstd::zstd_safe::get_error_name(code)))?;
        }
        Ok(Encoder { context, alone: true })
    }

    /// The same for one of so many that work at once: where they leave no core idle, each hashes
    /// in its own thread.
    pub fn one_of(encoders: usize, level: i32) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Encoder { alone: encoders < cores, ..Encoder::new(level)? })
    }

    /// Writes the object for a raw WAL file, or another one, of exactly `size` bytes and returns its trailer.
    ///
    /// On an error the output is to be thrown away.
    pub fn encode<N: Display + FromStr>(
        &mut self,
        name: N,
        size: u64,
        system_id: Option<SystemId>,
        source: &mut dyn Read,
        output: &mut dyn Write,
    ) -> Result<Trailer<N>, EncodeError> {
        let mut frame = Counted { inner: output, count: 0 };
        let mut compressor = raw::Encoder::with_context(&mut self.context);
        compressor.set_pledged_src_size(Some(size)).map_err(EncodeError::Write)?;
        let mut compressed = zstd::stream::write::Encoder::with_encoder(&mut frame, compressor);
        let (mut nowhere, alone) = (io::sink(), self.alone);
        let sha256 = thread::scope(|scope| {
            let hasher = if alone {
                Hasher::for_size(size, &mut nowhere, scope)
            } else {
                Hasher::inline(&mut nowhere)
            };
            compress(size, source, &mut compressed, hasher)
        })?;
        compressed.finish().map_err(EncodeError::Write)?;
        let trailer = Trailer { name, size, frame: frame.count, sha256, system_id };
        frame.inner.write_all(&trailer.write()).map_err(EncodeError::Write)?;
        Ok(trailer)
    }
}

/// Compresses all of a source of exactly `size` bytes.
fn compress(
    size: u64,
    source: &mut dyn Read,
    output: &mut dyn Write,
    mut hasher: Hasher<'_>,
) -> Result<Sha256Sum, EncodeError> {
    let mut total = 0u64;
    loop {
        let mut buffer = hasher.buffer();
        let read = source.take(CHUNK as u64).read_to_end(&mut buffer).map_err(EncodeError::Read)?;
        total += read as u64;
        if total > size || (read == 0 && total < size) {
            return Err(EncodeError::Length(total));
        }
        if read == 0 {
            return hasher.finish().map_err(EncodeError::Write);
        }
        let chunk = Arc::new(buffer);
        hasher.update(Arc::clone(&chunk)).map_err(EncodeError::Write)?;
        output.write_all(&chunk).map_err(EncodeError::Write)?;
    }
}

struct Counted<'a> {
    inner: &'a mut dyn Write,
    count: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Decodes and proves the object of `name` in our own format, writing the raw bytes to `output`.
///
/// Proofs: the frame's own checksum; with a trailer its length, name, size and SHA-256; without
/// one the syntax of a timeline history; for pages the exact size and the first page's rules.
pub fn decode(
    name: WalName,
    checks: Checks,
    object: &mut dyn Read,
    output: Output<'_>,
) -> Result<Decoded, DecodeError> {
    thread::scope(|scope| decode_into(RawFile::new(name, checks, output, scope), object))
}

fn decode_into(mut raw: RawFile<'_>, object: &mut dyn Read) -> Result<Decoded, DecodeError> {
    let mut frames = Frames::new()?;
    let (tail, fed) = feed_all_but_the_tail(object, &mut frames, &mut raw)?;
    let trailer = if Trailer::is_here(&tail) {
        let trailer = Trailer::read(&tail).map_err(DecodeError::Damaged)?;
        frames.expect_end_of_only_frame()?;
        if trailer.frame != fed {
            return damaged(format!("it is {fed} bytes before its trailer, which says {}", trailer.frame));
        }
        Some(trailer)
    } else {
        frames.feed(&tail, &mut raw)?;
        frames.expect_end()?;
        None
    };
    raw.finish(trailer, true)
}

/// Decodes and proves an object of `name` that is in `encoding`; zstd may be our own format.
///
/// Proofs for the other encodings: their checksums where they have one, a proper end with nothing
/// after it, and those of the name: the syntax of a timeline history, for pages the exact size and
/// the first page's rules. Brotli and bare files have no checksum, so a changed byte in the middle
/// of one goes unseen.
pub fn decode_as(
    encoding: Encoding,
    name: WalName,
    checks: Checks,
    object: &mut dyn Read,
    output: Output<'_>,
) -> Result<Decoded, DecodeError> {
    match encoding {
        Encoding::Zstd => return decode(name, checks, object, output),
        // That is for `age::decode`, which has the keys.
        Encoding::Age => return damaged("it is encrypted".to_owned()),
        _ => {}
    }
    thread::scope(|scope| {
        let mut raw = RawFile::new(name, checks, output, scope);
        let mut content = Content::new(encoding, object);
        loop {
            let mut buffer = raw.buffer();
            if content.read_chunk(&mut buffer)? == 0 {
                return raw.finish(None, encoding != Encoding::Bare);
            }
            raw.write(buffer)?;
        }
    })
}

/// Feeds the frames while holding back what may be the trailer; returns it and the count fed.
fn feed_all_but_the_tail(
    object: &mut dyn Read,
    frames: &mut Frames,
    raw: &mut RawFile<'_>,
) -> Result<(Vec<u8>, u64), DecodeError> {
    let mut held = Vec::with_capacity(Trailer::LEN + CHUNK);
    let mut fed = 0u64;
    loop {
        let read = object.take(CHUNK as u64).read_to_end(&mut held).map_err(DecodeError::Read)?;
        if read == 0 {
            return Ok((held, fed));
        }
        let ready = held.len().saturating_sub(Trailer::LEN);
        frames.feed(held.get(..ready).unwrap_or_default(), raw)?;
        fed += ready as u64;
        held.drain(..ready);
    }
}
