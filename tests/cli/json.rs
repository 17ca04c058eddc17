//! What `--json` prints is what `docs/json.md` says, both ways. (Base backups: `tests/postgres/backup.rs`.)

use crate::json_page::assert_as_documented;
use crate::util::{CLUSTER, Run, Sandbox, flip, init_arguments};
use std::fs;
use std::path::Path;

const A: &str = "00000001000000000000001A";
const B: &str = "00000001000000000000001B";

/// An archive of a real server with a gap, a partial segment, a backup and two timelines.
fn real() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    sandbox
}

/// Each call with `--json` over the archive of a sandbox.
#[track_caller]
fn check(sandbox: &Sandbox, command: &str, calls: &[&[&str]]) {
    let runs: Vec<Run> =
        calls.iter().map(|args| sandbox.admin(command, &[*args, &["--json"]].concat())).collect();
    let answers: Vec<&str> = runs.iter().flat_map(|run| run.stdout.lines()).collect();
    assert!(!answers.is_empty(), "{runs:?}");
    assert_as_documented(command, &answers);
}

#[test]
fn the_json_of_list_is_as_documented() {
    let sandbox = real();
    let vector = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/backups/plain/backups");
    let backup = fs::read_dir(vector).unwrap().next().unwrap().unwrap();
    let to = sandbox.archive().join("backups").join(backup.file_name());
    fs::create_dir_all(&to).unwrap();
    for file in fs::read_dir(backup.path()).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    fs::write(sandbox.archive().join("notes.txt"), "mine").unwrap();
    check(&sandbox, "list", &[&[]]);
    let run = sandbox.admin("list", &["--segments", "--json"]);
    assert_as_documented("list --segments", &run.stdout.lines().collect::<Vec<_>>());
}

#[test]
fn the_json_of_verify_is_as_documented() {
    let gap = "000000010000000000000016..000000010000000000000019";
    check(&real(), "verify", &[&[], &["--records", "--accept-gap", gap]]);
}

#[test]
fn the_json_of_check_is_as_documented() {
    let sandbox = real();
    sandbox.make_data_directory("server", CLUSTER);
    let file = sandbox.path("clusters.toml");
    let archive = sandbox.archive();
    fs::write(&file, format!("[cluster.a]\narchive = [\"{}\"]\n", archive.display())).unwrap();
    let pgdata = sandbox.path("server");
    let one = sandbox.admin("check", &["--pgdata", pgdata.to_str().unwrap(), "--json"]);
    let all =
        Run::of(sandbox.program("wal-archive").args(["check", "--all", "--json", "--config"]).arg(&file));
    assert_as_documented("check", &[&one.stdout, &all.stdout]);
}

#[test]
fn the_json_of_expire_drain_copy_and_quarantine_is_as_documented() {
    let sandbox = real();
    check(&sandbox, "expire", &[&["--label", "*", "--before", A]]);
    check(&sandbox, "drain", &[&["--pgdata", ".", "--dry-run"], &["--pgdata", "."]]);
    let other = sandbox.make_archive("other");
    flip(&sandbox.object(A), 80_000);
    fs::write(sandbox.archive().join("notes.txt"), "mine").unwrap();
    let mut copy = sandbox.program("wal-archive");
    let run = Run::of(copy.args(["copy", "--json"]).arg(sandbox.archive()).arg(other));
    assert_as_documented("copy", &[&run.stdout]);
    check(&sandbox, "quarantine", &[&[A], &[A], &["--timeline", "2", "--force"], &["--list"]]);
}

#[test]
fn the_json_of_init_and_config_is_as_documented() {
    let sandbox = Sandbox::new();
    let mut init = sandbox.program("wal-archive");
    let run = Run::of(init.args(init_arguments(1 << 20)).arg("--json").arg(sandbox.archive()));
    assert_as_documented("init", &[&run.stdout]);
    check(&sandbox, "config", &[&[]]);
    assert!(!sandbox.object(B).exists());
}
