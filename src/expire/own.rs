//! The base backups that this program took: they name themselves, and what no rule keeps goes with its
//! WAL, the record first, so that what is left is never taken for complete.

use super::backups::Backup;
use super::plan::{Fate, Plan};
use crate::archive::backups::{self, Held, State};
use crate::base_backup::{BackupId, Record};
use crate::failure::Failure;
use crate::storage::{DeletionFailed, Result, Shared, Storage};
use crate::wal::WalName;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

/// A backup without a record that is older than this is being made by nobody any more.
const UNFINISHED: Duration = Duration::from_secs(24 * 3600);

/// One of our own backups, or what is left of it.
pub struct Own {
    id: BackupId,
    /// Of one of which everything is at one destination or another. A damaged one must not count as one
    /// of those to keep.
    whole: Option<Record>,
    /// The destinations at which all of it is, by their number.
    whole_at: BTreeSet<usize>,
}

/// Our own backups.
pub fn read(destinations: &[Shared]) -> std::result::Result<Vec<Own>, Failure> {
    let mut found: BTreeMap<BackupId, Vec<(usize, Held)>> = BTreeMap::new();
    for (place, storage) in destinations.iter().enumerate() {
        for held in backups::all(storage.as_ref()).map_err(|error| Failure::from_storage((), &error))? {
            match &held.state {
                State::Damaged(_, reason) => {
                    log::warn!("backup {} in \"{}\" is damaged: {reason}", held.id, storage.place());
                }
                State::Unreadable(reason) => {
                    let what = format!("in \"{}\" {reason}, so nothing may be deleted", storage.place());
                    return Err(Failure::new((), what)
                        .hint("use the version of this program that wrote it, or delete the backup's folder by hand"));
                }
                State::Complete(_) | State::Incomplete => {}
            }
            found.entry(held.id).or_default().push((place, held));
        }
    }
    let own = |(id, copies): (BackupId, Vec<(usize, Held)>)| {
        let whole = backups::whole_together(copies.iter().map(|(_, held)| held)).cloned();
        let complete = copies.iter().filter(|(_, held)| held.record().is_some());
        Own { id, whole, whole_at: complete.map(|(place, _)| *place).collect() }
    };
    Ok(found.into_iter().map(own).collect())
}

/// All that the plan is to know: our own that are whole, and of the others those that are not ours. A
/// `.backup` file says that a backup of ours was taken, not that it is still there.
pub fn with_own(named: Vec<Backup>, own: &[Own]) -> Vec<Backup> {
    let is_own = |backup: &Backup| {
        own.iter().any(|one| (one.id.start, one.id.timeline) == (backup.start, backup.timeline))
    };
    let whole = own.iter().filter_map(|one| {
        let record = one.whole.as_ref()?;
        Some(Backup {
            start: record.id.start,
            timeline: record.id.timeline,
            stop: Some(record.stop),
            finished: record.finished,
            label: record.label.clone(),
            whole_at: Some(one.whole_at.clone()),
        })
    });
    named.into_iter().filter(|backup| !is_own(backup)).chain(whole).collect()
}

/// A backup that goes from a destination, and why.
#[derive(Clone, Debug)]
pub struct DoomedBackup {
    pub held: Held,
    pub why: &'static str,
}

/// What goes from a destination by the plan: what no rule keeps, and what was left unfinished.
pub fn doomed(storage: &dyn Storage, plan: &Plan) -> Result<Vec<DoomedBackup>> {
    let clock = storage.clock()?;
    let all = backups::all(storage)?;
    Ok(all
        .into_iter()
        .filter_map(|held| why(&held, plan, clock).map(|why| DoomedBackup { held, why }))
        .collect())
}

fn why(held: &Held, plan: &Plan, clock: SystemTime) -> Option<&'static str> {
    match &held.state {
        State::Incomplete => {
            let age = held.newest().and_then(|newest| clock.duration_since(newest).ok());
            age.filter(|age| *age > UNFINISHED).map(|_| "left unfinished more than 24 hours ago")
        }
        State::Unreadable(_) => None,
        State::Complete(record) | State::Damaged(record, _) => {
            let (start, timeline) = (record.id.start, record.id.timeline);
            let dropped = plan.backups.iter().any(|(backup, fate)| {
                (backup.start, backup.timeline) == (start, timeline) && *fate == Fate::Dropped
            });
            // Not where its WAL stays, whatever the reason.
            let goes = plan.deletes(WalName::Segment(record.start_segment())).is_some();
            (dropped && goes).then_some("no rule keeps it")
        }
    }
}

/// Deletes backups; how many objects are gone.
pub fn delete(
    storage: &dyn Storage,
    doomed: &[DoomedBackup],
    tell: &dyn Fn(&[crate::object::Key]),
) -> std::result::Result<u64, DeletionFailed> {
    let mut deleted = 0;
    for DoomedBackup { held, .. } in doomed {
        let keys = held.keys();
        let Some((record, parts)) = keys.split_first() else { continue };
        tell(&keys);
        storage.delete(record).map_err(|error| DeletionFailed { deleted, error })?;
        storage
            .delete_all(parts)
            .map_err(|failed| DeletionFailed { deleted: deleted + failed.deleted, error: failed.error })?;
        deleted += held.objects.len() as u64;
    }
    Ok(deleted)
}
