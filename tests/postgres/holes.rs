//! A segment is missing while later ones are there: not the end of the archive.

use crate::archive::Archive;
use crate::recorded::Recorded;
use crate::server::lines_of;
use crate::world::World;

/// The holes of these tests are young, and would be waited for to the deadline.
fn impatient(archive: &Archive) -> String {
    format!("{} %f %p", archive.fetch("--timeout 6s"))
}

#[test]
fn a_hole_stops_recovery_with_fatal_and_a_copy_in_pg_wal_closes_it() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 5);
    let missing = recorded.segment(2);
    archive.copy_raw(missing, world.root());
    archive.take_out(missing);
    let mut restored = recorded.recovery(&world, "restored", &impatient(&archive));
    restored.launch();
    let log = restored.expect_fatal(224);
    let message = log.lines().find(|line| line.contains("wal-fetch: error: ")).unwrap();
    let later = (3..=5).any(|batch| message.contains(recorded.segment(batch)));
    assert!(message.contains(missing) && later, "{message}");
    assert_eq!(restored.history(2), None);

    std::fs::rename(world.path(missing), restored.pg_wal().join(missing)).unwrap();
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=5));
}

#[test]
fn a_hole_stops_recovery_until_the_object_is_back() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 3);
    archive.take_out(recorded.segment(2));
    let mut restored = recorded.recovery(&world, "restored", &impatient(&archive));
    restored.launch();
    restored.expect_fatal(224);

    archive.put_back(recorded.segment(2));
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=3));
}

#[test]
fn an_accepted_gap_is_the_end_of_the_archive() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 3);
    archive.take_out(recorded.segment(2));
    let accepting = archive.fetch(&format!("--accept-gap {}", recorded.segment(2)));
    let mut restored = recorded.recovery(&world, "restored", &format!("{accepting} %f %p"));
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of([1]));
}

#[test]
fn a_standby_streams_over_a_hole() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, recorded) = Recorded::with_primary(&world, &archive, 0);
    primary.set("wal_keep_size", "1GB");
    let mut segments = Vec::new();
    for batch in 1..=4 {
        primary.write(batch);
        segments.push(primary.archive_segment());
    }
    archive.take_out(&segments[1]);

    let mut standby = recorded.standby(&world, "standby", &archive.fetch_command());
    standby.start();
    standby.wait_for_log("wal-fetch: error: ", 1);
    standby.wait_ledger([1]);
    assert!(standby.run_log().contains(&segments[1]), "{}", standby.story());

    standby.set("primary_conninfo", primary.connection());
    standby.wait_ledger(1..=4);
    primary.write(5);
    standby.wait_ledger(1..=5);
    assert!(!standby.run_log().contains("FATAL:  could not restore"), "{}", standby.story());
}
