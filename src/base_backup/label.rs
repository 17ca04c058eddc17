//! `backup_label`: where recovery from a backup begins, as PostgreSQL itself reads it.
//!
//! Source: `build_backup_content` (`xlogbackup.c`, before 15 `xlog.c`), `read_backup_label`.

use crate::wal::{Lsn, Timeline};

/// What is needed of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupLabel {
    pub start: Lsn,
    pub timeline: Timeline,
    /// Taken from a server in recovery: no end of backup is in the WAL.
    pub from_standby: bool,
}

/// Its path in a data directory.
pub const PATH: &str = "backup_label";

impl BackupLabel {
    /// `None` where a line is missing that every version since 11 writes.
    pub fn parse(content: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(content);
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        let start = value("START WAL LOCATION")?.split(' ').next()?.parse().ok()?;
        let timeline = value("START TIMELINE")?.trim().parse().ok().and_then(Timeline::new)?;
        Some(BackupLabel { start, timeline, from_standby: value("BACKUP FROM")? == "standby" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_says_where_recovery_begins_and_of_what_it_is_a_backup() {
        let text = "START WAL LOCATION: 0/2000028 (file 000000030000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n\
            BACKUP METHOD: streamed\nBACKUP FROM: standby\nSTART TIME: 2026-11-21 13:04:05 UTC\nLABEL: x\nSTART TIMELINE: 3\n";
        let label = BackupLabel::parse(text.as_bytes()).unwrap();
        assert_eq!((label.start, label.timeline.get(), label.from_standby), (Lsn(0x200_0028), 3, true));
        assert!(!BackupLabel::parse(text.replace("standby", "primary").as_bytes()).unwrap().from_standby);
        assert_eq!(BackupLabel::parse(b""), None);
    }
}
