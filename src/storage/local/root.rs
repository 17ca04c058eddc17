//! The root of a destination that is a directory: held open, and proved to be the same one.

use crate::storage::{Entry, Error, Kind, Result};
use std::fs::{self, File, ReadDir};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

/// Shared with listings.
#[derive(Clone)]
pub(super) struct Root(Arc<Held>);

struct Held {
    path: PathBuf,
    place: String,
    handle: OnceLock<File>,
}

/// An I/O error as a storage error.
pub(super) fn failed(verb: &str, path: &Path, error: io::Error) -> Error {
    use io::ErrorKind as Io;
    let (kind, hint) = match error.kind() {
        Io::PermissionDenied if error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) => (
            Kind::Denied,
            Some("the system forbids it to everybody: look for the attribute \"immutable\" (lsattr)"),
        ),
        Io::NotFound => (Kind::NotFound, None),
        Io::AlreadyExists => (Kind::AlreadyExists, None),
        Io::PermissionDenied => (
            Kind::Denied,
            Some("give the user that PostgreSQL runs as read and write permission on the archive's root"),
        ),
        Io::ReadOnlyFilesystem => (Kind::Denied, Some("mount the file system read-write")),
        Io::StorageFull | Io::QuotaExceeded => {
            (Kind::Unavailable, Some("make room on it; PostgreSQL asks again by itself"))
        }
        Io::Unsupported => (
            Kind::Invalid,
            Some("nothing can be published there without the risk of replacing: use another file system"),
        ),
        _ => (Kind::Unavailable, None),
    };
    let error = Error::new(kind, format!("{verb} \"{}\"", path.display())).caused_by(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

impl Root {
    pub(super) fn new(path: PathBuf) -> Self {
        let place = path.display().to_string();
        Root(Arc::new(Held { path, place, handle: OnceLock::new() }))
    }

    /// The path, for messages.
    pub(super) fn place(&self) -> &str {
        &self.0.place
    }

    pub(super) fn path(&self) -> &Path {
        &self.0.path
    }

    /// Opens the root, once.
    pub(super) fn hold(&self) -> Result<&File> {
        if let Some(handle) = self.0.handle.get() {
            return Ok(handle);
        }
        let opened = File::open(self.path()).and_then(|file| match file.metadata()?.is_dir() {
            true => Ok(file),
            false => Err(io::ErrorKind::NotADirectory.into()),
        });
        let handle = opened.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => failed("cannot open the archive's root", self.path(), error),
            _ => Error::new(Kind::NoPlace, format!("cannot open the archive's root \"{}\"", self.0.place))
                .caused_by(error)
                .hint(format!(
                    "mount its disk or correct the path; for a new archive make the directory first: install -d -o postgres \
                     -m 0750 {}",
                    self.0.place
                )),
        })?;
        Ok(self.0.handle.get_or_init(|| handle))
    }

    /// Fails where nothing was found because a link leads nowhere, the one of a folder whose disk is
    /// not mounted, say: that is no answer about a key.
    pub(super) fn leads_somewhere(&self, key: &str, error: &io::Error) -> Result<()> {
        if error.kind() != io::ErrorKind::NotFound {
            return Ok(());
        }
        let slashes = key.match_indices('/').filter_map(|(slash, _)| key.get(..slash));
        let dangling = slashes
            .chain([key])
            .map(|part| self.path().join(part))
            .find(|path| fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) && !path.exists());
        match dangling {
            None => Ok(()),
            Some(link) => Err(Error::new(
                Kind::NoPlace,
                format!("\"{}\" is a symbolic link that leads nowhere", link.display()),
            )
            .hint("mount the disk that it leads to, or correct it")),
        }
    }

    /// Fails where another directory stands at the path now: a disk was mounted or unmounted.
    pub(super) fn still_the_same(&self) -> Result<()> {
        let held = self.hold()?.metadata();
        let same = held.and_then(|held| {
            let now = fs::metadata(self.path())?;
            Ok((held.dev(), held.ino()) == (now.dev(), now.ino()))
        });
        match same {
            Ok(true) => Ok(()),
            _ => Err(Error::new(
                Kind::Unavailable,
                format!(
                    "the archive's root \"{}\" was mounted, unmounted or replaced during the request",
                    self.0.place
                ),
            )
            .hint("nothing to do if that was intended: the next request uses what is there now")),
        }
    }

    /// What is in a folder below it; `None` where there is no such folder.
    pub(super) fn read_folder(&self, folder: &str) -> Result<Option<ReadDir>> {
        self.hold()?;
        let path = self.path().join(folder);
        match fs::read_dir(&path) {
            Ok(entries) => Ok(Some(entries)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.still_the_same()?;
                self.leads_somewhere(folder.trim_end_matches('/'), &error)?;
                Ok(None)
            }
            Err(error) => Err(failed("cannot list", &path, error)),
        }
    }

    /// An object of a directory that was listed; `None` for what is no file.
    pub(super) fn entry(&self, folder: &str, name: &str) -> Result<Option<Entry>> {
        let key = format!("{folder}{name}");
        let path = self.path().join(&key);
        let entry = |metadata: &fs::Metadata| Entry {
            key,
            size: metadata.len(),
            modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        };
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(entry(&metadata))),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.still_the_same()?;
                match fs::symlink_metadata(&path) {
                    // The name is taken, and whoever reads it is told that the link leads nowhere.
                    Ok(link) if link.is_symlink() => Ok(Some(entry(&link))),
                    // Deleted since the directory was read.
                    _ => Ok(None),
                }
            }
            Err(error) => Err(failed("cannot list", &path, error)),
        }
    }
}
