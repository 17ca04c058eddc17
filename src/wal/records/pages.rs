//! Every page of a row of segments: headers checked and taken off, what is between them handed on.
//!
//! Source: PostgreSQL `src/include/access/xlog_internal.h` (`XLogPageHeaderData`) and
//! `src/backend/access/transam/xlogreader.c` (`XLogReaderValidatePageHeader`). Does not know
//! records. Memory: one page header.

use crate::wal::page::LONG_HEADER;
use crate::wal::page::{BadPage, FirstPage};
use crate::wal::{Lsn, SegmentName, SystemId};
use std::fmt;

/// Length of the header of every page but the first of a file (`SizeOfXLogShortPHD`).
const SHORT: usize = 24;
const IS_CONTINUATION: u16 = 0x0001; // XLP_FIRST_IS_CONTRECORD

/// A page whose header is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Of its first byte.
    pub address: Lsn,
    /// Of the first byte after its header.
    pub content: Lsn,
    /// How many bytes of a record that began on an earlier page are still to come
    /// (`xlp_rem_len`); `None` where the page begins with a record of its own.
    pub continued: Option<u32>,
}

/// What comes out, in order.
pub(super) enum Input<'a> {
    Page(Page),
    /// Bytes between headers, and the address of the first one.
    Content(Lsn, &'a [u8]),
}

/// What all pages of a cluster share.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    magic: u16,
    system_id: SystemId,
    segment_size: u64,
    block_size: u64,
}

/// The segment at hand.
#[derive(Clone)]
struct Segment {
    name: SegmentName,
    /// One past its last byte; unknown before its first page.
    end: Option<u64>,
}

#[derive(Clone)]
pub(super) struct Pages {
    cluster: Option<Cluster>,
    segment: Option<Segment>,
    /// The address of the next byte; unknown before the first page.
    at: Option<u64>,
    /// The timeline of the last page: it never falls.
    timeline: u32,
    /// The bytes of a header that came so far.
    header: Vec<u8>,
    /// Bytes of the page at hand still to come.
    content: u64,
}

impl Pages {
    pub(super) fn new() -> Self {
        Pages { cluster: None, segment: None, at: None, timeline: 0, header: Vec::new(), content: 0 }
    }

    /// The bytes of this segment follow. `false` where bytes of the last one are missing.
    pub(super) fn begin(&mut self, name: SegmentName) -> bool {
        let whole = self.segment.is_none() || self.is_between_segments();
        self.segment = Some(Segment { name, end: None });
        whole
    }

    /// Whether the last byte of the segment at hand has come.
    pub(super) fn is_between_segments(&self) -> bool {
        let end = self.segment.as_ref().and_then(|segment| segment.end);
        end.is_some() && end == self.at
    }

    /// The address of the next byte.
    pub(super) fn position(&self) -> Option<Lsn> {
        self.at.map(Lsn)
    }

    /// How many bytes of the page at hand are still to come.
    pub(super) fn content_left(&self) -> u64 {
        self.content
    }

    /// The size of the segments.
    pub(super) fn segment_size(&self) -> Option<u64> {
        self.cluster.map(|cluster| cluster.segment_size)
    }

    /// Passes over the rest of the segment, whatever it holds; `false` once nothing is left of it.
    pub(super) fn skip_to_segment_end(&mut self, input: &mut &[u8]) -> bool {
        let (Some(at), Some(end)) = (self.at, self.segment.as_ref().and_then(|segment| segment.end)) else {
            return false;
        };
        let left = end.saturating_sub(at);
        let skipped = take(input, left);
        self.at = Some(at + skipped.len() as u64);
        self.content = 0;
        left > skipped.len() as u64
    }

    /// Takes the next piece off the input; `None` where more of it is needed.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Input<'a>>, PageFault> {
        if let Some(at) = self.at
            && self.content > 0
        {
            let content = take(input, self.content);
            self.content -= content.len() as u64;
            self.at = Some(at + content.len() as u64);
            return Ok((!content.is_empty()).then_some(Input::Content(Lsn(at), content)));
        }
        let Some(segment) = &self.segment else { return Ok(None) };
        if segment.end.is_some() && segment.end == self.at {
            return match input.is_empty() {
                true => Ok(None),
                false => Err(PageFault::Beyond(segment.name)),
            };
        }
        let is_first = segment.end.is_none();
        let len = if is_first { FirstPage::LEN } else { SHORT };
        let missing = len.saturating_sub(self.header.len());
        self.header.extend_from_slice(take(input, missing as u64));
        if self.header.len() < len {
            return Ok(None);
        }
        let page = if is_first { self.first_page() } else { self.page() };
        self.header.clear();
        page.map(|page| Some(Input::Page(page)))
    }

    fn first_page(&mut self) -> Result<Page, PageFault> {
        let (Some(first), Some(segment)) = (FirstPage::read(&self.header), &mut self.segment) else {
            return Err(PageFault::First(BadPage::NoHeader));
        };
        let size = first.segment_size().map_or(0, |size| size.bytes());
        first.check(segment.name, size).map_err(PageFault::First)?;
        let found = Cluster {
            magic: first.magic(),
            system_id: first.system_id(),
            segment_size: size,
            block_size: first.block_size().into(),
        };
        let cluster = *self.cluster.get_or_insert(found);
        if (cluster.system_id, cluster.segment_size, cluster.block_size)
            != (found.system_id, found.segment_size, found.block_size)
        {
            return Err(PageFault::OtherCluster);
        }
        let header = Header::read(&self.header).ok_or(PageFault::First(BadPage::NoHeader))?;
        // The check above proved the address to be that of the name.
        let at = *self.at.get_or_insert(header.address.0);
        segment.end = Some(header.address.0.saturating_add(size));
        self.accept(header, cluster, at, FirstPage::LEN)
    }

    fn page(&mut self) -> Result<Page, PageFault> {
        let header = Header::read(&self.header).ok_or(PageFault::Empty)?;
        let (Some(cluster), Some(at)) = (self.cluster, self.at) else { return Err(PageFault::Empty) };
        if header.magic == 0 {
            return Err(PageFault::Empty);
        }
        if header.info & LONG_HEADER != 0 {
            return Err(PageFault::LongHeader);
        }
        self.accept(header, cluster, at, SHORT)
    }

    /// The rules that every page must keep.
    fn accept(&mut self, header: Header, cluster: Cluster, at: u64, len: usize) -> Result<Page, PageFault> {
        if header.magic != cluster.magic {
            return Err(PageFault::Magic { found: header.magic, expected: cluster.magic });
        }
        if header.address.0 != at {
            return Err(PageFault::Address { found: header.address, expected: Lsn(at) });
        }
        let newest = self.segment.as_ref().map_or(0, |segment| segment.name.timeline().get());
        if !(self.timeline..=newest).contains(&header.timeline) {
            return Err(PageFault::Timeline { found: header.timeline, before: self.timeline, newest });
        }
        self.timeline = header.timeline;
        let content = at.saturating_add(len as u64);
        self.at = Some(content);
        self.content = cluster.block_size.saturating_sub(len as u64);
        let continued = (header.info & IS_CONTINUATION != 0).then_some(header.remaining);
        Ok(Page { address: Lsn(at), content: Lsn(content), continued })
    }
}

/// Up to so many bytes from the front.
pub(super) fn take<'a>(input: &mut &'a [u8], count: u64) -> &'a [u8] {
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(input.len());
    let (front, rest) = input.split_at_checked(count).unwrap_or((input, &[]));
    *input = rest;
    front
}

/// The fields that every page begins with; the offsets are in [`crate::wal::page`].
struct Header {
    magic: u16,
    info: u16,
    timeline: u32,
    address: Lsn,
    remaining: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk()?;
        let (info, rest) = rest.split_first_chunk()?;
        let (timeline, rest) = rest.split_first_chunk()?;
        let (address, rest) = rest.split_first_chunk()?;
        Some(Header {
            magic: u16::from_le_bytes(*magic),
            info: u16::from_le_bytes(*info),
            timeline: u32::from_le_bytes(*timeline),
            address: Lsn(u64::from_le_bytes(*address)),
            remaining: u32::from_le_bytes(*rest.first_chunk()?),
        })
    }
}

/// Why the next page cannot follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFault {
    /// Its magic is zero: nothing was written here.
    Empty,
    /// It is the first of a segment, and not one.
    First(BadPage),
    /// It is of another PostgreSQL version.
    Magic {
        /// `xlp_magic`.
        found: u16,
        /// That of the pages before.
        expected: u16,
    },
    /// It claims to be the first page of a segment.
    LongHeader,
    /// It is of another address: an older use of the file, or a segment out of order.
    Address {
        /// `xlp_pageaddr`.
        found: Lsn,
        expected: Lsn,
    },
    /// It is of an older timeline than a page before, or a newer one than the segment's name.
    Timeline {
        /// `xlp_tli`.
        found: u32,
        /// That of the page before; 0 where there was none.
        before: u32,
        /// That of the name.
        newest: u32,
    },
    /// The segment is of another cluster, or of one with other sizes.
    OtherCluster,
    /// More bytes came than a segment has.
    Beyond(SegmentName),
}

impl fmt::Display for PageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PageFault::Empty => f.write_str("the page is empty"),
            PageFault::First(bad) => bad.fmt(f),
            PageFault::Magic { found, expected } => {
                write!(f, "the page has magic {found:04X}, the ones before it {expected:04X}")
            }
            PageFault::LongHeader => f.write_str("the page claims to be the first one of a segment"),
            PageFault::Address { found, expected } => {
                write!(f, "the page at {expected} says that it is of address {found}")
            }
            PageFault::Timeline { found, before, newest } => write!(
                f,
                "the page is of timeline {found}, which cannot follow timeline {before} in a file of timeline {newest}"
            ),
            PageFault::OtherCluster => {
                f.write_str("the segment is of another cluster, or of one with other segment or page sizes")
            }
            PageFault::Beyond(name) => write!(f, "\"{name}\" has more bytes than a segment"),
        }
    }
}
