//! `wal-archive expire`: deletes the WAL that no kept backup needs; without `--yes` only says what.

use super::super::exit::AdminExit;
use super::super::log as log_settings;
use super::answer::{VERSION, json_flag, show, show_json};
use super::patience;
use super::table::{counted, time};
use crate::expire::backups::{Backup, list, of_wal_g};
use crate::expire::directories::directories;
use crate::expire::own::{self, DoomedBackup};
use crate::expire::plan::{Before, Fate, Plan, Rules, Why, plan};
use crate::expire::{Archive, Doomed, apply, doomed, look};
use crate::failure::{Failure, size};
use crate::object::Key;
use crate::storage::{DeletionFailed, Shared, Storage};
use crate::wal::WalName;
use clap::{Arg, ArgAction, ArgMatches, Command};
use log::Level;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::SystemTime;

pub(super) fn command() -> Command {
    Command::new("expire")
        .about("Shows which WAL and which of our own backups no rule keeps; with --yes deletes them")
        .after_help(
            "The backups of \"wal-archive backup\" are known; those of other tools are named, or their WAL is deleted. \
             Without a rule every backup is kept.\n\n\
             Examples:\n  \
             wal-archive expire --keep-backups 7\n  \
             wal-archive expire --keep-backups 7 --keep-days 14 --yes\n  \
             wal-archive expire --label 'nightly *' --keep-backups 7",
        )
        .args(rule_args())
        .arg(flag("yes", "Delete"))
        .arg(flag("dry-run", "Only show it (the default)").conflicts_with("yes"))
        .arg(patience::arg())
        .arg(json_flag())
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// What names backups, and says which of them are kept.
pub(super) fn rule_args() -> [Arg; 7] {
    let one = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let path = || clap::value_parser!(PathBuf);
    [
        one("label", "GLOB", "Backups whose label fits (* and ?), by their .backup files; repeatable")
            .action(ArgAction::Append),
        one("backups", "FILE", "Backups by a list: START_LSN TIMELINE FINISHED [STOP_LSN]")
            .value_parser(path()),
        one("backup-dir", "GLOB", "Backups in directories, by their backup_manifest (quote it); repeatable")
            .value_parser(path())
            .action(ArgAction::Append),
        one("keep-backups", "N", "Of these keep the newest N that are complete")
            .value_parser(clap::value_parser!(u32).range(1..)),
        one("keep-days", "D", "Of these keep what recovers to any moment of the last D days")
            .value_parser(clap::value_parser!(u32).range(1..=36500)),
        one("before", "WAL|LSN", "Delete nothing from this file or address on"),
        flag(
            "between-backups",
            "Also delete between kept backups: of all but the newest only START to STOP stays",
        ),
    ]
}

/// The rules as they were given; empty where there is none.
pub(super) fn rules_given(matches: &ArgMatches) -> String {
    let mut given = Vec::new();
    for name in rule_args().iter().map(|arg| arg.get_id().as_str()) {
        match name {
            "between-backups" if matches.get_flag(name) => given.push(format!("--{name}")),
            "between-backups" => {}
            _ => given.extend(
                matches
                    .get_raw(name)
                    .into_iter()
                    .flatten()
                    .map(|value| format!("--{name} {}", value.to_string_lossy())),
            ),
        }
    }
    given.join(" ")
}

/// What is kept by the rules that were given, and what goes.
pub(super) fn planned(
    matches: &ArgMatches,
    rules: &Rules,
    archive: &Archive,
    destinations: &[Shared],
) -> Result<Plan, Failure> {
    // Our own backups need not be named: nothing is deleted that one of them needs.
    let backups = named(matches, archive)?;
    if backups.is_empty() && rules.before.is_none() {
        refuse_unnamed(destinations)?;
    }
    let backups = own::with_own(backups, &own::read(destinations)?);
    plan(&archive.facts, &archive.places, backups, rules, SystemTime::now())
}

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let layers = super::layers(matches)?;
    let (acts, json) = (matches.get_flag("yes"), matches.get_flag("json"));
    let rules = rules(matches)?;
    let destinations = patience::open_all(&layers.admin()?.0, matches)?;
    let archive = look(&destinations)?;
    let plan = planned(matches, &rules, &archive, &destinations)?;
    let mut places = Vec::new();
    for storage in &destinations {
        let ranges = doomed(storage.as_ref(), &plan).map_err(|error| Failure::from_storage((), &error))?;
        let backups =
            own::doomed(storage.as_ref(), &plan).map_err(|error| Failure::from_storage((), &error))?;
        places.push(Place { place: storage.place().to_owned(), backups, ranges, deleted: None });
    }
    if !json {
        show(&text(&plan, &archive, &places));
    }
    let mut exit = AdminExit::Fine;
    if acts {
        // What is gone for ever is logged, file by file.
        log_settings::set_verbosity(matches.get_count("verbose").max(1));
        for (storage, place) in destinations.iter().zip(&mut places) {
            match delete(storage.as_ref(), &plan, &place.backups) {
                Ok(deleted) => place.deleted = Some(deleted),
                Err(DeletionFailed { deleted, error }) => {
                    place.deleted = Some(deleted);
                    Failure::from_storage((), &error).log(Level::Error);
                    exit = AdminExit::CouldNotTell;
                }
            }
        }
    }
    match json {
        true => show_json(VERSION, value(&plan, &archive, &places)),
        false => show(&conclusion(acts, &places)),
    }
    Ok(exit)
}

pub(super) fn rules(matches: &ArgMatches) -> Result<Rules, Failure> {
    let number = |name: &str| matches.get_one::<u32>(name).copied();
    let before = matches.get_one::<String>("before").map(|text| {
        let segment = text.parse::<WalName>().ok().and_then(WalName::segment).map(Before::Segment);
        segment.or_else(|| text.parse().ok().map(Before::Address)).ok_or_else(|| {
            Failure::new(
                (),
                format!("--before: \"{text}\" is neither a segment nor an address such as 16/B374D848"),
            )
        })
    });
    Ok(Rules {
        keep_backups: number("keep-backups").and_then(|count| usize::try_from(count).ok()),
        keep_days: number("keep-days"),
        before: before.transpose()?,
        between_backups: matches.get_flag("between-backups"),
    })
}

/// By label, by the list, by directory, or each of them.
fn named(matches: &ArgMatches, archive: &Archive) -> Result<Vec<Backup>, Failure> {
    let mut named = Vec::new();
    if let Some(path) = matches.get_one::<PathBuf>("backups") {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::new((), format!("cannot read \"{}\": {error}", path.display())))?;
        named = list(&text)?;
        if named.is_empty() {
            let what = format!("\"{}\" lists no backup, so nothing may be deleted", path.display());
            return Err(Failure::new((), what).hint("list every backup that exists"));
        }
    }
    let patterns: Vec<_> = matches.get_many::<String>("label").unwrap_or_default().cloned().collect();
    if !patterns.is_empty() {
        named.extend(archive.labelled(&patterns)?);
    }
    for pattern in matches.get_many::<PathBuf>("backup-dir").unwrap_or_default() {
        named.extend(directories(pattern, archive.system_id)?);
    }
    Ok(named)
}

/// Whoever moved over from WAL-G may still want to restore what it made.
fn refuse_unnamed(destinations: &[Shared]) -> Result<(), Failure> {
    for storage in destinations {
        let found = of_wal_g(storage.as_ref()).map_err(|error| Failure::from_storage((), &error))?;
        if let Some(sentinel) = found {
            let what = format!(
                "WAL-G has backups here, and none is named: the WAL that they need would be deleted (\"{sentinel}\")"
            );
            return Err(Failure::new((), what).hint(
                "name them (--label '*' takes all that left a .backup file), or the first segment that they need (--before); \
                 when they are no longer wanted, delete them with \"wal-g delete\" first",
            ));
        }
    }
    Ok(())
}

/// The backups first: one without its WAL is worse than none.
fn delete(storage: &dyn Storage, plan: &Plan, backups: &[DoomedBackup]) -> Result<u64, DeletionFailed> {
    let tell =
        |keys: &[Key]| keys.iter().for_each(|key| log::info!("deleting \"{}/{key}\"", storage.place()));
    let deleted = own::delete(storage, backups, &tell)?;
    let wal = apply(storage, plan, SystemTime::now(), &tell);
    wal.map(|count| deleted + count)
        .map_err(|failed| DeletionFailed { deleted: deleted + failed.deleted, error: failed.error })
}

/// What goes from a destination.
struct Place {
    place: String,
    backups: Vec<DoomedBackup>,
    ranges: Vec<Doomed>,
    deleted: Option<u64>,
}

fn why(why: Why) -> &'static str {
    match why {
        Why::Older => "older than the start of the oldest kept backup",
        Why::Between => "between kept backups, or on a timeline that none leads to",
    }
}

fn text(plan: &Plan, archive: &Archive, places: &[Place]) -> String {
    let mut text = String::new();
    for (backup, fate) in &plan.backups {
        let (verb, why) = match fate {
            Fate::Kept(why) => ("keep", why.as_str()),
            Fate::Dropped => ("drop", "no rule keeps it"),
        };
        let stop = backup.stop.map_or_else(String::new, |stop| format!(" to {stop}"));
        let finished = time(backup.finished);
        text += &format!(
            "{verb}    backup from {}{stop} on timeline {}, finished by {finished}, {:?}: {why}\n",
            backup.start, backup.timeline, backup.label
        );
    }
    for place in places {
        for DoomedBackup { held, why } in &place.backups {
            text += &format!(
                "delete  backup {}, {}, {} at \"{}\": {why}\n",
                held.id,
                counted(held.objects.len() as u64, "object"),
                size(held.stored()),
                place.place
            );
        }
        for range in &place.ranges {
            text += &format!(
                "delete  {} to {}, {}, {} at \"{}\": {}\n",
                range.first,
                range.last,
                counted(range.objects, "object"),
                size(range.bytes),
                place.place,
                why(range.why)
            );
        }
    }
    if archive.unread > 0 {
        text += &format!(
            "stay    {}: in encodings that this version does not read\n",
            counted(archive.unread, "object")
        );
    }
    text
}

fn conclusion(acts: bool, places: &[Place]) -> String {
    if acts {
        let deleted: u64 = places.iter().filter_map(|place| place.deleted).sum();
        return format!("deleted {}\n", counted(deleted, "object"));
    }
    let ranges = || places.iter().flat_map(|place| &place.ranges);
    let backups = || places.iter().flat_map(|place| &place.backups);
    let objects = ranges().map(|range| range.objects).sum::<u64>()
        + backups().map(|one| one.held.objects.len() as u64).sum::<u64>();
    let stored =
        ranges().map(|range| range.bytes).sum::<u64>() + backups().map(|one| one.held.stored()).sum::<u64>();
    format!("total   {}, {}; nothing was deleted, --yes does it\n", counted(objects, "object"), size(stored))
}

fn value(plan: &Plan, archive: &Archive, places: &[Place]) -> Value {
    let backups = plan.backups.iter().map(|(backup, fate)| {
        json!({
            "start": backup.start.to_string(),
            "stop": backup.stop.map(|stop| stop.to_string()),
            "timeline": backup.timeline.get(),
            "finished": time(backup.finished),
            "label": backup.label,
            "kept": matches!(fate, Fate::Kept(_)),
            "why": match fate { Fate::Kept(why) => Some(why), Fate::Dropped => None },
        })
    });
    let places = places.iter().map(|place| {
        let ranges = place.ranges.iter().map(|range| {
            json!({
                "first": range.first.to_string(),
                "last": range.last.to_string(),
                "objects": range.objects,
                "bytes": range.bytes,
                "why": why(range.why),
            })
        });
        let backups = place.backups.iter().map(|one| {
            json!({
                "backup": one.held.id.to_string(),
                "objects": one.held.objects.len(),
                "bytes": one.held.stored(),
                "why": one.why,
            })
        });
        json!({
            "destination": place.place,
            "backups": backups.collect::<Vec<_>>(),
            "ranges": ranges.collect::<Vec<_>>(),
            "deleted": place.deleted,
        })
    });
    json!({
        "backups": backups.collect::<Vec<_>>(),
        "destinations": places.collect::<Vec<_>>(),
        "unread": archive.unread,
    })
}
