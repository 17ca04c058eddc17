//! What an archive is: whose it is, what is in it, and how a WAL file gets in.
//!
//! The order is that of importing: a module uses only those above it (`tests/layers.rs`).

// Whether a file is absent, by what listings showed.
pub mod absent;
// One stored object opened: read, decoded and proved.
pub mod object;
// Where a WAL file stands at a destination, in whatever encoding.
pub mod lookup;
// Whose archive a destination is, and the proof that it is one.
pub mod identity;
// What stands at a destination: one listing, sorted and typed.
pub mod inventory;
// The base backups at a destination.
pub mod backups;
// The records of rehearsals at a destination.
pub mod rehearsals;
// One object moved aside.
pub mod quarantine;
// Files of a timeline where its history is not.
pub mod orphans;
// The stored forms of an object: plain, encrypted.
pub mod forms;
// A WAL file on its way into an archive: read, checked, encoded.
pub mod intake;
// The encoded file into every destination.
pub mod put;
