//! The TOML file: read whole, and what it sets, at the top and for a cluster.

use super::known::{check, texts};
use super::table::{ARCHIVE, PGDATA};
use super::{Error, Origin, Program, Resolved, Row, SETTINGS};
use crate::storage::s3::without_password;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A configuration file that holds only known keys.
#[derive(Clone)]
pub struct ConfigFile {
    path: PathBuf,
    table: Table,
}

impl ConfigFile {
    /// Reads and checks it. The error is a statement that names the file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let unreadable =
            |error: std::io::Error| Error::new((), format!("cannot read \"{}\": {error}", path.display()));
        ConfigFile::parse(path, &std::fs::read_to_string(path).map_err(unreadable)?)
    }

    /// The same for a file that need not be there. Only "no such file" means that it is not: one
    /// that cannot be reached may say something.
    pub(super) fn read_if_there(path: &Path) -> Result<Option<Self>, Error> {
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => match dangling_above(path) {
                None => Ok(None),
                Some(link) => Err(Error::new(
                    (),
                    format!(
                        "cannot read \"{}\": the link \"{}\" leads nowhere",
                        path.display(),
                        link.display()
                    ),
                )),
            },
            _ => ConfigFile::read(path).map(Some),
        }
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let file = path.display();
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            // The library's message has several lines and a drawing; the log wants one line.
            let line =
                error.span().map_or(0, |span| text.get(..span.start).unwrap_or("").lines().count().max(1));
            let reason = error.message().replace('\n', " ");
            Error::new((), format!("\"{file}\" is not TOML, line {line}: {reason}"))
        })?;
        check(&table).map_err(|error| error.within(&format!("\"{file}\"")))?;
        Ok(ConfigFile { path: path.to_owned(), table })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of its clusters, sorted.
    pub(super) fn clusters(&self) -> Vec<&str> {
        let clusters = self.table.get("cluster").and_then(Value::as_table).into_iter().flatten();
        clusters.map(|(name, _)| name.as_str()).collect()
    }

    /// Whether it holds a key or a password.
    pub(super) fn holds_secrets(&self) -> bool {
        let secret = |(key, value): (&String, &Value)| {
            SETTINGS.iter().any(|row| row.secret && row.key() == *key)
                || value.as_str().is_some_and(|text| without_password(text) != text)
        };
        let holds = |table: &Table| {
            let destinations = table.get("destination").and_then(Value::as_array).into_iter().flatten();
            let sections = [table.get("s3"), table.get("encryption")].into_iter().flatten();
            let mut all = destinations.chain(sections).filter_map(Value::as_table);
            all.any(|table| table.iter().any(secret))
        };
        let clusters = self.clusters();
        let mut parts = clusters.iter().flat_map(|name| self.parts(Some(name)));
        holds(&self.table) || parts.any(|part| holds(part.table))
    }

    /// A setting of a section that belongs to no program.
    pub(super) fn get_in(&self, section: &str, row: &Row, cluster: Option<&str>) -> Option<Resolved> {
        let key = row.key();
        self.parts(cluster).find_map(|part| {
            let value = part.table.get(section)?.get(&key)?;
            self.found(row, value, format!("{}{section}.{key}", part.prefix))
        })
    }

    /// What a destination, counted from 0, sets for itself.
    pub(super) fn get_own(&self, row: &Row, destination: usize, cluster: Option<&str>) -> Option<Resolved> {
        let key = row.key();
        self.parts(cluster).find_map(|part| {
            let value = part.table.get("destination")?.get(destination)?.get(&key)?;
            self.found(row, value, format!("{}destination {}: {key}", part.prefix, destination + 1))
        })
    }

    /// How many destinations are tables.
    pub(super) fn destination_tables(&self, cluster: Option<&str>) -> usize {
        let of = |part: Part<'_>| Some(part.table.get("destination")?.as_array()?.len());
        self.parts(cluster).find_map(of).unwrap_or(0)
    }

    /// Any other setting; the program's section comes before what is set outside of it.
    pub(super) fn get(&self, row: &Row, program: Program, cluster: Option<&str>) -> Option<Resolved> {
        self.parts(cluster).find_map(|part| self.get_from(&part, row, program))
    }

    /// The data directory that a cluster is for.
    pub(super) fn pgdata(&self, cluster: &str) -> Option<Resolved> {
        let part = self.parts(Some(cluster)).next()?;
        self.get_from(&part, &PGDATA.row, Program::Archive)
    }

    fn get_from(&self, part: &Part<'_>, row: &Row, program: Program) -> Option<Resolved> {
        let Part { table, prefix } = part;
        let key = row.key();
        if let Some(section) = program.section()
            && let Some(value) = table.get(section).and_then(|section| section.get(&key))
        {
            return self.found(row, value, format!("{prefix}{section}.{key}"));
        }
        if row.name == ARCHIVE.row.name
            && let Some(Value::Array(all)) = table.get("destination")
        {
            let urls = all.iter().filter_map(|one| Some(one.get("url")?.as_str()?.to_owned()));
            let origin = Origin::File(self.path.clone(), format!("{prefix}destination"));
            return Some(Resolved { values: urls.collect(), origin });
        }
        let value = table.get(&key).filter(|_| row.is_common())?;
        self.found(row, value, format!("{prefix}{key}"))
    }

    /// Where settings are looked for, one part after the other.
    fn parts(&self, cluster: Option<&str>) -> impl Iterator<Item = Part<'_>> {
        let own = cluster.and_then(|name| {
            let table = self.table.get("cluster")?.get(name)?.as_table()?;
            Some(Part { table, prefix: format!("cluster.{name}.") })
        });
        own.into_iter().chain([Part { table: &self.table, prefix: String::new() }])
    }

    fn found(&self, row: &Row, value: &Value, key: String) -> Option<Resolved> {
        Some(Resolved { values: texts(row, value).ok()?, origin: Origin::File(self.path.clone(), key) })
    }
}

/// What a cluster sets, or the top of the file.
struct Part<'a> {
    table: &'a Table,
    /// Of its keys, in messages.
    prefix: String,
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
