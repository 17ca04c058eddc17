//! Answers that are not whole, or no store's: nothing is believed that was not proved.

use crate::bucket::Bucket;
use crate::support::proxy::{Fate, Seen};
use crate::support::s3::{ACCESS_KEY, BUCKET, SECRET_KEY};
use crate::util::{CLUSTER, MIB, Run, segment};
use std::sync::Arc;
use std::time::Duration;
use wal_archive::object::Key;
use wal_archive::storage::retry::{Attempts, Retry};
use wal_archive::storage::s3::{Keys, S3, S3Settings, Secret};
use wal_archive::storage::{Body, Kind, Range, Result, Shared, Storage};

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";
const THREE: &str = "000000010000000000000003";

fn settings(endpoint: String) -> S3Settings {
    S3Settings {
        endpoint: Some(endpoint),
        keys: Some(Keys {
            access_key_id: Secret::new(ACCESS_KEY.to_owned()),
            secret_access_key: Secret::new(SECRET_KEY.to_owned()),
            session_token: None,
        }),
        ..S3Settings::default()
    }
}

/// The backend alone, asked through the proxy once for each request.
fn backend(bucket: &Bucket, prefix: &str) -> S3 {
    S3::new(BUCKET.to_owned(), prefix.to_owned(), settings(bucket.proxy.endpoint()))
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn fill(store: &dyn Storage, count: usize) -> Vec<Key> {
    let keys: Vec<Key> = (0..count).map(|number| key(&format!("wal_005/{number:05}"))).collect();
    keys.iter().for_each(|key| store.create(key, &Body::from(b"x".to_vec())).unwrap());
    keys
}

fn listed(store: &dyn Storage) -> Result<usize> {
    store.list("wal_005/", "")?.try_fold(0, |count, entry| entry.map(|_| count + 1))
}

fn is_listing(seen: &Seen) -> bool {
    seen.path.contains("list-type")
}

fn is_object(seen: &Seen) -> bool {
    seen.path.contains("/wal_005/")
}

/// An archive with segment 1; segments 2 and 3 wait in pg_wal.
fn archived() -> Option<Bucket> {
    let bucket = Bucket::new()?;
    for name in [ONE, TWO, THREE] {
        bucket.sandbox.segment(name);
    }
    bucket.push(ONE, &[]).succeeds();
    bucket.proxy.taken();
    Some(bucket)
}

#[test]
fn a_listing_that_is_cut_anywhere_is_no_listing() {
    let Some(bucket) = Bucket::new() else { return };
    let store = backend(&bucket, "cut");
    fill(&store, 4);
    assert_eq!(listed(&store).unwrap(), 4);
    // Once with the whole body and no length, which is right.
    bucket.planned(|seen| if is_listing(seen) { Fate::Cut(usize::MAX / 2) } else { Fate::Pass });
    assert_eq!(listed(&store).unwrap(), 4);
    for bytes in (0..3000).step_by(37) {
        bucket.planned(move |seen| if is_listing(seen) { Fate::Cut(bytes) } else { Fate::Pass });
        match listed(&store) {
            Ok(count) => assert_eq!(count, 4, "cut after {bytes} bytes"),
            Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error}"),
        }
    }
    // Where its length was said, the connection tells.
    for bytes in [0, 300] {
        bucket.planned(move |seen| if is_listing(seen) { Fate::Truncate(bytes) } else { Fate::Pass });
        let error = listed(&store).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    }
}

#[test]
fn a_cut_listing_never_hides_a_hole() {
    let Some(bucket) = archived() else { return };
    bucket.push(THREE, &[]).succeeds();
    let list = |bucket: &Bucket| bucket.fetch(TWO, &["--timeout", "3s"]).code;
    // The first key of the listing is behind this byte in every store's answer.
    bucket.planned(|seen| if is_listing(seen) { Fate::Cut(300) } else { Fate::Pass });
    assert!(matches!(list(&bucket), Some(220 | 223)), "never 1");
    bucket.planned(|seen| if is_listing(seen) { Fate::Body(|_| Vec::new()) } else { Fate::Pass });
    assert!(matches!(list(&bucket), Some(220 | 223)), "never 1");
    bucket.sandbox.nothing_fetched();
}

/// The answer as text with one part changed; the part must be there.
fn changed(body: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(body).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn a_listing_that_does_not_say_that_it_is_whole_is_no_listing() {
    let Some(bucket) = Bucket::new() else { return };
    let store = backend(&bucket, "whole");
    fill(&store, 4);
    let changes: [fn(Vec<u8>) -> Vec<u8>; 6] = [
        |body| changed(body, "<IsTruncated>false</IsTruncated>", ""),
        |body| changed(body, "<IsTruncated>false</IsTruncated>", "<IsTruncated>true</IsTruncated>"),
        |body| changed(body, "<KeyCount>4</KeyCount>", "<KeyCount>5</KeyCount>"),
        |body| changed(body, "wal_005/00002</Key>", "wal_005/00000</Key>"),
        |body| changed(body, "whole/wal_005/00002</Key>", "other/wal_005/00002</Key>"),
        |_| b"<html><body>Sign in</body></html>".to_vec(),
    ];
    for change in changes {
        bucket.planned(move |seen| if is_listing(seen) { Fate::Body(change) } else { Fate::Pass });
        let error = listed(&store).unwrap_err();
        assert!(matches!(error.kind(), Kind::Unavailable | Kind::Invalid), "{error}");
    }
    bucket.planned(|seen| if is_listing(seen) { Fate::Body(|body| body) } else { Fate::Pass });
    assert_eq!(listed(&store).unwrap(), 4);
    // What is missing of a listing is never an object.
    bucket.planned(|seen| if is_listing(seen) { Fate::Answer(404, "NoSuchKey") } else { Fate::Pass });
    assert_eq!(listed(&store).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn a_listing_that_repeats_its_token_ends() {
    let Some(bucket) = Bucket::new() else { return };
    const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n\
        <ListBucketResult><KeyCount>0</KeyCount><IsTruncated>true</IsTruncated>\
        <NextContinuationToken>again</NextContinuationToken></ListBucketResult>";
    bucket.planned(|seen| if is_listing(seen) { Fate::Raw(PAGE) } else { Fate::Pass });
    let error = listed(&backend(&bucket, "again")).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(bucket.proxy.taken().len() <= 2);
}

/// What no store of S3 answers to PutObject, though it sounds like success.
const NOT_STORED: [&str; 8] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html><body>Sign in</body></html>",
    "HTTP/1.1 200 OK\r\nETag: \"a1\"\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>Sign in</html>",
    "HTTP/1.1 200 OK\r\nETag: \"\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 202 Accepted\r\nETag: \"a1\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 200 OK\r\nETag: \"a1\"\r\nx-amz-checksum-crc32: AAAAAA==\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
];

#[test]
fn only_an_etag_says_that_an_object_was_stored() {
    let Some(bucket) = archived() else { return };
    for answer in NOT_STORED {
        bucket.planned(move |seen| if is_object(seen) { Fate::Raw(answer) } else { Fate::Pass });
        let run = bucket.push(TWO, &[]);
        assert!(run.code == Some(13) && run.stderr.contains("HINT:"), "{answer}: {run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    }
    bucket.planned(|_| Fate::Pass);
    bucket.push(TWO, &[]).succeeds();
    bucket.fetch(TWO, &[]).succeeds();
    assert!(bucket.sandbox.fetched() == segment(TWO, MIB, CLUSTER, 1));
}

#[test]
fn a_request_that_was_cut_tells_of_an_object_only_where_one_stands() {
    let Some(bucket) = Bucket::new() else { return };
    let store = backend(&bucket, "cut");
    let (one, body) = (key("wal_005/one"), Body::from(vec![0; 16 * MIB]));
    let cut = || {
        bucket.planned(|seen| if seen.method == "PUT" { Fate::Unread } else { Fate::Pass });
        store.create(&one, &body).unwrap_err().kind()
    };
    assert_eq!(cut(), Kind::Unavailable);
    bucket.planned(|_| Fate::Pass);
    store.create(&one, &body).unwrap();
    assert_eq!(cut(), Kind::AlreadyExists);
}

#[test]
fn an_error_behind_a_status_of_success_is_that_error() {
    let Some(bucket) = archived() else { return };
    const FAILED: &str = "<Error><Code>InternalError</Code><Message>later</Message></Error>";
    bucket.planned(|seen| match is_object(seen) && seen.number == 0 {
        true => Fate::Answer(200, FAILED),
        false => Fate::Pass,
    });
    bucket.push(TWO, &[]).succeeds();
    bucket.fetch(TWO, &[]).succeeds();
    bucket.planned(|seen| if is_listing(seen) { Fate::Answer(200, FAILED) } else { Fate::Pass });
    bucket.fetch(THREE, &["--on-error", "retry"]).fails(20, &["InternalError", "HINT:"]);
}

/// A large body, whose completion meets its fate the first so many times.
fn completion(fate: Fate, times: usize) -> Option<Run> {
    let bucket = Bucket::with_segments_of(64 * MIB)?;
    let content = segment(ONE, 64 * MIB, CLUSTER, 1);
    bucket.sandbox.wal(ONE, &content);
    bucket.sandbox.wal(TWO, &segment(TWO, 64 * MIB, CLUSTER, 1));
    bucket.push(TWO, &[]).succeeds();
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    bucket.planned(move |seen| {
        let completes = seen.method == "POST" && seen.path.contains("uploadId") && is_object(seen);
        match completes && count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < times {
            true => fate.clone(),
            false => Fate::Pass,
        }
    });
    let run = bucket.push(ONE, &[]);
    bucket.planned(|_| Fate::Pass);
    if run.code == Some(0) {
        bucket.fetch(ONE, &[]).succeeds();
        assert!(bucket.sandbox.fetched() == content);
    }
    Some(run)
}

#[test]
fn a_completion_that_is_not_whole_is_asked_again_and_meets_its_own_object() {
    // The store does it, and the answer is cut behind its root tag.
    let Some(run) = completion(Fate::Cut(100), 1) else { return };
    run.succeeds();
    let lasting = completion(
        Fate::Raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<CompleteMultipartUploadResult>"),
        99,
    );
    lasting.unwrap().fails(13, &["the answer was cut", "HINT:"]);
}

#[test]
fn an_error_inside_the_answer_to_a_completion_is_that_error() {
    const AGAIN: &str = "<Error><Code>InternalError</Code><Message>later</Message></Error>";
    let Some(run) = completion(Fate::Answer(200, AGAIN), 1) else { return };
    run.succeeds();
    // The object is there: the store says so behind its status of success.
    const THERE: &str = "<Error><Code>PreconditionFailed</Code><Message>exists</Message></Error>";
    completion(Fate::Answer(200, THERE), 1).unwrap().succeeds();
}

#[test]
fn a_delete_marker_is_no_absence() {
    let Some(bucket) = archived() else { return };
    const MARKER: &str = "HTTP/1.1 404 Not Found\r\nx-amz-delete-marker: true\r\nContent-Type: application/xml\r\n\
        Connection: close\r\n\r\n<Error><Code>NoSuchKey</Code><Message>deleted</Message></Error>";
    bucket.planned(|seen| match is_object(seen) && seen.method == "GET" {
        true => Fate::Raw(MARKER),
        false => Fate::Pass,
    });
    bucket.fetch(TWO, &["--on-error", "retry"]).fails(20, &["keeps versions", "HINT:", "delete marker"]);
    bucket.fetch(TWO, &[]).fails(220, &["keeps versions"]);
    // Where a push looks before it writes, it does not write.
    bucket.planned(|seen| match (is_object(seen), seen.method.as_str()) {
        (true, "HEAD") => {
            Fate::Raw("HTTP/1.1 404 Not Found\r\nx-amz-delete-marker: true\r\nConnection: close\r\n\r\n")
        }
        (true, "GET") => Fate::Raw(MARKER),
        _ => Fate::Pass,
    });
    bucket.push(TWO, &["--conditional-writes", "unsupported"]).fails(13, &["keeps versions", "HINT:"]);
    assert!(bucket.requests().iter().all(|request| !request.starts_with("PUT wal_005")));
}

#[test]
fn a_page_that_says_404_is_no_absence() {
    let Some(bucket) = archived() else { return };
    const PAGE: &str =
        "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>404</html>";
    bucket.planned(|seen| if is_object(seen) { Fate::Raw(PAGE) } else { Fate::Pass });
    bucket.fetch(TWO, &["--on-error", "retry"]).fails(20, &["404", "HINT:"]);
}

#[test]
fn a_deletion_counts_what_the_store_says_is_gone() {
    let Some(bucket) = Bucket::new() else { return };
    let store = backend(&bucket, "deletion");
    let keys = fill(&store, 5);
    // The store does it, and what it says of it is cut: nobody knows.
    bucket.planned(|seen| if seen.method == "POST" { Fate::Cut(60) } else { Fate::Pass });
    let failed = store.delete_all(&keys).unwrap_err();
    assert_eq!((failed.deleted, failed.error.kind()), (0, Kind::Unavailable), "{}", failed.error);
    // Asked again it is told.
    bucket.planned(|seen| if seen.number == 0 { Fate::Cut(60) } else { Fate::Pass });
    let retried =
        Retry::new(Arc::new(backend(&bucket, "deletion")), Attempts { count: 2, pause: Duration::ZERO });
    retried.delete_all(&keys).unwrap();
    assert_eq!(listed(&store).unwrap(), 0);
    // One is refused, the others are gone.
    let keys = fill(&store, 3);
    const SOME: &str = "<DeleteResult><Deleted><Key>deletion/wal_005/00000</Key></Deleted>\
        <Deleted><Key>deletion/wal_005/00001</Key></Deleted><Error><Key>deletion/wal_005/00002</Key>\
        <Code>AccessDenied</Code><Message>locked</Message></Error></DeleteResult>";
    bucket.planned(|seen| if seen.method == "POST" { Fate::Answer(200, SOME) } else { Fate::Pass });
    let failed = store.delete_all(&keys).unwrap_err();
    assert_eq!((failed.deleted, failed.error.kind()), (2, Kind::Denied));
    assert!(failed.error.to_string().contains("wal_005/00002"), "{}", failed.error);
}

#[test]
fn a_batch_that_fails_does_not_hide_those_before_it() {
    let Some(bucket) = Bucket::new() else { return };
    let store = backend(&bucket, "batches");
    let many: Vec<Key> = (0..1500).map(|number| key(&format!("wal_005/{number:05}"))).collect();
    let count = std::sync::atomic::AtomicUsize::new(0);
    bucket.planned(move |seen| match seen.method.as_str() {
        "POST" if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0 => {
            Fate::Answer(503, "SlowDown")
        }
        _ => Fate::Pass,
    });
    let failed = store.delete_all(&many).unwrap_err();
    assert_eq!((failed.deleted, failed.error.kind()), (1000, Kind::Unavailable));
}

#[test]
fn what_a_deletion_does_not_name_and_a_store_without_it_are_deleted_one_by_one() {
    let Some(bucket) = Bucket::new() else { return };
    let store = backend(&bucket, "single");
    let keys = fill(&store, 3);
    bucket.planned(|seen| match seen.method.as_str() {
        "POST" => Fate::Answer(200, "<DeleteResult></DeleteResult>"),
        _ => Fate::Pass,
    });
    store.delete_all(&keys).unwrap();
    assert_eq!(listed(&store).unwrap(), 0);
    let keys = fill(&store, 3);
    bucket.planned(|seen| match seen.method.as_str() {
        "POST" => Fate::Answer(501, "NotImplemented"),
        _ => Fate::Pass,
    });
    store.delete_all(&keys).unwrap();
    store.delete_all(&keys).unwrap();
    let posts = bucket.proxy.taken().iter().filter(|seen| seen.method == "POST").count();
    assert_eq!((listed(&store).unwrap(), posts), (0, 1), "it is asked for once");
}

#[test]
fn an_object_without_a_length_is_read_whole_or_not_at_all() {
    let Some(bucket) = archived() else { return };
    let of_get = |fate: Fate| {
        move |seen: &Seen| match seen.method == "GET" && is_object(seen) && seen.header("range").is_none() {
            true => fate.clone(),
            false => Fate::Pass,
        }
    };
    bucket.planned(of_get(Fate::Body(|body| body)));
    bucket.fetch(ONE, &[]).succeeds();
    assert!(bucket.sandbox.fetched() == segment(ONE, MIB, CLUSTER, 1));
    // The rest is asked for, and is that of the very same object.
    bucket.planned(of_get(Fate::Cut(1000)));
    bucket.fetch(ONE, &[]).succeeds();
    assert!(bucket.sandbox.fetched() == segment(ONE, MIB, CLUSTER, 1));
    bucket.planned(|seen| if is_object(seen) { Fate::Cut(0) } else { Fate::Pass });
    let run = bucket.fetch(ONE, &["--on-error", "retry", "--timeout", "5s"]);
    assert!(matches!(run.code, Some(20 | 23)), "{run:?}");
    bucket.sandbox.nothing_fetched();
    bucket.planned(|seen| if is_object(seen) { Fate::Body(|body| body) } else { Fate::Pass });
    let store: Shared = Arc::new(backend(&bucket, "archive"));
    let object = key(&format!("wal_005/{ONE}.zst"));
    let size = store.get(&object, Range::Last(256)).unwrap().size;
    assert_eq!(size, store.head(&object).unwrap().size);
}

#[test]
fn a_command_without_a_deadline_gives_a_store_up_that_drips_or_is_silent() {
    let Some(bucket) = Bucket::new() else { return };
    for number in 1..=20 {
        let name = format!("0000000100000000{number:08X}");
        bucket.sandbox.segment(&name);
        bucket.push(&name, &["--look-ahead", "0"]).succeeds();
    }
    for fate in [Fate::Drip(Duration::from_millis(100)), Fate::Silence] {
        bucket.planned(move |seen| if is_object(seen) { fate.clone() } else { Fate::Pass });
        let args = ["verify", "--timeout", "300ms", "--jobs", "1"];
        let run = Run::of(bucket.program("wal-archive").args(args));
        assert!(run.code != Some(0), "{run:?}");
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(said.contains("did not answer in time"), "{run:?}");
        let asked = bucket.proxy.taken().iter().filter(|seen| is_object(seen)).count();
        assert!(asked <= 6, "it was asked {asked} times");
    }
}
