//! `wal-fetch`: `restore_command`, and `pg_rewind -c`.

use super::args::{self, Parsed};
use super::destinations::Destinations;
use super::exit::{FetchExit, Form};
use super::supervise::{End, Orders, Report, begin, supervise, tell};
use super::{guarded, open_spool, prefetcher, server_adopts_orphans};
use crate::config::{Caller, FetchSettings, ON_ERROR, OnError, Program};
use crate::failure::Failure;
use crate::fetch::{
    self, Answer, Begun, Cause, Context, Fetch, Patience, Prefetcher, ask_for, fetch, hint_in_promotion,
};
use crate::host::data_directory::DataDirectory;
use crate::spool::Spool;
use crate::storage::{Destination, Shared};
use crate::wal::{Timeline, WalName};
use clap::{Arg, ArgMatches, Command};
use log::Level;
use std::env;
use std::ffi::OsString;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

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

/// The form asked for, from the raw arguments and the environment; what cannot be understood is
/// an error for later, in the form of the default.
fn on_error_of(args: &[OsString]) -> OnError {
    let mut found = ON_ERROR.row.variable().and_then(|variable| env::var(variable).ok());
    let flag = format!("--{}", ON_ERROR.row.name);
    let mut args = args.iter().skip(1).map(|arg| arg.to_string_lossy());
    while let Some(arg) = args.next() {
        match arg.split_once('=') {
            _ if arg == "--" => break,
            None if arg == flag => found = args.next().map(|value| value.into_owned()).or(found),
            Some((name, value)) if name == flag => found = Some(value.to_owned()),
            _ => {}
        }
    }
    found.and_then(|text| text.parse().ok()).unwrap_or(OnError::Auto)
}

/// Without a standby PostgreSQL takes any code up to 125 for the end of the archive and promotes.
fn settle(on_error: OnError) -> Form {
    match on_error {
        OnError::Retry => Form::Retry,
        OnError::Abort => Form::Abort,
        OnError::Auto if Path::new("standby.signal").exists() => Form::Retry,
        OnError::Auto => Form::Abort,
    }
}

/// The same by the data directory whose cluster the file must be of, once it is known: pg_rewind's
/// target is not the working directory.
fn settle_for(on_error: OnError, directory: Option<&DataDirectory>) -> Form {
    match (on_error, directory) {
        (OnError::Auto, Some(directory)) if directory.is_standby() => Form::Retry,
        (OnError::Auto, Some(_)) => Form::Abort,
        _ => settle(on_error),
    }
}

pub(super) fn command() -> Command {
    args::command(
        "wal-fetch",
        "Restores one PostgreSQL WAL file: restore_command = 'wal-fetch %f %p'",
        Program::Fetch,
    )
    .arg(Arg::new("name").required(true).value_name("NAME").help("The file's name (%f)"))
    .arg(
        Arg::new("path")
            .required(true)
            .value_name("PATH")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Where to put it (%p)"),
    )
    .arg(
        Arg::new(prefetcher::FLAG)
            .long(prefetcher::FLAG)
            .value_parser(clap::value_parser!(PathBuf))
            .hide(true),
    )
}

/// Reads everything that says what is to be done; the end where there is nothing to do.
fn read(args: Vec<OsString>, set_form: &dyn Fn(Form)) -> Result<Call, FetchExit> {
    let matches = match args::parse(command(), args) {
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

/// One call, read and understood. No path of the archive was touched.
struct Call {
    settings: FetchSettings,
    name: WalName,
    path: PathBuf,
    data_directory: Option<DataDirectory>,
    form: Form,
}

impl Call {
    fn read(matches: &ArgMatches, set_form: &dyn Fn(Form)) -> Result<Self, Failure> {
        let path = matches.get_one::<PathBuf>("path").cloned().unwrap_or_default();
        let name = matches.get_one::<String>("name").cloned().unwrap_or_default();
        let working = env::current_dir().unwrap_or_default();
        let data_directory = DataDirectory::find(&path, &working, None);
        let caller = Caller::of(data_directory.as_ref());
        let layers = args::layers(matches, Program::Fetch, caller)?;
        let form = settle_for(layers.on_error()?, data_directory.as_ref());
        set_form(form);
        let name: WalName =
            name.parse().map_err(|error| Failure::new((), format!("\"{name}\" is {error}")))?;
        let settings = layers.fetch()?;
        Ok(Call { settings, name, path, data_directory, form })
    }

    fn timeout(&self) -> Duration {
        // While the startup process waits in the retry form, it can neither promote nor stream.
        let default = match self.form {
            Form::Abort => Duration::from_secs(300),
            Form::Retry => Duration::from_secs(20),
        };
        self.settings.common.timeout.unwrap_or(default)
    }

    fn spool(&self) -> Option<Spool> {
        open_spool(self.settings.common.spool_dir.clone(), self.data_directory.as_ref())
    }

    /// The timeline whose history is asked for in the middle of a promotion.
    fn promotion(&self) -> Option<Timeline> {
        let WalName::TimelineHistory(timeline) = self.name else { return None };
        self.data_directory.as_ref().is_some_and(DataDirectory::is_past_recovery).then_some(timeline)
    }

    fn supervise(&self, start: Instant) -> FetchExit {
        let destinations: Vec<_> = self.settings.common.archive.iter().map(Destination::open).collect();
        let context = self.context(destinations, self.spool());
        let request = self.request(&context, self.timeout());
        let call = match fetch::Call::begin(&request, start) {
            Ok(Begun::Open(call)) => call,
            Ok(Begun::Answered(answer)) => return self.end(Ok(answer)),
            Err(failures) => return self.end(Err(failures)),
        };
        let deadline = call.deadline();
        let outcome = supervise(&Orders::until(deadline, true), deadline);
        let exit = match outcome.end {
            End::Reported(code) => FetchExit::from_code(code, Form::Retry).unwrap_or(FetchExit::Unreachable),
            End::Late => {
                self.complain("was not found in time, and the process that was at it was ended");
                FetchExit::Deadline
            }
            End::Died(how) => {
                self.complain(&format!("could not be asked for: the process that asks {how}"));
                FetchExit::Unreachable
            }
        };
        let exit = match exit {
            FetchExit::Delivered => self.end(call.take_over()),
            FetchExit::Absent => match call.conclude_absent() {
                Ok(Answer::Absent) => FetchExit::Absent, // the worker has said so
                other => self.end(other),
            },
            FetchExit::Unreachable | FetchExit::Deadline | FetchExit::Hole => {
                match call.give_own_history(false) {
                    Ok(true) => FetchExit::Delivered,
                    Ok(false) => exit,
                    Err(failures) => self.end(Err(failures)),
                }
            }
            FetchExit::Usage | FetchExit::Damaged | FetchExit::Local => exit,
        };
        call.clean_up_after_worker();
        exit
    }

    fn complain(&self, what: &str) {
        let failure = Failure::new((), format!("\"{}\" {what}", self.name));
        let failure = match self.promotion() {
            Some(timeline) => failure.hint(hint_in_promotion(timeline)),
            None => failure,
        };
        failure.log(Level::Error);
    }

    /// Goes to the archive, in this process.
    fn ask(
        &self,
        ask: impl FnOnce(&Fetch<'_>) -> Result<Answer, Vec<Failure<Cause>>>,
        timeout: Option<Duration>,
    ) -> FetchExit {
        let timeout = timeout.unwrap_or_else(|| self.timeout());
        let start = Instant::now();
        let spool = self.spool();
        let destinations = Destinations::open(&self.settings.common.archive, spool.as_ref());
        if let Err(failure) = destinations.check(self.data_directory.as_ref(), start + timeout) {
            failure.log(Level::Error);
            return FetchExit::Usage;
        }
        let context = self.context(destinations.shared(), spool);
        let left = timeout.saturating_sub(start.elapsed());
        let outcome = ask(&self.request(&context, left));
        destinations.settle(context.spool.as_ref(), SystemTime::now());
        self.end(outcome)
    }

    fn end(&self, outcome: Result<Answer, Vec<Failure<Cause>>>) -> FetchExit {
        match outcome {
            Ok(Answer::Delivered) => FetchExit::Delivered,
            Ok(Answer::Absent) => {
                log::info!("\"{}\" is in no destination", self.name);
                FetchExit::Absent
            }
            Err(failures) => {
                failures.iter().for_each(|failure| failure.log(Level::Error));
                FetchExit::of(&failures)
            }
        }
    }

    fn context(&self, destinations: Vec<Shared>, spool: Option<Spool>) -> Context {
        Context {
            destinations,
            data_directory: self.data_directory.clone(),
            spool,
            checks: self.settings.common.checks,
        }
    }

    fn request<'a>(&'a self, context: &'a Context, timeout: Duration) -> Fetch<'a> {
        let settings = &self.settings;
        Fetch {
            allow_empty: settings.allow_empty,
            accept_gap: &settings.accept_gap,
            partial: settings.partial,
            patience: match self.form {
                Form::Abort => Patience::ABORT,
                Form::Retry => Patience::RETRY,
            },
            prefetch: (settings.prefetch > 0)
                .then(|| Prefetcher { start: &prefetcher::start, terms: settings.terms() }),
            ..Fetch::new(self.name, &self.path, context, timeout)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(args: &[&str]) -> OnError {
        on_error_of(&args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_form_is_read_from_raw_arguments_however_wrong_the_rest_is() {
        assert_eq!(form(&["wal-fetch", "--on-error", "retry", "--no-such"]), OnError::Retry);
        assert_eq!(form(&["wal-fetch", "--no-such", "--on-error=abort"]), OnError::Abort);
        assert_eq!(form(&["wal-fetch", "--on-error=abort", "--on-error", "retry"]), OnError::Retry);
        assert_eq!(form(&["wal-fetch", "--", "--on-error=retry"]), OnError::Auto);
        assert_eq!(form(&["wal-fetch", "--on-error"]), OnError::Auto);
        assert_eq!(form(&["wal-fetch", "--on-error=never"]), OnError::Auto);
        assert_eq!(form(&[]), OnError::Auto);
    }
}
