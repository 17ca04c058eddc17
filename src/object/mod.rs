//! What one WAL file becomes at a destination: its key, its bytes, its proof. Pure.
//!
//! Knows: the layout of keys, the object format (a zstd frame and a 256-byte trailer), the
//! identity file of an archive. Does not know: where bytes live, or what a wrong object means
//! for PostgreSQL. `docs/format.md` is the description for people.

pub mod codec;
pub mod digest;
pub mod identity;
pub mod key;
pub mod trailer;

pub use codec::{Checks, DecodeError, Decoded, EncodeError, decode, encode};
pub use digest::Sha256Sum;
pub use identity::Identity;
pub use key::{Key, Stored};
pub use trailer::Trailer;
