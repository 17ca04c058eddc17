//! One object as it is stored: plain, encrypted, or both where destinations differ.
//!
//! Encrypted on the way, so that no plain copy of it is kept, and encrypted once: all destinations and all
//! attempts get the same bytes. This process reads them again with the key of that one object.

use crate::object::age::{self, Name, Recipient, Seal, Sealed, Sealer};
use crate::object::{Checks, DecodeError, Decoded, Encryption, Trailer, decode};
use crate::storage::{Body, BodyWriter, Shared};
use crate::wal::WalName;
use std::io::{self, Write};

/// In which forms objects are needed.
#[derive(Clone, Debug)]
pub struct Forms {
    plain: bool,
    /// For whom they are encrypted; none: not at all.
    recipients: Vec<Recipient>,
}

impl Forms {
    /// As all of them store objects. One set of recipients serves those that encrypt.
    pub fn of<'a>(destinations: impl IntoIterator<Item = &'a Shared>) -> Self {
        let mut forms = Forms { plain: false, recipients: Vec::new() };
        for destination in destinations {
            match destination.keys().writes() {
                Encryption::None => forms.plain = true,
                Encryption::Age => forms.recipients.clone_from(&destination.keys().recipients),
            }
        }
        forms
    }

    /// Takes what an encoder writes. `room`: for one form.
    pub fn writer(&self, room: impl Fn() -> BodyWriter) -> io::Result<FormsWriter<'_>> {
        let sealed = match self.recipients.is_empty() {
            true => None,
            false => Some(Sealer::begin(&self.recipients, room())?),
        };
        Ok(FormsWriter { plain: (self.plain || sealed.is_none()).then(&room), sealed })
    }
}

/// See [`Forms::writer`].
pub struct FormsWriter<'a> {
    plain: Option<BodyWriter>,
    sealed: Option<Sealer<'a, BodyWriter>>,
}

impl Write for FormsWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(plain) = &mut self.plain {
            plain.write_all(bytes)?;
        }
        if let Some(sealed) = &mut self.sealed {
            sealed.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FormsWriter<'_> {
    /// `trailer`: of the object that was written.
    pub fn finish<N: Name>(self, trailer: &Trailer<N>) -> io::Result<Objects<N>> {
        let sealed = match self.sealed {
            None => None,
            Some(sealer) => {
                let (payload, sealed) = sealer.finish(trailer)?;
                Some((payload.finish_behind(&sealed.header), sealed))
            }
        };
        Ok(Objects { plain: self.plain.map(BodyWriter::finish), sealed })
    }
}

/// The stored forms of one object.
pub struct Objects<N = WalName> {
    plain: Option<Body>,
    sealed: Option<(Body, Sealed<N>)>,
}

impl<N> Objects<N> {
    /// The stored bytes; `None` where this form was not needed.
    pub fn stored(&self, encryption: Encryption) -> Option<&Body> {
        match encryption {
            Encryption::None => self.plain.as_ref(),
            Encryption::Age => self.sealed.as_ref().map(|(body, _)| body),
        }
    }

    /// What the encrypted form says of itself, and its header.
    pub fn seal(&self) -> Option<(&Seal<N>, &[u8])> {
        self.sealed.as_ref().map(|(_, sealed)| (&sealed.seal, sealed.header.as_slice()))
    }
}

impl Objects {
    /// Decodes and proves the very bytes that are to be stored.
    pub fn decode(
        &self,
        name: WalName,
        checks: Checks,
        output: &mut (dyn Write + Send),
    ) -> Result<Decoded, DecodeError> {
        match (&self.sealed, &self.plain) {
            (Some((body, sealed)), _) => {
                age::decode_with(&sealed.key, name, checks, &mut body.reader(), output)
            }
            (None, Some(body)) => decode(name, checks, &mut body.reader(), output),
            (None, None) => Err(DecodeError::Damaged("there is nothing".to_owned())),
        }
    }
}
