//! `wal-archive backup` and `restore`: a cluster taken, lost and brought back by one tool; and its
//! backups read by stock ones.

use crate::archive::Archive;
use crate::json_page::assert_as_documented;
use crate::server::{Server, lines_of};
use crate::world::{World, run, told};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const BALANCES: &str =
    "select count(*), sum(delta), (select sum(abalance) from pgbench_accounts) from pgbench_history";

/// `wal-archive` with these archives.
pub(crate) fn wal_archive(world: &World, archives: &[&Archive<'_>], args: &[&str]) -> Command {
    let mut command = world.command(world.program("wal-archive").to_str().unwrap());
    command.args(args);
    for archive in archives {
        command.arg("--archive").arg(archive.root());
    }
    command
}

pub(crate) fn take_backup(
    world: &World,
    server: &Server<'_>,
    archives: &[&Archive<'_>],
    args: &[&str],
) -> Output {
    let mut command = wal_archive(world, archives, &["backup", "--checkpoint", "fast"]);
    command.args(["--connection", &server.connection()]).args(args).output().unwrap()
}

pub(crate) fn restore_into(world: &World, archives: &[&Archive<'_>], name: &str, args: &[&str]) -> Output {
    wal_archive(world, archives, &["restore"]).arg(world.path(name)).args(args).output().unwrap()
}

fn assert_json_as_documented(command: &str, outputs: &[Output]) {
    let answers: Vec<&str> =
        outputs.iter().map(|output| std::str::from_utf8(&output.stdout).unwrap()).collect();
    assert_as_documented(command, &answers);
}

pub(crate) fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}", told(&Command::new("wal-archive"), output));
}

pub(crate) fn assert_refused(output: &Output, words: &str) {
    let text = told(&Command::new("wal-archive"), output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{words:?} is not in {text}");
}

/// The folders of all backups of an archive, oldest first.
pub(crate) fn backups(archive: &Archive<'_>) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(archive.root().join("backups")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

pub(crate) fn id(folder: &Path) -> String {
    folder.file_name().unwrap().to_str().unwrap().to_owned()
}

/// What PostgreSQL itself says of the files. Manifests of 17 and later want a newer program than 15's, which
/// `scripts/majors.sh` names.
pub(crate) fn assert_verified(world: &World, name: &str, args: &[&str]) {
    let newer = std::env::var("WAL_ARCHIVE_TEST_VERIFYBACKUP").ok().filter(|program| !program.is_empty());
    if newer.is_none() && world.major() >= 17 {
        return println!("SKIPPED: no pg_verifybackup reads the manifests of {}", world.major());
    }
    let program = newer.as_deref().unwrap_or("pg_verifybackup");
    run(world.command(program).arg("-n").args(args).arg(world.path(name)));
}

/// What amcheck says of every table and index; before 14 it knows indexes only.
fn assert_amchecked(world: &World, server: &Server<'_>) {
    if world.major() >= 14 {
        run(server.client("pg_amcheck").args(["-d", "postgres", "--install-missing"]));
    } else {
        server.psql("create extension amcheck");
        server.psql(
            "select bt_index_parent_check(indexrelid, true) from pg_index join pg_class on pg_class.oid = indexrelid \
             join pg_am on pg_am.oid = relam where amname = 'btree' and relpersistence = 'p'",
        );
    }
}

/// A server that is started with a target that `restore` refuses, until it has ended: its log.
pub(crate) fn refused_by_postgresql(
    world: &World,
    archive: &Archive<'_>,
    name: &str,
    args: &[&str],
    (setting, target): (&str, String),
) -> String {
    assert_done(&restore_into(world, &[archive], name, &[args, &["--immediate"]].concat()));
    let mut server = Server::existing(world, name);
    server.set("recovery_target", "");
    server.set(setting, target);
    server.launch();
    server.wait_until_ended();
    server.run_log()
}

/// What was unpacked by hand, recovered from the archive.
pub(crate) fn recovered_by_hand<'w>(world: &'w World, archive: &Archive<'_>, name: &str) -> Server<'w> {
    let server = Server::existing(world, name);
    server.keep_to_itself();
    server.set("restore_command", archive.fetch_command());
    server.request("recovery.signal");
    drop(server);
    started(world, name)
}

/// A restored directory, started until it is open for writing.
pub(crate) fn started<'w>(world: &'w World, name: &str) -> Server<'w> {
    let mut server = Server::existing(world, name);
    server.launch();
    server.wait_promoted();
    server
}

#[test]
fn a_backup_under_load_with_two_tablespaces_is_restored_to_the_end_and_to_a_time_row_by_row() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    let places = ["fast", "slow"].map(|name| world.make_directory(name));
    let [fast, slow] = places.each_ref().map(|place| place.display());
    primary.psql(&format!("create tablespace fast location '{fast}'"));
    primary.psql(&format!("create tablespace slow location '{slow}'"));
    run(primary.client("pgbench").args(["-i", "-q", "-s", "1", "postgres"]));
    primary.psql("alter table pgbench_accounts set tablespace fast");
    primary.psql("alter table pgbench_history set tablespace slow");
    primary.create_ledger();
    let mut load = primary.client("pgbench");
    load.args(["-n", "-c", "2", "-T", "600", "postgres"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut load = load.spawn().unwrap();
    let output = take_backup(&world, &primary, &[&archive], &["--label", "under load", "--json"]);
    assert_done(&output);
    assert_json_as_documented("backup", &[output]);
    primary.write(1);
    primary.psql("select pg_sleep(0.02)");
    let moment =
        primary.psql("select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US+00')");
    primary.psql("select pg_sleep(0.02)");
    primary.write(2);
    load.kill().unwrap();
    load.wait().unwrap();
    primary.wait_until("has ended the load", |server| {
        server.psql("select count(*) from pg_stat_activity where application_name = 'pgbench'") == "0"
    });
    primary.archive_segment();
    primary.wait_archived();
    let balances = primary.psql(BALANCES);
    primary.destroy();

    let window = |args: &[&str]| wal_archive(&world, &[&archive], args).output().unwrap();
    assert_json_as_documented(
        "window",
        &[window(&["window", "--json"]), window(&["window", "--json", "--at", &moment])],
    );

    // To a time, with the tablespaces elsewhere.
    let elsewhere = [
        format!("--tablespace={fast}={}", world.path("elsewhere").display()),
        format!("--tablespace={slow}={}", world.path("elsewhere too").display()),
    ];
    let args =
        ["--target-time", &moment, "--target-action", "promote", &elsewhere[0], &elsewhere[1], "--json"];
    let output = restore_into(&world, &[&archive], "to-a-time", &args);
    assert_done(&output);
    assert_json_as_documented("restore", &[output]);
    let server = started(&world, "to-a-time");
    assert_eq!(server.ledger(), lines_of([1]), "{}", server.story());
    assert_eq!(
        server.psql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'fast'"),
        world.path("elsewhere").display().to_string()
    );
    server.destroy();

    // To the end, where everything was.
    assert_refused(&restore_into(&world, &[&archive], "to-the-end", &[]), "is not empty");
    for place in &places {
        fs::remove_dir_all(place).unwrap();
        world.make_directory(place.file_name().unwrap().to_str().unwrap());
    }
    assert_done(&restore_into(&world, &[&archive], "to-the-end", &[]));
    assert_verified(&world, "to-the-end", &[]);
    let server = started(&world, "to-the-end");
    assert_eq!(server.psql(BALANCES), balances);
    assert_eq!(server.ledger(), lines_of([1, 2]));
    assert_amchecked(&world, &server);
}

#[test]
fn what_cannot_be_restored_is_refused_before_anything_is_written() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    primary.create_ledger();
    let before = primary.psql("select to_char(now() at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US+00')");
    assert_refused(&restore_into(&world, &[&archive], "new", &[]), "there is no complete backup");
    primary.write(1);
    assert_done(&take_backup(&world, &primary, &[&archive], &[]));
    primary.write(2);
    let hole = primary.archive_segment();
    primary.write(3);
    primary.archive_segment();
    primary.destroy();
    let refused = |args: &[&str], words: &str| {
        assert_refused(&restore_into(&world, &[&archive], "new", args), words);
        assert!(!world.path("new").exists(), "something was written");
    };
    refused(&["--target-time", "2099-01-01 00:00:00Z"], "cannot be reached: the last transaction");
    refused(&["--target-time", &before], "before the backup");
    refused(&["--target-lsn", "FFFF/0"], "cannot be reached");
    refused(&["--target-lsn", "0/28"], "before the backup");
    refused(&["--target-timeline", "7"], "nothing of timeline 7");
    refused(&["--backup", "20200101T000000Z-0000000001000028-1"], "no complete backup");
    archive.take_out(&hole);
    refused(&[], &format!("\"{hole}\" is not in the archive"));
    assert_done(&restore_into(
        &world,
        &[&archive],
        "immediate",
        &["--immediate", "--target-action", "promote"],
    ));
    let server = started(&world, "immediate");
    assert_eq!(server.ledger(), lines_of([1]));
    archive.put_back(&hole);
}

#[test]
fn the_last_address_that_can_be_a_target_is_where_the_last_record_begins() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    primary.create_ledger();
    assert_done(&take_backup(&world, &primary, &[&archive], &[]));
    primary.write(1);
    primary.archive_segment();
    primary.destroy();
    let restore = |name: &str, args: &[&str]| {
        restore_into(&world, &[&archive], name, &[args, &["--target-action", "promote"]].concat())
    };
    let window = run(&mut wal_archive(&world, &[&archive], &["window", "--json"]));
    let window: serde_json::Value = serde_json::from_str(&window).unwrap();
    let moved = |lsn: &str, by: i64| {
        let (high, low) = lsn.split_once('/').unwrap();
        format!("{high}/{:X}", i64::from_str_radix(low, 16).unwrap() + by)
    };
    let padding = moved(window["windows"][0]["end_lsn"].as_str().unwrap(), -8);
    let output = restore("padding", &["--target-lsn", &padding]);
    assert_refused(&output, "the last record of the archived WAL begins at");
    let message = String::from_utf8(output.stderr).unwrap();
    let begins = message.split("begins at ").nth(1).unwrap().split_whitespace().next().unwrap();
    assert_done(&restore("last", &["--target-lsn", begins]));
    started(&world, "last").destroy();
    // And PostgreSQL itself does not get any further.
    for beyond in [moved(begins, 1), padding] {
        let name = format!("beyond-{}", beyond.replace('/', "-"));
        let promote = ["--target-action", "promote"];
        let log =
            refused_by_postgresql(&world, &archive, &name, &promote, ("recovery_target_lsn", beyond.clone()));
        assert!(log.contains("recovery ended before configured recovery target"), "{beyond}");
    }
}

#[test]
fn a_restore_point_and_a_transaction_are_targets_where_the_wal_holds_them() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    primary.create_ledger();
    primary.psql("select pg_create_restore_point('too early')");
    primary.write(1);
    assert_done(&take_backup(&world, &primary, &[&archive], &[]));
    primary.write(2);
    let xid = primary.psql(
        "with x as (insert into ledger select 3, line, '' from generate_series(1, 500) line returning 1) \
         select pg_current_xact_id() from x limit 1",
    );
    primary.archive_segment();
    primary.write(4);
    // Words that a setting, a shell and a path must not take for anything else.
    primary.psql(r"select pg_create_restore_point('before \1 it''s changed')");
    primary.write(5);
    primary.archive_segment();
    primary.destroy();
    let refused = |args: &[&str], words: &str| {
        assert_refused(&restore_into(&world, &[&archive], "new", args), words);
        assert!(!world.path("new").exists(), "something was written");
    };
    refused(&["--target-name", "too early"], "no restore point \"too early\"");
    refused(&["--target-xid", "4000000000"], "no end of transaction 4000000000");
    let strange = world.path(r"it's \1 \a");
    std::os::unix::fs::symlink(archive.root(), &strange).unwrap();
    for (name, target, value, batches) in [
        ("by-name", "--target-name", r"before \1 it's changed", 4),
        ("by-xid", "--target-xid", xid.as_str(), 3),
    ] {
        let mut restore = wal_archive(&world, &[], &["restore", target, value, "--target-action", "promote"]);
        assert_done(&restore.arg("--archive").arg(&strange).arg(world.path(name)).output().unwrap());
        let server = started(&world, name);
        assert_eq!(server.ledger(), lines_of(1..=batches), "{}", server.story());
        server.destroy();
    }
}

#[test]
fn every_damaged_missing_or_exchanged_part_is_refused_and_the_other_destination_serves() {
    let Some(world) = World::open() else { return };
    let (first, second) = (Archive::new(&world, "first"), Archive::new(&world, "second"));
    let push = format!("{} %p", first.push(&format!("--archive {}", second.root().display())));
    let mut primary = Server::archiving_by(&world, "primary", &[&first, &second], push);
    primary.create_ledger();
    primary.write(1);
    let both = [&first, &second];
    assert_done(&take_backup(&world, &primary, &both, &[]));
    primary.write(2);
    assert_done(&take_backup(&world, &primary, &both, &[]));
    primary.archive_segment();
    primary.destroy();
    let folders = backups(&first);
    let (older, newer) = (&folders[0], &folders[1]);
    let ours = ["--backup", &id(newer)];
    let verified =
        |archive: &Archive<'_>| wal_archive(&world, &[archive], &["verify", "--backups"]).output().unwrap();
    assert_done(&verified(&first));
    for file in ["base-00001.tar.zst", "manifest.zst"] {
        let path = newer.join(file);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 4;
        for (name, bytes) in [("flipped", flipped), ("exchanged", fs::read(older.join(file)).unwrap())] {
            fs::write(&path, bytes).unwrap();
            world.give_to_postgres(&path);
            let made = format!("{name}-{file}");
            let found = verified(&first);
            let text = String::from_utf8_lossy(&found.stdout).into_owned();
            assert!(
                found.status.code() == Some(1) && text.contains(file) && text.contains(&id(newer)),
                "{text}"
            );
            let output = restore_into(&world, &[&first], &made, &ours);
            // A size that differs is seen in the listing already.
            assert_eq!(output.status.code(), Some(1), "{}", told(&Command::new("restore"), &output));
            assert!(!world.path(&made).join("global/pg_control").exists(), "it could be started");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(verified(&first).status.code(), Some(1));
        assert_refused(&restore_into(&world, &[&first], "missing", &ours), "there is no complete backup");
        fs::write(&path, &whole).unwrap();
        world.give_to_postgres(&path);
    }
    // One destination damaged: the other one serves, and the repeat needs --force.
    fs::write(
        newer.join("base-00001.tar.zst"),
        vec![0; fs::metadata(newer.join("base-00001.tar.zst")).unwrap().len() as usize],
    )
    .unwrap();
    assert_refused(&restore_into(&world, &[&first], "again", &ours), "is not what was stored");
    assert_refused(&restore_into(&world, &both, "again", &ours), "not finished");
    let output = restore_into(&world, &both, "again", &[ours.as_slice(), &["--force"]].concat());
    assert_done(&output);
    let server = started(&world, "again");
    assert_eq!(server.ledger(), lines_of([1, 2]));
}

#[test]
fn stock_zstd_and_tar_restore_a_backup() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    let fast = world.make_directory("fast");
    primary.psql(&format!("create tablespace fast location '{}'", fast.display()));
    primary.psql("create table ledger(batch int, line int, text text) tablespace fast");
    primary.write(1);
    assert_done(&take_backup(&world, &primary, &[&archive], &["--json"]));
    primary.write(2);
    primary.archive_segment();
    primary.destroy();
    fs::remove_dir_all(&fast).unwrap();
    world.make_directory("fast");
    let data = world.make_directory("by-hand");
    fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let backup = &backups(&archive)[0];
    let oid = fs::read_dir(backup).unwrap().find_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_suffix("-00001.tar.zst").filter(|name| *name != "base").map(str::to_owned)
    });
    let script = format!(
        "cd {backup} && cat base-*.tar.zst | zstd -dc | tar x -C {data} && cat {oid}-*.tar.zst | zstd -dc | tar x -C {fast} \
         && zstd -dc manifest.zst > {data}/backup_manifest",
        backup = backup.display(),
        data = data.display(),
        oid = oid.expect("a tablespace"),
        fast = fast.display(),
    );
    run(world.command("sh").args(["-c", &script]));
    let server = recovered_by_hand(&world, &archive, "by-hand");
    assert_eq!(server.ledger(), lines_of([1, 2]));
}

#[test]
fn a_backup_follows_the_promotions_that_came_after_it() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    primary.create_ledger();
    primary.write(1);
    assert_done(&take_backup(&world, &primary, &[&archive], &[]));
    primary.write(2);
    primary.archive_segment();
    primary.destroy();
    for (name, batch) in [("second", 3), ("third", 4)] {
        assert_done(&restore_into(&world, &[&archive], name, &["--keep-archiving"]));
        let mut server = started(&world, name);
        server.write(batch);
        server.archive_segment();
        server.wait_archived();
        server.destroy();
    }
    assert_done(&restore_into(&world, &[&archive], "newest", &[]));
    let server = started(&world, "newest");
    assert_eq!((server.ledger(), server.timeline()), (lines_of(1..=4), 4));
    server.destroy();
    assert_done(&restore_into(&world, &[&archive], "older", &["--target-timeline", "2"]));
    let server = started(&world, "older");
    assert_eq!(server.ledger(), lines_of(1..=3));
}

#[test]
fn every_target_is_reached_along_two_promotions_with_two_tablespaces_elsewhere() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    let places = ["fast", "slow"].map(|name| world.make_directory(name));
    for place in &places {
        let name = place.file_name().unwrap().to_str().unwrap();
        primary.psql(&format!("create tablespace {name} location '{}'", place.display()));
    }
    primary.create_ledger();
    primary.psql("alter table ledger set tablespace fast");
    primary.psql("create table other(x int) tablespace slow");
    primary.psql("insert into other select generate_series(1, 1000)");
    primary.write(1);
    assert_done(&take_backup(&world, &primary, &[&archive], &[]));
    primary.write(2);
    primary.psql("select pg_create_restore_point('on the first')");
    primary.write(3);
    primary.archive_segment();
    primary.destroy();
    // Each with its tablespaces below a directory of its own.
    let restored = |name: &str, args: &[&str]| {
        let new = |place: &PathBuf| world.path(&format!("{name}-{}", place.file_name().unwrap().display()));
        let mapped = places.each_ref().map(|place| format!("{}={}", place.display(), new(place).display()));
        let mapped = mapped.each_ref().map(|one| ["--tablespace", one.as_str()]).concat();
        assert_done(&restore_into(&world, &[&archive], name, &[args, &mapped].concat()));
        assert_verified(&world, name, &["-i", "tablespace_map"]);
        let server = started(&world, name);
        assert_eq!(server.psql("select count(*) from other"), "1000");
        let there = "select count(*) from pg_tablespace where pg_tablespace_location(oid) like";
        let of_its_own = server.psql(&format!("{there} '{}-%'", world.path(name).display()));
        assert_eq!(of_its_own, "2", "{}", server.story());
        server
    };
    let mut second = restored("second", &["--keep-archiving"]);
    assert_eq!((second.ledger(), second.timeline()), (lines_of(1..=3), 2));
    second.write(4);
    let address = second.psql("select pg_current_wal_insert_lsn()");
    second.write(5);
    second.archive_segment();
    second.wait_archived();
    second.destroy();
    let mut third = restored("third", &["--keep-archiving"]);
    third.write(6);
    let xid = third.psql(
        "with x as (insert into ledger select 7, line, '' from generate_series(1, 500) line returning 1) \
         select pg_current_xact_id() from x limit 1",
    );
    third.psql("select pg_sleep(0.02)");
    let moment =
        third.psql("select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US+00')");
    third.psql("select pg_sleep(0.02)");
    third.write(8);
    third.archive_segment();
    third.wait_archived();
    third.destroy();
    for (name, args, batches) in [
        ("immediate", &["--immediate"][..], 1),
        ("name", &["--target-name", "on the first"], 2),
        ("lsn", &["--target-lsn", &address], 4),
        ("xid-without", &["--target-xid", &xid, "--target-exclusive"], 6),
        ("xid", &["--target-xid", &xid], 7),
        ("time", &["--target-time", &moment], 7),
        ("older", &["--target-timeline", "2"], 5),
        ("end", &[], 8),
    ] {
        let server = restored(name, &[args, &["--target-action", "promote"]].concat());
        assert_eq!(server.ledger(), lines_of(1..=batches), "{name}\n{}", server.story());
        assert_amchecked(&world, &server);
        server.destroy();
    }
}

#[test]
fn a_backup_of_a_standby_is_restored_without_becoming_one() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    primary.create_ledger();
    primary.write(1);
    // pg_basebackup is not of this server's major everywhere.
    primary.stop();
    let mut standby = Server::clone_of(&world, &primary, "standby");
    primary.start();
    standby.keep_to_itself();
    standby.set("primary_conninfo", primary.connection());
    standby.request("standby.signal");
    standby.start();
    standby.wait_streaming();
    primary.write(2);
    standby.wait_ledger([1, 2]);
    primary.psql("checkpoint");
    // Its WAL is complete only once the primary finishes the segment.
    let output = take_backup(&world, &standby, &[&archive], &["--wait", "1s"]);
    assert_refused(&output, "cannot be restored yet");
    assert!(String::from_utf8_lossy(&output.stderr).contains("pg_switch_wal"));
    assert_refused(&restore_into(&world, &[&archive], "too-early", &[]), "cannot become consistent");
    primary.write(3);
    primary.archive_segment();
    primary.wait_archived();
    drop(standby);
    primary.destroy();
    assert_done(&restore_into(&world, &[&archive], "restored", &[]));
    let server = started(&world, "restored");
    assert_eq!(server.ledger(), lines_of(1..=3));
}

#[test]
fn expire_knows_its_own_backups_and_leaves_each_kept_one_restorable() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    primary.create_ledger();
    for batch in 1..=3 {
        primary.write(batch);
        assert_done(&take_backup(&world, &primary, &[&archive], &["--label", &format!("number {batch}")]));
        for _ in 0..2 {
            primary.write(100 + batch);
            primary.psql(&format!("delete from ledger where batch = {}", 100 + batch));
            primary.archive_segment();
        }
    }
    primary.wait_archived();
    primary.destroy();
    let run_expire =
        |args: &[&str]| wal_archive(&world, &[&archive], &["expire"]).args(args).output().unwrap();
    let before = archive.names();
    // Backups of others that are named do not make it forget its own.
    assert_done(&run_expire(&["--label", "number 3", "--yes"]));
    assert_eq!(backups(&archive).len(), 3, "each of our own is kept where no rule drops it");
    let oldest: String = fs::read_to_string(backups(&archive)[0].join("backup.json")).unwrap();
    let oldest: serde_json::Value = serde_json::from_str(&oldest).unwrap();
    assert!(archive.names().len() < before.len(), "what is older than the first backup is gone");

    let output = run_expire(&["--keep-backups", "2", "--yes", "--json"]);
    assert_done(&output);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["destinations"][0]["backups"][0]["backup"], oldest["backup"]);
    let listed = run(&mut wal_archive(&world, &[&archive], &["list", "--json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let own = listed["destinations"][0]["base_backups"].as_array().unwrap().clone();
    let labels: Vec<_> = own.iter().map(|one| one["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["number 2", "number 3"]);
    for (number, one) in (2..).zip(&own) {
        assert_eq!(one["state"], "complete");
        let name = format!("kept{number}");
        assert_done(&restore_into(
            &world,
            &[&archive],
            &name,
            &["--backup", one["backup"].as_str().unwrap()],
        ));
        let server = started(&world, &name);
        assert_eq!(server.ledger(), lines_of(1..=3));
        server.destroy();
    }
}

#[test]
fn a_server_is_reached_over_tcp_by_each_password_method_a_service_and_a_password_file() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::init(&world, "primary");
    archive.init(&primary);
    primary.set("archive_command", archive.push_command());
    // An address of its own, so that no other server has its port.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = format!("127.{}.{}.7", high.max(1), low);
    primary.set("listen_addresses", &address);
    let hba = primary.data().join("pg_hba.conf");
    let lines: String =
        [("plain", "password"), ("five", "md5"), ("scram", "scram-sha-256"), ("nobody", "reject")]
            .map(|(user, method)| format!("host replication {user} 127.0.0.0/8 {method}\n"))
            .concat();
    // No other line lets anybody in over TCP.
    fs::write(&hba, format!("{lines}local all all trust\nlocal replication all trust\n")).unwrap();
    primary.start();
    for (user, encryption) in
        [("plain", "md5"), ("five", "md5"), ("scram", "scram-sha-256"), ("nobody", "md5")]
    {
        primary.psql(&format!(
            "set password_encryption = '{encryption}'; create role {user} login replication password 'it''s {user}'"
        ));
    }
    let services = world.path("services");
    fs::write(&services, format!("[backups]\nhost={address}\nport=5432\n")).unwrap();
    let passwords = world.path(".pgpass");
    let line = |user: &str| format!("{address}:5432:replication:{user}:it's {user}\n");
    fs::write(&passwords, ["plain", "five", "scram", "nobody"].map(line).concat()).unwrap();
    fs::set_permissions(&passwords, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    world.give_to_postgres(&passwords);
    let by_service = |connection: &str| {
        let mut command =
            wal_archive(&world, &[&archive], &["backup", "--checkpoint", "fast", "--connection", connection]);
        command.env("PGSERVICEFILE", &services).env("PGSERVICE", "backups").output().unwrap()
    };
    for user in ["plain", "five", "scram"] {
        assert_done(&by_service(&format!("user={user}")));
        let wrong = by_service(&format!("user={user} password=wrong"));
        assert_eq!(wrong.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&wrong.stderr).contains("password authentication failed"));
    }
    let refused = by_service("user=nobody");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("pg_hba.conf"), "{refused:?}");
    // Encrypted, by a certificate for the address that only its own file vouches for.
    let certificate = primary.data().join("server.crt");
    let subject = format!("subjectAltName=IP:{address}");
    let mut made = world.command("openssl");
    made.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]);
    made.args([
        "-subj",
        "/CN=x",
        "-addext",
        &subject,
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-keyout",
    ]);
    run(made.arg(primary.data().join("server.key")).arg("-out").arg(&certificate));
    let key: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(primary.data().join("server.key"), key).unwrap();
    let no_tls = by_service("user=scram sslmode=require");
    assert!(String::from_utf8_lossy(&no_tls.stderr).contains("has no TLS"), "{no_tls:?}");
    let encrypted = fs::read_to_string(&hba).unwrap().replace("host replication", "hostssl replication");
    fs::write(&hba, encrypted).unwrap();
    primary.set("ssl", "on");
    primary.wait_for_log("parameter \"ssl\" changed to \"on\"", 1);
    let root = format!("sslrootcert={}", certificate.display());
    assert_done(&by_service("user=scram"));
    assert_done(&by_service("user=scram sslmode=require"));
    assert_done(&by_service(&format!("user=scram sslmode=verify-full {root}")));
    let elsewhere = format!("user=scram host=localhost hostaddr={address} {root}");
    let other_name = by_service(&format!("{elsewhere} sslmode=verify-full password='it\\'s scram'"));
    assert!(String::from_utf8_lossy(&other_name.stderr).contains("not valid for name"), "{other_name:?}");
    assert_done(&by_service(&format!("{elsewhere} sslmode=verify-ca password='it\\'s scram'")));
    let unknown = by_service("user=scram sslmode=verify-ca");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no sslrootcert is there"), "{unknown:?}");
    let plain = by_service("user=scram sslmode=disable");
    assert!(String::from_utf8_lossy(&plain.stderr).contains("pg_hba.conf"), "{plain:?}");
    fs::remove_file(&passwords).unwrap();
    let none = by_service("user=scram");
    assert!(String::from_utf8_lossy(&none.stderr).contains("wants a password"), "{none:?}");
    assert_eq!(backups(&archive).len(), 7);
}

#[test]
fn one_destination_that_fails_does_not_keep_the_other_from_its_backup() {
    let Some(world) = World::open() else { return };
    let (first, second) = (Archive::new(&world, "first"), Archive::new(&world, "second"));
    let mut primary = Server::archiving(&world, "primary", &first);
    second.init(&primary);
    primary.create_ledger();
    primary.write(1);
    let (gone, _) = second.outage();
    run(world.command("sh").args(["-c", &gone]));
    assert_refused(&take_backup(&world, &primary, &[&first, &second], &[]), "cannot open the archive's root");
    primary.archive_segment();
    primary.destroy();
    // The one that is left has all that is asked for, and nobody knows whether the other one has more.
    let both = restore_into(&world, &[&first, &second], "of-one-of-two", &[]);
    assert_done(&both);
    let text = told(&Command::new("restore"), &both);
    assert!(text.contains("recovery stops with 220 until this destination gives it WAL: "), "{text}");
    assert!(text.contains("restore again with --archive OTHER"), "{text}");
    let lost = restore_into(&world, &[&first, &second], "lost", &["--target-lsn", "FFFF/0"]);
    assert_eq!(lost.status.code(), Some(2), "{}", told(&Command::new("restore"), &lost));
    assert_refused(
        &restore_into(&world, &[&first], "lost", &["--target-lsn", "FFFF/0"]),
        "cannot be reached",
    );
    assert_done(&restore_into(&world, &[&first], "restored", &[]));
    let server = started(&world, "restored");
    assert_eq!(server.ledger(), lines_of([1]));
}

#[test]
fn check_tells_the_age_of_the_newest_backup_and_alarms_only_where_asked() {
    let Some(world) = World::open() else { return };
    let archive = Archive::new(&world, "archive");
    let mut primary = Server::archiving(&world, "primary", &archive);
    let check = |args: &[&str]| {
        let output =
            wal_archive(&world, &[&archive], &["check", "--free-warning", "0%", "--free-critical", "0%"])
                .args(args)
                .output()
                .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = check(&[]);
    assert!(code == Some(0) && !text.contains("backup"), "{text}");
    let (code, text) = check(&["--backup-critical", "1h"]);
    assert!(code == Some(2) && text.contains("no base backup"), "{text}");
    primary.create_ledger();
    assert_done(&take_backup(&world, &primary, &[&archive], &[]));
    let (code, text) = check(&["--backup-critical", "1h", "--backup-warning", "30min"]);
    assert!(code == Some(0) && text.contains("backup_age_seconds") && text.contains("'backups "), "{text}");
    let (code, text) = check(&["--backup-warning", "1ms"]);
    assert!(code == Some(1) && text.contains("newest base backup"), "{text}");
    primary.stop();
}
