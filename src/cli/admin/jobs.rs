//! `--jobs` of the commands that work at several objects at once.

use super::super::args;
use crate::failure::Failure;
use clap::{Arg, ArgMatches};

/// Told apart from the setting of wal-push, which may stand in the file.
const JOBS: &str = "at-once";

/// The option.
pub(super) fn arg(help: &'static str) -> Arg {
    Arg::new(JOBS)
        .long("jobs")
        .value_name("N")
        .value_parser(clap::value_parser!(u8).range(1..=64))
        .default_value("4")
        .help(help)
}

/// How many, for a command that has the option.
pub(super) fn count(matches: &ArgMatches) -> Result<usize, Failure> {
    args::value::<u8>(matches, JOBS).map(usize::from)
}
