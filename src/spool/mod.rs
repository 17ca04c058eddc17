//! The spool: a small private directory that remembers what was proved before.
//!
//! Losing it costs time, never data. What it says is believed only where being wrong is harmless:
//! that a destination *was* an archive of this cluster. Its absence from a destination that the
//! spool remembers is the sign of a disk that is not mounted.

mod histories;
mod marks;
mod partials;
mod prefetched;

pub use crate::stamp::Stamp;
pub use marks::{Marks, Stored};
pub use prefetched::{Hit, Prefetched, Purpose};

use crate::durable;
use crate::object::{Identity, Sha256Sum};
use crate::wal::SystemId;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A spool directory that belongs to this user and to nobody else.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
}

/// How long a proof counts as fresh.
const FRESH: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize, Deserialize)]
struct Remembered {
    place: String,
    system_id: String,
    identity: String,
    writable: bool,
    proved: u64,
}

/// What was proved of a place not long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// Whose archive it is.
    pub identity: Identity,
    /// Whether it was also proved that creating there never replaces.
    pub writable: bool,
}

impl Spool {
    /// The default place: beside the data directory, on the same file system and outside of
    /// pg_wal, where a stranger breaks pg_rewind.
    pub fn beside(data_directory: &Path) -> PathBuf {
        let mut name = data_directory.file_name().unwrap_or_default().to_owned();
        name.push(".wal-spool");
        data_directory.with_file_name(name)
    }

    /// Opens the spool, making it where its parent exists.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        make_private(&folder)?;
        let metadata = fs::symlink_metadata(&folder)?;
        let mine = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
        if !mine || metadata.mode() & 0o077 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is not a directory of this user alone (mode 0700)",
            ));
        }
        Ok(Spool { folder })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether this place was once proved to be the archive of this cluster, and the file that
    /// says so. Has no age: it only ever leads to a refusal.
    pub fn expects(&self, place: &str, system_id: SystemId) -> Option<PathBuf> {
        let path = self.path(place, system_id);
        self.read(&path, place, system_id).map(|_| path)
    }

    /// What was proved, where that is fresh.
    pub fn fresh(&self, place: &str, system_id: SystemId, now: SystemTime) -> Option<Fresh> {
        let remembered = self.read(&self.path(place, system_id), place, system_id)?;
        let proved = SystemTime::UNIX_EPOCH + Duration::from_secs(remembered.proved);
        now.duration_since(proved).ok().filter(|age| *age < FRESH)?;
        let identity = Identity::read(remembered.identity.as_bytes()).ok()?;
        Some(Fresh { identity, writable: remembered.writable })
    }

    /// Remembers the proof.
    pub fn remember(&self, place: &str, proved: &Fresh, now: SystemTime) -> io::Result<()> {
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let remembered = Remembered {
            place: place.to_owned(),
            system_id: proved.identity.system_id.to_string(),
            identity: String::from_utf8_lossy(&proved.identity.write()).trim_end().to_owned(),
            writable: proved.writable,
            proved: since_epoch.as_secs(),
        };
        let content = serde_json::to_vec(&remembered)?;
        durable::replace_cached(&self.path(place, proved.identity.system_id), &content)
    }

    fn path(&self, place: &str, system_id: SystemId) -> PathBuf {
        let key = Sha256Sum::of(format!("{system_id}\n{place}").as_bytes());
        self.folder.join(format!("identity-{}.json", key.short()))
    }

    fn read(&self, path: &Path, place: &str, system_id: SystemId) -> Option<Remembered> {
        let remembered: Remembered = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let matches = remembered.place == place && remembered.system_id == system_id.to_string();
        matches.then_some(remembered)
    }
}

/// Makes a folder for this user alone where none is there.
fn make_private(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Opens a file to read it: never through a link, and never waiting for the writer of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::SegmentSize;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_proof_is_remembered_for_its_place_and_cluster_only_and_is_fresh_for_a_day() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path().join("data.wal-spool")).unwrap();
        let id = SystemId(7);
        let identity = Identity { system_id: id, segment_size: SegmentSize::MAX, foreign: false };
        let proved = Fresh { identity, writable: true };
        let now = SystemTime::now();
        assert_eq!(spool.expects("/a", id), None);
        spool.remember("/a", &proved, now).unwrap();
        assert!(spool.expects("/a", id).is_some());
        assert_eq!(spool.fresh("/a", id, now + FRESH / 2), Some(proved));
        assert_eq!(spool.fresh("/a", id, now + FRESH), None);
        assert_eq!(spool.fresh("/a", id, now - Duration::from_secs(60)), None, "the clock went back");
        assert!(spool.expects("/a", id).is_some(), "an old proof is still a reason to expect an archive");
        assert_eq!(spool.expects("/b", id), None);
        assert_eq!(spool.expects("/a", SystemId(8)), None);
        fs::write(spool.expects("/a", id).unwrap(), "junk").unwrap();
        assert_eq!(spool.expects("/a", id), None);
    }

    #[test]
    fn a_spool_that_others_can_write_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("spool");
        Spool::open(folder.clone()).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
        assert_eq!(Spool::open(folder.clone()).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let link = base.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(Spool::open(link).is_err());
        assert!(Spool::open(base.path().join("no/parent")).is_err());
    }

    #[test]
    fn the_default_is_a_sibling_of_the_data_directory() {
        assert_eq!(
            Spool::beside(Path::new("/var/lib/pg/15/main")),
            Path::new("/var/lib/pg/15/main.wal-spool")
        );
    }
}
