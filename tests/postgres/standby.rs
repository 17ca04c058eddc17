//! Standbys that live from the archive, or share it with their primary.

use crate::archive::Archive;
use crate::backup::{assert_done, restore_into, take_backup};
use crate::recorded::Recorded;
use crate::server::{Server, lines_of};
use crate::world::{World, run};

#[test]
fn a_hot_standby_fed_only_from_the_archive_follows_its_primary() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, recorded) = Recorded::with_primary(&world, &archive, 1);
    let mut standby = recorded.standby(&world, "standby", &archive.fetch_command());
    standby.start();
    standby.wait_ledger([1]);
    for batch in 2..=4 {
        primary.write(batch);
        primary.archive_segment();
        standby.wait_ledger(1..=batch);
    }
    assert_eq!(standby.psql("select pg_is_in_recovery()"), "t");
    assert_eq!(standby.psql("select count(*) from pg_stat_wal_receiver"), "0");
    assert!(!standby.run_log().contains("wal-fetch: error"), "{}", standby.story());

    primary.destroy();
    standby.psql("select pg_promote()");
    standby.wait_promoted();
    standby.write(5);
    assert_eq!(standby.ledger(), lines_of(1..=5));
    assert_eq!(standby.timeline(), 2);
}

#[test]
fn a_standby_follows_the_promotion_of_another_one_through_the_archive_alone() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 2);
    let mut follower = recorded.standby(&world, "follower", &archive.fetch_command());
    follower.start();
    follower.wait_ledger(1..=2);

    let mut promoted = recorded.standby(&world, "promoted", &archive.fetch_command());
    promoted.set("archive_mode", "on");
    promoted.start();
    promoted.wait_ledger(1..=2);
    promoted.psql("select pg_promote()");
    promoted.wait_promoted();
    promoted.write(3);
    promoted.archive_segment();
    follower.wait_ledger(1..=3);
    assert_eq!(follower.psql("select pg_is_in_recovery()"), "t");
}

#[test]
fn two_promoted_standbys_leave_both_their_partial_segments_and_neither_is_stuck() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    primary.create_ledger();
    let backup = primary.base_backup_with_wal("backup");
    let mut promoted = ["first", "second"].map(|name| {
        let mut standby = Server::restore(&world, &backup, name);
        standby.set("restore_command", archive.fetch_command());
        standby.set("primary_conninfo", primary.connection());
        standby.request("standby.signal");
        standby.start();
        standby
    });
    primary.write(1);
    primary.archive_segment();
    // One batch into the next segment; the second standby sees one more before it is promoted.
    for (batch, server) in (2..).zip(&mut promoted) {
        primary.write(batch);
        server.wait_ledger(1..=batch);
        server.psql("select pg_promote()");
        server.wait_promoted();
    }
    for server in &mut promoted {
        server.write(9);
        server.archive_segment();
        server.wait_archived();
        assert_eq!(server.psql("select failed_count from pg_stat_archiver"), "0", "{}", server.story());
    }
    assert_eq!([promoted[0].timeline(), promoted[1].timeline()], [2, 3]);

    let partial: Vec<String> = archive.names().into_iter().filter(|name| name.contains(".partial")).collect();
    assert_eq!(partial.len(), 2, "{partial:?}");
    assert!(partial[0].ends_with(".partial") && partial[1].starts_with(&format!("{}.", partial[0])));
    assert_ne!(archive.read(&partial[0]), archive.read(&partial[1]));
    assert!(promoted[1].run_log().contains("wal-push: warning: "), "{}", promoted[1].story());
}

#[test]
fn a_standby_that_always_archives_into_the_same_archive_causes_no_failure() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    primary.create_ledger();
    let backup = primary.base_backup_with_wal("backup");

    let mut standby = Server::restore(&world, &backup, "standby");
    standby.set("archive_mode", "always");
    standby.set("restore_command", archive.fetch_command());
    standby.set("primary_conninfo", primary.connection());
    standby.request("standby.signal");
    standby.start();
    standby.wait_streaming();
    for batch in 1..=4 {
        run(primary.client("pgbench").args(["-i", "-q", "-s", "1", "postgres"]));
        primary.write(batch);
        primary.archive_segment();
    }
    standby.wait_ledger(1..=4);
    primary.wait_archived();
    standby.wait_archived();

    for server in [&primary, &standby] {
        let counted = server.psql("select failed_count, archived_count > 20 from pg_stat_archiver");
        assert_eq!(counted, "0|t", "{}", server.story());
    }
    archive.assert_sound(1);
}

#[test]
fn a_cascading_standby_that_always_archives_is_not_stuck_when_its_upstream_is_promoted() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    primary.create_ledger();
    let backup = primary.base_backup_with_wal("backup");
    let standby = |name, upstream: &Server<'_>, mode: &str| {
        let mut standby = Server::restore(&world, &backup, name);
        standby.set("archive_mode", mode);
        standby.set("primary_conninfo", upstream.connection());
        standby.request("standby.signal");
        standby.start();
        standby.wait_streaming();
        standby
    };
    let mut upstream = standby("upstream", &primary, "on");
    let mut cascading = standby("cascading", &upstream, "always");
    primary.write(1);
    primary.archive_segment();
    primary.write(2);
    upstream.wait_ledger(1..=2);
    cascading.wait_ledger(1..=2);
    upstream.psql("select pg_promote()");
    upstream.wait_promoted();
    // The old primary runs on, and completes the segment in which the others left it.
    primary.write(3);
    let last = primary.archive_segment();
    upstream.write(4);
    upstream.archive_segment();
    cascading.wait_ledger([1, 2, 4]);
    for server in [&mut upstream, &mut cascading] {
        server.wait_archived();
        assert_eq!(server.psql("select failed_count from pg_stat_archiver"), "0", "{}", server.story());
    }
    let variants =
        archive.names().into_iter().filter(|name| name.starts_with(&format!("{last}.")) && name.len() == 41);
    assert_eq!(variants.count(), 1, "{:?}\n{}", archive.names(), cascading.story());
    assert!(cascading.run_log().contains("is cut"), "{}", cascading.story());
    assert!(archive.holds(&last), "the name is the primary's");
}

#[test]
fn a_standby_made_of_a_backup_follows_the_archive_and_leaves_no_signal_file_when_it_is_promoted() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    primary.create_ledger();
    primary.write(1);
    assert_done(&take_backup(&world, &primary, &[&archive], &[]));
    primary.write(2);
    primary.archive_segment();
    assert_done(&restore_into(&world, &[&archive], "standby", &["--standby", "--keep-archiving"]));
    let mut standby = Server::existing(&world, "standby");
    standby.launch();
    standby.wait_ledger([1, 2]);
    primary.write(3);
    primary.archive_segment();
    standby.wait_ledger([1, 2, 3]);
    primary.wait_archived();
    primary.destroy();
    standby.psql("select pg_promote()");
    standby.wait_promoted();
    standby.write(4);
    let segment = standby.archive_segment();
    standby.wait_archived();
    assert!(archive.holds(&segment) && segment.starts_with("00000002"), "{segment}");
    for name in ["standby.signal", "recovery.signal"] {
        assert!(!standby.data().join(name).exists(), "{name} would begin a recovery at the next crash");
    }
}
