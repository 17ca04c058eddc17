//! `wal-fetch`: one verified WAL file to a path, or an answer that PostgreSQL can rely on.
//!
//! PostgreSQL takes "not there" for the end of the archive and promotes, so that answer needs
//! proof from every destination: each is an archive, none has the file, and no later segment of
//! its timeline is there. Everything else is a failure. Our own object is asked for by its key;
//! what other tools stored is looked for where that one is missing, damaged or not ours, and
//! copies of one name that differ are damage, since nobody can tell which is right. Source: PostgreSQL
//! `src/backend/access/transam/xlogarchive.c` (`RestoreArchivedFile`) and `xlogrecovery.c`.
//!
//! The file is decoded beside the path and proved whole before it is renamed to it. It is not
//! fsynced: PostgreSQL fsyncs what it keeps.

mod ahead;
mod destination;
mod partial;
mod prefetch;
mod search;

pub use prefetch::{Prefetching, prefetch};

use crate::cluster::DataDirectory;
use crate::failure::Failure;
use crate::object::Checks;
use crate::spool::Spool;
use crate::storage::{Error, Kind, Shared};
use crate::target::{Target, TargetError};
use crate::wal::{SegmentName, SegmentSize, Timeline, WalName};
use ahead::Ahead;
use search::{End, Search};
use std::path::Path;
use std::time::{Duration, Instant};

/// What a fetch can fail of, gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The local path cannot be written.
    Local,
    /// An object is damaged, or is not the file asked for.
    Damaged,
    /// The file is missing though later segments of its timeline are there.
    Hole,
    /// A destination cannot be reached, or holds no archive now.
    Unreachable,
    /// A destination refuses or is another cluster's archive: waiting changes nothing.
    Refused,
    /// The deadline passed.
    Deadline,
}

/// What the caller may believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The proved file is at the path.
    Delivered,
    /// Proved: no destination has it.
    Absent,
}

/// One call of `restore_command`.
pub struct Fetch<'a> {
    /// `%f`.
    pub name: WalName,
    /// `%p`.
    pub path: &'a Path,
    /// In the order in which they are asked.
    pub destinations: &'a [Shared],
    /// The cluster that recovers, where it is known.
    pub data_directory: Option<&'a DataDirectory>,
    /// Where it can be had.
    pub spool: Option<&'a Spool>,
    /// Whether pages are looked at.
    pub checks: Checks,
    /// Believe an empty destination.
    pub allow_empty: bool,
    /// Segments that are known to be lost for good.
    pub accept_gap: &'a [SegmentName],
    /// Give a partial segment for one that is not there.
    pub partial: bool,
    /// Of the whole call.
    pub timeout: Duration,
    /// How long a hole is asked about again before it is believed: a push that looks ahead may
    /// store a later segment first.
    pub hole_patience: Duration,
    /// Starts a prefetcher for the server in that data directory; `None`: nothing is prefetched.
    pub prefetch: Option<&'a dyn Fn(&Path)>,
}

type Failures = Vec<Failure<Cause>>;

/// Runs it. The failures of all destinations, never empty.
pub fn fetch(request: &Fetch<'_>) -> Result<Answer, Failures> {
    // Timeline 1 has no history, and PostgreSQL asks for it in the middle of a promotion.
    if request.name == WalName::TimelineHistory(Timeline::FIRST) {
        return Ok(Answer::Absent);
    }
    let start = Instant::now();
    let deadline = start + request.timeout;
    // Before the wait for the folder: whoever asked then is whom the answer is for.
    let asked_by = request.data_directory.and_then(DataDirectory::server);
    let target = Target::take(request.path, deadline).map_err(|error| vec![local(&error)])?;
    let control = match request.data_directory.map(|directory| (directory, directory.system_id())) {
        Some((directory, Err(error))) => {
            let what = format!("cannot read \"{}/global/pg_control\": {error}", directory.path().display());
            return Err(vec![Failure::new(Cause::Local, what)]);
        }
        Some((_, Ok(id))) => id,
        None => None,
    };
    let ahead = Ahead::of(request, control, asked_by.as_ref());
    if ahead.as_ref().is_some_and(|ahead| ahead.deliver(&target, deadline)) {
        return Ok(Answer::Delivered);
    }
    target.clean();
    let proof = match Search::new(request, target, control, asked_by.clone()).run(start, deadline)? {
        End::Archived(proof) => proof,
        End::Otherwise => return Ok(Answer::Delivered),
        End::Absent => return Ok(Answer::Absent),
    };
    for warning in &proof.warnings {
        log::warn!("{warning}");
    }
    if let Some((ahead, size)) = ahead.zip(SegmentSize::new(proof.size)) {
        ahead.go_on(size);
    }
    Ok(Answer::Delivered)
}

fn failed(error: &Error) -> Failure<Cause> {
    let cause = match error.kind() {
        Kind::TimedOut => Cause::Deadline,
        Kind::Damaged => Cause::Damaged,
        Kind::Denied | Kind::Invalid => Cause::Refused,
        Kind::NotFound | Kind::AlreadyExists | Kind::Unavailable => Cause::Unreachable,
    };
    Failure::from_storage(cause, error)
}

fn local(error: &TargetError) -> Failure<Cause> {
    let cause = if error.is_late() { Cause::Deadline } else { Cause::Local };
    let failure = Failure::new(cause, error.to_string());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
