//! A cluster's life to be recovered: a base backup, then batches of committed lines, each in a
//! segment of its own, all archived, and the cluster lost.

use crate::archive::Archive;
use crate::server::{Backup, Server};
use crate::world::World;

pub struct Recorded {
    pub backup: Backup,
    /// The segment with batch 1, the one with batch 2 and so on.
    pub segments: Vec<String>,
}

impl Recorded {
    /// Records `batches` batches into the archive.
    pub fn new(world: &World, archive: &Archive, batches: u32) -> Self {
        let (server, recorded) = Recorded::with_primary(world, archive, batches);
        server.destroy();
        recorded
    }

    /// The same, with the primary still alive.
    pub fn with_primary<'w>(world: &'w World, archive: &Archive, batches: u32) -> (Server<'w>, Self) {
        let mut server = Server::archiving(world, "primary", archive);
        server.create_ledger();
        let backup = server.base_backup("backup");
        let record = |batch| {
            server.write(batch);
            server.archive_segment()
        };
        let segments = (1..=batches).map(record).collect();
        (server, Recorded { backup, segments })
    }

    /// The segment with a batch, counted from 1.
    pub fn segment(&self, batch: u32) -> &str {
        &self.segments[batch as usize - 1]
    }

    /// The backup restored under that name, to be recovered to the end with `restore_command`
    /// without writing to any archive.
    pub fn recovery<'w>(&self, world: &'w World, name: &str, restore_command: &str) -> Server<'w> {
        Server::restoring(world, &self.backup, name, restore_command, "recovery.signal")
    }

    /// The same as a hot standby.
    pub fn standby<'w>(&self, world: &'w World, name: &str, restore_command: &str) -> Server<'w> {
        Server::restoring(world, &self.backup, name, restore_command, "standby.signal")
    }
}
