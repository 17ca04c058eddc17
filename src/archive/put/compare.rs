//! What stands under a key already, against what is to be stored there.

use super::{Result, failed};
use crate::archive::intake::{Cause, Intake, Source};
use crate::archive::lookup;
use crate::archive::object::{Label, Opened, Opener, Verdict, label};
use crate::failure::{self, Failure};
use crate::object::age::{Comparison, Seal};
use crate::object::{Decoded, Encryption, Key};
use crate::storage::{Kind, Storage};
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
    /// Other bytes, intact.
    Different(Box<Other>),
}

/// The file that is there instead.
pub(super) struct Other {
    system_id: Option<SystemId>,
    page: Option<FirstPage>,
    size: u64,
    /// When it was stored.
    stored: SystemTime,
}

impl Other {
    fn of(decoded: Decoded, stored: SystemTime) -> Self {
        Other { system_id: decoded.system_id(), size: decoded.size, page: decoded.page, stored }
    }

    fn of_seal(seal: &Seal, stored: SystemTime) -> Self {
        Other { system_id: seal.system_id, size: seal.size, page: None, stored }
    }
}

impl Source {
    /// Looks for what other tools stored under the name. Where they stored it, all copies must be
    /// the same as ours, the one under our own key included.
    pub(super) fn find_foreign(
        &self,
        intake: &Intake,
        storage: &dyn Storage,
        own: &Key,
    ) -> Result<Option<(Key, Stood)>> {
        let mut around = lookup::copies(storage, self.name, true).map_err(|error| failed(&error))?;
        around.leave(Encryption::None); // only a plain archive holds other tools' files
        if let Some(key) = around.unknown {
            return Err(Failure::new(
                Cause::Conflict,
                format!(
                    "\"{}/{key}\" already exists, in an encoding that this version does not read",
                    storage.place()
                ),
            )
            .hint("decrypt or decode it with the tool that stored it, or archive to an empty prefix"));
        }
        let mut found = None;
        if around.keys.iter().all(|key| key == own) {
            return Ok(None); // the attempt to create it tells the rest
        }
        for key in around.keys {
            match self.compare(intake, storage, &key)? {
                Some(Stood::Identical { .. }) => found = Some(key),
                Some(different) => return Ok(Some((key, different))),
                None => {}
            }
        }
        let Some(key) = found else { return Ok(None) };
        storage.make_durable(&key).map_err(|error| failed(&error))?;
        Ok(Some((key, Stood::Identical { created: false })))
    }

    /// Creates the object, or tells whether the one that is there is the same. Only [`Cause::Conflict`]
    /// for damage, and the storage's own failures, are errors.
    pub(super) fn create_or_compare(
        &self,
        intake: &Intake,
        storage: &dyn Storage,
        key: &Key,
    ) -> Result<Stood> {
        let Some(body) = self.objects.stored(storage.keys().writes()) else {
            let what = format!("\"{}\" was not encoded for \"{}\"", self.name, storage.place());
            return Err(Failure::new(Cause::Destination, what));
        };
        // Twice more where the object vanishes between "exists" and the look at it.
        for _ in 0..3 {
            match storage.create(key, body) {
                Ok(()) => return Ok(Stood::Identical { created: true }),
                Err(error) if error.kind() == Kind::AlreadyExists => {}
                Err(error) => return Err(failed(&error)),
            }
            match self.compare(intake, storage, key)? {
                // Whoever wrote it may have died before it was durable.
                Some(found @ Stood::Identical { .. }) => {
                    return storage.make_durable(key).map(|()| found).map_err(|error| failed(&error));
                }
                Some(other) => return Ok(other),
                None => {}
            }
        }
        let what = format!(
            "\"{}/{key}\" could not be created: it already exists, and when it is read, it is not there",
            storage.place()
        );
        Err(Failure::new(Cause::Destination, what))
    }

    /// What is under a key against this file; `None` where nothing is.
    pub(super) fn compare(&self, intake: &Intake, storage: &dyn Storage, key: &Key) -> Result<Option<Stood>> {
        let identical = Ok(Some(Stood::Identical { created: false }));
        if !storage.nature().is_directory() {
            match label(storage, key) {
                Ok(Label::Ours(theirs))
                    if (theirs.name, theirs.size, theirs.sha256)
                        == (self.name, self.trailer.size, self.trailer.sha256) =>
                {
                    return identical;
                }
                // An attempt of this call, the answer of which was lost.
                Ok(Label::Sealed(_, header))
                    if self.objects.seal().is_some_and(|(_, ours)| ours == header) =>
                {
                    return identical;
                }
                Ok(_) => {}
                Err(error) if error.kind() == Kind::NotFound => return Ok(None),
                Err(error) => return Err(failed(&error)),
            }
        }
        let opener = Opener::of_any_cluster(intake.checks);
        let opened = opener.open(storage, key, &mut io::sink()).map_err(|error| failed(&error.into()))?;
        let Some(Opened { modified, verdict }) = opened else { return Ok(None) };
        match verdict {
            Verdict::Intact(theirs)
                if (theirs.size, theirs.sha256) == (self.trailer.size, self.trailer.sha256) =>
            {
                identical
            }
            Verdict::Intact(theirs) => Ok(Some(Stood::Different(Box::new(Other::of(theirs, modified))))),
            Verdict::Shut(theirs) => match theirs.compare(&self.trailer.sha256, &storage.keys().known()) {
                Comparison::Same if theirs.size == self.trailer.size => identical,
                Comparison::Same | Comparison::Different => {
                    Ok(Some(Stood::Different(Box::new(Other::of_seal(&theirs, modified)))))
                }
                Comparison::CannotTell => Err(self.cannot_tell(storage, key, &theirs)),
            },
            verdict => {
                let what = format!("\"{}/{key}\" already exists and is {verdict}", storage.place());
                Err(Failure::new(Cause::Conflict, what).hint(format!(
                    "\"wal-archive quarantine {}\" moves it aside; the next push then stores the good one",
                    key.to_quarantine()
                )))
            }
        }
    }

    /// The one that is there is encrypted for others only.
    fn cannot_tell(&self, storage: &dyn Storage, key: &Key, theirs: &Seal) -> Failure<Cause> {
        let what = format!(
            "\"{}/{key}\" already exists, and whether it is this \"{}\" cannot be told: written for {}",
            storage.place(),
            self.name,
            theirs.written_for()
        );
        Failure::new(Cause::Conflict, what).hint(
            "add the old recipients as compare_recipients to [encryption]: they are compared with and never encrypted for",
        )
    }

    pub(super) fn conflict(&self, storage: &dyn Storage, key: &Key, other: &Other) -> Failure<Cause> {
        let ours = describe(self.trailer.system_id, self.page.as_ref(), self.trailer.size, self.modified);
        let there = describe(other.system_id, other.page.as_ref(), other.size, other.stored);
        Failure::new(
            Cause::Conflict,
            format!("\"{}/{key}\" already exists with different content ({there}); this \"{}\" is {ours}", storage.place(), self.name),
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
                "\"{place}/{key}\" already exists cut: it is the same up to {end}, where its records break off; \"{}\" is \
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
