//! A sealed object written and read.

use super::crypto;
use super::header::{Header, MAX_LEN, Malformed};
use super::identities::Identities;
use super::keys::{FileKey, Recipient};
use super::seal::{Name, Seal, Tagged};
use super::stream::{Decryptor, Encryptor};
use crate::object::hasher::Output;
use crate::object::proof::damaged;
use crate::object::{Checks, DecodeError, Decoded, Sha256Sum, Trailer, codec};
use crate::wal::WalName;
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};

/// Encrypts an object of version 1 that is written to it. The payload goes to the output; the header,
/// which says how long that is, comes at the end.
pub struct Sealer<'a, W> {
    recipients: &'a [Recipient],
    key: FileKey,
    payload: Encryptor<Hashed<W>>,
}

/// What is to stand before the payload, and what reads it again.
pub struct Sealed<N = WalName> {
    pub header: Vec<u8>,
    pub seal: Seal<N>,
    pub key: FileKey,
}

impl<'a, W: Write> Sealer<'a, W> {
    /// `recipients`: 1 to [`MAX_RECIPIENTS`](super::MAX_RECIPIENTS).
    pub fn begin(recipients: &'a [Recipient], output: W) -> io::Result<Self> {
        let key = FileKey::generate()?;
        let payload = Encryptor::begin(&key, Hashed { inner: output, sha: Sha256::new(), len: 0 })?;
        Ok(Sealer { recipients, key, payload })
    }

    /// Ends the payload. `trailer`: the one of the object that was written.
    pub fn finish<N: Name>(self, trailer: &Trailer<N>) -> io::Result<(W, Sealed<N>)> {
        let Sealer { recipients, key, payload } = self;
        let Hashed { inner, sha, len } = payload.finish()?;
        let tagged = |recipient: &Recipient| Tagged {
            id: recipient.id(),
            tag: recipient.tag(&trailer.sha256, &trailer.name),
        };
        let seal = Seal {
            name: trailer.name.clone(),
            size: trailer.size,
            payload: len,
            stored: Sha256Sum::from(sha),
            recipients: recipients.iter().map(tagged).collect(),
            system_id: trailer.system_id,
        };
        let keys = recipients.iter().map(|recipient| recipient.wrap(&key)).collect::<Result<Vec<_>, _>>()?;
        let mac_key = mac_key(&key)?;
        let header = seal.write(&keys, |text| crypto::hmac(&mac_key, text)).map_err(io::Error::other)?;
        Ok((inner, Sealed { header: header.text().to_vec(), seal, key }))
    }
}

impl<W: Write> Write for Sealer<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.payload.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a sealed object held.
#[derive(Debug)]
pub enum Content<T = Decoded, N = WalName> {
    /// It was proved; what is said of it where it was encrypted.
    Open(T, Option<Seal<N>>),
    /// No identity fits. The stored bytes are those that were written.
    Shut(Seal<N>),
}

/// Reads and proves a sealed WAL file. What was written to `output` is the file only where it is
/// [`Content::Open`].
pub fn decode(
    name: WalName,
    checks: Checks,
    identities: &Identities,
    object: &mut dyn Read,
    output: Output<'_>,
) -> Result<Content, DecodeError> {
    open(&name, identities, object, |content| decode_wal(name, checks, content, output))
}

/// Reads a sealed object of `name`. `prove` reads and proves the object of version 1 in it to its end, and
/// tells its trailer; what it makes of it is worth something only where it is [`Content::Open`].
pub fn open<N: Name, T>(
    name: &N,
    identities: &Identities,
    object: &mut dyn Read,
    prove: impl FnOnce(&mut dyn Read) -> Result<(T, Trailer<N>), DecodeError>,
) -> Result<Content<T, N>, DecodeError> {
    let (header, rest) = read_header(object)?;
    let seal: Seal<N> = Seal::read(&header).map_err(DecodeError::Damaged)?;
    if seal.name != *name {
        return damaged(format!("it is the object of \"{}\"", seal.name));
    }
    let mut payload = Hashed { inner: rest.as_slice().chain(object), sha: Sha256::new(), len: 0 };
    let unwrapped = identities.unwrap(&header).map_err(DecodeError::Damaged)?;
    let Some((identity, key)) = unwrapped else {
        io::copy(&mut payload, &mut io::sink()).map_err(DecodeError::Read)?;
        payload.check(&seal)?;
        return Ok(Content::Shut(seal));
    };
    if !mac_fits(&key, &header)? {
        return damaged("its header is not what was written (the MAC differs)".to_owned());
    }
    let (proved, trailer) = decode_payload(&key, &mut payload, prove)?;
    payload.check(&seal)?;
    if (seal.size, seal.system_id) != (trailer.size, trailer.system_id) {
        // What everybody can read must be what only the identity shows.
        return damaged(
            "its content is not what its public stanza says (size or cluster differs)".to_owned(),
        );
    }
    let recipient = identity.recipient();
    let tag = seal.recipients.iter().find(|one| one.id == recipient.id()).map(|one| one.tag);
    if tag != Some(recipient.tag(&trailer.sha256, name)) {
        return damaged("its content is not what its public stanza says (the tag differs)".to_owned());
    }
    Ok(Content::Open(proved, Some(seal)))
}

/// Reads and proves a WAL file that this process has sealed itself.
pub fn decode_with(
    key: &FileKey,
    name: WalName,
    checks: Checks,
    object: &mut dyn Read,
    output: Output<'_>,
) -> Result<Decoded, DecodeError> {
    let (_, rest) = read_header(object)?;
    let payload = &mut rest.as_slice().chain(object);
    let decoded = decode_payload(key, payload, |content| decode_wal(name, checks, content, output));
    decoded.map(|(decoded, _)| decoded)
}

/// What an object says of itself, by its first [`MAX_HEADER`](super::MAX_HEADER) bytes and its length; and
/// the bytes of its header.
pub fn read_seal(beginning: &[u8], object_len: u64) -> Result<(Seal, Vec<u8>), Malformed> {
    let header = Header::read(beginning)?;
    let seal = Seal::read(&header)?;
    let expected = seal.payload.saturating_add(header.text().len() as u64);
    if expected != object_len {
        return Err(format!("it has {object_len} bytes, by its header {expected}"));
    }
    Ok((seal, header.text().to_vec()))
}

/// Whether one of the identities decrypts the object with this header.
pub fn opens(identities: &Identities, header: &[u8]) -> bool {
    let Ok(header) = Header::read(header) else { return false };
    let fits = |key: &FileKey| matches!(mac_fits(key, &header), Ok(true));
    identities.unwrap(&header).is_ok_and(|found| found.is_some_and(|(_, key)| fits(&key)))
}

/// The header, and what was read beyond it.
fn read_header(object: &mut dyn Read) -> Result<(Header, Vec<u8>), DecodeError> {
    let mut bytes = Vec::with_capacity(MAX_LEN);
    object.take(MAX_LEN as u64).read_to_end(&mut bytes).map_err(DecodeError::Read)?;
    let header = Header::read(&bytes).map_err(DecodeError::Damaged)?;
    bytes.drain(..header.text().len());
    Ok((header, bytes))
}

fn decode_payload<T>(
    key: &FileKey,
    payload: &mut dyn Read,
    prove: impl FnOnce(&mut dyn Read) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut content = Decryptor::new(key, payload);
    let proved = prove(&mut content);
    match content.damage() {
        Some(reason) => damaged(reason.to_owned()),
        None => proved,
    }
}

fn decode_wal(
    name: WalName,
    checks: Checks,
    content: &mut dyn Read,
    output: Output<'_>,
) -> Result<(Decoded, Trailer), DecodeError> {
    let decoded = codec::decode(name, checks, content, output)?;
    match decoded.trailer.clone() {
        Some(trailer) => Ok((decoded, trailer)),
        None => damaged("what it encrypts has no trailer of this archive".to_owned()),
    }
}

fn mac_key(key: &FileKey) -> Result<crypto::Key, crypto::Refused> {
    crypto::hkdf(&[], key.bytes(), b"header")
}

pub(super) fn mac_fits(key: &FileKey, header: &Header) -> Result<bool, DecodeError> {
    let mac_key = mac_key(key).map_err(|refused| DecodeError::Read(refused.into()))?;
    Ok(crypto::hmac_is(&mac_key, header.authenticated(), &header.mac))
}

/// Counts and sums what passes.
struct Hashed<T> {
    inner: T,
    sha: Sha256,
    len: u64,
}

impl<T> Hashed<T> {
    fn note(&mut self, bytes: &[u8]) {
        self.sha.update(bytes);
        self.len += bytes.len() as u64;
    }

    /// Whether it was the payload of which the seal speaks.
    fn check<N>(self, seal: &Seal<N>) -> Result<(), DecodeError> {
        if self.len != seal.payload {
            return damaged(format!(
                "it has {} bytes behind its header, which says {}",
                self.len, seal.payload
            ));
        }
        if Sha256Sum::from(self.sha) != seal.stored {
            return damaged("its stored bytes are not those that were written (sha256 differs)".to_owned());
        }
        Ok(())
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.note(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.note(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}
