//! Version 2 of the object format: an age file that holds a whole object of version 1.
//!
//! age v1 (<https://age-encryption.org/v1>, <https://c2sp.org/age>) with X25519 recipients, so that stock
//! tools read it, and one public stanza before the keys, so that whoever has no private key can still
//! tell a whole object from a damaged one, and the same WAL file from another one. `docs/encryption.md` is
//! the description for people. No cryptography of its own: `ring` and `x25519-dalek`.
//!
//! | file | what |
//! |---|---|
//! | `bech32`, `keys`, `identities`, `keyring` | keys as people have them |
//! | `header`, `stream` | the two parts of an age file |
//! | `seal` | the public stanza |
//! | `sealed` | an object written and read |

mod bech32;
mod crypto;
mod header;
mod identities;
mod keyring;
mod keys;
mod seal;
mod sealed;
mod stream;
#[cfg(test)]
mod tests;
mod unique;

pub use crypto::Refused;
pub use header::MAX_LEN as MAX_HEADER;
pub use identities::{Identities, recipients};
pub use keyring::{Keyring, NO_KEYS};
pub use keys::{FileKey, Id, Identity, KeyError, Recipient};
pub use seal::{Comparison, MAX_RECIPIENTS, Name, Seal, Tagged};
pub use sealed::{Content, Sealed, Sealer, decode, decode_with, open, opens, read_seal};
