//! Whether what PostgreSQL takes for archived is there, at every destination.
//!
//! After exit 0 PostgreSQL recycles a file; where it is not in the archive it is lost for good, and nothing
//! in PostgreSQL says so. Knows: the names. Does not know: whether an object is intact; `verify` reads it.

use super::{Finding, Place, Rights, State};
use crate::archive::inventory::Inventory;
use crate::archive::lookup;
use crate::failure::Failure;
use crate::object::{Key, Stored};
use crate::storage::deadline::Deadline;
use crate::storage::{Kind, Result, Storage, hides_what_is_missing};
use crate::wal::{Timeline, WalName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

const CHECK: &str = "archived";

/// Looks for every file that counts as archived; `None` where there is none, or where the rights do not
/// let it be seen.
pub(super) fn check(
    place: &Place,
    archived: &BTreeSet<WalName>,
    rights: Rights,
    at: Instant,
) -> Option<Finding> {
    let newest = archived.iter().max_by_key(|name| (name.segment().is_some(), name.timeline(), **name))?;
    let storage = Deadline::new(Arc::clone(&place.storage), at);
    let of = storage.place();
    let missing = match rights {
        // Nothing may be listed, but wal-push may read what it stored.
        Rights::Push => match storage.head(&Key::of(*newest, storage.keys().expects())) {
            Ok(_) => Ok(Vec::new()),
            Err(error) if error.kind() == Kind::NotFound => Ok(vec![*newest]),
            Err(error) => Err(error),
        },
        Rights::All | Rights::Fetch => missing(&storage, archived),
    };
    match missing.and_then(|missing| lost(&storage, missing, rights)) {
        Ok(lost) => Some(finding(of, *newest, &lost)),
        Err(error) if hides_what_is_missing(&storage, &error) => None,
        Err(error) => {
            Some(Finding::of_failure(State::Unknown, CHECK, of, &Failure::from_storage((), &error)))
        }
    }
}

fn finding(of: &str, newest: WalName, lost: &[WalName]) -> Finding {
    let (Some(first), Some(last)) = (lost.first(), lost.last()) else {
        let what = format!("\"{of}\" holds what PostgreSQL takes for archived, up to \"{newest}\"");
        return Finding::fine(CHECK, of, what);
    };
    let what = match lost.len() {
        1 => format!("PostgreSQL takes \"{first}\" for archived, and \"{of}\" does not hold it"),
        more => format!(
            "PostgreSQL takes {more} WAL files for archived that \"{of}\" does not hold, \"{first}\" to \"{last}\""
        ),
    };
    Finding::new(State::Critical, CHECK, of, what).hint(
        "archive_command answered 0 without archiving them, a standby received them and was promoted, or they were \
         removed: what pg_wal still holds can be archived by hand, in the data directory with \"wal-push pg_wal/NAME\"; \
         else bring it from another destination with \"wal-archive copy\", or take a new base backup now",
    )
}

/// The files of which no object is there, in whatever encoding.
fn missing(storage: &dyn Storage, archived: &BTreeSet<WalName>) -> Result<Vec<WalName>> {
    let mut by_timeline: BTreeMap<Timeline, BTreeSet<WalName>> = BTreeMap::new();
    let mut missing = Vec::new();
    for name in archived {
        match name {
            WalName::TimelineHistory(_) => {
                if !is_there(storage, *name)? {
                    missing.push(*name);
                }
            }
            _ => drop(by_timeline.entry(name.timeline()).or_default().insert(*name)),
        }
    }
    for (timeline, names) in by_timeline {
        let mut open = names;
        // WAL may also stand directly under the prefix of a directory.
        for folder in lookup::folders(storage.nature().is_directory()) {
            seen(storage, folder, timeline, &mut open)?;
        }
        missing.extend(open);
    }
    missing.sort();
    Ok(missing)
}

/// Takes out of `open` what stands in a folder.
fn seen(storage: &dyn Storage, folder: &str, timeline: Timeline, open: &mut BTreeSet<WalName>) -> Result<()> {
    let segments = || open.iter().filter_map(|name| name.segment());
    let (Some(first), Some(last)) = (segments().min(), segments().max()) else { return Ok(()) };
    let prefix = format!("{folder}{:08X}", timeline.get());
    // From a little before the first name on, so that the bare file is seen.
    let text = first.to_string();
    let after = format!("{folder}{}", text.get(..text.len() - 1).unwrap_or_default());
    for entry in storage.list(&prefix, &after)? {
        let key = entry?.key;
        let stored = Stored::parse(key.strip_prefix(folder).unwrap_or(&key));
        let Some(name) = stored.name() else { continue };
        if name.segment().is_some_and(|segment| segment > last) {
            break;
        }
        open.remove(&name); // a cut segment was acknowledged under its variant
        if let Some(segment) = stored.partial() {
            open.remove(&WalName::Partial(segment));
        }
    }
    Ok(())
}

fn is_there(storage: &dyn Storage, name: WalName) -> Result<bool> {
    match storage.head(&Key::of(name, storage.keys().expects())) {
        Ok(_) => return Ok(true),
        Err(error) if error.kind() == Kind::NotFound => {}
        Err(error) => return Err(error),
    }
    let around = lookup::copies(storage, name, true)?;
    Ok(!around.keys.is_empty() || around.unknown.is_some())
}

/// What of it is lost: not what `expire` removed, nor what is older than everything that is there, where
/// archiving to this place began later. Of an archive of other tools the root counts, too.
fn lost(storage: &dyn Storage, missing: Vec<WalName>, rights: Rights) -> Result<Vec<WalName>> {
    if missing.is_empty() || rights == Rights::Push {
        return Ok(missing);
    }
    let inventory = Inventory::read(storage)?;
    let segments = inventory.timelines.values().filter_map(|files| files.segments.first());
    // A backup needs every segment from its first one on.
    let backups = inventory.backups.iter().filter_map(|backup| inventory.number(backup.start_segment));
    let oldest = segments.chain(backups).min();
    let is_lost = |name: &WalName| {
        let Some((segment, number)) = name.segment().and_then(|s| Some((s, inventory.number(s)?))) else {
            return true;
        };
        let held = matches!(name, WalName::Segment(_)) && inventory.holds(segment);
        !held
            && oldest.is_none_or(|oldest| number >= oldest)
            && !inventory.is_expired(segment.timeline(), number)
    };
    Ok(missing.into_iter().filter(is_lost).collect())
}

/// The history of a timeline that the data directory is on and whose pg_wal does not have it: without one
/// anywhere, recovery cannot follow to that timeline.
pub(super) fn history(places: &[&Place], timeline: Timeline, at: Instant) -> Option<Finding> {
    let name = WalName::TimelineHistory(timeline);
    for place in places {
        let storage = Deadline::new(Arc::clone(&place.storage), at);
        // What cannot be asked says so in its own finding.
        if is_there(&storage, name).unwrap_or(true) {
            return None;
        }
    }
    let what = format!(
        "neither pg_wal nor any destination has \"{name}\": WAL of timeline {timeline} is archived without its history"
    );
    Some(Finding::new(State::Warning, "history", "pg_wal", what).hint(
        "bring the file into pg_wal from another server of that timeline, or take a new base backup: recovery from an older one cannot follow",
    ))
}
