//! What a server's log says of its recovery. Pure: lines in, what happened out.
//!
//! The messages are PostgreSQL's untranslated ones (`src/backend/access/transam/xlogrecovery.c`, up to 14
//! `xlog.c`, and `postmaster.c`); those of wal-fetch are its JSON.

use super::Result;
use crate::archive::rehearsals::Flaw;
use crate::failure::Failure;
use crate::finding::Finding;
use crate::wal::{Lsn, Timeline};
use std::time::{Instant, SystemTime};

/// The system's words for `ENOSPC`: the scratch directory's fault.
const NO_ROOM: &str = "No space left on device";

#[derive(Debug, Default)]
pub(super) struct Story {
    /// Whether the data directory was looked at: what went wrong before says nothing of it.
    begun: bool,
    from: Option<Lsn>,
    /// Where the last record begins that was replayed, and when that was seen.
    done: Option<(Lsn, Instant)>,
    last_completed: Option<SystemTime>,
    new_timeline: Option<Timeline>,
    ready: bool,
    /// The first FATAL or PANIC.
    fatal: Option<String>,
    /// wal-fetch's last error, and its hint.
    fetch: Option<(String, Option<String>)>,
}

impl Story {
    pub(super) fn read(&mut self, line: &str, now: Instant) {
        if let Some(event) = line.strip_prefix('{').and_then(|_| serde_json::from_str(line).ok()) {
            return self.hear(&event);
        }
        let after = |prefix: &str| line.strip_prefix("LOG:  ")?.strip_prefix(prefix);
        let word = |text: Option<&str>| Some(text?.split_whitespace().next()?.to_owned());
        if after("database system was ").is_some()
            || after("starting ").is_some_and(|what| what.contains("recovery"))
        {
            self.begun = true;
        }
        if let Some(lsn) = word(after("redo starts at ")).and_then(|word| word.parse().ok()) {
            self.from = Some(lsn);
        } else if let Some(lsn) = word(after("redo done at ")).and_then(|word| word.parse().ok()) {
            self.done = Some((lsn, now));
        } else if let Some(text) = after("last completed transaction was at log time ") {
            self.last_completed = time(text);
        } else if let Some(number) = word(after("selected new timeline ID: ")) {
            self.new_timeline = number.parse().ok().and_then(Timeline::new);
        } else if after("database system is ready to accept connections").is_some() {
            self.ready = true;
        }
        let fatal = line.strip_prefix("FATAL:  ").or(line.strip_prefix("PANIC:  "));
        // Somebody's question before the server is open.
        if let Some(text) = fatal.filter(|text| !text.starts_with("the database system is ")) {
            self.fatal.get_or_insert_with(|| text.to_owned());
        }
    }

    fn hear(&mut self, event: &serde_json::Value) {
        let text = |field: &str| event.get(field).and_then(|value| value.as_str()).map(str::to_owned);
        if let (Some("wal-fetch"), Some("error"), Some(message)) =
            (text("program").as_deref(), text("level").as_deref(), text("message"))
        {
            self.fetch = Some((message, text("hint")));
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    pub(super) fn new_timeline(&self) -> Option<Timeline> {
        self.new_timeline
    }

    pub(super) fn last_completed(&self) -> Option<SystemTime> {
        self.last_completed
    }

    pub(super) fn redone_at(&self) -> Option<Instant> {
        self.done.map(|(_, at)| at)
    }

    /// Bytes of WAL, to the beginning of the last record.
    pub(super) fn replayed(&self) -> Option<u64> {
        Some(self.done?.0.0.saturating_sub(self.from?.0))
    }

    /// Why the server ended, where that tells something of the backup or the archive. An error: wal-fetch ended with
    /// another code than the `telling` ones.
    pub(super) fn why_ended(&self, telling: &[u8]) -> Result<Option<Finding<Flaw>>> {
        let Some(fatal) = &self.fatal else { return Ok(None) };
        if let Some((file, code)) = refused_file(fatal) {
            let (said, hint) = self.fetch.clone().unwrap_or_default();
            let said = if said.is_empty() { said } else { format!(": {said}") };
            let what = format!("recovery asked for \"{file}\", and wal-fetch ended with {code}{said}");
            let failure = Failure { kind: (), message: what, hint };
            return match telling.contains(&code) {
                true => Ok(Some(Finding::of_failure(Flaw::RestoreCommand, file, super::PLACE, &failure))),
                false => Err(failure),
            };
        }
        if !self.begun || fatal.contains(NO_ROOM) {
            return Ok(None);
        }
        let what = format!("PostgreSQL ended the recovery: {fatal}");
        let finding = Finding::new(Flaw::Recovery, "recovery", super::PLACE, what);
        Ok(Some(finding.hint("\"wal-archive verify --records --backups\" tells what is damaged")))
    }

    /// Why it ended, where that tells nothing of them.
    pub(super) fn fatal(&self) -> Option<&str> {
        self.fatal.as_deref()
    }
}

/// `could not restore file "NAME" from archive: child process exited with exit code N`
fn refused_file(fatal: &str) -> Option<(&str, u8)> {
    let (file, rest) = fatal.strip_prefix("could not restore file \"")?.split_once('"')?;
    let (_, code) = rest.rsplit_once("exit code ")?;
    Some((file, code.trim().parse().ok()?))
}

/// `2026-11-21 13:04:05.123456+00`, as the server's time zone is UTC.
fn time(text: &str) -> Option<SystemTime> {
    let text = text.trim().strip_suffix("+00")?.replacen(' ', "T", 1);
    humantime::parse_rfc3339(&format!("{text}Z")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(lines: &[&str]) -> Story {
        let mut story = Story::default();
        lines.iter().for_each(|line| story.read(line, Instant::now()));
        story
    }

    #[test]
    fn a_recovery_that_ended_well_is_told_by_its_log() {
        let story = story(&[
            "LOG:  starting PostgreSQL 15.14",
            "LOG:  database system was interrupted; last known up at 2026-11-21 13:00:00 UTC",
            "LOG:  starting archive recovery",
            "FATAL:  the database system is starting up",
            "LOG:  redo starts at 0/2000028",
            "LOG:  redo done at 0/3000110 system usage: CPU: user: 0.00 s",
            "LOG:  last completed transaction was at log time 2026-11-21 13:04:05.123456+00",
            "LOG:  selected new timeline ID: 2",
            "LOG:  database system is ready to accept connections",
        ]);
        assert!(story.is_ready() && story.redone_at().is_some());
        assert_eq!((story.replayed(), story.new_timeline()), (Some(0x100_00E8), Timeline::new(2)));
        let time = humantime::parse_rfc3339("2026-11-21T13:04:05.123456Z").unwrap();
        assert_eq!((story.last_completed(), story.why_ended(&[])), (Some(time), Ok(None)));
    }

    #[test]
    fn an_exit_code_of_wal_fetch_is_the_finding_in_its_own_words() {
        let story = story(&[
            "LOG:  database system was interrupted; last known up at 2026-11-21 13:00:00 UTC",
            "{\"hint\":\"look\",\"level\":\"error\",\"message\":\"it is damaged\",\"program\":\"wal-fetch\",\"time\":\"x\"}",
            "FATAL:  could not restore file \"000000010000000000000004\" from archive: child process exited with exit code 221",
            "FATAL:  another",
        ]);
        let finding = story.why_ended(&[221, 224]).unwrap().unwrap();
        assert_eq!((finding.kind, finding.name.as_str()), (Flaw::RestoreCommand, "000000010000000000000004"));
        assert_eq!(
            finding.reason,
            "recovery asked for \"000000010000000000000004\", and wal-fetch ended with 221: it is damaged"
        );
        assert_eq!(finding.hint.as_deref(), Some("look"));
        let unknown = story.why_ended(&[224]).unwrap_err();
        assert_eq!((unknown.message, unknown.hint.as_deref()), (finding.reason, Some("look")));
    }

    #[test]
    fn what_goes_wrong_before_recovery_begins_or_for_want_of_room_is_no_finding() {
        let fatal = "FATAL:  could not map anonymous shared memory: Cannot allocate memory";
        let early = story(&["LOG:  starting PostgreSQL 15.14", fatal]);
        assert_eq!((early.why_ended(&[]), early.fatal().is_some()), (Ok(None), true));
        let full = "PANIC:  could not write to file \"pg_wal/xlogtemp.7\": No space left on device";
        let full = story(&["LOG:  starting archive recovery", full]);
        assert_eq!((full.why_ended(&[]), full.fatal().is_some()), (Ok(None), true));
        let late = story(&["LOG:  starting archive recovery", fatal]);
        assert_eq!(late.why_ended(&[]).unwrap().unwrap().kind, Flaw::Recovery);
    }
}
