//! Archiving under load, recovery to the end and to a time.

use crate::archive::{Archive, Spot};
use crate::recorded::Recorded;
use crate::server::{Server, lines_of};
use crate::world::{World, run};

const BALANCES: &str =
    "select count(*), sum(delta), (select sum(abalance) from pgbench_accounts) from pgbench_history";

#[test]
fn every_segment_marked_done_is_archived_and_recovery_to_the_end_gives_every_row() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::init(&world, "primary");
    archive.init(&primary);
    primary.set("archive_command", archive.push_command());
    primary.set("wal_keep_size", "2GB"); // keeps the marks
    primary.start();
    run(primary.client("pgbench").args(["-i", "-q", "-s", "1", "postgres"]));
    let backup = primary.base_backup("backup");
    run(primary.client("pgbench").args(["-n", "-c", "4", "-j", "2", "-T", "5", "postgres"]));
    primary.archive_segment();
    primary.wait_archived();

    let done = primary.status_files(".done");
    assert!(done.len() > 15, "too little load: {done:?}");
    for name in &done {
        assert_eq!(archive.read(name), std::fs::read(primary.pg_wal().join(name)).unwrap(), "{name}");
    }
    assert_eq!(archive.names().len(), done.len());
    archive.assert_sound(1);
    assert_eq!(primary.psql("select failed_count from pg_stat_archiver"), "0");
    let log = primary.run_log();
    assert!(!log.contains("wal-push"), "success is not silent\n{log}");
    let balances = primary.psql(BALANCES);
    primary.destroy();

    let restored = Server::recovered(&world, &backup, "restored", archive.fetch_command());
    assert_eq!(restored.psql(BALANCES), balances);
    assert_eq!(restored.timeline(), 2);
}

#[test]
fn recovery_to_a_time_gives_exactly_the_rows_committed_by_then() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, recorded) = Recorded::with_primary(&world, &archive, 0);
    let mut moments = Vec::new();
    for batch in 1..=5 {
        primary.write(batch);
        // A transaction that ends just after its moment is the one that must not be there.
        primary.psql("select pg_sleep(0.02)");
        moments.push(primary.psql("select clock_timestamp()"));
        primary.psql("select pg_sleep(0.02)");
    }
    primary.archive_segment();
    primary.destroy();

    for batches in [2, 4] {
        let mut restored = recorded.recovery(&world, &format!("restored{batches}"), &archive.fetch_command());
        restored.set("recovery_target_time", &moments[batches as usize - 1]);
        restored.set("recovery_target_action", "promote");
        restored.launch();
        restored.wait_promoted();
        assert_eq!(restored.ledger(), lines_of(1..=batches), "{}", restored.story());
    }
}

#[test]
fn what_one_destination_lost_comes_from_the_other() {
    let Some(world) = World::open() else { return };
    let first = Archive::new(&world, "first");
    let second = Archive::new(&world, "second");
    let also_second = format!("--archive {}", second.root().display());
    let push_command = format!("{} %p", first.push(&also_second));
    let mut primary = Server::archiving_by(&world, "primary", &[&first, &second], push_command);
    primary.create_ledger();
    let backup = primary.base_backup("backup");
    let segments: Vec<String> = (1..=5)
        .map(|batch| {
            primary.write(batch);
            primary.archive_segment()
        })
        .collect();
    primary.destroy();
    assert_eq!(first.names(), second.names());
    first.flip_bit(&segments[1], Spot::MiddleOfFrame);
    first.take_out(&segments[2]);
    second.take_out(&segments[3]);

    let restored =
        Server::recovered(&world, &backup, "restored", format!("{} %f %p", first.fetch(&also_second)));
    assert_eq!(restored.ledger(), lines_of(1..=5));
}
