//! The 256 bytes at the end of an object: a zstd skippable frame that says what the object is.
//!
//! | offset | bytes |
//! |---|---|
//! | 0 | magic `0x184D2A5E`, little-endian |
//! | 4 | length 248, little-endian |
//! | 8 | 248 bytes of ASCII: one JSON object, padded with spaces, ended by a newline |
//!
//! zstd tools pass over skippable frames (RFC 8878 §3.1.2), so the whole object stays readable
//! with stock `zstd`.

use super::digest::Sha256Sum;
use crate::wal::{SystemId, WalName};
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::str::FromStr;

/// The version of the object format that this program writes, and the newest it reads.
const VERSION: u32 = 1;

const TEXT: usize = 248;
const MAGIC: [u8; 8] = [0x5E, 0x2A, 0x4D, 0x18, TEXT as u8, 0, 0, 0];

/// What an object says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer<N = WalName> {
    /// The WAL file's name, or what a part of a backup is called.
    pub name: N,
    /// Raw size in bytes.
    pub size: u64,
    /// Length in bytes of the zstd frame before the trailer.
    pub frame: u64,
    /// SHA-256 of the raw bytes.
    pub sha256: Sha256Sum,
    /// The cluster, where it was known.
    pub system_id: Option<SystemId>,
}

/// The JSON object, as written. Unknown fields are ignored.
#[derive(Serialize, Deserialize)]
struct Text {
    #[serde(rename = "wal-archive")]
    version: u32,
    name: String,
    size: u64,
    frame: u64,
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    system_id: Option<String>,
}

impl Trailer {
    /// Length in bytes.
    pub const LEN: usize = MAGIC.len() + TEXT;

    /// Whether these bytes are meant to be a trailer: the magic and the length are there.
    pub fn is_here(bytes: &[u8]) -> bool {
        bytes.len() == Trailer::LEN && bytes.starts_with(&MAGIC)
    }
}

impl<N: Display + FromStr> Trailer<N> {
    /// The length of the object that ends with this trailer.
    pub fn object_len(&self) -> u64 {
        self.frame.saturating_add(Trailer::LEN as u64)
    }

    /// The [`Trailer::LEN`] bytes.
    pub fn write(&self) -> Vec<u8> {
        let text = Text {
            version: VERSION,
            name: self.name.to_string(),
            size: self.size,
            frame: self.frame,
            sha256: self.sha256.to_string(),
            system_id: self.system_id.map(|id| id.to_string()),
        };
        let mut bytes = MAGIC.to_vec();
        // Writing numbers and strings into memory cannot fail, and the longest name and the
        // largest numbers leave room to spare (tested below).
        let _ = serde_json::to_writer(&mut bytes, &text);
        bytes.resize(Trailer::LEN - 1, b' ');
        bytes.push(b'\n');
        bytes
    }

    /// Reads the last [`Trailer::LEN`] bytes of an object. The error says what is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        if !Trailer::is_here(bytes) {
            return Err("it has no trailer of this archive".to_owned());
        }
        let json = bytes.get(MAGIC.len()..).and_then(|text| text.strip_suffix(b"\n"));
        let json = json.ok_or("its trailer does not end with a newline")?;
        let text: Text =
            serde_json::from_slice(json).map_err(|e| format!("its trailer cannot be read: {e}"))?;
        if text.version > VERSION {
            return Err(format!(
                "it is written in version {} of the format; this program reads up to {VERSION}",
                text.version
            ));
        }
        let bad = |field: &str| format!("its trailer has an impossible {field}");
        Ok(Trailer {
            name: text.name.parse().map_err(|_| bad("name"))?,
            size: text.size,
            frame: text.frame,
            sha256: text.sha256.parse().map_err(|_| bad("sha256"))?,
            system_id: text.system_id.map(|id| id.parse().map_err(|_| bad("system_id"))).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailer() -> Trailer {
        Trailer {
            name: "00000001000000000000001B".parse().unwrap(),
            size: 16_777_216,
            frame: 1_511_749,
            sha256: Sha256Sum::of(b""),
            system_id: Some(SystemId(7_622_915_573_421_581_577)),
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_format_page() {
        let bytes = trailer().write();
        assert_eq!(bytes.len(), 256);
        assert_eq!(bytes[..8], [0x5E, 0x2A, 0x4D, 0x18, 0xF8, 0, 0, 0]);
        let text = std::str::from_utf8(&bytes[8..]).unwrap();
        assert_eq!(
            text.trim_end(),
            "{\"wal-archive\":1,\"name\":\"00000001000000000000001B\",\"size\":16777216,\"frame\":1511749,\
             \"sha256\":\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\
             \"system_id\":\"7622915573421581577\"}"
        );
        assert!(text.ends_with(" \n"));
        assert_eq!(Trailer::read(&bytes), Ok(trailer()));
    }

    #[test]
    fn the_longest_values_fit() {
        let longest: Trailer = Trailer {
            name: "FFFFFFFFFFFFFFFFFFFFFFFF.FFFFFFFF.backup".parse().unwrap(),
            size: u64::from(u32::MAX),
            frame: u64::from(u32::MAX),
            sha256: Sha256Sum::of(b""),
            system_id: Some(SystemId(u64::MAX)),
        };
        let bytes = longest.write();
        assert_eq!(bytes.len(), Trailer::LEN);
        assert_eq!(Trailer::read(&bytes), Ok(longest));
    }

    #[test]
    fn unknown_fields_are_ignored_and_a_higher_version_is_an_error() {
        let rewrite = |from: &str, to: &str| {
            let text = String::from_utf8(trailer().write()[8..].to_vec()).unwrap();
            let text = text.replacen(from, to, 1);
            let mut bytes = MAGIC.to_vec();
            bytes.extend(text.trim_end().bytes());
            bytes.resize(Trailer::LEN - 1, b' ');
            bytes.push(b'\n');
            Trailer::read(&bytes)
        };
        assert_eq!(rewrite("\"size\"", "\"new\":[1],\"size\""), Ok(trailer()));
        assert!(rewrite("archive\":1", "archive\":2").unwrap_err().contains("version 2"));
        let anonymous = rewrite(",\"system_id\":\"7622915573421581577\"", "").unwrap();
        assert_eq!(anonymous.system_id, None);
    }
}
