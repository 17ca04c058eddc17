//! The order of the system calls of a push, as strace sees it: nothing is acknowledged that is
//! not durable, and nothing is ever replaced.

use crate::util::{MIB, Run, Sandbox, init_arguments};
use std::fs;
use std::process::Command;

const ONE: &str = "000000010000000000000001";

/// The traced calls of a push. Further arguments are strace's.
fn traced(sandbox: &Sandbox, inject: &[&str]) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_wal-push");
    traced_of(
        sandbox,
        inject,
        Command::new(program).arg("--archive").arg(sandbox.archive()).arg(format!("pg_wal/{ONE}")),
    )
}

/// The traced calls of a program that succeeds, in order, each with the paths of its descriptors.
fn traced_of(sandbox: &Sandbox, inject: &[&str], command: &Command) -> Vec<String> {
    let trace = sandbox.path("trace");
    let run = Run::of(
        Command::new("strace")
            .current_dir(sandbox.data())
            .args([
                "-f",
                "-y",
                "-e",
                "trace=openat,write,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,fstatfs,exit_group",
            ])
            .args(inject)
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

/// Where the worker told its supervisor that the file is durable, before any process ended.
#[track_caller]
fn told(calls: &[String]) -> usize {
    let told = only(calls, "write(1<pipe:", &["durable"]);
    let first = calls.iter().position(|call| call.starts_with("exit_group(0)")).unwrap();
    assert!(told < first, "{}", calls.join("\n"));
    told
}

/// The order of a push into a new archive.
#[track_caller]
fn is_ordered(sandbox: &Sandbox, calls: &[String]) {
    let root = sandbox.archive().display().to_string();
    let folder = format!("{root}/wal_005");
    // What has no name yet, or a temporary one.
    let unfinished = |call: &String| {
        call.contains(&format!("<{folder}/#")) || call.contains(&format!("<{folder}/.wal-archive."))
    };
    let text = calls.join("\n");
    let last_write = calls.iter().rposition(|call| call.starts_with("write(") && unfinished(call)).unwrap();
    let syncs = |start: &str| -> Vec<usize> {
        let sync =
            |call: &String| call.starts_with("fsync(") && call.contains(start) && call.ends_with("= 0");
        calls.iter().enumerate().filter(|(_, call)| sync(call)).map(|(at, _)| at).collect()
    };
    let publish = publication(calls, &format!("{ONE}.zst"));
    let data =
        calls[..publish].iter().rposition(|call| call.starts_with("fsync(") && unfinished(call)).unwrap();
    let (folder_sync, root_syncs) = (syncs(&format!("<{folder}>")), syncs(&format!("<{root}>")));
    let order =
        [last_write, data, publish, *folder_sync.last().unwrap(), *root_syncs.last().unwrap(), told(calls)];
    assert!(order.is_sorted(), "{order:?} in\n{text}");

    // What had no name is synced once more when it has one, where the file system may need that.
    let kind = rustix::fs::statfs(sandbox.archive()).unwrap().f_type;
    if calls[publish].starts_with("linkat(") && ![0xEF53, 0x5846_5342, 0x0102_1994].contains(&kind) {
        let again = calls.iter().rposition(|call| call.starts_with("fsync(") && unfinished(call)).unwrap();
        assert!(publish < again && again < *folder_sync.last().unwrap(), "{text}");
    }

    // Nothing below the root is ever moved by a call that could replace; a link cannot.
    let replacing = |call: &&String| {
        let moves = ["rename(", "renameat("].iter().any(|start| call.starts_with(start));
        (moves || call.starts_with("renameat2(") && !call.contains("RENAME_NOREPLACE"))
            && call.contains(&root)
    };
    assert_eq!(calls.iter().find(replacing), None);
}

/// Where a name was given, in the one way or the other.
#[track_caller]
fn publication(calls: &[String], name: &str) -> usize {
    let name = format!("\"{name}\"");
    let gives = |call: &String| {
        let linked = call.starts_with("linkat(") && call.contains("\"/proc/self/fd/");
        let renamed = call.starts_with("renameat2(") && call.contains("RENAME_NOREPLACE");
        (linked || renamed) && call.contains(&name) && call.ends_with("= 0")
    };
    let found: Vec<_> = calls.iter().enumerate().filter(|(_, call)| gives(call)).map(|(at, _)| at).collect();
    assert_eq!(found.len(), 1, "{name} in\n{}", calls.join("\n"));
    found[0]
}

#[test]
fn data_is_durable_before_it_is_published_and_its_folders_before_success() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    is_ordered(&sandbox, &traced(&sandbox, &[]));
}

#[test]
fn the_order_is_the_same_where_every_file_needs_a_name() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let calls = traced(&sandbox, &["-e", "inject=linkat:error=EPERM"]);
    assert!(calls[publication(&calls, &format!("{ONE}.zst"))].starts_with("renameat2("));
    is_ordered(&sandbox, &calls);
}

#[test]
fn a_new_archive_is_durable_before_init_ends() {
    let sandbox = Sandbox::without_archive();
    let program = env!("CARGO_BIN_EXE_wal-archive");
    let init = init_arguments(MIB);
    let calls = traced_of(&sandbox, &[], Command::new(program).args(init).arg(sandbox.archive()));
    let root = sandbox.archive().display().to_string();
    let publish = publication(&calls, "archive.json");
    let unfinished = |call: &String| {
        call.contains(&format!("<{root}/#")) || call.contains(&format!("<{root}/.wal-archive."))
    };
    let data =
        calls[..publish].iter().rposition(|call| call.starts_with("fsync(") && unfinished(call)).unwrap();
    let folder = only(&calls, "fsync(", &[&format!("<{root}>"), "= 0"]);
    let exit = only(&calls, "exit_group(0)", &[]);
    assert!([data, publish, folder, exit].is_sorted(), "{}", calls.join("\n"));
}

#[test]
fn what_had_no_name_is_synced_once_more_where_the_file_system_is_not_known_to_need_it_not() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let calls = traced(&sandbox, &["-e", "inject=fstatfs:error=ENOSYS"]);
    let publish = publication(&calls, &format!("{ONE}.zst"));
    if calls[publish].starts_with("linkat(") {
        let sync = |call: &String| call.starts_with("fsync(") && call.contains("/wal_005/#");
        let syncs: Vec<_> = (0..calls.len()).filter(|at| sync(&calls[*at])).collect();
        let text = calls.join("\n");
        assert!(syncs.len() == 2 && syncs[0] < publish && publish < syncs[1], "{text}");
    }
}

#[test]
fn an_identical_object_is_made_durable_again_before_success() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    let calls = traced(&sandbox, &[]);
    let root = sandbox.archive().display().to_string();
    let object = only(&calls, "fsync(", &[&format!("<{root}/wal_005/{ONE}.zst>"), "= 0"]);
    let folder = only(&calls, "fsync(", &[&format!("<{root}/wal_005>"), "= 0"]);
    let top = only(&calls, "fsync(", &[&format!("<{root}>"), "= 0"]);
    assert!([object, folder, top, told(&calls)].is_sorted(), "{}", calls.join("\n"));
    let changes = calls
        .iter()
        .find(|call| call.contains(&root) && (call.contains("O_CREAT") || call.starts_with("rename")));
    assert_eq!(changes, None, "nothing was written");
}
