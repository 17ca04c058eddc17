//! Objects in memory: the reference of the contract, for tests.

use super::{
    Body, DeletionFailed, Entry, Error, Kind, Listing, Nature, Object, Range, Result, Storage, delete_each,
};
use crate::host::stamp::Stamp;
use crate::object::Key;
use crate::object::age::{Keyring, NO_KEYS};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

type Objects = BTreeMap<String, (Arc<[u8]>, SystemTime)>;

/// A store that lives as long as the value.
pub struct Memory {
    place: &'static str,
    nature: Nature,
    objects: Mutex<Objects>,
    /// How much faster than the machine's the clock went.
    ahead: Mutex<Duration>,
}

impl Default for Memory {
    fn default() -> Self {
        Memory::new("memory", Nature::Bucket)
    }
}

impl Memory {
    /// A store of that name which is asked as such a place is.
    pub fn new(place: &'static str, nature: Nature) -> Self {
        Memory { place, nature, objects: Mutex::default(), ahead: Mutex::default() }
    }

    /// Lets time pass: what is there grows older.
    pub fn advance(&self, time: Duration) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) += time;
    }

    fn now(&self) -> SystemTime {
        SystemTime::now() + *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        // Every change of the map is one call, so a poisoned lock still guards a whole map.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn missing(key: &Key) -> Error {
    Error::new(Kind::NotFound, format!("there is no \"{key}\" in memory"))
}

impl Storage for Memory {
    fn place(&self) -> &str {
        self.place
    }

    fn create(&self, key: &Key, body: &Body) -> Result<()> {
        let mut bytes = Vec::new();
        let read = body.reader().read_to_end(&mut bytes);
        read.map_err(|error| Error::new(Kind::Invalid, "cannot read the body").caused_by(error))?;
        let mut objects = self.objects();
        if objects.contains_key(key.as_str()) {
            return Err(Error::new(Kind::AlreadyExists, format!("\"{key}\" is already in memory")));
        }
        objects.insert(key.as_str().to_owned(), (bytes.into(), self.now()));
        Ok(())
    }

    fn get(&self, key: &Key, range: Range) -> Result<Object> {
        let (bytes, modified) = self.objects().get(key.as_str()).cloned().ok_or_else(|| missing(key))?;
        let size = bytes.len() as u64;
        let mut body = Cursor::new(bytes);
        body.set_position(range.start(size));
        let body = body.take(range.end(size) - range.start(size));
        Ok(Object { size, modified, body: Box::new(body) })
    }

    fn head(&self, key: &Key) -> Result<Entry> {
        let (bytes, modified) = self.objects().get(key.as_str()).cloned().ok_or_else(|| missing(key))?;
        Ok(Entry { key: key.as_str().to_owned(), size: bytes.len() as u64, modified })
    }

    fn fingerprint(&self, _key: &Key) -> Result<Option<Stamp>> {
        Ok(None)
    }

    fn clock(&self) -> Result<SystemTime> {
        Ok(self.now())
    }

    fn list(&self, prefix: &str, after: &str) -> Result<Listing> {
        let entries: Vec<_> = self
            .objects()
            .iter()
            .filter(|(key, _)| key.as_str() > after)
            .filter(|(key, _)| key.strip_prefix(prefix).is_some_and(|rest| !rest.contains('/')))
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
        let names: BTreeSet<String> = below.map(str::to_owned).collect();
        Ok(names.into_iter().collect())
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.objects().remove(key.as_str());
        Ok(())
    }

    fn delete_all(&self, keys: &[Key]) -> std::result::Result<(), DeletionFailed> {
        delete_each(self, keys)
    }

    fn make_durable(&self, _: &Key) -> Result<()> {
        Ok(())
    }

    fn prove_create(&self) -> Result<()> {
        Ok(())
    }

    fn sweep(&self, _: SystemTime) -> Result<()> {
        Ok(())
    }

    /// Two are two places.
    fn address(&self) -> String {
        format!("memory {:p}", &raw const self.objects)
    }

    fn nature(&self) -> Nature {
        self.nature
    }

    fn keys(&self) -> &Keyring {
        &NO_KEYS
    }
}
