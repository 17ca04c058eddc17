//! `wal-archive drain`: what a server has and its archive lacks, when the server cannot bring it
//! any more, or before it is left behind.
//!
//! 1. Every destination must be this cluster's archive already: a drain completes one. Where one cannot be
//!    reached, the others get everything: whoever drains has lost a server, and maybe more than that.
//! 2. The [`plan`]: the records tell which segments are complete.
//! 3. Each file is read and encoded once, its records are read again from the very bytes that are
//!    to be stored, and it is dropped where it changed meanwhile. It is stored as wal-push does it
//!    (`crate::archive::put`): identical is success, nothing is replaced, and nothing is stored behind
//!    a segment that is refused.
//!
//! Histories come first, so that whatever stands in the archive after an interruption can be
//! followed. Status files are PostgreSQL's: read, never touched. A drain may be repeated.

pub mod plan;
mod store;
#[cfg(test)]
mod tests;

use crate::archive::identity;
use crate::archive::intake::Cause;
use crate::failure::Failure;
use crate::finding::Finding;
use crate::host::data_directory::DataDirectory;
use crate::spool::Spool;
use crate::storage::deadline::Deadline;
use crate::storage::{Error, Kind, Shared, Storage};
use crate::wal::{SegmentName, SystemId};
use log::Level;
use plan::{DrainPlan, Item, Left, TimelineEnd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What to drain, and to where.
pub struct Drain<'a> {
    /// The folder of segments.
    pub pg_wal: &'a Path,
    /// The cluster's, where it is known.
    pub data_directory: Option<&'a DataDirectory>,
    /// Each is to take everything.
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
    /// Why a destination could not be reached: nothing was stored there.
    pub unreached: Vec<Failure<Cause>>,
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
    /// It is not stored: an archiver would not get here behind this segment, of which a destination holds another one.
    HeldBack(SegmentName),
    /// It is not in every destination: one of them failed, or cannot be reached.
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
    let reached = reach(request, plan.system_id)?;
    let DrainPlan { items, left, findings, ends, system_id } = plan;
    let mut files =
        store::store_all(&Drain { destinations: &reached.destinations, ..*request }, &reached.foreign, items);
    let unreached = reached.failures;
    for file in files.iter_mut().filter(|_| !unreached.is_empty()) {
        match &mut file.became {
            Became::Stored | Became::There => file.became = Became::Failed(unreached.clone()),
            Became::Failed(failures) => failures.extend(unreached.iter().cloned()),
            Became::Planned(_) | Became::Refused(_) | Became::HeldBack(_) => {}
        }
    }
    Ok(Drained { unreached, files, left, findings, ends, system_id })
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

/// The destinations, as far as they answer.
struct Reached {
    destinations: Vec<Shared>,
    /// Of each, whether other tools wrote to it.
    foreign: Vec<bool>,
    /// Of the others, what is the matter.
    failures: Vec<Failure<Cause>>,
}

/// A failure: one of them is set up for something else, or none can be reached.
fn reach(request: &Drain<'_>, system_id: Option<SystemId>) -> Result<Reached, Failure> {
    let mut reached = Reached { destinations: Vec::new(), foreign: Vec::new(), failures: Vec::new() };
    for destination in request.destinations {
        let storage = Deadline::new(Arc::clone(destination), Instant::now() + Duration::from_secs(60));
        match prove(&storage, system_id)? {
            Ok(foreign) => {
                reached.destinations.push(Arc::clone(destination));
                reached.foreign.push(foreign);
            }
            Err(error) => reached.failures.push(Failure::from_storage(Cause::Destination, &error)),
        }
    }
    if reached.destinations.is_empty()
        && let Some((first, others)) = reached.failures.split_first()
    {
        others.iter().for_each(|failure| failure.log(Level::Error));
        return Err(first.remark());
    }
    let on = "the other destinations are completed; repeat the drain when this one answers, or name the others \
              alone with --archive";
    reached.failures = reached.failures.into_iter().map(|failure| failure.or_else(on)).collect();
    Ok(reached)
}

/// A drain completes an archive, and begins none: a typing error would look like success. Tells
/// whether other tools wrote to it, or why it cannot be reached; what is set up for something else is a failure.
fn prove(
    storage: &dyn Storage,
    system_id: Option<SystemId>,
) -> Result<std::result::Result<bool, Error>, Failure> {
    let identity = match identity::identity(storage) {
        Ok(Some(identity)) => identity,
        Ok(None) => return Ok(identity::refuse_empty(storage).map(|()| true)),
        Err(error) if error.kind() == Kind::Invalid => return Err(Failure::from_storage((), &error)),
        Err(error) => return Ok(Err(error)),
    };
    identity::refuse_other(storage, &identity, system_id).map_err(|error| {
        Failure::from_storage((), &error).hint("name the archive of the cluster that this pg_wal is of")
    })?;
    identity::refuse_to_write(storage, &identity)
        .map_err(|(message, hint)| Failure::new((), message).hint(hint))?;
    Ok(Ok(identity.foreign))
}
