//! How `wal-archive list` shows the archive at a destination: tables for people, and JSON.

use super::super::findings;
use super::super::table::{Align, Cell, Table, Tone, colour, counted, paint, time};
use super::{base_backups, rehearsals};
use crate::archive::backups::Held;
use crate::archive::inventory::{Backup, Content, Gap, Gaps, Inventory, Item, TimelineFiles, Total};
use crate::archive::rehearsals::Rehearsal;
use crate::failure::size;
use crate::object::Stored;
use crate::verify::range;
use crate::wal::{Timeline, TimelineHistory};
use serde_json::{Value, json};

pub(super) fn kind(item: &Item) -> (String, Option<String>) {
    let name = item.stored.name().map(|name| name.to_string());
    let kind = match &item.stored {
        Stored::Wal(_, encoding) if encoding.extension().is_empty() => "bare",
        Stored::Wal(_, encoding) => encoding.extension(),
        Stored::Variant(..) => "variant",
        Stored::Unknown(..) => "unknown",
        Stored::Stranger => "stranger",
    };
    (kind.to_owned(), name)
}

pub(super) fn printable(text: &str) -> String {
    paint(&Cell::from(text), false)
}

/// One destination for people.
pub(super) fn section(inventory: &Inventory, held: &[Held], last: Option<&Rehearsal>) -> String {
    let colour = colour();
    let cluster = match (inventory.system_id, inventory.segment_size) {
        (Some(id), Some(size)) => format!("cluster {id}, segments of {size}"),
        (None, Some(size)) => format!("unknown cluster, segments of {size}"),
        _ => "unknown cluster and segment size".to_owned(),
    };
    let Total { objects, bytes: stored } = inventory.total;
    let mut text =
        format!("{}: {cluster}, {}, {}\n", inventory.place, counted(objects, "object"), size(stored));
    let tables = [
        timelines(inventory),
        gaps(inventory),
        partials(inventory),
        base_backups::table(inventory, held),
        rehearsals::table(last),
        backups(inventory),
        others(inventory),
    ];
    for table in tables {
        if !table.is_empty() {
            text += &format!("\n{}", table.render(colour));
        }
    }
    text
}

fn timelines(inventory: &Inventory) -> Table {
    let mut table = Table::new(&[
        ("timeline", Align::Right),
        ("parent", Align::Right),
        ("switch", Align::Left),
        ("first", Align::Left),
        ("last", Align::Left),
        ("segments", Align::Right),
        ("missing", Align::Right),
        ("raw", Align::Right),
        ("stored", Align::Right),
        ("ratio", Align::Right),
        ("stored from", Align::Left),
        ("to", Align::Left),
    ]);
    for (timeline, files) in &inventory.timelines {
        let name =
            |number: Option<u64>| dash(number.map(|number| inventory.name(*timeline, number).to_string()));
        let (parent, switch) = match &files.history {
            Some(Ok(history)) => (dash(parent(history)), dash(switch(history))),
            Some(Err(_)) => (Cell::new(Tone::Bad, "unreadable"), "-".into()),
            None if *timeline == Timeline::FIRST => ("-".into(), "-".into()),
            None => (Cell::new(Tone::Bad, "unknown"), "-".into()),
        };
        let raw = raw(inventory, files);
        let missing = missing(inventory, *timeline);
        let (oldest, newest) = files.times.map_or((None, None), |(a, b)| (Some(time(a)), Some(time(b))));
        table.row([
            timeline.to_string().into(),
            parent,
            switch,
            name(files.segments.first()),
            name(files.segments.last()),
            files.segments.count().to_string().into(),
            match missing {
                Some(0) => "0".into(),
                Some(missing) => Cell::new(Tone::Notable, missing.to_string()),
                None => "?".into(),
            },
            dash(raw.map(size)),
            size(files.stored.bytes).into(),
            dash(raw.and_then(|raw| ratio(raw, files.stored.bytes))),
            dash(oldest),
            dash(newest),
        ]);
    }
    table
}

fn dash(text: Option<String>) -> Cell {
    text.unwrap_or_else(|| "-".to_owned()).into()
}

fn parent(history: &TimelineHistory) -> Option<String> {
    Some(history.ancestors.last()?.timeline.to_string())
}

fn switch(history: &TimelineHistory) -> Option<String> {
    Some(history.ancestors.last()?.switch.to_string())
}

fn raw(inventory: &Inventory, files: &TimelineFiles) -> Option<u64> {
    Some(files.segments.count().saturating_mul(inventory.segment_size?.bytes()))
}

fn ratio(raw: u64, stored: u64) -> Option<String> {
    (raw > 0 && stored > 0).then(|| format!("{:.1}x", raw as f64 / stored as f64)) // shown with one digit
}

/// How many are missing between the first and the last; unknown without the segment size. What expire
/// removed is not.
fn missing(inventory: &Inventory, timeline: Timeline) -> Option<u64> {
    inventory.segment_size?;
    Some(inventory.gaps_of(timeline).lost.iter().map(|gap| gap.last - gap.first + 1).sum())
}

fn gaps(inventory: &Inventory) -> Table {
    let mut table =
        Table::new(&[("missing on", Align::Right), ("segments", Align::Right), ("names", Align::Left)]);
    let all: Vec<_> = inventory.timelines.keys().map(|timeline| inventory.gaps_of(*timeline)).collect();
    let mut rows = |gaps: &[Gap], tone, note: &str| {
        for gap in gaps {
            table.row([
                gap.timeline.to_string().into(),
                (gap.last - gap.first + 1).to_string().into(),
                Cell::new(tone, format!("{}{note}", range(inventory, *gap))),
            ]);
        }
    };
    all.iter().for_each(|gaps| rows(&gaps.lost, Tone::Notable, ""));
    all.iter().for_each(|gaps| rows(&gaps.expired, Tone::Plain, " (expired between backups)"));
    table
}

/// Unfinished segments: `.partial` ones, and those that were archived cut.
fn unfinished(files: &TimelineFiles) -> impl Iterator<Item = (u64, &Item)> {
    files.partials.iter().flat_map(|(number, items)| items.iter().map(|item| (*number, item)))
}

fn partials(inventory: &Inventory) -> Table {
    let mut table = Table::new(&[
        ("unfinished on", Align::Right),
        ("segment", Align::Left),
        ("bytes", Align::Right),
        ("stored", Align::Left),
        ("key", Align::Left),
    ]);
    for (timeline, files) in &inventory.timelines {
        for (number, item) in unfinished(files) {
            table.row([
                timeline.to_string().into(),
                inventory.name(*timeline, number).to_string().into(),
                item.size.to_string().into(),
                time(item.modified).into(),
                item.key.clone().into(),
            ]);
        }
    }
    table
}

fn backups(inventory: &Inventory) -> Table {
    let mut table = Table::new(&[
        ("backup", Align::Left),
        ("timeline", Align::Right),
        ("start", Align::Left),
        ("stop", Align::Left),
        ("stop segment", Align::Left),
        ("finished", Align::Left),
        ("its WAL", Align::Left),
    ]);
    for backup in &inventory.backups {
        let range = match state(inventory, backup) {
            Ok(0) => Cell::new(Tone::Good, "complete"),
            Ok(missing) => Cell::new(Tone::Bad, format!("{missing} missing")),
            Err(reason) => Cell::new(Tone::Bad, format!("unknown: {reason}")),
        };
        let timeline = backup.start_segment.timeline().to_string();
        match &backup.content {
            Ok(content) => table.row([
                content.label.clone().into(),
                timeline.into(),
                content.start.to_string().into(),
                content.stop.to_string().into(),
                content.stop_segment.to_string().into(),
                content.stop_time.clone().into(),
                range,
            ]),
            Err(_) => {
                let name = backup.name().to_string();
                table.row([
                    name.into(),
                    timeline.into(),
                    dash(None),
                    dash(None),
                    dash(None),
                    dash(None),
                    range,
                ]);
            }
        }
    }
    table
}

/// How many segments a backup lacks to become consistent.
fn state(inventory: &Inventory, backup: &Backup) -> Result<u64, String> {
    let missing = inventory.missing_of(backup).map_err(|unreadable| unreadable.reason)?;
    if inventory.segment_size.is_none() {
        return Err("the segment size is not known".to_owned());
    }
    Ok(missing.iter().map(|gap| gap.last - gap.first + 1).sum())
}

/// How many names of a kind are shown.
const SHOWN: usize = 20;

/// What has no place above: one row each for the first, one for the rest.
fn others(inventory: &Inventory) -> Table {
    let mut table =
        Table::new(&[("other objects", Align::Left), ("bytes", Align::Right), ("key", Align::Left)]);
    let mut rows = |what: &str, tone, items: &[Item], total: u64| {
        for item in items.iter().take(SHOWN) {
            table.row([Cell::new(tone, what), item.size.to_string().into(), item.key.clone().into()]);
        }
        if let Some(more) = total.checked_sub(SHOWN as u64).filter(|more| *more > 0) {
            table.row([Cell::new(tone, what), "".into(), format!("and {more} more").into()]);
        }
    };
    rows("unknown encoding", Tone::Bad, &inventory.unknown, inventory.unknown_total.objects);
    rows("misplaced", Tone::Notable, &inventory.misplaced, inventory.misplaced_total.objects);
    rows("stranger", Tone::Notable, &inventory.strangers, inventory.strangers_total.objects);
    table
}

/// One destination as JSON.
pub(super) fn destination(inventory: &Inventory, held: &[Held], last: Option<&Rehearsal>) -> Value {
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
        "base_backups": base_backups::value(inventory, held),
        "last_rehearsal": last.map(rehearsals::value),
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
    let state = state(inventory, backup);
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
        "missing": state.as_ref().ok(),
        "error": state.as_ref().err(),
    })
}
