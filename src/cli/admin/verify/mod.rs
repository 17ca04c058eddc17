//! `wal-archive verify`: the proof that recovery would find what it asks for.

mod json;
mod show;

use super::super::exit::AdminExit;
use super::answer::{VERSION_WITH_FINDINGS, json_flag, show, show_json};
use super::findings;
use super::look::{Look, wide_flag};
use super::metrics::{self, OfRun, Sample};
use super::patience;
use super::progress::Progress;
use crate::archive::quarantine;
use crate::config::{Layers, duration};
use crate::failure::Failure;
use crate::object::Checks;
use crate::storage::Shared;
use crate::verify::{Depth, Options, Since, Verified, verify, verify_backups};
use crate::wal::{SegmentName, Timeline, WalName};
use clap::{Arg, ArgAction, ArgMatches, Command};
use log::Level;
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
        .arg(wide_flag())
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

/// What names and trailers tell of the whole archive.
pub(super) fn quick_look(storages: &[Shared], checks: Checks) -> Result<Verified, Failure> {
    let options = Options {
        depth: Depth::Quick,
        since: None,
        label: None,
        accepted: Vec::new(),
        accepted_histories: Vec::new(),
        jobs: at_once(Depth::Quick),
        checks,
    };
    let progress = Progress::new("listing");
    verify(storages, &options, SystemTime::now(), &mut |count, total| {
        progress.set("WAL", count.objects, total, count.stored);
    })
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
    let progress = Progress::new("listing");
    let report = verify(&storages, &options, SystemTime::now(), &mut |count, total| {
        progress.set("WAL", count.objects, total, count.stored)
    });
    let mut report = report?;
    if matches.get_flag("backups") {
        let mut checked = report.checked;
        let found = verify_backups(&storages, &report.inventories, &mut checked, &mut |count| {
            progress.set("base backups", count.objects, 0, count.stored);
        });
        report.checked = checked;
        report.findings.extend(found);
    }
    drop(progress);
    let exit = findings::exit(&report.findings);
    samples.extend(numbers(&report));
    match (matches.get_flag("json"), report.inventories.is_empty()) {
        (true, _) => show_json(VERSION_WITH_FINDINGS, json::value(&report, &options, exit)),
        // No destination answered: there is nothing to show but why.
        (false, true) => report.findings.iter().for_each(|finding| finding.message().log(Level::Error)),
        (false, false) => {
            show(&show::text(&report, &options, exit, moved_aside(&storages), Look::of(matches)));
        }
    }
    Ok(exit)
}

/// How many objects are in the quarantine of those that answer.
fn moved_aside(storages: &[Shared]) -> usize {
    storages.iter().filter_map(|storage| Some(quarantine::held(storage.as_ref()).ok()?.len())).sum()
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
