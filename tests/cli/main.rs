//! The real programs, run as PostgreSQL runs them: status, stdout and stderr.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod util;

mod config;
mod fetch;
mod foreign;
mod kills;
mod list;
mod push;
mod races;
mod sizes;
mod syscalls;
mod verify;
