//! A bucket in memory: a store with a clock of its own, which may ignore conditions.

use crate::destination::older;
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;
use wal_archive::host::stamp::Stamp;
use wal_archive::object::Key;
use wal_archive::object::age::{Keyring, NO_KEYS};
use wal_archive::storage::s3::{ConditionalWrites, S3, S3Settings};
use wal_archive::storage::{
    Body, DeletionFailed, Entry, Error, Kind, Listing, Nature, Object, Range, Result, Storage,
};

type Objects = BTreeMap<String, (Arc<[u8]>, SystemTime)>;

/// See the module.
#[derive(Default)]
pub struct Bucket {
    place: String,
    objects: Mutex<Objects>,
    /// What is there while the prefix is emptied.
    aside: Mutex<Option<Objects>>,
    /// Whether a conditional write replaces what is there, as some stores do it.
    ignores_conditions: bool,
    /// Whether the user said `conditional_writes = "unsupported"`.
    pub unconditional: AtomicBool,
}

impl Bucket {
    pub fn new(place: String, ignores_conditions: bool) -> Self {
        // Nobody begins an archive in a careless store but who accepted the race.
        let unconditional = AtomicBool::new(ignores_conditions);
        Bucket { place, ignores_conditions, unconditional, ..Bucket::default() }
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap()
    }

    pub fn keys(&self) -> Vec<String> {
        self.objects().keys().cloned().collect()
    }

    pub fn read(&self, key: &str) -> Option<Vec<u8>> {
        self.objects().get(key).map(|(bytes, _)| bytes.to_vec())
    }

    pub fn put(&self, key: &str, bytes: &[u8]) {
        self.objects().insert(key.to_owned(), (bytes.into(), SystemTime::now()));
    }

    pub fn replace(&self, key: &str, bytes: &[u8]) {
        if let Some((content, _)) = self.objects().get_mut(key) {
            *content = bytes.into();
        }
    }

    pub fn remove(&self, key: &str) {
        self.objects().remove(key);
    }

    /// All objects look so many hours older, or younger.
    pub fn age(&self, hours: i8) {
        self.objects().values_mut().for_each(|(_, modified)| *modified = older(*modified, hours));
    }

    /// Empties it, or brings everything back.
    pub fn vanish(&self, gone: bool) {
        let mut aside = self.aside.lock().unwrap();
        match (gone, aside.take()) {
            (true, None) => *aside = Some(std::mem::take(&mut *self.objects())),
            // What was created meanwhile stays.
            (false, Some(mut objects)) => {
                let mut now = self.objects();
                for (key, object) in std::mem::take(&mut *now) {
                    objects.entry(key).or_insert(object);
                }
                *now = objects;
            }
            (_, other) => *aside = other,
        }
    }

    fn found(&self, key: &Key) -> Result<(Arc<[u8]>, SystemTime)> {
        let missing = || Error::new(Kind::NotFound, format!("there is no \"{}/{key}\"", self.place));
        self.objects().get(key.as_str()).cloned().ok_or_else(missing)
    }
}

impl Storage for Bucket {
    fn place(&self) -> &str {
        &self.place
    }

    /// That of a real bucket with this setting, under which its proof is remembered.
    fn address(&self) -> String {
        let settings = S3Settings {
            endpoint: Some("http://127.0.0.1:9".to_owned()),
            conditional_writes: match self.unconditional.load(Ordering::Relaxed) {
                true => ConditionalWrites::Unsupported,
                false => ConditionalWrites::Required,
            },
            ..S3Settings::default()
        };
        S3::new(self.place.clone(), String::new(), settings).address()
    }

    fn keys(&self) -> &Keyring {
        &NO_KEYS
    }

    fn create(&self, key: &Key, body: &Body) -> Result<()> {
        let mut bytes = Vec::new();
        body.reader().read_to_end(&mut bytes).unwrap();
        let mut objects = self.objects();
        let heeded = !self.ignores_conditions;
        let asked_before = self.unconditional.load(Ordering::Relaxed);
        if (heeded || asked_before) && objects.contains_key(key.as_str()) {
            return Err(Error::new(Kind::AlreadyExists, format!("\"{}/{key}\" already exists", self.place)));
        }
        objects.insert(key.as_str().to_owned(), (bytes.into(), SystemTime::now()));
        Ok(())
    }

    fn get(&self, key: &Key, range: Range) -> Result<Object> {
        let (bytes, modified) = self.found(key)?;
        let size = bytes.len() as u64;
        let mut body = Cursor::new(bytes);
        body.set_position(range.start(size));
        let body = body.take(range.end(size) - range.start(size));
        Ok(Object { size, modified, body: Box::new(body) })
    }

    fn head(&self, key: &Key) -> Result<Entry> {
        let (bytes, modified) = self.found(key)?;
        Ok(Entry { key: key.as_str().to_owned(), size: bytes.len() as u64, modified })
    }

    fn list(&self, prefix: &str, after: &str) -> Result<Listing> {
        let wanted =
            |key: &str| key > after && key.strip_prefix(prefix).is_some_and(|rest| !rest.contains('/'));
        let objects = self.objects();
        let found = objects.iter().filter(|(key, _)| wanted(key));
        let entries: Vec<_> = found
            .map(|(key, (bytes, modified))| {
                Ok(Entry { key: key.clone(), size: bytes.len() as u64, modified: *modified })
            })
            .collect();
        Ok(Box::new(entries.into_iter()))
    }

    fn list_unordered(&self, prefix: &str) -> Result<Listing> {
        self.list(prefix, "")
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let objects = self.objects();
        let below = objects.keys().filter_map(|key| Some(key.strip_prefix(prefix)?.split_once('/')?.0));
        let mut names: Vec<String> = below.map(str::to_owned).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.objects().remove(key.as_str());
        Ok(())
    }

    fn fingerprint(&self, _: &Key) -> Result<Option<Stamp>> {
        Ok(None)
    }

    fn clock(&self) -> Result<SystemTime> {
        Ok(SystemTime::now())
    }

    fn delete_all(&self, keys: &[Key]) -> std::result::Result<(), DeletionFailed> {
        keys.iter().for_each(|key| drop(self.objects().remove(key.as_str())));
        Ok(())
    }

    fn make_durable(&self, _: &Key) -> Result<()> {
        Ok(())
    }

    fn sweep(&self, _: SystemTime) -> Result<()> {
        Ok(())
    }

    fn nature(&self) -> Nature {
        Nature::Bucket
    }

    fn prove_create(&self) -> Result<()> {
        if self.unconditional.load(Ordering::Relaxed) || !self.ignores_conditions {
            return Ok(());
        }
        Err(Error::new(Kind::Invalid, format!("\"{}\" ignores conditions", self.place)))
    }
}
