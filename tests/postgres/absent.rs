//! What looks like the end of the archive and is none: recovery stops, or waits, and ends with every
//! transaction.

use crate::archive::Archive;
use crate::recorded::Recorded;
use crate::server::lines_of;
use crate::timelines::recorded_on_two_timelines;
use crate::world::World;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

/// Says what is known after a moment.
fn impatient(archive: &Archive) -> String {
    format!("{} %f %p", archive.fetch("--timeout 6s"))
}

/// Batches 1 and 2 on timeline 1, 3 on timeline 2, 4 on timeline 3, all archived.
fn recorded_on_three_timelines(world: &World, archive: &Archive) -> Recorded {
    let recorded = recorded_on_two_timelines(world, archive);
    let mut third = recorded.recovery(world, "third", &archive.fetch_command());
    third.set("archive_mode", "on");
    third.launch();
    third.wait_promoted();
    assert_eq!(third.timeline(), 3);
    third.write(4);
    third.archive_segment();
    third.destroy();
    recorded
}

#[test]
fn a_lost_history_stops_recovery_until_it_is_back() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = recorded_on_three_timelines(&world, &archive);
    for (lost, timeline) in [("00000002.history", "00000002"), ("00000003.history", "00000003")] {
        archive.take_out(lost);
        let mut restored = recorded.recovery(&world, &format!("restored{timeline}"), &impatient(&archive));
        restored.launch();
        let log = restored.expect_fatal(224);
        let message = log.lines().find(|line| line.contains("wal-fetch: error: ")).unwrap();
        let seen = message.contains(&format!("\"{timeline}0000"));
        assert!(message.contains("a lost history") && message.contains(lost) && seen, "{message}");

        archive.put_back(lost);
        restored.launch();
        restored.wait_promoted();
        assert_eq!((restored.timeline(), restored.ledger()), (4, lines_of(1..=4)));
    }
}

#[test]
fn an_accepted_lost_history_gives_its_timeline_up() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = recorded_on_three_timelines(&world, &archive);
    archive.take_out("00000002.history");
    let accepting = archive.fetch("--timeout 6s --accept-gap 00000002.history");
    let mut restored = recorded.recovery(&world, "restored", &format!("{accepting} %f %p"));
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=2));
}

#[test]
fn a_half_written_copy_in_pg_wal_closes_no_hole() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 5);
    let missing = recorded.segment(3);
    let mut snapshot = archive.read(missing);
    archive.take_out(missing);
    let mut restored = recorded.recovery(&world, "restored", &impatient(&archive));
    // The segment as it was when a snapshot was taken in the middle of it.
    let written = snapshot.iter().rposition(|byte| *byte != 0).unwrap();
    snapshot[written / 2..].fill(0);
    let copy = restored.pg_wal().join(missing);
    fs::write(&copy, &snapshot).unwrap();
    world.give_to_postgres(&copy);
    restored.launch();
    let log = restored.expect_fatal(224);
    assert!(log.contains(missing), "{log}");

    archive.put_back(missing);
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=5));
}

#[test]
fn an_archive_without_one_wal_file_never_ends_a_recovery() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 3);
    let (folder, away) = (archive.root().join("wal_005"), archive.root().join("away"));
    fs::rename(&folder, &away).unwrap();
    let mut restored = recorded.recovery(&world, "restored", &impatient(&archive));
    restored.launch();
    restored.expect_fatal(220);
    fs::create_dir(&folder).unwrap();
    restored.launch();
    restored.expect_fatal(220);
    fs::remove_dir(&folder).unwrap();
    symlink("/nonexistent", &folder).unwrap();
    restored.launch();
    let log = restored.expect_fatal(220);
    assert!(log.contains("leads nowhere"), "{log}");

    fs::remove_file(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=3));
}

#[test]
fn a_short_outage_is_waited_for_and_stops_nothing() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 4);
    let moment = format!("[ \"$1\" = {} ]", recorded.segment(3));
    let command = world.interposed("outage.sh", &moment, &archive.outage().0, &archive.fetch("--prefetch 0"));
    let mut restored = recorded.recovery(&world, "restored", &command);
    restored.launch();
    restored.wait_for_log("asked for again", 1);
    archive.come_back();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=4));
}

#[test]
fn a_segment_that_arrives_late_in_a_live_archive_is_waited_for() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 4);
    archive.take_out(recorded.segment(2));
    let mut restored = recorded.recovery(&world, "restored", &archive.fetch_command());
    restored.launch();
    restored.wait_for_log("asked for again", 1);
    // Longer than a hole is waited for that has been there for a while.
    std::thread::sleep(Duration::from_secs(17));
    archive.put_back(recorded.segment(2));
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=4));
}
