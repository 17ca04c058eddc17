//! Which timeline histories are durable at which destination.
//!
//! Believed only to say that nothing is to be asked. What a directory shows of the object must still
//! be the same; of a bucket the word counts for a day.

use super::{FRESH, Spool, age, read};
use crate::host::durable;
use crate::host::stamp::Stamp;
use crate::object::{Key, Sha256Sum};
use crate::storage::Storage;
use crate::wal::{SystemId, Timeline};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    place: String,
    system_id: String,
    timeline: u32,
    sha256: String,
    key: String,
    shown: Option<Stamp>,
    /// Since the epoch.
    seen: Duration,
}

impl Spool {
    /// Whether the history of this timeline is durable there, with this content where one is given.
    pub fn has_history(
        &self,
        storage: &dyn Storage,
        system_id: SystemId,
        timeline: Timeline,
        sha256: Option<&Sha256Sum>,
        now: SystemTime,
    ) -> bool {
        let place = storage.address();
        let Ok(content) = read(&self.history(&place, system_id, timeline)) else { return false };
        let Ok(found) = serde_json::from_slice::<Remembered>(&content) else { return false };
        let same = found.place == place
            && found.system_id == system_id.to_string()
            && found.timeline == timeline.get()
            && sha256.is_none_or(|sha256| found.sha256 == sha256.to_string())
            && age(found.seen, now).is_some_and(|age| age < FRESH);
        let Some(key) = Key::parse(&found.key).filter(|_| same) else { return false };
        storage.fingerprint(&key).is_ok_and(|shown| shown == found.shown)
    }

    /// Remembers that it is durable there under this key.
    pub fn remember_history(
        &self,
        storage: &dyn Storage,
        system_id: SystemId,
        timeline: Timeline,
        object: (&Key, &Sha256Sum),
        now: SystemTime,
    ) -> io::Result<()> {
        let (key, sha256) = object;
        let remembered = Remembered {
            place: storage.address(),
            system_id: system_id.to_string(),
            timeline: timeline.get(),
            sha256: sha256.to_string(),
            key: key.to_string(),
            shown: storage.fingerprint(key).map_err(io::Error::other)?,
            seen: now.duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?,
        };
        let path = self.history(&remembered.place, system_id, timeline);
        durable::replace_cached(&path, &serde_json::to_vec(&remembered)?)
    }

    fn history(&self, place: &str, system_id: SystemId, timeline: Timeline) -> PathBuf {
        let key = Sha256Sum::of(format!("{system_id}\n{timeline}\n{place}").as_bytes());
        self.folder.join(format!("history-{}.json", key.short()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Encryption;
    use crate::storage::Body;
    use crate::storage::local::Local;
    use crate::storage::memory::Memory;
    use crate::wal::WalName;
    use std::fs;

    const ID: SystemId = SystemId(7);

    fn two() -> Timeline {
        Timeline::new(2).unwrap()
    }

    #[test]
    fn a_history_is_remembered_by_destination_timeline_and_content_for_a_day() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path().join("spool")).unwrap();
        let (memory, now) = (Memory::default(), SystemTime::now());
        let (key, sum) = (Key::of(WalName::TimelineHistory(two()), Encryption::None), Sha256Sum::of(b"x"));
        assert!(!spool.has_history(&memory, ID, two(), None, now));
        spool.remember_history(&memory, ID, two(), (&key, &sum), now).unwrap();
        assert!(spool.has_history(&memory, ID, two(), None, now));
        assert!(spool.has_history(&memory, ID, two(), Some(&sum), now + FRESH / 2));
        assert!(!spool.has_history(&memory, ID, two(), Some(&sum), now + FRESH));
        assert!(!spool.has_history(&memory, ID, two(), Some(&sum), now - Duration::from_secs(1)));
        assert!(!spool.has_history(&memory, ID, two(), Some(&Sha256Sum::of(b"y")), now));
        assert!(!spool.has_history(&memory, SystemId(8), two(), None, now));
        assert!(!spool.has_history(&memory, ID, Timeline::new(3).unwrap(), None, now));
        // A time that no clock shows.
        let path = spool.history(&memory.address(), ID, two());
        let mut found: Remembered = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        found.seen = Duration::MAX;
        fs::write(&path, serde_json::to_vec(&found).unwrap()).unwrap();
        assert!(!spool.has_history(&memory, ID, two(), None, now));
        let elsewhere = Local::new(base.path().to_owned());
        assert!(!spool.has_history(&elsewhere, ID, two(), None, now));
    }

    #[test]
    fn a_directory_that_lost_the_history_is_not_believed_to_have_it() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path().join("spool")).unwrap();
        let (local, now) = (Local::new(base.path().to_owned()), SystemTime::now());
        let (key, sum) = (Key::of(WalName::TimelineHistory(two()), Encryption::None), Sha256Sum::of(b"x"));
        assert!(spool.remember_history(&local, ID, two(), (&key, &sum), now).is_err());
        local.create(&key, &Body::from(b"x".to_vec())).unwrap();
        spool.remember_history(&local, ID, two(), (&key, &sum), now).unwrap();
        assert!(spool.has_history(&local, ID, two(), Some(&sum), now));
        local.delete(&key).unwrap();
        assert!(!spool.has_history(&local, ID, two(), Some(&sum), now));
    }
}
