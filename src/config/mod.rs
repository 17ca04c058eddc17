//! From flags, environment and TOML to the settings in force, each with its origin.
//!
//! Every setting stands once, in [`table::SETTINGS`]: its flag, its environment variable, its
//! TOML key and its default follow from there. Order: flag, environment, TOML file, WAL-G's own
//! variables, default. A value that cannot be understood is an error that says where it stands,
//! never a warning.

mod admin;
mod file;
mod s3;
mod table;
mod values;

pub use file::ConfigFile;
pub use table::{Program, SETTINGS, Setting, Takes};
pub use values::{LogFormat, OnError, duration};

use crate::failure::Failure;
use crate::host::data_directory::{self, DataDirectory};
use crate::object::Checks;
use crate::storage::s3::{S3Settings, without_password};
use crate::storage::{Destination, Location};
use crate::wal::WalName;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

/// Values of flags by the setting's name, as given on the command line.
pub type Flags = BTreeMap<&'static str, Vec<String>>;

/// A configuration that cannot be used.
pub type Error = Failure;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `--name` on the command line.
    Flag(&'static str),
    /// An environment variable.
    Environment(String),
    /// A key of the configuration file.
    File(PathBuf, String),
    /// Built in.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "--{name}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::File(path, key) => write!(f, "{} ({key})", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A setting's values and where they came from; no values: not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// One, or several where the setting takes several.
    pub values: Vec<String>,
    /// Of all of them.
    pub origin: Origin,
}

/// All the places where a setting can stand.
pub struct Layers {
    flags: Flags,
    environment: Environment,
    file: Option<ConfigFile>,
}

/// The file that is read where it exists and no other is named.
const DEFAULT_FILE: &str = "/etc/wal-archive/config.toml";

impl Layers {
    /// Reads the configuration file that the flags or the environment name, or the default one.
    pub fn read(flags: Flags, environment: Environment) -> Result<Self, Error> {
        let mut layers = Layers { flags, environment, file: None };
        let named = layers.one("config", Program::Archive)?;
        layers.file = match named {
            Some((path, origin)) => Some(
                ConfigFile::read(Path::new(&path))
                    .map_err(|error| Error::new((), format!("{origin}: {error}")))?,
            ),
            None => {
                ConfigFile::read_if_there(Path::new(DEFAULT_FILE)).map_err(|error| Error::new((), error))?
            }
        };
        Ok(layers)
    }

    /// The values in force of one setting for one program.
    pub fn resolve(&self, setting: &Setting, program: Program) -> Result<Resolved, Error> {
        if let Some(values) = self.flags.get(setting.name) {
            return Ok(Resolved { values: values.clone(), origin: Origin::Flag(setting.name) });
        }
        let variable = setting.variable();
        if let Some(text) = self.environment.get(&variable) {
            return Ok(Resolved { values: setting.split(text), origin: Origin::Environment(variable) });
        }
        let in_file = self.file.as_ref().and_then(|file| match setting.s3 {
            true => file.get_s3(setting, None),
            false => file.get(setting, program),
        });
        if let (Some((values, key)), Some(file)) = (in_file, &self.file) {
            return Ok(Resolved { values, origin: Origin::File(file.path().to_owned(), key) });
        }
        let mut theirs = setting.wal_g.iter().filter_map(|name| Some((*name, self.environment.get(*name)?)));
        match (theirs.next(), theirs.next()) {
            (Some((name, text)), other) if other.is_none() || setting.s3 => {
                Ok(Resolved { values: vec![text.clone()], origin: Origin::Environment(name.to_owned()) })
            }
            (Some((one, _)), other) => {
                let other = other.map_or("", |(other, _)| other);
                Err(Error::new((), format!("{one} and {other} are both set"))
                    .hint(format!("say which one with {variable}")))
            }
            (None, _) => Ok(Resolved {
                values: setting.default.map(str::to_owned).into_iter().collect(),
                origin: Origin::Default,
            }),
        }
    }

    /// The configuration file that was read.
    pub fn file_in_use(&self) -> Option<&Path> {
        self.file.as_ref().map(ConfigFile::path)
    }

    /// The files with secrets in them that others than their owner can read, by PostgreSQL's rule for
    /// key files (`src/backend/libpq/be-secure-common.c`, `check_ssl_key_file_permissions`).
    pub fn exposed_secrets(&self) -> Vec<PathBuf> {
        let ours = self.file.as_ref().filter(|file| file.holds_secrets()).map(|file| file.path().to_owned());
        let theirs =
            self.environment.get("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from).or_else(|| {
                self.environment.get("HOME").map(|home| Path::new(home).join(".aws/credentials"))
            });
        ours.into_iter().chain(theirs).filter(|path| file::is_exposed(path)).collect()
    }

    /// WAL-G's encryption variables that are set: it would have encrypted.
    fn wal_g_encryption(&self) -> Option<&'static str> {
        table::WAL_G_ENCRYPTION.into_iter().find(|name| self.environment.contains_key(*name))
    }

    /// Variables with our prefix that mean nothing; not an error, as the prefix may be another's
    /// (Kubernetes makes `WAL_ARCHIVE_PORT` of a service named "wal-archive").
    pub fn unknown_variables(&self) -> Vec<&str> {
        let known = |name: &str| SETTINGS.iter().any(|setting| setting.variable() == name);
        let ours =
            self.environment.keys().map(String::as_str).filter(|name| name.starts_with("WAL_ARCHIVE_"));
        ours.filter(|name| !known(name)).collect()
    }

    fn setting(&self, name: &str, program: Program) -> Result<Resolved, Error> {
        match SETTINGS.iter().find(|setting| setting.name == name) {
            Some(setting) => self.resolve(setting, program),
            None => Err(Error::new((), format!("there is no setting \"{name}\""))),
        }
    }

    fn one(&self, name: &str, program: Program) -> Result<Option<(String, Origin)>, Error> {
        let Resolved { values, origin } = self.setting(name, program)?;
        Ok(values.into_iter().next_back().map(|value| (value, origin)))
    }

    /// One value, read by `parse`, whose error says what would be right.
    fn parse<T>(
        &self,
        name: &str,
        program: Program,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let Some((value, origin)) = self.one(name, program)? else { return Ok(None) };
        parse(&value).map(Some).map_err(|right| bad_value(&value, &origin, &right))
    }

    fn flag(&self, name: &str, program: Program) -> Result<bool, Error> {
        Ok(self.parse(name, program, values::boolean)?.unwrap_or(false))
    }

    /// What both programs need.
    pub fn common(&self, program: Program) -> Result<Common, Error> {
        let Resolved { values, origin } = self.setting("archive", program)?;
        let mut archive = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let location = Location::parse(value).map_err(|error| {
                let failure = Error::new((), format!("{origin}: {error}"));
                error.hint_text().map_or(failure.clone(), |hint| failure.hint(hint))
            })?;
            let own = matches!(&origin, Origin::File(_, key) if key == "destination").then_some(index);
            let s3 = match &location {
                Location::Directory(_) => S3Settings::default(),
                Location::S3 { .. } => self.s3(own)?,
            };
            let destination = Destination { location, s3 };
            if archive.contains(&destination) {
                return Err(Error::new((), format!("{origin}: \"{}\" is named twice", destination.location)));
            }
            archive.push(destination);
        }
        if archive.is_empty() {
            return Err(Error::new((), "no archive is named")
                .hint("give --archive /directory, set WAL_ARCHIVE, or write archive = [\"/directory\"] into the configuration file"));
        }
        Ok(Common {
            archive,
            log_format: self.log_format(program)?,
            spool_dir: self.parse("spool-dir", program, values::absolute_path)?,
            checks: match self.flag("no-header-check", program)? {
                true => Checks::NoHeader,
                false => Checks::Header,
            },
            timeout: self.parse("timeout", program, values::duration)?,
        })
    }

    /// How messages look; read before anything else, as everything else may fail.
    pub fn log_format(&self, program: Program) -> Result<LogFormat, Error> {
        Ok(self.parse("log-format", program, values::log_format)?.unwrap_or(LogFormat::Text))
    }

    /// What wal-push needs.
    pub fn push(&self) -> Result<PushSettings, Error> {
        let common = self.common(Program::Push)?;
        let none = self.parse("client-encryption", Program::Push, values::client_encryption)?;
        if let (Some(variable), None) = (self.wal_g_encryption(), none) {
            return Err(Error::new(
                (),
                format!("{variable} is set, so WAL-G encrypted this archive; wal-push does not encrypt on the client"),
            )
            .hint("encrypt at the destination and write client_encryption = \"none\" into the [push] section of the configuration file"));
        }
        Ok(PushSettings {
            common,
            level: self.parse("level", Program::Push, values::level)?.unwrap_or(1),
            look_ahead: self.parse("look-ahead", Program::Push, values::window)?.unwrap_or(0),
            jobs: self.parse("jobs", Program::Push, values::jobs)?.unwrap_or(1),
            drop_cache: self.flag("drop-cache", Program::Push)?,
        })
    }

    /// What wal-fetch needs.
    pub fn fetch(&self) -> Result<FetchSettings, Error> {
        let program = Program::Fetch;
        let Resolved { values, origin } = self.setting("accept-gap", program)?;
        let gap = |value: &String| match value.parse() {
            Ok(name @ (WalName::Segment(_) | WalName::TimelineHistory(_))) => Ok(name),
            _ => Err(bad_value(value, &origin, "the name of a segment or a timeline history")),
        };
        let (common, partial) = (self.common(program)?, self.flag("partial", program)?);
        if partial && common.checks == Checks::NoHeader {
            return Err(Error::new((), "partial and no_header_check exclude each other")
                .hint("without a look at its pages nobody knows where a partial segment ends"));
        }
        Ok(FetchSettings {
            common,
            partial,
            on_error: self.on_error()?,
            allow_empty: self.flag("allow-empty", program)?,
            accept_gap: values.iter().map(gap).collect::<Result<_, _>>()?,
            prefetch: self.parse("prefetch", program, values::window)?.unwrap_or(0),
        })
    }

    /// The form of wal-fetch's error codes.
    pub fn on_error(&self) -> Result<OnError, Error> {
        Ok(self.parse("on-error", Program::Fetch, values::on_error)?.unwrap_or(OnError::Auto))
    }
}

fn bad_value(value: &str, origin: &Origin, right: &str) -> Error {
    // It may be meant for a URL with a password in it.
    Error::new((), format!("{origin}: \"{}\" is not {right}", without_password(value)))
}

/// What both programs need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Common {
    /// Never empty, each once.
    pub archive: Vec<Destination>,
    /// How messages look.
    pub log_format: LogFormat,
    /// Where it is not beside the data directory.
    pub spool_dir: Option<PathBuf>,
    /// Whether the pages of a segment are looked at.
    pub checks: Checks,
    /// Where it is not the default.
    pub timeout: Option<Duration>,
}

impl Common {
    /// See [`check_directories`].
    pub fn check_directories(&self, data_directory: Option<&DataDirectory>) -> Result<(), Error> {
        check_directories(&self.archive, data_directory)
    }
}

/// Refuses destinations that are none: one inside the data directory dies with it, and base
/// backups copy it; one that is another one by a second name is no second copy. Asks the file
/// system, so it may take as long as the archive does.
pub fn check_directories(
    archive: &[Destination],
    data_directory: Option<&DataDirectory>,
) -> Result<(), Error> {
    let shown: Vec<_> = archive.iter().filter_map(|one| Shown::of(one, data_directory)).collect();
    check_shown(&shown)
}

/// What the file system shows of a destination that is a directory.
#[derive(Clone, Debug)]
pub struct Shown {
    path: PathBuf,
    /// The data directory that it lies in.
    inside: Option<PathBuf>,
    place: Option<(u64, u64)>,
}

impl Shown {
    /// `None` of a bucket. Asks the file system.
    pub fn of(destination: &Destination, data_directory: Option<&DataDirectory>) -> Option<Self> {
        let Location::Directory(path) = &destination.location else { return None };
        let inside = data_directory.filter(|directory| directory.contains(path));
        Some(Shown {
            path: path.clone(),
            inside: inside.map(|directory| directory.path().to_owned()),
            place: data_directory::place(path),
        })
    }
}

/// See [`check_directories`]; of those that were looked at. Asks nobody.
pub fn check_shown(shown: &[Shown]) -> Result<(), Error> {
    let mut seen: Vec<(&Path, (u64, u64))> = Vec::new();
    for Shown { path, inside, place } in shown {
        if let Some(directory) = inside {
            return Err(Error::new(
                (),
                format!(
                    "the archive \"{}\" lies inside the data directory \"{}\"",
                    path.display(),
                    directory.display()
                ),
            )
            .hint("it would be lost together with it: use a directory on another disk"));
        }
        let Some(place) = *place else { continue };
        if let Some((other, _)) = seen.iter().find(|(_, other)| *other == place) {
            return Err(Error::new(
                (),
                format!("\"{}\" and \"{}\" are the same directory", other.display(), path.display()),
            )
            .hint(
                "two names of one directory are one copy: name it once, or use a directory on another disk",
            ));
        }
        seen.push((path, place));
    }
    Ok(())
}

/// What wal-push needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushSettings {
    /// See there.
    pub common: Common,
    /// zstd's.
    pub level: i32,
    /// How many more files in one call.
    pub look_ahead: usize,
    /// How many files at once.
    pub jobs: usize,
    /// Whether the system is to forget the pages of archived files.
    pub drop_cache: bool,
}

/// What wal-fetch needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchSettings {
    /// See there.
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

#[cfg(test)]
mod tests;
