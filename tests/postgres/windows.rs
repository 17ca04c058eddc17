//! `wal-archive window` against PostgreSQL itself: what it promises is reached at its two ends, and one
//! microsecond beyond them nothing is, neither by `restore` nor by a server that is started all the same.
//!
//! As many random archives as `WAL_ARCHIVE_WINDOWS` says, by seeds from `WAL_ARCHIVE_WINDOWS_SEED`.

use crate::archive::Archive;
use crate::backup::{
    assert_done, assert_refused, refused_by_postgresql, restore_into, started, take_backup, wal_archive,
};
use crate::rng::Rng;
use crate::server::Server;
use crate::world::{World, run};
use serde_json::Value;
use std::env;
use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

const PROMOTE: [&str; 2] = ["--target-action", "promote"];

fn number(variable: &str, without: u64) -> u64 {
    env::var(variable).map_or(without, |text| text.parse().expect("a number"))
}

/// A backup that is taken while transactions end, so that its own WAL tells where it begins to be of use.
fn take_busy_backup(world: &World, server: &Server<'_>, archive: &Archive<'_>) {
    let mut client = server.client("psql");
    let mut client =
        client.args(["-qXd", "postgres"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut input = client.stdin.take().unwrap();
    let feeder = thread::spawn(move || {
        while input.write_all(b"insert into load values (1);\n").is_ok() {
            thread::sleep(Duration::from_millis(2));
        }
    });
    assert_done(&take_backup(world, server, &[archive], &["--max-rate", "16MB"]));
    client.kill().unwrap();
    client.wait().unwrap();
    feeder.join().unwrap();
}

fn windows(world: &World, archive: &Archive<'_>) -> Vec<Value> {
    let output = wal_archive(world, &[archive], &["window", "--json"]).output().unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let windows = value["windows"].as_array().unwrap().clone();
    assert_eq!(output.status.code(), Some(i32::from(windows.is_empty())));
    windows
}

fn moved(time: &str, microseconds: i64) -> String {
    let at = humantime::parse_rfc3339(time).unwrap();
    let by = Duration::from_micros(microseconds.unsigned_abs());
    let moved = if microseconds < 0 { at - by } else { at + by };
    humantime::format_rfc3339_micros(moved).to_string()
}

/// One life: writes, backups and promotions; now and then a segment is lost at the end.
fn live(world: &World, archive: &Archive<'_>, rng: &mut Rng, name: &str) {
    let mut server = Server::archiving(world, name, archive);
    server.create_ledger();
    server.psql("create table load(x int)");
    assert!(windows(world, archive).is_empty());
    take_busy_backup(world, &server, archive);
    let mut batch = 0;
    for step in 0..4 + rng.below(4) {
        match rng.pick(&["write", "write", "write", "backup", "promote"]) {
            "write" => {
                batch += 1;
                server.write(batch);
                server.psql("select pg_sleep(0.02)");
                if rng.percent(70) {
                    server.archive_segment();
                }
            }
            "backup" => take_busy_backup(world, &server, archive),
            _ => {
                server.archive_segment();
                server.wait_archived();
                server.destroy();
                let name = format!("{name}-{step}");
                assert_done(&restore_into(world, &[archive], &name, &["--keep-archiving"]));
                server = started(world, &name);
            }
        }
    }
    server.archive_segment();
    server.wait_archived();
    let timeline = server.timeline();
    server.destroy();
    if rng.percent(60) {
        let segments = archive.segments(1 + rng.below(timeline.into()) as u32);
        if !segments.is_empty() {
            let lost = &segments[rng.below(segments.len() as u64) as usize];
            fs::remove_file(archive.object(lost)).unwrap();
        }
    }
}

/// What a window says, tried at its two ends.
fn agrees(world: &World, archive: &Archive<'_>, window: &Value, name: &str) {
    let text = |field: &str| window[field].as_str();
    let timeline = window["timeline"].to_string();
    let of = ["--backup", text("backup").unwrap(), "--target-timeline", &timeline];
    let told = format!("{name}: {window}");
    let from = text("from").unwrap();
    let Some(before) = text("before") else { return };
    for (end, time) in [("first", from.to_owned()), ("last", moved(before, -1))] {
        let name = format!("{name}-{end}");
        assert_done(&restore_into(
            world,
            &[archive],
            &name,
            &[&of[..], &["--target-time", &time], &PROMOTE].concat(),
        ));
        started(world, &name).destroy();
        let at = run(wal_archive(world, &[archive], &["window", "--at", &time]).arg("-v"));
        assert!(at.contains("recovery_target_time"), "{told}\n{at}");
    }
    for (end, time) in [("too-early", moved(from, -1)), ("too-late", before.to_owned())] {
        let name = format!("{name}-{end}");
        let refused = [&of[..], &["--target-time", &time]].concat();
        assert_refused(&restore_into(world, &[archive], &name, &refused), "the time");
        // And PostgreSQL itself does not get there.
        let target = ("recovery_target_time", time.replace('T', " ").replace('Z', "+00"));
        let log = refused_by_postgresql(world, archive, &name, &[&of[..], &PROMOTE].concat(), target);
        assert!(log.contains("FATAL:  re") || log.contains("FATAL:  could not restore"), "{told}\n{log}");
        fs::remove_dir_all(world.path(&name)).unwrap();
    }
}

#[test]
fn a_window_agrees_with_postgresql_at_both_of_its_ends() {
    let seed = number("WAL_ARCHIVE_WINDOWS_SEED", 67);
    for seed in (seed..).take(number("WAL_ARCHIVE_WINDOWS", 1) as usize) {
        let Some(world) = World::open() else { return };
        let archive = Archive::new(&world, "archive");
        live(&world, &archive, &mut Rng::new(seed), "primary");
        let found = windows(&world, &archive);
        println!("seed {seed}: {} windows", found.len());
        for (number, window) in found.iter().enumerate() {
            println!("{window}");
            agrees(&world, &archive, window, &format!("window-{number}"));
        }
    }
}
