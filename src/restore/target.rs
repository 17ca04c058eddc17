//! How far recovery is to go, in PostgreSQL's words.

use crate::wal::{Lsn, Mark};
use std::time::SystemTime;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// As far as the archived WAL goes.
    End,
    /// As soon as the backup is consistent.
    Immediate,
    /// Up to, and with, what was committed at this time.
    Time(SystemTime),
    Lsn(Lsn),
    /// Up to, and with, the end of a transaction or a restore point.
    Mark(Mark),
}

/// `2026-11-21 13:04:05.123+01`, `2026-11-21T12:04:05Z`: with a zone as an offset, which says which
/// moment is meant wherever it is read.
pub fn time(text: &str) -> Result<SystemTime, String> {
    let wrong = || {
        "a time with its offset from UTC, such as \"2026-11-21 13:04:05.123+01\" or \"2026-11-21T12:04:05Z\""
            .to_owned()
    };
    let (date, rest) = text.trim().split_once(['T', ' ']).ok_or_else(wrong)?;
    let rest = rest.trim();
    let zone_at = rest.find(['+', '-', 'Z', 'z', ' ']).ok_or_else(wrong)?;
    let (clock, zone) = rest.split_at_checked(zone_at).ok_or_else(wrong)?;
    let minutes = match zone.trim() {
        "Z" | "z" | "UTC" => 0,
        zone => offset(zone).ok_or_else(wrong)?,
    };
    let local = humantime::parse_rfc3339(&format!("{date}T{clock}Z")).map_err(|_| wrong())?;
    let shift = std::time::Duration::from_secs(60 * u64::from(minutes.unsigned_abs()));
    let moment = if minutes >= 0 { local.checked_sub(shift) } else { local.checked_add(shift) };
    moment.ok_or_else(wrong)
}

/// `+01`, `-0330`, `+05:30`: minutes east of UTC.
fn offset(zone: &str) -> Option<i32> {
    let digits: String = zone.get(1..)?.chars().filter(|c| *c != ':').collect();
    let number = |from, to| digits.get(from..to)?.parse::<u8>().ok().map(i32::from);
    let minutes = match digits.len() {
        2 => 60 * number(0, 2)?,
        4 => 60 * number(0, 2)? + number(2, 4)?,
        _ => return None,
    };
    match zone.get(..1)? {
        "+" if minutes <= 15 * 60 => Some(minutes),
        "-" if minutes <= 15 * 60 => Some(-minutes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_needs_its_zone() {
        let utc = |text: &str| humantime::parse_rfc3339(text).unwrap();
        for (text, expected) in [
            ("2026-11-21T12:04:05Z", "2026-11-21T12:04:05Z"),
            ("2026-11-21 12:04:05 UTC", "2026-11-21T12:04:05Z"),
            ("2026-11-21 13:04:05.123456+01", "2026-11-21T12:04:05.123456Z"),
            ("2026-11-21 13:04:05+01:00", "2026-11-21T12:04:05Z"),
            ("2026-11-21 08:34:05 -0330", "2026-11-21T12:04:05Z"),
        ] {
            assert_eq!(time(text), Ok(utc(expected)), "{text}");
        }
        for bad in [
            "",
            "2026-11-21",
            "2026-11-21 12:04:05",
            "2026-11-21 12:04:05 CET",
            "yesterday",
            "12:04+01",
            "2026-11-21 12:04:05+99",
        ] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
