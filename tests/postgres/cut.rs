//! Promotions beside a living primary: nobody's half of a segment takes the name of the whole one,
//! and nobody's timeline is mixed with another's.

use crate::archive::Archive;
use crate::server::{Backup, Server};
use crate::world::{World, run};

/// Committed one by one, so that a segment is full somewhere in the middle of them.
const ROWS: u32 = 20_000;

fn insert(server: &Server<'_>, from: u32, count: u32) {
    server.psql(&format!(
        "do $$ begin for n in {from}..{last} loop insert into rows values (n, repeat(md5(n::text), 3)); \
         if n % 500 = 0 then commit; end if; end loop; end $$",
        last = from + count - 1
    ));
}

fn count(server: &Server<'_>) -> String {
    server.psql("select count(*) from rows")
}

fn wait_rows(server: &mut Server<'_>, rows: u32) {
    server.wait_until(&format!("showed {rows} rows"), |server| {
        server.try_psql("select count(*) from rows").is_ok_and(|count| count == rows.to_string())
    });
}

fn primary<'w>(world: &'w World, archive: &Archive) -> (Server<'w>, Backup) {
    let primary = Server::archiving(world, "primary", archive);
    primary.psql("create table rows(n int, text text)");
    let backup = primary.base_backup_with_wal("backup");
    (primary, backup)
}

/// A standby that streams from another server, and archives to nowhere unless told otherwise.
fn standby<'w>(
    world: &'w World,
    backup: &Backup,
    name: &str,
    upstream: &Server<'_>,
    mode: &str,
) -> Server<'w> {
    let mut standby = Server::restore(world, backup, name);
    standby.set("archive_mode", mode);
    standby.set("primary_conninfo", upstream.connection());
    standby.request("standby.signal");
    standby.start();
    standby.wait_streaming();
    standby
}

/// The position that the server writes or receives at lies well inside of a segment.
fn half_full(server: &Server<'_>) {
    let used = || -> u32 {
        server.psql("select file_offset from pg_walfile_name_offset(pg_current_wal_lsn())").parse().unwrap()
    };
    while !(300_000..600_000).contains(&used()) {
        server.psql("select pg_logical_emit_message(true, 'x', repeat('x', 20000))");
    }
}

/// Recovers the backup along timeline 1 and promotes it.
fn recovered_on_timeline_1<'w>(world: &'w World, archive: &Archive, backup: &Backup) -> Server<'w> {
    let mut restored =
        Server::restoring(world, backup, "restored", archive.fetch_command(), "recovery.signal");
    restored.set("recovery_target_timeline", "current");
    restored.launch();
    restored.wait_promoted();
    restored
}

fn cut_ones(archive: &Archive) -> Vec<String> {
    archive
        .names()
        .into_iter()
        .filter(|name| name.len() == 24 + 1 + 16 && !name.contains("partial"))
        .collect()
}

#[test]
fn a_drill_beside_a_living_primary_costs_it_no_row_of_its_archive() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, backup) = primary(&world, &archive);
    let mut upstream = standby(&world, &backup, "upstream", &primary, "off");
    let mut cascading = standby(&world, &backup, "cascading", &upstream, "always");
    insert(&primary, 1, ROWS);
    half_full(&primary);
    wait_rows(&mut cascading, ROWS);
    let last = primary.psql("select pg_walfile_name(pg_current_wal_lsn())");

    upstream.psql("select pg_promote()");
    upstream.wait_promoted();
    // The cascading standby archives the segment as it was when the drill began.
    cascading.wait_for_log("is cut", 1);
    insert(&primary, ROWS + 1, 2 * ROWS);
    primary.archive_segment();
    cascading.wait_archived();
    for server in [&primary, &cascading] {
        assert_eq!(server.psql("select failed_count from pg_stat_archiver"), "0", "{}", server.story());
    }
    let cut = cut_ones(&archive);
    assert!(cut.len() == 1 && cut[0].starts_with(&last), "{cut:?}, {last}\n{}", cascading.story());
    primary.destroy();

    let restored = recovered_on_timeline_1(&world, &archive, &backup);
    assert_eq!(count(&restored), (3 * ROWS).to_string(), "{}", restored.story());
}

#[test]
fn a_segment_beyond_the_fork_that_a_paused_upstream_passed_on_is_cut_too() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, backup) = primary(&world, &archive);
    // A delayed replica: it stops replay at a name, and goes on receiving.
    let mut upstream = Server::restore(&world, &backup, "upstream");
    upstream.keep_to_itself();
    upstream.set("primary_conninfo", primary.connection());
    upstream.set("recovery_target_name", "here");
    upstream.set("recovery_target_action", "pause");
    upstream.request("standby.signal");
    upstream.start();
    upstream.wait_streaming();
    insert(&primary, 1, 1000);
    primary.psql("select pg_create_restore_point('here')");
    upstream.wait_until("paused", |server| {
        server.try_psql("select pg_get_wal_replay_pause_state()").is_ok_and(|state| state == "paused")
    });
    let mut cascading = standby(&world, &backup, "cascading", &upstream, "always");
    insert(&primary, 1001, ROWS);
    half_full(&primary);
    let (at, last) = (
        primary.psql("select pg_current_wal_flush_lsn()"),
        primary.psql("select pg_walfile_name(pg_current_wal_lsn())"),
    );
    for server in [&mut upstream, &mut cascading] {
        server.wait_until("received everything", |server| {
            server.psql(&format!("select pg_last_wal_receive_lsn() >= '{at}'")) == "t"
        });
    }

    upstream.psql("select pg_promote()");
    upstream.wait_promoted();
    let history = upstream.history(2).unwrap();
    cascading.wait_for_log("is cut", 1);
    insert(&primary, 1001 + ROWS, 1000);
    primary.archive_segment();
    let cut = cut_ones(&archive);
    assert!(cut.len() == 1 && cut[0].starts_with(&last), "{cut:?}, {last}, {history}\n{}", cascading.story());
    primary.destroy();

    let restored = recovered_on_timeline_1(&world, &archive, &backup);
    assert_eq!(count(&restored), (2000 + ROWS).to_string(), "{}", restored.story());
}

#[test]
fn a_server_promoted_with_archiving_off_brings_its_history_and_leaves_its_parents_last_segment() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, backup) = primary(&world, &archive);
    let mut promoted = standby(&world, &backup, "promoted", &primary, "off");
    insert(&primary, 1, 1000);
    half_full(&primary);
    wait_rows(&mut promoted, 1000);
    let last = primary.psql("select pg_walfile_name(pg_current_wal_lsn())");
    promoted.psql("select pg_promote()");
    promoted.wait_promoted();
    promoted.stop();

    promoted.set("archive_mode", "on");
    promoted.set("archive_command", archive.push_command());
    promoted.start();
    insert(&promoted, 1001, 1000);
    promoted.archive_segment();
    // A checkpoint marks what is older than it and has no status file ready.
    promoted.psql("checkpoint");
    promoted.wait_for_log("is cut", 1);
    promoted.wait_archived();
    assert_eq!(archive.read("00000002.history"), promoted.history(2).unwrap().into_bytes());
    assert!(!archive.holds(&last), "{:?}", archive.names());
    assert!(cut_ones(&archive).iter().all(|name| name.starts_with(&last)), "{:?}", archive.names());
    assert_eq!(promoted.psql("select failed_count from pg_stat_archiver"), "0", "{}", promoted.story());

    insert(&primary, 1001, ROWS);
    primary.archive_segment();
    assert_eq!(primary.psql("select failed_count from pg_stat_archiver"), "0", "{}", primary.story());
    primary.destroy();
    let restored = recovered_on_timeline_1(&world, &archive, &backup);
    assert_eq!(count(&restored), (1000 + ROWS).to_string(), "{}", restored.story());
}

#[test]
fn the_last_segment_of_a_lost_timeline_that_was_copied_into_pg_wal_leaves_its_name() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, backup) = primary(&world, &archive);
    let mut promoted = standby(&world, &backup, "promoted", &primary, "on");
    insert(&primary, 1, 1000);
    half_full(&primary);
    wait_rows(&mut promoted, 1000);
    promoted.psql("select pg_promote()");
    promoted.wait_promoted();
    insert(&promoted, 1001, 10);
    let last = promoted.psql("select pg_walfile_name(pg_current_wal_lsn())");
    insert(&primary, 1001, 1000);
    primary.psql("select pg_create_restore_point('here')");
    primary.archive_segment();
    insert(&primary, 2001, 1000);
    primary.archive_segment();
    primary.destroy();

    // Recovery goes along timeline 1, beside what was saved of timeline 2; it ends in the segment of the same number
    // or behind it.
    for (name, mode, target, rows) in [("inside", "on", "here", 2000), ("behind", "always", "", 3000)] {
        let mut restored =
            Server::restoring(&world, &backup, name, archive.fetch_command(), "recovery.signal");
        for name in ["00000002.history", &last] {
            run(world.command("cp").arg(promoted.pg_wal().join(name)).arg(restored.pg_wal()));
        }
        restored.set("recovery_target_timeline", "current");
        restored.set("recovery_target_name", target);
        restored.set("recovery_target_action", "promote");
        restored.set("archive_mode", mode);
        restored.set("archive_command", archive.push_command());
        restored.launch();
        restored.wait_promoted();
        assert_eq!(count(&restored), rows.to_string(), "{}", restored.story());
        restored.archive_segment();
        restored.psql("checkpoint");
        restored.wait_archived();
        assert!(!archive.holds(&last), "{last}: {:?}\n{}", archive.names(), restored.story());
        assert!(restored.run_log().contains("is cut"), "{}", restored.story());
        // PostgreSQL may restore a segment once more while it is pushed, which is 10 and pushed again.
        let log = restored.run_log();
        let mut failures = log.lines().filter(|line| line.contains("archive command failed"));
        assert!(failures.all(|line| line.ends_with("with exit code 10")), "{}", restored.story());
        restored.stop();
    }

    promoted.archive_segment();
    assert_eq!(promoted.psql("select failed_count from pg_stat_archiver"), "0", "{}", promoted.story());
    let whole = std::fs::read(promoted.pg_wal().join(&last)).unwrap();
    assert!(archive.read(&last) == whole, "{last}");
}

#[test]
fn of_two_servers_with_one_timeline_id_only_the_first_archives_anything_of_it() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, backup) = primary(&world, &archive);
    // Neither asks the archive for the newest timeline, so both take id 2.
    let mut promoted = ["first", "second"].map(|name| standby(&world, &backup, name, &primary, "on"));
    for (number, server) in (0..).zip(&mut promoted) {
        insert(&primary, 1 + 100 * number, 100);
        wait_rows(server, 100 * (number + 1));
        server.psql("select pg_promote()");
        server.wait_promoted();
        server.psql("insert into rows values (0, 'own')");
        match number {
            0 => drop(server.archive_segment()),
            _ => drop(server.switch_segment()),
        }
    }
    let [first, second] = &mut promoted;
    assert_eq!([first.timeline(), second.timeline()], [2, 2]);
    second.wait_for_log("different content", 2);
    assert_eq!(archive.read("00000002.history"), first.history(2).unwrap().into_bytes());
    let own = first.pg_wal();
    for name in archive.segments(2) {
        let file = std::fs::read(own.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(archive.read(&name) == file, "{name} is not the first server's");
    }
    // Not even one that the first has not written yet, past the history that blocks PostgreSQL's order.
    let mut later = String::new();
    for number in 0..4 {
        second.psql(&format!("insert into rows values ({number}, 'own')"));
        later = second.switch_segment();
    }
    assert!(!archive.holds(&later));
    let mut push = world.command("sh");
    push.current_dir(second.data()).args(["-c", &format!("{} pg_wal/{later}", archive.push(""))]);
    assert_eq!(push.output().unwrap().status.code(), Some(12));
    assert!(!archive.holds(&later));
    primary.stop();
}
