//! What was removed from an archive on purpose, by the records that `wal-archive expire` left.

use super::{Gap, Inventory, Runs, Unreadable};
use crate::object::key::EXPIRED_FOLDER;
use crate::object::{Expired, Key};
use crate::storage::{Error, Kind, Range, Result, Storage, hides_what_is_missing};
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
        Err(error) if hides_what_is_missing(storage, &error) => {
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

/// What is not there between the first and the last segment of a timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Nobody removed it on purpose.
    pub lost: Vec<Gap>,
    /// `wal-archive expire` removed it.
    pub expired: Vec<Gap>,
}

impl Inventory {
    /// Reads every record, once it is known what is there. One that cannot be read is kept as such: what it names looks lost then.
    pub(super) fn read_expired(&mut self, storage: &dyn Storage) -> Result<()> {
        for key in records(storage)? {
            let unreadable = |damaged, reason| Unreadable {
                key: key.to_string(),
                damaged,
                shut: false,
                conflict: false,
                reason,
            };
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

    /// What is gone is deleted in the order of the names: behind one that is still there nothing was, as where
    /// the run failed, or where a copy brought the record of another destination.
    fn insert_expired(&mut self, first: SegmentName, last: SegmentName) {
        let Some((from, to)) = self.number(first).zip(self.number(last)) else { return };
        let files = self.timelines.get(&first.timeline());
        let there = files.and_then(|files| files.segments.within(from, to).next());
        let end = there.map_or(to.saturating_add(1), |(there, _)| there);
        if from < end {
            self.expired.entry(first.timeline()).or_default().insert_range(from, end - 1);
        }
    }

    /// What is not there of a timeline between its first and its last segment. Nothing where the segment
    /// size is not known.
    pub fn gaps_of(&self, timeline: Timeline) -> Gaps {
        let (Some(files), Some(_)) = (self.timelines.get(&timeline), self.segment_size) else {
            return Gaps::default();
        };
        let nothing = Runs::default();
        let removed = self.expired.get(&timeline).unwrap_or(&nothing);
        let gap = |(first, last)| Gap { timeline, first, last };
        let mut gaps = Gaps::default();
        for (first, last) in files.segments.gaps() {
            let lost = removed.missing(first, last);
            let mut open = Runs::default();
            lost.iter().for_each(|(first, last)| open.insert_range(*first, *last));
            gaps.lost.extend(lost.into_iter().map(gap));
            gaps.expired.extend(open.missing(first, last).into_iter().map(gap));
        }
        gaps
    }

    /// Whether a segment was removed on purpose.
    pub fn is_expired(&self, timeline: Timeline, number: u64) -> bool {
        self.expired.get(&timeline).is_some_and(|runs| runs.contains(number))
    }
}
