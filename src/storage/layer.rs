//! What the wrappers of a storage share: each request is passed on in one place, so that none is missed.

use super::{Body, DeletionFailed, Entry, Listing, Nature, Object, Range, Result, Shared, Storage};
use crate::host::stamp::Stamp;
use crate::object::Key;
use crate::object::age::Keyring;
use std::time::SystemTime;

/// A request that gives one answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask<'a> {
    /// Of a body of so many bytes.
    Create(&'a Key, u64),
    Head(&'a Key),
    Fingerprint(&'a Key),
    Clock,
    Folders,
    Delete(&'a Key),
    MakeDurable(&'a Key),
    ProveCreate,
    Sweep,
}

/// In which order a listing is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order<'a> {
    /// Sorted, the keys after this one.
    After(&'a str),
    Any,
}

impl Order<'_> {
    pub(super) fn list(self, storage: &dyn Storage, prefix: &str) -> Result<Listing> {
        match self {
            Order::After(after) => storage.list(prefix, after),
            Order::Any => storage.list_unordered(prefix),
        }
    }
}

pub(super) trait Layer: Send + Sync {
    fn inner(&self) -> &Shared;

    /// Makes a request; `request` does it.
    fn ask<T: Send + 'static>(
        &self,
        ask: Ask<'_>,
        request: impl Fn(&dyn Storage) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T>;

    /// [`Storage::get`]
    fn read(&self, key: &Key, range: Range) -> Result<Object>;

    /// [`Storage::list`], [`Storage::list_unordered`]
    fn entries(&self, prefix: &str, order: Order<'_>) -> Result<Listing>;

    /// [`Storage::keys`], where they are not those of what it wraps.
    fn own_keys(&self) -> Option<&Keyring> {
        None
    }

    /// [`Storage::delete_all`]
    fn remove(&self, keys: &[Key]) -> std::result::Result<(), DeletionFailed>;
}

impl<L: Layer> Storage for L {
    fn place(&self) -> &str {
        self.inner().place()
    }

    fn address(&self) -> String {
        self.inner().address()
    }

    fn nature(&self) -> Nature {
        self.inner().nature()
    }

    fn keys(&self) -> &Keyring {
        self.own_keys().unwrap_or_else(|| self.inner().keys())
    }

    fn create(&self, key: &Key, body: &Body) -> Result<()> {
        let (to, body) = (key.clone(), body.clone());
        self.ask(Ask::Create(key, body.len()), move |inner| inner.create(&to, &body))
    }

    fn get(&self, key: &Key, range: Range) -> Result<Object> {
        self.read(key, range)
    }

    fn head(&self, key: &Key) -> Result<Entry> {
        let of = key.clone();
        self.ask(Ask::Head(key), move |inner| inner.head(&of))
    }

    fn fingerprint(&self, key: &Key) -> Result<Option<Stamp>> {
        let of = key.clone();
        self.ask(Ask::Fingerprint(key), move |inner| inner.fingerprint(&of))
    }

    fn clock(&self) -> Result<SystemTime> {
        self.ask(Ask::Clock, |inner| inner.clock())
    }

    fn list(&self, prefix: &str, after: &str) -> Result<Listing> {
        self.entries(prefix, Order::After(after))
    }

    fn list_unordered(&self, prefix: &str) -> Result<Listing> {
        self.entries(prefix, Order::Any)
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let below = prefix.to_owned();
        self.ask(Ask::Folders, move |inner| inner.folders(&below))
    }

    fn delete(&self, key: &Key) -> Result<()> {
        let of = key.clone();
        self.ask(Ask::Delete(key), move |inner| inner.delete(&of))
    }

    fn delete_all(&self, keys: &[Key]) -> std::result::Result<(), DeletionFailed> {
        self.remove(keys)
    }

    fn make_durable(&self, key: &Key) -> Result<()> {
        let of = key.clone();
        self.ask(Ask::MakeDurable(key), move |inner| inner.make_durable(&of))
    }

    fn prove_create(&self) -> Result<()> {
        self.ask(Ask::ProveCreate, |inner| inner.prove_create())
    }

    fn sweep(&self, now: SystemTime) -> Result<()> {
        self.ask(Ask::Sweep, move |inner| inner.sweep(now))
    }
}
