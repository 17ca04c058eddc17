//! What one WAL file becomes at a destination: its key, its bytes, its proof. Pure.
//!
//! Knows: the layout of keys, the object format (a zstd frame and a 256-byte trailer), the
//! encodings of other tools, the encrypted form of an object, the identity file of an archive, the records of what was expired. Does not know: where bytes live, or what a wrong object means
//! for PostgreSQL. `docs/format.md` is the description for people.

pub mod age;
pub mod codec;
pub mod digest;
pub mod encoding;
pub mod expired;
mod frames;
mod hasher;
pub mod identity;
pub mod key;
mod lz4;
pub mod proof;
pub mod trailer;
pub mod versioned;

pub use codec::{EncodeError, Encoder, decode, decode_as, encode};
pub use digest::Sha256Sum;
pub use encoding::Encoding;
pub use expired::Expired;
pub use identity::{Encryption, Identity};
pub use key::{Key, Stored};
pub use proof::{Checks, DecodeError, Decoded};
pub use trailer::Trailer;
