//! `wal-archive check`: the code and the sentence of each fault.

use crate::util::{CLUSTER, Run, Sandbox, hang, names, says_state as says};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

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
    says(&run, 0, &["nothing waits to be archived; last archived", ONE]);
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
    assert!(names(&sandbox.archive()).is_empty(), "nothing is made where no archive is");
}

#[test]
fn an_archive_that_lost_its_archive_json_is_critical_and_is_left_alone() {
    let sandbox = archived();
    fs::remove_file(sandbox.archive().join("archive.json")).unwrap();
    let before = (names(&sandbox.archive()), sandbox.objects());
    says(&check(&sandbox, &[]), 2, &["holds WAL that wal-push archived", "it was removed", "HINT:"]);
    assert_eq!((names(&sandbox.archive()), sandbox.objects()), before);
    // Of another tool, the first wal-push makes it.
    fs::remove_file(sandbox.object(ONE)).unwrap();
    fs::write(sandbox.archive().join("wal_005").join(format!("{ONE}.lz4")), "x").unwrap();
    says(&check(&sandbox, &[]), 1, &["holds WAL of other tools", "HINT:", "wal-push"]);
}

#[test]
fn wal_that_is_marked_as_archived_and_not_there_is_critical() {
    let sandbox = archived();
    for name in [TWO, "000000010000000000000003"] {
        sandbox.segment(name);
        status(&sandbox, name, "done", Duration::ZERO); // archive_command = '/bin/true'
    }
    let run = check(&sandbox, &["--pgdata", "."]);
    says(
        &run,
        2,
        &["takes 2 WAL files for archived", TWO, "000000010000000000000003", "HINT:", "wal-push pg_wal/NAME"],
    );
    sandbox.push("000000010000000000000003", &[]).succeeds();
    says(&check(&sandbox, &["--pgdata", "."]), 2, &[&format!("takes \"{TWO}\" for archived")]);
    sandbox.push(TWO, &[]).succeeds();
    says(&check(&sandbox, &["--pgdata", "."]), 0, &["holds what PostgreSQL takes for archived"]);
    // A cut segment was acknowledged under the name of a variant.
    let three = sandbox.object("000000010000000000000003");
    fs::rename(&three, three.with_file_name("000000010000000000000003.0123456789abcdef.zst")).unwrap();
    says(&check(&sandbox, &["--pgdata", "."]), 0, &["holds what PostgreSQL takes for archived"]);
    // What is older than everything there was archived to another place, or expired.
    fs::remove_file(sandbox.object(ONE)).unwrap();
    says(&check(&sandbox, &["--pgdata", "."]), 0, &["holds what PostgreSQL takes for archived"]);
}

#[test]
fn a_standby_that_received_wal_archived_nothing() {
    let sandbox = archived();
    status(&sandbox, TWO, "done", Duration::ZERO);
    fs::write(sandbox.data().join("standby.signal"), "").unwrap();
    let run = check(&sandbox, &["--pgdata", "."]);
    says(
        &run,
        0,
        &["nothing waits to be archived; a standby marks what it received as done, which says nothing"],
    );
    assert!(!run.stdout.contains("last_archived"), "{run:?}");
    // Promoted, it goes on from WAL that nobody archived: the classic silent gap.
    fs::remove_file(sandbox.data().join("standby.signal")).unwrap();
    fs::write(sandbox.data().join("pg_wal/00000002.history"), "1\t0/380000\tx\n").unwrap();
    sandbox.push("00000002.history", &[]).succeeds();
    // Beyond the fork, and in the segment in which it lies, the parent's files are not needed.
    for name in ["000000010000000000000003", "000000010000000000000004"] {
        status(&sandbox, name, "done", Duration::ZERO);
    }
    status(&sandbox, "00000002.history", "done", Duration::ZERO);
    says(&check(&sandbox, &["--pgdata", "."]), 2, &[&format!("takes \"{TWO}\" for archived"), "HINT:"]);
    sandbox.segment(TWO);
    sandbox.push(TWO, &[]).succeeds();
    says(&check(&sandbox, &["--pgdata", "."]), 0, &["holds what PostgreSQL takes for archived"]);
}

#[test]
fn destinations_of_two_clusters_are_critical_and_the_cause_comes_first() {
    let sandbox = archived();
    let other = Sandbox::of_cluster(7);
    other.wal(ONE, &crate::util::segment(ONE, crate::util::MIB, 7, 1));
    other.push(ONE, &[]).succeeds();
    let run = check(&sandbox, &["--archive", other.archive().to_str().unwrap()]);
    let first = run.stdout.lines().next().unwrap();
    assert!(first.contains("system identifier 7") && first.contains(&CLUSTER.to_string()), "{run:?}");
    assert!(!first.contains("more)"), "only the cause: {run:?}");
    says(&run, 2, &["name only destinations of one cluster"]);
}

#[test]
fn wal_directly_under_the_prefix_of_our_own_archive_is_a_warning() {
    let sandbox = archived();
    fs::write(sandbox.archive().join(TWO), "x").unwrap();
    says(&check(&sandbox, &[]), 1, &["1 WAL file is directly under the prefix", TWO, "HINT:"]);
}

#[test]
fn a_server_that_can_have_no_spool_is_a_warning() {
    let sandbox = archived();
    let mut command = sandbox.program("wal-archive");
    command.env("WAL_ARCHIVE_SPOOL_DIR", "/nonexistent/spool").arg("check").arg("--archive");
    command.arg(sandbox.archive()).args([
        "--pgdata",
        ".",
        "--free-warning",
        "1MiB",
        "--free-critical",
        "1MiB",
    ]);
    let run = Run::of(&mut command);
    says(&run, 1, &["have no spool", "/nonexistent/spool", "HINT:"]);
}

#[test]
fn a_timeline_without_a_history_anywhere_is_a_warning() {
    let sandbox = archived();
    let segment = "000000020000000000000002";
    sandbox.segment(segment);
    assert_eq!(sandbox.push(segment, &[]).code, Some(0));
    status(&sandbox, segment, "done", Duration::ZERO);
    let run = check(&sandbox, &["--pgdata", "."]);
    says(&run, 1, &["neither pg_wal nor any destination has \"00000002.history\"", "HINT:"]);
    sandbox.wal("00000002.history", b"1\t0/200000\tx\n");
    let kept = sandbox.data().join("pg_wal/00000002.history");
    fs::copy(&kept, sandbox.archive().join("wal_005/00000002.history")).unwrap();
    fs::remove_file(kept).unwrap();
    says(&check(&sandbox, &["--pgdata", "."]), 0, &["holds what PostgreSQL takes for archived"]);
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
    // It hangs for ever, and the test ends.
    says(&check(&sandbox, &["--timeout", "500ms"]), 2, &["did not answer in time"]);
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

#[test]
fn a_server_that_is_process_1_is_told_what_it_does_without() {
    let sandbox = archived();
    fs::write(sandbox.data().join("postmaster.pid"), "1\n/data\n1700000000\n5432\n").unwrap();
    let run = check(&sandbox, &["--pgdata", "."]);
    says(&run, 0, &["process 1 of its container", "a hung mount can outlast"]);
}
