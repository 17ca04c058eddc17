//! A directory and a bucket as two copies of one archive.

use crate::bucket::Bucket;
use crate::util::{CLUSTER, MIB, Run, flip, noise, race, rounds, segment};
use std::fs;

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";

fn both(bucket: &Bucket, program: &str) -> std::process::Command {
    let mut command = bucket.program(program);
    command.env("WAL_ARCHIVE", format!("{},{}", bucket.sandbox.archive().display(), bucket.url()));
    command
}

#[test]
fn losing_or_damaging_either_copy_loses_nothing() {
    let Some(mut bucket) = Bucket::new() else { return };
    bucket.sandbox.init();
    let content = bucket.sandbox.segment(ONE);
    bucket.sandbox.segment(TWO);
    for name in [ONE, TWO] {
        Run::of(both(&bucket, "wal-push").arg(format!("pg_wal/{name}"))).succeeds();
    }
    let fetch = |bucket: &Bucket, name: &str| {
        // A disk that was slow to answer would be asked last.
        let _ = fs::remove_dir_all(bucket.sandbox.path("data.wal-spool"));
        Run::of(both(bucket, "wal-fetch").args(["--timeout", "20s", name, "pg_wal/RECOVERYXLOG"]))
    };
    fetch(&bucket, ONE).succeeds();
    assert!(bucket.sandbox.fetched() == content);
    flip(&bucket.sandbox.object(ONE), 80_000);
    fetch(&bucket, ONE).fails(0, &["warning", "damaged"]);
    assert!(bucket.sandbox.fetched() == content);
    fs::rename(bucket.sandbox.archive(), bucket.sandbox.path("away")).unwrap();
    fetch(&bucket, ONE).fails(0, &["warning", "root"]);
    assert!(bucket.sandbox.fetched() == content);
    // "Not there" needs both.
    assert_eq!(fetch(&bucket, "000000010000000000000003").code, Some(220));
    fs::rename(bucket.sandbox.path("away"), bucket.sandbox.archive()).unwrap();
    flip(&bucket.sandbox.object(ONE), 80_000);
    if bucket.server.is_versitygw() {
        flip(&bucket.server.file(&format!("archive/wal_005/{TWO}.zst")).unwrap(), 80_000);
        assert_eq!(fetch(&bucket, TWO).code, Some(0));
    }
    bucket.server.stop();
    fetch(&bucket, ONE).succeeds();
    assert!(bucket.sandbox.fetched() == content);
    Run::of(both(&bucket, "wal-push").arg(format!("pg_wal/{ONE}"))).fails(13, &["s3://"]);
}

#[test]
fn of_two_primaries_exactly_one_wins_each_round_in_a_bucket_too() {
    let Some(bucket) = Bucket::new() else { return };
    let program = |name: &str| {
        let mut command = bucket.program(name);
        command.env("WAL_ARCHIVE_ENDPOINT", bucket.server.endpoint());
        command
    };
    race(&bucket.sandbox, rounds("WAL_ARCHIVE_RACES", 40), &program);
}

#[test]
fn memory_stays_bounded_for_1_gib_over_s3() {
    let Some(bucket) = Bucket::with_segments_of(1024 * MIB) else { return };
    let content = segment(ONE, 1024 * MIB, CLUSTER, 1);
    let path = bucket.sandbox.wal(ONE, &content);
    let endpoint = bucket.server.endpoint();
    let push = crate::util::peak(
        bucket.program("wal-push").env("WAL_ARCHIVE_ENDPOINT", &endpoint).arg(format!("pg_wal/{ONE}")),
    );
    fs::remove_file(path).unwrap();
    let args = [ONE, "pg_wal/RECOVERYXLOG"];
    let fetch =
        crate::util::peak(bucket.program("wal-fetch").env("WAL_ARCHIVE_ENDPOINT", &endpoint).args(args));
    assert!(bucket.sandbox.fetched() == content);
    println!("push {push} KiB, fetch {fetch} KiB");
    assert!(push < 64 << 10 && fetch < 64 << 10, "push {push} KiB, fetch {fetch} KiB");
}

#[test]
fn memory_stays_bounded_for_many_segments_that_do_not_compress() {
    let Some(bucket) = Bucket::with_segments_of(16 * MIB) else { return };
    let names: Vec<String> = (1..=33).map(|number| format!("0000000100000000{number:08X}")).collect();
    for (seed, name) in (1..).zip(&names) {
        let mut content = noise(seed, 16 * MIB);
        content[..40].copy_from_slice(&segment(name, 16 * MIB, CLUSTER, 1)[..40]);
        bucket.sandbox.wal(name, &content);
        fs::write(bucket.sandbox.data().join(format!("pg_wal/archive_status/{name}.ready")), "").unwrap();
    }
    bucket.push(&names[32], &["--look-ahead", "0"]).succeeds();
    let endpoint = bucket.server.endpoint();
    let push = crate::util::peak(
        bucket.program("wal-push").env("WAL_ARCHIVE_ENDPOINT", &endpoint).arg(format!("pg_wal/{}", names[0])),
    );
    println!("push {push} KiB");
    assert!(push < 96 << 10, "push {push} KiB");
    for name in &names {
        bucket.push(name, &["--look-ahead", "0"]).succeeds();
        bucket.fetch(name, &[]).succeeds();
        assert!(
            bucket.sandbox.fetched() == fs::read(bucket.sandbox.data().join("pg_wal").join(name)).unwrap()
        );
    }
}
