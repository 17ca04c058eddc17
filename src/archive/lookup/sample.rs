//! Some of the WAL files of a place, to learn whose they are and who stored them.
//!
//! A few files tell. A directory may hold a million, so they are taken in whatever order they come.

use super::folders;
use crate::object::key::WAL_FOLDER;
use crate::object::{Encoding, Key, Stored};
use crate::storage::{Result, Storage};

/// What was listed until there was enough.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Files that can be read, whole segments before others.
    pub keys: Vec<Key>,
    /// The key of the first WAL file, whether it can be read or not; `None` where there is none.
    pub example: Option<String>,
    /// The key of one that is not encrypted, and of one that is.
    pub plain: Option<String>,
    pub encrypted: Option<String>,
    /// Whether one of them was stored by another tool, by its key.
    pub foreign: bool,
    /// Whether there are more than were listed.
    pub more: bool,
}

/// How far a [`sample`] goes.
#[derive(Clone, Copy)]
pub struct Limit {
    /// Segments to be found, and other files kept in their stead: some may be damaged.
    pub files: usize,
    /// Keys to be listed where there is one WAL file.
    pub keys: usize,
}

/// Lists until enough segments were seen. `plain`: directly under the prefix, too.
pub fn sample(storage: &dyn Storage, plain: bool, limit: Limit) -> Result<Sample> {
    let (mut found, mut others) = (Sample::default(), Vec::new());
    'all: for folder in folders(plain) {
        for (number, entry) in storage.list_unordered(folder)?.enumerate() {
            let entry = entry?;
            let stored = Stored::parse(entry.key.strip_prefix(folder).unwrap_or(&entry.key));
            let is_wal = stored.name().is_some();
            if found.example.is_some() && (number >= limit.keys || is_wal && found.keys.len() >= limit.files)
            {
                found.more = true;
                break 'all;
            }
            if !is_wal {
                continue;
            }
            // This program puts nothing else there, and nothing elsewhere.
            found.foreign |= !is_ours(&stored) || *folder != WAL_FOLDER;
            found.example.get_or_insert_with(|| entry.key.clone());
            let is_encrypted = stored.encoding() == Some(Encoding::Age);
            let seen = if is_encrypted { &mut found.encrypted } else { &mut found.plain };
            seen.get_or_insert_with(|| entry.key.clone());
            let kept = match &stored {
                Stored::Wal(name, _) if name.is_pages() => &mut found.keys,
                Stored::Wal(..) | Stored::Variant(..) => &mut others,
                Stored::Unknown(..) | Stored::Stranger => continue,
            };
            if kept.len() < limit.files {
                kept.extend(Key::parse(&entry.key));
            }
        }
    }
    found.keys.append(&mut others);
    Ok(found)
}

/// Whether this program may have stored it, by its key.
pub fn is_ours(stored: &Stored) -> bool {
    matches!(stored.encoding(), Some(Encoding::Zstd | Encoding::Age))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Body;
    use crate::storage::memory::Memory;

    const LIMIT: Limit = Limit { files: 2, keys: 5 };

    fn sample_of(keys: &[&str]) -> Sample {
        let memory = Memory::default();
        for key in keys {
            memory.create(&Key::parse(key).unwrap(), &Body::from(b"x".to_vec())).unwrap();
        }
        sample(&memory, true, LIMIT).unwrap()
    }

    #[test]
    fn segments_come_before_what_tells_less_and_end_the_sample() {
        let history = "wal_005/00000002.history.zst";
        let segments = [1, 2, 3].map(|number| format!("wal_005/00000002000000000000000{number}.zst"));
        let [a, b, c] = segments.each_ref().map(String::as_str);
        let found = sample_of(&[history, a]);
        assert_eq!(found.keys.iter().map(Key::as_str).collect::<Vec<_>>(), [a, history]);
        assert!(!found.more && !found.foreign);
        let found = sample_of(&[a, b, c, history]);
        let (first, others) = found.keys.split_at(LIMIT.files);
        assert!(first.iter().all(|key| segments.contains(&key.to_string())), "{first:?}");
        assert!(others.iter().all(|key| key.as_str() == history), "{others:?}");
        assert!(found.more && !found.foreign);
    }

    #[test]
    fn what_cannot_be_read_ends_the_sample_too() {
        let keys: Vec<_> = (0..9).map(|n| format!("wal_005/00000001000000000000000{n}.gpg")).collect();
        let found = sample_of(&keys.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(found.keys.is_empty() && found.example.is_some_and(|example| keys.contains(&example)));
        assert!(found.more && found.foreign);
        assert_eq!(sample_of(&["archive.json", "wal_005/README", "quarantine/x"]), Sample::default());
    }
}
