//! Files of a timeline at a destination that lacks its history.
//!
//! They may be another server's, which used the same id. Whoever gives the timeline a history then
//! makes one id mean two things, so the files must be known as theirs first: one of them is the same as
//! their own, or that very history was there and has been moved aside. A damaged one that does not tell
//! what it was may have been the other server's.

use crate::archive::object::{Label, Opener, label, label_of_sealed};
use crate::archive::{lookup, quarantine};
use crate::object::age::Comparison;
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

/// What a destination holds of a timeline.
pub enum Held {
    /// Its history, in these encodings, readable or not.
    History(Vec<Key>),
    /// No history; these files, in the order of names.
    Orphans(Vec<Orphan>),
}

/// Looks for the history of a timeline in whatever encoding, and for other files where there is none.
/// `plain`: directly under the prefix, too.
pub fn held(storage: &dyn Storage, timeline: Timeline, plain: bool) -> Result<Held> {
    let (mut histories, mut orphans) = (Vec::new(), Vec::new());
    for folder in lookup::folders(plain) {
        for entry in storage.list(&format!("{folder}{:08X}", timeline.get()), "")? {
            let key = entry?.key;
            let stored = Stored::parse(key.strip_prefix(folder).unwrap_or(&key));
            match stored.name() {
                // Of this timeline, and before all its segments in the order of names.
                Some(WalName::TimelineHistory(_)) => histories.extend(Key::parse(&key)),
                Some(_) if !histories.is_empty() => break,
                Some(name) => orphans.push(Orphan { key, name, stored }),
                None => {}
            }
        }
    }
    Ok(if histories.is_empty() { Held::Orphans(orphans) } else { Held::History(histories) })
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

/// Whether a copy of this very history, which has that sum, was moved aside, by what its label says.
pub fn was_moved_aside(storage: &dyn Storage, history: WalName, sum: &Sha256Sum) -> Result<bool> {
    for key in quarantine::moved_before(storage, history)?.iter().filter_map(|key| Key::parse(key)) {
        let is_it = match label(storage, &key)? {
            Label::Ours(trailer) => trailer.sha256 == *sum,
            _ => match label_of_sealed(storage, &key)? {
                Label::Sealed(seal, _) => seal.compare(sum, &storage.keys().known()) == Comparison::Same,
                // A bare one is stored as it is, and moved aside under the sum of what was stored.
                _ => key == Key::quarantine(history, sum),
            },
        };
        if is_it {
            return Ok(true);
        }
    }
    Ok(false)
}
