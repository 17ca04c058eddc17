//! Which store is asked, how, and who else is: endpoints, proxies, regions, storage classes.

use crate::bucket::Bucket;
use crate::support::proxy::{Fate, Proxy, Seen};
use crate::support::s3::Server;
use crate::util::Run;
use std::fs;
use std::process::Command;

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";

fn push(mut command: Command, name: &str) -> Run {
    Run::of(command.arg(format!("pg_wal/{name}")))
}

/// A server that answers all the same, and counts.
fn answers(answer: &'static str) -> Proxy {
    Proxy::start(([127, 0, 0, 1], 9).into(), Box::new(move |_| Fate::Raw(answer)))
}

fn probes(bucket: &Bucket) -> usize {
    bucket.requests().iter().filter(|request| *request == "PUT wal-archive-probe").count()
}

#[test]
fn a_proof_counts_only_for_the_mode_it_was_made_in() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.sandbox.segment(ONE);
    bucket.sandbox.segment(TWO);
    bucket.push(ONE, &["--conditional-writes", "unsupported"]).code.unwrap();
    assert_eq!(probes(&bucket), 0);
    bucket.push(TWO, &[]).succeeds();
    assert!(probes(&bucket) > 0, "what was pushed without conditions proves nothing about them");
    bucket.push(TWO, &[]).succeeds();
    assert_eq!(probes(&bucket), 0);
}

/// A program whose only word about the endpoint is the profile's.
fn by_profile(bucket: &Bucket, program: &str, endpoint: &str) -> Command {
    let home = bucket.sandbox.path("home");
    fs::create_dir_all(home.join(".aws")).unwrap();
    fs::write(home.join(".aws/config"), format!("[default]\nendpoint_url = {endpoint}\n")).unwrap();
    let mut command = bucket.program(program);
    command.env_remove("WAL_ARCHIVE_ENDPOINT").env("HOME", home);
    command
}

#[test]
fn the_endpoint_of_a_profile_is_the_store_that_a_proof_is_for_and_decides_about_signatures() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.sandbox.segment(ONE);
    bucket.sandbox.segment(TWO);
    push(by_profile(&bucket, "wal-push", &bucket.proxy.endpoint()), ONE).succeeds();
    let seen = bucket.proxy.taken();
    let put = seen.iter().find(|seen| seen.path.contains("/wal_005/") && seen.method == "PUT").unwrap();
    assert_ne!(put.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"), "http is signed");
    assert!(put.path.starts_with("/bucket/archive/"), "path style, as with any endpoint: {}", put.path);
    // Another store under the same URL is proved for itself.
    let other = Server::start().unwrap();
    let between = Proxy::start(other.address(), Box::new(|_| Fate::Pass));
    push(by_profile(&bucket, "wal-push", &between.endpoint()), TWO);
    assert!(between.taken().iter().any(|seen| seen.path.contains("archive.json")), "nothing is known of it");
    push(by_profile(&bucket, "wal-push", &bucket.proxy.endpoint()), TWO).succeeds();
    assert_eq!(bucket.requests(), [format!("PUT wal_005/{TWO}.zst")], "the first is still remembered");
}

#[test]
fn what_every_call_may_read_is_never_stored_in_a_class_that_must_be_restored() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.sandbox.segment(ONE);
    // The test servers know the classes by name at best.
    bucket.planned(|seen| if seen.method == "PUT" { Fate::Stored } else { Fate::Pass });
    bucket.push(ONE, &["--storage-class", "GLACIER", "--timeout", "10s"]);
    let classes: Vec<(String, Option<String>)> = bucket
        .proxy
        .taken()
        .into_iter()
        .filter(|seen| seen.method == "PUT")
        .map(|seen| (seen.path.clone(), seen.header("x-amz-storage-class").map(str::to_owned)))
        .collect();
    assert!(!classes.is_empty());
    for (path, class) in classes {
        let expected = if path.contains("/wal_005/") { "GLACIER" } else { "STANDARD" };
        assert_eq!(class.as_deref(), Some(expected), "{path}");
    }
}

#[test]
fn an_object_that_must_be_restored_first_is_said_to_be_one() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.sandbox.segment(ONE);
    bucket.push(ONE, &[]).succeeds();
    bucket.planned(|seen| match seen.path.contains("/wal_005/") {
        true => Fate::Answer(403, "InvalidObjectState"),
        false => Fate::Pass,
    });
    bucket
        .fetch(ONE, &["--on-error", "retry"])
        .fails(20, &["InvalidObjectState", "HINT:", "restore the object"]);
}

const KEYS: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n\
    {\"AccessKeyId\":\"container\",\"SecretAccessKey\":\"s\",\"Token\":\"t\",\"Expiration\":\"2099-01-01T00:00:00Z\"}";

const REFUSED: &str = "HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n\
    <Error><Code>AccessDenied</Code><Message>by the proxy</Message></Error>";

#[test]
fn credentials_are_never_asked_for_through_a_proxy() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.sandbox.segment(ONE);
    let (container, proxy) = (answers(KEYS), answers(REFUSED));
    for (name, value) in [("WAL_ARCHIVE_PROXY", proxy.endpoint()), ("HTTP_PROXY", proxy.endpoint())] {
        let mut command = bucket.program("wal-push");
        command
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/keys", container.endpoint()))
            .env(name, value);
        push(command, ONE).fails(13, &["by the proxy"]);
        assert!(!container.taken().is_empty(), "{name}: the container is asked itself");
        let asked = proxy.taken();
        assert!(!asked.is_empty(), "{name}: the store is asked through the proxy");
        assert!(asked.iter().all(|seen| seen.path.contains("/bucket/archive/")), "{name}: {asked:?}");
    }
}

#[test]
fn hosts_without_proxy_are_named_by_the_setting_or_the_environment() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.sandbox.segment(ONE);
    let proxy = answers(REFUSED);
    for (name, value) in [("WAL_ARCHIVE_NO_PROXY", "10.0.0.0/8,127.0.0.0/8"), ("NO_PROXY", "127.0.0.1")] {
        let mut command = bucket.program("wal-push");
        command.env("WAL_ARCHIVE_PROXY", proxy.endpoint()).env(name, value);
        push(command, ONE).succeeds();
        assert!(proxy.taken().is_empty(), "{name}");
    }
}

#[test]
fn with_an_endpoint_no_instance_is_asked_for_a_region() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.sandbox.segment(ONE);
    let instance = answers("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let asked = |command: &mut Command| {
        command
            .env_remove("AWS_EC2_METADATA_DISABLED")
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance.endpoint());
        let run = Run::of(command.arg(format!("pg_wal/{ONE}")));
        (run, instance.taken().len())
    };
    let (run, count) = asked(&mut bucket.program("wal-push"));
    run.succeeds();
    assert_eq!(count, 0);
    let (run, count) = asked(&mut by_profile(&bucket, "wal-push", &bucket.proxy.endpoint()));
    run.succeeds();
    assert_eq!(count, 0, "nor with the endpoint of a profile");
    // Without one the instance is where the region would come from: the server here does see requests.
    let (run, count) = asked(bucket.program("wal-push").env_remove("WAL_ARCHIVE_ENDPOINT"));
    run.fails(13, &["no AWS region is known", "HINT:"]);
    assert!(count > 0);
}

#[test]
fn the_path_of_an_endpoint_is_kept() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.sandbox.segment(ONE);
    for path in ["/store", "/store/", "/a/store/"] {
        bucket.planned(|_| Fate::Answer(403, "AccessDenied"));
        let endpoint = format!("{}{path}", bucket.proxy.endpoint());
        let mut command = bucket.program("wal-push");
        push_to(&mut command, &endpoint).fails(13, &["AccessDenied"]);
        let expected = format!("{}/bucket/archive/", path.trim_end_matches('/'));
        let seen: Vec<Seen> = bucket.proxy.taken();
        assert!(
            !seen.is_empty() && seen.iter().all(|seen| seen.path.starts_with(&expected)),
            "{path}: {seen:?}"
        );
    }
}

fn push_to(command: &mut Command, endpoint: &str) -> Run {
    Run::of(command.env("WAL_ARCHIVE_ENDPOINT", endpoint).arg(format!("pg_wal/{ONE}")))
}

#[test]
fn what_is_not_supported_is_refused_in_plain_words() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.sandbox.segment(ONE);
    let mut command = bucket.program("wal-push");
    command.env("WAL_ARCHIVE", "s3://wal--use1-az4--x-s3/archive");
    push(command, ONE).fails(13, &["directory bucket", "S3 Express", "HINT:"]);
    for (line, words) in
        [("sso_session = x", "single sign-on"), ("credential_process = /bin/keys", "credential_process")]
    {
        let mut command = by_profile(&bucket, "wal-push", &bucket.proxy.endpoint());
        let config = bucket.sandbox.path("home").join(".aws/config");
        fs::write(config, format!("[default]\nendpoint_url = {}\n{line}\n", bucket.proxy.endpoint()))
            .unwrap();
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        let run = push(command, ONE).fails(13, &[words, "does not do", "HINT:"]);
        assert!(!run.stderr.contains("feature"), "{run:?}");
    }
}
