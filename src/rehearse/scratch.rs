//! The scratch directory of a rehearsal: for its owner alone, locked while it is in use, gone at the end.
//!
//! ```text
//! DIR/wal-archive-rehearsal.PID/
//!     data/          the restored data directory
//!     tablespaces/   its tablespaces
//!     run/           the server's socket
//!     spool/         wal-fetch's
//! ```
//!
//! A rehearsal that was killed cannot clean up: the next one in the same DIR ends its processes, which are
//! those that have their working directory there, and removes it.

use super::Result;
use super::stop::PAUSE;
use crate::failure::{Failure, size};
use fs2::FileExt;
use rustix::fs::statvfs;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PREFIX: &str = "wal-archive-rehearsal.";

/// A socket's path has at most 107 bytes.
const LONGEST_SOCKET: usize = 107;

/// For a server that is told to end at once.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Scratch {
    root: PathBuf,
    /// Its lock says that it is in use.
    _lock: File,
    removed: bool,
}

impl Scratch {
    /// Removes what killed rehearsals left in the directory, and makes a new one there.
    pub fn make(around: &Path) -> Result<Self> {
        let failed = |error: io::Error| {
            Failure::new((), format!("cannot make a scratch directory in \"{}\": {error}", around.display()))
                .hint("name a directory with enough room, writable for this user: --scratch DIRECTORY")
        };
        let around = fs::canonicalize(around).map_err(failed)?;
        remove_leftovers(&around).map_err(failed)?;
        for number in 0.. {
            let root = around.join(format!("{PREFIX}{}{}", std::process::id(), suffix(number)));
            match DirBuilder::new().mode(0o700).create(&root) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && number < 1000 => continue,
                made => made.map_err(failed)?,
            }
            // One that takes it for a leftover in this very moment has removed it then.
            if let Ok(lock) = locked(&root) {
                return Scratch { root, _lock: lock, removed: false }.furnished().map_err(failed);
            }
        }
        Err(failed(ErrorKind::AlreadyExists.into()))
    }

    fn furnished(self) -> io::Result<Self> {
        for folder in [self.data(), self.tablespaces(), self.run(), self.spool()] {
            DirBuilder::new().mode(0o700).create(folder)?;
        }
        let socket = self.run().join(".s.PGSQL.5432").as_os_str().len();
        if socket > LONGEST_SOCKET {
            return Err(io::Error::other(format!(
                "the path of the server's socket would have {socket} bytes, more than {LONGEST_SOCKET}"
            )));
        }
        Ok(self)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    pub fn tablespaces(&self) -> PathBuf {
        self.root.join("tablespaces")
    }

    pub(super) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// An error where there is not so much room.
    pub fn require(&self, bytes: u64) -> Result<()> {
        let said = statvfs(&self.root).map_err(|error| {
            let what = format!("cannot ask for the free room of \"{}\": {error}", self.root.display());
            Failure::new((), what)
        })?;
        let free = said.f_bavail.saturating_mul(said.f_frsize);
        if free >= bytes {
            return Ok(());
        }
        let place = self.root.parent().unwrap_or(&self.root).display();
        let what = format!("\"{place}\" has {} free, and the rehearsal needs {}", size(free), size(bytes));
        Err(Failure::new((), what).hint("name a directory with more room: --scratch DIRECTORY"))
    }

    /// Ends what still runs in it and removes it.
    pub fn remove(mut self) -> Result<()> {
        self.removed = true;
        remove(&self.root).map_err(|error| {
            Failure::new((), format!("cannot remove \"{}\": {error}", self.root.display()))
                .hint("remove it by hand; the next rehearsal tries it again, too")
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.removed
            && let Err(error) = remove(&self.root)
        {
            log::warn!("cannot remove \"{}\": {error}", self.root.display());
        }
    }
}

fn suffix(number: u32) -> String {
    if number == 0 { String::new() } else { format!(".{number}") }
}

/// Locked, and still the directory of that name.
fn locked(root: &Path) -> io::Result<File> {
    let lock = File::open(root)?;
    FileExt::try_lock_exclusive(&lock)?;
    let (ours, there) = (lock.metadata()?, fs::symlink_metadata(root)?);
    match (ours.dev(), ours.ino()) == (there.dev(), there.ino()) {
        true => Ok(lock),
        false => Err(ErrorKind::NotFound.into()),
    }
}

fn remove_leftovers(around: &Path) -> io::Result<()> {
    for entry in fs::read_dir(around)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() {
            continue;
        }
        let Ok(_lock) = locked(&entry.path()) else { continue };
        log::warn!("removing \"{}\", which a killed rehearsal left", entry.path().display());
        remove(&entry.path())?;
    }
    Ok(())
}

fn remove(root: &Path) -> io::Result<()> {
    let start = Instant::now();
    loop {
        end_processes(root);
        match fs::remove_dir_all(root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            // What was just being ended may have made another file.
            Err(_) if start.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}

/// The server first, in its own way, so that it gives back what it shares; then all others.
fn end_processes(root: &Path) {
    let signal = |pid, signal| {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, signal); // it may have ended just now
        }
    };
    let start = Instant::now();
    let mut told = false;
    loop {
        let found = processes(root);
        if found.is_empty() {
            return;
        }
        let server = server(root).filter(|pid| found.contains(pid));
        match server {
            Some(pid) if start.elapsed() < PATIENCE => {
                if !told {
                    signal(pid, Signal::QUIT);
                    told = true;
                }
            }
            _ if start.elapsed() < 2 * PATIENCE => found.iter().for_each(|pid| signal(*pid, Signal::KILL)),
            // The kernel does not let one end.
            _ => return,
        }
        std::thread::sleep(PAUSE);
    }
}

/// By the first line of `postmaster.pid`.
fn server(root: &Path) -> Option<i32> {
    let text = fs::read_to_string(root.join("data/postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Those that work in the directory, zombies left out.
fn processes(root: &Path) -> Vec<i32> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let works_there = |pid: &i32| {
        let at = fs::read_link(format!("/proc/{pid}/cwd"));
        at.is_ok_and(|at| at.starts_with(root) || of_the_removed(&at).is_some_and(|at| at.starts_with(root)))
    };
    pids.filter(|pid| *pid != own).filter(works_there).collect()
}

/// As the kernel shows a directory that was removed.
fn of_the_removed(at: &Path) -> Option<&Path> {
    at.to_str()?.strip_suffix(" (deleted)").map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn what_a_killed_rehearsal_left_is_removed_and_what_one_uses_is_not() {
        let around = tempfile::tempdir().unwrap();
        let used = Scratch::make(around.path()).unwrap();
        let left = around.path().join(format!("{PREFIX}1"));
        fs::create_dir_all(left.join("data/base")).unwrap();
        fs::create_dir(around.path().join("another")).unwrap();
        let mut process =
            Command::new("sleep").arg("600").current_dir(&left).stdin(Stdio::null()).spawn().unwrap();
        let second = Scratch::make(around.path()).unwrap();
        assert!(!process.wait().unwrap().success(), "it still runs");
        assert!(!left.exists() && used.data().is_dir() && second.data().is_dir());
        assert_eq!(fs::metadata(second.root()).unwrap().mode() & 0o777, 0o700);
        second.remove().unwrap();
        drop(used);
        let names: Vec<_> = fs::read_dir(around.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["another"]);
    }

    #[test]
    fn too_little_room_is_said_with_both_numbers() {
        let around = tempfile::tempdir().unwrap();
        let scratch = Scratch::make(around.path()).unwrap();
        scratch.require(1).unwrap();
        let refused = scratch.require(u64::MAX).unwrap_err();
        assert!(refused.message.contains("and the rehearsal needs 16.0 EiB"), "{refused}");
    }
}
