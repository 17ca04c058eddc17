//! `wal-fetch`: one verified WAL file to a path, or an answer that PostgreSQL can rely on.
//!
//! PostgreSQL takes "not there" for the end of the archive and promotes, so that answer needs
//! proof from every destination ([`crate::archive::absent`]). Everything else is a failure, after as much
//! [`Patience`] as it is worth. Our own object is asked for by its key;
//! what other tools stored is looked for where that one is missing, damaged or not ours, and
//! copies of one name that differ are damage, since nobody can tell which is right. Source: PostgreSQL
//! `src/backend/access/transam/xlogarchive.c` (`RestoreArchivedFile`) and `xlogrecovery.c`.
//!
//! The file is decoded beside the path and proved whole before it is renamed to it. It is not
//! fsynced: PostgreSQL fsyncs what it keeps.

mod ahead;
mod asking;
mod context;
mod destination;
mod explain;
mod keys;
mod own_copy;
mod partial;
mod patience;
mod prefetch;
mod search;

pub use context::Context;
pub use patience::{Patience, TO_THE_DEADLINE};
pub use prefetch::{Prefetching, prefetch};

use crate::failure::Failure;
use crate::host::data_directory::{DataDirectory, RunningServer};
use crate::host::target::{Target, TargetError};
use crate::object::Sha256Sum;
use crate::storage::{Error, Kind};
use crate::wal::{ControlFile, SegmentSize, Timeline, TimelineHistory, WalName};
use ahead::Ahead;
use asking::{Asker, Asking};
use log::Level;
use search::{End, Search};
use std::io::Write;
use std::path::{Path, PathBuf};
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
    /// A destination cannot be reached, or breaks off.
    Unreachable,
    /// A root or bucket is not there, or holds no WAL file: a disk that is not mounted, or a typing
    /// error.
    NothingThere,
    /// A destination refuses or is another cluster's archive: waiting changes nothing.
    Refused,
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
    pub context: &'a Context,
    /// Believe an empty destination.
    pub allow_empty: bool,
    /// Segments and timeline histories that are known to be lost for good.
    pub accept_gap: &'a [WalName],
    /// Give a partial segment for one that is not there.
    pub partial: bool,
    /// Of the whole call.
    pub timeout: Duration,
    /// How long what may change by itself is waited for.
    pub patience: Patience,
    /// `None`: nothing is prefetched.
    pub prefetch: Option<Prefetcher<'a>>,
}

impl<'a> Fetch<'a> {
    /// With no gap or empty destination accepted, nothing waited for, nothing prefetched.
    pub fn new(name: WalName, path: &'a Path, context: &'a Context, timeout: Duration) -> Self {
        Fetch {
            name,
            path,
            context,
            allow_empty: false,
            accept_gap: &[],
            partial: false,
            timeout,
            patience: Patience::NONE,
            prefetch: None,
        }
    }
}

/// The process that brings segments ahead.
#[derive(Clone, Copy)]
pub struct Prefetcher<'a> {
    /// Starts one for the server in that data directory.
    pub start: &'a dyn Fn(&Path),
    /// The settings that decide what may be believed. What was prefetched under others is not given.
    pub terms: Sha256Sum,
}

type Failures = Vec<Failure<Cause>>;

/// How long a valid copy in pg_wal is not given for a history that is asked for in the middle of a
/// promotion.
const PROMOTION_PATIENCE: Duration = Duration::from_secs(5);

/// Runs it, all in this process. The failures of all destinations, never empty.
pub fn fetch(request: &Fetch<'_>) -> Result<Answer, Failures> {
    let call = match Call::begin(request, Instant::now())? {
        Begun::Answered(answer) => return Ok(answer),
        Begun::Open(call) => call,
    };
    let target = call.target.clone();
    match search(request, call.control, target, call.asked_by.clone(), call.deadline) {
        Ok(Found::File(size)) => {
            call.go_on(size);
            Ok(Answer::Delivered)
        }
        Ok(Found::Otherwise) => Ok(Answer::Delivered),
        Ok(Found::Absent) => call.conclude_absent(),
        Err(failures) if !failures.iter().any(shows_a_file) && call.give_own_history(false)? => {
            failures.iter().for_each(|failure| failure.log(Level::Warn));
            Ok(Answer::Delivered)
        }
        Err(failures) => Err(failures),
    }
}

/// The part of a worker: asks the destinations, and leaves the proved file to its supervisor.
pub fn ask_for(request: &Fetch<'_>, supervisor: u32) -> Result<Answer, Failures> {
    let deadline = Instant::now() + request.timeout;
    let asked_by = request.context.server();
    let target = Target::of_worker(request.path, supervisor);
    let control = request.context.control().map_err(|failure| vec![failure])?;
    match search(request, control, target, asked_by, deadline)? {
        Found::File(_) | Found::Otherwise => Ok(Answer::Delivered),
        Found::Absent => Ok(Answer::Absent),
    }
}

/// What came of asking the destinations.
enum Found {
    /// A file of that many bytes was put in place.
    File(u64),
    /// What else may be given for it was.
    Otherwise,
    Absent,
}

fn search(
    request: &Fetch<'_>,
    control: Option<ControlFile>,
    target: Target,
    asked_by: Option<RunningServer>,
    deadline: Instant,
) -> Result<Found, Failures> {
    let Fetch { context, name, .. } = *request;
    let asking = Asking::new(context, name, Asker::PostgreSql, target, control, asked_by);
    let proof = match (Search { request, asking }).run(deadline)? {
        End::Archived(proof) => proof,
        End::Otherwise => return Ok(Found::Otherwise),
        End::Absent => return Ok(Found::Absent),
    };
    for warning in &proof.warnings {
        warning.log(Level::Warn);
    }
    Ok(Found::File(proof.size))
}

/// A request that was begun.
pub enum Begun<'a> {
    /// Without a question to any destination.
    Answered(Answer),
    /// The destinations must be asked.
    Open(Box<Call<'a>>),
}

/// A request that holds its path, for whose answer the destinations are to be asked.
pub struct Call<'a> {
    request: &'a Fetch<'a>,
    asked_by: Option<RunningServer>,
    control: Option<ControlFile>,
    target: Target,
    ahead: Option<Ahead<'a>>,
    deadline: Instant,
}

impl<'a> Call<'a> {
    /// Begins a request whose time began at `start`.
    pub fn begin(request: &'a Fetch<'a>, start: Instant) -> Result<Begun<'a>, Failures> {
        // Timeline 1 has no history, and PostgreSQL asks for it in the middle of a promotion.
        if request.name == WalName::TimelineHistory(Timeline::FIRST) {
            return Ok(Begun::Answered(Answer::Absent));
        }
        let mut deadline = start + request.timeout;
        // Before the wait for the folder: whoever asked then is whom the answer is for.
        let asked_by = request.context.server();
        let target = Target::take(request.path, deadline).map_err(|error| vec![local(&error)])?;
        let control = request.context.control().map_err(|failure| vec![failure])?;
        let ahead = Ahead::of(request, control.map(|control| control.system_id), asked_by.clone());
        if ahead.as_ref().is_some_and(|ahead| ahead.deliver(&target, deadline)) {
            return Ok(Begun::Answered(Answer::Delivered));
        }
        target.clean();
        if is_promoting(request) && own_history(request).is_some() {
            deadline = deadline.min(Instant::now() + PROMOTION_PATIENCE);
        }
        Ok(Begun::Open(Box::new(Call { request, asked_by, control, target, ahead, deadline })))
    }

    /// When the destinations must have answered.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// A worker proved the file.
    pub fn take_over(&self) -> Result<Answer, Failures> {
        self.still_asked()?;
        let size = self.target.take_over().map_err(|error| vec![local(&error)])?;
        self.go_on(size);
        Ok(Answer::Delivered)
    }

    /// No destination has it.
    pub fn conclude_absent(&self) -> Result<Answer, Failures> {
        Ok(if self.give_own_history(true)? { Answer::Delivered } else { Answer::Absent })
    }

    /// Puts PostgreSQL's own copy of a history in place, where it has a valid one: whatever became of
    /// the destinations, this is what PostgreSQL would read after the answer "absent", and any other
    /// answer would end its promotion, or the server.
    pub fn give_own_history(&self, absent: bool) -> Result<bool, Failures> {
        let Some(content) = own_history(self.request) else { return Ok(false) };
        let failed = |error| vec![local(&error)];
        let mut temporary = self.target.temporary().map_err(failed)?;
        let written = temporary.file.write_all(&content);
        written.map_err(|error| failed(self.target.unwritable(error)))?;
        self.still_asked()?;
        self.target.publish(temporary).map_err(failed)?;
        let name = self.request.name;
        if !absent {
            log::warn!(
                "no destination gives \"{name}\"; it was taken from pg_wal, where PostgreSQL keeps it"
            );
        }
        Ok(true)
    }

    fn still_asked(&self) -> Result<(), Failures> {
        self.request.context.still_asked(self.asked_by.as_ref()).map_err(|failure| vec![failure])
    }

    /// Removes what a worker left.
    pub fn clean_up_after_worker(&self) {
        self.target.clean_up_after_worker();
    }

    fn go_on(&self, size: u64) {
        if let Some((ahead, size)) = self.ahead.as_ref().zip(SegmentSize::new(size)) {
            ahead.go_on(size);
        }
    }
}

/// Whether it is no lack of the file: there is one, or no place for it.
fn shows_a_file(failure: &Failure<Cause>) -> bool {
    matches!(failure.kind, Cause::Damaged | Cause::Local)
}

fn is_promoting(request: &Fetch<'_>) -> bool {
    let is_history = matches!(request.name, WalName::TimelineHistory(_));
    is_history && request.context.data_directory.as_ref().is_some_and(DataDirectory::is_past_recovery)
}

/// PostgreSQL's own file of the name, which it uses where the archive has none.
fn own_path(request: &Fetch<'_>) -> Option<PathBuf> {
    let copy = request.path.with_file_name(request.name.to_string());
    (copy != request.path).then_some(copy)
}

/// PostgreSQL's own copy of the history that is asked for, if it is valid.
fn own_history(request: &Fetch<'_>) -> Option<Vec<u8>> {
    let WalName::TimelineHistory(timeline) = request.name else { return None };
    let content = std::fs::read(own_path(request)?).ok()?;
    TimelineHistory::parse(timeline, &content).is_ok().then_some(content)
}

/// What is to be done where a history is not to be had in the middle of a promotion.
pub fn hint_in_promotion(timeline: Timeline) -> String {
    format!(
        "this request came in the middle of a promotion: create standby.signal or recovery.signal again \
         before the next start, or the server comes up on timeline {timeline}"
    )
}

fn failed(error: &Error) -> Failure<Cause> {
    let cause = match error.kind() {
        Kind::TimedOut => Cause::Deadline,
        Kind::Damaged => Cause::Damaged,
        Kind::Denied | Kind::Invalid => Cause::Refused,
        Kind::NoPlace => Cause::NothingThere,
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
