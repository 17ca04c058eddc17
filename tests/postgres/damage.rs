//! What stands in the archive is not what was archived: recovery stops where PostgreSQL would
//! have promoted, a standby waits, and both go on after the repair.

use crate::archive::{Archive, Spot};
use crate::recorded::Recorded;
use crate::server::{Server, lines_of};
use crate::world::World;

const SPOTS: [Spot; 5] =
    [Spot::FirstByte, Spot::MiddleOfFrame, Spot::EndOfFrame, Spot::HashInTrailer, Spot::LastByte];

/// The first message of `wal-fetch` in a log.
fn message(log: &str) -> &str {
    log.lines()
        .find(|line| line.contains("wal-fetch: error: "))
        .unwrap_or_else(|| panic!("no message\n{log}"))
}

#[test]
fn a_flipped_bit_stops_recovery_with_fatal_and_never_promotes() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 4);
    let mut restored = recorded.recovery(&world, "restored", &archive.fetch_command());
    for spot in SPOTS {
        archive.flip_bit(recorded.segment(2), spot);
        restored.launch();
        let log = restored.expect_fatal(221);
        assert!(message(&log).contains(recorded.segment(2)), "{spot:?}\n{log}");
        assert_eq!(restored.history(2), None);
        archive.flip_bit(recorded.segment(2), spot);
    }
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=4));
}

#[test]
fn a_flipped_bit_keeps_a_standby_waiting_and_it_goes_on_after_the_repair() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 4);
    archive.flip_bit(recorded.segment(2), Spot::MiddleOfFrame);
    let mut standby = recorded.standby(&world, "standby", &archive.fetch_command());
    standby.start();
    standby.wait_for_log("wal-fetch: error: ", 3);
    standby.wait_ledger([1]);
    assert!(message(&standby.run_log()).contains(recorded.segment(2)), "{}", standby.story());

    archive.flip_bit(recorded.segment(2), Spot::MiddleOfFrame);
    standby.wait_ledger(1..=4);
    assert_eq!(standby.psql("select pg_is_in_recovery()"), "t");
    assert!(!standby.run_log().contains("FATAL:  could not restore"), "{}", standby.story());
}

#[test]
fn a_wrong_option_stops_recovery_with_fatal_and_never_promotes() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 2);
    let wrong = format!("{} %f %p", archive.fetch("--no-such-option"));
    let mut restored = recorded.recovery(&world, "restored", &wrong);
    restored.launch();
    let log = restored.expect_fatal(202);
    assert!(message(&log).contains("--no-such-option"), "{log}");

    restored.set("restore_command", archive.fetch_command());
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=2));
}

#[test]
fn a_wrong_option_keeps_a_standby_waiting() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 2);
    let wrong = format!("{} %f %p", archive.fetch("--no-such-option"));
    // The backup ends in WAL that the standby cannot get: it is not open for queries yet.
    let mut standby = recorded.standby(&world, "standby", &wrong);
    standby.launch();
    standby.wait_for_log("wal-fetch: error: ", 3);

    standby.set("restore_command", archive.fetch_command());
    standby.wait_ledger(1..=2);
}

#[test]
fn the_archive_of_another_cluster_stops_recovery_with_fatal() {
    let Some(world) = World::open() else { return };
    let foreign = Archive::new(&world, "foreign");
    let _other_life = Recorded::new(&world, &foreign, 6);
    let own = Archive::new(&world, "own");
    let mut server = Server::archiving(&world, "own_server", &own);
    server.create_ledger();
    let backup = server.base_backup("own_backup");
    server.write(1);
    server.archive_segment();
    server.destroy();

    let mut restored = Server::restore(&world, &backup, "restored");
    restored.keep_to_itself();
    restored.request("recovery.signal");
    restored.set("restore_command", format!("{} %f %p", foreign.fetch("--timeout 6s")));
    // A segment of the same name is there, a history file is not.
    for (target, code) in [("current", 221), ("latest", 220)] {
        restored.set("recovery_target_timeline", target);
        restored.launch();
        let log = restored.expect_fatal(code);
        assert!(message(&log).contains("system identifier"), "{log}");
    }

    restored.set("restore_command", own.fetch_command());
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of([1]));
}

#[test]
fn the_history_file_of_another_cluster_is_never_followed() {
    let Some(world) = World::open() else { return };
    let foreign = Archive::new(&world, "foreign");
    let life = Recorded::new(&world, &foreign, 2);
    let mut promoted = life.recovery(&world, "promoted", &foreign.fetch_command());
    promoted.set("archive_mode", "on");
    promoted.launch();
    promoted.wait_promoted();
    promoted.write(3);
    promoted.archive_segment();
    promoted.destroy();

    let mut server = Server::init(&world, "own_server");
    server.set("archive_mode", "off");
    server.start();
    let backup = server.base_backup_with_wal("own_backup");
    server.destroy();
    let mut restored = Server::restore(&world, &backup, "restored");
    restored.set("restore_command", foreign.fetch_command());
    restored.request("recovery.signal");
    restored.launch();
    let log = restored.expect_fatal(221);
    assert!(message(&log).contains("00000002.history"), "{log}");
    assert_eq!(restored.history(2), None);
}
