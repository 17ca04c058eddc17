//! The order of the system calls of a push, as strace sees it: nothing is acknowledged that is
//! not durable, and nothing is ever replaced.

use crate::util::{MIB, Run, Sandbox, init_arguments};
use std::fs;
use std::process::Command;

const ONE: &str = "000000010000000000000001";

/// The traced calls of a push.
fn traced(sandbox: &Sandbox) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_wal-push");
    traced_of(
        sandbox,
        Command::new(program).arg("--archive").arg(sandbox.archive()).arg(format!("pg_wal/{ONE}")),
    )
}

/// The traced calls of a program that succeeds, in order, each with the paths of its descriptors.
fn traced_of(sandbox: &Sandbox, command: &Command) -> Vec<String> {
    let trace = sandbox.path("trace");
    let run = Run::of(
        Command::new("strace")
            .current_dir(sandbox.data())
            .args([
                "-f",
                "-y",
                "-e",
                "trace=openat,write,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,exit_group",
            ])
            .arg("-o")
            .arg(&trace)
            .arg(command.get_program())
            .args(command.get_args()),
    );
    assert_eq!(run.code, Some(0), "{run:?}");
    // Without the process number; with calls that another thread interrupted put together.
    let text = fs::read_to_string(trace).unwrap();
    let mut unfinished: Vec<(String, String)> = Vec::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let (pid, call) = line.split_once(' ').unwrap();
        let call = call.trim();
        if let Some(start) = call.strip_suffix(" <unfinished ...>") {
            unfinished.push((pid.to_owned(), start.to_owned()));
        } else if let Some((_, end)) = call.split_once(" resumed>") {
            let at = unfinished.iter().position(|(other, _)| other == pid).unwrap();
            calls.push(format!("{}{end}", unfinished.remove(at).1));
        } else {
            calls.push(call.to_owned());
        }
    }
    calls
}

/// Where the only call is that starts so and contains all of these.
#[track_caller]
fn only(calls: &[String], start: &str, words: &[&str]) -> usize {
    let matching = |call: &String| call.starts_with(start) && words.iter().all(|word| call.contains(word));
    let found: Vec<_> =
        calls.iter().enumerate().filter(|(_, call)| matching(call)).map(|(at, _)| at).collect();
    assert_eq!(found.len(), 1, "{start} {words:?} in\n{}", calls.join("\n"));
    found[0]
}

#[test]
fn data_is_durable_before_it_is_published_and_its_folders_before_success() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let calls = traced(&sandbox);
    let root = sandbox.archive().display().to_string();
    let folder = format!("{root}/wal_005");
    let temporary = format!("<{folder}/.wal-archive.");

    let last_write =
        calls.iter().rposition(|call| call.starts_with("write(") && call.contains(&temporary)).unwrap();
    let data = only(&calls, "fsync(", &[&temporary, "= 0"]);
    let publish = only(&calls, "renameat2(", &[&format!("{ONE}.zst\""), "RENAME_NOREPLACE", "= 0"]);
    let folder_sync = only(&calls, "fsync(", &[&format!("<{folder}>"), "= 0"]);
    let root_syncs: Vec<_> = (0..calls.len())
        .filter(|at| calls[*at].starts_with("fsync(") && calls[*at].contains(&format!("<{root}>")))
        .collect();
    let exit = only(&calls, "exit_group(0)", &[]);
    let order = [last_write, data, publish, folder_sync, *root_syncs.last().unwrap(), exit];
    assert!(order.is_sorted(), "{order:?} in\n{}", calls.join("\n"));

    // Nothing below the root is ever moved by a call that could replace.
    let replacing = |call: &&String| {
        let moves = ["rename(", "renameat(", "link(", "linkat("].iter().any(|start| call.starts_with(start));
        (moves || call.starts_with("renameat2(") && !call.contains("RENAME_NOREPLACE"))
            && call.contains(&root)
    };
    assert_eq!(calls.iter().find(replacing), None);
}

#[test]
fn a_new_archive_is_durable_before_init_ends() {
    let sandbox = Sandbox::without_archive();
    let program = env!("CARGO_BIN_EXE_wal-archive");
    let calls = traced_of(&sandbox, Command::new(program).args(init_arguments(MIB)).arg(sandbox.archive()));
    let root = sandbox.archive().display().to_string();
    let data = only(&calls, "fsync(", &[&format!("<{root}/.wal-archive."), "= 0"]);
    let publish = only(&calls, "renameat2(", &["archive.json\"", "RENAME_NOREPLACE", "= 0"]);
    let folder = only(&calls, "fsync(", &[&format!("<{root}>"), "= 0"]);
    let exit = only(&calls, "exit_group(0)", &[]);
    assert!([data, publish, folder, exit].is_sorted(), "{}", calls.join("\n"));
}

#[test]
fn an_identical_object_is_made_durable_again_before_success() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    let calls = traced(&sandbox);
    let root = sandbox.archive().display().to_string();
    let object = only(&calls, "fsync(", &[&format!("<{root}/wal_005/{ONE}.zst>"), "= 0"]);
    let folder = only(&calls, "fsync(", &[&format!("<{root}/wal_005>"), "= 0"]);
    let top = only(&calls, "fsync(", &[&format!("<{root}>"), "= 0"]);
    let exit = only(&calls, "exit_group(0)", &[]);
    assert!([object, folder, top, exit].is_sorted(), "{}", calls.join("\n"));
    let changes = calls
        .iter()
        .find(|call| call.contains(&root) && (call.contains("O_CREAT") || call.starts_with("rename")));
    assert_eq!(changes, None, "nothing was written");
}
