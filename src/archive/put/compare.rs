//! What stands under a key already, against what is to be stored there.

use super::{Result, failed};
use crate::archive::intake::{Cause, Rules, Source};
use crate::archive::lookup;
use crate::failure::{self, Failure};
use crate::object::{DecodeError, Decoded, Encoding, Key, decode_as};
use crate::storage::{Error, Kind, Range, Storage};
use crate::wal::{FirstPage, Lsn, SystemId};
use std::io;
use std::time::SystemTime;

/// What stands under a key.
pub(super) enum Stood {
    /// Our bytes, durable; whether this call put them there.
    Identical {
        /// Or somebody had before.
        created: bool,
    },
    /// Other bytes, intact; when they were stored.
    Different(Box<(Decoded, SystemTime)>),
}

/// Why what stands under a key could not be compared.
pub(super) enum Compare {
    /// It is not there any more.
    Gone(Error),
    Failed(Failure<Cause>),
}

impl Source {
    /// Looks for what other tools stored under the name. Where they stored it, all copies must be
    /// the same as ours, the one under our own key included.
    pub(super) fn find_foreign(
        &self,
        rules: &Rules<'_>,
        storage: &dyn Storage,
        own: &Key,
    ) -> Result<Option<(Key, Encoding, Stood)>> {
        let around = lookup::copies(storage, self.name, true).map_err(|error| failed(&error))?;
        if let Some(key) = around.unknown {
            return Err(Failure::new(
                Cause::Conflict,
                format!(
                    "\"{}/{key}\" already stands there in an encoding that this version does not read",
                    storage.place()
                ),
            )
            .hint("decrypt or decode it with the tool that stored it, or archive to an empty prefix"));
        }
        let mut found = None;
        if around.copies.iter().all(|(key, _)| key == own) {
            return Ok(None); // the attempt to create it tells the rest
        }
        for (key, encoding) in around.copies {
            match self.compare(rules, storage, &key, encoding) {
                Ok(Stood::Identical { .. }) => found = Some((key, encoding)),
                Err(Compare::Gone(_)) => {}
                Ok(different) => return Ok(Some((key, encoding, different))),
                Err(Compare::Failed(failure)) => return Err(failure),
            }
        }
        let Some((key, encoding)) = found else { return Ok(None) };
        storage.make_durable(&key).map_err(|error| failed(&error))?;
        Ok(Some((key, encoding, Stood::Identical { created: false })))
    }

    /// Creates the object, or tells whether the one that is there is the same. Only [`Cause::Conflict`]
    /// for damage, and the storage's own failures, are errors.
    pub(super) fn create_or_compare(
        &self,
        rules: &Rules<'_>,
        storage: &dyn Storage,
        key: &Key,
    ) -> Result<Stood> {
        let mut last = None;
        // Twice more where the object vanishes between "exists" and the look at it.
        for _ in 0..3 {
            match storage.create(key, &self.body) {
                Ok(()) => return Ok(Stood::Identical { created: true }),
                Err(error) if error.kind() == Kind::AlreadyExists => {}
                Err(error) => return Err(failed(&error)),
            }
            match self.compare(rules, storage, key, Encoding::Zstd) {
                Ok(found @ Stood::Identical { .. }) => {
                    // Whoever wrote it may have died before it was durable.
                    return storage.make_durable(key).map(|()| found).map_err(|error| failed(&error));
                }
                Ok(other) => return Ok(other),
                Err(Compare::Gone(error)) => last = Some(error),
                Err(Compare::Failed(failure)) => return Err(failure),
            }
        }
        Err(last.map_or_else(
            || {
                Failure::new(
                    Cause::Destination,
                    format!("\"{}/{key}\" could not be created", storage.place()),
                )
            },
            |error| failed(&error),
        ))
    }

    pub(super) fn compare(
        &self,
        rules: &Rules<'_>,
        storage: &dyn Storage,
        key: &Key,
        encoding: Encoding,
    ) -> std::result::Result<Stood, Compare> {
        let gone_or_failed = |error: Error| match error.kind() {
            Kind::NotFound => Compare::Gone(error),
            _ => Compare::Failed(failed(&error)),
        };
        if !storage.can_vanish() && encoding == Encoding::Zstd {
            let theirs = lookup::trailer(storage, key).map_err(gone_or_failed)?;
            if let Ok(Some(theirs)) = theirs
                && (theirs.name, theirs.size, theirs.sha256)
                    == (self.name, self.trailer.size, self.trailer.sha256)
            {
                return Ok(Stood::Identical { created: false });
            }
        }
        let mut object = storage.get(key, Range::Whole).map_err(gone_or_failed)?;
        match decode_as(encoding, self.name, rules.checks, &mut object.body, &mut io::sink()) {
            Ok(theirs) if (theirs.size, theirs.sha256) == (self.trailer.size, self.trailer.sha256) => {
                Ok(Stood::Identical { created: false })
            }
            Ok(theirs) => Ok(Stood::Different(Box::new((theirs, object.modified)))),
            Err(DecodeError::Damaged(reason)) => Err(Compare::Failed(
                Failure::new(
                    Cause::Conflict,
                    format!("\"{}/{key}\" stands there damaged: {reason}", storage.place()),
                )
                .hint(format!(
                    "\"wal-archive quarantine {}\" moves it aside; the next push then stores the good one",
                    key.to_quarantine()
                )),
            )),
            Err(DecodeError::Read(error) | DecodeError::Write(error)) => {
                Err(gone_or_failed(Error::of_io(error, storage.place())))
            }
        }
    }

    pub(super) fn conflict(
        &self,
        storage: &dyn Storage,
        key: &Key,
        other: &(Decoded, SystemTime),
    ) -> Failure<Cause> {
        let (theirs, stored) = other;
        let ours = describe(self.trailer.system_id, self.page.as_ref(), self.trailer.size, self.modified);
        let there = describe(theirs.system_id(), theirs.page.as_ref(), theirs.size, *stored);
        Failure::new(
            Cause::Conflict,
            format!("\"{}/{key}\" already stands there with different content ({there}); this \"{}\" is {ours}", storage.place(), self.name),
        )
        .hint(
            "two servers archive to the same place (a clone, a copy started without recovery.signal, a split brain): \
             stop or re-point the wrong one; nothing was overwritten",
        )
    }

    /// The one that is there is only a beginning of this one.
    pub(super) fn conflict_with_cut(&self, storage: &dyn Storage, key: &Key, end: Lsn) -> Failure<Cause> {
        let place = storage.place();
        Failure::new(
            Cause::Conflict,
            format!(
                "\"{place}/{key}\" already stands there cut: it is the same up to {end}, where its records break off; \"{}\" is \
                 complete",
                self.path.display()
            ),
        )
        .hint(format!(
            "\"wal-archive quarantine --force --from {place} {}\" moves the cut one aside; the next push then stores the \
             complete one",
            key.to_quarantine()
        ))
    }
}

fn describe(system_id: Option<SystemId>, page: Option<&FirstPage>, size: u64, time: SystemTime) -> String {
    let cluster = system_id.map_or_else(|| "unknown cluster".to_owned(), |id| format!("cluster {id}"));
    let timeline = page.map_or_else(String::new, |page| format!(", timeline {}", page.timeline()));
    let time = failure::time(time).map_or_else(String::new, |time| format!(", of {time}"));
    format!("of {cluster}{timeline}, {size} bytes{time}")
}
