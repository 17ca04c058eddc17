//! A wrapper that knows which requests are still on their way, and that begins none where a process
//! of an earlier call hangs.
//!
//! A request to a hung mount returns when the kernel wants it to, and its process stays until then.
//! Another one would only leave another process. Does not know how that process is found: its
//! caller says so.

use super::deadline::late;
use super::layer::{Ask, Layer, Order};
use super::{DeletionFailed, Error, Kind, Listing, Object, Range, Result, Shared, Storage};
use crate::host::detached;
use crate::object::Key;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Instant;

/// Names the process of an earlier call that hangs at the destination.
pub type Hanging = Box<dyn Fn() -> Option<String> + Send + Sync>;

pub struct Attended {
    inner: Shared,
    hanging: Hanging,
    requests: Arc<Requests>,
}

#[derive(Default)]
struct Requests {
    /// Begun and not ended.
    open: AtomicUsize,
    /// Whether one ended too late, or was given up.
    late: AtomicBool,
    /// Whether the destination was given up.
    given_up: AtomicBool,
}

/// One request; ended when it is dropped.
struct Request(Arc<Requests>);

impl Request {
    fn begin(requests: &Arc<Requests>) -> Self {
        requests.open.fetch_add(1, Ordering::SeqCst);
        Request(Arc::clone(requests))
    }

    fn note<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.noted(error))
    }

    fn noted(&self, error: Error) -> Error {
        if error.kind() == Kind::TimedOut {
            self.0.late.store(true, Ordering::SeqCst);
        }
        error
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Attended {
    /// `hanging` is asked before every request.
    pub fn new(inner: Shared, hanging: Hanging) -> Self {
        Attended { inner, hanging, requests: Arc::default() }
    }

    /// Whether a request is still on its way.
    pub fn is_busy(&self) -> bool {
        self.requests.open.load(Ordering::SeqCst) > 0
    }

    /// Whether a request did not end in time.
    pub fn was_late(&self) -> bool {
        self.is_busy() || self.requests.late.load(Ordering::SeqCst)
    }

    /// Begins something else that goes to the place, as a request on a thread of its own.
    pub fn visit<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<Visit<T>> {
        let request = self.begin()?;
        let (send, end) = sync_channel(1);
        let run = move || {
            let result = work();
            drop(request);
            let _ = send.send(result); // nobody waits any more
        };
        detached::spawn("visit", run)
            .map_err(|error| Error::new(Kind::Unavailable, "cannot start a thread").caused_by(error))?;
        Ok(Visit { end, place: self.place().to_owned(), requests: Arc::clone(&self.requests) })
    }

    fn begin(&self) -> Result<Request> {
        if self.requests.given_up.load(Ordering::SeqCst) {
            return Err(late(self.place()));
        }
        match (self.hanging)() {
            None => Ok(Request::begin(&self.requests)),
            Some(process) => Err(Error::new(
                Kind::Unavailable,
                format!("\"{}\" is not asked, because {process} of an earlier call hangs there", self.place()),
            )
            .hint(
                "bring the file system or server back, or unmount it by force; the process ends when the system \
                 lets it go, and then the destination is asked again",
            )),
        }
    }
}

/// Something that goes to the place.
pub struct Visit<T> {
    end: Receiver<T>,
    place: String,
    requests: Arc<Requests>,
}

impl<T> Visit<T> {
    /// Waits for its end. Where that does not come in time, the destination is given up for good.
    pub fn wait(self, at: Instant) -> Result<T> {
        self.end.recv_timeout(at.saturating_duration_since(Instant::now())).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                self.requests.given_up.store(true, Ordering::SeqCst);
                late(&self.place)
            }
            RecvTimeoutError::Disconnected => {
                Error::new(Kind::Unavailable, format!("a request to \"{}\" panicked", self.place))
            }
        })
    }
}

/// A body; the request ends with it.
struct Attending {
    body: Box<dyn Read + Send>,
    _request: Request,
}

impl Read for Attending {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer)
    }
}

impl Layer for Attended {
    fn inner(&self) -> &Shared {
        &self.inner
    }

    fn ask<T: Send + 'static>(
        &self,
        _: Ask<'_>,
        request: impl Fn(&dyn Storage) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        let open = self.begin()?;
        open.note(request(self.inner.as_ref()))
    }

    fn read(&self, key: &Key, range: Range) -> Result<Object> {
        let request = self.begin()?;
        let object = request.note(self.inner.get(key, range))?;
        Ok(Object { body: Box::new(Attending { body: object.body, _request: request }), ..object })
    }

    fn entries(&self, prefix: &str, order: Order<'_>) -> Result<Listing> {
        let request = self.begin()?;
        let entries = request.note(order.list(self.inner.as_ref(), prefix))?;
        Ok(Box::new(entries.map(move |entry| request.note(entry))))
    }

    fn remove(&self, keys: &[Key]) -> std::result::Result<(), DeletionFailed> {
        let open = self.begin().map_err(DeletionFailed::of_all)?;
        let deleted = self.inner.delete_all(keys);
        deleted.map_err(|failed| DeletionFailed { error: open.noted(failed.error), ..failed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Body;
    use crate::storage::memory::Memory;
    use std::time::Duration;

    fn attended(hanging: Hanging) -> Attended {
        Attended::new(Arc::new(Memory::default()), hanging)
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(600)
    }

    #[test]
    fn nothing_is_begun_where_a_process_hangs() {
        let storage = attended(Box::new(|| Some("process 7".to_owned())));
        let error = storage.head(&Key::identity()).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.to_string().contains("process 7"), "{error}");
        assert!(storage.visit(|| unreachable!("it was begun")).map(|_: Visit<()>| ()).is_err());
        assert!(!storage.was_late());
    }

    #[test]
    fn a_request_is_on_its_way_until_its_body_or_listing_is_dropped() {
        let storage = attended(Box::new(|| None));
        storage.create(&Key::identity(), &Body::from(b"x".to_vec())).unwrap();
        assert!(!storage.is_busy());
        let object = storage.get(&Key::identity(), Range::Whole).unwrap_or_else(|error| panic!("{error}"));
        let listing = storage.list("", "").unwrap_or_else(|error| panic!("{error}"));
        assert!(storage.is_busy());
        drop(object);
        assert!(storage.is_busy());
        drop(listing);
        assert!(!storage.was_late());
    }

    #[test]
    fn a_visit_that_does_not_end_gives_the_destination_up() {
        let storage = attended(Box::new(|| None));
        assert_eq!(storage.visit(|| 7).and_then(|visit| visit.wait(far())).unwrap(), 7);
        assert!(!storage.was_late());
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let visit = storage.visit(move || wait.recv().is_err()).unwrap_or_else(|error| panic!("{error}"));
        let error = visit.wait(Instant::now()).unwrap_err();
        assert_eq!(error.kind(), Kind::TimedOut);
        assert!(storage.is_busy() && storage.was_late());
        assert_eq!(storage.head(&Key::identity()).unwrap_err().kind(), Kind::TimedOut);
        drop(end);
    }
}
