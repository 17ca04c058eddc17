//! The real programs against a real S3 server, with and without faults between them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;
#[path = "../cli/util.rs"]
mod util;

mod answers;
mod bucket;
mod check;
mod copy;
mod destinations;
mod encryption;
mod expire;
mod faults;
mod foreign;
mod policy;
mod requests;
mod secrets;
mod settings;
mod tls;
