//! The settings of `wal-push` and `wal-fetch`, every value understood.

use super::table::{
    ACCEPT_GAP, ALLOW_EMPTY, ARCHIVE, CLIENT_ENCRYPTION, DROP_CACHE, JOBS, LEVEL, LOG_FORMAT, LOOK_AHEAD,
    NO_HEADER_CHECK, ON_ERROR, PARTIAL, PREFETCH, SPOOL_DIR, TIMEOUT,
};
use super::{Error, Layers, LogFormat, OnError, Origin, Program, check_directories};
use crate::host::data_directory::DataDirectory;
use crate::host::identities::IdentitySource;
use crate::object::{Checks, Encryption, Sha256Sum};
use crate::storage::s3::S3Settings;
use crate::storage::{Destination, Location};
use crate::wal::WalName;
use std::path::PathBuf;
use std::time::Duration;

/// What both programs need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Common {
    /// Never empty, each once.
    pub archive: Vec<Destination>,
    pub log_format: LogFormat,
    /// Where it is not beside the data directory.
    pub spool_dir: Option<PathBuf>,
    /// Whether the pages of a segment are looked at.
    pub checks: Checks,
    /// Where it is not the default.
    pub timeout: Option<Duration>,
    /// Where the private keys are.
    pub identity: Option<IdentitySource>,
}

impl Common {
    /// See [`check_directories`].
    pub fn check_directories(&self, data_directory: Option<&DataDirectory>) -> Result<(), Error> {
        check_directories(&self.archive, data_directory)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushSettings {
    pub common: Common,
    pub level: i32,
    /// How many more files in one call.
    pub look_ahead: usize,
    /// How many files at once.
    pub jobs: usize,
    /// Whether the system is to forget the pages of archived files.
    pub drop_cache: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchSettings {
    pub common: Common,
    /// The form of the error codes.
    pub on_error: OnError,
    /// Believe an empty destination.
    pub allow_empty: bool,
    /// Segments and timeline histories known to be lost.
    pub accept_gap: Vec<WalName>,
    /// How many segments to bring ahead; 0: none.
    pub prefetch: usize,
    /// Give a partial segment for one that is not there.
    pub partial: bool,
}

impl Layers {
    /// What both programs need.
    pub fn common(&self, program: Program) -> Result<Common, Error> {
        let archive = self.destinations(program)?;
        if archive.is_empty() {
            let place =
                self.cluster().map_or_else(String::new, |chosen| format!("[cluster.{}] of ", chosen.name));
            return Err(Error::new((), "no archive is named").hint(format!(
                "give --archive /directory, set WAL_ARCHIVE, or write archive = [\"/directory\"] into {place}the configuration file"
            )));
        }
        Ok(Common {
            archive,
            log_format: self.log_format(program)?,
            spool_dir: self.get(&SPOOL_DIR, program)?,
            checks: self.checks(program)?,
            timeout: self.get(&TIMEOUT, program)?,
            identity: self.encryption()?.identity,
        })
    }

    /// The configured destinations, each once; none is no error.
    pub(super) fn destinations(&self, program: Program) -> Result<Vec<Destination>, Error> {
        let found = self.resolve(&ARCHIVE.row, program)?;
        let origin = &found.origin;
        let tables = matches!(origin, Origin::File(..)) && self.has_destination_tables();
        let encryption = self.encryption()?;
        let mut archive: Vec<Destination> = Vec::new();
        for (index, value) in ARCHIVE.value(&found)?.iter().enumerate() {
            let location = Location::parse(value).map_err(|error| {
                let failure = Error::new((), format!("{origin}: {error}"));
                error.hint_text().map_or(failure.clone(), |hint| failure.hint(hint))
            })?;
            let s3 = match &location {
                Location::Directory(_) => S3Settings::default(),
                Location::S3 { .. } => self.s3(tables.then_some(index))?,
            };
            let keys = self.keys(&encryption, tables.then_some(index))?;
            let destination = Destination { location, s3, keys };
            let is_same = |known: &Destination| {
                (&known.location, &known.s3) == (&destination.location, &destination.s3)
            };
            if archive.iter().any(is_same) {
                return Err(Error::new((), format!("{origin}: \"{}\" is named twice", destination.location)));
            }
            archive.push(destination);
        }
        Ok(archive)
    }

    /// Whether the pages of a segment are looked at.
    pub(super) fn checks(&self, program: Program) -> Result<Checks, Error> {
        Ok(match self.get(&NO_HEADER_CHECK, program)? {
            true => Checks::NoHeader,
            false => Checks::Header,
        })
    }

    /// How messages look; read before anything else, as everything else may fail.
    pub fn log_format(&self, program: Program) -> Result<LogFormat, Error> {
        self.get(&LOG_FORMAT, program)
    }

    pub fn push(&self) -> Result<PushSettings, Error> {
        let program = Program::Push;
        let common = self.common(program)?;
        let none = self.get(&CLIENT_ENCRYPTION, program)?;
        let encrypts = common.archive.iter().all(|destination| {
            destination.keys.as_ref().is_some_and(|keys| keys.writes() == Encryption::Age)
        });
        if let (Some(variable), None, false) = (self.wal_g_encryption(), none, encrypts) {
            return Err(Error::new(
                (),
                format!("{variable} is set, so WAL-G encrypted this archive; wal-push encrypts only for recipients, and there are none"),
            )
            .hint("name recipients in [encryption] and begin an encrypted archive; or encrypt at the destination and write client_encryption = \"none\" into the [push] section of the configuration file"));
        }
        Ok(PushSettings {
            common,
            level: self.get(&LEVEL, program)?,
            look_ahead: self.get(&LOOK_AHEAD, program)?,
            jobs: self.get(&JOBS, program)?,
            drop_cache: self.get(&DROP_CACHE, program)?,
        })
    }

    pub fn fetch(&self) -> Result<FetchSettings, Error> {
        let program = Program::Fetch;
        let (common, partial) = (self.common(program)?, self.get(&PARTIAL, program)?);
        if partial && common.checks == Checks::NoHeader {
            return Err(Error::new((), "partial and no_header_check exclude each other")
                .hint("without a look at its pages nobody knows where a partial segment ends"));
        }
        Ok(FetchSettings {
            common,
            partial,
            on_error: self.on_error()?,
            allow_empty: self.get(&ALLOW_EMPTY, program)?,
            accept_gap: self.get(&ACCEPT_GAP, program)?,
            prefetch: self.get(&PREFETCH, program)?,
        })
    }

    /// The form of wal-fetch's error codes.
    pub fn on_error(&self) -> Result<OnError, Error> {
        self.get(&ON_ERROR, Program::Fetch)
    }
}

impl FetchSettings {
    /// What decides which files a prefetcher may prove, as a sum: one that was started under others must
    /// not serve this call. The rest says how far ahead and how fast it is, what is answered where there
    /// is no file, or how that is told.
    pub fn terms(&self) -> Sha256Sum {
        let FetchSettings { common, on_error: _, allow_empty: _, accept_gap: _, prefetch: _, partial: _ } =
            self;
        let Common { archive, checks, log_format: _, spool_dir: _, timeout: _, identity } = common;
        let reading: Vec<_> = archive
            .iter()
            .map(|Destination { location, s3, keys }| match location {
                Location::Directory(_) => (location, None, keys),
                Location::S3 { .. } => (location, Some(s3.reading()), keys),
            })
            .collect();
        // Another version may refuse what this one takes.
        Sha256Sum::of(format!("{} {checks:?} {reading:?} {identity:?}", env!("CARGO_PKG_VERSION")).as_bytes())
    }
}
