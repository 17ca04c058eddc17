//! `--backups`: every part of every base backup read, decoded and compared with its record, every file in
//! it with the manifest, and whether its WAL is there.

use super::Count;
use crate::archive::backups::{self, FetchError, Held, State, missing_wal, newest_without_backup};
use crate::archive::inventory::{self, Inventory};
use crate::base_backup::manifest::ManifestError;
use crate::base_backup::part::Proof;
use crate::base_backup::sums::Sums;
use crate::base_backup::{Record, Stored, tar};
use crate::finding::{Finding, FindingKind};
use crate::storage::{self, Shared, Storage};
use crate::wal::{BackupHistory, WalName};

/// Counts our own backups among those that tell which WAL must be there: a backup of a standby leaves no
/// `.backup` file. Not one whose last segment may be on its way.
pub fn add_own(inventory: &mut Inventory, storage: &dyn Storage) -> storage::Result<()> {
    for held in backups::all(storage)? {
        let Some(record) = held.known() else { continue };
        let last = |files: &inventory::TimelineFiles| files.segments.last();
        if inventory.timelines.values().filter_map(last).max() < Some(record.segments().1) {
            continue;
        }
        let own = of_record(record);
        if !inventory.backups.iter().any(|known| known.name() == own.name()) {
            inventory.backups.push(own);
        }
    }
    inventory.backups.sort_by_key(inventory::Backup::name);
    Ok(())
}

/// The backup history file that a primary would have written.
fn of_record(record: &Record) -> inventory::Backup {
    let time = |time| humantime::format_rfc3339_seconds(time).to_string();
    inventory::Backup {
        start_segment: record.start_segment(),
        offset: u32::try_from(record.id.start.0 % record.segment_size.bytes()).unwrap_or(u32::MAX),
        content: Ok(BackupHistory {
            start: record.id.start,
            start_segment: record.start_segment(),
            stop: record.stop,
            stop_segment: record.stop_segment(),
            label: record.label.clone(),
            start_time: time(record.id.started()),
            stop_time: time(record.finished),
        }),
    }
}

/// What is wrong with the backups of all destinations that were listed; one that has no record is none,
/// and no finding.
pub fn verify_backups(
    storages: &[Shared],
    inventories: &[Inventory],
    count: &mut Count,
    progress: &mut dyn FnMut(&Count),
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for storage in storages {
        let place = storage.place();
        let held = match backups::all(storage.as_ref()) {
            Ok(held) => held,
            Err(error) => {
                findings.push(Finding::new(FindingKind::NotRead, "backups/", place, error.to_string()));
                continue;
            }
        };
        let inventory = inventories.iter().find(|inventory| inventory.place == place);
        for one in &held {
            let mut found = look(storage.as_ref(), one, count);
            if let (Some(record), Some(inventory)) = (one.record(), inventory) {
                found.extend(wal(inventory, record));
            }
            findings.extend(found);
            progress(count);
        }
        findings.extend(inventory.and_then(|inventory| unled(inventory, &held)));
    }
    findings
}

/// Whether the newest timeline can be recovered from none of them. Nothing is said where there is no complete
/// one: others may be another tool's.
pub fn unled(inventory: &Inventory, held: &[Held]) -> Option<Finding> {
    let complete: Vec<&Record> = held.iter().filter_map(Held::record).collect();
    let newest =
        newest_without_backup(inventory, complete.iter().copied()).filter(|_| !complete.is_empty())?;
    let what = format!("no base backup leads to timeline {newest}, the newest");
    let finding =
        Finding::new(FindingKind::NoBackup, WalName::TimelineHistory(newest), &inventory.place, what);
    Some(finding.hint(format!(
        "take one of the server that is on it with \"wal-archive backup\"; if nobody needs the timeline, as after a \
         rehearsal that archived: \"wal-archive quarantine --timeline {newest}\""
    )))
}

/// The WAL without which it cannot be restored.
fn wal(inventory: &Inventory, record: &Record) -> Option<Finding> {
    let what = match missing_wal(inventory, record) {
        Ok(gaps) => {
            let gap = gaps.into_iter().min_by_key(|gap| gap.first)?;
            format!("it cannot be restored: \"{}\" is missing", inventory.name(gap.timeline, gap.first))
        }
        Err(unreadable) => format!("whether its WAL is there is not known: \"{}\"", unreadable.key),
    };
    let finding = Finding::new(FindingKind::Missing, record.id, &inventory.place, what);
    Some(finding.hint("its WAL may still be on its way: look at pg_stat_archiver"))
}

fn look(storage: &dyn Storage, held: &Held, count: &mut Count) -> Vec<Finding> {
    let damaged = |what: String| {
        Finding::new(FindingKind::Damaged, held.id, storage.place(), what)
            .hint("take a new backup; another destination may have this one whole")
    };
    match &held.state {
        State::Incomplete => Vec::new(),
        State::Unreadable(reason) | State::Damaged(_, reason) => vec![damaged(reason.clone())],
        State::Complete(record) => match read(storage, record, count) {
            Ok(reasons) => reasons.into_iter().map(damaged).collect(),
            Err(finding) => vec![*finding],
        },
    }
}

/// Reads all of a backup; what is wrong with it. `Err`: it could not be read.
fn read(
    storage: &dyn Storage,
    record: &Record,
    count: &mut Count,
) -> std::result::Result<Vec<String>, Box<Finding>> {
    let mut sums = Sums::default();
    let mut reasons = Vec::new();
    let mut shut = false;
    for series in &record.series {
        sums.begin_tar(series.tablespace.as_ref().map(|(oid, _)| *oid));
        let mut reader = tar::Reader::default();
        for part in &series.parts {
            let mut content = Vec::with_capacity(usize::try_from(part.size).unwrap_or(0));
            match backups::fetch(storage, (record, part), Proof::Content, &mut content) {
                Ok(()) => {}
                Err(FetchError::Damaged(reason)) => {
                    reasons.push(reason);
                    continue;
                }
                Err(FetchError::Shut(_)) => {
                    count_shut(count, part);
                    shut = true;
                    continue;
                }
                Err(FetchError::Storage(error)) => return Err(not_read(storage, record, &error.to_string())),
                Err(FetchError::Output(error)) => return Err(not_read(storage, record, &error.to_string())),
            }
            count_opened(count, part);
            // Once a part is damaged, what follows it is no tar any more.
            if reasons.is_empty()
                && !shut
                && let Err(error) = reader.push(&content, &mut sums)
            {
                reasons.push(reason(error));
            }
        }
        if reasons.is_empty()
            && !shut
            && let Err(error) = reader.finish()
        {
            reasons.push(reason(error));
        }
    }
    let mut manifest = Vec::new();
    let fetched = backups::fetch(storage, (record, &record.manifest), Proof::Content, &mut manifest);
    if fetched.is_ok() {
        count_opened(count, &record.manifest);
    }
    match fetched {
        Err(FetchError::Shut(_)) => count_shut(count, &record.manifest),
        Ok(()) if reasons.is_empty() && !shut => match sums.compare(&mut manifest.as_slice()) {
            Ok((_, differences)) => reasons.extend(differences.said),
            Err(ManifestError::Damaged(reason)) => reasons.push(reason),
            Err(ManifestError::Read(error)) => return Err(not_read(storage, record, &error.to_string())),
        },
        Ok(()) => {}
        Err(FetchError::Damaged(reason)) => reasons.push(reason),
        Err(FetchError::Storage(error)) => return Err(not_read(storage, record, &error.to_string())),
        Err(FetchError::Output(error)) => return Err(not_read(storage, record, &error.to_string())),
    }
    Ok(reasons)
}

fn count_opened(count: &mut Count, object: &Stored) {
    count.objects += 1;
    count.stored += object.stored;
    count.raw += object.size;
}

/// That much was proved: it is what was stored.
fn count_shut(count: &mut Count, object: &Stored) {
    count.objects += 1;
    count.stored += object.stored;
    count.shut += 1;
}

fn reason(error: tar::Error) -> String {
    match error {
        tar::Error::Damaged(reason) => reason,
        tar::Error::Output(what, error) => format!("{what}: {error}"),
    }
}

fn not_read(storage: &dyn Storage, record: &Record, why: &str) -> Box<Finding> {
    Box::new(Finding::new(FindingKind::NotRead, record.id, storage.place(), why.to_owned()))
}
