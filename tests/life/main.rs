//! Lives of an archive.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../support/wal.rs"]
mod wal;

mod writer;
