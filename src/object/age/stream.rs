//! The payload of an age file: a nonce, then chunks of 64 KiB, each encrypted and authenticated, the last
//! one marked as such.
//!
//! What the decryptor gives was authenticated, and that nothing is missing shows at its end.

use super::crypto::{self, Cipher, TAG};
use super::keys::FileKey;
use std::io::{self, Read, Write};
use zeroize::Zeroizing;

/// Bytes of content in a full chunk.
const CHUNK: usize = 64 * 1024;

/// Of the payload's key.
const NONCE: usize = 16;

/// The bytes of a payload that holds so many of content.
#[cfg(test)]
pub(super) fn sealed_len(content: u64) -> u64 {
    NONCE as u64 + content + content.div_ceil(CHUNK as u64).max(1) * TAG as u64
}

fn cipher(file_key: &FileKey, nonce: &[u8]) -> Result<Cipher, crypto::Refused> {
    Cipher::new(&crypto::hkdf(nonce, file_key.bytes(), b"payload")?)
}

/// Counts chunks: 11 bytes, big-endian, and the mark of the last one.
#[derive(Default)]
struct Counter(u64);

impl Counter {
    /// The nonce of the next chunk; `None` after the last one that can be counted.
    fn next(&mut self, last: bool) -> Option<[u8; 12]> {
        let mut nonce = [0; 12];
        let (number, mark) = (self.0.to_be_bytes(), u8::from(last));
        nonce.iter_mut().skip(3).zip(number.into_iter().chain([mark])).for_each(|(to, from)| *to = from);
        self.0 = self.0.checked_add(1)?;
        Some(nonce)
    }
}

/// Encrypts what is written to it.
pub(super) struct Encryptor<W> {
    cipher: Cipher,
    counter: Counter,
    /// Content of the next chunk.
    chunk: Zeroizing<Vec<u8>>,
    output: W,
}

impl<W: Write> Encryptor<W> {
    /// Writes the nonce.
    pub(super) fn begin(file_key: &FileKey, mut output: W) -> io::Result<Self> {
        let nonce = crypto::random::<NONCE>()?;
        output.write_all(nonce.as_slice())?;
        let chunk = Zeroizing::new(Vec::with_capacity(CHUNK + TAG));
        Ok(Encryptor {
            cipher: cipher(file_key, nonce.as_slice())?,
            counter: Counter::default(),
            chunk,
            output,
        })
    }

    /// Writes the last chunk, without which nothing of the payload can be believed.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write_chunk(true)?;
        Ok(self.output)
    }

    fn write_chunk(&mut self, last: bool) -> io::Result<()> {
        let nonce = self.counter.next(last).ok_or(crypto::Refused)?;
        self.cipher.seal(nonce, &mut self.chunk)?;
        self.output.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }
}

impl<W: Write> Write for Encryptor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk is written once it is known not to be the last one.
        if self.chunk.len() == CHUNK && !bytes.is_empty() {
            self.write_chunk(false)?;
        }
        let piece = bytes.get(..CHUNK - self.chunk.len()).unwrap_or(bytes);
        self.chunk.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decrypts the payload that a reader gives. An error that is not the reader's own is damage.
pub(super) struct Decryptor<'a> {
    file_key: &'a FileKey,
    /// Once the nonce was read.
    cipher: Option<Cipher>,
    counter: Counter,
    source: &'a mut dyn Read,
    /// The encrypted bytes that were read, one more than a chunk where another one follows. Held content before.
    ahead: Zeroizing<Vec<u8>>,
    /// Authenticated content.
    content: Zeroizing<Vec<u8>>,
    /// How much of it was given.
    given: usize,
    last: bool,
    damage: Option<&'static str>,
}

impl<'a> Decryptor<'a> {
    pub(super) fn new(file_key: &'a FileKey, source: &'a mut dyn Read) -> Self {
        Decryptor {
            file_key,
            cipher: None,
            counter: Counter::default(),
            source,
            ahead: Zeroizing::new(Vec::with_capacity(CHUNK + TAG + 1)),
            content: Zeroizing::new(Vec::with_capacity(CHUNK + TAG + 1)),
            given: 0,
            last: false,
            damage: None,
        }
    }

    /// Why the payload is not what was encrypted.
    pub(super) fn damage(&self) -> Option<&'static str> {
        self.damage
    }

    fn damaged<T>(&mut self, reason: &'static str) -> io::Result<T> {
        self.damage = Some(reason);
        Err(io::Error::new(io::ErrorKind::InvalidData, reason))
    }

    fn fill(&mut self, len: usize) -> io::Result<()> {
        let missing = len.saturating_sub(self.ahead.len());
        self.source.take(missing as u64).read_to_end(&mut self.ahead).map(drop)
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        if let Some(reason) = self.damage {
            return self.damaged(reason);
        }
        if self.cipher.is_none() {
            self.fill(NONCE)?;
            if self.ahead.len() < NONCE {
                return self.damaged("its payload is cut");
            }
            self.cipher = Some(cipher(self.file_key, &self.ahead)?);
            self.ahead.clear();
        }
        self.fill(CHUNK + TAG + 1)?;
        let next = self.ahead.get(CHUNK + TAG).copied();
        self.last = next.is_none();
        // Both have room for a chunk; where it was read, it is decrypted.
        std::mem::swap(&mut self.content, &mut self.ahead);
        self.content.truncate(CHUNK + TAG);
        self.ahead.clear();
        self.ahead.extend(next);
        self.given = 0;
        let is_first = self.counter.0 == 0;
        let nonce = self.counter.next(self.last).ok_or(crypto::Refused)?;
        let Some(cipher) = &self.cipher else { return self.damaged("its payload is cut") };
        if cipher.open(nonce, &mut self.content).is_err() {
            self.content.clear();
            return self.damaged("its payload is damaged, cut or followed by more");
        }
        if self.content.is_empty() && !is_first {
            return self.damaged("its last chunk is empty");
        }
        Ok(())
    }
}

impl Read for Decryptor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.content.len() {
            if self.last && self.damage.is_none() {
                return Ok(0);
            }
            self.next_chunk()?;
        }
        let mut left = self.content.get(self.given..).unwrap_or_default();
        let read = left.read(buffer)?;
        self.given += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: &FileKey, content: &[u8], piece: usize) -> Vec<u8> {
        let mut encryptor = Encryptor::begin(key, Vec::new()).unwrap();
        content.chunks(piece).for_each(|piece| encryptor.write_all(piece).unwrap());
        encryptor.finish().unwrap()
    }

    fn opened(key: &FileKey, mut payload: &[u8]) -> Result<Vec<u8>, Option<&'static str>> {
        let mut content = Vec::new();
        let mut decryptor = Decryptor::new(key, &mut payload);
        let read = decryptor.read_to_end(&mut content);
        assert_eq!(read.is_err(), decryptor.damage().is_some());
        read.map(|_| content).map_err(|_| decryptor.damage())
    }

    #[test]
    fn a_payload_of_any_length_is_read_as_it_was_written_and_never_a_part_of_it() {
        let key = FileKey::generate().unwrap();
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 5] {
            let content: Vec<u8> = (0..len).map(|at| (at >> 3) as u8).collect();
            let payload = sealed(&key, &content, 10_007);
            assert_eq!(payload.len() as u64, sealed_len(len as u64));
            assert!(opened(&key, &payload) == Ok(content));
            for cut in [0, 1, NONCE, NONCE + 5, NONCE + TAG, CHUNK + NONCE + TAG, payload.len() - 1] {
                if cut < payload.len() {
                    assert!(opened(&key, &payload[..cut]).is_err(), "{cut} of {len}");
                }
            }
            let more: Vec<u8> = payload.iter().copied().chain([0]).collect();
            assert!(opened(&key, &more).is_err());
            assert!(opened(&FileKey::generate().unwrap(), &payload).is_err());
        }
    }

    #[test]
    fn a_source_that_fails_is_no_damage() {
        struct Broken(usize);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let read = buffer.len().min(self.0);
                self.0 -= read;
                if read == 0 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(read) }
            }
        }
        let key = FileKey::generate().unwrap();
        for len in [0, 20, CHUNK] {
            let mut source = Broken(len);
            let mut decryptor = Decryptor::new(&key, &mut source);
            let error = decryptor.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!((error.kind(), decryptor.damage()), (io::ErrorKind::ConnectionReset, None), "{len}");
        }
    }

    #[test]
    fn a_counter_ends_before_it_would_repeat_a_nonce() {
        let mut counter = Counter(u64::MAX - 1);
        assert_eq!(counter.next(true), Some([0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 254, 1]));
        assert_eq!(counter.next(false), None);
    }
}
