//! Encrypted archives: the server that archives holds public keys only.

use crate::archive::{Archive, KeyPair};
use crate::recorded::Recorded;
use crate::server::{Server, lines_of};
use crate::world::{World, run};
use std::fs;

#[test]
fn with_only_the_public_key_on_the_primary_every_segment_is_archived_and_recovered_to_a_time_and_to_the_end()
{
    let Some(world) = World::open() else { return };
    let keys = KeyPair::new(&world, "main", &[]);
    let archive = Archive::encrypted(&world, "archive", &keys);
    let (mut primary, recorded) = Recorded::with_primary(&world, &archive, 0);
    let mut moments = Vec::new();
    for batch in 1..=4 {
        primary.write(batch);
        primary.psql("select pg_sleep(0.02)");
        moments.push(primary.psql("select clock_timestamp()"));
        primary.psql("select pg_sleep(0.02)");
    }
    primary.archive_segment();
    primary.wait_archived();
    for name in primary.status_files(".done") {
        assert_eq!(archive.read(&name), fs::read(primary.pg_wal().join(&name)).unwrap(), "{name}");
    }
    archive.assert_sound(1);
    assert_eq!(primary.psql("select failed_count from pg_stat_archiver"), "0");
    assert!(!primary.run_log().contains("wal-push"), "success is not silent\n{}", primary.run_log());
    primary.destroy();

    let mut restored = recorded.recovery(&world, "to-a-time", &archive.fetch_command());
    restored.set("recovery_target_time", &moments[1]);
    restored.set("recovery_target_action", "promote");
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=2), "{}", restored.story());
    let restored = Server::recovered(&world, &recorded.backup, "to-the-end", archive.fetch_command());
    assert_eq!(restored.ledger(), lines_of(1..=4));
}

#[test]
fn without_the_private_key_recovery_stops_and_nothing_is_promoted() {
    let Some(world) = World::open() else { return };
    let keys = KeyPair::new(&world, "main", &[]);
    let archive = Archive::encrypted(&world, "archive", &keys);
    let recorded = Recorded::new(&world, &archive, 2);
    let plain = archive.with_keys(None);
    let mut restored = recorded.recovery(&world, "restored", &plain.fetch_command());
    restored.launch();
    let story = restored.expect_stop(220);
    assert!(story.contains("no identity"), "{story}");
    let mut restored = recorded.recovery(&world, "again", &archive.fetch_command());
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=2));
}

#[test]
fn a_standby_lives_from_it_is_promoted_and_another_one_follows() {
    let Some(world) = World::open() else { return };
    let keys = KeyPair::new(&world, "main", &[]);
    let archive = Archive::encrypted(&world, "archive", &keys);
    let recorded = Recorded::new(&world, &archive, 2);
    let mut follower = recorded.standby(&world, "follower", &archive.fetch_command());
    follower.start();
    follower.wait_ledger(1..=2);
    let mut promoted = recorded.standby(&world, "promoted", &archive.fetch_command());
    promoted.set("archive_mode", "on");
    promoted.set("archive_command", archive.push_command());
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
fn what_a_lost_server_still_holds_is_drained_and_recovered() {
    let Some(world) = World::open() else { return };
    let keys = KeyPair::new(&world, "main", &[]);
    let archive = Archive::encrypted(&world, "archive", &keys);
    let (mut primary, recorded) = Recorded::with_primary(&world, &archive, 1);
    primary.wait_archived();
    primary.set("archive_command", "/bin/false");
    primary.wait_until("archives no more", |server| server.psql("show archive_command") == "/bin/false");
    primary.write(2);
    primary.switch_segment();
    primary.write(3);
    primary.kill();
    let mut drain = world.command(world.program("wal-archive").to_str().unwrap());
    drain.args(["drain", "--config"]).arg(keys.push()).arg("--archive").arg(archive.root());
    run(drain.arg("--pgdata").arg(primary.data()));
    let fetch = format!("{} %f %p", archive.fetch("--partial"));
    let restored = Server::recovered(&world, &recorded.backup, "restored", fetch);
    assert_eq!(restored.ledger(), lines_of(1..=3));
}

#[test]
fn after_a_rotation_in_the_middle_recovery_needs_both_keys_and_each_of_two_recipients_is_enough() {
    let Some(world) = World::open() else { return };
    let safe = KeyPair::new(&world, "safe", &[]);
    let old = KeyPair::new(&world, "old", &[&safe]);
    let archive = Archive::encrypted(&world, "archive", &old);
    let (mut primary, recorded) = Recorded::with_primary(&world, &archive, 2);
    let new = KeyPair::new(&world, "new", &[&safe]);
    new.configure_push(&format!("compare_recipients = [\"{}\"]", old.recipient));
    primary.set("archive_command", archive.with_keys(Some(&new)).push_command());
    for batch in 3..=4 {
        primary.write(batch);
        primary.archive_segment();
    }
    primary.wait_archived();
    primary.destroy();

    let mut with_old = recorded.recovery(&world, "with-old", &archive.fetch_command());
    with_old.launch();
    let story = with_old.expect_stop(220);
    assert!(story.contains("no identity here fits"), "{story}");
    new.learn(&old);
    for (name, keys) in [("with-both", &new), ("from-the-safe", &safe)] {
        let fetch = archive.with_keys(Some(keys)).fetch_command();
        let restored = Server::recovered(&world, &recorded.backup, name, fetch);
        assert_eq!(restored.ledger(), lines_of(1..=4), "{name}");
    }
}
