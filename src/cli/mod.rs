//! People and processes: arguments in, messages and exit codes out.

pub mod admin;
mod args;
mod codes;
mod destinations;
pub mod exit;
pub mod fetch;
mod help;
mod log;
pub mod push;
mod supervise;

use crate::failure::Failure;
use crate::host::data_directory::DataDirectory;
use crate::spool::{Place, Spool};
use ::log::Level;
use std::panic;
use std::path::PathBuf;

/// The three programs with all that their help can say, for manual pages and completions.
pub fn commands() -> [clap::Command; 3] {
    let all = help::Detail::Everything;
    [push::command(all), fetch::command(all), admin::command(all)].map(|command| help::detailed(command, all))
}

/// Runs a program so that a panic, too, becomes one line on stderr and a code of the map.
fn guarded(
    name: &'static str,
    on_panic: impl Fn() -> u8,
    run: impl FnOnce() -> u8 + panic::UnwindSafe,
) -> u8 {
    log::install(name);
    panic::set_hook(Box::new(|info| {
        let what = info.payload_as_str().unwrap_or("no message");
        let place = info.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
        let bug = Failure::new((), format!("a bug: panic{place}: {what}"));
        bug.hint("report it; the request failed, nothing was lost").log(Level::Error);
    }));
    panic::catch_unwind(run).unwrap_or_else(|_| on_panic())
}

/// Whether the server that called, or whose data directory it is, is the first process of its
/// container. Where its data directory is not known, its program tells.
fn server_adopts_orphans(data_directory: Option<&DataDirectory>) -> bool {
    match data_directory {
        Some(directory) => directory.server().is_some_and(|server| server.adopts_orphans()),
        None => crate::host::data_directory::first_process_is_a_server(),
    }
}

/// Without a spool everything works, one proof at a time; "wal-archive check" says why there is
/// none.
fn open_spool(configured: Option<PathBuf>, data_directory: Option<&DataDirectory>) -> Option<Spool> {
    let place = Place::of(configured.as_deref(), data_directory)?;
    match place.open() {
        Ok(spool) => Some(spool),
        Err(error) => {
            ::log::info!("no spool in \"{}\": {error}", place.folder().display());
            None
        }
    }
}
