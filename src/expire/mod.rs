//! `wal-archive expire`: deletes the WAL that no kept backup needs.
//!
//! First everything is looked at, in every destination; what cannot be listed or read ends it
//! there. Then the plan is made, without any effect ([`plan`]). Then each destination is listed
//! again, what goes between backups is recorded (`expired/TIME.json`), and what the plan names is deleted, in the order of the names and in batches: a run that is
//! interrupted leaves less to do for the next one, whose plan is the same, since none depends on
//! what goes. History files, the identity, strangers, what stands in an encoding that is not read,
//! and the quarantine stay.

pub mod backups;
mod choose;
pub mod directories;
pub mod own;
pub mod plan;
mod record;

use crate::archive::inventory::{self, Content, Inventory, Item, TimelineFiles};
use crate::archive::quarantine;
use crate::failure::Failure;
use crate::object::{Key, Stored};
use crate::storage::{DeletionFailed, Result, Shared, Storage};
use crate::wal::{BackupHistory, SegmentName, SystemId, Timeline, WalName};
use backups::Backup;
use plan::{Facts, History, Line, Place, Plan, Why};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// What all destinations hold together, and what their backup history files say.
pub struct Archive {
    /// Whose it is, where that is known.
    pub system_id: Option<SystemId>,
    pub facts: Facts,
    /// What each of them holds, where there are several.
    pub places: Vec<Place>,
    pub histories: BTreeMap<WalName, Content<BackupHistory>>,
    /// Objects of WAL files in encodings that are not read; they stay.
    pub unread: u64,
}

/// Looks at every destination. A backup or timeline history file counts as unreadable only where
/// no destination has a readable one.
pub fn look(destinations: &[Shared]) -> std::result::Result<Archive, Failure> {
    let read = |storage: &Shared| {
        Inventory::read_archive(storage.as_ref()).map_err(|error| Failure::from_storage((), &error))
    };
    together(destinations.iter().map(read).collect::<std::result::Result<Vec<_>, _>>()?)
}

/// The same of what was listed already.
pub fn together(inventories: Vec<Inventory>) -> std::result::Result<Archive, Failure> {
    let first = inventories.first().ok_or_else(|| Failure::new((), "no archive is named"))?;
    let cluster = |one: &Inventory| (one.system_id, one.segment_size);
    if let Some(other) = inventories.iter().find(|other| cluster(other) != cluster(first)) {
        let what = format!("\"{}\" and \"{}\" are not archives of one cluster", first.place, other.place);
        return Err(Failure::new((), what).hint("name the destinations of one cluster"));
    }
    let size = first.segment_size.ok_or_else(|| {
        Failure::new((), format!("nothing in \"{}\" tells the size of a segment", first.place))
            .hint("\"wal-archive verify\" says what is wrong there")
    })?;
    let mut union = first.clone();
    inventories.iter().skip(1).for_each(|other| union.absorb(other));
    let line = |(timeline, files): (&Timeline, &TimelineFiles)| {
        let history = match (union.branch(*timeline), &files.history) {
            (Err(unreadable), _) => {
                History::Unreadable(format!("\"{}\": {}", unreadable.key, unreadable.reason))
            }
            (Ok(_), None) if *timeline != Timeline::FIRST => History::Missing,
            (Ok(branch), _) => History::Known(branch),
        };
        let times = inventories.iter().filter_map(|one| one.timelines.get(timeline)?.times);
        let stored = times.map(|(_, newest)| newest).max();
        (*timeline, Line { history, segments: readable(files).collect(), stored })
    };
    let facts = Facts { size, timelines: union.timelines.iter().map(line).collect() };
    let places = inventories.iter().filter(|_| inventories.len() > 1).map(|one| place(&facts, one));
    Ok(Archive {
        system_id: first.system_id,
        places: places.collect(),
        histories: union.backups.into_iter().map(|backup| (backup.name(), backup.content)).collect(),
        unread: inventories.iter().map(|one| one.unknown_total.objects).sum(),
        facts,
    })
}

/// One of the destinations whose facts together these are.
fn place(together: &Facts, inventory: &Inventory) -> Place {
    let mut facts = together.clone();
    for (timeline, line) in &mut facts.timelines {
        let files = inventory.timelines.get(timeline);
        line.segments = files.map(|files| readable(files).collect()).unwrap_or_default();
    }
    Place { name: inventory.place.clone(), facts }
}

impl Archive {
    /// The backups of which the label fits one of the patterns. One that cannot be read might.
    pub fn labelled(&self, patterns: &[String]) -> std::result::Result<Vec<Backup>, Failure> {
        let mut found = Vec::new();
        for (name, content) in &self.histories {
            let unreadable = |reason: &str| {
                let what = format!("\"{name}\" cannot be understood, so nothing may be deleted: {reason}");
                Failure::new((), what).hint(format!(
                    "move it aside with \"wal-archive quarantine --force {name}\" if its backup is gone; or name the \
                     backups with --backups FILE alone"
                ))
            };
            let history = content.as_ref().map_err(|error| unreadable(&error.reason))?;
            if patterns.iter().any(|pattern| backups::fits(pattern, &history.label)) {
                found.push(Backup::of(history).map_err(|reason| unreadable(&reason))?);
            }
        }
        Ok(found)
    }
}

/// The numbers of the segments that are there in an encoding that is read.
fn readable(files: &TimelineFiles) -> impl Iterator<Item = u64> {
    let numbers = files.segments.ranges().flat_map(|(first, last)| first..=last);
    numbers.filter(|number| !files.unread.contains(*number))
}

/// Files of one timeline that go from one destination, with nothing that stays between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doomed {
    /// The first segment, or that of the first file.
    pub first: SegmentName,
    pub last: SegmentName,
    pub objects: u64,
    /// Their bytes, as stored.
    pub bytes: u64,
    pub why: Why,
}

/// What goes from a destination by the plan.
pub fn doomed(storage: &dyn Storage, plan: &Plan) -> Result<Vec<Doomed>> {
    let mut ranges: Vec<Doomed> = Vec::new();
    let (mut goes_on, mut young) = (false, 0);
    let young_since = quarantine::young_since(storage)?;
    for item in inventory::items(storage)? {
        let item = item?;
        let verdict = verdict(plan, &item);
        let Some((segment, why)) = verdict.filter(|_| !is_young(&item, young_since)) else {
            young += u64::from(verdict.is_some());
            // What never goes does not part what stands around it.
            goes_on &= item
                .stored
                .name()
                .is_none_or(|name| plan.deletes(name).is_some() || name.segment().is_none());
            continue;
        };
        match ranges.last_mut() {
            Some(range) if goes_on && range.why == why && range.first.timeline() == segment.timeline() => {
                range.last = segment;
                range.objects += 1;
                range.bytes += item.size;
            }
            _ => ranges.push(Doomed { first: segment, last: segment, objects: 1, bytes: item.size, why }),
        }
        goes_on = true;
    }
    if young > 0 {
        log::warn!(
            "\"{}\": {young} more objects that no kept backup needs were stored less than 15 minutes ago and stay; the next \
             run deletes them",
            storage.place()
        );
    }
    Ok(ranges)
}

/// Objects that one request deletes.
const BATCH: usize = 1000;

/// Records what goes between backups, then deletes what the plan names; tells of each batch before it is
/// deleted. How many objects are gone is said of a failure, too.
pub fn apply(
    storage: &dyn Storage,
    plan: &Plan,
    now: SystemTime,
    tell: &dyn Fn(&[Key]),
) -> std::result::Result<u64, DeletionFailed> {
    let mut deleted = 0;
    record::write(storage, plan, now).map_err(|error| DeletionFailed { deleted, error })?;
    match delete_in_batches(storage, plan, tell, &mut deleted) {
        Ok(()) => Ok(deleted),
        Err(error) => Err(DeletionFailed { deleted, error }),
    }
}

fn delete_in_batches(
    storage: &dyn Storage,
    plan: &Plan,
    tell: &dyn Fn(&[Key]),
    deleted: &mut u64,
) -> Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut delete = |batch: &mut Vec<Key>| {
        tell(batch); // before, as some of them may be gone where it fails
        let (gone, end) = match storage.delete_all(batch) {
            Ok(()) => (batch.len() as u64, Ok(())),
            Err(DeletionFailed { deleted, error }) => (deleted, Err(error)),
        };
        *deleted += gone;
        batch.clear();
        end
    };
    let young_since = quarantine::young_since(storage)?;
    for item in inventory::items(storage)? {
        let item = item?;
        if verdict(plan, &item).is_some() && !is_young(&item, young_since) {
            batch.extend(item.key());
        }
        if batch.len() == BATCH {
            delete(&mut batch)?;
        }
    }
    if batch.is_empty() { Ok(()) } else { delete(&mut batch) }
}

/// Whether a push may still say 0 for it without a look.
fn is_young(item: &Item, since: Option<SystemTime>) -> bool {
    since.is_some_and(|since| item.modified > since)
}

/// Whether an object goes, and why.
fn verdict(plan: &Plan, item: &Item) -> Option<(SegmentName, Why)> {
    let name = match &item.stored {
        Stored::Wal(name, _) | Stored::Variant(name, ..) => *name,
        // Nobody here can tell what it holds.
        Stored::Unknown(..) | Stored::Stranger => return None,
    };
    item.key()?;
    Some((name.segment()?, plan.deletes(name)?))
}

#[cfg(test)]
mod tests;
