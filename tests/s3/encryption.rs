//! An encrypted archive in a bucket.

use crate::bucket::Bucket;
use crate::support::proxy::Fate;
use crate::util::{CLUSTER, MIB, Run, init_arguments, race, rounds, segment};
use std::fs;
use std::process::Command;

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";

struct Vault {
    bucket: Bucket,
}

impl Vault {
    fn new() -> Option<Vault> {
        let bucket = Bucket::without_archive()?;
        let key = bucket.sandbox.path("key");
        let made = Run::of(bucket.sandbox.program("wal-archive").arg("keygen").arg(&key));
        let write = |host: &str, text: String| {
            fs::write(bucket.sandbox.path(host), format!("[encryption]\n{text}\n"))
        };
        write("primary", format!("recipients = [\"{}\"]", made.stdout.trim())).unwrap();
        write("restore", format!("identity_file = \"{}\"", key.display())).unwrap();
        let vault = Vault { bucket };
        let mut init = vault.program("primary", "wal-archive");
        Run::of(init.args(init_arguments(MIB))).says(0, &["is now the archive"]);
        Some(vault)
    }

    fn program(&self, host: &str, name: &str) -> Command {
        let mut command = self.bucket.program(name);
        command.env("WAL_ARCHIVE_CONFIG", self.bucket.sandbox.path(host));
        command
    }

    fn push(&self, name: &str) -> Run {
        Run::of(self.program("primary", "wal-push").arg(format!("pg_wal/{name}")))
    }

    fn fetch(&self, host: &str, name: &str) -> Run {
        let mut fetch = self.program(host, "wal-fetch");
        Run::of(fetch.args(["--timeout", "20s", name, "pg_wal/RECOVERYXLOG"]))
    }
}

#[test]
fn a_push_and_a_hit_are_one_request_each_and_a_repeat_is_told_by_the_header_and_the_stored_bytes() {
    let Some(vault) = Vault::new() else { return };
    let (bucket, contents) = (&vault.bucket, [ONE, TWO].map(|name| vault.bucket.sandbox.segment(name)));
    vault.push(ONE).succeeds();
    bucket.requests();
    vault.push(TWO).succeeds();
    assert_eq!(bucket.requests(), [format!("PUT wal_005/{TWO}.age")]);
    vault.push(TWO).succeeds();
    let (put, get) = (format!("PUT wal_005/{TWO}.age"), format!("GET wal_005/{TWO}.age"));
    assert_eq!(bucket.requests(), [put, get.clone(), get]);
    vault.fetch("restore", TWO).succeeds();
    assert_eq!(bucket.requests()[0], format!("GET wal_005/{TWO}.age"));
    assert!(bucket.sandbox.fetched() == contents[1]);
    bucket.sandbox.wal(TWO, &segment(TWO, MIB, CLUSTER, 9));
    vault.push(TWO).fails(12, &["different content"]);
    vault.fetch("primary", ONE).fails(220, &["encrypted", "no identity", "HINT"]);
    let missing = vault.fetch("restore", "000000010000000000000003");
    assert_eq!(missing.code, Some(1), "{missing:?}");
}

#[test]
fn an_answer_that_was_lost_is_met_again_by_the_same_bytes() {
    let Some(vault) = Vault::new() else { return };
    let content = vault.bucket.sandbox.segment(ONE);
    let lost = std::sync::atomic::AtomicBool::new(false);
    vault.bucket.planned(move |seen| {
        let is_first = seen.method == "PUT" && !lost.swap(true, std::sync::atomic::Ordering::Relaxed);
        if is_first { Fate::ResetAfter } else { Fate::Pass }
    });
    vault.push(ONE).succeeds();
    vault.bucket.planned(|_| Fate::Pass);
    vault.fetch("restore", ONE).succeeds();
    assert!(vault.bucket.sandbox.fetched() == content);
}

#[test]
fn of_two_primaries_exactly_one_wins_each_round() {
    let Some(vault) = Vault::new() else { return };
    race(&vault.bucket.sandbox, rounds("WAL_ARCHIVE_RACES", 20), &|name| {
        vault.program(if name == "wal-push" { "primary" } else { "restore" }, name)
    });
}
