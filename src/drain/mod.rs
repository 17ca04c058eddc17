//! `wal-archive drain`: what a server has and its archive lacks, when the server cannot bring it
//! any more, or before it is left behind.
//!
//! 1. Every destination must be this cluster's archive already: a drain completes one.
//! 2. The [`plan`]: the records tell which segments are complete.
//! 3. Each file is read and encoded once, its records are read again from the very bytes that are
//!    to be stored, and it is dropped where it changed meanwhile. It is stored as wal-push does it
//!    (`crate::archive::put`): identical is success, nothing is replaced.
//!
//! Histories come first, so that whatever stands in the archive after an interruption can be
//! followed. Status files are PostgreSQL's: read, never touched. A drain may be repeated.

pub mod plan;
#[cfg(test)]
mod tests;

use crate::archive::forms::Forms;
use crate::archive::identity;
use crate::archive::intake::{self, Cause, Intake, Source};
use crate::archive::lookup;
use crate::failure::Failure;
use crate::finding::Finding;
use crate::host::data_directory::DataDirectory;
use crate::host::side_by_side::by_many;
use crate::object::{Checks, Encoder, Key};
use crate::spool::Spool;
use crate::storage::deadline::Deadline;
use crate::storage::{Error, Kind, Shared, Storage, hides_what_is_missing};
use crate::wal::records::{Start, Walker};
use crate::wal::{SystemId, WalName};
use plan::{DrainPlan, Item, Left, TimelineEnd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What to drain, and to where.
pub struct Drain<'a> {
    /// The folder of segments.
    pub pg_wal: &'a Path,
    /// The cluster's, where it is known.
    pub data_directory: Option<&'a DataDirectory>,
    /// All of them must take everything.
    pub destinations: &'a [Shared],
    /// Whether a server may be at work there: unfinished segments are left alone.
    pub live: bool,
    /// Whether nothing is stored.
    pub dry_run: bool,
    /// Where it can be had.
    pub spool: Option<&'a Spool>,
    /// zstd's.
    pub level: i32,
    /// How many files at once.
    pub jobs: usize,
    /// Of each file; by default it grows with its size.
    pub timeout: Option<Duration>,
}

/// What was done.
#[derive(Debug)]
pub struct Drained {
    /// The files that belong into the archive, in the order of storing.
    pub files: Vec<DrainedFile>,
    /// Those that do not.
    pub left: Vec<Left>,
    /// Those that do not, and that somebody should look at.
    pub findings: Vec<Finding>,
    /// Where each timeline ends.
    pub ends: Vec<TimelineEnd>,
    /// Whose WAL it is.
    pub system_id: Option<SystemId>,
}

/// One file.
#[derive(Debug)]
pub struct DrainedFile {
    /// The file.
    pub item: Item,
    /// What became of it.
    pub became: Became,
}

/// What became of a file.
#[derive(Debug)]
pub enum Became {
    /// It is in every destination, and was not before.
    Stored,
    /// It was in every destination, identical.
    There,
    /// Nothing was done; whether a destination lacks it.
    Planned(bool),
    /// It is not stored: it changed, or is no valid file, or another one has its name.
    Refused(Vec<Failure<Cause>>),
    /// It is not in every destination: one of them failed.
    Failed(Vec<Failure<Cause>>),
}

/// Runs it. A failure means that nothing was done at all.
pub fn drain(request: &Drain<'_>) -> Result<Drained, Failure> {
    let system_id = control_system_id(request)?;
    let plan = plan::read(request.pg_wal, request.live, system_id).map_err(|error| {
        Failure::new((), format!("cannot read \"{}\": {error}", request.pg_wal.display()))
    })?;
    if plan.items.is_empty() && plan.left.is_empty() && plan.findings.is_empty() {
        let what = format!("\"{}\" holds no WAL file", request.pg_wal.display());
        return Err(
            Failure::new((), what).hint("name a data directory, or the folder that holds its segments")
        );
    }
    let foreign = prove(request, plan.system_id)?;
    let DrainPlan { items, left, findings, ends, system_id } = plan;
    let files = store_all(request, &foreign, items);
    Ok(Drained { files, left, findings, ends, system_id })
}

fn control_system_id(request: &Drain<'_>) -> Result<Option<SystemId>, Failure> {
    let Some(directory) = request.data_directory else { return Ok(None) };
    let path = directory.path().display();
    if directory.is_running() && !request.live {
        return Err(Failure::new((), format!("a server runs in \"{path}\": its postmaster.pid names a living process"))
            .hint(
                "stop the server, which archives everything itself; --live brings what is complete of a running one; if \
                 that process is another program, remove postmaster.pid",
            ));
    }
    directory
        .system_id()
        .map_err(|error| Failure::new((), format!("cannot read \"{path}/global/pg_control\": {error}")))
}

/// A drain completes an archive, and begins none: a typing error would look like success. Tells
/// of each destination whether other tools wrote to it.
fn prove(request: &Drain<'_>, system_id: Option<SystemId>) -> Result<Vec<bool>, Failure> {
    let prove = |destination: &Shared| {
        let storage = Deadline::new(Arc::clone(destination), Instant::now() + Duration::from_secs(60));
        let identity = identity::identity(&storage)?;
        match &identity {
            Some(identity) => {
                identity::refuse_other(&storage, identity, system_id)?;
                identity::refuse_to_write(&storage, identity)
                    .map_err(|(message, hint)| Error::new(Kind::Denied, message).hint(hint))?;
            }
            None => identity::refuse_empty(&storage)?,
        }
        Ok(identity.is_none_or(|identity| identity.foreign))
    };
    let failed = |error: Error| {
        let failure = Failure::from_storage((), &error);
        match error.kind() {
            Kind::Invalid => failure.hint("name the archive of the cluster that this pg_wal is of"),
            _ => failure,
        }
    };
    request.destinations.iter().map(|destination| prove(destination).map_err(failed)).collect()
}

/// Histories one by one, then everything else on several threads.
fn store_all(request: &Drain<'_>, foreign: &[bool], items: Vec<Item>) -> Vec<DrainedFile> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Became)>> = Mutex::new(Vec::new());
    let texts = items.iter().take_while(|item| !item.name.is_pages()).count();
    let work = |end: usize| {
        let mut encoder = Encoder::new(request.level);
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index).filter(|_| index < end) else { return };
            let became = match &mut encoder {
                Ok(encoder) => drain_file(request, foreign, item, encoder),
                Err(error) => {
                    let what = format!("cannot start the compressor: {error}");
                    Became::Failed(vec![Failure::new(Cause::Source, what)])
                }
            };
            log::debug!("\"{}\": {became:?}", item.name);
            // Every change is whole, so a poisoned lock still guards a whole list.
            done.lock().unwrap_or_else(PoisonError::into_inner).push((index, became));
        }
    };
    work(texts);
    next.store(texts, Ordering::Relaxed);
    by_many(request.jobs, || work(items.len()));
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    items.into_iter().zip(done).map(|(item, (_, became))| DrainedFile { item, became }).collect()
}

fn drain_file(request: &Drain<'_>, foreign: &[bool], item: &Item, encoder: &mut Encoder) -> Became {
    let size = std::fs::metadata(&item.path).map_or(0, |file| file.len());
    let deadline = Instant::now() + request.timeout.unwrap_or_else(|| intake::patience(size));
    let lacking = match lacks(request, foreign, item.name, deadline) {
        Ok(lacking) => lacking,
        Err(failure) => return Became::Failed(vec![failure]),
    };
    if request.dry_run {
        return Became::Planned(lacking);
    }
    let intake = Intake {
        data_directory: request.data_directory.cloned(),
        spool: request.spool.cloned(),
        level: request.level,
        checks: Checks::Header,
        drop_cache: false,
        forms: Forms::of(request.destinations),
        urgent: true,
    };
    let source = match read(item, &intake, encoder) {
        Ok(source) => source,
        Err(failure) => return Became::Refused(vec![failure]),
    };
    match source.store_everywhere(&intake, request.destinations, deadline) {
        Ok(_) if lacking => Became::Stored,
        Ok(_) => Became::There,
        Err(failures) => {
            let refused = |failure: &Failure<Cause>| matches!(failure.kind, Cause::Conflict | Cause::Invalid);
            if failures.iter().all(refused) { Became::Refused(failures) } else { Became::Failed(failures) }
        }
    }
}

/// Whether a destination has nothing under the name. Without the right to list, S3 does not tell.
fn lacks(
    request: &Drain<'_>,
    foreign: &[bool],
    name: WalName,
    deadline: Instant,
) -> Result<bool, Failure<Cause>> {
    for (destination, foreign) in request.destinations.iter().zip(foreign) {
        let storage = Deadline::new(Arc::clone(destination), deadline);
        let found = match storage.head(&Key::of(name, storage.keys().writes())) {
            Ok(_) => continue,
            Err(error) if error.kind() == Kind::NotFound && !foreign => Ok(false),
            Err(error) if error.kind() == Kind::NotFound => {
                lookup::copies(&storage, name, true).map(|found| !found.keys.is_empty())
            }
            Err(error) if hides_what_is_missing(&storage, &error) => Ok(false),
            Err(error) => Err(error),
        };
        match found {
            Ok(true) => {}
            Ok(false) => return Ok(true),
            Err(error) => return Err(Failure::from_storage(Cause::Destination, &error)),
        }
    }
    Ok(false)
}

/// Reads it, and its records from what is to be stored.
fn read(item: &Item, intake: &Intake, encoder: &mut Encoder) -> Result<Source, Failure<Cause>> {
    let changed = |how: &str| {
        Failure::new(Cause::Source, format!("\"{}\" changed while it was read ({how})", item.path.display()))
            .hint("a server works there; nothing of it was stored: run the drain again")
    };
    let source = Source::read(item.name, &item.path, intake, encoder)?;
    if source.stamp != item.stamp {
        return Err(changed("its size, times or inode differ"));
    }
    let (WalName::Segment(segment) | WalName::Partial(segment)) = item.name else { return Ok(source) };
    let mut walker = Walker::new(Start::Anywhere);
    walker.begin(segment);
    source
        .objects
        .decode(item.name, Checks::Header, &mut walker)
        .map_err(|error| changed(&format!("its compressed form: {error}")))?;
    let walk = walker.walk();
    match item.name {
        WalName::Segment(_) if !walk.complete => Err(changed(&walk.stop.to_string())),
        // A record that began in the segment before is none of this walk's.
        WalName::Partial(_) if item.end.is_some() && walk.end.is_some() && walk.end != item.end => {
            Err(changed(&walk.stop.to_string()))
        }
        _ => Ok(source),
    }
}
