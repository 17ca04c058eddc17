//! Every segment size, and archives of many objects, with bounded memory.

use crate::util::{CLUSTER, MIB, Sandbox, peak, rounds, segment};
use std::fs;

fn round_trip(mebibytes: usize) {
    let sandbox = Sandbox::with_segments_of(mebibytes * MIB);
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
    // What it remembers of the archive, and that a loaded disk was slow to answer; nothing of the segment.
    let remembered =
        |name: &String| ["identity-", "sick-", "hung-"].iter().any(|begin| name.starts_with(begin));
    assert!(crate::util::names(&sandbox.path("data.wal-spool")).iter().all(remembered));
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

#[test]
fn a_list_of_many_objects() {
    let sandbox = Sandbox::with_segments_of(16 * MIB);
    let folder = sandbox.archive().join("wal_005");
    fs::create_dir(&folder).unwrap();
    let objects = rounds("WAL_ARCHIVE_OBJECTS", 20_000);
    for number in 0..objects {
        fs::write(folder.join(format!("00000001{:08X}{:08X}.zst", number / 256, number % 256)), "x").unwrap();
    }
    let list = peak(
        sandbox
            .program("wal-archive")
            .arg("list")
            .arg("--archive")
            .arg(sandbox.archive())
            .stdout(std::process::Stdio::null()),
    );
    println!("{objects} objects: {list} KiB");
    assert!(list < 64 << 10, "{objects} objects: {list} KiB");
}
