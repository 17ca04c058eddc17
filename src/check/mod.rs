//! `wal-archive check`: does archiving work? For cron, Nagios and Prometheus.
//!
//! Four parts that run side by side, each bounded in time, and then what they tell together: whether
//! each destination is this cluster's archive, and holds what PostgreSQL takes for archived.
//!
//! * `destination`: it answers, is this cluster's archive, takes a new object, refuses a second
//!   one of the same name, gives back what it took, lets it be deleted; room and clock;
//! * `backups`: how old the newest base backup is, and whether one leads to the newest timeline;
//! * `rehearsals`: how old the last rehearsal is;
//! * `directories`: an archive inside the data directory, a spool that cannot be had;
//! * `backlog`: what waits in a data directory, and for how long;
//! * `server`: what a running PostgreSQL says of itself, through `psql`.
//!
//! An idle server is healthy: the age of what *waits* counts, never the time since something was
//! last archived. Knows nothing of exit codes and of how a report is shown.

mod backlog;
mod backups;
mod command;
mod delivered;
mod destination;
mod directories;
mod encryption;
mod held;
mod psql;
mod rehearsals;
mod room;
mod server;

pub use backups::Ages;
pub use room::Least;

use crate::finding;
use crate::host::detached;
use crate::host::side_by_side::{Beside, beside, side_by_side};
use crate::storage::Shared;
use crate::wal::{SystemId, Timeline, WalName};
use serde::{Serialize, Serializer};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

/// How bad it is; the names and numbers of the Monitoring Plugins guidelines, the order of alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing to object to.
    Ok,
    /// It works, and somebody should look.
    Warning,
    /// It could not be told.
    Unknown,
    /// WAL is not archived, or would be lost.
    Critical,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Ok => "OK",
            State::Warning => "WARNING",
            State::Critical => "CRITICAL",
            State::Unknown => "UNKNOWN",
        }
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// What was looked at; its kind is how bad it is, its name a fixed word for programs.
pub type Finding = finding::Finding<State>;

impl Finding {
    pub fn fine(check: &str, of: &str, message: impl Into<String>) -> Self {
        Finding::new(State::Ok, check, of, message)
    }
}

/// A number to draw a curve of.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// A fixed word, with its unit as the last part.
    pub name: &'static str,
    /// Of which destination or directory, where there may be several.
    pub of: Option<String>,
    /// In the unit that the name says.
    pub value: f64,
    /// Of an age: what a time series holds instead.
    pub moment: Option<Moment>,
    /// The limits it is held to, where there are some.
    pub limits: Option<Limits>,
}

impl Metric {
    fn new(name: &'static str, of: Option<&str>, value: f64) -> Self {
        Metric { name, of: of.map(str::to_owned), value, moment: None, limits: None }
    }

    /// How long ago in whole seconds, 0 where there was nothing; beside it the moment and its name.
    fn age(
        name: &'static str,
        moment: &'static str,
        of: Option<&str>,
        at: Option<SystemTime>,
        now: SystemTime,
    ) -> Self {
        let age = at.map_or(Duration::ZERO, |at| now.duration_since(at).unwrap_or_default());
        let moment = Some(Moment { name: moment, at });
        Metric { moment, ..Metric::new(name, of, age.as_secs_f64().floor()) }
    }

    fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }
}

/// When something happened, if it did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    pub name: &'static str,
    pub at: Option<SystemTime>,
}

/// What a number is held to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limits {
    /// Warning and critical above these.
    Most(f64, f64),
    /// Warning and critical below these.
    Least(f64, f64),
}

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order: settings, destinations, data directory, server.
    pub findings: Vec<Finding>,
    /// In the same order.
    pub metrics: Vec<Metric>,
}

impl Report {
    /// The gravest of all.
    pub fn state(&self) -> State {
        self.findings.iter().map(|finding| finding.kind).max().unwrap_or(State::Unknown)
    }

    fn append(&mut self, mut other: Report) {
        self.findings.append(&mut other.findings);
        self.metrics.append(&mut other.metrics);
    }

    fn push(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}

/// Whose rights at the destinations are proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Of wal-push and wal-fetch.
    All,
    /// Of wal-push: nothing is listed.
    Push,
    /// Of wal-fetch: nothing is created.
    Fetch,
}

/// A destination.
pub struct Place {
    /// It.
    pub storage: Shared,
    /// Its root, where it is a directory.
    pub directory: Option<PathBuf>,
    /// Whether the user accepted that two servers may overwrite each other there.
    pub unconditional: bool,
    /// The storage class that objects get, where one is set.
    pub storage_class: Option<String>,
}

/// What is not an alarm yet; each a warning's and an alarm's.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// Of the oldest file that waits.
    pub backlog_age: [Duration; 2],
    /// Files that wait.
    pub backlog_files: [u64; 2],
    /// Free room at a directory and in pg_wal.
    pub free: [Least; 2],
    /// How far a destination's clock may be from ours.
    pub clock: Duration,
    /// Of the newest base backup, where it matters.
    pub backup_age: Ages,
    /// Of the last rehearsal, where it matters.
    pub rehearsal_age: Option<Duration>,
}

/// What to look at.
pub struct Check<'a> {
    /// All of them.
    pub places: &'a [Place],
    /// Those of the destinations that are directories, of wal-push and of wal-fetch.
    pub directories: &'a [Vec<PathBuf>],
    /// Where wal-push and wal-fetch have their spools, where that is known.
    pub spools: &'a [crate::spool::Place],
    /// Whose rights.
    pub rights: Rights,
    /// With its `pg_wal`.
    pub data_directory: Option<&'a Path>,
    /// A libpq connection string.
    pub connection: Option<&'a str>,
    /// Whether to finish a segment and wait for it at every destination.
    pub switch: bool,
    /// See there.
    pub thresholds: Thresholds,
    /// For all of it.
    pub timeout: Duration,
}

/// Looks at everything.
pub fn check(request: &Check<'_>) -> Report {
    let at = Instant::now() + request.timeout;
    std::thread::scope(|scope| {
        let server = request.connection.map(|text| beside(scope, move || server::ask(text, request, at)));
        let backlog =
            request.data_directory.map(|path| beside(scope, move || backlog::check(path, request, at)));
        let places: Vec<_> = request
            .places
            .iter()
            .map(|place| beside(scope, move || destination::check(place, request, at)))
            .collect();
        let directories = directories::check(request, at);
        let places: Vec<_> = places.into_iter().map(Beside::end).collect();
        let (backlog, server) = (backlog.map(Beside::end), server.map(Beside::end));
        conclude(request, directories, places, backlog, server, at)
    })
}

/// Whose files a data directory or a server writes, and what it takes for archived.
#[derive(Clone, Debug, Default)]
struct Cluster {
    system_id: Option<SystemId>,
    archived_before: bool,
    /// WAL files for which PostgreSQL got the answer that they are archived.
    archived: BTreeSet<WalName>,
    /// The timeline that the data directory is on and of which its pg_wal has no history file.
    without_history: Option<Timeline>,
}

/// What only the parts together tell.
fn conclude(
    request: &Check<'_>,
    mut report: Report,
    places: Vec<destination::Looked>,
    backlog: Option<(Report, Cluster)>,
    server: Option<(Report, Cluster)>,
    at: Instant,
) -> Report {
    let clusters: Vec<&Cluster> =
        [&backlog, &server].into_iter().flatten().map(|(_, cluster)| cluster).collect();
    let expected = destination::Expected {
        system_id: clusters.iter().find_map(|cluster| cluster.system_id),
        archived_before: clusters.iter().any(|cluster| cluster.archived_before),
        first: places.iter().find_map(destination::Looked::identified),
    };
    let archived: BTreeSet<WalName> =
        clusters.iter().flat_map(|cluster| cluster.archived.iter().copied()).collect();
    let mut ours = Vec::new();
    for (looked, place) in places.iter().zip(request.places) {
        let finding = looked.whose.finding(&looked.name, &expected);
        if looked.identity().is_some() && finding.kind == State::Ok {
            ours.push(place);
        }
        report.push(finding);
    }
    let delivered = side_by_side(&ours, |place| delivered::check(place, &archived, request.rights, at));
    report.findings.extend(delivered.into_iter().flatten());
    let without_history = clusters.iter().find_map(|cluster| cluster.without_history);
    report.findings.extend(without_history.and_then(|timeline| delivered::history(&ours, timeline, at)));
    for looked in places {
        // Of another cluster's archive only that counts.
        if !looked.identity().is_some_and(|identity| expected.is_another(&identity)) {
            report.append(looked.report);
        }
    }
    for (part, _) in [backlog, server].into_iter().flatten() {
        report.append(part);
    }
    report
}

/// Runs what may hang in the kernel; `None` when the time is over. What hangs is left behind for
/// the end of the process. Where the system has no thread left it is run here, and may take longer:
/// better than to call a healthy disk hung.
fn within<T: Send + 'static>(at: Instant, work: impl FnOnce() -> T + Clone + Send + 'static) -> Option<T> {
    let (send, receive) = mpsc::sync_channel(1);
    let here = work.clone();
    if let Err(error) = detached::spawn("check", move || drop(send.send(work()))) {
        log::debug!("cannot start a thread: {error}");
        return Some(here());
    }
    receive.recv_timeout(at.saturating_duration_since(Instant::now())).ok()
}

/// A time further ahead than this is no difference between two clocks that are set.
const AHEAD: Duration = Duration::from_secs(300);

/// How long ago it was. An error: so far ahead it lies, and one of two clocks was wrong.
fn age_of(at: SystemTime, now: SystemTime) -> Result<Duration, Duration> {
    match at.duration_since(now) {
        Ok(ahead) if ahead > AHEAD => Err(ahead),
        _ => Ok(now.duration_since(at).unwrap_or_default()),
    }
}

/// As people say it: without more digits than anybody reads.
fn in_words(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_finding_is_the_state_and_nothing_at_all_is_unknown() {
        let report = |states: &[State]| Report {
            findings: states.iter().map(|state| Finding::new(*state, "x", "y", "z")).collect(),
            metrics: Vec::new(),
        };
        assert_eq!(report(&[State::Ok, State::Warning]).state(), State::Warning);
        assert_eq!(report(&[State::Unknown, State::Warning]).state(), State::Unknown);
        assert_eq!(report(&[State::Unknown, State::Critical, State::Ok]).state(), State::Critical);
        assert_eq!(report(&[]).state(), State::Unknown);
    }

    #[test]
    fn what_hangs_is_left_behind() {
        let soon = Instant::now() + Duration::from_millis(50);
        assert_eq!(within(soon, || std::thread::sleep(Duration::from_secs(60))), None);
        assert_eq!(within(Instant::now() + Duration::from_secs(60), || 7), Some(7));
    }
}
