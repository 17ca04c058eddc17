//! One encoded WAL file into every destination, durably, never over a different one.
//!
//! At each destination: prove that it is this cluster's archive, create the object. Where the name
//! is taken, identical is success (made durable again), different is a conflict, damaged is one
//! too. In an archive that other tools wrote to, the name may be taken in another encoding, which
//! is looked for first.

mod fork;

use crate::archive::{self, Claimant, Refusal};
use crate::cluster;
use crate::failure::Failure;
use crate::lookup;
use crate::object::{DecodeError, Decoded, Encoding, Key, decode_as};
use crate::source::{Cause, Rules, Source};
use crate::spool::Stored;
use crate::storage::deadline::Deadline;
use crate::storage::{Error, Kind, Range, Shared, Storage};
use crate::wal::{FirstPage, SystemId, WalName};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

type Result<T> = std::result::Result<T, Failure<Cause>>;

impl Source {
    /// Puts it into all destinations at once, and ends by the deadline. Where it is in each of them,
    /// or the failures of all of them, never empty.
    pub fn store_everywhere(
        &self,
        rules: &Rules<'_>,
        destinations: &[Shared],
        deadline: Instant,
    ) -> std::result::Result<Vec<Stored>, Vec<Failure<Cause>>> {
        let store =
            |destination: &Shared| self.store(rules, &Deadline::new(Arc::clone(destination), deadline));
        let outcomes: Vec<Result<Stored>> = match destinations {
            [only] => vec![store(only)],
            _ => std::thread::scope(|scope| {
                let stores: Vec<_> =
                    destinations.iter().map(|destination| scope.spawn(move || store(destination))).collect();
                let join = |store: std::thread::ScopedJoinHandle<'_, _>| {
                    store.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                };
                stores.into_iter().map(join).collect()
            }),
        };
        let (mut stored, mut failures) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            match outcome {
                Ok(one) => stored.push(one),
                Err(failure) => failures.push(failure),
            }
        }
        if failures.is_empty() { Ok(stored) } else { Err(failures) }
    }

    /// Puts it into one destination.
    fn store(&self, rules: &Rules<'_>, storage: &dyn Storage) -> Result<Stored> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let claimant = Claimant {
            system_id: self.trailer.system_id,
            segment_size: self.segment_size,
            neighbour_size: &|| cluster::segment_size_in(folder, self.trailer.system_id?),
            checks: rules.checks,
        };
        let identity = archive::claim(storage, &claimant, rules.spool, SystemTime::now()).map_err(|refusal| match refusal {
            Refusal::OtherCluster { message, hint } => Failure::new(Cause::Invalid, message).hint(hint),
            Refusal::Nameless => Failure::new(
                Cause::Configuration,
                format!("the archive \"{}\" is new, and \"{}\" does not tell which cluster it is to belong to", storage.place(), self.name),
            )
            .hint("run wal-push in the data directory, or set PGDATA"),
            Refusal::Storage(error) => failed(&error),
        })?;
        let own = Key::of(self.name);
        let foreign = match identity.foreign {
            true => self.find_foreign(rules, storage, &own)?,
            false => None,
        };
        let (key, encoding, stood) = match foreign {
            Some(found) => found,
            None => {
                let stood = self.create_or_compare(rules, storage, &own)?;
                (own, Encoding::Zstd, stood)
            }
        };
        let other = match stood {
            Stood::Identical { created } => return Ok(Stored { key, created }),
            Stood::Different(other) => other,
        };
        // One file that cannot be archived blocks every later one, so the two legitimate pairs of
        // different files of one name are both stored.
        let why = match self.name {
            WalName::Partial(_) => Some("of another promotion".to_owned()),
            WalName::Segment(_) => self.agrees_up_to_a_fork(rules, storage, &key, encoding)?.map(|fork| {
                format!(
                    "the same up to {fork}, where a child timeline forks; recovery reads no further in it"
                )
            }),
            _ => None,
        };
        let Some(why) = why else { return Err(self.conflict(storage, &key, &other)) };
        let variant = Key::variant(self.name, &self.trailer.sha256);
        match self.create_or_compare(rules, storage, &variant)? {
            Stood::Identical { created } => {
                log::warn!(
                    "\"{}\" already holds another \"{}\", {why}; this one is stored beside it as \"{variant}\"",
                    storage.place(),
                    self.name
                );
                Ok(Stored { key: variant, created })
            }
            Stood::Different(_) => Err(self.conflict(storage, &variant, &other)),
        }
    }

    /// Looks for what other tools stored under the name. Where they stored it, all copies must be
    /// the same as ours, the one under our own key included.
    fn find_foreign(
        &self,
        rules: &Rules<'_>,
        storage: &dyn Storage,
        own: &Key,
    ) -> Result<Option<(Key, Encoding, Stood)>> {
        let around = lookup::around(storage, self.name, true).map_err(|error| failed(&error))?;
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
    fn create_or_compare(&self, rules: &Rules<'_>, storage: &dyn Storage, key: &Key) -> Result<Stood> {
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

    fn compare(
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

    fn conflict(&self, storage: &dyn Storage, key: &Key, other: &(Decoded, SystemTime)) -> Failure<Cause> {
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
}

/// What stands under a key.
enum Stood {
    /// Our bytes, durable; whether this call put them there.
    Identical {
        /// Or somebody had before.
        created: bool,
    },
    /// Other bytes, intact; when they were stored.
    Different(Box<(Decoded, SystemTime)>),
}

/// Why what stands under a key could not be compared.
enum Compare {
    /// It is not there any more.
    Gone(Error),
    Failed(Failure<Cause>),
}

fn failed(error: &Error) -> Failure<Cause> {
    let cause = if error.kind() == Kind::TimedOut { Cause::Deadline } else { Cause::Destination };
    Failure::from_storage(cause, error)
}

fn describe(system_id: Option<SystemId>, page: Option<&FirstPage>, size: u64, time: SystemTime) -> String {
    let cluster = system_id.map_or_else(|| "unknown cluster".to_owned(), |id| format!("cluster {id}"));
    let timeline = page.map_or_else(String::new, |page| format!(", timeline {}", page.timeline()));
    format!("of {cluster}{timeline}, {size} bytes, of {}", humantime::format_rfc3339_seconds(time))
}
