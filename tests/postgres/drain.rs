//! What a server has and its archive lacks: after a crash, and before a failover.

use crate::archive::Archive;
use crate::crash::{complete_lines, ids, write};
use crate::server::{Backup, Server, lines_of};
use crate::world::{World, run, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server with a base backup in its archive, whose archiving then stops.
fn cut_off<'w>(world: &'w World, archive: &Archive<'w>) -> (Server<'w>, Backup) {
    let mut primary = Server::archiving(world, "primary", archive);
    primary.psql("create table acknowledged(id bigserial primary key, text text)");
    primary.create_ledger();
    let backup = primary.base_backup("backup");
    primary.write(1);
    primary.archive_segment();
    primary.wait_archived();
    primary.set("archive_command", "/bin/false");
    let stopped = || primary.psql("show archive_command") == "/bin/false";
    assert!(wait_for(|| stopped().then_some(())).is_some());
    (primary, backup)
}

/// Commits under load until some segments wait, and kills the server in it. What was acknowledged.
fn die_under_load(world: &World, primary: &mut Server, waiting: usize) -> BTreeSet<u64> {
    let statements = world.path("statements.sql");
    let insert = "insert into acknowledged(text) values (repeat(md5(random()::text), 32)) returning id;\n";
    fs::write(&statements, insert.repeat(50_000)).unwrap();
    let receipts: Vec<PathBuf> = (0..3).map(|writer| world.path(&format!("receipts.{writer}"))).collect();
    let writers: Vec<_> = receipts.iter().map(|path| write(primary, &statements, path)).collect();
    primary.wait_until("has a backlog", |server| server.status_files(".ready").len() >= waiting);
    primary.kill();
    for mut writer in writers {
        writer.wait().unwrap();
    }
    receipts.iter().flat_map(|path| complete_lines(path)).collect()
}

fn drain(world: &World, archive: &Archive, args: &[&str]) -> (Option<i32>, Value, String) {
    let mut command: Command = world.command(world.program("wal-archive").to_str().unwrap());
    command.args(["drain", "--json", "--archive"]).arg(archive.root()).args(args);
    let output = command.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null), errors)
}

/// Commits a last batch into a segment of its own, and kills the server.
fn die_in_a_segment(primary: &mut Server, batch: u32) -> String {
    primary.switch_segment();
    primary.write(batch);
    let segment = primary.psql("select pg_walfile_name(pg_current_wal_flush_lsn())");
    primary.kill();
    segment
}

/// The names of the files that became this.
fn became(report: &Value, what: &str) -> Vec<String> {
    let files = report["files"].as_array().unwrap_or_else(|| panic!("{report}")).iter();
    files
        .filter(|file| file["became"] == what)
        .map(|file| file["name"].as_str().unwrap().to_owned())
        .collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_lost_server_is_recovered_with_every_acknowledged_row_from_its_archive_and_its_pg_wal() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, backup) = cut_off(&world, &archive);
    let acknowledged = die_under_load(&world, &mut primary, 4);
    assert!(acknowledged.len() > 100, "only {} rows", acknowledged.len());
    let saved = world.path("saved");
    run(world.command("cp").arg("-a").arg(primary.pg_wal()).arg(&saved));
    fs::remove_dir_all(primary.data()).unwrap();

    let before = archive.names();
    let (code, report, errors) = drain(&world, &archive, &["--wal-dir", text(&saved), "--dry-run"]);
    assert_eq!((code, archive.names()), (Some(0), before), "{report} {errors}");
    let planned = became(&report, "to be stored");
    let (code, report, errors) = drain(&world, &archive, &["--wal-dir", text(&saved)]);
    assert_eq!(code, Some(0), "{report} {errors}");
    let stored = became(&report, "stored");
    assert_eq!(stored, planned);
    assert!(stored.len() >= 5, "{report}");
    // None where the crash hit the very end of a segment.
    let unfinished = stored.iter().filter(|name| name.ends_with(".partial")).count();
    assert!(unfinished <= 1, "{report}");
    let end = report["timelines"][0]["end"].as_str().unwrap();
    let last_commit = report["timelines"][0]["last_commit"].as_str().unwrap();
    assert_eq!(report["steps"].to_string().contains("--partial"), unfinished == 1, "{report}");
    // Again: everything is there.
    let (code, again, _) = drain(&world, &archive, &["--wal-dir", text(&saved)]);
    assert_eq!((code, became(&again, "stored").len()), (Some(0), 0), "{again}");
    assert_eq!(
        became(&again, "there already").len(),
        became(&report, "stored").len() + became(&report, "there already").len()
    );

    let restored =
        Server::recovered(&world, &backup, "restored", format!("{} %f %p", archive.fetch("--partial")));
    assert!(ids(&restored).is_superset(&acknowledged), "{}", restored.story());
    let history = restored.history(2).unwrap();
    assert_eq!(history.trim().split('\t').take(2).collect::<Vec<_>>(), ["1", end], "{history}");
    // "2026-11-21 03:00:00.123456+00" in the log, to the microsecond; the log has milliseconds or more.
    let second = last_commit[..19].replace('T', " ");
    assert!(
        restored.run_log().contains(&format!("last completed transaction was at log time {second}")),
        "{last_commit} {}",
        restored.story()
    );
}

#[test]
fn a_new_primary_goes_on_from_a_drained_archive_and_later_recoveries_follow_it() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, backup) = cut_off(&world, &archive);
    let segment = die_in_a_segment(&mut primary, 2);
    let (code, report, errors) = drain(&world, &archive, &["--pgdata", text(&primary.data())]);
    assert_eq!(code, Some(0), "{report} {errors}");
    assert!(became(&report, "stored").contains(&format!("{segment}.partial")), "{report}");

    let without = Server::recovered(&world, &backup, "without", archive.fetch_command());
    assert_eq!(without.ledger(), lines_of([1]), "PostgreSQL itself never asks for a partial segment");

    let mut promoted = Server::restore(&world, &backup, "promoted");
    promoted.set("archive_command", archive.push_command());
    promoted.set("restore_command", format!("{} %f %p", archive.fetch("--partial")));
    promoted.request("recovery.signal");
    promoted.launch();
    promoted.wait_promoted();
    assert_eq!(promoted.ledger(), lines_of(1..=2));
    promoted.write(3);
    promoted.archive_segment();
    promoted.wait_archived();
    promoted.destroy();
    // The child's segment counts from now on, and the partial one is given to nobody.
    let later = Server::recovered(&world, &backup, "later", format!("{} %f %p", archive.fetch("--partial")));
    assert_eq!(later.ledger(), lines_of(1..=3));
    let to = world.path("RECOVERYXLOG");
    let mut fetch = world.command(world.program("wal-fetch").to_str().unwrap());
    fetch.arg("--archive").arg(archive.root()).arg("--spool-dir").arg(world.path("spool"));
    fetch.args(["--partial", &segment, text(&to)]);
    assert_eq!(fetch.output().unwrap().status.code(), Some(1));
}

#[test]
fn the_old_server_can_go_on_after_a_drain_and_archives_the_same_bytes() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, backup) = cut_off(&world, &archive);
    let acknowledged = die_under_load(&world, &mut primary, 2);
    let (code, report, errors) = drain(&world, &archive, &["--pgdata", text(&primary.data())]);
    assert_eq!(code, Some(0), "{report} {errors}");

    primary.set("archive_command", archive.push_command());
    primary.start_after_crash();
    primary.archive_segment();
    primary.wait_archived();
    assert!(!primary.run_log().contains("wal-push: error"), "{}", primary.story());
    let restored = Server::recovered(&world, &backup, "restored", archive.fetch_command());
    assert!(ids(&restored).is_superset(&acknowledged));
}

#[test]
fn a_running_server_is_drained_only_where_asked_and_keeps_its_status_files() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (primary, _backup) = cut_off(&world, &archive);
    primary.write(2);
    let waiting = primary.switch_segment();
    primary.write(3);
    let data = primary.data();
    let (code, _, errors) = drain(&world, &archive, &["--pgdata", text(&data)]);
    assert!(code == Some(2) && errors.contains("a server runs in") && errors.contains("--live"), "{errors}");
    let (code, report, errors) = drain(&world, &archive, &["--pgdata", text(&data), "--live"]);
    assert_eq!(code, Some(0), "{report} {errors}");
    assert_eq!(became(&report, "stored"), [waiting.as_str()], "{report}");
    assert!(report["left"].to_string().contains("it is being written"), "{report}");
    assert_eq!(primary.status_files(".ready"), [waiting]);
}

#[test]
fn a_standby_drained_before_its_promotion_leaves_no_hole() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (primary, backup) = cut_off(&world, &archive);
    let mut standby = Server::restore(&world, &backup, "standby");
    standby.set("restore_command", archive.fetch_command());
    standby.set("archive_command", archive.push_command());
    standby.set("primary_conninfo", primary.connection());
    standby.set("wal_keep_size", "64MB");
    standby.request("standby.signal");
    standby.start();
    for batch in 2..=4 {
        primary.write(batch);
        primary.switch_segment();
        standby.wait_ledger(1..=batch);
    }
    primary.write(5);
    standby.wait_ledger(1..=5);
    let backlog = primary.status_files(".ready").len();
    assert!(backlog >= 3, "{backlog}");
    primary.destroy();

    let data = standby.data();
    let (code, report, errors) = drain(&world, &archive, &["--pgdata", text(&data), "--live"]);
    assert_eq!(code, Some(0), "{report} {errors}");
    assert!(became(&report, "stored").len() >= 3, "{report}");
    standby.psql("select pg_promote()");
    standby.wait_promoted();
    standby.write(6);
    standby.archive_segment();
    standby.wait_archived();
    standby.destroy();
    archive.assert_sound(1);
    let restored = Server::recovered(&world, &backup, "restored", archive.fetch_command());
    assert_eq!(restored.ledger(), lines_of(1..=6));
}

#[test]
fn a_conflict_is_told_and_nothing_behind_it_is_stored() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, _backup) = cut_off(&world, &archive);
    die_under_load(&world, &mut primary, 3);
    let mut waiting = primary.status_files(".ready");
    waiting.sort();
    // Another server's content under one of the names, as it would be after a split brain.
    let path = primary.pg_wal().join(&waiting[0]);
    let mut bytes = fs::read(&path).unwrap();
    let kept = bytes.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut push = world.command("sh");
    push.current_dir(primary.data())
        .args(["-c", &format!("{} pg_wal/{}", archive.push("--look-ahead 0"), waiting[0])]);
    run(&mut push);
    fs::write(&path, kept).unwrap();

    let (code, report, errors) = drain(&world, &archive, &["--pgdata", text(&primary.data())]);
    assert_eq!(code, Some(1), "{report} {errors}");
    assert_eq!(became(&report, "refused"), [waiting[0].as_str()]);
    assert!(errors.contains("already exists with different content"), "{errors}");
    assert!(waiting[1..].iter().all(|name| !archive.holds(name)), "{report}");
    let held_back = became(&report, "held back");
    assert!(waiting[1..].iter().all(|name| held_back.contains(name)), "{report}");
}
