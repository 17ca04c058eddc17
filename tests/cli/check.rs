//! `wal-archive check`: the code and the sentence of each fault.

use crate::util::{CLUSTER, Run, Sandbox, hang, names, says_state as says};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";

/// An archive with one segment, as PostgreSQL leaves it.
fn archived() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    status(&sandbox, ONE, "done", Duration::ZERO);
    sandbox
}

/// A status file, made so long ago.
fn status(sandbox: &Sandbox, name: &str, mark: &str, age: Duration) {
    let path = sandbox.data().join("pg_wal/archive_status").join(format!("{name}.{mark}"));
    File::create(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
}

/// With limits of room that no machine of tests comes near.
fn check(sandbox: &Sandbox, args: &[&str]) -> Run {
    let limits = ["--free-warning", "1MiB", "--free-critical", "1MiB"];
    Run::of(
        sandbox
            .program("wal-archive")
            .arg("check")
            .args(limits)
            .arg("--archive")
            .arg(sandbox.archive())
            .args(args),
    )
}

#[test]
fn an_idle_healthy_archive_is_ok_and_nothing_stays_behind() {
    let sandbox = archived();
    let before = sandbox.objects();
    let run = check(&sandbox, &["--pgdata", "."]);
    says(&run, 0, &["refused to replace it"]);
    says(&run, 0, &["nothing waits to be archived", "last archived", ONE]);
    says(&run, 0, &["is the archive of the cluster", &CLUSTER.to_string()]);
    assert!(run.stdout.lines().next().unwrap().contains("| 'write_seconds "), "{run:?}");
    assert_eq!(sandbox.objects(), before);
}

#[test]
fn a_probe_that_an_interrupted_check_left_is_removed_after_a_day() {
    let sandbox = archived();
    let left = |unique: &str, age: u64| {
        let path = sandbox.archive().join("wal_005").join(format!("wal-archive-check.{unique}"));
        File::create(&path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        path
    };
    let (old, young) = (left("0000000000000001", 90_000), left("0000000000000002", 60));
    says(&check(&sandbox, &[]), 0, &["deleted the probe"]);
    assert_eq!((old.exists(), young.exists()), (false, true));
}

#[test]
fn what_waits_too_long_is_a_warning_and_then_critical() {
    let sandbox = archived();
    let waits = |age| {
        status(&sandbox, TWO, "ready", Duration::from_secs(age));
        check(&sandbox, &["--pgdata", ".", "--age-critical", "1h"])
    };
    sandbox.segment(TWO);
    says(&waits(10), 0, &["1 file waits", "1.0 MiB", TWO]);
    says(&waits(400), 1, &["1 file waits", TWO, "6m 40s", "HINT:"]);
    says(&waits(4000), 2, &["1 file waits", "HINT:", "server log"]);
    let run = check(&sandbox, &["--pgdata", ".", "--files-warning", "0", "--age-critical", "2h"]);
    says(&run, 1, &["1 file waits"]);
    assert!(run.stdout.contains("'backlog_files'=1;0;1024"), "{run:?}");
}

#[test]
fn a_missing_root_is_critical_and_an_empty_one_where_wal_was_archived_too() {
    let sandbox = archived();
    fs::rename(sandbox.archive(), sandbox.path("elsewhere")).unwrap();
    says(&check(&sandbox, &[]), 2, &["cannot open the archive's root", "HINT:", "mount"]);
    fs::create_dir(sandbox.archive()).unwrap();
    says(&check(&sandbox, &[]), 2, &["is not an archive", "HINT:", "mount", "run: wal-archive init"]);
    says(&check(&sandbox, &["--pgdata", "."]), 2, &["has archived before", "HINT:", "mount"]);
    assert!(names(&sandbox.archive()).is_empty(), "a check creates nothing on an unmounted disk");
}

#[test]
fn an_archive_of_another_cluster_is_critical() {
    let sandbox = archived();
    sandbox.make_data_directory("other", 7);
    let run = check(&sandbox, &["--pgdata", "../other"]);
    says(&run, 2, &["is the archive of the cluster", &CLUSTER.to_string(), "this one has 7", "HINT:"]);
}

#[test]
fn a_destination_that_hangs_is_critical_in_time() {
    let sandbox = archived();
    let identity = sandbox.archive().join("archive.json");
    fs::remove_file(&identity).unwrap();
    hang(&identity);
    let start = Instant::now();
    says(&check(&sandbox, &["--timeout", "500ms"]), 2, &["did not answer in time"]);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn settings_that_wal_push_refuses_are_critical_and_wrong_arguments_unknown() {
    let sandbox = archived();
    let run = check(&sandbox, &["--archive", "relative"]);
    says(&run, 2, &["not an absolute path", "HINT:"]);
    let run = Run::of(
        sandbox
            .program("wal-archive")
            .env("WAL_ARCHIVE", "/a")
            .env("WAL_ARCHIVE_LEVEL", "a lot")
            .arg("check"),
    );
    says(&run, 2, &["WAL_ARCHIVE_LEVEL"]);
    for wrong in
        [vec!["--no-such"], vec!["--free-warning", "20GB"], vec!["--age-warning", "5"], vec!["--switch"]]
    {
        let run = check(&sandbox, &wrong);
        assert!(run.code == Some(3) && run.stdout.is_empty(), "{run:?}");
    }
    let run = check(&sandbox, &["--pgdata", "/nonexistent"]);
    says(&run, 3, &["/nonexistent", "not a data directory"]);
}

#[test]
fn a_reader_without_the_right_to_write_checks_as_wal_fetch() {
    let sandbox = archived();
    let run = check(&sandbox, &["--rights", "fetch"]);
    says(&run, 0, &["can be listed"]);
    assert!(!run.stdout.contains("new object"), "{run:?}");
}

#[test]
fn the_result_is_json_or_a_file_for_prometheus_where_asked() {
    let sandbox = archived();
    let file = sandbox.path("wal.prom");
    let run = check(
        &sandbox,
        &["--json", "--pgdata", ".", "--prometheus", file.to_str().unwrap(), "--name", "main"],
    );
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(json["state"], "OK", "{json}");
    assert!(
        json["metrics"].as_array().unwrap().iter().any(|metric| metric["name"] == "backlog_files"),
        "{json}"
    );
    let text = fs::read_to_string(&file).unwrap();
    for sample in
        ["wal_archive_check_state{cluster=\"main\"} 0\n", "wal_archive_backlog_files{cluster=\"main\"} 0\n"]
    {
        assert!(text.contains(sample), "{text}");
    }
    assert!(names(&sandbox.path("")).iter().all(|name| !name.starts_with('.')), "a temporary file is left");
    let run = check(&sandbox, &["--prometheus", "/nonexistent/wal.prom"]);
    says(&run, 3, &["cannot write", "HINT:"]);
}

/// A file system that goes away with the test.
struct Mount(PathBuf);

impl Mount {
    /// `None` where this machine does not let the tests mount.
    fn tmpfs(target: &Path, options: &str) -> Option<Mount> {
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(target).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Mount(target.to_owned()));
        }
        assert!(std::env::var_os("WAL_ARCHIVE_REQUIRE_ALL").is_none(), "mounting a file system needs root");
        eprintln!("SKIPPED: mounting a file system needs root");
        None
    }

    fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        assert!(mount.args(["-o", &format!("remount,{options}")]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_read_only_destination_is_critical() {
    let sandbox = Sandbox::without_archive();
    let Some(mount) = Mount::tmpfs(&sandbox.archive(), "size=8m") else { return };
    sandbox.init();
    sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    says(&check(&sandbox, &[]), 0, &["took a new object"]);
    mount.remount("ro");
    says(&check(&sandbox, &[]), 2, &["Read-only file system", "HINT:", "read-write"]);
}

#[test]
fn a_full_destination_is_critical_and_a_filling_one_a_warning() {
    let sandbox = Sandbox::without_archive();
    let Some(_mount) = Mount::tmpfs(&sandbox.archive(), "size=8m") else { return };
    sandbox.init();
    sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    let shares = ["--free-warning", "50%", "--free-critical", "25%"];
    let check = |args: &[&str]| {
        let mut command = sandbox.program("wal-archive");
        Run::of(command.arg("check").arg("--archive").arg(sandbox.archive()).args(args))
    };
    let fill = |mebibytes: usize| fs::write(sandbox.archive().join("other"), vec![1; mebibytes << 20]);
    says(&check(&shares), 0, &["free"]);
    fill(4).unwrap();
    says(&check(&shares), 1, &["MiB free", "HINT:", "make room"]);
    fill(6).unwrap();
    says(&check(&shares), 2, &["MiB free", "HINT:", "make room"]);
    fill(8).unwrap_err();
    let run = check(&[]);
    says(&run, 2, &["No space left on device", "HINT:"]);
    says(&run, 2, &["0 B of 8.0 MiB free"]);
}
