//! `wal-archive list` and `verify`: what they say of an archive to which known things were done,
//! and where they say that its WAL ends.

use crate::archive::{Archive, Spot};
use crate::server::Server;
use crate::world::{World, run};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Runs `wal-archive SUBCOMMAND` over the archive: code and stdout.
fn admin(world: &World, archive: &Archive, args: &[&str]) -> (Option<i32>, String) {
    let mut command = world.command(world.program("wal-archive").to_str().unwrap());
    let output = command.args(args).arg("--archive").arg(archive.root()).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

fn answer(world: &World, archive: &Archive, code: i32, args: &[&str]) -> Value {
    let (found, stdout) = admin(world, archive, &[args, &["--json"]].concat());
    assert_eq!(found, Some(code), "{stdout}");
    serde_json::from_str(&stdout).unwrap()
}

/// The next server on the newest timeline, recovered from a copy of the backup.
fn recovered<'w>(
    world: &'w World,
    archive: &Archive,
    backup: &crate::server::Backup,
    name: &str,
) -> Server<'w> {
    let mut server = Server::restore(world, backup, name);
    server.set("restore_command", archive.fetch_command());
    server.set("recovery_target_timeline", "latest");
    server.request("recovery.signal");
    server.launch();
    server.wait_promoted();
    server
}

#[test]
fn list_and_verify_say_exactly_what_was_done_to_an_archive() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut first = Server::archiving(&world, "first", &archive);
    first.create_ledger();
    let base = first.base_backup("base");
    let mut segments = Vec::new();
    for batch in 1..=2 {
        first.write(batch);
        segments.push(first.archive_segment());
    }
    first.base_backup("nightly");
    for batch in 3..=7 {
        first.write(batch);
        segments.push(first.archive_segment());
    }
    first.wait_archived();
    first.destroy();
    for (name, batch) in [("second", 8), ("third", 9)] {
        let mut server = recovered(&world, &archive, &base, name);
        server.write(batch);
        segments.push(server.archive_segment());
        server.wait_archived();
        server.destroy();
    }
    // Three timelines and two backups, whole: the parents' switch segments are on the children only,
    // or on both.
    let (code, told) = admin(&world, &archive, &["verify", "--records"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(admin(&world, &archive, &["list"]).0, Some(0));

    let whole = [1, 2, 3].map(|timeline| archive.segments(timeline));
    let second = world.path("second-destination");
    run(world.command("cp").arg("-a").arg(archive.root()).arg(&second));

    // One damaged, one foreign, one lost; a stranger.
    let (damaged, foreign, lost) = (&segments[3], &segments[4], &segments[5]);
    archive.flip_bit(damaged, Spot::MiddleOfFrame);
    fs::write(archive.root().join("wal_005").join(foreign), archive.read(foreign)).unwrap();
    fs::remove_file(archive.object(foreign)).unwrap();
    archive.take_out(lost);
    fs::write(archive.root().join("wal_005/notes.txt"), "12345").unwrap();

    let list = answer(&world, &archive, 1, &["list"]);
    let here = &list["destinations"][0];
    let told = ["timeline", "parent", "history", "first", "last", "segments", "missing"];
    let timelines: Value = (here["timelines"].as_array().unwrap().iter())
        .map(|timeline| told.map(|field| timeline[field].clone()).into_iter().collect::<Value>())
        .collect();
    let shape = |(timeline, parent, missing): (usize, Value, usize)| {
        let stored = &whole[timeline - 1];
        let history = if timeline == 1 { "none" } else { "read" };
        json!([
            timeline,
            parent,
            history,
            stored[0],
            stored[stored.len() - 1],
            stored.len() - missing,
            missing
        ])
    };
    let expected = [(1, Value::Null, 1), (2, 1.into(), 0), (3, 2.into(), 0)].map(shape);
    assert_eq!(timelines, Value::from(expected.to_vec()));
    let labels: Vec<(&str, u64)> = here["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| (b["label"].as_str().unwrap(), b["missing"].as_u64().unwrap()))
        .collect();
    assert_eq!(labels, [("base", 0), ("nightly", 0)]);
    assert_eq!(here["strangers"]["keys"], json!(["wal_005/notes.txt"]));
    let found = |answer: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let findings = answer["findings"].as_array().unwrap().iter();
        findings.map(|finding| (text(&finding["kind"]), text(&finding["name"]))).collect()
    };
    assert_eq!(found(&list), [("missing".to_owned(), lost.to_owned())]);
    let (_, told) = admin(&world, &archive, &["list"]);
    for part in [
        format!("\nmissing on  segments  names\n         1         1  {lost}\n"),
        "\nother objects  bytes  key\nstranger           5  wal_005/notes.txt\n".to_owned(),
    ] {
        assert!(told.contains(&part), "{told}");
    }

    let start = |label: &str| {
        let backups = here["backups"].as_array().unwrap();
        backups.iter().find(|b| b["label"] == label).unwrap()["start_segment"].as_str().unwrap().to_owned()
    };
    let place = archive.root().display();
    let (base_start, nightly) = (start("base"), start("nightly"));
    let before = &segments[2];
    let newest = |timeline: usize| &whole[timeline - 1][whole[timeline - 1].len() - 1];
    let (one, two, three) = (newest(1), newest(2), newest(3));
    let mut rows = String::new();
    for timeline in 1..=3 {
        rows += &format!("base              {base_start}  {timeline:>8}  {before}  not to the end\n");
        rows += &format!("nightly           {nightly}  {timeline:>8}  {before}  not to the end\n");
    }
    let expected = format!(
        "damaged {damaged} in \"{place}\": \"wal_005/{damaged}.zst\" is damaged or not the file of its name: REASON\n    \
         HINT: \"wal-archive quarantine {damaged}\" moves it aside, so that a server that still has the file can push it again\n\
         missing {lost} in \"{place}\": the segment is missing, recovery from backup \"base\" ({base_start}) and 1 other ends before\n    \
         HINT: look into pg_wal of every server and standby; if it is lost, take a new base backup now, then --accept-gap {lost}..{lost}\n\
         note: 1 object not of an archive, left alone (\"wal-archive list\" shows them)\n\n\
         timeline  newest segment            status\n       \
                1  {one}  1 missing, 1 damaged\n       \
                2  {two}  sound\n       \
                3  {three}  sound\n\n\
         recoverable from  segment                   timeline  to segment\n{rows}\n2 findings: "
    );
    let (code, told) = admin(&world, &archive, &["verify"]);
    assert_eq!(code, Some(1), "{told}");
    // What the decoder says depends on the bit.
    let marker = "not the file of its name: ";
    let at = told.find(marker).unwrap_or_else(|| panic!("{told}")) + marker.len();
    let end = at + told[at..].find('\n').unwrap();
    let told = format!("{}REASON{}", &told[..at], &told[end..]);
    assert!(told.starts_with(&expected), "--- expected\n{expected}\n--- told\n{told}");

    // The other destination has what is damaged and what is lost; nothing else is touched.
    let mut copy = world.command(world.program("wal-archive").to_str().unwrap());
    let repaired = run(copy.args(["copy", "--repair"]).arg(&second).arg(archive.root()));
    assert!(repaired.contains("\nrepaired   1\n"), "{repaired}");
    let (code, told) = admin(&world, &archive, &["verify", "--records"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("  to the end\n") && !told.contains("not to the end"), "{told}");
    let (code, told) = admin(&world, &archive, &["verify", "--archive", second.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}");
    assert!(archive.root().join("wal_005").join(foreign).exists());
}

/// The last record by `pg_waldump` and where it ends, and the last commit.
fn by_waldump(world: &World, folder: &Path, segments: &[&String]) -> (u64, String) {
    let (first, last) = (segments[0], segments[segments.len() - 1]);
    let mut command = world.command("pg_waldump");
    let output = command.arg("-p").arg(folder).arg(first).arg(last).output().unwrap();
    // It ends with an error where the WAL does.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let record = text.lines().last().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let field = |name: &str| {
        record.split(name).nth(1).unwrap().split([',', ' ']).find(|t| !t.is_empty()).unwrap().to_owned()
    };
    let lsn = field("lsn: ");
    let (high, low) = lsn.split_once('/').unwrap();
    let mut at = (u64::from_str_radix(high, 16).unwrap() << 32) + u64::from_str_radix(low, 16).unwrap();
    let total = record.split("len (rec/tot):").nth(1).unwrap().split(['/', ',']).nth(1).unwrap();
    let mut left: u64 = total.trim().parse().unwrap();
    let (page, mib) = (8192, 1 << 20);
    loop {
        let room = page - at % page;
        if left <= room {
            at = (at + left).next_multiple_of(8);
            break;
        }
        left -= room;
        at += room;
        at += if at % mib == 0 { 40 } else { 24 };
    }
    if record.contains("desc: SWITCH") {
        at = at.next_multiple_of(mib);
    }
    let time = |line: &str| {
        let prepared = || line.split("desc: COMMIT_PREPARED ").nth(1)?.split(": ").nth(1);
        let rest = line.split("desc: COMMIT ").nth(1).or_else(prepared)?;
        Some(rest.split(" UTC").next()?.replace(' ', "T") + "Z")
    };
    let commit = text.lines().filter_map(time).next_back().unwrap_or_default();
    (at, commit)
}

fn lsn(text: &Value) -> u64 {
    let (high, low) = text.as_str().unwrap_or_else(|| panic!("no end: {text}")).split_once('/').unwrap();
    (u64::from_str_radix(high, 16).unwrap() << 32) + u64::from_str_radix(low, 16).unwrap()
}

pub(crate) const LAST_COMMIT: &str = "select to_char(timestamp at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from pg_last_committed_xact()";

#[test]
fn records_end_where_pg_waldump_says_and_at_the_commit_that_the_server_knows() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let raw = world.make_directory("raw");
    let mut server = Server::init(&world, "first");
    archive.init(&server);
    server.set("track_commit_timestamp", "on");
    server.set("max_prepared_transactions", 4);
    server.set("archive_command", archive.push_command());
    server.start();
    server.create_ledger();
    let base = server.base_backup("base");
    server.wait_archived();
    let work: [&str; 10] = [
        "insert into ledger values (1, 1, 'x')",
        "select pg_logical_emit_message(false, 'x', repeat('y', 2500000)); insert into ledger values (2, 1, 'x')",
        "begin; insert into ledger values (3, 1, 'x'); prepare transaction 'p'",
        "commit prepared 'p'",
        "begin; insert into ledger values (4, 1, 'x'); savepoint s; insert into ledger values (4, 2, 'x'); commit",
        "create index on ledger(line); insert into ledger values (5, 1, 'x')",
        "truncate ledger; begin; insert into ledger values (6, 1, 'x'); rollback",
        "insert into ledger select 7, i, repeat(md5(i::text), 20) from generate_series(1, 3000) i",
        "create table other as select * from ledger; insert into ledger values (8, 1, 'x')",
        "checkpoint; insert into ledger values (9, 1, 'x')",
    ];
    let mut whole = 0;
    for (round, sql) in work.iter().enumerate() {
        if round == 5 {
            // On another timeline from here on.
            server.destroy();
            server = recovered(&world, &archive, &base, "second");
        }
        if round == 8 {
            server.kill();
            server.start_after_crash();
        }
        server.psql(sql);
        let truth = server.psql(LAST_COMMIT);
        server.archive_segment();
        server.wait_archived();
        let timeline = server.timeline();
        let segments = archive.segments(timeline);
        for name in &segments {
            if !raw.join(name).exists() {
                archive.copy_raw(name, &raw);
            }
        }
        let all: Vec<&String> = segments.iter().collect();
        // As it is, and without its last segment, which may end anywhere.
        for left_out in 0..=1.min(all.len() - 1) {
            let (kept, cut) = all.split_at(all.len() - left_out);
            cut.iter().for_each(|name| archive.take_out(name));
            let report = answer(&world, &archive, 0, &["verify", "--records"]);
            cut.iter().for_each(|name| archive.put_back(name));
            let ways = report["recoverable"].as_array().unwrap();
            let way =
                ways.iter().find(|way| way["timeline"] == timeline).unwrap_or_else(|| panic!("{report}"));
            let (end, commit) = by_waldump(&world, &raw, kept);
            assert_eq!(lsn(&way["end"]), end, "round {round}, {left_out} left out: {report}");
            if !commit.is_empty() {
                assert_eq!(
                    way["last_commit"],
                    commit.as_str(),
                    "round {round}, {left_out} left out: {report}"
                );
            }
            if left_out == 0 {
                assert_eq!(way["last_commit"], truth.as_str(), "round {round}: {report}");
                whole += 1;
            }
        }
    }
    assert_eq!(whole, work.len());
}
