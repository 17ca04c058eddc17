//! The report of a check: a monitoring plugin's lines, JSON, Prometheus's text format.
//!
//! Sources: the Monitoring Plugins Development Guidelines, "Plugin Output for Nagios" and
//! "Performance data"; Prometheus documentation, "Exposition formats".

use crate::check::{Finding, Limits, Metric, Report, State};
use crate::cli::exit::AdminExit;
use serde_json::{Value, json};
use std::time::SystemTime;

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "OK",
        State::Warning => "WARNING",
        State::Critical => "CRITICAL",
        State::Unknown => "UNKNOWN",
    }
}

/// The gravest finding and the numbers in the first line, then all of them, the gravest first.
pub(super) fn plugin(report: &Report) -> String {
    let state = report.state();
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.state));
    let bad = findings.iter().filter(|finding| finding.state != State::Ok).count();
    let summary = match findings.first() {
        Some(first) if bad == 1 => sentence(first),
        Some(first) if bad > 1 => format!("{} (and {} more)", sentence(first), bad - 1),
        _ => format!("archiving works, {} checks", findings.len()),
    };
    let mut text = format!("WAL-ARCHIVE {} - {summary}", word(state));
    if !report.metrics.is_empty() {
        let data: Vec<String> = report.metrics.iter().map(performance).collect();
        text += &format!(" | {}", data.join(" "));
    }
    for finding in findings {
        text += &format!("\n{}: {}", word(finding.state), sentence(finding));
    }
    text + "\n"
}

/// One line; a bar would begin the numbers.
fn sentence(finding: &Finding) -> String {
    let hint = finding.hint.as_deref().map_or_else(String::new, |hint| format!(" HINT: {hint}"));
    format!("{}{hint}", finding.message).replace(['\n', '\r'], " ").replace('|', "¦")
}

/// `'label'=value[unit];[warning];[critical]`
fn performance(metric: &Metric) -> String {
    let of = metric.of.as_deref().map_or_else(String::new, |of| format!(" {of}"));
    let label = format!("{}{of}", metric.name).replace(['\'', '=', '|', '\n'], "_");
    let unit = match metric.name.rsplit('_').next() {
        Some("seconds" | "ago") => "s",
        Some("bytes") => "B",
        Some("total") => "c",
        _ => "",
    };
    let limits = match metric.limits {
        Some(Limits::Most(warning, critical)) => format!(";{warning};{critical}"),
        Some(Limits::Least(warning, critical)) => format!(";{warning}:;{critical}:"),
        None => String::new(),
    };
    format!("'{label}'={}{unit}{limits}", metric.value)
}

/// Described in `docs/json.md`.
pub(super) fn json(report: &Report) -> Value {
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            json!({
                "state": word(finding.state), "check": finding.check, "of": finding.of,
                "message": finding.message, "hint": finding.hint,
            })
        })
        .collect();
    let metrics: Vec<Value> = report
        .metrics
        .iter()
        .map(|metric| {
            let (most, least) = match metric.limits {
                Some(Limits::Most(warning, critical)) => (json!([warning, critical]), Value::Null),
                Some(Limits::Least(warning, critical)) => (Value::Null, json!([warning, critical])),
                None => (Value::Null, Value::Null),
            };
            json!({"name": metric.name, "of": metric.of, "value": metric.value, "most": most, "least": least})
        })
        .collect();
    json!({"state": word(report.state()), "findings": findings, "metrics": metrics})
}

/// Every metric begins with `wal_archive_`; the state is the exit code.
pub(super) fn prometheus(report: &Report, cluster: Option<&str>, now: SystemTime) -> String {
    let labels = |others: &[(&str, &str)]| {
        let all = cluster.map(|cluster| ("cluster", cluster)).into_iter().chain(others.iter().copied());
        let all: Vec<String> = all.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
    };
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, samples: Vec<(String, String)>| {
        text += &format!("# HELP wal_archive_{name} {help}\n# TYPE wal_archive_{name} gauge\n");
        for (labels, value) in samples {
            text += &format!("wal_archive_{name}{labels} {value}\n");
        }
    };
    let number = |state| AdminExit::Checked(state).code().to_string();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
    gauge("check_time_seconds", "When the check ran, by the epoch.", vec![(labels(&[]), seconds)]);
    let state = vec![(labels(&[]), number(report.state()))];
    gauge("check_state", "The gravest finding: 0 OK, 1 warning, 2 critical, 3 unknown.", state);
    // One sample for each pair: the gravest, where several findings share it.
    let mut pairs: Vec<(&str, &str, State)> = Vec::new();
    for Finding { check, of, state, .. } in &report.findings {
        match pairs.iter_mut().find(|(known, known_of, _)| (known, known_of) == (check, &of.as_str())) {
            Some((_, _, worst)) => *worst = (*worst).max(*state),
            None => pairs.push((check, of, *state)),
        }
    }
    let pairs =
        pairs.into_iter().map(|(check, of, state)| (labels(&[("check", check), ("of", of)]), number(state)));
    gauge("check", "What was looked at, in the numbers of check_state.", pairs.collect());
    let mut names: Vec<&str> = Vec::new();
    for metric in &report.metrics {
        if names.contains(&metric.name) {
            continue;
        }
        names.push(metric.name);
        let same = report.metrics.iter().filter(|other| other.name == metric.name);
        let sample = |metric: &Metric| {
            let of = metric.of.as_deref().map(|of| ("of", of));
            (labels(of.as_slice()), metric.value.to_string())
        };
        gauge(metric.name, "See docs/operations.md.", same.map(sample).collect());
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn report() -> Report {
        let fine = Finding::fine("create", "/mnt/a", "\"/mnt/a\" took a new object");
        let bad = Finding { state: State::Critical, hint: Some("do x | y".into()), ..fine.clone() };
        let bad = Finding { check: "list", message: "two\nlines".into(), ..bad };
        let metric =
            |name, of: Option<&str>, limits| Metric { name, of: of.map(str::to_owned), value: 1.5, limits };
        Report {
            findings: vec![fine, bad],
            metrics: vec![
                metric("free_bytes", Some("/mnt/a"), Some(Limits::Least(10.0, 5.0))),
                metric("backlog_files", None, Some(Limits::Most(4.0, 8.0))),
                metric("free_bytes", Some("it's"), None),
            ],
        }
    }

    #[test]
    fn a_plugins_first_line_is_the_gravest_finding_and_the_numbers() {
        assert_eq!(
            plugin(&report()),
            "WAL-ARCHIVE CRITICAL - two lines HINT: do x ¦ y | 'free_bytes /mnt/a'=1.5B;10:;5: \
             'backlog_files'=1.5;4;8 'free_bytes it_s'=1.5B\n\
             CRITICAL: two lines HINT: do x ¦ y\n\
             OK: \"/mnt/a\" took a new object\n"
        );
    }

    #[test]
    fn prometheus_gets_each_metric_once_with_all_its_samples() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let text = prometheus(&report(), Some("ma\"in"), now);
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "wal_archive_check_time_seconds{cluster=\"ma\\\"in\"} 7",
                "wal_archive_check_state{cluster=\"ma\\\"in\"} 2",
                "wal_archive_check{cluster=\"ma\\\"in\",check=\"create\",of=\"/mnt/a\"} 0",
                "wal_archive_check{cluster=\"ma\\\"in\",check=\"list\",of=\"/mnt/a\"} 2",
                "wal_archive_free_bytes{cluster=\"ma\\\"in\",of=\"/mnt/a\"} 1.5",
                "wal_archive_free_bytes{cluster=\"ma\\\"in\",of=\"it's\"} 1.5",
                "wal_archive_backlog_files{cluster=\"ma\\\"in\"} 1.5",
            ]
        );
        assert!(prometheus(&report(), None, now).contains("\nwal_archive_check_state 2\n"));
    }

    #[test]
    fn json_says_everything() {
        let value = json(&report());
        assert_eq!(value["state"], "CRITICAL");
        assert_eq!(value["findings"][1]["hint"], "do x | y");
        assert_eq!(value["metrics"][0]["least"], json!([10.0, 5.0]));
    }
}
