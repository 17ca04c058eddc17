//! What a `pg_wal` holds, and what of it belongs into the archive under which name.
//!
//! Names and status files do not tell: a standby marks what it streamed `.done` without archiving
//! it, the segment that was being written has its full size, and recycled ones carry names of the
//! future. The records tell: a segment is complete where they fill it, cross its end or switch
//! away from it (PostgreSQL `src/backend/access/transam/xlogreader.c`).

use crate::finding::{Finding, FindingKind};
use crate::host::data_directory;
use crate::spool::Stamp;
use crate::wal::records::{Start, Stop, Walk, Walker};
use crate::wal::{FirstPage, Lsn, SegmentName, SegmentSize, SystemId, Timeline, WalName};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file that belongs into the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where it is.
    pub path: PathBuf,
    /// What it is to be there: an unfinished segment is a partial one.
    pub name: WalName,
    /// Where its records end, of a segment.
    pub end: Option<Lsn>,
    /// What it was when its records were read.
    pub stamp: Stamp,
}

/// A file that does not, as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its name in `pg_wal`.
    pub name: WalName,
    /// Why.
    pub reason: String,
    /// Whether it is kept for later use only: nothing of its name was written to it yet.
    pub idle: bool,
}

/// The last records of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineEnd {
    /// Its id.
    pub timeline: Timeline,
    /// Where the last good record ends.
    pub end: Lsn,
    /// When the last commit was, of those in this `pg_wal`.
    pub last_commit: Option<SystemTime>,
    /// Why the records end there.
    pub stop: Stop,
}

/// Everything of a `pg_wal`.
#[derive(Debug, Default)]
pub struct DrainPlan {
    /// In the order of storing: history files, backup history files, segments, partial ones.
    pub items: Vec<Item>,
    /// Those that do not, in the order of names.
    pub left: Vec<Left>,
    /// Those that somebody should look at, in the order of names.
    pub findings: Vec<Finding>,
    /// One of each timeline that has a segment, in their order.
    pub ends: Vec<TimelineEnd>,
    /// Of the segments.
    pub system_id: Option<SystemId>,
}

/// A segment and what its records showed.
struct Segment {
    name: SegmentName,
    path: PathBuf,
    size: SegmentSize,
    stamp: Stamp,
    /// Whether PostgreSQL finished it: it has a status file.
    finished: bool,
    walk: Walk,
    /// Whether the walk came from the segment before.
    follows: bool,
}

/// Reads a `pg_wal`. `live`: a server writes to it, so what is unfinished is left alone.
/// `system_id`: files of another cluster are left, too.
pub fn read(pg_wal: &Path, live: bool, system_id: Option<SystemId>) -> io::Result<DrainPlan> {
    let mut plan = DrainPlan { system_id, ..DrainPlan::default() };
    let place = pg_wal.display().to_string();
    let mut segments: BTreeMap<SegmentName, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir(pg_wal)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match name {
            WalName::Segment(segment) => drop(segments.insert(segment, entry.path())),
            name => {
                // A running server removes and renames files as it goes.
                if let Ok(metadata) = entry.metadata() {
                    let stamp = Stamp::of(&metadata);
                    plan.items.push(Item { path: entry.path(), name, end: None, stamp });
                }
            }
        }
    }
    let mut walked: Vec<Segment> = Vec::new();
    let mut walker = Walker::new(Start::Anywhere);
    for (name, path) in segments {
        let read = open(&path, name, plan.system_id).and_then(|mut opened| {
            let adjacent = |last: &Segment| last.walk.complete && last.name.next(opened.size) == Some(name);
            let follows = walked.last().is_some_and(adjacent);
            if !follows {
                walker = Walker::new(Start::Anywhere);
            }
            walker.begin(name);
            feed(&mut walker, &mut opened.file)?;
            Ok((opened, follows))
        });
        match read {
            Ok((Opened { stamp, page, size, .. }, follows)) => {
                plan.system_id = plan.system_id.or(Some(page.system_id()));
                let finished = ["ready", "done"]
                    .into_iter()
                    .any(|status| pg_wal.join(format!("archive_status/{name}.{status}")).exists());
                walked.push(Segment { name, path, size, stamp, finished, walk: walker.walk(), follows });
            }
            Err(Refused { gone: true, .. }) if live => {}
            // What does not begin with a page of its own address was recycled or made in advance.
            Err(Refused { reason, kind: None, .. }) => {
                plan.left.push(Left { name: WalName::Segment(name), reason, idle: true });
            }
            Err(Refused { reason, kind: Some(kind), .. }) => {
                plan.findings.push(Finding::new(kind, name, &place, reason));
            }
        }
    }
    plan.sort_out(&walked, live, &place);
    plan.items.sort_by_key(|item| (rank(item.name), item.name));
    plan.left.sort_by_key(|left| left.name);
    plan.findings.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(plan)
}

/// What another file needs comes before it.
fn rank(name: WalName) -> u8 {
    match name {
        WalName::TimelineHistory(_) => 0,
        WalName::BackupHistory(..) => 1,
        WalName::Segment(_) => 2,
        WalName::Partial(_) => 3,
    }
}

/// A segment by its first page.
struct Opened {
    file: File,
    stamp: Stamp,
    page: FirstPage,
    size: SegmentSize,
}

/// Why a file is none.
struct Refused {
    reason: String,
    /// `None`: it is no fault.
    kind: Option<FindingKind>,
    gone: bool,
}

impl From<io::Error> for Refused {
    /// A failing disk may still give the other files.
    fn from(error: io::Error) -> Self {
        let gone = error.kind() == io::ErrorKind::NotFound;
        Refused { reason: format!("it cannot be read: {error}"), kind: Some(FindingKind::NotRead), gone }
    }
}

fn open(path: &Path, name: SegmentName, system_id: Option<SystemId>) -> Result<Opened, Refused> {
    let other = |reason: String, kind| Err(Refused { reason, kind, gone: false });
    let Some(page) = data_directory::first_page(path)? else {
        return other("it is shorter than a page header".to_owned(), Some(FindingKind::Damaged));
    };
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    match page.check(name, metadata.len()) {
        Err(bad) => other(bad.to_string(), None),
        Ok(_) if system_id.is_some_and(|ours| ours != page.system_id()) => {
            let what = format!("it is of the cluster with system identifier {}", page.system_id());
            other(what, Some(FindingKind::OtherCluster))
        }
        Ok(size) => Ok(Opened { file, stamp: Stamp::of(&metadata), page, size }),
    }
}

/// Reads a file to its end.
fn feed(walker: &mut Walker, file: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 17];
    loop {
        let read = file.read(&mut buffer)?;
        // What is known by then does not change any more.
        if read == 0 || !walker.push(buffer.get(..read).unwrap_or_default()) {
            return Ok(());
        }
    }
}

impl DrainPlan {
    fn sort_out(&mut self, walked: &[Segment], live: bool, place: &str) {
        for (index, segment) in walked.iter().enumerate() {
            let next = walked.get(index + 1).filter(|next| next.name.timeline() == segment.name.timeline());
            let fate = segment.fate(next, live);
            let name = WalName::Segment(segment.name);
            let item =
                |name| Item { path: segment.path.clone(), name, end: segment.walk.end, stamp: segment.stamp };
            match fate {
                Fate::Complete => self.items.push(item(name)),
                Fate::Partial => self.items.push(item(WalName::Partial(segment.name))),
                Fate::Left(reason) => self.left.push(Left { name, reason, idle: false }),
                Fate::Broken(reason) => {
                    self.findings.push(Finding::new(FindingKind::BrokenRecords, name, place, reason));
                }
            }
            if let (None, Some(end)) = (next, segment.walk.end) {
                self.ends.push(TimelineEnd {
                    timeline: segment.name.timeline(),
                    end,
                    last_commit: segment.walk.last_commit,
                    stop: segment.walk.stop.clone(),
                });
            }
        }
    }
}

enum Fate {
    /// It goes in under its own name.
    Complete,
    /// It goes in as a partial segment.
    Partial,
    /// It stays; why.
    Left(String),
    /// It stays, and should not have to.
    Broken(String),
}

impl Segment {
    /// Whether its first page takes up the record that the segment before it ends with. PostgreSQL
    /// finishes a segment before it writes to the next (`src/backend/access/transam/xlog.c`,
    /// `XLogWrite`).
    fn goes_on(&self) -> bool {
        let start = self.name.start(self.size).unwrap_or(Lsn(0)).0;
        let on_first_page = |page: Lsn| page.0 <= start + FirstPage::LEN as u64;
        let refused = match &self.walk.stop {
            Stop::Continuation { page, .. } => on_first_page(*page),
            Stop::Page(at, _) => at.is_none_or(on_first_page),
            _ => false,
        };
        self.follows && !refused
    }

    fn fate(&self, next: Option<&Segment>, live: bool) -> Fate {
        let Walk { stop, end, complete, .. } = &self.walk;
        if *complete {
            // A record that crosses the end may have been cut there by the crash: the next
            // segment, or PostgreSQL's own word, tells that it was not.
            let crosses = match stop {
                Stop::EndOfInput(crossing) => *crossing,
                _ => None,
            };
            if crosses.is_none() || self.finished || next.is_some_and(Segment::goes_on) {
                return Fate::Complete;
            }
        }
        let start = self.name.start(self.size).unwrap_or(Lsn(0));
        if let (Some(next), true) = (next, *complete) {
            return Fate::Broken(format!("its last record is not continued in \"{}\"", next.name));
        }
        if let Some(next) = next {
            return Fate::Broken(format!("its records break off although \"{}\" follows: {stop}", next.name));
        }
        match end {
            Some(end) if *end > start && live => Fate::Left(format!("it is being written, up to {end} now")),
            Some(end) if *end > start => Fate::Partial,
            _ => Fate::Left("it holds no whole record yet".to_owned()),
        }
    }
}
