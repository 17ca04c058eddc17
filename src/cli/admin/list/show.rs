//! How `wal-archive list` shows the archive at a destination to people.

use super::super::clock::local;
use super::super::look::Look;
use super::super::table::{Align, Cell, Table, Tone, counted};
use super::{Destination, backups, rehearsals};
use crate::archive::inventory::{Gap, Inventory, Item, TimelineFiles, Total};
use crate::archive::quarantine::Aside;
use crate::failure::size;
use crate::object::Stored;
use crate::verify::range;
use crate::wal::{Timeline, TimelineHistory, WalName};

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

/// One destination for people.
pub(super) fn section(at: &Destination<'_>, look: Look) -> String {
    let inventory = at.inventory;
    let cluster = match (inventory.system_id, inventory.segment_size) {
        (Some(id), Some(size)) => format!("cluster {id}, segments of {size}"),
        (None, Some(size)) => format!("unknown cluster, segments of {size}"),
        _ => "unknown cluster and segment size".to_owned(),
    };
    let Total { objects, bytes: stored } = inventory.total;
    let head = format!("{}: {cluster}, {}, {}", inventory.place, counted(objects, "object"), size(stored));
    let mut text = format!("{}\n", look.wrap(&head, 4));
    let tables = [
        timelines(inventory),
        gaps(inventory),
        partials(inventory),
        backups::table(inventory, at.held),
        rehearsals::table(at.rehearsal),
        quarantined(inventory, at.aside),
        others(inventory),
    ];
    for table in tables {
        if !table.is_empty() {
            text += &format!("\n{}", table.render(look));
        }
    }
    text
}

fn timelines(inventory: &Inventory) -> Table {
    let mut table = Table::new(&[
        ("timeline", Align::Right),
        ("status", Align::Left),
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
    ])
    .leaving_out(&[
        "ratio",
        "raw",
        "stored from",
        "missing",
        "to",
        "switch",
        "parent",
        "stored",
        "segments",
    ]);
    for (timeline, files) in &inventory.timelines {
        let name =
            |number: Option<u64>| dash(number.map(|number| inventory.name(*timeline, number).to_string()));
        let history = files.history.as_ref().and_then(|history| history.as_ref().ok());
        let raw = raw(inventory, files);
        table.row([
            timeline.to_string().into(),
            status(inventory, *timeline, files),
            dash(history.and_then(parent)),
            dash(history.and_then(switch)),
            name(files.segments.first()),
            name(files.segments.last()),
            files.segments.count().to_string().into(),
            missing(inventory, *timeline).map_or_else(|| "?".to_owned(), |count| count.to_string()).into(),
            dash(raw.map(size)),
            size(files.stored.bytes).into(),
            dash(raw.and_then(|raw| ratio(raw, files.stored.bytes))),
            dash(files.times.map(|(oldest, _)| local(oldest))),
            dash(files.times.map(|(_, newest)| local(newest))),
        ]);
    }
    table
}

/// What is wrong with a timeline, as far as names and its history tell.
fn status(inventory: &Inventory, timeline: Timeline, files: &TimelineFiles) -> Cell {
    let is_oldest = inventory.timelines.keys().next() == Some(&timeline);
    let missing = missing(inventory, timeline).unwrap_or(0);
    let unread = files.unread.count();
    let parts = [
        (Tone::Bad, matches!(files.history, Some(Err(_))), "history unreadable".to_owned()),
        (Tone::Bad, files.history.is_none() && !is_oldest, "no history".to_owned()),
        (Tone::Bad, unread > 0, format!("{unread} unread")),
        (Tone::Notable, missing > 0, format!("{missing} missing")),
        (Tone::Plain, files.segments.count() == 0, "no segments".to_owned()),
    ];
    let mut wrong = parts.into_iter().filter(|(_, is_so, _)| *is_so).map(|(tone, _, what)| (tone, what));
    let Some((tone, mut text)) = wrong.next() else { return Cell::new(Tone::Good, "whole") };
    wrong.for_each(|(_, what)| text += &format!(", {what}"));
    Cell::new(tone, text)
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

pub(super) fn raw(inventory: &Inventory, files: &TimelineFiles) -> Option<u64> {
    Some(files.segments.count().saturating_mul(inventory.segment_size?.bytes()))
}

fn ratio(raw: u64, stored: u64) -> Option<String> {
    (raw > 0 && stored > 0).then(|| format!("{:.1}x", raw as f64 / stored as f64)) // shown with one digit
}

/// How many are missing between the first and the last; unknown without the segment size. What expire
/// removed is not.
pub(super) fn missing(inventory: &Inventory, timeline: Timeline) -> Option<u64> {
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
pub(super) fn unfinished(files: &TimelineFiles) -> impl Iterator<Item = (u64, &Item)> {
    files.partials.iter().flat_map(|(number, items)| items.iter().map(|item| (*number, item)))
}

fn partials(inventory: &Inventory) -> Table {
    let mut table = Table::new(&[
        ("unfinished on", Align::Right),
        ("segment", Align::Left),
        ("bytes", Align::Right),
        ("stored", Align::Left),
        ("key", Align::Left),
    ])
    .leaving_out(&["segment", "stored", "bytes"]);
    for (timeline, files) in &inventory.timelines {
        for (number, item) in unfinished(files) {
            table.row([
                timeline.to_string().into(),
                inventory.name(*timeline, number).to_string().into(),
                item.size.to_string().into(),
                local(item.modified).into(),
                item.key.clone().into(),
            ]);
        }
    }
    table
}

/// What was moved aside.
fn quarantined(inventory: &Inventory, aside: &[Aside]) -> Table {
    let mut table = Table::new(&[
        ("in quarantine", Align::Left),
        ("bytes", Align::Right),
        ("moved", Align::Left),
        ("archived anew", Align::Left),
    ])
    .leaving_out(&["moved", "bytes"]);
    for Aside { key, name, size, moved } in aside.iter().take(SHOWN) {
        let anew = if holds(inventory, *name) { "yes".into() } else { Cell::new(Tone::Notable, "no") };
        table.row([key.as_str().into(), size.to_string().into(), local(*moved).into(), anew]);
    }
    if let Some(more) = aside.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        table.row([format!("and {more} more").into()]);
    }
    table
}

fn holds(inventory: &Inventory, name: WalName) -> bool {
    let files = inventory.timelines.get(&name.timeline());
    match name {
        WalName::Segment(segment) => inventory.holds(segment),
        WalName::Partial(segment) => inventory
            .number(segment)
            .is_some_and(|number| files.is_some_and(|files| files.partials.contains_key(&number))),
        WalName::TimelineHistory(_) => files.is_some_and(|files| files.history.is_some()),
        WalName::BackupHistory(..) => inventory.backups.iter().any(|backup| backup.name() == name),
    }
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
