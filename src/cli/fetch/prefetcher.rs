//! The hidden entry of `wal-fetch`: the prefetcher as a process, and how it is started.
//!
//! It outlives the wal-fetch that starts it, so it must be nothing to anybody: a session of its
//! own, no descriptor of PostgreSQL's, no word to its log, and no exit code but 0 and 1: a server
//! that is the first process of its container adopts it, and takes any other for a crash of its
//! own.

use super::command;
use crate::cli::args::{self, Parsed};
use crate::cli::destinations::Destinations;
use crate::cli::help::Detail;
use crate::cli::{guarded, open_spool};
use crate::config::{Caller, Program};
use crate::fetch::{Context, Prefetching, prefetch};
use crate::host::data_directory::DataDirectory;
use crate::host::detached;
use nix::sys::signal::{SigSet, Signal};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, process};

/// The flag that makes a wal-fetch the prefetcher of the server in that data directory. It stands
/// before the arguments of the wal-fetch that started it.
pub(super) const FLAG: &str = "prefetcher";

/// Of one segment, where no other is set.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How much the prefetcher yields to the server.
const NICE: i32 = 5;

/// Whether this is the prefetcher, by the first argument.
pub(super) fn is_meant(args: &[OsString]) -> bool {
    args.get(1).and_then(|arg| arg.to_str()).and_then(|arg| arg.strip_prefix("--")) == Some(FLAG)
}

/// Starts one beside this process. It tells nobody whether it could.
pub(super) fn start(data_directory: &Path) {
    let started = env::current_exe().and_then(|program| {
        let mut command = Command::new(program);
        command.arg(format!("--{FLAG}")).arg(data_directory).args(env::args_os().skip(1));
        // PostgreSQL waits for the end of the command only, not for that of its streams.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    });
    if let Err(error) = started {
        log::debug!("cannot start a prefetcher: {error}");
    }
}

pub(super) fn main(args: Vec<OsString>) -> ExitCode {
    close_inherited();
    let run = std::panic::AssertUnwindSafe(|| {
        log::set_max_level(log::LevelFilter::Off);
        u8::from(detach().is_err() || run(args).is_none())
    });
    ExitCode::from(guarded("wal-fetch", || 1, run))
}

/// Closes what the server did not mark as its own: before 16 its data files and WAL
/// (PostgreSQL `src/backend/storage/file/fd.c`, `BasicOpenFilePerm`). Comes first, while nothing
/// in this process owns a descriptor.
fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let numbers: Vec<i32> = numbers.filter(|number| *number > 2).collect();
    for number in numbers {
        let _ = nix::unistd::close(number); // that of the listing itself is closed already
    }
}

/// Leaves the server's session, and ends with 0 when it is told to end.
fn detach() -> io::Result<()> {
    // Fails only in the leader of a group, who is left alone already.
    let _ = rustix::process::setsid();
    let _ = rustix::process::nice(NICE);
    let told = SigSet::from_iter([
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGIO,
        Signal::SIGPWR,
        Signal::SIGXCPU,
        Signal::SIGXFSZ,
    ]);
    // Every later thread inherits the mask.
    told.thread_block()?;
    detached::spawn("signals", move || {
        let _ = told.wait();
        process::exit(0)
    })
}

fn run(args: Vec<OsString>) -> Option<()> {
    let Parsed::Run(matches) = args::parse(command(Detail::Options), Detail::Options, args) else {
        return None;
    };
    let data_directory = DataDirectory::at(matches.get_one::<PathBuf>(FLAG)?)?;
    // The data directory chooses the cluster, as it did for the wal-fetch that started this.
    let caller = Caller::of(Some(&data_directory));
    let settings = args::layers(&matches, Program::Fetch, caller).ok()?.fetch().ok()?;
    log::set_max_level(log::LevelFilter::Off); // whatever -v says
    let spool = open_spool(settings.common.spool_dir.clone(), Some(&data_directory))?;
    let timeout = settings.common.timeout.unwrap_or(TIMEOUT);
    let archive = settings.common.unlocked(Instant::now() + timeout).ok()?;
    let destinations = Destinations::open(&archive, Some(&spool)).shared();
    // What was relative has been read; no directory of the server's is kept busy.
    env::set_current_dir(spool.folder()).ok()?;
    prefetch(Prefetching {
        terms: settings.terms(),
        context: Context {
            destinations,
            data_directory: Some(data_directory),
            spool: Some(spool),
            checks: settings.common.checks,
        },
        window: settings.prefetch,
        timeout,
    })
}
