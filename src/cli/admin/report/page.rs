//! The page: no script, everything inline.

use super::html::{escape, rest, scrolled, section, within};
use super::picture::{moment, moment_behind};
use super::{Report, days, picture, tables};
use crate::cli::admin::table::counted;
use crate::failure::Failure;
use std::time::SystemTime;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c1c1c;--paper:#fff;--soft:#57606a;--line:#d0d7de;--wal:#4a7fb5;--reach:#2d7d46;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--paper:#161616;--soft:#a8b1ba;--line:#3d444d;--wal:#6ea3d8;--reach:#58b878;--bad:#ff8a80}}
body{margin:0;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}main{margin:0 auto;max-width:66rem;padding:1.5rem 1rem}
h1{font-size:1.4rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin-top:2rem}p,li{overflow-wrap:anywhere}
.answer{font-size:1.15rem;border-left:4px solid var(--reach);padding-left:.8rem}.answer.bad{border-color:var(--bad)}.soft{color:var(--soft)}
.scroll{overflow-x:auto}.scroll:focus-visible{outline:2px solid var(--wal)}
table{border-collapse:collapse;font-size:.9rem}th,td{text-align:left;padding:.25rem .9rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top;max-width:24rem;min-width:3rem;overflow-wrap:break-word}
th{white-space:nowrap}td.n,th.n{text-align:right}.kind{color:var(--bad);font-weight:600}
svg{width:100%;min-width:44rem;height:auto;display:block}text{fill:var(--ink);font:12px system-ui,sans-serif}.label{font-weight:600}.small,.name{font-size:11px}
.small{fill:var(--soft)}.name{fill:var(--bad)}.wal{fill:var(--wal)}.reach,.sound{fill:var(--reach)}.backup,.foreign,.unfinished{fill:var(--paper);stroke:var(--reach);stroke-width:2.5}
.foreign{stroke:var(--soft)}.unfinished{stroke:var(--soft);stroke-dasharray:3 2}.hole{fill:var(--paper);stroke:var(--bad);stroke-width:2;stroke-dasharray:3 2}
.damage{fill:var(--bad)}.cross{fill:none;stroke:var(--bad);stroke-width:2.5}.expired{fill:var(--paper);stroke:var(--soft);stroke-dasharray:1 3}
.doomed{fill:url(#hatch);stroke:var(--soft)}.stripe{fill:var(--paper)}.fork{stroke:var(--wal);stroke-width:2;fill:none}.tick{stroke:var(--line)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;padding:0;font-size:.85rem}.legend svg{display:inline-block;width:28px;min-width:0;height:14px;vertical-align:middle;margin-right:.3rem}
";

/// A shape and what it means.
const LEGEND: [(&str, &str); 10] = [
    ("<rect class=\"wal\" y=\"1\" width=\"28\" height=\"12\"/>", "WAL that is there"),
    ("<rect class=\"hole\" x=\"2\" y=\"1\" width=\"24\" height=\"12\"/>", "missing at every destination"),
    (
        "<rect class=\"damage\" x=\"10\" y=\"8\" width=\"8\" height=\"6\"/><path class=\"cross\" d=\"M11 1l6 6m0 -6l-6 6\"/>",
        "damaged",
    ),
    (
        "<rect class=\"wal\" y=\"1\" width=\"28\" height=\"12\"/><rect class=\"doomed\" y=\"1\" width=\"28\" height=\"12\"/>",
        "expire would delete it",
    ),
    ("<rect class=\"expired\" x=\"1\" y=\"1\" width=\"26\" height=\"12\"/>", "expired between backups"),
    (
        "<rect class=\"reach\" x=\"6\" y=\"4\" width=\"22\" height=\"6\"/><circle class=\"backup\" cx=\"7\" cy=\"7\" r=\"5\"/>",
        "base backup, and what it recovers",
    ),
    ("<path class=\"foreign\" d=\"M9 2h10v10h-10z\"/>", "another tool's backup"),
    (
        "<path class=\"unfinished\" d=\"M9 2h10v10h-10z\"/>",
        "unfinished backup, or one of which it is not known how far it recovers",
    ),
    (
        "<path class=\"cross\" d=\"M9 2l10 10m0 -10l-10 10\"/>",
        "backup that recovers nothing; rehearsal with findings",
    ),
    ("<path class=\"sound\" d=\"M14 1l6 6l-6 6l-6 -6z\"/>", "sound rehearsal"),
];

pub(super) fn html(report: &Report) -> String {
    let cluster = report.union.as_ref().and_then(|union| union.system_id);
    let id = cluster.map_or_else(|| "an unknown cluster".to_owned(), |id| format!("cluster {id}"));
    let name = report.cluster.as_ref().map_or(id.clone(), |name| format!("{name}, {id}"));
    let name = escape(&name);
    let read = report.looked_at.map_or_else(
        || "no object but the ends of the WAL was read".to_owned(),
        |count| format!("the trailer of each of {} was read, not its content", counted(count, "object")),
    );
    let sections = [
        drawn(report),
        tables::findings(report),
        tables::destinations(report),
        tables::windows(report),
        tables::rehearsals(report),
        days::shown(report),
        tables::timelines(report),
        tables::settings(report),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>WAL archive of {name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>WAL archive of {name}</h1>\n\
         {}<p class=\"soft\">Made {} by wal-archive {}: {read}. What is in the objects, wal-archive verify and \
         rehearse prove. All times are UTC.</p>\n{}</main>\n</body>\n</html>\n",
        answer(report),
        moment(report.made),
        env!("CARGO_PKG_VERSION"),
        sections.concat()
    )
}

/// The one sentence: what can be recovered, and whether that was tried.
fn answer(report: &Report) -> String {
    let (class, recoverable) = match &report.windows {
        Err(why) => {
            ("answer bad", format!("How far it can be recovered could not be told: {}.", why.message))
        }
        Ok(windows) => match tables::stretches(report) {
            None if !report.refused.is_empty() => {
                ("answer bad", "How far any base backup recovers is not known".to_owned())
            }
            None => ("answer bad", "No base backup of wal-archive can be recovered".to_owned()),
            Some((timeline, stretches)) => {
                let committed = windows.iter().filter(|window| window.timeline == timeline);
                let last = committed.filter_map(|window| window.last_commit).max();
                ("answer", recovered(timeline.get(), &stretches, last))
            }
        },
    };
    let rehearsed = match report.rehearsals.0.first() {
        None => "never rehearsed, as far as is recorded.".to_owned(),
        Some((_, last)) => format!("last rehearsed {}: {}.", moment(last.rehearsed), last.verdict.word()),
    };
    let refused = |why: &Failure| {
        let hint =
            why.hint.as_ref().map_or_else(String::new, |hint| format!(" What to do: {}.", escape(hint)));
        format!("<p class=\"answer bad\">Not known is {}.{hint}</p>\n", escape(&why.message))
    };
    let (refused, left) = within(4_000, report.refused.iter().map(refused));
    format!(
        "<p class=\"{class}\">{}; {}</p>\n{refused}{}",
        escape(recoverable.trim_end_matches('.')),
        escape(&rehearsed),
        rest(left, "timelines of which that is not known")
    )
}

fn recovered(
    timeline: u32,
    stretches: &[(SystemTime, SystemTime)],
    last_commit: Option<SystemTime>,
) -> String {
    let earlier = match stretches.len() {
        0 | 1 => String::new(),
        2 => ", and in 1 earlier stretch before a hole".to_owned(),
        more => format!(", and in {} earlier stretches before holes", more - 1),
    };
    let end = last_commit.map_or_else(String::new, |at| format!(", the last commit at {}", moment(at)));
    match stretches.last() {
        Some((from, before)) if before > from => format!(
            "Recoverable to any moment from {} to before {} on timeline {timeline}{end}{earlier}",
            moment_behind(*from),
            moment(*before)
        ),
        last => {
            let from = last.map_or_else(|| "-".to_owned(), |(from, _)| moment(*from));
            format!(
                "Recoverable to the end of its WAL only, on timeline {timeline}: nothing was committed after {from}{earlier}"
            )
        }
    }
}

fn drawn(report: &Report) -> String {
    let (svg, untold) = picture::svg(report);
    if svg.is_empty() {
        return String::new();
    }
    let item = |(shape, meaning): &(&str, &str)| {
        format!("<li><svg viewBox=\"0 0 28 14\" aria-hidden=\"true\">{shape}</svg>{meaning}</li>\n")
    };
    let legend: String = LEGEND.iter().map(item).collect();
    section(
        "What is there, over time",
        &format!(
            "{}<ul class=\"legend\">\n{legend}</ul>\n{}{untold}",
            scrolled("Picture of what is there over time", &svg),
            tables::retention(report)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_sentence_promises_no_moment_in_a_hole() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000u64 + seconds);
        assert_eq!(
            recovered(3, &[(at(0), at(5)), (at(9), at(20))], Some(at(19))),
            "Recoverable to any moment from 2027-01-15 08:00:09 UTC to before 2027-01-15 08:00:20 UTC on timeline 3, the \
             last commit at 2027-01-15 08:00:19 UTC, and in 1 earlier stretch before a hole"
        );
        assert!(recovered(1, &[(at(0), at(0))], None).starts_with("Recoverable to the end of its WAL only"));
    }
}
