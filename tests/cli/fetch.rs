//! Every exit code of wal-fetch in both forms, and what it leaves at the path.

use crate::util::{CLUSTER, MIB, Run, Sandbox, flip, hang, names, segment, unless_late};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";
const THREE: &str = "000000010000000000000003";

/// The timeouts of a fetch that waits until then.
const SOON: [&str; 2] = ["3s", "60s"];

/// An archive of segments 1 and 2 (1 MiB each).
fn archived() -> (Sandbox, Vec<u8>) {
    let sandbox = Sandbox::new();
    let content = sandbox.segment(ONE);
    sandbox.segment(TWO);
    for name in [ONE, TWO] {
        sandbox.push(name, &[]).succeeds();
        fs::remove_file(sandbox.data().join("pg_wal").join(name)).unwrap();
    }
    (sandbox, content)
}

fn signal(sandbox: &Sandbox, name: &str) {
    fs::write(sandbox.data().join(name), "").unwrap();
}

#[test]
fn the_file_is_delivered_silently_and_writable_by_its_owner() {
    let (sandbox, content) = archived();
    for _ in 0..2 {
        sandbox.fetch(ONE, &[]).succeeds();
        let metadata = fs::metadata(sandbox.data().join("pg_wal/RECOVERYXLOG")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert!(sandbox.fetched() == content);
    }
    sandbox.nothing_fetched();
}

#[test]
fn an_older_file_at_the_path_is_replaced_only_by_a_proved_one() {
    let (sandbox, content) = archived();
    let path = sandbox.data().join("pg_wal/RECOVERYXLOG");
    fs::write(&path, "older").unwrap();
    flip(&sandbox.object(ONE), 8_000);
    sandbox.fetch(ONE, &[]).fails(221, &[]);
    assert_eq!(fs::read(&path).unwrap(), b"older");
    flip(&sandbox.object(ONE), 8_000);
    sandbox.fetch(ONE, &[]).succeeds();
    assert!(sandbox.fetched() == content);
}

#[test]
fn code_1_only_for_what_is_proved_absent_in_either_form() {
    let (sandbox, _) = archived();
    for form in ["abort", "retry", "auto"] {
        let run = sandbox.fetch(THREE, &["--on-error", form]);
        assert!(run.code == Some(1) && run.stderr.is_empty(), "a normal miss is silent: {run:?}");
        assert_eq!(sandbox.fetch("00000002.history", &["--on-error", form]).code, Some(1));
    }
    sandbox.nothing_fetched();
}

#[test]
fn the_history_of_timeline_1_is_absent_without_asking_anyone() {
    let sandbox = Sandbox::new();
    fs::remove_dir_all(sandbox.archive()).unwrap();
    let run = sandbox.fetch("00000001.history", &[]);
    assert!(run.code == Some(1) && run.stderr.is_empty(), "{run:?}");
}

#[test]
fn auto_is_the_retry_form_only_with_standby_signal() {
    let (sandbox, _) = archived();
    let code = || sandbox.fetch(ONE, &["--no-such-option"]).code;
    assert_eq!(code(), Some(202));
    signal(&sandbox, "recovery.signal");
    assert_eq!(code(), Some(202));
    signal(&sandbox, "standby.signal");
    assert_eq!(code(), Some(2), "standby.signal wins");
    assert_eq!(sandbox.fetch(ONE, &["--on-error", "abort", "--no-such-option"]).code, Some(202));
    fs::remove_file(sandbox.data().join("standby.signal")).unwrap();
    assert_eq!(sandbox.fetch(ONE, &["--no-such-option", "--on-error=retry"]).code, Some(2));
    let by_variable =
        Run::of(sandbox.program("wal-fetch").env("WAL_ARCHIVE_ON_ERROR", "retry").arg("--no-such"));
    assert_eq!(by_variable.code, Some(2));
}

#[test]
fn codes_2_and_202_for_bad_arguments_and_configuration() {
    let (sandbox, _) = archived();
    let config = sandbox.path("c.toml");
    for (form, code) in [("retry", 2), ("abort", 202)] {
        let run = |args: &[&str]| Run::of(sandbox.program("wal-fetch").args(["--on-error", form]).args(args));
        run(&[]).fails(code, &["required", "HINT:"]);
        run(&[ONE, "x"]).fails(code, &["no archive is named", "HINT:"]);
        run(&["--archive", "relative", ONE, "x"]).fails(code, &["not an absolute path"]);
        run(&["--archive", "/x", "--timeout", "5", ONE, "x"]).fails(code, &["--timeout", "duration"]);
        run(&["--archive", "/x", "RECOVERYXLOG", "x"]).fails(code, &["not the name of a WAL file"]);
        fs::write(&config, "arkive = []").unwrap();
        run(&["--config", config.to_str().unwrap(), ONE, "x"]).fails(code, &["unknown key \"arkive\""]);
    }
    sandbox.fetch(ONE, &["--on-error", "never"]).fails(202, &["never", "auto, retry or abort"]);
    // The file may name the form, and then its own later errors have it.
    fs::write(&config, "[fetch]\non_error = \"retry\"\naccept_gap = [\"x\"]").unwrap();
    sandbox.fetch(ONE, &["--config", config.to_str().unwrap()]).fails(2, &["accept_gap"]);
    sandbox.nothing_fetched();
}

#[test]
fn codes_20_and_220_where_no_archive_is_seen() {
    let sandbox = Sandbox::without_archive();
    // An unmounted disk or a mistyped prefix: empty.
    for (form, code) in [("retry", 20), ("abort", 220)] {
        let run = sandbox.fetch_now(ONE, &["--on-error", form]);
        run.fails(code, &["not an archive", "HINT:", "mount"]);
    }
    assert_eq!(sandbox.fetch(ONE, &["--allow-empty"]).code, Some(1));
    // A history is asked for again until the deadline, and its failure is explained.
    let history = unless_late(&SOON, |time| sandbox.fetch("00000002.history", &["--timeout", time]));
    history.fails(220, &["not an archive", "do not promote"]);
    fs::remove_dir(sandbox.archive()).unwrap();
    sandbox.fetch_now(ONE, &[]).fails(220, &["cannot open the archive's root", "HINT:"]);
    fs::write(sandbox.archive(), "a file").unwrap();
    let refused = sandbox.fetch_now(ONE, &["--allow-empty"]);
    refused.fails(220, &["cannot open the archive's root"]);
    sandbox.nothing_fetched();
}

#[test]
fn any_wal_file_proves_an_archive_and_its_identity_alone_does_not() {
    let (sandbox, _) = archived();
    let ask = |name: &str| sandbox.fetch_now(name, &[]);
    let identity = sandbox.archive().join("archive.json");
    let content = fs::read_to_string(&identity).unwrap();
    fs::remove_file(&identity).unwrap();
    assert_eq!(ask(THREE).code, Some(1), "by its WAL files");
    fs::remove_dir_all(sandbox.archive().join("wal_005")).unwrap();
    assert_eq!(ask(THREE).code, Some(220));
    fs::write(sandbox.archive().join("README"), "a stranger").unwrap();
    assert_eq!(ask(THREE).code, Some(220));
    fs::write(&identity, content.replace(&CLUSTER.to_string(), "42")).unwrap();
    ask(THREE).fails(220, &["42", &CLUSTER.to_string()]);
    // It answers, so asking again would change nothing.
    let run = sandbox.fetch("00000002.history", &[]).fails(220, &["42", &CLUSTER.to_string()]);
    assert!(!run.stderr.contains("asked for again"), "{run:?}");
    fs::write(&identity, &content[..20]).unwrap();
    ask(THREE).fails(221, &["archive.json", "cannot be understood"]);
    fs::write(&identity, content).unwrap();
    ask(THREE).fails(220, &["holds no WAL file", "HINT:"]);
    fs::create_dir(sandbox.archive().join("wal_005")).unwrap();
    ask(THREE).fails(220, &["holds no WAL file"]);
    fs::write(sandbox.object("00000009.history"), "damaged, and a WAL file").unwrap();
    assert_eq!(ask(ONE).code, Some(1));
}

#[test]
fn codes_21_and_221_for_damage_wherever_it_is() {
    let (sandbox, content) = archived();
    let object = sandbox.object(ONE);
    let len = fs::metadata(&object).unwrap().len() as usize;
    for bit in [3, 8 * len / 2, 8 * (len - 258), 8 * (len - 240)] {
        flip(&object, bit);
        for (form, code) in [("retry", 21), ("abort", 221)] {
            sandbox.fetch(ONE, &["--on-error", form]).fails(code, &[ONE, "damaged", "HINT:"]);
        }
        flip(&object, bit);
    }
    let good = fs::read(&object).unwrap();
    for bad in [&good[..0], &good[..100], &good[..len - 1], &good[..len - 260], b"junk"] {
        fs::write(&object, bad).unwrap();
        sandbox.fetch(ONE, &[]).fails(221, &["damaged"]);
    }
    // The neighbour's object under this name.
    fs::copy(sandbox.object(TWO), &object).unwrap();
    sandbox.fetch(ONE, &[]).fails(221, &["is the object of", TWO]);
    fs::write(&object, &good).unwrap();
    sandbox.nothing_fetched();
    sandbox.fetch(ONE, &[]).succeeds();
    assert!(sandbox.fetched() == content);
}

#[test]
fn code_221_for_a_file_of_another_cluster() {
    let (sandbox, _) = archived();
    sandbox.wal("00000002.history", b"1\t0/1000000\tx\n");
    sandbox.push("00000002.history", &[]).succeeds();
    fs::write(sandbox.data().join("global/pg_control"), [&42u64.to_le_bytes()[..], &[0; 100]].concat())
        .unwrap();
    for name in [ONE, "00000002.history"] {
        sandbox.fetch(name, &[]).fails(221, &["42", &CLUSTER.to_string(), "HINT:"]);
    }
    sandbox.nothing_fetched();
}

#[test]
fn codes_22_and_222_where_the_path_cannot_be_written() {
    let (sandbox, _) = archived();
    let fetch = |path: &str, form: &str| {
        Run::of(sandbox.program("wal-fetch").arg("--archive").arg(sandbox.archive()).args([
            "--on-error",
            form,
            ONE,
            path,
        ]))
    };
    for (form, code) in [("retry", 22), ("abort", 222)] {
        fetch("no/such/folder/x", form).fails(code, &["cannot write", "no/such/folder/x"]);
        fs::create_dir_all(sandbox.data().join("pg_wal/taken/x")).unwrap();
        fetch("pg_wal/taken", form).fails(code, &["cannot write", "pg_wal/taken"]);
    }
    sandbox.nothing_fetched();
}

#[test]
fn codes_23_and_223_where_a_destination_hangs() {
    let (sandbox, _) = archived();
    fs::remove_file(sandbox.object(ONE)).unwrap();
    hang(&sandbox.object(ONE));
    for (form, code) in [("retry", 23), ("abort", 223)] {
        // It hangs for ever, and the test ends.
        sandbox.fetch(ONE, &["--on-error", form, "--timeout", "5s"]).fails(code, &["did not answer in time"]);
    }
    sandbox.nothing_fetched();
}

#[test]
fn a_hanging_destination_never_eats_the_next_ones_time() {
    let (sandbox, content) = archived();
    let hung = sandbox.path("hung");
    fs::create_dir_all(hung.join("wal_005")).unwrap();
    hang(&hung.join(format!("wal_005/{ONE}.zst")));
    let fetch = Run::of(
        sandbox
            .program("wal-fetch")
            .arg("--archive")
            .arg(&hung)
            .arg("--archive")
            .arg(sandbox.archive())
            .args(["--timeout", "10s", ONE, "pg_wal/RECOVERYXLOG"]),
    );
    fetch.fails(0, &["warning", "hung", "did not answer in time"]);
    assert!(sandbox.fetched() == content);
}

#[test]
fn codes_24_and_224_for_a_hole_with_both_names_and_the_way_out() {
    let (sandbox, _) = archived();
    fs::remove_file(sandbox.object(ONE)).unwrap();
    let patient = Instant::now();
    sandbox.fetch(ONE, &["--on-error", "retry"]).fails(24, &[ONE, TWO, "hole", "HINT:", "--accept-gap"]);
    assert!(patient.elapsed() >= Duration::from_secs(14), "believed only after 15 s");
    // With less time than that, what is known is said at the deadline.
    sandbox.fetch_now(ONE, &[]).fails(224, &[ONE, TWO]);
    sandbox.fetch(ONE, &["--accept-gap", ONE]).fails(1, &["warning", "--accept-gap", ONE, TWO]);
    sandbox.fetch_now(ONE, &["--accept-gap", THREE]).fails(224, &[ONE, TWO]);
    sandbox.nothing_fetched();
}

#[test]
fn another_clusters_archive_has_no_holes() {
    let (sandbox, _) = archived();
    let other = sandbox.make_data_directory("other", 42);
    let archive = sandbox.archive();
    fs::remove_file(sandbox.object(ONE)).unwrap();
    let fetch = |args: &[&str]| {
        let mut command = sandbox.program("wal-fetch");
        Run::of(
            command
                .current_dir(&other)
                .arg("--archive")
                .arg(&archive)
                .args(args)
                .args([ONE, "pg_wal/RECOVERYXLOG"]),
        )
    };
    fetch(&[]).fails(220, &["42", &CLUSTER.to_string(), "HINT:"]);
    fetch(&["--accept-gap", ONE]).fails(220, &["42"]);
}

#[test]
fn a_fetch_that_waits_ends_when_its_server_is_gone() {
    let sandbox = Sandbox::without_archive();
    let mut server = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    fs::write(sandbox.data().join("postmaster.pid"), format!("{}\n", server.id())).unwrap();
    let folder = fs::File::open(sandbox.data().join("pg_wal")).unwrap();
    std::thread::scope(|scope| {
        let fetch = scope.spawn(|| {
            let args = ["--on-error", "retry", "--timeout", "1h"];
            sandbox.fetch("00000002.history", &args).fails(220, &["the server that asked is gone"]);
        });
        // It is at work while it holds the lock.
        while fs2::FileExt::try_lock_shared(&folder).is_ok() {
            fs2::FileExt::unlock(&folder).unwrap();
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(500));
        server.kill().unwrap();
        fetch.join().unwrap();
    });
    server.wait().unwrap();
}

#[test]
fn a_hole_that_is_filled_meanwhile_is_none() {
    let (sandbox, content) = archived();
    let aside = sandbox.path("aside");
    fs::rename(sandbox.object(ONE), &aside).unwrap();
    let come_back = || fs::rename(&aside, sandbox.object(ONE)).unwrap();
    sandbox.fetch_waiting(ONE, &[], come_back).fails(0, &["warning", ONE, "asked for again"]);
    assert!(sandbox.fetched() == content);
}

#[test]
fn a_later_partial_segment_makes_a_hole_and_another_timelines_segment_does_not() {
    let (sandbox, _) = archived();
    let stranger = "000000020000000000000009";
    sandbox.wal(stranger, &segment(stranger, MIB, CLUSTER, 1));
    assert_eq!(sandbox.push(stranger, &[]).code, Some(0));
    assert_eq!(sandbox.fetch(THREE, &[]).code, Some(1));
    let partial = "000000010000000000000005.partial";
    sandbox.wal(partial, &segment(&partial[..24], MIB, CLUSTER, 1));
    sandbox.push(partial, &[]).succeeds();
    sandbox.fetch_now(THREE, &[]).fails(224, &[THREE, partial]);
    // Of the partial segment's own name the full one is simply not there.
    assert_eq!(sandbox.fetch(&partial[..24], &[]).code, Some(1));
}

#[test]
fn an_unknown_encoding_is_an_error_and_never_missing() {
    let (sandbox, _) = archived();
    for name in [THREE, "00000002.history"] {
        for extension in ["xz", "gpg", "zst2"] {
            let path = sandbox.archive().join(format!("wal_005/{name}.{extension}"));
            fs::write(&path, "x").unwrap();
            sandbox.fetch_now(name, &[]).fails(220, &[name, extension, "encoding"]);
            fs::remove_file(path).unwrap();
        }
        fs::write(sandbox.archive().join(format!("wal_005/{name}.json")), "x").unwrap();
        assert_eq!(sandbox.fetch(name, &[]).code, Some(1), "WAL-G's metadata is a stranger");
    }
}

#[test]
fn the_next_destination_is_asked_after_any_fault_and_1_needs_every_answer() {
    let (sandbox, content) = archived();
    let second = sandbox.path("second");
    let copy = |from: &Path, to: &Path| {
        assert!(std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    copy(&sandbox.archive(), &second);
    let both = ["--archive", second.to_str().unwrap()];
    let fetch = |name: &str| {
        unless_late(&SOON, |time| sandbox.fetch(name, &[&both[..], &["--timeout", time]].concat()))
    };
    let faults: [(&str, &dyn Fn()); 4] = [
        ("missing", &|| fs::remove_file(sandbox.object(ONE)).unwrap()),
        ("damaged", &|| fs::write(sandbox.object(ONE), "junk").unwrap()),
        ("not an archive", &|| fs::remove_dir_all(sandbox.archive().join("wal_005")).unwrap()),
        ("gone", &|| fs::remove_dir_all(sandbox.archive()).unwrap()),
    ];
    for (fault, make) in faults {
        make();
        let run = fetch(ONE);
        assert_eq!(run.code, Some(0), "{fault}: {run:?}");
        assert!(sandbox.fetched() == content, "{fault}");
    }
    // One says "not there", the other does not answer.
    assert_eq!(fetch(THREE).code, Some(220));
    // Both answer.
    copy(&second, &sandbox.archive());
    assert_eq!(fetch(THREE).code, Some(1));
    // Damage in one and a hole in the other: the damage is what can be repaired.
    fs::write(sandbox.object(ONE), "junk").unwrap();
    fs::remove_file(second.join(format!("wal_005/{ONE}.zst"))).unwrap();
    assert_eq!(fetch(ONE).code, Some(221));
}

#[test]
fn in_mid_promotion_a_history_comes_from_pg_wal_or_stops_the_server() {
    let (sandbox, _) = archived();
    signal(&sandbox, "postmaster.pid");
    let history = b"1\t0/2000000\tno recovery target specified\n";
    sandbox.wal("00000002.history", history);
    // PostgreSQL would read it after the answer "absent", too.
    sandbox.fetch("00000002.history", &[]).succeeds();
    assert!(sandbox.fetched() == history);
    fs::rename(sandbox.archive(), sandbox.path("away")).unwrap();
    sandbox.fetch("00000002.history", &[]).fails(0, &["warning", "taken from pg_wal"]);
    assert!(sandbox.fetched() == history);
    // Even for who asked for the retry form: there is nobody left to ask again.
    sandbox.wal("00000002.history", b"");
    let run = sandbox.fetch_now("00000002.history", &["--on-error", "retry"]);
    run.fails(220, &["HINT:", "middle of a promotion", "standby.signal or recovery.signal again"]);
    // A standby's poll is none.
    signal(&sandbox, "standby.signal");
    let poll = sandbox.fetch_now("00000002.history", &[]);
    poll.fails(20, &["do not promote while the archive does not answer"]);
    // And no segment is ever taken from pg_wal for an archive that does not answer.
    fs::remove_file(sandbox.data().join("standby.signal")).unwrap();
    sandbox.segment(ONE);
    sandbox.fetch_now(ONE, &[]).fails(220, &["cannot open the archive's root"]);
}

#[test]
fn pg_rewind_gets_the_file_under_its_final_name_in_another_directory() {
    let (sandbox, content) = archived();
    let target = sandbox.make_data_directory("target", CLUSTER);
    let wanted = target.join("pg_wal").join(ONE);
    let run = Run::of(
        sandbox
            .program("wal-fetch")
            .current_dir("/")
            .arg("--archive")
            .arg(sandbox.archive())
            .arg(ONE)
            .arg(&wanted),
    );
    run.succeeds();
    assert!(fs::read(&wanted).unwrap() == content);
    // The cluster is that of the target, wherever pg_rewind was started.
    let other = sandbox.make_data_directory("other", 42);
    let run = Run::of(
        sandbox
            .program("wal-fetch")
            .arg("--archive")
            .arg(sandbox.archive())
            .arg(ONE)
            .arg(other.join("pg_wal").join(ONE)),
    );
    run.fails(221, &["42"]);
}

#[test]
fn what_a_killed_fetch_left_is_removed_by_the_next() {
    let (sandbox, _) = archived();
    let left = sandbox.data().join("pg_wal/xlogtemp.wal-fetch.4194305.0");
    fs::write(&left, "half").unwrap();
    sandbox.fetch(ONE, &[]).succeeds();
    assert!(!left.exists());
    assert_eq!(names(&sandbox.data().join("pg_wal")), ["RECOVERYXLOG", "archive_status"]);
}

#[test]
fn messages_are_one_json_object_a_line_where_asked() {
    let (sandbox, _) = archived();
    let run = sandbox.fetch(ONE, &["--log-format", "json", "--config", "/no/such"]);
    assert!(run.stderr.starts_with("wal-fetch: error:"), "the format is not known yet: {run:?}");
    flip(&sandbox.object(ONE), 8_000);
    let run = sandbox.fetch(ONE, &["--log-format", "json"]).fails(221, &["damaged"]);
    let event: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!((event["level"].as_str(), event["program"].as_str()), (Some("error"), Some("wal-fetch")));
    assert!(event["hint"].as_str().unwrap().contains("good copy"), "{event}");
}

#[test]
fn a_closed_stderr_changes_nothing() {
    let (sandbox, _) = archived();
    flip(&sandbox.object(ONE), 8_000);
    let shell = "exec 2>&-; exec \"$0\" --archive \"$1\" --on-error retry \"$2\" pg_wal/RECOVERYXLOG";
    let run = Run::of(
        std::process::Command::new("sh")
            .current_dir(sandbox.data())
            .args(["-c", shell, env!("CARGO_BIN_EXE_wal-fetch")])
            .arg(sandbox.archive())
            .arg(ONE),
    );
    assert_eq!(run.code, Some(21), "{run:?}");
    sandbox.nothing_fetched();
}
