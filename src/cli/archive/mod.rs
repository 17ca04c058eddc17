//! `wal-archive`: what admins run. One subcommand per file.

mod config;
mod findings;
mod list;
mod progress;
mod table;
mod verify;

use super::args::{self, Parsed};
use super::exit::AdminExit;
use super::{guarded, report};
use crate::config::Program;
use crate::failure::Failure;
use clap::{ArgMatches, Command};
use std::env;
use std::process::ExitCode;

/// What a subcommand takes, and what it does with it.
struct Subcommand {
    command: fn() -> Command,
    run: fn(&ArgMatches) -> Result<AdminExit, Failure<()>>,
}

/// All of them, in the order of the help.
const SUBCOMMANDS: [Subcommand; 3] = [
    Subcommand { command: list::command, run: list::run },
    Subcommand { command: verify::command, run: verify::run },
    Subcommand { command: config::command, run: config::run },
];

/// The program.
pub fn main() -> ExitCode {
    guarded("wal-archive", || AdminExit::CouldNotTell.code(), || run().code())
}

fn run() -> AdminExit {
    let command = args::command("wal-archive", "Looks after an archive of PostgreSQL WAL", Program::Archive)
        .subcommand_required(true)
        .subcommands(SUBCOMMANDS.iter().map(|subcommand| (subcommand.command)()));
    let matches = match args::parse(command, env::args_os().collect()) {
        Parsed::Run(matches) => matches,
        Parsed::Told => return AdminExit::Fine,
        Parsed::Wrong(failure) => {
            report(&failure);
            return AdminExit::CouldNotTell;
        }
    };
    let called = matches.subcommand().and_then(|(name, matches)| {
        let called = SUBCOMMANDS.iter().find(|subcommand| (subcommand.command)().get_name() == name);
        called.map(|subcommand| (subcommand.run)(matches))
    });
    match called {
        Some(Ok(exit)) => exit,
        Some(Err(failure)) => {
            report(&failure);
            AdminExit::CouldNotTell
        }
        // clap demands one of the subcommands above.
        None => AdminExit::CouldNotTell,
    }
}
