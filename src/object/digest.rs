//! SHA-256: the sum as a value.

use sha2::{Digest, Sha256};
use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

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

    pub(super) fn of_bytes(bytes: [u8; 32]) -> Self {
        Sha256Sum(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
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

/// Bytes that are hashed, decoded or written at once.
pub(super) const CHUNK: usize = 128 * 1024;

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
}
