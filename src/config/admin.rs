//! What the subcommands of `wal-archive` need.

use super::encryption::unlocked_for_admin;
use super::table::LEVEL;
use super::{Error, Layers, Program};
use crate::object::Checks;
use crate::storage::{Destination, Location};

impl Layers {
    /// The destinations of the archive, and whether pages are looked at where push does.
    pub fn admin(&self) -> Result<(Vec<Destination>, Checks), Error> {
        let archive = self.common(Program::Archive)?.archive;
        Ok((self.unlocked(&archive)?, self.admin_checks()?))
    }

    /// The destinations with the private keys at hand.
    pub fn unlocked(&self, destinations: &[Destination]) -> Result<Vec<Destination>, Error> {
        unlocked_for_admin(destinations, &self.encryption()?)
    }

    /// Whether pages are looked at: as in wal-push, whose objects they are.
    pub fn admin_checks(&self) -> Result<Checks, Error> {
        self.checks(Program::Push)
    }

    pub fn level(&self) -> Result<i32, Error> {
        self.get(&LEVEL, Program::Push)
    }

    /// The destination at a place named on the command line: as configured where it is one of the
    /// archive's, else with the settings of `[s3]`.
    pub fn destination(&self, text: &str) -> Result<Destination, Error> {
        let location = Location::parse(text).map_err(|error| {
            let failure = Error::new((), error.to_string());
            error.hint_text().map_or(failure.clone(), |hint| failure.hint(hint))
        })?;
        // No archive need be configured for this; one that is must be understood.
        let mut configured = self.destinations(Program::Archive)?.into_iter();
        let encryption = self.encryption()?;
        let unlocked = |destination: Destination| {
            let mut unlocked = unlocked_for_admin(std::slice::from_ref(&destination), &encryption)?;
            Ok(unlocked.pop().unwrap_or(destination))
        };
        if let Some(known) = configured.find(|known| known.location == location) {
            return unlocked(known);
        }
        let s3 = match location {
            Location::Directory(_) => Default::default(),
            Location::S3 { .. } => self.s3(None)?,
        };
        unlocked(Destination { location, s3, keys: self.keys(&encryption, None)? })
    }
}
