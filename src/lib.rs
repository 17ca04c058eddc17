//! The library below `wal-push`, `wal-fetch` and `wal-archive`: the map.
//!
//! The order of the modules is the order of reading and of importing: a module uses only those
//! above it, and the workflows never use each other. `tests/layers.rs` enforces it.

// Pure: bytes and names. No file system, clock or environment.

// PostgreSQL's WAL: addresses, names, first pages, history files.
pub mod wal;
// What a WAL file becomes in an archive: key, format, codec, identity file.
pub mod object;
// What a base backup is made of: names, parts, tars, manifest, record.
pub mod base_backup;

// Effects: where bytes live.

// The machine: files that survive a crash, data directories, threads.
pub mod host;
// The storage trait, its backends and wrappers.
pub mod storage;
// A failed workflow: kind, sentence, hint.
pub mod failure;
// What a verb found: kind, place, subject, sentence, hint.
pub mod finding;
// A PostgreSQL server, asked over its replication protocol.
pub mod replication;
// The private cache that remembers what was proved.
pub mod spool;
// Whose an archive is, what is in it, how a WAL file gets in, when one is absent.
pub mod archive;

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
pub mod expire;
// `wal-archive drain`.
pub mod drain;
// `wal-archive copy`.
pub mod copy;
// `wal-archive backup`.
pub mod backup;
// `wal-archive restore`.
pub mod restore;
// `wal-archive rehearse`.
pub mod rehearse;

// Edge: people and processes.

// Flags, environment and TOML to settings.
pub mod config;
// Arguments in, messages and exit codes out.
pub mod cli;
