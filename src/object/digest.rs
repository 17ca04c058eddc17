//! SHA-256: the sum as a value, and a hasher that works beside the codec on its own thread and
//! passes on what it has hashed.

use sha2::{Digest, Sha256};
use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

/// A SHA-256 sum; shown as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256Sum([u8; 32]);

impl Sha256Sum {
    /// The sum of bytes at hand.
    pub fn of(bytes: &[u8]) -> Self {
        Sha256Sum(Sha256::digest(bytes).into())
    }

    /// The sum of everything that a reader gives.
    pub fn of_reader(reader: &mut dyn Read) -> io::Result<Self> {
        Sha256Sum::of_copy(reader, &mut io::sink())
    }

    /// Copies everything, and the sum of it.
    pub fn of_copy(source: &mut dyn Read, output: &mut dyn Write) -> io::Result<Self> {
        let mut sha = Sha256::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = match source.read(&mut buffer) {
                Ok(0) => return Ok(Sha256Sum::from(sha)),
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
pub(super) const CHUNK: usize = 128 * 1024;

/// How many buffers are in flight at most.
const CHUNKS: usize = 4;

/// A SHA-256 over a stream of buffers on their way to an output. On a thread both overlap what the
/// caller does next; in place the result is the same.
pub(super) enum Hasher<'scope> {
    Inline {
        /// Of the bytes so far.
        sha: Box<Sha256>,
        /// The buffer to use again.
        spare: Arc<Vec<u8>>,
        output: Output<'scope>,
    },
    Thread(HashThread<'scope>),
}

/// Where hashed bytes go.
pub(super) type Output<'a> = &'a mut (dyn Write + Send);

/// The two ends of the conversation with the hashing thread.
pub(super) struct HashThread<'scope> {
    full: SyncSender<Arc<Vec<u8>>>,
    empty: Receiver<Arc<Vec<u8>>>,
    /// Taken by whoever learns its end.
    thread: Option<ScopedJoinHandle<'scope, io::Result<Sha256Sum>>>,
}

impl<'scope> Hasher<'scope> {
    /// For a stream of about this many bytes: a thread does not pay for a small one. Where the system
    /// has none left, in place.
    pub(super) fn for_size<'env>(
        bytes: u64,
        output: Output<'scope>,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Self {
        if bytes > 2 * CHUNK as u64 { HashThread::start(output, scope) } else { Hasher::inline(output) }
    }

    /// Without a thread: where every core has work already, one more only costs.
    pub(super) fn inline(output: Output<'scope>) -> Self {
        Hasher::Inline { sha: Box::default(), spare: Arc::new(Vec::with_capacity(CHUNK)), output }
    }

    /// An empty buffer with room for [`CHUNK`] bytes; waits for the hasher to free one.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        let used = match self {
            Hasher::Inline { spare, .. } => std::mem::take(spare),
            Hasher::Thread(beside) => beside.empty.recv().unwrap_or_default(),
        };
        // The caller may still hold a clone; then a new buffer replaces it.
        let mut buffer = Arc::try_unwrap(used).unwrap_or_default();
        buffer.clear();
        buffer.reserve(CHUNK);
        buffer
    }

    /// Adds a buffer's bytes to the sum and passes them on. Fails as the output does, perhaps of
    /// an earlier buffer.
    pub(super) fn update(&mut self, chunk: Arc<Vec<u8>>) -> io::Result<()> {
        match self {
            Hasher::Inline { sha, spare, output } => {
                sha.update(chunk.as_slice());
                let written = output.write_all(&chunk);
                *spare = chunk;
                written
            }
            Hasher::Thread(beside) => match beside.full.send(chunk) {
                Ok(()) => Ok(()),
                // The thread ends before its work does only where the output failed.
                Err(_) => beside.end().map(|_| ()),
            },
        }
    }

    /// The sum of all bytes given, now that they have all been passed on.
    pub(super) fn finish(self) -> io::Result<Sha256Sum> {
        match self {
            Hasher::Inline { sha, .. } => Ok(Sha256Sum::from(*sha)),
            Hasher::Thread(HashThread { full, empty, thread }) => {
                drop((full, empty));
                ended(thread)
            }
        }
    }
}

impl<'scope> HashThread<'scope> {
    fn start<'env>(output: Output<'scope>, scope: &'scope Scope<'scope, 'env>) -> Hasher<'scope> {
        let (full, work) = sync_channel::<Arc<Vec<u8>>>(CHUNKS);
        let (done, empty) = sync_channel(CHUNKS);
        for _ in 0..CHUNKS {
            // Cannot fail or block: the channel was made with room for exactly these.
            let _ = done.send(Arc::default());
        }
        // A thread that cannot start must not take the output with it.
        let (give, taken) = sync_channel::<Output<'scope>>(1);
        let thread = Builder::new().name("sha256".to_owned()).spawn_scoped(scope, move || {
            let output = taken.recv().map_err(io::Error::other)?;
            let mut sha = Sha256::new();
            for chunk in work {
                sha.update(chunk.as_slice());
                output.write_all(&chunk)?;
                let _ = done.try_send(chunk); // nobody waits for it after the last one
            }
            Ok(Sha256Sum::from(sha))
        });
        match thread {
            Ok(thread) => {
                let _ = give.send(output); // the thread waits for it
                Hasher::Thread(HashThread { full, empty, thread: Some(thread) })
            }
            Err(error) => {
                log::debug!("cannot start a thread: {error}");
                Hasher::inline(output)
            }
        }
    }

    fn end(&mut self) -> io::Result<Sha256Sum> {
        ended(self.thread.take())
    }
}

/// What came of the hashing thread; a panic of its is passed on.
fn ended(thread: Option<ScopedJoinHandle<'_, io::Result<Sha256Sum>>>) -> io::Result<Sha256Sum> {
    let Some(thread) = thread else { return Err(io::Error::other("the output failed before")) };
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
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
        let long = vec![7; 2 * CHUNK + 5];
        assert_eq!(Sha256Sum::of_reader(&mut &long[..]).unwrap(), Sha256Sum::of(&long));
        for bad in ["", &empty[1..], &empty.to_uppercase(), &format!("{empty}0"), &"é".repeat(32)] {
            assert_eq!(bad.parse::<Sha256Sum>(), Err(NotASum), "{bad:?}");
        }
    }

    #[test]
    fn the_thread_and_the_inline_hasher_agree() {
        let data: Vec<u8> = (0..3_000_017u32).map(|i| ((i * 31) >> 3) as u8).collect();
        for size in [0, u64::MAX] {
            let mut output = Vec::new();
            let sum = std::thread::scope(|scope| pass(&data, Hasher::for_size(size, &mut output, scope)));
            assert_eq!(sum.unwrap(), Sha256Sum::of(&data));
            assert!(output == data);
        }
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
