//! Objects as files below a local directory, the destination's root.
//!
//! The root itself is never made: a root that is not there is an unmounted disk or a typing
//! error, and writing beside it would be losing WAL with a good conscience. For the same reason
//! the root is held open from the first request on, which keeps a plain `umount` from succeeding
//! in between, and every request ends by proving that the path still leads to that directory.

mod listing;
mod names;
mod root;

use super::{Body, DeletionFailed, Entry, Error, Kind, Listing, Nature, Object, Range, Result, Storage};
use crate::host::durable;
use crate::host::stamp::Stamp;
use crate::object::Key;
use crate::object::age::{Keyring, NO_KEYS};
use listing::{ROOM, Sorted};
use root::{Root, failed};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Unfinished files older than this belong to nobody any more.
const SWEEP_AGE: Duration = Duration::from_secs(24 * 3600);

/// How long they are looked for.
const SWEEP_TIME: Duration = Duration::from_secs(2);

/// A directory as a destination.
pub struct Local {
    root: Root,
}

impl Local {
    /// The root must be an absolute path; it is first looked at by the first request.
    pub fn new(root: PathBuf) -> Self {
        Local { root: Root::new(root) }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.path().join(key.as_str())
    }

    /// The folders to make durable for a key, its own first.
    fn folders<'a>(&'a self, path: &'a Path) -> Vec<&'a Path> {
        let root = self.root.path();
        path.ancestors().skip(1).take_while(|folder| folder.starts_with(root)).collect()
    }

    /// Removes what killed pushes left, as far as it is found in a moment.
    fn sweep_all(&self, now: SystemTime) {
        let (root, until) = (self.root.path(), Instant::now() + SWEEP_TIME);
        for folder in [root.join(crate::object::key::WAL_FOLDER), root.to_owned()] {
            match durable::sweep(&folder, SWEEP_AGE, now, until) {
                Ok(removed) => {
                    for path in removed {
                        log::info!("removed \"{}\", left by an interrupted push", path.display());
                    }
                }
                Err(error) => log::debug!("cannot sweep \"{}\": {error}", folder.display()),
            }
        }
    }

    fn open(&self, key: &Key) -> Result<(File, Entry)> {
        self.root.hold()?;
        let path = self.path(key);
        let opened = File::open(&path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        let (file, metadata) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.root.still_the_same()?;
                self.root.leads_somewhere(key.as_str(), &error)?;
                return Err(failed("cannot read", &path, error));
            }
        };
        self.root.still_the_same()?;
        if !metadata.is_file() {
            return Err(Error::new(Kind::Invalid, format!("\"{}\" is not a regular file", path.display())));
        }
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Ok((file, Entry { key: key.as_str().to_owned(), size: metadata.len(), modified }))
    }
}

impl Storage for Local {
    fn place(&self) -> &str {
        self.root.place()
    }

    fn create(&self, key: &Key, body: &Body) -> Result<()> {
        self.root.hold()?;
        let path = self.path(key);
        if fs::symlink_metadata(&path).is_ok() {
            let taken = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(failed("cannot create", &path, taken));
        }
        let folders = self.folders(&path);
        for folder in folders.iter().rev().skip(1) {
            durable::make_folder(folder).map_err(|error| failed("cannot make", folder, error))?;
        }
        let published = durable::publish_new(&path, &folders, |file| body.write_to(file));
        published.map_err(|error| {
            if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                // What fills the disk may be a file that nobody will finish.
                self.sweep_all(SystemTime::now()); // the full disk is reported either way
            }
            match failed("cannot create", &path, error) {
                // The folder went away under us: that is no answer about the key.
                gone if gone.kind() == Kind::NotFound => Error { kind: Kind::Unavailable, ..gone },
                other => other,
            }
        })?;
        self.root.still_the_same()
    }

    fn get(&self, key: &Key, range: Range) -> Result<Object> {
        let (mut file, entry) = self.open(key)?;
        if !matches!(range, Range::Whole | Range::First(_)) {
            let start = SeekFrom::Start(range.start(entry.size));
            file.seek(start).map_err(|error| failed("cannot read", &self.path(key), error))?;
        }
        let body: Box<dyn Read + Send> = match range {
            Range::First(count) => Box::new(file.take(count)),
            Range::Whole | Range::From(_) | Range::Last(_) => Box::new(file),
        };
        Ok(Object { size: entry.size, modified: entry.modified, body })
    }

    fn head(&self, key: &Key) -> Result<Entry> {
        self.open(key).map(|(_, entry)| entry)
    }

    /// Of the file, while the root is proved to be the one that this value held before.
    fn fingerprint(&self, key: &Key) -> Result<Option<Stamp>> {
        self.root.hold()?;
        let path = self.path(key);
        let found = fs::metadata(&path);
        self.root.still_the_same()?;
        match found {
            Ok(metadata) if metadata.is_file() => Ok(Some(Stamp::of(&metadata))),
            Ok(_) => Err(Error::new(Kind::Invalid, format!("\"{}\" is not a regular file", path.display()))),
            Err(error) => Err(failed("cannot look at", &path, error)),
        }
    }

    fn clock(&self) -> Result<SystemTime> {
        Ok(SystemTime::now())
    }

    fn list(&self, prefix: &str, after: &str) -> Result<Listing> {
        self.root.hold()?;
        let (folder, start) = split(prefix);
        // A bound in another folder is either before all of this one's keys or after them.
        let after = match after.strip_prefix(folder) {
            Some(name) => name.to_owned(),
            None if after < folder => String::new(),
            None => return Ok(Box::new(std::iter::empty())),
        };
        Ok(Box::new(Sorted::read(&self.root, (folder, start), after, ROOM)?))
    }

    fn list_unordered(&self, prefix: &str) -> Result<Listing> {
        let (folder, start) = split(prefix);
        let Some(entries) = self.root.read_folder(folder)? else { return Ok(Box::new(std::iter::empty())) };
        let path = self.root.path().join(folder);
        self.root.still_the_same()?;
        let (root, folder, start) = (self.root.clone(), folder.to_owned(), start.to_owned());
        Ok(Box::new(entries.filter_map(move |entry| {
            let name = match entry {
                Ok(entry) => entry.file_name().into_string().ok()?,
                Err(error) => return Some(Err(failed("cannot list", &path, error))),
            };
            let wanted = !name.starts_with('.') && name.starts_with(&start);
            wanted.then(|| root.entry(&folder, &name).transpose()).flatten()
        })))
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let Some(entries) = self.root.read_folder(prefix)? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in entries {
            let entry =
                entry.map_err(|error| failed("cannot list", &self.root.path().join(prefix), error))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // A link may lead to one.
            if !name.starts_with('.') && entry.path().is_dir() {
                names.push(name);
            }
        }
        self.root.still_the_same()?;
        names.sort();
        Ok(names)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.root.hold()?;
        let path = self.path(key);
        match fs::remove_file(&path) {
            Ok(()) => {
                let synced = durable::sync_folders(&self.folders(&path));
                synced.map_err(|error| failed("cannot make the deletion durable of", &path, error))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("cannot delete", &path, error)),
        }
        self.root.still_the_same()
    }

    /// One fsync of each folder for all of them.
    fn delete_all(&self, keys: &[Key]) -> std::result::Result<(), DeletionFailed> {
        self.root.hold().map_err(DeletionFailed::of_all)?;
        let paths: Vec<_> = keys.iter().map(|key| self.path(key)).collect();
        let (mut deleted, mut failure) = (0, None);
        for path in &paths {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    failure = Some(failed("cannot delete", path, error));
                    break;
                }
                _ => deleted += 1,
            }
        }
        let folders: BTreeSet<_> = paths.iter().flat_map(|path| self.folders(path)).collect();
        let folders: Vec<_> = folders.into_iter().filter(|folder| folder.is_dir()).collect();
        // What is gone is made durable even where the rest could not be deleted.
        let synced = durable::sync_folders(&folders)
            .map_err(|error| failed("cannot make deletions durable in", self.root.path(), error))
            .and_then(|()| self.root.still_the_same());
        match (failure, synced) {
            (None, Ok(())) => Ok(()),
            (Some(error), Ok(())) => Err(DeletionFailed { deleted, error }),
            (_, Err(error)) => Err(DeletionFailed::of_all(error)),
        }
    }

    fn make_durable(&self, key: &Key) -> Result<()> {
        let path = self.path(key);
        let synced = durable::sync_existing(&path, &self.folders(&path));
        synced.map_err(|error| failed("cannot make durable", &path, error))?;
        self.root.still_the_same()
    }

    fn sweep(&self, now: SystemTime) -> Result<()> {
        self.sweep_all(now);
        Ok(())
    }

    /// A rename that replaces nothing is what the trait asks of `create`.
    fn prove_create(&self) -> Result<()> {
        Ok(())
    }

    fn address(&self) -> String {
        self.place().to_owned()
    }

    fn keys(&self) -> &Keyring {
        &NO_KEYS
    }

    fn nature(&self) -> Nature {
        Nature::Directory
    }
}

/// The folder of a prefix, and how the names in it begin.
fn split(prefix: &str) -> (&str, &str) {
    match prefix.rfind('/') {
        Some(slash) => prefix.split_at(slash + 1),
        None => ("", prefix),
    }
}
