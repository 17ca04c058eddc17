//! From flags, environment and TOML to the settings in force, each with its origin.
//!
//! Every setting is defined once, in `table`: its flag, its environment variable, its TOML key, its
//! type and its default follow from there. Order: flag, environment, TOML file, WAL-G's and AWS's
//! variables, default. A value that cannot be understood is an error that says where it was found,
//! never a warning.
//!
//! | file | what |
//! |---|---|
//! | `setting` | what a setting is |
//! | `table` | all of them |
//! | `values` | from text to value |
//! | `file`, `known` | the TOML file, and what it may hold |
//! | `clusters` | which cluster of the file a call is for |
//! | `programs`, `admin`, `s3`, `encryption` | what `wal-push` and `wal-fetch`, `wal-archive`, a bucket, and an encrypted archive need |
//! | `directories` | which directories cannot be destinations |

mod admin;
mod clusters;
mod command;
mod directories;
mod encryption;
mod file;
mod known;
mod programs;
mod s3;
mod setting;
mod table;
mod values;

pub use clusters::{ArchiveBy, Caller, Chosen};
pub use directories::{Shown, check_directories, check_shown};
pub use file::ConfigFile;
pub use programs::{Common, FetchSettings, PushSettings};
pub use setting::{Preset, Program, Row, Scope, Setting, Takes};
pub(crate) use table::ON_ERROR;
pub use table::SETTINGS;
pub use values::{LogFormat, OnError, duration};

use crate::failure::Failure;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use table::{CONFIG, WAL_G_ENCRYPTION};

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
    /// Our own environment variable.
    Environment(String),
    /// A key of the configuration file.
    File(PathBuf, String),
    /// A variable of WAL-G or AWS.
    Theirs(&'static str),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "--{name}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::File(path, key) => write!(f, "{} ({key})", path.display()),
            Origin::Theirs(name) => write!(f, "environment {name}"),
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

/// All the places where a setting can be set.
#[derive(Clone)]
pub struct Layers {
    flags: Flags,
    environment: Environment,
    file: Option<ConfigFile>,
    chosen: Option<Chosen>,
}

/// The file that is read where it exists and no other is named.
const DEFAULT_FILE: &str = "/etc/wal-archive/config.toml";

impl Layers {
    /// Reads the configuration file that the flags or the environment name, or the default one. No
    /// cluster is chosen yet.
    pub fn read(flags: Flags, environment: Environment) -> Result<Self, Error> {
        let mut layers = Layers { flags, environment, file: None, chosen: None };
        let found = layers.resolve(&CONFIG.row, Program::Archive)?;
        layers.file = match CONFIG.value(&found)? {
            Some(path) => {
                Some(ConfigFile::read(&path).map_err(|error| error.within(&found.origin.to_string()))?)
            }
            None => ConfigFile::read_if_there(Path::new(DEFAULT_FILE))?,
        };
        Ok(layers)
    }

    /// The values in force of one setting for one program.
    pub fn resolve(&self, row: &Row, program: Program) -> Result<Resolved, Error> {
        if let Some(found) = self.caller_value(row) {
            return Ok(found);
        }
        if let Some(file) = &self.file {
            let cluster = self.cluster_name();
            let in_file = match row.scope {
                Scope::Destination => file.get_in("s3", row, cluster),
                Scope::Encryption => file.get_in("encryption", row, cluster),
                Scope::Program | Scope::File => file.get(row, program, cluster),
                Scope::Own | Scope::Call => None,
            };
            if let Some(found) = in_file {
                return Ok(found);
            }
        }
        self.inherited_or_default(row)
    }

    fn cluster_name(&self) -> Option<&str> {
        self.chosen.as_ref().map(|chosen| chosen.name.as_str())
    }

    /// What the command line or our own variable says.
    fn caller_value(&self, row: &Row) -> Option<Resolved> {
        if let Some(values) = self.flags.get(row.name) {
            return Some(Resolved { values: values.clone(), origin: Origin::Flag(row.name) });
        }
        let variable = row.variable()?;
        let text = self.environment.get(&variable)?;
        Some(Resolved { values: row.split(text), origin: Origin::Environment(variable) })
    }

    /// What WAL-G's or AWS's variables say, else the default.
    fn inherited_or_default(&self, row: &Row) -> Result<Resolved, Error> {
        let mut theirs = row.theirs.iter().filter_map(|name| Some((*name, self.environment.get(*name)?)));
        match (theirs.next(), theirs.next(), row.variable()) {
            (Some((one, _)), Some((other, _)), Some(ours)) if row.scope != Scope::Destination => {
                Err(Error::new((), format!("{one} and {other} are both set"))
                    .hint(format!("say which one with {ours}")))
            }
            (Some((name, text)), ..) => {
                Ok(Resolved { values: vec![text.clone()], origin: Origin::Theirs(name) })
            }
            (None, ..) => {
                let default = match row.default {
                    Preset::Value(text) => Some(text.to_owned()),
                    Preset::Nothing | Preset::Words(_) => None,
                };
                Ok(Resolved { values: default.into_iter().collect(), origin: Origin::Default })
            }
        }
    }

    fn get<T>(&self, setting: &Setting<T>, program: Program) -> Result<T, Error> {
        setting.value(&self.resolve(&setting.row, program)?)
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
        WAL_G_ENCRYPTION.into_iter().find(|name| self.environment.contains_key(*name))
    }

    /// Variables with our prefix that are no setting's; not an error, as the prefix may be another's
    /// (Kubernetes makes `WAL_ARCHIVE_PORT` of a service named "wal-archive").
    pub fn unknown_variables(&self) -> Vec<&str> {
        let known = |name: &str| SETTINGS.iter().any(|row| row.variable().as_deref() == Some(name));
        let ours =
            self.environment.keys().map(String::as_str).filter(|name| name.starts_with("WAL_ARCHIVE_"));
        ours.filter(|name| !known(name)).collect()
    }
}

#[cfg(test)]
mod documentation;
#[cfg(test)]
mod tests;
