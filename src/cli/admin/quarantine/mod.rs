//! `wal-archive quarantine NAME`: one object moved aside, so that a good one can take its place. `--timeline`: all of
//! a timeline. `--list`, `--purge`: what was moved aside.

mod aside;
mod timeline;

use super::super::exit::AdminExit;
use super::answer::{VERSION, json_flag, show, show_json};
use super::patience;
use super::table::time;
use crate::archive::identity;
use crate::archive::lookup;
use crate::archive::object::{Kept, Opener};
use crate::archive::quarantine::{Subject, chosen, find, moved_before, set_aside};
use crate::config::{ArchiveBy, Layers};
use crate::failure::Failure;
use crate::object::{Checks, Key};
use crate::storage::{Error, Shared, Storage};
use crate::wal::WalName;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use log::Level;
use serde_json::{Value, json};

pub(super) fn command() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new("quarantine")
        .about("Moves a damaged object to quarantine/NAME.<16 hex>, so that a good one can be stored")
        .after_help(
            "Its bytes stay until --purge. Between the move and the next store the archive lacks the file: begin no \
             recovery and no promotion in that time.\n\n\
             Examples:\n  \
             wal-archive quarantine 000000010000000000000007\n  \
             wal-archive quarantine --force --from /mnt/backup wal_005/000000010000000000000007.lz4\n  \
             wal-archive quarantine --timeline 3        of a rehearsal that archived",
        )
        .arg(
            Arg::new("name")
                .required_unless_present_any(["timeline", "list", "purge"])
                .value_name("NAME")
                .help("A WAL file, or the key of an object of one, such as wal_005/NAME.lz4"),
        )
        .arg(
            Arg::new("timeline")
                .long("timeline")
                .value_name("N")
                .value_parser(clap::value_parser!(u32))
                .conflicts_with_all(["name", "list", "purge"])
                .help("Every file of this timeline, its history last, everywhere: shows them; with --yes moves them"),
        )
        .arg(flag("list").conflicts_with_all(["name", "purge"]).help("Show what was moved aside"))
        .arg(flag("purge").help(
            "Delete of what was moved aside NAME, or everything, if the archive has a file of that name again: shows \
             it; with --yes deletes it",
        ))
        .arg(flag("yes").requires("planned").help("Move, or delete"))
        .group(ArgGroup::new("planned").args(["timeline", "purge"]))
        .arg(
            Arg::new("from")
                .long("from")
                .value_name("URL")
                .help("Only at this destination (default: wherever it is damaged)"),
        )
        .arg(flag("force").help(
            "Also an object that is intact, in an encoding that is not read, or just stored in a bucket; a timeline \
             that seems to be needed; the last object of a name",
        ))
        .arg(patience::arg())
        .arg(json_flag())
}

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let by = ArchiveBy::arguments_if(matches.contains_id("from"));
    let layers = super::layers_for(matches, None, by)?;
    let force = matches.get_flag("force");
    if let Some(number) = matches.get_one::<u32>("timeline") {
        return timeline::run(&layers, matches, *number);
    }
    if matches.get_flag("list") || matches.get_flag("purge") {
        return aside::run(&layers, matches);
    }
    let text = matches.get_one::<String>("name").cloned().unwrap_or_default();
    let subject = Subject::parse(&text).ok_or_else(|| {
        Failure::new((), format!("\"{text}\" is neither the name of a WAL file nor the key of an object of one"))
            .hint("a key is \"wal_005/NAME\" or \"NAME\" with the extension of its encoding; other objects are never touched")
    })?;
    let (destinations, checks) = destinations(&layers, matches.get_one::<String>("from"), matches)?;
    if force && destinations.len() > 1 {
        return Err(Failure::new((), "--force with several destinations could move every intact copy aside")
            .hint("name the destination with --from URL"));
    }
    let (mut rows, mut failed) = (Vec::new(), false);
    for storage in &destinations {
        if let Err(error) = work(storage.as_ref(), &subject, checks, force, &mut rows) {
            Failure::from_storage((), &error).log(Level::Error);
            failed = true;
        }
    }
    match matches.get_flag("json") {
        true => show_json(VERSION, json!({"objects": rows.iter().map(Row::json).collect::<Value>()})),
        false => show(&rows.iter().map(|row| format!("{}\n", row.line())).collect::<String>()),
    }
    if failed {
        return Ok(AdminExit::CouldNotTell);
    }
    if rows.iter().any(|row| row.now_at.is_some()) {
        return Ok(AdminExit::Fine);
    }
    let left: Vec<_> = rows.iter().filter_map(|row| row.state.as_ref()).collect();
    let failure = match left.is_empty() {
        true => Failure::new((), format!("\"{text}\" is at no destination", text = subject_text(&subject))),
        false => Failure::new((), "no object is damaged, so nothing was moved")
            .hint("--force moves an intact one; with several copies of a name, name the key of one"),
    };
    failure.log(Level::Error);
    Ok(AdminExit::Findings)
}

fn subject_text(subject: &Subject) -> String {
    match subject {
        Subject::Name(name) => name.to_string(),
        Subject::Key(key, _) => key.to_string(),
    }
}

fn destinations(
    layers: &Layers,
    from: Option<&String>,
    matches: &ArgMatches,
) -> Result<(Vec<Shared>, Checks), Failure> {
    Ok(match from {
        Some(url) => (vec![patience::open(&layers.destination(url)?, matches)?], layers.admin_checks()?),
        None => {
            let (archive, checks) = layers.admin()?;
            (patience::open_all(&archive, matches)?, checks)
        }
    })
}

/// What stands at a destination, and what became of it.
struct Row {
    place: String,
    key: String,
    /// Of what stands or stood there; `None` for what an earlier run moved.
    state: Option<State>,
    now_at: Option<String>,
}

struct State {
    size: u64,
    stored: String,
    /// `None` in a plan, where nothing was read.
    verdict: Option<String>,
}

impl Row {
    fn of(storage: &dyn Storage, found: &Kept, now_at: Option<&Key>) -> Self {
        Row {
            place: storage.place().to_owned(),
            key: found.key.to_string(),
            state: Some(State {
                size: found.body.len(),
                stored: time(found.modified),
                verdict: Some(found.verdict.to_string()),
            }),
            now_at: now_at.map(Key::to_string),
        }
    }

    fn line(&self) -> String {
        let Row { place, key, .. } = self;
        match (&self.state, &self.now_at) {
            (Some(State { size, stored, verdict: None }), _) => {
                format!("\"{place}/{key}\" ({size} bytes, stored {stored})")
            }
            (Some(State { size, stored, verdict: Some(verdict) }), Some(to)) => {
                format!("\"{place}/{key}\" ({size} bytes, stored {stored}, {verdict}) moved to \"{to}\"")
            }
            (Some(State { size, stored, verdict: Some(verdict) }), None) => {
                format!("\"{place}/{key}\" ({size} bytes, stored {stored}, {verdict}) stays")
            }
            (None, to) => format!(
                "\"{place}/{key}\" was moved before to \"{to}\"",
                to = to.as_deref().unwrap_or_default()
            ),
        }
    }

    fn json(&self) -> Value {
        let state = self.state.as_ref();
        json!({
            "destination": self.place,
            "key": self.key,
            "size": state.map(|state| state.size),
            "stored": state.map(|state| &state.stored),
            "was": state.map(|state| &state.verdict),
            "now_at": self.now_at,
        })
    }
}

fn work(
    storage: &dyn Storage,
    subject: &Subject,
    checks: Checks,
    force: bool,
    rows: &mut Vec<Row>,
) -> Result<(), Error> {
    let name = subject.name();
    let system_id = identity::identity(storage)?.map(|identity| identity.system_id);
    let found = find(storage, subject, &Opener { checks, system_id, segment_size: None })?;
    if found.is_empty() {
        rows.extend(moved_before(storage, name)?.into_iter().map(|to| Row {
            place: storage.place().to_owned(),
            key: subject_text(subject),
            state: None,
            now_at: Some(to),
        }));
    }
    let chosen = chosen(&found, force);
    for examined in &found {
        let moves = chosen.iter().any(|one| one.key == examined.key);
        let to = moves.then(|| set_aside(storage, examined, name, force)).transpose()?;
        rows.push(Row::of(storage, examined, to.as_ref()));
    }
    if !chosen.is_empty() {
        warn_of_the_end(storage, name)?;
    }
    Ok(())
}

/// Where nothing stands behind a segment, an archive without it looks whole, only shorter.
fn warn_of_the_end(storage: &dyn Storage, name: WalName) -> Result<(), Error> {
    let around = lookup::around(storage, name, true)?;
    let unseen = match name {
        WalName::Segment(_) | WalName::TimelineHistory(_) => around.later.is_none(),
        WalName::Partial(_) | WalName::BackupHistory(..) => false,
    };
    if unseen && around.copies.keys.is_empty() {
        Failure::warn(
            format!(
                "\"{}\" does not show that \"{name}\" is missing: a recovery that asks now takes the archive for \
                 shorter than it was",
                storage.place()
            ),
            format!("store a good \"{name}\" before any recovery or promotion"),
        );
    }
    Ok(())
}
