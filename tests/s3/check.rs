//! `wal-archive check` of a bucket: the code and the sentence of each fault.

use crate::bucket::Bucket;
use crate::support::proxy::{Fate, Seen};
use crate::util::{Run, says_state as says};

const ONE: &str = "000000010000000000000001";

fn archived() -> Option<Bucket> {
    let bucket = Bucket::new()?;
    bucket.sandbox.segment(ONE);
    bucket.push(ONE, &[]).succeeds();
    Some(bucket)
}

fn check(bucket: &Bucket, args: &[&str]) -> Run {
    Run::of(bucket.program("wal-archive").arg("check").args(args))
}

/// Requests of this method for probes, and for whole listings, meet their fate.
fn fate_of(method: &'static str, fate: Fate) -> impl Fn(&Seen) -> Fate + Send + Sync + 'static {
    move |seen| {
        let probe = seen.path.contains("wal-archive-check") || seen.path.contains("list-type");
        if seen.method == method && probe { fate.clone() } else { Fate::Pass }
    }
}

#[test]
fn a_healthy_bucket_is_ok_and_nothing_stays_behind() {
    let Some(bucket) = archived() else { return };
    bucket.requests();
    let run = check(&bucket, &[]);
    says(&run, 0, &["refused to replace it"]);
    says(&run, 0, &["agrees with this machine's"]);
    let requests = bucket.requests();
    let of = |method: &str| requests.iter().filter(|request| request.starts_with(method)).count();
    // archive.json, the probe twice and the end of the first object; create, and create again; listings of
    // the probes, the root, the first object, the base backups and the rehearsals are GETs, too.
    assert_eq!((of("GET"), of("PUT"), of("DELETE")), (9, 2, 1), "{requests:?}");
    let listed = Run::of(bucket.program("wal-archive").args(["check", "--rights", "fetch"]));
    says(&listed, 0, &["can be listed"]);
    if let Some(folder) = bucket.server.file("archive/wal_005") {
        assert_eq!(crate::util::names(&folder), [format!("{ONE}.zst")]);
    }
}

#[test]
fn a_stopped_store_is_critical() {
    let Some(mut bucket) = archived() else { return };
    bucket.server.stop();
    says(&check(&bucket, &[]), 2, &["s3://bucket/archive", "HINT:"]);
}

#[test]
fn a_store_that_ignores_conditions_is_critical() {
    let Some(bucket) = archived() else { return };
    bucket.planned(fate_of("PUT", Fate::Stored));
    says(&check(&bucket, &[]), 2, &["accepted a second object of one name", "HINT:", "If-None-Match"]);
}

#[test]
fn a_store_that_may_not_be_written_to_is_critical() {
    let Some(bucket) = archived() else { return };
    bucket.planned(fate_of("PUT", Fate::Answer(403, "AccessDenied")));
    says(&check(&bucket, &[]), 2, &["AccessDenied", "s3:PutObject"]);
    says(&check(&bucket, &["--rights", "fetch"]), 0, &["can be listed"]);
}

#[test]
fn a_full_store_is_critical() {
    let Some(bucket) = archived() else { return };
    bucket.planned(fate_of("PUT", Fate::Answer(507, "InsufficientStorage")));
    says(&check(&bucket, &[]), 2, &["store is full", "HINT:"]);
}

#[test]
fn a_policy_against_deletion_is_only_a_warning() {
    let Some(bucket) = archived() else { return };
    bucket.planned(fate_of("DELETE", Fate::Answer(403, "AccessDenied")));
    let run = check(&bucket, &[]);
    says(&run, 1, &["the probe", "stays", "HINT:", "--rights fetch"]);
    assert!(run.stdout.contains("OK: \"s3://bucket/archive\" refused to replace it"), "{run:?}");
}

#[test]
fn a_missing_right_to_list_is_a_warning_and_none_for_a_server_that_only_archives() {
    let Some(bucket) = archived() else { return };
    bucket.planned(|seen| match seen.path.contains("list-type") {
        true => Fate::Answer(403, "AccessDenied"),
        false => Fate::Pass,
    });
    says(&check(&bucket, &[]), 1, &["AccessDenied", "s3:ListBucket", "--rights push"]);
    says(&check(&bucket, &["--rights", "push"]), 0, &["refused to replace it"]);
}

#[test]
fn bytes_that_come_back_changed_are_critical() {
    let Some(bucket) = archived() else { return };
    bucket.planned(|seen| match seen.path.contains("wal-archive-check") && seen.method == "GET" {
        true => Fate::CorruptAnswer,
        false => Fate::Pass,
    });
    says(&check(&bucket, &[]), 2, &["came back with other bytes", "HINT:"]);
}

#[test]
fn no_secret_is_shown() {
    let Some(bucket) = archived() else { return };
    for args in [&["-vv"][..], &["-vv", "--json"]] {
        let run = check(&bucket, args);
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(!said.contains(crate::support::s3::SECRET_KEY), "{run:?}");
    }
}
