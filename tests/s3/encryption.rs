//! An encrypted archive in a bucket.

use crate::bucket::Bucket;
use crate::support::proxy::Fate;
use crate::util::{CLUSTER, MIB, Run, init_arguments, race, rounds, segment};
use std::fs;
use std::process::Command;
use wal_archive::object::encode;
use wal_archive::wal::SystemId;

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
        let other = bucket.sandbox.path("stranger");
        Run::of(bucket.sandbox.program("wal-archive").arg("keygen").arg(&other));
        write("wrong", format!("identity_file = \"{}\"", other.display())).unwrap();
        write("plain", String::new()).unwrap();
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
    // A miss is two GETs and at most two LISTs; where nothing is remembered of the keys, one GET of a header more.
    let (three, four) = ("000000010000000000000003", "000000010000000000000004");
    let miss = |host: &str, name: &str, code: i32, more: &[&str]| {
        bucket.requests();
        let run = vault.fetch(host, name);
        assert_eq!(run.code, Some(code), "{run:?}");
        let own = format!("GET wal_005/{name}.age");
        let expected = [&[own.as_str(), "GET archive.json", "GET list"], more].concat();
        assert_eq!(bucket.requests(), expected, "{host} {name}");
    };
    miss("restore", three, 1, &[]);
    let [newest, before] = [TWO, three].map(|name| format!("GET wal_005/{name}.age"));
    miss("wrong", three, 220, &[&newest, &format!("GET wal_005/{ONE}.age")]);
    fs::remove_dir_all(bucket.sandbox.path("data.wal-spool")).unwrap();
    miss("restore", three, 1, &[&newest]);
    miss("restore", four, 1, &[]);
    fs::remove_dir_all(bucket.sandbox.path("data.wal-spool")).unwrap();
    miss("restore", four, 1, &[&before, &format!("GET wal_005/{ONE}.age")]);
    let stranger = vault.fetch("plain", three);
    stranger.fails(220, &["encrypted", "no identity", "HINT"]);
}

#[test]
fn a_plain_object_in_an_encrypted_bucket_is_given_to_nobody() {
    let Some(vault) = Vault::new() else { return };
    let bucket = &vault.bucket;
    bucket.sandbox.segment(ONE);
    vault.push(ONE).succeeds();
    let (content, mut stray) = (segment(TWO, MIB, CLUSTER, 3), Vec::new());
    let (name, id) = (TWO.parse().unwrap(), Some(SystemId(CLUSTER)));
    encode(name, content.len() as u64, id, 1, &mut content.as_slice(), &mut stray).unwrap();
    let Some(path) = bucket.server.file(&format!("archive/wal_005/{TWO}.zst")) else {
        eprintln!("SKIPPED: only versitygw keeps objects as files");
        return;
    };
    fs::write(path, stray).unwrap();
    for host in ["plain", "restore"] {
        for _ in 0..2 {
            vault.fetch(host, TWO).fails(220, &["encrypt", "HINT"]);
        }
    }
    bucket.sandbox.nothing_fetched();
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
