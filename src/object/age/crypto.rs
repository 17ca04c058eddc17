//! The few functions of `ring` that age needs, each with one meaning here.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hkdf, hmac};
use std::fmt;
use zeroize::Zeroizing;

pub(super) type Key = Zeroizing<[u8; 32]>;

/// The length of an authentication tag.
pub(super) const TAG: usize = 16;

/// The system gave no random bytes, or the library refused a key or a message. Never a matter of what was
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system gives no random bytes, or its cryptography does not work")
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for std::io::Error {
    fn from(refused: Refused) -> Self {
        std::io::Error::other(refused)
    }
}

/// Bytes of the system's generator.
pub(super) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Refused> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| Refused)?;
    Ok(bytes)
}

struct Len32;

impl hkdf::KeyType for Len32 {
    fn len(&self) -> usize {
        32
    }
}

/// HKDF-SHA-256, 32 bytes.
pub(super) fn hkdf(salt: &[u8], secret: &[u8], info: &[u8]) -> Result<Key, Refused> {
    let mut key = Zeroizing::new([0; 32]);
    let extracted = Salt::new(HKDF_SHA256, salt).extract(secret);
    let info = [info];
    let expanded = extracted.expand(&info, Len32).map_err(|_| Refused)?;
    expanded.fill(key.as_mut_slice()).map_err(|_| Refused)?;
    Ok(key)
}

/// HMAC-SHA-256.
pub(super) fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

/// Whether this is the HMAC-SHA-256, in constant time.
pub(super) fn hmac_is(key: &[u8; 32], message: &[u8], tag: &[u8; 32]) -> bool {
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), message, tag).is_ok()
}

/// ChaCha20-Poly1305 under one key.
pub(super) struct Cipher(LessSafeKey);

impl Cipher {
    pub(super) fn new(key: &Key) -> Result<Self, Refused> {
        UnboundKey::new(&CHACHA20_POLY1305, key.as_slice())
            .map(|key| Cipher(LessSafeKey::new(key)))
            .map_err(|_| Refused)
    }

    /// Encrypts in place and adds the tag.
    pub(super) fn seal(&self, nonce: [u8; 12], bytes: &mut Vec<u8>) -> Result<(), Refused> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::empty(), bytes).map_err(|_| Refused)?;
        bytes.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Decrypts in place and takes the tag off; the bytes are worthless where that fails.
    pub(super) fn open(&self, nonce: [u8; 12], bytes: &mut Vec<u8>) -> Result<(), Refused> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let len = self.0.open_in_place(nonce, Aad::empty(), bytes).map_err(|_| Refused)?.len();
        bytes.truncate(len);
        Ok(())
    }
}

/// Under a key that is used for nothing else.
pub(super) fn seal_once(key: &Key, bytes: &[u8]) -> Result<Vec<u8>, Refused> {
    let mut sealed = bytes.to_vec();
    Cipher::new(key)?.seal([0; 12], &mut sealed)?;
    Ok(sealed)
}

pub(super) fn open_once(key: &Key, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let mut opened = Zeroizing::new(bytes.to_vec());
    Cipher::new(key)?.open([0; 12], &mut opened)?;
    Ok(opened)
}
