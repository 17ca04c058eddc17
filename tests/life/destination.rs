//! The destinations of a life: a directory or a bucket, and what is done to it from outside.

use crate::bucket::Bucket;
use crate::rng::Rng;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::time::{Duration, SystemTime};
use wal_archive::object::age::{self, Content, Identities, Keyring};
use wal_archive::object::{Checks, Encryption, Key, Sha256Sum, Stored, Trailer};
use wal_archive::storage::faulty::{Fault, Faulty, Request};
use wal_archive::storage::keyed::Keyed;
use wal_archive::storage::local::Local;
use wal_archive::storage::{Kind, Shared};
use wal_archive::wal::WalName;

/// What a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Directory,
    Bucket,
    /// A bucket of a store that replaces what is there, whatever the condition.
    Careless,
}

/// How a destination fails as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Every request fails: it cannot be reached.
    Unreachable,
    /// Every request is refused.
    Denied,
    /// Nothing can be created.
    Full,
    /// Its root is not there.
    NoRoot,
    /// An empty directory stands in its place, or the prefix is empty.
    Empty,
    /// Only `archive.json` is left, the folder of objects is empty.
    EmptyFolder,
    /// The folder of objects is a link to nowhere.
    Dangling,
    /// An older copy of the archive, or of a bucket nothing.
    Swapped,
}

impl Outage {
    pub const ALL: [Outage; 8] = [
        Outage::Swapped,
        Outage::Unreachable,
        Outage::Denied,
        Outage::Full,
        Outage::NoRoot,
        Outage::Empty,
        Outage::EmptyFolder,
        Outage::Dangling,
    ];

    /// Whether what is asked there now may be believed.
    pub fn answers(self) -> bool {
        self == Outage::Full
    }
}

/// What the requests of the programs meet.
#[derive(Default)]
struct Faults {
    /// 0: none; else one of [`Outage`] and 1.
    outage: AtomicU8,
    /// How many requests are left until the program is killed; negative: for ever.
    left: AtomicI64,
}

pub struct Destination {
    pub sort: Sort,
    root: PathBuf,
    bucket: Arc<Bucket>,
    faults: Arc<Faults>,
    keys: Option<Arc<Keyring>>,
    pub outage: Option<Outage>,
}

impl Destination {
    pub fn new(base: &Path, number: usize, sort: Sort, is_encrypted: bool) -> Self {
        let root = base.join(format!("archive{number}"));
        if sort == Sort::Directory {
            fs::create_dir(&root).unwrap();
        }
        let faults = Arc::new(Faults::default());
        faults.left.store(-1, Ordering::Relaxed);
        let bucket = Arc::new(Bucket::new(format!("bucket{number}"), sort == Sort::Careless));
        let keys = is_encrypted.then(|| Arc::new(keys()));
        Destination { sort, root, bucket, faults, keys, outage: None }
    }

    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// As a program opens it.
    pub fn open(&self) -> Shared {
        let inner: Shared = match self.sort {
            Sort::Directory => Arc::new(Local::new(self.root.clone())),
            Sort::Bucket | Sort::Careless => self.bucket.clone(),
        };
        let faults = Arc::clone(&self.faults);
        let bucket = self.sort != Sort::Directory;
        let plan = move |request: Request, _: &str| {
            if faults.left.load(Ordering::Relaxed) >= 0 && faults.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
                faults.left.store(0, Ordering::Relaxed);
                return Fault::Before(Kind::Unavailable);
            }
            match faults.outage.load(Ordering::Relaxed) {
                2 => Fault::Before(Kind::Unavailable),
                3 => Fault::Before(Kind::Denied),
                4 if request == Request::Create => Fault::Before(Kind::Unavailable),
                // Whoever empties a bucket and brings it back lets nobody write to it meanwhile.
                5 | 6 if bucket && request == Request::Create => Fault::Before(Kind::Unavailable),
                _ => Fault::None,
            }
        };
        let faulty: Shared = Arc::new(Faulty::new(inner, Box::new(plan)));
        match &self.keys {
            Some(keys) => Arc::new(Keyed::new(faulty, Arc::clone(keys))),
            None => faulty,
        }
    }

    pub fn is_encrypted(&self) -> bool {
        self.keys.is_some()
    }

    /// The key of a WAL file.
    pub fn key_of(&self, name: WalName) -> String {
        let encryption = if self.keys.is_some() { Encryption::Age } else { Encryption::None };
        Key::of(name, encryption).to_string()
    }

    /// The key of this content of a name, where it is a variant.
    pub fn variant_of(&self, name: WalName, sum: &Sha256Sum) -> Option<String> {
        let Some(keys) = &self.keys else {
            return Some(Key::variant(name, &sum.short(), Encryption::None).to_string());
        };
        let is_it = |stored: &Stored| match stored {
            Stored::Variant(other, digits, _) => *other == name && keys.may_be_variant(digits, sum, name),
            _ => false,
        };
        self.objects().into_iter().find(|(_, stored)| is_it(stored)).map(|(key, _)| key)
    }

    /// The program that is run next is killed after so many requests here.
    pub fn kill_after(&self, requests: Option<u8>) {
        self.faults.left.store(requests.map_or(-1, i64::from), Ordering::Relaxed);
    }

    /// Begins or ends an outage.
    pub fn set_outage(&mut self, outage: Option<Outage>) {
        if let Some(now) = self.outage.take() {
            self.mend(now);
        }
        let number =
            outage.map_or(0, |outage| Outage::ALL.iter().position(|one| *one == outage).unwrap() + 1);
        self.faults.outage.store(number as u8, Ordering::Relaxed);
        // A folder that is not there yet cannot be lost.
        // And no bucket is mounted.
        let folder = self.sort == Sort::Directory && self.root.join("wal_005").exists();
        let of_folders = [Outage::EmptyFolder, Outage::Dangling, Outage::Swapped];
        self.outage = outage.filter(|one| folder || !of_folders.contains(one));
        if let Some(outage) = self.outage {
            self.spoil(outage);
        }
    }

    fn aside(&self) -> PathBuf {
        self.root.with_extension("aside")
    }

    fn spoil(&self, outage: Outage) {
        let folder = self.root.join("wal_005");
        match (self.sort, outage) {
            (Sort::Bucket | Sort::Careless, Outage::NoRoot | Outage::Empty) => self.bucket.vanish(true),
            (Sort::Directory, Outage::NoRoot) => fs::rename(&self.root, self.aside()).unwrap(),
            (Sort::Directory, Outage::Empty) => {
                fs::rename(&self.root, self.aside()).unwrap();
                fs::create_dir(&self.root).unwrap();
            }
            (Sort::Directory, Outage::Swapped) => {
                fs::rename(&self.root, self.aside()).unwrap();
                fs::create_dir(&self.root).unwrap();
                fs::create_dir(&folder).unwrap();
                let _ = fs::copy(self.aside().join("archive.json"), self.root.join("archive.json"));
                let objects = fs::read_dir(self.aside().join("wal_005")).unwrap().flatten();
                if let Some(first) = objects.min_by_key(fs::DirEntry::file_name) {
                    fs::copy(first.path(), folder.join(first.file_name())).unwrap();
                }
            }
            (Sort::Directory, Outage::EmptyFolder | Outage::Dangling) => {
                fs::rename(&folder, self.aside()).unwrap();
                if outage == Outage::Dangling {
                    std::os::unix::fs::symlink("/nonexistent/wal_005", &folder).unwrap();
                } else {
                    fs::create_dir(&folder).unwrap();
                }
            }
            _ => {}
        }
    }

    fn mend(&self, outage: Outage) {
        let folder = self.root.join("wal_005");
        match (self.sort, outage) {
            (Sort::Bucket | Sort::Careless, _) => self.bucket.vanish(false),
            (_, Outage::NoRoot) => fs::rename(self.aside(), &self.root).unwrap(),
            (_, Outage::Empty) => {
                fs::remove_dir_all(&self.root).unwrap();
                fs::rename(self.aside(), &self.root).unwrap();
            }
            (_, Outage::Dangling) => {
                fs::remove_file(&folder).unwrap();
                fs::rename(self.aside(), &folder).unwrap();
            }
            (_, Outage::Swapped) => {
                bring(&folder, &self.aside().join("wal_005"));
                fs::remove_dir_all(&self.root).unwrap();
                fs::rename(self.aside(), &self.root).unwrap();
            }
            (_, Outage::EmptyFolder) => {
                bring(&folder, &self.aside());
                fs::remove_dir_all(&folder).unwrap();
                fs::rename(self.aside(), &folder).unwrap();
            }
            _ => {}
        }
    }

    /// Whether it is not the archive, and nothing shows it.
    pub fn looks_whole(&self) -> bool {
        match self.outage {
            Some(Outage::Swapped) => true,
            Some(Outage::EmptyFolder) => !self.objects().is_empty(),
            _ => false,
        }
    }

    /// The keys that are there, whatever the programs may see of them.
    pub fn keys(&self) -> Vec<String> {
        if self.sort != Sort::Directory {
            return self.bucket.keys();
        }
        let mut keys = Vec::new();
        for (folder, prefix) in [("", ""), ("wal_005", "wal_005/"), ("quarantine", "quarantine/")] {
            for entry in fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten() {
                let name = entry.file_name().into_string().unwrap();
                if !name.starts_with('.') && entry.path().is_file() {
                    keys.push(format!("{prefix}{name}"));
                }
            }
        }
        keys.sort();
        keys
    }

    /// Those of WAL files, with what they mean.
    pub fn objects(&self) -> BTreeMap<String, Stored> {
        let keys = self.keys().into_iter().filter(|key| !key.starts_with("quarantine/"));
        let parsed = keys.map(|key| {
            let stored = Stored::parse(key.strip_prefix("wal_005/").unwrap_or(&key));
            (key, stored)
        });
        parsed.filter(|(_, stored)| stored.name().is_some()).collect()
    }

    pub fn read(&self, key: &str) -> Option<Vec<u8>> {
        match self.sort {
            Sort::Bucket | Sort::Careless => self.bucket.read(key),
            Sort::Directory => fs::read(self.root.join(key)).ok(),
        }
    }

    /// The sum of the raw bytes by the trailer of an object.
    pub fn sum(&self, key: &str) -> Option<(WalName, String)> {
        let bytes = self.read(key)?;
        if let Some(keys) = &self.keys {
            let name = Stored::of(&Key::parse(key)?).name()?;
            let content =
                age::decode(name, Checks::NoHeader, &keys.identities, &mut &bytes[..], &mut std::io::sink());
            let Ok(Content::Open(decoded, _)) = content else { return None };
            return Some((name, decoded.sha256.to_string()));
        }
        let tail = bytes.get(bytes.len().checked_sub(Trailer::LEN)?..)?;
        let trailer = Trailer::read(tail).ok()?;
        Some((trailer.name, trailer.sha256.to_string()))
    }

    /// Flips a bit of the frame, or cuts the object short; whether that was done.
    pub fn damage(&self, key: &str, seed: u64) -> bool {
        let Some(intact) = self.read(key).filter(|bytes| bytes.len() > 300) else { return false };
        let decoded = |bytes: &[u8]| zstd::stream::decode_all(bytes).ok();
        let (mut rng, before) = (Rng::new(seed), decoded(&intact));
        let mut bytes = intact.clone();
        if rng.percent(30) {
            bytes.truncate(bytes.len() / 2);
        }
        // Some bits mean nothing.
        while bytes == intact || self.keys.is_none() && decoded(&bytes) == before {
            bytes.clone_from(&intact);
            let at = 16 + rng.below(bytes.len() as u64 - 256 - 20) as usize;
            bytes[at] ^= 1 << rng.below(8);
        }
        match self.sort {
            Sort::Bucket | Sort::Careless => self.bucket.replace(key, &bytes),
            // Another file: the clock of a file system may not have moved since the object was made.
            Sort::Directory => {
                let path = self.root.join(key);
                let other = self.root.join("wal_005/.other");
                fs::write(&other, bytes).unwrap();
                fs::rename(&other, path).unwrap();
            }
        }
        true
    }

    /// Puts an object back that was removed.
    pub fn put_back(&self, key: &str, bytes: &[u8]) {
        match self.sort {
            Sort::Bucket | Sort::Careless => self.bucket.put(key, bytes),
            Sort::Directory => fs::write(self.root.join(key), bytes).unwrap(),
        }
    }

    pub fn remove(&self, key: &str) {
        match self.sort {
            Sort::Bucket | Sort::Careless => self.bucket.remove(key),
            Sort::Directory => drop(fs::remove_file(self.root.join(key))),
        }
    }

    /// All objects look so many hours older, or younger.
    pub fn age(&self, hours: i8) {
        self.bucket.age(hours);
        for key in self.keys() {
            let Ok(file) = File::options().write(true).open(self.root.join(key)) else { continue };
            let modified = file.metadata().unwrap().modified().unwrap_or(SystemTime::UNIX_EPOCH);
            file.set_modified(older(modified, hours)).unwrap();
        }
    }
}

/// A pair that is always the same, so that a seed tells a life.
fn keys() -> Keyring {
    let identities = Identities::parse(include_str!("../vectors/age/identity")).unwrap();
    let recipients = identities.iter().map(|identity| identity.recipient().clone()).collect();
    Keyring { recipients, identities, required: true, ..Keyring::default() }
}

pub fn older(time: SystemTime, hours: i8) -> SystemTime {
    let by = Duration::from_secs(3600 * u64::from(hours.unsigned_abs()));
    if hours > 0 { time - by } else { time + by }
}

/// What was created meanwhile is brought to the rest.
fn bring(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().flatten() {
        let there = to.join(entry.file_name());
        if !there.exists() {
            fs::rename(entry.path(), there).unwrap();
        }
    }
}
