//! Recipients and identities: X25519 keys as age writes them, and how they wrap a file key.
//!
//! A recipient is public. An identity and a file key are secrets: never shown, erased when dropped.

use super::header::{self, Stanza};
use super::{bech32, crypto};
use crate::object::Sha256Sum;
use std::fmt;
use std::str::FromStr;
use zeroize::{Zeroize, Zeroizing};

const RECIPIENT: &str = "age";
const IDENTITY: &str = "AGE-SECRET-KEY-";

/// The type of a key stanza.
pub const X25519: &str = "X25519";

/// The type of a passphrase's stanza, which age demands to be alone.
const SCRYPT: &str = "scrypt";

const WRAP: &[u8] = b"age-encryption.org/v1/X25519";

/// A public key, to encrypt for: `age1…`.
#[derive(Clone)]
pub struct Recipient {
    text: String,
    key: [u8; 32],
    id: Id,
    /// Under which the tags are made by which files are compared.
    tag_key: crypto::Key,
}

/// A private key: `AGE-SECRET-KEY-1…`.
#[derive(Clone)]
pub struct Identity {
    key: Zeroizing<[u8; 32]>,
    recipient: Recipient,
}

/// The key of one file.
#[derive(Clone)]
pub struct FileKey(Zeroizing<[u8; 16]>);

/// The first 16 digits of what tells recipients apart without being one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 8]);

/// Why a text is no key that is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Of an age plugin.
    Plugin,
    /// A post-quantum one.
    Hybrid,
    /// An SSH key.
    Ssh,
    /// An identity where a recipient belongs.
    Secret,
    /// A file of identities that is encrypted itself.
    Encrypted,
    NotAKey,
    /// A key whose results would be known to everybody.
    Weak,
    Refused(crypto::Refused),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyError::Plugin => "a key of an age plugin, and plugins are not run here",
            KeyError::Hybrid => "a post-quantum key, and those are not used yet",
            KeyError::Ssh => "an SSH key, and only age's own keys are used here",
            KeyError::Secret => "an identity, and here a recipient (age1…) belongs",
            KeyError::Encrypted => "encrypted with a passphrase, which nobody could enter here",
            KeyError::NotAKey => "not a key of age, or it was mistyped",
            KeyError::Weak => "a key that gives no secret",
            KeyError::Refused(refused) => return refused.fmt(f),
        })
    }
}

impl FromStr for Recipient {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let key = bech32::decode(RECIPIENT, text).and_then(|bytes| bytes.as_slice().try_into().ok());
        match key {
            Some(key) => Recipient::of(key),
            None => Err(what_else(text)),
        }
    }
}

fn what_else(text: &str) -> KeyError {
    let lower = text.get(..15).unwrap_or(text).to_ascii_lowercase();
    match lower.as_str() {
        _ if lower.starts_with("age1pq1") || lower.starts_with("age-secret-key-pq") => KeyError::Hybrid,
        // A plugin has a name of its own before the separator.
        _ if lower.starts_with("age-plugin-") => KeyError::Plugin,
        _ if lower.starts_with("age1") && text.get(4..).is_some_and(|rest| rest.contains('1')) => {
            KeyError::Plugin
        }
        _ if lower.starts_with("ssh-") || lower.starts_with("-----begin open") => KeyError::Ssh,
        _ if lower.starts_with("age-secret-key") => KeyError::Secret,
        _ if lower.starts_with("age-encryption") || lower.starts_with("-----begin age") => {
            KeyError::Encrypted
        }
        _ => KeyError::NotAKey,
    }
}

impl Recipient {
    fn of(key: [u8; 32]) -> Result<Self, KeyError> {
        // Any scalar tells: a point of low order gives zero with all of them.
        agreed(&[0x40; 32], &key).ok_or(KeyError::Weak)?;
        let text = bech32::encode(RECIPIENT, &key).to_string();
        let derived = |info| crypto::hkdf(&[], text.as_bytes(), info).map_err(KeyError::Refused);
        let (whole, tag_key) = (derived(b"wal-archive/2 id")?, derived(b"wal-archive/2 tag")?);
        let mut id = [0; 8];
        id.iter_mut().zip(whole.iter()).for_each(|(to, from)| *to = *from);
        Ok(Recipient { text, key, id: Id(id), tag_key })
    }

    /// As age writes it, in lower case.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn id(&self) -> Id {
        self.id
    }

    /// By which two files of one name are compared without a private key.
    pub(super) fn tag(&self, sha256: &Sha256Sum, name: impl fmt::Display) -> Sha256Sum {
        let mut message = sha256.bytes().to_vec();
        message.extend_from_slice(name.to_string().as_bytes());
        Sha256Sum::of_bytes(crypto::hmac(&self.tag_key, &message))
    }

    /// Wraps a file key, so that only the identity of this recipient finds it.
    pub(super) fn wrap(&self, file_key: &FileKey) -> Result<Stanza, crypto::Refused> {
        let ephemeral = crypto::random::<32>()?;
        let share = x25519_dalek::x25519(*ephemeral, x25519_dalek::X25519_BASEPOINT_BYTES);
        // A recipient is no point of low order (see `of`).
        let shared = agreed(&ephemeral, &self.key).ok_or(crypto::Refused)?;
        let body = crypto::seal_once(&wrapping_key(&shared, &share, &self.key)?, file_key.bytes())?;
        Ok(Stanza { tag: X25519.to_owned(), arguments: vec![header::base64(&share)], body })
    }
}

impl PartialEq for Recipient {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Recipient {}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Identity {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = bech32::decode(IDENTITY, text).ok_or_else(|| match what_else(text) {
            KeyError::Secret => KeyError::NotAKey,
            other => other,
        })?;
        let mut key = Zeroizing::new([0; 32]);
        if bytes.len() != key.len() {
            return Err(KeyError::NotAKey);
        }
        key.copy_from_slice(&bytes);
        Identity::of(key)
    }
}

impl Identity {
    fn of(key: Zeroizing<[u8; 32]>) -> Result<Self, KeyError> {
        let public = x25519_dalek::x25519(*key, x25519_dalek::X25519_BASEPOINT_BYTES);
        Ok(Identity { key, recipient: Recipient::of(public)? })
    }

    /// A new one, of the system's randomness.
    pub fn generate() -> Result<Self, KeyError> {
        Identity::of(crypto::random().map_err(KeyError::Refused)?)
    }

    /// The file of it, as `age-keygen` writes it.
    pub fn write(&self, created: &str) -> Zeroizing<String> {
        let mut secret = bech32::encode(IDENTITY, self.key.as_slice());
        secret.make_ascii_uppercase();
        let mut text = Zeroizing::new(String::with_capacity(256));
        for part in ["# created: ", created, "\n# public key: ", self.recipient.as_str(), "\n", &secret, "\n"]
        {
            text.push_str(part);
        }
        text
    }

    /// Whom to encrypt for, so that this one can read it.
    pub fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// The file key that a stanza wraps; `None` where it is for somebody else. The error: it is no such
    /// stanza at all.
    pub(super) fn unwrap(&self, stanza: &Stanza) -> Result<Option<FileKey>, header::Malformed> {
        let share = share(stanza)?;
        let shared = agreed(&self.key, &share).ok_or("a key stanza gives no secret")?;
        let opened = wrapping_key(&shared, &share, &self.recipient.key)
            .and_then(|key| crypto::open_once(&key, &stanza.body));
        let Ok(opened) = opened else { return Ok(None) };
        let mut file_key = FileKey(Zeroizing::new([0; 16]));
        if opened.len() != file_key.0.len() {
            return Err("a key stanza wraps a key of another length".to_owned());
        }
        file_key.0.copy_from_slice(&opened);
        Ok(Some(file_key))
    }
}

/// By the public half, so that no secret is compared byte by byte.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.recipient == other.recipient
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the identity of {}", self.recipient)
    }
}

/// Refuses key stanzas that no writer makes, whoever they are for.
pub(super) fn check(stanzas: &[Stanza]) -> Result<(), header::Malformed> {
    for stanza in stanzas {
        match stanza.tag.as_str() {
            X25519 => share(stanza).map(|_| ())?,
            SCRYPT => return Err("it has a passphrase beside other keys".to_owned()),
            _ => {}
        }
    }
    Ok(())
}

/// The ephemeral share of an X25519 stanza. The error: it is no such stanza.
fn share(stanza: &Stanza) -> Result<[u8; 32], header::Malformed> {
    let [share] = stanza.arguments.as_slice() else {
        return Err("a key stanza has not one argument".to_owned());
    };
    if stanza.body.len() != 32 {
        return Err(format!("the body of a key stanza has {} bytes, not 32", stanza.body.len()));
    }
    header::array(share.as_bytes()).ok_or_else(|| "the share of a key stanza is not 32 bytes".to_owned())
}

impl FileKey {
    pub(super) fn generate() -> Result<Self, crypto::Refused> {
        crypto::random().map(FileKey)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl Id {
    /// From its 16 digits.
    pub(super) fn parse(digits: &str) -> Option<Self> {
        let fits = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        u64::from_str_radix(digits, 16).ok().filter(|_| fits).map(|id| Id(id.to_be_bytes()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What both sides of an agreement know; `None` where everybody does.
fn agreed(secret: &[u8; 32], public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    let mut shared = x25519_dalek::x25519(*secret, *public);
    let kept = Zeroizing::new(shared);
    shared.zeroize();
    // In constant time, as the bytes are secret: no branch on a single one.
    let any = kept.iter().fold(0, |any, byte| any | byte);
    (any != 0).then_some(kept)
}

fn wrapping_key(
    shared: &[u8; 32],
    share: &[u8; 32],
    recipient: &[u8; 32],
) -> Result<crypto::Key, crypto::Refused> {
    let salt: Vec<u8> = share.iter().chain(recipient).copied().collect();
    crypto::hkdf(&salt, shared, WRAP)
}
