//! The path that a fetched file goes to: held exclusively, written beside, renamed onto.
//!
//! Nothing unproved ever stands at the path. The folder is locked from before the download to
//! the end of the process, so that an orphan of an earlier request can never put its file over a
//! newer request's. Nothing is fsynced: PostgreSQL fsyncs what it keeps
//! (`src/backend/access/transam/xlogarchive.c`, `KeepFileRestoredFromArchive`).

use crate::host::data_directory;
use fs2::FileExt;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What every temporary file's name begins with. PostgreSQL itself removes `xlogtemp.*` from
/// pg_wal when it starts after a crash (`src/backend/access/transam/xlog.c`,
/// `RemoveTempXlogFiles`), and pg_rewind and pg_basebackup pass over it.
const TEMPORARY: &str = "xlogtemp.wal-fetch.";

/// Why nothing can be put there.
#[derive(Debug)]
pub enum TargetError {
    Unwritable(PathBuf, io::Error),
    /// Another wal-fetch holds the folder.
    Busy(PathBuf),
}

impl TargetError {
    /// Whether it is a matter of time only.
    pub fn is_late(&self) -> bool {
        matches!(self, TargetError::Busy(_))
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            TargetError::Unwritable(_, error) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("make room on the file system of pg_wal")
                }
                io::ErrorKind::PermissionDenied => Some("run it as the user that owns the data directory"),
                _ => None,
            },
            TargetError::Busy(_) => Some("look for an orphan of an earlier server and end it"),
        }
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetError::Unwritable(path, error) => write!(f, "cannot write \"{}\": {error}", path.display()),
            TargetError::Busy(folder) => {
                write!(f, "another wal-fetch is at work in \"{}\" and did not end in time", folder.display())
            }
        }
    }
}

/// The path. Clones share the lock.
#[derive(Clone)]
pub struct Target {
    path: PathBuf,
    /// The path in messages.
    named: PathBuf,
    beside: Workplace,
}

/// Where the temporary files are.
#[derive(Clone)]
enum Workplace {
    /// In the path's folder, which others use, too, and which is locked until the end of the
    /// process where the file system can do that.
    Shared { folder: PathBuf, _lock: Option<Arc<File>> },
    /// At this path, which nobody else writes to.
    Private(PathBuf),
}

/// An unproved file beside the path; removed unless it is published.
pub struct Temporary {
    path: PathBuf,
    pub file: File,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // gone already once it was renamed
    }
}

impl Target {
    /// A path that nobody else writes to, and the only temporary file for it.
    pub fn private(path: PathBuf, temporary: PathBuf) -> Self {
        Target { named: path.clone(), path, beside: Workplace::Private(temporary) }
    }

    /// For a worker of the process that holds the folder: what it proves is put beside the path,
    /// where [`Target::take_over`] finds it. Whoever outlives that process writes to files that
    /// nobody reads.
    pub fn of_worker(path: &Path, supervisor: u32) -> Self {
        let [unproved, proved] = of_supervisor(path, supervisor);
        Target { named: path.to_owned(), ..Target::private(proved, unproved) }
    }

    /// Locks the folder, waiting for another request's end until the deadline.
    pub fn take(path: &Path, deadline: Instant) -> Result<Self, TargetError> {
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let handle = File::open(&folder).map_err(|error| TargetError::Unwritable(path.to_owned(), error))?;
        let lock = loop {
            match FileExt::try_lock_exclusive(&handle) {
                Ok(()) => break Some(Arc::new(handle)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    // Some network file systems lock no directories.
                    log::debug!("cannot lock \"{}\": {error}", folder.display());
                    break None;
                }
            }
            if Instant::now() >= deadline {
                return Err(TargetError::Busy(folder));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let path = path.to_owned();
        Ok(Target { named: path.clone(), path, beside: Workplace::Shared { folder, _lock: lock } })
    }

    /// Puts at the path what a worker of this process proved; its size.
    pub fn take_over(&self) -> Result<u64, TargetError> {
        let [_, proved] = of_supervisor(&self.path, std::process::id());
        let size = fs::metadata(&proved).map_err(|error| self.unwritable(error))?.len();
        fs::rename(&proved, &self.path).map_err(|error| self.unwritable(error))?;
        Ok(size)
    }

    /// Removes what a worker of this process left.
    pub fn clean_up_after_worker(&self) {
        for path in of_supervisor(&self.path, std::process::id()) {
            let _ = fs::remove_file(path); // mostly not there
        }
    }

    /// Removes what a killed request left. Reads the whole folder.
    pub fn clean(&self) {
        let Workplace::Shared { folder, .. } = &self.beside else { return };
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY)) else { continue };
            if !is_of_a_living_process(rest) && fs::remove_file(entry.path()).is_ok() {
                log::info!("removed \"{}\", left by an interrupted wal-fetch", entry.path().display());
            }
        }
    }

    /// A new file beside the path, which PostgreSQL needs writable by its owner.
    pub fn temporary(&self) -> Result<Temporary, TargetError> {
        let folder = match &self.beside {
            Workplace::Shared { folder, .. } => folder,
            Workplace::Private(path) => {
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(path);
                let file = file.map_err(|error| self.unwritable(error))?;
                return Ok(Temporary { path: path.clone(), file });
            }
        };
        let process = std::process::id();
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for number in 0..100 {
            let path = folder.join(format!("{TEMPORARY}{process}.{number}"));
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok(Temporary { path, file }),
                Err(error) => last = error,
            }
            // Taken: by a process of this number in another PID namespace.
            if last.kind() != io::ErrorKind::AlreadyExists {
                break;
            }
        }
        Err(self.unwritable(last))
    }

    /// Puts a proved file at the path.
    pub fn publish(&self, temporary: Temporary) -> Result<(), TargetError> {
        fs::rename(&temporary.path, &self.path).map_err(|error| self.unwritable(error))
    }

    /// Puts a proved file of another folder at the path; `false`, with nothing done, where it is
    /// on another file system.
    pub fn adopt(&self, proved: &Path) -> Result<bool, TargetError> {
        match fs::rename(proved, &self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Ok(false),
            Err(error) => Err(self.unwritable(error)),
        }
    }

    /// An I/O error while writing to the path or beside it.
    pub fn unwritable(&self, error: io::Error) -> TargetError {
        TargetError::Unwritable(self.named.clone(), error)
    }
}

/// What a worker writes, and what it has proved.
fn of_supervisor(path: &Path, supervisor: u32) -> [PathBuf; 2] {
    ["part", "whole"].map(|state| path.with_file_name(format!("{TEMPORARY}{supervisor}.{state}")))
}

/// From what follows the prefix: `PID.NUMBER`.
fn is_of_a_living_process(rest: &str) -> bool {
    rest.split('.').next().and_then(data_directory::is_gone) == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("RECOVERYXLOG");
        fs::write(&path, "older").unwrap();
        let target = Target::take(&path, soon()).unwrap();
        let mut dropped = target.temporary().unwrap();
        dropped.file.write_all(b"half").unwrap();
        drop(dropped);
        assert_eq!(fs::read(&path).unwrap(), b"older");
        let mut whole = target.temporary().unwrap();
        whole.file.write_all(b"whole").unwrap();
        target.publish(whole).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_worker_proved_is_at_the_path_only_when_its_supervisor_put_it_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("RECOVERYXLOG");
        let target = Target::take(&path, soon()).unwrap();
        let worker = Target::of_worker(&path, std::process::id());
        let mut file = worker.temporary().unwrap();
        file.file.write_all(b"whole").unwrap();
        worker.publish(file).unwrap();
        assert!(!path.exists());
        assert_eq!(target.take_over().unwrap(), 5);
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        std::mem::forget(worker.temporary().unwrap()); // killed
        assert!(target.take_over().is_err());
        target.clean_up_after_worker();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let elsewhere = Target::of_worker(&folder.path().join("no/x"), 1);
        assert!(elsewhere.temporary().is_err_and(|error| error.to_string().contains("no/x\"")));
    }

    #[test]
    fn two_requests_never_work_in_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let first = Target::take(&path, soon()).unwrap();
        assert!(matches!(Target::take(&path, soon()), Err(TargetError::Busy(_))));
        drop(first);
        assert!(Target::take(&path, soon()).is_ok());
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let left = |rest: &str| {
            let path = folder.path().join(format!("{TEMPORARY}{rest}"));
            fs::write(&path, "x").unwrap();
            path
        };
        // No process has a number beyond PID_MAX_LIMIT, 2^22.
        let (dead, alive, odd) = (left("4194305.0"), left(&format!("{}.0", std::process::id())), left("x"));
        Target::take(&folder.path().join("x"), soon()).unwrap().clean();
        assert_eq!((dead.exists(), alive.exists(), odd.exists()), (false, true, false));
    }
}
