//! One call of wal-fetch: its arguments, settings and data directory, and how it comes to an answer:
//! through a worker, or in this process.

use super::form::settle_for;
use super::prefetcher;
use crate::cli::args;
use crate::cli::destinations::Destinations;
use crate::cli::exit::{FetchExit, Form};
use crate::cli::open_spool;
use crate::cli::supervise::{End, Orders, supervise};
use crate::config::{Caller, FetchSettings, Program};
use crate::failure::Failure;
use crate::fetch::{self, Answer, Begun, Cause, Context, Fetch, Patience, Prefetcher, hint_in_promotion};
use crate::host::data_directory::DataDirectory;
use crate::spool::Spool;
use crate::storage::{Destination, Shared};
use crate::wal::{Timeline, WalName};
use clap::ArgMatches;
use log::Level;
use std::env;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// One call, read and understood. No path of the archive was touched.
pub(super) struct Call {
    settings: FetchSettings,
    name: WalName,
    path: PathBuf,
    pub(super) data_directory: Option<DataDirectory>,
    form: Form,
}

impl Call {
    pub(super) fn read(matches: &ArgMatches, set_form: &dyn Fn(Form)) -> Result<Self, Failure> {
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
    pub(super) fn promotion(&self) -> Option<Timeline> {
        let WalName::TimelineHistory(timeline) = self.name else { return None };
        self.data_directory.as_ref().is_some_and(DataDirectory::is_past_recovery).then_some(timeline)
    }

    pub(super) fn supervise(&self, start: Instant) -> FetchExit {
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
    pub(super) fn ask(
        &self,
        ask: impl FnOnce(&Fetch<'_>) -> Result<Answer, Vec<Failure<Cause>>>,
        timeout: Option<Duration>,
    ) -> FetchExit {
        let timeout = timeout.unwrap_or_else(|| self.timeout());
        let start = Instant::now();
        let spool = self.spool();
        let archive = match self.settings.common.unlocked(start + timeout) {
            Ok(archive) => archive,
            Err(error) => {
                let exit = if error.is_setting { FetchExit::Usage } else { FetchExit::Unreachable };
                Failure::new((), error.message).hint(error.hint).log(Level::Error);
                return exit;
            }
        };
        let destinations = Destinations::open(&archive, spool.as_ref());
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
