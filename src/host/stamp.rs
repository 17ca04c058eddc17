//! What the system says of a file, and would say otherwise after any change.

use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

/// What tells a file from every other one on this machine, and from itself after a change. A copy
/// has another inode, and no system call sets `st_ctim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// Seconds and nanoseconds.
    changed: (i64, i64),
}

/// How coarse the clock of a file system is at most: a tick of the kernel's timer is up to 10 ms.
const TICK: Duration = Duration::from_millis(20);

impl Stamp {
    /// By what `stat` said.
    pub fn of(metadata: &Metadata) -> Self {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a change from now on would show. One in the same tick of the clock would not.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(self.changed.0), u32::try_from(self.changed.1))
        else {
            return false;
        };
        let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds));
        changed.is_some_and(|changed| now.duration_since(changed).is_ok_and(|age| age > TICK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_change_a_copy_and_a_rename_show() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = |name: &str| Stamp::of(&fs::metadata(folder.path().join(name)).unwrap());
        fs::write(folder.path().join("a"), "x").unwrap();
        let before = stamp("a");
        assert_eq!(before, stamp("a"));
        std::thread::sleep(TICK);
        assert!(before.is_settled(SystemTime::now()));
        fs::copy(folder.path().join("a"), folder.path().join("b")).unwrap();
        assert_ne!(before, stamp("b"));
        fs::rename(folder.path().join("a"), folder.path().join("c")).unwrap();
        assert_ne!(before, stamp("c"));
        let renamed = stamp("c");
        assert!(!renamed.is_settled(SystemTime::UNIX_EPOCH), "a clock that went back proves nothing");
        std::thread::sleep(TICK);
        fs::write(folder.path().join("c"), "y").unwrap();
        assert_ne!(renamed, stamp("c"));
    }
}
