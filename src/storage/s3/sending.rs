//! Bodies of requests: one piece of memory each, as not every store takes others. What is in
//! memory already is sent from there. The rest is read into memory that is bounded for the whole
//! process and used again: several requests may be on their way, and the allocator would keep the
//! memory of each thread for that thread.

use crate::storage::{Body, Error, Kind, Result};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use std::io::Read;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Of all requests of the process; a single larger one goes alone.
const AT_ONCE: u64 = 16 << 20;

/// A segment that cannot be compressed takes a little more than its size.
const SLACK: u64 = 4 << 20;

static SENDING: Mutex<State> = Mutex::new(State { sum: 0, spare: Vec::new() });
static LESS: Condvar = Condvar::new();

struct State {
    /// Bytes that are being sent.
    sum: u64,
    /// Memory to use again; with what is being sent as much as was ever sent at once.
    spare: Vec<Vec<u8>>,
}

fn state() -> MutexGuard<'static, State> {
    // Every change is one assignment, so a poisoned lock still guards a true sum.
    SENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of a request, counted until the request is done with them.
struct CountedBytes {
    bytes: Vec<u8>,
    counted: u64,
}

/// The next `len` bytes as a body of a request. Waits until others have sent enough: their
/// requests have deadlines, so the wait ends.
pub(super) fn piece(body: &mut dyn Read, len: u64) -> Result<ByteStream> {
    let full = |state: &mut State| state.sum > 0 && state.sum + len > AT_ONCE;
    let mut state = LESS.wait_while(state(), full).unwrap_or_else(PoisonError::into_inner);
    state.sum += len;
    let bytes = state.spare.pop().unwrap_or_default();
    drop(state);
    let mut piece = CountedBytes { bytes, counted: len };
    piece.bytes.reserve_exact(usize::try_from(len).unwrap_or(0));
    let read = body.take(len).read_to_end(&mut piece.bytes);
    read.map_err(|error| Error::new(Kind::Invalid, "cannot read the body").caused_by(error))?;
    Ok(ByteStream::from(Bytes::from_owner(piece)))
}

pub(super) fn whole(body: &Body) -> Result<ByteStream> {
    match body.in_memory() {
        Some(_) => Ok(ByteStream::from(Bytes::from_owner(InMemory(body.clone())))),
        None => piece(&mut body.reader(), body.len()),
    }
}

/// A body of which nothing is elsewhere.
struct InMemory(Body);

impl AsRef<[u8]> for InMemory {
    fn as_ref(&self) -> &[u8] {
        self.0.in_memory().unwrap_or_default()
    }
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for CountedBytes {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut state = state();
        state.sum -= self.counted;
        let kept = state.sum + state.spare.iter().map(|spare| spare.capacity() as u64).sum::<u64>();
        // Given back whole, it would change where the allocator takes the next ones from.
        bytes.shrink_to(usize::try_from((AT_ONCE + SLACK).saturating_sub(kept)).unwrap_or(0).max(1 << 20));
        state.spare.push(bytes);
        drop(state);
        LESS.notify_all();
    }
}
