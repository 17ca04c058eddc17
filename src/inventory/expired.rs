//! What was removed from an archive on purpose, by the records that `wal-archive expire` left.

use super::{Inventory, Runs, Unreadable};
use crate::object::key::EXPIRED_FOLDER;
use crate::object::{Expired, Key};
use crate::storage::{Error, Kind, Range, Result, Storage};
use crate::wal::{SegmentName, Timeline};
use std::io::Read;

/// The keys of all records, oldest first.
pub fn records(storage: &dyn Storage) -> Result<Vec<Key>> {
    let listed = storage.list(EXPIRED_FOLDER, "").and_then(|entries| {
        let keys = entries.map(|entry| Ok(Key::parse(&entry?.key)));
        Ok(keys.collect::<Result<Vec<_>>>()?.into_iter().flatten())
    });
    match listed {
        Ok(keys) => Ok(keys.filter(|key| key.as_str().ends_with(".json")).collect()),
        // A policy may allow no more than the folder of the WAL.
        Err(error) if error.kind() == Kind::Denied && !storage.can_vanish() => {
            log::debug!("whether WAL was expired between backups cannot be seen: {error}");
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// The content of a record as it is stored; `None` where it is gone again.
pub fn record(storage: &dyn Storage, key: &Key) -> Result<Option<Vec<u8>>> {
    let object = match storage.get(key, Range::Whole) {
        Ok(object) => object,
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let read = object.body.take(Expired::MAX_LEN).read_to_end(&mut bytes);
    read.map_err(|error| Error::of_io(error, storage.place()))?;
    Ok(Some(bytes))
}

impl Inventory {
    /// Reads every record. One that cannot be read is kept as such: what it names looks lost then.
    pub(super) fn read_expired(&mut self, storage: &dyn Storage) -> Result<()> {
        for key in records(storage)? {
            let unreadable = |damaged, reason| Unreadable { key: key.to_string(), damaged, reason };
            match record(storage, &key).map(|bytes| bytes.map(|bytes| Expired::read(&bytes))) {
                Ok(None) => {}
                Ok(Some(Ok(record))) => {
                    for (first, last) in record.ranges {
                        self.insert_expired(first, last);
                    }
                }
                Ok(Some(Err(reason))) => self.unreadable_records.push(unreadable(true, reason)),
                Err(error) => self.unreadable_records.push(unreadable(false, error.to_string())),
            }
        }
        Ok(())
    }

    fn insert_expired(&mut self, first: SegmentName, last: SegmentName) {
        if let Some((from, to)) = self.number(first).zip(self.number(last)) {
            self.expired.entry(first.timeline()).or_default().insert_range(from, to);
        }
    }

    /// The gaps of a timeline between its first and its last segment: what is not there although
    /// nobody removed it, and what `wal-archive expire` removed.
    pub fn gaps_of(&self, timeline: Timeline) -> (Vec<(u64, u64)>, Vec<(u64, u64)>) {
        let nothing = Runs::default();
        let expired = self.expired.get(&timeline).unwrap_or(&nothing);
        let gaps: Vec<_> =
            self.timelines.get(&timeline).into_iter().flat_map(|f| f.segments.gaps()).collect();
        let lost: Vec<_> = gaps.iter().flat_map(|(first, last)| expired.missing(*first, *last)).collect();
        let mut open = Runs::default();
        lost.iter().for_each(|(first, last)| open.insert_range(*first, *last));
        let removed = gaps.iter().flat_map(|(first, last)| open.missing(*first, *last)).collect();
        (lost, removed)
    }

    /// Whether a segment was removed on purpose.
    pub fn is_expired(&self, timeline: Timeline, number: u64) -> bool {
        self.expired.get(&timeline).is_some_and(|runs| runs.contains(number))
    }
}
