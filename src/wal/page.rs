//! The first page of a segment: what it says of itself, and which of it may be relied upon.
//!
//! Source: PostgreSQL `src/include/access/xlog_internal.h` (`XLogPageHeaderData`,
//! `XLogLongPageHeaderData`) and `src/backend/access/transam/xlogreader.c`
//! (`XLogReaderValidatePageHeader`). Layout, little-endian, unchanged since 9.3:
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | u16 | `xlp_magic` |
//! | 2 | u16 | `xlp_info` |
//! | 4 | u32 | `xlp_tli` |
//! | 8 | u64 | `xlp_pageaddr` |
//! | 16 | u32 | `xlp_rem_len`, then 4 bytes of padding |
//! | 24 | u64 | `xlp_sysid` (long header, first page of each file) |
//! | 32 | u32 | `xlp_seg_size` |
//! | 36 | u32 | `xlp_xlog_blcksz` |
//!
//! Only the rules that a legitimate file can never break are errors (R1, R2, R4, R6, R7); what a
//! future PostgreSQL might change is a warning (R3, R8). Nothing is said of later pages: a
//! cascading standby legitimately archives a segment whose tail is garbage.

use super::lsn::{Lsn, SegmentSize};
use super::name::{SegmentName, Timeline};
use std::fmt;
use std::str::FromStr;

/// The id of a PostgreSQL cluster (`xlp_sysid`, and the first eight bytes of `pg_control`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemId(pub u64);

impl SystemId {
    /// From the content of `global/pg_control`, whose first field it is in every version
    /// (`src/include/catalog/pg_control.h`). `None` where the file is too short.
    pub fn from_control_file(content: &[u8]) -> Option<Self> {
        Some(SystemId(u64::from_le_bytes(*content.first_chunk()?)))
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SystemId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(SystemId)
    }
}

pub(super) const LONG_HEADER: u16 = 0x0002; // XLP_LONG_HEADER
const KNOWN_INFO: u16 = 0x000F; // XLP_ALL_FLAGS as of 18

/// `XLOG_PAGE_MAGIC` of each major version from 9.5 on; minor releases never change it.
const MAGICS: [(u16, &str); 12] = [
    (0xD087, "9.5"),
    (0xD093, "9.6"),
    (0xD097, "10"),
    (0xD098, "11"),
    (0xD101, "12"),
    (0xD106, "13"),
    (0xD10D, "14"),
    (0xD110, "15"),
    (0xD113, "16"),
    (0xD116, "17"),
    (0xD118, "18"),
    (0xD121, "19"),
];

/// The long header at the start of a segment, not yet believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstPage {
    magic: u16,
    info: u16,
    timeline: u32,
    address: Lsn,
    system_id: SystemId,
    segment_size: u32,
    block_size: u32,
}

impl FirstPage {
    /// Length of the long header in bytes (`SizeOfXLogLongPHD`).
    pub const LEN: usize = 40;

    /// Reads the fields from the first [`FirstPage::LEN`] bytes; `None` where there are fewer.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        Some(FirstPage {
            magic: u16::from_le_bytes(field(bytes, 0)?),
            info: u16::from_le_bytes(field(bytes, 2)?),
            timeline: u32::from_le_bytes(field(bytes, 4)?),
            address: Lsn(u64::from_le_bytes(field(bytes, 8)?)),
            system_id: SystemId(u64::from_le_bytes(field(bytes, 24)?)),
            segment_size: u32::from_le_bytes(field(bytes, 32)?),
            block_size: u32::from_le_bytes(field(bytes, 36)?),
        })
    }

    /// The cluster that wrote the page.
    pub fn system_id(&self) -> SystemId {
        self.system_id
    }

    /// The timeline the page was written on: that of the name, or an ancestor's.
    pub fn timeline(&self) -> u32 {
        self.timeline
    }

    /// The major version that wrote the page, where it is known (R3).
    pub fn version(&self) -> Option<&'static str> {
        MAGICS.iter().find(|(magic, _)| *magic == self.magic).map(|(_, version)| *version)
    }

    /// The magic, which every page of the cluster has.
    pub(super) fn magic(&self) -> u16 {
        self.magic
    }

    /// The page size the header claims (R6, unchecked).
    pub(super) fn block_size(&self) -> u32 {
        self.block_size
    }

    /// The segment size the header claims, where it is a valid one.
    pub fn segment_size(&self) -> Option<SegmentSize> {
        SegmentSize::new(self.segment_size.into())
    }

    /// Checks the rules that are safe to reject by (R1, R2, R4, R6, R7) against the name and the
    /// size of the file that the page begins; returns the proved segment size.
    pub fn check(&self, name: SegmentName, file_size: u64) -> Result<SegmentSize, BadPage> {
        if self.magic == 0 {
            return Err(BadPage::NoHeader); // R2
        }
        if self.info & LONG_HEADER == 0 {
            return Err(BadPage::NoLongHeader); // R2
        }
        let size = match SegmentSize::new(file_size) {
            Some(size) if file_size == u64::from(self.segment_size) => size,
            _ => return Err(BadPage::Size { file: file_size, header: self.segment_size }), // R1
        };
        if !self.block_size.is_power_of_two() || !(1 << 10..=1 << 16).contains(&self.block_size) {
            return Err(BadPage::BlockSize(self.block_size)); // R6
        }
        match name.start(size) {
            Some(expected) if expected == self.address => {}
            expected => return Err(BadPage::Address { found: self.address, expected }), // R4
        }
        // R7: lower is normal for the first segment of a new timeline.
        if !(1..=name.timeline().get()).contains(&self.timeline) {
            return Err(BadPage::Timeline { found: self.timeline, name: name.timeline() });
        }
        Ok(size)
    }

    /// What is unusual but may be a newer PostgreSQL's right (R3, R8).
    pub fn oddities(&self) -> Vec<String> {
        let mut odd = Vec::new();
        if self.version().is_none() {
            odd.push(format!(
                "WAL page magic {:04X} is of no PostgreSQL version known to this program",
                self.magic
            ));
        }
        if self.info & !KNOWN_INFO != 0 {
            odd.push(format!("WAL page flags {:04X} hold bits unknown to this program", self.info));
        }
        odd
    }
}

fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// Why a first page cannot belong to the file it was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPage {
    /// The magic is zero: an empty, preallocated or zeroed file.
    NoHeader,
    /// The page does not start a file.
    NoLongHeader,
    /// The file's size is not the one its header names, or no segment size at all. Bytes.
    Size {
        /// Size of the file.
        file: u64,
        /// `xlp_seg_size`.
        header: u32,
    },
    /// `xlp_xlog_blcksz` is not a power of two from 1 KiB to 64 KiB.
    BlockSize(u32),
    /// The page is of another address: a recycled or renamed file.
    Address {
        /// `xlp_pageaddr`.
        found: Lsn,
        /// By the name; `None` where no segment of this size has the name.
        expected: Option<Lsn>,
    },
    /// The page is of a later timeline than the name, or of none.
    Timeline {
        /// `xlp_tli`.
        found: u32,
        name: Timeline,
    },
}

impl fmt::Display for BadPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadPage::NoHeader => {
                f.write_str("it does not begin with a WAL page (magic 0: an empty or preallocated file)")
            }
            BadPage::NoLongHeader => f.write_str("its first page is not the first page of a segment"),
            BadPage::Size { file, header } => {
                write!(f, "it has {file} bytes, but its header says a segment has {header}")
            }
            BadPage::BlockSize(size) => {
                write!(f, "its header names an impossible WAL block size of {size} bytes")
            }
            BadPage::Address { found, expected: Some(expected) } => {
                write!(
                    f,
                    "its first page is of address {found}, but the name means {expected} (a recycled or renamed file)"
                )
            }
            BadPage::Address { found, expected: None } => {
                write!(f, "its first page is of address {found}, but no segment of this size has such a name")
            }
            BadPage::Timeline { found, name } => {
                write!(
                    f,
                    "its first page is of timeline {found}, which cannot be in a file of timeline {name}"
                )
            }
        }
    }
}

impl std::error::Error for BadPage {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 1 << 20;

    fn name() -> SegmentName {
        "00000002000000000000001B".parse().unwrap()
    }

    /// A valid header of that segment, made by hand from the layout above.
    fn header() -> [u8; FirstPage::LEN] {
        let mut bytes = [0; FirstPage::LEN];
        bytes[0..2].copy_from_slice(&0xD110u16.to_le_bytes());
        bytes[2..4].copy_from_slice(&6u16.to_le_bytes());
        bytes[4..8].copy_from_slice(&1u32.to_le_bytes());
        bytes[8..16].copy_from_slice(&0x1B0_0000u64.to_le_bytes());
        bytes[24..32].copy_from_slice(&77u64.to_le_bytes());
        bytes[32..36].copy_from_slice(&(SIZE as u32).to_le_bytes());
        bytes[36..40].copy_from_slice(&8192u32.to_le_bytes());
        bytes
    }

    fn check_with(change: impl FnOnce(&mut [u8; FirstPage::LEN])) -> Result<SegmentSize, BadPage> {
        let mut bytes = header();
        change(&mut bytes);
        FirstPage::read(&bytes).unwrap().check(name(), SIZE)
    }

    #[test]
    fn a_first_segment_of_a_new_timeline_carries_its_parents_timeline() {
        assert_eq!(check_with(|_| ()), Ok(SegmentSize::new(SIZE).unwrap()));
        assert!(check_with(|b| b[4] = 2).is_ok());
        assert_eq!(check_with(|b| b[4] = 3), Err(BadPage::Timeline { found: 3, name: name().timeline() }));
        assert_eq!(check_with(|b| b[4] = 0), Err(BadPage::Timeline { found: 0, name: name().timeline() }));
    }

    #[test]
    fn each_rule_that_is_safe_to_reject_by_rejects() {
        assert_eq!(check_with(|b| b.fill(0)), Err(BadPage::NoHeader));
        assert_eq!(check_with(|b| b[2] = 4), Err(BadPage::NoLongHeader));
        assert_eq!(check_with(|b| b[34] = 0x20), Err(BadPage::Size { file: SIZE, header: 2 << 20 }));
        assert_eq!(check_with(|b| b[37] = 0x21), Err(BadPage::BlockSize(0x2100)));
        assert_eq!(check_with(|b| b[36..40].fill(0)), Err(BadPage::BlockSize(0)));
        assert!(matches!(check_with(|b| b[10] = 0), Err(BadPage::Address { found: Lsn(0x100_0000), .. })));
        let stump = FirstPage::read(&header()).unwrap().check(name(), SIZE / 2);
        assert_eq!(stump, Err(BadPage::Size { file: SIZE / 2, header: SIZE as u32 }));
        assert_eq!(FirstPage::read(&header()[..39]), None);
    }

    #[test]
    fn an_unknown_version_or_flag_is_only_odd() {
        assert!(FirstPage::read(&header()).unwrap().oddities().is_empty());
        let mut future = header();
        future[0..4].copy_from_slice(&[0x99, 0xD1, 0x12, 0x01]);
        let page = FirstPage::read(&future).unwrap();
        assert!(page.check(name(), SIZE).is_ok());
        assert_eq!(page.oddities().len(), 2);
        assert_eq!(page.version(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), size: u64) {
            if let Some(page) = FirstPage::read(&bytes) {
                let _ = page.check(name(), size);
                let _ = page.oddities();
            }
        }
    }
}
