//! Marks: which files a push that looked ahead has stored already.
//!
//! A mark is believed only for the very file that it was made for: same name, same [`Stamp`], same
//! folder, same destinations, made by this user not long ago. And only while every destination that
//! is a directory shows the same identity file and the same object, by what `stat` says of them:
//! whoever removes, replaces or moves the object aside, or puts another directory in the archive's
//! place, makes the mark void. A bucket is not asked; an object in one leaves a mark only where the
//! call that made the mark created it itself, and this program's own commands leave what is as
//! young as a mark alone.
//!
//! Whatever is wrong with a mark, the file is pushed; a mark that was read is gone.

use super::{MAX_LEN, Spool, Stamp, age, open};
use crate::host::durable;
use crate::object::{Key, Sha256Sum};
use crate::storage::{Result, Shared, Storage};
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

/// Of the marks that are read.
const VERSION: u32 = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    #[serde(rename = "wal-archive-mark")]
    version: u32,
    name: String,
    /// What [`Marks`] are for.
    scope: String,
    file: Stamp,
    /// Those of the destinations that are directories.
    directories: Vec<Shown>,
    /// Since the epoch.
    made: Duration,
}

/// What a directory showed when the file was durable there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    place: String,
    identity: Stamp,
    key: String,
    object: Stamp,
}

/// Where a file is durable at one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The object: under the file's own name, a variant's, or as another tool's.
    pub key: Key,
    /// Whether this very call created it.
    pub created: bool,
}

/// The marks for one folder of WAL files and one set of destinations.
#[derive(Clone, Debug)]
pub struct Marks {
    folder: PathBuf,
    scope: Sha256Sum,
    asks_nobody: bool,
}

impl Spool {
    /// The marks of files in `wal_folder` that are durable in all of these destinations; `None`
    /// where the folder cannot be told from others.
    pub fn marks(&self, wal_folder: &Path, destinations: &[Shared]) -> Option<Marks> {
        let metadata = fs::metadata(wal_folder).ok()?;
        let places: BTreeSet<String> = destinations.iter().map(|storage| storage.address()).collect();
        let folder = (metadata.dev(), metadata.ino());
        let scope = Sha256Sum::of(format!("{folder:?} {places:?}").as_bytes());
        let asks_nobody = !destinations.iter().any(|storage| storage.nature().is_directory());
        Some(Marks { folder: self.folder.join("marks"), scope, asks_nobody })
    }
}

impl Marks {
    /// Whether [`Marks::take`] asks no destination, because all of them are buckets.
    pub fn ask_nobody(&self) -> bool {
        self.asks_nobody
    }

    /// Whether this file is durable in all destinations already, which must be those that the marks
    /// are for. The mark is used up.
    pub fn take(&self, name: WalName, path: &Path, destinations: &[Shared], now: SystemTime) -> bool {
        let mark = self.path(name);
        let Ok(content) = read(&mark) else { return false };
        let found = serde_json::from_slice(&content).ok().filter(|found: &Mark| {
            let file = fs::symlink_metadata(path);
            found.version == VERSION
                && found.name == name.to_string()
                && found.scope == self.scope.to_string()
                && age(found.made, now).is_some_and(|age| age < FRESH)
                && file.is_ok_and(|file| Stamp::of(&file) == found.file)
                && destinations.iter().all(|storage| found.still_holds(storage.as_ref()))
        });
        let _ = fs::remove_file(&mark); // what stays behind is void in ten minutes
        found.is_some()
    }

    /// Notes that the file, as it was when it was read, is durable in all destinations: where in
    /// each of them. `false`: nothing was noted, as a bucket had the object before.
    pub fn leave(
        &self,
        name: WalName,
        file: Stamp,
        stored: &[(Shared, Stored)],
        now: SystemTime,
    ) -> io::Result<bool> {
        let mut directories = Vec::new();
        for (storage, stored) in stored {
            match shown(storage.as_ref(), &stored.key).map_err(io::Error::other)? {
                Some(shown) => directories.push(shown),
                None if stored.created => {}
                None => return Ok(false),
            }
        }
        let mark = Mark {
            version: VERSION,
            name: name.to_string(),
            scope: self.scope.to_string(),
            file,
            directories,
            made: now.duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?,
        };
        durable::make_private_folder(&self.folder, None)?;
        durable::replace_cached(&self.path(name), &serde_json::to_vec(&mark)?)?;
        Ok(true)
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

impl Mark {
    /// Whether the destination, where it is a directory, shows what it showed then.
    fn still_holds(&self, storage: &dyn Storage) -> bool {
        let place = storage.address();
        match self.directories.iter().find(|shown| shown.place == place) {
            Some(then) => Key::parse(&then.key)
                .is_some_and(|key| shown(storage, &key).is_ok_and(|now| now.as_ref() == Some(then))),
            None => !storage.nature().is_directory(),
        }
    }
}

/// What a directory shows of itself and of an object; `None` of a bucket.
fn shown(storage: &dyn Storage, key: &Key) -> Result<Option<Shown>> {
    let identity = storage.fingerprint(&Key::identity())?;
    let object = storage.fingerprint(key)?;
    Ok(identity.zip(object).map(|(identity, object)| Shown {
        place: storage.address(),
        identity,
        key: key.to_string(),
        object,
    }))
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
    use crate::object::Encryption;
    use crate::storage::Body;
    use crate::storage::local::Local;
    use crate::storage::memory::Memory;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    struct World {
        base: tempfile::TempDir,
        spool: Spool,
        name: WalName,
        now: SystemTime,
    }

    impl World {
        /// A file in pg_wal that is stored in two directories.
        fn new() -> Self {
            let base = tempfile::tempdir().unwrap();
            fs::create_dir(base.path().join("pg_wal")).unwrap();
            let spool = Spool::open(base.path().join("spool")).unwrap();
            let name: WalName = "00000001000000000000001B".parse().unwrap();
            fs::write(base.path().join("pg_wal").join(name.to_string()), "x").unwrap();
            let world = World { base, spool, name, now: SystemTime::now() };
            for root in ["one", "two"] {
                fs::create_dir(world.base.path().join(root)).unwrap();
                world.make(root);
            }
            world
        }

        /// An archive with the object.
        fn make(&self, root: &str) {
            let storage = self.archive(root);
            for key in [Key::identity(), Key::of(self.name, Encryption::None)] {
                storage.create(&key, &Body::from(b"x".to_vec())).unwrap();
            }
        }

        fn archive(&self, name: &str) -> Shared {
            Arc::new(Local::new(self.base.path().join(name)))
        }

        fn path(&self, path: &str) -> PathBuf {
            self.base.path().join(path)
        }

        fn file(&self) -> PathBuf {
            self.path("pg_wal").join(self.name.to_string())
        }

        fn object(&self, root: &str) -> PathBuf {
            self.path(root).join(Key::of(self.name, Encryption::None).as_str())
        }

        fn marks_for(&self, destinations: &[Shared]) -> Marks {
            self.spool.marks(&self.path("pg_wal"), destinations).unwrap()
        }

        fn marks(&self) -> Marks {
            self.marks_for(&self.destinations())
        }

        fn destinations(&self) -> [Shared; 2] {
            ["one", "two"].map(|root| self.archive(root))
        }

        fn stored(&self, destinations: &[Shared], created: bool) -> Vec<(Shared, Stored)> {
            let stored = || Stored { key: Key::of(self.name, Encryption::None), created };
            destinations.iter().map(|storage| (Arc::clone(storage), stored())).collect()
        }

        fn leave_for(&self, destinations: &[Shared], created: bool) -> bool {
            let stamp = Stamp::of(&fs::metadata(self.file()).unwrap());
            let stored = self.stored(destinations, created);
            self.marks_for(destinations).leave(self.name, stamp, &stored, self.now).unwrap()
        }

        /// Leaves a mark for the file and returns where it is.
        fn leave(&self) -> PathBuf {
            assert!(self.leave_for(&self.destinations(), false));
            self.marks().path(self.name)
        }

        fn take_at(&self, name: WalName, file: &Path, now: SystemTime) -> bool {
            self.marks().take(name, file, &self.destinations(), now)
        }

        fn take(&self) -> bool {
            self.take_at(self.name, &self.file(), self.now)
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
            assert_eq!(world.take_at(world.name, &world.file(), world.now + age), counts, "{age:?}");
        }
        world.leave();
        let earlier = world.now - Duration::from_secs(1);
        assert!(!world.take_at(world.name, &world.file(), earlier), "the clock went back");
    }

    #[test]
    fn a_mark_says_nothing_of_a_file_that_was_changed_copied_or_replaced() {
        let world = World::new();
        let (file, other) = (world.file(), world.path("pg_wal/other"));
        world.leave();
        fs::copy(&file, &other).unwrap();
        assert!(!world.take_at(world.name, &other, world.now), "a clone");
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
    fn a_mark_is_void_once_a_directory_does_not_show_the_same_archive_and_object() {
        type Spoil = fn(&World);
        let spoils: [(&str, Spoil); 6] = [
            ("the object was removed", |world| fs::remove_file(world.object("two")).unwrap()),
            ("the object was replaced", |world| {
                fs::remove_file(world.object("two")).unwrap();
                fs::write(world.object("two"), "x").unwrap();
            }),
            ("the object was changed", |world| fs::write(world.object("two"), "longer").unwrap()),
            ("the identity is gone", |world| fs::remove_file(world.path("two/archive.json")).unwrap()),
            ("the root is gone", |world| fs::rename(world.path("two"), world.path("away")).unwrap()),
            ("another root is there", |world| {
                fs::rename(world.path("two"), world.path("away")).unwrap();
                fs::create_dir(world.path("two")).unwrap();
                world.make("two");
            }),
        ];
        for (what, spoil) in spoils {
            let world = World::new();
            world.leave();
            spoil(&world);
            assert!(!world.take(), "{what}");
        }
    }

    #[test]
    fn an_object_of_a_bucket_leaves_a_mark_only_where_the_call_created_it() {
        let world = World::new();
        let bucket: [Shared; 1] = [Arc::new(Memory::default())];
        assert!(!world.leave_for(&bucket, false));
        assert!(world.leave_for(&bucket, true));
        let marks = world.marks_for(&bucket);
        assert!(marks.ask_nobody() && !world.marks().ask_nobody());
        assert!(marks.take(world.name, &world.file(), &bucket, world.now));
        let both = [Arc::clone(&bucket[0]), world.archive("one")];
        assert!(!world.marks_for(&both).ask_nobody());
        assert!(world.leave_for(&both, true));
        fs::remove_file(world.object("one")).unwrap();
        assert!(!world.marks_for(&both).take(world.name, &world.file(), &both, world.now));
    }

    #[test]
    fn a_mark_that_says_nothing_of_a_directory_is_not_believed_for_it() {
        let world = World::new();
        let mark = world.leave();
        let mut content: serde_json::Value = serde_json::from_slice(&fs::read(&mark).unwrap()).unwrap();
        content["directories"].as_array_mut().unwrap().pop();
        fs::write(&mark, content.to_string()).unwrap();
        assert!(!world.take());
    }

    #[test]
    fn a_mark_says_nothing_of_another_name_folder_or_destination() {
        let world = World::new();
        let partial: WalName = "00000001000000000000001B.partial".parse().unwrap();
        let mark = world.leave();
        fs::rename(&mark, world.marks().path(partial)).unwrap();
        assert!(!world.take_at(partial, &world.file(), world.now));
        world.leave();
        let one = [world.archive("one")];
        assert!(!world.marks_for(&one).take(world.name, &world.file(), &one, world.now));
        let destinations = world.destinations();
        let elsewhere = world.spool.marks(world.base.path(), &destinations).unwrap();
        assert!(!elsewhere.take(world.name, &world.file(), &destinations, world.now));
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
                fs::write(mark, text.replace("mark\":2", "mark\":1")).unwrap();
            },
            |mark: &Path| {
                let mut found: Mark = serde_json::from_slice(&fs::read(mark).unwrap()).unwrap();
                found.made = Duration::MAX;
                fs::write(mark, serde_json::to_vec(&found).unwrap()).unwrap();
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
