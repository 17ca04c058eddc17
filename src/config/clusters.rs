//! Which cluster of the configuration file a call is for.
//!
//! Where the file has clusters, a call uses the settings of exactly one of them: the one that it
//! names, else the one whose data directory it runs in, else the only one where that names none. It
//! never takes one by chance: a server that is not listed must not archive under another's prefix.

use super::table::{ARCHIVE, CLUSTER, PGDATA};
use super::{ConfigFile, Error, Layers, Origin, Program};
use crate::host::data_directory::{DataDirectory, place};
use std::path::{Path, PathBuf};

/// What a call itself tells of its cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller<'a> {
    /// The data directory that it runs in, or that it was given.
    pub data_directory: Option<&'a Path>,
    pub archive_by: ArchiveBy,
}

/// What says where the archive is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArchiveBy {
    /// The arguments name every destination that the call needs.
    Arguments,
    #[default]
    Settings,
}

impl ArchiveBy {
    pub fn arguments_if(name_all: bool) -> Self {
        if name_all { ArchiveBy::Arguments } else { ArchiveBy::Settings }
    }
}

impl<'a> Caller<'a> {
    /// A call in this data directory.
    pub fn of(data_directory: Option<&'a DataDirectory>) -> Self {
        Caller { data_directory: data_directory.map(DataDirectory::path), archive_by: ArchiveBy::Settings }
    }
}

/// The cluster whose settings are in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// As in `[cluster.NAME]`.
    pub name: String,
    pub by: Origin,
}

/// A cluster of the file, and the data directory that it is for.
struct Candidate<'a> {
    name: &'a str,
    pgdata: Option<(PathBuf, Origin)>,
}

impl<'a> Candidate<'a> {
    fn read(file: &ConfigFile, name: &'a str) -> Result<Self, Error> {
        let Some(found) = file.pgdata(name) else { return Ok(Candidate { name, pgdata: None }) };
        let path = PGDATA.value(&found)?;
        Ok(Candidate { name, pgdata: path.map(|path| (path, found.origin)) })
    }
}

impl Layers {
    /// The cluster whose settings are in force; none where the file has none, or where the call names
    /// the archive itself.
    pub fn cluster(&self) -> Option<&Chosen> {
        self.chosen.as_ref()
    }

    /// The data directory that the settings in force are for.
    pub fn pgdata(&self) -> Result<Option<PathBuf>, Error> {
        self.get(&PGDATA, Program::Archive)
    }

    /// Chooses the cluster. Without one, the settings at the top of the file are in force.
    pub fn choose(&mut self, caller: Caller<'_>) -> Result<(), Error> {
        self.chosen = match self.named_cluster()? {
            Some(named) => Some(named),
            None => match &self.file {
                Some(file) if file.clusters().is_empty() => {
                    self.check_top(file, caller)?;
                    None
                }
                Some(file) => self.fitting_cluster(file, caller)?,
                None => None,
            },
        };
        Ok(())
    }

    /// The same settings for each cluster of the file.
    pub fn for_each_cluster(&self) -> Result<Vec<Layers>, Error> {
        if let Some(named) = self.caller_value(&ARCHIVE.row) {
            return Err(Error::new((), format!("{} names one archive for all clusters", named.origin))
                .hint("name each cluster's archive in its [cluster.NAME]"));
        }
        let Some(file) = self.file.as_ref().filter(|file| !file.clusters().is_empty()) else {
            return Err(Error::new((), self.no_clusters())
                .hint("write one [cluster.NAME] for each, or leave --all out"));
        };
        let of = |name: &str| {
            let by = Origin::Flag("all");
            Layers { chosen: Some(Chosen { name: name.to_owned(), by }), ..self.clone() }
        };
        Ok(file.clusters().into_iter().map(of).collect())
    }

    fn named_cluster(&self) -> Result<Option<Chosen>, Error> {
        let found = self.resolve(&CLUSTER.row, Program::Archive)?;
        let Some(name) = CLUSTER.value(&found)? else { return Ok(None) };
        let by = found.origin;
        check_name(&name).map_err(|error| error.within(&by.to_string()))?;
        let known = self.file.as_ref().map(ConfigFile::clusters).unwrap_or_default();
        if known.contains(&name.as_str()) {
            return Ok(Some(Chosen { name, by }));
        }
        Err(match known.is_empty() {
            true => Error::new((), format!("{by}: {}", self.no_clusters()))
                .hint(format!("write [cluster.{name}] into the configuration file")),
            false => {
                let known: Vec<_> = known.iter().map(|name| format!("\"{name}\"")).collect();
                let file = self.file_in_words();
                Error::new((), format!("{by}: {file} has no cluster \"{name}\"; it has {}", known.join(", ")))
                    .hint(format!("write [cluster.{name}] into it, or name another one"))
            }
        })
    }

    /// By the data directory; else the only one, if it names none.
    fn fitting_cluster(&self, file: &ConfigFile, caller: Caller<'_>) -> Result<Option<Chosen>, Error> {
        let candidates = file
            .clusters()
            .into_iter()
            .map(|name| Candidate::read(file, name))
            .collect::<Result<Vec<_>, _>>()?;
        let own = caller.data_directory.and_then(place);
        let fits = |candidate: &&Candidate<'_>| match &candidate.pgdata {
            Some((path, _)) => own.is_some() && place(path) == own,
            None => false,
        };
        let fitting: Vec<_> = candidates.iter().filter(fits).collect();
        match (fitting.as_slice(), candidates.as_slice()) {
            ([Candidate { name, pgdata: Some((_, by)) }], _) => {
                Ok(Some(Chosen { name: (*name).to_owned(), by: by.clone() }))
            }
            ([], [Candidate { name, pgdata: None }]) => {
                let by = Origin::File(file.path().to_owned(), "its only cluster".to_owned());
                Ok(Some(Chosen { name: (*name).to_owned(), by }))
            }
            ([], _) if self.names_archive(caller) => Ok(None),
            ([], _) => Err(self.none_fits(&candidates, caller)),
            _ => {
                let names: Vec<_> = fitting.iter().map(|fitting| format!("\"{}\"", fitting.name)).collect();
                Err(self.several_fit(&names.join(" and "), caller))
            }
        }
    }

    /// Whether the call itself, and not the file, says where the archive is.
    fn names_archive(&self, caller: Caller<'_>) -> bool {
        caller.archive_by == ArchiveBy::Arguments || self.caller_value(&ARCHIVE.row).is_some()
    }

    fn none_fits(&self, candidates: &[Candidate<'_>], caller: Caller<'_>) -> Error {
        let of = |Candidate { name, pgdata }: &Candidate<'_>| match pgdata {
            Some((path, _)) => format!("\"{name}\" is for \"{}\"", path.display()),
            None => format!("\"{name}\" names no pgdata"),
        };
        let all = candidates.iter().map(of).collect::<Vec<_>>().join(", ");
        let file = self.file_in_words();
        let what = match caller.data_directory {
            Some(path) => format!("no cluster of {file} is for the data directory \"{}\"", path.display()),
            None => format!("no data directory tells which cluster of {file} is meant"),
        };
        Error::new((), format!("{what}: {all}")).hint(
            "name the cluster with --cluster or WAL_ARCHIVE_CLUSTER, or write the data directory as pgdata into its \
             [cluster.NAME]",
        )
    }

    fn several_fit(&self, names: &str, caller: Caller<'_>) -> Error {
        let (file, path) = (self.file_in_words(), caller.data_directory.unwrap_or(Path::new("")));
        Error::new(
            (),
            format!("the clusters {names} of {file} are for one data directory, \"{}\"", path.display()),
        )
        .hint("correct pgdata in all but one of them, or name the cluster with --cluster")
    }

    /// A file without clusters may be for one data directory, too.
    fn check_top(&self, file: &ConfigFile, caller: Caller<'_>) -> Result<(), Error> {
        let (Some(pgdata), Some(own)) = (self.pgdata()?, caller.data_directory) else { return Ok(()) };
        if self.names_archive(caller) || place(own).is_some_and(|own| place(&pgdata) == Some(own)) {
            return Ok(());
        }
        let (file, pgdata, own) = (file.path().display(), pgdata.display(), own.display());
        Err(Error::new(
            (),
            format!("\"{file}\" is for the data directory \"{pgdata}\" and not for \"{own}\""),
        )
        .hint("write a [cluster.NAME] with pgdata for each, or name another file with --config"))
    }

    /// Refuses a server in another directory than the settings at the top are for. Where they do not name
    /// destinations in tables, which no argument can, such a server is given the archive itself.
    pub fn refuse_elsewhere(&self, server: &Path) -> Result<(), Error> {
        let Some(file) = self.file.as_ref().filter(|_| self.cluster().is_none()) else { return Ok(()) };
        if !self.has_destination_tables() || self.pgdata()?.as_deref() == Some(server) {
            return Ok(());
        }
        self.check_top(file, Caller { data_directory: Some(server), archive_by: ArchiveBy::Settings })
    }

    fn file_in_words(&self) -> String {
        self.file_in_use().map_or_else(String::new, |path| format!("\"{}\"", path.display()))
    }

    fn no_clusters(&self) -> String {
        match &self.file {
            Some(_) => format!("{} has no clusters", self.file_in_words()),
            None => "there is no configuration file, and so no cluster".to_owned(),
        }
    }
}

/// Refuses a name that TOML, a label or a command line would not take as it is.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=63).contains(&name.len()) && name.chars().all(fits) {
        return Ok(());
    }
    Err(Error::new((), format!("{name:?} cannot be the name of a cluster"))
        .hint("use letters, digits, - and _, at most 63 of them"))
}

#[cfg(test)]
mod tests;
