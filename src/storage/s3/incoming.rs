//! A body on its way in: whole, and not slower than a line that is of use.

use super::client;
use crate::storage::{Error, Kind};
use aws_sdk_s3::primitives::ByteStream;
use std::io::{self, Read};
use std::time::{Duration, Instant};

/// Until the next piece of a body.
const PIECE: Duration = Duration::from_secs(15);

/// The least that must come while it is waited for: `LEAST` bytes in each `WINDOW`.
const LEAST: u64 = 32 << 10;
const WINDOW: Duration = Duration::from_secs(30);

pub(super) struct Incoming {
    stream: ByteStream,
    piece: io::Cursor<Vec<u8>>,
    /// Bytes that must still come.
    left: u64,
    place: String,
    pace: Pace,
}

impl Incoming {
    /// A body of `len` bytes, neither fewer nor more.
    pub(super) fn new(stream: ByteStream, len: u64, place: String) -> Self {
        Incoming { stream, piece: io::Cursor::default(), left: len, place, pace: Pace::default() }
    }

    fn broken(&self, what: &str) -> Error {
        Error::new(Kind::Unavailable, format!("\"{}\": {what}", self.place))
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let runtime = client::runtime().map_err(io::Error::other)?;
            let start = Instant::now();
            let next = runtime.block_on(async { tokio::time::timeout(PIECE, self.stream.next()).await });
            let error = match next {
                Ok(Some(Ok(bytes))) => match self.left.checked_sub(bytes.len() as u64) {
                    Some(left) if self.pace.goes_on(bytes.len() as u64, start.elapsed()) || left == 0 => {
                        self.left = left;
                        self.piece = io::Cursor::new(bytes.into());
                        continue;
                    }
                    Some(_) => self.broken("a body comes too slowly"),
                    None => self.broken("a body is longer than it was said to be"),
                },
                Ok(None) if self.left == 0 => return Ok(0),
                Ok(None) => self.broken("a body was cut"),
                Ok(Some(Err(error))) => self.broken("a body broke off").caused_by(error),
                Err(_) => self.broken("a body stalled"),
            };
            return Err(io::Error::other(error));
        }
    }
}

/// How fast bytes come, counting only the time that somebody waited for them: a reader that is
/// slow itself proves nothing about the line.
#[derive(Default)]
struct Pace {
    bytes: u64,
    waited: Duration,
}

impl Pace {
    /// Counts a piece; whether enough came.
    fn goes_on(&mut self, bytes: u64, waited: Duration) -> bool {
        self.bytes += bytes;
        self.waited += waited;
        if self.waited < WINDOW {
            return true;
        }
        let enough = self.bytes >= LEAST;
        *self = Pace::default();
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drip_ends_and_a_slow_line_does_not() {
        let lasts = |bytes: u64, waited: u64| {
            let mut pace = Pace::default();
            (0..10_000).take_while(|_| pace.goes_on(bytes, Duration::from_millis(waited))).count()
        };
        assert_eq!(lasts(1, 1000), 29, "a byte a second");
        assert_eq!(lasts(1000, 1000), 29, "an object of 16 MiB would take five hours");
        assert_eq!(lasts(1200, 1000), 10_000);
        assert_eq!(lasts(1, 0), 10_000, "nobody waited");
    }
}
