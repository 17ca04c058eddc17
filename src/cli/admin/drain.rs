//! `wal-archive drain`: arguments in, what was stored and how to recover out.

use super::super::args;
use super::super::exit::AdminExit;
use super::answer::{VERSION_WITH_FINDINGS, json_flag, show, show_json};
use super::findings;
use super::look::Look;
use super::table::{Align, Cell, Table, Tone};
use crate::archive::intake::Cause;
use crate::config::{Caller, Program, duration};
use crate::drain::plan::TimelineEnd;
use crate::drain::{Became, Drain, Drained, DrainedFile, drain};
use crate::failure::{Failure, exact_time};
use crate::host::data_directory::DataDirectory;
use crate::object::Checks;
use crate::spool::Place;
use crate::storage::{Destination, Shared};
use crate::wal::WalName;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Told apart from the setting of wal-push and wal-fetch, which may stand in the file.
const TIMEOUT: &str = "drain-timeout";

pub(super) fn command() -> Command {
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("DIRECTORY")
            .value_parser(clap::value_parser!(PathBuf))
            .help(help)
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("drain")
        .about("Archives what a dead server still holds, or a standby before its promotion")
        .after_help(
            "Examples:\n  \
             wal-archive drain --pgdata /var/lib/postgresql/15/main          of a dead server\n  \
             wal-archive drain --live --pgdata /var/lib/postgresql/15/main   of a standby",
        )
        .args([
            path("pgdata", "The data directory"),
            path("wal-dir", "Its pg_wal, where that is all that is left"),
            flag("live", "A server may be running: what is complete goes in, what is unfinished stays"),
            flag("dry-run", "Store nothing, tell what would be stored"),
            Arg::new(TIMEOUT)
                .long("timeout")
                .value_name("DURATION")
                .value_parser(duration)
                .help("The longest one file may take (default: 2min and 1s per MiB)"),
            json_flag(),
        ])
        .group(ArgGroup::new("from").args(["pgdata", "wal-dir"]).required(true))
}

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let from = from(matches);
    let of = from.as_ref().ok().and_then(|(_, directory)| directory.as_ref());
    let settings = args::layers(matches, Program::Archive, Caller::of(of))?.push()?;
    if settings.common.checks == Checks::NoHeader {
        return Err(Failure::new(
            (),
            "with no_header_check nothing tells complete segments from unfinished ones",
        )
        .hint("push each file that has a .ready file with wal-push instead"));
    }
    let (pg_wal, data_directory) = from?;
    settings.common.check_directories(data_directory.as_ref())?;
    // A dead server's: believed where it is there, and not made.
    let place = Place::of(settings.common.spool_dir.as_deref(), data_directory.as_ref());
    let spool = place.filter(|place| place.folder().exists()).and_then(|place| place.open().ok());
    let destinations: Vec<Shared> = settings.common.archive.iter().map(Destination::open).collect();
    let live = matches.get_flag("live");
    let report = drain(&Drain {
        pg_wal: &pg_wal,
        data_directory: data_directory.as_ref(),
        destinations: &destinations,
        live,
        dry_run: matches.get_flag("dry-run"),
        spool: spool.as_ref(),
        level: settings.level,
        jobs: settings.jobs,
        timeout: matches.get_one::<Duration>(TIMEOUT).copied().or(settings.common.timeout),
    })?;
    let of_files = report.files.iter().flat_map(|file| failures(&file.became));
    // Said once, and not again of each file.
    for failure in report.unreached.iter().chain(of_files.filter(|one| !report.unreached.contains(one))) {
        failure.log(log::Level::Error);
    }
    let recipe = recipe(&report, live);
    match matches.get_flag("json") {
        true => show_json(VERSION_WITH_FINDINGS, as_json(&report, &recipe)),
        false => show(&as_text(&report, &recipe)),
    }
    Ok(exit(&report))
}

/// The folder of segments, and the data directory it is in.
fn from(matches: &ArgMatches) -> Result<(PathBuf, Option<DataDirectory>), Failure> {
    if let Some(path) = matches.get_one::<PathBuf>("pgdata") {
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        let directory = DataDirectory::at(&path).ok_or_else(|| {
            let what = format!("\"{}\" is not a data directory: it holds no PG_VERSION", path.display());
            Failure::new((), what).hint("--wal-dir takes a pg_wal without one")
        })?;
        return Ok((path.join("pg_wal"), Some(directory)));
    }
    let path = matches.get_one::<PathBuf>("wal-dir").cloned().unwrap_or_default();
    // Whose server may be running. By name first: pg_wal may be a symbolic link.
    let named = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
    let real = path.canonicalize().unwrap_or_else(|_| path.clone());
    let around = [&named, &real].into_iter().find_map(|path| DataDirectory::at(path.parent()?));
    Ok((path, around))
}

fn failures(became: &Became) -> &[Failure<Cause>] {
    match became {
        Became::Refused(failures) | Became::Failed(failures) => failures,
        Became::Stored | Became::There | Became::Planned(_) | Became::HeldBack(_) => &[],
    }
}

fn exit(report: &Drained) -> AdminExit {
    let any = |wanted: fn(&DrainedFile) -> bool| report.files.iter().any(wanted);
    if !report.unreached.is_empty() || any(|file| matches!(file.became, Became::Failed(_))) {
        AdminExit::CouldNotTell
    } else if any(|file| matches!(file.became, Became::Refused(_) | Became::HeldBack(_)))
        || !report.findings.is_empty()
    {
        AdminExit::Findings
    } else {
        AdminExit::Fine
    }
}

fn word(became: &Became) -> &'static str {
    match became {
        Became::Stored => "stored",
        Became::There => "there already",
        Became::Planned(true) => "to be stored",
        Became::Planned(false) => "to be compared",
        Became::Refused(_) => "refused",
        Became::HeldBack(_) => "held back",
        Became::Failed(_) => "failed",
    }
}

/// The steps that follow, for a person.
fn recipe(report: &Drained, live: bool) -> Vec<String> {
    if live {
        return vec![
            "Repeat this until it stores nothing more, then promote at once.".to_owned(),
            "A promoted standby archives the rest itself.".to_owned(),
        ];
    }
    let Some(TimelineEnd { timeline, end, last_commit, .. }) = report.ends.last() else { return Vec::new() };
    let partial = report.files.iter().any(|file| {
        matches!(file.item.name, WalName::Partial(segment) if segment.timeline() == *timeline)
            && file.item.end == Some(*end)
    });
    let option = if partial { "--partial " } else { "" };
    let seen = match last_commit.and_then(exact_time) {
        Some(time) => format!("not before {time}"),
        None => "in an older segment".to_owned(),
    };
    let mut steps = vec![
        "Restore a base backup into an empty data directory; leave its pg_wal empty.".to_owned(),
        format!(
            "Set there: restore_command = '/usr/bin/wal-fetch {option}%f %p', recovery_target_timeline = '{timeline}', \
             and no other recovery_target; for a rehearsal also archive_mode = off."
        ),
        "Make the file recovery.signal there, and start the server.".to_owned(),
        format!(
            "The new timeline's .history file in pg_wal must end with \"{timeline}\", a tab and \"{end}\"; the last completed \
             transaction in the server log is {seen}."
        ),
        "Never start the old server again with this archive. Take a new base backup.".to_owned(),
    ];
    if partial {
        steps.push("Take --partial out of restore_command.".to_owned());
    }
    steps
}

fn as_text(report: &Drained, recipe: &[String]) -> String {
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left), ("", Align::Left)]);
    for DrainedFile { item, became } in &report.files {
        let (tone, detail) = match (became, item.name, item.end) {
            (Became::Refused(failures) | Became::Failed(failures), ..) => {
                (Tone::Bad, failures.first().map(|failure| failure.message.clone()).unwrap_or_default())
            }
            (Became::HeldBack(conflict), ..) => {
                (Tone::Bad, format!("no archiver gets here behind {conflict}"))
            }
            (_, WalName::Partial(_), Some(end)) => (Tone::Plain, format!("unfinished, up to {end}")),
            _ => (Tone::Plain, String::new()),
        };
        table.row([Cell::new(tone, word(became)), item.name.to_string().into(), detail.into()]);
    }
    for left in report.left.iter().filter(|left| !left.idle) {
        table.row(["left".into(), left.name.to_string().into(), left.reason.as_str().into()]);
    }
    let idle = report.left.iter().filter(|left| left.idle).count();
    if idle > 0 {
        table.row(["left".into(), format!("{idle} recycled or preallocated").into(), "".into()]);
    }
    let mut text = table.render(Look::wide()) + &findings::text(&report.findings, Look::wide()) + "\n";
    for TimelineEnd { timeline, end, last_commit, stop } in &report.ends {
        let commit = last_commit
            .and_then(exact_time)
            .map_or("no commit here".to_owned(), |time| format!("last commit {time}"));
        text += &format!("timeline {timeline}: up to {end}, {commit} ({stop})\n");
    }
    if !recipe.is_empty() {
        text += "\nTo go on:\n";
    }
    for (number, step) in (1..).zip(recipe) {
        text += &format!("{number}. {step}\n");
    }
    text
}

/// Described in `docs/json.md`.
fn as_json(report: &Drained, recipe: &[String]) -> Value {
    let path = |path: &Path| path.display().to_string();
    let file = |DrainedFile { item, became }: &DrainedFile| {
        let failures: Vec<String> = failures(became).iter().map(ToString::to_string).collect();
        json!({
            "name": item.name.to_string(), "path": path(&item.path), "end": item.end.map(|end| end.to_string()),
            "became": word(became), "failures": failures,
        })
    };
    let files: Vec<Value> = report.files.iter().map(file).collect();
    let left: Vec<Value> = report
        .left
        .iter()
        .map(|left| json!({"name": left.name.to_string(), "reason": left.reason}))
        .collect();
    let timelines: Vec<Value> = report
        .ends
        .iter()
        .map(|last| {
            json!({
                "timeline": last.timeline.get(), "end": last.end.to_string(),
                "last_commit": last.last_commit.and_then(exact_time), "stop": last.stop.to_string(),
            })
        })
        .collect();
    let system_id = report.system_id.map(|id| id.to_string());
    json!({
        "system_id": system_id, "files": files, "left": left, "findings": report.findings, "timelines": timelines,
        "steps": recipe,
    })
}
