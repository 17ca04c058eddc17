//! What goes to Prometheus, and what `contrib/` makes of it.

use crate::util::{Run, Sandbox, flip};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const A: &str = "00000001000000000000001A";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Of Debian's package "prometheus"; `scripts/setup.sh` puts it into target/tools.
fn promtool() -> Option<PathBuf> {
    let own = root().join("target/tools/bin/promtool");
    let found = [own, PathBuf::from("promtool")]
        .into_iter()
        .find(|path| Command::new(path).arg("--version").output().is_ok());
    if found.is_none() {
        assert!(std::env::var_os("WAL_ARCHIVE_REQUIRE_ALL").is_none(), "no promtool: run scripts/setup.sh");
        println!("SKIPPED: no promtool, so rules and metrics were not checked by it");
    }
    found
}

fn metrics_in(text: &str) -> BTreeSet<String> {
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    text.split(word).filter(|word| word.starts_with("wal_archive_")).map(str::to_owned).collect()
}

/// The samples of a file, without help and types.
fn samples(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.join("\n")
}

#[test]
fn verify_says_how_it_ended_and_when_and_promtool_takes_it() {
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    let file = sandbox.path("verify.prom");
    let verify = |args: &[&str]| {
        let all = [&["--prometheus", file.to_str().unwrap(), "--name", "main"], args].concat();
        sandbox.admin("verify", &all)
    };
    let gap = "000000010000000000000016..000000010000000000000019";
    assert_eq!(verify(&["--accept-gap", gap]).code, Some(0));
    let sound = samples(&file);
    assert!(
        sound.contains("wal_archive_verify_state{cluster=\"main\"} 0") && !sound.contains("findings"),
        "{sound}"
    );
    flip(&sandbox.object(A), 80_000);
    assert_eq!(verify(&["--accept-gap", gap]).code, Some(1));
    let damaged = samples(&file);
    assert!(damaged.contains("wal_archive_verify_state{cluster=\"main\"} 1"), "{damaged}");
    assert!(
        damaged.contains("wal_archive_verify_findings{cluster=\"main\",kind=\"damaged\"} 1"),
        "{damaged}"
    );
    // What could not be told is recorded, too, and a file that cannot be written changes no answer.
    fs::rename(sandbox.archive(), sandbox.path("gone")).unwrap();
    assert_eq!(verify(&[]).code, Some(2));
    assert!(samples(&file).contains("wal_archive_verify_state{cluster=\"main\"} 2"));
    fs::rename(sandbox.path("gone"), sandbox.archive()).unwrap();
    let run = sandbox.admin("verify", &["--prometheus", "/nonexistent/x.prom", "--accept-gap", gap]);
    assert!(run.code == Some(1) && run.stderr.contains("cannot write \"/nonexistent/x.prom\""), "{run:?}");

    let check = sandbox.path("check.prom");
    sandbox.admin("check", &["--pgdata", ".", "--prometheus", check.to_str().unwrap()]);
    let Some(promtool) = promtool() else { return };
    for file in [&file, &check] {
        let run = Command::new(&promtool)
            .args(["check", "metrics"])
            .stdin(File::open(file).unwrap())
            .output()
            .unwrap();
        let text = fs::read_to_string(file).unwrap();
        assert!(run.status.success(), "{}\n{text}", String::from_utf8_lossy(&run.stderr));
    }
}

#[test]
fn rules_and_dashboard_use_metrics_that_are_there() {
    let documented = metrics_in(&fs::read_to_string(root().join("docs/metrics.md")).unwrap());
    let rules = root().join("contrib/prometheus/wal-archive.yml");
    let dashboard = fs::read_to_string(root().join("contrib/grafana/wal-archive.json")).unwrap();
    for text in [&fs::read_to_string(&rules).unwrap(), &dashboard] {
        let used = metrics_in(text);
        let unknown: Vec<_> = used.difference(&documented).collect();
        assert!(unknown.is_empty() && used.len() > 5, "{unknown:?}");
    }
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(panel["targets"][0]["expr"].is_string() && panel["gridPos"].is_object(), "{panel}");
    }
    let Some(promtool) = promtool() else { return };
    let run = Run::of(Command::new(promtool).args(["check", "rules"]).arg(rules));
    assert!(run.code == Some(0) && run.stdout.contains("SUCCESS"), "{run:?}");
}
