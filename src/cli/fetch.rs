//! `wal-fetch`: `restore_command`, and `pg_rewind -c`.

use super::args::{self, Parsed};
use super::exit::{FetchExit, Form};
use super::{guarded, open_spool, prefetcher, report};
use crate::cluster::DataDirectory;
use crate::config::{FetchSettings, OnError, Program};
use crate::failure::Failure;
use crate::fetch::{Answer, Fetch, fetch};
use crate::storage::Destination;
use crate::wal::WalName;
use clap::{Arg, Command};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

/// The program.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().collect();
    if prefetcher::is_meant(&args) {
        return prefetcher::main(args);
    }
    // Settled before anything can fail, and only made stricter or better known later.
    let form = Mutex::new(settle(on_error_of(&args)));
    let current = || *form.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let run = std::panic::AssertUnwindSafe(|| {
        let set = |settled: Form| *form.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = settled;
        run(args, &set).code(current())
    });
    guarded("wal-fetch", || FetchExit::Unreachable.code(current()), run)
}

/// The form asked for, from the raw arguments and the environment; what cannot be understood is
/// an error for later, in the form of the default.
fn on_error_of(args: &[OsString]) -> OnError {
    let mut found = env::var("WAL_ARCHIVE_ON_ERROR").ok();
    let mut args = args.iter().skip(1).map(|arg| arg.to_string_lossy());
    while let Some(arg) = args.next() {
        match arg.split_once('=') {
            _ if arg == "--" => break,
            None if arg == "--on-error" => found = args.next().map(|value| value.into_owned()).or(found),
            Some(("--on-error", value)) => found = Some(value.to_owned()),
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

/// The command line.
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

fn run(args: Vec<OsString>, set_form: &dyn Fn(Form)) -> FetchExit {
    let matches = match args::parse(command(), args) {
        Parsed::Run(matches) => matches,
        Parsed::Told => return FetchExit::Delivered,
        Parsed::Wrong(failure) => {
            report(&failure);
            return FetchExit::Usage;
        }
    };
    let path = matches.get_one::<PathBuf>("path").cloned().unwrap_or_default();
    let name = matches.get_one::<String>("name").cloned().unwrap_or_default();
    let prepared = args::layers(&matches, Program::Fetch).and_then(|layers| {
        set_form(settle(layers.on_error()?));
        let name: WalName =
            name.parse().map_err(|error| Failure::new((), format!("\"{name}\" is {error}")))?;
        Ok((layers.fetch()?, name))
    });
    let (settings, name) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            report(&failure);
            return FetchExit::Usage;
        }
    };
    let working = env::current_dir().unwrap_or_default();
    let data_directory = DataDirectory::find(&path, &working, None);
    if let Err(failure) = settings.common.check_directories(data_directory.as_ref()) {
        report(&failure);
        return FetchExit::Usage;
    }
    answer(&settings, name, &path, data_directory.as_ref(), set_form)
}

fn answer(
    settings: &FetchSettings,
    name: WalName,
    path: &Path,
    data_directory: Option<&DataDirectory>,
    set_form: &dyn Fn(Form),
) -> FetchExit {
    let form = settle(settings.on_error);
    // While the startup process waits in the retry form, it can neither promote nor stream.
    let default = match form {
        Form::Abort => Duration::from_secs(300),
        Form::Retry => Duration::from_secs(20),
    };
    let destinations: Vec<_> = settings.common.archive.iter().map(Destination::open).collect();
    let spool = open_spool(settings.common.spool_dir.clone(), data_directory);
    let request = Fetch {
        name,
        path,
        destinations: &destinations,
        data_directory,
        spool: spool.as_ref(),
        checks: settings.common.checks,
        allow_empty: settings.allow_empty,
        accept_gap: &settings.accept_gap,
        partial: settings.partial,
        timeout: settings.common.timeout.unwrap_or(default),
        hole_patience: Duration::from_secs(15),
        prefetch: (settings.prefetch > 0).then_some(&prefetcher::start),
    };
    match fetch(&request) {
        Ok(Answer::Delivered) => FetchExit::Delivered,
        Ok(Answer::Absent) => {
            log::info!("\"{name}\" is in no destination");
            FetchExit::Absent
        }
        Err(failures) => {
            failures.iter().for_each(report);
            // In the middle of a promotion there is nobody left to ask again.
            if matches!(name, WalName::TimelineHistory(_))
                && data_directory.is_some_and(DataDirectory::is_past_recovery)
            {
                set_form(Form::Abort);
            }
            FetchExit::of(&failures)
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
