//! Timeline history files (`TTTTTTTT.history`) and backup history files (`….backup`).
//!
//! Source: PostgreSQL `src/backend/access/transam/timeline.c` (`readTimeLineHistory`,
//! `writeTimeLineHistory`) and `src/backend/access/transam/xlog.c`, `xlogbackup.c`
//! (`build_backup_content`).

use super::lsn::Lsn;
use super::name::{SegmentName, Timeline};
use std::fmt;

/// One line of a timeline history file: an ancestor and where the next one left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    pub timeline: Timeline,
    /// The first address that is no longer the ancestor's.
    pub switch: Lsn,
    /// Why, in words; may be empty.
    pub reason: String,
}

/// The ancestors of a timeline, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    /// The timeline the file is of.
    pub timeline: Timeline,
    /// Never empty: PostgreSQL writes at least the parent.
    pub ancestors: Vec<Ancestor>,
}

/// Why PostgreSQL could not read a timeline history file (or never wrote it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadHistory {
    /// A line that is not `TLI <tab> LSN <tab> reason`. The line, counted from 1.
    Syntax(usize),
    /// Ids do not rise, or reach the file's own. The line, counted from 1.
    Order(usize),
    /// No ancestor at all.
    Empty,
}

impl fmt::Display for BadHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadHistory::Syntax(line) => {
                write!(f, "line {line} is not a timeline id, a switch point and a reason, separated by tabs")
            }
            BadHistory::Order(line) => {
                write!(f, "line {line} breaks the rule that timeline ids rise and stay below the file's own")
            }
            BadHistory::Empty => f.write_str("it names no ancestor, which PostgreSQL never writes"),
        }
    }
}

impl std::error::Error for BadHistory {}

impl TimelineHistory {
    /// Reads the content of `TIMELINE.history` as PostgreSQL does: blank lines and lines that
    /// begin with `#` are passed over, ids must rise and stay below the file's own.
    pub fn parse(timeline: Timeline, content: &[u8]) -> Result<Self, BadHistory> {
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (number, line) in (1..).zip(content.split(|b| *b == b'\n')) {
            // The reason holds the name of a restore point, in whatever encoding it was given.
            let line = String::from_utf8_lossy(line);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let ancestor = ancestor(line).ok_or(BadHistory::Syntax(number))?;
            let rises = ancestors.last().is_none_or(|last| last.timeline < ancestor.timeline);
            if !rises || ancestor.timeline >= timeline {
                return Err(BadHistory::Order(number));
            }
            ancestors.push(ancestor);
        }
        if ancestors.is_empty() {
            return Err(BadHistory::Empty);
        }
        Ok(TimelineHistory { timeline, ancestors })
    }

    /// What is unusual but legitimate: a standby that lagged when it was promoted makes switch
    /// points go backwards.
    pub fn oddities(&self) -> Vec<String> {
        let pairs = self.ancestors.iter().zip(self.ancestors.iter().skip(1));
        pairs
            .filter(|(before, after)| after.switch < before.switch)
            .map(|(before, after)| {
                format!(
                    "the switch point {} of timeline {} lies before that of timeline {} ({})",
                    after.switch, after.timeline, before.timeline, before.switch
                )
            })
            .collect()
    }
}

/// `sscanf(line, "%u\t%X/%X", …)`: any white space separates.
fn ancestor(line: &str) -> Option<Ancestor> {
    let (id, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let (switch, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Some(Ancestor {
        timeline: Timeline::new(id.parse().ok()?)?,
        switch: switch.parse().ok()?,
        reason: reason.trim_start().to_owned(),
    })
}

/// What a backup history file says: that a backup was once finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupHistory {
    /// Where recovery from the backup must start.
    pub start: Lsn,
    /// The segment of that address.
    pub start_segment: SegmentName,
    /// Where the backup is consistent.
    pub stop: Lsn,
    /// The segment of that address.
    pub stop_segment: SegmentName,
    /// The label given to `pg_backup_start`; may be empty.
    pub label: String,
    /// As written, in the server's `log_timezone`.
    pub start_time: String,
    /// As written, in the server's `log_timezone`.
    pub stop_time: String,
}

impl BackupHistory {
    /// `None` where a line that every version writes is missing or unreadable.
    pub fn parse(content: &[u8]) -> Option<Self> {
        // The label, too, is in whatever encoding it was given.
        let text = String::from_utf8_lossy(content);
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        let (start, start_segment) = location(value("START WAL LOCATION")?)?;
        let (stop, stop_segment) = location(value("STOP WAL LOCATION")?)?;
        Some(BackupHistory {
            start,
            start_segment,
            stop,
            stop_segment,
            label: value("LABEL")?.to_owned(),
            start_time: value("START TIME")?.to_owned(),
            stop_time: value("STOP TIME")?.to_owned(),
        })
    }
}

/// `0/1500028 (file 000000010000000000000015)`
fn location(text: &str) -> Option<(Lsn, SegmentName)> {
    let (lsn, file) = text.split_once(" (file ")?;
    Some((lsn.parse().ok()?, file.strip_suffix(')')?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tli(id: u32) -> Timeline {
        Timeline::new(id).unwrap()
    }

    #[test]
    fn a_history_lists_ancestors_oldest_first() {
        let text = b"# comment\n\n1\t0/1B6BDA0\tno recovery target specified\n\n2\t1/0\tbefore 2026-11-20 21:05:43+00\n";
        let history = TimelineHistory::parse(tli(3), text).unwrap();
        let found: Vec<_> = history.ancestors.iter().map(|a| (a.timeline.get(), a.switch.0)).collect();
        assert_eq!(found, [(1, 0x1B6_BDA0), (2, 1 << 32)]);
        assert_eq!(history.ancestors[0].reason, "no recovery target specified");
        assert!(history.oddities().is_empty());
    }

    #[test]
    fn switch_points_that_go_backwards_are_only_odd() {
        let history = TimelineHistory::parse(tli(3), b"1\t0/E329998\tx\n2\t0/E000000\ty\n").unwrap();
        assert_eq!(history.oddities().len(), 1);
    }

    #[test]
    fn a_restore_point_may_be_named_in_any_encoding() {
        let history =
            TimelineHistory::parse(tli(2), b"1\t0/3000090\tat restore point \"vor \xC4nderung\"\n").unwrap();
        assert_eq!(history.ancestors[0].switch, Lsn(0x300_0090));
    }

    #[test]
    fn what_postgresql_could_not_read_is_refused() {
        let parse = |text: &[u8]| TimelineHistory::parse(tli(3), text).unwrap_err();
        assert_eq!(parse(b""), BadHistory::Empty);
        assert_eq!(parse(b"# nothing\n"), BadHistory::Empty);
        assert_eq!(parse(b"1\t0/1\tx\n1\t0/2\ty\n"), BadHistory::Order(2));
        assert_eq!(parse(b"3\t0/1\tx\n"), BadHistory::Order(1));
        assert_eq!(parse(b"0\t0/1\tx\n"), BadHistory::Syntax(1));
        assert_eq!(parse(b"1\n"), BadHistory::Syntax(1));
        assert_eq!(parse(b"1\tzero\tx\n"), BadHistory::Syntax(1));
        assert_eq!(parse(&[0; 64]), BadHistory::Syntax(1));
        assert_eq!(parse(b"\xFF\t0/1\tx\n"), BadHistory::Syntax(1));
    }

    #[test]
    fn a_backup_history_names_its_range() {
        let text = b"START WAL LOCATION: 0/1500028 (file 000000010000000000000015)\n\
            STOP WAL LOCATION: 0/1500100 (file 000000010000000000000015)\n\
            CHECKPOINT LOCATION: 0/1500060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
            START TIME: 2026-11-20 21:05:43 UTC\nLABEL: nightly: one\nSTART TIMELINE: 1\n\
            STOP TIME: 2026-11-20 21:05:44 UTC\nSTOP TIMELINE: 1\n";
        let backup = BackupHistory::parse(text).unwrap();
        assert_eq!(backup.start, Lsn(0x150_0028));
        assert_eq!(backup.stop_segment.to_string(), "000000010000000000000015");
        assert_eq!(backup.label, "nightly: one");
        assert_eq!(BackupHistory::parse(&text[1..]), None);
        assert_eq!(BackupHistory::parse(b""), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_them_panic(bytes: Vec<u8>, text in "[0-9A-F/\t\n #x]{0,80}") {
            let _ = TimelineHistory::parse(tli(9), &bytes);
            let _ = TimelineHistory::parse(tli(9), text.as_bytes());
            let _ = BackupHistory::parse(&bytes);
        }
    }
}
