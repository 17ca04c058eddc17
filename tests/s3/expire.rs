//! `wal-archive expire` of a bucket.

use crate::bucket::Bucket;
use crate::support::proxy::Fate;
use crate::util::{CLUSTER, MIB, Run, segment};
use std::path::PathBuf;

fn name(number: u64) -> String {
    format!("0000000100000000{number:08X}")
}

/// Six segments, and a list of backups by which four of them go.
fn archived() -> Option<(Bucket, PathBuf)> {
    let bucket = Bucket::new()?;
    for number in 1..=6 {
        bucket.sandbox.wal(&name(number), &segment(&name(number), MIB, CLUSTER, number));
        bucket.push(&name(number), &[]).succeeds();
    }
    let list = bucket.sandbox.path("backups");
    std::fs::write(&list, "0/500028 1 2026-11-05T22:00:00Z 0/500100\n").unwrap();
    Some((bucket, list))
}

#[test]
fn a_failure_on_the_way_says_how_many_are_gone() {
    let Some((bucket, list)) = archived() else { return };
    const THREE_OF_FOUR: &str = "<DeleteResult>\
        <Deleted><Key>archive/wal_005/000000010000000000000001.zst</Key></Deleted>\
        <Deleted><Key>archive/wal_005/000000010000000000000002.zst</Key></Deleted>\
        <Deleted><Key>archive/wal_005/000000010000000000000003.zst</Key></Deleted>\
        <Error><Key>archive/wal_005/000000010000000000000004.zst</Key><Code>AccessDenied</Code>\
        <Message>locked</Message></Error></DeleteResult>";
    bucket.planned(|seen| match seen.method.as_str() {
        "POST" => Fate::Answer(200, THREE_OF_FOUR),
        _ => Fate::LongAgo,
    });
    let run = Run::of(bucket.program("wal-archive").args(["expire", "--yes", "--backups"]).arg(&list));
    let run = run.says(2, &["deleted 3 objects"]);
    assert!(run.stderr.contains("AccessDenied") && run.stderr.contains("HINT:"), "{run:?}");
}

#[test]
fn old_wal_goes_from_a_bucket_in_one_request_and_a_listing_that_fails_saves_it() {
    let Some((bucket, list)) = archived() else { return };
    let expire = || Run::of(bucket.program("wal-archive").args(["expire", "--yes", "--backups"]).arg(&list));
    bucket.planned(|seen| match seen.path.contains("list-type") && seen.path.contains("wal_005") {
        true => Fate::Answer(403, "AccessDenied"),
        false => Fate::LongAgo,
    });
    expire().fails(2, &["403", "AccessDenied"]);
    bucket.planned(|_| Fate::Pass);
    let run = expire().says(0, &["deleted 0 objects"]);
    assert!(run.stderr.contains("4 more objects") && run.stderr.contains("15 minutes"), "{run:?}");
    bucket.planned(|_| Fate::LongAgo);
    bucket.requests();
    expire().says(0, &["deleted 4 objects"]);
    let asked = bucket.requests();
    bucket.planned(|_| Fate::Pass);
    assert_eq!(asked.iter().filter(|request| request.starts_with("POST")).count(), 1, "{asked:?}");
    bucket.fetch(&name(5), &[]).succeeds();
    // PostgreSQL would use its own copy.
    std::fs::remove_file(bucket.sandbox.data().join("pg_wal").join(name(4))).unwrap();
    assert_eq!(bucket.fetch_soon(&name(4), &[]).code, Some(224), "gone, and later ones are there");
}
