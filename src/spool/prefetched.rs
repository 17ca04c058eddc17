//! Prefetched segments: proved and sealed by the prefetcher, believed by wal-fetch only while the
//! seal still tells of this very file.
//!
//! ```text
//! SPOOL/prefetch.lock                 held by the prefetcher while it lives
//! SPOOL/prefetch-<key>/position       the last segment that PostgreSQL got, and its size
//! SPOOL/prefetch-<key>/NAME.part      being downloaded
//! SPOOL/prefetch-<key>/NAME           proved and renamed
//! SPOOL/prefetch-<key>/NAME.seal      written after that: what the file is, and since when
//! ```
//!
//! The key is made of the boot, the destinations, the settings that decide what may be believed, the
//! cluster and the run of its server, so what was proved for one is nothing to any other. Knows nothing of destinations: the
//! proof is the caller's. Nothing is fsynced: after a crash of the system the boot is another one.

use super::{Spool, Stamp, age, open, read};
use crate::failure::Failure;
use crate::host::data_directory::RunningServer;
use crate::host::durable;
use crate::object::{Checks, Sha256Sum};
use crate::wal::{FirstPage, SegmentName, SegmentSize, SystemId};
use fs2::FileExt;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long a prefetched file may be believed.
const FRESH: Duration = Duration::from_secs(600);

const LOCK: &str = "prefetch.lock";
const FOLDER: &str = "prefetch-";
const POSITION: &str = "position";
const SEAL: &str = ".seal";
const PART: &str = ".part";

/// What prefetched files are proved for. Of these nothing may be unknown.
pub struct Purpose<'a> {
    /// The destinations' addresses, in the order in which they are asked.
    pub addresses: Vec<String>,
    /// The settings that decide what may be believed.
    pub terms: Sha256Sum,
    pub system_id: SystemId,
    /// The run of its server.
    pub server: &'a RunningServer,
}

impl Purpose<'_> {
    /// Every part on a line of its own, the addresses quoted, so that no two purposes have one text.
    fn key(&self) -> io::Result<String> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let Purpose { addresses, terms, system_id, server } = self;
        let parts = format!("{}\n{terms}\n{system_id}\n{server}\n{addresses:?}", boot.trim());
        Ok(Sha256Sum::of(parts.as_bytes()).short())
    }
}

impl Spool {
    /// The place of what is prefetched for this purpose; it may not be there yet. In the spool of
    /// another user, which only root can open, is nothing for this one, and the server believes
    /// only what is its own.
    pub fn prefetched(&self, purpose: &Purpose<'_>) -> io::Result<Prefetched> {
        if fs::symlink_metadata(&self.folder)?.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let folder = self.folder.join(format!("{FOLDER}{}", purpose.key()?));
        Ok(Prefetched { folder })
    }

    /// Whether a prefetcher is at work.
    pub fn has_prefetcher(&self) -> bool {
        // Shared, so that two who ask are not each other's prefetcher.
        File::open(self.folder.join(LOCK)).is_ok_and(|lock| FileExt::try_lock_shared(&lock).is_err())
    }

    /// Becomes the prefetcher of this spool, until the end of the process or of the file; `None`
    /// where there is one.
    pub fn be_prefetcher(&self) -> io::Result<Option<File>> {
        let lock = durable::open_cached(&self.folder.join(LOCK))?;
        match FileExt::try_lock_exclusive(&lock) {
            Ok(()) => Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether that lock is still this spool's: somebody may have deleted the spool, and another
    /// prefetcher may be at work in a new one.
    pub fn is_locked_by(&self, lock: &File) -> bool {
        let now = fs::symlink_metadata(self.folder.join(LOCK));
        now.and_then(|now| Ok((now.dev(), now.ino()) == (lock.metadata()?.dev(), lock.metadata()?.ino())))
            .unwrap_or(false)
    }

    /// Whether something is, or was, prefetched for another purpose than this one.
    pub fn has_other_purpose(&self, than: &Prefetched) -> bool {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).any(|path| is_purpose(&path) && path != than.folder)
    }

    /// Deletes what was prefetched for any purpose but this one. For wal-push, too, where the server
    /// recovers no more: one read of the spool's own directory.
    pub fn clear_prefetched(&self, except: Option<&Prefetched>) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if is_purpose(&path) && except.is_none_or(|kept| kept.folder != path) {
                // Somebody else may be deleting it, too.
                let _ = fs::remove_dir_all(&path);
            }
        }
        Ok(())
    }
}

/// Whether it is a folder of prefetched files.
fn is_purpose(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let is_key = |key: &str| key.len() == 16 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.and_then(|name| name.strip_prefix(FOLDER)).is_some_and(is_key)
}

/// What is prefetched for one purpose.
#[derive(Clone, Debug)]
pub struct Prefetched {
    folder: PathBuf,
}

/// What a file was when it was proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seal {
    name: String,
    file: Stamp,
    sha256: String,
    /// Milliseconds since 1970.
    made: u64,
    /// What was said while it was fetched, for whoever takes it.
    warnings: Vec<Failure>,
}

/// A file that is proved and sealed, ready to be taken.
pub struct Hit {
    pub path: PathBuf,
    /// Open for reading, at its start.
    pub file: File,
    /// Its size, which is the cluster's.
    pub size: SegmentSize,
    /// Of its content when it was proved.
    pub sha256: Sha256Sum,
    /// What was said while it was fetched.
    pub warnings: Vec<Failure>,
}

impl Prefetched {
    /// Makes the folder where it is not there.
    pub fn create(&self) -> io::Result<()> {
        durable::make_private_folder(&self.folder, None)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a proved segment is put.
    pub fn path(&self, name: SegmentName) -> PathBuf {
        self.folder.join(name.to_string())
    }

    /// Where a segment is while it is not proved.
    pub fn part(&self, name: SegmentName) -> PathBuf {
        self.folder.join(format!("{name}{PART}"))
    }

    fn seal_of(&self, name: SegmentName) -> PathBuf {
        self.folder.join(format!("{name}{SEAL}"))
    }

    /// The file, if every proof holds. What is sealed and does not match is deleted unread.
    pub fn hit(
        &self,
        name: SegmentName,
        checks: Checks,
        system_id: SystemId,
        now: SystemTime,
    ) -> Option<Hit> {
        let hit = self.examine(name, checks, system_id, now);
        match hit {
            Ok(hit) => hit,
            Err(reason) => {
                log::debug!("\"{}\" is not used: {reason}", self.path(name).display());
                self.discard(name);
                None
            }
        }
    }

    /// `Ok(None)` where there is no seal.
    fn examine(
        &self,
        name: SegmentName,
        checks: Checks,
        system_id: SystemId,
        now: SystemTime,
    ) -> Result<Option<Hit>, String> {
        let seal = match read(&self.seal_of(name)) {
            Ok(seal) => seal,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let seal: Seal = serde_json::from_slice(&seal).map_err(|error| error.to_string())?;
        let sha256 = seal.sha256.parse().map_err(|_| "its seal has no sum")?;
        let age = age(Duration::from_millis(seal.made), now);
        if seal.name != name.to_string() || age.is_none_or(|age| age >= FRESH) {
            return Err("its seal is of another name or time".to_owned());
        }
        let path = self.path(name);
        let file = open(&path).map_err(|error| error.to_string())?;
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        // PostgreSQL opens what it is given for writing.
        let usable = metadata.is_file()
            && metadata.uid() == rustix::process::geteuid().as_raw()
            && metadata.mode() & 0o7777 == 0o600;
        if !usable || seal.file != Stamp::of(&metadata) {
            return Err("it is not the file that was sealed".to_owned());
        }
        let size = SegmentSize::new(metadata.len()).ok_or("its size is none of a segment")?;
        if checks == Checks::Header {
            let mut head = [0; FirstPage::LEN];
            rustix::io::pread(&file, &mut head[..], 0).map_err(|error| error.to_string())?;
            let page = FirstPage::read(&head).ok_or("it has no header")?;
            page.check(name, metadata.len()).map_err(|bad| bad.to_string())?;
            if page.system_id() != system_id {
                return Err("it is of another cluster".to_owned());
            }
        }
        Ok(Some(Hit { path, file, size, sha256, warnings: seal.warnings }))
    }

    /// Seals the file that was just proved and renamed to its name.
    pub fn seal(
        &self,
        name: SegmentName,
        sha256: Sha256Sum,
        warnings: Vec<Failure>,
        now: SystemTime,
    ) -> io::Result<()> {
        let file = fs::symlink_metadata(self.path(name))?;
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seal = Seal {
            name: name.to_string(),
            file: Stamp::of(&file),
            sha256: sha256.to_string(),
            made: u64::try_from(since_epoch.as_millis()).unwrap_or_default(),
            warnings,
        };
        durable::replace_cached(&self.seal_of(name), &serde_json::to_vec(&seal)?)
    }

    /// Forgets a segment: the seal first, so that no unsealed moment can be mistaken.
    pub fn discard(&self, name: SegmentName) {
        for path in [self.seal_of(name), self.path(name)] {
            let _ = fs::remove_file(path); // not there: as wanted
        }
    }

    /// After the file has gone to its place.
    pub fn taken(&self, name: SegmentName) {
        let _ = fs::remove_file(self.seal_of(name)); // without its file it is worth nothing
    }

    /// How far the prefetcher is with a segment; `None` where it does not work on it.
    pub fn progress(&self, name: SegmentName) -> Option<u64> {
        let length = |path: PathBuf| fs::symlink_metadata(path).ok().map(|file| file.len());
        // Renamed and not yet sealed: a moment.
        length(self.part(name)).or_else(|| length(self.path(name)).map(|_| u64::MAX))
    }

    /// Tells the prefetcher what PostgreSQL got last. In place, since it is read every few
    /// milliseconds and has one length: a torn read is no name, or one that is corrected at once.
    pub fn set_position(&self, name: SegmentName, size: SegmentSize) -> io::Result<()> {
        let path = self.folder.join(POSITION);
        let mut file = match durable::open_cached(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create()?;
                durable::open_cached(&path)?
            }
            other => other?,
        };
        file.write_all(format!("{name} {:010}\n", size.bytes()).as_bytes())
    }

    /// What PostgreSQL got last.
    pub fn position(&self) -> Option<(SegmentName, SegmentSize)> {
        let text = String::from_utf8(read(&self.folder.join(POSITION)).ok()?).ok()?;
        let (name, size) = text.strip_suffix('\n')?.split_once(' ')?;
        Some((name.parse().ok()?, SegmentSize::new(size.parse().ok()?)?))
    }

    /// Deletes whatever is not of a segment to keep; the second argument of `keep` says whether
    /// it is a file that is being downloaded.
    /// Seals that are just being written go only where nobody is `writing`.
    pub fn retain(&self, writing: bool, keep: impl Fn(SegmentName, bool) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let part = name.strip_suffix(PART);
            let stem = part.or_else(|| name.strip_suffix(SEAL)).unwrap_or(&name);
            let seal = writing && name.starts_with(durable::TEMPORARY_PREFIX);
            if name != POSITION && !seal && !stem.parse().is_ok_and(|name| keep(name, part.is_some())) {
                let _ = fs::remove_file(&path); // taken meanwhile: as well
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
