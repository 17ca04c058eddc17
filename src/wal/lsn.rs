//! Addresses in the WAL and the size of a segment.
//!
//! Source: PostgreSQL `src/include/access/xlogdefs.h` (`XLogRecPtr`, `LSN_FORMAT_ARGS`) and
//! `src/include/access/xlog_internal.h` (`IsValidWalSegSize`).

use std::fmt;
use std::str::FromStr;

/// A byte position in the WAL, PostgreSQL's `XLogRecPtr`.
///
/// Shown and parsed as PostgreSQL does it, two hexadecimal halves:
///
/// ```
/// use wal_archive::wal::Lsn;
/// let lsn: Lsn = "0/1B6BDA0".parse().unwrap();
/// assert_eq!(lsn, Lsn(0x1B6_BDA0));
/// assert_eq!(lsn.to_string(), "0/1B6BDA0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text is not of the form `X/X` with two 32-bit hexadecimal numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnLsn;

impl fmt::Display for NotAnLsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a WAL address of the form \"16/B374D848\"")
    }
}

impl std::error::Error for NotAnLsn {}

impl FromStr for Lsn {
    type Err = NotAnLsn;

    /// As PostgreSQL's `pg_lsn_in_internal`: one to eight hexadecimal digits on either side.
    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let half = |digits: &str| -> Result<u64, NotAnLsn> {
            if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(NotAnLsn);
            }
            u64::from_str_radix(digits, 16).map_err(|_| NotAnLsn)
        };
        let (high, low) = text.split_once('/').ok_or(NotAnLsn)?;
        Ok(Lsn(half(high)? << 32 | half(low)?))
    }
}

/// The size of a cluster's segments: a power of two from 1 MiB to 1 GiB, chosen at `initdb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// The largest size PostgreSQL allows (`WalSegMaxSize`).
    pub const MAX: SegmentSize = SegmentSize(1 << 30);

    /// The smallest (`WalSegMinSize`).
    pub const MIN: SegmentSize = SegmentSize(1 << 20);

    /// `None` for anything that `IsValidWalSegSize` of `xlog_internal.h` refuses.
    pub fn new(bytes: u64) -> Option<Self> {
        let fits = (1 << 20..=1 << 30).contains(&bytes) && bytes.is_power_of_two();
        u32::try_from(bytes).ok().filter(|_| fits).map(SegmentSize)
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// How many segments share the first 16 digits of a name: `XLogSegmentsPerXLogId`.
    pub fn segments_per_id(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

impl fmt::Display for SegmentSize {
    /// In the unit of `initdb --wal-segsize`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_lsn_is_two_hexadecimal_halves() {
        assert_eq!("3/FF00000".parse(), Ok(Lsn(0x3_0FF0_0000)));
        assert_eq!("ffffffff/ffffffff".parse(), Ok(Lsn(u64::MAX)));
        for bad in ["", "/", "1", "1/", "/1", "1/2/3", "g/1", "+1/1", "123456789/0", " 1/1", "1/-1"] {
            assert_eq!(bad.parse::<Lsn>(), Err(NotAnLsn), "{bad:?}");
        }
    }

    #[test]
    fn a_segment_size_is_a_power_of_two_from_1_mib_to_1_gib() {
        let valid: Vec<u64> =
            (0..64).map(|shift| 1u64 << shift).filter(|bytes| SegmentSize::new(*bytes).is_some()).collect();
        assert_eq!(valid, (20..=30).map(|shift| 1u64 << shift).collect::<Vec<_>>());
        for bad in [0, 1 << 19, (1 << 20) + 1, 3 << 20, 1 << 31, 1 << 52, u64::MAX] {
            assert_eq!(SegmentSize::new(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_lsn_survives_display_and_parse(value: u64) {
            prop_assert_eq!(Lsn(value).to_string().parse(), Ok(Lsn(value)));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = text.parse::<Lsn>();
        }
    }
}
