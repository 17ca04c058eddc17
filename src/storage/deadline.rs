//! A wrapper that ends every request by a moment in time, even one that hangs in the kernel; or,
//! for commands that take as long as the archive is large, every wait for an answer or for the
//! next piece of one.
//!
//! A hung NFS mount blocks its caller without limit, so each request runs on a thread of its
//! own; when the moment comes the caller gets [`Kind::TimedOut`] and the thread is left behind
//! for the end of the process. What it was writing is still invisible, or whole. Where the system has no
//! thread left, a request with a deadline fails, since whoever waits for it would rather know than hang;
//! one of a command without a deadline is made by the caller itself.

use super::layer::{Ask, Layer, Order};
use super::{DeletionFailed, Error, Kind, Listing, Object, Range, Result, Shared, Storage};
use crate::host::detached;
use crate::object::Key;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

/// Bytes handed over at once.
const BLOCK: usize = 64 * 1024;

/// Entries of a listing that come within this time may be handed over at once.
const AT_ONCE: Duration = Duration::from_millis(10);

pub struct Deadline {
    inner: Shared,
    limit: Limit,
}

#[derive(Clone, Copy)]
enum Limit {
    At(Instant),
    /// So long after it began.
    Each(Duration),
}

impl Limit {
    /// For what begins now.
    fn moment(self) -> Instant {
        match self {
            Limit::At(at) => at,
            Limit::Each(patience) => Instant::now() + patience,
        }
    }

    /// With so much more for a request that is many.
    fn longer(self, more: Duration) -> Limit {
        match self {
            Limit::At(at) => Limit::At(at),
            Limit::Each(patience) => Limit::Each(patience + more),
        }
    }
}

/// What a body of one more MiB, and the deletion of ten more objects, may take longer.
const MORE: Duration = Duration::from_secs(1);

impl Deadline {
    /// Every request to `inner` ends at `at`.
    pub fn new(inner: Shared, at: Instant) -> Self {
        Deadline { inner, limit: Limit::At(at) }
    }

    /// Every answer of `inner`, and every further 64 KiB of a body, comes within `patience`.
    pub fn each(inner: Shared, patience: Duration) -> Self {
        Deadline { inner, limit: Limit::Each(patience) }
    }

    /// The same, for a request of `count` times the usual size.
    fn longer(&self, count: u64) -> Self {
        let more = MORE.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        Deadline { inner: Arc::clone(&self.inner), limit: self.limit.longer(more) }
    }

    fn timed_out(&self) -> Error {
        late(self.inner.place())
    }

    /// Runs a request on its own thread; the channel carries `capacity` items. `Ok(None)`: there is
    /// no thread, and the caller may make the request itself.
    fn spawn<T: Send + 'static>(
        &self,
        capacity: usize,
        work: impl FnOnce(&dyn Storage, &dyn Fn(T) -> bool) + Send + 'static,
    ) -> Result<Option<Receiver<T>>> {
        let (send, receive) = sync_channel(capacity);
        let inner = Arc::clone(&self.inner);
        let run = move || work(inner.as_ref(), &|item| send.send(item).is_ok());
        match (detached::spawn("storage", run), self.limit) {
            (Ok(()), _) => Ok(Some(receive)),
            (Err(error), Limit::At(_)) => {
                Err(Error::new(Kind::Unavailable, "cannot start a thread").caused_by(error))
            }
            (Err(error), Limit::Each(_)) => {
                log::debug!("cannot start a thread: {error}");
                Ok(None)
            }
        }
    }

    fn wait<T>(&self, receive: &Receiver<T>) -> Result<Option<T>> {
        wait(receive, self.limit.moment()).map_err(|()| self.timed_out())
    }

    /// One question, one answer.
    fn answer<T: Send + 'static>(
        &self,
        request: impl FnOnce(&dyn Storage) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        let here = request.clone();
        let receive = self.spawn(1, move |inner, answer| {
            answer(request(inner));
        })?;
        let Some(receive) = receive else { return here(self.inner.as_ref()) };
        // No answer and no timeout: the request panicked, and its message is on stderr.
        self.wait(&receive)?.unwrap_or_else(|| {
            Err(Error::new(Kind::Unavailable, format!("a request to \"{}\" panicked", self.inner.place())))
        })
    }

    /// A listing. The longer it is the more entries are handed over at once: handing over costs more than listing.
    fn pass_on(
        &self,
        list: impl FnOnce(&dyn Storage) -> Result<Listing> + Clone + Send + 'static,
    ) -> Result<Listing> {
        let here = list.clone();
        let receive = self.spawn(16, move |inner, hand_over| {
            let mut entries = match list(inner) {
                Ok(entries) => entries.fuse(),
                Err(error) => {
                    hand_over(vec![Err(error)]);
                    return;
                }
            };
            let mut count = 0;
            loop {
                let some = at_once(&mut entries, (count / 16 + 1).min(64));
                count += some.len();
                // None are the end.
                let end = some.is_empty();
                if !hand_over(some) || end {
                    return; // or nobody listens any more
                }
            }
        })?;
        let Some(receive) = receive else { return here(self.inner.as_ref()) };
        // The first answer says whether the listing could be had at all.
        let panicked = || vec![Err(Error::new(Kind::Unavailable, "a listing panicked"))];
        let first = self.wait(&receive)?.unwrap_or_else(panicked);
        let first: Vec<_> = first.into_iter().collect::<Result<_>>()?;
        let mut some = first.into_iter().map(Ok).collect::<Vec<_>>().into_iter();
        let limit = self.limit;
        let mut late = Some(self.timed_out());
        Ok(Box::new(std::iter::from_fn(move || {
            let item = some.next()?;
            if item.is_err() {
                some = Vec::new().into_iter();
            } else if some.as_slice().is_empty() {
                let next = match wait(&receive, limit.moment()) {
                    Ok(Some(next)) => next,
                    Ok(None) => {
                        vec![Err(Error::new(Kind::Unavailable, "a listing ended without an end"))]
                    }
                    Err(()) => late.take().map(Err).into_iter().collect(),
                };
                some = next.into_iter();
            }
            Some(item)
        })))
    }
}

/// The next entries, as far as they come without delay; at least one, unless it was the last.
fn at_once<T>(entries: &mut impl Iterator<Item = T>, most: usize) -> Vec<T> {
    let begun = Instant::now();
    let mut some: Vec<T> = entries.next().into_iter().collect();
    while !some.is_empty() && some.len() < most && begun.elapsed() < AT_ONCE {
        let Some(entry) = entries.next() else { break };
        some.push(entry);
    }
    some
}

/// What a place that gave no answer in time is.
pub(super) fn late(place: &str) -> Error {
    Error::new(Kind::TimedOut, format!("\"{place}\" did not answer in time"))
}

/// `Ok(None)`: the other side is gone. `Err`: the deadline passed.
fn wait<T>(receive: &Receiver<T>, at: Instant) -> std::result::Result<Option<T>, ()> {
    match receive.recv_timeout(at.saturating_duration_since(Instant::now())) {
        Ok(item) => Ok(Some(item)),
        Err(RecvTimeoutError::Disconnected) => Ok(None),
        Err(RecvTimeoutError::Timeout) => Err(()),
    }
}

/// What the reading thread hands over.
enum Part {
    Head(Result<(u64, SystemTime)>),
    Bytes(Vec<u8>),
    Failed(io::Error),
    End,
}

/// The reader that the caller of `get` sees.
struct PartReader {
    receive: Receiver<Part>,
    place: String,
    limit: Limit,
    current: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.current.read(buffer)?;
            if read > 0 || self.ended || buffer.is_empty() {
                return Ok(read);
            }
            // What is there already counts no more: whoever decodes it may be what takes the time.
            if matches!(self.limit, Limit::At(at) if Instant::now() >= at) {
                return Err(io::Error::other(late(&self.place)));
            }
            match wait(&self.receive, self.limit.moment()) {
                Ok(Some(Part::Bytes(bytes))) => self.current = io::Cursor::new(bytes),
                Ok(Some(Part::End)) => self.ended = true,
                Ok(Some(Part::Failed(error))) => return Err(error),
                Ok(Some(Part::Head(_)) | None) => {
                    let what = format!("reading from \"{}\" ended without an end", self.place);
                    return Err(io::Error::other(Error::new(Kind::Unavailable, what)));
                }
                Err(()) => return Err(io::Error::other(late(&self.place))),
            }
        }
    }
}

fn pump(inner: &dyn Storage, key: &Key, range: Range, hand_over: &dyn Fn(Part) -> bool) {
    let mut body = match inner.get(key, range) {
        Ok(Object { size, modified, body }) => {
            hand_over(Part::Head(Ok((size, modified))));
            body
        }
        Err(error) => {
            hand_over(Part::Head(Err(error)));
            return;
        }
    };
    loop {
        let mut bytes = Vec::with_capacity(BLOCK);
        let piece = match body.by_ref().take(BLOCK as u64).read_to_end(&mut bytes) {
            Ok(0) => Part::End,
            Ok(_) => Part::Bytes(bytes),
            Err(error) => Part::Failed(error),
        };
        if !matches!(piece, Part::Bytes(_)) {
            // First, so that whoever learns of the end finds the request ended.
            drop(body);
            hand_over(piece);
            return;
        }
        if !hand_over(piece) {
            return; // nobody listens any more
        }
    }
}

impl Layer for Deadline {
    fn inner(&self) -> &Shared {
        &self.inner
    }

    fn ask<T: Send + 'static>(
        &self,
        ask: Ask<'_>,
        request: impl Fn(&dyn Storage) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        match ask {
            Ask::Create(_, bytes) => self.longer(bytes >> 20).answer(request),
            _ => self.answer(request),
        }
    }

    fn read(&self, key: &Key, range: Range) -> Result<Object> {
        let own = key.clone();
        let receive = self.spawn(2, move |inner, hand_over| pump(inner, &own, range, hand_over))?;
        let Some(receive) = receive else { return self.inner.get(key, range) };
        let (size, modified) = match self.wait(&receive)? {
            Some(Part::Head(head)) => head?,
            _ => {
                return Err(Error::new(
                    Kind::Unavailable,
                    format!("a request to \"{}\" panicked", self.place()),
                ));
            }
        };
        let place = self.place().to_owned();
        let body =
            PartReader { receive, place, limit: self.limit, current: io::Cursor::default(), ended: false };
        Ok(Object { size, modified, body: Box::new(body) })
    }

    fn entries(&self, prefix: &str, order: Order<'_>) -> Result<Listing> {
        let prefix = prefix.to_owned();
        match order {
            Order::Any => self.pass_on(move |inner| inner.list_unordered(&prefix)),
            Order::After(after) => {
                let after = after.to_owned();
                self.pass_on(move |inner| inner.list(&prefix, &after))
            }
        }
    }

    fn remove(&self, keys: &[Key]) -> std::result::Result<(), DeletionFailed> {
        let keys = keys.to_vec();
        self.longer(keys.len() as u64 / 10)
            .answer(move |inner| Ok(inner.delete_all(&keys)))
            .unwrap_or_else(|error| Err(DeletionFailed::of_all(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::attended::Attended;
    use super::super::faulty::{Fault, Faulty, Request};
    use super::super::memory::Memory;
    use super::*;
    use crate::storage::Body;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    #[test]
    fn an_entry_that_comes_late_keeps_few_others_back() {
        let mut entries = (0..9).inspect(|entry| {
            if *entry == 2 {
                std::thread::sleep(2 * AT_ONCE);
            }
        });
        let mut some = Vec::new();
        while some.len() < 3 {
            some.extend(at_once(&mut entries, 64));
        }
        assert_eq!(some, [0, 1, 2]);
        assert_eq!(at_once(&mut entries, 1), [3]);
        assert!(at_once(&mut [0; 0].iter(), 64).is_empty());
    }

    #[test]
    fn whoever_has_read_a_body_to_its_end_finds_the_request_ended() {
        let attended = Arc::new(Attended::new(Arc::new(Memory::default()), Box::new(|| None)));
        attended.create(&Key::identity(), &Body::from(vec![1; 3 * BLOCK])).unwrap();
        let storage = Deadline::each(attended.clone(), Duration::from_secs(600));
        for _ in 0..1000 {
            let object =
                storage.get(&Key::identity(), Range::Whole).unwrap_or_else(|error| panic!("{error}"));
            io::copy(&mut { object.body }, &mut io::sink()).unwrap();
            assert!(!attended.is_busy());
        }
    }

    #[test]
    fn a_body_ends_at_the_deadline_however_much_of_it_is_there_already() {
        let inner = Arc::new(Memory::default());
        inner.create(&Key::identity(), &Body::from(vec![1; 3 * BLOCK])).unwrap();
        // A later one where the machine is too busy to begin by then.
        let (at, object) = [1, 60]
            .map(Duration::from_secs)
            .into_iter()
            .find_map(|time| {
                let at = Instant::now() + time;
                Some((at, Deadline::new(inner.clone(), at).get(&Key::identity(), Range::Whole).ok()?))
            })
            .unwrap();
        let mut body = object.body;
        // As by a decoder that makes much work of little.
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let error = Error::of_io(body.read(&mut [0; 10]).unwrap_err(), "");
        assert_eq!(error.kind(), Kind::TimedOut);
    }

    #[test]
    fn each_answer_has_its_own_patience_and_they_may_be_many() {
        let memory: Shared = Arc::new(Memory::default());
        let keys: Vec<Key> = (0..20).map(|number| key(&format!("wal_005/{number}"))).collect();
        keys.iter().for_each(|key| memory.create(key, &Body::from(vec![1; 10])).unwrap());
        // Together far more than one of them may take.
        let slow = |_: Request, _: &str| Fault::Slow(Duration::from_millis(50));
        let each = Deadline::each(
            Arc::new(Faulty::new(Arc::clone(&memory), Box::new(slow))),
            Duration::from_secs(600),
        );
        keys.iter().for_each(|key| drop(each.head(key).unwrap()));
        let never = |_: Request, _: &str| Fault::Slow(Duration::from_secs(3600));
        let each = Deadline::each(Arc::new(Faulty::new(memory, Box::new(never))), Duration::from_millis(20));
        assert_eq!(each.head(&keys[0]).unwrap_err().kind(), Kind::TimedOut);
        assert_eq!(each.get(&keys[0], Range::Whole).err().unwrap().kind(), Kind::TimedOut);
    }
}
