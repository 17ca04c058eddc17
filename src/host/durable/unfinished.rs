//! A file that nobody can see yet: without a name where the system has that, so that not even
//! `kill -9` leaves anything, else under a temporary one.

use super::temporary_name;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where a process finds its own descriptors by name.
pub(super) const DESCRIPTORS: &str = "/proc/self/fd";

/// A new file in a folder. Removed unless it is published.
pub(super) struct Unfinished<'a> {
    folder: &'a File,
    pub(super) file: File,
    way: Way,
}

enum Way {
    /// It has its name.
    Published,
    /// By this path, through which it can be linked.
    Unnamed(PathBuf),
    Named(String),
}

/// The file system has no way to give a file its name that never replaces another.
#[derive(Debug)]
pub(super) struct NoSafeName(io::Error);

impl fmt::Display for NoSafeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it has neither RENAME_NOREPLACE nor hard links: {}", self.0)
    }
}

impl std::error::Error for NoSafeName {}

impl<'a> Unfinished<'a> {
    /// A file without a name; `None` where the system has none (`descriptors` not mounted, network
    /// file systems), or refuses for a reason that a file with a name will meet, too.
    pub(super) fn unnamed(folder: &'a File, descriptors: &Path) -> Option<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(folder, ".", flags, Mode::RUSR | Mode::WUSR).ok()?);
        let path = descriptors.join(file.as_raw_fd().to_string());
        let (by_path, own) = (std::fs::metadata(&path).ok()?, file.metadata().ok()?);
        let same = (by_path.dev(), by_path.ino()) == (own.dev(), own.ino());
        same.then_some(Unfinished { folder, file, way: Way::Unnamed(path) })
    }

    /// Whether what was fsynced before the file had a name is all that a crash could lose: ext4, XFS
    /// and tmpfs journal a file without a name like any other, or nothing at all.
    pub(super) fn was_logged_unnamed(&self) -> bool {
        const KNOWN: [u64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994]; // `statfs(2)`
        let kind = rustix::fs::fstatfs(&self.file).map(|system| system.f_type);
        kind.is_ok_and(|kind| u64::try_from(kind).is_ok_and(|kind| KNOWN.contains(&kind)))
    }

    /// A file with a name of its own.
    pub(super) fn named(folder: &'a File) -> io::Result<Self> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let name = temporary_name();
            match rustix::fs::openat(folder, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => return Ok(Unfinished { folder, file: File::from(file), way: Way::Named(name) }),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives it its name, if nothing has that name.
    pub(super) fn publish(&mut self, name: &OsStr) -> io::Result<()> {
        match &self.way {
            Way::Published => {}
            Way::Unnamed(path) => {
                rustix::fs::linkat(CWD, path, self.folder, name, AtFlags::SYMLINK_FOLLOW)?;
            }
            Way::Named(own) => {
                match rustix::fs::renameat_with(self.folder, own, self.folder, name, RenameFlags::NOREPLACE) {
                    // The temporary name is removed in the end.
                    Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return self.link(own, name),
                    other => other?,
                }
            }
        }
        self.way = Way::Published;
        Ok(())
    }

    fn link(&self, own: &str, name: &OsStr) -> io::Result<()> {
        match rustix::fs::linkat(self.folder, own, self.folder, name, AtFlags::empty()) {
            Err(error @ (Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK)) => {
                Err(io::Error::new(io::ErrorKind::Unsupported, NoSafeName(error.into())))
            }
            other => Ok(other?),
        }
    }

    /// Gives it a name, in the place of what has it.
    pub(super) fn replace(mut self, name: &OsStr) -> io::Result<()> {
        if let Way::Named(own) = &self.way {
            rustix::fs::renameat(self.folder, own, self.folder, name)?;
            self.way = Way::Published;
            return Ok(());
        }
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Way::Named(name) = &self.way {
            let _ = rustix::fs::unlinkat(self.folder, name, AtFlags::empty()); // what stays is swept some day
        }
    }
}
