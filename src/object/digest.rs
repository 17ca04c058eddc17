//! SHA-256: the sum as a value, and a hasher that works beside the codec on its own thread.

use sha2::{Digest, Sha256};
use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// A SHA-256 sum; shown as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256Sum([u8; 32]);

impl Sha256Sum {
    /// The sum of bytes at hand.
    pub fn of(bytes: &[u8]) -> Self {
        Sha256Sum(Sha256::digest(bytes).into())
    }

    /// Copies everything, and the sum of it.
    pub fn of_copy(source: &mut dyn Read, output: &mut dyn Write) -> io::Result<Self> {
        let mut sha = Sha256::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = match source.read(&mut buffer) {
                Ok(0) => return Ok(Sha256Sum(sha.finalize().into())),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let piece = buffer.get(..read).unwrap_or_default();
            sha.update(piece);
            output.write_all(piece)?;
        }
    }

    /// The first 16 digits: how a variant's key tells it from its siblings.
    pub fn short(&self) -> String {
        self.to_string().chars().take(16).collect()
    }
}

impl From<Sha256> for Sha256Sum {
    fn from(finished: Sha256) -> Self {
        Sha256Sum(finished.finalize().into())
    }
}

impl fmt::Display for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotASum;

impl FromStr for Sha256Sum {
    type Err = NotASum;

    fn from_str(text: &str) -> Result<Self, NotASum> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(NotASum);
        }
        let mut sum = [0; 32];
        for (byte, pair) in sum.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| NotASum)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| NotASum)?;
        }
        Ok(Sha256Sum(sum))
    }
}

/// Bytes in one buffer that is handed between the codec and the hasher.
pub(super) const CHUNK: usize = 256 * 1024;

/// How many buffers are in flight at most.
const CHUNKS: usize = 4;

/// A SHA-256 over a stream of buffers. Where a thread can be had the hashing overlaps what the
/// caller does with the same buffer; where not, it is done in place, with the same result.
pub(super) enum Hasher {
    /// In place; the second field is the buffer to reuse.
    Inline(Box<Sha256>, Arc<Vec<u8>>),
    /// On a thread.
    Beside(Beside),
}

/// The two ends of the conversation with the hashing thread.
pub(super) struct Beside {
    full: SyncSender<Arc<Vec<u8>>>,
    empty: Receiver<Arc<Vec<u8>>>,
    thread: JoinHandle<Sha256Sum>,
}

impl Hasher {
    /// For a stream of about this many bytes: a thread does not pay for a small one.
    pub(super) fn for_size(bytes: u64) -> Self {
        if bytes > 2 * CHUNK as u64
            && let Ok(beside) = Beside::start()
        {
            return Hasher::Beside(beside);
        }
        Hasher::Inline(Box::new(Sha256::new()), Arc::new(Vec::with_capacity(CHUNK)))
    }

    /// An empty buffer with room for [`CHUNK`] bytes; waits for the hasher to free one.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        let used = match self {
            Hasher::Inline(_, spare) => std::mem::take(spare),
            Hasher::Beside(beside) => beside.empty.recv().unwrap_or_default(),
        };
        // The caller may still hold a clone; then a new buffer replaces it.
        let mut buffer = Arc::try_unwrap(used).unwrap_or_default();
        buffer.clear();
        buffer.reserve(CHUNK);
        buffer
    }

    /// Adds a buffer's bytes to the sum.
    pub(super) fn update(&mut self, chunk: Arc<Vec<u8>>) {
        match self {
            Hasher::Inline(sha, spare) => {
                sha.update(chunk.as_slice());
                *spare = chunk;
            }
            // The thread ends only with its sender, so this fails only after it panicked, and
            // then `finish` passes the panic on.
            Hasher::Beside(beside) => drop(beside.full.send(chunk)),
        }
    }

    /// The sum of all bytes given.
    pub(super) fn finish(self) -> Sha256Sum {
        match self {
            Hasher::Inline(sha, _) => Sha256Sum::from(*sha),
            Hasher::Beside(Beside { full, empty, thread }) => {
                drop((full, empty));
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }
        }
    }
}

impl Beside {
    fn start() -> std::io::Result<Self> {
        let (full, work) = sync_channel::<Arc<Vec<u8>>>(CHUNKS);
        let (done, empty) = sync_channel(CHUNKS);
        for _ in 0..CHUNKS {
            // Cannot fail or block: the channel was made with room for exactly these.
            let _ = done.send(Arc::default());
        }
        let thread = std::thread::Builder::new().name("sha256".to_owned()).spawn(move || {
            let mut sha = Sha256::new();
            for chunk in work {
                sha.update(chunk.as_slice());
                let _ = done.try_send(chunk); // nobody waits for it after the last one
            }
            Sha256Sum::from(sha)
        })?;
        Ok(Beside { full, empty, thread })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_64_lower_case_digits() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Sha256Sum::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Sha256Sum::of(b"")));
        assert_eq!(Sha256Sum::of(b"").short(), "e3b0c44298fc1c14");
        for bad in ["", &empty[1..], &empty.to_uppercase(), &format!("{empty}0"), &"é".repeat(32)] {
            assert_eq!(bad.parse::<Sha256Sum>(), Err(NotASum), "{bad:?}");
        }
    }

    #[test]
    fn the_thread_and_the_inline_hasher_agree() {
        let data: Vec<u8> = (0..3_000_017u32).map(|i| ((i * 31) >> 3) as u8).collect();
        for size in [0, u64::MAX] {
            let mut hasher = Hasher::for_size(size);
            for piece in data.chunks(CHUNK - 5) {
                let mut buffer = hasher.buffer();
                buffer.extend_from_slice(piece);
                hasher.update(Arc::new(buffer));
            }
            assert_eq!(hasher.finish(), Sha256Sum::of(&data));
        }
    }
}
