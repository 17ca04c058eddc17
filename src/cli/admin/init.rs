//! `wal-archive init`: makes a new archive, the first step of every set-up.

use super::super::args;
use super::super::exit::AdminExit;
use super::answer::{VERSION, json_flag, show, show_json};
use crate::archive::identity::{self, Made, Refusal};
use crate::config::{ArchiveBy, Layers, check_directories, duration};
use crate::failure::Failure;
use crate::host::data_directory::{self, DataDirectory};
use crate::object::Checks;
use crate::storage::deadline::Deadline;
use crate::storage::{Destination, Location};
use crate::wal::{SegmentSize, SystemId};
use clap::{Arg, ArgAction, ArgMatches, Command};
use log::Level;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Told apart from the setting of wal-push and wal-fetch, which may stand in the file.
const TIMEOUT: &str = "init-timeout";

pub(super) fn command() -> Command {
    Command::new("init")
        .about("Makes a new archive: step 1 of every set-up")
        .after_help(
            "Run it once, as the user that PostgreSQL runs as, before archive_command is set. An archive of this \
             cluster that is there already is left as it is.\n\n\
             Examples:\n  \
             wal-archive init --pgdata /var/lib/postgresql/15/main /mnt/backup/main\n  \
             wal-archive init --system-id 7622915573421581577 --segment-size 16MB s3://bucket/main",
        )
        .arg(
            Arg::new("urls")
                .action(ArgAction::Append)
                .value_name("URL")
                .help("/directory, file:///directory or s3://bucket/prefix (default: every configured destination)"),
        )
        .arg(
            Arg::new("pgdata")
                .long("pgdata")
                .value_name("DIRECTORY")
                .value_parser(clap::value_parser!(PathBuf))
                .conflicts_with_all(["system-id", "segment-size"])
                .help("The cluster's data directory (default: its pgdata in the configuration file, the working directory, else $PGDATA)"),
        )
        .arg(
            Arg::new("system-id")
                .long("system-id")
                .value_name("ID")
                .requires("segment-size")
                .value_parser(|text: &str| text.parse::<SystemId>())
                .help("Where there is no data directory: what pg_controldata calls \"Database system identifier\""),
        )
        .arg(
            Arg::new("segment-size")
                .long("segment-size")
                .value_name("SIZE")
                .requires("system-id")
                .value_parser(segment_size)
                .help("And the cluster's wal_segment_size, such as 16MB"),
        )
        .arg(
            Arg::new(TIMEOUT)
                .long("timeout")
                .value_name("DURATION")
                .default_value("2min")
                .value_parser(duration)
                .help("The longest one destination may take"),
        )
        .arg(json_flag())
}

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let by = ArchiveBy::arguments_if(matches.contains_id("urls"));
    let layers = super::layers_for(matches, matches.get_one("pgdata"), by)?;
    let destinations = destinations(&layers, matches)?;
    let cluster = cluster(&layers, matches)?;
    check_directories(&destinations, cluster.data_directory.as_ref())?;
    let checks = layers.admin_checks()?;
    let timeout = args::value(matches, TIMEOUT)?;
    let mut outcome = AdminExit::Fine;
    let mut rows = Vec::new();
    for destination in &destinations {
        let row = make(destination, &cluster, checks, timeout);
        outcome = match (&row.became, outcome) {
            (Became::Failed(_), _) | (_, AdminExit::CouldNotTell) => AdminExit::CouldNotTell,
            (Became::OtherCluster(_), _) => AdminExit::Findings,
            (Became::Made(_), so_far) => so_far,
        };
        match &row.became {
            Became::Failed(failure) | Became::OtherCluster(failure) => failure.log(Level::Error),
            Became::Made(_) => warn_of_the_owner(destination, &cluster),
        }
        rows.push(row);
    }
    match matches.get_flag("json") {
        true => show_json(
            VERSION,
            json!({"destinations": rows.iter().map(|row| row.json(&cluster)).collect::<Value>()}),
        ),
        false => show(&rows.iter().filter_map(|row| row.line(&cluster)).collect::<String>()),
    }
    Ok(outcome)
}

/// Those named, else those configured; each once.
fn destinations(layers: &Layers, matches: &ArgMatches) -> Result<Vec<Destination>, Failure> {
    let urls: Vec<&String> = matches.get_many("urls").unwrap_or_default().collect();
    if urls.is_empty() {
        return Ok(layers.admin()?.0);
    }
    urls.into_iter().map(|url| layers.destination(url)).collect()
}

/// The cluster whose archive it is to be.
struct Cluster {
    system_id: SystemId,
    segment_size: SegmentSize,
    data_directory: Option<DataDirectory>,
}

fn cluster(layers: &Layers, matches: &ArgMatches) -> Result<Cluster, Failure> {
    let named = (matches.get_one::<SystemId>("system-id"), matches.get_one::<SegmentSize>("segment-size"));
    if let (Some(&system_id), Some(&segment_size)) = named {
        return Ok(Cluster { system_id, segment_size, data_directory: None });
    }
    let named = matches.get_one::<PathBuf>("pgdata").cloned();
    let directory = data_directory(named.map_or_else(|| layers.pgdata(), |path| Ok(Some(path)))?)?;
    let path = directory.path().join("global/pg_control");
    let unreadable = |reason: String| {
        Failure::new((), format!("cannot read \"{}\": {reason}", path.display()))
            .hint("run it as the user that PostgreSQL runs as, or say --system-id and --segment-size")
    };
    let control = directory.control().map_err(|error| unreadable(error.to_string()))?;
    let control = control.ok_or_else(|| unreadable("it is not there".to_owned()))?;
    let by_a_segment =
        || data_directory::segment_size_in(&directory.path().join("pg_wal"), control.system_id);
    let segment_size = control.segment_size.or_else(by_a_segment);
    let segment_size = segment_size.ok_or_else(|| unreadable("it tells no segment size".to_owned()))?;
    Ok(Cluster { system_id: control.system_id, segment_size, data_directory: Some(directory) })
}

fn data_directory(named: Option<PathBuf>) -> Result<DataDirectory, Failure> {
    if let Some(path) = named {
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        return DataDirectory::at(&real).ok_or_else(|| {
            Failure::new(
                (),
                format!("\"{}\" is not a data directory: it holds no PG_VERSION", path.display()),
            )
            .hint("\"show data_directory\" in psql tells which one is")
        });
    }
    super::surrounding_data_directory().ok_or_else(|| {
        Failure::new((), "which cluster the archive is for is not known")
            .hint("name its data directory with --pgdata, or say --system-id and --segment-size")
    })
}

/// `16MB` as PostgreSQL says it, or a number of bytes.
fn segment_size(text: &str) -> Result<SegmentSize, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit: u64 = match unit {
        "" => 1,
        "kB" | "KiB" => 1 << 10,
        "MB" | "MiB" => 1 << 20,
        "GB" | "GiB" => 1 << 30,
        _ => 0,
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .and_then(SegmentSize::new)
        .ok_or_else(|| "a segment size is a power of two from 1MB to 1GB, such as 16MB".to_owned())
}

/// What became of a destination.
struct Row {
    place: String,
    became: Became,
}

enum Became {
    Made(Made),
    OtherCluster(Failure),
    Failed(Failure),
}

fn make(destination: &Destination, cluster: &Cluster, checks: Checks, timeout: Duration) -> Row {
    let storage = Deadline::new(destination.open(), Instant::now() + timeout);
    let became = match identity::init(&storage, cluster.system_id, cluster.segment_size, checks) {
        Ok(made) => Became::Made(made),
        Err(Refusal::OtherCluster { message, hint }) => {
            Became::OtherCluster(Failure::new((), message).hint(hint))
        }
        Err(Refusal::Encryption { message, hint }) => Became::Failed(Failure::new((), message).hint(hint)),
        Err(Refusal::NoArchive(error) | Refusal::Storage(error)) => {
            Became::Failed(Failure::from_storage((), &error))
        }
    };
    Row { place: destination.to_string(), became }
}

impl Row {
    fn line(&self, cluster: &Cluster) -> Option<String> {
        let Became::Made(made) = self.became else { return None };
        let (place, Cluster { system_id, segment_size, .. }) = (&self.place, cluster);
        let of =
            format!("archive of the cluster with system identifier {system_id}, segments of {segment_size}");
        Some(match made {
            Made::New => format!("\"{place}\" is now the {of}\n"),
            Made::TakenOver => {
                format!("\"{place}\" is now the {of}; what other tools stored there is read in place\n")
            }
            Made::There => format!("\"{place}\" was already the {of}; nothing to do\n"),
        })
    }

    fn json(&self, cluster: &Cluster) -> Value {
        let (outcome, failure) = match &self.became {
            Became::Made(Made::New) => ("made", None),
            Became::Made(Made::TakenOver) => ("taken-over", None),
            Became::Made(Made::There) => ("there", None),
            Became::OtherCluster(failure) => ("other-cluster", Some(failure)),
            Became::Failed(failure) => ("failed", Some(failure)),
        };
        json!({
            "destination": self.place,
            "outcome": outcome,
            "system_id": cluster.system_id.to_string(),
            "segment_size": cluster.segment_size.bytes(),
            "message": failure.map(|failure| &failure.message),
            "hint": failure.and_then(|failure| failure.hint.as_ref()),
        })
    }
}

/// An administrator other than PostgreSQL's user may make what that user cannot write to.
fn warn_of_the_owner(destination: &Destination, cluster: &Cluster) {
    let (Location::Directory(root), Some(data)) = (&destination.location, &cluster.data_directory) else {
        return;
    };
    let (Ok(root_is), Ok(data_is)) = (fs::metadata(root), fs::metadata(data.path())) else { return };
    let server = (data_is.uid(), data_is.gid());
    let writable = |bits: u32| root_is.mode() & bits != 0;
    let may_write = server.0 == 0
        || (root_is.uid() == server.0 && writable(0o200))
        || (root_is.gid() == server.1 && writable(0o020))
        || writable(0o002);
    if rustix::process::geteuid().as_raw() != server.0 && !may_write {
        let (root, data) = (root.display(), Path::display(data.path()));
        Failure::warn(
            format!(
                "\"{root}\" does not belong to the user of \"{data}\", so wal-push may not be able to write there"
            ),
            format!("chown -R --reference={data} {root}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_size_is_said_as_postgresql_says_it() {
        let size = |text: &str| segment_size(text).map(SegmentSize::bytes).ok();
        for (text, bytes) in [
            ("1MB", 1 << 20),
            ("16MB", 16 << 20),
            ("64MiB", 64 << 20),
            ("1GB", 1 << 30),
            ("16777216", 16 << 20),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in
            ["", "16", "0MB", "3MB", "2GB", "16 MB", "16M", "16mb", "MB", "-16MB", "99999999999999999999MB"]
        {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
