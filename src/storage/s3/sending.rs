//! Bodies of requests: one piece of memory each, as not every store takes others. What is in
//! memory already is sent from there. The rest is read into memory that is bounded for the whole
//! process and used again: several requests may be on their way, and the allocator would keep the
//! memory of each thread for that thread.

use crate::storage::pool::{Memory, Pool};
use crate::storage::{Body, Error, Kind, Result};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use std::io::{self, Read};

/// Of all requests of the process; a single larger one goes alone.
const AT_ONCE: usize = 16 << 20;

/// A segment that cannot be compressed takes a little more than its size.
const SLACK: usize = 4 << 20;

/// Not that of the bodies, which wait to be sent: who sends them must not wait for them.
static POOL: Pool = Pool::new(AT_ONCE, AT_ONCE + SLACK);

/// The next `len` bytes as a body of a request. Waits until others have sent enough: their
/// requests have deadlines, so the wait ends.
pub(super) fn piece(body: &mut dyn Read, len: u64) -> Result<ByteStream> {
    let unreadable = |error| Error::new(Kind::Invalid, "cannot read the body").caused_by(error);
    let size = usize::try_from(len).map_err(|error| unreadable(io::Error::other(error)))?;
    let mut memory = POOL.wait_for(size);
    body.take(len).read_to_end(&mut memory.bytes).map_err(unreadable)?;
    Ok(ByteStream::from(Bytes::from_owner(Piece(memory))))
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

/// Bytes of a request, counted until the request is done with them.
struct Piece(Memory);

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}
