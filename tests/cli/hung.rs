//! Destinations that hang in the kernel: the deadline holds, and nothing piles up.

use crate::fuse::Hung;
use crate::util::{Run, Sandbox, wait_until};
use std::fs;
use std::time::{Duration, Instant};

const ONE: &str = "000000010000000000000001";

/// The time that the call gets, and how much a loaded machine may take of it in all.
const TIMEOUT: Duration = Duration::from_secs(5);
const SLOWLY: u32 = 10;

/// A program that reaches the archive there first.
fn run(sandbox: &Sandbox, program: &str, hung: &Hung, args: &[&str]) -> Run {
    let start = Instant::now();
    let mut command = sandbox.program(program);
    let run = Run::of(command.args(["--timeout", "5s", "--archive"]).arg(hung.archive()).args(args));
    assert!(start.elapsed() < SLOWLY * TIMEOUT, "{:?}: {run:?}", start.elapsed());
    run
}

fn push(sandbox: &Sandbox, hung: &Hung, args: &[&str]) -> Run {
    run(sandbox, "wal-push", hung, &[args, &[&format!("pg_wal/{ONE}")]].concat())
}

fn fetch(sandbox: &Sandbox, hung: &Hung, args: &[&str]) -> Run {
    run(sandbox, "wal-fetch", hung, &[args, &[ONE, "pg_wal/RECOVERYXLOG"]].concat())
}

/// The process that a message names.
fn named(run: &Run) -> u32 {
    let message =
        run.stderr.split("because process ").nth(1).unwrap_or_else(|| panic!("no process: {run:?}"));
    message.split(' ').next().unwrap().parse().unwrap()
}

fn lives(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap()
}

#[test]
fn a_push_to_a_hung_mount_ends_by_its_deadline_and_ten_repeats_leave_one_process() {
    let sandbox = Sandbox::new();
    let hung = Hung::mount(&sandbox.path("hung"));
    sandbox.segment(ONE);
    push(&sandbox, &hung, &[]).fails(14, &["did not answer in time", "hung/below/archive"]);
    let asked = hung.asked();
    let left: Vec<u32> = (0..10)
        .map(|_| {
            let run = push(&sandbox, &hung, &[]).fails(13, &["is not asked, because process", "HINT: "]);
            named(&run)
        })
        .collect();
    assert_eq!(hung.asked(), asked, "nothing more was begun there");
    assert!(left.iter().all(|pid| *pid == left[0]) && lives(left[0]), "{left:?}");
    drop(hung);
    wait_until("the end of the process that the kernel lets go", || !lives(left[0]));
    sandbox.push(ONE, &[]).succeeds();
}

#[test]
fn without_a_spool_a_process_that_hangs_is_known_as_well() {
    let sandbox = Sandbox::new();
    let hung = Hung::mount(&sandbox.path("hung"));
    sandbox.segment(ONE);
    let spool = ["--spool-dir", "/proc/nowhere"];
    push(&sandbox, &hung, &spool).fails(14, &["did not answer in time"]);
    let asked = hung.asked();
    let first = named(&push(&sandbox, &hung, &spool).fails(13, &["is not asked"]));
    assert_eq!(named(&push(&sandbox, &hung, &spool).fails(13, &["is not asked"])), first);
    assert_eq!(hung.asked(), asked);
    assert!(lives(first));
}

#[test]
fn a_hung_destination_does_not_keep_the_file_from_the_others() {
    let sandbox = Sandbox::new();
    let hung = Hung::mount(&sandbox.path("hung"));
    sandbox.segment(ONE);
    let archive = sandbox.archive();
    let other = ["--archive", archive.to_str().unwrap()];
    push(&sandbox, &hung, &other).fails(14, &["did not answer in time"]);
    assert!(sandbox.object(ONE).exists());
    fs::remove_file(sandbox.object(ONE)).unwrap();
    push(&sandbox, &hung, &other).fails(13, &["is not asked"]);
    assert!(sandbox.object(ONE).exists());
    sandbox.push(ONE, &[]).succeeds();
}

#[test]
fn a_fetch_from_a_hung_mount_ends_by_its_deadline_and_ten_repeats_leave_one_process() {
    let sandbox = Sandbox::new();
    let hung = Hung::mount(&sandbox.path("hung"));
    fetch(&sandbox, &hung, &[]).fails(223, &["did not answer in time", "hung/below/archive"]);
    let asked = hung.asked();
    let repeat = |form| {
        let run = fetch(&sandbox, &hung, &["--on-error", form]);
        named(
            &run.fails(if form == "abort" { 220 } else { 20 }, &["is not asked, because process", "HINT: "]),
        )
    };
    let left: Vec<u32> = (0..5).flat_map(|_| [repeat("abort"), repeat("retry")]).collect();
    assert_eq!(hung.asked(), asked, "nothing more was begun there");
    assert!(left.iter().all(|pid| *pid == left[0]) && lives(left[0]), "{left:?}");
    // A push is another program of the same user, and one process is enough for both.
    sandbox.segment(ONE);
    assert_eq!(named(&push(&sandbox, &hung, &[]).fails(13, &["is not asked"])), left[0]);
    sandbox.nothing_fetched();
}

#[test]
fn a_fetch_goes_on_from_another_destination_and_asks_the_hung_one_last() {
    let sandbox = Sandbox::new();
    let hung = Hung::mount(&sandbox.path("hung"));
    let content = sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    let archive = sandbox.archive();
    let other = ["--archive", archive.to_str().unwrap()];
    fetch(&sandbox, &hung, &other).fails(0, &["warning", "did not answer in time"]);
    assert!(sandbox.fetched() == content);
    fetch(&sandbox, &hung, &other).succeeds();
    assert!(sandbox.fetched() == content);
    // "Not there" needs the answer of the one that gives none.
    let two = "000000010000000000000002";
    let absent = [&other[..], &[two, "pg_wal/RECOVERYXLOG"]].concat();
    run(&sandbox, "wal-fetch", &hung, &absent).fails(220, &["is not asked"]);
}
