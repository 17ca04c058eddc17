//! `wal-archive list`: what stands in the archive, by names and history files; with `--all` in each
//! cluster's.

mod backups;
mod json;
mod rehearsals;
mod show;

use super::answer::{VERSION_WITH_FINDINGS, json_flag, show, show_json};
use super::look::{Look, wide_flag};
use super::table::{printable, time};
use super::{findings, patience};
use crate::archive::backups::{Held, all};
use crate::archive::inventory::{Inventory, items};
use crate::archive::quarantine::{self, Aside};
use crate::archive::rehearsals::{Rehearsal, latest};
use crate::cli::args;
use crate::cli::exit::AdminExit;
use crate::config::{Layers, Program};
use crate::failure::Failure;
use crate::finding::{Finding, FindingKind};
use crate::storage::{Error, Shared, Storage, hides_what_is_missing};
use crate::verify::{Scope, by_names, not_listed, unled};
use clap::{Arg, ArgAction, ArgMatches, Command};
use log::Level;
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime};

pub(super) fn command() -> Command {
    Command::new("list")
        .about("Shows timelines, segments, gaps and backups of the archive")
        .after_help(
            "It reads names only. \"wal-archive verify\" reads the objects.\n\n\
             Examples:\n  \
             wal-archive list\n  \
             wal-archive list --segments --json | jq .key",
        )
        .arg(
            Arg::new("segments")
                .long("segments")
                .action(ArgAction::SetTrue)
                .help("Every object instead; with --json one line of JSON each"),
        )
        .arg(wide_flag())
        .arg(super::all_flag())
        .arg(patience::arg())
        .arg(json_flag())
}

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    if matches.get_flag("all") {
        return of_each_cluster(matches);
    }
    let layers = super::layers(matches)?;
    if matches.get_flag("segments") {
        return every_object_of(&layers, matches, None).map(|()| AdminExit::Fine);
    }
    let listed = Listed::read(&layers, matches)?;
    match matches.get_flag("json") {
        true => {
            show_json(VERSION_WITH_FINDINGS, listed.json(layers.cluster().map(|chosen| chosen.name.as_str())))
        }
        false => listed.tell(Look::of(matches)),
    }
    Ok(listed.exit())
}

/// One after the other; one that cannot be listed stops no other.
fn of_each_cluster(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let (json, segments) = (matches.get_flag("json"), matches.get_flag("segments"));
    let (mut exits, mut objects) = (Vec::new(), Vec::new());
    for layers in args::layers_of_all(matches, Program::Archive)? {
        let name = layers.cluster().map_or("", |chosen| chosen.name.as_str());
        if !json {
            let gap = if exits.is_empty() { "" } else { "\n" };
            show(&format!("{gap}cluster {name}\n"));
        }
        let listed = match segments {
            true => every_object_of(&layers, matches, Some(name)).map(|()| AdminExit::Fine),
            false => Listed::read(&layers, matches).map(|listed| {
                match json {
                    true => objects.push(listed.json(Some(name))),
                    false => listed.tell(Look::of(matches)),
                }
                listed.exit()
            }),
        };
        exits.push(listed.unwrap_or_else(|failure| {
            objects.push(json!({"cluster": name, "error": failure.to_string()}));
            failure.within(&format!("cluster \"{name}\"")).log(Level::Error);
            AdminExit::CouldNotTell
        }));
    }
    if json && !segments {
        show_json(VERSION_WITH_FINDINGS, json!({"clusters": objects}));
    }
    Ok(AdminExit::of_all(&exits))
}

/// What was listed of an archive.
pub(super) struct Listed {
    pub(super) inventories: Vec<Inventory>,
    /// The base backups of each.
    pub(super) backups: Vec<Vec<Held>>,
    /// The last rehearsals that each has a record of, newest first, and how many older ones there are.
    pub(super) rehearsals: Vec<(Vec<Rehearsal>, usize)>,
    /// What was moved aside at each.
    aside: Vec<Vec<Aside>>,
    /// When the listing of each was complete, and how long it took.
    pub(super) answers: Vec<(SystemTime, Duration)>,
    found: Vec<Finding>,
    /// Destinations that could not be listed.
    unread: Vec<Finding>,
}

/// What was listed of one destination.
struct Destination<'a> {
    inventory: &'a Inventory,
    held: &'a [Held],
    rehearsal: Option<&'a Rehearsal>,
    aside: &'a [Aside],
}

impl Listed {
    pub(super) fn read(layers: &Layers, matches: &ArgMatches) -> Result<Self, Failure> {
        Ok(Listed::of(&patience::open_all(&layers.admin()?.0, matches)?, 1))
    }

    /// With so many rehearsals of each.
    pub(super) fn of(storages: &[Shared], most: usize) -> Self {
        let (mut inventories, mut backups, mut unread) = (Vec::new(), Vec::new(), Vec::new());
        let (mut rehearsals, mut aside, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for storage in storages {
            let (storage, asked) = (storage.as_ref(), Instant::now());
            let mut lost = |error: &Error| unread.push(not_listed(storage, error));
            match Inventory::read_archive(storage) {
                Ok(inventory) => {
                    inventories.push(inventory);
                    answers.push((SystemTime::now(), asked.elapsed()));
                    let held = seen(storage, all(storage));
                    backups.push(held.inspect_err(&mut lost).unwrap_or_default());
                    rehearsals.push(latest(storage, most).inspect_err(&mut lost).unwrap_or_default());
                    let moved = seen(storage, quarantine::held(storage));
                    aside.push(moved.inspect_err(&mut lost).unwrap_or_default());
                }
                Err(error) => lost(&error),
            }
        }
        let names = by_names(&inventories, &Scope::default());
        let mut found = names.map(|names| names.findings).unwrap_or_default();
        // Of two clusters that is all that is said.
        if found.iter().all(|finding| finding.kind != FindingKind::OtherCluster) {
            found.extend(
                inventories.iter().zip(&backups).filter_map(|(inventory, held)| unled(inventory, held)),
            );
        }
        for lost in &unread {
            lost.message().log(Level::Error);
        }
        Listed { inventories, backups, rehearsals, aside, answers, found, unread }
    }

    pub(super) fn all_findings(&self) -> impl Iterator<Item = &Finding> {
        self.found.iter().chain(&self.unread)
    }

    pub(super) fn exit(&self) -> AdminExit {
        findings::exit(self.all_findings())
    }

    fn each(&self) -> impl Iterator<Item = Destination<'_>> {
        let all = self.inventories.iter().zip(&self.backups).zip(&self.rehearsals).zip(&self.aside);
        all.map(|(((inventory, held), rehearsal), aside)| Destination {
            inventory,
            held,
            rehearsal: rehearsal.0.first(),
            aside,
        })
    }

    /// The destinations that could not be listed, and why.
    pub(super) fn unread(&self) -> &[Finding] {
        &self.unread
    }

    fn json(&self, cluster: Option<&str>) -> Value {
        let destinations: Value = self.each().map(|at| json::destination(&at)).collect();
        let findings: Vec<&Finding> = self.all_findings().collect();
        json!({"cluster": cluster, "destinations": destinations, "findings": findings})
    }

    fn tell(&self, look: Look) {
        let sections: Vec<String> = self.each().map(|at| show::section(&at, look)).collect();
        show(&sections.join("\n"));
        if !self.found.is_empty() {
            show(&format!("\n{}", findings::text(&self.found, look)));
        }
    }
}

/// What is there; nothing where a policy hides whether anything is.
fn seen<T: Default>(storage: &dyn Storage, answer: crate::storage::Result<T>) -> crate::storage::Result<T> {
    match answer {
        Err(error) if hides_what_is_missing(storage, &error) => {
            log::debug!("whether there is more cannot be seen: {error}");
            Ok(T::default())
        }
        other => other,
    }
}

fn every_object_of(layers: &Layers, matches: &ArgMatches, cluster: Option<&str>) -> Result<(), Failure> {
    let json = matches.get_flag("json");
    let storages = patience::open_all(&layers.admin()?.0, matches)?;
    storages.iter().try_for_each(|storage| every_object(storage, json, cluster))
}

/// `--segments`, as the listing comes.
fn every_object(storage: &Shared, json: bool, cluster: Option<&str>) -> Result<(), Failure> {
    let failed = |error| Failure::from_storage((), &error);
    let mut text = String::new();
    for item in items(storage.as_ref()).map_err(failed)? {
        let item = item.map_err(failed)?;
        let (kind, name) = show::kind(&item);
        if json {
            let mut line = json!({
                "destination": storage.place(), "key": item.key, "kind": kind, "name": name,
                "bytes": item.size, "stored": time(item.modified),
            });
            if let (Some(cluster), Some(fields)) = (cluster, line.as_object_mut()) {
                fields.insert("cluster".to_owned(), json!(cluster));
            }
            text += &format!("{line}\n");
        } else {
            text +=
                &format!("{}  {:>12}  {kind:8}  {}\n", time(item.modified), item.size, printable(&item.key));
        }
        if text.len() > 1 << 16 {
            show(&text);
            text.clear();
        }
    }
    show(&text);
    Ok(())
}
