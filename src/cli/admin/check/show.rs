//! The report of a check: a monitoring plugin's lines, JSON, Prometheus's text format.
//!
//! Sources: the Monitoring Plugins Development Guidelines, "Plugin Output for Nagios" and
//! "Performance data"; Prometheus documentation, "Exposition formats".

use super::Checked;
use crate::check::{Finding, Limits, Metric, Report, State};
use crate::cli::exit::AdminExit;
use serde_json::{Value, json};
use std::time::SystemTime;

/// The gravest state of all clusters.
pub(super) fn state(checked: &[Checked]) -> State {
    checked.iter().map(|one| one.report.state()).max().unwrap_or(State::Ok)
}

/// The gravest finding and the numbers in the first line, then all of them, the gravest first. Each
/// says of which cluster it is.
pub(super) fn plugin(checked: &[Checked]) -> String {
    let of = |one: &Checked| one.cluster.as_deref().map_or_else(String::new, |name| format!("{name}: "));
    let mut findings: Vec<(String, &Finding)> = checked
        .iter()
        .flat_map(|one| one.report.findings.iter().map(move |finding| (of(one), finding)))
        .collect();
    findings.sort_by_key(|(_, finding)| std::cmp::Reverse(finding.kind));
    let bad = findings.iter().filter(|(_, finding)| finding.kind != State::Ok).count();
    let summary = match (findings.first(), checked) {
        (Some((of, first)), _) if bad == 1 => format!("{of}{}", sentence(first)),
        (Some((of, first)), _) if bad > 1 => format!("{of}{} (and {} more)", sentence(first), bad - 1),
        (_, [one]) => format!("{}archiving works, {} checks", of(one), findings.len()),
        (_, several) => format!("archiving works in {} clusters, {} checks", several.len(), findings.len()),
    };
    let mut text = format!("WAL-ARCHIVE {} - {summary}", state(checked).word());
    let of = |one: &Checked| one.cluster.as_deref().map_or_else(String::new, |name| format!("{name} "));
    let data: Vec<String> = checked
        .iter()
        .flat_map(|one| one.report.metrics.iter().map(move |metric| performance(&of(one), metric)))
        .collect();
    if !data.is_empty() {
        text += &format!(" | {}", data.join(" "));
    }
    for (of, finding) in findings {
        text += &format!("\n{}: {of}{}", finding.kind.word(), sentence(finding));
    }
    text + "\n"
}

/// One line; a bar would begin the numbers.
fn sentence(finding: &Finding) -> String {
    finding.message().to_string().replace(['\n', '\r'], " ").replace('|', "¦")
}

/// `'label'=value[unit];[warning];[critical]`
fn performance(cluster: &str, metric: &Metric) -> String {
    let of = metric.of.as_deref().map_or_else(String::new, |of| format!(" {of}"));
    let label = format!("{cluster}{}{of}", metric.name).replace(['\'', '=', '|', '\n'], "_");
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
pub(super) fn json_of_all(checked: &[Checked]) -> Value {
    let clusters: Value = checked.iter().map(json).collect();
    json!({"state": state(checked), "clusters": clusters})
}

/// The same of one cluster.
pub(super) fn json(Checked { cluster, report }: &Checked) -> Value {
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
    json!({"cluster": cluster, "state": report.state(), "findings": report.findings, "metrics": metrics})
}

/// Every metric begins with `wal_archive_`; the state is the exit code. `name` is the label of the
/// cluster where there is one cluster only, and it is to be called otherwise.
pub(super) fn prometheus(checked: &[Checked], name: Option<&str>, now: SystemTime) -> String {
    let labels = |one: &Checked, others: &[(&str, &str)]| {
        let cluster = name.or(one.cluster.as_deref()).map(|cluster| ("cluster", cluster));
        let all: Vec<String> = cluster
            .into_iter()
            .chain(others.iter().copied())
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
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
    let times = checked.iter().map(|one| (labels(one, &[]), seconds.clone()));
    gauge("check_time_seconds", "When the check ran, by the epoch.", times.collect());
    let states = checked.iter().map(|one| (labels(one, &[]), number(one.report.state())));
    gauge("check_state", "The gravest finding: 0 OK, 1 warning, 2 critical, 3 unknown.", states.collect());
    let pairs = checked.iter().flat_map(|one| {
        let labelled = |(check, of, state)| (labels(one, &[("check", check), ("of", of)]), number(state));
        gravest_of_each(&one.report).into_iter().map(labelled).collect::<Vec<_>>()
    });
    gauge("check", "What was looked at, in the numbers of check_state.", pairs.collect());
    let metrics: Vec<(&Checked, &Metric)> =
        checked.iter().flat_map(|one| one.report.metrics.iter().map(move |metric| (one, metric))).collect();
    let mut names: Vec<&str> = Vec::new();
    for (_, Metric { name, .. }) in &metrics {
        if names.contains(name) {
            continue;
        }
        names.push(name);
        let sample = |(one, metric): &(&Checked, &Metric)| {
            let of = metric.of.as_deref().map(|of| ("of", of));
            (labels(one, of.as_slice()), metric.value.to_string())
        };
        let same = metrics.iter().filter(|(_, other)| other.name == *name);
        gauge(name, "See docs/operations.md.", same.map(sample).collect());
    }
    text
}

/// One state for each pair of what was looked at: the gravest, where several findings share it.
fn gravest_of_each(report: &Report) -> Vec<(&str, &str, State)> {
    let mut pairs: Vec<(&str, &str, State)> = Vec::new();
    for Finding { name: check, place: of, kind: state, .. } in &report.findings {
        match pairs.iter_mut().find(|(known, known_of, _)| (*known, *known_of) == (check, of)) {
            Some((_, _, gravest)) => *gravest = (*gravest).max(*state),
            None => pairs.push((check, of, *state)),
        }
    }
    pairs
}

pub(in crate::cli::admin) fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn report() -> Checked {
        let fine = Finding::fine("create", "/mnt/a", "\"/mnt/a\" took a new object");
        let bad = Finding { kind: State::Critical, hint: Some("do x | y".into()), ..fine.clone() };
        let bad = Finding { name: "list".into(), reason: "two\nlines".into(), ..bad };
        let metric =
            |name, of: Option<&str>, limits| Metric { name, of: of.map(str::to_owned), value: 1.5, limits };
        let report = Report {
            findings: vec![fine, bad],
            metrics: vec![
                metric("free_bytes", Some("/mnt/a"), Some(Limits::Least(10.0, 5.0))),
                metric("backlog_files", None, Some(Limits::Most(4.0, 8.0))),
                metric("free_bytes", Some("it's"), None),
            ],
        };
        Checked { cluster: None, report }
    }

    fn of(cluster: &str, checked: Checked) -> Checked {
        Checked { cluster: Some(cluster.to_owned()), ..checked }
    }

    #[test]
    fn a_plugins_first_line_is_the_gravest_finding_and_the_numbers() {
        assert_eq!(
            plugin(&[report()]),
            "WAL-ARCHIVE CRITICAL - two lines HINT: do x ¦ y | 'free_bytes /mnt/a'=1.5B;10:;5: \
             'backlog_files'=1.5;4;8 'free_bytes it_s'=1.5B\n\
             CRITICAL: two lines HINT: do x ¦ y\n\
             OK: \"/mnt/a\" took a new object\n"
        );
    }

    #[test]
    fn prometheus_gets_each_metric_once_with_all_its_samples() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let text = prometheus(&[report()], Some("ma\"in"), now);
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
        assert!(prometheus(&[report()], None, now).contains("\nwal_archive_check_state 2\n"));
    }

    #[test]
    fn several_clusters_share_one_state_and_each_line_and_number_names_its_own() {
        let mut fine = report();
        fine.report.findings.truncate(1);
        fine.report.metrics.truncate(1);
        let both = [of("a", fine), of("b", report())];
        assert_eq!(
            plugin(&both),
            "WAL-ARCHIVE CRITICAL - b: two lines HINT: do x ¦ y | 'a free_bytes /mnt/a'=1.5B;10:;5: \
             'b free_bytes /mnt/a'=1.5B;10:;5: 'b backlog_files'=1.5;4;8 'b free_bytes it_s'=1.5B\n\
             CRITICAL: b: two lines HINT: do x ¦ y\n\
             OK: a: \"/mnt/a\" took a new object\n\
             OK: b: \"/mnt/a\" took a new object\n"
        );
        assert!(plugin(&both[..1]).starts_with("WAL-ARCHIVE OK - a: archiving works, 1 checks | "));
        let text = prometheus(&both, None, SystemTime::UNIX_EPOCH);
        assert_eq!(text.matches("# TYPE wal_archive_free_bytes gauge\n").count(), 1, "{text}");
        for sample in [
            "check_state{cluster=\"a\"} 0",
            "check_state{cluster=\"b\"} 2",
            "free_bytes{cluster=\"a\",of=\"/mnt/a\"} 1.5",
            "free_bytes{cluster=\"b\",of=\"/mnt/a\"} 1.5",
        ] {
            assert!(text.contains(&format!("\nwal_archive_{sample}\n")), "{sample}: {text}");
        }
        let value = json_of_all(&both);
        assert_eq!((&value["state"], &value["clusters"][0]["state"]), (&json!("CRITICAL"), &json!("OK")));
        assert_eq!(value["clusters"][1]["cluster"], "b");
    }

    #[test]
    fn json_says_everything() {
        let value = json(&report());
        assert_eq!(value["state"], "CRITICAL");
        let shown = json!({
            "kind": "CRITICAL", "name": "list", "place": "/mnt/a", "key": null, "reason": "two\nlines",
            "hint": "do x | y"
        });
        assert_eq!(value["findings"][1], shown);
        assert_eq!(value["metrics"][0]["least"], json!([10.0, 5.0]));
    }
}
