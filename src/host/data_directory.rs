//! What a data directory says of its cluster: its id, its state, its segment size.
//!
//! Read-only: nothing in a data directory is ever changed here.

use crate::wal::{ControlFile, FirstPage, SegmentSize, SystemId, Timeline, WalName};
use rustix::io::Errno;
use rustix::process::Pid;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A PostgreSQL data directory: one that holds `PG_VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDirectory(PathBuf);

impl DataDirectory {
    /// The directory itself, if it is one.
    pub fn at(path: &Path) -> Option<Self> {
        path.join("PG_VERSION").is_file().then(|| DataDirectory(path.to_owned()))
    }

    /// The data directory that a command runs for: the one that the WAL file at `wal_path` is
    /// in (`%p` is `pg_wal/NAME` below the working directory, and for pg_rewind below its
    /// target), else the working directory, else `$PGDATA`.
    pub fn find(wal_path: &Path, working: &Path, pgdata: Option<&Path>) -> Option<Self> {
        let absolute = working.join(wal_path);
        // By name, not by ".."; pg_wal may be a symbolic link.
        let around = absolute.parent().and_then(Path::parent);
        [around, Some(working), pgdata].into_iter().flatten().find_map(DataDirectory::at)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What `global/pg_control` says; `None` where there is no such file.
    pub fn control(&self) -> io::Result<Option<ControlFile>> {
        let mut content = Vec::with_capacity(ControlFile::LEN);
        match File::open(self.0.join("global/pg_control")) {
            Ok(file) => file.take(ControlFile::LEN as u64).read_to_end(&mut content)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match ControlFile::read(&content) {
            Some(control) => Ok(Some(control)),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "the file is shorter than 8 bytes")),
        }
    }

    /// The cluster's id; `None` where there is no control file.
    pub fn system_id(&self) -> io::Result<Option<SystemId>> {
        Ok(self.control()?.map(|control| control.system_id))
    }

    /// The timeline that the data directory is on already, as far as its files tell: the greatest of
    /// the one that its backup was started on and those that its control file names.
    pub fn timeline(&self) -> io::Result<Option<Timeline>> {
        let label = match fs::read_to_string(self.0.join("backup_label")) {
            Ok(label) => {
                label.lines().find_map(|line| line.strip_prefix("START TIMELINE: ")?.trim().parse().ok())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let control = self.control()?;
        let of_control = |timeline: fn(ControlFile) -> Option<Timeline>| control.and_then(timeline);
        Ok([
            label.and_then(Timeline::new),
            of_control(|control| control.checkpoint_timeline),
            of_control(|control| control.min_recovery_timeline),
        ]
        .into_iter()
        .flatten()
        .max())
    }

    /// Whether the server is, or will come up as, a standby. `standby.signal` wins over
    /// `recovery.signal` (PostgreSQL `xlogrecovery.c`, `readRecoverySignalFile`).
    pub fn is_standby(&self) -> bool {
        self.0.join("standby.signal").exists()
    }

    /// Whether a server that is running here has left recovery behind, or is just doing so: it
    /// removes its signal file *before* it asks for its parent's history (PostgreSQL `xlog.c`,
    /// `StartupXLOG`, then `writeTimeLineHistory`).
    pub fn is_past_recovery(&self) -> bool {
        self.0.join("postmaster.pid").exists() && !self.is_in_archive_recovery()
    }

    /// Whether the server recovers from an archive: it has one of the signal files.
    pub fn is_in_archive_recovery(&self) -> bool {
        self.is_standby() || self.0.join("recovery.signal").exists()
    }

    /// The server that runs here: its process and start, the first and third line of its pid
    /// file (PostgreSQL `src/backend/utils/init/miscinit.c`, `CreateLockFile`).
    pub fn server(&self) -> Option<RunningServer> {
        let content = fs::read_to_string(self.0.join("postmaster.pid")).ok()?;
        let mut lines = content.lines();
        let pid = lines.next()?.to_owned();
        let seen = is_gone(&pid) == Some(false);
        Some(RunningServer { pid, start: lines.nth(1).unwrap_or_default().to_owned(), seen })
    }

    /// Whether a server runs here, as far as its pid file tells.
    pub fn is_running(&self) -> bool {
        self.server().is_some_and(|server| is_gone(&server.pid) != Some(true))
    }

    /// Whether that server is gone: another one runs here, or none, or its process has ended. Of a
    /// process that was never seen nobody knows: it may be one of another PID namespace.
    pub fn is_abandoned_by(&self, asked: Option<&RunningServer>) -> bool {
        asked.is_some_and(|asked| {
            self.server().as_ref() != Some(asked) || asked.seen && is_gone(&asked.pid) == Some(true)
        })
    }

    /// Whether a path leads into the data directory, or into what belongs to it and is reached
    /// through its symbolic links: pg_wal and the tablespaces. By device and inode, as one directory
    /// may have several names. Of a path that is not there yet the part counts that is.
    pub fn contains(&self, path: &Path) -> bool {
        let tablespaces = fs::read_dir(self.0.join("pg_tblspc")).into_iter().flatten().flatten();
        let parts = [self.0.clone(), self.0.join("pg_wal")].into_iter();
        let parts: Vec<_> =
            parts.chain(tablespaces.map(|entry| entry.path())).filter_map(|part| place(&part)).collect();
        let Some(real) = path.ancestors().find_map(|above| above.canonicalize().ok()) else { return false };
        real.ancestors().filter_map(place).any(|above| parts.contains(&above))
    }

    /// Whether a file lies in its pg_wal.
    pub fn holds(&self, wal_file: &Path) -> bool {
        let around = wal_file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        place(&self.0.join("pg_wal")).is_some_and(|own| place(around) == Some(own))
    }
}

/// What tells a directory from every other one, by whatever name.
pub fn place(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// One run of a server, told from every other one.
#[derive(Clone, Debug)]
pub struct RunningServer {
    pid: String,
    start: String,
    /// Whether its process was seen alive when this was read.
    seen: bool,
}

impl PartialEq for RunningServer {
    fn eq(&self, other: &Self) -> bool {
        (&self.pid, &self.start) == (&other.pid, &other.start)
    }
}

impl Eq for RunningServer {}

impl RunningServer {
    /// Whether all that tells this run from others is known, and its process is alive.
    pub fn is_known_and_alive(&self) -> bool {
        !self.start.trim().is_empty() && is_gone(&self.pid) == Some(false)
    }

    /// Whether it is the first process of its container, which adopts every orphan and takes one
    /// that ends with neither 0 nor 1 for a crash of its own (PostgreSQL
    /// `src/backend/postmaster/postmaster.c`, `CleanupBackend`, from 18 on
    /// `process_pm_child_exit`: "untracked child process").
    pub fn adopts_orphans(&self) -> bool {
        self.pid.trim() == "1"
    }
}

impl fmt::Display for RunningServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} started {}", self.pid.trim(), self.start.trim())
    }
}

/// Whether the first process of this container is a server, as far as its name tells.
pub fn first_process_is_a_server() -> bool {
    fs::read_to_string("/proc/1/comm").is_ok_and(|name| ["postgres", "postmaster"].contains(&name.trim()))
}

/// Whether no process has this number, or one that has ended; `None` where it is no number of a
/// process. Only processes of this PID namespace can be seen.
pub fn is_gone(pid: &str) -> Option<bool> {
    let number = pid.trim().parse().ok().filter(|number| *number > 0)?;
    if rustix::process::test_kill_process(Pid::from_raw(number)?) == Err(Errno::SRCH) {
        return Some(true);
    }
    // Where /proc does not tell, it is there.
    Some(fs::read(format!("/proc/{number}/stat")).is_ok_and(|stat| has_ended(&stat)))
}

/// Whether `/proc/PID/stat` is that of a process that has ended and that its parent has not asked
/// about: "Z" or "X" behind the name, which is in parentheses and may hold some itself.
fn has_ended(stat: &[u8]) -> bool {
    let name_end = stat.iter().rposition(|byte| *byte == b')');
    let state = name_end.and_then(|end| stat.get(end + 2));
    matches!(state, Some(b'Z' | b'X' | b'x'))
}

/// The segment size by a segment of the cluster that lies in this folder (pg_wal always has one).
pub fn segment_size_in(folder: &Path, system_id: SystemId) -> Option<SegmentSize> {
    let entries = fs::read_dir(folder).ok()?;
    entries.flatten().find_map(|entry| {
        let name: WalName = entry.file_name().to_str()?.parse().ok()?;
        let WalName::Segment(_) = name else { return None };
        let page = first_page(&entry.path()).ok()??;
        // A recycled segment has the right size and an older address, so only these two count.
        let size =
            page.segment_size().filter(|size| entry.metadata().is_ok_and(|m| m.len() == size.bytes()))?;
        (page.system_id() == system_id).then_some(size)
    })
}

/// The header at the start of a file; `None` where the file is too short for one.
pub fn first_page(path: &Path) -> io::Result<Option<FirstPage>> {
    let mut head = Vec::with_capacity(FirstPage::LEN);
    File::open(path)?.take(FirstPage::LEN as u64).read_to_end(&mut head)?;
    Ok(FirstPage::read(&head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_directory(base: &Path, name: &str, id: u64) -> PathBuf {
        let path = base.join(name);
        fs::create_dir_all(path.join("global")).unwrap();
        fs::create_dir_all(path.join("pg_wal")).unwrap();
        fs::write(path.join("PG_VERSION"), "15\n").unwrap();
        fs::write(path.join("global/pg_control"), [&id.to_le_bytes()[..], &[0; 100]].concat()).unwrap();
        path
    }

    #[test]
    fn the_data_directory_is_that_of_the_file_then_the_working_one_then_pgdata() {
        let base = tempfile::tempdir().unwrap();
        let one = data_directory(base.path(), "one", 1);
        let two = data_directory(base.path(), "two", 2);
        let find = |wal: &Path, working: &Path, pgdata: Option<&Path>| {
            DataDirectory::find(wal, working, pgdata).map(|found| found.path().to_owned())
        };
        assert_eq!(find(Path::new("pg_wal/RECOVERYXLOG"), &one, Some(&two)), Some(one.clone()));
        assert_eq!(find(&two.join("pg_wal/x"), &one, None), Some(two.clone()));
        assert_eq!(find(Path::new("/elsewhere/x"), &one, Some(&two)), Some(one.clone()));
        assert_eq!(find(Path::new("/elsewhere/x"), base.path(), Some(&two)), Some(two.clone()));
        assert_eq!(find(Path::new("/elsewhere/x"), base.path(), None), None);
        assert_eq!(DataDirectory::at(&two).unwrap().system_id().unwrap(), Some(SystemId(2)));
    }

    #[test]
    fn a_control_file_is_missing_or_cut_or_right() {
        let base = tempfile::tempdir().unwrap();
        let found = DataDirectory::at(&data_directory(base.path(), "x", 7)).unwrap();
        let control = found.path().join("global/pg_control");
        fs::write(&control, [1, 2, 3]).unwrap();
        assert_eq!(found.system_id().unwrap_err().kind(), io::ErrorKind::InvalidData);
        fs::remove_file(&control).unwrap();
        assert_eq!(found.system_id().unwrap(), None);
    }

    #[test]
    fn a_data_directory_is_on_the_greatest_timeline_that_its_files_name() {
        let base = tempfile::tempdir().unwrap();
        let found = DataDirectory::at(&data_directory(base.path(), "x", 7)).unwrap();
        assert_eq!(found.timeline().unwrap(), None);
        let mut control = include_bytes!("../../tests/vectors/control/postgresql-15").to_vec();
        control[48] = 3;
        fs::write(found.path().join("global/pg_control"), &control).unwrap();
        assert_eq!(found.timeline().unwrap(), Timeline::new(3));
        let label = |timeline: u32| {
            let text = format!("START WAL LOCATION: 0/2000028 (file x)\nSTART TIMELINE: {timeline}\n");
            fs::write(found.path().join("backup_label"), text).unwrap();
        };
        label(2);
        assert_eq!(found.timeline().unwrap(), Timeline::new(3));
        label(4);
        assert_eq!(found.timeline().unwrap(), Timeline::new(4));
        control[144] = 5;
        fs::write(found.path().join("global/pg_control"), &control).unwrap();
        assert_eq!(found.timeline().unwrap(), Timeline::new(5));
    }

    #[test]
    fn a_server_is_gone_when_its_process_is_or_when_another_one_runs() {
        let base = tempfile::tempdir().unwrap();
        let found = DataDirectory::at(&data_directory(base.path(), "x", 7)).unwrap();
        assert!(!found.is_abandoned_by(found.server().as_ref()), "no server, as for pg_rewind");
        let pid_file = |pid: u32, start: u32| {
            fs::write(found.path().join("postmaster.pid"), format!("{pid}\n/data\n{start}\n5432\n")).unwrap();
            found.server()
        };
        let asked = pid_file(std::process::id(), 1);
        assert!(found.is_running());
        assert!(!found.is_abandoned_by(asked.as_ref()));
        pid_file(std::process::id(), 2);
        assert!(found.is_abandoned_by(asked.as_ref()), "started again");
        // No process has a number beyond PID_MAX_LIMIT, 2^22.
        pid_file(4_194_305, 1);
        assert!(!found.is_running());
        fs::remove_file(found.path().join("postmaster.pid")).unwrap();
        assert!(found.is_abandoned_by(asked.as_ref()), "stopped");
    }

    #[test]
    fn a_process_that_was_never_seen_is_not_gone() {
        // As from another container: the server's number means nothing here.
        let base = tempfile::tempdir().unwrap();
        let found = DataDirectory::at(&data_directory(base.path(), "x", 7)).unwrap();
        let pid_file = found.path().join("postmaster.pid");
        fs::write(&pid_file, "4194305\n/data\n1\n").unwrap();
        let asked = found.server();
        assert!(!found.is_abandoned_by(asked.as_ref()));
        assert!(!asked.as_ref().unwrap().is_known_and_alive());
        fs::write(&pid_file, "4194305\n/data\n2\n").unwrap();
        assert!(found.is_abandoned_by(asked.as_ref()), "started again");
    }

    #[test]
    fn a_process_that_has_ended_is_gone_before_its_parent_asks() {
        let base = tempfile::tempdir().unwrap();
        let found = DataDirectory::at(&data_directory(base.path(), "x", 7)).unwrap();
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let line = format!("{}\n/data\n1\n", child.id());
        fs::write(found.path().join("postmaster.pid"), line).unwrap();
        let asked = found.server();
        assert!(found.is_running() && !found.is_abandoned_by(asked.as_ref()));
        drop(child.stdin.take());
        while !fs::read(format!("/proc/{}/stat", child.id())).is_ok_and(|stat| has_ended(&stat)) {
            std::thread::yield_now();
        }
        assert!(!found.is_running() && found.is_abandoned_by(asked.as_ref()));
        child.wait().unwrap();
        assert!(!found.is_running());
    }

    #[test]
    fn the_state_of_a_process_stands_behind_its_name() {
        for (stat, ended) in [
            ("7 (postgres) S 1 7", false),
            ("7 (postgres) Z 1 7", true),
            ("7 (a) Z (b) S 1 7", false),
            ("7 (a) S) X 1", true),
            ("7 (", false),
            ("7 ()", false),
            ("", false),
        ] {
            assert_eq!(has_ended(stat.as_bytes()), ended, "{stat}");
        }
    }

    #[test]
    fn a_data_directory_holds_what_its_links_lead_to() {
        let base = tempfile::tempdir().unwrap();
        let data = data_directory(base.path(), "data", 7);
        let path = |name: &str| base.path().join(name);
        for folder in ["wal/archive", "space/archive", "other", "data/pg_tblspc"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        fs::remove_dir(data.join("pg_wal")).unwrap();
        let link = |to: &str, from: &str| std::os::unix::fs::symlink(path(to), path(from)).unwrap();
        link("wal", "data/pg_wal");
        link("space", "data/pg_tblspc/16384");
        link("wal/archive", "link");
        link("data", "same");
        for directory in ["data", "same"] {
            let found = DataDirectory::at(&path(directory)).unwrap();
            for inside in [
                "data",
                "data/new/archive",
                "wal",
                "wal/archive",
                "wal/new",
                "space/archive",
                "link",
                "same/x",
            ] {
                assert!(found.contains(&path(inside)), "{directory} {inside}");
            }
            for outside in ["", "other", "other/new", "data-archive"] {
                assert!(!found.contains(&path(outside)), "{directory} {outside}");
            }
            assert!(found.holds(&path("wal/x")) && found.holds(&path("same/pg_wal/x")));
            assert!(!found.holds(&path("other/x")) && !found.holds(Path::new("x")));
        }
    }

    #[test]
    fn a_promoting_server_has_a_pid_file_and_no_signal_file() {
        let base = tempfile::tempdir().unwrap();
        let found = DataDirectory::at(&data_directory(base.path(), "x", 7)).unwrap();
        assert!(!found.is_past_recovery(), "not running");
        fs::write(found.path().join("postmaster.pid"), "1\n").unwrap();
        assert!(found.is_past_recovery());
        fs::write(found.path().join("recovery.signal"), "").unwrap();
        assert!(!found.is_past_recovery() && !found.is_standby());
        fs::write(found.path().join("standby.signal"), "").unwrap();
        assert!(!found.is_past_recovery() && found.is_standby());
    }
}
