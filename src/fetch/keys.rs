//! Whether the private keys at hand decrypt an archive, before it is said of a file that it is not there.
//!
//! With the wrong key nothing can be said: what a history shows is not seen. Nothing in a listing tells for
//! whom an object is encrypted, so the headers of a few are tried, and the spool remembers for a day that one of
//! them was decrypted.

use super::asking::Asking;
use super::{Cause, explain, failed};
use crate::archive::lookup::{self, Around};
use crate::archive::object::{Label, SHUT_HINT, Verdict, label};
use crate::failure::Failure;
use crate::object::{Encoding, Encryption, Key, Stored, age};
use crate::storage::{Kind, Storage};
use crate::wal::{SegmentName, SegmentSize, WalName};
use std::time::SystemTime;

impl Asking<'_> {
    /// An error where nothing that was tried can be decrypted. An archive without an object proves nothing
    /// else, either.
    pub(super) fn prove_keys(
        &self,
        storage: &dyn Storage,
        around: &Around,
        size: Option<SegmentSize>,
    ) -> Result<(), Failure<Cause>> {
        if self.has_opened(storage) {
            return Ok(());
        }
        let previous = self.previous(size);
        let mut keys: Vec<Key> = previous.iter().cloned().collect();
        keys.extend(around.samples.iter().filter(|key| previous.as_ref() != Some(*key)).cloned());
        let mut tried = self.try_keys(storage, &keys)?;
        if let Tried::Nothing = tried {
            let sample = lookup::sample(storage, true, lookup::SAMPLE).map_err(|error| failed(&error))?;
            tried = self.try_keys(storage, &sample.keys)?;
        }
        match tried {
            Tried::Opened => self.note_opened(storage),
            Tried::Nothing => {}
            Tried::Failed(failure) => return Err(*failure),
        }
        Ok(())
    }

    /// Notes that an object was decrypted.
    pub(super) fn note_opened(&self, storage: &dyn Storage) {
        let Some(spool) = self.context.spool.as_ref().filter(|_| !self.has_opened(storage)) else { return };
        let sum = storage.keys().identities.sum();
        if let Err(error) = spool.note_opened(&storage.address(), &sum, SystemTime::now()) {
            log::debug!("cannot write to the spool \"{}\": {error}", spool.folder().display());
        }
    }

    fn has_opened(&self, storage: &dyn Storage) -> bool {
        let sum = storage.keys().identities.sum();
        let spool = self.context.spool.as_ref();
        spool.is_some_and(|spool| spool.has_opened(&storage.address(), &sum, SystemTime::now()))
    }

    /// The object of the segment before the one that is asked for: at the end of a recovery the newest.
    fn previous(&self, size: Option<SegmentSize>) -> Option<Key> {
        let WalName::Segment(segment) = self.name else { return None };
        let size = self.segment_size.or(size)?;
        let number = segment.number(size)?.checked_sub(1)?;
        let previous = SegmentName::numbered(segment.timeline(), number, size);
        Some(Key::of(WalName::Segment(previous), Encryption::Age))
    }

    fn try_keys(&self, storage: &dyn Storage, keys: &[Key]) -> Result<Tried, Failure<Cause>> {
        let mut tried = Tried::Nothing;
        for key in keys.iter().filter(|key| Stored::of(key).encoding() == Some(Encoding::Age)) {
            let failure = match label(storage, key) {
                Ok(Label::Sealed(_, header)) if age::opens(&storage.keys().identities, &header) => {
                    return Ok(Tried::Opened);
                }
                Ok(Label::Sealed(seal, _)) => {
                    let what = format!("\"{}/{key}\" is {}", storage.place(), Verdict::Shut(seal));
                    Failure::new(Cause::Refused, what).hint(SHUT_HINT)
                }
                Ok(Label::Damaged(reason)) => {
                    Failure { kind: Cause::Refused, ..explain::damaged(storage.place(), key, &reason) }
                }
                Ok(Label::None | Label::Ours(_)) => continue,
                Err(error) if error.kind() == Kind::NotFound => continue,
                Err(error) => return Err(failed(&error)),
            };
            if let Tried::Nothing = tried {
                tried = Tried::Failed(Box::new(failure));
            }
        }
        Ok(tried)
    }
}

/// What became of trying to decrypt some objects.
enum Tried {
    /// There was none.
    Nothing,
    /// One of them can be decrypted.
    Opened,
    /// None of them; why not the first.
    Failed(Box<Failure<Cause>>),
}
