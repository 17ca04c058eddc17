//! Whether a WAL file is absent: the only maker of the answer that ends a recovery.
//!
//! PostgreSQL takes "not there" for the end of the archive and promotes. So a file counts as absent
//! only where every destination answered, each is proved to be this cluster's archive, none has the
//! name in any encoding, and nothing shows that the file once existed. What shows it is *evidence*:
//! for a segment anything later of its timeline, or a history by which a child left the timeline only
//! after this segment; for a timeline history anything else of that timeline.
//!
//! What counts as evidence is in `evidence`, for whoever looks at a whole archive, too.
//!
//! Knows: names and what listings showed. Does not know: storage, files, clocks, patience. Source:
//! PostgreSQL `src/backend/access/transam/xlogarchive.c` (`RestoreArchivedFile`) and `timeline.c`
//! (`findNewestTimeLine`).

mod evidence;

pub use evidence::{left_at, newest_before, newest_shown, shows};

use crate::object::Identity;
use crate::wal::{Lsn, SegmentName, SegmentSize, SystemId, Timeline, TimelineHistory, WalName};
use std::fmt;
use std::time::Duration;

/// What is asked for, and what this machine knows without asking anyone.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub name: WalName,
    /// The cluster, where it is known.
    pub system_id: Option<SystemId>,
    /// The size of its segments, where it is known.
    pub segment_size: Option<SegmentSize>,
    /// The timeline that the data directory is on already.
    pub own_timeline: Option<Timeline>,
    /// PostgreSQL's own file of that name.
    pub own_copy: OwnCopy,
    /// The valid histories in pg_wal, where PostgreSQL keeps those that it restored.
    pub histories: &'a [TimelineHistory],
    /// Whether the administrator said that this file is lost for good (`--accept-gap`).
    pub accepted: bool,
    /// Whether an archive without a WAL file is believed (`--allow-empty`).
    pub allow_empty: bool,
}

/// PostgreSQL's own file of the name in pg_wal, which it reads where the archive has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnCopy {
    /// None that is of this cluster and this name.
    None,
    /// A segment whose records end here, before its end.
    EndsAt(Lsn),
    /// A segment whose records reach its end, or a history that can be read.
    Complete,
}

/// One destination that answered, as its listings showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its name in messages.
    pub place: String,
    /// `archive.json`, where there is one.
    pub identity: Option<Identity>,
    /// Where there is none: the cluster of a WAL file that stands there, if one told.
    pub held_by: Option<SystemId>,
    /// Whether any WAL file, of any kind and name, was seen.
    pub holds_wal: bool,
    /// A key of the name that is asked for, in whatever encoding.
    pub copy: Option<String>,
    /// The lowest-addressed other file that shows that the one asked for existed.
    pub evidence: Option<Evidence>,
    /// The valid histories of later timelines, with their ages; of directories only.
    pub histories: Vec<(TimelineHistory, Age)>,
}

/// How long ago something was stored, by the store's clock; `None` where that is in the future.
pub type Age = Option<Duration>;

/// What shows that a file existed which is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub seen: Seen,
    pub place: String,
    /// When it was stored.
    pub age: Age,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A file of the same timeline.
    File(WalName),
    /// The history of a timeline that left this one here, at the end of the segment or later.
    Fork(Timeline, Lsn),
}

impl Seen {
    /// The segment of a name that makes it evidence for `asked`; the lowest one tells when the hole
    /// was made.
    fn address(self) -> Option<SegmentName> {
        match self {
            Seen::File(name) => name.segment(),
            Seen::Fork(..) => None,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::File(name) => write!(f, "\"{name}\""),
            Seen::Fork(timeline, switch) => {
                write!(
                    f,
                    "\"{}\", by which its timeline reached {switch},",
                    WalName::TimelineHistory(*timeline)
                )
            }
        }
    }
}

/// Something is missing, not absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gap {
    /// A segment, although its timeline went on.
    Hole(Evidence),
    /// A timeline's history, although the timeline has files.
    LostHistory(Evidence),
}

impl Gap {
    pub fn evidence(&self) -> &Evidence {
        match self {
            Gap::Hole(evidence) | Gap::LostHistory(evidence) => evidence,
        }
    }
}

/// Why "not there" may be answered although there is evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excuse {
    /// `--accept-gap`.
    Accepted,
    /// PostgreSQL has a complete copy of its own and will read that.
    OwnCopy,
}

/// What a destination lacks to prove anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// It did not answer.
    Answer,
    /// It is another cluster's.
    Cluster(SystemId),
    /// Its segments have another size, so its names mean other addresses.
    SegmentSize(SegmentSize),
    /// It has neither `archive.json` nor a WAL file that tells whose it is.
    Owner,
    /// It holds no WAL file at all.
    Wal,
    /// It does have the name.
    Absence,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// Nothing but PostgreSQL's own pg_wal could satisfy the request.
    Absent,
    /// The same, in spite of evidence.
    Excused(Gap, Excuse),
    /// It existed and is missing.
    Missing(Gap),
    /// Some destinations prove nothing: which, and why. What the others show.
    Unproved(Vec<(usize, Lack)>, Option<Gap>),
}

/// Decides. `shapes`: one for each destination, in order; `None` for one that did not answer.
pub fn conclude(asked: &Asked<'_>, shapes: &[Option<Shape>]) -> Conclusion {
    // Timeline 1 has no history, and PostgreSQL asks for it in the middle of a promotion.
    if asked.name == WalName::TimelineHistory(Timeline::FIRST) {
        return Conclusion::Absent;
    }
    let lacks: Vec<_> = shapes
        .iter()
        .enumerate()
        .filter_map(|(index, shape)| Some((index, lack(asked, shape.as_ref())?)))
        .collect();
    let proved = (0..).zip(shapes).filter(|(index, _)| !lacks.iter().any(|(lacking, _)| lacking == index));
    let gap = gap(asked, proved.filter_map(|(_, shape)| shape.as_ref()));
    let excuse = match asked.own_copy {
        _ if asked.accepted => Some(Excuse::Accepted),
        OwnCopy::Complete => Some(Excuse::OwnCopy),
        OwnCopy::EndsAt(_) | OwnCopy::None => None,
    };
    match (lacks.is_empty() && !shapes.is_empty(), gap, excuse) {
        (true, None, _) => Conclusion::Absent,
        (true, Some(gap), Some(excuse)) => Conclusion::Excused(gap, excuse),
        (true, Some(gap), None) => Conclusion::Missing(gap),
        (false, gap, excuse) => Conclusion::Unproved(lacks, gap.filter(|_| excuse.is_none())),
    }
}

/// Why a destination proves nothing; `None` where it does.
fn lack(asked: &Asked<'_>, shape: Option<&Shape>) -> Option<Lack> {
    let Some(shape) = shape else { return Some(Lack::Answer) };
    let owner = match &shape.identity {
        Some(identity) => Some(identity.system_id),
        None => shape.held_by,
    };
    if let (Some(ours), Some(theirs)) = (asked.system_id, owner)
        && ours != theirs
    {
        return Some(Lack::Cluster(theirs));
    }
    if let (Some(ours), Some(identity)) = (asked.segment_size, &shape.identity)
        && ours != identity.segment_size
    {
        return Some(Lack::SegmentSize(identity.segment_size));
    }
    if shape.copy.is_some() {
        return Some(Lack::Absence);
    }
    match (shape.holds_wal || asked.allow_empty, owner) {
        (false, _) => Some(Lack::Wal),
        (true, None) if asked.system_id.is_some() && shape.holds_wal => Some(Lack::Owner),
        (true, _) => None,
    }
}

fn gap<'a>(asked: &Asked<'_>, shapes: impl Iterator<Item = &'a Shape>) -> Option<Gap> {
    let shapes: Vec<_> = shapes.collect();
    let files = shapes.iter().filter_map(|shape| shape.evidence.clone());
    match asked.name {
        WalName::Segment(segment) => {
            let forks = forks(asked, segment, &shapes);
            lowest(files.chain(forks)).map(Gap::Hole)
        }
        // A data directory that is on the timeline knows where it came from.
        WalName::TimelineHistory(timeline) if asked.own_timeline.is_some_and(|own| timeline <= own) => None,
        WalName::TimelineHistory(_) => lowest(files).map(Gap::LostHistory),
        WalName::Partial(_) | WalName::BackupHistory(..) => None,
    }
}

/// Files before forks, and of those the lowest and oldest: if that one was stored long ago, then no
/// push that is still at work will bring what is missing before it.
fn lowest(all: impl Iterator<Item = Evidence>) -> Option<Evidence> {
    all.min_by_key(|evidence| {
        let address = evidence.seen.address();
        (address.is_none(), address, std::cmp::Reverse(evidence.age))
    })
}

/// The histories by which the segment's timeline was left at its end or later: then the segment was
/// complete.
fn forks(asked: &Asked<'_>, segment: SegmentName, shapes: &[&Shape]) -> Vec<Evidence> {
    let size = asked.segment_size.or_else(|| {
        shapes.iter().find_map(|shape| shape.identity.as_ref().map(|identity| identity.segment_size))
    });
    let (Some(size), Some(number)) = (size, size.and_then(|size| segment.number(size))) else {
        return Vec::new();
    };
    let fork = |history: &TimelineHistory, place: &str, age: Age| {
        let switch = left_at(history, segment.timeline())?;
        let reached = newest_before(switch, size).is_some_and(|newest| newest >= number);
        let seen = Seen::Fork(history.timeline, switch);
        reached.then(|| Evidence { seen, place: place.to_owned(), age })
    };
    let ours = asked.histories.iter().filter_map(|history| fork(history, "pg_wal", Some(Duration::MAX)));
    let theirs = shapes.iter().flat_map(|shape| {
        shape.histories.iter().filter_map(|(history, age)| fork(history, &shape.place, *age))
    });
    ours.chain(theirs).collect()
}

#[cfg(test)]
mod tests;
