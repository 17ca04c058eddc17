//! What `--prometheus` writes is what `docs/metrics.md` says, and the numbers of `check --json` are those of
//! `docs/operations.md`, both ways: everything of the pages is written by one of the commands over a server that has
//! something of everything, and nothing else.

use crate::archive::{Archive, Spot};
use crate::backup::{take_backup, wal_archive};
use crate::server::Server;
use crate::world::World;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The metrics of a file, each with its type.
fn written(file: &Path) -> BTreeSet<(String, String)> {
    let text = fs::read_to_string(file).unwrap();
    let types: BTreeSet<(String, String)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(types.iter().any(|(known, _)| known == name), "{line}");
        assert!(line.contains("{cluster=\"main\""), "{line}");
    }
    types
}

fn documented() -> BTreeSet<(String, String)> {
    let page = include_str!("../../docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    rows.map(|(name, rest)| (name.to_owned(), rest.split(" |").next().unwrap().to_owned())).collect()
}

/// The names of the table of what `check` measures.
fn measured() -> BTreeSet<String> {
    let page = include_str!("../../docs/operations.md");
    let section = page.split("\n### What is measured\n").nth(1).unwrap().split("\n### ").next().unwrap();
    let names = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    names.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_documented_metric_is_written_by_a_command_and_no_other_one() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut server = Server::init(&world, "primary");
    archive.init(&server);
    server.set("archive_command", archive.push_command());
    server.start();
    server.create_ledger();
    server.write(1);
    let file = world.path("metrics.prom");
    let to_file = ["--prometheus", file.to_str().unwrap(), "--name", "main"];
    let mut seen = BTreeSet::new();
    let mut take = |code: i32, ended: Option<i32>| {
        assert_eq!(ended, Some(code));
        seen.extend(written(&file));
        fs::remove_file(&file).unwrap();
    };
    take(0, take_backup(&world, &server, &[&archive], &to_file).status.code());
    server.write(2);
    let segment = server.archive_segment();
    server.wait_archived();

    let scratch = world.make_directory("scratch");
    let mut rehearse = wal_archive(&world, &[&archive], &["rehearse"]);
    rehearse.args(to_file).arg("--scratch").arg(&scratch);
    if let Some(programs) = world.mixed_programs() {
        rehearse.arg("--pg-bindir").arg(programs);
    }
    take(0, rehearse.output().unwrap().status.code());

    let connection = server.connection();
    let limits = ["--free-warning", "0%", "--free-critical", "0%"];
    let pgdata = server.data();
    let mut numbers = BTreeSet::new();
    let mut check = |more: &[&str]| {
        let mut check = wal_archive(&world, &[&archive], &["check", "--json", "--connection", &connection]);
        let output =
            check.args(to_file).args(limits).arg("--pgdata").arg(&pgdata).args(more).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let metrics = answer["metrics"].as_array().unwrap();
        numbers.extend(metrics.iter().map(|metric| metric["name"].as_str().unwrap().to_owned()));
        assert_ne!(answer["state"], "UNKNOWN", "{answer}");
        output.status.code()
    };
    let ended = check(&["--switch"]);
    take(ended.unwrap(), ended);
    // Something waits.
    server.set("archive_command", "false");
    server.psql("select pg_reload_conf()");
    server.write(3);
    server.switch_segment();
    let ended = check(&[]);
    take(ended.unwrap(), ended);
    assert_eq!(numbers, measured());

    archive.flip_bit(&segment, Spot::MiddleOfFrame);
    take(1, wal_archive(&world, &[&archive], &["verify"]).args(to_file).output().unwrap().status.code());
    let documented = documented();
    assert!(documented.len() > 30);
    let (missing, unknown): (Vec<_>, Vec<_>) =
        (documented.difference(&seen).collect(), seen.difference(&documented).collect());
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "never written: {missing:?}; not documented: {unknown:?}"
    );
}
