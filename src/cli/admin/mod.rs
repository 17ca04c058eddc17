//! `wal-archive`: what admins run. One subcommand per file.

mod answer;
mod backup;
mod check;
mod clock;
mod config;
mod copy;
mod drain;
mod expire;
mod explain;
mod findings;
mod init;
mod jobs;
mod keygen;
mod list;
mod look;
mod metrics;
mod patience;
mod progress;
mod quarantine;
mod rehearse;
mod report;
mod restore;
mod table;
mod verify;
mod window;

use super::args::{self, Parsed};
use super::exit::AdminExit;
use super::guarded;
use super::help::Detail;
use crate::check::State;
use crate::config::{ArchiveBy, Caller, Layers, Program};
use crate::failure::Failure;
use crate::host::data_directory::DataDirectory;
use clap::{Arg, ArgAction, ArgMatches, Command};
use log::Level;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// What a subcommand takes, and what it does with it.
struct Subcommand {
    command: fn() -> Command,
    run: fn(&ArgMatches) -> Result<AdminExit, Failure>,
    /// Its end where it cannot tell.
    could_not_tell: AdminExit,
}

/// All of them, in the order of the help.
const SUBCOMMANDS: [Subcommand; 16] = [
    Subcommand { command: init::command, run: init::run, could_not_tell: AdminExit::CouldNotTell },
    Subcommand { command: list::command, run: list::run, could_not_tell: AdminExit::CouldNotTell },
    Subcommand { command: verify::command, run: verify::run, could_not_tell: AdminExit::CouldNotTell },
    Subcommand {
        command: check::command,
        run: check::run,
        could_not_tell: AdminExit::Checked(State::Unknown),
    },
    Subcommand { command: expire::command, run: expire::run, could_not_tell: AdminExit::CouldNotTell },
    Subcommand { command: backup::command, run: backup::run, could_not_tell: AdminExit::CouldNotTell },
    Subcommand { command: restore::command, run: restore::run, could_not_tell: AdminExit::CouldNotTell },
    Subcommand { command: window::command, run: window::run, could_not_tell: AdminExit::CouldNotTell },
    Subcommand { command: rehearse::command, run: rehearse::run, could_not_tell: AdminExit::CouldNotTell },
    Subcommand { command: report::command, run: report::run, could_not_tell: AdminExit::CouldNotTell },
    Subcommand { command: drain::command, run: drain::run, could_not_tell: AdminExit::CouldNotTell },
    Subcommand { command: copy::command, run: copy::run, could_not_tell: AdminExit::CouldNotTell },
    Subcommand {
        command: quarantine::command,
        run: quarantine::run,
        could_not_tell: AdminExit::CouldNotTell,
    },
    Subcommand { command: keygen::command, run: keygen::run, could_not_tell: AdminExit::CouldNotTell },
    Subcommand { command: config::command, run: config::run, could_not_tell: AdminExit::CouldNotTell },
    Subcommand { command: explain::command, run: explain::run, could_not_tell: AdminExit::CouldNotTell },
];

/// The settings of the cluster that a call is for, where nothing but its surroundings tells which.
fn layers(matches: &ArgMatches) -> Result<Layers, Failure> {
    layers_for(matches, None, ArchiveBy::Settings)
}

/// Of the cluster that has the data directory `named` in the arguments, else of the one that the call
/// runs in.
fn layers_for(
    matches: &ArgMatches,
    named: Option<&PathBuf>,
    archive_by: ArchiveBy,
) -> Result<Layers, Failure> {
    let surrounding = if named.is_none() { surrounding_data_directory() } else { None };
    let data_directory = named.map(PathBuf::as_path).or(surrounding.as_ref().map(DataDirectory::path));
    args::layers(matches, Program::Archive, Caller { data_directory, archive_by })
}

/// `--all`, of the commands that go over all clusters.
fn all_flag() -> Arg {
    Arg::new("all")
        .long("all")
        .action(ArgAction::SetTrue)
        .conflicts_with_all(["cluster", "archive"])
        .help("Every cluster of the configuration file, one after the other")
}

/// The working directory, or `$PGDATA`, where it is a data directory.
fn surrounding_data_directory() -> Option<DataDirectory> {
    let around = [env::current_dir().ok(), env::var_os("PGDATA").map(PathBuf::from)];
    around.iter().flatten().find_map(|path| DataDirectory::at(path))
}

/// The program.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().collect();
    // From the raw arguments, as these may be what is wrong.
    let named =
        |arg: &OsString| SUBCOMMANDS.iter().find(|subcommand| (subcommand.command)().get_name() == arg);
    let could_not_tell =
        args.iter().skip(1).find_map(named).map_or(AdminExit::CouldNotTell, |named| named.could_not_tell);
    ExitCode::from(guarded("wal-archive", || could_not_tell.code(), || run(args, could_not_tell).code()))
}

pub(super) fn command(detail: Detail) -> Command {
    let about = "Looks after an archive of PostgreSQL WAL";
    args::command("wal-archive", about, Program::Archive, detail)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(SUBCOMMANDS.iter().map(|subcommand| (subcommand.command)()))
        .after_help(
            "Every command ends with 0 if nothing is wrong, 1 if something is, and 2 if it could not tell or was \
             called wrongly; check ends as monitoring plugins do. \"wal-archive explain CODE\" says more.\n\n\
             Every setting may also be given in the environment (WAL_ARCHIVE, WAL_ARCHIVE_TIMEOUT, ...) or in the \
             configuration file; \"wal-archive config\" shows what is in force.",
        )
}

fn run(args: Vec<OsString>, could_not_tell: AdminExit) -> AdminExit {
    let detail = Detail::of(&args);
    let matches = match args::parse(command(detail), detail, args) {
        Parsed::Run(matches) => matches,
        Parsed::Told => return AdminExit::Fine,
        Parsed::Wrong(failure) => {
            failure.log(Level::Error);
            return could_not_tell;
        }
    };
    let called = matches.subcommand().and_then(|(name, matches)| {
        let called = SUBCOMMANDS.iter().find(|subcommand| (subcommand.command)().get_name() == name);
        called.map(|subcommand| (subcommand.run)(matches))
    });
    match called {
        Some(Ok(exit)) => exit,
        Some(Err(failure)) => {
            failure.log(Level::Error);
            could_not_tell
        }
        // clap demands one of the subcommands above.
        None => could_not_tell,
    }
}
