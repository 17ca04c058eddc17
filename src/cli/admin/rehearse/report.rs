//! How a rehearsal is told: to people, as JSON, to Prometheus.

use super::super::answer::{VERSION_WITH_FINDINGS, show, show_json};
use super::super::check::escaped;
use super::super::table::{Cell, Tone, colour, paint};
use crate::archive::rehearsals::{Flaw, Rehearsal, Verdict};
use crate::failure::{Failure, exact_time, size};
use crate::finding::Finding;
use crate::host::durable;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, SystemTime};

pub(super) fn tell(rehearsal: &Rehearsal, evidence: &[String], json: bool) {
    match json {
        true => show_json(VERSION_WITH_FINDINGS, value(rehearsal, evidence)),
        false => show(&text(rehearsal, evidence)),
    }
}

/// The record, and where it is.
fn value(rehearsal: &Rehearsal, evidence: &[String]) -> Value {
    let mut value = serde_json::to_value(rehearsal).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.insert("evidence".to_owned(), json!(evidence));
    }
    value
}

fn text(rehearsal: &Rehearsal, evidence: &[String]) -> String {
    let tone = match rehearsal.verdict {
        Verdict::Sound => Tone::Good,
        Verdict::Findings => Tone::Bad,
    };
    let word = rehearsal.verdict.word();
    let gap = " ".repeat(10_usize.saturating_sub(word.len()));
    let word = paint(&Cell::new(tone, word), colour());
    let backup = rehearsal.backup.as_ref().map_or_else(|| "a backup".to_owned(), |id| format!("backup {id}"));
    let what = match (&rehearsal.end_lsn, rehearsal.timeline) {
        (Some(end), Some(timeline)) => format!("{backup} recovered along timeline {timeline} to {end}"),
        _ => "nothing was recovered".to_owned(),
    };
    let mut text = format!("{word}{gap}{what}\n");
    text += &findings(&rehearsal.findings);
    let phases = took(rehearsal);
    if !phases.is_empty() {
        text += &format!("took      {}\n", phases.join(", "));
    }
    if let (Some(commit), Some(lost)) =
        (rehearsal.last_commit.and_then(exact_time), rehearsal.data_lost_seconds)
    {
        text += &format!("lost      what came after the last commit at {commit}, {} ago\n", words(lost));
    }
    if !rehearsal.checked.is_empty() {
        text += &format!("checked   {}\n", rehearsal.checked.join(", "));
    }
    evidence.iter().for_each(|at| text += &format!("evidence  {at}\n"));
    text
}

fn findings(findings: &[Finding<Flaw>]) -> String {
    let line = |finding: &Finding<Flaw>| {
        let colour = colour();
        let kind = paint(&Cell::new(Tone::Bad, finding.kind.word()), colour);
        let hint = finding.hint.as_ref().map_or_else(String::new, |hint| {
            format!("    HINT: {}\n", paint(&Cell::from(hint.as_str()), colour))
        });
        format!("{kind}: {}\n{hint}", paint(&Cell::from(finding.reason.as_str()), colour))
    };
    findings.iter().map(line).collect()
}

fn took(rehearsal: &Rehearsal) -> Vec<String> {
    let phases = rehearsal.phases;
    let phase = |name: &str, seconds: Option<f64>| Some(format!("{name} {}", words(seconds?)));
    let speed = match (rehearsal.replayed_bytes, phases.replay_seconds) {
        (Some(bytes), Some(seconds)) if seconds > 0.0 => {
            // Shown with one digit.
            format!(" ({} at {}/s)", size(bytes), size((bytes as f64 / seconds) as u64))
        }
        _ => String::new(),
    };
    let replay = phase("replay", phases.replay_seconds).map(|text| text + &speed);
    [phase("restore", phases.restore_seconds), replay, phase("ready", phases.ready_seconds)]
        .into_iter()
        .flatten()
        .collect()
}

fn words(seconds: f64) -> String {
    match seconds < 60.0 {
        true => format!("{seconds:.1} s"),
        false => humantime::format_duration(Duration::from_secs(seconds as u64)).to_string(),
    }
}

/// Nobody may read half of it. Without a rehearsal it says that it could not be done.
pub(super) fn write_prometheus(
    path: &Path,
    name: Option<&str>,
    began: SystemTime,
    rehearsal: Option<&Rehearsal>,
) -> Result<(), Failure> {
    let text = prometheus(name, began, rehearsal);
    durable::replace_public(path, text.as_bytes()).map_err(|error| {
        Failure::new((), format!("cannot write \"{}\": {error}", path.display()))
            .hint("make its directory, writable for the user that runs the rehearsal")
    })
}

fn prometheus(name: Option<&str>, began: SystemTime, rehearsal: Option<&Rehearsal>) -> String {
    let label = name.map_or_else(String::new, |name| format!("{{cluster=\"{}\"}}", escaped(name)));
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, value: Option<f64>| {
        let Some(value) = value else { return };
        let name = format!("wal_archive_rehearsal_{name}");
        text += &format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name}{label} {value}\n");
    };
    let epoch = |time: SystemTime| Some(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64());
    let verdict = match rehearsal.map(|rehearsal| rehearsal.verdict) {
        Some(Verdict::Sound) => 0.0,
        Some(Verdict::Findings) => 1.0,
        None => 2.0,
    };
    gauge("timestamp_seconds", "When the rehearsal began.", epoch(began));
    gauge("verdict", "0 recovered and sound, 1 findings, 2 it could not be done.", Some(verdict));
    let Some(rehearsal) = rehearsal else { return text };
    let phases = rehearsal.phases;
    gauge("restore_seconds", "Restoring the base backup.", phases.restore_seconds);
    gauge("replay_seconds", "Replaying the archived WAL.", phases.replay_seconds);
    gauge("ready_seconds", "From the last record until the server took connections.", phases.ready_seconds);
    gauge("replayed_bytes", "WAL that was replayed.", rehearsal.replayed_bytes.map(|bytes| bytes as f64)); // a curve
    gauge(
        "last_commit_timestamp_seconds",
        "When the last recovered transaction was committed.",
        rehearsal.last_commit.and_then(epoch),
    );
    gauge("data_lost_seconds", "How long before the rehearsal that was.", rehearsal.data_lost_seconds);
    gauge("findings", "What was found wrong.", Some(rehearsal.findings.len() as f64)); // a small number
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::rehearsals::tests::rehearsal;

    #[test]
    fn people_read_what_was_recovered_how_long_it_took_and_what_is_lost() {
        let at = ["/mnt/a/rehearsals/20261121T130405Z.json".to_owned()];
        assert_eq!(
            text(&rehearsal(Verdict::Sound), &at),
            "sound     backup 20261121T020405Z-000000002E000028-1 recovered along timeline 1 to 0/5A000000\n\
             took      restore 1.5 s, replay 2.0 s (1.0 MiB at 512.0 KiB/s)\n\
             lost      what came after the last commit at 2026-11-21T13:03:05.500000Z, 59.8 s ago\n\
             checked   pg_verifybackup\n\
             evidence  /mnt/a/rehearsals/20261121T130405Z.json\n"
        );
    }

    #[test]
    fn json_is_the_record_with_the_phases_and_where_it_is() {
        let value = value(&rehearsal(Verdict::Findings), &[]);
        assert_eq!(
            (&value["verdict"], &value["phases"]["replay_seconds"]),
            (&json!("findings"), &json!(2.0))
        );
        assert_eq!(value["last_commit"], "2026-11-21T13:03:05.500000Z");
        assert_eq!((&value["evidence"], &value["phases"]["ready_seconds"]), (&json!([]), &Value::Null));
    }

    #[test]
    fn prometheus_reads_a_rehearsal_that_could_not_be_done_too() {
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let failed = prometheus(Some("ma\"in"), began, None);
        assert!(failed.contains("\nwal_archive_rehearsal_verdict{cluster=\"ma\\\"in\"} 2\n"), "{failed}");
        assert!(!failed.contains("restore_seconds"));
        let text = prometheus(None, began, Some(&rehearsal(Verdict::Sound)));
        for sample in
            ["timestamp_seconds 7", "verdict 0", "replayed_bytes 1048576", "data_lost_seconds 59.75"]
        {
            assert!(text.contains(&format!("\nwal_archive_rehearsal_{sample}\n")), "{sample}: {text}");
        }
    }
}
