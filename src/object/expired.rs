//! `expired/TIME.json`: which segments `wal-archive expire` removed between backups.
//!
//! Without it a range that was removed on purpose looks like one that was lost. A record is made
//! before anything is deleted, so it may name what is still there; it is a reason not to miss a
//! segment, never a reason to delete one.

use super::versioned;
use crate::wal::SegmentName;
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;

/// The ranges of one run at one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// First and last segment of each, of one timeline.
    pub ranges: Vec<(SegmentName, SegmentName)>,
}

#[derive(Serialize, Deserialize)]
struct Text {
    #[serde(rename = "wal-archive")]
    version: u32,
    expired: Vec<Range>,
}

#[derive(Serialize, Deserialize)]
struct Range {
    from: String,
    to: String,
}

impl Expired {
    /// A record of a million ranges is shorter.
    pub const MAX_LEN: u64 = 128 << 20;

    /// The content: one line of JSON.
    pub fn write(&self) -> Vec<u8> {
        let range =
            |(from, to): &(SegmentName, SegmentName)| Range { from: from.to_string(), to: to.to_string() };
        let text = Text { version: VERSION, expired: self.ranges.iter().map(range).collect() };
        versioned::write(&text)
    }

    /// Reads the content. The error says what is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let text: Text = versioned::read(bytes, VERSION)?;
        let range = |Range { from, to }: Range| match (from.parse::<SegmentName>(), to.parse::<SegmentName>())
        {
            (Ok(first), Ok(last)) if first.timeline() == last.timeline() && first <= last => {
                Ok((first, last))
            }
            _ => Err(format!("\"{from}\" to \"{to}\" is no range of segments")),
        };
        Ok(Expired { ranges: text.expired.into_iter().map(range).collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_one_line_of_json() {
        let range =
            ("000000010000000000000004".parse().unwrap(), "000000010000000000000006".parse().unwrap());
        let record = Expired { ranges: vec![range] };
        let bytes = record.write();
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            "{\"wal-archive\":1,\"expired\":[{\"from\":\"000000010000000000000004\",\"to\":\"000000010000000000000006\"}]}\n"
        );
        assert_eq!(Expired::read(&bytes), Ok(record));
    }

    #[test]
    fn what_is_not_a_record_is_an_error() {
        for bad in [
            "",
            "{}",
            r#"{"wal-archive":2,"expired":[]}"#,
            r#"{"wal-archive":1,"expired":[{"from":"x","to":"000000010000000000000006"}]}"#,
            r#"{"wal-archive":1,"expired":[{"from":"000000010000000000000006","to":"000000010000000000000004"}]}"#,
            r#"{"wal-archive":1,"expired":[{"from":"000000010000000000000004","to":"000000020000000000000006"}]}"#,
        ] {
            assert!(Expired::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
