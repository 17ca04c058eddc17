//! How old the newest base backup is that can be restored. Nothing is said of an archive without one,
//! unless an age is asked for: its backups may be another tool's.

use super::{Finding, Limits, Metric, Report, State, age_of, in_words};
use crate::archive::backups::{Held, all, missing_wal, newest_without_backup};
use crate::archive::inventory::{Inventory, Runs, Unreadable};
use crate::base_backup::Record;
use crate::storage::{Result, Storage};
use crate::wal::Timeline;
use std::time::{Duration, SystemTime};

/// The ages above which it is a warning and an alarm, where they are given.
pub type Ages = [Option<Duration>; 2];

pub(super) fn check(storage: &dyn Storage, ages: Ages, now: SystemTime, report: &mut Report) {
    let of = storage.place();
    let asked = ages != [None, None];
    let alarm = |state, what: String| Finding::new(state, "backup", of, what);
    let found = match look(storage) {
        Ok(found) => found,
        Err(error) if asked => {
            let what = format!("the base backups in \"{of}\" cannot be seen: {error}");
            return report.push(alarm(State::Unknown, what));
        }
        Err(error) => return log::debug!("the base backups cannot be seen: {error}"),
    };
    let Some(newest) = found.usable.last() else {
        match &found.unknown {
            _ if !asked => {}
            Some(Unreadable { key, reason, .. }) => report.push(alarm(
                State::Unknown,
                format!(
                    "whether a base backup in \"{of}\" can be restored is not known: \"{key}\": {reason}"
                ),
            )),
            None => report.push(
                alarm(State::Critical, format!("no base backup in \"{of}\" can be restored"))
                    .hint("take one with \"wal-archive backup\"; \"wal-archive list\" shows what is there"),
            ),
        }
        return;
    };
    report.metrics.push(Metric::new("backups", Some(of), found.usable.len() as f64)); // a small number
    report.metrics.push(metric(of, newest, ages, now));
    report.push(finding(of, newest, now, ages));
    if let Some(timeline) = found.unled {
        let state = if ages[1].is_some() { State::Critical } else { State::Warning };
        let what = format!("no base backup in \"{of}\" leads to timeline {timeline}, the newest");
        report.push(alarm(state, what).hint(format!(
            "take one of the server that is on it with \"wal-archive backup\"; if nobody needs the timeline: \
             \"wal-archive quarantine --timeline {timeline}\""
        )));
    }
}

fn metric(of: &str, record: &Record, ages: Ages, now: SystemTime) -> Metric {
    let at = Some(record.finished);
    let metric = Metric::age("backup_age_seconds", "backup_timestamp_seconds", Some(of), at, now);
    match ages {
        [Some(warning), Some(critical)] => {
            metric.limits(Limits::Most(warning.as_secs_f64(), critical.as_secs_f64()))
        }
        _ => metric,
    }
}

fn finding(of: &str, record: &Record, now: SystemTime, [warning, critical]: Ages) -> Finding {
    let which = format!("the newest base backup in \"{of}\" that can be restored, {},", record.id);
    let age = match age_of(record.finished, now) {
        Ok(age) => age,
        Err(ahead) => {
            let what = format!(
                "{which} was finished {} from now by its own time: a clock was wrong",
                in_words(ahead)
            );
            return Finding::new(State::Warning, "backup", of, what)
                .hint("set the clocks by NTP, and take a new one; until then its age is not known");
        }
    };
    let above = |limit: Option<Duration>| limit.is_some_and(|limit| age > limit);
    let state = match () {
        () if above(critical) => State::Critical,
        () if above(warning) => State::Warning,
        () => State::Ok,
    };
    let finding = Finding::new(state, "backup", of, format!("{which} was finished {} ago", in_words(age)));
    match state {
        State::Ok => finding,
        _ => finding.hint(
            "see why \"wal-archive backup\" did not run or failed; \"wal-archive list\" shows what is there",
        ),
    }
}

#[derive(Default)]
struct Found {
    /// Those that are complete and have all their WAL, in the order in which they were begun.
    usable: Vec<Record>,
    /// Why of another one it is not known.
    unknown: Option<Unreadable>,
    /// The newest timeline, where none of them leads to it.
    unled: Option<Timeline>,
}

fn look(storage: &dyn Storage) -> Result<Found> {
    let all = all(storage)?;
    let complete: Vec<&Record> = all.iter().filter_map(Held::record).collect();
    let mut found = Found::default();
    if complete.is_empty() {
        return Ok(found);
    }
    let mut needed = Runs::default();
    for (first, last) in complete.iter().map(|record| record.segments()) {
        needed.insert_range(first, last);
    }
    let inventory = Inventory::read_around(storage, &needed)?;
    for record in complete {
        match missing_wal(&inventory, record) {
            Ok(gaps) if gaps.is_empty() => found.usable.push(record.clone()),
            Ok(_) => {}
            Err(unreadable) => found.unknown = Some(unreadable),
        }
    }
    found.unled = newest_without_backup(&inventory, &found.usable);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base_backup::record::tests::record;
    use crate::storage::memory::Memory;

    #[test]
    fn an_age_is_an_alarm_only_where_one_is_asked_for() {
        let hours = |count: u64| Duration::from_secs(3600 * count);
        let state = |age, ages| finding("x", &record(), record().finished + age, ages).kind;
        assert_eq!(state(hours(1000), [None, None]), State::Ok);
        assert_eq!(state(hours(25), [Some(hours(26)), Some(hours(50))]), State::Ok);
        assert_eq!(state(hours(27), [Some(hours(26)), Some(hours(50))]), State::Warning);
        assert_eq!(state(hours(51), [Some(hours(26)), Some(hours(50))]), State::Critical);
    }

    #[test]
    fn a_backup_from_the_future_is_a_warning_and_of_no_age() {
        let ahead =
            |seconds| finding("x", &record(), record().finished - Duration::from_secs(seconds), [None, None]);
        assert_eq!(ahead(300).kind, State::Ok);
        let finding = ahead(3 * 24 * 3600);
        assert_eq!(finding.kind, State::Warning);
        assert!(finding.reason.contains("3days from now by its own time"), "{}", finding.reason);
    }

    #[test]
    fn an_archive_without_backups_is_fine_unless_some_are_expected() {
        let storage = Memory::default();
        let states = |ages| {
            let mut report = Report::default();
            check(&storage, ages, SystemTime::now(), &mut report);
            report.findings.iter().map(|finding| finding.kind).collect::<Vec<_>>()
        };
        assert_eq!(states([None, None]), []);
        assert_eq!(states([Some(Duration::from_secs(1)), None]), [State::Critical]);
    }
}
