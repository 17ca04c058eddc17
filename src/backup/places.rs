//! The destinations of a backup: one that fails takes no further part, the others finish.

use super::{Cause, Result};
use crate::archive::identity::{self, Claimant, Refusal};
use crate::archive::object::stored_bytes;
use crate::base_backup::BackupId;
use crate::failure::Failure;
use crate::host::side_by_side::side_by_side;
use crate::object::{Encryption, Key, Sha256Sum};
use crate::storage::{self, Body, Kind, Shared, Storage};
use log::Level;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

pub(super) struct Places {
    /// Each with why it takes no part any more.
    all: Vec<(Shared, Mutex<Option<Failure>>)>,
}

impl Places {
    /// Proves that each is the archive of this cluster. One of another cluster is a mistake of the
    /// configuration, which ends it.
    pub(super) fn claim(destinations: &[Shared], claimant: &Claimant) -> Result<Self> {
        let claims = side_by_side(destinations, |storage| {
            identity::claim(storage.as_ref(), claimant, None, SystemTime::now())
        });
        let places = Places { all: destinations.iter().map(|one| (one.clone(), Mutex::new(None))).collect() };
        for (claim, place) in claims.into_iter().zip(&places.all) {
            match claim {
                Ok(_) => {}
                Err(Refusal::OtherCluster { message, hint } | Refusal::Encryption { message, hint }) => {
                    return Err(Failure::new(Cause::CouldNot, message).hint(hint));
                }
                Err(Refusal::NoArchive(error) | Refusal::Storage(error)) => {
                    place.fail(Failure::from_storage((), &error));
                }
            }
        }
        places.some_left()?;
        Ok(places)
    }

    /// Stores a file of a backup at all that are left: its name and content, by how they store objects.
    pub(super) fn create<'b>(
        &self,
        id: &BackupId,
        object: &(dyn Fn(Encryption) -> Option<(String, &'b Body)> + Sync),
    ) -> Result<()> {
        side_by_side(&self.all, |place| {
            if !place.is_left() {
                return;
            }
            let found = object(place.0.keys().writes());
            let Some((key, body)) = found.and_then(|(file, body)| Some((id.key(&file)?, body))) else {
                // It was left when the object was made, or it would not be now.
                place.fail(Failure::new((), format!("a part for \"{}\" was not made", place.0.place())));
                return;
            };
            if let Err(error) = create(place.0.as_ref(), &key, body) {
                place.fail(Failure::from_storage((), &error));
            }
        });
        self.some_left()
    }

    fn some_left(&self) -> Result<()> {
        if self.all.iter().any(Place::is_left) {
            return Ok(());
        }
        let failed = self.failures().into_iter().next();
        let failure = failed.unwrap_or_else(|| Failure::new((), "no archive is named"));
        Err(Failure { kind: Cause::CouldNot, message: failure.message, hint: failure.hint })
    }

    pub(super) fn left(&self) -> Vec<Shared> {
        self.all.iter().filter(|place| place.is_left()).map(|(storage, _)| storage.clone()).collect()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.left().iter().map(|storage| storage.place().to_owned()).collect()
    }

    pub(super) fn failures(&self) -> Vec<Failure> {
        self.all.iter().filter_map(|place| place.failure().clone()).collect()
    }
}

trait Place {
    fn failure(&self) -> MutexGuard<'_, Option<Failure>>;

    fn is_left(&self) -> bool {
        self.failure().is_none()
    }

    /// The first failure counts.
    fn fail(&self, failure: Failure) {
        failure.log(Level::Error);
        self.failure().get_or_insert(failure);
    }
}

impl Place for (Shared, Mutex<Option<Failure>>) {
    fn failure(&self) -> MutexGuard<'_, Option<Failure>> {
        // It is set in one step.
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Creates an object. A create whose answer was lost meets its own object when it is repeated.
fn create(storage: &dyn Storage, key: &Key, body: &Body) -> storage::Result<()> {
    match storage.create(key, body) {
        Err(error) if error.kind() == Kind::AlreadyExists => {
            let sum = |body: &Body| {
                Sha256Sum::of_reader(&mut body.reader())
                    .map_err(|error| storage::Error::of_io(error, storage.place()))
            };
            match stored_bytes(storage, key)? {
                Some((_, there)) if there.len() == body.len() && sum(&there)? == sum(body)? => {
                    storage.make_durable(key)
                }
                _ => Err(error
                    .hint("another backup of the same second and address is being made; repeat this one")),
            }
        }
        other => other,
    }
}
