//! What a running server says of its archiving: settings, the archiver's statistics, and a
//! segment finished on purpose that must arrive.

use super::backlog::{Backlog, Marks};
use super::command::{Passes, Setting, passes};
use super::psql;
use super::{Check, Cluster, Finding, Metric, Place, Report, State, in_words};
use crate::failure::Failure;
use crate::host::side_by_side::side_by_side;
use crate::object::Key;
use crate::storage::Storage;
use crate::storage::deadline::Deadline;
use crate::wal::{SystemId, WalName};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What findings of this part are of.
const OF: &str = "server";

/// One row as JSON, so that nothing a setting contains can be misread.
const QUESTION: &str = "select json_build_object(
 'version', current_setting('server_version_num')::int,
 'system_id', (select system_identifier::text from pg_control_system()),
 'in_recovery', pg_is_in_recovery(),
 'archived_count', archived_count,
 'failed_count', failed_count,
 'last_archived_wal', last_archived_wal,
 'last_failed_wal', last_failed_wal,
 'archived_ago', extract(epoch from now() - last_archived_time)::float8,
 'failed_ago', extract(epoch from now() - last_failed_time)::float8,
 'may_list', coalesce(has_function_privilege(to_regprocedure('pg_ls_archive_statusdir()'), 'execute')
  and has_function_privilege(to_regprocedure('pg_ls_waldir()'), 'execute'), false),
 'settings', (select json_object_agg(name, setting) from pg_settings
  where name in ('archive_mode', 'archive_command', 'archive_library', 'restore_command')))
 from pg_stat_archiver";

/// What waits, where the role may see it (`pg_monitor`, PostgreSQL 12 and later). The code of a
/// command that kills the archiver is counted nowhere else.
const WAITING: &str = "select json_build_object(
 'files', count(*),
 'bytes', coalesce(sum(file.size), 0)::bigint,
 'oldest', (array_agg(left(status.name, -6) order by status.modification))[1],
 'age', extract(epoch from now() - min(status.modification))::float8)
 from pg_ls_archive_statusdir() status left join pg_ls_waldir() file on file.name = left(status.name, -6)
 where status.name like '%.ready'";

/// Its answer.
#[derive(Debug, Deserialize)]
struct Waiting {
    files: u64,
    bytes: u64,
    oldest: Option<String>,
    age: Option<f64>,
}

/// The answer.
#[derive(Debug, Default, Deserialize)]
struct Status {
    version: u32,
    system_id: String,
    in_recovery: bool,
    archived_count: u64,
    failed_count: u64,
    last_archived_wal: Option<String>,
    last_failed_wal: Option<String>,
    archived_ago: Option<f64>,
    failed_ago: Option<f64>,
    may_list: bool,
    settings: BTreeMap<String, String>,
}

pub(super) fn ask(connection: &str, request: &Check<'_>, at: Instant) -> (Report, Cluster) {
    let mut report = Report::default();
    let status: Status = match question(connection, QUESTION, at) {
        Ok(status) => status,
        Err(failure) => {
            report.push(Finding::of_failure(State::Unknown, "connection", OF, &failure));
            return (report, Cluster::default());
        }
    };
    report.findings.extend(status.findings());
    report.metrics.extend([
        Metric::new("archived_total", None, status.archived_count as f64),
        Metric::new("failed_total", None, status.failed_count as f64),
    ]);
    // The data directory itself tells more.
    if status.may_list && request.data_directory.is_none() {
        report.append(waiting(connection, request, at));
    }
    if request.switch {
        report.append(arrival(connection, &status, request.places, at));
    }
    let cluster = Cluster {
        system_id: status.system_id.parse().ok().map(SystemId),
        archived_before: status.archived_count > 0,
        // Of a server that archives no more it may long be expired.
        archived: status
            .last_archived_wal
            .iter()
            .filter(|_| status.archives())
            .flat_map(|name| name.parse())
            .collect(),
        without_history: None,
    };
    (report, cluster)
}

fn question<T: DeserializeOwned>(connection: &str, sql: &str, at: Instant) -> Result<T, Failure> {
    let text = psql::ask(connection, sql, at)?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::new((), format!("the server's answer cannot be understood: {error}")))
}

fn waiting(connection: &str, request: &Check<'_>, at: Instant) -> Report {
    let mut report = Report::default();
    match question::<Waiting>(connection, WAITING, at) {
        Ok(Waiting { files, bytes, oldest, age }) => {
            let now = SystemTime::now();
            let age = Duration::try_from_secs_f64(age.unwrap_or(0.0).max(0.0)).unwrap_or_default();
            let since = now.checked_sub(age).unwrap_or(now);
            let backlog = Backlog {
                files,
                bytes,
                oldest: oldest.map(|name| (since, name)),
                marks: Marks::NotSeen,
                ..Backlog::default()
            };
            report.push(backlog.finding(OF, &request.thresholds, now));
            report.metrics = backlog.metrics(&request.thresholds, now);
        }
        Err(failure) => report.push(Finding::of_failure(State::Unknown, "backlog", OF, &failure)),
    }
    report
}

impl Status {
    fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = vec![self.mode()];
        if self.archives() {
            findings.extend([self.library_or_command(), self.statistics()]);
        }
        if !self.setting("restore_command").is_empty() {
            findings.push(command(Setting::Restore, self.setting("restore_command")));
        }
        findings
    }

    /// Whether the archiver works on this server now.
    fn archives(&self) -> bool {
        match self.setting("archive_mode") {
            "always" => true,
            "on" => !self.in_recovery,
            _ => false,
        }
    }

    fn mode(&self) -> Finding {
        let check = "archive_mode";
        match (self.setting("archive_mode"), self.in_recovery) {
            ("off", true) => Finding::new(
                State::Warning,
                check,
                OF,
                "archive_mode is off: after a promotion nothing would be archived",
            )
            .hint("set archive_mode = on and restart the standby"),
            ("off", false) => {
                Finding::new(State::Critical, check, OF, "archive_mode is off: nothing is archived")
                    .hint("set archive_mode = on and restart the server, then take a new base backup")
            }
            ("on", true) => {
                Finding::fine(check, OF, "archive_mode is on; this standby archives after its promotion")
            }
            (mode, _) => Finding::fine(check, OF, format!("archive_mode is {mode}")),
        }
    }

    fn library_or_command(&self) -> Finding {
        let (library, archive) = (self.setting("archive_library"), self.setting("archive_command"));
        let check = "archive_command";
        match (library.is_empty(), archive.is_empty()) {
            // Up to 15 the library wins silently, later the archiver refuses to work
            // (`src/backend/postmaster/pgarch.c`, `LoadArchiveLibrary`).
            (false, false) => {
                let what = match self.version {
                    160_000.. => {
                        "archive_library and archive_command are both set: the archiver refuses to work"
                    }
                    _ => "archive_library is set beside archive_command, which is not called",
                };
                Finding::new(State::Critical, check, OF, what).hint("set archive_library = '' and reload")
            }
            (false, true) => Finding::new(
                State::Warning,
                check,
                OF,
                format!("archive_library is \"{library}\": wal-push is not called"),
            )
            .hint("set archive_library = '' and archive_command = '/usr/bin/wal-push %p'"),
            (true, true) => {
                Finding::new(State::Critical, check, OF, "archive_command is empty: WAL piles up in pg_wal")
                    .hint("set archive_command = '/usr/bin/wal-push %p' and reload")
            }
            (true, false) => command(Setting::Archive, archive),
        }
    }

    /// A failure after the last success is one that lasts.
    fn statistics(&self) -> Finding {
        let ago = |seconds: Option<f64>| {
            seconds.map(|seconds| in_words(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()))
        };
        let archived = ago(self.archived_ago)
            .map_or("nothing was archived".to_owned(), |ago| format!("last success {ago} ago"));
        let failing = match (self.failed_ago, self.archived_ago) {
            (Some(failed), Some(archived)) => failed < archived,
            (failed, _) => failed.is_some(),
        };
        if !failing {
            let what =
                format!("{} files archived, {} failures; {archived}", self.archived_count, self.failed_count);
            return Finding::fine("archiver", OF, what);
        }
        let what = format!(
            "archive_command fails: \"{}\" {} ago; {archived}; {} failures",
            self.last_failed_wal.as_deref().unwrap_or("?"),
            ago(self.failed_ago).unwrap_or_default(),
            self.failed_count
        );
        Finding::new(State::Critical, "archiver", OF, what)
            .hint("the server log says why, in wal-push's own words; PostgreSQL asks again by itself")
    }
}

fn command(setting: Setting, text: &str) -> Finding {
    let name = setting.name();
    match passes(setting, text) {
        Passes::Unchanged => Finding::fine(name, OF, format!("{name} is \"{text}\"")),
        Passes::Unknown(reason) => {
            Finding::new(State::Warning, name, OF, format!("{name} is \"{text}\": {reason}"))
                .hint("see that its exit codes keep docs/contract.md; without a wrapper they do")
        }
        Passes::Never(reason) => {
            let finding = Finding::new(State::Critical, name, OF, format!("{name} is \"{text}\": {reason}"));
            finding.hint(match setting {
                Setting::Archive => "call wal-push alone: what answers 0 without having archived loses WAL, what answers above 125 kills the archiver",
                Setting::Restore => "call wal-fetch alone: PostgreSQL takes any code from 1 to 125 for the end of the archive and promotes",
            })
        }
    }
}

/// Finishes a segment and waits for it at every destination.
fn arrival(connection: &str, server: &Status, places: &[Place], at: Instant) -> Report {
    let mut report = Report::default();
    if server.in_recovery {
        let what = "a standby cannot finish a segment";
        report.push(
            Finding::new(State::Unknown, "arrival", OF, what)
                .hint("run --switch with the primary's connection"),
        );
        return report;
    }
    // Where nothing was written since the last switch, a switch does nothing: the restore point is
    // something (PostgreSQL manual, "Backup Control Functions"). Two statements, since one
    // transaction's commit record would begin the next segment.
    let switched = psql::ask(connection, "select pg_create_restore_point('wal-archive check')", at)
        .and_then(|_| psql::ask(connection, "select pg_walfile_name(pg_switch_wal())", at));
    let name = switched.and_then(|text| {
        text.parse::<WalName>()
            .map_err(|error| Failure::new((), format!("pg_switch_wal: \"{text}\" is {error}")))
    });
    let name = match name {
        Ok(name) => name,
        Err(failure) => {
            let failure =
                failure.hint("the role needs EXECUTE on pg_create_restore_point(text) and pg_switch_wal()");
            report.push(Finding::of_failure(State::Unknown, "arrival", OF, &failure));
            return report;
        }
    };
    let start = Instant::now();
    let waits = side_by_side(places, |place| wait_for(place, name, at));
    for (place, arrived) in places.iter().zip(waits) {
        let of = place.storage.place();
        let finding = match arrived {
            Ok(moment) => {
                let took = moment.saturating_duration_since(start);
                report.metrics.push(Metric::new("arrival_seconds", Some(of), took.as_secs_f64()));
                Finding::fine("arrival", of, format!("\"{name}\" arrived at \"{of}\" in {took:.1?}"))
            }
            Err(why) => {
                let waited = in_words(start.elapsed());
                let what = format!("\"{name}\" did not arrive at \"{of}\" within {waited}{why}");
                Finding::new(State::Critical, "arrival", of, what).hint(
                    "the server log says why; after a failure PostgreSQL may wait a minute before it asks again (--timeout gives it longer)",
                )
            }
        };
        report.push(finding);
    }
    report
}

/// When it was seen, or what stood against seeing it.
fn wait_for(place: &Place, name: WalName, at: Instant) -> Result<Instant, String> {
    let storage = Deadline::new(Arc::clone(&place.storage), at);
    let mut why = String::new();
    while Instant::now() < at {
        match storage.head(&Key::of(name, storage.keys().expects())) {
            Ok(_) => return Ok(Instant::now()),
            Err(error) if error.kind() == crate::storage::Kind::NotFound => why.clear(),
            Err(error) => why = format!(": {error}"),
        }
        let left = at.saturating_duration_since(Instant::now());
        std::thread::sleep(left.min(Duration::from_millis(250)));
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(settings: &[(&str, &str)]) -> Status {
        let healthy = [
            ("archive_mode", "on"),
            ("archive_command", "wal-push %p"),
            ("archive_library", ""),
            ("restore_command", ""),
        ];
        let settings =
            healthy.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Status {
            version: 150_000,
            settings: settings.collect(),
            archived_ago: Some(9e6),
            ..Status::default()
        }
    }

    #[track_caller]
    fn worst(status: &Status) -> Finding {
        status.findings().into_iter().max_by_key(|finding| finding.kind).unwrap()
    }

    #[test]
    fn an_idle_server_is_healthy() {
        assert_eq!(worst(&server(&[])).kind, State::Ok);
        let failed_once = Status { failed_ago: Some(9.1e6), failed_count: 3, ..server(&[]) };
        assert_eq!(worst(&failed_once).kind, State::Ok);
    }

    #[test]
    fn a_failure_after_the_last_success_is_critical() {
        let failing = Status { failed_ago: Some(5.0), last_failed_wal: Some("X".into()), ..server(&[]) };
        let finding = worst(&failing);
        assert_eq!((finding.kind, finding.name.as_str()), (State::Critical, "archiver"));
        let never = Status { archived_ago: None, ..failing };
        assert_eq!(worst(&never).kind, State::Critical);
    }

    #[test]
    fn settings_that_archive_nothing_are_critical() {
        for (name, value) in
            [("archive_mode", "off"), ("archive_command", ""), ("archive_library", "basic_archive")]
        {
            assert_eq!(worst(&server(&[(name, value)])).kind, State::Critical, "{name}");
        }
        let library = server(&[("archive_library", "basic_archive"), ("archive_command", "")]);
        assert_eq!(worst(&library).kind, State::Warning);
    }

    #[test]
    fn a_standby_is_judged_by_what_it_does() {
        let standby =
            |settings: &[(&str, &str)]| worst(&Status { in_recovery: true, ..server(settings) }).kind;
        assert_eq!(standby(&[("archive_command", "")]), State::Ok, "it archives after its promotion only");
        assert_eq!(standby(&[("archive_mode", "always"), ("archive_command", "")]), State::Critical);
        assert_eq!(standby(&[("archive_mode", "off")]), State::Warning);
        assert_eq!(standby(&[("restore_command", "timeout 9 wal-fetch %f %p")]), State::Critical);
    }
}
