//! One object moved aside: the way out where a damaged object holds a name.
//!
//! The object is copied to [`Key::quarantine`] (create-only), the copy is read back, and only then
//! is the original deleted. Interrupted at any point, the repeat finishes: before the deletion the
//! object stands under both keys, after it under the new one. The key of the copy is made of the
//! sum of the stored bytes, so that two different objects of one name never meet.
//!
//! No store offers "delete this very object", so the original is read once more right before it
//! is deleted: whoever replaced it meanwhile is not deleted by mistake, but for a moment that is as
//! long as one request.
//!
//! A push may believe its own mark for ten minutes without a look at a bucket, so nothing that was
//! stored in a bucket a moment ago may go: [`young_since`].

mod aside;
mod timeline;

pub use aside::{Aside, held, is_replaced};
pub use timeline::{needs_of_timeline, of_timeline};

use crate::archive::lookup;
use crate::archive::object::{Kept, Opener, stored_bytes};
use crate::object::key::QUARANTINE_FOLDER;
use crate::object::{Key, Sha256Sum, Stored};
use crate::storage::{Error, Kind, Result, Storage};
use crate::wal::WalName;
use std::io;
use std::time::{Duration, SystemTime};

/// How long an object in a bucket is left alone: longer than a mark counts (`spool::marks`).
const YOUNG: Duration = Duration::from_secs(15 * 60);

/// Since when, by the store's clock, an object was stored that is too young to go: a push may still
/// say 0 for it by a mark. `None` of a directory, which every mark is checked against.
pub fn young_since(storage: &dyn Storage) -> Result<Option<SystemTime>> {
    match storage.nature().is_directory() {
        true => Ok(None),
        false => storage.clock().map(|now| Some(now.checked_sub(YOUNG).unwrap_or(SystemTime::UNIX_EPOCH))),
    }
}

/// What is to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Whatever stands under this name and is damaged.
    Name(WalName),
    /// The object under this key, which belongs to this name: a variant, or another tool's.
    Key(Key, WalName),
}

impl Subject {
    /// Reads the name of a WAL file, or the key of an object of one. `None` for a stranger: those
    /// are never touched.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(name) = text.parse() {
            return Some(Subject::Name(name));
        }
        let key = Key::parse(text)?;
        let name = Stored::of(&key).name()?;
        Some(Subject::Key(key, name))
    }

    pub fn name(&self) -> WalName {
        match self {
            Subject::Name(name) | Subject::Key(_, name) => *name,
        }
    }
}

/// The objects that a subject means at a destination, each judged.
pub fn find(storage: &dyn Storage, subject: &Subject, opener: &Opener) -> Result<Vec<Kept>> {
    let keys = match subject {
        Subject::Key(key, _) => vec![key.clone()],
        Subject::Name(name) => {
            let around = lookup::copies(storage, *name, true)?;
            let unknown = around.unknown.as_deref().and_then(Key::parse);
            around.keys.into_iter().chain(unknown).collect()
        }
    };
    let found = keys.iter().map(|key| opener.keep(storage, key, &mut io::sink()));
    Ok(found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// What of a name was moved aside before.
pub fn moved_before(storage: &dyn Storage, name: WalName) -> Result<Vec<String>> {
    let entries = storage.list(&format!("{QUARANTINE_FOLDER}{name}."), "")?;
    let keys = entries.map(|entry| entry.map(|entry| entry.key)).collect::<Result<Vec<_>>>()?;
    // "NAME." also begins the keys of NAME.partial and of NAME's backup history files.
    let own = |key: &String| {
        let sum = key.rsplit_once('.').map(|(stem, _)| stem == format!("{QUARANTINE_FOLDER}{name}"));
        sum.unwrap_or(false)
    };
    Ok(keys.into_iter().filter(own).collect())
}

/// Moves an object aside; its new key. A young one goes only with `force`.
pub fn set_aside(storage: &dyn Storage, found: &Kept, name: WalName, force: bool) -> Result<Key> {
    if !force && young_since(storage)?.is_some_and(|since| found.modified > since) {
        return Err(too_young(storage, &found.key));
    }
    let sum = |body: &crate::storage::Body| {
        let sum = Sha256Sum::of_reader(&mut body.reader());
        sum.map_err(|error| Error::new(Kind::Unavailable, "cannot read a temporary file").caused_by(error))
    };
    let stored = sum(&found.body)?;
    let to = Key::quarantine(name, &stored);
    match storage.create(&to, &found.body) {
        Ok(()) => {}
        // An interrupted run made it, and may have died before it was durable.
        Err(error) if error.kind() == Kind::AlreadyExists => storage.make_durable(&to)?,
        Err(error) => return Err(error),
    }
    let copied = stored_bytes(storage, &to)?.map(|(_, body)| sum(&body)).transpose()?;
    if copied != Some(stored) {
        let what = format!("\"{}/{to}\" is not the copy it should be; nothing was deleted", storage.place());
        return Err(Error::new(Kind::Damaged, what).hint("look at it, move it away and repeat"));
    }
    match stored_bytes(storage, &found.key)? {
        None => {} // somebody else was faster
        Some((_, now)) if sum(&now)? == stored => storage.delete(&found.key)?,
        Some(_) => {
            let what = format!("\"{}/{}\" is another object by now", storage.place(), found.key);
            return Err(Error::new(Kind::Invalid, what).hint("nothing was deleted; look again"));
        }
    }
    Ok(to)
}

fn too_young(storage: &dyn Storage, key: &Key) -> Error {
    let what = format!(
        "\"{}/{key}\" was stored less than 15 minutes ago, and a wal-push may not look at it again before it answers 0",
        storage.place()
    );
    Error::new(Kind::Invalid, what).hint(
        "repeat it in 15 minutes; \"wal-archive quarantine --force\" moves it at once, which is safe where no server \
         archives to this place meanwhile",
    )
}

/// Whether moving these and no others is what was asked for: the damaged ones, or with `force` the
/// one that is there.
pub fn chosen(found: &[Kept], force: bool) -> Vec<&Kept> {
    if force && let [only] = found {
        return vec![only];
    }
    found.iter().filter(|kept| kept.verdict.damage().is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Checks, Encryption};
    use crate::storage::Body;
    use crate::storage::faulty::{Fault, Faulty, Request};
    use crate::storage::memory::Memory;
    use std::sync::Arc;

    const ANY: Opener = Opener { checks: Checks::Header, system_id: None, segment_size: None };

    fn damaged() -> (Arc<Memory>, Subject) {
        let memory = Arc::new(Memory::default());
        let subject = Subject::parse("00000002.history").unwrap();
        memory.create(&Key::of(subject.name(), Encryption::None), &Body::from(b"junk".to_vec())).unwrap();
        memory.advance(YOUNG);
        (memory, subject)
    }

    fn keys(storage: &dyn Storage) -> Vec<String> {
        let list = |prefix| storage.list(prefix, "").unwrap().map(|entry| entry.unwrap().key);
        list("wal_005/").chain(list(QUARANTINE_FOLDER)).collect()
    }

    #[test]
    fn a_subject_is_a_name_or_a_key_of_one_and_never_a_stranger() {
        let name: WalName = "00000002.history".parse().unwrap();
        assert_eq!(Subject::parse("00000002.history"), Some(Subject::Name(name)));
        for key in ["wal_005/00000002.history.gpg", "00000002.history.gz", "wal_005/00000002.history"] {
            assert!(matches!(Subject::parse(key), Some(Subject::Key(_, of)) if of == name), "{key}");
        }
        for stranger in [
            "archive.json",
            "wal-archive-probe",
            "wal_005/notes.txt",
            "basebackups_005/x/00000002.history.zst",
            "quarantine/00000002.history.0123456789abcdef",
            "../00000002.history.zst",
            "",
        ] {
            assert_eq!(Subject::parse(stranger), None, "{stranger:?}");
        }
    }

    #[test]
    fn interrupted_at_any_request_the_repeat_finishes_and_the_bytes_are_never_gone() {
        // Requests of an undisturbed run: create, get, get, delete.
        for interrupted in 0..4 {
            for after in [false, true] {
                let (memory, subject) = damaged();
                let count = std::sync::atomic::AtomicUsize::new(0);
                let plan = move |_: Request, _: &str| match count
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
                    == interrupted
                {
                    true if after => Fault::After(Kind::TimedOut),
                    true => Fault::Before(Kind::TimedOut),
                    false => Fault::None,
                };
                let found = find(memory.as_ref(), &subject, &ANY).unwrap().remove(0);
                let faulty = Faulty::new(memory.clone(), Box::new(plan));
                set_aside(&faulty, &found, subject.name(), false).unwrap_err();
                assert!(!keys(memory.as_ref()).is_empty());
                if let Some(found) = find(memory.as_ref(), &subject, &ANY).unwrap().first() {
                    set_aside(memory.as_ref(), found, subject.name(), false).unwrap();
                }
                let left = keys(memory.as_ref());
                assert_eq!(left, moved_before(memory.as_ref(), subject.name()).unwrap());
                assert_eq!(left.len(), 1, "{left:?}");
            }
        }
    }

    #[test]
    fn an_object_that_was_replaced_meanwhile_is_not_deleted() {
        let (memory, subject) = damaged();
        let own = Key::of(subject.name(), Encryption::None);
        let found = find(memory.as_ref(), &subject, &ANY).unwrap().remove(0);
        memory.delete(&own).unwrap();
        memory.create(&own, &Body::from(b"the good one".to_vec())).unwrap();
        let error = set_aside(memory.as_ref(), &found, subject.name(), false).unwrap_err();
        assert!(error.to_string().contains("another object by now"), "{error}");
        assert!(keys(memory.as_ref()).contains(&own.to_string()));
    }

    #[test]
    fn a_copy_that_is_not_the_same_keeps_the_original() {
        let (memory, subject) = damaged();
        let found = find(memory.as_ref(), &subject, &ANY).unwrap().remove(0);
        let aside = Key::quarantine(subject.name(), &Sha256Sum::of(b"junk"));
        memory.create(&aside, &Body::from(b"other".to_vec())).unwrap();
        let error = set_aside(memory.as_ref(), &found, subject.name(), false).unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged);
        assert!(keys(memory.as_ref()).contains(&found.key.to_string()));
    }

    #[test]
    fn what_a_bucket_got_less_than_15_minutes_ago_goes_only_by_force_and_a_directory_gives_it_at_once() {
        let own = Key::of("00000002.history".parse().unwrap(), Encryption::None);
        let (memory, subject) = damaged();
        let find_one = |storage: &dyn Storage| find(storage, &subject, &ANY).unwrap().remove(0);
        let found = find_one(memory.as_ref());
        memory.delete(&own).unwrap();
        memory.create(&own, &Body::from(b"junk".to_vec())).unwrap();
        let young = find_one(memory.as_ref());
        for time in [Duration::ZERO, YOUNG - Duration::from_secs(60)] {
            memory.advance(time);
            let error = set_aside(memory.as_ref(), &young, subject.name(), false).unwrap_err();
            assert!(error.to_string().contains("15 minutes"), "{error}");
            assert!(error.hint_text().unwrap().contains("--force"));
            assert!(keys(memory.as_ref()).contains(&own.to_string()));
        }
        assert!(found.modified < young.modified);
        set_aside(memory.as_ref(), &young, subject.name(), true).unwrap();

        let root = tempfile::tempdir().unwrap();
        let local = crate::storage::local::Local::new(root.path().to_owned());
        local.create(&own, &Body::from(b"junk".to_vec())).unwrap();
        set_aside(&local, &find_one(&local), subject.name(), false).unwrap();
    }

    #[test]
    fn what_was_moved_before_is_told_by_its_exact_name() {
        let memory = Memory::default();
        let name: WalName = "00000001000000000000001B".parse().unwrap();
        let partial: WalName = "00000001000000000000001B.partial".parse().unwrap();
        for name in [name, partial] {
            memory.create(&Key::quarantine(name, &Sha256Sum::of(b"x")), &Body::from(b"x".to_vec())).unwrap();
        }
        let own = Key::quarantine(name, &Sha256Sum::of(b"x")).to_string();
        assert_eq!(moved_before(&memory, name).unwrap(), [own]);
    }
}
