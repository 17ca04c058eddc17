//! Waiting for the WAL of a backup, without which it cannot be restored.

use crate::archive::backups;
use crate::archive::inventory::Inventory;
use crate::base_backup::Record;
use crate::failure::Failure;
use crate::finding::{Finding, FindingKind};
use crate::host::side_by_side::side_by_side;
use crate::storage::{self, Shared, Storage};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks for the last segment; an archiver that works takes about as long for one.
const PAUSE: Duration = Duration::from_secs(1);

/// Between two looks at the whole archive, where that one is there and another one is not.
const LONG_PAUSE: Duration = Duration::from_secs(10);

/// Waits until every destination has all the WAL that the backup needs to become consistent; what is
/// missing where it has waited long enough.
pub(super) fn for_wal(places: &[Shared], record: &Record, patience: Duration) -> Vec<Finding> {
    let deadline = Instant::now() + patience;
    log::info!("waiting for \"{}\", the last segment that the backup needs", record.stop_segment());
    let findings = side_by_side(places, |storage| for_one(storage.as_ref(), record, deadline));
    findings.into_iter().flatten().collect()
}

fn for_one(storage: &dyn Storage, record: &Record, deadline: Instant) -> Option<Finding> {
    let last = record.stop_segment().to_string();
    let mut arrived = Ok(false);
    loop {
        if !matches!(arrived, Ok(true)) {
            arrived = backups::has_stop_segment(storage, record);
        }
        let missing = match &arrived {
            Ok(true) => missing(storage, record),
            Ok(false) => Ok(Some(last.clone())),
            Err(error) => {
                log::debug!("{error}");
                Ok(Some(last.clone()))
            }
        };
        let waiting = match missing {
            Ok(None) => return None,
            Ok(Some(name)) => not_there(storage, record, &name),
            Err(error) => Finding::of_failure(
                FindingKind::NotRead,
                &last,
                storage.place(),
                &Failure::from_storage((), &error),
            ),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Some(waiting);
        }
        let pause = if matches!(arrived, Ok(true)) { LONG_PAUSE } else { PAUSE };
        thread::sleep(pause.min(left));
    }
}

fn not_there(storage: &dyn Storage, record: &Record, name: &str) -> Finding {
    let what = format!("the backup cannot be restored yet: \"{name}\" is not in \"{}\"", storage.place());
    Finding::new(FindingKind::Missing, name, storage.place(), what).hint(match record.from_standby {
        true => "a standby cannot finish its segment: run \"select pg_switch_wal()\" on the primary",
        false => "look at pg_stat_archiver on the server, and at \"wal-archive check\"",
    })
}

/// The first file that is missing.
fn missing(storage: &dyn Storage, record: &Record) -> storage::Result<Option<String>> {
    let inventory = Inventory::read(storage)?;
    Ok(match backups::missing_wal(&inventory, record) {
        Ok(gaps) => {
            let gap = gaps.into_iter().min_by_key(|gap| gap.first);
            gap.map(|gap| inventory.name(gap.timeline, gap.first).to_string())
        }
        Err(unreadable) => Some(unreadable.key),
    })
}
