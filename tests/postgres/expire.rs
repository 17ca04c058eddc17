//! What `wal-archive expire` leaves is enough: every kept backup is recovered by a real server.

use crate::archive::Archive;
use crate::server::{Backup, Server, lines_of};
use crate::world::{World, run};

/// Four backups over two timelines, a batch before and after each: the first three on timeline 1,
/// where batches 1 to 4 were written, the last on timeline 2, which began after batch 4.
struct Life {
    backups: Vec<Backup>,
}

impl Life {
    fn record(world: &World, archive: &Archive) -> Life {
        let mut backups = Vec::new();
        let mut primary = Server::archiving(world, "primary", archive);
        primary.create_ledger();
        for batch in 1..=4 {
            primary.write(batch);
            // Segments that no backup needs to become consistent.
            for _ in 0..3 {
                primary.write(100 + batch);
                primary.psql(&format!("delete from ledger where batch = {}", 100 + batch));
                primary.archive_segment();
            }
            if batch <= 3 {
                backups.push(primary.base_backup(&format!("kept{batch}")));
            }
        }
        // A replica that is made anew writes a backup history file, too.
        primary.base_backup("replica");
        primary.archive_segment();
        primary.destroy();

        let mut second = Server::restore(world, &backups[2], "second");
        second.set("restore_command", archive.fetch_command());
        second.request("recovery.signal");
        second.launch();
        second.wait_promoted();
        assert_eq!(second.timeline(), 2);
        second.write(5);
        second.archive_segment();
        backups.push(second.base_backup("kept4"));
        second.write(6);
        second.archive_segment();
        second.wait_archived();
        second.destroy();
        Life { backups }
    }

    /// A backup recovered, by its number from 1, with these settings.
    fn recovered(
        &self,
        world: &World,
        archive: &Archive,
        number: usize,
        settings: &[(&str, &str)],
    ) -> String {
        let name = format!("restored{number}{}", settings.len());
        let mut restored = Server::restore(world, &self.backups[number - 1], &name);
        restored.keep_to_itself();
        restored.set("restore_command", archive.fetch_command());
        for (parameter, value) in settings {
            restored.set(parameter, value);
        }
        restored.request("recovery.signal");
        restored.launch();
        restored.wait_promoted();
        let ledger = restored.ledger();
        restored.destroy();
        ledger
    }
}

fn expire(world: &World, archive: &Archive, args: &[&str]) -> String {
    let program = world.program("wal-archive");
    let mut command = world.command(program.to_str().unwrap());
    run(command.env("WAL_ARCHIVE", archive.root()).args(["expire", "--label", "kept*"]).args(args))
}

/// The segment in which a backup of that label starts.
fn start_of(archive: &Archive, label: &str) -> String {
    let history = archive.names().into_iter().find(|name| {
        let labelled = format!("LABEL: {label}\n");
        name.ends_with(".backup") && String::from_utf8(archive.read(name)).unwrap().contains(&labelled)
    });
    history.expect("a backup history file")[..24].to_owned()
}

#[test]
fn every_kept_backup_recovers_to_the_end_after_older_wal_is_gone() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let life = Life::record(&world, &archive);
    let before = archive.names();
    let (first, third) = (start_of(&archive, "kept1"), start_of(&archive, "kept3"));
    let shown = expire(&world, &archive, &["--keep-backups", "2"]);
    assert!(shown.contains("nothing was deleted"), "{shown}");
    assert_eq!(archive.names(), before, "without --yes");

    let done = expire(&world, &archive, &["--keep-backups", "2", "--yes"]);
    assert_eq!(done.matches("keep    backup").count(), 2, "{done}");
    assert_eq!(done.matches("drop    backup").count(), 2, "{done}");
    let left = archive.names();
    assert!(left.contains("00000002.history") && left.contains(&third) && !left.contains(&first), "{left:?}");
    let older = left.iter().filter(|name| name.len() >= 24 && name[8..24] < third[8..24]);
    assert_eq!(older.count(), 0, "{left:?}");
    let newer = before.iter().filter(|name| name.len() < 24 || name[8..24] >= third[8..24]);
    assert!(newer.clone().count() > 5 && newer.eq(left.iter()), "all else is there");
    for number in [3, 4] {
        assert_eq!(life.recovered(&world, &archive, number, &[]), lines_of(1..=6), "backup {number}");
    }
    let again = expire(&world, &archive, &["--keep-backups", "2", "--yes"]);
    assert!(again.contains("deleted 0 objects"), "{again}");
}

#[test]
fn with_between_backups_each_recovers_to_its_own_end_and_the_newest_of_each_timeline_to_the_last() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let life = Life::record(&world, &archive);
    let before = archive.names().len();
    let done = expire(&world, &archive, &["--keep-backups", "4", "--between-backups", "--yes"]);
    assert!(done.contains("between kept backups"), "{done}");
    assert!(archive.names().len() + 4 < before, "{done}");
    assert_eq!(life.recovered(&world, &archive, 4, &[]), lines_of(1..=6));
    // Timeline 1 has a newest backup of its own.
    let timeline = [("recovery_target_timeline", "1")];
    assert_eq!(life.recovered(&world, &archive, 3, &timeline), lines_of(1..=4));
    let mut immediate = vec![("recovery_target", "immediate"), ("recovery_target_action", "promote")];
    let version = run(world.command("postgres").arg("--version"));
    let major: u32 = version.split([' ', '.']).find_map(|word| word.parse().ok()).expect("a version");
    if major >= 15 {
        // It asks for what comes after the backup, and that is not there.
        immediate.push(("recovery_prefetch", "off"));
    }
    for number in 1..=3 {
        let ledger = life.recovered(&world, &archive, number, &immediate);
        assert_eq!(ledger, lines_of(1..=u32::try_from(number).unwrap()), "backup {number}");
    }
}
