//! `wal-archive rehearse`: a base backup that is recovered by a real server, for proof and for practice.
//!
//! Knows PostgreSQL's programs, a scratch directory, and how a copy of a cluster is run so that it does
//! nothing but recover. Does not know how the backup gets into the scratch directory, what the archive
//! holds, or who reads the result.
//!
//! | module | what |
//! |---|---|
//! | [`stop`] | when to give up: the time, a signal |
//! | [`scratch`] | the directory, and that nothing of it is left |
//! | [`programs`] | PostgreSQL's programs, and running one |
//! | [`copy`] | the restored data directory: whether it may be started, what it is told |
//! | `server` | the server: its settings, its start, its end |
//! | `story` | what the server's log says of the recovery; pure |
//! | `checks` | what is looked at beside the recovery |

mod checks;
pub mod copy;
pub mod programs;
pub mod scratch;
mod server;
pub mod stop;
mod story;

use crate::archive::rehearsals::Flaw;
use crate::failure::Failure;
use crate::finding::Finding;
use crate::wal::{Lsn, SegmentSize, Timeline};
use copy::Control;
use programs::Programs;
use scratch::Scratch;
use server::{Ended, Server};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use stop::Stop;

/// An error: it could not be done, which says nothing of the backup.
type Result<T> = std::result::Result<T, Failure>;

/// Where findings of the server itself are.
const PLACE: &str = "server";

/// How much WAL the copy keeps at least and at most: two segments are the least that PostgreSQL takes for either
/// (`src/backend/access/transam/xlog.c`).
pub fn wal_kept(segment_size: SegmentSize) -> (u64, u64) {
    let least = 2 * segment_size.bytes();
    (least, least.max(1 << 30))
}

/// What is recovered, and what is looked at.
pub struct Request<'a> {
    /// With the restored data directory in it.
    pub scratch: &'a Scratch,
    pub programs: &'a Programs,
    /// `restore_command`, the timeline and the target.
    pub recovery: &'a [(&'static str, String)],
    /// Whether recovery ends at a target.
    pub has_target: bool,
    /// Libraries that the replay needs.
    pub preload: &'a str,
    pub stop: &'a Stop,
    /// The exit codes of wal-fetch that tell something of the archive; after any other one nobody knows.
    pub telling: &'a [u8],
    pub amcheck: bool,
    pub sql: Option<&'a Path>,
    /// The superuser that clients connect as.
    pub role: &'a str,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// From the start to the last record.
    pub replay: Option<Duration>,
    /// From there until the server took connections.
    pub ready: Option<Duration>,
    pub replayed_bytes: Option<u64>,
    /// The one that was recovered along.
    pub timeline: Option<Timeline>,
    /// Behind the last record that was replayed.
    pub end: Option<Lsn>,
    /// When the last transaction was completed that was replayed, by the server's log; `None` where none was.
    pub last_completed: Option<SystemTime>,
    /// What was checked.
    pub checked: Vec<String>,
    pub findings: Vec<Finding<Flaw>>,
}

impl Outcome {
    /// Nothing was recovered.
    pub fn of(finding: Finding<Flaw>) -> Self {
        Outcome { findings: vec![finding], ..Outcome::default() }
    }
}

/// Recovers, and looks at what was recovered.
pub fn rehearse(request: &Request<'_>) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    checks::manifest(request, &mut outcome)?;
    copy::prepare(request.scratch)?;
    let control = Control::read(request.scratch)?;
    let started = Instant::now();
    let mut server = Server::start(request, &control)?;
    let end = server.recover(request)?;
    let story = server.story();
    outcome.last_completed = story.last_completed();
    outcome.replayed_bytes = story.replayed();
    outcome.replay = story.redone_at().map(|at| at.saturating_duration_since(started));
    if let Ended::WithoutRecovery(finding) = end {
        outcome.findings.push(*finding);
        return Ok(outcome);
    }
    outcome.ready = Some(story.redone_at().unwrap_or(started).elapsed());
    let (timeline, end) = copy::recovered(request.scratch, story.new_timeline())?;
    (outcome.timeline, outcome.end) = (Some(timeline), Some(end));
    checks::amcheck(request, &mut outcome)?;
    checks::sql(request, &mut outcome)?;
    server.stop(request.stop)?;
    checks::checksums(request, &control, &mut outcome)?;
    Ok(outcome)
}
