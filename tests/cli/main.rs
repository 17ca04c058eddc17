//! The real programs, run as PostgreSQL runs them: status, stdout and stderr.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../support/fuse.rs"]
mod fuse;
#[path = "../support/json_page.rs"]
mod json_page;
#[path = "../support/prefetchers.rs"]
mod prefetchers;
mod util;
#[path = "../support/wal.rs"]
mod wal;

mod absent;
mod base_backups;
mod check;
mod clusters;
mod config;
mod copy;
mod cut;
mod disks;
mod drain;
mod encryption;
mod expire;
mod faults;
mod fetch;
mod findings;
mod foreign;
mod help;
mod histories;
mod init;
mod hung;
mod json;
mod kills;
mod list;
mod report;
mod look_ahead;
mod memory;
mod messages;
mod metrics;
mod partial;
mod prefetch;
mod push;
mod quarantine;
mod races;
mod simulated;
mod sizes;
mod supervised;
mod syscalls;
mod terminal;
mod threads;
mod verify;
