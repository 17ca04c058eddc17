//! A push that looks ahead, and the server stopped, broken off or killed under it.

use crate::archive::Archive;
use crate::server::Server;
use crate::world::{PATIENCE, World, run};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How many segments of 1 MiB wait when archiving begins.
const BACKLOG: usize = 24;

/// A count that a long campaign sets and that is short in CI.
fn rounds() -> usize {
    std::env::var("WAL_ARCHIVE_STOPS").map_or(5, |text| text.parse().expect("a number"))
}

#[test]
fn a_backlog_is_archived_whole_and_in_few_calls() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let trace = world.path("calls");
    let push = archive.push("");
    let script =
        world.script("push.sh", &format!("echo \"$1\" >> '{}'\nexec {push} -vv \"$1\"", trace.display()));
    let mut primary = Server::archiving_by(&world, "primary", &[&archive], "false");
    primary.create_ledger();
    grow(&mut primary, BACKLOG);
    primary.set("archive_command", format!("{} %p", script.display()));
    primary.wait_archived();
    let calls = fs::read_to_string(trace).unwrap().lines().count();
    let ahead = primary.run_log().matches("looked ahead: \"").count();
    assert!(ahead >= BACKLOG - 2, "{ahead} of {calls} files were stored ahead\n{}", primary.story());
    assert_eq!(calls, archive.object_count(), "each file is asked for once: \n{}", primary.story());
    archive.assert_sound(1);
    primary.psql("select pg_stat_reset_shared('archiver')");
    assert_eq!(primary.psql("select failed_count from pg_stat_archiver"), "0");
}

#[test]
fn a_server_stopped_in_any_way_while_it_looks_ahead_loses_no_segment_and_no_committed_row() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    primary.create_ledger();
    let backup = primary.base_backup("backup");
    let (mut committed, mut under_way) = (BTreeSet::new(), [0; 3]);
    for round in 0..rounds() {
        primary.set("archive_command", "false");
        let batch = u32::try_from(round).unwrap() + 1;
        primary.write(batch);
        committed.insert(batch);
        grow(&mut primary, BACKLOG);
        let before = archive.object_count();
        let (waiting, part) = (primary.status_files(".ready").len(), round * 7 % 20);
        primary.set("archive_command", archive.push_command());
        // From the first object of the backlog on, spread over all of it: while the first call stores
        // it, and while the next ones use up what that one left.
        // Some of it may be stored already, by the round before.
        let reached = |server: &Server| {
            let stored = round % 2 == 0 && archive.object_count() > before + part;
            stored || server.status_files(".ready").len() + part < waiting
        };
        let start = Instant::now();
        while !reached(&primary) {
            assert!(start.elapsed() < PATIENCE, "round {round}: {}", primary.story());
            thread::sleep(Duration::from_millis(1));
        }
        let mode = round % 3;
        under_way[mode] += usize::from(!primary.status_files(".ready").is_empty());
        match mode {
            0 => primary.stop(),
            1 => primary.end(Signal::QUIT),
            _ => primary.kill(),
        }
        primary.start_after_crash();
    }
    primary.set("archive_command", archive.push_command());
    primary.stop();
    println!("{} stops; with a backlog under way: fast, immediate, kill -9: {under_way:?}", rounds());
    assert!(under_way.iter().sum::<usize>() * 2 > rounds(), "{under_way:?}");
    assert_eq!(primary.status_files(".ready"), [""; 0], "{}", primary.story());
    for leftover in archive.leftovers() {
        fs::remove_file(leftover).unwrap(); // of a push that was killed: hidden, and swept in a day
    }
    archive.assert_sound(1);
    for segment in archive.segments(1) {
        if let Ok(own) = fs::read(primary.pg_wal().join(&segment)) {
            assert!(own == archive.read(&segment), "{segment} differs from the server's");
        }
    }

    let restored = Server::recovered(&world, &backup, "restored", archive.fetch_command());
    assert_eq!(restored.ledger(), crate::server::lines_of(committed));
}

#[test]
fn a_cloned_cluster_with_its_spool_skips_no_push() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving_by(&world, "primary", &[&archive], "false");
    grow(&mut primary, 6);
    let first = primary.status_files(".ready").into_iter().min().unwrap();
    let mut push = world.command("sh");
    push.args(["-c", &format!("cd \"$1\" && {}", archive.push("\"$2\"")), "sh"]);
    run(push.arg(primary.data()).arg(format!("pg_wal/{first}")));
    let marked = fs::read_dir(world.path("primary.wal-spool/marks")).unwrap().count();
    assert!(marked >= 5, "{marked} marks");
    primary.end(Signal::QUIT);
    let mut clone = Server::clone_of(&world, &primary, "clone");
    run(world
        .command("cp")
        .arg("-a")
        .arg(world.path("primary.wal-spool"))
        .arg(world.path("clone.wal-spool")));
    for name in archive.names() {
        archive.take_out(&name);
    }
    clone.set("archive_command", archive.push_command());
    clone.start_after_crash();
    clone.wait_archived();
    archive.assert_sound(1);
    assert!(archive.holds(&first) && archive.object_count() > marked, "{:?}", archive.names());
}

/// Writes until so many segments wait to be archived.
fn grow(server: &mut Server, segments: usize) {
    server.psql("create table if not exists ballast(text text)");
    while server.status_files(".ready").len() < segments {
        server
            .psql("insert into ballast select repeat(md5(random()::text), 8) from generate_series(1, 4000)");
    }
}
