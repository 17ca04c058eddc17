//! The real programs, run as PostgreSQL runs them: status, stdout and stderr.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod util;

mod check;
mod config;
mod drain;
mod fetch;
mod foreign;
mod kills;
mod look_ahead;
mod prefetch;
mod push;
mod races;
mod sizes;
mod syscalls;
