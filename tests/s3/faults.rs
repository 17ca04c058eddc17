//! The fault matrix: nothing lost, nothing overwritten, the right exit code, within the deadline.

use crate::bucket::Bucket;
use crate::support::proxy::{Fate, Seen};
use crate::util::{CLUSTER, MIB, Run, init_arguments, segment};

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";

/// An archive with segment 1; segment 2 waits in pg_wal.
fn archived() -> Option<(Bucket, Vec<u8>)> {
    let bucket = Bucket::new()?;
    let content = bucket.sandbox.segment(ONE);
    bucket.push(ONE, &[]).succeeds();
    bucket.sandbox.segment(TWO);
    bucket.proxy.taken();
    Some((bucket, content))
}

fn is_object(seen: &Seen) -> bool {
    seen.path.contains("/wal_005/")
}

/// The first `count` requests for objects meet their fate, the others pass.
fn first(count: usize, fate: Fate) -> impl Fn(&Seen) -> Fate + Send + Sync + 'static {
    move |seen| if is_object(seen) && seen.number < count { fate.clone() } else { Fate::Pass }
}

fn always(fate: Fate) -> impl Fn(&Seen) -> Fate + Send + Sync + 'static {
    move |seen| if is_object(seen) { fate.clone() } else { Fate::Pass }
}

/// Segment 2 is stored and reads back, after faults that pass.
#[track_caller]
fn stored(bucket: &Bucket) {
    bucket.planned(|_| Fate::Pass);
    bucket.fetch(TWO, &[]).succeeds();
    assert!(bucket.sandbox.fetched() == segment(TWO, MIB, CLUSTER, 1));
}

/// Segment 2 is not there, and nothing else either.
#[track_caller]
fn not_stored(bucket: &Bucket) {
    bucket.planned(|_| Fate::Pass);
    assert_eq!(bucket.fetch(TWO, &[]).code, Some(1));
    bucket.push(TWO, &[]).succeeds();
}

/// Two faults in a row, then the store is well again.
fn push_gets_over(fate: Fate) {
    let Some((bucket, _)) = archived() else { return };
    bucket.planned(first(2, fate));
    bucket.push(TWO, &[]).succeeds();
    stored(&bucket);
}

fn fetch_gets_over(fate: Fate) {
    let Some((bucket, content)) = archived() else { return };
    bucket.planned(first(2, fate));
    bucket.fetch(ONE, &[]).succeeds();
    assert!(bucket.sandbox.fetched() == content);
}

/// The fault lasts: one message that says what was tried, nothing stored, nothing lost.
fn push_fails_on(fate: Fate, words: [&str; 2]) {
    let Some((bucket, _)) = archived() else { return };
    bucket.planned(always(fate));
    let run = bucket.push(TWO, &[]).fails(13, &words);
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    assert!(run.stderr.contains("HINT:"), "{run:?}");
    not_stored(&bucket);
}

/// The fault lasts: never "missing", neither for what is there nor for what is not.
fn fetch_fails_on(fate: Fate, word: &str) {
    let Some((bucket, _)) = archived() else { return };
    bucket.planned(always(fate));
    for name in [ONE, TWO] {
        bucket.fetch(name, &["--on-error", "retry"]).fails(20, &[word, "HINT:"]);
        bucket.fetch_soon(name, &[]).fails(220, &[word]);
    }
    bucket.sandbox.nothing_fetched();
}

macro_rules! faults {
    ($($name:ident => $check:expr;)*) => {
        $(#[test]
        fn $name() {
            $check;
        })*
    };
}

faults! {
    a_push_gets_over_500 => push_gets_over(Fate::Answer(500, "InternalError"));
    a_push_gets_over_503_slow_down => push_gets_over(Fate::Answer(503, "SlowDown"));
    a_push_gets_over_409_conditional_request_conflict => push_gets_over(Fate::Answer(409, "ConditionalRequestConflict"));
    a_push_gets_over_a_reset_before_the_write => push_gets_over(Fate::ResetBefore);
    a_push_gets_over_a_reset_after_the_write => push_gets_over(Fate::ResetAfter);
    a_fetch_gets_over_500 => fetch_gets_over(Fate::Answer(500, "InternalError"));
    a_fetch_gets_over_503_slow_down => fetch_gets_over(Fate::Answer(503, "SlowDown"));
    a_fetch_gets_over_a_reset => fetch_gets_over(Fate::ResetBefore);
    a_push_fails_on_lasting_500 => push_fails_on(Fate::Answer(500, "InternalError"), ["InternalError", "5 attempts"]);
    a_push_fails_on_lasting_503 => push_fails_on(Fate::Answer(503, "SlowDown"), ["SlowDown", "5 attempts"]);
    a_push_fails_on_lasting_resets => push_fails_on(Fate::ResetBefore, ["cannot create", "5 attempts"]);
    a_push_fails_on_a_redirect => push_fails_on(Fate::Answer(301, "PermanentRedirect"), ["PermanentRedirect", "region"]);
    a_push_fails_on_the_wrong_region =>
        push_fails_on(Fate::Answer(400, "AuthorizationHeaderMalformed"), ["AuthorizationHeaderMalformed", "region"]);
    a_push_fails_on_an_expired_token => push_fails_on(Fate::Answer(400, "ExpiredToken"), ["ExpiredToken", "renew"]);
    a_push_fails_on_403 => push_fails_on(Fate::Answer(403, "AccessDenied"), ["AccessDenied", "s3:PutObject"]);
    a_push_fails_on_unknown_credentials =>
        push_fails_on(Fate::Answer(403, "InvalidAccessKeyId"), ["InvalidAccessKeyId", "access key"]);
    a_push_fails_on_a_wrong_clock =>
        push_fails_on(Fate::Answer(403, "RequestTimeTooSkewed"), ["RequestTimeTooSkewed", "clocks"]);
    a_push_fails_on_a_full_store =>
        push_fails_on(Fate::Answer(507, "InsufficientStorage"), ["store is full", "make room"]);
    a_push_fails_on_a_function_that_the_store_lacks =>
        push_fails_on(Fate::Answer(501, "NotImplemented"), ["NotImplemented", "providers"]);
    a_fetch_fails_on_lasting_500 => fetch_fails_on(Fate::Answer(500, "InternalError"), "InternalError");
    a_fetch_fails_on_lasting_503 => fetch_fails_on(Fate::Answer(503, "SlowDown"), "SlowDown");
    a_fetch_fails_on_lasting_resets => fetch_fails_on(Fate::ResetBefore, "5 attempts");
    a_fetch_fails_on_403_and_says_that_it_needs_list_bucket =>
        fetch_fails_on(Fate::Answer(403, "AccessDenied"), "s3:ListBucket");
    a_fetch_fails_on_an_expired_token => fetch_fails_on(Fate::Answer(400, "ExpiredToken"), "renew");
    a_fetch_fails_on_a_redirect => fetch_fails_on(Fate::Answer(301, "PermanentRedirect"), "region");
    a_fetch_never_takes_a_missing_bucket_for_a_missing_object =>
        fetch_fails_on(Fate::Answer(404, "NoSuchBucket"), "no such bucket");
}

#[test]
fn a_lost_answer_to_a_push_meets_its_own_object_and_is_success() {
    let Some((bucket, _)) = archived() else { return };
    bucket.planned(first(1, Fate::ResetAfter));
    bucket.push(TWO, &[]).succeeds();
    let made: Vec<_> = bucket.requests();
    let object = format!("wal_005/{TWO}.zst");
    assert_eq!(made, [format!("PUT {object}"), format!("PUT {object}"), format!("GET {object}")]);
    stored(&bucket);
}

#[test]
fn a_lost_answer_never_hides_a_different_object() {
    let Some((bucket, first_content)) = archived() else { return };
    bucket.sandbox.wal(ONE, &segment(ONE, MIB, CLUSTER, 2));
    bucket.planned(first(1, Fate::ResetAfter));
    bucket.push(ONE, &[]).fails(12, &["already exists"]);
    bucket.fetch(ONE, &[]).succeeds();
    assert!(bucket.sandbox.fetched() == first_content);
}

#[test]
fn bytes_that_change_on_the_way_are_refused_by_the_server_and_sent_again() {
    let Some((bucket, _)) = archived() else { return };
    if !bucket.server.is_versitygw() {
        eprintln!("moto checks neither signatures nor checksums; nothing to see");
        return;
    }
    bucket.planned(first(1, Fate::CorruptRequest));
    bucket.push(TWO, &[]).succeeds();
    stored(&bucket);
}

#[test]
fn a_412_whose_object_is_gone_is_a_repeat_of_the_whole_create() {
    let Some((bucket, _)) = archived() else { return };
    bucket.planned(first(1, Fate::Answer(412, "PreconditionFailed")));
    bucket.push(TWO, &[]).succeeds();
    stored(&bucket);
    // And where that never ends, it is neither "stored" nor "missing".
    let three = "000000010000000000000003";
    bucket.sandbox.segment(three);
    bucket.planned(|seen| match seen.method.as_str() {
        "PUT" if is_object(seen) => Fate::Answer(412, "PreconditionFailed"),
        _ => Fate::Pass,
    });
    bucket.push(three, &[]).fails(13, &[three]);
}

#[test]
fn a_server_that_never_answers_ends_by_the_deadline() {
    let Some((bucket, _)) = archived() else { return };
    bucket.planned(always(Fate::Silence));
    // It is silent for ever, and the test ends.
    bucket.push(TWO, &["--timeout", "5s"]).fails(14, &["did not answer in time", "s3://"]);
    bucket.fetch(ONE, &["--timeout", "5s"]).fails(223, &["did not answer in time"]);
    bucket.fetch(ONE, &["--timeout", "5s", "--on-error", "retry"]).fails(23, &["did not answer in time"]);
    bucket.sandbox.nothing_fetched();
    not_stored(&bucket);
}

#[test]
fn a_body_that_stalls_ends_by_the_deadline_and_leaves_nothing() {
    let Some((bucket, _)) = archived() else { return };
    bucket.planned(always(Fate::Stall(100_000)));
    bucket.fetch(ONE, &["--timeout", "5s"]).fails(223, &["did not answer in time"]);
    bucket.sandbox.nothing_fetched();
}

#[test]
fn a_body_that_is_cut_is_asked_for_again_and_never_delivered() {
    let Some((bucket, content)) = archived() else { return };
    bucket.planned(first(1, Fate::Truncate(100_000)));
    bucket.fetch(ONE, &[]).succeeds();
    assert!(bucket.sandbox.fetched() == content);
    bucket.planned(always(Fate::Truncate(100_000)));
    bucket.fetch_soon(ONE, &[]).fails(220, &["s3://"]);
    bucket.sandbox.nothing_fetched();
}

#[test]
fn a_body_that_changes_on_the_way_is_never_delivered() {
    let Some((bucket, _)) = archived() else { return };
    bucket.planned(always(Fate::CorruptAnswer));
    bucket.fetch(ONE, &[]).fails(221, &["damaged"]);
    bucket.sandbox.nothing_fetched();
}

#[test]
fn a_listing_that_fails_is_no_missing_either() {
    let Some((bucket, _)) = archived() else { return };
    for fate in [Fate::Answer(403, "AccessDenied"), Fate::Answer(500, "InternalError")] {
        bucket.planned(move |seen| {
            if is_object(seen) || seen.path.contains("archive.json") { Fate::Pass } else { fate.clone() }
        });
        bucket.fetch_soon(TWO, &[]).fails(220, &["cannot list"]);
    }
    bucket.sandbox.nothing_fetched();
}

#[test]
fn a_store_that_ignores_the_condition_is_refused_before_the_first_push() {
    // Every conditional create "succeeds", as on a store that ignores If-None-Match.
    let ignore = |seen: &Seen| match seen.path.contains("wal-archive-probe") {
        true => Fate::Stored,
        false => Fate::Pass,
    };
    let Some(bucket) = Bucket::with(Box::new(ignore)) else { return };
    let mut init = bucket.program("wal-archive");
    let init = Run::of(init.args(init_arguments(MIB)).arg("s3://bucket/new"));
    init.fails(2, &["ignores If-None-Match", "silently overwrite", "conditional_writes"]);
    bucket.sandbox.segment(ONE);
    bucket.push(ONE, &[]).fails(13, &["ignores If-None-Match", "silently overwrite", "conditional_writes"]);
    assert!(
        !bucket
            .requests()
            .iter()
            .any(|request| request.starts_with("PUT wal_005") || request == "PUT archive.json")
    );
    // Unless the user accepts the race; then it looks before it writes.
    let args = ["--conditional-writes", "unsupported"];
    bucket.push(ONE, &args).fails(0, &["warning", "silently replace"]);
    bucket.push(ONE, &args).succeeds();
    bucket.sandbox.wal(ONE, &segment(ONE, MIB, CLUSTER, 2));
    bucket.push(ONE, &args).fails(12, &["already exists"]);
    let conditions =
        bucket.proxy.taken().iter().filter(|seen| seen.header("if-none-match").is_some()).count();
    assert_eq!(conditions, 0);
}

#[test]
fn a_store_that_ignores_the_condition_on_multipart_only_is_refused_for_large_bodies() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.sandbox.segment(ONE);
    bucket.push(ONE, &[]).succeeds();
    const COMPLETED: &str = "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>";
    let mut init = bucket.program("wal-archive");
    init.args(init_arguments(64 * MIB)).arg("s3://bucket/large");
    Run::of(&mut init).says(0, &["is now the archive"]);
    bucket.planned(|seen| {
        let probe = seen.path.contains("wal-archive-probe") && seen.path.contains("uploadId");
        if seen.method == "POST" && probe { Fate::Answer(200, COMPLETED) } else { Fate::Pass }
    });
    let data = bucket.sandbox.make_data_directory("large", CLUSTER);
    std::fs::write(data.join("pg_wal").join(TWO), segment(TWO, 64 * MIB, CLUSTER, 1)).unwrap();
    let run = Run::of(bucket.program("wal-push").current_dir(&data).args([
        "--archive",
        "s3://bucket/large",
        &format!("pg_wal/{TWO}"),
    ]));
    run.fails(13, &["CompleteMultipartUpload", "silently overwrite"]);
}

#[test]
fn a_stopped_server_is_13_and_220_and_all_goes_on_when_it_is_back() {
    let Some((mut bucket, content)) = archived() else { return };
    if !bucket.server.is_versitygw() {
        eprintln!("moto forgets everything when it stops; nothing to see");
        return;
    }
    bucket.server.stop();
    bucket.push(TWO, &[]).fails(13, &["HINT:"]);
    bucket.fetch_soon(ONE, &[]).fails(220, &["HINT:"]);
    bucket.server.start_again();
    bucket.push(TWO, &[]).succeeds();
    bucket.fetch(ONE, &[]).succeeds();
    assert!(bucket.sandbox.fetched() == content);
}
