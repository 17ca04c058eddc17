//! Every storage backend and wrapper keeps the contract of `storage::Storage`.

#![allow(clippy::expect_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use wal_archive::storage::deadline::Deadline;
use wal_archive::storage::faulty::{Fault, Faulty};
use wal_archive::storage::local::Local;
use wal_archive::storage::memory::Memory;
use wal_archive::storage::{Shared, conformance};

/// Empty local stores below one temporary directory that lives as long as the test.
fn local_stores() -> (tempfile::TempDir, impl Fn() -> Shared) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let base = folder.path().to_owned();
    let count = AtomicUsize::new(0);
    let fresh = move || -> Shared {
        let root = base.join(count.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&root).expect("a root");
        Arc::new(Local::new(root))
    };
    (folder, fresh)
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

#[test]
fn memory_keeps_the_contract() {
    conformance::run(&|| Arc::new(Memory::default()));
}

#[test]
fn local_keeps_the_contract() {
    let (_folder, fresh) = local_stores();
    conformance::run(&fresh);
}

#[test]
fn deadline_over_memory_keeps_the_contract() {
    conformance::run(&|| Arc::new(Deadline::new(Arc::new(Memory::default()), far_away())));
}

#[test]
fn deadline_over_local_keeps_the_contract() {
    let (_folder, fresh) = local_stores();
    conformance::run(&|| Arc::new(Deadline::new(fresh(), far_away())));
}

#[test]
fn faulty_without_faults_keeps_the_contract() {
    conformance::run(&|| Arc::new(Faulty::new(Arc::new(Memory::default()), Box::new(|_, _| Fault::None))));
}

#[test]
fn faulty_over_local_without_faults_keeps_the_contract() {
    let (_folder, fresh) = local_stores();
    conformance::run(&|| Arc::new(Faulty::new(fresh(), Box::new(|_, _| Fault::None))));
}
