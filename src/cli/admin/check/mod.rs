//! `wal-archive check`: arguments in, a report out.

mod show;

use super::super::args;
use super::super::exit::AdminExit;
use super::answer::{self, json_flag};
use super::metrics;
use crate::check::{Check, Finding, Least, Place, Report, Rights, State, Thresholds, check};
use crate::config::{ArchiveBy, Common, Layers, Program, duration};
use crate::failure::Failure;
use crate::host::data_directory::DataDirectory;
use crate::host::side_by_side::side_by_side;
use crate::spool;
use crate::storage::s3::ConditionalWrites;
use crate::storage::{Destination, Location};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Told apart from the setting of wal-push and wal-fetch, which may stand in the file.
const TIMEOUT: &str = "check-timeout";

pub(super) fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        // The last one counts, so that a wrapper can append its own.
        Arg::new(name).long(name).overrides_with(name).value_name(value).help(help)
    };
    let path = |name, value, help| option(name, value, help).value_parser(clap::value_parser!(PathBuf));
    let limit = |name, value, default, help| option(name, value, help).default_value(default);
    let time = |name, default, help| limit(name, "DURATION", default, help).value_parser(duration);
    let count =
        |name, default, help| limit(name, "FILES", default, help).value_parser(clap::value_parser!(u64));
    let room = |name, default, help| {
        limit(name, "AMOUNT", default, help).value_parser(|text: &str| text.parse::<Least>())
    };
    Command::new("check")
        .about("Tells whether archiving works, for cron, Nagios and Prometheus")
        .after_help(
            "Run it as the user that PostgreSQL runs as.\n\n\
             Examples:\n  \
             wal-archive check --pgdata /var/lib/postgresql/15/main --connection dbname=postgres\n  \
             wal-archive check --all --prometheus /var/lib/node_exporter/wal_archive.prom\n  \
             wal-archive check --connection dbname=postgres --switch",
        )
        .args([
            path("pgdata", "DIRECTORY", "Look at what waits to be archived in this data directory, too (default: pgdata of the configuration file)"),
            option("connection", "STRING", "Ask this server, too, through psql: a libpq connection string, such as \"service=main\""),
            Arg::new("switch").long("switch").action(ArgAction::SetTrue).requires("connection")
                .help("Finish a WAL segment on that server and wait until it is at every destination"),
            limit("rights", "WHOSE", "all", "all; push (nothing is listed), for a server that only archives; or fetch (nothing is created)")
                .value_parser(["all", "push", "fetch"]),
            option(TIMEOUT, "DURATION", "The longest the check may take (default: 30s; with --switch 2min)")
                .long("timeout")
                .value_parser(duration),
            time("age-warning", "5min", "The oldest file waits longer: warning"),
            time("age-critical", "15min", "The oldest file waits longer: critical"),
            count("files-warning", "256", "More files wait: warning"),
            count("files-critical", "1024", "More files wait: critical"),
            room("free-warning", "10%", "Less room free, as 10% or 20GiB, in a directory or in pg_wal: warning"),
            room("free-critical", "5%", "Less room free: critical"),
            time("clock-warning", "1min", "A destination's clock is further from this machine's: warning"),
            option("backup-warning", "DURATION", "The newest base backup that can be restored is older: warning (default: no limit)")
                .value_parser(duration),
            option("backup-critical", "DURATION", "It is older, or there is none: critical (default: no limit)")
                .value_parser(duration),
            option("rehearsal-warning", "DURATION", "The last rehearsal is older, or found something, or there is none: warning (default: no limit)")
                .value_parser(duration),
            json_flag().help("As JSON, instead of a plugin's lines"),
            super::all_flag().conflicts_with_all(["pgdata", "connection", "switch", "name"])
                .help("Every cluster of the configuration file, side by side"),
        ])
        .args(metrics::args())
}

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let all = matches.get_flag("all");
    let clusters = match all {
        true => args::layers_of_all(matches, Program::Archive)?.into_iter().map(Ok).collect(),
        false => vec![super::layers_for(matches, matches.get_one("pgdata"), ArchiveBy::Settings)],
    };
    if rustix::process::geteuid().is_root() {
        log::warn!(
            "root may do everything: run the check as PostgreSQL's user to learn what wal-push may do"
        );
    }
    // Side by side, as the time of a check is that of all of them.
    let checked: Result<Vec<_>, _> =
        side_by_side(&clusters, |layers| Checked::of(layers, matches)).into_iter().collect();
    let mut checked = checked?;
    if let Some(path) = matches.get_one::<PathBuf>("prometheus") {
        write(path, matches.get_one::<String>("name").map(String::as_str), &mut checked);
    }
    match (matches.get_flag("json"), checked.as_slice()) {
        (true, [one]) if !all => answer::show_json(answer::VERSION_WITH_FINDINGS, show::json(one)),
        (true, several) => answer::show_json(answer::VERSION_WITH_FINDINGS, show::json_of_all(several)),
        (false, checked) => answer::show(&show::plugin(checked)),
    }
    Ok(AdminExit::Checked(show::state(&checked)))
}

/// What was found of a cluster.
struct Checked {
    /// Its name in the configuration file, where it has one.
    cluster: Option<String>,
    report: Report,
}

impl Checked {
    fn of(layers: &Result<Layers, Failure>, matches: &ArgMatches) -> Result<Self, Failure> {
        let cluster = layers.as_ref().ok().and_then(Layers::cluster).map(|chosen| chosen.name.clone());
        let settings = layers.as_ref().map_err(Failure::clone);
        let report = match settings.and_then(|layers| Settings::read(layers, matches)) {
            Ok(settings) => check(&request(matches, &settings)?),
            // The commands that PostgreSQL calls fail the same way: that is no usage error of this one.
            Err(failure) => Report {
                findings: vec![Finding::of_failure(State::Critical, "settings", "settings", &failure)],
                metrics: Vec::new(),
            },
        };
        Ok(Checked { cluster, report })
    }
}

/// What the settings of wal-push and of wal-fetch name, where both can be used.
struct Settings {
    /// The destinations, each once.
    places: Vec<Place>,
    /// The directories among those of each program.
    directories: Vec<Vec<PathBuf>>,
    /// Each once, where the data directory is known.
    spools: Vec<spool::Place>,
    /// As the command line names it, else the configuration file.
    pgdata: Option<PathBuf>,
}

impl Settings {
    fn read(layers: &Layers, matches: &ArgMatches) -> Result<Self, Failure> {
        let programs = [layers.push()?.common, layers.fetch()?.common];
        let mut once: Vec<Destination> = Vec::new();
        for destination in programs.iter().flat_map(|common| &common.archive) {
            if !once.contains(destination) {
                once.push(destination.clone());
            }
        }
        // A server that only archives decrypts nothing.
        if rights(matches) != Rights::Push {
            once = layers.unlocked(&once)?;
        }
        let named = matches.get_one::<PathBuf>("pgdata").cloned();
        let pgdata = named.map_or_else(|| layers.pgdata(), |path| Ok(Some(path)))?;
        let data_directory = pgdata.as_deref().and_then(DataDirectory::at);
        let spool =
            |common: &Common| spool::Place::of(common.spool_dir.as_deref(), Some(data_directory.as_ref()?));
        let mut spools: Vec<_> = programs.iter().filter_map(spool).collect();
        spools.dedup();
        let directories = |common: &Common| common.archive.iter().filter_map(directory).collect();
        Ok(Settings {
            places: once.iter().map(place).collect(),
            directories: programs.iter().map(directories).collect(),
            spools,
            pgdata,
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

fn rights(matches: &ArgMatches) -> Rights {
    match matches.get_one::<String>("rights").map(String::as_str) {
        Some("push") => Rights::Push,
        Some("fetch") => Rights::Fetch,
        _ => Rights::All,
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
        rights: rights(matches),
        data_directory: settings.pgdata.as_deref(),
        connection: matches.get_one::<String>("connection").map(String::as_str),
        switch,
        thresholds: Thresholds {
            backlog_age: [times("age-warning")?, times("age-critical")?],
            backlog_files: [files("files-warning")?, files("files-critical")?],
            free: [room("free-warning")?, room("free-critical")?],
            clock: times("clock-warning")?,
            backup_age: ["backup-warning", "backup-critical"]
                .map(|name| matches.get_one::<Duration>(name).copied()),
            rehearsal_age: matches.get_one::<Duration>("rehearsal-warning").copied(),
        },
        timeout: matches.get_one(TIMEOUT).copied().unwrap_or(default),
    })
}

/// What cannot be written is a finding.
fn write(path: &Path, name: Option<&str>, checked: &mut Vec<Checked>) {
    let Err(error) = metrics::write(path, &show::samples(checked, name, SystemTime::now())) else { return };
    let what = format!("cannot write \"{}\": {error}", path.display());
    let finding = Finding::new(State::Unknown, "prometheus", &path.display().to_string(), what)
        .hint("make its directory, writable for the user that runs the check");
    match checked.as_mut_slice() {
        [one] => one.report.findings.push(finding),
        // It is no cluster's own.
        _ => {
            let report = Report { findings: vec![finding], metrics: Vec::new() };
            checked.push(Checked { cluster: None, report });
        }
    }
}
