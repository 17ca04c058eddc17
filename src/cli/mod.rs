//! People and processes: arguments in, messages and exit codes out.

pub mod archive;
mod args;
pub mod exit;
pub mod fetch;
mod log;
mod prefetcher;
pub mod push;

use crate::cluster::DataDirectory;
use crate::failure::Failure;
use crate::spool::{Place, Spool};
use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs a program so that a panic, too, becomes one line on stderr and a code of the map.
fn guarded(
    name: &'static str,
    on_panic: impl Fn() -> u8,
    run: impl FnOnce() -> u8 + panic::UnwindSafe,
) -> ExitCode {
    log::install(name);
    panic::set_hook(Box::new(|info| {
        let what = info.payload_as_str().unwrap_or("no message");
        let place = info.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
        ::log::error!("a bug: panic{place}: {what} HINT: report it; the request failed, nothing was lost");
    }));
    ExitCode::from(panic::catch_unwind(run).unwrap_or_else(|_| on_panic()))
}

/// Says why the configuration cannot be used.
fn report<K>(failure: &Failure<K>) {
    ::log::error!("{failure}");
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
