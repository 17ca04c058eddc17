//! What is to stand at the destination of a copy, and whether something else there holds the same.

use crate::archive::object::Verdict;
use crate::object::age::{Comparison, Recipient, Seal};
use crate::object::{Encryption, Key, Sha256Sum};
use crate::storage::Body;
use crate::wal::WalName;

/// What is to stand at the destination.
pub(super) struct Object {
    pub(super) body: Body,
    pub(super) size: u64,
    /// Of what it holds; `None` where that was not decrypted.
    pub(super) sha256: Option<Sha256Sum>,
    /// What it says of itself, where it is encrypted.
    pub(super) seal: Option<Seal>,
    /// Where the source has it, and whether it is there as it is to stand here.
    pub(super) source: Key,
    pub(super) ours: bool,
}

impl Object {
    /// The key of it where another content has its name.
    pub(super) fn variant(&self, name: WalName) -> Key {
        match &self.seal {
            Some(seal) => Key::variant(name, &seal.digits(), Encryption::Age),
            None => Key::variant(name, &self.short(), Encryption::None),
        }
    }

    fn short(&self) -> String {
        self.sha256.map(|sum| sum.short()).unwrap_or_default()
    }

    /// Whether what is at the destination holds the same; `None` where nobody here can tell. `known`: the
    /// recipients whose tags can be made.
    pub(super) fn is_same(&self, there: &Verdict, known: &[Recipient]) -> Option<bool> {
        let by_tags = |seal: &Seal| self.seal.as_ref().map(|own| own.compare_with(seal));
        let by_sum = |seal: &Seal| self.sha256.map(|sum| seal.compare(&sum, known));
        let told = match there {
            Verdict::Intact(decoded) if decoded.size != self.size => Comparison::Different,
            Verdict::Shut(seal) if seal.size != self.size => Comparison::Different,
            Verdict::Intact(decoded) => match (self.sha256, &self.seal) {
                (Some(sum), _) if sum == decoded.sha256 => Comparison::Same,
                (Some(_), _) => Comparison::Different,
                (None, Some(own)) => own.compare(&decoded.sha256, known),
                (None, None) => Comparison::CannotTell,
            },
            Verdict::Shut(seal) => match by_tags(seal) {
                Some(told @ (Comparison::Same | Comparison::Different)) => told,
                _ => by_sum(seal).unwrap_or(Comparison::CannotTell),
            },
            Verdict::Damaged(_) | Verdict::OtherCluster(_) | Verdict::Unread => Comparison::CannotTell,
        };
        match told {
            Comparison::Same => Some(true),
            Comparison::Different => Some(false),
            Comparison::CannotTell => None,
        }
    }
}
