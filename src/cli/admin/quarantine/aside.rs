//! `wal-archive quarantine --list` and `--purge`: what was moved aside, and its end.

use super::super::super::exit::AdminExit;
use super::super::answer::{VERSION, show, show_json};
use super::super::clock::local;
use super::super::look::Look;
use super::super::table::{Align, Table, time};
use super::destinations;
use crate::archive::quarantine::{Aside, held, is_replaced};
use crate::config::Layers;
use crate::failure::{Failure, size};
use crate::storage::Error;
use crate::wal::WalName;
use clap::ArgMatches;
use log::Level;
use serde_json::{Value, json};

pub(super) fn run(layers: &Layers, matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let (purge, acts) = (matches.get_flag("purge"), matches.get_flag("yes"));
    let only = matches.get_one::<String>("name").map(|text| {
        let parsed = text.parse::<WalName>();
        parsed.map_err(|error| Failure::new((), format!("\"{text}\" is {error}")))
    });
    let only = only.transpose()?;
    let (storages, _) = destinations(layers, matches.get_one::<String>("from"), matches)?;
    let failed = |error: Error| Failure::from_storage((), &error);
    let (mut rows, mut exit) = (Vec::new(), AdminExit::Fine);
    for storage in &storages {
        let all = held(storage.as_ref()).map_err(failed)?;
        for aside in all.into_iter().filter(|aside| only.is_none_or(|name| name == aside.name)) {
            let replaced = is_replaced(storage.as_ref(), aside.name).map_err(failed)?;
            let goes = purge && (replaced || matches.get_flag("force"));
            if purge && !goes {
                exit = AdminExit::of_all(&[exit, AdminExit::Findings]);
            }
            let mut became = if goes { "goes with --yes" } else { "stays" };
            if goes && acts {
                became = "deleted";
                if let Err(error) = storage.delete(&aside.key) {
                    failed(error).log(Level::Error);
                    (became, exit) = ("stays", AdminExit::CouldNotTell);
                }
            }
            rows.push(Shown { place: storage.place().to_owned(), aside, replaced, became });
        }
    }
    if exit == AdminExit::Findings {
        let what = "of what stays the archive has no other object: it may be the last of its name";
        Failure::new((), what)
            .hint("store a good one first; --force deletes it all the same")
            .log(Level::Error);
    }
    match matches.get_flag("json") {
        true => show_json(VERSION, json!({"quarantined": rows.iter().map(as_json).collect::<Value>()})),
        false => show(&table(&rows, purge)),
    }
    Ok(exit)
}

struct Shown {
    place: String,
    aside: Aside,
    replaced: bool,
    became: &'static str,
}

fn table(rows: &[Shown], purge: bool) -> String {
    let mut heading = vec![
        ("moved", Align::Left),
        ("size", Align::Right),
        ("object", Align::Left),
        ("archived anew", Align::Left),
    ];
    heading.extend(purge.then_some(("", Align::Left)));
    let mut table = Table::new(&heading);
    for Shown { place, aside: Aside { key, size: bytes, moved, .. }, replaced, became } in rows {
        let anew = if *replaced { "yes" } else { "no" };
        let cells = [local(*moved), size(*bytes), format!("{place}/{key}"), anew.to_owned()];
        table.row(cells.into_iter().chain(purge.then(|| (*became).to_owned())).map(Into::into));
    }
    if table.is_empty() { "nothing was moved aside\n".to_owned() } else { table.render(Look::wide()) }
}

fn as_json(Shown { place, aside, replaced, became }: &Shown) -> Value {
    json!({
        "destination": place,
        "key": aside.key.as_str(),
        "name": aside.name.to_string(),
        "size": aside.size,
        "moved": time(aside.moved),
        "replaced": replaced,
        "deleted": *became == "deleted",
    })
}
