//! What listings show around a name: what shows that the file existed, the timelines after its
//! own, and whether there is any WAL at all.

use super::{Copies, Limit, folders, sample};
use crate::archive::absent::shows;
use crate::archive::object::{Opener, SHUT_HINT, Verdict};
use crate::object::{Checks, Key, Stored};
use crate::storage::{Entry, Error, Kind, Result, Storage};
use crate::wal::{Timeline, TimelineHistory, WalName};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// What is looked at to learn whose WAL files there are: no more keys than a page of a bucket's listing.
pub const SAMPLE: Limit = Limit { files: 4, keys: 1000 };

/// What stands around a name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// The objects of the name.
    pub copies: Copies,
    /// The lowest-addressed file that shows that the one of the name existed.
    pub later: Option<Later>,
    /// The timelines after that of a segment; of directories only, where a listing is no request.
    pub timelines: Vec<Relative>,
    /// Some of the WAL files that were seen and can be read.
    pub samples: Vec<Key>,
    /// Whether any WAL file was seen.
    pub holds_wal: bool,
}

/// A file, and when it was stored by the store's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later {
    pub name: WalName,
    pub stored: SystemTime,
}

/// A timeline by its files at one destination.
#[derive(Debug, PartialEq, Eq)]
pub struct Relative {
    pub timeline: Timeline,
    /// Its history, and when that was stored.
    pub history: Option<(TimelineHistory, SystemTime)>,
    /// The key of a history that cannot be read: damaged, or in an unknown encoding.
    pub unread: Option<String>,
    /// The first of its other files.
    pub other: Option<WalName>,
}

/// Lists what stands under a name and around it. `plain`: directly under the prefix, too.
pub fn around(storage: &dyn Storage, name: WalName, plain: bool) -> Result<Around> {
    let mut around = Around::default();
    for folder in folders(plain) {
        around.list(storage, name, folder)?;
    }
    if let WalName::Segment(segment) = name
        && storage.nature().is_directory()
    {
        around.timelines = later_timelines(storage, segment.timeline(), plain)?;
        around.holds_wal |= !around.timelines.is_empty();
    }
    if !around.holds_wal {
        let sample = sample(storage, plain, SAMPLE)?;
        (around.samples, around.holds_wal) = (sample.keys, sample.example.is_some());
    }
    Key::sort(name, &mut around.copies.keys);
    Ok(around)
}

impl Around {
    /// From the name on, to the first file after it.
    fn list(&mut self, storage: &dyn Storage, name: WalName, folder: &str) -> Result<()> {
        let text = name.to_string();
        // By the timeline's prefix: logs end at different segments. And from a little before the name
        // on, so that the bare file is seen.
        let (prefix, after) = match name {
            WalName::Segment(_) => (text.get(..8), text.get(..23)),
            WalName::TimelineHistory(_) => (text.get(..8), None),
            _ => (Some(text.as_str()), None),
        };
        let after = after.map(|start| format!("{folder}{start}")).unwrap_or_default();
        for entry in storage.list(&format!("{folder}{}", prefix.unwrap_or_default()), &after)? {
            let entry = entry?;
            let Some(other) = self.see(folder, &entry) else { continue };
            if self.copies.note(name, folder, &entry.key) || !shows(other, name) {
                continue;
            }
            let later = Later { name: other, stored: entry.modified };
            if self
                .later
                .is_none_or(|known| (other.segment(), later.stored) < (known.name.segment(), known.stored))
            {
                self.later = Some(later);
            }
            // A backup's history stands before the other objects of the very name.
            if other.segment() != name.segment() {
                break;
            }
        }
        Ok(())
    }

    /// The WAL file that an entry is.
    fn see(&mut self, folder: &str, entry: &Entry) -> Option<WalName> {
        let stored = Stored::parse(entry.key.strip_prefix(folder).unwrap_or(&entry.key));
        let name = stored.name()?;
        self.holds_wal = true;
        if !matches!(stored, Stored::Unknown(..)) && self.samples.len() < SAMPLE.files {
            self.samples.extend(Key::parse(&entry.key));
        }
        Some(name)
    }
}

/// The timelines with a higher id that have files here, in their order. Reads their histories, and
/// leaps over their segments: one listing for each timeline.
pub fn later_timelines(storage: &dyn Storage, than: Timeline, plain: bool) -> Result<Vec<Relative>> {
    let mut found: BTreeMap<Timeline, Relative> = BTreeMap::new();
    for folder in folders(plain) {
        // "~" sorts after everything that a WAL file's name can go on with.
        let mut last = Some(than);
        while let Some(before) = last.take() {
            for entry in storage.list(folder, &format!("{folder}{:08X}~", before.get()))? {
                let entry = entry?;
                let stored = Stored::parse(entry.key.strip_prefix(*folder).unwrap_or(&entry.key));
                let Some(name) = stored.name() else { continue };
                let timeline = name.timeline();
                let relative = found.entry(timeline).or_insert(Relative {
                    timeline,
                    history: None,
                    unread: None,
                    other: None,
                });
                if name.segment().is_some() {
                    relative.other.get_or_insert(name);
                    last = Some(timeline);
                    break;
                }
                relative.take_history(storage, stored, &entry)?;
            }
        }
    }
    Ok(found.into_values().collect())
}

impl Relative {
    /// The first copy that can be read.
    fn take_history(&mut self, storage: &dyn Storage, stored: Stored, entry: &Entry) -> Result<()> {
        if self.history.is_some() {
            return Ok(());
        }
        let mut text = Vec::new();
        let readable = match (stored, Key::parse(&entry.key)) {
            (Stored::Wal(..), Some(key)) => {
                let opened = Opener::of_any_cluster(Checks::Header).open(storage, &key, &mut text)?;
                match opened.map(|opened| opened.verdict) {
                    // It may show that a file existed, so nothing is concluded without it.
                    Some(shut @ Verdict::Shut(_)) => {
                        let what = format!("\"{}/{key}\" is {shut}", storage.place());
                        return Err(Error::new(Kind::Denied, what).hint(SHUT_HINT));
                    }
                    other => matches!(other, Some(Verdict::Intact(_))),
                }
            }
            _ => false,
        };
        match TimelineHistory::parse(self.timeline, &text) {
            Ok(history) if readable => self.history = Some((history, entry.modified)),
            _ => self.unread = Some(entry.key.clone()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Body;
    use crate::storage::memory::Memory;

    const NAME: &str = "0000000100000003000000FF";

    fn stored(keys: &[&str]) -> Memory {
        let memory = Memory::default();
        for key in keys {
            memory.create(&Key::parse(key).unwrap(), &Body::from(b"x".to_vec())).unwrap();
        }
        memory
    }

    fn later(name: &str, keys: &[&str]) -> Option<String> {
        let seen = around(&stored(keys), name.parse().unwrap(), true).unwrap();
        seen.later.map(|later| later.name.to_string())
    }

    #[test]
    fn whatever_is_later_of_the_timeline_shows_that_a_segment_existed() {
        for (key, name) in [
            ("wal_005/000000010000000400000000.zst", "000000010000000400000000"), // the next log
            ("wal_005/000000010000000400000000.gz", "000000010000000400000000"),
            ("000000010000000400000001", "000000010000000400000001"),
            ("wal_005/000000010000000400000000.gpg", "000000010000000400000000"),
            ("wal_005/000000010000000400000000.partial.zst", "000000010000000400000000.partial"),
            ("wal_005/000000010000000400000000.e3b0c44298fc1c14.zst", "000000010000000400000000"),
            (
                "wal_005/000000010000000400000000.partial.e3b0c44298fc1c14.zst",
                "000000010000000400000000.partial",
            ),
            (
                "wal_005/000000010000000400000000.00000028.backup.zst",
                "000000010000000400000000.00000028.backup",
            ),
            // A backup began in it and was finished.
            (
                "wal_005/0000000100000003000000FF.00000028.backup.zst",
                "0000000100000003000000FF.00000028.backup",
            ),
        ] {
            assert_eq!(later(NAME, &[key]).as_deref(), Some(name), "{key}");
        }
    }

    #[test]
    fn what_is_earlier_unfinished_or_of_another_timeline_shows_nothing() {
        for key in [
            "wal_005/0000000100000003000000FE.zst",
            "wal_005/0000000100000003000000FF.partial.zst",
            "wal_005/0000000100000003000000FF.e3b0c44298fc1c14.zst",
            "wal_005/0000000100000003000000FF.partial.e3b0c44298fc1c14.zst",
            "wal_005/0000000100000003000000FE.00000028.backup.zst",
            "wal_005/000000020000000400000000.zst",
            "wal_005/00000001.history.zst",
            "wal_005/00000002.history.zst",
            "wal_005/000000010000000400000000.json",
        ] {
            assert_eq!(later(NAME, &[key]), None, "{key}");
        }
    }

    #[test]
    fn any_other_file_of_its_timeline_shows_that_a_history_existed() {
        for key in [
            "wal_005/000000020000000400000000.zst",
            "000000020000000400000000.gpg",
            "wal_005/000000020000000400000000.partial.zst",
            "wal_005/000000020000000400000000.00000028.backup.zst",
            "wal_005/000000020000000400000000.e3b0c44298fc1c14.zst",
        ] {
            assert!(later("00000002.history", &[key]).is_some(), "{key}");
        }
        for key in ["wal_005/000000010000000400000000.zst", "wal_005/00000003.history.zst"] {
            assert_eq!(later("00000002.history", &[key]), None, "{key}");
        }
    }

    #[test]
    fn the_lowest_of_all_folders_is_told_and_every_copy_of_the_name() {
        let keys = [
            "wal_005/0000000100000003000000FF.00000028.backup.zst",
            "wal_005/0000000100000003000000FF.lz4",
            "wal_005/000000010000000400000000.zst",
            "0000000100000003000000FF",
            "000000010000000500000000",
        ];
        let seen = around(&stored(&keys), NAME.parse().unwrap(), true).unwrap();
        assert_eq!(seen.copies.keys.len(), 2);
        assert_eq!(seen.later.unwrap().name.to_string(), "0000000100000003000000FF.00000028.backup");
        assert_eq!(later(NAME, &keys[2..]).as_deref(), Some("000000010000000400000000"));
        assert_eq!(later(NAME, &[keys[4]]).as_deref(), Some("000000010000000500000000"));
    }

    #[test]
    fn any_wal_file_anywhere_shows_an_archive_and_nothing_else_does() {
        let name: WalName = NAME.parse().unwrap();
        for key in [
            "wal_005/00000009.history.zst",
            "000000010000000000000001.gz",
            "wal_005/000000010000000000000001.gpg",
        ] {
            let seen = around(&stored(&[key]), name, true).unwrap();
            assert!(seen.holds_wal, "{key}");
        }
        let seen = around(&stored(&["archive.json", "wal_005/README", "quarantine/x"]), name, true).unwrap();
        assert!(!seen.holds_wal && seen.samples.is_empty());
        let at_root = around(&stored(&["000000010000000000000001"]), name, false).unwrap();
        assert!(!at_root.holds_wal, "not looked at");
    }

    #[test]
    fn later_timelines_are_told_with_their_histories_whatever_stands_between() {
        let memory = stored(&[
            "wal_005/000000010000000400000000.zst",
            "wal_005/00000002.history.gpg",
            "wal_005/000000030000000400000000.zst",
            "wal_005/000000030000000400000001.zst",
            "wal_005/zzz",
            "0000000A.history",
        ]);
        let history = b"1\t0/3000000\tx\n".to_vec();
        memory.create(&Key::parse("wal_005/00000009.history").unwrap(), &Body::from(history)).unwrap();
        let found = later_timelines(&memory, Timeline::FIRST, true).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|one| (one.timeline.get(), one.history.is_some(), one.unread.is_some(), one.other.is_some()))
            .collect();
        assert_eq!(
            told,
            [
                (2, false, true, false),
                (3, false, false, true),
                (9, true, false, false),
                (10, false, true, false)
            ]
        );
        assert!(later_timelines(&memory, Timeline::new(10).unwrap(), true).unwrap().is_empty());
    }
}
