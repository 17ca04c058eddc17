//! `--partial`: the unfinished last segment of a timeline, given for the whole one.
//!
//! Only where the segment is proved absent, PostgreSQL has no longer copy of its own, and no child
//! timeline forks off in it: then the child's segment of that number is the one that counts, and the
//! rest of this one was abandoned. What cannot be ruled out as such a child counts as one. Of several
//! objects, `NAME.partial`, its variants and cut segments, the longest is given, if it holds what the
//! others hold. What follows the last record is given as zeros, and the spool remembers that this is no
//! whole segment, so that wal-push never stores it as one.

use super::search::Search;
use super::{Cause, Failures, explain, failed, local};
use crate::archive::absent::{Evidence, Gap, OwnCopy, Seen};
use crate::archive::lookup::{self, Relative};
use crate::failure::Failure;
use crate::host::target::Temporary;
use crate::object::{Checks, Key, Sha256Sum, Stored};
use crate::spool::Spool;
use crate::storage::Storage;
use crate::storage::deadline::Deadline;
use crate::wal::records::{Start, Walker};
use crate::wal::{Lsn, SegmentName, SegmentSize, Timeline, TimelineHistory, WalName};
use log::Level;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

type Result<T> = std::result::Result<T, Failure<Cause>>;

/// Bytes compared at once.
const BLOCK: u64 = 128 * 1024;

struct Found {
    place: String,
    key: Key,
    /// Its bytes, beside the path, without a name.
    file: File,
    size: SegmentSize,
    /// Where its records end.
    end: Lsn,
}

impl Search<'_> {
    /// Puts the longest partial segment at the path; `false` where there is none that may be given.
    pub(super) fn deliver_partial(
        &self,
        segment: SegmentName,
        deadline: Instant,
    ) -> std::result::Result<bool, Failures> {
        let destinations: Vec<Deadline> = self
            .asking
            .destinations
            .iter()
            .map(|destination| Deadline::new(Arc::clone(destination), deadline))
            .collect();
        let own_copy = self.own_copy();
        let mut faults = Failures::new();
        let Some(found) = self.longest(&destinations, segment, &mut faults)? else {
            return if faults.is_empty() { Ok(false) } else { Err(faults) };
        };
        let own_reaches = match own_copy {
            OwnCopy::None => false,
            OwnCopy::EndsAt(end) => end >= found.end,
            OwnCopy::Complete => true,
        };
        if own_reaches {
            log::info!("\"{}\" is not given for \"{segment}\": pg_wal has one that is no shorter", found.key);
            return Ok(false);
        }
        if let Some(child) =
            self.child_within(&destinations, segment, found.size).map_err(|fault| vec![fault])?
        {
            log::warn!(
                "\"{}\" is not given for \"{segment}\": timeline {child} forks off in or before it, and its segment counts",
                found.key
            );
            return Ok(false);
        }
        self.give(&found, segment, &faults).map_err(|fault| vec![fault])?;
        Ok(true)
    }

    /// Cuts it, notes it, puts it at the path.
    fn give(&self, found: &Found, segment: SegmentName, faults: &Failures) -> Result<()> {
        let (temporary, sha256) = self.cut(found, segment)?;
        self.spool_for_partials()?.note_partial(segment, &sha256).map_err(|error| {
            let what = format!(
                "cannot note in the spool that \"{segment}\" is given from a partial segment: {error}"
            );
            Failure::new(Cause::Local, what)
                .hint("make the spool writable, or name another one with --spool-dir")
        })?;
        for fault in faults {
            fault.log(Level::Warn);
        }
        log::warn!(
            "\"{}\" is given for \"{segment}\": its records end at {} (--partial)",
            found.key,
            found.end
        );
        self.asking.publish(temporary)
    }

    fn spool_for_partials(&self) -> Result<&Spool> {
        self.request.context.spool.as_ref().ok_or_else(|| {
            Failure::new(Cause::Local, "--partial needs a spool, and none can be had").hint(
                "what is given is no whole segment, and without the spool's memory of it wal-push would archive it as one: \
                 name a directory for the spool with --spool-dir",
            )
        })
    }

    /// The one with the most records. Damage is noted and passed over, and so is a destination that
    /// fails.
    fn longest(
        &self,
        destinations: &[Deadline],
        segment: SegmentName,
        faults: &mut Failures,
    ) -> std::result::Result<Option<Found>, Failures> {
        let mut best: Option<Found> = None;
        for storage in destinations {
            let candidates = match self.candidates(storage, segment) {
                Ok(candidates) => candidates,
                Err(error) => {
                    faults.push(failed(&error));
                    continue;
                }
            };
            for (stored, key) in candidates {
                if let Stored::Unknown(name, _) = stored {
                    faults.push(explain::unknown(storage.place(), name, key.as_str()));
                    continue;
                }
                let other = match self.read_candidate(storage, segment, &key) {
                    Ok(Some(other)) => other,
                    Ok(None) => continue,
                    Err(fault) if fault.kind == Cause::Local => return Err(vec![fault]),
                    Err(fault) => {
                        faults.push(fault);
                        continue;
                    }
                };
                best = Some(match best {
                    None => other,
                    Some(first) => self.longer(first, other, segment).map_err(|fault| vec![fault])?,
                });
            }
        }
        Ok(best)
    }

    /// What may be given for the segment: partial segments in every encoding, those of other promotions, and
    /// segments that were cut under their full name.
    fn candidates(
        &self,
        storage: &dyn Storage,
        segment: SegmentName,
    ) -> crate::storage::Result<Vec<(Stored, Key)>> {
        let encryption = self.asking.encryption(storage)?;
        let partial = WalName::Partial(segment);
        let mut found = Vec::new();
        for folder in lookup::folders(true) {
            for entry in storage.list(&format!("{folder}{segment}"), "")? {
                let key = entry?.key;
                let stored = Stored::parse(key.strip_prefix(folder).unwrap_or(&key));
                let is_one = match &stored {
                    Stored::Wal(name, _) | Stored::Unknown(name, _) => *name == partial,
                    Stored::Variant(name, ..) => *name == partial || *name == WalName::Segment(segment),
                    Stored::Stranger => false,
                };
                found.extend(Key::parse(&key).filter(|_| is_one).map(|key| (stored.within(encryption), key)));
            }
        }
        Ok(found)
    }

    /// The longer of two; an error where it does not hold what the shorter one holds.
    fn longer(&self, one: Found, other: Found, segment: SegmentName) -> Result<Found> {
        let (shorter, longer) = if other.end > one.end { (one, other) } else { (other, one) };
        let common = offset(shorter.end, segment, shorter.size);
        let same = shorter.size == longer.size
            && begin_alike(&shorter.file, &longer.file, common)
                .map_err(|error| local(&self.asking.target.unwritable(error)))?;
        if same {
            return Ok(longer);
        }
        let what = format!(
            "\"{}/{}\" and \"{}/{}\" are both intact and hold different content",
            shorter.place, shorter.key, longer.place, longer.key
        );
        Err(Failure::new(Cause::Damaged, what).hint(
            "two servers left this segment unfinished: find out which one's history is to be recovered, and move \
             the other object aside with \"wal-archive quarantine --force KEY\"",
        ))
    }

    /// `None` where it is gone again.
    fn read_candidate(
        &self,
        storage: &dyn Storage,
        segment: SegmentName,
        key: &Key,
    ) -> Result<Option<Found>> {
        let damaged = |reason: &str| explain::damaged(storage.place(), key, reason);
        let mut walker = Walker::new(Start::Anywhere);
        walker.begin(segment);
        let folder = self.request.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let file = tempfile::tempfile_in(folder.unwrap_or(Path::new(".")));
        let file = file.map_err(|error| local(&self.asking.target.unwritable(error)))?;
        let mut output = Both { file: &file, walker: &mut walker };
        let Some(decoded) = self.asking.open(storage, key, Checks::Header, &mut output)? else {
            return Ok(None);
        };
        let size = SegmentSize::new(decoded.size).ok_or_else(|| damaged("its size is that of no segment"))?;
        let walk = walker.walk();
        let end = walk.end.or(walk.stop.position()).ok_or_else(|| damaged("it holds no record"))?;
        Ok(Some(Found { place: storage.place().to_owned(), key: key.clone(), file, size, end }))
    }

    /// Copies it up to its last record and makes what follows zeros: a recycled segment's old pages
    /// are no records of this history, whatever they look like. The sum of the result.
    fn cut(&self, found: &Found, segment: SegmentName) -> Result<(Temporary, Sha256Sum)> {
        let mut temporary = self.asking.target.temporary().map_err(|error| local(&error))?;
        let kept = offset(found.end, segment, found.size);
        let (mut source, output) = (&found.file, &mut temporary.file);
        let copied = source
            .rewind()
            .and_then(|()| io::copy(&mut source.take(kept), output))
            .and_then(|_| output.set_len(found.size.bytes()))
            .and_then(|()| output.rewind())
            .and_then(|()| Sha256Sum::of_reader(output));
        let sha256 = copied.map_err(|error| local(&self.asking.target.unwritable(error)))?;
        Ok((temporary, sha256))
    }

    /// The first timeline that forks off from the segment's in that segment or before it. One whose
    /// history is lost or cannot be read may be one, so it is an error.
    fn child_within(
        &self,
        destinations: &[Deadline],
        segment: SegmentName,
        size: SegmentSize,
    ) -> Result<Option<Timeline>> {
        let end = segment.start(size).map_or(u64::MAX, |start| start.0.saturating_add(size.bytes()));
        let forks = |history: &TimelineHistory| {
            let mut ancestors = history.ancestors.iter();
            ancestors.any(|line| line.timeline == segment.timeline() && line.switch.0 < end)
        };
        let mut known: BTreeMap<Timeline, TimelineHistory> = BTreeMap::new();
        let mut doubtful: Vec<(&Deadline, Relative)> = Vec::new();
        for storage in destinations {
            let relatives = lookup::later_timelines(storage, segment.timeline(), true);
            for relative in relatives.map_err(|error| failed(&error))? {
                match relative.history {
                    Some((history, _)) => drop(known.insert(relative.timeline, history)),
                    None => doubtful.push((storage, relative)),
                }
            }
        }
        known.extend(self.histories_in_pg_wal().into_iter().map(|history| (history.timeline, history)));
        if let Some((child, _)) = known.iter().find(|(_, history)| forks(history)) {
            return Ok(Some(*child));
        }
        let accepted = |timeline| self.request.accept_gap.contains(&WalName::TimelineHistory(timeline));
        match doubtful.iter().find(|(_, one)| !known.contains_key(&one.timeline) && !accepted(one.timeline)) {
            None => Ok(None),
            Some((storage, relative)) => Err(doubt(storage.place(), relative)),
        }
    }
}

/// A timeline of which nobody knows where it forks off.
fn doubt(place: &str, relative: &Relative) -> Failure<Cause> {
    let name = WalName::TimelineHistory(relative.timeline);
    if let Some(key) = &relative.unread {
        let unread = explain::unknown(place, name, key);
        let is_encoded = Key::parse(key).is_some_and(|key| matches!(Stored::of(&key), Stored::Unknown(..)));
        let kind = if is_encoded { Cause::Refused } else { Cause::Damaged };
        let message = format!(
            "\"{place}/{key}\" cannot be read, so nobody knows whether timeline {} counts",
            relative.timeline
        );
        return Failure { kind, message, ..unread };
    }
    let seen = relative.other.unwrap_or(name);
    let evidence = Evidence { seen: Seen::File(seen), place: place.to_owned(), age: None };
    explain::missing(name, &Gap::LostHistory(evidence))
}

/// Decoded bytes on their way to the file, read on the way.
struct Both<'a> {
    file: &'a File,
    walker: &'a mut Walker,
}

impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.walker.push(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Where in the segment's file an address is.
fn offset(address: Lsn, segment: SegmentName, size: SegmentSize) -> u64 {
    let start = segment.start(size).unwrap_or(address);
    address.0.saturating_sub(start.0).min(size.bytes())
}

/// Whether the first bytes of two files are the same.
fn begin_alike(mut one: &File, mut other: &File, mut len: u64) -> io::Result<bool> {
    one.seek(SeekFrom::Start(0))?;
    other.seek(SeekFrom::Start(0))?;
    let [mut left, mut right] = [Vec::new(), Vec::new()];
    while len > 0 {
        let now = len.min(BLOCK);
        left.clear();
        right.clear();
        one.take(now).read_to_end(&mut left)?;
        other.take(now).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        len -= now;
    }
    Ok(true)
}
