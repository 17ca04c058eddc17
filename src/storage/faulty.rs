//! A wrapper that fails on purpose, for tests: each request asks a plan what to do.

use super::layer::{Ask, Layer, Order};
use super::{DeletionFailed, Error, Kind, Listing, Object, Range, Result, Shared, Storage};
use crate::object::Key;
use std::io::{self, Read};
use std::time::Duration;

/// The request that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// [`Storage::create`]
    Create,
    /// [`Storage::get`]
    Get,
    /// [`Storage::head`]
    Head,
    /// [`Storage::fingerprint`]
    Fingerprint,
    /// [`Storage::list`]
    List,
    /// [`Storage::delete`], and [`Storage::delete_all`] with the first key
    Delete,
    /// [`Storage::make_durable`]
    MakeDurable,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it goes through.
    None,
    /// It fails before anything was done.
    Before(Kind),
    /// It is done, and the answer is lost.
    After(Kind),
    /// It breaks off with an error: the body after so many bytes (of `get`), the listing after so many keys.
    BreakAfter(u64),
    /// It takes this long.
    Slow(Duration),
}

/// Decides by the request and the key (the prefix for a listing).
pub type FaultPlan = Box<dyn Fn(Request, &str) -> Fault + Send + Sync>;

pub struct Faulty {
    inner: Shared,
    plan: FaultPlan,
}

impl Faulty {
    pub fn new(inner: Shared, plan: FaultPlan) -> Self {
        Faulty { inner, plan }
    }

    fn run<T>(&self, request: Request, key: &str, inner: impl FnOnce() -> Result<T>) -> Result<T> {
        self.apply((self.plan)(request, key), key, inner)
    }

    fn apply<T>(&self, fault: Fault, key: &str, inner: impl FnOnce() -> Result<T>) -> Result<T> {
        let injected = |kind| Error::new(kind, format!("injected fault on \"{key}\""));
        match fault {
            Fault::None | Fault::BreakAfter(_) => inner(),
            Fault::Before(kind) => Err(injected(kind)),
            Fault::After(kind) => inner().and(Err(injected(kind))),
            Fault::Slow(time) => {
                std::thread::sleep(time);
                inner()
            }
        }
    }
}

/// Ends with an error instead of an end.
struct Broken {
    whole: io::Take<Box<dyn Read + Send>>,
}

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.whole.limit() == 0 {
            return Err(io::Error::other(Error::new(Kind::Unavailable, "injected break of a body")));
        }
        self.whole.read(buffer)
    }
}

impl Layer for Faulty {
    fn inner(&self) -> &Shared {
        &self.inner
    }

    fn ask<T: Send + 'static>(
        &self,
        ask: Ask<'_>,
        request: impl Fn(&dyn Storage) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        let (kind, key) = match ask {
            Ask::Create(key, _) => (Request::Create, key),
            Ask::Head(key) => (Request::Head, key),
            Ask::Fingerprint(key) => (Request::Fingerprint, key),
            Ask::Delete(key) => (Request::Delete, key),
            Ask::MakeDurable(key) => (Request::MakeDurable, key),
            Ask::Clock | Ask::Folders | Ask::ProveCreate | Ask::Sweep => {
                return request(self.inner.as_ref());
            }
        };
        self.run(kind, key.as_str(), || request(self.inner.as_ref()))
    }

    fn read(&self, key: &Key, range: Range) -> Result<Object> {
        match (self.plan)(Request::Get, key.as_str()) {
            Fault::BreakAfter(bytes) => {
                let object = self.inner.get(key, range)?;
                Ok(Object { body: Box::new(Broken { whole: object.body.take(bytes) }), ..object })
            }
            fault => self.apply(fault, key.as_str(), || self.inner.get(key, range)),
        }
    }

    fn entries(&self, prefix: &str, order: Order<'_>) -> Result<Listing> {
        match (self.plan)(Request::List, prefix) {
            Fault::BreakAfter(keys) => {
                let keys = usize::try_from(keys).unwrap_or(usize::MAX);
                let first = order.list(self.inner.as_ref(), prefix)?.take(keys);
                let broken = Err(Error::new(Kind::Unavailable, "injected break of a listing"));
                Ok(Box::new(first.chain(std::iter::once(broken))))
            }
            fault => self.apply(fault, prefix, || order.list(self.inner.as_ref(), prefix)),
        }
    }

    fn remove(&self, keys: &[Key]) -> std::result::Result<(), DeletionFailed> {
        let first = keys.first().map_or("", Key::as_str);
        let mut deleted = 0;
        let run = self.run(Request::Delete, first, || {
            self.inner.delete_all(keys).map_err(|failed| {
                deleted = failed.deleted;
                failed.error
            })
        });
        run.map_err(|error| DeletionFailed { deleted, error })
    }
}
