//! Destinations that did not answer in time, remembered for some minutes and asked last.
//!
//! A hung destination costs each call its share of the time. What is remembered changes the order
//! of asking only, never an answer.

use super::{Spool, age, read};
use crate::host::durable;
use crate::object::Sha256Sum;
use crate::storage::Shared;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long it is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);

impl Spool {
    /// Remembers that a destination did not answer in time.
    pub fn remember_sick(&self, address: &str, now: SystemTime) -> io::Result<()> {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
        durable::replace_cached(&self.sick(address), since.as_secs().to_string().as_bytes())
    }

    /// Whether it did not, a moment ago.
    pub fn is_sick(&self, address: &str, now: SystemTime) -> bool {
        let text = read(&self.sick(address)).ok().and_then(|text| String::from_utf8(text).ok());
        let seconds = text.and_then(|text| text.parse().ok()).map(Duration::from_secs);
        seconds.and_then(|since| age(since, now)).is_some_and(|age| age < REMEMBERED)
    }

    /// The destinations in the order in which to ask them: the sick ones last.
    pub fn healthy_first(&self, destinations: &[Shared], now: SystemTime) -> Vec<Shared> {
        let is_sick = |storage: &&Shared| self.is_sick(&storage.address(), now);
        let (sick, healthy): (Vec<_>, Vec<_>) = destinations.iter().partition(is_sick);
        healthy.into_iter().chain(sick).map(Arc::clone).collect()
    }

    fn sick(&self, address: &str) -> PathBuf {
        self.folder.join(format!("sick-{}", Sha256Sum::of(address.as_bytes()).short()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::local::Local;
    use std::fs;
    use std::path::Path;

    #[test]
    fn a_sick_destination_is_asked_last_for_five_minutes() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path().join("spool")).unwrap();
        let destination = |path: &str| -> Shared { Arc::new(Local::new(Path::new(path).to_owned())) };
        let destinations = ["/a", "/b", "/c"].map(destination);
        let order = |now| {
            let ordered = spool.healthy_first(&destinations, now);
            ordered.iter().map(|storage| storage.place().to_owned()).collect::<Vec<_>>()
        };
        // The memory counts whole seconds.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!(order(now), ["/a", "/b", "/c"]);
        spool.remember_sick("/a", now).unwrap();
        assert_eq!(order(now), ["/b", "/c", "/a"]);
        assert_eq!(order(now + REMEMBERED - Duration::from_secs(1)), ["/b", "/c", "/a"]);
        assert_eq!(order(now + REMEMBERED), ["/a", "/b", "/c"]);
        assert_eq!(order(now - Duration::from_secs(1)), ["/a", "/b", "/c"], "the clock went back");
    }

    #[test]
    fn what_cannot_be_understood_is_no_sickness() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path().join("spool")).unwrap();
        for junk in ["", "x", "-1", "99999999999999999999", "18446744073709551615"] {
            fs::write(spool.sick("/a"), junk).unwrap();
            assert!(!spool.is_sick("/a", SystemTime::now()), "{junk:?}");
        }
    }
}
