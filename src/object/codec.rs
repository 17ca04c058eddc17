//! Raw WAL file to object and back: one pass, bounded memory, nothing believed unchecked.
//!
//! An object is one zstd frame with content size and checksum, then a [`Trailer`]. The decoder
//! also reads zstd objects without a trailer (WAL-G's, or plain `zstd`), checked as far as their
//! encoding allows. Output is bounded by what the file itself claims, so a decompression bomb is
//! damage, not an outage. Callers must treat the output as unproved until [`decode`] returns.

use super::digest::{CHUNK, Hasher, Sha256Sum};
use super::trailer::Trailer;
use crate::wal::{FirstPage, SegmentSize, SystemId, TimelineHistory, WalName};
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use zstd::stream::raw::{self, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::CParameter;

/// No timeline or backup history file comes near this.
const MAX_TEXT: u64 = 16 << 20;

/// Why a file could not be encoded.
#[derive(Debug)]
pub enum EncodeError {
    /// The source failed.
    Read(io::Error),
    /// The output failed.
    Write(io::Error),
    /// The source did not have the promised length; the bytes that were read.
    Length(u64),
}

/// Writes the object for a raw WAL file of exactly `size` bytes and returns its trailer.
///
/// `level` is zstd's, -5 to 19. On an error the output is to be thrown away.
pub fn encode(
    name: WalName,
    size: u64,
    system_id: Option<SystemId>,
    level: i32,
    source: &mut dyn Read,
    output: &mut dyn Write,
) -> Result<Trailer, EncodeError> {
    let mut frame = Counted { inner: output, count: 0 };
    let mut encoder = encoder(&mut frame, level, size).map_err(EncodeError::Write)?;
    let mut hasher = Hasher::for_size(size);
    let mut total = 0u64;
    loop {
        let mut buffer = hasher.buffer();
        let read = source.take(CHUNK as u64).read_to_end(&mut buffer).map_err(EncodeError::Read)?;
        total += read as u64;
        if total > size {
            return Err(EncodeError::Length(total));
        }
        if read == 0 {
            break;
        }
        let chunk = Arc::new(buffer);
        hasher.update(Arc::clone(&chunk));
        encoder.write_all(&chunk).map_err(EncodeError::Write)?;
    }
    if total != size {
        return Err(EncodeError::Length(total));
    }
    encoder.finish().map_err(EncodeError::Write)?;
    let trailer = Trailer { name, size, frame: frame.count, sha256: hasher.finish(), system_id };
    frame.inner.write_all(&trailer.write()).map_err(EncodeError::Write)?;
    Ok(trailer)
}

fn encoder<W: Write>(
    output: W,
    level: i32,
    size: u64,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder = zstd::stream::write::Encoder::new(output, level)?;
    encoder.set_parameter(CParameter::ChecksumFlag(true))?;
    encoder.set_parameter(CParameter::ContentSizeFlag(true))?;
    encoder.set_pledged_src_size(Some(size))?;
    Ok(encoder)
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

/// Which proofs a decoded file must pass beyond those of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    /// Pages must begin with a header that fits the name.
    Header,
    /// `--no-header-check`: for forks that encrypt their WAL.
    NoHeader,
}

/// What a proved object held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Raw size in bytes.
    pub size: u64,
    /// SHA-256 of the raw bytes.
    pub sha256: Sha256Sum,
    /// The object's trailer; `None` for an object that another tool wrote.
    pub trailer: Option<Trailer>,
    /// The first page of a segment, where it was checked.
    pub page: Option<FirstPage>,
}

impl Decoded {
    /// The cluster that the file is of, by its page or its trailer.
    pub fn system_id(&self) -> Option<SystemId> {
        let claimed = self.trailer.as_ref().and_then(|trailer| trailer.system_id);
        self.page.as_ref().map(FirstPage::system_id).or(claimed)
    }
}

/// Why an object could not be decoded.
#[derive(Debug)]
pub enum DecodeError {
    /// The object could not be read: says nothing about its bytes.
    Read(io::Error),
    /// The output failed.
    Write(io::Error),
    /// The object is damaged, or is not the file asked for. The reason.
    Damaged(String),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Read(error) | DecodeError::Write(error) => error.fmt(f),
            DecodeError::Damaged(reason) => f.write_str(reason),
        }
    }
}

/// Decodes and proves the object of `name`, writing the raw bytes to `output`.
///
/// Proofs: the frame's own checksum; with a trailer its length, name, size and SHA-256; without
/// one the syntax of a timeline history; for pages the exact size and the first page's rules.
pub fn decode(
    name: WalName,
    checks: Checks,
    object: &mut dyn Read,
    output: &mut dyn Write,
) -> Result<Decoded, DecodeError> {
    let mut raw = RawFile::new(name, checks, output);
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
    let decoded = raw.finish(trailer)?;
    prove(name, checks, decoded)
}

/// The proofs over the whole file.
fn prove(name: WalName, checks: Checks, file: RawEnd) -> Result<Decoded, DecodeError> {
    let RawEnd { size, sha256, head, text, trailer } = file;
    if let Some(trailer) = &trailer {
        if trailer.name != name {
            return damaged(format!("it is the object of \"{}\"", trailer.name));
        }
        if trailer.size != size || trailer.sha256 != sha256 {
            return damaged("its content is not what its trailer says (size or sha256 differs)".to_owned());
        }
    }
    let mut page = None;
    match name {
        WalName::Segment(segment) | WalName::Partial(segment) if checks == Checks::Header => {
            let first = FirstPage::read(&head)
                .ok_or_else(|| DecodeError::Damaged(format!("it holds only {size} bytes")))?;
            first.check(segment, size).map_err(|bad| DecodeError::Damaged(bad.to_string()))?;
            page = Some(first);
        }
        WalName::TimelineHistory(timeline) => {
            TimelineHistory::parse(timeline, &text).map_err(|bad| DecodeError::Damaged(bad.to_string()))?;
        }
        WalName::BackupHistory(..) if size == 0 && trailer.is_none() => {
            return damaged("it is empty".to_owned());
        }
        _ => {}
    }
    Ok(Decoded { size, sha256, trailer, page })
}

fn damaged<T>(reason: String) -> Result<T, DecodeError> {
    Err(DecodeError::Damaged(reason))
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

/// The decoded bytes on their way: bounded, hashed, written.
struct RawFile<'a> {
    output: &'a mut dyn Write,
    hasher: Hasher,
    limit: Limit,
    size: u64,
    /// The first bytes, for the page header.
    head: Vec<u8>,
    /// The whole of a timeline history file.
    text: Option<Vec<u8>>,
}

/// How many bytes the file may have.
enum Limit {
    /// No more than these.
    Known(u64),
    /// Whatever the header of the first page claims; unread so far.
    ByHeader,
}

/// All there is to know of a file once its last byte is written.
struct RawEnd {
    size: u64,
    sha256: Sha256Sum,
    head: Vec<u8>,
    text: Vec<u8>,
    trailer: Option<Trailer>,
}

impl<'a> RawFile<'a> {
    fn new(name: WalName, checks: Checks, output: &'a mut dyn Write) -> Self {
        let (limit, expected) = match checks {
            Checks::Header if name.is_pages() => (Limit::ByHeader, u64::MAX),
            Checks::NoHeader if name.is_pages() => (Limit::Known(SegmentSize::MAX.bytes()), u64::MAX),
            _ => (Limit::Known(MAX_TEXT), 0),
        };
        RawFile {
            output,
            hasher: Hasher::for_size(expected),
            limit,
            size: 0,
            head: Vec::new(),
            text: matches!(name, WalName::TimelineHistory(_)).then(Vec::new),
        }
    }

    fn write(&mut self, buffer: Vec<u8>) -> Result<(), DecodeError> {
        self.size += buffer.len() as u64;
        if self.head.len() < FirstPage::LEN {
            let missing = FirstPage::LEN - self.head.len();
            self.head.extend(buffer.iter().take(missing));
        }
        if matches!(self.limit, Limit::ByHeader)
            && let Some(page) = FirstPage::read(&self.head)
        {
            let Some(size) = page.segment_size() else {
                return damaged("it does not begin with the header of a segment".to_owned());
            };
            self.limit = Limit::Known(size.bytes());
        }
        if let Limit::Known(limit) = self.limit
            && self.size > limit
        {
            return damaged(format!("it decodes to more than the {limit} bytes it may have"));
        }
        if let Some(text) = &mut self.text {
            text.extend_from_slice(&buffer);
        }
        let chunk = Arc::new(buffer);
        self.hasher.update(Arc::clone(&chunk));
        self.output.write_all(&chunk).map_err(DecodeError::Write)
    }

    fn finish(self, trailer: Option<Trailer>) -> Result<RawEnd, DecodeError> {
        Ok(RawEnd {
            size: self.size,
            sha256: self.hasher.finish(),
            head: self.head,
            text: self.text.unwrap_or_default(),
            trailer,
        })
    }
}

/// A strict reader of a sequence of zstd frames and skippable frames (RFC 8878 §3.1).
struct Frames {
    decoder: raw::Decoder<'static>,
    state: State,
    frames: u32,
    skipped: u32,
}

enum State {
    /// Between frames; the bytes of the next frame's magic and length seen so far.
    Between(Vec<u8>),
    /// Inside a zstd frame.
    Frame,
    /// Inside a skippable frame; the bytes left.
    Skip(u64),
}

const FRAME_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

impl Frames {
    fn new() -> Result<Self, DecodeError> {
        let decoder = raw::Decoder::new().map_err(DecodeError::Write)?;
        Ok(Frames { decoder, state: State::Between(Vec::new()), frames: 0, skipped: 0 })
    }

    fn feed(&mut self, mut input: &[u8], raw: &mut RawFile<'_>) -> Result<(), DecodeError> {
        while !input.is_empty() {
            input = match &mut self.state {
                State::Between(seen) => {
                    let (byte, rest) = input.split_at(1);
                    seen.extend_from_slice(byte);
                    let seen = std::mem::take(seen);
                    self.begin(seen, raw)?;
                    rest
                }
                State::Skip(left) => {
                    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    *left -= now as u64;
                    if *left == 0 {
                        self.state = State::Between(Vec::new());
                    }
                    input.get(now..).unwrap_or_default()
                }
                State::Frame => self.decompress(input, raw)?,
            };
        }
        Ok(())
    }

    /// Decides what begins here, once enough of it is seen.
    fn begin(&mut self, seen: Vec<u8>, raw: &mut RawFile<'_>) -> Result<(), DecodeError> {
        let skippable = matches!(seen.as_slice(), [low, 0x2A, 0x4D, 0x18, ..] if low & 0xF0 == 0x50);
        if seen == FRAME_MAGIC {
            self.frames += 1;
            self.state = State::Frame;
            self.decompress(&seen, raw)?;
        } else if let (true, Some(Ok(length))) = (skippable, seen.get(4..).map(<[u8; 4]>::try_from)) {
            if seen.starts_with(&[0x5E]) && u32::from_le_bytes(length) == 248 && self.frames > 0 {
                return damaged("something stands after its trailer".to_owned());
            }
            self.skipped += 1;
            self.state = match u32::from_le_bytes(length) {
                0 => State::Between(Vec::new()),
                length => State::Skip(length.into()),
            };
        } else if seen.len() < 4 || (skippable && seen.len() < 8) {
            self.state = State::Between(seen);
        } else {
            return damaged("it is not zstd data".to_owned());
        }
        Ok(())
    }

    /// Decodes within a frame; returns what follows the frame's end.
    fn decompress<'i>(&mut self, input: &'i [u8], raw: &mut RawFile<'_>) -> Result<&'i [u8], DecodeError> {
        let mut source = InBuffer::around(input);
        loop {
            let mut buffer = raw.hasher.buffer();
            let room = buffer.capacity();
            let (hint, written) = {
                let mut target = OutBuffer::around(&mut buffer);
                let hint = self.decoder.run(&mut source, &mut target);
                let hint = hint
                    .map_err(|error| DecodeError::Damaged(format!("it cannot be decompressed: {error}")))?;
                (hint, target.pos())
            };
            raw.write(buffer)?;
            if hint == 0 {
                self.state = State::Between(Vec::new());
                break;
            }
            if source.pos() == input.len() && written < room {
                break;
            }
        }
        Ok(input.get(source.pos()..).unwrap_or_default())
    }

    fn expect_end(&self) -> Result<(), DecodeError> {
        match &self.state {
            State::Between(seen) if seen.is_empty() && self.frames > 0 => Ok(()),
            _ if self.frames == 0 => damaged("it is empty or cut".to_owned()),
            _ => damaged("it is cut".to_owned()),
        }
    }

    fn expect_end_of_only_frame(&self) -> Result<(), DecodeError> {
        self.expect_end()?;
        if self.frames != 1 || self.skipped != 0 {
            return damaged("more than one frame stands before its trailer".to_owned());
        }
        Ok(())
    }
}
