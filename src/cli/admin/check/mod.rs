//! `wal-archive check`: arguments in, a report out.

mod show;

use super::super::args;
use super::super::exit::AdminExit;
use super::answer::{self, json_flag};
use crate::check::{Check, Finding, Least, Place, Report, Rights, State, Thresholds, check};
use crate::config::{Common, Layers, Program, duration};
use crate::failure::Failure;
use crate::host::data_directory::DataDirectory;
use crate::host::durable;
use crate::spool;
use crate::storage::s3::ConditionalWrites;
use crate::storage::{Destination, Location};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Told apart from the setting of wal-push and wal-fetch, which may stand in the file.
const TIMEOUT: &str = "check-timeout";

pub(super) fn command() -> Command {
    let one = |name: &'static str, value: &'static str, help: &'static str| {
        // The last one counts, so that a wrapper can append its own.
        Arg::new(name).long(name).overrides_with(name).value_name(value).help(help)
    };
    let path = |name, value, help| one(name, value, help).value_parser(clap::value_parser!(PathBuf));
    let limit = |name, value, default, help| one(name, value, help).default_value(default);
    let time = |name, default, help| limit(name, "DURATION", default, help).value_parser(duration);
    let count =
        |name, default, help| limit(name, "FILES", default, help).value_parser(clap::value_parser!(u64));
    let room = |name, default, help| {
        limit(name, "AMOUNT", default, help).value_parser(|text: &str| text.parse::<Least>())
    };
    Command::new("check")
        .about("Tells whether archiving works, for cron, Nagios and Prometheus: 0 OK, 1 warning, 2 critical, 3 unknown")
        .args([
            path("pgdata", "DIRECTORY", "Look at what waits to be archived in this data directory, too"),
            one("connection", "STRING", "Ask this server, too, through psql: a libpq connection string, such as \"service=main\""),
            Arg::new("switch").long("switch").action(ArgAction::SetTrue).requires("connection")
                .help("Finish a WAL segment on that server and wait until it is at every destination"),
            limit("rights", "WHOSE", "all", "all; push (nothing is listed), for a server that only archives; or fetch (nothing is created)")
                .value_parser(["all", "push", "fetch"]),
            one(TIMEOUT, "DURATION", "The longest the check may take (default: 30s; with --switch 2min)")
                .long("timeout")
                .value_parser(duration),
            time("age-warning", "5min", "The oldest file waits longer: warning"),
            time("age-critical", "15min", "The oldest file waits longer: critical"),
            count("files-warning", "256", "More files wait: warning"),
            count("files-critical", "1024", "More files wait: critical"),
            room("free-warning", "10%", "Less room free, as 10% or 20GiB, in a directory or in pg_wal: warning"),
            room("free-critical", "5%", "Less room free: critical"),
            time("clock-warning", "1min", "A destination's clock is further from this machine's: warning"),
            json_flag().help("As JSON, instead of a plugin's lines"),
            path("prometheus", "FILE", "Write the result to this file, too, for node_exporter's textfile collector"),
            one("name", "NAME", "The label \"cluster\" in that file: needed where one machine has several"),
        ])
}

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let layers = args::layers(matches, Program::Archive);
    if rustix::process::geteuid().is_root() {
        log::warn!(
            "root may do everything: run the check as PostgreSQL's user to learn what wal-push may do"
        );
    }
    let pgdata = matches.get_one::<PathBuf>("pgdata").map(PathBuf::as_path);
    let settings = layers.and_then(|layers| Settings::read(&layers, pgdata));
    let mut report = match settings {
        Ok(settings) => check(&request(matches, &settings)?),
        // The commands that PostgreSQL calls fail the same way: that is no usage error of this one.
        Err(failure) => Report {
            findings: vec![Finding::of_failure(State::Critical, "settings", "settings", &failure)],
            metrics: Vec::new(),
        },
    };
    if let Some(path) = matches.get_one::<PathBuf>("prometheus") {
        write(path, matches.get_one::<String>("name").map(String::as_str), &mut report);
    }
    match matches.get_flag("json") {
        true => answer::show_json(show::json(&report)),
        false => answer::show(&show::plugin(&report)),
    }
    Ok(AdminExit::Checked(report.state()))
}

/// What the settings of wal-push and of wal-fetch name, where both can be used.
struct Settings {
    /// The destinations, each once.
    places: Vec<Place>,
    /// The directories among those of each program.
    directories: Vec<Vec<PathBuf>>,
    /// Each once, where the data directory is known.
    spools: Vec<spool::Place>,
}

impl Settings {
    fn read(layers: &Layers, pgdata: Option<&Path>) -> Result<Self, Failure> {
        let programs = [layers.push()?.common, layers.fetch()?.common];
        let mut once: Vec<&Destination> = Vec::new();
        for destination in programs.iter().flat_map(|common| &common.archive) {
            if !once.contains(&destination) {
                once.push(destination);
            }
        }
        let data_directory = pgdata.and_then(DataDirectory::at);
        let spool =
            |common: &Common| spool::Place::of(common.spool_dir.as_deref(), Some(data_directory.as_ref()?));
        let mut spools: Vec<_> = programs.iter().filter_map(spool).collect();
        spools.dedup();
        let directories = |common: &Common| common.archive.iter().filter_map(directory).collect();
        Ok(Settings {
            places: once.into_iter().map(place).collect(),
            directories: programs.iter().map(directories).collect(),
            spools,
        })
    }
}

fn directory(destination: &Destination) -> Option<PathBuf> {
    match &destination.location {
        Location::Directory(path) => Some(path.clone()),
        Location::S3 { .. } => None,
    }
}

fn place(destination: &Destination) -> Place {
    Place {
        storage: destination.open(),
        directory: directory(destination),
        storage_class: destination.s3.storage_class.clone(),
        unconditional: destination.s3.conditional_writes == ConditionalWrites::Unsupported,
    }
}

fn request<'a>(matches: &'a ArgMatches, settings: &'a Settings) -> Result<Check<'a>, Failure> {
    let times = |name: &str| args::value::<Duration>(matches, name);
    let files = |name: &str| args::value::<u64>(matches, name);
    let room = |name: &str| args::value::<Least>(matches, name);
    let switch = matches.get_flag("switch");
    let default = Duration::from_secs(if switch { 120 } else { 30 });
    Ok(Check {
        places: &settings.places,
        directories: &settings.directories,
        spools: &settings.spools,
        rights: match matches.get_one::<String>("rights").map(String::as_str) {
            Some("push") => Rights::Push,
            Some("fetch") => Rights::Fetch,
            _ => Rights::All,
        },
        data_directory: matches.get_one::<PathBuf>("pgdata").map(PathBuf::as_path),
        connection: matches.get_one::<String>("connection").map(String::as_str),
        switch,
        thresholds: Thresholds {
            backlog_age: [times("age-warning")?, times("age-critical")?],
            backlog_files: [files("files-warning")?, files("files-critical")?],
            free: [room("free-warning")?, room("free-critical")?],
            clock: times("clock-warning")?,
        },
        timeout: matches.get_one(TIMEOUT).copied().unwrap_or(default),
    })
}

/// Nobody may read half of it, and a file of yesterday must not pass for one of today.
fn write(path: &Path, cluster: Option<&str>, report: &mut Report) {
    let text = show::prometheus(report, cluster, SystemTime::now());
    if let Err(error) = durable::replace_public(path, text.as_bytes()) {
        let what = format!("cannot write \"{}\": {error}", path.display());
        report.findings.push(
            Finding::new(State::Unknown, "prometheus", &path.display().to_string(), what)
                .hint("make its directory, writable for the user that runs the check"),
        );
    }
}
