//! `--partial`: the unfinished last segment of a dead server, which `wal-archive drain` stored as
//! `NAME.partial`, given for NAME.
//!
//! Only where NAME is proved absent, PostgreSQL has no copy of its own, which might be longer, and
//! no child timeline forks off in it: then the child's segment of that number is the one that
//! counts, and the rest of this one was abandoned. What follows the last record is given as zeros.

use super::search::Search;
use super::{Cause, failed, local};
use crate::failure::Failure;
use crate::lookup;
use crate::object::key::WAL_FOLDER;
use crate::object::{Checks, DecodeError, Encoding, Key, Sha256Sum, Stored, decode_as};
use crate::storage::deadline::Deadline;
use crate::storage::{Error, Kind, Range, Storage};
use crate::target::Temporary;
use crate::wal::records::{Start, Walker};
use crate::wal::{Lsn, SegmentName, SegmentSize, Timeline, TimelineHistory, WalName};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

type Result<T> = std::result::Result<T, Failure<Cause>>;

/// A proved partial segment.
struct Found {
    key: Key,
    temporary: Temporary,
    sha256: Sha256Sum,
    size: SegmentSize,
    /// Where its records end.
    end: Lsn,
}

impl Search<'_> {
    /// Puts the partial segment at the path; `false` where there is none that may be given.
    pub(super) fn deliver_partial(&self, segment: SegmentName, deadline: Instant) -> Result<bool> {
        if self.stands_in_pg_wal() {
            log::info!("pg_wal has a \"{segment}\", which may be longer than a partial one in the archive");
            return Ok(false);
        }
        let destinations: Vec<Deadline> = self
            .request
            .destinations
            .iter()
            .map(|destination| Deadline::new(Arc::clone(destination), deadline))
            .collect();
        let mut found = None;
        for storage in &destinations {
            self.look_for_partial(storage, segment, &mut found)?;
        }
        let Some(found) = found else { return Ok(false) };
        if let Some(child) = child_within(&destinations, segment, found.size)? {
            log::warn!(
                "\"{}\" is not given for \"{segment}\": timeline {child} forks off in or before it, and its segment counts",
                found.key
            );
            return Ok(false);
        }
        self.cut(&found, segment)?;
        log::warn!(
            "\"{}\" is given for \"{segment}\": its records end at {} (--partial)",
            found.key,
            found.end
        );
        self.publish(found.temporary)?;
        Ok(true)
    }

    /// Reads what stands there under the name; all copies everywhere must be the same.
    fn look_for_partial(
        &self,
        storage: &dyn Storage,
        segment: SegmentName,
        found: &mut Option<Found>,
    ) -> Result<()> {
        for (key, encoding) in partials(storage, segment).map_err(|error| failed(&error))? {
            let Some(other) = self.read_partial(storage, segment, &key, encoding)? else { continue };
            match found {
                Some(first) if first.sha256 != other.sha256 => {
                    let what = format!(
                        "\"{}\" and \"{}/{}\" are both intact and hold different content",
                        first.key,
                        storage.place(),
                        other.key
                    );
                    return Err(Failure::new(Cause::Damaged, what).hint(
                        "two servers left this segment unfinished: find out which one's history is to be recovered, and move \
                         the other object aside with \"wal-archive quarantine --force KEY\"",
                    ));
                }
                Some(_) => {}
                None => *found = Some(other),
            }
        }
        Ok(())
    }

    /// `None` where it is gone again.
    fn read_partial(
        &self,
        storage: &dyn Storage,
        segment: SegmentName,
        key: &Key,
        encoding: Encoding,
    ) -> Result<Option<Found>> {
        let mut object = match storage.get(key, Range::Whole) {
            Ok(object) => object,
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&error)),
        };
        let damaged = |reason: &str| {
            let what =
                format!("\"{}/{key}\" is damaged or not the file asked for: {reason}", storage.place());
            Failure::new(Cause::Damaged, what)
        };
        let mut walker = Walker::new(Start::Anywhere);
        walker.begin(segment);
        let temporary = self.target.temporary().map_err(|error| local(&error))?;
        let mut output = Both { file: &temporary.file, walker: &mut walker };
        let name = WalName::Partial(segment);
        let decoded =
            decode_as(encoding, name, Checks::Header, &mut object.body, &mut output).map_err(|error| {
                match error {
                    DecodeError::Read(error) => failed(&Error::of_io(error, storage.place())),
                    DecodeError::Write(error) => local(&self.target.unwritable(error)),
                    DecodeError::Damaged(reason) => damaged(&reason),
                }
            })?;
        if let (Some(theirs), Some(ours)) = (decoded.system_id(), self.control)
            && theirs != ours
        {
            return Err(damaged(&format!(
                "it is of the cluster with system identifier {theirs}, this one has {ours}"
            )));
        }
        let size = SegmentSize::new(decoded.size).ok_or_else(|| damaged("its size is that of no segment"))?;
        let walk = walker.walk();
        let end = walk.end.or(walk.stop.position()).ok_or_else(|| damaged("it holds no record"))?;
        Ok(Some(Found { key: key.clone(), temporary, sha256: decoded.sha256, size, end }))
    }

    /// Makes what follows the last record zeros: a recycled segment's old pages are no records of
    /// this history, whatever they look like.
    fn cut(&self, found: &Found, segment: SegmentName) -> Result<()> {
        let start = segment.start(found.size).unwrap_or(found.end);
        let kept = found.end.0.saturating_sub(start.0).min(found.size.bytes());
        let file = &found.temporary.file;
        let cut = file.set_len(kept).and_then(|()| file.set_len(found.size.bytes()));
        cut.map_err(|error| local(&self.target.unwritable(error)))
    }
}

/// Decoded bytes on their way to the file, read on the way.
struct Both<'a> {
    file: &'a std::fs::File,
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

/// The keys of a partial segment: in every encoding, and the variants of other promotions.
fn partials(storage: &dyn Storage, segment: SegmentName) -> crate::storage::Result<Vec<(Key, Encoding)>> {
    let name = WalName::Partial(segment);
    let mut keys = Vec::new();
    for folder in [WAL_FOLDER, ""] {
        for entry in storage.list(&format!("{folder}{name}"), "")? {
            let text = entry?.key;
            let encoding = match Stored::parse(text.strip_prefix(folder).unwrap_or(&text)) {
                Stored::Wal(other, encoding) if other == name => encoding,
                Stored::Variant(other, _) if other == name => Encoding::Zstd,
                _ => continue,
            };
            keys.extend(Key::parse(&text).map(|key| (key, encoding)));
        }
    }
    Ok(keys)
}

/// The first timeline that forks off from the segment's in that segment or before it. Timeline
/// ids have no gaps: PostgreSQL, too, looks for the next one until there is none
/// (`src/backend/access/transam/timeline.c`, `findNewestTimeLine`).
fn child_within(
    destinations: &[Deadline],
    segment: SegmentName,
    size: SegmentSize,
) -> Result<Option<Timeline>> {
    let end = segment.start(size).map_or(u64::MAX, |start| start.0.saturating_add(size.bytes()));
    let mut id = segment.timeline().get();
    loop {
        id = id.saturating_add(1);
        let Some(timeline) = Timeline::new(id) else { return Ok(None) };
        let Some(history) = history(destinations, timeline)? else { return Ok(None) };
        let mut ancestors = history.ancestors.iter();
        if ancestors.any(|ancestor| ancestor.timeline == segment.timeline() && ancestor.switch.0 < end) {
            return Ok(Some(timeline));
        }
    }
}

/// The first intact copy; `None` where no destination has one.
fn history(destinations: &[Deadline], timeline: Timeline) -> Result<Option<TimelineHistory>> {
    let name = WalName::TimelineHistory(timeline);
    let mut fault = None;
    for storage in destinations {
        let around = lookup::around(storage, name, true).map_err(|error| failed(&error))?;
        for (key, encoding) in around.copies {
            let mut object = storage.get(&key, Range::Whole).map_err(|error| failed(&error))?;
            let mut text = Vec::new();
            let reason = match decode_as(encoding, name, Checks::Header, &mut object.body, &mut text) {
                Ok(_) => match TimelineHistory::parse(timeline, &text) {
                    Ok(history) => return Ok(Some(history)),
                    Err(bad) => bad.to_string(),
                },
                Err(error) => error.to_string(),
            };
            let what = format!("\"{}/{key}\" cannot be read: {reason}", storage.place());
            fault = Some(Failure::new(Cause::Damaged, what));
        }
    }
    fault.map_or(Ok(None), Err)
}
