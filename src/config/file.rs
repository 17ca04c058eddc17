//! The TOML file: read whole, every key known, every value of the right shape.

use super::table::ARCHIVE;
use super::{Origin, Program, Resolved, Row, SETTINGS, Scope, Takes};
use crate::storage::s3::without_password;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A configuration file that holds only known keys.
pub struct ConfigFile {
    path: PathBuf,
    table: Table,
}

impl ConfigFile {
    /// Reads and checks it. The error is a statement that names the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| format!("cannot read \"{}\": {error}", path.display()))?;
        ConfigFile::parse(path, &text)
    }

    /// The same for a file that need not be there. Only "no such file" means that it is not: one
    /// that cannot be reached may say something.
    pub(super) fn read_if_there(path: &Path) -> Result<Option<Self>, String> {
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => match dangling_above(path) {
                None => Ok(None),
                Some(link) => Err(format!(
                    "cannot read \"{}\": the link \"{}\" leads nowhere",
                    path.display(),
                    link.display()
                )),
            },
            _ => ConfigFile::read(path).map(Some),
        }
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let file = path.display();
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            // The library's message has several lines and a drawing; the log wants one line.
            let line =
                error.span().map_or(0, |span| text.get(..span.start).unwrap_or("").lines().count().max(1));
            format!("\"{file}\" is not TOML, line {line}: {}", error.message().replace('\n', " "))
        })?;
        for (key, value) in &table {
            let checked = match (key.as_str(), value) {
                ("push", Value::Table(section)) => section_is_known(Program::Push, section),
                ("fetch", Value::Table(section)) => section_is_known(Program::Fetch, section),
                ("s3", Value::Table(section)) => s3_is_known("[s3]", section.iter()),
                ("destination", Value::Array(all)) => all.iter().try_for_each(destination_is_known),
                _ => match SETTINGS.iter().find(|row| row.is_common() && row.key() == *key) {
                    Some(row) => values(row, value).map(|_| ()),
                    None => Err(format!("unknown key \"{key}\"")),
                },
            };
            checked.map_err(|reason| format!("\"{file}\": {reason}"))?;
        }
        if table.contains_key("archive") && table.contains_key("destination") {
            return Err(format!(
                "\"{file}\": both \"archive\" and [[destination]] name destinations; keep one of them"
            ));
        }
        Ok(ConfigFile { path: path.to_owned(), table })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a key or a password stands in it.
    pub(super) fn holds_secrets(&self) -> bool {
        let tables = self.table.get("destination").and_then(Value::as_array).into_iter().flatten();
        let mut tables = tables.chain(self.table.get("s3")).filter_map(Value::as_table);
        let secret = |(key, value): (&String, &Value)| {
            SETTINGS.iter().any(|row| row.secret && row.key() == *key)
                || value.as_str().is_some_and(|text| without_password(text) != text)
        };
        tables.any(|table| table.iter().any(secret))
    }

    /// A setting of `[s3]`.
    pub(super) fn get_s3(&self, row: &Row) -> Option<Resolved> {
        let key = row.key();
        let value = self.table.get("s3")?.get(&key)?;
        self.found(row, value, format!("s3.{key}"))
    }

    /// What a destination, counted from 0, sets for itself.
    pub(super) fn get_own(&self, row: &Row, destination: usize) -> Option<Resolved> {
        let key = row.key();
        let value = self.table.get("destination")?.get(destination)?.get(&key)?;
        self.found(row, value, format!("destination {}: {key}", destination + 1))
    }

    /// How many destinations are tables.
    pub(super) fn destination_tables(&self) -> usize {
        self.table.get("destination").and_then(Value::as_array).map_or(0, Vec::len)
    }

    /// Any other setting; the program's section comes before the top.
    pub(super) fn get(&self, row: &Row, program: Program) -> Option<Resolved> {
        let key = row.key();
        if let Some(section) = program.section()
            && let Some(value) = self.table.get(section).and_then(|section| section.get(&key))
        {
            return self.found(row, value, format!("{section}.{key}"));
        }
        if row.name == ARCHIVE.row.name
            && let Some(Value::Array(all)) = self.table.get("destination")
        {
            let urls = all.iter().filter_map(|one| Some(one.get("url")?.as_str()?.to_owned()));
            let origin = Origin::File(self.path.clone(), "destination".to_owned());
            return Some(Resolved { values: urls.collect(), origin });
        }
        let value = self.table.get(&key).filter(|_| row.is_common())?;
        self.found(row, value, key)
    }

    fn found(&self, row: &Row, value: &Value, key: String) -> Option<Resolved> {
        Some(Resolved { values: values(row, value).ok()?, origin: Origin::File(self.path.clone(), key) })
    }
}

/// The nearest thing above a path that is there, if it is a link to nothing.
fn dangling_above(path: &Path) -> Option<&Path> {
    let above = path.ancestors().skip(1).find(|above| std::fs::symlink_metadata(above).is_ok())?;
    std::fs::metadata(above).is_err().then_some(above)
}

/// Whether others can read a file: the group only where it is root's.
pub(super) fn is_exposed(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.mode() & if file.uid() == 0 { 0o007 } else { 0o077 } != 0)
}

fn section_is_known(program: Program, section: &Table) -> Result<(), String> {
    let name = program.section().unwrap_or_default();
    for (key, value) in section {
        let known =
            |row: &&&Row| row.scope == Scope::Program && row.programs.contains(&program) && row.key() == *key;
        match SETTINGS.iter().find(known) {
            Some(row) => values(row, value).map_err(|reason| format!("[{name}]: {reason}"))?,
            None => return Err(format!("unknown key \"{key}\" in [{name}]")),
        };
    }
    Ok(())
}

fn s3_is_known<'a>(
    place: &str,
    mut keys: impl Iterator<Item = (&'a String, &'a Value)>,
) -> Result<(), String> {
    keys.try_for_each(|(key, value)| {
        match SETTINGS.iter().find(|row| row.scope == Scope::Destination && row.key() == *key) {
            Some(row) => values(row, value).map(|_| ()).map_err(|reason| format!("{place}: {reason}")),
            None => Err(format!("unknown key \"{key}\" in {place}")),
        }
    })
}

fn destination_is_known(destination: &Value) -> Result<(), String> {
    let table = destination.as_table().ok_or("[[destination]] is not a table")?;
    s3_is_known("[[destination]]", table.iter().filter(|(key, _)| *key != "url"))?;
    match table.get("url") {
        Some(Value::String(_)) => Ok(()),
        _ => Err("a [[destination]] needs a \"url\"".to_owned()),
    }
}

/// The texts of a value in the file.
fn values(row: &Row, value: &Value) -> Result<Vec<String>, String> {
    let wrong = |right: &str| Err(format!("\"{}\" must be {right}", row.key()));
    match (row.takes, value) {
        (Takes::Switch | Takes::Boolean, Value::Boolean(value)) => Ok(vec![value.to_string()]),
        (Takes::Text(_) | Takes::Number(_) | Takes::Boolean, Value::String(value)) => Ok(vec![value.clone()]),
        (Takes::Text(_) | Takes::Number(_) | Takes::Boolean, Value::Integer(value)) => {
            Ok(vec![value.to_string()])
        }
        (Takes::Switch | Takes::Boolean, _) => wrong("true or false"),
        (Takes::Text(_) | Takes::Number(_), _) => wrong("one value"),
        (Takes::List(_), Value::String(value)) => Ok(vec![value.clone()]),
        (Takes::List(_), Value::Array(all)) => {
            match all.iter().map(Value::as_str).collect::<Option<Vec<_>>>() {
                Some(texts) => Ok(texts.into_iter().map(str::to_owned).collect()),
                None => wrong("an array of strings"),
            }
        }
        (Takes::List(_), _) => wrong("an array of strings"),
    }
}
