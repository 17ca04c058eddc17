//! The page: HTML by hand, no script, everything inline. What comes from outside goes through [`escape`].

use super::super::table::{counted, time};
use super::{Report, picture};
use crate::archive::inventory::Inventory;
use crate::archive::rehearsals::Rehearsal;
use crate::failure::{exact_time, size};
use crate::finding::Finding;
use crate::restore::window::Window;
use std::time::SystemTime;

/// So many rows of a kind are shown.
const SHOWN: usize = 200;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c1c1c;--paper:#fff;--soft:#57606a;--line:#d0d7de;--wal:#4a7fb5;--reach:#2d7d46;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--paper:#161616;--soft:#a8b1ba;--line:#3d444d;--wal:#6ea3d8;--reach:#58b878;--bad:#ff8a80}}
body{margin:0 auto;max-width:66rem;padding:1.5rem 1rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}.answer{font-size:1.15rem;border-left:4px solid var(--reach);padding-left:.8rem}
.answer.bad{border-color:var(--bad)}.soft{color:var(--soft)}.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem}th,td{text-align:left;padding:.25rem .9rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:break-word;max-width:34rem}th{white-space:nowrap}
td.n,th.n{text-align:right}svg{width:100%;min-width:40rem;height:auto}.label{font:12px system-ui,sans-serif;fill:var(--ink)}
.wal{fill:var(--wal)}.reach,.sound{fill:var(--reach)}.backup{fill:var(--paper);stroke:var(--reach);stroke-width:2.5}
.hole{fill:var(--paper);stroke:var(--bad);stroke-width:2;stroke-dasharray:3 2}.expired{fill:var(--paper);stroke:var(--soft);stroke-dasharray:1 3}
.findings{fill:var(--bad)}.fork{stroke:var(--wal);stroke-width:2;fill:none}.tick{stroke:var(--line)}.kind{color:var(--bad);font-weight:600}
";

/// What a text is in HTML, in attributes too.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c if c.is_control() => escaped.push('\u{FFFD}'),
            c => escaped.push(c),
        }
    }
    escaped
}

pub(super) fn html(report: &Report) -> String {
    let cluster = report.listed.inventories.iter().find_map(|inventory| inventory.system_id);
    let id = cluster.map_or_else(|| "an unknown cluster".to_owned(), |id| format!("cluster {id}"));
    let name = report.cluster.as_ref().map_or(id.clone(), |name| format!("{name}, {id}"));
    let name = escape(&name);
    let sections = [
        section("Timelines, backups, holes", &scrolled(&picture::svg(report))),
        findings(report),
        destinations(report),
        windows(report),
        rehearsals(report),
        days(report),
        settings(report),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>WAL archive of {name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>WAL archive of {name}</h1>\n\
         {}<p class=\"soft\">As listed at {} by wal-archive {}. Contents were not read: that is what verify and rehearse do. \
         All times are UTC.</p>\n{}</body>\n</html>\n",
        answer(report),
        time(report.made),
        env!("CARGO_PKG_VERSION"),
        sections.concat()
    )
}

/// The one sentence.
fn answer(report: &Report) -> String {
    let windows = report.windows.as_deref().unwrap_or_default();
    let from = windows.iter().map(|window| window.from).min();
    let end = windows.iter().filter_map(|window| window.last_commit).max();
    let shown = |at: SystemTime| exact_time(at).unwrap_or_else(|| "-".to_owned());
    let (class, recoverable) = match (&report.windows, from) {
        (Err(why), _) => {
            ("answer bad", format!("How far it can be recovered could not be told: {}.", why.message))
        }
        (Ok(_), None) => ("answer bad", "No base backup of wal-archive can be recovered.".to_owned()),
        (Ok(_), Some(from)) => {
            let end = end.map_or_else(
                || "the end of its WAL".to_owned(),
                |end| format!("{}, the last commit", shown(end)),
            );
            ("answer", format!("Recoverable from {} to {end}.", shown(from)))
        }
    };
    let last = report.listed.rehearsals.iter().flatten().max_by_key(|rehearsal| rehearsal.rehearsed);
    let rehearsed = match last {
        None => "Never rehearsed, as far as is recorded.".to_owned(),
        Some(last) => format!("Last rehearsed {}: {}.", time(last.rehearsed), last.verdict.word()),
    };
    format!("<p class=\"{class}\">{} {}</p>\n", escape(&recoverable), escape(&rehearsed))
}

fn section(title: &str, content: &str) -> String {
    if content.is_empty() { String::new() } else { format!("<h2>{title}</h2>\n{content}") }
}

fn scrolled(content: &str) -> String {
    if content.is_empty() { String::new() } else { format!("<div class=\"scroll\">\n{content}</div>\n") }
}

/// Of headings that begin with `#` the column holds numbers.
fn table(heading: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let class = |title: &str| if title.starts_with('#') { " class=\"n\"" } else { "" };
    let head: String = heading
        .iter()
        .map(|title| format!("<th scope=\"col\"{}>{}</th>", class(title), title.trim_start_matches('#')))
        .collect();
    let more = rows.len().saturating_sub(SHOWN);
    let row = |cells: &Vec<String>| {
        let cells = cells.iter().zip(heading);
        let cells: String =
            cells.map(|(cell, title)| format!("<td{}>{}</td>", class(title), escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let shown: String = rows.iter().take(SHOWN).map(row).collect();
    let more = if more == 0 { String::new() } else { format!("<p class=\"soft\">and {more} more</p>\n") };
    scrolled(&format!("<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{shown}</tbody>\n</table>\n{more}"))
}

fn findings(report: &Report) -> String {
    let found: Vec<&Finding> = report.listed.all_findings().collect();
    let one = |finding: &&Finding| {
        let hint = finding.hint.as_ref().map_or_else(String::new, |hint| format!("<br>{}", escape(hint)));
        format!(
            "<li><span class=\"kind\">{}</span> {} in {}: {}{hint}</li>\n",
            finding.kind.word(),
            escape(&finding.name),
            escape(&finding.place),
            escape(&finding.reason)
        )
    };
    let more = found.len().saturating_sub(SHOWN);
    let more = if more == 0 { String::new() } else { format!("<p class=\"soft\">and {more} more</p>\n") };
    let list: String = found.iter().take(SHOWN).map(one).collect();
    match list.is_empty() {
        true => section("Findings", "<p>None.</p>\n"),
        false => section("Findings", &format!("<ul>\n{list}</ul>\n{more}")),
    }
}

fn destinations(report: &Report) -> String {
    let newest = |inventory: &Inventory| {
        inventory
            .timelines
            .values()
            .filter_map(|files| Some(files.times?.1))
            .max()
            .map_or("-".to_owned(), time)
    };
    let row = |(inventory, held): (&Inventory, &Vec<_>)| {
        let missing: usize =
            inventory.timelines.keys().map(|timeline| inventory.gaps_of(*timeline).lost.len()).sum();
        vec![
            inventory.place.clone(),
            counted(inventory.total.objects, "object"),
            size(inventory.total.bytes),
            held.len().to_string(),
            counted(missing as u64, "hole"),
            newest(inventory),
        ]
    };
    let listed = &report.listed;
    let rows = listed.inventories.iter().zip(&listed.backups).map(row).collect();
    section(
        "Destinations",
        &table(&["destination", "#WAL", "#as stored", "#base backups", "#holes", "newest WAL"], rows),
    )
}

fn windows(report: &Report) -> String {
    let time = |at: Option<SystemTime>| at.and_then(exact_time).unwrap_or_else(|| "-".to_owned());
    let row = |window: &Window| {
        vec![
            window.backup.to_string(),
            window.timeline.to_string(),
            time(Some(window.from)),
            time(window.before),
            time(window.last_commit),
            window.end.map_or_else(|| "-".to_owned(), |end| end.to_string()),
        ]
    };
    let rows = report.windows.as_deref().unwrap_or_default().iter().rev().map(row).collect();
    section(
        "From when to when",
        &table(&["backup", "#timeline", "from", "to before", "last commit", "end"], rows),
    )
}

fn rehearsals(report: &Report) -> String {
    let seconds = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |s| format!("{s:.1} s"));
    let row = |(inventory, last): (&Inventory, &Option<Rehearsal>)| {
        let last = last.as_ref()?;
        let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        Some(vec![
            inventory.place.clone(),
            time(last.rehearsed),
            last.verdict.word().to_owned(),
            dash(&last.backup),
            dash(&last.end_lsn),
            seconds(last.phases.restore_seconds),
            seconds(last.phases.replay_seconds),
            last.checked.join(", "),
        ])
    };
    let listed = &report.listed;
    let rows = listed.inventories.iter().zip(&listed.rehearsals).filter_map(row).collect();
    let heading =
        ["recorded in", "when", "verdict", "backup", "recovered to", "#restore", "#replay", "checked"];
    section("Last rehearsal", &table(&heading, rows))
}

fn days(report: &Report) -> String {
    let rows = report.days.iter().rev().map(|(day, bytes)| vec![day.clone(), size(*bytes)]).collect();
    section("WAL by the day it was stored", &table(&["day", "#as stored"], rows))
}

fn settings(report: &Report) -> String {
    let set = report.settings.iter().filter(|row| !row.values.is_empty());
    let rows = set.map(|row| vec![row.setting.clone(), row.values.join(", "), row.from.clone()]).collect();
    section("Settings", &table(&["setting", "value", "from"], rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_is_markup() {
        assert_eq!(escape("<a href='x\"'>&\u{1b}"), "&lt;a href=&#39;x&quot;&#39;&gt;&amp;\u{FFFD}");
        let table = table(&["name", "#size"], vec![vec!["<b>".to_owned(), "1".to_owned()]]);
        assert!(table.contains("<tr><td>&lt;b&gt;</td><td class=\"n\">1</td></tr>"), "{table}");
        assert!(table.contains("<th scope=\"col\" class=\"n\">size</th>"), "{table}");
    }

    #[test]
    fn a_long_table_is_cut_and_says_so() {
        let rows = (0..SHOWN + 5).map(|number| vec![number.to_string()]).collect();
        let table = table(&["number"], rows);
        assert!(table.contains("and 5 more") && table.len() < 10_000, "{}", table.len());
    }
}
