//! `wal-archive report FILE.html`: what the archive holds and from when to when it can be recovered, as one
//! page to mail, to open offline and to keep. What is in it is what `list`, `window`, `expire` and `config` tell.

mod days;
mod html;
mod line;
mod marks;
mod page;
mod picture;
mod rows;
mod tables;

use super::super::exit::AdminExit;
use super::answer::show;
use super::config::{self, Shown};
use super::expire::{planned, rule_args, rules, rules_given};
use super::list::Listed;
use super::verify::quick_look;
use super::{findings, patience};
use crate::archive::backups::State;
use crate::archive::inventory::{Inventory, Runs};
use crate::archive::rehearsals::Rehearsal;
use crate::config::Layers;
use crate::expire::plan::{Fate, Plan};
use crate::failure::Failure;
use crate::finding::{Finding, FindingKind};
use crate::host::durable;
use crate::restore;
use crate::restore::window::{Known, Window, known_windows};
use crate::storage::Shared;
use crate::wal::{SegmentName, Timeline, WalName};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(super) fn command() -> Command {
    Command::new("report")
        .about("Writes an HTML page of what the archive holds and how far it can be recovered")
        .after_help(
            "The page needs nothing else and asks nothing of any network. With the rules of \"wal-archive expire\" it shades \
             what these would delete; nothing is deleted.\n\n\
             Examples:\n  \
             wal-archive report /srv/reports/wal-main.html\n  \
             wal-archive report --quick --keep-days 14 /srv/reports/wal-main.html",
        )
        .arg(
            Arg::new("file")
                .required(true)
                .value_name("FILE.html")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The page; one that is there is replaced"),
        )
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .help("Look at every object's trailer, too, as \"verify --quick\" does, and show what is damaged"),
        )
        .args(rule_args())
        .arg(patience::arg())
}

/// All that is on the page.
struct Report {
    made: SystemTime,
    cluster: Option<String>,
    listed: Listed,
    /// All destinations as one.
    union: Option<Inventory>,
    /// What is wrong, by names and listings; where trailers were looked at, by them, too.
    findings: Vec<Finding>,
    /// How many objects' trailers were looked at, where they were.
    looked_at: Option<u64>,
    /// Or why they are not known.
    windows: Result<Vec<Window>, Failure>,
    /// Why others than these are not known: WAL at their ends is damaged.
    refused: Vec<Failure>,
    /// Newest first, each with where it is recorded; and how many older ones there are.
    rehearsals: (Vec<(String, Rehearsal)>, usize),
    retention: Retention,
    settings: Vec<Shown>,
}

/// What `expire` would delete.
enum Retention {
    /// No rule was given.
    NotAsked,
    Unknown(String, Failure),
    Known {
        rules: String,
        plan: Box<Plan>,
        doomed: BTreeMap<Timeline, Runs>,
    },
}

/// So many rehearsals are shown.
const REHEARSALS: usize = 30;

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let file: PathBuf = super::super::args::value(matches, "file")?;
    let layers = super::layers(matches)?;
    let report = Report::gather(&layers, matches)?;
    write(&file, &page::html(&report))?;
    show(&format!("the report is in \"{}\"\n", file.display()));
    let untold = report.windows.is_err() || matches!(report.retention, Retention::Unknown(..));
    let unless = |fine, otherwise| if fine { AdminExit::Fine } else { otherwise };
    Ok(AdminExit::of_all(&[
        findings::exit(&report.findings),
        unless(report.refused.is_empty(), AdminExit::Findings),
        unless(!untold, AdminExit::CouldNotTell),
    ]))
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    durable::replace_public(&absolute, text.as_bytes())
        .map_err(|error| Failure::new((), format!("cannot write \"{}\": {error}", file.display())))
}

impl Report {
    /// Each destination is listed once, however large it is; trailers are read only where that was asked for.
    fn gather(layers: &Layers, matches: &ArgMatches) -> Result<Self, Failure> {
        let (destinations, checks) = layers.admin()?;
        let storages = patience::open_all(&destinations, matches)?;
        let listed = Listed::of(&storages, REHEARSALS);
        let (mut found, looked_at) = match matches.get_flag("quick") {
            true => {
                let looked = quick_look(&storages, checks)?;
                (looked.findings, Some(looked.checked.objects))
            }
            false => (listed.all_findings().cloned().collect(), None),
        };
        found.extend(damaged_backups(&listed));
        let (windows, refused) = match recoverable(&storages, &listed, &found) {
            Ok(Known { windows, refused }) => (Ok(windows), refused.iter().map(Failure::remark).collect()),
            Err(failure) => (Err(failure.remark()), Vec::new()),
        };
        Ok(Report {
            made: SystemTime::now(),
            cluster: layers.cluster().map(|chosen| chosen.name.clone()),
            union: union(&listed.inventories),
            findings: found,
            looked_at,
            windows,
            refused,
            rehearsals: rehearsals(&listed),
            retention: retention(matches, &storages, &listed),
            settings: config::rows(layers)?,
            listed,
        })
    }

    /// Of each backup those windows that lead further than on an older timeline.
    fn windows_once(&self) -> impl Iterator<Item = &Window> {
        let all = self.windows.as_deref().unwrap_or_default();
        let same = |one: &Window, other: &Window| one.backup == other.backup && one.end == other.end;
        let first =
            move |(at, window): &(usize, &Window)| !all.iter().take(*at).any(|older| same(older, window));
        all.iter().enumerate().filter(first).map(|(_, window)| window)
    }

    /// Whether `expire` would delete a backup, as far as that is known.
    fn drops(&self, window: &Window) -> bool {
        let Retention::Known { plan, .. } = &self.retention else { return false };
        let id = window.backup;
        let dropped = plan.backups.iter().any(|(backup, fate)| {
            (backup.start, backup.timeline, fate) == (id.start, id.timeline, &Fate::Dropped)
        });
        // Not where its WAL stays, whatever the reason.
        let size = self.union.as_ref().and_then(|union| union.segment_size);
        let first = size.map(|size| WalName::Segment(SegmentName::at(id.timeline, id.start, size)));
        dropped && first.is_some_and(|first| plan.deletes(first).is_some())
    }
}

fn union(inventories: &[Inventory]) -> Option<Inventory> {
    let (first, others) = inventories.split_first()?;
    let mut union = first.clone();
    others.iter().for_each(|other| union.absorb(other));
    Some(union)
}

/// By the listing: parts that are missing or have another length.
fn damaged_backups(listed: &Listed) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (inventory, backups) in listed.inventories.iter().zip(&listed.backups) {
        for held in backups {
            if let State::Damaged(_, reason) | State::Unreadable(reason) = &held.state {
                let finding = Finding::new(FindingKind::Damaged, held.id, &inventory.place, reason.as_str());
                findings.push(finding.hint(
                    "bring it with \"wal-archive copy --repair\" from a destination that has it, or take a new one",
                ));
            }
        }
    }
    findings
}

fn recoverable(storages: &[Shared], listed: &Listed, findings: &[Finding]) -> restore::Result<Known> {
    let held = listed.inventories.iter().zip(&listed.backups).filter_map(|(inventory, backups)| {
        let storage = storages.iter().find(|storage| storage.place() == inventory.place)?;
        Some((storage, Ok((without_damage(inventory, findings), backups.clone()))))
    });
    known_windows(&restore::together(held)?)
}

/// A segment that is known to be damaged ends what recovers, as one that is missing does.
fn without_damage(inventory: &Inventory, findings: &[Finding]) -> Inventory {
    let mut sound = inventory.clone();
    let counts = [FindingKind::Damaged, FindingKind::OtherCluster];
    for finding in findings.iter().filter(|one| one.place == inventory.place && counts.contains(&one.kind)) {
        let Ok(WalName::Segment(segment)) = finding.name.parse() else { continue };
        let files = sound.timelines.get_mut(&segment.timeline());
        if let (Some(number), Some(files)) = (inventory.number(segment), files) {
            files.segments.remove(number);
        }
    }
    sound
}

/// Those of all destinations; one that is recorded in several is shown once.
fn rehearsals(listed: &Listed) -> (Vec<(String, Rehearsal)>, usize) {
    let (mut all, mut older): (Vec<(String, Rehearsal)>, _) = (Vec::new(), 0);
    for (Inventory { place, .. }, (found, more)) in listed.inventories.iter().zip(&listed.rehearsals) {
        older = older.max(*more);
        for rehearsal in found {
            match all.iter_mut().find(|(_, known)| known == rehearsal) {
                Some((places, _)) => *places = format!("{places}, {place}"),
                None => all.push((place.clone(), rehearsal.clone())),
            }
        }
    }
    all.sort_by_key(|(_, rehearsal)| std::cmp::Reverse(rehearsal.rehearsed));
    older += all.len().saturating_sub(REHEARSALS);
    all.truncate(REHEARSALS);
    (all, older)
}

fn retention(matches: &ArgMatches, storages: &[Shared], listed: &Listed) -> Retention {
    let given = rules_given(matches);
    if given.is_empty() {
        return Retention::NotAsked;
    }
    let plan = match listed.unread().first() {
        Some(unread) => Err(unread.message()),
        None => crate::expire::together(listed.inventories.clone())
            .and_then(|archive| Ok((planned(matches, &rules(matches)?, &archive, storages)?, archive))),
    };
    match plan {
        Ok((plan, archive)) => {
            let lines = archive.facts.timelines.iter();
            let doomed = lines.map(|(timeline, line)| (*timeline, plan.of(*timeline, &line.segments)));
            let doomed = doomed.filter(|(_, runs)| !runs.is_empty()).collect();
            Retention::Known { rules: given, plan: Box::new(plan), doomed }
        }
        Err(failure) => Retention::Unknown(given, failure),
    }
}
