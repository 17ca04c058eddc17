//! `wal-push`: `archive_command`.

use super::args::{self, Parsed};
use super::exit::PushExit;
use super::{guarded, open_spool, report};
use crate::cluster::DataDirectory;
use crate::config::Program;
use crate::failure::Failure;
use crate::push::{Push, push};
use crate::storage::Destination;
use crate::wal::WalName;
use clap::Arg;
use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The program.
pub fn main() -> ExitCode {
    guarded("wal-push", || PushExit::Destination.code(), || run().code())
}

fn run() -> PushExit {
    let command = args::command(
        "wal-push",
        "Archives one PostgreSQL WAL file: archive_command = 'wal-push %p'",
        Program::Push,
    )
    .arg(
        Arg::new("path")
            .required(true)
            .value_name("PATH")
            .value_parser(clap::value_parser!(PathBuf))
            .help("The file (%p)"),
    );
    let matches = match args::parse(command, env::args_os().collect()) {
        Parsed::Run(matches) => matches,
        Parsed::Told => return PushExit::Stored,
        Parsed::Wrong(failure) => {
            report(&failure);
            return PushExit::Usage;
        }
    };
    let settings = args::layers(&matches, Program::Push).and_then(|layers| layers.push());
    let path = matches.get_one::<PathBuf>("path").cloned().unwrap_or_default();
    let prepared = settings.and_then(|settings| {
        let name = name_of(&path)?;
        let working = env::current_dir().unwrap_or_default();
        let pgdata = env::var_os("PGDATA").map(PathBuf::from);
        let data_directory = DataDirectory::find(&path, &working, pgdata.as_deref());
        settings.common.check_directories(data_directory.as_ref())?;
        Ok((settings, name, data_directory))
    });
    let (settings, name, data_directory) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            report(&failure);
            return PushExit::Usage;
        }
    };
    let destinations: Vec<_> = settings.common.archive.iter().map(Destination::open).collect();
    let spool = open_spool(settings.common.spool_dir, data_directory.as_ref());
    let outcome = push(&Push {
        name,
        path: &path,
        destinations: &destinations,
        data_directory: data_directory.as_ref(),
        spool: spool.as_ref(),
        level: settings.level,
        checks: settings.common.checks,
        drop_cache: settings.drop_cache,
        look_ahead: settings.look_ahead,
        jobs: settings.jobs,
        timeout: settings.common.timeout,
    });
    match outcome {
        Ok(()) => PushExit::Stored,
        Err(failures) => {
            failures.iter().for_each(report);
            PushExit::of(&failures)
        }
    }
}

fn name_of(path: &Path) -> Result<WalName, Failure<()>> {
    let last = path.file_name().unwrap_or_default().to_string_lossy();
    last.parse().map_err(|error| Failure::new((), format!("\"{last}\" is {error}")))
}
