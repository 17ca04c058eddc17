//! What may happen in a life. A step that cannot happen at its moment is nothing, so that any of
//! them may be left out when a life is shrunk.

use crate::destination::{Outage, Sort};

/// Whether a server archives: `archive_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archiving {
    Off,
    On,
    Always,
}

/// What lies in `pg_wal` of a restored server besides what the archive gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    Nothing,
    /// The copied `pg_wal`, the last segment half written.
    Torn,
    /// The same with their status files.
    Whole,
}

/// Which timeline a recovery is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Latest,
    Current,
    Timeline(u32),
}

/// Servers are named by letters, destinations and backups by numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many transactions are committed.
    Write(char, u8),
    /// A record that crosses the end of the segment.
    Fill(char),
    /// `pg_switch_wal()`.
    Switch(char),
    /// A checkpoint: archived segments behind it are removed, forgotten ones are marked ready.
    Checkpoint(char),
    /// A base backup.
    Backup(char),
    /// The `pg_wal` of a server is copied to a backup, as a snapshot of its file system does it.
    CopyWal { of: char, backup: u8 },
    /// The archiver runs for so many files; each call may look ahead.
    Archive { server: char, files: u8, look_ahead: u8 },
    /// The same, and the first call is killed at its n-th request to a destination.
    ArchiveKilled { server: char, look_ahead: u8, destination: u8, requests: u8 },
    /// A new standby of a running server.
    Standby { of: char, name: char, archiving: Archiving },
    /// A server is copied as a whole, with its status files, and with its spool or without. The copy
    /// is started as it is, as somebody does who forgets the signal file, or as a standby.
    Clone { of: char, name: char, spool: bool, standby: bool },
    /// A standby receives everything its upstream has; it replays it, or lags behind.
    Stream { server: char, replay: bool },
    /// A standby becomes a primary. `blind`: without asking the archive which timelines there are.
    Promote { server: char, archiving: Archiving, blind: bool },
    /// `archive_mode` is changed.
    SetArchiving(char, Archiving),
    /// The server and its disk are lost.
    Lose(char),
    /// A server is restored from a backup, recovers, and becomes a primary.
    Restore { backup: u8, name: char, snapshot: Snapshot, target: Target, archiving: Archiving },
    /// A recovery that is only looked at.
    Recover { backup: u8, snapshot: Snapshot, target: Target },
    /// A destination fails as a whole, until the next such step.
    Fail(u8, Outage),
    /// All destinations work again.
    Heal,
    /// A stored object is changed; the number chooses which.
    Damage { destination: u8, object: u8 },
    /// A stored object is removed from one destination.
    Remove { destination: u8, object: u8 },
    /// A stored file is removed from all of them.
    RemoveEverywhere { object: u8 },
    /// `wal-archive quarantine` of a file, at one destination.
    Quarantine { destination: u8, object: u8 },
    /// `wal-archive verify --records`.
    Verify,
    /// `wal-archive check` beside a server.
    Check(char),
    /// A server dies, and `wal-archive drain` brings what it still holds.
    Drain(char),
    /// `wal-archive copy`.
    Copy { from: u8, to: u8, repair: bool },
    /// `wal-archive expire` keeps the newest backups, one and so many more.
    Expire { more: u8 },
    /// `conditional_writes` of a bucket is set to "unsupported", or back.
    Unconditional(u8, bool),
    /// Whether a server can have a spool.
    SetSpool(char, bool),
    /// The next command of an administrator is killed at its n-th request to a destination.
    KillNext { destination: u8, requests: u8 },
    /// The spool of a server is removed.
    DropSpool(char),
    /// The clocks of the destinations jump: everything looks so many hours older, or of the future.
    Jump(i8),
}

/// What the servers call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programs {
    /// The library over encrypted archives; who pushes has public keys only.
    Encrypted,
    /// The same code without a process.
    Library,
    /// `wal-push` and `wal-fetch`.
    Real,
}

/// A whole life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    pub programs: Programs,
    pub destinations: Vec<Sort>,
    pub steps: Vec<Step>,
}

impl Life {
    /// As a test that can be pasted into `known.rs`.
    pub fn as_test(&self) -> String {
        let steps: String = self.steps.iter().map(|step| format!("        {step:?},\n")).collect();
        format!(
            "#[test]\nfn say_here_what_must_hold() {{\n    holds({:?}, &{:?}, &[\n{steps}    ]);\n}}\n",
            self.programs, self.destinations
        )
    }
}
