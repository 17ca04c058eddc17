//! A wrapper for commands without a deadline: a store that failed so often in a row is asked no
//! more.
//!
//! Requests were repeated before ([`super::retry`]), so a store that refuses or does not answer
//! several of them will not answer the next ten thousand. Whatever was answered in between starts the
//! count anew.

use super::layer::{Ask, Layer, Order};
use super::{DeletionFailed, Error, Kind, Listing, Object, Range, Result, Shared, Storage};
use crate::object::Key;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Failures in a row after which nothing is asked any more.
const FAILURES: u32 = 5;

/// Objects that could not be read after which a command takes their place for down, whatever else was
/// answered: more of them than of requests, since a few may be at fault themselves.
pub const FAILED_OBJECTS: u32 = 10;

pub struct GivingUp {
    inner: Shared,
    row: Arc<Row>,
}

/// The failures since the last answer.
#[derive(Default)]
struct Row(Mutex<Failures>);

#[derive(Default)]
struct Failures {
    count: u32,
    /// Of the last one.
    last: Option<(Kind, String, Option<String>)>,
}

impl Row {
    fn failures(&self) -> MutexGuard<'_, Failures> {
        // Every change leaves a state that may be read.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self) {
        *self.failures() = Failures::default();
    }

    fn failed(&self, error: &Error) {
        // Other kinds are the store's answer to this very request.
        if matches!(error.kind(), Kind::Unavailable | Kind::TimedOut | Kind::Denied) {
            let mut failures = self.failures();
            failures.count += 1;
            failures.last = Some((error.kind(), error.to_string(), error.hint_text().map(str::to_owned)));
        } else {
            self.answered();
        }
    }
}

impl GivingUp {
    pub fn new(inner: Shared) -> Self {
        GivingUp { inner, row: Arc::default() }
    }

    /// The error of a store that was given up.
    fn check(&self) -> Result<()> {
        let failures = self.row.failures();
        let Some((kind, reason, hint)) = failures.last.as_ref().filter(|_| failures.count >= FAILURES) else {
            return Ok(());
        };
        let what = format!(
            "\"{}\" is not asked any more after {FAILURES} failures in a row, the last: {reason}",
            self.place()
        );
        let error = Error::new(*kind, what);
        Err(match hint {
            Some(hint) => error.hint(hint),
            None => error,
        })
    }

    fn count<T>(&self, request: impl FnOnce(&dyn Storage) -> Result<T>) -> Result<T> {
        self.check()?;
        let answer = request(self.inner.as_ref());
        match &answer {
            Ok(_) => self.row.answered(),
            Err(error) => self.row.failed(error),
        }
        answer
    }
}

/// Counts how reading a body ends: its beginning alone is no answer.
struct Counted {
    body: Box<dyn Read + Send>,
    row: Arc<Row>,
    place: String,
    failed: bool,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer).map_err(|error| {
            self.failed = true;
            let error = Error::of_io(error, &self.place);
            self.row.failed(&error);
            io::Error::other(error)
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.failed {
            self.row.answered();
        }
    }
}

impl Layer for GivingUp {
    fn inner(&self) -> &Shared {
        &self.inner
    }

    fn ask<T: Send + 'static>(
        &self,
        _: Ask<'_>,
        request: impl Fn(&dyn Storage) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        self.count(request)
    }

    fn read(&self, key: &Key, range: Range) -> Result<Object> {
        self.check()?;
        match self.inner.get(key, range) {
            Ok(Object { size, modified, body }) => {
                let (row, place) = (Arc::clone(&self.row), self.place().to_owned());
                Ok(Object { size, modified, body: Box::new(Counted { body, row, place, failed: false }) })
            }
            Err(error) => {
                self.row.failed(&error);
                Err(error)
            }
        }
    }

    fn entries(&self, prefix: &str, order: Order<'_>) -> Result<Listing> {
        self.count(|inner| order.list(inner, prefix))
    }

    fn remove(&self, keys: &[Key]) -> std::result::Result<(), DeletionFailed> {
        self.check().map_err(DeletionFailed::of_all)?;
        let answer = self.inner.delete_all(keys);
        match &answer {
            Ok(()) => self.row.answered(),
            Err(failed) => self.row.failed(&failed.error),
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::super::faulty::{Fault, Faulty, Request};
    use super::super::memory::Memory;
    use super::*;
    use crate::storage::Body;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    /// A store that meets this fault, and how often it was asked.
    fn failing(fault: Fault) -> (GivingUp, Arc<AtomicU32>) {
        let memory = Memory::default();
        memory.create(&key("a"), &Body::from(vec![1; 100])).unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let plan = move |_: Request, at: &str| {
            count.fetch_add(1, Ordering::Relaxed);
            if at == "good" { Fault::None } else { fault }
        };
        (GivingUp::new(Arc::new(Faulty::new(Arc::new(memory), Box::new(plan)))), asked)
    }

    #[test]
    fn a_store_that_fails_again_and_again_is_asked_no_more() {
        for kind in [Kind::Unavailable, Kind::TimedOut, Kind::Denied] {
            let (store, asked) = failing(Fault::Before(kind));
            for _ in 0..100 {
                assert_eq!(store.head(&key("a")).unwrap_err().kind(), kind);
            }
            assert_eq!(asked.load(Ordering::Relaxed), FAILURES);
            let said = store.get(&key("a"), Range::Whole).err().unwrap().to_string();
            assert!(said.contains("not asked any more") && said.contains("injected fault"), "{said}");
            assert!(store.list("", "").is_err() && store.delete_all(&[key("a")]).is_err());
            assert_eq!(asked.load(Ordering::Relaxed), FAILURES);
        }
    }

    #[test]
    fn an_answer_in_between_starts_the_count_anew_and_not_there_is_an_answer() {
        let (store, asked) = failing(Fault::Before(Kind::Unavailable));
        for _ in 0..10 {
            (1..FAILURES).for_each(|_| assert!(store.head(&key("a")).is_err()));
            assert_eq!(store.head(&key("good")).unwrap_err().kind(), Kind::NotFound);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 10 * FAILURES);
    }

    #[test]
    fn a_body_that_breaks_off_is_a_failure_and_one_that_is_read_is_an_answer() {
        let (store, asked) = failing(Fault::BreakAfter(10));
        for _ in 0..20 {
            if let Ok(object) = store.get(&key("a"), Range::Whole) {
                assert!(object.body.take(1000).read_to_end(&mut Vec::new()).is_err());
            }
        }
        assert_eq!(asked.load(Ordering::Relaxed), FAILURES);
        let (store, asked) = failing(Fault::None);
        for _ in 0..20 {
            store.get(&key("a"), Range::Whole).unwrap().body.read_to_end(&mut Vec::new()).unwrap();
        }
        assert_eq!(asked.load(Ordering::Relaxed), 20);
    }
}
