//! `wal-push`: one WAL file into every destination, durably, never over a different one.
//!
//! 1. Where an earlier call looked ahead and left a mark for this very file, and the directories
//!    among the destinations still show the object, that is all.
//! 2. Read the source once: check it, hash it, compress it; then prove that it did not change.
//! 3. Store it in every destination at once (`crate::archive::put`).
//! 4. Meanwhile look ahead: PostgreSQL asks for one file at a time, and waits.
//!
//! Success means: durable in every destination. Every failure is reported, and the caller
//! decides by the gravest. Source: the PostgreSQL manual, "Continuous Archiving",
//! `archive_command`; `src/backend/postmaster/pgarch.c`.

mod look_ahead;

pub use crate::archive::intake::Cause;

use crate::archive::intake::{self, Intake, Source};
use crate::failure::Failure;
use crate::object::Encoder;
use crate::spool::{Marks, Stored};
use crate::storage::Shared;
use crate::storage::deadline::Deadline;
use crate::wal::WalName;
use look_ahead::LookAhead;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How long what a kill left is looked for: PostgreSQL waits.
const SWEEP: Duration = Duration::from_secs(5);

/// One call of `archive_command`.
pub struct Push<'a> {
    /// By the last part of the path.
    pub name: WalName,
    /// `%p`.
    pub path: &'a Path,
    /// All of them must take the file.
    pub destinations: &'a [Shared],
    /// Where it comes from, and how it is read.
    pub intake: Intake,
    /// How many more files may be stored in this call; 0: none.
    pub look_ahead: usize,
    /// How many files at once, the one asked for included; at least 1.
    pub jobs: usize,
    /// Of the whole call; by default it grows with the size of the source.
    pub timeout: Option<Duration>,
}

/// Runs it. The failures of all destinations, never empty.
pub fn push(request: &Push<'_>) -> Result<(), Vec<Failure<Cause>>> {
    push_and_tell(request, &|| {})
}

/// The same, telling when the requested file is durable: what follows is look-ahead, and may end at
/// any moment.
pub fn push_and_tell(request: &Push<'_>, durable: &dyn Fn()) -> Result<(), Vec<Failure<Cause>>> {
    let start = Instant::now();
    let marks = marks(request);
    let size = std::fs::metadata(request.path).map_or(0, |metadata| metadata.len());
    let deadline = start + request.timeout.unwrap_or_else(|| intake::patience(size));
    if let Some(marks) = &marks
        && marks.take(request.name, request.path, &within(request.destinations, deadline), SystemTime::now())
    {
        return Ok(());
    }
    tidy(request);
    // Without a spool nobody knows; then only a full disk is a reason.
    let proved = request.intake.spool.is_none() || look_ahead::destinations_are_proved(request);
    let look_ahead = LookAhead::start(request, size, marks, deadline);
    let store = || store(request, deadline).inspect(|_| durable());
    let mut outcome = store();
    if let Some(look_ahead) = look_ahead {
        let created = |stored: &Vec<Stored>| stored.iter().all(|stored| stored.created);
        look_ahead.finish(outcome.as_ref().is_ok_and(created));
        // What looked ahead may have taken the memory or the threads that this one lacked.
        if outcome.as_ref().is_err_and(|failures| failures.iter().all(may_be_of_this_process)) {
            outcome = store();
        }
    }
    if outcome.is_ok() && !proved {
        sweep(request, deadline);
    }
    outcome.map(drop)
}

/// Whether it may have failed of what this process lacks.
fn may_be_of_this_process(failure: &Failure<Cause>) -> bool {
    matches!(failure.kind, Cause::Source | Cause::Destination)
}

/// Once a day is often enough to look for what a kill left behind, and never before the file is
/// durable: a large directory may take long to read.
fn sweep(request: &Push<'_>, deadline: Instant) {
    let by = deadline.min(Instant::now() + SWEEP);
    for destination in within(request.destinations, by) {
        if let Err(error) = destination.sweep(SystemTime::now()) {
            log::debug!("{error}");
        }
    }
}

/// Whether an earlier call stored the file, where that can be told without asking a destination.
pub fn was_stored_ahead(request: &Push<'_>) -> bool {
    let Some(marks) = marks(request).filter(Marks::ask_nobody) else { return false };
    marks.take(request.name, request.path, request.destinations, SystemTime::now())
}

fn marks(request: &Push<'_>) -> Option<Marks> {
    request.intake.spool.as_ref().and_then(|spool| spool.marks(request.path.parent()?, request.destinations))
}

/// The destinations, each of which answers by the deadline.
fn within(destinations: &[Shared], deadline: Instant) -> Vec<Shared> {
    let within = |inner: &Shared| Arc::new(Deadline::new(Arc::clone(inner), deadline)) as Shared;
    destinations.iter().map(within).collect()
}

/// A server that recovers no more needs nothing that was prefetched for it.
fn tidy(request: &Push<'_>) {
    if let (Some(directory), Some(spool)) = (&request.intake.data_directory, &request.intake.spool)
        && !directory.is_in_archive_recovery()
        && let Err(error) = spool.clear_prefetched(None)
    {
        log::debug!("cannot clear the spool \"{}\": {error}", spool.folder().display());
    }
}

fn store(request: &Push<'_>, deadline: Instant) -> Result<Vec<Stored>, Vec<Failure<Cause>>> {
    let source = Encoder::new(request.intake.level)
        .map_err(|error| Failure::new(Cause::Source, format!("cannot start the compressor: {error}")))
        .and_then(|mut encoder| Source::read(request.name, request.path, &request.intake, &mut encoder))
        .map_err(|failure| vec![failure])?;
    source.store_everywhere(&request.intake, request.destinations, deadline)
}
