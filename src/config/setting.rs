//! What a setting is: its names, where it may be set, and how its text becomes a value.

use super::{Error, Origin, Resolved};
use crate::storage::s3::without_password;

/// Whose setting it is, or who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `wal-push`, `[push]`
    Push,
    /// `wal-fetch`, `[fetch]`
    Fetch,
    /// `wal-archive`, which has no section of its own
    Archive,
}

impl Program {
    /// The section of the configuration file.
    pub fn section(self) -> Option<&'static str> {
        match self {
            Program::Push => Some("push"),
            Program::Fetch => Some("fetch"),
            Program::Archive => None,
        }
    }
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// `--name` alone; `true` or `false` elsewhere.
    Switch,
    /// `true` or `false` everywhere.
    Boolean,
    /// One text, with its name in the help.
    Text(&'static str),
    /// One number, which may be negative.
    Number(&'static str),
    /// `--name` may be repeated; a comma list in the environment, an array in the file.
    List(&'static str),
}

/// Where a setting may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere. In the file: in the section of its program or, where several programs have it, at
    /// the top; the same in a cluster.
    Program,
    /// Everywhere. In the file: in `[s3]`, or with one destination.
    Destination,
    /// In the file only, at the top or in a cluster.
    File,
    /// In the file only, in `[encryption]`.
    Encryption,
    /// In the file only, with one destination.
    Own,
    /// On the command line and in the environment: it chooses what is read of the file.
    Call,
}

/// What holds where nothing is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    Nothing,
    Value(&'static str),
    /// What these words say, found out when it is needed.
    Words(&'static str),
}

/// All that is known of a setting without its type.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The flag without its dashes.
    pub name: &'static str,
    /// The programs that have it.
    pub programs: &'static [Program],
    /// How its values are written.
    pub takes: Takes,
    /// Where it may be set.
    pub scope: Scope,
    /// Where nothing is set.
    pub default: Preset,
    /// Variables of WAL-G and AWS that mean the same; the first that is set counts.
    pub theirs: &'static [&'static str],
    /// Whether it must never be shown, nor appear on a command line.
    pub secret: bool,
    pub help: &'static str,
}

impl Row {
    /// Whether the command line has it.
    pub fn has_flag(&self) -> bool {
        !self.secret && !self.is_of_the_file()
    }

    /// Whether only the file has it.
    fn is_of_the_file(&self) -> bool {
        matches!(self.scope, Scope::File | Scope::Encryption | Scope::Own)
    }

    pub fn variable(&self) -> Option<String> {
        match (self.scope, self.name) {
            _ if self.is_of_the_file() => None,
            (_, "archive") => Some("WAL_ARCHIVE".to_owned()),
            (_, name) => Some(format!("WAL_ARCHIVE_{}", name.replace('-', "_").to_uppercase())),
        }
    }

    /// Its key in the configuration file.
    pub fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Whether it may be set at the top of the file, or of a cluster.
    pub fn is_common(&self) -> bool {
        match self.scope {
            Scope::Program => self.programs.len() > 1,
            Scope::File => true,
            Scope::Destination | Scope::Encryption | Scope::Own | Scope::Call => false,
        }
    }

    /// The help with the default.
    pub fn help(&self) -> String {
        match self.default {
            Preset::Value(default) | Preset::Words(default) if self.takes != Takes::Switch => {
                format!("{} (default: {default})", self.help)
            }
            Preset::Nothing | Preset::Value(_) | Preset::Words(_) => self.help.to_owned(),
        }
    }

    /// The values in the text of an environment variable.
    pub(super) fn split(&self, text: &str) -> Vec<String> {
        match self.takes {
            Takes::List(_) => {
                text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
            }
            _ => vec![text.to_owned()],
        }
    }
}

/// A setting that means a `T`.
pub struct Setting<T> {
    /// Its names and its help.
    pub row: Row,
    /// From the texts of its values, none where nothing is set and there is no default.
    pub(super) read: fn(&[String]) -> Result<T, Unreadable>,
}

impl<T> Setting<T> {
    pub(super) fn value(&self, found: &Resolved) -> Result<T, Error> {
        (self.read)(&found.values)
            .map_err(|Unreadable { text, expected }| found.origin.refuses(&text, &expected))
    }
}

/// A text that is no value of its setting.
pub(super) struct Unreadable {
    text: String,
    /// What would be one.
    expected: String,
}

fn read_text<T>(text: &str, parse: fn(&str) -> Result<T, String>) -> Result<T, Unreadable> {
    parse(text).map_err(|expected| Unreadable { text: text.to_owned(), expected })
}

/// The value of a setting with a default. The last one counts.
pub(super) fn one<T>(values: &[String], parse: fn(&str) -> Result<T, String>) -> Result<T, Unreadable> {
    read_text(values.last().map_or("", String::as_str), parse)
}

/// The value of a setting without one.
pub(super) fn optional<T>(
    values: &[String],
    parse: fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Unreadable> {
    values.last().map(|text| read_text(text, parse)).transpose()
}

/// The values of a list.
pub(super) fn all<T>(values: &[String], parse: fn(&str) -> Result<T, String>) -> Result<Vec<T>, Unreadable> {
    values.iter().map(|text| read_text(text, parse)).collect()
}

impl Origin {
    /// The error of a value that was found here.
    fn refuses(&self, value: &str, expected: &str) -> Error {
        // It may be meant for a URL with a password in it.
        Error::new((), format!("{self}: \"{}\" is not {expected}", without_password(value)))
    }
}
