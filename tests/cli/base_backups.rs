//! What `restore`, `window`, `list`, `verify` and `check` make of base backups where no server is needed.

use crate::simulated::Simulated;
use crate::util::{CLUSTER, MIB, Sandbox};
use crate::wal::Log;
use std::time::SystemTime;
use wal_archive::wal::{SegmentSize, SystemId};

/// A log of segments of 1 MiB.
fn log() -> Log {
    Log::new(SystemId(CLUSTER), SegmentSize::new(MIB as u64).unwrap())
}

#[test]
fn nothing_is_made_for_a_backup_whose_manifest_cannot_be_read() {
    let sandbox = Sandbox::new();
    let simulated = Simulated::new(&sandbox, SystemTime::now());
    let mut log = log();
    simulated.back_up(&mut log, simulated.day(1.0), "no manifest", false);
    let directory = sandbox.path("new").display().to_string();
    sandbox.admin("restore", &[&directory]).fails(1, &["manifest.zst\" is damaged"]);
    assert!(!sandbox.path("new").exists());
}
