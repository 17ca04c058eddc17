//! The library below `wal-push`, `wal-fetch` and `wal-archive`: the map.
//!
//! The order of the modules is the order of reading and of importing: a module uses only those
//! above it, and the workflows never use each other. `tests/layers.rs` enforces it.

// Pure: bytes and names. No file system, clock or environment.

// PostgreSQL's WAL: addresses, names, first pages, history files.
pub mod wal;
// What a WAL file becomes in an archive: key, format, codec, identity file.
pub mod object;
// Whether a file is absent, by what listings showed.
pub mod absent;

// Effects: where bytes live.

// The same work for several things at once.
pub mod side_by_side;
// File primitives that survive a crash.
pub mod durable;
// What tells a file from every other one, and from itself after a change.
pub mod stamp;
// The storage trait, its backends and wrappers.
pub mod storage;
// A failed workflow: kind, sentence, hint.
pub mod failure;
// What a data directory says of its cluster.
pub mod cluster;
// The private cache that remembers what was proved.
pub mod spool;
// Where a WAL file stands at a destination, in whatever encoding.
pub mod lookup;
// Whose archive a destination is, and the proof that it is one.
pub mod archive;
// What stands at a destination: one listing, sorted and typed.
pub mod inventory;
// One stored object, read whole and judged.
pub mod examine;
// One object moved aside.
pub mod quarantine;
// A WAL file on its way into an archive: read, checked, encoded.
pub mod source;
// The encoded file into every destination.
pub mod store;
// The path that a fetched file goes to.
pub mod target;

// Workflows: one verb each.

// `wal-push`.
pub mod push;
// `wal-fetch`.
pub mod fetch;
// `wal-archive verify`.
pub mod verify;
// `wal-archive check`.
pub mod check;
// `wal-archive expire`.
pub mod retention;
// `wal-archive drain`.
pub mod drain;
// `wal-archive copy`.
pub mod copy;

// Edge: people and processes.

// Flags, environment and TOML to settings.
pub mod config;
// Arguments in, messages and exit codes out.
pub mod cli;
