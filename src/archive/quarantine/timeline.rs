//! A whole timeline moved aside: of a rehearsal that archived, or of a server that was given up.
//!
//! Its history goes last, so that an interrupted move can be repeated and the files that are left are never
//! those of a timeline of unknown origin.

use crate::archive::backups;
use crate::archive::inventory::{Inventory, Item};
use crate::object::Stored;
use crate::object::key::WAL_FOLDER;
use crate::storage::{Result, Storage};
use crate::wal::{Timeline, WalName};
use std::time::Duration;

/// For so long after its newest file a server may still be archiving on the timeline.
const BUSY: Duration = Duration::from_secs(15 * 60);

/// Every object of the timeline's WAL files, in whatever encoding, its history last.
pub fn of_timeline(storage: &dyn Storage, timeline: Timeline) -> Result<Vec<(Item, WalName)>> {
    let (mut files, mut histories) = (Vec::new(), Vec::new());
    for folder in [WAL_FOLDER, ""] {
        for entry in storage.list(&format!("{folder}{:08X}", timeline.get()), "")? {
            let entry = entry?;
            let stored = Stored::parse(entry.key.strip_prefix(folder).unwrap_or(&entry.key));
            let Some(name) = stored.name() else { continue };
            let item = Item { stored, key: entry.key, size: entry.size, modified: entry.modified };
            match name {
                WalName::TimelineHistory(_) => histories.push((item, name)),
                _ => files.push((item, name)),
            }
        }
    }
    files.append(&mut histories);
    Ok(files)
}

/// Why the timeline must stay, for people; empty if nothing here needs it.
pub fn needs_of_timeline(
    storage: &dyn Storage,
    timeline: Timeline,
    objects: &[(Item, WalName)],
) -> Result<Vec<String>> {
    let inventory = Inventory::read(storage)?;
    let mut needs = Vec::new();
    if inventory.timelines.keys().next() == Some(&timeline) {
        needs.push("it is the oldest timeline of the archive".to_owned());
    }
    for (child, files) in &inventory.timelines {
        if let Some(Ok(history)) = &files.history
            && history.ancestors.iter().any(|ancestor| ancestor.timeline == timeline)
        {
            needs.push(format!("timeline {child} continues it"));
        }
    }
    let own = backups::all(storage)?.into_iter().filter(|held| held.id.timeline == timeline);
    needs.extend(own.map(|held| format!("the base backup {} was taken on it", held.id)));
    let newest = objects.iter().map(|(item, _)| item.modified).max();
    let now = storage.clock()?;
    if newest.is_some_and(|newest| newest.checked_add(BUSY).is_some_and(|end| end > now)) {
        needs.push(
            "its newest file was stored less than 15 minutes ago: a server may be archiving on it".to_owned(),
        );
    }
    Ok(needs)
}
