//! The archive cannot be reached, its disk is not mounted, or is full.
//!
//! Where an outage begins at one segment, prefetch is off: what it brought before would be used.

use crate::archive::Archive;
use crate::backup::{assert_done, backups, restore_into, started, take_backup};
use crate::recorded::Recorded;
use crate::server::{Server, lines_of, touch};
use crate::world::{World, run, told, wait_for};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PUSH_FAILED: &str = "archive command failed with exit code 13";

/// A mounted file system that goes away with the test.
pub(crate) struct Mount {
    target: PathBuf,
}

impl Mount {
    fn bind(source: &Path, target: &Path) -> Self {
        run(Command::new("mount").arg("--bind").arg(source).arg(target));
        Mount { target: target.to_owned() }
    }

    pub(crate) fn tmpfs(target: &Path, size: &str, world: &World) -> Self {
        let account = world.account().expect("root");
        let options = format!("size={size},mode=0750,uid={},gid={}", account.user, account.group);
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(target));
        Mount { target: target.to_owned() }
    }

    fn resize(&self, size: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.target));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a running wal-push may hold it.
        let _ = Command::new("umount").arg("-l").arg(&self.target).status();
    }
}

#[test]
fn an_archive_gone_in_mid_recovery_stops_it_with_fatal_and_never_promotes() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 4);
    let moment = format!("[ \"$1\" = {} ]", recorded.segment(3));
    let command =
        world.interposed("cut.sh", &moment, &archive.outage().0, &archive.fetch("--timeout 6s --prefetch 0"));
    let mut restored = recorded.recovery(&world, "restored", &command);
    restored.launch();
    let log = restored.expect_fatal(220);
    assert!(log.contains(&format!("restored log file \"{}\"", recorded.segment(2))), "{log}");
    assert!(log.contains("HINT: "), "{log}");
    // Still away: still no promotion.
    restored.launch();
    restored.expect_fatal(220);

    archive.come_back();
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=4));
}

#[test]
fn an_empty_directory_in_the_place_of_the_archive_stops_recovery_with_fatal() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 3);
    let moment = format!("[ \"$1\" = {} ]", recorded.segment(2));
    let replace = format!("{}; mkdir '{}'", archive.outage().0, archive.root().display());
    let command = world.interposed("cut.sh", &moment, &replace, &archive.fetch("--timeout 6s --prefetch 0"));
    let mut restored = recorded.recovery(&world, "restored", &command);
    restored.launch();
    restored.expect_fatal(220);
    assert_eq!(fs::read_dir(archive.root()).unwrap().count(), 0);

    fs::remove_dir(archive.root()).unwrap();
    archive.come_back();
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=3));
}

#[test]
fn a_standby_outlasts_an_outage_of_its_archive() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 4);
    let moment = format!("[ \"$1\" = {} ]", recorded.segment(3));
    let command =
        world.interposed("cut.sh", &moment, &archive.outage().0, &archive.fetch("--timeout 6s --prefetch 0"));
    let mut standby = recorded.standby(&world, "standby", &command);
    standby.start();
    standby.wait_for_log("wal-fetch: error: ", 3);
    standby.wait_for_log("do not promote while the archive does not answer", 1);
    standby.wait_ledger(1..=2);

    archive.come_back();
    standby.wait_ledger(1..=4);
    assert_eq!(standby.psql("select pg_is_in_recovery()"), "t");
    assert!(!standby.run_log().contains("FATAL:  could not restore"), "{}", standby.story());
}

#[test]
fn a_standby_told_to_abort_stops_in_an_outage_and_goes_on_when_started_again() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 4);
    let moment = format!("[ \"$1\" = {} ]", recorded.segment(3));
    let fetch = archive.fetch("--timeout 6s --prefetch 0 --on-error abort");
    let command = world.interposed("cut.sh", &moment, &archive.outage().0, &fetch);
    let mut standby = recorded.standby(&world, "standby", &command);
    standby.launch();
    standby.expect_stop(220);

    archive.come_back();
    standby.start();
    standby.wait_ledger(1..=4);
    assert_eq!(standby.psql("select pg_is_in_recovery()"), "t");
}

#[test]
fn a_server_stops_at_once_while_its_recovery_waits_for_the_archive() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let recorded = Recorded::new(&world, &archive, 2);
    // Longer than any wait of these tests.
    let fetch = archive.fetch("--timeout 1h");
    let command = world.interposed("cut.sh", "[ \"$1\" = 00000002.history ]", &archive.outage().0, &fetch);
    let mut restored = recorded.recovery(&world, "restored", &command);
    restored.launch();
    restored.wait_for_log("\"00000002.history\" is asked for again", 1);
    restored.stop();
    assert!(restored.data().join("recovery.signal").exists());

    archive.come_back();
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=2));
}

#[test]
fn nothing_is_written_below_an_unmounted_disk_and_archiving_goes_on_after_the_mount() {
    let Some(world) = World::open_with_mounts() else { return };
    let disk = world.make_directory("disk");
    let archive = Archive::new(&world, "archive");
    let mount = Mount::bind(&disk, archive.root());
    let (mut primary, recorded) = Recorded::with_primary(&world, &archive, 1);

    drop(mount);
    primary.write(2);
    let missed = primary.switch_segment();
    primary.wait_for_log(PUSH_FAILED, 2);
    assert!(primary.run_log().contains("wal-push: error: "), "{}", primary.story());
    assert_eq!(fs::read_dir(archive.root()).unwrap().count(), 0, "created below the mount point");

    let _mount = Mount::bind(&disk, archive.root());
    assert!(!archive.holds(&missed));
    primary.write(3);
    primary.archive_segment();
    primary.wait_archived();
    archive.assert_sound(1);
    primary.destroy();

    let mut restored = recorded.recovery(&world, "restored", &archive.fetch_command());
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=3));
}

#[test]
fn a_disk_unmounted_in_mid_recovery_stops_it_with_fatal_and_never_promotes() {
    let Some(world) = World::open_with_mounts() else { return };
    let disk = world.make_directory("disk");
    let archive = Archive::new(&world, "archive");
    let mount = Mount::bind(&disk, archive.root());
    let recorded = Recorded::new(&world, &archive, 4);
    // Only root unmounts: the command waits for it at the third batch.
    let (waits, go) = (world.path("waits"), world.path("go"));
    let moment = format!("[ \"$1\" = {} ]", recorded.segment(3));
    let pause = format!("touch '{}'; while [ ! -e '{}' ]; do sleep 0.1; done", waits.display(), go.display());
    let command = world.interposed("pause.sh", &moment, &pause, &archive.fetch("--timeout 6s --prefetch 0"));
    let mut restored = recorded.recovery(&world, "restored", &command);
    restored.launch();
    assert!(wait_for(|| waits.exists().then_some(())).is_some(), "{}", restored.story());
    drop(mount);
    touch(&go);
    restored.expect_fatal(220);

    let _mount = Mount::bind(&disk, archive.root());
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=4));
}

#[test]
fn a_full_disk_stops_archiving_cleanly_and_room_on_it_lets_archiving_go_on() {
    let Some(world) = World::open_with_mounts() else { return };
    let archive = Archive::new(&world, "archive");
    let mount = Mount::tmpfs(archive.root(), "8m", &world);
    let mut primary = Server::archiving(&world, "primary", &archive);
    for _ in 0..12 {
        write_noise(&primary);
    }
    primary.wait_for_log("failed too many times, will try again later", 1);

    let log = primary.run_log();
    assert!(log.contains(PUSH_FAILED), "{log}");
    let message = log.lines().find(|line| line.contains("wal-push: error: ")).unwrap();
    assert!(message.contains("No space left on device") && message.contains("HINT: make room"), "{message}");
    // An unfinished file would fail here, a cut object in `assert_sound`.
    let stored = archive.names().len();
    assert!((5..12).contains(&stored), "{stored} objects");
    archive.assert_sound(1);

    mount.resize("64m");
    write_noise(&primary);
    primary.wait_archived();
    assert!(archive.names().len() >= 13);
    archive.assert_sound(1);
}

#[test]
fn a_full_disk_leaves_no_backup_that_counts_and_no_directory_that_starts() {
    let Some(world) = World::open_with_mounts() else { return };
    let (full, other) = (Archive::new(&world, "full"), Archive::new(&world, "other"));
    let _mount = Mount::tmpfs(full.root(), "2m", &world);
    let push = format!("{} %p", full.push(&format!("--archive {}", other.root().display())));
    let mut primary = Server::archiving_by(&world, "primary", &[&full, &other], push);
    primary.create_ledger();
    primary.write(1);
    for (archives, code) in [(&[&full, &other][..], 1), (&[&full], 2)] {
        let output = take_backup(&world, &primary, archives, &[]);
        let text = told(&Command::new("backup"), &output);
        assert!(output.status.code() == Some(code) && text.contains("No space left on device"), "{text}");
    }
    assert!(backups(&full).iter().all(|folder| !folder.join("backup.json").exists()));
    primary.archive_segment();
    primary.wait_archived();
    primary.destroy();

    let small = Mount::tmpfs(&world.make_directory("small"), "8m", &world);
    let output = restore_into(&world, &[&other], "small/data", &[]);
    let text = told(&Command::new("restore"), &output);
    assert!(output.status.code() == Some(2) && text.contains("No space left on device"), "{text}");
    let made = world.path("small/data");
    assert!(made.join("wal-archive.restoring").exists() && !made.join("global/pg_control").exists());
    small.resize("256m");
    assert_done(&restore_into(&world, &[&other], "small/data", &["--force"]));
    let server = started(&world, "small/data");
    assert_eq!(server.ledger(), lines_of([1]));
}

/// A segment full of what no codec makes smaller.
fn write_noise(server: &Server) {
    server.psql(
        "select pg_logical_emit_message(false, 'noise', (
            select decode(string_agg(md5(random()::text || message || part), ''), 'hex')
            from generate_series(1, 4096) part))
         from generate_series(1, 14) message",
    );
    server.switch_segment();
}
