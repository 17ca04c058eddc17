//! People and processes: arguments in, messages and exit codes out.

pub mod archive;
mod args;
pub mod exit;
pub mod fetch;
mod log;
pub mod push;

use crate::failure::Failure;
use std::panic;
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
