//! What `wal-archive verify` found, for people.

use super::super::super::exit::AdminExit;
use super::super::clock::local;
use super::super::findings;
use super::super::look::Look;
use super::super::table::{Align, Cell, Table, Tone, counted, paint};
use crate::failure::size;
use crate::finding::FindingKind;
use crate::verify::{Depth, Options, Recoverable, Unfinished, Verified};
use crate::wal::{Timeline, WalName};
use std::collections::{BTreeMap, BTreeSet};

/// `aside`: how many objects are in the quarantine.
pub(super) fn text(
    report: &Verified,
    options: &Options,
    exit: AdminExit,
    aside: usize,
    look: Look,
) -> String {
    let mut text = findings::text(&report.findings, look);
    for gap in &report.accepted {
        text += &format!("accepted {gap} is missing, as --accept-gap says\n");
    }
    for note in notes(report, options, aside) {
        text += &format!("{}\n", look.wrap(&format!("note: {note}"), 6));
    }
    let tables = [timelines(report, options), recoverable(report, options)];
    for table in tables.iter().filter(|table| !table.is_empty()) {
        let gap = if text.is_empty() { "" } else { "\n" };
        text += &format!("{gap}{}", table.render(look));
    }
    for partial in partials(report) {
        text += &format!("{}\n", look.wrap(&partial, 4));
    }
    if tables.iter().any(|table| !table.is_empty()) {
        text.push('\n');
    }
    text + &look.wrap(&summary(report, options, exit, look), 4) + "\n"
}

/// How it ended, and what was looked at.
fn summary(report: &Verified, options: &Options, exit: AdminExit, look: Look) -> String {
    let count = report.checked;
    let how = match options.depth {
        Depth::Quick => "by name and trailer".to_owned(),
        _ => format!("decoded to {}", size(count.raw)),
    };
    let (word, tone) = match exit {
        AdminExit::Fine => ("sound".to_owned(), Tone::Good),
        AdminExit::Findings => (counted(report.findings.len() as u64, "finding"), Tone::Bad),
        _ => ("could not tell".to_owned(), Tone::Notable),
    };
    let objects = counted(count.objects, "object");
    let word = paint(&Cell::new(tone, word), look.colour);
    format!("{word}: {objects}, {} stored, {how}", size(count.stored))
}

fn notes(report: &Verified, options: &Options, aside: usize) -> Vec<String> {
    let mut notes = Vec::new();
    let strangers: u64 = report.inventories.iter().map(|inventory| inventory.strangers_total.objects).sum();
    if strangers > 0 {
        let objects = counted(strangers, "object");
        notes.push(format!("{objects} not of an archive, left alone (\"wal-archive list\" shows them)"));
    }
    if aside > 0 {
        let objects = counted(aside as u64, "object");
        notes.push(format!("{objects} in quarantine (\"wal-archive quarantine --list\" shows them)"));
    }
    if options.since.is_some() && report.recoverable.is_empty() {
        notes.push("there is no segment as new as --since asks for".to_owned());
    }
    if report.checked.shut > 0 {
        notes.push(format!(
            "{} not decrypted, as no identity here fits: what is stored is what was written, but what it holds and \
             where timelines fork was not proved",
            counted(report.checked.shut, "object")
        ));
    }
    notes
}

/// What was found of each timeline.
fn timelines(report: &Verified, options: &Options) -> Table {
    let mut table =
        Table::new(&[("timeline", Align::Right), ("newest segment", Align::Left), ("status", Align::Left)]);
    // Of two clusters nothing was looked at.
    if report.checked.objects == 0 {
        return table;
    }
    let is_part = options.since.is_some() || options.label.is_some() || report.checked.shut > 0;
    let of = |name: &str| -> Option<Timeline> {
        let name: WalName = name.split("..").next()?.parse().ok()?;
        Some(name.timeline())
    };
    let mut found: BTreeMap<Timeline, BTreeMap<FindingKind, u32>> = BTreeMap::new();
    for finding in &report.findings {
        if let Some(timeline) = of(&finding.name) {
            *found.entry(timeline).or_default().entry(finding.kind).or_default() += 1;
        }
    }
    let timelines: BTreeSet<Timeline> =
        report.inventories.iter().flat_map(|inventory| inventory.timelines.keys().copied()).collect();
    for timeline in timelines {
        let newest = report.inventories.iter().filter_map(|inventory| {
            let last = inventory.timelines.get(&timeline)?.segments.last()?;
            Some(inventory.name(timeline, last))
        });
        let status = match found.get(&timeline) {
            Some(kinds) => {
                let parts: Vec<String> =
                    kinds.iter().map(|(kind, count)| format!("{count} {}", kind.word())).collect();
                let unknown = kinds.keys().all(|kind| *kind == FindingKind::NotRead);
                Cell::new(if unknown { Tone::Notable } else { Tone::Bad }, parts.join(", "))
            }
            None if is_part => "no finding".into(),
            None => Cell::new(Tone::Good, "sound"),
        };
        let newest = newest.max().map_or_else(|| "-".to_owned(), |newest| newest.to_string());
        table.row([timeline.to_string().into(), newest.into(), status]);
    }
    table
}

/// How far each backup leads along each timeline.
fn recoverable(report: &Verified, options: &Options) -> Table {
    let mut heading =
        vec![("recoverable from", Align::Left), ("segment", Align::Left), ("timeline", Align::Right)];
    heading.push(("to segment", Align::Left));
    if options.depth == Depth::Records {
        heading.extend([("end", Align::Left), ("last commit", Align::Left)]);
    }
    heading.push(("", Align::Left));
    let optional: &[&str] = match options.depth {
        Depth::Records => &["segment", "to segment"],
        _ => &["segment"],
    };
    let mut table = Table::new(&heading).leaving_out(optional);
    let dash = |text: Option<String>| Cell::from(text.unwrap_or_else(|| "-".to_owned()));
    for way in &report.recoverable {
        let mut row: Vec<Cell> = vec![
            way.label.clone().unwrap_or_else(|| "WAL alone".to_owned()).into(),
            way.from.to_string().into(),
            way.timeline.to_string().into(),
            dash(way.to.map(|to| to.to_string())),
        ];
        if options.depth == Depth::Records {
            row.push(dash(way.end.map(|end| end.to_string())));
            row.push(dash(way.last_commit.map(local)));
        }
        row.push(match (way.consistent, way.complete, way.expired) {
            (false, ..) => Cell::new(Tone::Bad, "not usable"),
            (true, false, false) => Cell::new(Tone::Bad, "not to the end"),
            (true, false, true) => Cell::new(Tone::Plain, "to what was expired"),
            (true, true, _) => Cell::new(Tone::Good, "to the end"),
        });
        table.row(row);
    }
    table
}

/// How much further the unfinished segments lead, each once.
fn partials(report: &Verified) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for Recoverable { timeline, partials, .. } in &report.recoverable {
        for Unfinished { file, end, last_commit } in partials {
            let end = end.map_or_else(String::new, |end| format!(" to {end}"));
            let commit =
                last_commit.map_or_else(String::new, |time| format!(", last commit {}", local(time)));
            let line = format!("with {file} (--partial) timeline {timeline} goes on{end}{commit}");
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}
