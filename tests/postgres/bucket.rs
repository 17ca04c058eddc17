//! A bucket as the archive of a real server, alone and beside a directory.

#[path = "../support/s3.rs"]
#[allow(dead_code)]
mod s3;

use crate::archive::{Archive, KeyPair, Spot};
use crate::backup::{assert_done, assert_refused, assert_verified, backups, id, started};
use crate::server::{Server, lines_of};
use crate::world::{World, run};
use s3::{ACCESS_KEY, SECRET_KEY};
use std::fs;
use std::path::{Path, PathBuf};

/// A store, and the configuration file that reaches it.
struct Bucket {
    store: s3::Server,
    config: PathBuf,
}

impl Bucket {
    fn new(world: &World) -> Option<Bucket> {
        let store = s3::Server::start()?;
        let config = world.path("bin").join("wal-archive.toml");
        fs::write(
            &config,
            format!(
                "[s3]\nendpoint = \"{}\"\naccess_key_id = \"{ACCESS_KEY}\"\nsecret_access_key = \"{SECRET_KEY}\"\n",
                store.endpoint()
            ),
        )
        .unwrap();
        Some(Bucket { store, config })
    }

    fn push_command(&self, world: &World, archives: &str) -> String {
        format!("{} --config {} {archives} %p", world.program("wal-push").display(), self.config.display())
    }

    /// A new cluster and its new archives, all of those configured, started.
    fn archiving<'w>(&self, world: &'w World, archives: &str) -> Server<'w> {
        let mut server = Server::init(world, "primary");
        let mut init = world.command(world.program("wal-archive").to_str().unwrap());
        init.args(["init", "--config"]).arg(&self.config).arg("--pgdata").arg(server.data());
        run(init.args(archives.split(' ')));
        server.set("archive_command", self.push_command(world, archives));
        server.start();
        server
    }

    /// The configuration file of a host that knows these destinations and these keys.
    fn host(&self, world: &World, name: &str, destinations: &str, encryption: &str) -> PathBuf {
        let path = world.path(name);
        let s3 = fs::read_to_string(&self.config).unwrap();
        fs::write(&path, format!("{destinations}\n{s3}\n[encryption]\n{encryption}\n")).unwrap();
        path
    }

    fn fetch_command(&self, world: &World, archives: &str) -> String {
        let program = world.program("wal-fetch");
        format!("{} --config {} --timeout 10s {archives} %f %p", program.display(), self.config.display())
    }
}

/// The arguments for `wal-archive` by a host's configuration.
fn administer(world: &World, config: &Path, args: &[&str]) -> String {
    let mut command = world.command(world.program("wal-archive").to_str().unwrap());
    command.args(&args[..1]).arg("--config").arg(config).args(&args[1..]);
    run(&mut command)
}

const ONLY_BUCKET: &str = "--archive s3://bucket/wal";

#[test]
fn a_server_archives_to_a_bucket_and_recovers_from_it_to_a_time_and_to_the_end() {
    let Some(world) = World::open() else { return };
    let Some(bucket) = Bucket::new(&world) else { return };
    let mut primary = bucket.archiving(&world, ONLY_BUCKET);
    primary.create_ledger();
    let backup = primary.base_backup("backup");
    let mut moments = Vec::new();
    for batch in 1..=4 {
        primary.write(batch);
        primary.psql("select pg_sleep(0.02)");
        moments.push(primary.psql("select clock_timestamp()"));
        primary.psql("select pg_sleep(0.02)");
        primary.archive_segment();
    }
    primary.destroy();
    for (name, moment, batches) in [("to-a-time", Some(&moments[1]), 2), ("to-the-end", None, 4)] {
        let mut restored = Server::restore(&world, &backup, name);
        restored.keep_to_itself();
        restored.set("restore_command", bucket.fetch_command(&world, ONLY_BUCKET));
        if let Some(moment) = moment {
            restored.set("recovery_target_time", moment);
            restored.set("recovery_target_action", "promote");
        }
        restored.request("recovery.signal");
        restored.launch();
        restored.wait_promoted();
        assert_eq!(restored.ledger(), lines_of(1..=batches), "{}", restored.story());
    }
}

#[test]
fn with_a_directory_and_a_bucket_recovery_survives_the_loss_of_either() {
    let Some(world) = World::open() else { return };
    let directory = Archive::new(&world, "archive");
    let Some(mut bucket) = Bucket::new(&world) else { return };
    let only_directory = format!("--archive {}", directory.root().display());
    let both = format!("{only_directory} {ONLY_BUCKET}");
    let mut primary = bucket.archiving(&world, &both);
    primary.create_ledger();
    let backup = primary.base_backup("backup");
    let segments: Vec<String> = (1..=4)
        .map(|batch| {
            primary.write(batch);
            primary.archive_segment()
        })
        .collect();
    primary.destroy();
    let recovery = |name: &str, archives: &str| {
        let command = bucket.fetch_command(&world, archives);
        Server::restoring(&world, &backup, name, command, "recovery.signal")
    };
    let completes = |mut restored: Server| {
        restored.launch();
        restored.wait_promoted();
        assert_eq!(restored.ledger(), lines_of(1..=4), "{}", restored.story());
    };

    // One object damaged and another missing in the directory, a third damaged in the bucket.
    directory.flip_bit(&segments[0], Spot::MiddleOfFrame);
    directory.take_out(&segments[1]);
    let object = bucket.store.file(&format!("wal/wal_005/{}.zst", segments[2]));
    let good = object.as_ref().map(|object| fs::read(object).unwrap());
    if let Some(object) = &object {
        fs::write(object, "junk").unwrap();
    }
    completes(recovery("damaged", &both));
    if let (Some(object), Some(good)) = (object, good) {
        fs::write(object, good).unwrap();
    }

    // The directory is lost. Every segment comes from the bucket, but only both together could
    // prove the end of the archive: the server stops instead of guessing, and completes once
    // the lost destination is taken out of its command.
    let (outage, _) = directory.outage();
    run(world.command("sh").args(["-c", &outage]));
    let mut restored = recovery("without-directory", &both);
    restored.launch();
    restored.expect_fatal(220);
    restored.set("restore_command", bucket.fetch_command(&world, ONLY_BUCKET));
    completes(restored);

    // The same with the store stopped.
    directory.come_back();
    directory.flip_bit(&segments[0], Spot::MiddleOfFrame);
    directory.put_back(&segments[1]);
    let mut restored = recovery("without-bucket", &both);
    let alone = bucket.fetch_command(&world, &only_directory);
    bucket.store.stop();
    restored.launch();
    restored.expect_fatal(220);
    restored.set("restore_command", alone);
    restored.launch();
    restored.wait_promoted();
    assert_eq!(restored.ledger(), lines_of(1..=4), "{}", restored.story());
}

#[test]
fn a_base_backup_in_a_bucket_and_a_directory_is_restored_from_either_and_from_what_both_have_left() {
    let Some(world) = World::open() else { return };
    let directory = Archive::new(&world, "archive");
    let Some(bucket) = Bucket::new(&world) else { return };
    let only_directory = format!("--archive {}", directory.root().display());
    let both = format!("{ONLY_BUCKET} {only_directory}");
    let mut primary = bucket.archiving(&world, &both);
    primary.create_ledger();
    primary.write(1);
    let admin = |archives: &str, args: &[&str]| {
        let mut command = world.command(world.program("wal-archive").to_str().unwrap());
        command
            .args(&args[..1])
            .arg("--config")
            .arg(&bucket.config)
            .args(archives.split(' '))
            .args(&args[1..]);
        command.output().unwrap()
    };
    let connection = primary.connection();
    assert_done(&admin(&both, &["backup", "--checkpoint", "fast", "--connection", &connection]));
    primary.write(2);
    primary.archive_segment();
    primary.destroy();
    let id = id(&backups(&directory)[0]);
    let restored = |name: &str, archives: &str| {
        let path = world.path(name);
        assert_done(&admin(archives, &["restore", path.to_str().unwrap()]));
        assert_verified(&world, name, &[]);
        let server = started(&world, name);
        assert_eq!(server.ledger(), lines_of(1..=2), "{}", server.story());
        server.destroy();
    };
    assert_done(&admin(&both, &["verify", "--backups"]));
    restored("from-the-bucket", ONLY_BUCKET);
    restored("from-the-directory", &only_directory);
    // A part of it is damaged in the bucket, and the manifest in the directory.
    let Some(part) = bucket.store.file(&format!("wal/backups/{id}/base-00001.tar.zst")) else { return };
    let mut bytes = fs::read(&part).unwrap();
    bytes[1000] ^= 1;
    fs::write(&part, bytes).unwrap();
    let manifest = directory.root().join("backups").join(&id).join("manifest.zst");
    let size = fs::metadata(&manifest).unwrap().len();
    fs::write(&manifest, vec![0; size as usize]).unwrap();
    for (archives, file) in [(ONLY_BUCKET, "base-00001.tar.zst"), (only_directory.as_str(), "manifest.zst")] {
        let found = admin(archives, &["verify", "--backups"]);
        let text = String::from_utf8_lossy(&found.stdout);
        assert!(found.status.code() == Some(1) && text.contains(file), "{text}");
        let path = world.path(&format!("refused-{file}"));
        let refused = admin(archives, &["restore", path.to_str().unwrap()]);
        assert_refused(&refused, "is not what was stored");
        assert!(!path.join("global/pg_control").exists());
    }
    restored("from-both", &both);
}

#[test]
fn a_plain_copy_beside_an_encrypted_bucket_is_archived_to_drained_into_and_either_is_recovered_from() {
    let Some(world) = World::open() else { return };
    let Some(bucket) = Bucket::new(&world) else { return };
    let keys = KeyPair::new(&world, "main", &[]);
    let directory = Archive::new(&world, "archive");
    let plain = format!("[[destination]]\nurl = \"{}\"\nencryption = \"none\"\n", directory.root().display());
    let encrypted = "[[destination]]\nurl = \"s3://bucket/wal\"\n";
    let recipients = format!("recipients = [\"{}\"]", keys.recipient);
    let identity = format!("identity_file = \"{}\"", world.path("main.key").display());
    let archives = bucket.host(&world, "archives.toml", &format!("{plain}{encrypted}"), &recipients);
    let recovers = bucket.host(&world, "recovers.toml", &format!("{plain}{encrypted}"), &identity);

    let mut primary = Server::init(&world, "primary");
    let data = primary.data().to_str().unwrap().to_owned();
    administer(&world, &archives, &["init", "--pgdata", &data]);
    let push = format!("{} --config {} %p", world.program("wal-push").display(), archives.display());
    primary.set("archive_command", push);
    primary.start();
    primary.create_ledger();
    let backup = primary.base_backup("backup");
    let segments: Vec<String> = (1..=3)
        .map(|batch| {
            primary.write(batch);
            primary.archive_segment()
        })
        .collect();
    primary.wait_archived();
    for name in &segments {
        assert!(directory.root().join("wal_005").join(format!("{name}.zst")).exists());
        if let Some(object) = bucket.store.file(&format!("wal/wal_005/{name}.age")) {
            assert!(fs::read(object).unwrap().starts_with(b"age-encryption.org/v1\n"));
        }
    }
    primary.set("archive_command", "/bin/false");
    primary.wait_until("archives no more", |server| server.psql("show archive_command") == "/bin/false");
    primary.write(4);
    primary.kill();
    administer(&world, &archives, &["drain", "--pgdata", &data]);
    // With the key, and without it by its tags, both hold the same.
    for host in [&recovers, &archives] {
        let verified = administer(&world, host, &["verify"]);
        assert!(verified.contains("sound"), "{verified}");
    }

    let only_plain = bucket.host(&world, "plain.toml", &plain, "");
    let only_bucket = bucket.host(&world, "bucket.toml", encrypted, &identity);
    for (name, host) in [("both", &recovers), ("directory", &only_plain), ("bucket", &only_bucket)] {
        let program = world.program("wal-fetch");
        let fetch = format!("{} --config {} --partial %f %p", program.display(), host.display());
        let mut restored = Server::restoring(&world, &backup, name, fetch, "recovery.signal");
        restored.launch();
        restored.wait_promoted();
        assert_eq!(restored.ledger(), lines_of(1..=4), "{name}: {}", restored.story());
    }
    // Whoever has no key recovers from the plain copy, and takes the bucket for no end of the archive.
    let stranger = bucket.host(&world, "stranger.toml", &format!("{encrypted}{plain}"), "");
    let fetch = format!("{} --config {} %f %p", world.program("wal-fetch").display(), stranger.display());
    let mut restored = Server::restoring(&world, &backup, "stranger", fetch, "recovery.signal");
    restored.launch();
    restored.expect_fatal(220);
}

#[test]
fn a_base_backup_in_a_bucket_is_verified_restored_and_expired() {
    let Some(world) = World::open() else { return };
    let Some(bucket) = Bucket::new(&world) else { return };
    let mut primary = bucket.archiving(&world, ONLY_BUCKET);
    primary.create_ledger();
    let wal_archive = |args: &[&str]| {
        let mut command = world.command(world.program("wal-archive").to_str().unwrap());
        command.args(args).arg("--config").arg(&bucket.config).args(ONLY_BUCKET.split(' '));
        run(&mut command)
    };
    let connection = primary.connection();
    for batch in 1..=2 {
        primary.write(batch);
        wal_archive(&["backup", "--checkpoint", "fast", "--connection", &connection]);
    }
    primary.write(3);
    primary.archive_segment();
    primary.destroy();
    let backups = || -> Vec<String> {
        let listed: serde_json::Value = serde_json::from_str(&wal_archive(&["list", "--json"])).unwrap();
        let own = listed["destinations"][0]["base_backups"].as_array().unwrap().clone();
        own.iter().map(|one| format!("{} {}", one["backup"].as_str().unwrap(), one["state"])).collect()
    };
    let all = backups();
    assert!(all.len() == 2 && all.iter().all(|one| one.ends_with("\"complete\"")), "{all:?}");
    wal_archive(&["verify", "--backups"]);
    let restore = |name: &str| {
        let path = world.path(name);
        wal_archive(&["restore", path.to_str().unwrap()]);
        let mut restored = Server::existing(&world, name);
        restored.launch();
        restored.wait_promoted();
        assert_eq!(restored.ledger(), lines_of(1..=3));
    };
    restore("restored");
    wal_archive(&["expire", "--keep-backups", "1", "--yes"]);
    assert_eq!(backups(), all[1..]);
    restore("after-expire");
}

#[test]
fn an_encrypted_bucket_is_rehearsed_by_whoever_has_the_private_key() {
    let Some(world) = World::open() else { return };
    let Some(bucket) = Bucket::new(&world) else { return };
    let keys = KeyPair::new(&world, "main", &[]);
    let place = "archive = [\"s3://bucket/wal\"]\n";
    let archives =
        bucket.host(&world, "archives.toml", place, &format!("recipients = [\"{}\"]", keys.recipient));
    let identity = format!("identity_file = \"{}\"", world.path("main.key").display());
    let recovers = bucket.host(&world, "recovers.toml", place, &identity);
    let mut primary = Server::init(&world, "primary");
    administer(&world, &archives, &["init", "--pgdata", primary.data().to_str().unwrap()]);
    let push = format!("{} --config {} %p", world.program("wal-push").display(), archives.display());
    primary.set("archive_command", push);
    primary.start();
    primary.create_ledger();
    administer(&world, &archives, &["backup", "--checkpoint", "fast", "--connection", &primary.connection()]);
    primary.write(1);
    primary.archive_segment();
    primary.wait_archived();
    primary.destroy();

    let checks = world.path("checks.sql");
    fs::write(&checks, "select count(*) = 500 from ledger;\n").unwrap();
    let scratch = world.make_directory("scratch");
    let rehearse = |host: &Path| {
        let mut command = world.command(world.program("wal-archive").to_str().unwrap());
        command.args(["rehearse", "--json", "--config"]).arg(host).arg("--sql").arg(&checks);
        let output = command.arg("--scratch").arg(&scratch).output().unwrap();
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "{output:?}");
        output
    };
    let output = rehearse(&recovers);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        report["verdict"] == "sound" && report["evidence"][0].as_str().unwrap().starts_with("s3://"),
        "{report}"
    );
    let listed = administer(&world, &recovers, &["list"]);
    assert!(listed.contains("\nlast rehearsal "), "{listed}");
    // Without the private key nothing is known of the backup.
    let output = rehearse(&archives);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(2) && said.contains("there is no identity to decrypt it"),
        "{output:?}"
    );
}
