//! What `--json` prints is what `docs/json.md` says, both ways. (Base backups: `tests/postgres/backup.rs`.)

use crate::json_page::{assert_as_documented, fields_of, sections};
use crate::util::{CLUSTER, MIB, Run, Sandbox, flip, init_arguments, segment};
use serde_json::Value;
use std::collections::BTreeSet;
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
    let record = r#"{"wal-archive":1,"rehearsed":"2026-11-21T13:04:05.250000Z","verdict":"sound","backup":null,"target":null,
        "timeline":1,"end_lsn":"0/1B000000","last_commit":null,"data_lost_seconds":null,"phases":{"restore_seconds":41.2,
        "replay_seconds":97.0,"ready_seconds":0.4},"replayed_bytes":1,"server_major":15,"checked":[],"findings":[]}"#;
    fs::create_dir(sandbox.archive().join("rehearsals")).unwrap();
    fs::write(sandbox.archive().join("rehearsals/20261121T130405Z.json"), record.replace('\n', "")).unwrap();
    check(&sandbox, "list", &[&[]]);
    let run = sandbox.admin("list", &["--segments", "--json"]);
    assert_as_documented("list --segments", &run.stdout.lines().collect::<Vec<_>>());
}

#[test]
fn the_json_of_verify_is_as_documented() {
    let gap = "000000010000000000000016..000000010000000000000019";
    let sandbox = real();
    // The last segment of timeline 2 as a dead server left it.
    let last = "00000002000000000000001C";
    let unfinished = format!("{last}.partial");
    let raw = fs::read(sandbox.data().join("pg_wal").join(last)).unwrap();
    fs::remove_file(sandbox.object(last)).unwrap();
    sandbox.wal(&unfinished, &raw);
    sandbox.push(&unfinished, &[]).succeeds();
    check(&sandbox, "verify", &[&[], &["--records", "--accept-gap", gap], &["--records", "--since", A]]);
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
    let old = "000000010000000000000014";
    sandbox.wal(old, &segment(old, MIB, CLUSTER, 1));
    sandbox.push(old, &[]).succeeds();
    check(&sandbox, "expire", &[&["--label", "*", "--before", A]]);
    let recycled = fs::read(sandbox.data().join("pg_wal").join(A)).unwrap();
    sandbox.wal("00000002000000000000001F", &recycled);
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

#[test]
fn messages_in_json_have_the_documented_keys_and_no_others() {
    let sandbox = real();
    sandbox.segment(B);
    let json = ["--log-format", "json", "-vv"];
    let file = sandbox.path("clusters.toml");
    fs::write(&file, format!("[cluster.a]\narchive = [\"{}\"]\n", sandbox.archive().display())).unwrap();
    let runs = [
        sandbox.push(B, &json),
        sandbox.push("notes.txt", &json),
        sandbox.fetch(A, &json),
        sandbox.fetch("000000010000000000000017", &[&json[..], &["--timeout", "1s"]].concat()),
        sandbox.admin("verify", &json),
        sandbox.admin("quarantine", &[&json[..], &[B]].concat()),
        Run::of(sandbox.program("wal-archive").arg("list").args(json).arg("--config").arg(&file)),
    ];
    let lines: Vec<Value> = runs
        .iter()
        .flat_map(|run| run.stderr.lines())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    let documented = fields_of("Messages");
    let always: Vec<&String> = documented.iter().filter(|name| *name != "hint").collect();
    let (mut seen, mut levels) = (BTreeSet::new(), BTreeSet::new());
    for line in &lines {
        let keys: Vec<&String> = line.as_object().unwrap().keys().filter(|name| *name != "hint").collect();
        assert!(keys == always && line.as_object().unwrap().values().all(Value::is_string), "{line}");
        seen.extend(line.as_object().unwrap().keys().cloned());
        levels.insert(line["level"].as_str().unwrap());
        assert!(humantime::parse_rfc3339(line["time"].as_str().unwrap()).is_ok(), "{line}");
    }
    assert_eq!(seen, documented);
    assert!(["error", "warning", "info"].iter().all(|level| levels.contains(level)), "{levels:?}");
    let page = sections().into_iter().find(|(title, _)| title == "Messages").unwrap().1;
    let unknown: Vec<_> = levels.iter().filter(|level| !page.contains(&format!("`{level}`"))).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// The text of all tests.
fn tests(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: std::path::PathBuf| match path.is_dir() {
        true => tests(&path),
        false if path.extension().is_some_and(|extension| extension == "rs") => {
            fs::read_to_string(path).unwrap()
        }
        false => String::new(),
    };
    entries.map(text).collect()
}

#[test]
fn each_command_with_json_has_a_section_and_each_section_a_test_that_compares_it() {
    let sandbox = Sandbox::new();
    let help = |args: &[&str]| Run::of(sandbox.program("wal-archive").args(args).arg("--help")).stdout;
    let all = help(&[]);
    let commands = all.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands = commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands: BTreeSet<&str> = commands.filter(|name| !name.is_empty() && *name != "help").collect();
    let with_json: BTreeSet<&str> =
        commands.iter().copied().filter(|command| help(&[command]).contains("--json")).collect();
    let sections = sections();
    let documented: BTreeSet<&str> = sections.iter().map(|(title, _)| title.as_str()).collect();
    let words: BTreeSet<&str> = documented.iter().filter_map(|title| title.split(' ').next()).collect();
    assert!(with_json.len() > 10 && with_json.is_subset(&words), "{with_json:?} {words:?}");
    let compares = tests(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"));
    for title in documented.iter().filter(|title| !["Findings", "Messages"].contains(title)) {
        let first = title.split(' ').next().unwrap();
        assert!(with_json.contains(first), "{title} is of no command");
        let calls = [
            format!("assert_as_documented(\"{title}\""),
            format!("assert_as_documented(\n        \"{title}\""),
            format!("assert_json_as_documented(\"{title}\""),
            format!("assert_json_as_documented(\n        \"{title}\""),
            format!("check(&sandbox, \"{title}\""),
            format!("check(&real(), \"{title}\""),
        ];
        assert!(calls.iter().any(|call| compares.contains(call)), "no test compares the section {title:?}");
    }
}
