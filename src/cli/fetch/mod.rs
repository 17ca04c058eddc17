//! `wal-fetch`: `restore_command`, and `pg_rewind -c`: arguments in, exit code out.

mod call;
mod form;
mod prefetcher;

use super::args::{self, Parsed};
use super::exit::{FetchExit, Form};
use super::help::{Detail, FILES};
use super::supervise::{Orders, Report, begin, tell};
use super::{guarded, server_adopts_orphans};
use crate::config::Program;
use crate::fetch::{ask_for, fetch};
use call::Call;
use clap::{Arg, Command};
use form::{on_error_of, settle};
use log::Level;
use std::env;
use std::ffi::OsString;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

pub fn main() -> ExitCode {
    let start = Instant::now();
    let mut args: Vec<OsString> = env::args_os().collect();
    if prefetcher::is_meant(&args) {
        return prefetcher::main(args);
    }
    let Some(orders) = Orders::take(&mut args) else { return answer_postgresql(args, start) };
    // A worker's codes are its supervisor's to translate.
    let code = |exit: FetchExit| exit.code(Form::Retry);
    let run = || code(work(args, &orders));
    let code = guarded("wal-fetch", || code(FetchExit::Unreachable), run);
    tell(Report::End(code));
    ExitCode::from(code)
}

/// What PostgreSQL waits for.
fn answer_postgresql(args: Vec<OsString>, start: Instant) -> ExitCode {
    // Settled before anything can fail, and only made stricter or better known later.
    let form = Mutex::new(settle(on_error_of(&args)));
    let current = || *form.lock().unwrap_or_else(PoisonError::into_inner);
    let run = AssertUnwindSafe(|| {
        let set = |settled: Form| *form.lock().unwrap_or_else(PoisonError::into_inner) = settled;
        supervised(args, start, &set).code(current())
    });
    ExitCode::from(guarded("wal-fetch", || FetchExit::Unreachable.code(current()), run))
}

pub(super) fn command(detail: Detail) -> Command {
    let path = |name: &'static str| Arg::new(name).value_parser(clap::value_parser!(PathBuf));
    args::command("wal-fetch", "Brings one WAL file: PostgreSQL's restore_command", Program::Fetch, detail)
        .arg(Arg::new("name").required(true).value_name("NAME").help("The file's name (%f)"))
        .arg(path("path").required(true).value_name("PATH").help("Where to put it (%p)"))
        .arg(path(prefetcher::FLAG).long(prefetcher::FLAG).hide(true))
        .after_help(format!(
            "In postgresql.conf, for a recovery, a standby and \"pg_rewind -c\":\n  \
             restore_command = '/usr/bin/wal-fetch %f %p'\n\n\
             By hand:\n  \
             wal-fetch 000000010000000000000007 /tmp/000000010000000000000007\n\n{FILES}"
        ))
}

/// Reads everything that says what is to be done; the end where there is nothing to do.
fn read(args: Vec<OsString>, set_form: &dyn Fn(Form)) -> Result<Call, FetchExit> {
    let detail = Detail::of(&args);
    let matches = match args::parse(command(detail), detail, args) {
        Parsed::Run(matches) => matches,
        Parsed::Told => return Err(FetchExit::Delivered),
        Parsed::Wrong(failure) => {
            failure.log(Level::Error);
            return Err(FetchExit::Usage);
        }
    };
    Call::read(&matches, set_form).map_err(|failure| {
        failure.log(Level::Error);
        FetchExit::Usage
    })
}

/// Answers from the spool, or has a worker do the work.
fn supervised(args: Vec<OsString>, start: Instant, set_form: &dyn Fn(Form)) -> FetchExit {
    let call = match read(args, set_form) {
        Ok(call) => call,
        Err(exit) => return exit,
    };
    let exit = if server_adopts_orphans(call.data_directory.as_ref()) {
        // Whatever is left behind there would be adopted by the server.
        call.ask(fetch, None)
    } else {
        call.supervise(start)
    };
    // In the middle of a promotion there is nobody left to ask again.
    let done = matches!(exit, FetchExit::Delivered | FetchExit::Absent);
    if !done && call.promotion().is_some() {
        set_form(Form::Abort);
    }
    exit
}

fn work(args: Vec<OsString>, orders: &Orders) -> FetchExit {
    if let Err(error) = begin(orders, c"wal-fetch") {
        log::error!("the work cannot begin: {error}");
        return FetchExit::Unreachable;
    }
    match read(args, &|_| {}) {
        Ok(call) => call.ask(|request| ask_for(request, orders.supervisor), Some(orders.left())),
        Err(exit) => exit,
    }
}
