//! Servers that tests start themselves, on loopback, and that end with the test.

#![allow(dead_code, reason = "each test crate uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

pub mod proxy;
pub mod s3;
