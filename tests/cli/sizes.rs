//! Every segment size, with bounded memory.

use crate::util::{CLUSTER, MIB, Sandbox, segment};
use std::fs;
use std::process::{Command, Stdio};

/// Runs to the end and returns the peak of the resident memory in KiB.
fn peak(command: &mut Command) -> u64 {
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        // The kernel keeps the high-water mark, so only what comes after the last look is missed.
        if let Ok(text) = fs::read_to_string(&status) {
            let mark = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
            peak = mark.and_then(|mark| mark.trim().parse().ok()).unwrap_or(peak).max(peak);
        }
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{command:?}: {status}");
            return peak;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn round_trip(mebibytes: usize) {
    let sandbox = Sandbox::new();
    let name = "000000010000000000000001";
    // Half of it cannot be compressed: for the largest sizes that is more than fits in memory.
    let content = segment(name, mebibytes * MIB, CLUSTER, 1);
    let path = sandbox.wal(name, &content);
    let push = peak(
        sandbox.program("wal-push").arg("--archive").arg(sandbox.archive()).arg(format!("pg_wal/{name}")),
    );
    fs::remove_file(path).unwrap();
    let args = [name, "pg_wal/RECOVERYXLOG"];
    let fetch = peak(sandbox.program("wal-fetch").arg("--archive").arg(sandbox.archive()).args(args));
    assert!(sandbox.fetched() == content);
    println!("{mebibytes} MiB: push {push} KiB, fetch {fetch} KiB");
    assert!(push < 64 << 10 && fetch < 64 << 10, "{mebibytes} MiB: push {push} KiB, fetch {fetch} KiB");
    assert!(
        crate::util::names(&sandbox.path("data.wal-spool")).iter().all(|name| name.starts_with("identity-"))
    );
}

#[test]
fn segments_of_1_mib() {
    round_trip(1);
}

#[test]
fn segments_of_16_mib() {
    round_trip(16);
}

#[test]
fn segments_of_64_mib() {
    round_trip(64);
}

#[test]
fn segments_of_1_gib() {
    round_trip(1024);
}
