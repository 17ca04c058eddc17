//! The spool: a small private directory that remembers what was proved before.
//!
//! Losing it costs time, never data. What it says is believed only where being wrong is harmless:
//! that a destination *was* an archive of this cluster. Its absence from a destination that the
//! spool remembers is the sign of a disk that is not mounted.

mod histories;
mod held;
mod holes;
mod marks;
mod opened;
mod partials;
mod place;
mod prefetched;
mod sick;

pub use crate::host::stamp::Stamp;
pub use held::Post;
pub use marks::{Marks, Stored};
pub use place::Place;
pub use prefetched::{Hit, Prefetched, Purpose};

use crate::host::durable;
use crate::object::{Identity, Sha256Sum};
use crate::wal::SystemId;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
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
    /// Opens a spool of this user's, making it where its parent exists.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        match Place::of(Some(&folder), None) {
            Some(place) => place.open(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

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
        age(Duration::from_secs(remembered.proved), now).filter(|age| *age < FRESH)?;
        let identity = Identity::read(remembered.identity.as_bytes()).ok()?;
        Some(Fresh { identity, writable: remembered.writable })
    }

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
        let remembered: Remembered = serde_json::from_slice(&read(path).ok()?).ok()?;
        let matches = remembered.place == place && remembered.system_id == system_id.to_string();
        matches.then_some(remembered)
    }
}

/// How long ago a stored moment was; `None` for one that is still to come, or that no clock shows.
fn age(since_epoch: Duration, now: SystemTime) -> Option<Duration> {
    now.duration_since(SystemTime::UNIX_EPOCH.checked_add(since_epoch)?).ok()
}

/// No file of the spool that is read whole is longer.
const MAX_LEN: u64 = 64 << 10;

/// Reads a file as [`open`] opens it.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open(path)?.take(MAX_LEN).read_to_end(&mut content)?;
    Ok(content)
}

/// Opens a file to read it: never through a link, and never waiting for the writer of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Encryption;
    use crate::wal::SegmentSize;
    use std::fs;

    #[test]
    fn a_proof_is_remembered_for_its_place_and_cluster_only_and_is_fresh_for_a_day() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path().join("data.wal-spool")).unwrap();
        let id = SystemId(7);
        let identity = Identity {
            system_id: id,
            segment_size: SegmentSize::MAX,
            foreign: false,
            encryption: Encryption::None,
        };
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
        let path = spool.expects("/a", id).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().to_string();
        fs::write(&path, text.replace(&seconds, &u64::MAX.to_string())).unwrap();
        assert!(spool.expects("/a", id).is_some());
        assert_eq!(spool.fresh("/a", id, now), None, "a time that there cannot be");
        fs::write(path, "junk").unwrap();
        assert_eq!(spool.expects("/a", id), None);
    }
}
