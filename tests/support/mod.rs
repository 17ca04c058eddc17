//! Servers that tests start themselves, on loopback, and that end with the test.

#![allow(dead_code, reason = "each test crate uses a part")]

pub mod proxy;
pub mod s3;
