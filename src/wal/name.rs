//! Names of the four kinds of WAL file, and the arithmetic between segment names and addresses.
//!
//! Source: PostgreSQL `src/include/access/xlog_internal.h` (`XLogFileName`, `IsXLogFileName`,
//! `IsPartialXLogFileName`, `TLHistoryFileName`, `BackupHistoryFileName`).
//!
//! Parsing is exact and total: upper-case digits only, timeline 0 refused, nothing before or
//! after the name, and `parse(x).to_string() == x` for every `x` that parses.

use super::lsn::{Lsn, SegmentSize};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// A timeline id. Never 0: PostgreSQL starts at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(NonZeroU32);

impl Timeline {
    /// The timeline that `initdb` makes; it has no history file.
    pub const FIRST: Timeline = Timeline(NonZeroU32::MIN);

    /// `None` for 0.
    pub fn new(id: u32) -> Option<Self> {
        NonZeroU32::new(id).map(Timeline)
    }

    /// The id as a number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Timeline {
    /// As people and `recovery_target_timeline` write it: decimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a segment: 24 upper-case hexadecimal digits, `TTTTTTTTHHHHHHHHLLLLLLLL`.
///
/// The meaning of the last eight digits depends on the segment size, which a name does not
/// carry; every method that needs the size takes it.
///
/// ```
/// use wal_archive::wal::{Lsn, SegmentName, SegmentSize};
/// let name: SegmentName = "0000000100000003000000FF".parse().unwrap();
/// let size = SegmentSize::new(1 << 20).unwrap();
/// assert_eq!(name.start(size), Some(Lsn(0x3_0FF0_0000)));
/// assert_eq!(name.next(size).unwrap().to_string(), "000000010000000300000100");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    timeline: Timeline,
    high: u32,
    low: u32,
}

impl SegmentName {
    /// The segment of a timeline that holds an address.
    pub fn at(timeline: Timeline, lsn: Lsn, size: SegmentSize) -> Self {
        let number = lsn.0 / size.bytes();
        SegmentName::numbered(timeline, number, size)
    }

    /// `XLogFileName`: the segment with this number, counted from address 0.
    ///
    /// Numbers beyond the last address (2^64 / size) wrap; no address has one.
    pub fn numbered(timeline: Timeline, number: u64, size: SegmentSize) -> Self {
        let per_id = size.segments_per_id();
        SegmentName {
            timeline,
            // Truncation is the wrap described above; the remainder always fits.
            high: (number / per_id) as u32,
            low: (number % per_id) as u32,
        }
    }

    /// The timeline the file belongs to by its name.
    pub fn timeline(self) -> Timeline {
        self.timeline
    }

    /// The address of the first byte; `None` where no segment of this size has such a name
    /// (the last eight digits are too large).
    pub fn start(self, size: SegmentSize) -> Option<Lsn> {
        (u64::from(self.low) < size.segments_per_id())
            .then(|| Lsn((u64::from(self.high) << 32) + u64::from(self.low) * size.bytes()))
    }

    /// Its number, counted from address 0; `None` where no segment of this size has such a name.
    pub fn number(self, size: SegmentSize) -> Option<u64> {
        Some(self.start(size)?.0 / size.bytes())
    }

    /// The segment after this one on the same timeline; `None` after the last address, or where
    /// no segment of this size has this name.
    pub fn next(self, size: SegmentSize) -> Option<Self> {
        let start = self.start(size)?.0.checked_add(size.bytes())?;
        Some(SegmentName::at(self.timeline, Lsn(start), size))
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.get(), self.high, self.low)
    }
}

/// The name of any WAL file that PostgreSQL archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalName {
    /// `TTTTTTTTHHHHHHHHLLLLLLLL`
    Segment(SegmentName),
    /// `TTTTTTTTHHHHHHHHLLLLLLLL.partial`: the last segment of a timeline, left unfinished by a
    /// promotion.
    Partial(SegmentName),
    /// `TTTTTTTTHHHHHHHHLLLLLLLL.OOOOOOOO.backup`: the offset is that of the backup's start
    /// within the segment.
    BackupHistory(SegmentName, u32),
    /// `TTTTTTTT.history`
    TimelineHistory(Timeline),
}

impl WalName {
    /// The segment that the file is, or that its name starts with.
    pub fn segment(self) -> Option<SegmentName> {
        match self {
            WalName::Segment(segment) | WalName::Partial(segment) | WalName::BackupHistory(segment, _) => {
                Some(segment)
            }
            WalName::TimelineHistory(_) => None,
        }
    }

    /// Whether the content is a segment's: pages of WAL, the full size.
    pub fn is_pages(self) -> bool {
        matches!(self, WalName::Segment(_) | WalName::Partial(_))
    }

    /// The timeline by the name.
    pub fn timeline(self) -> Timeline {
        match self {
            WalName::TimelineHistory(timeline) => timeline,
            WalName::Segment(s) | WalName::Partial(s) | WalName::BackupHistory(s, _) => s.timeline,
        }
    }
}

impl fmt::Display for WalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalName::Segment(segment) => segment.fmt(f),
            WalName::Partial(segment) => write!(f, "{segment}.partial"),
            WalName::BackupHistory(segment, offset) => write!(f, "{segment}.{offset:08X}.backup"),
            WalName::TimelineHistory(timeline) => write!(f, "{:08X}.history", timeline.get()),
        }
    }
}

/// The text is not the name of a WAL file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAWalName;

impl fmt::Display for NotAWalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not the name of a WAL file (a segment of 24 upper-case hexadecimal digits, \
             SEGMENT.partial, SEGMENT.OFFSET.backup or TIMELINE.history)",
        )
    }
}

impl std::error::Error for NotAWalName {}

/// Eight upper-case hexadecimal digits.
fn hex8(text: &str) -> Result<u32, NotAWalName> {
    if text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')) {
        u32::from_str_radix(text, 16).map_err(|_| NotAWalName)
    } else {
        Err(NotAWalName)
    }
}

fn timeline(text: &str) -> Result<Timeline, NotAWalName> {
    Timeline::new(hex8(text)?).ok_or(NotAWalName)
}

impl FromStr for SegmentName {
    type Err = NotAWalName;

    fn from_str(text: &str) -> Result<Self, NotAWalName> {
        let (head, low) = text.split_at_checked(16).ok_or(NotAWalName)?;
        let (first, high) = head.split_at_checked(8).ok_or(NotAWalName)?;
        Ok(SegmentName { timeline: timeline(first)?, high: hex8(high)?, low: hex8(low)? })
    }
}

impl FromStr for WalName {
    type Err = NotAWalName;

    fn from_str(text: &str) -> Result<Self, NotAWalName> {
        let mut parts = text.split('.');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(stem), None, None, None) => stem.parse().map(WalName::Segment),
            (Some(stem), Some("partial"), None, None) => stem.parse().map(WalName::Partial),
            (Some(stem), Some("history"), None, None) => timeline(stem).map(WalName::TimelineHistory),
            (Some(stem), Some(offset), Some("backup"), None) => {
                Ok(WalName::BackupHistory(stem.parse()?, hex8(offset)?))
            }
            _ => Err(NotAWalName),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size(mebibytes: u64) -> SegmentSize {
        SegmentSize::new(mebibytes << 20).unwrap()
    }

    #[test]
    fn the_four_kinds_are_told_apart() {
        let segment: SegmentName = "00000001000000000000001B".parse().unwrap();
        let cases = [
            ("00000001000000000000001B", WalName::Segment(segment)),
            ("00000001000000000000001B.partial", WalName::Partial(segment)),
            ("00000001000000000000001B.00000028.backup", WalName::BackupHistory(segment, 0x28)),
            ("00000002.history", WalName::TimelineHistory(Timeline::new(2).unwrap())),
        ];
        for (text, name) in cases {
            assert_eq!(text.parse(), Ok(name));
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            ".",
            "RECOVERYXLOG",
            "archive.json",
            "00000001000000000000001",
            "00000001000000000000001B1",
            "00000001000000000000001b",
            "00000000000000000000001B",
            "0000000100000000000000+B",
            "00000001000000000000001B.",
            "00000001000000000000001B.Partial",
            "00000001000000000000001B.partial.partial",
            "00000001000000000000001B.28.backup",
            "00000001000000000000001B.0000002g.backup",
            "00000001000000000000001B.backup",
            "00000001000000000000001B.zst",
            "00000000.history",
            "1.history",
            "00000001.history.tmp",
            "pg_wal/00000001000000000000001B",
            "00000001000000000000001B\n",
            " 00000001000000000000001B",
            "0000000100000000000000é",
            "000000010000000é0000001B",
        ] {
            assert_eq!(bad.parse::<WalName>(), Err(NotAWalName), "{bad:?}");
        }
    }

    #[test]
    fn the_last_digits_wrap_at_the_count_of_segments_per_id() {
        for (mebibytes, last) in [(1, 0xFFF), (16, 0xFF), (64, 0x3F), (1024, 0x03)] {
            let name: SegmentName = format!("0000000100000003{last:08X}").parse().unwrap();
            let next = name.next(size(mebibytes)).unwrap();
            assert_eq!(next.to_string(), "000000010000000400000000", "{mebibytes} MiB");
            let beyond: SegmentName = format!("0000000100000003{:08X}", last + 1).parse().unwrap();
            assert_eq!(beyond.start(size(mebibytes)), None);
            assert_eq!(beyond.next(size(mebibytes)), None);
        }
    }

    #[test]
    fn nothing_follows_the_last_address() {
        let last: SegmentName = "00000001FFFFFFFF000000FF".parse().unwrap();
        assert_eq!(last.next(size(16)), None);
    }

    proptest! {
        #[test]
        fn every_name_survives_display_and_parse(tli in 1u32.., high: u32, low: u32, offset: u32, kind in 0..4) {
            let timeline = Timeline::new(tli).unwrap();
            let segment = SegmentName { timeline, high, low };
            let name = match kind {
                0 => WalName::Segment(segment),
                1 => WalName::Partial(segment),
                2 => WalName::BackupHistory(segment, offset),
                _ => WalName::TimelineHistory(timeline),
            };
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }

        #[test]
        fn what_parses_displays_as_itself(text in "[0-9A-Fa-f.]{0,30}(partial|backup|history|)") {
            if let Ok(name) = text.parse::<WalName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = text.parse::<WalName>();
        }

        #[test]
        fn an_address_lies_in_the_segment_that_holds_it(lsn: u64, shift in 20u32..=30) {
            let size = SegmentSize::new(1 << shift).unwrap();
            let name = SegmentName::at(Timeline::FIRST, Lsn(lsn), size);
            let start = name.start(size).unwrap().0;
            prop_assert!(start <= lsn && lsn - start < size.bytes());
            prop_assert_eq!(start % size.bytes(), 0);
            prop_assert_eq!(name.number(size).map(|n| SegmentName::numbered(Timeline::FIRST, n, size)), Some(name));
            if let Some(next) = name.next(size) {
                prop_assert_eq!(next.start(size).unwrap().0, start + size.bytes());
                prop_assert!(next > name, "names sort as addresses do");
            }
        }
    }
}
