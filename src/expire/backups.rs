//! The backups that are named: by the labels of backup history files, or in a list.
//!
//! A backup history file proves only that some backup was once finished: every re-initialised
//! replica writes one, and a backup taken from a standby writes none. So nothing is kept or
//! dropped for a file alone; the caller says which labels, or lists the backups.

use crate::failure::Failure;
use crate::storage::{self, Storage};
use crate::wal::{BackupHistory, Lsn, Timeline};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// A base backup that the caller named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Where recovery from it starts.
    pub start: Lsn,
    /// The timeline it was taken on.
    pub timeline: Timeline,
    /// Where it is consistent; a list need not say.
    pub stop: Option<Lsn>,
    /// When it was finished, at the latest.
    pub finished: SystemTime,
    /// Its label; empty in a list.
    pub label: String,
    /// Of one of our own: the destinations that hold all of it, by their number. Of others it is not known.
    pub whole_at: Option<BTreeSet<usize>>,
}

impl Backup {
    /// From a backup history file. The error says what is wrong with its time.
    pub fn of(history: &BackupHistory) -> Result<Self, String> {
        Ok(Backup {
            start: history.start,
            timeline: history.start_segment.timeline(),
            stop: Some(history.stop),
            finished: latest(&history.stop_time)
                .ok_or_else(|| format!("its stop time \"{}\" cannot be understood", history.stop_time))?,
            label: history.label.clone(),
            whole_at: None,
        })
    }

    /// Whether it is as good as any at this destination, as far as it is known.
    pub fn is_whole_at(&self, place: usize) -> bool {
        self.whole_at.as_ref().is_none_or(|places| places.contains(&place))
    }
}

/// Reads a list: one backup a line, `START_LSN TIMELINE FINISHED [STOP_LSN]`, separated by white
/// space; FINISHED as `2026-11-20T21:05:43Z`; empty lines and lines that begin with `#` are passed
/// over.
pub fn list(text: &str) -> Result<Vec<Backup>, Failure> {
    let mut backups = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let backup = backup(line).ok_or_else(|| {
            Failure::new((), format!("line {number} of the list of backups, \"{line}\", cannot be understood")).hint(
                "a line is START_LSN TIMELINE FINISHED [STOP_LSN], such as \"0/3000028 1 2026-11-20T21:05:43Z 0/3000100\"",
            )
        })?;
        backups.push(backup);
    }
    Ok(backups)
}

fn backup(line: &str) -> Option<Backup> {
    let mut fields = line.split_whitespace();
    let backup = Backup {
        start: fields.next()?.parse().ok()?,
        timeline: fields.next()?.parse().ok().and_then(Timeline::new)?,
        finished: humantime::parse_rfc3339(fields.next()?).ok()?,
        stop: fields.next().map(str::parse).transpose().ok()?,
        label: String::new(),
        whole_at: None,
    };
    let fine = fields.next().is_none() && backup.stop.is_none_or(|stop| stop >= backup.start);
    fine.then_some(backup)
}

/// Whether a text fits a pattern in which `*` stands for any characters and `?` for one.
pub fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // Which beginnings of the pattern fit the beginning of the text read so far.
    let mut fitting: Vec<bool> = Vec::with_capacity(pattern.len() + 1);
    fitting.push(true);
    for part in &pattern {
        fitting.push(*part == '*' && fitting.last() == Some(&true));
    }
    for character in text {
        let mut next = vec![false];
        for ((part, before), here) in pattern.iter().zip(&fitting).zip(fitting.iter().skip(1)) {
            next.push(match part {
                '*' => *here || *before || next.last() == Some(&true),
                '?' => *before,
                part => *before && *part == character,
            });
        }
        fitting = next;
    }
    fitting.last() == Some(&true)
}

/// The latest moment that a time of a backup history file can mean.
///
/// PostgreSQL writes it in `log_timezone` with `%Z` (`src/backend/access/transam/xlogbackup.c`,
/// `build_backup_content`; before 15 `xlog.c`): an abbreviation such as "CET", which names no
/// offset, or digits where the zone has none. Of an unknown one the westernmost is assumed, twelve
/// hours behind UTC, so that a backup is never taken for older than it is.
fn latest(text: &str) -> Option<SystemTime> {
    let mut fields = text.split_whitespace();
    let (date, time, zone) = (fields.next()?, fields.next()?, fields.next()?);
    if fields.next().is_some() {
        return None;
    }
    let local = humantime::parse_rfc3339(&format!("{date}T{time}Z")).ok()?;
    let minutes = match zone {
        "UTC" | "GMT" | "Z" => 0,
        zone => offset(zone).unwrap_or(-12 * 60),
    };
    let shift = Duration::from_secs(60 * u64::try_from(i64::abs(minutes)).ok()?);
    if minutes >= 0 { local.checked_sub(shift) } else { local.checked_add(shift) }
}

/// `+03`, `-0330`, `+05:30`: minutes east of UTC.
fn offset(zone: &str) -> Option<i64> {
    let (sign, digits) = match zone.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let digits = digits.replace(':', "");
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<i64>().ok())?;
    let (hours, minutes) = match digits.len() {
        2 => (number(&digits)?, 0),
        4 => {
            let (hours, minutes) = digits.split_at_checked(2)?;
            (number(hours)?, number(minutes)?)
        }
        _ => return None,
    };
    (hours <= 15 && minutes < 60).then_some(sign * (60 * hours + minutes))
}

/// A backup of WAL-G, which writes its sentinel when one is complete. Nothing here tells what it needs.
pub fn of_wal_g(storage: &dyn Storage) -> storage::Result<Option<String>> {
    let is_sentinel =
        |key: &str| key.starts_with("basebackups_005/base_") && key.ends_with("_backup_stop_sentinel.json");
    for entry in storage.list("basebackups_005/", "")? {
        let key = entry?.key;
        if is_sentinel(&key) {
            return Ok(Some(format!("{}/{key}", storage.place())));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn utc(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn a_time_without_a_known_offset_is_taken_for_as_late_as_it_can_be() {
        for (text, expected) in [
            ("2026-11-20 21:05:43 UTC", "2026-11-20T21:05:43Z"),
            ("2026-11-20 21:05:43 GMT", "2026-11-20T21:05:43Z"),
            ("2026-11-20 21:05:43 +03", "2026-11-20T18:05:43Z"),
            ("2026-11-20 21:05:43 -0330", "2026-11-21T00:35:43Z"),
            ("2026-11-20 21:05:43 +05:30", "2026-11-20T15:35:43Z"),
            ("2026-11-20 21:05:43 CET", "2026-11-21T09:05:43Z"),
        ] {
            assert_eq!(latest(text), Some(utc(expected)), "{text}");
        }
        for bad in
            ["", "2026-11-20 21:05:43", "20 Nov 2026 21:05:43 UTC", "2026-13-20 21:05:43 UTC", "a b c d"]
        {
            assert_eq!(latest(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_list_says_start_timeline_time_and_perhaps_stop() {
        let text = "# nightly\n\n 0/3000028 1 2026-11-20T21:05:43Z 0/3000100\n2/0\t7\t2026-11-21T00:00:00Z\n";
        let found = list(text).unwrap();
        assert_eq!(found[0].start, Lsn(0x300_0028));
        assert_eq!(found[0].stop, Some(Lsn(0x300_0100)));
        assert_eq!((found[1].timeline.get(), found[1].stop), (7, None));
        assert_eq!(found[1].finished, utc("2026-11-21T00:00:00Z"));
        for bad in [
            "0/3000028 1",
            "0/3000028 0 2026-11-20T21:05:43Z",
            "0/3000028 1 yesterday",
            "0/3000028 1 2026-11-20T21:05:43Z 0/1",
            "0/3000028 1 2026-11-20T21:05:43Z 0/4000000 more",
            "3000028 1 2026-11-20T21:05:43Z",
        ] {
            assert!(list(bad).unwrap_err().message.contains("line 1"), "{bad}");
        }
    }

    #[test]
    fn a_pattern_stands_for_the_whole_label() {
        for (pattern, text, expected) in [
            ("nightly", "nightly", true),
            ("nightly", "nightly 2", false),
            ("nightly*", "nightly 2", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("?", "", false),
            ("?", "ä", true),
            ("*a*b", "xaybzb", true),
            ("*a*b", "xaybz", false),
            ("a**", "a", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern:?} {text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_text_fits_itself_and_itself_with_holes(text in "[a-c*?]{0,12}", at in 0usize..12) {
            prop_assert!(fits(&text, &text));
            let holed: String = text.chars().enumerate().map(|(i, c)| if i == at { '?' } else { c }).collect();
            prop_assert!(fits(&holed, &text));
            let starred: String = text.chars().take(at).chain(['*']).collect();
            prop_assert!(fits(&starred, &text));
        }
    }
}
