//! The two processes of a call: whatever becomes of the one that works, PostgreSQL sees a documented
//! code of the one that it waits for.

use crate::util::{NOW, Run, Sandbox, hang, unless_late, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

const ONE: &str = "000000010000000000000001";
const HISTORY: &str = "00000002.history";

/// The workers that run in this sandbox.
fn workers(sandbox: &Sandbox) -> Vec<i32> {
    let archive = sandbox.archive();
    let is_ours = |pid: &i32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
        arguments.get(1) == Some(&&b"--worker"[..])
            && arguments.contains(&archive.as_os_str().as_encoded_bytes())
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
}

fn next_worker(sandbox: &Sandbox, but: &[i32]) -> i32 {
    let mut next = None;
    wait_until("a worker", || {
        next = workers(sandbox).into_iter().find(|worker| !but.contains(worker));
        next.is_some()
    });
    next.unwrap()
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// An archive whose identity hangs whoever reads it.
fn hanging() -> Sandbox {
    let sandbox = Sandbox::without_archive();
    sandbox.segment(ONE);
    hang(&sandbox.archive().join("archive.json"));
    fs::create_dir(sandbox.archive().join("wal_005")).unwrap();
    hang(&sandbox.object(ONE));
    sandbox
}

fn start(sandbox: &Sandbox, program: &str, args: &[&str]) -> Child {
    let mut command = sandbox.program(program);
    command.arg("--archive").arg(sandbox.archive()).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn start_push(sandbox: &Sandbox) -> Child {
    start(sandbox, "wal-push", &["--timeout", "1h", &format!("pg_wal/{ONE}")])
}

/// The end of a program: its code and what it said on stderr.
fn end(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[test]
fn a_push_whose_worker_is_killed_tries_once_more_and_then_says_13() {
    let sandbox = hanging();
    let push = start_push(&sandbox);
    let first = next_worker(&sandbox, &[]);
    kill(first, Signal::KILL);
    let second = next_worker(&sandbox, &[first]);
    kill(second, Signal::ABORT);
    let (code, said) = end(push);
    assert_eq!(code, Some(13), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("warning") && lines[0].contains("signal: 9"), "{said}");
    assert!(
        lines[1].contains("error") && lines[1].contains("signal: 6") && lines[1].contains("HINT: "),
        "{said}"
    );
}

#[test]
fn a_fetch_whose_worker_is_killed_says_20_or_220() {
    let sandbox = hanging();
    for (form, expected) in [("retry", 20), ("abort", 220)] {
        let args = ["--timeout", "1h", "--on-error", form, ONE, "pg_wal/RECOVERYXLOG"];
        let fetch = start(&sandbox, "wal-fetch", &args);
        kill(next_worker(&sandbox, &[]), Signal::ABORT);
        let (code, said) = end(fetch);
        assert_eq!(code, Some(expected), "{said}");
        assert!(said.contains("signal: 6"), "{said}");
        sandbox.nothing_fetched();
    }
}

#[test]
fn a_supervisor_that_is_ended_takes_its_worker_with_it() {
    let sandbox = hanging();
    for signal in [Signal::TERM, Signal::KILL] {
        let mut push = start_push(&sandbox);
        let worker = next_worker(&sandbox, &[]);
        kill(i32::try_from(push.id()).unwrap(), signal);
        assert_eq!(push.wait().unwrap().code(), None, "by the signal");
        wait_until("the end of the worker", || !workers(&sandbox).contains(&worker));
    }
}

#[test]
fn a_worker_without_its_supervisor_does_nothing() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let orders = r#"{"supervisor":1,"left":60000,"look_ahead":true}"#;
    let mut command = sandbox.program("wal-push");
    command.args(["--worker", orders, "--archive"]).arg(sandbox.archive()).arg(format!("pg_wal/{ONE}"));
    let run = Run::of(&mut command);
    assert!(run.code == Some(13) && run.stderr.contains("is gone"), "{run:?}");
    assert!(!sandbox.object(ONE).exists());
    let run = Run::of(sandbox.program("wal-push").args(["--worker", "junk", ONE]));
    run.fails(2, &["--worker"]);
}

#[test]
fn ignored_signals_and_closed_streams_change_no_code() {
    let sandbox = Sandbox::new();
    let content = sandbox.segment(ONE);
    let shell = |script: &str, program: &str, args: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", script, program, "--archive"]).arg(sandbox.archive()).args(args);
        Run::of(command.current_dir(sandbox.data()).env_clear())
    };
    for script in [
        "trap '' CHLD; exec \"$0\" \"$@\"",
        "trap '' PIPE INT ALRM; exec \"$0\" \"$@\"",
        "exec \"$0\" \"$@\" <&- >&-",
        "exec \"$0\" \"$@\" <&- >&- 2>&-",
    ] {
        let push = format!("pg_wal/{ONE}");
        shell(script, env!("CARGO_BIN_EXE_wal-push"), &[&push]).succeeds();
        shell(script, env!("CARGO_BIN_EXE_wal-fetch"), &[ONE, "pg_wal/RECOVERYXLOG"]).succeeds();
        assert!(sandbox.fetched() == content);
        let absent = ["000000010000000000000009", "pg_wal/RECOVERYXLOG"];
        assert_eq!(shell(script, env!("CARGO_BIN_EXE_wal-fetch"), &absent).code, Some(1), "{script}");
    }
}

#[test]
fn where_the_server_is_process_1_there_is_no_worker() {
    let sandbox = hanging();
    fs::write(sandbox.data().join("postmaster.pid"), "1\n/data\n1700000000\n5432\n").unwrap();
    let mut push = start(&sandbox, "wal-push", &["--timeout", "3s", &format!("pg_wal/{ONE}")]);
    while push.try_wait().unwrap().is_none() {
        assert!(workers(&sandbox).is_empty());
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(push.wait().unwrap().code(), Some(14), "a pipe can be left");
}

/// A data directory in the middle of a promotion, the archive hanging, with this own copy.
fn promoting(own: &str) -> Sandbox {
    let sandbox = hanging();
    hang(&sandbox.object(HISTORY));
    fs::write(sandbox.data().join("postmaster.pid"), format!("{}\n/data\n1700000000\n", std::process::id()))
        .unwrap();
    fs::write(sandbox.data().join("pg_wal").join(HISTORY), own).unwrap();
    sandbox
}

const OWN: &str = "1\t0/3000000\tno recovery target specified\n";

#[test]
fn in_mid_promotion_a_valid_history_of_pg_wal_is_not_waited_for_until_the_deadline() {
    let sandbox = promoting(OWN);
    // The deadline is an hour away, and the test ends.
    let run = sandbox.fetch_history(&["--timeout", "1h"]);
    run.fails(0, &["warning", HISTORY, "was taken from pg_wal"]);
    assert_eq!(sandbox.fetched_history(), OWN.as_bytes());
}

#[test]
fn in_mid_promotion_without_a_valid_history_it_is_the_abort_form_with_the_way_out() {
    for own in ["", "junk"] {
        let sandbox = promoting(own);
        let run = sandbox.fetch_history(&["--timeout", "2s", "--on-error", "retry"]);
        run.fails(223, &["HINT: ", "create standby.signal or recovery.signal again"]);
    }
}

#[test]
fn a_valid_history_of_pg_wal_is_given_whenever_no_destination_gives_one() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    fs::write(sandbox.data().join("pg_wal").join(HISTORY), OWN).unwrap();
    sandbox.fetch_history(&[]).succeeds();
    assert_eq!(sandbox.fetched_history(), OWN.as_bytes(), "absent in the archive");
    fs::rename(sandbox.archive(), sandbox.path("away")).unwrap();
    for form in ["retry", "abort"] {
        let run = sandbox.fetch_history(&["--timeout", "2s", "--on-error", form]);
        run.fails(0, &["warning", "was taken from pg_wal"]);
        assert_eq!(sandbox.fetched_history(), OWN.as_bytes(), "unreachable, {form}");
    }
    fs::write(sandbox.data().join("pg_wal").join(HISTORY), "2\t0/1\tof itself\n").unwrap();
    let run = unless_late(&NOW, |timeout| sandbox.fetch_history(&["--timeout", timeout]));
    run.fails(220, &["archive"]);
}

impl Sandbox {
    fn fetch_history(&self, args: &[&str]) -> Run {
        let mut command = self.program("wal-fetch");
        command.arg("--archive").arg(self.archive()).args(args).args([HISTORY, "pg_wal/RECOVERYHISTORY"]);
        Run::of(&mut command)
    }

    fn fetched_history(&self) -> Vec<u8> {
        let path = self.data().join("pg_wal/RECOVERYHISTORY");
        let content = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        content
    }
}
