//! The last segment of a timeline, in which another one forks: two true files of one name.
//!
//! A cascading standby with `archive_mode = always` archives that segment incomplete under its full
//! name when its upstream is promoted, and what follows the switch point in it is zeros or the rest
//! of a recycled file (PostgreSQL `src/backend/replication/walreceiver.c`, `WalReceiverMain`).
//! Nobody reads it beyond the switch point: recovery takes the child's file of that address
//! (`src/backend/access/transam/timeline.c`, `tliOfPointInHistory`).

use super::failed;
use crate::failure::Failure;
use crate::lookup;
use crate::object::{Checks, Encoding, Key, decode};
use crate::source::{Cause, Rules, Source};
use crate::storage::{Error, Kind, Storage};
use crate::wal::{Lsn, Timeline, TimelineHistory, WalName};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// How many ids above the segment's own are asked for in the archive, until one is not there.
const CHILDREN: u32 = 32;

impl Source {
    /// The switch point up to which this segment and the stored one are the same, where a child
    /// timeline forks in it.
    pub(super) fn agrees_up_to_a_fork(
        &self,
        rules: &Rules<'_>,
        storage: &dyn Storage,
        key: &Key,
        encoding: Encoding,
    ) -> Result<Option<Lsn>, Failure<Cause>> {
        let (WalName::Segment(segment), Some(size)) = (self.name, self.segment_size) else { return Ok(None) };
        let Some(start) = segment.start(size) else { return Ok(None) };
        let mut histories = histories_in(self.path.parent().unwrap_or(Path::new(".")));
        histories.extend(histories_at(storage, segment.timeline()).map_err(|error| failed(&error))?);
        let ancestors = histories.iter().flat_map(|history| &history.ancestors);
        let forks = ancestors.filter(|ancestor| ancestor.timeline == segment.timeline());
        let within = |fork: &Lsn| fork.0 > start.0 && fork.0 - start.0 < size.bytes();
        for fork in forks.map(|ancestor| ancestor.switch).filter(within) {
            let len = fork.0 - start.0;
            let [mut theirs, mut ours] = [(); 2].map(|()| Prefix { left: len, sha: Sha256::new() });
            let read = lookup::read(storage, key, encoding, self.name, rules.checks, &mut theirs);
            if let Err(reason) = read.map_err(|error| failed(&error))? {
                let what = format!("\"{}/{key}\": {reason}", storage.place());
                return Err(Failure::new(Cause::Conflict, what));
            }
            let read = decode(self.name, rules.checks, &mut self.body.reader(), &mut ours);
            if read.is_ok() && ours.sha.finalize() == theirs.sha.finalize() {
                return Ok(Some(fork));
            }
        }
        Ok(None)
    }
}

/// The histories beside the segment. What cannot be read tells nothing.
fn histories_in(folder: &Path) -> Vec<TimelineHistory> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let histories = entries.filter_map(|entry| {
        let WalName::TimelineHistory(timeline) = entry.file_name().to_str()?.parse().ok()? else {
            return None;
        };
        TimelineHistory::parse(timeline, &fs::read(entry.path()).ok()?).ok()
    });
    histories.collect()
}

/// The histories of the next timelines in the archive.
fn histories_at(storage: &dyn Storage, parent: Timeline) -> Result<Vec<TimelineHistory>, Error> {
    let mut histories = Vec::new();
    for id in (1..=CHILDREN).map_while(|step| parent.get().checked_add(step)) {
        let Some(timeline) = Timeline::new(id) else { break };
        let name = WalName::TimelineHistory(timeline);
        let mut content = Vec::new();
        match lookup::read(storage, &Key::of(name), Encoding::Zstd, name, Checks::Header, &mut content) {
            Ok(Ok(_)) => histories.extend(TimelineHistory::parse(timeline, &content).ok()),
            Ok(Err(_damaged)) => {}
            Err(error) if error.kind() == Kind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(histories)
}

/// The sum of the first bytes that are written.
struct Prefix {
    left: u64,
    sha: Sha256,
}

impl Write for Prefix {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let counted = bytes.get(..usize::try_from(self.left).unwrap_or(usize::MAX)).unwrap_or(bytes);
        self.sha.update(counted);
        self.left -= counted.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
