//! That private keys decrypted an object of a destination not long ago. A cache: losing it costs a request.

use super::{FRESH, Spool, age, read};
use crate::host::durable;
use crate::object::Sha256Sum;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

impl Spool {
    /// Whether the keys with this sum decrypted an object there.
    pub fn has_opened(&self, place: &str, keys: &Sha256Sum, now: SystemTime) -> bool {
        let text = read(&self.opened(place, keys)).unwrap_or_default();
        let seconds = std::str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok());
        seconds.and_then(|seconds| age(Duration::from_secs(seconds), now)).is_some_and(|age| age < FRESH)
    }

    /// Remembers that they did.
    pub fn note_opened(&self, place: &str, keys: &Sha256Sum, now: SystemTime) -> io::Result<()> {
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
        let text = format!("{}\n", since_epoch.as_secs());
        durable::replace_cached(&self.opened(place, keys), text.as_bytes())
    }

    fn opened(&self, place: &str, keys: &Sha256Sum) -> PathBuf {
        let key = Sha256Sum::of(format!("{keys}\n{place}").as_bytes());
        self.folder.join(format!("opened-{}", key.short()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn that_keys_fit_is_remembered_for_them_and_their_place_for_a_day() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path().join("spool")).unwrap();
        let (keys, others, now) = (Sha256Sum::of(b"a"), Sha256Sum::of(b"b"), SystemTime::now());
        assert!(!spool.has_opened("/a", &keys, now));
        spool.note_opened("/a", &keys, now).unwrap();
        assert!(spool.has_opened("/a", &keys, now + FRESH / 2));
        assert!(!spool.has_opened("/a", &keys, now + FRESH));
        assert!(!spool.has_opened("/a", &keys, now - Duration::from_secs(60)), "the clock went back");
        assert!(!spool.has_opened("/a", &others, now) && !spool.has_opened("/b", &keys, now));
        fs::write(spool.opened("/a", &keys), u64::MAX.to_string()).unwrap();
        assert!(!spool.has_opened("/a", &keys, now), "a time that there cannot be");
        fs::write(spool.opened("/a", &keys), "junk").unwrap();
        assert!(!spool.has_opened("/a", &keys, now));
    }
}
