//! What recovery needs to be told: the end of `postgresql.auto.conf`, which beats every other file.

use super::choose::Choice;
use super::target::Target;
use crate::base_backup::Record;
use crate::failure::exact_time;
use crate::wal::{Mark, Timeline};
use std::time::SystemTime;

/// What the server does at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pause,
    Promote,
    Shutdown,
}

#[derive(Clone, Debug)]
pub struct Recovery {
    pub restore_command: String,
    pub target: Target,
    pub timeline: Timeline,
    /// `None`: as PostgreSQL has it.
    pub action: Option<Action>,
    /// Whether the target itself is left out.
    pub exclusive: bool,
    /// Whether the restored server archives, too.
    pub keep_archiving: bool,
    /// Whether it stays in recovery, and follows the newest timeline until it is promoted.
    pub standby: bool,
}

/// The first version that knows `archive_library` and `recovery_prefetch`.
const FIFTEEN: u32 = 150_000;

/// The first version that does not know `promote_trigger_file`.
const SIXTEEN: u32 = 160_000;

impl Recovery {
    pub fn of(choice: &Choice, restore_command: String) -> Self {
        Recovery {
            restore_command,
            target: choice.target.clone(),
            timeline: choice.timeline,
            action: None,
            exclusive: false,
            keep_archiving: false,
            standby: false,
        }
    }

    /// The file that makes the server recover.
    pub fn signal(&self) -> &'static str {
        if self.standby { "standby.signal" } else { "recovery.signal" }
    }

    /// Lines to append. What was set before and would recover to elsewhere, stream from another server or
    /// archive is emptied; a standby may stream from where it was told to.
    pub fn write(&self, record: &Record) -> String {
        let timeline = if self.standby { "latest".to_owned() } else { self.timeline.to_string() };
        let mut lines: Vec<(&str, String)> = vec![
            ("restore_command", self.restore_command.clone()),
            ("archive_cleanup_command", String::new()),
            ("recovery_end_command", String::new()),
            ("recovery_min_apply_delay", "0".to_owned()),
            ("recovery_target", String::new()),
            ("recovery_target_name", String::new()),
            ("recovery_target_time", String::new()),
            ("recovery_target_xid", String::new()),
            ("recovery_target_lsn", String::new()),
            ("recovery_target_timeline", timeline),
            ("recovery_target_inclusive", if self.exclusive { "off" } else { "on" }.to_owned()),
        ];
        if !self.standby {
            lines.extend([("primary_conninfo", String::new()), ("primary_slot_name", String::new())]);
        }
        lines.extend(self.target_line());
        if self.target != Target::End && record.server_version >= FIFTEEN {
            // It would ask for what is behind the target, and end where there is a hole.
            lines.push(("recovery_prefetch", "off".to_owned()));
        }
        lines.push(("recovery_target_action", self.action.unwrap_or(Action::Pause).word().to_owned()));
        if record.server_version < SIXTEEN {
            lines.push(("promote_trigger_file", String::new()));
        }
        if !self.keep_archiving {
            lines.push(("archive_mode", "off".to_owned()));
            if record.server_version >= FIFTEEN {
                lines.push(("archive_library", String::new()));
            }
        }
        let head = format!("\n# Added by wal-archive restore, of backup {}\n", record.id);
        head + &lines.iter().map(line).collect::<String>()
    }

    fn target_line(&self) -> Option<(&'static str, String)> {
        match &self.target {
            Target::End => None,
            Target::Immediate => Some(("recovery_target", "immediate".to_owned())),
            Target::Time(time) => Some(("recovery_target_time", digits(*time))),
            Target::Lsn(lsn) => Some(("recovery_target_lsn", lsn.to_string())),
            Target::Mark(Mark::Transaction(id)) => Some(("recovery_target_xid", id.to_string())),
            Target::Mark(Mark::RestorePoint(name)) => Some(("recovery_target_name", name.clone())),
        }
    }

    /// Only what says where recovery goes, for a configuration of one's own.
    pub fn target_lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("restore_command", self.restore_command.clone()),
            ("recovery_target_timeline", self.timeline.to_string()),
        ];
        lines.extend(self.target_line());
        lines
    }

    /// What outlives recovery and is to be taken out.
    pub fn left_behind(&self, record: &Record) -> Vec<&'static str> {
        let prefetch = self.target != Target::End && record.server_version >= FIFTEEN;
        let target = match self.target {
            Target::End => None,
            Target::Immediate => Some("recovery_target"),
            Target::Time(_) => Some("recovery_target_time"),
            Target::Lsn(_) => Some("recovery_target_lsn"),
            Target::Mark(Mark::Transaction(_)) => Some("recovery_target_xid"),
            Target::Mark(Mark::RestorePoint(_)) => Some("recovery_target_name"),
        };
        let archive = (!self.keep_archiving).then_some("archive_mode");
        archive.into_iter().chain(target).chain(prefetch.then_some("recovery_prefetch")).collect()
    }
}

/// A line of a configuration file, quoted as `escape_single_quotes_ascii` of PostgreSQL does it: there a backslash
/// begins an escape. A value has no newline.
pub fn line((name, value): &(&'static str, String)) -> String {
    format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// With an offset in digits: abbreviations, "Z" among them, are not known yet when it is read.
fn digits(time: SystemTime) -> String {
    exact_time(time).unwrap_or_default().replace('T', " ").replace('Z', "+00")
}

impl Action {
    pub fn word(self) -> &'static str {
        match self {
            Action::Pause => "pause",
            Action::Promote => "promote",
            Action::Shutdown => "shutdown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base_backup::record::tests::record;

    fn recovery(target: Target) -> Recovery {
        let choice =
            Choice { record: record(), timeline: Timeline::new(3).unwrap(), target, unreached: None };
        Recovery::of(&choice, "wal-fetch --archive '/it''s' %f %p".replace("''", "'"))
    }

    #[test]
    fn what_was_set_before_is_emptied_and_the_target_set_last() {
        let time = humantime::parse_rfc3339("2026-11-21T13:04:05.5Z").unwrap();
        let text = recovery(Target::Time(time)).write(&record());
        assert!(text.contains("restore_command = 'wal-fetch --archive ''/it''s'' %f %p'\n"));
        assert!(text.contains("recovery_target_time = ''\n"));
        assert!(text.contains("recovery_target_time = '2026-11-21 13:04:05.500000+00'\n"));
        assert!(
            text.contains("recovery_target_timeline = '3'\n") && text.contains("primary_conninfo = ''\n")
        );
        assert!(text.ends_with("archive_mode = 'off'\narchive_library = ''\n"));
        assert!(text.contains("recovery_prefetch = 'off'\n"));
        // What a standby was set to, or an earlier recovery.
        for line in [
            "recovery_target_action = 'pause'",
            "recovery_min_apply_delay = '0'",
            "recovery_end_command = ''",
            "promote_trigger_file = ''",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}");
        }
        let newer = Record { server_version: 160_000, ..record() };
        assert!(!recovery(Target::End).write(&newer).contains("promote_trigger_file"));
        assert_eq!(
            recovery(Target::Time(time)).left_behind(&record()),
            ["archive_mode", "recovery_target_time", "recovery_prefetch"]
        );
    }

    #[test]
    fn a_value_is_read_by_postgresql_as_it_is() {
        let value = r"wal-fetch --archive '/a '\''q\1' %f %p".to_owned();
        assert_eq!(
            line(&("restore_command", value)),
            "restore_command = 'wal-fetch --archive ''/a ''\\\\''''q\\\\1'' %f %p'\n"
        );
    }

    #[test]
    fn a_standby_follows_the_newest_timeline_and_streams_from_where_it_was_told_to() {
        let standby = Recovery { standby: true, ..recovery(Target::End) };
        let text = standby.write(&record());
        assert!(
            text.contains("recovery_target_timeline = 'latest'\n") && !text.contains("primary_"),
            "{text}"
        );
        assert_eq!((standby.signal(), recovery(Target::End).signal()), ("standby.signal", "recovery.signal"));
    }

    #[test]
    fn a_server_before_15_is_not_told_what_it_does_not_know() {
        let mut record = record();
        record.server_version = 140_000;
        assert!(!recovery(Target::End).write(&record).contains("archive_library"));
        let keeping = Recovery { keep_archiving: true, ..recovery(Target::Immediate) };
        let text = keeping.write(&record);
        assert!(!text.contains("archive_mode") && text.contains("recovery_target = 'immediate'\n"));
        assert_eq!(keeping.left_behind(&record), ["recovery_target"]);
        assert!(!text.contains("prefetch"));
    }
}
