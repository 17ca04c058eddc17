//! A wrapper that repeats what failed for a passing reason.
//!
//! Only [`Kind::Unavailable`] is repeated, a bounded number of times, with growing random pauses.
//! That is safe for every request: a create that was done although its answer was lost meets
//! [`Kind::AlreadyExists`], and the caller compares what stands there. The last error says how
//! often it was tried. A body that breaks off is taken up again where it broke, so nobody above
//! repeats a read.

use super::layer::{Ask, Layer, Order};
use super::{DeletionFailed, Entry, Error, Kind, Listing, Object, Range, Result, Shared, Storage};
use crate::object::Key;
use std::cell::Cell;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How often, and how long the first pause is at most; each further one is twice as long.
#[derive(Clone, Copy, Debug)]
pub struct Attempts {
    /// In all, at least 1.
    pub count: u32,
    pub pause: Duration,
}

impl Default for Attempts {
    fn default() -> Self {
        Attempts { count: 5, pause: Duration::from_millis(200) }
    }
}

pub struct Retry {
    inner: Shared,
    attempts: Attempts,
}

impl Retry {
    pub fn new(inner: Shared, attempts: Attempts) -> Self {
        Retry { inner, attempts }
    }

    fn again(&self) -> Retry {
        Retry { inner: Arc::clone(&self.inner), attempts: self.attempts }
    }

    fn run<T>(&self, request: impl Fn() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let mut pause = self.attempts.pause;
        let mut tried = 1;
        loop {
            let error = match request() {
                Err(error) if error.kind() == Kind::Unavailable => error,
                other => return other,
            };
            if tried >= self.attempts.count {
                return Err(match tried {
                    1 => error,
                    _ => Error {
                        what: format!("{} ({tried} attempts in {:.1?})", error.what, start.elapsed()),
                        ..error
                    },
                });
            }
            log::debug!("attempt {tried}: {error}");
            std::thread::sleep(pause.mul_f64(jitter()));
            pause *= 2;
            tried += 1;
        }
    }
}

/// From 0.5 to 1, so that servers that failed together do not come back together.
fn jitter() -> f64 {
    0.5 + fastrand::f64() / 2.0
}

/// A listing that goes on behind its last key after a passing failure.
struct Resumed {
    again: Retry,
    prefix: String,
    after: String,
    /// How often it may break off without having gone on.
    left: u32,
    entries: Listing,
}

impl Iterator for Resumed {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        loop {
            match self.entries.next()? {
                Ok(entry) => {
                    self.after.clone_from(&entry.key);
                    self.left = self.again.attempts.count;
                    return Some(Ok(entry));
                }
                Err(error) if error.kind() == Kind::Unavailable && self.left > 0 => {
                    self.left -= 1;
                    log::debug!("{error}");
                    match self.again.run(|| self.again.inner.list(&self.prefix, &self.after)) {
                        Ok(entries) => self.entries = entries,
                        Err(error) => {
                            self.entries = Box::new(std::iter::empty());
                            return Some(Err(error));
                        }
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// A body that is taken up again where it broke off.
struct Continued {
    again: Retry,
    key: Key,
    size: u64,
    modified: SystemTime,
    /// Where the next byte is.
    at: u64,
    /// Behind the last one that is wanted.
    end: u64,
    left: u32,
    body: Box<dyn Read + Send>,
}

impl Continued {
    /// The rest, of the very same object.
    fn rest(&mut self) -> Result<()> {
        self.left -= 1;
        std::thread::sleep(self.again.attempts.pause.mul_f64(jitter()));
        let rest = self.again.run(|| self.again.inner.get(&self.key, Range::From(self.at)))?;
        if (rest.size, rest.modified) != (self.size, self.modified) {
            let what = format!("\"{}/{}\" was replaced while it was read", self.again.place(), self.key);
            return Err(Error::new(Kind::Unavailable, what));
        }
        self.body = Box::new(rest.body.take(self.end.saturating_sub(self.at)));
        Ok(())
    }
}

impl Read for Continued {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let error = match self.body.read(buffer) {
                Ok(read) => {
                    self.at += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => Error::of_io(error, self.again.place()),
            };
            if error.kind() != Kind::Unavailable || self.left == 0 || self.at >= self.end {
                return Err(io::Error::other(error));
            }
            log::debug!("after {} bytes: {error}", self.at);
            self.rest().map_err(io::Error::other)?;
        }
    }
}

impl Layer for Retry {
    fn inner(&self) -> &Shared {
        &self.inner
    }

    fn ask<T: Send + 'static>(
        &self,
        ask: Ask<'_>,
        request: impl Fn(&dyn Storage) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        match ask {
            Ask::Sweep => request(self.inner.as_ref()),
            _ => self.run(|| request(self.inner.as_ref())),
        }
    }

    fn read(&self, key: &Key, range: Range) -> Result<Object> {
        let Object { size, modified, body } = self.run(|| self.inner.get(key, range))?;
        let (again, key, at, end) = (self.again(), key.clone(), range.start(size), range.end(size));
        let left = self.attempts.count.saturating_sub(1);
        let body = Continued { again, key, size, modified, at, end, left, body };
        Ok(Object { size, modified, body: Box::new(body) })
    }

    /// Always in order, so that it can be resumed.
    fn entries(&self, prefix: &str, order: Order<'_>) -> Result<Listing> {
        let after = match order {
            Order::After(after) => after,
            Order::Any => "",
        };
        let entries = self.run(|| self.inner.list(prefix, after))?;
        Ok(Box::new(Resumed {
            again: self.again(),
            prefix: prefix.to_owned(),
            after: after.to_owned(),
            left: self.attempts.count,
            entries,
        }))
    }

    fn remove(&self, keys: &[Key]) -> std::result::Result<(), DeletionFailed> {
        // A repeat counts what an earlier attempt deleted as deleted.
        let most = Cell::new(0);
        let repeated = self.run(|| {
            self.inner.delete_all(keys).map_err(|failed| {
                most.set(failed.deleted.max(most.get()));
                failed.error
            })
        });
        repeated.map_err(|error| DeletionFailed { deleted: most.get(), error })
    }
}
