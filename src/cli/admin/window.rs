//! `wal-archive window`: from when to when the archive can be recovered; with `--at` how.

use super::super::exit::AdminExit;
use super::answer::{VERSION, json_flag, show, show_json};
use super::clock::{exact, zone};
use super::look::{Look, wide_flag};
use super::patience;
use super::restore::{failed, wal_fetch};
use super::table::{Align, Table};
use crate::archive::backups::newest_without_backup;
use crate::failure::{Failure, exact_time};
use crate::restore::choose::{Wish, choose, unled};
use crate::restore::settings::{Recovery, line};
use crate::restore::target::{Target, time};
use crate::restore::window::{Known, Window, known_windows, segment};
use crate::restore::{self, Archive, Cause};
use crate::storage::Shared;
use crate::wal::Timeline;
use clap::{Arg, ArgMatches, Command};
use log::Level;
use serde_json::json;
use std::time::SystemTime;

pub(super) fn command() -> Command {
    Command::new("window")
        .about("Shows from when to when the archive can be recovered")
        .after_help(
            "Examples:\n  \
             wal-archive window\n  \
             wal-archive window --at '2026-11-21 13:04:05+01'",
        )
        .arg(
            Arg::new("at")
                .long("at")
                .value_name("TIME")
                .value_parser(time)
                .help("How to recover to this time: the backup, the segment and the settings"),
        )
        .arg(wide_flag())
        .arg(patience::arg())
        .arg(json_flag())
}

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let layers = super::layers(matches)?;
    let destinations = patience::open_all(&layers.admin()?.0, matches)?;
    let shown = match matches.get_one::<SystemTime>("at") {
        None => all(&destinations, matches.get_flag("json"), Look::of(matches)),
        Some(at) => {
            let restore_command = layers.restore_command(&wal_fetch()?)?;
            one(&destinations, *at, restore_command, matches.get_flag("json"))
        }
    };
    Ok(shown.unwrap_or_else(|failure| failed(&failure)))
}

fn all(destinations: &[Shared], json: bool, look: Look) -> Result<AdminExit, Failure<Cause>> {
    let archive = restore::look(destinations)?;
    let Known { windows, refused } = known_windows(&archive)?;
    let newest = newest_without_backup(&archive.inventory, &archive.backups);
    if json {
        let time = |time: Option<SystemTime>| time.and_then(exact_time);
        let value = |window: &Window| {
            json!({
                "backup": window.backup.to_string(),
                "timeline": window.timeline.get(),
                "from": time(Some(window.from)),
                "before": time(window.before),
                "last_commit": time(window.last_commit),
                "end_lsn": window.end.map(|end| end.to_string()),
            })
        };
        show_json(
            VERSION,
            json!({
                "windows": windows.iter().map(value).collect::<Vec<_>>(),
                "unreached_timeline": newest.map(Timeline::get),
                "not_asked": archive.unasked(),
            }),
        );
    } else {
        show(&(text(&windows, look) + &unasked(&archive)));
    }
    Ok(told(&archive, &windows, refused, newest))
}

fn unasked(archive: &Archive) -> String {
    let note = |why| format!("note: what only this destination holds is not shown: {why}\n");
    archive.unasked().map_or_else(String::new, note)
}

/// What is wrong, on stderr.
fn told(
    archive: &Archive,
    windows: &[Window],
    mut refused: Vec<Failure<Cause>>,
    newest: Option<Timeline>,
) -> AdminExit {
    if windows.is_empty() && refused.is_empty() {
        let nothing = Failure::new(Cause::Refused, "no base backup can be recovered");
        refused.push(
            nothing.hint("take one with \"wal-archive backup\"; \"wal-archive list\" shows what is there"),
        );
    } else {
        refused.extend(newest.map(unled));
    }
    let exits = refused.into_iter().map(|one| failed(&archive.undecided(one)));
    AdminExit::of_all(&exits.collect::<Vec<_>>())
}

fn text(windows: &[Window], look: Look) -> String {
    let mut table = Table::new(&[
        ("timeline", Align::Right),
        ("from", Align::Left),
        ("before", Align::Left),
        ("end", Align::Left),
        ("last commit", Align::Left),
    ])
    .leaving_out(&["last commit", "end"]);
    let mut backup = None;
    for window in windows {
        if backup.replace(window.backup) != Some(window.backup) {
            table.title(format!("backup {}", window.backup));
        }
        let (from, before) = match window.before {
            Some(before) => (exact(window.from), exact(before)),
            // No transaction ended after the backup.
            None => ("no moment but the end".to_owned(), "-".to_owned()),
        };
        let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.row([
            window.timeline.to_string().into(),
            from.into(),
            before.into(),
            dash(window.end.map(|end| end.to_string())).into(),
            dash(window.last_commit.map(exact)).into(),
        ]);
        if let Some(hole) = &window.hole {
            table.title(format!("          then a hole: {hole} in the archive"));
        }
    }
    let zone = if windows.is_empty() { String::new() } else { format!("times in {}\n", zone()) };
    table.render(look) + &zone
}

fn one(
    destinations: &[Shared],
    at: SystemTime,
    restore_command: String,
    json: bool,
) -> Result<AdminExit, Failure<Cause>> {
    let archive: Archive = restore::look(destinations)?;
    let wish = Wish { backup: None, target: Target::Time(at), exclusive: false, timeline: None };
    let choice = choose(&archive.inventory, &archive.backups, &wish, &archive)
        .map_err(|failure| archive.undecided(failure))?;
    let segment = segment(&archive, &choice.record, choice.timeline, at)?;
    if let Some(newest) = choice.unreached {
        unled(newest).log(Level::Warn);
    }
    let settings = Recovery::of(&choice, restore_command).target_lines();
    match json {
        true => show_json(
            VERSION,
            json!({
                "backup": choice.record.id.to_string(),
                "timeline": choice.timeline.get(),
                "segment": segment.to_string(),
                "not_asked": archive.unasked(),
                "unreached_timeline": choice.unreached.map(Timeline::get),
                "settings": settings.iter().map(|(name, value)| (*name, value.as_str()))
                    .collect::<std::collections::BTreeMap<_, _>>(),
            }),
        ),
        false => {
            show(&format!(
                "backup   {}\ntimeline {}\nsegment  {segment}\n\n{}{}",
                choice.record.id,
                choice.timeline,
                settings.iter().map(line).collect::<String>(),
                unasked(&archive)
            ));
        }
    }
    Ok(AdminExit::Fine)
}
