//! From what a person writes to a storage: `/path`, `file:///path`.

use super::local::Local;
use super::{Error, Kind, Result, Shared};
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Where a destination is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// An absolute directory.
    Directory(PathBuf),
}

impl Location {
    /// Reads a URL or an absolute path. The error says what would be right.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |what: String, hint: &str| Err(Error::new(Kind::Invalid, what).hint(hint));
        let path = match text.split_once("://") {
            // "file://localhost/path" is the same by RFC 8089.
            Some(("file", path)) => path.strip_prefix("localhost").unwrap_or(path),
            Some(("s3", _)) => {
                return invalid(format!("\"{text}\": this version does not write to S3"), "name a directory");
            }
            Some((scheme, _)) => {
                return invalid(
                    format!("\"{text}\": unknown scheme \"{scheme}\""),
                    "an archive is \"/directory\" or \"file:///directory\"",
                );
            }
            None => text,
        };
        let path = Path::new(path);
        if !path.is_absolute() {
            return invalid(
                format!("\"{text}\" is not an absolute path"),
                "a relative one would mean another place for each program; write it in full",
            );
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return invalid(format!("\"{text}\" contains \"..\""), "write the path in full");
        }
        // Without repeated or trailing slashes: one place has one name.
        Ok(Location::Directory(path.components().collect()))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Directory(path) => path.display().fmt(f),
        }
    }
}

/// Prepares the storage; nothing is asked of it yet.
pub fn open(location: &Location) -> Shared {
    match location {
        Location::Directory(path) => Arc::new(Local::new(path.clone())),
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
    fn what_could_mean_another_place_is_refused() {
        for bad in
            ["", "archive", "./archive", "file://archive", "/mnt/../archive", "ftp://x/y", "s3://bucket"]
        {
            assert_eq!(Location::parse(bad).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
        }
    }
}
