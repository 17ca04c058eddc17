//! Cut segments: files of a segment's name and size whose records break off before its end.
//!
//! A cascading standby with `archive_mode = always` archives its upstream's last segment so when
//! the upstream is promoted, also one beyond the fork, where the upstream had received more than it
//! had replayed (PostgreSQL `src/backend/replication/walreceiver.c`, `WalReceiverMain`). A server
//! that was promoted with archiving off archives the last segment of its parent so when archiving
//! is switched on (`src/backend/access/transam/xlogarchive.c`, `XLogArchiveCheckDone`). The parent
//! may live on and complete that segment; the name is for the complete one.
//!
//! Where that happens, a child timeline forks in or before the segment, and pg_wal holds the child's
//! history: the receiver fetches it before it finishes the segment.
//!
//! A server may also hold segments of a timeline that it never was on: the manual has the unarchived
//! ones of a lost server copied into the pg_wal of the one that is restored, and that one may be
//! recovered along another timeline. Its next checkpoint marks all of them ready, the one that was
//! being written, too (`src/backend/access/transam/xlog.c`, `RemoveOldXlogFiles`).
//!
//! Only in these two cases can a segment be cut, so only there the records are walked.

use super::{Result, failed};
use crate::archive::intake::{Cause, Intake, Source};
use crate::archive::object::{Opener, Verdict};
use crate::failure::Failure;
use crate::object::{Checks, Key, Sha256Sum};
use crate::storage::Storage;
use crate::wal::{Lsn, SegmentName, Start, Timeline, TimelineHistory, WalName, Walk, Walker};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Whether a file is what its name says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Whole,
    /// It is a beginning of that segment; how that is known.
    Cut(String),
}

/// Why a segment may be cut.
#[derive(Debug, PartialEq, Eq)]
enum Fork {
    /// This child leaves the timeline here.
    Of(Timeline, Lsn),
    /// A history file that tells nothing, and the reason.
    Unreadable(PathBuf, String),
    /// Nothing shows its timeline to lead to the server's own, which is this one.
    Elsewhere(Timeline),
}

impl Source {
    /// Tells whether the file is a whole one. Only segments may be cut.
    pub(super) fn shape(&self, intake: &Intake) -> Result<Shape> {
        let (WalName::Segment(segment), Some(size)) = (self.name, self.segment_size) else {
            return Ok(Shape::Whole);
        };
        if self.was_partial(segment, intake)? {
            return Ok(Shape::Cut("wal-fetch --partial made it of a partial segment".to_owned()));
        }
        let end = segment.start(size).map_or(u64::MAX, |start| start.0.saturating_add(size.bytes()));
        let own = intake.data_directory.as_ref().and_then(|directory| directory.timeline().ok()?);
        let Some(fork) = fork_before(self.folder(), segment.timeline(), Lsn(end), own)? else {
            return Ok(Shape::Whole);
        };
        let walk = self.walk(segment, intake)?;
        if walk.as_ref().is_some_and(|walk| walk.complete) {
            return Ok(Shape::Whole);
        }
        // What another version of PostgreSQL, or a fork of it, wrote breaks off for this program only.
        let known = self.page.as_ref().is_some_and(|page| page.version().is_some());
        match (walk, fork) {
            (Some(walk), Fork::Of(child, at)) if known => {
                Ok(Shape::Cut(format!("{}, and timeline {child} forks off at {at}", break_off(&walk))))
            }
            (Some(walk), Fork::Elsewhere(own)) if known => Ok(Shape::Cut(format!(
                "{}, and nothing shows timeline {} to lead to timeline {own}, which this server is on",
                break_off(&walk),
                segment.timeline()
            ))),
            (_, Fork::Unreadable(path, reason)) => Err(self.hidden(&path, &reason)),
            // A standby gets whole ones of a timeline before its control file names it.
            (_, Fork::Elsewhere(_)) => Ok(Shape::Whole),
            (_, Fork::Of(child, at)) => match &intake.data_directory {
                Some(directory) if !directory.is_in_archive_recovery() => Ok(Shape::Whole),
                _ => Err(self.untold(child, at)),
            },
        }
    }

    fn was_partial(&self, segment: SegmentName, intake: &Intake) -> Result<bool> {
        let Some(spool) = &intake.spool else { return Ok(false) };
        spool.was_partial(segment, &self.trailer.sha256).map_err(|error| {
            let what = format!("cannot read the spool \"{}\": {error}", spool.folder().display());
            Failure::new(Cause::Source, what)
        })
    }

    /// Walks the records of the very bytes that are to be stored; `None` where pages are not looked at.
    fn walk(&self, segment: SegmentName, intake: &Intake) -> Result<Option<Walk>> {
        if intake.checks == Checks::NoHeader {
            return Ok(None);
        }
        let mut walker = Walker::new(Start::Anywhere);
        walker.begin(segment);
        self.objects.decode(self.name, intake.checks, &mut walker).map_err(|error| {
            let what = format!("cannot read the compressed form of \"{}\": {error}", self.path.display());
            Failure::new(Cause::Source, what)
        })?;
        Ok(Some(walker.walk()))
    }

    /// Where the stored segment breaks off, if it is a beginning of this one, which is complete.
    pub(super) fn stored_one_is_cut(
        &self,
        intake: &Intake,
        storage: &dyn Storage,
        key: &Key,
    ) -> Result<Option<Lsn>> {
        let (WalName::Segment(segment), Some(size)) = (self.name, self.segment_size) else { return Ok(None) };
        if !self.walk(segment, intake)?.is_some_and(|walk| walk.complete) {
            return Ok(None);
        }
        let read = |output: &mut (dyn Write + Send)| -> Result<bool> {
            let opened = Opener::of_any_cluster(intake.checks).open(storage, key, output);
            let opened = opened.map_err(|error| failed(&error.into()))?;
            Ok(opened.is_some_and(|opened| matches!(opened.verdict, Verdict::Intact(_))))
        };
        let mut walker = Walker::new(Start::Anywhere);
        walker.begin(segment);
        let intact = read(&mut walker)?;
        let walk = walker.walk();
        let (Some(end), Some(start), true) = (end_of(&walk), segment.start(size), intact && !walk.complete)
        else {
            return Ok(None);
        };
        let [mut theirs, mut ours] = [(); 2].map(|()| Prefix::new(end.0.saturating_sub(start.0)));
        let read_both =
            read(&mut theirs)? && self.objects.decode(self.name, intake.checks, &mut ours).is_ok();
        Ok((read_both && theirs.sum() == ours.sum()).then_some(end))
    }

    /// A history file in pg_wal hides whether the segment is cut.
    fn hidden(&self, history: &Path, reason: &str) -> Failure<Cause> {
        let what = format!(
            "the records of \"{}\" break off, and whether a timeline forks off there cannot be told: \"{}\" cannot be \
             read: {reason}",
            self.path.display(),
            history.display()
        );
        Failure::new(Cause::Source, what).hint("restore that history file, or remove it if it is no server's")
    }

    /// The records cannot be read, and a standby may have it cut.
    fn untold(&self, child: Timeline, at: Lsn) -> Failure<Cause> {
        let what = format!(
            "whether \"{}\" is complete cannot be told: timeline {child} forks off at {at}, in or before it, and this \
             program cannot read its records",
            self.path.display()
        );
        Failure::new(Cause::Conflict, what).hint(
            "let the server that wrote it archive it, and set archive_mode = on instead of always on this standby; a \
             version of wal-archive that knows this PostgreSQL can tell",
        )
    }
}

/// Where the records end, or the first one that is not whole begins.
fn end_of(walk: &Walk) -> Option<Lsn> {
    walk.end.or(walk.stop.position())
}

fn break_off(walk: &Walk) -> String {
    format!("its records break off{}", end_of(walk).map_or_else(String::new, |end| format!(" at {end}")))
}

/// A child that forks off from the timeline before `end`, by the histories in a folder; else whether it
/// leads to the server's `own`, where that is known.
fn fork_before(folder: &Path, timeline: Timeline, end: Lsn, own: Option<Timeline>) -> Result<Option<Fork>> {
    let unreadable = |error: io::Error| {
        let what = format!("cannot look for history files in \"{}\": {error}", folder.display());
        Failure::new(Cause::Source, what)
    };
    let mut children = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_str().and_then(|name| name.parse().ok());
        match name {
            Some(WalName::TimelineHistory(child)) if child > timeline => children.push((child, entry.path())),
            _ => {}
        }
    }
    children.sort();
    let mut elsewhere = own.filter(|own| *own != timeline);
    let mut hidden = None;
    for (child, path) in children {
        let history = match fs::read(&path) {
            Ok(text) => TimelineHistory::parse(child, &text).map_err(|bad| bad.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // gone since
            Err(error) => Err(error.to_string()),
        };
        match history {
            Ok(history) => {
                let left = history.ancestors.iter().find(|ancestor| ancestor.timeline == timeline);
                if let Some(ancestor) = left.filter(|ancestor| ancestor.switch < end) {
                    return Ok(Some(Fork::Of(child, ancestor.switch)));
                }
                elsewhere = elsewhere.filter(|own| left.is_none() || *own != child);
            }
            Err(reason) => hidden = hidden.or(Some(Fork::Unreadable(path, reason))),
        }
    }
    Ok(hidden.or(elsewhere.map(Fork::Elsewhere)))
}

/// The sum of the first bytes that are written.
struct Prefix {
    left: u64,
    sha: Sha256,
}

impl Prefix {
    fn new(len: u64) -> Self {
        Prefix { left: len, sha: Sha256::new() }
    }

    fn sum(self) -> Sha256Sum {
        Sha256Sum::from(self.sha)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn fork(histories: &[(&str, &str)], timeline: u32, end: u64) -> Option<Fork> {
        fork_beside(histories, timeline, end, None)
    }

    fn fork_beside(
        histories: &[(&str, &str)],
        timeline: u32,
        end: u64,
        own: Option<Timeline>,
    ) -> Option<Fork> {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in histories {
            fs::write(folder.path().join(name), content).unwrap();
        }
        fork_before(folder.path(), Timeline::new(timeline).unwrap(), Lsn(end), own).unwrap()
    }

    #[test]
    fn a_fork_counts_in_or_before_the_segment_on_its_own_timeline_only() {
        let two = ("00000002.history", "1\t0/250000\tx\n");
        let three = ("00000003.history", "1\t0/250000\tx\n2\t0/450000\tx\n");
        let child = |id, lsn| Some(Fork::Of(Timeline::new(id).unwrap(), Lsn(lsn)));
        assert_eq!(fork(&[two], 1, 0x30_0000), child(2, 0x25_0000));
        assert_eq!(fork(&[two], 1, 0x90_0000), child(2, 0x25_0000), "long before");
        assert_eq!(fork(&[two], 1, 0x25_0000), None, "the segment ends where the child begins");
        assert_eq!(fork(&[two], 2, 0x90_0000), None);
        assert_eq!(fork(&[three, two], 1, 0x30_0000), child(2, 0x25_0000));
        assert_eq!(fork(&[three], 2, 0x50_0000), child(3, 0x45_0000));
        assert_eq!(fork(&[three], 2, 0x40_0000), None);
        assert_eq!(fork(&[], 1, u64::MAX), None);
        assert_eq!(fork(&[("00000002.history.tmp", "1\t0/1\tx\n")], 1, u64::MAX), None);
    }

    #[test]
    fn a_timeline_leads_to_the_servers_only_by_the_history_of_that_one() {
        let two = ("00000002.history", "1\t0/250000\tx\n");
        let three = ("00000003.history", "1\t0/450000\tx\n");
        let histories = [two, three];
        let fork = |timeline, end, own| fork_beside(&histories, timeline, end, Timeline::new(own));
        let elsewhere = |own| Timeline::new(own).map(Fork::Elsewhere);
        assert_eq!(fork(2, 0x30_0000, 3), elsewhere(3), "a sister");
        assert_eq!(fork(2, 0x30_0000, 2), None, "its own");
        assert_eq!(fork(2, 0x30_0000, 1), elsewhere(1), "a child");
        assert_eq!(fork(1, 0x20_0000, 3), None, "an ancestor, which it shares to the end");
        assert_eq!(fork(1, 0x20_0000, 4), elsewhere(4), "of which no history is there");
        assert!(matches!(fork(1, 0x50_0000, 3), Some(Fork::Of(..))), "an ancestor that was left before");
        assert_eq!(fork(2, 0x30_0000, 0), None, "nothing is known of the server");
    }

    #[test]
    fn a_history_that_cannot_be_read_hides_a_fork_where_no_other_shows_one() {
        let junk = ("00000002.history", "junk\n");
        assert!(matches!(fork(&[junk], 1, 1), Some(Fork::Unreadable(..))));
        assert_eq!(fork(&[junk], 2, 1), None, "it could only be of the timeline itself");
        let three = ("00000003.history", "1\t0/250000\tx\n");
        assert!(matches!(fork(&[junk, three], 1, 0x30_0000), Some(Fork::Of(..))));
        assert!(matches!(fork(&[junk, three], 1, 0x20_0000), Some(Fork::Unreadable(..))));
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("00000002.history")).unwrap();
        let found = fork_before(folder.path(), Timeline::FIRST, Lsn(1), None).unwrap();
        assert!(
            matches!(found, Some(Fork::Unreadable(..))),
            "it is there, and only one that is gone tells nothing"
        );
    }
}
