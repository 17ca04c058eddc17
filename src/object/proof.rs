//! What a decoded file must prove before anyone may believe it, whatever it was encoded in.
//!
//! Knows: how many bytes a file of its name may have, its first page, its sum. Does not know:
//! encodings. Output is bounded by what the file itself claims, so a decompression bomb is
//! damage, not an outage.

use super::digest::Sha256Sum;
use super::hasher::{Hasher, Output};
use super::trailer::Trailer;
use crate::wal::{FirstPage, SegmentSize, SystemId, TimelineHistory, WalName};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::Scope;

/// No timeline or backup history file comes near this.
pub const MAX_TEXT: u64 = 16 << 20;

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

/// The decoded bytes on their way: bounded here, hashed and written on a thread of the scope.
pub(super) struct RawFile<'a> {
    name: WalName,
    checks: Checks,
    hasher: Hasher<'a>,
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

impl<'a> RawFile<'a> {
    pub(super) fn new<'env>(
        name: WalName,
        checks: Checks,
        output: Output<'a>,
        scope: &'a Scope<'a, 'env>,
    ) -> Self {
        let (limit, expected) = match checks {
            Checks::Header if name.is_pages() => (Limit::ByHeader, u64::MAX),
            Checks::NoHeader if name.is_pages() => (Limit::Known(SegmentSize::MAX.bytes()), u64::MAX),
            _ => (Limit::Known(MAX_TEXT), 0),
        };
        RawFile {
            name,
            checks,
            hasher: Hasher::for_size(expected, output, scope),
            limit,
            size: 0,
            head: Vec::new(),
            text: matches!(name, WalName::TimelineHistory(_)).then(Vec::new),
        }
    }

    /// An empty buffer with room for [`CHUNK`](super::digest::CHUNK) bytes, to be given to `write`.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.hasher.buffer()
    }

    /// Takes the next bytes of the file.
    pub(super) fn write(&mut self, buffer: Vec<u8>) -> Result<(), DecodeError> {
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
        self.hasher.update(Arc::new(buffer)).map_err(DecodeError::Write)
    }

    /// The proofs over the whole file.
    /// `checked`: the encoding ends with a checksum or a mark of its own, so that nothing is cut off.
    pub(super) fn finish(self, trailer: Option<Trailer>, checked: bool) -> Result<Decoded, DecodeError> {
        let RawFile { name, checks, size, head, text, .. } = self;
        let sha256 = self.hasher.finish().map_err(DecodeError::Write)?;
        if let Some(trailer) = &trailer {
            if trailer.name != name {
                return damaged(format!("it is the object of \"{}\"", trailer.name));
            }
            if trailer.size != size || trailer.sha256 != sha256 {
                return damaged(
                    "its content is not what its trailer says (size or sha256 differs)".to_owned(),
                );
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
            WalName::Segment(_) | WalName::Partial(_) if SegmentSize::new(size).is_none() => {
                return damaged(format!("{size} bytes is no size of a segment"));
            }
            WalName::TimelineHistory(timeline) => {
                let text = text.unwrap_or_default();
                TimelineHistory::parse(timeline, &text)
                    .map_err(|bad| DecodeError::Damaged(bad.to_string()))?;
                // `writeTimeLineHistory` ends every line; a switch point that was cut in the middle
                // can be read, and is a wrong one.
                if !checked && !text.ends_with(b"\n") {
                    return damaged("its last line has no end: it is cut".to_owned());
                }
            }
            WalName::BackupHistory(..) if size == 0 && trailer.is_none() => {
                return damaged("it is empty".to_owned());
            }
            _ => {}
        }
        Ok(Decoded { size, sha256, trailer, page })
    }
}

pub(super) fn damaged<T>(reason: String) -> Result<T, DecodeError> {
    Err(DecodeError::Damaged(reason))
}
