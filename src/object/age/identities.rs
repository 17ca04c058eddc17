//! The identities that are at hand, from age's own file of them, and the recipients of another one.

use super::header::{Header, Malformed};
use super::keys::{FileKey, Identity, KeyError, Recipient, X25519, check};
use crate::object::Sha256Sum;

/// Private keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities(Vec<Identity>);

impl Identities {
    pub const NONE: Self = Identities(Vec::new());

    /// Reads age's file of identities: one a line, comments begin with `#`. The error tells the line.
    pub fn parse(text: &str) -> Result<Self, (usize, KeyError)> {
        let identities = lines(text)?;
        if identities.is_empty() { Err((1, KeyError::NotAKey)) } else { Ok(Identities(identities)) }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By which sets of them are told apart; it says nothing of the keys.
    pub fn sum(&self) -> Sha256Sum {
        let ids: String = self.iter().map(|identity| identity.recipient().id().to_string()).collect();
        Sha256Sum::of(ids.as_bytes())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Identity> {
        self.0.iter()
    }

    /// The first that fits one of the header's keys, and the file key that it finds.
    pub(super) fn unwrap(&self, header: &Header) -> Result<Option<(&Identity, FileKey)>, Malformed> {
        check(&header.stanzas)?;
        for stanza in header.stanzas.iter().filter(|stanza| stanza.tag == X25519) {
            for identity in self.0.iter() {
                if let Some(file_key) = identity.unwrap(stanza)? {
                    return Ok(Some((identity, file_key)));
                }
            }
        }
        Ok(None)
    }
}

/// Reads a file of recipients, of the same form.
pub fn recipients(text: &str) -> Result<Vec<Recipient>, (usize, KeyError)> {
    lines(text)
}

fn lines<T: std::str::FromStr<Err = KeyError>>(text: &str) -> Result<Vec<T>, (usize, KeyError)> {
    let mut read = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end();
        if !line.is_empty() && !line.starts_with('#') {
            read.push(line.parse().map_err(|error| (number, error))?);
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_identities_is_read_as_it_was_written() {
        let identity = Identity::generate().unwrap();
        let text = identity.write("2026-11-26T00:00:00Z");
        let read = Identities::parse(&text).unwrap();
        let recipients: Vec<_> = read.iter().map(Identity::recipient).collect();
        assert_eq!(recipients, [identity.recipient()]);
        assert!(text.contains(&format!("# public key: {}\n", identity.recipient())));
        let secret = text.lines().last().unwrap();
        assert!(secret.starts_with("AGE-SECRET-KEY-1"));
        assert!(!format!("{read:?} {identity:?}").contains(secret.get(16..24).unwrap()));
        assert_eq!(identity.recipient().to_string().parse::<Recipient>().as_ref(), Ok(identity.recipient()));
    }

    #[test]
    fn what_is_no_identity_is_told_by_what_it_is() {
        let secret = Identity::generate().unwrap().write("");
        let secret = secret.lines().last().unwrap();
        for (text, line, error) in [
            ("", 1, KeyError::NotAKey),
            ("# only a comment\n", 1, KeyError::NotAKey),
            (&format!("\n{}\n", secret.to_lowercase()), 2, KeyError::NotAKey),
            ("AGE-PLUGIN-YUBIKEY-1QQQQ", 1, KeyError::Plugin),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", 1, KeyError::Ssh),
            ("-----BEGIN AGE ENCRYPTED FILE-----", 1, KeyError::Encrypted),
            ("age-encryption.org/v1\n-> scrypt", 1, KeyError::Encrypted),
        ] {
            assert_eq!(Identities::parse(text).err(), Some((line, error)), "{text}");
        }
        for (text, error) in [
            (secret, KeyError::Secret),
            ("age1yubikey1q2w7u3vpya839jxxuq8g0sedh3d740d4xvn639sqhr95ejj8vu3hyfumptt", KeyError::Plugin),
            ("ssh-ed25519 AAAA", KeyError::Ssh),
            ("age1pq1xxxx", KeyError::Hybrid),
            ("age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq", KeyError::NotAKey),
        ] {
            assert_eq!(recipients(text).err(), Some((1, error)), "{text}");
        }
    }
}
