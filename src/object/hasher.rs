//! A SHA-256 over a stream of buffers on their way to an output, beside the codec that makes them.
//!
//! Two threads share the work: the codec's own and one that hashes. Hashing takes twice as long as
//! writing, and decoding takes less than either or more than both, as full as the segment is. So the
//! writing is done by whoever is ahead: the hashing thread when it has nothing to hash, the codec's when
//! it has no buffer left.

use super::digest::{CHUNK, Sha256Sum};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};

/// How many buffers are under way at most.
const CHUNKS: usize = 4;

/// Where hashed bytes go.
pub(super) type Output<'a> = &'a mut (dyn Write + Send);

/// Hashes and passes on. On two threads both overlap what the caller does next; in place the result is
/// the same.
pub(super) enum Hasher<'scope> {
    Inline {
        /// Of the bytes so far.
        sha: Box<Sha256>,
        /// The buffer to use again.
        spare: Arc<Vec<u8>>,
        output: Output<'scope>,
    },
    Shared(Shared<'scope>),
}

/// The caller's end of the shared work.
pub(super) struct Shared<'scope> {
    work: Arc<Work<'scope>>,
    /// Taken by whoever waits for its end.
    thread: Option<ScopedJoinHandle<'scope, Sha256Sum>>,
}

struct Work<'scope> {
    state: Mutex<State<'scope>>,
    changed: Condvar,
}

/// A buffer that is to be hashed and to be written; free when both are done.
type Piece = Arc<Arc<Vec<u8>>>;

struct State<'scope> {
    to_hash: VecDeque<Piece>,
    to_write: VecDeque<Piece>,
    /// Taken by whoever writes: one at a time, in order.
    output: Option<Output<'scope>>,
    /// Buffers to use again, those that the caller may still hold last.
    free: VecDeque<Arc<Vec<u8>>>,
    /// Why the output failed; told once.
    failed: Option<io::Error>,
    /// Nothing is written any more.
    broken: bool,
    /// Nothing more comes.
    closed: bool,
    /// The hashing thread is gone, perhaps by a panic.
    ended: bool,
}

impl<'scope> Hasher<'scope> {
    /// For a stream of about this many bytes: a thread does not pay for a small one. Where the system
    /// has none left, in place.
    pub(super) fn for_size<'env>(
        bytes: u64,
        output: Output<'scope>,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Self {
        if bytes > 2 * CHUNK as u64 { Shared::start(output, scope) } else { Hasher::inline(output) }
    }

    /// Without a thread: where every core has work already, one more only costs.
    pub(super) fn inline(output: Output<'scope>) -> Self {
        Hasher::Inline { sha: Box::default(), spare: Arc::new(Vec::with_capacity(CHUNK)), output }
    }

    /// An empty buffer with room for [`CHUNK`] bytes. Where all are under way, this thread helps.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        let used = match self {
            Hasher::Inline { spare, .. } => std::mem::take(spare),
            Hasher::Shared(shared) => shared.work.free_buffer(),
        };
        // The caller may still hold a clone; then a new buffer replaces it.
        let mut buffer = Arc::try_unwrap(used).unwrap_or_default();
        buffer.clear();
        buffer.reserve(CHUNK);
        buffer
    }

    /// Adds a buffer's bytes to the sum and passes them on. Fails as the output does, perhaps of an
    /// earlier buffer.
    pub(super) fn update(&mut self, chunk: Arc<Vec<u8>>) -> io::Result<()> {
        match self {
            Hasher::Inline { sha, spare, output } => {
                sha.update(chunk.as_slice());
                let written = output.write_all(&chunk);
                *spare = chunk;
                written
            }
            Hasher::Shared(shared) => shared.work.add(Arc::new(chunk)),
        }
    }

    /// The sum of all bytes given, now that they have all been passed on.
    pub(super) fn finish(self) -> io::Result<Sha256Sum> {
        match self {
            Hasher::Inline { sha, .. } => Ok(Sha256Sum::from(*sha)),
            Hasher::Shared(shared) => shared.finish(),
        }
    }
}

impl<'scope> Shared<'scope> {
    fn start<'env>(output: Output<'scope>, scope: &'scope Scope<'scope, 'env>) -> Hasher<'scope> {
        let work = Arc::new(Work {
            state: Mutex::new(State {
                to_hash: VecDeque::new(),
                to_write: VecDeque::new(),
                output: None,
                free: (0..CHUNKS).map(|_| Arc::default()).collect(),
                failed: None,
                broken: false,
                closed: false,
                ended: false,
            }),
            changed: Condvar::new(),
        });
        let beside = Arc::clone(&work);
        let thread = Builder::new().name("sha256".to_owned()).spawn_scoped(scope, move || {
            let ended = Ended(&beside);
            let sum = beside.hash_all();
            drop(ended);
            sum
        });
        match thread {
            Ok(thread) => {
                // A thread that cannot start must not take the output with it.
                work.lock().output = Some(output);
                Hasher::Shared(Shared { work, thread: Some(thread) })
            }
            Err(error) => {
                log::debug!("cannot start a thread: {error}");
                Hasher::inline(output)
            }
        }
    }

    fn finish(mut self) -> io::Result<Sha256Sum> {
        let written = self.work.write_rest();
        let sum = match self.thread.take() {
            Some(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            None => return Err(io::Error::other("the hashing thread is gone")),
        };
        written.map(|()| sum)
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        self.work.close();
        // Whoever drops it has another error to tell, and the scope would wait, too.
        let _ = self.thread.take().map(ScopedJoinHandle::join);
    }
}

/// Says that the hashing thread is gone, however it ends.
struct Ended<'a, 'scope>(&'a Work<'scope>);

impl Drop for Ended<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

impl State<'_> {
    fn failure(&mut self) -> io::Error {
        self.failed.take().unwrap_or_else(|| io::Error::other("the output failed before"))
    }
}

impl<'scope> Work<'scope> {
    fn lock(&self) -> MutexGuard<'_, State<'scope>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<'scope>>) -> MutexGuard<'a, State<'scope>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn add(&self, piece: Piece) -> io::Result<()> {
        let mut state = self.lock();
        if state.broken {
            return Err(state.failure());
        }
        state.to_hash.push_back(Arc::clone(&piece));
        state.to_write.push_back(piece);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    fn free_buffer(&self) -> Arc<Vec<u8>> {
        let mut state = self.lock();
        loop {
            if let Some(buffer) = state.free.pop_front() {
                return buffer;
            }
            if state.ended {
                return Arc::default(); // what becomes of it is told by `finish`
            }
            state = match self.write_one(state) {
                (state, true) => state,
                (state, false) => self.wait(state),
            };
        }
    }

    /// The hashing thread, to its end.
    fn hash_all(&self) -> Sha256Sum {
        let mut sha = Sha256::new();
        let mut state = self.lock();
        loop {
            if let Some(piece) = state.to_hash.pop_front() {
                drop(state);
                sha.update(piece.as_slice());
                state = self.lock();
                self.is_done(&mut state, piece);
                continue;
            }
            if state.closed {
                return Sha256Sum::from(sha);
            }
            state = match self.write_one(state) {
                (state, true) => state,
                (state, false) => self.wait(state),
            };
        }
    }

    /// Writes what is left, now that nothing more comes.
    fn write_rest(&self) -> io::Result<()> {
        self.close();
        let mut state = self.lock();
        loop {
            if state.broken {
                return Err(state.failure());
            }
            if state.to_write.is_empty() && state.output.is_some() {
                return Ok(());
            }
            state = match self.write_one(state) {
                (state, true) => state,
                (state, false) if state.ended && state.output.is_none() => {
                    return Err(io::Error::other("the hashing thread failed while it wrote"));
                }
                (state, false) => self.wait(state),
            };
        }
    }

    /// Writes the next piece, where there is one and nobody is at it.
    fn write_one<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<'scope>>,
    ) -> (MutexGuard<'a, State<'scope>>, bool) {
        let Some(output) = state.output.take() else { return (state, false) };
        let Some(piece) = state.to_write.pop_front() else {
            state.output = Some(output);
            return (state, false);
        };
        drop(state);
        let written = output.write_all(&piece);
        let mut state = self.lock();
        state.output = Some(output);
        self.is_done(&mut state, piece);
        if let Err(error) = written {
            (state.failed, state.broken) = (Some(error), true);
            for piece in std::mem::take(&mut state.to_write) {
                self.is_done(&mut state, piece);
            }
        }
        (state, true)
    }

    /// Hashed, or written. After both its buffer is free.
    fn is_done(&self, state: &mut State<'scope>, piece: Piece) {
        if let Some(chunk) = Arc::into_inner(piece) {
            state.free.push_back(chunk);
        }
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_and_the_order_are_right_whoever_is_behind() {
        struct Slow(Vec<u8>, u64);
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                std::thread::sleep(std::time::Duration::from_micros(self.1));
                self.0.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let data: Vec<u8> = (0..3_000_017u32).map(|i| ((i * 31) >> 3) as u8).collect();
        for (size, pause) in [(0, 0), (u64::MAX, 0), (u64::MAX, 3000)] {
            let mut output = Slow(Vec::new(), pause);
            let sum = std::thread::scope(|scope| pass(&data, Hasher::for_size(size, &mut output, scope)));
            assert_eq!(sum.unwrap(), Sha256Sum::of(&data));
            assert!(output.0 == data);
        }
    }

    #[test]
    fn work_that_is_given_up_ends() {
        let mut output = Vec::new();
        std::thread::scope(|scope| {
            let mut hasher = Hasher::for_size(u64::MAX, &mut output, scope);
            for _ in 0..3 * CHUNKS {
                let mut buffer = hasher.buffer();
                buffer.push(7);
                hasher.update(Arc::new(buffer)).unwrap();
            }
        });
    }

    #[test]
    #[should_panic(expected = "an output that panics")]
    fn a_panic_of_the_output_is_passed_on() {
        struct Panics;
        impl Write for Panics {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                panic!("an output that panics")
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let data = vec![7; 20 * CHUNK];
        let mut output = Panics;
        let _ = std::thread::scope(|scope| pass(&data, Hasher::for_size(u64::MAX, &mut output, scope)));
    }

    fn pass(data: &[u8], mut hasher: Hasher<'_>) -> io::Result<Sha256Sum> {
        for piece in data.chunks(CHUNK - 5) {
            let mut buffer = hasher.buffer();
            buffer.extend_from_slice(piece);
            hasher.update(Arc::new(buffer))?;
        }
        hasher.finish()
    }

    #[test]
    fn an_output_that_fails_is_never_a_sum() {
        /// A disk with room for so many bytes.
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let data = vec![7; 6 * CHUNK];
        for size in [0, u64::MAX] {
            for room in [0, CHUNK, 3 * CHUNK, 6 * CHUNK - 1] {
                let mut output = Full(room);
                let sum = std::thread::scope(|scope| pass(&data, Hasher::for_size(size, &mut output, scope)));
                assert_eq!(sum.unwrap_err().kind(), io::ErrorKind::StorageFull, "{size} {room}");
            }
        }
    }
}
