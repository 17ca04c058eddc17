//! The keys that belong to one destination: for whom its objects are encrypted, and what decrypts them.

use super::identities::Identities;
use super::keys::{Identity, Recipient};
use crate::object::{Encryption, Sha256Sum};
use crate::wal::WalName;

/// Of one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    /// For whom objects are encrypted; none: not at all.
    pub recipients: Vec<Recipient>,
    /// Recipients of older objects, only to compare with those.
    pub compare: Vec<Recipient>,
    pub identities: Identities,
    /// Whether an archive that is not encrypted is refused.
    pub required: bool,
}

/// A place for which no key is configured.
pub static NO_KEYS: Keyring =
    Keyring { recipients: Vec::new(), compare: Vec::new(), identities: Identities::NONE, required: false };

impl Keyring {
    /// How objects are stored with these keys.
    pub fn writes(&self) -> Encryption {
        if self.recipients.is_empty() { Encryption::None } else { Encryption::Age }
    }

    /// How objects are stored there, as far as these keys tell: of an archive that was not looked at.
    pub fn expects(&self) -> Encryption {
        match self.required || !self.identities.is_empty() {
            true => Encryption::Age,
            false => self.writes(),
        }
    }

    /// Everybody whose tags can be made.
    pub fn known(&self) -> Vec<Recipient> {
        let own = self.identities.iter().map(Identity::recipient);
        self.recipients.iter().chain(&self.compare).chain(own).cloned().collect()
    }

    /// The digits by which a variant of that content may be told apart.
    pub fn may_be_variant(&self, digits: &str, sha256: &Sha256Sum, name: WalName) -> bool {
        self.known().iter().any(|recipient| recipient.tag(sha256, name).short() == digits)
    }
}
