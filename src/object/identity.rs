//! `archive.json`: which cluster an archive belongs to.

use super::versioned;
use crate::wal::{SegmentSize, SystemId};
use serde::{Deserialize, Serialize};

/// The newest version that is read: that of encrypted archives. Plain ones are of the first, so that
/// programs that know no encryption read them, and refuse the others.
const VERSION: u32 = 2;

/// How all objects of an archive are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    #[default]
    None,
    /// As age files, encrypted on the client.
    Age,
}

/// The identity of an archive: made once, before its first object, and never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub system_id: SystemId,
    /// The cluster's segment size.
    pub segment_size: SegmentSize,
    /// Whether the archive held objects of other tools when the identity was made: then a name
    /// may stand there in another encoding.
    pub foreign: bool,
    pub encryption: Encryption,
}

/// As in [`Text`].
const AGE: &str = "age";

#[derive(Serialize, Deserialize)]
struct Text {
    #[serde(rename = "wal-archive")]
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encryption: Option<String>,
    system_id: String,
    segment_size: u64,
    foreign: bool,
}

impl Identity {
    /// More than any version of the file will have; what is longer is not one.
    pub const MAX_LEN: u64 = 64 * 1024;

    /// The content of `archive.json`: one line of JSON.
    pub fn write(&self) -> Vec<u8> {
        let (version, encryption) = match self.encryption {
            Encryption::None => (1, None),
            Encryption::Age => (2, Some(AGE.to_owned())),
        };
        let text = Text {
            version,
            encryption,
            system_id: self.system_id.to_string(),
            segment_size: self.segment_size.bytes(),
            foreign: self.foreign,
        };
        versioned::write(&text)
    }

    /// Reads the content of `archive.json`. The error says what is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let text: Text = versioned::read(bytes, VERSION)?;
        let encryption = match (text.version, text.encryption.as_deref()) {
            (_, Some(AGE)) => Encryption::Age,
            (..=1, None) => Encryption::None,
            (_, Some(other)) => {
                return Err(format!("it is encrypted by \"{other}\", which is not known here"));
            }
            (_, None) => return Err("it does not say how it is encrypted".to_owned()),
        };
        if encryption == Encryption::Age && text.foreign {
            return Err("it is encrypted, and holds objects of other tools".to_owned());
        }
        Ok(Identity {
            encryption,
            system_id: text.system_id.parse().map_err(|_| "its system_id is not a number".to_owned())?,
            segment_size: SegmentSize::new(text.segment_size).ok_or("its segment_size is not one")?,
            foreign: text.foreign,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_one_line_of_json() {
        let identity = Identity {
            system_id: SystemId(7_622_915_573_421_581_577),
            segment_size: SegmentSize::new(16 << 20).unwrap(),
            foreign: false,
            encryption: Encryption::None,
        };
        let bytes = identity.write();
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            "{\"wal-archive\":1,\"system_id\":\"7622915573421581577\",\"segment_size\":16777216,\"foreign\":false}\n"
        );
        assert_eq!(Identity::read(&bytes), Ok(identity));
        let encrypted = Identity { encryption: Encryption::Age, ..identity };
        assert_eq!(
            String::from_utf8(encrypted.write()).unwrap(),
            "{\"wal-archive\":2,\"encryption\":\"age\",\"system_id\":\"7622915573421581577\",\
             \"segment_size\":16777216,\"foreign\":false}\n"
        );
        assert_eq!(Identity::read(&encrypted.write()), Ok(encrypted));
    }

    #[test]
    fn what_is_not_an_identity_is_an_error() {
        for bad in [
            "",
            "{}",
            "null",
            r#"{"wal-archive":2,"system_id":"7","segment_size":16777216,"foreign":false}"#,
            r#"{"wal-archive":3,"encryption":"age","system_id":"7","segment_size":16777216,"foreign":false}"#,
            r#"{"wal-archive":2,"encryption":"x","system_id":"7","segment_size":16777216,"foreign":false}"#,
            r#"{"wal-archive":2,"encryption":"age","system_id":"7","segment_size":16777216,"foreign":true}"#,
            r#"{"wal-archive":1,"system_id":"x","segment_size":16777216,"foreign":false}"#,
            r#"{"wal-archive":1,"system_id":"7","segment_size":16777215,"foreign":false}"#,
        ] {
            assert!(Identity::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
