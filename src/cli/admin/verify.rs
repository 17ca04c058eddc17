//! `wal-archive verify`: the proof that recovery would find what it asks for.

use super::super::exit::AdminExit;
use super::answer::{VERSION_WITH_FINDINGS, json_flag, show, show_json};
use super::findings;
use super::metrics::{self, OfRun, Sample};
use super::patience;
use super::progress::Progress;
use super::table::{Align, Cell, Table, Tone, colour, counted, paint};
use crate::config::{Layers, duration};
use crate::failure::{Failure, exact_time, size};
use crate::object::Checks;
use crate::verify::{Depth, Options, Recoverable, Since, Unfinished, Verified, verify, verify_backups};
use crate::wal::{SegmentName, Timeline, WalName};
use clap::{Arg, ArgAction, ArgMatches, Command};
use log::Level;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// Told apart from the setting of wal-push, which may stand in the file.
const JOBS: &str = "verify-jobs";

pub(super) fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("verify")
        .about("Proves that nothing is missing or damaged")
        .after_help(
            "It only reads, and may run while servers archive.\n\n\
             Examples:\n  \
             wal-archive verify --quick                  names and trailers: minutes\n  \
             wal-archive verify                          every object decoded: hours\n  \
             wal-archive verify --records --since 2days  the newest part, every night",
        )
        .arg(flag("quick", "Look at names and trailers only").conflicts_with("records"))
        .arg(flag("records", "Walk the WAL records too: how far recovery goes, to which commit"))
        .arg(flag("backups", "Read every base backup, too, and compare each file with its manifest"))
        .arg(option(
            "since",
            "SEGMENT|LSN|DURATION",
            "Only WAL from there on, or stored so long ago at most, such as 2days",
        ))
        .arg(option("backup", "LABEL", "Only what recovery from the backups with this label needs"))
        .arg(
            option(
                "accept-gap",
                "FROM..TO",
                "Segments, or a history file, known to be lost; may be repeated",
            )
            .action(ArgAction::Append),
        )
        .arg(
            option(
                JOBS,
                "NUMBER",
                "Objects looked at at once (default: the number of processors; 32 with --quick)",
            )
            .long("jobs")
            .value_parser(clap::value_parser!(u16).range(1..=256)),
        )
        .arg(
            flag(
                "no-header-check",
                "Do not look at WAL pages: only for forks of PostgreSQL that encrypt them",
            )
            .conflicts_with("records"),
        )
        .args(metrics::args())
        .arg(patience::arg())
        .arg(json_flag())
}

/// To decode and to hash takes processors, to ask for a trailer takes a round trip.
fn at_once(depth: Depth) -> usize {
    match depth {
        Depth::Quick => 32,
        Depth::Full | Depth::Records => std::thread::available_parallelism().map_or(1, |count| count.get()),
    }
}

const METRICS: OfRun = OfRun {
    state: "verify_state",
    timestamp: "verify_timestamp_seconds",
    duration: "verify_duration_seconds",
};

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let layers = super::layers(matches)?;
    metrics::recorded(matches, &layers, &METRICS, |samples| work(&layers, matches, samples))
}

fn work(layers: &Layers, matches: &ArgMatches, samples: &mut Vec<Sample>) -> Result<AdminExit, Failure> {
    let (archive, checks) = layers.admin()?;
    if checks == Checks::NoHeader && matches.get_flag("records") {
        return Err(Failure::new(
            (),
            "with no_header_check nothing is known of WAL pages, so --records cannot walk them",
        ));
    }
    let storages = patience::open_all(&archive, matches)?;
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let gaps = matches.get_many::<String>("accept-gap").unwrap_or_default();
    let (mut lost, mut histories) = (Vec::new(), Vec::new());
    for gap in gaps {
        match accepted(gap)? {
            Lost::Segments(from, to) => lost.push((from, to)),
            Lost::History(timeline) => histories.push(timeline),
        }
    }
    let depth = match (matches.get_flag("quick"), matches.get_flag("records")) {
        (true, _) => Depth::Quick,
        (_, true) => Depth::Records,
        _ => Depth::Full,
    };
    let options = Options {
        depth,
        since: text("since").map(since).transpose()?,
        label: text("backup").map(str::to_owned),
        accepted: lost,
        accepted_histories: histories,
        jobs: matches.get_one::<u16>(JOBS).map_or_else(|| at_once(depth), |jobs| usize::from(*jobs)),
        checks,
    };
    let progress = Progress::new();
    let report = verify(&storages, &options, SystemTime::now(), &mut |count, total| {
        progress.set(count.objects, total, count.stored)
    });
    let mut report = report?;
    if matches.get_flag("backups") {
        let mut checked = report.checked;
        let found = verify_backups(&storages, &report.inventories, &mut checked, &mut |count| {
            progress.set(count.objects, count.objects, count.stored);
        });
        report.checked = checked;
        report.findings.extend(found);
    }
    drop(progress);
    let exit = findings::exit(&report.findings);
    samples.extend(numbers(&report));
    match (matches.get_flag("json"), report.inventories.is_empty()) {
        (true, _) => show_json(VERSION_WITH_FINDINGS, as_json(&report, &options, exit)),
        // No destination answered: there is nothing to show but why.
        (false, true) => report.findings.iter().for_each(|finding| finding.message().log(Level::Error)),
        (false, false) => show(&as_text(&report, &options, exit)),
    }
    Ok(exit)
}

fn numbers(report: &Verified) -> Vec<Sample> {
    // Both are far below 2^53.
    let mut samples = vec![
        Sample::new("verify_objects", Vec::new(), report.checked.objects as f64),
        Sample::new("verify_stored_bytes", Vec::new(), report.checked.stored as f64),
    ];
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    for finding in &report.findings {
        *kinds.entry(finding.kind.word()).or_default() += 1;
    }
    let of_kind = |(kind, count): (&str, u32)| {
        Sample::new("verify_findings", vec![("kind", kind.to_owned())], count.into())
    };
    samples.extend(kinds.into_iter().map(of_kind));
    samples
}

fn since(text: &str) -> Result<Since, Failure> {
    let segment = text.parse().map(Since::Segment);
    let found = segment.or_else(|_| text.parse().map(Since::Lsn)).or_else(|_| duration(text).map(Since::Ago));
    found.map_err(|_| {
        Failure::new(
            (),
            format!("--since: \"{text}\" is not a segment, an address such as 16/B374D848, or a duration"),
        )
        .hint("a duration carries a unit: 12h, 2days")
    })
}

/// What --accept-gap may name.
enum Lost {
    Segments(SegmentName, SegmentName),
    History(Timeline),
}

/// `FROM..TO`, or one name; of a history file its timeline.
fn accepted(text: &str) -> Result<Lost, Failure> {
    if let Ok(WalName::TimelineHistory(timeline)) = text.parse() {
        return Ok(Lost::History(timeline));
    }
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    match (from.parse::<SegmentName>(), to.parse::<SegmentName>()) {
        (Ok(from), Ok(to)) if from.timeline() == to.timeline() && from <= to => Ok(Lost::Segments(from, to)),
        _ => Err(Failure::new(
            (),
            format!("--accept-gap: \"{text}\" is not FROM..TO with two segments of one timeline, nor a history file"),
        )
        .hint("as \"wal-archive verify\" prints a gap: 000000010000000000000007..000000010000000000000009")),
    }
}

fn as_text(report: &Verified, options: &Options, exit: AdminExit) -> String {
    let colour = colour();
    let mut text = findings::text(&report.findings);
    for gap in &report.accepted {
        text += &format!("accepted {gap} is missing, as --accept-gap says\n");
    }
    let strangers: u64 = report.inventories.iter().map(|inventory| inventory.strangers_total.objects).sum();
    if strangers > 0 {
        text += &format!(
            "note: {} not of an archive, left alone (\"wal-archive list\" shows them)\n",
            counted(strangers, "object")
        );
    }
    if options.since.is_some() && report.recoverable.is_empty() {
        text += "note: there is no segment as new as --since asks for\n";
    }
    if report.checked.shut > 0 {
        text += &format!(
            "note: {} not decrypted, as no identity here fits: what is stored is what was written, but what it holds and \
             where timelines fork was not proved\n",
            counted(report.checked.shut, "object")
        );
    }
    let table = recoverable(report, options);
    if !table.is_empty() {
        let gap = if text.is_empty() { "" } else { "\n" };
        text += &format!("{gap}{}\n", table.render(colour));
    }
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
    text + &format!(
        "{}: {objects}, {} stored, {how}\n",
        paint(&Cell::new(tone, word), colour),
        size(count.stored)
    )
}

fn recoverable(report: &Verified, options: &Options) -> Table {
    let mut heading = vec![
        ("recoverable from", Align::Left),
        ("segment", Align::Left),
        ("timeline", Align::Right),
        ("to segment", Align::Left),
    ];
    if options.depth == Depth::Records {
        heading.extend([("end", Align::Left), ("last commit", Align::Left)]);
    }
    heading.push(("", Align::Left));
    let mut table = Table::new(&heading);
    for way in &report.recoverable {
        let mut row: Vec<Cell> = vec![
            way.label.clone().unwrap_or_else(|| "WAL alone".to_owned()).into(),
            way.from.to_string().into(),
            way.timeline.to_string().into(),
            way.to.map_or_else(|| "-".to_owned(), |to| to.to_string()).into(),
        ];
        if options.depth == Depth::Records {
            row.push(way.end.map_or_else(|| "-".to_owned(), |end| end.to_string()).into());
            row.push(way.last_commit.and_then(exact_time).unwrap_or_else(|| "-".to_owned()).into());
        }
        row.push(match (way.consistent, way.complete, way.expired) {
            (false, ..) => Cell::new(Tone::Bad, "not usable: its own WAL is not whole"),
            (true, false, false) => Cell::new(Tone::Bad, "not to the end of the timeline"),
            (true, false, true) => Cell::new(Tone::Plain, "as far as WAL was kept when the rest was expired"),
            (true, true, _) => {
                let with: String = way.partials.iter().map(with).collect();
                Cell::new(Tone::Good, format!("to the end of the timeline{with}"))
            }
        });
        table.row(row);
    }
    table
}

/// How much further an unfinished segment leads.
fn with(partial: &Unfinished) -> String {
    let Unfinished { file, end, last_commit } = partial;
    let end = end.map_or_else(String::new, |end| format!(" to {end}"));
    let commit = last_commit.and_then(exact_time).map_or_else(String::new, |time| format!(", {time}"));
    format!("; with {file}{end}{commit}")
}

fn as_json(report: &Verified, options: &Options, exit: AdminExit) -> Value {
    let ways: Value = report.recoverable.iter().map(way).collect();
    let destinations: Vec<&str> =
        report.inventories.iter().map(|inventory| inventory.place.as_str()).collect();
    json!({
        "verdict": match exit {
            AdminExit::Fine => "sound",
            AdminExit::Findings => "findings",
            _ => "could-not-tell",
        },
        "depth": match options.depth {
            Depth::Quick => "quick",
            Depth::Full => "full",
            Depth::Records => "records",
        },
        "destinations": destinations,
        "checked": {
            "objects": report.checked.objects,
            "stored_bytes": report.checked.stored,
            "raw_bytes": report.checked.raw,
            "not_decrypted": report.checked.shut,
        },
        "findings": report.findings,
        "accepted_gaps": report.accepted,
        "strangers": report.inventories.iter().map(|inventory| inventory.strangers_total.objects).sum::<u64>(),
        "recoverable": ways,
    })
}

fn way(way: &Recoverable) -> Value {
    let partials: Value = way
        .partials
        .iter()
        .map(|Unfinished { file, end, last_commit }| {
            json!({
                "file": file,
                "end": end.map(|end| end.to_string()),
                "last_commit": last_commit.and_then(exact_time),
            })
        })
        .collect();
    json!({
        "backup": way.label,
        "from": way.from.to_string(),
        "timeline": way.timeline.get(),
        "to": way.to.map(|to| to.to_string()),
        "consistent": way.consistent,
        "complete": way.complete,
        "end": way.end.map(|end| end.to_string()),
        "last_commit": way.last_commit.and_then(exact_time),
        "expired": way.expired,
        "partial": partials,
    })
}
