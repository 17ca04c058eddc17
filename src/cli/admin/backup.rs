//! `wal-archive backup`: arguments in, what was made out.

use super::super::args;
use super::super::exit::AdminExit;
use super::answer::{VERSION_WITH_FINDINGS, json_flag, show, show_json};
use super::findings;
use super::jobs;
use super::look::Look;
use super::metrics::{self, OfRun, Sample};
use super::patience;
use super::progress::Progress;
use super::table::counted;
use crate::backup::{Cause, Made, Phase, Request, backup};
use crate::config::Layers;
use crate::failure::{Failure, size};
use crate::replication::{Checkpoint, Connection, Parameters, Surroundings};
use clap::{Arg, ArgMatches, Command};
use log::Level;
use serde_json::{Value, json};
use std::time::Duration;

pub(super) fn command() -> Command {
    let one = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("backup")
        .about("Takes a base backup of a running server into the archive")
        .after_help(
            "It connects as psql does (PGHOST, PGUSER, PGSERVICE, ~/.pgpass), as a role with REPLICATION that a \
             line for \"replication\" in pg_hba.conf lets in.\n\n\
             Examples:\n  \
             wal-archive backup --label nightly\n  \
             wal-archive backup --connection 'service=main' --checkpoint fast --max-rate 50MB",
        )
        .arg(one("label", "TEXT", "Its label").default_value("wal-archive"))
        .arg(
            one("connection", "STRING", "The server: \"host=... user=...\" or postgresql://... (default: the environment)")
                .default_value("")
                .hide_default_value(true),
        )
        .arg(
            one("checkpoint", "MODE", "fast: begin at once; spread: with as little load as the server's own checkpoints")
                .value_parser(["fast", "spread"])
                .default_value("spread"),
        )
        .arg(one("max-rate", "RATE", "The most that the server sends in a second, such as 50MB").value_parser(rate))
        .arg(jobs::arg("Parts of 32 MiB that are compressed and stored at once"))
        .arg(
            one("wait", "DURATION", "How long to wait for the WAL that the backup needs; 0: not at all")
                .value_parser(wait)
                .default_value("1h"),
        )
        .args(metrics::args())
        .arg(patience::arg())
        .arg(json_flag())
}

/// `0`, or as every other duration.
fn wait(text: &str) -> Result<Duration, String> {
    match text {
        "0" | "0s" => Ok(Duration::ZERO),
        text => crate::config::duration(text),
    }
}

/// KiB a second, within PostgreSQL's bounds.
fn rate(text: &str) -> Result<u32, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text.get(digits.len()..).map(str::trim) {
        Some("" | "k" | "kB" | "KiB") => 1,
        Some("M" | "MB" | "MiB") => 1 << 10,
        Some("G" | "GB" | "GiB") => 1 << 20,
        _ => 0,
    };
    let rate = digits.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
    rate.filter(|rate| (32..=1 << 20).contains(rate))
        .ok_or("a rate from 32kB to 1GB, such as 50MB".to_owned())
}

const METRICS: OfRun = OfRun {
    state: "backup_run_state",
    timestamp: "backup_run_timestamp_seconds",
    duration: "backup_run_duration_seconds",
};

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let layers = super::layers(matches)?;
    metrics::recorded(matches, &layers, &METRICS, |samples| work(&layers, matches, samples))
}

fn work(layers: &Layers, matches: &ArgMatches, samples: &mut Vec<Sample>) -> Result<AdminExit, Failure> {
    let level = layers.level()?;
    let destinations = patience::open_all(&layers.admin()?.0, matches)?;
    let around = Surroundings { environment: args::environment(), user: user() };
    let text: String = args::value(matches, "connection")?;
    let plain = |failure: Failure<_>| Failure { kind: (), message: failure.message, hint: failure.hint };
    let parameters = Parameters::resolve(&text, &around).map_err(plain)?;
    let mut connection = Connection::open(&parameters).map_err(plain)?;
    let progress = Progress::new("waiting for the checkpoint");
    let wait: Duration = args::value(matches, "wait")?;
    let checkpoint: String = args::value(matches, "checkpoint")?;
    let made = backup(Request {
        connection: &mut connection,
        destinations: &destinations,
        label: args::value(matches, "label")?,
        checkpoint: if checkpoint == "fast" { Checkpoint::Fast } else { Checkpoint::Spread },
        max_rate: matches.get_one::<u32>("max-rate").copied(),
        level,
        jobs: jobs::count(matches)?,
        wait: (!wait.is_zero()).then_some(wait),
        progress: &|phase| match phase {
            Phase::Receiving { bytes, estimate } => progress.set_bytes("base backup", bytes, estimate),
            Phase::AwaitingWal => progress.begin("waiting for its WAL"),
        },
    });
    drop(progress);
    match made {
        Ok(made) => {
            let (raw, stored) = made.record.sizes();
            // Both are far below 2^53.
            samples.push(Sample::new("backup_run_bytes", Vec::new(), raw as f64));
            samples.push(Sample::new("backup_run_stored_bytes", Vec::new(), stored as f64));
            match matches.get_flag("json") {
                true => show_json(VERSION_WITH_FINDINGS, value(&made)),
                false => show(&text_of(&made)),
            }
            made.findings.iter().for_each(|finding| finding.message().log(Level::Error));
            Ok(match made.findings.is_empty() && made.failures.is_empty() {
                true => AdminExit::Fine,
                false => AdminExit::Findings,
            })
        }
        Err(failure) => {
            let mismatch = failure.kind == Cause::Mismatch;
            plain_cause(failure).log(Level::Error);
            Ok(if mismatch { AdminExit::Findings } else { AdminExit::CouldNotTell })
        }
    }
}

fn plain_cause(failure: Failure<Cause>) -> Failure {
    Failure { kind: (), message: failure.message, hint: failure.hint }
}

/// The name of the user that the process runs as.
fn user() -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name)
}

fn text_of(made: &Made) -> String {
    let record = &made.record;
    let (raw, stored) = record.sizes();
    let parts = record.objects().count() as u64;
    let (first, last) = (record.start_segment(), record.stop_segment());
    let mut text = format!(
        "backup {}: {} in {}, {} as stored, consistent at {}\n",
        record.id,
        size(raw),
        counted(parts, "object"),
        size(stored),
        record.stop
    );
    for place in &made.places {
        text += &format!("at     {place}\n");
    }
    text += &format!("needs  {first} to {last}\n");
    for path in &record.outside {
        text += &format!("note   \"{path}\" is not in the data directory, and so not in the backup\n");
    }
    text + &findings::text(&made.findings, Look::wide())
}

fn value(made: &Made) -> Value {
    let record = &made.record;
    let (raw, stored) = record.sizes();
    json!({
        "backup": record.id.to_string(),
        "label": record.label,
        "timeline": record.id.timeline.get(),
        "start": record.id.start.to_string(),
        "stop": record.stop.to_string(),
        "first_segment": record.start_segment().to_string(),
        "last_segment": record.stop_segment().to_string(),
        "bytes": raw,
        "stored": stored,
        "destinations": made.places,
        "failures": made.failures.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "findings": made.findings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_the_units_and_bounds_of_postgresql() {
        assert_eq!(rate("32"), Ok(32));
        assert_eq!(rate("50MB"), Ok(50 << 10));
        assert_eq!(rate("1G"), Ok(1 << 20));
        for bad in ["", "31", "2GB", "50TB", "x", "-1"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
