//! The tables of the report: what the picture shows, to be read.

use super::html::{escape, rest, section, table, within};
use super::picture::{moment, moment_behind};
use super::{Report, Retention};
use crate::archive::backups::Held;
use crate::archive::inventory::{Inventory, Runs};
use crate::archive::rehearsals::Rehearsal;
use crate::cli::admin::table::counted;
use crate::failure::size;
use crate::finding::Finding;
use crate::restore::window::Window;
use crate::wal::Timeline;
use std::time::SystemTime;

fn dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

pub(super) fn findings(report: &Report) -> String {
    let one = |finding: &Finding| {
        let hint = finding
            .hint
            .as_ref()
            .map_or_else(String::new, |hint| format!("<br>What to do: {}", escape(hint)));
        format!(
            "<li><span class=\"kind\">{}</span> {} in {}: {}{hint}</li>\n",
            finding.kind.word(),
            escape(&finding.name),
            escape(&finding.place),
            escape(&finding.reason)
        )
    };
    let (list, left) = within(30_000, report.findings.iter().map(one));
    let content = match list.is_empty() {
        true => "<p>None.</p>\n".to_owned(),
        false => format!("<ul>\n{list}</ul>\n{}", rest(left, "findings: \"wal-archive verify\" shows all")),
    };
    section("Findings", &content)
}

/// What each has, whether it agrees with the others, and when it answered.
pub(super) fn destinations(report: &Report) -> String {
    let listed = &report.listed;
    let answered = listed.inventories.iter().zip(&listed.backups).zip(&listed.answers).map(
        |((inventory, backups), (at, took))| {
            vec![
                inventory.place.clone(),
                format!("{}, {}", counted(inventory.total.objects, "object"), size(inventory.total.bytes)),
                backups.len().to_string(),
                agreement(report, inventory, backups),
                format!("{}, after {:.1} s", moment(*at), took.as_secs_f64()),
            ]
        },
    );
    let silent = listed.unread().iter().map(|unread| {
        let unknown = || "not known".to_owned();
        vec![unread.place.clone(), unknown(), "-".to_owned(), unknown(), format!("none: {}", unread.reason)]
    });
    let heading = ["destination", "has", "#base backups", "agrees", "answered"];
    section("Destinations", &table(("Destinations", 12_000), &heading, silent.chain(answered)))
}

/// By names: of what another one holds.
fn agreement(report: &Report, inventory: &Inventory, backups: &[Held]) -> String {
    let listed = &report.listed;
    if listed.inventories.len() + listed.unread().len() < 2 {
        return "it is the only one".to_owned();
    }
    let Some(union) = &report.union else { return "not known".to_owned() };
    let mut lacking = Vec::new();
    let (mut segments, mut first) = (0, None);
    for (timeline, files) in &union.timelines {
        let nothing = Runs::default();
        let own = inventory.timelines.get(timeline).map_or(&nothing, |files| &files.segments);
        for (from, to) in files.segments.ranges().flat_map(|(from, to)| own.missing(from, to)) {
            segments += to - from + 1;
            first.get_or_insert_with(|| union.name(*timeline, from));
        }
    }
    if let Some(first) = first {
        lacking.push(format!("{}, the first {first}", counted(segments, "segment")));
    }
    let lacks = |held: &&Held| !backups.iter().any(|own| own.id == held.id);
    let mut others: Vec<_> = listed
        .backups
        .iter()
        .flatten()
        .filter(|held| held.record().is_some())
        .filter(lacks)
        .map(|held| held.id)
        .collect();
    others.sort();
    others.dedup();
    if !others.is_empty() {
        lacking.push(counted(others.len() as u64, "base backup"));
    }
    match lacking.is_empty() {
        true => "has all that any other has".to_owned(),
        false => format!("lacks what another has: {}", lacking.join("; ")),
    }
}

pub(super) fn timelines(report: &Report) -> String {
    let Some(union) = &report.union else { return String::new() };
    let row = |timeline: &Timeline| {
        let files = union.timelines.get(timeline)?;
        let name = |number: Option<u64>| dash(number.map(|number| union.name(*timeline, number).to_string()));
        let parent = match &files.history {
            Some(Ok(history)) => {
                let parent = history.ancestors.last();
                dash(parent.map(|parent| format!("{} at {}", parent.timeline, parent.switch)))
            }
            Some(Err(_)) => "its history cannot be read".to_owned(),
            None => "-".to_owned(),
        };
        let gaps = union.gaps_of(*timeline);
        let missing: u64 = gaps.lost.iter().map(|gap| gap.last - gap.first + 1).sum();
        Some(vec![
            timeline.to_string(),
            parent,
            name(files.segments.first()),
            name(files.segments.last()),
            files.segments.count().to_string(),
            missing.to_string(),
        ])
    };
    let heading = ["#timeline", "from", "first segment", "last segment", "#segments", "#missing"];
    section("Timelines", &table(("Timelines", 7_000), &heading, union.timelines.keys().rev().filter_map(row)))
}

pub(super) fn windows(report: &Report) -> String {
    let row = |window: &Window| {
        vec![
            window.backup.to_string(),
            window.timeline.to_string(),
            moment_behind(window.from),
            window.before.map_or_else(|| "no moment but its end".to_owned(), moment),
            dash(window.last_commit.map(moment)),
            dash(window.hole.clone()),
            match &report.retention {
                Retention::Known { .. } if report.drops(window) => "delete".to_owned(),
                Retention::Known { .. } => "keep".to_owned(),
                _ => "-".to_owned(),
            },
        ]
    };
    let heading = [
        "backup",
        "#timeline",
        "any moment from",
        "to before",
        "last commit",
        "then missing or damaged",
        "expire",
    ];
    let mut rows: Vec<_> = report.windows_once().map(row).collect();
    rows.reverse();
    section("How far each backup recovers", &table(("How far each backup recovers", 16_000), &heading, rows))
}

pub(super) fn rehearsals(report: &Report) -> String {
    let seconds = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |s| format!("{s:.1} s"));
    let row = |(place, one): &(String, Rehearsal)| {
        vec![
            moment(one.rehearsed),
            one.verdict.word().to_owned(),
            dash(one.backup.clone()),
            dash(one.end_lsn.clone()),
            seconds(one.phases.restore_seconds),
            seconds(one.phases.replay_seconds),
            one.checked.join(", "),
            place.clone(),
        ]
    };
    let heading =
        ["when", "verdict", "backup", "recovered to", "#restore", "#replay", "checked", "recorded in"];
    let (shown, older) = &report.rehearsals;
    let content = match shown.is_empty() {
        true => "<p>None is recorded: \"wal-archive rehearse\" makes one.</p>\n".to_owned(),
        false => {
            table(("Rehearsals", 14_000), &heading, shown.iter().map(row))
                + &rest(*older, "older ones are recorded")
        }
    };
    section("Rehearsals", &content)
}

pub(super) fn settings(report: &Report) -> String {
    let set = report.settings.iter().filter(|row| !row.values.is_empty());
    let rows = set.map(|row| vec![row.setting.clone(), row.values.join(", "), row.from.clone()]);
    section("Settings", &table(("Settings", 14_000), &["setting", "value", "from"], rows))
}

/// What `expire` would delete, as a sentence.
pub(super) fn retention(report: &Report) -> String {
    let text = match &report.retention {
        Retention::NotAsked => {
            "Nothing is shaded as what wal-archive expire would delete: no rule was given, such as --keep-days 14.".to_owned()
        }
        Retention::Unknown(rules, why) => {
            format!("What wal-archive expire {rules} would delete could not be told: {}.", why.message)
        }
        Retention::Known { rules, doomed, .. } => {
            let segments: u64 = doomed.values().map(Runs::count).sum();
            let windows = report.windows.as_deref().unwrap_or_default();
            let mut backups: Vec<_> =
                windows.iter().filter(|window| report.drops(window)).map(|window| window.backup).collect();
            backups.dedup();
            format!(
                "Shaded is what wal-archive expire {rules} would delete now: {} and {}.",
                counted(segments, "segment"),
                counted(backups.len() as u64, "base backup")
            )
        }
    };
    format!("<p>{}</p>\n", escape(&text))
}

/// The stretches of time that can be recovered along the newest timeline that any backup leads onto, oldest first.
pub(super) fn stretches(report: &Report) -> Option<(Timeline, Vec<(SystemTime, SystemTime)>)> {
    let timeline = report.windows_once().map(|window| window.timeline).max()?;
    let windows = report.windows.as_deref().unwrap_or_default();
    let mut here: Vec<(SystemTime, SystemTime)> = windows
        .iter()
        .filter(|window| window.timeline == timeline)
        .map(|window| (window.from, window.before.unwrap_or(window.from)))
        .collect();
    here.sort();
    let mut stretches: Vec<(SystemTime, SystemTime)> = Vec::new();
    for (from, before) in here {
        match stretches.last_mut() {
            Some((_, end)) if from <= *end => *end = before.max(*end),
            _ => stretches.push((from, before)),
        }
    }
    Some((timeline, stretches))
}
