//! What a push and a fetch cost at the server.

use crate::bucket::Bucket;
use crate::support::proxy::{Fate, Seen};
use crate::util::{CLUSTER, MIB, NOW, Run, init_arguments, names, segment, unless_late, wait_until};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";

#[test]
fn a_push_and_a_hit_are_one_request_and_a_miss_at_most_two_gets_and_two_lists() {
    let Some(bucket) = Bucket::without_archive() else { return };
    let mut init = bucket.program("wal-archive");
    Run::of(init.args(init_arguments(MIB))).says(0, &["is now the archive"]);
    assert_eq!(
        bucket.requests(),
        [
            "GET archive.json",
            "GET list",
            "GET list",
            "PUT wal-archive-probe",
            "PUT wal-archive-probe",
            "PUT archive.json",
        ]
    );
    let content = bucket.sandbox.segment(ONE);
    bucket.push(ONE, &[]).succeeds();
    assert_eq!(
        bucket.requests(),
        ["GET archive.json", "PUT wal-archive-probe", "PUT wal_005/000000010000000000000001.zst"],
        "the first push of the day proves the store"
    );
    bucket.sandbox.segment(TWO);
    bucket.push(TWO, &[]).succeeds();
    assert_eq!(bucket.requests(), [format!("PUT wal_005/{TWO}.zst")]);
    bucket.push(TWO, &[]).succeeds();
    assert_eq!(bucket.requests(), [format!("PUT wal_005/{TWO}.zst"), format!("GET wal_005/{TWO}.zst")]);
    bucket.fetch(ONE, &[]).succeeds();
    assert!(bucket.sandbox.fetched() == content);
    assert_eq!(bucket.requests(), [format!("GET wal_005/{ONE}.zst")]);
    let three = "000000010000000000000003";
    let miss = |name: &str, lists: usize| {
        assert_eq!(bucket.fetch(name, &[]).code, Some(1));
        let gets = [format!("GET wal_005/{name}.zst"), "GET archive.json".to_owned()];
        let lists = (0..lists).map(|_| "GET list".to_owned());
        assert_eq!(bucket.requests(), gets.into_iter().chain(lists).collect::<Vec<_>>(), "{name}");
    };
    miss(three, 1);
    // Nothing is seen around it: one look whether there is any WAL at all.
    miss("0000000100000007000000A0", 2);
    miss("00000002.history", 2);
    // The spool's memory is worth nothing here: the prefix may have been emptied.
    fs::remove_dir_all(bucket.sandbox.path("data.wal-spool")).unwrap();
    miss(three, 1);
    // And what a fetch remembers is no proof for a push.
    bucket.sandbox.segment(three);
    bucket.push(three, &[]).succeeds();
    assert_eq!(
        bucket.requests(),
        ["GET archive.json", "PUT wal-archive-probe", &format!("PUT wal_005/{three}.zst")]
    );
}

/// Waits until so many requests were made at least, and nobody asks for anything any more; what was
/// asked, in the order of names.
fn settled(bucket: &Bucket, least: usize) -> Vec<String> {
    let mut all = Vec::new();
    wait_until("so many requests, and no more", || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let more = bucket.requests();
        let is_quiet = more.is_empty() && !is_downloading(bucket);
        all.extend(more);
        is_quiet && all.len() >= least
    });
    all.sort();
    all
}

/// Whether the prefetcher is at work on a segment.
fn is_downloading(bucket: &Bucket) -> bool {
    let spool = bucket.sandbox.path("data.wal-spool");
    let folders = names(&spool).into_iter().filter(|name| name.starts_with("prefetch-"));
    folders.flat_map(|folder| names(&spool.join(folder))).any(|name| name.ends_with(".part"))
}

#[test]
fn prefetching_asks_once_for_each_segment_and_no_more_at_the_end_of_the_archive() {
    let Some(bucket) = Bucket::new() else { return };
    let name = |number: usize| format!("0000000100000000{number:08X}");
    let get = |number: usize| format!("GET wal_005/{}.zst", name(number));
    let content = |number: usize| segment(&name(number), MIB, CLUSTER, number as u64);
    let push = |number: usize| {
        bucket.sandbox.wal(&name(number), &content(number));
        bucket.push(&name(number), &[]).succeeds();
    };
    let fetch = |number: usize| {
        bucket.fetch(&name(number), &[]).succeeds();
        assert!(bucket.sandbox.fetched() == content(number));
    };
    (1..=6).for_each(push);
    let data = bucket.sandbox.data();
    fs::write(data.join("postmaster.pid"), format!("{}\n/data\n1700000000\n", std::process::id())).unwrap();
    fs::write(data.join("standby.signal"), "").unwrap();
    bucket.requests();

    fetch(1);
    let asked = settled(&bucket, 7);
    let expected: Vec<String> = (1..=9).map(get).collect();
    assert!(asked.len() >= 7 && asked == expected[..asked.len()], "{asked:?}");
    (2..=6).for_each(fetch);
    assert_eq!(settled(&bucket, 0), [""; 0], "hits ask nobody, and the end of the archive is known");
    for _poll in 0..5 {
        assert_eq!(bucket.fetch(&name(7), &[]).code, Some(1));
        assert_eq!(settled(&bucket, 3), ["GET archive.json".to_owned(), "GET list".to_owned(), get(7)]);
    }
    push(7);
    bucket.requests();
    fetch(7);
    assert_eq!(settled(&bucket, 2), [get(7), get(8)]);
    fs::remove_file(data.join("postmaster.pid")).unwrap();
}

#[test]
fn a_prefetched_segment_is_not_given_under_settings_that_the_store_refuses() {
    let Some(bucket) = Bucket::new() else { return };
    let name = |number: usize| format!("0000000100000000{number:08X}");
    for number in 1..=6 {
        bucket.sandbox.wal(&name(number), &segment(&name(number), MIB, CLUSTER, number as u64));
        bucket.push(&name(number), &[]).succeeds();
    }
    let data = bucket.sandbox.data();
    fs::write(data.join("postmaster.pid"), format!("{}\n/data\n1700000000\n", std::process::id())).unwrap();
    fs::write(data.join("standby.signal"), "").unwrap();
    bucket.fetch(&name(1), &[]).succeeds();
    let spool = bucket.sandbox.path("data.wal-spool");
    let is_sealed = || {
        let folders = names(&spool).into_iter().map(|folder| spool.join(folder));
        folders.into_iter().any(|folder| folder.join(format!("{}.seal", name(2))).exists())
    };
    let begin = std::time::Instant::now();
    while !is_sealed() {
        assert!(begin.elapsed().as_secs() < 300, "never prefetched");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Not every server for tests knows whom to refuse.
    bucket.planned(|seen| match seen.header("authorization") {
        Some(by) if by.contains("Credential=stranger/") => Fate::Answer(403, "InvalidAccessKeyId"),
        _ => Fate::Pass,
    });
    let mut refused = bucket.program("wal-fetch");
    refused.env("WAL_ARCHIVE_ACCESS_KEY_ID", "stranger").env("WAL_ARCHIVE_SECRET_ACCESS_KEY", "wrong");
    Run::of(refused.args([&name(2), "pg_wal/RECOVERYXLOG"])).fails(20, &["s3://bucket/archive"]);
    bucket.fetch(&name(2), &[]).succeeds();
    assert!(bucket.sandbox.fetched() == segment(&name(2), MIB, CLUSTER, 2));
    fs::remove_file(data.join("postmaster.pid")).unwrap();
}

#[test]
fn an_existing_object_is_compared_by_its_trailer_alone() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.sandbox.segment(ONE);
    bucket.push(ONE, &[]).succeeds();
    bucket.proxy.taken();
    bucket.push(ONE, &["--level", "9"]).succeeds();
    let get = bucket.proxy.taken().into_iter().find(|seen| seen.method == "GET").unwrap();
    assert_eq!(get.header("range"), Some("bytes=-256"));
    bucket.sandbox.wal(ONE, &segment(ONE, MIB, CLUSTER, 2));
    bucket.push(ONE, &[]).fails(12, &["already exists", "s3://bucket/archive", "HINT:"]);
}

#[test]
fn a_bucket_without_an_archive_is_never_missing_anything() {
    let Some(bucket) = Bucket::without_archive() else { return };
    let fetch = |args: &[&str]| {
        unless_late(&NOW, |timeout| bucket.fetch(ONE, &[&["--timeout", timeout], args].concat()))
    };
    fetch(&[]).fails(220, &["not an archive", "s3://bucket/archive"]);
    assert_eq!(bucket.fetch(ONE, &["--allow-empty"]).code, Some(1));
    let nowhere = ["--archive", "s3://no-such-bucket/archive"];
    fetch(&nowhere).fails(220, &["NoSuchBucket", "HINT:"]);
    fetch(&[&nowhere[..], &["--allow-empty"]].concat()).fails(220, &["NoSuchBucket"]);
    bucket.sandbox.segment(ONE);
    bucket.push(ONE, &nowhere).fails(13, &["NoSuchBucket", "HINT:"]);
    bucket.push(ONE, &[]).fails(13, &["not an archive", "run: wal-archive init s3://bucket/archive"]);
    assert!(bucket.requests().iter().all(|request| !request.starts_with("PUT")));
}

#[test]
fn a_large_body_goes_in_parts_and_is_never_replaced_either() {
    let Some(bucket) = Bucket::with_segments_of(64 * MIB) else { return };
    // Half of it cannot be compressed: 32 MiB of object.
    let content = segment(ONE, 64 * MIB, CLUSTER, 1);
    bucket.sandbox.wal(ONE, &content);
    bucket.push(ONE, &[]).succeeds();
    let posts = bucket.requests().iter().filter(|request| request.starts_with("POST")).count();
    assert_eq!(posts, 4, "begun and completed twice: onto the probe object, and the real one");
    bucket.push(ONE, &[]).succeeds();
    bucket.sandbox.wal(ONE, &segment(ONE, 64 * MIB, CLUSTER, 2));
    bucket.push(ONE, &[]).fails(12, &["already exists"]);
    bucket.fetch(ONE, &[]).succeeds();
    assert!(bucket.sandbox.fetched() == content);
    let aborted = bucket.requests().iter().filter(|request| request.starts_with("DELETE")).count();
    assert_eq!(aborted, 4, "of both repeats the probe and the refused upload are aborted");
}

#[test]
fn storage_class_encryption_and_tags_are_asked_for_with_every_object() {
    // Not every test server knows them, so the proxy answers for it.
    let accept = |seen: &Seen| match (seen.method.as_str(), seen.header("range")) {
        ("PUT", _) => Fate::Stored,
        _ => Fate::Pass,
    };
    let Some(bucket) = Bucket::new() else { return };
    bucket.sandbox.segment(ONE);
    bucket.push(ONE, &[]).succeeds();
    bucket.proxy.plan(Box::new(accept));
    bucket.sandbox.segment(TWO);
    let args = [
        "--storage-class",
        "STANDARD_IA",
        "--sse",
        "aws:kms",
        "--sse-kms-key-id",
        "key-1",
        "--tags",
        "a=1&b=2",
    ];
    bucket.push(TWO, &args).succeeds();
    let put = bucket.proxy.taken().into_iter().find(|seen| seen.method == "PUT").unwrap();
    assert_eq!(put.header("x-amz-storage-class"), Some("STANDARD_IA"));
    assert_eq!(put.header("x-amz-server-side-encryption"), Some("aws:kms"));
    assert_eq!(put.header("x-amz-server-side-encryption-aws-kms-key-id"), Some("key-1"));
    assert_eq!(put.header("x-amz-tagging"), Some("a=1&b=2"));
    assert_eq!(put.header("if-none-match"), Some("*"));
    assert!(put.header("x-amz-checksum-crc32").is_some());
    bucket.push(TWO, &["--request-checksums", "when-required"]).succeeds();
    let put = bucket.proxy.taken().into_iter().find(|seen| seen.method == "PUT").unwrap();
    assert_eq!(put.header("x-amz-checksum-crc32"), None);
}

#[test]
fn a_push_that_looks_ahead_is_one_request_for_each_file_and_none_for_a_marked_one() {
    let Some(bucket) = Bucket::new() else { return };
    let names: Vec<String> = (1..=6).map(|number| format!("0000000100000000{number:08X}")).collect();
    for name in &names {
        bucket.sandbox.segment(name);
        fs::write(bucket.sandbox.data().join(format!("pg_wal/archive_status/{name}.ready")), "").unwrap();
    }
    // A file that changed in this very moment is left to its own call.
    std::thread::sleep(std::time::Duration::from_millis(50));
    bucket.push(&names[0], &["--look-ahead", "2"]).succeeds();
    let first = bucket.requests();
    assert_eq!(first[..2].iter().filter(|request| request.contains("probe")).count(), 1, "{first:?}");
    let puts =
        |names: &[String]| names.iter().map(|name| format!("PUT wal_005/{name}.zst")).collect::<Vec<_>>();
    let sorted = |mut requests: Vec<String>| {
        requests.sort();
        requests
    };
    assert_eq!(sorted(first[2..].to_vec()), puts(&names[..3]), "the proof is made once");
    for name in &names[1..3] {
        bucket.push(name, &[]).succeeds();
        assert_eq!(bucket.requests(), [""; 0]);
    }
    (0..3).for_each(|at| {
        let status = bucket.sandbox.data().join(format!("pg_wal/archive_status/{}.ready", names[at]));
        fs::remove_file(status).unwrap();
    });
    bucket.push(&names[3], &[]).succeeds();
    assert_eq!(sorted(bucket.requests()), puts(&names[3..]));
}

#[test]
fn a_file_of_a_later_timeline_is_one_request_once_its_history_is_there() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.sandbox.segment(ONE);
    bucket.push(ONE, &[]).succeeds();
    bucket.requests();
    let (first, second) = ("000000020000000000000002", "000000020000000000000003");
    bucket.sandbox.wal("00000002.history", b"1\t0/200300\tno recovery target specified\n");
    bucket.sandbox.segment(first);
    bucket.sandbox.segment(second);
    bucket.push(first, &[]).succeeds();
    let history = "wal_005/00000002.history.zst";
    let brought = [format!("GET {history}"), "GET list".to_owned(), format!("PUT {history}")];
    assert_eq!(bucket.requests(), [&brought[..], &[format!("PUT wal_005/{first}.zst")]].concat());
    bucket.push(second, &[]).succeeds();
    assert_eq!(bucket.requests(), [format!("PUT wal_005/{second}.zst")]);
    bucket.push("00000002.history", &[]).succeeds();
    assert_eq!(bucket.requests(), [format!("GET {history}")]);
}

#[test]
fn whoever_may_not_list_a_bucket_stores_a_history_with_a_warning() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.sandbox.segment(ONE);
    bucket.push(ONE, &[]).succeeds();
    bucket.planned(|seen| match seen.path.contains("list-type") {
        true => Fate::Answer(403, "AccessDenied"),
        false => Fate::Pass,
    });
    bucket.sandbox.wal("00000002.history", b"1\t0/200300\tno recovery target specified\n");
    bucket
        .push("00000002.history", &[])
        .fails(0, &["warning", "timeline 2", "cannot be seen", "AccessDenied"]);
    bucket.planned(|_| Fate::Pass);
    bucket.fetch("00000002.history", &[]).succeeds();
    // S3 then answers 403 for what is not there, too; an outage is another thing.
    let of_three = "000000030000000000000004";
    bucket.sandbox.segment(of_three);
    let history = |seen: &Seen| seen.path.contains("00000003.history");
    bucket.planned(move |seen| if history(seen) { Fate::Answer(500, "InternalError") } else { Fate::Pass });
    assert!(matches!(bucket.push(of_three, &["--timeout", "3s"]).code, Some(13 | 14)));
    bucket.planned(move |seen| if history(seen) { Fate::Answer(403, "AccessDenied") } else { Fate::Pass });
    bucket.push(of_three, &[]).fails(0, &["warning", "00000003.history"]);
}

#[test]
fn only_an_object_that_the_call_created_leaves_a_mark_in_a_bucket() {
    let Some(bucket) = Bucket::new() else { return };
    for name in [ONE, TWO] {
        bucket.sandbox.segment(name);
        fs::write(bucket.sandbox.data().join(format!("pg_wal/archive_status/{name}.ready")), "").unwrap();
    }
    // A file that changed in this very moment is left to its own call.
    std::thread::sleep(std::time::Duration::from_millis(50));
    bucket.push(TWO, &["--look-ahead", "0"]).succeeds();
    bucket.push(ONE, &[]).succeeds();
    bucket.requests();
    bucket.push(TWO, &["--look-ahead", "0"]).succeeds();
    assert_eq!(bucket.requests(), [format!("PUT wal_005/{TWO}.zst"), format!("GET wal_005/{TWO}.zst")]);
}

#[test]
fn a_quick_verify_has_many_requests_under_way_at_once() {
    let Some(bucket) = Bucket::new() else { return };
    for number in 1..=12 {
        let name = format!("0000000100000000{number:08X}");
        bucket.sandbox.segment(&name);
        bucket.push(&name, &[]).succeeds();
    }
    // The first eight are answered once all of them are asked for.
    let (arrived, late) = (Arc::new((Mutex::new(0), Condvar::new())), Arc::new(AtomicBool::new(false)));
    let seen_late = Arc::clone(&late);
    bucket.planned(move |seen| {
        if seen.path.contains("/wal_005/") {
            let mut count = arrived.0.lock().unwrap();
            *count += 1;
            arrived.1.notify_all();
            let waited = arrived.1.wait_timeout_while(count, Duration::from_secs(60), |count| *count < 8);
            late.fetch_or(waited.unwrap().1.timed_out(), Ordering::Relaxed);
        }
        Fate::Pass
    });
    Run::of(bucket.program("wal-archive").args(["verify", "--quick"])).says(0, &["00000001000000000000000C"]);
    assert!(!seen_late.load(Ordering::Relaxed));
}
