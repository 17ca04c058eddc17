//! What a base backup is in an archive: its name, its parts, `backup.json`, and what the tars and the
//! manifest in it say. Pure.
//!
//! Does not know: where bytes live, how a backup is taken, or what is done with it.

pub mod id;
pub mod label;
pub mod manifest;
pub mod part;
pub mod record;
pub mod sums;
pub mod tar;

pub use id::BackupId;
pub use record::{Record, Series, Stored};
