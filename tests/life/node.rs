//! A server: its data directory on disk and what PostgreSQL does to it.
//!
//! Source: PostgreSQL 15 `src/backend/access/transam/xlog.c`, `xlogarchive.c`,
//! `src/backend/postmaster/pgarch.c`, `src/backend/replication/walreceiver.c`.

use crate::oracle::Content;
use crate::programs::spool_of;
use crate::step::Archiving;
use crate::wal::{Control, Image, Log, State, make_data_directory, write_control};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wal_archive::wal::{SegmentName, Timeline, WalName};

/// Of a file in `archive_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ready,
    Done,
}

pub struct Node {
    pub name: char,
    pub data: PathBuf,
    /// What it wrote, or replayed.
    pub log: Log,
    /// What a standby received.
    pub received: Log,
    /// `None`: a primary.
    pub upstream: Option<char>,
    pub archiving: Archiving,
    /// Whether it can have one.
    pub spool: bool,
    /// The number of the first segment of its own timeline that it has not finished.
    pub unfinished: u64,
    /// What lies in `pg_wal`, but for the segment being written.
    pub files: BTreeMap<WalName, Arc<Content>>,
}

impl Node {
    pub fn new(base: &Path, name: char, log: Log, upstream: Option<char>, archiving: Archiving) -> Self {
        let data = base.join(name.to_string());
        let node = Node {
            name,
            data,
            received: log.clone(),
            unfinished: log.current().number(log.size()).unwrap(),
            log,
            upstream,
            archiving,
            spool: true,
            files: BTreeMap::new(),
        };
        make_data_directory(&node.data, &node.control());
        node.signal();
        node
    }

    fn control(&self) -> Control {
        let standby = self.upstream.is_some();
        Control {
            system_id: self.log.system_id(),
            size: self.log.size(),
            state: if standby { State::InArchiveRecovery } else { State::InProduction },
            timeline: self.log.timeline(),
            redo: self.log.redo(),
            minimum_recovery: standby.then(|| (self.log.end(), self.log.timeline())),
        }
    }

    /// A primary has none of the files that a recovery begins with.
    fn signal(&self) {
        match self.upstream {
            Some(_) => fs::write(self.data.join("standby.signal"), "").unwrap(),
            None => ["standby.signal", "recovery.signal", "backup_label"]
                .iter()
                .for_each(|file| drop(fs::remove_file(self.data.join(file)))),
        }
    }

    /// Brings `pg_control` and the signal file up to date.
    pub fn save(&self) {
        write_control(&self.data, &self.control());
        self.signal();
    }

    pub fn pg_wal(&self) -> PathBuf {
        self.data.join("pg_wal")
    }

    fn status(&self, name: WalName, word: &str) -> PathBuf {
        self.pg_wal().join(format!("archive_status/{name}.{word}"))
    }

    pub fn status_of(&self, name: WalName) -> Option<Status> {
        match (self.is_done(name), self.has_status(name)) {
            (true, _) => Some(Status::Done),
            (_, true) => Some(Status::Ready),
            _ => None,
        }
    }

    pub fn set_status(&self, name: WalName, status: Option<Status>) {
        match status {
            Some(Status::Done) => self.done(name),
            Some(Status::Ready) => self.notify(name),
            None => {}
        }
    }

    /// Everything that lies in `pg_wal`, with its status.
    pub fn listed(&self) -> Vec<(WalName, Arc<Content>, Option<Status>)> {
        let one =
            |(name, content): (&WalName, &Arc<Content>)| (*name, Arc::clone(content), self.status_of(*name));
        self.files.iter().map(one).collect()
    }

    pub fn has_status(&self, name: WalName) -> bool {
        self.status(name, "ready").exists() || self.status(name, "done").exists()
    }

    pub fn is_done(&self, name: WalName) -> bool {
        self.status(name, "done").exists()
    }

    /// Puts a file into `pg_wal`.
    pub fn put(&mut self, name: WalName, content: &Arc<Content>) {
        content.image.write(&self.pg_wal().join(name.to_string()));
        self.files.insert(name, Arc::clone(content));
    }

    /// `XLogArchiveNotify`.
    pub fn notify(&self, name: WalName) {
        fs::write(self.status(name, "ready"), "").unwrap();
    }

    /// `XLogArchiveForceDone`, and what the archiver does after success.
    pub fn done(&self, name: WalName) {
        let _ = fs::remove_file(self.status(name, "ready"));
        fs::write(self.status(name, "done"), "").unwrap();
    }

    /// After the end of a segment, a promotion or a backup.
    pub fn notify_where_archiving(&self, name: WalName) {
        if self.archiving != Archiving::Off {
            self.notify(name);
        }
    }

    /// What a standby does with a file it got by streaming or from the archive.
    pub fn notify_as_standby(&self, name: WalName) {
        match self.archiving {
            Archiving::Always => self.notify(name),
            _ => self.done(name),
        }
    }

    pub fn remove(&mut self, name: WalName) {
        self.files.remove(&name);
        for path in
            [self.pg_wal().join(name.to_string()), self.status(name, "ready"), self.status(name, "done")]
        {
            let _ = fs::remove_file(path);
        }
    }

    /// The files that wait, in the archiver's order: histories first, then by name.
    pub fn ready(&self) -> Vec<WalName> {
        let mut names: Vec<(bool, String)> = fs::read_dir(self.pg_wal().join("archive_status"))
            .unwrap()
            .filter_map(|entry| {
                let file = entry.unwrap().file_name().into_string().unwrap();
                let name = file.strip_suffix(".ready")?.to_owned();
                Some((!name.ends_with(".history"), name))
            })
            .collect();
        names.sort();
        names.into_iter().map(|(_, name)| name.parse().unwrap()).collect()
    }

    /// Puts the segment that is being written where it lies.
    pub fn save_current(&self) -> Option<(SegmentName, Image)> {
        let image = self.received.current_image()?;
        let name = self.received.current();
        image.write(&self.pg_wal().join(name.to_string()));
        Some((name, image))
    }

    pub fn drop_spool(&self) {
        let _ = fs::remove_dir_all(spool_of(&self.data));
    }

    /// The timeline that this data directory is on already (design: the greatest of the label's,
    /// the checkpoint's and the minimum recovery point's).
    pub fn own_timeline(&self) -> Timeline {
        self.log.timeline()
    }
}
