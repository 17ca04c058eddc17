//! The archive at a destination as JSON (`docs/json.md`, list).

use super::super::findings;
use super::super::table::time;
use super::backups::{Usable, wal_of};
use super::show::{missing, raw, unfinished};
use super::{Destination, rehearsals};
use crate::archive::backups::Held;
use crate::archive::inventory::{Backup, Content, Gap, Gaps, Inventory, Item, TimelineFiles};
use crate::wal::{Timeline, TimelineHistory};
use serde_json::{Value, json};

/// One destination as JSON.
pub(super) fn destination(at: &Destination<'_>) -> Value {
    let inventory = at.inventory;
    let timelines: Value =
        inventory.timelines.iter().map(|(id, files)| timeline(inventory, *id, files)).collect();
    let backups: Value = inventory.backups.iter().map(|backup| one_backup(inventory, backup)).collect();
    json!({
        "destination": inventory.place,
        "system_id": inventory.system_id.map(|id| id.to_string()),
        "segment_size": inventory.segment_size.map(|size| size.bytes()),
        "foreign": inventory.identity.map(|identity| identity.foreign),
        "objects": inventory.total.objects,
        "stored_bytes": inventory.total.bytes,
        "timelines": timelines,
        "backups": backups,
        "base_backups": base_backups(inventory, at.held),
        "last_rehearsal": at.rehearsal.map(rehearsals::value),
        "unknown_encodings": keys(&inventory.unknown, inventory.unknown_total.objects),
        "misplaced": keys(&inventory.misplaced, inventory.misplaced_total.objects),
        "variants": keys(&inventory.variants, inventory.variants.len() as u64),
        "strangers": keys(&inventory.strangers, inventory.strangers_total.objects),
    })
}

fn keys(items: &[Item], objects: u64) -> Value {
    let keys: Vec<&str> = items.iter().map(|item| item.key.as_str()).collect();
    json!({"objects": objects, "keys": keys})
}

fn timeline(inventory: &Inventory, timeline: Timeline, files: &TimelineFiles) -> Value {
    let name = |number: u64| inventory.name(timeline, number).to_string();
    let known = files.history.as_ref().and_then(|history: &Content<TimelineHistory>| history.as_ref().ok());
    let last = known.and_then(|history| history.ancestors.last());
    let Gaps { lost, expired } = inventory.gaps_of(timeline);
    let gaps =
        |gaps: Vec<Gap>| -> Value { gaps.into_iter().map(|gap| findings::gap(inventory, gap)).collect() };
    let partials: Vec<String> = files.partials.keys().map(|number| name(*number)).collect();
    let unfinished: Value = unfinished(files)
        .map(|(number, item)| json!({"segment": name(number), "key": item.key, "bytes": item.size}))
        .collect();
    json!({
        "timeline": timeline.get(),
        "history": match &files.history {
            Some(Ok(_)) => "read",
            Some(Err(_)) => "unreadable",
            None => "none",
        },
        "parent": last.map(|parent| parent.timeline.get()),
        "switch": last.map(|parent| parent.switch.to_string()),
        "first": files.segments.first().map(name),
        "last": files.segments.last().map(name),
        "segments": files.segments.count(),
        "missing": missing(inventory, timeline),
        "gaps": gaps(lost),
        "expired": gaps(expired),
        "partial": partials,
        "unfinished": unfinished,
        "raw_bytes": raw(inventory, files),
        "stored_bytes": files.stored.bytes,
        "oldest": files.times.map(|(oldest, _)| time(oldest)),
        "newest": files.times.map(|(_, newest)| time(newest)),
    })
}

fn one_backup(inventory: &Inventory, backup: &Backup) -> Value {
    let content = backup.content.as_ref().ok();
    let wal = wal_of(inventory, backup);
    json!({
        "file": backup.name().to_string(),
        "timeline": backup.start_segment.timeline().get(),
        "start_segment": backup.start_segment.to_string(),
        "label": content.map(|content| content.label.as_str()),
        "start": content.map(|content| content.start.to_string()),
        "stop": content.map(|content| content.stop.to_string()),
        "stop_segment": content.map(|content| content.stop_segment.to_string()),
        "start_time": content.map(|content| content.start_time.as_str()),
        "stop_time": content.map(|content| content.stop_time.as_str()),
        "missing": wal.as_ref().ok(),
        "error": wal.as_ref().err(),
    })
}

fn base_backups(inventory: &Inventory, held: &[Held]) -> Value {
    held.iter()
        .map(|one| {
            let record = one.record();
            let usable = Usable::of(inventory, one);
            json!({
                "backup": one.id.to_string(),
                "state": usable.word(),
                "missing": match usable { Usable::Waiting(count) => Some(count), _ => None },
                "error": match usable { Usable::No(reason) | Usable::Unknown(reason) => Some(reason), _ => None },
                "label": record.map(|record| record.label.as_str()),
                "timeline": one.id.timeline.get(),
                "start": one.id.start.to_string(),
                "stop": record.map(|record| record.stop.to_string()),
                "started": time(one.id.started()),
                "finished": record.map(|record| time(record.finished)),
                "raw_bytes": record.map(|record| record.sizes().0),
                "stored_bytes": one.stored(),
                "objects": one.objects.len(),
                "checksums_fine": record.map(|record| record.checksums_fine),
            })
        })
        .collect()
}
