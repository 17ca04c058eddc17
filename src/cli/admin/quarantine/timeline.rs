//! `wal-archive quarantine --timeline N`: a plan, and with `--yes` the move.

use super::super::super::exit::AdminExit;
use super::super::answer::{VERSION, show, show_json};
use super::super::table::{counted, time};
use super::{Row, State, destinations};
use crate::archive::identity;
use crate::archive::inventory::Item;
use crate::archive::object::Opener;
use crate::archive::quarantine::{needs_of_timeline, of_timeline, set_aside};
use crate::config::Layers;
use crate::failure::{Failure, size};
use crate::object::Checks;
use crate::storage::{Error, Storage};
use crate::wal::{Timeline, WalName};
use clap::ArgMatches;
use log::Level;
use serde_json::{Value, json};
use std::io;

type Objects = Vec<(Item, WalName)>;

pub(super) fn run(layers: &Layers, matches: &ArgMatches, number: u32) -> Result<AdminExit, Failure> {
    let timeline =
        Timeline::new(number).ok_or_else(|| Failure::new((), "--timeline: there is no timeline 0"))?;
    let (acts, force) = (matches.get_flag("yes"), matches.get_flag("force"));
    let (storages, checks) = destinations(layers, matches.get_one::<String>("from"), matches)?;
    let failed = |error: Error| Failure::from_storage((), &error);
    // All of them are asked before anything is moved anywhere.
    let mut plans: Vec<Objects> = Vec::new();
    for storage in &storages {
        let objects = of_timeline(storage.as_ref(), timeline).map_err(failed)?;
        let needs = needs_of_timeline(storage.as_ref(), timeline, &objects).map_err(failed)?;
        if !needs.is_empty() && !objects.is_empty() && !force {
            let what = format!("timeline {timeline} stays at \"{}\": {}", storage.place(), needs.join("; "));
            let hint = "make sure that nobody needs it, and that no server archives on it; --force moves it all the same";
            Failure::new((), what).hint(hint).log(Level::Error);
            return Ok(AdminExit::Findings);
        }
        plans.push(objects);
    }
    if plans.iter().all(Vec::is_empty) {
        Failure::new((), format!("there is no file of timeline {timeline} at any destination"))
            .log(Level::Error);
        return Ok(AdminExit::Findings);
    }
    let (mut rows, mut exit) = (Vec::new(), AdminExit::Fine);
    for (storage, objects) in storages.iter().zip(&plans) {
        let moved = match acts {
            true => move_all(storage.as_ref(), objects, checks, force, &mut rows),
            false => {
                rows.extend(objects.iter().map(|(item, _)| planned(storage.as_ref(), item)));
                Ok(())
            }
        };
        if let Err(error) = moved {
            failed(error).log(Level::Error);
            exit = AdminExit::CouldNotTell;
        }
    }
    if matches.get_flag("json") {
        show_json(VERSION, json!({"objects": rows.iter().map(Row::json).collect::<Value>()}));
        return Ok(exit);
    }
    show(&rows.iter().map(|row| format!("{}\n", row.line())).collect::<String>());
    if !acts {
        let all = || plans.iter().flatten();
        let bytes = size(all().map(|(item, _)| item.size).sum());
        let count = counted(all().count() as u64, "object");
        show(&format!(
            "timeline {timeline}: {count}, {bytes}; nothing was moved: --yes moves them, the history last\n"
        ));
    }
    Ok(exit)
}

fn planned(storage: &dyn Storage, item: &Item) -> Row {
    let state = State { size: item.size, stored: time(item.modified), verdict: None };
    Row { place: storage.place().to_owned(), key: item.key.clone(), state: Some(state), now_at: None }
}

fn move_all(
    storage: &dyn Storage,
    objects: &Objects,
    checks: Checks,
    force: bool,
    rows: &mut Vec<Row>,
) -> Result<(), Error> {
    let system_id = identity::identity(storage)?.map(|identity| identity.system_id);
    let opener = Opener { checks, system_id, segment_size: None };
    for (item, name) in objects {
        let Some(key) = item.key() else { continue };
        // None: somebody else was faster.
        let Some(kept) = opener.keep(storage, &key, &mut io::sink())? else { continue };
        let to = set_aside(storage, &kept, *name, force)?;
        rows.push(Row::of(storage, &kept, Some(&to)));
    }
    Ok(())
}
