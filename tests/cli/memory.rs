//! Little memory: a process that gets none ends, and PostgreSQL sees one of the documented codes.

use crate::util::{CLUSTER, MIB, Run, Sandbox, init_arguments, segment};
use std::fs;
use std::process::Command;

fn name(number: u32) -> String {
    format!("00000001000000000000000{number}")
}

/// A program that reaches the archive, under a limit.
fn limited(sandbox: &Sandbox, limit: &str, program: &str, args: &[&str]) -> Run {
    let mut command = Command::new("prlimit");
    command.current_dir(sandbox.data()).env_clear().args([limit, "--", program]);
    let config = sandbox.path("config.toml");
    if config.exists() {
        command.env("WAL_ARCHIVE_CONFIG", config);
    }
    Run::of(command.arg("--archive").arg(sandbox.archive()).args(args))
}

/// A new pair of keys, and an encrypted archive that they are for.
fn encrypted() -> Sandbox {
    let sandbox = Sandbox::without_archive();
    let key = sandbox.path("key");
    let made = Run::of(sandbox.program("wal-archive").arg("keygen").arg(&key));
    let (recipient, identity) = (made.stdout.trim(), key.display());
    let text = format!("[encryption]\nrecipients = [\"{recipient}\"]\nidentity_file = \"{identity}\"\n");
    fs::write(sandbox.path("config.toml"), text).unwrap();
    let mut init = sandbox.program("wal-archive");
    init.env("WAL_ARCHIVE_CONFIG", sandbox.path("config.toml"));
    Run::of(init.args(init_arguments(16 * MIB)).arg(sandbox.archive())).says(0, &["is now the archive"]);
    sandbox
}

/// What the archiver would do with six segments that wait.
fn archive_six(limit: &str) {
    archive_six_into(&Sandbox::with_segments_of(16 * MIB), limit);
    archive_six_into(&encrypted(), limit);
}

fn archive_six_into(sandbox: &Sandbox, limit: &str) {
    for number in 1..=6 {
        let name = name(number);
        sandbox.wal(&name, &segment(&name, 16 * MIB, CLUSTER, u64::from(number)));
        fs::write(sandbox.data().join(format!("pg_wal/archive_status/{name}.ready")), "").unwrap();
    }
    for number in 1..=6 {
        let name = name(number);
        let file = format!("pg_wal/{name}");
        let run = limited(sandbox, limit, env!("CARGO_BIN_EXE_wal-push"), &[&file]);
        assert_eq!(run.code, Some(0), "{limit} {run:?}");
        fs::remove_file(sandbox.data().join(format!("pg_wal/archive_status/{name}.ready"))).unwrap();
        let fetch = [&*name, "pg_wal/RECOVERYXLOG"];
        let run = limited(sandbox, limit, env!("CARGO_BIN_EXE_wal-fetch"), &fetch);
        assert_eq!(run.code, Some(0), "{limit} {run:?}");
        assert!(sandbox.fetched() == segment(&name, 16 * MIB, CLUSTER, u64::from(number)));
    }
}

#[test]
fn six_segments_are_archived_with_40_mib_of_memory() {
    archive_six("--data=41943040");
}

#[test]
fn six_segments_are_archived_with_60_mib_of_memory() {
    archive_six("--data=62914560");
}

#[test]
fn six_segments_are_archived_with_240_mib_of_addresses() {
    archive_six("--as=251658240");
}

#[test]
fn no_limit_of_memory_leads_to_a_code_that_ends_the_archiver() {
    let sandbox = Sandbox::new();
    sandbox.segment(&name(1));
    let file = format!("pg_wal/{}", name(1));
    for mebibytes in [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20] {
        let limit = format!("--data={}", mebibytes * MIB);
        let run = limited(&sandbox, &limit, env!("CARGO_BIN_EXE_wal-push"), &[&file]);
        assert!(run.code.is_some_and(|code| [0, 10, 13].contains(&code)), "{limit} {run:?}");
    }
}
