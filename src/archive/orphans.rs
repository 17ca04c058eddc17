//! Files of a timeline at a destination that lacks its history.
//!
//! They may be another server's, which used the same id. Whoever gives the timeline a history then
//! makes one id mean two things, so the files must be known as theirs first: one of them is the same as
//! their own, or that very history was there and has been moved aside.

use crate::archive::object::{Label, Opener, label};
use crate::archive::{lookup, quarantine};
use crate::object::{Encoding, Key, Sha256Sum, Stored};
use crate::storage::{Result, Storage};
use crate::wal::{Timeline, WalName};

/// How many of them are compared, the newest first.
pub const COMPARED: usize = 16;

pub struct Orphan {
    pub key: String,
    /// The WAL file that it holds, or another content of which.
    pub name: WalName,
    stored: Stored,
}

/// What the destination holds of a timeline, in the order of names; nothing where its history is
/// there, readable or not. `plain`: directly under the prefix, too.
pub fn orphans(storage: &dyn Storage, timeline: Timeline, plain: bool) -> Result<Vec<Orphan>> {
    let mut found = Vec::new();
    for folder in lookup::folders(plain) {
        for entry in storage.list(&format!("{folder}{:08X}", timeline.get()), "")? {
            let key = entry?.key;
            let stored = Stored::parse(key.strip_prefix(folder).unwrap_or(&key));
            match stored.name() {
                // Of this timeline, and before all its segments in the order of names.
                Some(WalName::TimelineHistory(_)) => return Ok(Vec::new()),
                Some(name) => found.push(Orphan { key, name, stored }),
                None => {}
            }
        }
    }
    Ok(found)
}

impl Orphan {
    /// Whether it is kept beside an object of the name, as other content of it.
    pub fn is_variant(&self) -> bool {
        matches!(self.stored, Stored::Variant(..))
    }

    /// Whether it holds these bytes, by its name, its label, or else by all of it.
    pub fn holds(&self, storage: &dyn Storage, sum: &Sha256Sum, opener: &Opener) -> Result<bool> {
        match (&self.stored, Key::parse(&self.key)) {
            (Stored::Variant(name, digits, Encoding::Age), _) => {
                Ok(storage.keys().may_be_variant(digits, sum, *name))
            }
            (Stored::Variant(_, digits, _), _) => Ok(*digits == sum.short()),
            (Stored::Wal(..), Some(key)) => opener.holds(storage, &key, sum),
            _ => Ok(false),
        }
    }
}

/// Whether a copy of this history was moved aside, by what its label says, or one that does not say
/// what it was. `sum`: of the history, where it is known.
pub fn was_moved_aside(storage: &dyn Storage, history: WalName, sum: Option<&Sha256Sum>) -> Result<bool> {
    for key in quarantine::moved_before(storage, history)?.iter().filter_map(|key| Key::parse(key)) {
        match label(storage, &key)? {
            Label::Ours(theirs) if sum.is_some_and(|sum| theirs.sha256 != *sum) => {}
            _ => return Ok(true),
        }
    }
    Ok(false)
}
