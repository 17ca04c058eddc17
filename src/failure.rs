//! A failed workflow: the kind for the exit code, a sentence and a hint for people, and how
//! sentences say a size and a time.

use crate::storage;
use log::Level;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, SystemTime};

/// What a workflow returns instead of its result; `K` is the workflow's own set of kinds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure<K = ()> {
    /// What the exit code is made of.
    pub kind: K,
    /// A lower-case statement with quoted values, one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl<K> Failure<K> {
    pub fn new(kind: K, message: impl Into<String>) -> Self {
        Failure { kind, message: message.into(), hint: None }
    }

    /// Says what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what else can be done.
    pub fn or_else(self, also: &str) -> Self {
        let hint = self.hint.map_or_else(|| also.to_owned(), |hint| format!("{hint}; {also}"));
        Failure { hint: Some(hint), ..self }
    }

    pub fn within(self, place: &str) -> Self {
        Failure { message: format!("{place}: {}", self.message), ..self }
    }

    /// Keeps a storage error's words and hint.
    pub fn from_storage(kind: K, error: &storage::Error) -> Self {
        Failure { kind, message: error.to_string(), hint: error.hint_text().map(str::to_owned) }
    }
}

impl<K> Failure<K> {
    /// The same words, of what turned out to be no failure.
    pub fn remark(&self) -> Failure {
        Failure { kind: (), message: self.message.clone(), hint: self.hint.clone() }
    }

    /// One event in the log; the hint stays a field of its own.
    pub fn log(&self, level: Level) {
        match &self.hint {
            Some(hint) => log::log!(level, hint = hint.as_str(); "{}", self.message),
            None => log::log!(level, "{}", self.message),
        }
    }
}

impl Failure {
    /// Nothing failed, but somebody should do something.
    pub fn warn(message: impl Into<String>, hint: impl Into<String>) {
        Failure::new((), message).hint(hint).log(Level::Warn);
    }
}

impl<K> fmt::Display for Failure<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " HINT: {hint}"),
            None => Ok(()),
        }
    }
}

/// A number of bytes in a sentence: `1.5 GiB`.
pub fn size(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1024.0; // what is lost is never shown
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while size >= 1023.95
        && let Some(larger) = units.next()
    {
        size /= 1024.0;
        unit = Some(larger);
    }
    format!("{size:.1} {}", unit.unwrap_or(&""))
}

/// RFC 3339 in UTC, to the second; `None` for a time before 1970 or after 9999, as a clock that was
/// never set leaves behind: it has no such form.
pub fn time(time: SystemTime) -> Option<String> {
    sayable(time).map(|time| humantime::format_rfc3339_seconds(time).to_string())
}

/// RFC 3339 in UTC, to the microsecond, as PostgreSQL keeps times.
pub fn exact_time(time: SystemTime) -> Option<String> {
    sayable(time).map(|time| humantime::format_rfc3339_micros(time).to_string())
}

fn sayable(time: SystemTime) -> Option<SystemTime> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since < Duration::from_secs(253_402_300_800)).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_beyond_all_calendars_is_none() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(time(at(0)).unwrap(), "1970-01-01T00:00:00Z");
        assert_eq!(time(at(253_402_300_800)), None);
        assert_eq!(time(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), None);
        assert_eq!(exact_time(at(1)).unwrap(), "1970-01-01T00:00:01.000000Z");
    }

    #[test]
    fn sizes_have_one_digit_after_the_point() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (16 << 20, "16.0 MiB")];
        for (count, text) in cases.into_iter().chain([((1 << 20) - 1, "1.0 MiB"), (u64::MAX, "16.0 EiB")]) {
            assert_eq!(size(count), text);
        }
    }
}
