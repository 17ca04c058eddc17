//! `--timeout` of the commands that take as long as an archive is large, and how they open one.

use super::super::args;
use crate::config::duration;
use crate::failure::Failure;
use crate::storage::{Destination, Shared};
use clap::{Arg, ArgMatches};

/// Told apart from the setting of wal-push, which may stand in the file.
const PATIENCE: &str = "patience";

/// The option.
pub(super) fn arg() -> Arg {
    Arg::new(PATIENCE)
        .long("timeout")
        .value_name("DURATION")
        .default_value("2min")
        .help("The longest that a destination may take for one answer, or for the next 64 KiB of one")
}

/// Opens a destination for a command that has the option.
pub(super) fn open(destination: &Destination, matches: &ArgMatches) -> Result<Shared, Failure> {
    let text: String = args::value(matches, PATIENCE)?;
    let patience =
        duration(&text).map_err(|right| Failure::new((), format!("--timeout: \"{text}\" is not {right}")))?;
    Ok(destination.open_patiently(patience))
}

/// Opens all of them.
pub(super) fn open_all(destinations: &[Destination], matches: &ArgMatches) -> Result<Vec<Shared>, Failure> {
    destinations.iter().map(|destination| open(destination, matches)).collect()
}
