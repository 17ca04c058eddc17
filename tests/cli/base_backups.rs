//! What `restore`, `window`, `list`, `verify` and `check` make of base backups where no server is needed.

use crate::simulated::Simulated;
use crate::util::{CLUSTER, MIB, Run, Sandbox, noise, says_state};
use crate::wal::Log;
use serde_json::Value;
use std::fs;
use std::time::{Duration, SystemTime};
use wal_archive::wal::{SegmentSize, SystemId};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A log of segments of 1 MiB.
fn log() -> Log {
    Log::new(SystemId(CLUSTER), SegmentSize::new(MIB as u64).unwrap())
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|_| panic!("{run:?}"))
}

/// Two backups on timeline 1, and timeline 2, which left it between them and has no backup: what a recovery to a time before the
/// newest backup leaves once the older one is gone.
fn only_an_abandoned_timeline_has_a_backup(sandbox: &Sandbox) -> Simulated {
    let simulated = Simulated::new(sandbox, SystemTime::now());
    let mut log = log();
    simulated.work(&mut log, 1.0, 1.5);
    let mut second = simulated.promote(&log, 2, 1.6);
    simulated.back_up(&mut log, simulated.day(2.0), "too late", false);
    simulated.work(&mut log, 2.1, 2.5);
    simulated.work(&mut second, 3.0, 3.5);
    simulated
}

#[test]
fn a_newest_timeline_to_which_no_backup_leads_is_never_passed_over_in_silence() {
    let sandbox = Sandbox::new();
    let simulated = only_an_abandoned_timeline_has_a_backup(&sandbox);
    let words = "no base backup leads to timeline 2, the newest";
    let restore = |args: &[&str]| {
        let directory = sandbox.path("new").display().to_string();
        sandbox.admin("restore", &[args, &[directory.as_str()]].concat())
    };
    for args in [&[][..], &["--standby"]] {
        restore(args).fails(1, &[words, "HINT: ", "wal-archive backup", "--target-timeline 1"]);
    }
    assert!(!sandbox.path("new").exists());
    // Whoever names the timeline or the backup gets as far as to its parts, which hold nothing here.
    let list = json(&sandbox.admin("list", &["--json"]));
    let backup = list["destinations"][0]["base_backups"][0]["backup"].as_str().unwrap();
    for args in [["--target-timeline", "1"], ["--backup", backup]] {
        restore(&args).fails(1, &["manifest.zst\" is damaged"]);
    }

    let window = sandbox.admin("window", &["--json"]);
    assert!(window.code == Some(1) && window.stderr.contains(words), "{window:?}");
    let window = json(&window);
    assert_eq!((&window["windows"][0]["timeline"], &window["unreached_timeline"]), (&1.into(), &2.into()));
    let time = humantime::format_rfc3339(simulated.day(2.2)).to_string();
    let at = sandbox.admin("window", &["--at", &time]);
    assert!(at.code == Some(0) && at.stderr.contains(words), "{at:?}");
    assert!(at.stdout.contains("timeline 1\n"), "{at:?}");

    assert_eq!(list["findings"][0]["kind"], "no-backup", "{list}");
    sandbox.admin("list", &[]).says(1, &["no-backup 00000002.history", words]);
    sandbox.admin("verify", &["--quick", "--backups"]).says(1, &["no-backup 00000002.history", words]);

    // Once there is one, all is well.
    let mut second = log();
    simulated.work(&mut second, 1.0, 1.5);
    let mut second = second.promoted(wal_archive::wal::Timeline::new(2).unwrap(), simulated.day(1.6));
    simulated.work(&mut second, 3.0, 3.5);
    simulated.back_up(&mut second, simulated.day(4.0), "in time", false);
    sandbox.admin("list", &[]).told(0, &sandbox);
    assert_eq!(json(&sandbox.admin("window", &["--json"]))["unreached_timeline"], Value::Null);
}

fn check(sandbox: &Sandbox, args: &[&str]) -> Run {
    let limits = ["--free-warning", "1MiB", "--free-critical", "1MiB"];
    sandbox.admin("check", &[&limits, args].concat())
}

#[test]
fn check_alarms_where_no_backup_leads_to_the_newest_timeline() {
    let sandbox = Sandbox::new();
    only_an_abandoned_timeline_has_a_backup(&sandbox);
    let words = ["no base backup in", "leads to timeline 2, the newest", "HINT"];
    says_state(&check(&sandbox, &[]), 1, &words);
    says_state(&check(&sandbox, &["--backup-critical", "8000h"]), 2, &words);
}

#[test]
fn check_counts_a_backup_only_with_all_its_wal_as_list_does() {
    let sandbox = Sandbox::new();
    let simulated = Simulated::new(&sandbox, SystemTime::now());
    let mut log = log();
    simulated.work(&mut log, 1.0, 1.5);
    let ages = ["--backup-warning", "26h", "--backup-critical", "50h"];
    let mut middle = String::new();
    simulated.back_up_while(&mut log, simulated.day(27.5), ("long", false), |log| {
        for seed in 0..4 {
            middle = if seed == 2 { log.current().to_string() } else { middle.clone() };
            log.noop_of(&noise(seed, 100_000));
            log.switch();
        }
    });
    says_state(&check(&sandbox, &ages), 0, &["the newest base backup", "11h 45m"]);
    fs::remove_file(sandbox.object(&middle)).unwrap();
    let listed = json(&sandbox.admin("list", &["--json"]));
    assert_eq!(listed["destinations"][0]["base_backups"][0]["state"], "waiting", "{listed}");
    says_state(&check(&sandbox, &ages), 2, &["no base backup in", "can be restored"]);
    simulated.back_up(&mut log, simulated.day(27.6), "short", false);
    let run = check(&sandbox, &ages);
    says_state(&run, 0, &["the newest base backup", "9h 21m"]);
    assert!(run.stdout.contains("'backups "), "{run:?}");
    let run = json(&check(&sandbox, &["--json"]));
    let metrics = run["metrics"].as_array().unwrap();
    assert!(metrics.iter().any(|metric| metric["name"] == "backups" && metric["value"] == 1.0), "{run}");
    // A clock was wrong.
    simulated.back_up(&mut log, SystemTime::now() + 3 * DAY, "later", false);
    says_state(&check(&sandbox, &ages), 1, &["the newest base backup", "from now by its own time"]);
}

#[test]
fn a_window_is_not_known_where_a_destination_was_not_asked() {
    let sandbox = Sandbox::new();
    let offsite = sandbox.make_archive("offsite");
    let both = ["--archive", offsite.to_str().unwrap()];
    let window = |args: &[&str]| sandbox.admin("window", &[&both, args].concat());
    window(&[]).says_on_stderr(1, "no base backup can be recovered");
    fs::rename(&offsite, sandbox.path("away")).unwrap();
    window(&[]).says_on_stderr(2, "no base backup can be recovered; and a destination could not be asked");
    let simulated = Simulated::new(&sandbox, SystemTime::now());
    let mut log = log();
    simulated.back_up(&mut log, simulated.day(1.0), "x", false);
    simulated.work(&mut log, 1.2, 2.0);
    let known = json(&window(&["--json"]));
    let away = |value: &Value| value["not_asked"].as_str().is_some_and(|why| why.contains("offsite"));
    assert!(away(&known), "{known}");
    window(&[]).says(0, &["note: what only this destination holds is not shown", "offsite"]);
    let inside = humantime::format_rfc3339(simulated.day(1.5)).to_string();
    assert!(away(&json(&window(&["--at", &inside, "--json"]))));
    window(&["--at", &inside]).says(0, &["note: what only this destination holds is not shown"]);
    let later = humantime::format_rfc3339(simulated.day(5.0)).to_string();
    window(&["--at", &later]).fails(2, &["cannot be reached", "and a destination could not be asked"]);
    fs::rename(sandbox.path("away"), &offsite).unwrap();
    window(&["--at", &later]).fails(1, &["cannot be reached"]);
    assert_eq!(json(&window(&["--json"]))["not_asked"], Value::Null);
}

#[test]
fn what_a_setting_of_postgresql_cannot_hold_is_refused() {
    let sandbox = Sandbox::new();
    let directory = sandbox.path("new").display().to_string();
    let restore = |args: &[&str]| sandbox.admin("restore", &[args, &[directory.as_str()]].concat());
    restore(&["--target-name", "a\nb"]).fails(2, &["it has a newline"]);
    let strange = sandbox.make_archive("a\nb");
    restore(&["--archive", strange.to_str().unwrap()]).fails(2, &["restore_command has a newline", "HINT"]);
    assert!(!sandbox.path("new").exists());
}

#[test]
fn nothing_is_made_for_a_backup_whose_manifest_cannot_be_read() {
    let sandbox = Sandbox::new();
    let simulated = Simulated::new(&sandbox, SystemTime::now());
    let mut log = log();
    simulated.back_up(&mut log, simulated.day(1.0), "no manifest", false);
    let directory = sandbox.path("new").display().to_string();
    sandbox.admin("restore", &[&directory]).fails(1, &["manifest.zst\" is damaged"]);
    assert!(!sandbox.path("new").exists());
}
