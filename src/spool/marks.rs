//! Marks: which files a push that looked ahead has stored already.
//!
//! A mark is believed only for the very file that it was made for: same name, same [`Stamp`], same
//! folder, same destinations, made by this user not long ago. Whatever is wrong with one, the file
//! is pushed; a mark that was looked at is gone.

use super::{Spool, Stamp, make_private, open};
use crate::durable;
use crate::object::Sha256Sum;
use crate::storage::Shared;
use crate::wal::WalName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long a mark counts.
const FRESH: Duration = Duration::from_secs(600);

/// No mark is longer.
const MAX_LEN: u64 = 4096;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    #[serde(rename = "wal-archive-mark")]
    version: u32,
    name: String,
    /// What [`Marks`] are for.
    scope: String,
    file: Stamp,
    /// Since the epoch.
    made: Duration,
}

/// The marks for one folder of WAL files and one set of destinations.
#[derive(Clone, Debug)]
pub struct Marks {
    folder: PathBuf,
    scope: Sha256Sum,
}

impl Spool {
    /// The marks of files in `wal_folder` that are durable in all of these destinations; `None`
    /// where the folder cannot be told from others.
    pub fn marks(&self, wal_folder: &Path, destinations: &[Shared]) -> Option<Marks> {
        let metadata = fs::metadata(wal_folder).ok()?;
        let places: BTreeSet<String> = destinations.iter().map(|storage| storage.address()).collect();
        let folder = (metadata.dev(), metadata.ino());
        let scope = Sha256Sum::of(format!("{folder:?} {places:?}").as_bytes());
        Some(Marks { folder: self.folder.join("marks"), scope })
    }
}

impl Marks {
    /// Whether this file is durable in all destinations already. The mark is used up.
    pub fn take(&self, name: WalName, path: &Path, now: SystemTime) -> bool {
        let mark = self.path(name);
        let Ok(content) = read(&mark) else { return false };
        let found = serde_json::from_slice(&content).ok().filter(|found: &Mark| {
            let age = now.duration_since(SystemTime::UNIX_EPOCH + found.made);
            let file = fs::symlink_metadata(path);
            found.version == 1
                && found.name == name.to_string()
                && found.scope == self.scope.to_string()
                && age.is_ok_and(|age| age < FRESH)
                && file.is_ok_and(|file| Stamp::of(&file) == found.file)
        });
        let _ = fs::remove_file(&mark); // what stays behind is void in ten minutes
        found.is_some()
    }

    /// Notes that the file, as it was when it was read, is durable in all destinations.
    pub fn leave(&self, name: WalName, file: Stamp, now: SystemTime) -> io::Result<()> {
        let mark = Mark {
            version: 1,
            name: name.to_string(),
            scope: self.scope.to_string(),
            file,
            made: now.duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?,
        };
        make_private(&self.folder)?;
        durable::replace_cached(&self.path(name), &serde_json::to_vec(&mark)?)
    }

    /// The names that have a mark. Those that are too old, of whatever folder and destinations,
    /// are removed.
    pub fn names(&self, now: SystemTime) -> BTreeSet<WalName> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age >= FRESH)) {
                let _ = fs::remove_file(entry.path()); // another call was faster
                continue;
            }
            let file = entry.file_name();
            let name: Option<WalName> =
                file.to_str().and_then(|file| file.strip_suffix(&self.suffix())?.parse().ok());
            names.extend(name);
        }
        names
    }

    fn path(&self, name: WalName) -> PathBuf {
        self.folder.join(format!("{name}{}", self.suffix()))
    }

    fn suffix(&self) -> String {
        format!(".{}", self.scope.short())
    }
}

/// The content of a file that only this user can have written.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
    if !metadata.is_file() || !own {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut content = Vec::new();
    file.take(MAX_LEN).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::local::Local;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    fn archive(name: &str) -> Shared {
        Arc::new(Local::new(Path::new("/").join(name)))
    }

    struct World {
        base: tempfile::TempDir,
        spool: Spool,
        name: WalName,
        now: SystemTime,
    }

    impl World {
        fn new() -> Self {
            let base = tempfile::tempdir().unwrap();
            fs::create_dir(base.path().join("pg_wal")).unwrap();
            let spool = Spool::open(base.path().join("spool")).unwrap();
            let name: WalName = "00000001000000000000001B".parse().unwrap();
            fs::write(base.path().join("pg_wal").join(name.to_string()), "x").unwrap();
            World { base, spool, name, now: SystemTime::now() }
        }

        fn file(&self) -> PathBuf {
            self.base.path().join("pg_wal").join(self.name.to_string())
        }

        fn marks(&self) -> Marks {
            let destinations = [archive("one")];
            self.spool.marks(&self.base.path().join("pg_wal"), &destinations).unwrap()
        }

        /// Leaves a mark for the file and returns where it is.
        fn leave(&self) -> PathBuf {
            let stamp = Stamp::of(&fs::metadata(self.file()).unwrap());
            self.marks().leave(self.name, stamp, self.now).unwrap();
            self.marks().path(self.name)
        }

        fn take(&self) -> bool {
            self.marks().take(self.name, &self.file(), self.now)
        }
    }

    #[test]
    fn a_mark_counts_once_for_the_very_file_and_not_for_long() {
        let world = World::new();
        assert!(!world.take());
        world.leave();
        assert_eq!(world.marks().names(world.now), BTreeSet::from([world.name]));
        assert!(world.take() && !world.take());
        for (age, counts) in [(Duration::ZERO, true), (FRESH - Duration::from_secs(1), true), (FRESH, false)]
        {
            world.leave();
            assert_eq!(world.marks().take(world.name, &world.file(), world.now + age), counts, "{age:?}");
        }
        world.leave();
        let earlier = world.now - Duration::from_secs(1);
        assert!(!world.marks().take(world.name, &world.file(), earlier), "the clock went back");
    }

    #[test]
    fn a_mark_says_nothing_of_a_file_that_was_changed_copied_or_replaced() {
        let world = World::new();
        let (file, other) = (world.file(), world.base.path().join("pg_wal/other"));
        world.leave();
        fs::copy(&file, &other).unwrap();
        assert!(!world.marks().take(world.name, &other, world.now), "a clone");
        world.leave();
        fs::remove_file(&file).unwrap();
        fs::write(&file, "x").unwrap();
        assert!(!world.take(), "another file of that name");
        world.leave();
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&file, "y").unwrap();
        assert!(!world.take(), "other content");
        world.leave();
        fs::remove_file(&file).unwrap();
        assert!(!world.take(), "gone");
    }

    #[test]
    fn a_mark_says_nothing_of_another_name_folder_or_destination() {
        let world = World::new();
        let partial: WalName = "00000001000000000000001B.partial".parse().unwrap();
        let mark = world.leave();
        fs::rename(&mark, world.marks().path(partial)).unwrap();
        assert!(!world.marks().take(partial, &world.file(), world.now));
        world.leave();
        let two = [archive("one"), archive("two")];
        let marks = world.spool.marks(&world.base.path().join("pg_wal"), &two).unwrap();
        assert!(!marks.take(world.name, &world.file(), world.now));
        let marks = world.spool.marks(world.base.path(), &two[..1]).unwrap();
        assert!(!marks.take(world.name, &world.file(), world.now));
        assert!(world.take());
    }

    #[test]
    fn a_mark_that_cannot_be_trusted_or_read_counts_for_nothing_and_goes() {
        for spoil in [
            |mark: &Path| fs::set_permissions(mark, fs::Permissions::from_mode(0o622)).unwrap(),
            |mark: &Path| fs::write(mark, "").unwrap(),
            |mark: &Path| fs::write(mark, "{}").unwrap(),
            |mark: &Path| {
                let other = mark.with_extension("elsewhere");
                fs::rename(mark, &other).unwrap();
                std::os::unix::fs::symlink(other, mark).unwrap();
            },
            |mark: &Path| {
                let text = fs::read_to_string(mark).unwrap();
                fs::write(mark, text.replace("mark\":1", "mark\":2")).unwrap();
            },
        ] {
            let world = World::new();
            spoil(&world.leave());
            assert!(!world.take());
        }
        let world = World::new();
        let old = world.leave();
        assert!(world.marks().names(world.now + 2 * FRESH).is_empty());
        assert!(!old.exists());
    }
}
