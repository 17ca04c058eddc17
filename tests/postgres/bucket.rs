//! A bucket as the archive of a real server, alone and beside a directory.

#[path = "../support/s3.rs"]
#[allow(dead_code)]
mod s3;

use crate::archive::Archive;
use crate::server::{Server, lines_of};
use crate::world::World;
use s3::{ACCESS_KEY, BUCKET, SECRET_KEY};
use std::fs;

/// A store with the configuration file that reaches it, and the two commands over it.
struct Bucket {
    store: s3::Server,
    options: String,
}

impl Bucket {
    /// `more`: further settings at the top of the file.
    fn new(world: &World, directory: Option<&Archive>) -> Option<Bucket> {
        let store = s3::Server::start()?;
        let directory = directory.map_or_else(String::new, |archive| format!("\"{}\", ", archive.root().display()));
        let file = world.path("bin").join("wal-archive.toml");
        fs::write(
            &file,
            format!(
                "archive = [{directory}\"s3://{BUCKET}/wal\"]\n[s3]\nendpoint = \"{}\"\n\
                 access_key_id = \"{ACCESS_KEY}\"\nsecret_access_key = \"{SECRET_KEY}\"\n",
                store.endpoint()
            ),
        )
        .unwrap();
        Some(Bucket { store, options: format!("--config {}", file.display()) })
    }

    fn push_command(&self, world: &World) -> String {
        format!("{} {} %p", world.program("wal-push").display(), self.options)
    }

    fn fetch_command(&self, world: &World) -> String {
        format!("{} {} --timeout 20s %f %p", world.program("wal-fetch").display(), self.options)
    }
}

#[test]
fn a_server_archives_to_a_bucket_and_recovers_from_it_to_a_time_and_to_the_end() {
    let Some(world) = World::open() else { return };
    let Some(bucket) = Bucket::new(&world, None) else { return };
    let mut primary = Server::init(&world, "primary");
    primary.set("archive_command", bucket.push_command(&world));
    primary.start();
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
        restored.set("restore_command", bucket.fetch_command(&world));
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
    let Some(mut bucket) = Bucket::new(&world, Some(&directory)) else { return };
    let mut primary = Server::init(&world, "primary");
    primary.set("archive_command", bucket.push_command(&world));
    primary.start();
    primary.create_ledger();
    let backup = primary.base_backup("backup");
    let segments: Vec<String> = (1..=4)
        .map(|batch| {
            primary.write(batch);
            primary.archive_segment()
        })
        .collect();
    primary.destroy();
    let recovers = |name: &str, bucket: &Bucket| {
        let mut restored = Server::restore(&world, &backup, name);
        restored.keep_to_itself();
        restored.set("restore_command", bucket.fetch_command(&world));
        restored.set("recovery_target_timeline", "current");
        restored.request("recovery.signal");
        restored.launch();
        restored.wait_promoted();
        assert_eq!(restored.ledger(), lines_of(1..=4), "{}", restored.story());
    };
    // One object damaged on either side, another one missing.
    directory.flip_bit(&segments[0], crate::archive::Spot::MiddleOfFrame);
    directory.take_out(&segments[1]);
    if let Some(object) = bucket.store.file(&format!("wal/wal_005/{}.zst", segments[2])) {
        fs::write(object, "junk").unwrap();
    }
    recovers("damaged", &bucket);
    directory.put_back(&segments[1]);
    directory.flip_bit(&segments[0], crate::archive::Spot::MiddleOfFrame);
    // The store is stopped: each segment is in the directory. The end of the archive, though, is
    // proved by nobody, and the server must not take it for one.
    bucket.store.stop();
    let mut restored = Server::restore(&world, &backup, "stopped");
    restored.keep_to_itself();
    restored.set("restore_command", bucket.fetch_command(&world));
    restored.set("recovery_target_timeline", "current");
    restored.set("recovery_target_name", "nowhere");
    restored.request("recovery.signal");
    restored.launch();
    restored.wait_stopped();
    assert!(restored.log().contains("FATAL"), "{}", restored.story());
    bucket.store.start_again();
    if bucket.store.is_versitygw() {
        fs::remove_dir_all(directory.root()).unwrap();
        fs::create_dir(directory.root()).unwrap();
    }
}
