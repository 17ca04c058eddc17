//! What waits in a data directory to be archived, and since when.
//!
//! `NAME.ready` in `pg_wal/archive_status` is made when NAME is finished and renamed to
//! `NAME.done` when it is archived (PostgreSQL `src/backend/access/transam/xlogarchive.c`,
//! `XLogArchiveNotify`; `src/backend/postmaster/pgarch.c`, `pgarch_archiveDone`). So the time of a
//! `.ready` file's content is the time since when it waits, and the time of a `.done` file's
//! status is the time when it was archived.

use super::{Check, Cluster, Finding, Limits, Metric, Report, State, Thresholds, in_words, room, within};
use crate::failure::size;
use crate::host::data_directory::{DataDirectory, segment_size_in};
use crate::wal::{Branch, ControlFile, Timeline, TimelineHistory, WalName};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// The WAL files of a data directory that have a status.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Since when it waits, and its name.
    pub(super) oldest: Option<(SystemTime, String)>,
    /// When it was archived, and its name.
    pub(super) last_done: Option<(SystemTime, String)>,
    /// Everything that is marked as archived.
    pub(super) done: Vec<WalName>,
    pub(super) marks: Marks,
}

/// What a `.done` file means here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Marks {
    /// The archive command answered 0.
    #[default]
    Archived,
    /// A standby received the file, and archived nothing.
    Received,
    /// They were not looked at.
    NotSeen,
}

/// What a data directory tells at once.
struct Read {
    control: Option<ControlFile>,
    backlog: Backlog,
    archived: BTreeSet<WalName>,
    without_history: Option<Timeline>,
}

pub(super) fn check(path: &Path, request: &Check<'_>, at: Instant) -> (Report, Cluster) {
    let mut report = Report::default();
    let of = path.display().to_string();
    let directory = path.to_owned();
    let read = within(at, move || {
        let directory = DataDirectory::at(&directory).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "it is not a data directory, it holds no PG_VERSION")
        })?;
        Read::of(&directory)
    });
    let read = match read {
        Some(Ok(read)) => read,
        Some(Err(error)) => {
            let what = format!("cannot tell what waits in \"{of}\": {error}");
            report.push(
                Finding::new(State::Unknown, "backlog", &of, what).hint("run the check as PostgreSQL's user"),
            );
            return (report, Cluster::default());
        }
        None => {
            let what = format!("the file system of \"{of}\" did not answer in time");
            report.push(Finding::new(State::Critical, "backlog", &of, what).hint("look at the disk"));
            return (report, Cluster::default());
        }
    };
    let now = SystemTime::now();
    let backlog = &read.backlog;
    report.push(backlog.finding(&of, &request.thresholds, now));
    report.metrics.append(&mut backlog.metrics(&request.thresholds, now));
    report.append(room::check(&path.join("pg_wal"), &format!("{of}/pg_wal"), request.thresholds.free, at));
    let cluster = Cluster {
        system_id: read.control.map(|control| control.system_id),
        archived_before: backlog.last_done.is_some(),
        archived: read.archived,
        without_history: read.without_history,
    };
    (report, cluster)
}

impl Read {
    fn of(directory: &DataDirectory) -> io::Result<Self> {
        let pg_wal = directory.path().join("pg_wal");
        let (control, mut backlog) = (directory.control()?, Backlog::read(&pg_wal)?);
        if directory.is_in_archive_recovery() {
            backlog.last_done = None;
            backlog.marks = Marks::Received;
            let (archived, without_history) = (BTreeSet::new(), None);
            return Ok(Read { control, backlog, archived, without_history });
        }
        let newest = backlog.done.iter().map(|name| name.timeline()).max();
        let timeline = directory.timeline()?.max(newest).unwrap_or(Timeline::FIRST);
        let history = history(&pg_wal, timeline);
        let size = control
            .and_then(|control| control.segment_size.or_else(|| segment_size_in(&pg_wal, control.system_id)));
        let branch = history.as_ref().map(Branch::of);
        // What an ancestor wrote after this timeline had left it is not needed, and may be cut.
        let counts = |name: &&WalName| match (name, &branch, size) {
            (WalName::Segment(segment), Some(branch), Some(size)) => {
                segment.number(size).is_some_and(|number| branch.file(number, size) == *segment)
            }
            (WalName::Segment(segment), ..) => segment.timeline() == timeline,
            (WalName::TimelineHistory(of), ..) => *of == timeline,
            (WalName::Partial(_) | WalName::BackupHistory(..), ..) => false,
        };
        let archived = backlog.done.iter().filter(counts).copied().collect();
        let without_history = (history.is_none() && timeline != Timeline::FIRST).then_some(timeline);
        Ok(Read { control, backlog, archived, without_history })
    }
}

/// A timeline's history, where pg_wal has a valid one.
fn history(pg_wal: &Path, timeline: Timeline) -> Option<TimelineHistory> {
    let name = WalName::TimelineHistory(timeline).to_string();
    TimelineHistory::parse(timeline, &fs::read(pg_wal.join(name)).ok()?).ok()
}

impl Backlog {
    fn read(pg_wal: &Path) -> io::Result<Self> {
        let mut backlog = Backlog::default();
        for entry in fs::read_dir(pg_wal.join("archive_status"))? {
            let entry = entry?;
            let file = entry.file_name();
            let Some((name, status)) = file.to_str().and_then(|file| file.rsplit_once('.')) else { continue };
            if !matches!(status, "ready" | "done") {
                continue;
            }
            // The server works on meanwhile: what is gone was archived or removed.
            let Ok(metadata) = entry.metadata() else { continue };
            if status == "ready" {
                let since = metadata.modified()?;
                backlog.files += 1;
                backlog.bytes += fs::metadata(pg_wal.join(name)).map_or(0, |file| file.len());
                if backlog.oldest.as_ref().is_none_or(|(oldest, _)| since < *oldest) {
                    backlog.oldest = Some((since, name.to_owned()));
                }
            } else {
                backlog.done.extend(name.parse::<WalName>().ok());
                let seconds = Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or(0));
                let done = SystemTime::UNIX_EPOCH + seconds;
                if backlog.last_done.as_ref().is_none_or(|(last, _)| done > *last) {
                    backlog.last_done = Some((done, name.to_owned()));
                }
            }
        }
        Ok(backlog)
    }

    fn age(&self, now: SystemTime) -> Duration {
        self.oldest
            .as_ref()
            .map_or(Duration::ZERO, |(since, _)| now.duration_since(*since).unwrap_or_default())
    }

    pub(super) fn finding(&self, of: &str, thresholds: &Thresholds, now: SystemTime) -> Finding {
        let last = match (self.marks, &self.last_done) {
            (Marks::NotSeen, _) => String::new(),
            (Marks::Received, _) => {
                "; a standby marks what it received as done, which says nothing".to_owned()
            }
            (Marks::Archived, None) => "; nothing is marked as archived".to_owned(),
            (Marks::Archived, Some((time, name))) => {
                let ago = in_words(now.duration_since(*time).unwrap_or_default());
                format!("; last archived \"{name}\" {ago} ago")
            }
        };
        let Some((_, oldest)) = &self.oldest else {
            return Finding::fine("backlog", of, format!("nothing waits to be archived{last}"));
        };
        let age = self.age(now);
        let above = |at: usize| {
            let (most_age, most_files) = (thresholds.backlog_age.get(at), thresholds.backlog_files.get(at));
            most_age.is_some_and(|most| age > *most) || most_files.is_some_and(|most| self.files > *most)
        };
        let state = match (above(0), above(1)) {
            (_, true) => State::Critical,
            (true, false) => State::Warning,
            (false, false) => State::Ok,
        };
        let waits = if self.files == 1 { "file waits" } else { "files wait" };
        let what = format!(
            "{} {waits} to be archived ({}), \"{oldest}\" for {}{last}",
            self.files,
            size(self.bytes),
            in_words(age)
        );
        let finding = Finding::new(state, "backlog", of, what);
        match state {
            State::Ok => finding,
            _ => finding.hint(
                "the server log says why wal-push fails or how slow it is; never delete from pg_wal by hand",
            ),
        }
    }

    pub(super) fn metrics(&self, thresholds: &Thresholds, now: SystemTime) -> Vec<Metric> {
        let [warning, critical] = thresholds.backlog_files.map(|files| files as f64);
        let files =
            Metric::new("backlog_files", None, self.files as f64).limits(Limits::Most(warning, critical));
        let [warning, critical] = thresholds.backlog_age.map(|age| age.as_secs_f64());
        let oldest = self.oldest.as_ref().map(|(since, _)| *since);
        let age =
            Metric::age("backlog_oldest_seconds", "backlog_oldest_timestamp_seconds", None, oldest, now);
        let mut metrics = vec![
            files,
            Metric::new("backlog_bytes", None, self.bytes as f64),
            age.limits(Limits::Most(warning, critical)),
        ];
        if let Some((time, _)) = &self.last_done {
            metrics.push(Metric::age(
                "last_archived_seconds_ago",
                "last_archived_timestamp_seconds",
                None,
                Some(*time),
                now,
            ));
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Least;

    const THRESHOLDS: Thresholds = Thresholds {
        backlog_age: [Duration::from_secs(300), Duration::from_secs(900)],
        backlog_files: [4, 8],
        free: [Least::Percent(0), Least::Percent(0)],
        clock: Duration::from_secs(60),
        backup_age: [None, None],
        rehearsal_age: None,
    };

    fn data_directory(ready: u32) -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        let status = base.path().join("archive_status");
        fs::create_dir(&status).unwrap();
        for number in 0..ready {
            let name = format!("0000000100000000{number:08X}");
            fs::write(base.path().join(&name), [0; 100]).unwrap();
            fs::write(status.join(format!("{name}.ready")), "").unwrap();
        }
        fs::write(status.join("00000002.history.ready"), "").unwrap(); // an orphan: its file is gone
        fs::write(status.join("000000010000000000000009.done"), "").unwrap();
        base
    }

    #[test]
    fn what_waits_is_counted_and_what_is_done_is_not_held_against_anybody() {
        let base = data_directory(3);
        let backlog = Backlog::read(base.path()).unwrap();
        assert_eq!((backlog.files, backlog.bytes), (4, 300));
        assert_eq!(backlog.last_done.as_ref().unwrap().1, "000000010000000000000009");
        let judged = |later: u64| {
            backlog.finding("x", &THRESHOLDS, SystemTime::now() + Duration::from_secs(later)).kind
        };
        assert_eq!([10, 310, 910].map(judged), [State::Ok, State::Warning, State::Critical]);
        let many = Backlog::read(data_directory(5).path()).unwrap();
        assert_eq!(many.finding("x", &THRESHOLDS, SystemTime::now()).kind, State::Warning);
    }

    #[test]
    fn an_idle_server_is_healthy_however_long_ago_it_archived_anything() {
        let base = data_directory(0);
        fs::remove_file(base.path().join("archive_status/00000002.history.ready")).unwrap();
        let backlog = Backlog::read(base.path()).unwrap();
        let year_later = SystemTime::now() + Duration::from_secs(366 * 24 * 3600);
        let finding = backlog.finding("x", &THRESHOLDS, year_later);
        assert_eq!(finding.kind, State::Ok, "{finding:?}");
        assert!(finding.reason.contains("nothing waits"), "{finding:?}");
    }
}
