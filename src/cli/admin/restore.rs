//! `wal-archive restore`: arguments in, how to go on out.

use super::super::args;
use super::super::exit::{AdminExit, FetchExit, Form};
use super::answer::{VERSION, json_flag, show, show_json};
use super::jobs;
use super::patience;
use super::progress::Progress;
use crate::base_backup::{BackupId, Record};
use crate::failure::{Failure, exact_time};
use crate::restore::choose::{Choice, Wish, choose};
use crate::restore::settings::{Action, Recovery};
use crate::restore::target::{Target, time};
use crate::restore::{Cause, Request, look, restore};
use crate::storage::Shared;
use crate::wal::{Lsn, Mark, Timeline};
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use log::Level;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(super) fn command() -> Command {
    let one = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("restore")
        .about("Makes a data directory of a base backup, ready to recover")
        .after_help(
            "Run it as the user that PostgreSQL runs as. Without a target recovery goes to the end of the archived WAL. \
             What the archived WAL does not lead to is refused before anything is written.\n\n\
             Examples:\n  \
             wal-archive restore /var/lib/postgresql/15/main\n  \
             wal-archive restore --standby --keep-archiving /var/lib/postgresql/15/main\n  \
             wal-archive restore --target-time '2026-11-21 13:04:05+01' /srv/copy",
        )
        .arg(
            Arg::new("directory")
                .required(true)
                .value_name("DIRECTORY")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The data directory to make: new or empty"),
        )
        .args([
            one("backup", "ID", "This backup, or latest (default: the newest that leads to the target)"),
            one("target-time", "TIME", "Recover what was committed by then, such as \"2026-11-21 13:04:05+01\"")
                .value_parser(time),
            one("target-lsn", "LSN", "Recover up to this address").value_parser(|text: &str| text.parse::<Lsn>()),
            one("target-xid", "XID", "Recover up to the end of this transaction")
                .value_parser(clap::value_parser!(u32).range(3..)),
            one("target-name", "NAME", "Recover up to this restore point (pg_create_restore_point)").value_parser(one_line),
            flag("immediate", "Recover no further than until the backup is consistent"),
            flag("target-exclusive", "Stop just before the target"),
            one("target-timeline", "N", "Along this timeline (default: the newest)")
                .value_parser(clap::value_parser!(u32).range(1..)),
            one("target-action", "ACTION", "What the server does at the target (default: pause)")
                .value_parser(["pause", "promote", "shutdown"]),
            one("tablespace", "OLD=NEW", "Put the tablespace of the directory OLD into NEW; repeatable")
                .action(ArgAction::Append)
                .value_parser(mapping),
            flag("standby", "Make a standby, which follows the newest timeline until it is promoted")
                .conflicts_with_all(["target", "target-exclusive", "target-timeline", "target-action"]),
            flag("keep-archiving", "Let the restored server archive as the old one did"),
            flag("force", "Remove what an unfinished restore left in the directory"),
        ])
        .group(ArgGroup::new("target").args([
            "target-time",
            "target-lsn",
            "target-xid",
            "target-name",
            "immediate",
        ]))
        .arg(jobs::arg("Parts that are read and decoded at once"))
        .arg(patience::arg())
        .arg(json_flag())
}

fn one_line(text: &str) -> Result<String, &'static str> {
    if text.contains('\n') {
        Err("it has a newline, which PostgreSQL's settings cannot hold")
    } else {
        Ok(text.to_owned())
    }
}

fn mapping(text: &str) -> Result<(String, PathBuf), String> {
    let wrong = || "OLD=NEW with two absolute paths".to_owned();
    let (old, new) = text.split_once('=').ok_or_else(wrong)?;
    let absolute = |path: &str| Path::new(path).is_absolute();
    (absolute(old) && absolute(new)).then(|| (old.to_owned(), new.into())).ok_or_else(wrong)
}

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let layers = super::layers(matches)?;
    let destinations = patience::open_all(&layers.admin()?.0, matches)?;
    let restore_command = layers.restore_command(&wal_fetch()?)?;
    if let Some(directory) = matches.get_one::<PathBuf>("directory") {
        layers.refuse_elsewhere(&std::path::absolute(directory).unwrap_or_else(|_| directory.clone()))?;
    }
    let wish = wish(matches)?;
    match restored(matches, &destinations, restore_command, &wish) {
        Ok(told) => {
            match matches.get_flag("json") {
                true => show_json(VERSION, told.value()),
                false => show(&told.text()),
            }
            Ok(AdminExit::Fine)
        }
        Err(failure) => Ok(failed(&failure)),
    }
}

/// Says why nothing can be restored, or not that far; the exit code.
pub(super) fn failed(failure: &Failure<Cause>) -> AdminExit {
    failure.log(Level::Error);
    match failure.kind {
        Cause::Refused => AdminExit::Findings,
        Cause::CouldNot => AdminExit::CouldNotTell,
    }
}

fn wish(matches: &ArgMatches) -> Result<Wish, Failure> {
    let time = matches.get_one::<SystemTime>("target-time").copied().map(Target::Time);
    let lsn = matches.get_one::<Lsn>("target-lsn").copied().map(Target::Lsn);
    let xid = matches.get_one::<u32>("target-xid").copied().map(Mark::Transaction);
    let name = matches.get_one::<String>("target-name").cloned().map(Mark::RestorePoint);
    let immediate = matches.get_flag("immediate").then_some(Target::Immediate);
    let target = time.or(lsn).or(xid.or(name).map(Target::Mark)).or(immediate).unwrap_or(Target::End);
    let backup = matches.get_one::<String>("backup").filter(|text| *text != "latest");
    let backup = backup.map(|text| {
        text.parse::<BackupId>().map_err(|error| Failure::new((), format!("--backup: \"{text}\" is {error}")))
    });
    Ok(Wish {
        backup: backup.transpose()?,
        target,
        exclusive: matches.get_flag("target-exclusive"),
        timeline: matches.get_one::<u32>("target-timeline").copied().and_then(Timeline::new),
    })
}

fn restored(
    matches: &ArgMatches,
    destinations: &[Shared],
    restore_command: String,
    wish: &Wish,
) -> Result<Told, Failure<Cause>> {
    let archive = look(destinations)?;
    let choice = choose(&archive.inventory, &archive.backups, wish, &archive)
        .map_err(|failure| archive.undecided(failure))?;
    let could_not =
        |failure: Failure| Failure { kind: Cause::CouldNot, message: failure.message, hint: failure.hint };
    let action = matches.get_one::<String>("target-action").map(|word| match word.as_str() {
        "promote" => Action::Promote,
        "shutdown" => Action::Shutdown,
        _ => Action::Pause,
    });
    let recovery = Recovery {
        action,
        exclusive: matches.get_flag("target-exclusive"),
        keep_archiving: matches.get_flag("keep-archiving"),
        standby: matches.get_flag("standby"),
        ..Recovery::of(&choice, restore_command)
    };
    let named: PathBuf = args::value(matches, "directory").map_err(could_not)?;
    let directory = std::path::absolute(&named).unwrap_or(named);
    let mappings = matches.get_many::<(String, PathBuf)>("tablespace").unwrap_or_default().cloned();
    let tablespaces: BTreeMap<String, PathBuf> = mappings.collect();
    log::info!("restoring backup {} to \"{}\"", choice.record.id, directory.display());
    let progress = Progress::new("restoring");
    restore(&Request {
        sources: archive.sources(choice.record.id),
        choice: &choice,
        directory: &directory,
        tablespaces: &tablespaces,
        recovery: &recovery,
        force: matches.get_flag("force"),
        jobs: jobs::count(matches).map_err(could_not)?,
        progress: &|done, total| {
            progress.set_bytes("restoring", done, total);
            Ok(())
        },
    })?;
    drop(progress);
    let silent = archive.silent().map(|failure| failure.message.clone());
    Ok(Told { choice, recovery, directory, silent })
}

/// The wal-fetch beside this program.
pub(super) fn wal_fetch() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()
        .map_err(|error| Failure::new((), format!("cannot tell where this program is: {error}")))?;
    let beside = own.with_file_name("wal-fetch");
    match beside.is_file() {
        true => Ok(beside),
        false => Err(Failure::new((), format!("there is no \"{}\"", beside.display()))
            .hint("the restored server needs wal-fetch: install it beside wal-archive")),
    }
}

/// What was done, and how to go on.
struct Told {
    choice: Choice,
    recovery: Recovery,
    directory: PathBuf,
    /// Why a destination answers no wal-fetch.
    silent: Option<String>,
}

impl Told {
    fn target(&self) -> String {
        match &self.recovery.target {
            Target::End if self.recovery.standby => "the newest timeline, as a standby".to_owned(),
            Target::End => format!("the end of timeline {}", self.choice.timeline),
            Target::Immediate => "the end of the backup".to_owned(),
            Target::Time(time) => exact_time(*time).unwrap_or_default(),
            Target::Lsn(lsn) => lsn.to_string(),
            Target::Mark(Mark::Transaction(id)) => format!("the end of transaction {id}"),
            Target::Mark(Mark::RestorePoint(name)) => format!("the restore point \"{name}\""),
        }
    }

    fn start(&self) -> String {
        let version = self.choice.record.server_version / 10_000;
        let debian = format!("/usr/lib/postgresql/{version}/bin/pg_ctl");
        let program = if Path::new(&debian).is_file() { debian.as_str() } else { "pg_ctl" };
        let directory = self.directory.display().to_string();
        let plain = directory.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        let word = if plain { directory } else { format!("'{}'", directory.replace('\'', "'\\''")) };
        format!("{program} -D {word} start")
    }

    fn text(&self) -> String {
        let record: &Record = &self.choice.record;
        let mut text = format!(
            "restored  backup {} into \"{}\"\nrecovers  to {}\nstart it  {}\n",
            record.id,
            self.directory.display(),
            self.target(),
            self.start()
        );
        if let Some(why) = &self.silent {
            let stops = match self.recovery.standby {
                true => "the standby waits at the end of the WAL".to_owned(),
                false => format!("recovery stops with {}", FetchExit::Unreachable.code(Form::Abort)),
            };
            text += &format!("note      {stops} until this destination gives it WAL: {why}\n");
            text += "          to go on without it and what only it holds, restore again with --archive OTHER, and each other one\n";
        }
        if let Some(newest) = self.choice.unreached {
            text += &format!("note      timeline {newest} is newer, and recovery does not go there\n");
        }
        for path in &record.outside {
            text += &format!(
                "note      \"{path}\" was not in the data directory: the server needs it, or one like it\n"
            );
        }
        if self.recovery.target != Target::End && self.recovery.action.is_none() {
            text += "then      it pauses at the target: look, then \"select pg_wal_replay_resume()\" opens it for writing\n";
        }
        let left = self.recovery.left_behind(record);
        if !left.is_empty() {
            text += &format!(
                "at last   alter system reset {}; and set up the archive before it is used\n",
                left.join("; alter system reset ")
            );
        }
        text
    }

    fn value(&self) -> serde_json::Value {
        json!({
            "backup": self.choice.record.id.to_string(),
            "directory": self.directory.display().to_string(),
            "timeline": self.choice.timeline.get(),
            "target": self.target(),
            "start": self.start(),
            "outside": self.choice.record.outside,
            "not_asked": self.silent,
            "unreached_timeline": self.choice.unreached.map(Timeline::get),
            "left_behind": self.recovery.left_behind(&self.choice.record),
        })
    }
}
