//! One encoded WAL file into every destination, durably, never over a different one.
//!
//! Before anything is created, the file is told from a cut one (`cut`). Then, at each destination:
//! prove that it is this cluster's archive, bring the history of the file's timeline there
//! (`histories`), create the object. Where the name is taken, identical is success (made durable
//! again), different is a conflict, damaged is one too (`compare`). In an archive that other tools
//! wrote to, the name may be taken in another encoding, which is looked for first.

mod compare;
mod cut;
mod histories;

use crate::archive::identity::{self, Claimant, Refusal};
use crate::archive::intake::{Cause, Intake, Source};
use crate::failure::Failure;
use crate::host::side_by_side::side_by_side;
use crate::object::{Encryption, Identity, Key};
use crate::spool::Stored;
use crate::storage::deadline::Deadline;
use crate::storage::{Error, Kind, Shared, Storage};
use crate::wal::WalName;
use compare::{Other, Stood};
use cut::Shape;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

type Result<T> = std::result::Result<T, Failure<Cause>>;

impl Source {
    /// Puts it into all destinations at once, and ends by the deadline. Where it is in each of them,
    /// or the failures of all of them, never empty.
    pub fn store_everywhere(
        &self,
        intake: &Intake,
        destinations: &[Shared],
        deadline: Instant,
    ) -> std::result::Result<Vec<Stored>, Vec<Failure<Cause>>> {
        let shape = self.shape(intake).map_err(|failure| vec![failure])?;
        if destinations.len() > 1 {
            self.may_be_created(&shape, intake, destinations, deadline)?;
        }
        let store = |destination: &Shared| {
            self.store(&shape, intake, &Deadline::new(Arc::clone(destination), deadline))
        };
        let outcomes: Vec<Result<Stored>> = side_by_side(destinations, store);
        let (mut stored, mut failures) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            match outcome {
                Ok(one) => stored.push(one),
                Err(failure) => failures.push(failure),
            }
        }
        if failures.is_empty() { Ok(stored) } else { Err(failures) }
    }

    /// Refuses a file of which one destination holds another content, or of whose timeline it holds another
    /// server's files, before any other destination stores it: where that one was lost, the archive would be
    /// of two servers.
    fn may_be_created(
        &self,
        shape: &Shape,
        intake: &Intake,
        destinations: &[Shared],
        deadline: Instant,
    ) -> std::result::Result<(), Vec<Failure<Cause>>> {
        let by = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 4;
        // A cut segment and a partial one leave their name to what stands there.
        let takes_the_name = *shape == Shape::Whole && !matches!(self.name, WalName::Partial(_));
        let other = |destination: &Shared| {
            let storage = Deadline::new(Arc::clone(destination), by);
            let key = Key::of(self.name, storage.keys().writes());
            // What is damaged, or does not answer, says so when it is to be stored.
            let found = if takes_the_name { self.compare(intake, &storage, &key) } else { Ok(None) };
            match found {
                Ok(Some(Stood::Different(other))) => Some(self.refused(intake, &storage, &key, &other)),
                Ok(Some(Stood::Identical { .. })) => None,
                Ok(None) | Err(_) => {
                    let identity = self.identity_of(intake, &storage)?;
                    let by_another_tool = takes_the_name && identity.foreign;
                    let foreign = by_another_tool.then(|| self.find_foreign(intake, &storage, &key));
                    match foreign {
                        Some(Ok(Some((key, Stood::Different(other))))) => {
                            Some(self.refused(intake, &storage, &key, &other))
                        }
                        _ => self.refuse_history(&identity, intake, &storage),
                    }
                }
            }
        };
        let refused: Vec<_> = side_by_side(destinations, other).into_iter().flatten().collect();
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }

    /// Whose archive the destination is, where it tells.
    fn identity_of(&self, intake: &Intake, storage: &dyn Storage) -> Option<Identity> {
        let (id, spool) = (self.trailer.system_id, intake.spool.as_ref());
        identity::known_identity(storage, id, spool, SystemTime::now()).ok().flatten()
    }

    /// Puts it into one destination.
    fn store(&self, shape: &Shape, intake: &Intake, storage: &dyn Storage) -> Result<Stored> {
        let claimant = Claimant {
            system_id: self.trailer.system_id,
            segment_size: self.segment_size,
            checks: intake.checks,
        };
        let identity = identity::claim(storage, &claimant, intake.spool.as_ref(), SystemTime::now())
            .map_err(|refusal| match refusal {
                Refusal::OtherCluster { message, hint } => Failure::new(Cause::Invalid, message).hint(hint),
                Refusal::Encryption { message, hint } => {
                    Failure::new(Cause::Configuration, message).hint(hint)
                }
                Refusal::NoArchive(error) | Refusal::Storage(error) => failed(&error),
            })?;
        if let WalName::TimelineHistory(timeline) = self.name {
            return self.put_history(timeline, &identity, intake, storage);
        }
        self.bring_history(&identity, intake, storage)?;
        match shape {
            Shape::Whole => self.put(&identity, intake, storage),
            Shape::Cut(how) => self.put_cut(how, intake, storage),
        }
    }

    /// The folder that it was read in.
    fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
    }

    /// Stores it under its own name. Two promoted standbys may leave different partial segments of one
    /// name, and one file that cannot be archived blocks every later one: both are kept.
    fn put(&self, identity: &Identity, intake: &Intake, storage: &dyn Storage) -> Result<Stored> {
        let own = Key::of(self.name, storage.keys().writes());
        let foreign = match identity.foreign {
            true => self.find_foreign(intake, storage, &own)?,
            false => None,
        };
        let (key, stood) = match foreign {
            Some(found) => found,
            None => {
                let stood = self.create_or_compare(intake, storage, &own)?;
                (own, stood)
            }
        };
        let other = match stood {
            Stood::Identical { created } => return Ok(Stored { key, created }),
            Stood::Different(other) => other,
        };
        if !matches!(self.name, WalName::Partial(_)) {
            return Err(self.refused(intake, storage, &key, &other));
        }
        let stored = self.put_variant(intake, storage)?;
        log::warn!(
            "\"{}\" already holds another \"{}\", of another promotion; this one is stored beside it as \"{}\"",
            storage.place(),
            self.name,
            stored.key
        );
        Ok(stored)
    }

    /// The conflict with another content of its name.
    fn refused(&self, intake: &Intake, storage: &dyn Storage, key: &Key, other: &Other) -> Failure<Cause> {
        match self.stored_one_is_cut(intake, storage, key) {
            Ok(Some(end)) => self.conflict_with_cut(storage, key, end),
            Ok(None) => self.conflict(storage, key, other),
            Err(failure) => failure,
        }
    }

    /// Stores a cut segment, which never takes the name of the whole one.
    fn put_cut(&self, how: &str, intake: &Intake, storage: &dyn Storage) -> Result<Stored> {
        let stored = self.put_variant(intake, storage)?;
        log::warn!(
            "\"{}\" is cut: {how}; it is stored as \"{}/{}\", which leaves its name to the whole one",
            self.path.display(),
            storage.place(),
            stored.key
        );
        Ok(stored)
    }

    fn put_variant(&self, intake: &Intake, storage: &dyn Storage) -> Result<Stored> {
        let encryption = storage.keys().writes();
        let seal = self.objects.seal().filter(|_| encryption == Encryption::Age);
        let digits = seal.map_or_else(|| self.trailer.sha256.short(), |(seal, _)| seal.digits());
        let key = Key::variant(self.name, &digits, encryption);
        match self.create_or_compare(intake, storage, &key)? {
            Stood::Identical { created } => Ok(Stored { key, created }),
            Stood::Different(other) => Err(self.conflict(storage, &key, &other)),
        }
    }
}

fn failed(error: &Error) -> Failure<Cause> {
    let cause = if error.kind() == Kind::TimedOut { Cause::Deadline } else { Cause::Destination };
    Failure::from_storage(cause, error)
}
