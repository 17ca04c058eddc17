//! How old the newest base backup is that can be restored. Nothing is said of an archive without one,
//! unless an age is asked for: its backups may be another tool's.

use super::{Finding, Limits, Metric, Report, State, in_words};
use crate::archive::backups::{all, has_stop_segment};
use crate::base_backup::Record;
use crate::storage::{Result, Storage};
use std::time::{Duration, SystemTime};

/// The ages above which it is a warning and an alarm, where they are given.
pub type Ages = [Option<Duration>; 2];

pub(super) fn check(storage: &dyn Storage, ages: Ages, now: SystemTime, report: &mut Report) {
    let of = storage.place();
    let found = match newest(storage) {
        Ok(found) => found,
        Err(error) if ages == [None, None] => {
            log::debug!("the base backups cannot be seen: {error}");
            return;
        }
        Err(error) => {
            let what = format!("the base backups in \"{of}\" cannot be seen: {error}");
            report.push(Finding::new(State::Unknown, "backup", of, what));
            return;
        }
    };
    match found {
        None if ages == [None, None] => {}
        None => {
            let what = format!("no base backup in \"{of}\" can be restored");
            let finding = Finding::new(State::Critical, "backup", of, what);
            report.push(
                finding
                    .hint("take one with \"wal-archive backup\"; \"wal-archive list\" shows what is there"),
            );
        }
        Some((record, count)) => {
            let age = now.duration_since(record.finished).unwrap_or_default();
            report.metrics.push(Metric::new("backups", Some(of), count as f64)); // a small number
            let metric = Metric::age(
                "backup_age_seconds",
                "backup_timestamp_seconds",
                Some(of),
                Some(record.finished),
                now,
            );
            report.metrics.push(match ages {
                [Some(warning), Some(critical)] => {
                    metric.limits(Limits::Most(warning.as_secs_f64(), critical.as_secs_f64()))
                }
                _ => metric,
            });
            report.push(finding(of, &record, age, ages));
        }
    }
}

fn finding(of: &str, record: &Record, age: Duration, [warning, critical]: Ages) -> Finding {
    let above = |limit: Option<Duration>| limit.is_some_and(|limit| age > limit);
    let state = match () {
        () if above(critical) => State::Critical,
        () if above(warning) => State::Warning,
        () => State::Ok,
    };
    let what = format!(
        "the newest base backup in \"{of}\" that can be restored, {}, was finished {} ago",
        record.id,
        in_words(age)
    );
    let finding = Finding::new(state, "backup", of, what);
    match state {
        State::Ok => finding,
        _ => finding.hint(
            "see why \"wal-archive backup\" did not run or failed; \"wal-archive list\" shows what is there",
        ),
    }
}

/// The newest one that is complete and has its last segment, and how many are complete.
fn newest(storage: &dyn Storage) -> Result<Option<(Record, usize)>> {
    let all = all(storage)?;
    let complete: Vec<&Record> = all.iter().filter_map(|held| held.record()).collect();
    for record in complete.iter().rev() {
        if has_stop_segment(storage, record)? {
            return Ok(Some(((*record).clone(), complete.len())));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base_backup::record::tests::record;
    use crate::storage::memory::Memory;

    #[test]
    fn an_age_is_an_alarm_only_where_one_is_asked_for() {
        let hours = |count: u64| Duration::from_secs(3600 * count);
        let state = |age, ages| finding("x", &record(), age, ages).kind;
        assert_eq!(state(hours(1000), [None, None]), State::Ok);
        assert_eq!(state(hours(25), [Some(hours(26)), Some(hours(50))]), State::Ok);
        assert_eq!(state(hours(27), [Some(hours(26)), Some(hours(50))]), State::Warning);
        assert_eq!(state(hours(51), [Some(hours(26)), Some(hours(50))]), State::Critical);
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
