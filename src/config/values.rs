//! What the texts of settings mean. Each error names what would be right.

use crate::storage::s3::{ConditionalWrites, RequestChecksums, Secret};
use crate::wal::WalName;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How messages on stderr look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The form of wal-fetch's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// By `standby.signal` in the working directory.
    Auto,
    /// 1 to 125: a standby asks again.
    Retry,
    /// Above 125: PostgreSQL stops.
    Abort,
}

type Result<T> = std::result::Result<T, String>;

pub(super) fn text(text: &str) -> Result<String> {
    Ok(text.to_owned())
}

pub(super) fn secret(text: &str) -> Result<Secret> {
    Ok(Secret::new(text.to_owned()))
}

/// Relative to the working directory, or absolute.
pub(super) fn path(text: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(text))
}

pub(super) fn boolean(text: &str) -> Result<bool> {
    match text {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

/// With a unit, as PostgreSQL's own settings: `500ms`, `30s`, `2min`, `1h`.
pub fn duration(text: &str) -> Result<Duration> {
    let wrong = || "a duration above zero with a unit, such as 500ms, 30s, 2min or 1h".to_owned();
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() && duration < Duration::from_secs(366 * 24 * 3600) => {
            Ok(duration)
        }
        _ => Err(wrong()),
    }
}

pub(super) fn level(text: &str) -> Result<i32> {
    text.parse().ok().filter(|level| (-5..=19).contains(level)).ok_or("a number from -5 to 19".to_owned())
}

/// A number of files; 0 is off.
pub(super) fn window(text: &str) -> Result<usize> {
    text.parse().ok().filter(|count| *count <= 1024).ok_or("a number from 0 to 1024".to_owned())
}

pub(super) fn jobs(text: &str) -> Result<usize> {
    text.parse().ok().filter(|jobs| (1..=64).contains(jobs)).ok_or("a number from 1 to 64".to_owned())
}

pub(super) fn absolute_path(text: &str) -> Result<PathBuf> {
    Some(Path::new(text))
        .filter(|path| path.is_absolute())
        .map(Path::to_owned)
        .ok_or("an absolute path".to_owned())
}

pub(super) fn segment_or_history(text: &str) -> Result<WalName> {
    match text.parse() {
        Ok(name @ (WalName::Segment(_) | WalName::TimelineHistory(_))) => Ok(name),
        _ => Err("the name of a segment or a timeline history".to_owned()),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("text or json".to_owned()),
    }
}

pub(super) fn client_encryption(text: &str) -> Result<()> {
    (text == "none").then_some(()).ok_or("none, the only mode there is".to_owned())
}

pub(super) fn on_error(text: &str) -> Result<OnError> {
    text.parse()
}

impl std::str::FromStr for OnError {
    type Err = String;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(OnError::Auto),
            "retry" => Ok(OnError::Retry),
            "abort" => Ok(OnError::Abort),
            _ => Err("auto, retry or abort".to_owned()),
        }
    }
}

/// Server-side encryption by WAL-G's words, which are S3's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sse {
    S3,
    Kms,
}

pub(super) fn sse(text: &str) -> Result<Sse> {
    match text {
        "AES256" => Ok(Sse::S3),
        "aws:kms" => Ok(Sse::Kms),
        _ => Err("AES256 or aws:kms".to_owned()),
    }
}

pub(super) fn http_url(text: &str) -> Result<String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("a URL such as https://host:port".to_owned()),
    }
}

pub(super) fn request_checksums(text: &str) -> Result<RequestChecksums> {
    match text {
        "when-supported" | "when_supported" => Ok(RequestChecksums::WhenSupported),
        "when-required" | "when_required" => Ok(RequestChecksums::WhenRequired),
        _ => Err("when-supported or when-required".to_owned()),
    }
}

pub(super) fn conditional_writes(text: &str) -> Result<ConditionalWrites> {
    match text {
        "required" => Ok(ConditionalWrites::Required),
        "unsupported" => Ok(ConditionalWrites::Unsupported),
        _ => Err("required or unsupported".to_owned()),
    }
}
