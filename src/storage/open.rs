//! From what a person writes to a storage: `/path`, `file:///path`, `s3://bucket/prefix`.

use super::deadline::Deadline;
use super::giving_up::GivingUp;
use super::keyed::Keyed;
use super::local::Local;
use super::retry::{Attempts, Retry};
use super::s3::{S3, S3Settings};
use super::{Error, Kind, Result, Shared};
use crate::object::age::Keyring;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where a destination is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Directory(PathBuf),
    /// A bucket, and a prefix without slashes at its ends.
    S3 {
        bucket: String,
        prefix: String,
    },
}

/// A destination as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub location: Location,
    /// How to reach it, where it is a bucket.
    pub s3: S3Settings,
    /// Of what is stored there; `None` where it is not encrypted.
    pub keys: Option<Arc<Keyring>>,
}

impl Destination {
    /// Prepares the storage; nothing is asked of it yet.
    pub fn open(&self) -> Shared {
        let place: Shared = match &self.location {
            Location::Directory(path) => Arc::new(Local::new(path.clone())),
            Location::S3 { bucket, prefix } => {
                let s3 = S3::new(bucket.clone(), prefix.clone(), self.s3.clone());
                Arc::new(Retry::new(Arc::new(s3), Attempts::default()))
            }
        };
        match &self.keys {
            Some(keys) => Arc::new(Keyed::new(place, Arc::clone(keys))),
            None => place,
        }
    }

    /// Prepares the storage for a command that takes as long as the archive is large: no answer, and
    /// no piece of one, takes longer than `patience`, and a store that fails again and again is
    /// asked no more.
    pub fn open_patiently(&self, patience: Duration) -> Shared {
        Arc::new(GivingUp::new(Arc::new(Deadline::each(self.open(), patience))))
    }
}

impl Location {
    /// Reads a URL or an absolute path. The error says what would be right.
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_once("://") {
            // "file://localhost/path" is the same by RFC 8089.
            Some(("file", path)) => directory(text, path.strip_prefix("localhost").unwrap_or(path)),
            Some(("s3", path)) => bucket(text, path),
            Some((scheme, _)) => Err(invalid(format!("\"{text}\": unknown scheme \"{scheme}\"")).hint(FORMS)),
            None => directory(text, text),
        }
    }
}

const FORMS: &str = "an archive is \"/directory\", \"file:///directory\" or \"s3://bucket/prefix\"";

fn invalid(what: String) -> Error {
    Error::new(Kind::Invalid, what)
}

fn directory(text: &str, path: &str) -> Result<Location> {
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err(invalid(format!("\"{text}\" is not an absolute path"))
            .hint("a relative one would mean another place for each program; write it in full"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(invalid(format!("\"{text}\" contains \"..\"")).hint("write the path in full"));
    }
    // Without repeated or trailing slashes: one place has one name.
    Ok(Location::Directory(path.components().collect()))
}

fn bucket(text: &str, path: &str) -> Result<Location> {
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    let prefix = prefix.trim_matches('/');
    if bucket.is_empty() || bucket.contains(char::is_whitespace) {
        return Err(invalid(format!("\"{text}\" names no bucket")).hint(FORMS));
    }
    if !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(invalid(format!("\"{text}\" has an empty, \".\" or \"..\" part"))
            .hint("write the prefix in full"));
    }
    Ok(Location::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.location.fmt(f)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Directory(path) => path.display().fmt(f),
            Location::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Location::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_named_by_a_path_or_a_url() {
        let directory = |text: &str| Location::parse(text).unwrap().to_string();
        assert_eq!(directory("/mnt/archive"), "/mnt/archive");
        assert_eq!(directory("/mnt//archive/"), "/mnt/archive");
        assert_eq!(directory("file:///mnt/archive"), "/mnt/archive");
        assert_eq!(directory("file://localhost/mnt/archive"), "/mnt/archive");
    }

    #[test]
    fn a_bucket_is_named_by_a_url() {
        let s3 = |bucket: &str, prefix: &str| {
            Ok(Location::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
        };
        assert_eq!(Location::parse("s3://bucket").map_err(drop), s3("bucket", ""));
        assert_eq!(Location::parse("s3://bucket/").map_err(drop), s3("bucket", ""));
        assert_eq!(Location::parse("s3://bucket/a/b/").map_err(drop), s3("bucket", "a/b"));
        assert_eq!(Location::parse("s3://bucket/a/b/").unwrap().to_string(), "s3://bucket/a/b");
    }

    #[test]
    fn what_could_mean_another_place_is_refused() {
        for bad in [
            "",
            "archive",
            "./archive",
            "file://archive",
            "/mnt/../archive",
            "ftp://x/y",
            "s3://",
            "s3:///prefix",
            "s3://b/a//b",
            "s3://b/../c",
        ] {
            assert_eq!(Location::parse(bad).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
        }
    }
}
