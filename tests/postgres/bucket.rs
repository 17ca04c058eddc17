//! A bucket as the archive of a real server, alone and beside a directory.

#[path = "../support/s3.rs"]
#[allow(dead_code)]
mod s3;

use crate::archive::{Archive, Spot};
use crate::server::{Server, lines_of};
use crate::world::{World, run};
use s3::{ACCESS_KEY, SECRET_KEY};
use std::fs;
use std::path::PathBuf;

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

    fn fetch_command(&self, world: &World, archives: &str) -> String {
        let program = world.program("wal-fetch");
        format!("{} --config {} --timeout 10s {archives} %f %p", program.display(), self.config.display())
    }
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
