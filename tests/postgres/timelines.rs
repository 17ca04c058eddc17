//! Promotions: chains of timelines, `pg_rewind`, and the archive failing at the moment itself.

use crate::archive::Archive;
use crate::recorded::Recorded;
use crate::server::{Backup, Server, lines_of};
use crate::world::{World, run};
use std::fs;

/// Shell: the signal file is gone already, and PostgreSQL asks for the parent's history.
const IN_MID_PROMOTION: &str =
    "[ ! -e recovery.signal ] && [ ! -e standby.signal ] && [ \"${1%.history}\" != \"$1\" ]";

/// Batches 1 and 2 on timeline 1, batch 3 on timeline 2, all archived, both servers lost.
pub fn recorded_on_two_timelines(world: &World, archive: &Archive) -> Recorded {
    let recorded = Recorded::new(world, archive, 2);
    let mut second = recorded.recovery(world, "second", &archive.fetch_command());
    second.set("archive_mode", "on");
    second.launch();
    second.wait_promoted();
    assert_eq!(second.timeline(), 2);
    second.write(3);
    second.archive_segment();
    second.destroy();
    assert!(archive.holds("00000002.history"));
    recorded
}

/// The timelines that a server's own history file names, its own last.
fn ancestry(server: &Server) -> Vec<u32> {
    let timeline = server.timeline();
    let history = server.history(timeline).unwrap_or_else(|| panic!("no history file\n{}", server.story()));
    let parents = history.lines().filter_map(|line| line.split_once('\t')?.0.parse().ok());
    parents.chain([timeline]).collect()
}

#[test]
fn two_promotions_are_followed_from_the_original_backup_to_the_latest_timeline() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 2);

    let mut second = recorded.standby(&world, "second", &archive.fetch_command());
    second.set("archive_mode", "on");
    second.start();
    second.wait_ledger(1..=2);
    second.psql("select pg_promote()");
    second.wait_promoted();
    second.write(3);
    second.archive_segment();
    second.destroy();

    let mut third = recorded.recovery(&world, "third", &archive.fetch_command());
    third.set("archive_mode", "on");
    third.launch();
    third.wait_promoted();
    third.write(4);
    third.archive_segment();
    assert_eq!((third.timeline(), third.ledger()), (3, lines_of(1..=4)));
    third.destroy();

    let mut last = recorded.recovery(&world, "last", &archive.fetch_command());
    last.set("recovery_target_timeline", "latest");
    last.launch();
    last.wait_promoted();
    assert_eq!(last.ledger(), lines_of(1..=4));
    assert_eq!(ancestry(&last), [1, 2, 3, 4]);
}

#[test]
fn pg_rewind_brings_a_diverged_primary_back_with_wal_that_only_the_archive_has() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut old, mut new, _) = diverged(&world, &archive);
    let removed = remove_archived_segments(&old, &archive);
    assert!(removed > 0, "nothing left that the archive would have to bring");

    rewind(&world, &old, &new);
    rejoin(&mut old, &mut new);
}

/// The rewound server follows the new one through the archive.
pub fn rejoin(old: &mut Server<'_>, new: &mut Server<'_>) {
    old.keep_to_itself();
    old.request("standby.signal");
    // Consistent again only with WAL that the new primary has not archived yet.
    old.launch();
    new.write(5);
    new.archive_segment();
    old.wait_ledger([1, 2, 5]);
}

/// Brings the old server back to where the new one left it, with WAL from its archive.
pub fn rewind(world: &World, old: &Server<'_>, new: &Server<'_>) {
    let mut rewind = world.command("pg_rewind");
    rewind.arg("-D").arg(old.data()).arg("--source-server").arg(new.connection());
    run(rewind.args(["--restore-target-wal", "--no-sync"]));
}

/// A primary that went on after its standby was promoted, stopped; that standby, running, with batches
/// 1 and 2; and the backup that it came from.
pub fn diverged<'w>(world: &'w World, archive: &Archive) -> (Server<'w>, Server<'w>, Backup) {
    let mut old = Server::init(world, "old");
    archive.init(&old);
    old.set("wal_log_hints", "on");
    old.set("archive_command", archive.push_command());
    old.set("restore_command", archive.fetch_command());
    old.start();
    old.create_ledger();
    let backup = old.base_backup("backup");
    old.write(1);
    old.archive_segment();

    let mut new = Server::restore(world, &backup, "new");
    new.request("standby.signal");
    new.start();
    new.wait_ledger([1]);
    new.psql("select pg_promote()");
    new.wait_promoted();
    // Until a checkpoint, pg_rewind before PostgreSQL 16 takes it for a server of timeline 1.
    new.psql("checkpoint");
    new.write(2);
    new.archive_segment();

    for batch in [3, 4] {
        old.write(batch);
        old.archive_segment();
        old.psql("checkpoint");
    }
    assert_eq!(old.ledger(), lines_of([1, 3, 4]));
    old.stop();
    (old, new, backup)
}

/// The number of segments removed from a stopped server's `pg_wal`.
pub fn remove_archived_segments(server: &Server, archive: &Archive) -> usize {
    let archived = archive.segments(1).into_iter().map(|name| server.pg_wal().join(name));
    archived.filter(|path| fs::remove_file(path).is_ok()).count()
}

#[test]
fn a_history_request_that_fails_never_leads_to_a_reused_timeline() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = recorded_on_two_timelines(&world, &archive);
    let history = archive.read("00000002.history");
    let asked = world.path("asked");
    // The probe for the newest timeline at the start, and the one that chooses the new timeline.
    let moments = [
        ("at_the_start", "[ \"$1\" = 00000002.history ]".to_owned()),
        (
            "at_the_end",
            format!(
                "echo \"$1\" >> '{asked}'; [ \"$1\" = 00000003.history ] && grep -q '^00000002.*[0-9A-F]$' '{asked}'",
                asked = asked.display()
            ),
        ),
    ];
    for (name, moment) in moments {
        let (go, come) = archive.outage();
        let fetch = archive.fetch("--timeout 6s");
        let command = world.interposed_for_one_request(&format!("{name}.sh"), &moment, (&go, &come), &fetch);
        let mut restored = recorded.recovery(&world, name, &command);
        restored.launch();
        restored.expect_fatal(220);

        restored.launch();
        restored.wait_promoted();
        assert_eq!(ancestry(&restored), [1, 2, 3]);
        assert_eq!(restored.ledger(), lines_of(1..=3));
        assert_eq!(archive.read("00000002.history"), history);
    }
}

#[test]
fn an_archive_lost_in_mid_promotion_still_leaves_a_history_file_with_every_ancestor() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = recorded_on_two_timelines(&world, &archive);
    let command =
        world.interposed("cut.sh", IN_MID_PROMOTION, &archive.outage().0, &archive.fetch("--timeout 6s"));
    let mut restored = recorded.recovery(&world, "restored", &command);
    restored.set("archive_mode", "on");
    restored.launch();
    restored.wait_promoted();
    assert!(archive.elsewhere().exists(), "the outage never came\n{}", restored.story());
    assert_eq!(ancestry(&restored), [1, 2, 3]);
    assert_eq!(restored.ledger(), lines_of(1..=3));

    archive.come_back();
    restored.write(4);
    restored.archive_segment();
    restored.wait_archived();
    assert_eq!(archive.read("00000003.history"), restored.history(3).unwrap().into_bytes());
}

#[test]
fn an_archive_lost_while_timeline_1_is_left_does_not_stop_the_promotion() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 2);
    let command =
        world.interposed("cut.sh", IN_MID_PROMOTION, &archive.outage().0, &archive.fetch("--timeout 6s"));
    let mut restored = recorded.recovery(&world, "restored", &command);
    restored.launch();
    restored.wait_promoted();
    assert!(archive.elsewhere().exists(), "the outage never came\n{}", restored.story());
    assert_eq!(ancestry(&restored), [1, 2]);
    assert_eq!(restored.ledger(), lines_of(1..=2));
}

#[test]
fn a_standby_promoted_while_the_archive_is_lost_still_names_every_ancestor() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = recorded_on_two_timelines(&world, &archive);
    let command =
        world.interposed("cut.sh", IN_MID_PROMOTION, &archive.outage().0, &archive.fetch("--timeout 6s"));
    let mut standby = recorded.standby(&world, "standby", &command);
    standby.start();
    standby.wait_ledger(1..=3);
    standby.psql("select pg_promote()");
    standby.wait_promoted();
    assert!(archive.elsewhere().exists(), "the outage never came\n{}", standby.story());
    assert_eq!(ancestry(&standby), [1, 2, 3]);
}

#[test]
fn without_any_copy_of_the_history_a_promotion_stops_and_goes_on_as_the_hint_says() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = recorded_on_two_timelines(&world, &archive);
    let lose = format!("{}; rm pg_wal/00000002.history", archive.outage().0);
    let command = world.interposed("cut.sh", IN_MID_PROMOTION, &lose, &archive.fetch("--timeout 6s"));
    let mut restored = recorded.recovery(&world, "restored", &command);
    restored.launch();
    let log = restored.expect_stop(220);
    let ours = log.lines().find(|line| line.contains("wal-fetch: error: ")).unwrap();
    assert!(ours.contains("HINT: ") && ours.contains("recovery.signal"), "{ours}");
    assert!(restored.history(3).is_none(), "{log}");

    archive.come_back();
    restored.request("recovery.signal");
    restored.launch();
    restored.wait_promoted();
    assert_eq!(ancestry(&restored), [1, 2, 3]);
    assert_eq!(restored.ledger(), lines_of(1..=3));
}
