//! `wal-archive backup` and `restore` killed at random moments, as often each as `WAL_ARCHIVE_BACKUP_KILLS`
//! says (`scripts/backup_kills.sh`): never an incomplete backup that looks complete, never a half-made
//! directory that starts, and the repeat succeeds.

use crate::archive::Archive;
use crate::backup::{
    assert_done, assert_verified, backups, id, restore_into, started, take_backup, wal_archive,
};
use crate::server::{Server, lines_of};
use crate::world::{World, run, told};
use std::env;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn kills() -> usize {
    env::var("WAL_ARCHIVE_BACKUP_KILLS").map_or(5, |count| count.parse().expect("a number"))
}

/// Runs it and kills it at a random moment of the time that it takes, which is learned on the way. Whether it
/// was still alive.
fn killed(command: &mut Command, whole: &mut Duration) -> bool {
    let random = RandomState::new().build_hasher().finish() % 10_000;
    let moment = whole.mul_f64(1.1 * random as f64 / 10_000.0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(moment);
    child.kill().unwrap();
    let hit = child.wait().unwrap().signal() == Some(9);
    *whole = if hit { whole.mul_f64(1.05) } else { moment };
    hit
}

/// The files of a folder that have a name already.
fn objects(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.')).collect()
}

/// An archive with one backup of a server with a tablespace.
fn with_backup<'w>(world: &'w World, archive: &Archive<'_>) -> (Server<'w>, Duration) {
    let primary = Server::archiving(world, "primary", archive);
    let fast = world.make_directory("fast");
    primary.psql(&format!("create tablespace fast location '{}'", fast.display()));
    primary.create_ledger();
    primary.psql("alter table ledger set tablespace fast");
    primary.write(1);
    let start = Instant::now();
    assert_done(&take_backup(world, &primary, &[archive], &[]));
    (primary, start.elapsed())
}

#[test]
fn a_killed_backup_is_complete_or_none_and_the_repeat_succeeds() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, mut whole) = with_backup(&world, &archive);
    let mut hits = 0;
    for _ in 0..kills() {
        let mut backup = wal_archive(&world, &[&archive], &["backup", "--checkpoint", "fast", "--wait", "0"]);
        hits += usize::from(killed(backup.args(["--connection", &primary.connection()]), &mut whole));
    }
    primary.archive_segment();
    primary.wait_archived();
    // What has a record is whole, by all its bytes; what has none is shown as incomplete.
    run(&mut wal_archive(&world, &[&archive], &["verify", "--backups"]));
    let listed = run(&mut wal_archive(&world, &[&archive], &["list", "--json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let found = listed["destinations"][0]["base_backups"].as_array().unwrap();
    let (mut complete, mut incomplete) = (0, 0);
    for folder in backups(&archive) {
        let state = match folder.join("backup.json").exists() {
            true => "complete",
            false => "incomplete",
        };
        match found.iter().find(|one| one["backup"] == id(&folder)) {
            Some(one) => assert_eq!(one["state"], state, "{folder:?}"),
            // Killed before its first part had a name.
            None => assert!(objects(&folder).is_empty(), "{folder:?} is not listed"),
        }
        complete += usize::from(state == "complete");
        incomplete += usize::from(state == "incomplete");
    }
    println!(
        "{} kills of backup: {hits} hit it, {incomplete} left parts, {} were complete",
        kills(),
        complete - 1
    );
    primary.write(2);
    assert_done(&take_backup(&world, &primary, &[&archive], &[]));
    primary.destroy();
    fs::remove_dir_all(world.path("fast")).unwrap();
    assert_done(&restore_into(&world, &[&archive], "restored", &[]));
    let server = started(&world, "restored");
    assert_eq!(server.ledger(), lines_of([1, 2]));
}

#[test]
fn a_killed_restore_leaves_nothing_that_starts_and_the_repeat_succeeds() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let (mut primary, mut whole) = with_backup(&world, &archive);
    primary.write(2);
    primary.archive_segment();
    primary.wait_archived();
    primary.destroy();
    let mapping = format!("{}={}", world.path("fast").display(), world.path("mapped").display());
    let args = ["--force", "--tablespace", &mapping];
    let (data, mapped) = (world.path("restored"), world.path("mapped"));
    let mark = "wal-archive.restoring";
    let (mut hits, mut whole_ones) = (0, 0);
    for kill in 1..=kills() {
        let mut restore = wal_archive(&world, &[&archive], &["restore"]);
        let hit = killed(restore.arg(&data).args(args), &mut whole);
        hits += usize::from(hit);
        if data.join("global/pg_control").exists() {
            whole_ones += 1;
            let marks: Vec<String> = fs::read_dir(data.join("pg_tblspc"))
                .unwrap()
                .flat_map(|link| {
                    ["-i".into(), format!("pg_tblspc/{}/{mark}", link.unwrap().file_name().display())]
                })
                .collect();
            let mut ignored = vec!["-i", "tablespace_map", "-i", mark];
            ignored.extend(marks.iter().map(String::as_str));
            assert_verified(&world, "restored", &ignored);
            // Nothing of it is touched any more.
            let output = restore_into(&world, &[&archive], "restored", &args);
            assert_eq!(output.status.code(), Some(1), "{}", told(&Command::new("restore"), &output));
        } else {
            let mut postgres = world.command("postgres");
            let output = postgres.arg("-D").arg(&data).arg("-k").arg(world.root()).output().unwrap();
            assert!(!output.status.success(), "{}", told(&postgres, &output));
            assert_done(&restore_into(&world, &[&archive], "restored", &args));
        }
        assert!(hit || data.join("PG_VERSION").exists());
        if kill < kills() {
            fs::remove_dir_all(&data).unwrap();
            fs::remove_dir_all(&mapped).unwrap();
        }
    }
    println!("{} kills of restore: {hits} hit it, {whole_ones} were whole", kills());
    let server = started(&world, "restored");
    assert_eq!(server.ledger(), lines_of([1, 2]), "{}", server.story());
    assert_eq!(
        server.psql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'fast'"),
        mapped.display().to_string()
    );
}
