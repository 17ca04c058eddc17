//! The least rights that docs/providers.md names, on a server that enforces policies.

use crate::bucket::Bucket;
use crate::support::s3::{ACCESS_KEY, BUCKET, SECRET_KEY};
use crate::util::{CLUSTER, MIB, Run, segment};
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use std::process::Command;

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";

/// What the documentation tells an administrator to allow.
const PUSH: &str = r#"{"Effect": "Allow", "Principal": {"AWS": ["push"]},
  "Action": ["s3:PutObject", "s3:GetObject"], "Resource": "arn:aws:s3:::bucket/*"}"#;
const FETCH: &str = r#"{"Effect": "Allow", "Principal": {"AWS": ["fetch"]},
  "Action": "s3:GetObject", "Resource": "arn:aws:s3:::bucket/*"},
 {"Effect": "Allow", "Principal": {"AWS": ["fetch"]},
  "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::bucket"}"#;

fn make_user(bucket: &Bucket, name: &str) {
    let made = Command::new(bucket.server.program())
        .args([
            "admin",
            "--access",
            ACCESS_KEY,
            "--secret",
            SECRET_KEY,
            "--endpoint-url",
            &bucket.server.endpoint(),
        ])
        .args(["create-user", "--access", name, "--secret", "a-secret-of-its-own", "--role", "user"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

fn allow(bucket: &Bucket, policy: &str) {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(bucket.server.endpoint())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
        .force_path_style(true)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    let request = aws_sdk_s3::Client::from_conf(config).put_bucket_policy().bucket(BUCKET).policy(policy);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(request.send()).unwrap();
}

#[test]
fn a_push_needs_put_and_get_and_a_fetch_get_and_list() {
    let Some(bucket) = Bucket::new() else { return };
    if !bucket.server.is_versitygw() {
        eprintln!("moto enforces no policies; nothing to see");
        return;
    }
    make_user(&bucket, "push");
    make_user(&bucket, "fetch");
    allow(&bucket, &format!("{{\"Version\": \"2012-10-17\", \"Statement\": [{PUSH}, {FETCH}]}}"));
    let run = |user: &str, program: &str, args: &[&str]| {
        let mut command = bucket.program(program);
        command.env("AWS_ACCESS_KEY_ID", user).env("AWS_SECRET_ACCESS_KEY", "a-secret-of-its-own");
        Run::of(command.args(args))
    };
    let content = bucket.sandbox.segment(ONE);
    let large = "000000010000000000000009";
    let path = format!("pg_wal/{ONE}");
    // The first push creates; the second finds the object; the third meets another file.
    run("push", "wal-push", &[&path]).succeeds();
    run("push", "wal-push", &[&path]).succeeds();
    std::fs::remove_dir_all(bucket.sandbox.path("data.wal-spool")).unwrap();
    run("push", "wal-push", &[&path]).succeeds();
    bucket.sandbox.wal(ONE, &segment(ONE, MIB, CLUSTER, 2));
    run("push", "wal-push", &[&path]).fails(12, &["already exists"]);
    let fetch = |user: &str, name: &str| run(user, "wal-fetch", &[name, "pg_wal/RECOVERYXLOG"]);
    fetch("fetch", ONE).succeeds();
    assert!(bucket.sandbox.fetched() == content);
    assert_eq!(fetch("fetch", TWO).code, Some(1));
    fetch("push", TWO).fails(220, &["s3:ListBucket", "HINT:"]);
    // And no more than that.
    run("fetch", "wal-push", &[&format!("pg_wal/{ONE}")]).fails(13, &["AccessDenied"]);
    fetch("nobody", large).fails(220, &["HINT:"]);
}
