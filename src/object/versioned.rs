//! The small records that an archive holds: a line of JSON with the version of what it means.
//!
//! Does not know what a record says.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "wal-archive")]
    version: u32,
}

/// A line of JSON.
pub fn write(record: &impl Serialize) -> Vec<u8> {
    // Writing numbers and strings into memory cannot fail.
    let mut bytes = serde_json::to_vec(record).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// Reads a record of a version up to `known`. The error says what is wrong: of a newer one, which may
/// hold other fields, that it is newer.
pub fn read<T: DeserializeOwned>(bytes: &[u8], known: u32) -> Result<T, String> {
    let found: Version = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if found.version > known {
        return Err(format!("it is of version {}; this program reads up to {known}", found.version));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Record {
        #[serde(rename = "wal-archive")]
        version: u32,
        text: String,
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = Record { version: 2, text: "a\nb".to_owned() };
        let bytes = write(&record);
        assert_eq!(bytes, b"{\"wal-archive\":2,\"text\":\"a\\nb\"}\n");
        assert_eq!(read(&bytes, 2), Ok(record));
    }

    #[test]
    fn a_newer_version_is_named_whatever_it_holds() {
        let said = read::<Record>(b"{\"wal-archive\":3,\"words\":1}", 2).unwrap_err();
        assert_eq!(said, "it is of version 3; this program reads up to 2");
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        for bytes in [&b""[..], b"{}", b"{\"wal-archive\":1}", b"{\"wal-archive\":1,\"text\":\"a\"} {"] {
            assert!(read::<Record>(bytes, 2).is_err());
        }
    }
}
