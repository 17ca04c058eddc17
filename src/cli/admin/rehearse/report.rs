//! How a rehearsal is told: to people, as JSON, to Prometheus.

use super::super::answer::{VERSION_WITH_FINDINGS, show, show_json};
use super::super::look::colour;
use super::super::metrics::{Sample, timestamp};
use super::super::table::{Cell, Tone, paint};
use crate::archive::rehearsals::{Flaw, Rehearsal, Verdict};
use crate::failure::{exact_time, size};
use crate::finding::Finding;
use serde_json::{Value, json};
use std::time::Duration;

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

/// For Prometheus, beside how it ended and when.
pub(super) fn samples(rehearsal: &Rehearsal) -> Vec<Sample> {
    let phases = rehearsal.phases;
    let all = [
        ("rehearsal_restore_seconds", phases.restore_seconds),
        ("rehearsal_replay_seconds", phases.replay_seconds),
        ("rehearsal_ready_seconds", phases.ready_seconds),
        ("rehearsal_replayed_bytes", rehearsal.replayed_bytes.map(|bytes| bytes as f64)), // a curve
        ("rehearsal_last_commit_timestamp_seconds", rehearsal.last_commit.map(timestamp)),
        ("rehearsal_data_lost_seconds", rehearsal.data_lost_seconds),
        ("rehearsal_findings", Some(rehearsal.findings.len() as f64)), // a small number
    ];
    all.into_iter().filter_map(|(name, value)| Some(Sample::new(name, Vec::new(), value?))).collect()
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
    fn prometheus_gets_what_is_known() {
        let known = samples(&rehearsal(Verdict::Sound));
        let value = |name| known.iter().find(|sample| sample.name == name).map(|sample| sample.value);
        assert_eq!(value("rehearsal_replayed_bytes"), Some(1_048_576.0));
        assert_eq!(value("rehearsal_data_lost_seconds"), Some(59.75));
        assert_eq!(value("rehearsal_ready_seconds"), None);
    }
}
