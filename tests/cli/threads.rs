//! Few threads or none: an administrator's command does with those that it gets, and whatever it
//! cannot find out then, it never guesses.

use crate::util::{CLUSTER, MIB, Run, Sandbox, flip, is_root, names, segment};
use std::os::unix::fs::lchown;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const DAMAGED: &str = "000000010000000000000005";

/// A user of whom no process is, so that the limit counts the threads of one command alone.
fn lonely_user() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    1_000_000 + 16 * std::process::id() + NEXT.fetch_add(1, Ordering::Relaxed)
}

fn give_away(path: &Path, user: u32) {
    lchown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).unwrap() {
            give_away(&entry.unwrap().path(), user);
        }
    }
}

/// An archive of six segments, and its copy.
fn archives() -> Sandbox {
    let sandbox = Sandbox::new();
    for number in 1..=6 {
        let name = format!("00000001000000000000000{number}");
        sandbox.wal(&name, &segment(&name, MIB, CLUSTER, number));
        sandbox.push(&name, &[]).succeeds();
        sandbox.age(&name);
    }
    sandbox.make_archive("copy");
    let mut copy = sandbox.program("wal-archive");
    let run = Run::of(copy.arg("copy").arg(sandbox.archive()).arg(sandbox.path("copy")));
    assert_eq!(run.code, Some(0), "{run:?}");
    sandbox
}

/// A command of that user, who may have so many threads, that of the command itself included.
fn with_threads(sandbox: &Sandbox, user: u32, threads: u32, args: &[&str]) -> Run {
    let mut command = Command::new("setpriv");
    command.current_dir(sandbox.data()).env_clear();
    command.arg(format!("--reuid={user}")).arg("--clear-groups");
    command.args(["prlimit", &format!("--nproc={threads}"), "--", env!("CARGO_BIN_EXE_wal-archive")]);
    let run = Run::of(command.args(args).arg("--timeout").arg("60s"));
    assert!(!run.stderr.contains("panic"), "{threads} threads: {run:?}");
    run
}

/// Runs it with few threads and more; its codes.
fn codes(sandbox: &Sandbox, args: &[&str]) -> Vec<i32> {
    let user = lonely_user();
    give_away(sandbox.archive().parent().unwrap(), user);
    let (archive, copy) = (sandbox.archive(), sandbox.path("copy"));
    let place = |arg: &&str| match *arg {
        "ARCHIVE" => archive.to_str().unwrap().to_owned(),
        "COPY" => copy.to_str().unwrap().to_owned(),
        other => other.to_owned(),
    };
    let args: Vec<_> = args.iter().map(place).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    [1, 2, 3, 4, 6, 40].map(|threads| with_threads(sandbox, user, threads, &args).code.unwrap()).to_vec()
}

#[test]
fn verify_says_the_same_with_any_number_of_threads() {
    if !is_root() {
        return;
    }
    let sandbox = archives();
    let verify = |depth| codes(&sandbox, &["verify", "--archive", "ARCHIVE", "--archive", "COPY", depth]);
    assert_eq!(verify("--quick"), [0; 6]);
    assert_eq!(verify("--jobs=4"), [0; 6]);
    // The records of made-up segments do not follow each other.
    assert_eq!(verify("--records"), [1; 6]);
    flip(&sandbox.object(DAMAGED), 4000);
    assert_eq!(verify("--jobs=4"), [1; 6]);
}

#[test]
fn list_and_copy_do_their_work_with_any_number_of_threads() {
    if !is_root() {
        return;
    }
    let sandbox = archives();
    assert_eq!(codes(&sandbox, &["list", "--archive", "ARCHIVE", "--archive", "COPY"]), [0; 6]);
    for repair in [&[][..], &["--repair"]] {
        std::fs::remove_dir_all(sandbox.path("copy/wal_005")).unwrap();
        assert_eq!(codes(&sandbox, &[&["copy", "ARCHIVE", "COPY"], repair].concat()), [0; 6]);
        assert_eq!(names(&sandbox.path("copy/wal_005")), sandbox.objects());
    }
}

#[test]
fn check_with_any_number_of_threads_is_never_better_than_with_enough() {
    if !is_root() {
        return;
    }
    let sandbox = archives();
    let data = sandbox.data();
    let sound = ["check", "--archive", "ARCHIVE", "--archive", "COPY", "--pgdata", data.to_str().unwrap()];
    let healthy = codes(&sandbox, &sound);
    assert!(healthy.iter().all(|code| (0..=3).contains(code)), "{healthy:?}");
    let enough = *healthy.last().unwrap();
    assert!(healthy.iter().all(|code| *code >= enough), "{healthy:?}");
}
