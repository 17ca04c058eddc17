//! `wal-archive restore`: a data directory from a backup, made ready to recover along the archived WAL.
//!
//! First it is decided what is restored ([`choose`]), and whether the WAL leads to the target; what does
//! not is refused before anything is written. Then the files are written, each compared with the
//! manifest, and `global/pg_control` last: a directory without it starts no server.

pub mod choose;
mod directory;
mod files;
mod parts;
mod reach;
pub mod settings;
pub mod target;
pub mod window;

use crate::archive::backups::{self, FetchError};
use crate::archive::object::SHUT_HINT;
use crate::base_backup::manifest::{self, ManifestError};
use crate::base_backup::part::Proof;
use crate::base_backup::{Record, Series, tar};
use crate::failure::Failure;
use crate::storage::{Body, BodyWriter, body};
use choose::Choice;
use directory::Directory;
use files::{Expected, Files};
use log::Level;
use settings::Recovery;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use reach::{Archive, Source, look, together};

/// Why nothing was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// What was asked for cannot be had, or is damaged.
    Refused,
    /// It could not be done or decided.
    CouldNot,
}

pub type Result<T> = std::result::Result<T, Failure<Cause>>;

fn refused(what: impl Into<String>) -> Failure<Cause> {
    Failure::new(Cause::Refused, what)
}

fn could_not(what: impl Into<String>) -> Failure<Cause> {
    Failure::new(Cause::CouldNot, what)
}

/// What is restored, and where.
pub struct Request<'a> {
    /// Those that hold the backup, or something of it, in the order in which they are asked.
    pub sources: &'a [Source],
    pub choice: &'a Choice,
    pub directory: &'a Path,
    /// Where tablespaces go that are not to be where they were.
    pub tablespaces: &'a BTreeMap<String, PathBuf>,
    pub recovery: &'a Recovery,
    /// Whether what an earlier restore left unfinished there may be removed.
    pub force: bool,
    /// Parts that are read and decoded at once.
    pub jobs: usize,
    /// Told bytes so far, and how many there will be; its error ends the restore.
    pub progress: &'a (dyn Fn(u64, u64) -> Result<()> + Sync),
}

/// Restores.
pub fn restore(request: &Request<'_>) -> Result<()> {
    let record = &request.choice.record;
    let locations = locations(record, request)?;
    // First what may not be readable here: nothing is made for it.
    let manifest = fetch_manifest(request)?;
    let mut expected = expected(&manifest)?;
    let directory = Directory::prepare(request.directory, &locations, request.force)?;
    let (total, _) = record.sizes();
    let mut done = 0;
    for (number, series) in record.series.iter().enumerate() {
        let (oid, place) = match &series.tablespace {
            None => (None, directory.path().to_owned()),
            Some((oid, _)) => (Some(*oid), locations.get(oid).cloned().unwrap_or_default()),
        };
        let mut files = Files::new(place, oid, &mut expected);
        let mut reader = tar::Reader::default();
        parts::each(request.sources, (number, series.parts.len()), request.jobs, &mut |bytes| {
            reader.push(bytes, &mut files).map_err(|error| unwritten(record, error))?;
            done += bytes.len() as u64;
            (request.progress)(done, total)
        })?;
        reader.finish().map_err(|error| unwritten(record, error))?;
        files.finish().map_err(|error| unwritten(record, error))?;
    }
    if let Some(missing) = expected.first() {
        return Err(damaged(record, format!("\"{missing}\" is in its manifest and not in its parts")));
    }
    let remapped = record.series.iter().any(|series| moved(series, &locations));
    let (signal, settings) = (request.recovery.signal(), request.recovery.write(record));
    directory.finish(&manifest, &locations, remapped.then_some(()), signal, &settings)
}

/// Where each tablespace goes.
fn locations(record: &Record, request: &Request<'_>) -> Result<BTreeMap<u32, PathBuf>> {
    let all = || record.series.iter().filter_map(|series| series.tablespace.as_ref());
    for old in request.tablespaces.keys() {
        if !all().any(|(_, location)| location == old) {
            let known: Vec<String> = all().map(|(_, location)| format!("\"{location}\"")).collect();
            return Err(could_not(format!("the backup has no tablespace at \"{old}\"")).hint(format!(
                "its tablespaces: {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )));
        }
    }
    all()
        .map(|(oid, location)| {
            let place = request.tablespaces.get(location).cloned().unwrap_or_else(|| location.into());
            match place.is_absolute() {
                true => Ok((*oid, place)),
                false => Err(could_not(format!("the tablespace at \"{location}\" has no absolute path"))
                    .hint(format!("say where it is to be: --tablespace {location}=/DIRECTORY"))),
            }
        })
        .collect()
}

fn moved(series: &Series, locations: &BTreeMap<u32, PathBuf>) -> bool {
    series
        .tablespace
        .as_ref()
        .is_some_and(|(oid, old)| locations.get(oid).is_some_and(|new| new != Path::new(old)))
}

fn fetch_manifest(request: &Request<'_>) -> Result<Body> {
    from_any(request.sources, |source| {
        let mut manifest = BodyWriter::new(body::overflow_folders(None));
        let (storage, record) = (source.storage.as_ref(), &source.record);
        backups::fetch(storage, (record, &record.manifest), Proof::Stored, &mut manifest)?;
        Ok(manifest.finish())
    })
}

/// From the first destination that has it intact. Where none has, and one of them could not be read, nobody
/// knows.
fn from_any<T>(
    sources: &[Source],
    mut fetch: impl FnMut(&Source) -> std::result::Result<T, FetchError>,
) -> Result<T> {
    let mut failed: Option<Failure<Cause>> = None;
    for (left, source) in (0..sources.len()).rev().zip(sources) {
        match fetch(source) {
            Ok(fetched) => return Ok(fetched),
            Err(error) => {
                let failure = unfetched(error);
                if left > 0 {
                    failure.remark().log(Level::Warn);
                }
                if failed.as_ref().is_none_or(|before| before.kind == Cause::Refused) {
                    failed = Some(failure);
                }
            }
        }
    }
    Err(failed.unwrap_or_else(|| could_not("no destination holds the backup")))
}

fn unfetched(error: FetchError) -> Failure<Cause> {
    match error {
        FetchError::Storage(error) => Failure::from_storage(Cause::CouldNot, &error),
        FetchError::Damaged(reason) => refused(reason)
            .hint("restore another backup: \"wal-archive list\" shows them, --backup names one"),
        FetchError::Shut(reason) => could_not(reason).hint(SHUT_HINT),
        FetchError::Output(error) => could_not(format!("cannot keep a part of the backup: {error}"))
            .hint("make room for a temporary file in $TMPDIR, /var/tmp or /tmp"),
    }
}

fn expected(manifest: &Body) -> Result<Expected> {
    let mut expected = Expected::default();
    let read = manifest::read(&mut manifest.reader(), &mut |file| expected.add(file));
    match read {
        Ok(_) => Ok(expected),
        Err(ManifestError::Damaged(reason)) => Err(refused(reason)),
        Err(ManifestError::Read(error)) => Err(could_not(format!("cannot read the manifest again: {error}"))),
    }
}

fn damaged(record: &Record, what: String) -> Failure<Cause> {
    refused(format!("the backup {} is damaged: {what}", record.id))
        .hint("restore another backup: \"wal-archive list\" shows them, --backup names one")
}

fn unwritten(record: &Record, error: tar::Error) -> Failure<Cause> {
    match error {
        tar::Error::Damaged(reason) => damaged(record, reason),
        tar::Error::Output(what, error) => could_not(format!("{what}: {error}")),
    }
}

#[cfg(test)]
mod tests;
