//! The name of a backup: when, from where and on which timeline it began.
//!
//! `20261121T130405Z-000000002E000028-1`: in the order of the names the backups are in the order of
//! their beginning.

use crate::object::Key;
use crate::wal::{Lsn, Timeline};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// The folder of all base backups, with its slash.
pub const FOLDER: &str = "backups/";

/// Where a backup's record is, below its folder; what is there is complete.
pub const RECORD: &str = "backup.json";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackupId {
    /// Seconds since 1970, by the clock of the program that took it.
    started: u64,
    pub start: Lsn,
    pub timeline: Timeline,
}

/// The last second of the year 9999.
const LAST: u64 = 253_402_300_799;

impl BackupId {
    /// `None` for a time before 1970 or after 9999.
    pub fn new(started: SystemTime, start: Lsn, timeline: Timeline) -> Option<Self> {
        let started = started.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        (started <= LAST).then_some(BackupId { started, start, timeline })
    }

    /// When it began, to the second.
    pub fn started(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.started)
    }

    /// What the keys of all its objects begin with.
    pub fn folder(&self) -> String {
        format!("{FOLDER}{self}/")
    }

    /// The key of one of its files; `None` where that is no name of a file.
    pub fn key(&self, file: &str) -> Option<Key> {
        (!file.contains('/')).then(|| Key::parse(&format!("{FOLDER}{self}/{file}")))?
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = humantime::format_rfc3339_seconds(self.started()).to_string();
        let compact = text.chars().filter(|c| !matches!(c, '-' | ':'));
        write!(f, "{}-{:016X}-{}", compact.collect::<String>(), self.start.0, self.timeline)
    }
}

/// The text is not the name of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotABackup;

impl fmt::Display for NotABackup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the name of a backup, such as 20261121T130405Z-000000002E000028-1")
    }
}

impl std::error::Error for NotABackup {}

impl FromStr for BackupId {
    type Err = NotABackup;

    fn from_str(text: &str) -> Result<Self, NotABackup> {
        let mut parts = text.split('-');
        let (Some(time), Some(start), Some(timeline), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotABackup);
        };
        let id = BackupId {
            started: seconds(time).ok_or(NotABackup)?,
            start: Lsn(u64::from_str_radix(start, 16).map_err(|_| NotABackup)?),
            timeline: timeline.parse().ok().and_then(Timeline::new).ok_or(NotABackup)?,
        };
        // One name for each: no other spelling of the same.
        if id.to_string() == text { Ok(id) } else { Err(NotABackup) }
    }
}

/// `20261121T130405Z`
fn seconds(compact: &str) -> Option<u64> {
    let (date, time) = compact.strip_suffix('Z')?.split_once('T')?;
    let part = |text: &str, from: usize, to: usize| text.get(from..to).map(str::to_owned);
    let written = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(date, 0, 4)?,
        part(date, 4, 6)?,
        part(date, 6, 8)?,
        part(time, 0, 2)?,
        part(time, 2, 4)?,
        part(time, 4, 6)?
    );
    let time = humantime::parse_rfc3339(&written).ok()?;
    Some(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_says_when_where_and_on_which_timeline() {
        let started = humantime::parse_rfc3339("2026-11-21T13:04:05.9Z").unwrap();
        let id = BackupId::new(started, Lsn(0x2E00_0028), Timeline::FIRST).unwrap();
        assert_eq!(id.to_string(), "20261121T130405Z-000000002E000028-1");
        assert_eq!("20261121T130405Z-000000002E000028-1".parse(), Ok(id));
        assert_eq!(
            id.key(RECORD).unwrap().as_str(),
            "backups/20261121T130405Z-000000002E000028-1/backup.json"
        );
        assert_eq!(id.key("../x"), None);
        for bad in [
            "",
            "20261121T130405Z-000000002E000028",
            "20261121T130405Z-2E000028-1",
            "20261121T130405Z-000000002e000028-1",
            "20261121T130405Z-000000002E000028-0",
            "20261121T130405Z-000000002E000028-01",
            "20261121T130405Z-000000002E000028-1-1",
            "20261321T130405Z-000000002E000028-1",
            "20261121T130405-000000002E000028-1",
        ] {
            assert_eq!(bad.parse::<BackupId>(), Err(NotABackup), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn names_are_in_the_order_of_time(a in 0..LAST, b in 0..LAST, start: u64, timeline in 1u32..) {
            let id = |started| BackupId { started, start: Lsn(start), timeline: Timeline::new(timeline).unwrap() };
            prop_assert_eq!(id(a).to_string().parse(), Ok(id(a)));
            prop_assert_eq!(id(a) < id(b), id(a).to_string() < id(b).to_string());
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<BackupId>();
        }
    }
}
