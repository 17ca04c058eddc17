//! How long ago the last rehearsal was, where somebody wants to know: a backup that was never restored is
//! a hope.

use super::{Finding, Metric, Report, State, age_of, in_words};
use crate::archive::rehearsals::{Rehearsal, Verdict, newest};
use crate::storage::Storage;
use std::time::{Duration, SystemTime};

const HINT: &str = "see why \"wal-archive rehearse\" did not run, or what it found";

/// Told where there is one; judged where `warning` says how old it may be.
pub(super) fn check(storage: &dyn Storage, warning: Option<Duration>, now: SystemTime, report: &mut Report) {
    let of = storage.place();
    let warn = |state, what: String| Finding::new(state, "rehearsal", of, what).hint(HINT);
    match (newest(storage), warning) {
        (Ok(Some(rehearsal)), _) => found(of, &rehearsal, warning, now, report),
        (_, None) => {}
        (Ok(None), Some(_)) => {
            report.push(warn(State::Warning, format!("no rehearsal of \"{of}\" is recorded")));
        }
        (Err(error), Some(_)) => {
            report.push(warn(State::Unknown, format!("the rehearsals of \"{of}\" cannot be seen: {error}")));
        }
    }
}

fn found(of: &str, rehearsal: &Rehearsal, warning: Option<Duration>, now: SystemTime, report: &mut Report) {
    report.metrics.push(Metric::age(
        "rehearsal_age_seconds",
        "recorded_rehearsal_timestamp_seconds",
        Some(of),
        Some(rehearsal.rehearsed),
        now,
    ));
    let found = rehearsal.verdict == Verdict::Findings;
    let verdict = if found { "found something wrong" } else { "was sound" };
    let age = age_of(rehearsal.rehearsed, now);
    let when = match age {
        Ok(age) => format!("{} ago", in_words(age)),
        Err(ahead) => format!("{} from now by its own time (a clock was wrong)", in_words(ahead)),
    };
    let what = format!("the last rehearsal of \"{of}\", {when}, {verdict}");
    let warn = |what| Finding::new(State::Warning, "rehearsal", of, what).hint(HINT);
    report.push(match (age, warning) {
        (Ok(age), Some(limit)) if found || age > limit => warn(what),
        (Ok(_), _) => Finding::fine("rehearsal", of, what),
        (Err(_), _) => warn(what).hint("set the clocks by NTP, and rehearse again"),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::rehearsals::create;
    use crate::archive::rehearsals::tests::rehearsal;
    use crate::storage::memory::Memory;

    fn state(verdict: Option<Verdict>, days: i32, warning: Option<u32>) -> Option<State> {
        let day = Duration::from_secs(24 * 3600);
        let storage = Memory::default();
        let record = verdict.map(rehearsal);
        record.iter().for_each(|record| drop(create(&storage, record).unwrap()));
        let (at, distance) = (rehearsal(Verdict::Sound).rehearsed, day * days.unsigned_abs());
        let now = if days < 0 { at - distance } else { at + distance };
        let mut report = Report::default();
        check(&storage, warning.map(|days| day * days), now, &mut report);
        assert_eq!(report.metrics.len(), usize::from(verdict.is_some()));
        report.findings.first().map(|finding| finding.kind)
    }

    #[test]
    fn an_old_rehearsal_a_bad_one_and_none_are_a_warning_only_where_an_age_is_asked_for() {
        let (sound, bad) = (Some(Verdict::Sound), Some(Verdict::Findings));
        assert_eq!(state(None, 0, None), None);
        assert_eq!(state(bad, 100, None), Some(State::Ok));
        assert_eq!(state(sound, 7, Some(8)), Some(State::Ok));
        assert_eq!(state(sound, 9, Some(8)), Some(State::Warning));
        assert_eq!(state(bad, 1, Some(8)), Some(State::Warning));
        assert_eq!(state(None, 0, Some(8)), Some(State::Warning));
        // One from the future would be young for long.
        assert_eq!(state(sound, -3, None), Some(State::Warning));
        assert_eq!(state(sound, -3, Some(8)), Some(State::Warning));
    }
}
