//! `wal-archive explain CODE`: what an exit code means, of each program that has it, and what to do.

use super::super::codes::ROWS;
use super::super::exit::AdminExit;
use super::super::help::hanging;
use super::answer::show;
use crate::failure::Failure;
use clap::{Arg, ArgMatches, Command};

pub(super) fn command() -> Command {
    Command::new("explain")
        .about("Says what an exit code means and what to do")
        .after_help("Examples:\n  wal-archive explain 224\n  wal-archive explain 13")
        .arg(
            Arg::new("code")
                .required(true)
                .value_name("CODE")
                .value_parser(clap::value_parser!(u8))
                .help("As PostgreSQL's log, systemd or $? shows it"),
        )
}

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let code = matches.get_one::<u8>("code").copied().unwrap_or_default();
    let rows: Vec<_> = ROWS.iter().filter(|row| row.codes.contains(&code)).collect();
    if rows.is_empty() {
        let unknown = Failure::new((), format!("no program of wal-archive ends with {code}"));
        let own = ROWS.iter().rfind(|row| row.of == "wal-archive explain");
        return Err(unknown.hint(own.map_or("", |row| row.remedy)));
    }
    for row in rows {
        show(&format!("{}\n", hanging(&format!("{} {}: ", row.of, row.codes()), row.meaning)));
        if !row.remedy.is_empty() {
            show(&format!("{}\n", hanging("    do: ", row.remedy)));
        }
    }
    Ok(AdminExit::Fine)
}
