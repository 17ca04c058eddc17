//! `wal-push`: `archive_command`.

use super::args::{self, Parsed};
use super::destinations::Destinations;
use super::exit::PushExit;
use super::help::{Detail, FILES};
use super::supervise::{End, Orders, Outcome, Report, begin, supervise, tell};
use super::{guarded, open_spool, server_adopts_orphans};
use crate::archive::forms::Forms;
use crate::archive::intake::Intake;
use crate::archive::intake::patience;
use crate::config::{Caller, Program, PushSettings};
use crate::failure::Failure;
use crate::host::data_directory::DataDirectory;
use crate::push::{Push, push_and_tell, was_stored_ahead};
use crate::spool::Spool;
use crate::storage::{Destination, Location, Shared};
use crate::wal::WalName;
use clap::{Arg, ArgMatches, Command};
use log::Level;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs};

pub fn main() -> ExitCode {
    let start = Instant::now();
    let mut args: Vec<OsString> = env::args_os().collect();
    let orders = Orders::take(&mut args);
    let run = || run(args, orders.as_ref(), start).code();
    let code = guarded("wal-push", || PushExit::Destination.code(), run);
    if orders.is_some() {
        tell(Report::End(code));
    }
    ExitCode::from(code)
}

fn run(args: Vec<OsString>, orders: Option<&Orders>, start: Instant) -> PushExit {
    if let Some(Err(error)) = orders.map(|orders| begin(orders, c"wal-push")) {
        log::error!("the work cannot begin: {error}");
        return PushExit::Destination;
    }
    let detail = Detail::of(&args);
    let matches = match args::parse(command(detail), detail, args) {
        Parsed::Run(matches) => matches,
        Parsed::Told => return PushExit::Stored,
        Parsed::Wrong(failure) => {
            failure.log(Level::Error);
            return PushExit::Usage;
        }
    };
    let call = match Call::read(&matches) {
        Ok(call) => call,
        Err(failure) => {
            failure.log(Level::Error);
            return PushExit::Usage;
        }
    };
    match orders {
        Some(orders) => call.work(Some(orders)),
        // Whatever is left behind there would be adopted by the server.
        None if call.server_adopts_orphans() => call.work(None),
        None => call.supervise(start),
    }
}

pub(super) fn command(detail: Detail) -> Command {
    args::command("wal-push", "Archives one WAL file: PostgreSQL's archive_command", Program::Push, detail)
        .arg(
            Arg::new("path")
                .required(true)
                .value_name("PATH")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The file (%p)"),
        )
        .after_help(format!(
            "In postgresql.conf:\n  \
             archive_mode = on\n  \
             archive_command = '/usr/bin/wal-push %p'\n\n\
             By hand, in the data directory, as the user that PostgreSQL runs as:\n  \
             wal-push pg_wal/000000010000000000000007\n\n{FILES}"
        ))
}

/// One call, read and understood. No path of the archive was touched.
struct Call {
    settings: PushSettings,
    name: WalName,
    path: PathBuf,
    data_directory: Option<DataDirectory>,
}

impl Call {
    fn read(matches: &ArgMatches) -> Result<Self, Failure> {
        let path = matches.get_one::<PathBuf>("path").cloned().unwrap_or_default();
        let working = env::current_dir().unwrap_or_default();
        let pgdata = env::var_os("PGDATA").map(PathBuf::from);
        let data_directory = DataDirectory::find(&path, &working, pgdata.as_deref());
        let caller = Caller::of(data_directory.as_ref());
        let settings = args::layers(matches, Program::Push, caller)?.push()?;
        let name = name_of(&path)?;
        Ok(Call { settings, name, path, data_directory })
    }

    fn server_adopts_orphans(&self) -> bool {
        server_adopts_orphans(self.data_directory.as_ref())
    }

    fn spool(&self) -> Option<Spool> {
        open_spool(self.settings.common.spool_dir.clone(), self.data_directory.as_ref())
    }

    /// What PostgreSQL waits for: answers from the spool, or has a worker do the work.
    fn supervise(&self, start: Instant) -> PushExit {
        let archive = &self.settings.common.archive;
        if archive.iter().all(|destination| matches!(destination.location, Location::S3 { .. })) {
            let destinations: Vec<_> = archive.iter().map(Destination::open).collect();
            let spool = self.spool();
            if was_stored_ahead(&self.request(&destinations, spool.as_ref(), None, 0)) {
                return PushExit::Stored;
            }
        }
        let size = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        let deadline = start + self.settings.common.timeout.unwrap_or_else(|| patience(size));
        let outcome = supervise(&Orders::until(deadline, true), deadline);
        let outcome = match outcome.end {
            End::Died(how) if !outcome.durable && Instant::now() < deadline => {
                log::warn!(
                    "the process that archives \"{}\" {how}; tried again without looking ahead",
                    self.name
                );
                supervise(&Orders::until(deadline, false), deadline)
            }
            _ => outcome,
        };
        self.conclude(&outcome)
    }

    fn conclude(&self, outcome: &Outcome) -> PushExit {
        if outcome.durable {
            return PushExit::Stored;
        }
        let name = self.name;
        match &outcome.end {
            End::Reported(code) => PushExit::from_code(*code).unwrap_or(PushExit::Destination),
            End::Late => {
                log::error!("\"{name}\" was not archived in time, and the process that was at it was ended");
                PushExit::Deadline
            }
            End::Died(how) => {
                let failure = Failure::new((), format!("the process that archives \"{name}\" {how}"));
                let hint = "look for a limit of memory or of processes, and in the system's log for why it was ended";
                failure.hint(hint).log(Level::Error);
                PushExit::Destination
            }
        }
    }

    /// All of it, in this process.
    fn work(&self, orders: Option<&Orders>) -> PushExit {
        let settings = &self.settings;
        let timeout = orders.map(Orders::left).or(settings.common.timeout);
        let look_ahead = if orders.is_none_or(|orders| orders.look_ahead) { settings.look_ahead } else { 0 };
        let spool = self.spool();
        let destinations = Destinations::open(&settings.common.archive, spool.as_ref());
        let shared = destinations.shared();
        let deadline = Instant::now() + timeout.unwrap_or_else(|| patience(0));
        if let Err(failure) = destinations.check(self.data_directory.as_ref(), deadline) {
            failure.log(Level::Error);
            return PushExit::Usage;
        }
        let durable = || {
            if orders.is_some() {
                tell(Report::Durable);
            }
        };
        let outcome = push_and_tell(&self.request(&shared, spool.as_ref(), timeout, look_ahead), &durable);
        destinations.settle(spool.as_ref(), SystemTime::now());
        match outcome {
            Ok(()) => PushExit::Stored,
            Err(failures) => {
                failures.iter().for_each(|failure| failure.log(Level::Error));
                PushExit::of(&failures)
            }
        }
    }

    fn request<'a>(
        &'a self,
        destinations: &'a [Shared],
        spool: Option<&'a Spool>,
        timeout: Option<Duration>,
        look_ahead: usize,
    ) -> Push<'a> {
        Push {
            name: self.name,
            path: &self.path,
            destinations,
            intake: Intake {
                data_directory: self.data_directory.clone(),
                spool: spool.cloned(),
                level: self.settings.level,
                checks: self.settings.common.checks,
                drop_cache: self.settings.drop_cache,
                forms: Forms::of(destinations),
                urgent: true,
            },
            look_ahead,
            jobs: self.settings.jobs,
            timeout,
        }
    }
}

fn name_of(path: &Path) -> Result<WalName, Failure> {
    let last = path.file_name().unwrap_or_default().to_string_lossy();
    last.parse().map_err(|error| Failure::new((), format!("\"{last}\" is {error}")))
}
