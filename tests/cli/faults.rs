//! Failing system calls, injected one by one by strace: whatever the kernel answers, 0 means that the
//! file can be fetched, no failure looks like the end of the archive, and the repeat succeeds.
//!
//! What is counted and failed is what each thread calls once `main` has begun; what the dynamic
//! loader asks for is beyond this program. Calls for memory are left to the tests of limits: a
//! process that gets none cannot say so.

use crate::util::{CLUSTER, MIB, Run, Sandbox, rounds, segment};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// The calls that are made to fail, and of what.
const FAULTS: [(&[&str], &[&str]); 4] = [
    (
        &[
            "openat",
            "read",
            "pread64",
            "write",
            "pwrite64",
            "writev",
            "fsync",
            "fdatasync",
            "ftruncate",
            "link",
            "linkat",
            "rename",
            "renameat",
            "renameat2",
            "mkdir",
            "mkdirat",
            "copy_file_range",
        ],
        &["EIO", "ENOSPC", "EINTR", "ENOMEM"],
    ),
    (
        &[
            "statx",
            "fstat",
            "newfstatat",
            "lstat",
            "stat",
            "lseek",
            "getdents64",
            "unlink",
            "unlinkat",
            "fchmod",
            "fchown",
            "readlink",
            "readlinkat",
            "statfs",
            "fstatfs",
            "flock",
            "fadvise64",
            "access",
        ],
        &["EIO", "ENOMEM"],
    ),
    (&["clone", "clone3", "vfork", "pipe2"], &["EAGAIN", "ENOMEM"]),
    (&["wait4", "waitid", "poll", "ppoll"], &["EINTR"]),
];

/// How often each of those calls may be made to fail: from its first call in `main` to its last.
type Calls = BTreeMap<&'static str, (usize, usize)>;

/// Runs the command undisturbed and counts.
fn count(sandbox: &Sandbox, command: &[String]) -> Calls {
    let trace = sandbox.path("trace");
    let run = Run::of(
        Command::new("strace").current_dir(sandbox.data()).args(["-f", "-o"]).arg(&trace).args(command),
    );
    assert!(run.code.is_some(), "{run:?}");
    let text = fs::read_to_string(&trace).unwrap();
    let first = text.split_whitespace().next().unwrap().to_owned();
    let (mut counts, mut before) = (BTreeMap::new(), BTreeMap::new());
    let mut begun = false;
    for line in text.lines() {
        let (pid, call) = line.split_once(' ').unwrap();
        let call = call.trim_start().split('(').next().unwrap();
        // The first thing that Rust's runtime does is to look at the standard streams.
        begun |= pid == first && call == "poll";
        let known = FAULTS.iter().flat_map(|(calls, _)| *calls).find(|known| **known == call);
        if let Some(call) = known {
            *counts.entry((*call, pid)).or_insert(0) += 1;
            if !begun {
                *before.entry(*call).or_insert(0) += 1;
            }
        }
    }
    assert!(begun, "the beginning of main was not found in\n{text}");
    let mut calls = Calls::new();
    for ((call, _), count) in counts {
        let from = before.get(call).copied().unwrap_or(0) + 1;
        let (_, last) = calls.entry(call).or_insert((from, 0));
        *last = (*last).max(count);
    }
    calls.retain(|_, (from, last)| from <= last);
    calls
}

/// All single faults, in an order that spreads over all of them from the start.
fn plan(calls: &Calls) -> Vec<(&'static str, &'static str, usize)> {
    let mut faults = Vec::new();
    for (names, errors) in FAULTS {
        for call in names {
            let (from, last) = calls.get(call).copied().unwrap_or((1, 0));
            for when in from..=last {
                faults.extend(errors.iter().map(|error| (*call, *error, when)));
            }
        }
    }
    let step = (faults.len() as f64 * 0.618) as usize | 1;
    let step = (step..).find(|step| gcd(*step, faults.len()) == 1).unwrap();
    (0..faults.len()).map(|at| faults[at * step % faults.len()]).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Runs the command with one call failing once in each thread that comes so far.
fn disturbed(sandbox: &Sandbox, fault: (&str, &str, usize), command: &[String]) -> Run {
    let (call, error, when) = fault;
    Run::of(
        Command::new("strace")
            .current_dir(sandbox.data())
            .args(["-f", "--seccomp-bpf", "-qq", "-o"])
            .arg(sandbox.path("trace"))
            .args(["-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:error={error}:when={when}")])
            .args(command),
    )
}

/// The command line of a program that gives up soon.
fn command(sandbox: &Sandbox, program: &str, timeout: &str, args: &[&str]) -> Vec<String> {
    let path = match program {
        "wal-push" => env!("CARGO_BIN_EXE_wal-push"),
        _ => env!("CARGO_BIN_EXE_wal-fetch"),
    };
    let archive = sandbox.archive().display().to_string();
    let mut command = [path, "--archive", &archive, "--timeout", timeout].map(str::to_owned).to_vec();
    command.extend(args.iter().map(|arg| (*arg).to_owned()));
    command
}

/// Only where the message itself could not be written, or not read from the worker that wrote it, may
/// it be missing.
fn says_why(fault: (&str, &str, usize), run: &Run) -> bool {
    ["write", "read"].contains(&fault.0) || !run.stderr.is_empty()
}

fn name(number: usize) -> String {
    format!("00000001{:08X}{:08X}", number / 256, number % 256)
}

/// How many faults of each campaign.
fn campaign() -> usize {
    rounds("WAL_ARCHIVE_FAULTS", 60)
}

#[test]
fn a_push_in_which_a_system_call_fails_is_durable_or_says_so() {
    let sandbox = Sandbox::new();
    let push = |name: &str| command(&sandbox, "wal-push", "20s", &[&format!("pg_wal/{name}")]);
    sandbox.wal(&name(0), &segment(&name(0), MIB, CLUSTER, 0));
    let faults = plan(&count(&sandbox, &push(&name(0))));
    let mut codes = BTreeMap::new();
    for (number, fault) in (1..).zip(faults.iter().take(campaign())) {
        let name = name(number);
        let content = segment(&name, MIB, CLUSTER, number as u64);
        sandbox.wal(&name, &content);
        let run = disturbed(&sandbox, *fault, &push(&name));
        *codes.entry(run.code).or_insert(0) += 1;
        assert!(matches!(run.code, Some(0 | 2 | 10 | 13 | 14)), "{fault:?}: {run:?}");
        if run.code != Some(0) {
            assert!(says_why(*fault, &run), "{fault:?}: {run:?}");
            sandbox.push(&name, &[]).succeeds();
        }
        sandbox.fetch(&name, &["--prefetch", "0"]).succeeds();
        assert!(sandbox.fetched() == content, "{fault:?}: other bytes were archived");
        fs::remove_file(sandbox.object(&name)).unwrap();
        fs::remove_file(sandbox.data().join("pg_wal").join(&name)).unwrap();
    }
    println!("{} of {} faults, codes {codes:?}", faults.len().min(campaign()), faults.len());
}

#[test]
fn a_fetch_in_which_a_system_call_fails_delivers_the_file_or_nothing_and_never_says_absent() {
    let sandbox = Sandbox::new();
    let (there, hole, later) = (name(1), name(2), name(3));
    for name in [&there, &later] {
        sandbox.wal(name, &segment(name, MIB, CLUSTER, 1));
        sandbox.push(name, &[]).succeeds();
    }
    // A hole is waited for until the deadline.
    let timeout = |name: &str| if name == there { "20s" } else { "1s" };
    let fetch = |name: &str| {
        let args = ["--prefetch", "0", name, "pg_wal/RECOVERYXLOG"];
        command(&sandbox, "wal-fetch", timeout(name), &args)
    };
    let content = segment(&there, MIB, CLUSTER, 1);
    let mut codes = BTreeMap::new();
    for name in [&there, &hole] {
        let faults = plan(&count(&sandbox, &fetch(name)));
        let _ = fs::remove_file(sandbox.data().join("pg_wal/RECOVERYXLOG")); // of the counted run
        for fault in faults.iter().take(campaign() / 2) {
            let run = disturbed(&sandbox, *fault, &fetch(name));
            *codes.entry(run.code).or_insert(0) += 1;
            match run.code {
                Some(0) if name == &there => {
                    assert!(sandbox.fetched() == content, "{fault:?}: other bytes were delivered");
                }
                Some(202 | 220..=224) => {
                    assert!(says_why(*fault, &run), "{fault:?}: {run:?}");
                    assert!(!sandbox.data().join("pg_wal/RECOVERYXLOG").exists(), "{fault:?}: {run:?}");
                }
                _ => panic!("{fault:?}: {run:?}"),
            }
        }
    }
    println!("codes {codes:?}");
}
