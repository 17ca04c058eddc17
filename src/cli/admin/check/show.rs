//! The report of a check: a monitoring plugin's lines, JSON, numbers for Prometheus.
//!
//! Sources: the Monitoring Plugins Development Guidelines, "Plugin Output for Nagios" and
//! "Performance data".

use super::super::metrics::{Sample, timestamp};
use super::Checked;
use crate::check::{Finding, Limits, Metric, Moment, Report, State};
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

/// For Prometheus. `name` is the label of the cluster where there is one cluster only, and it is to be called
/// otherwise.
pub(super) fn samples(checked: &[Checked], name: Option<&str>, now: SystemTime) -> Vec<Sample> {
    let number = |state| f64::from(AdminExit::Checked(state).code());
    let mut samples = Vec::new();
    for one in checked {
        let cluster = name.or(one.cluster.as_deref()).map(|cluster| ("cluster", cluster.to_owned()));
        let mut add = |name, others: &[(&'static str, &str)], value| {
            let others = others.iter().map(|(label, text)| (*label, (*text).to_owned()));
            samples.push(Sample::new(name, cluster.clone().into_iter().chain(others).collect(), value));
        };
        add("check_state", &[], number(one.report.state()));
        add("check_timestamp_seconds", &[], timestamp(now));
        for (check, of, state) in gravest_of_each(&one.report) {
            add("check_finding_state", &[("check", check), ("place", of)], number(state));
        }
        for metric in &one.report.metrics {
            let (name, value) = match metric.moment {
                Some(Moment { name, at: Some(at) }) => (name, timestamp(at)),
                Some(Moment { at: None, .. }) => continue,
                None => (metric.name, metric.value),
            };
            let place = metric.of.as_deref().map(|of| ("place", of));
            add(name, place.as_slice(), value);
        }
    }
    samples
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn report() -> Checked {
        let fine = Finding::fine("create", "/mnt/a", "\"/mnt/a\" took a new object");
        let bad = Finding { kind: State::Critical, hint: Some("do x | y".into()), ..fine.clone() };
        let bad = Finding { name: "list".into(), reason: "two\nlines".into(), ..bad };
        let metric = |name, of: Option<&str>, limits| Metric {
            name,
            of: of.map(str::to_owned),
            value: 1.5,
            moment: None,
            limits,
        };
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
    fn prometheus_gets_states_numbers_and_moments() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let mut one = report();
        for (name, at) in [("some_timestamp_seconds", Some(now)), ("no_timestamp_seconds", None)] {
            let age = Metric { name: "some_seconds", of: None, value: 3.0, moment: None, limits: None };
            one.report.metrics.push(Metric { moment: Some(Moment { name, at }), ..age });
        }
        let shown: Vec<String> = samples(&[one], Some("main"), now)
            .into_iter()
            .map(|Sample { name, labels, value }| {
                let labels: String = labels.iter().map(|(name, value)| format!("{name}={value} ")).collect();
                format!("{name} {labels}{value}")
            })
            .collect();
        assert_eq!(
            shown,
            [
                "check_state cluster=main 2",
                "check_timestamp_seconds cluster=main 7",
                "check_finding_state cluster=main check=create place=/mnt/a 0",
                "check_finding_state cluster=main check=list place=/mnt/a 2",
                "free_bytes cluster=main place=/mnt/a 1.5",
                "backlog_files cluster=main 1.5",
                "free_bytes cluster=main place=it's 1.5",
                "some_timestamp_seconds cluster=main 7",
            ]
        );
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
        let states = samples(&both, None, SystemTime::UNIX_EPOCH);
        let states = states.iter().filter(|sample| sample.name == "check_state");
        let states: Vec<_> = states.map(|sample| (sample.labels[0].1.as_str(), sample.value)).collect();
        assert_eq!(states, [("a", 0.0), ("b", 2.0)]);
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
