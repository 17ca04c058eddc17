//! Results for Prometheus, in a file for node_exporter's textfile collector: which metrics there are, how they look,
//! and how the file is written.
//!
//! Sources: Prometheus documentation, "Exposition formats" and "Metric and label naming".

use super::super::exit::AdminExit;
use crate::config::Layers;
use crate::failure::Failure;
use crate::host::durable;
use clap::{Arg, ArgMatches};
use log::Level;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// A metric, without `wal_archive_`.
pub(super) struct Row {
    pub(super) name: &'static str,
    kind: &'static str,
    help: &'static str,
}

const fn gauge(name: &'static str, help: &'static str) -> Row {
    Row { name, kind: "gauge", help }
}

const fn counter(name: &'static str, help: &'static str) -> Row {
    Row { name, kind: "counter", help }
}

/// All of them, in the order of the file; `docs/metrics.md` has the same rows.
const ROWS: &[Row] = &[
    gauge("check_state", "How the last check ended: 0 OK, 1 warning, 2 critical, 3 unknown."),
    gauge("check_timestamp_seconds", "When the last check ran."),
    gauge("check_finding_state", "How one thing that was checked is, in the numbers of check_state."),
    gauge("backlog_files", "WAL files that wait to be archived."),
    gauge("backlog_bytes", "Bytes of the WAL files that wait to be archived."),
    gauge(
        "backlog_oldest_timestamp_seconds",
        "Since when the oldest waiting WAL file waits; absent if none waits.",
    ),
    gauge("last_archived_timestamp_seconds", "When the server last marked a WAL file as archived."),
    counter("archived_total", "WAL files archived, as pg_stat_archiver counts."),
    counter("failed_total", "Failed calls of archive_command, as pg_stat_archiver counts."),
    gauge("arrival_seconds", "How long a finished segment took to a destination (check --switch)."),
    gauge("write_seconds", "How long the probe took to be written."),
    gauge("read_seconds", "How long the probe took to be read."),
    gauge("clock_skew_seconds", "How far a destination's clock is from this machine's."),
    gauge("free_bytes", "Free room of a directory or of pg_wal."),
    gauge("backups", "Base backups at a destination that can be restored."),
    gauge("backup_timestamp_seconds", "When the newest base backup that can be restored was finished."),
    gauge("verify_state", "How the last verify ended: 0 sound, 1 findings, 2 could not tell."),
    gauge("verify_timestamp_seconds", "When the last verify ended."),
    gauge("verify_duration_seconds", "How long the last verify took."),
    gauge("verify_findings", "Findings of the last verify, by kind; absent kinds have none."),
    gauge("verify_objects", "Objects that the last verify looked at."),
    gauge("verify_stored_bytes", "Bytes as stored of the objects that the last verify looked at."),
    gauge(
        "backup_run_state",
        "How the last backup ended: 0 complete everywhere, 1 something is wrong, 2 not taken.",
    ),
    gauge("backup_run_timestamp_seconds", "When the last run of backup ended."),
    gauge("backup_run_duration_seconds", "How long the last run of backup took."),
    gauge("backup_run_bytes", "Bytes of the last backup before compression."),
    gauge("backup_run_stored_bytes", "Bytes of the last backup as stored."),
    gauge(
        "recorded_rehearsal_timestamp_seconds",
        "When the last rehearsal that a destination records began.",
    ),
    gauge("rehearsal_state", "How the last rehearsal ended: 0 recovered and sound, 1 findings, 2 not done."),
    gauge("rehearsal_timestamp_seconds", "When the last rehearsal ended."),
    gauge("rehearsal_duration_seconds", "How long the last rehearsal took."),
    gauge("rehearsal_restore_seconds", "How long the base backup took to be restored."),
    gauge("rehearsal_replay_seconds", "From the server's start to the last record."),
    gauge("rehearsal_ready_seconds", "From the last record until the server took connections."),
    gauge("rehearsal_replayed_bytes", "WAL that was replayed."),
    gauge("rehearsal_last_commit_timestamp_seconds", "When the last recovered transaction was committed."),
    gauge("rehearsal_data_lost_seconds", "How long before the rehearsal that was."),
    gauge("rehearsal_findings", "What was found wrong."),
];

/// One number.
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: f64,
}

impl Sample {
    pub(super) fn new(name: &'static str, labels: Vec<(&'static str, String)>, value: f64) -> Self {
        Sample { name, labels, value }
    }
}

/// Seconds since the epoch.
pub(super) fn timestamp(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64().floor()
}

/// The text of all samples, those of one metric together.
pub(super) fn text(samples: &[Sample]) -> String {
    let mut text = String::new();
    for Row { name, kind, help } in ROWS {
        let mut own = samples.iter().filter(|sample| sample.name == *name).peekable();
        if own.peek().is_none() {
            continue;
        }
        text += &format!("# HELP wal_archive_{name} {help}\n# TYPE wal_archive_{name} {kind}\n");
        for Sample { labels, value, .. } in own {
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            text += &format!("wal_archive_{name}{labels} {value}\n");
        }
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// `--prometheus` and `--name`
pub(super) fn args() -> [Arg; 2] {
    [
        Arg::new("prometheus")
            .long("prometheus")
            .overrides_with("prometheus")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Write the result to this file, too, for node_exporter's textfile collector"),
        Arg::new("name").long("name").overrides_with("name").value_name("NAME").help(
            "The label \"cluster\" in that file (default: the name of the cluster in the configuration file)",
        ),
    ]
}

/// Nobody may read half of it, and a file of yesterday must not pass for one of today.
pub(super) fn write(path: &Path, samples: &[Sample]) -> io::Result<()> {
    durable::replace_public(path, text(samples).as_bytes())
}

/// The labels of every sample of a cluster.
pub(super) fn cluster_label(matches: &ArgMatches, layers: Option<&Layers>) -> Vec<(&'static str, String)> {
    let chosen = layers.and_then(Layers::cluster).map(|chosen| chosen.name.clone());
    let name = matches.get_one::<String>("name").cloned().or(chosen);
    name.map(|name| ("cluster", name)).into_iter().collect()
}

/// What every command that runs for itself records: its end, when, and how long it took.
pub(super) struct OfRun {
    pub(super) state: &'static str,
    pub(super) timestamp: &'static str,
    pub(super) duration: &'static str,
}

/// Runs a command, and writes how it ended, with what it adds, to the file that `--prometheus` names. Whether that
/// can be written changes nothing about how it ended.
pub(super) fn recorded(
    matches: &ArgMatches,
    layers: &Layers,
    of: &OfRun,
    run: impl FnOnce(&mut Vec<Sample>) -> Result<AdminExit, Failure>,
) -> Result<AdminExit, Failure> {
    let (start, mut samples) = (Instant::now(), Vec::new());
    let outcome = run(&mut samples);
    let Some(path) = matches.get_one::<PathBuf>("prometheus") else { return outcome };
    let state = outcome.as_ref().map_or(AdminExit::CouldNotTell, |exit| *exit).code();
    for (name, value) in [
        (of.state, f64::from(state)),
        (of.timestamp, timestamp(SystemTime::now())),
        (of.duration, start.elapsed().as_secs_f64()),
    ] {
        samples.push(Sample::new(name, Vec::new(), value));
    }
    let label = cluster_label(matches, Some(layers));
    for sample in &mut samples {
        sample.labels.splice(0..0, label.iter().cloned());
    }
    if let Err(error) = write(path, &samples) {
        let failure = Failure::new((), format!("cannot write \"{}\": {error}", path.display()));
        failure.hint("make its directory, writable for the user that runs this").log(Level::Error);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;

    #[test]
    fn the_page_of_metrics_has_a_row_for_each_and_no_other() {
        let page = include_str!("../../../docs/metrics.md");
        let rows = page.lines().skip_while(|line| *line != "| metric | type | meaning |").skip(2);
        let documented: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
        let expected: Vec<String> = ROWS
            .iter()
            .map(|row| format!("| `wal_archive_{}` | {} | {} |", row.name, row.kind, row.help))
            .collect();
        assert!(documented == expected, "docs/metrics.md should have\n{}", expected.join("\n"));
    }

    #[test]
    fn names_follow_the_conventions_and_each_one_is_made_somewhere() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let sources = ["check", "cli/admin", "cli/admin/check", "cli/admin/rehearse", "cli/admin/verify"]
            .map(|part| folder.join(part));
        let files =
            sources.iter().flat_map(|folder| fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
        let text: String = files
            .filter(|path| path.is_file() && !path.ends_with("metrics.rs"))
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        let mut names = BTreeSet::new();
        for Row { name, kind, help } in ROWS {
            assert!(names.insert(*name), "{name} is there twice");
            assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
            assert!(help.ends_with('.') && !name.contains("_ago") && !name.contains("_age"), "{name}");
            assert!(text.contains(&format!("\"{name}\"")), "nothing makes {name}");
        }
        // Each number of a check has its metric.
        for made in text.split("Metric::new(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(names.contains(made), "{made} has no row");
        }
    }

    #[test]
    fn samples_of_one_metric_stand_together_below_its_help() {
        let sample = |name, of: &str| Sample::new(name, vec![("place", of.to_owned())], 1.5);
        let shown = text(&[
            sample("free_bytes", "/a"),
            sample("failed_total", "b\"\\\n"),
            sample("free_bytes", "/c"),
        ]);
        assert_eq!(
            shown,
            "# HELP wal_archive_failed_total Failed calls of archive_command, as pg_stat_archiver counts.\n\
             # TYPE wal_archive_failed_total counter\n\
             wal_archive_failed_total{place=\"b\\\"\\\\\\n\"} 1.5\n\
             # HELP wal_archive_free_bytes Free room of a directory or of pg_wal.\n\
             # TYPE wal_archive_free_bytes gauge\n\
             wal_archive_free_bytes{place=\"/a\"} 1.5\n\
             wal_archive_free_bytes{place=\"/c\"} 1.5\n"
        );
    }
}
