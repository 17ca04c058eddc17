//! What the subcommands of `wal-archive` need.

use super::{Destination, Error, Layers, Program, values};
use crate::object::Checks;
use crate::storage::Location;

impl Layers {
    /// The destinations of the archive, and whether pages are looked at where push does.
    pub fn admin(&self) -> Result<(Vec<Destination>, Checks), Error> {
        Ok((self.common(Program::Archive)?.archive, self.admin_checks()?))
    }

    /// Whether pages are looked at: as in wal-push, whose objects they are.
    pub fn admin_checks(&self) -> Result<Checks, Error> {
        Ok(match self.flag("no-header-check", Program::Push)? {
            true => Checks::NoHeader,
            false => Checks::Header,
        })
    }

    /// wal-push's compression level.
    pub fn level(&self) -> Result<i32, Error> {
        Ok(self.parse("level", Program::Push, values::level)?.unwrap_or(1))
    }

    /// The destination at a place named on the command line: as configured where it is one of the
    /// archive's, else with the settings of `[s3]`.
    pub fn destination(&self, text: &str) -> Result<Destination, Error> {
        let location = Location::parse(text).map_err(|error| {
            let failure = Error::new((), error.to_string());
            error.hint_text().map_or(failure.clone(), |hint| failure.hint(hint))
        })?;
        // No archive need be configured for this; one that is must be understood.
        let configured = match self.setting("archive", Program::Archive)?.values.is_empty() {
            true => Vec::new(),
            false => self.common(Program::Archive)?.archive,
        };
        if let Some(known) = configured.into_iter().find(|known| known.location == location) {
            return Ok(known);
        }
        let s3 = match location {
            Location::Directory(_) => Default::default(),
            Location::S3 { .. } => self.s3(None)?,
        };
        Ok(Destination { location, s3 })
    }
}
