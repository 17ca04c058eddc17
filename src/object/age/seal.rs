//! The public stanza: what a sealed object says of itself to whoever has no key.
//!
//! It names the WAL file, carries the ciphertext's sum, and one tag for each recipient, by which two
//! objects of one name are compared. Nothing in it can be tested against a guess of the content
//! by somebody who does not know a recipient.

use super::header::{Header, MAX_LEN, Malformed, Stanza};
use super::keys::{Id, Recipient, check};
use super::unique::unique_keys;
use crate::object::Sha256Sum;
use crate::wal::{SystemId, WalName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Display;
use std::str::FromStr;

/// The version of the object format.
const VERSION: u32 = 2;

/// The stanza's type.
const WAL_ARCHIVE: &str = "wal-archive";

/// Recipients of one object.
pub const MAX_RECIPIENTS: usize = 8;

/// What may be the name of an object: a WAL file's, or what a part of a backup is called.
pub trait Name: Clone + Display + FromStr + PartialEq {}

impl<N: Clone + Display + FromStr + PartialEq> Name for N {}

/// What a sealed object says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal<N = WalName> {
    pub name: N,
    /// Of what was encoded, in bytes.
    pub size: u64,
    /// Bytes behind the header.
    pub payload: u64,
    /// SHA-256 of them.
    pub stored: Sha256Sum,
    /// Never empty, in the order of the key stanzas.
    pub recipients: Vec<Tagged>,
    /// The cluster, where it was known.
    pub system_id: Option<SystemId>,
}

/// One for whom the object is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tagged {
    pub id: Id,
    /// The same for the same file of the same name.
    pub tag: Sha256Sum,
}

/// Another sealed object of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Same,
    Different,
    /// They have no recipient in common.
    CannotTell,
}

#[derive(Serialize, Deserialize)]
struct Text {
    #[serde(rename = "wal-archive")]
    version: u32,
    name: String,
    size: u64,
    payload: u64,
    stored: String,
    recipients: Vec<TextOfOne>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    system_id: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct TextOfOne {
    id: String,
    tag: String,
}

impl<N: Name> Seal<N> {
    /// Reads it from the header of an object.
    pub(super) fn read(header: &Header) -> Result<Self, Malformed> {
        let [first, keys @ ..] = header.stanzas.as_slice() else {
            return Err("its header has no stanza".to_owned());
        };
        let (WAL_ARCHIVE, [argument]) = (first.tag.as_str(), first.arguments.as_slice()) else {
            return Err("it is an age file of another program".to_owned());
        };
        let seal = Self::of_argument(argument)?;
        if first.body.get(..32) != Some(digest(header).as_slice()) {
            return Err("its header is not what was written (the digest differs)".to_owned());
        }
        check(keys)?;
        if keys.iter().any(|stanza| stanza.tag == WAL_ARCHIVE) {
            return Err("it has two public stanzas".to_owned());
        }
        if keys.len() != seal.recipients.len() {
            return Err(format!("it names {} recipients and has {} keys", seal.recipients.len(), keys.len()));
        }
        Ok(seal)
    }

    fn of_argument(argument: &str) -> Result<Self, Malformed> {
        let unreadable = |error: serde_json::Error| format!("its public stanza cannot be read: {error}");
        unique_keys(argument).map_err(unreadable)?;
        let text: Text = serde_json::from_str(argument).map_err(unreadable)?;
        if text.version != VERSION {
            return Err(format!(
                "it is written in version {} of the format; as an age file this program reads {VERSION}",
                text.version
            ));
        }
        if !(1..=MAX_RECIPIENTS).contains(&text.recipients.len()) {
            return Err(format!("it names {} recipients, not 1 to {MAX_RECIPIENTS}", text.recipients.len()));
        }
        let bad = |field: &str| format!("its public stanza has an impossible {field}");
        let recipients = text.recipients.iter().map(|one| {
            let id = Id::parse(&one.id).ok_or_else(|| bad("id"))?;
            Ok(Tagged { id, tag: one.tag.parse().map_err(|_| bad("tag"))? })
        });
        Ok(Seal {
            name: text.name.parse().map_err(|_| bad("name"))?,
            size: text.size,
            payload: text.payload,
            stored: text.stored.parse().map_err(|_| bad("stored"))?,
            recipients: recipients.collect::<Result<_, Malformed>>()?,
            system_id: text.system_id.map(|id| id.parse().map_err(|_| bad("system_id"))).transpose()?,
        })
    }

    fn argument(&self) -> String {
        let text = Text {
            version: VERSION,
            name: self.name.to_string(),
            size: self.size,
            payload: self.payload,
            stored: self.stored.to_string(),
            recipients: self
                .recipients
                .iter()
                .map(|one| TextOfOne { id: one.id.to_string(), tag: one.tag.to_string() })
                .collect(),
            system_id: self.system_id.map(|id| id.to_string()),
        };
        // Names, numbers and digits: no space, no character beyond ASCII. Cannot fail.
        serde_json::to_string(&text).unwrap_or_default()
    }

    /// The header of an object: this stanza, then those that wrap the key.
    pub(super) fn write(
        &self,
        keys: &[Stanza],
        mac: impl Fn(&[u8]) -> [u8; 32],
    ) -> Result<Header, Malformed> {
        let header = |body: Vec<u8>| {
            let first = Stanza { tag: WAL_ARCHIVE.to_owned(), arguments: vec![self.argument()], body };
            Header::write([first].iter().chain(keys).cloned().collect(), &mac)
        };
        let written = header(digest(&header(vec![0; 32])).to_vec());
        match written.text().len() {
            0..=MAX_LEN => Ok(written),
            len => Err(format!("its header would have {len} bytes, more than {MAX_LEN}")),
        }
    }

    /// What the tags say of this object and a file of that sum.
    pub fn compare(&self, sha256: &Sha256Sum, known: &[Recipient]) -> Comparison {
        let mut found = Comparison::CannotTell;
        for recipient in known {
            let Some(theirs) = self.recipients.iter().find(|one| one.id == recipient.id()) else { continue };
            if theirs.tag != recipient.tag(sha256, &self.name) {
                return Comparison::Different;
            }
            found = Comparison::Same;
        }
        found
    }

    /// What the tags say of both objects.
    pub fn compare_with(&self, other: &Self) -> Comparison {
        if (&self.name, self.size) != (&other.name, other.size) {
            return Comparison::Different;
        }
        let mut found = Comparison::CannotTell;
        for one in &self.recipients {
            let Some(theirs) = other.recipients.iter().find(|theirs| theirs.id == one.id) else { continue };
            if theirs.tag != one.tag {
                return Comparison::Different;
            }
            found = Comparison::Same;
        }
        found
    }

    /// Whether both are of the same file, by a recipient that they have in common.
    pub fn is_like(&self, other: &Self) -> bool {
        self.system_id == other.system_id && self.compare_with(other) == Comparison::Same
    }

    /// The digits by which the key of a variant is told from others.
    pub fn digits(&self) -> String {
        self.recipients.first().map_or_else(String::new, |first| first.tag.short())
    }

    /// The ids of the recipients, for people.
    pub fn written_for(&self) -> String {
        self.recipients.iter().map(|one| one.id.to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// By which a change of the header is seen without a key.
fn digest(header: &Header) -> [u8; 32] {
    let mut sha = Sha256::new();
    header.without_first_body().iter().for_each(|part| sha.update(part));
    sha.finalize().into()
}
