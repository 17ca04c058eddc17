//! `wal-archive list`.

use crate::util::{Run, Sandbox};
use std::fs;

#[test]
fn list_shows_timelines_gaps_and_backups() {
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    let sizes: Vec<u64> =
        ["00000001000000000000001A", "00000001000000000000001B", "000000010000000000000015"]
            .map(|name| fs::metadata(sandbox.object(name)).unwrap().len())
            .to_vec();
    let stored = format!("{:.1} KiB", sizes.iter().sum::<u64>() as f64 / 1024.0);
    let told = sandbox.admin("list", &[]).told(1, &sandbox);
    let lines: Vec<Vec<&str>> = told
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect())
        .collect();
    assert!(
        lines[0][0].starts_with("/archive: cluster 7710362819239716105, segments of 1 MiB, 8 objects, "),
        "{told}"
    );
    assert_eq!(lines[2][..7], ["timeline", "status", "parent", "switch", "first", "last", "segments"]);
    assert_eq!(
        lines[3][..10],
        [
            "1",
            "4 missing",
            "-",
            "-",
            "000000010000000000000015",
            "00000001000000000000001B",
            "3",
            "4",
            "3.0 MiB",
            stored.as_str()
        ]
    );
    assert_eq!(lines[3][11..], ["2026-11-20 22:00:00 UTC", "2026-11-20 22:00:00 UTC"]);
    assert_eq!(
        lines[4][..8],
        ["2", "whole", "1", "0/1B6BDA0", "00000002000000000000001B", "00000002000000000000001C", "2", "0"]
    );
    assert_eq!(lines[6], ["missing on", "segments", "names"]);
    assert_eq!(lines[7], ["1", "4", "000000010000000000000016..000000010000000000000019"]);
    assert_eq!(lines[9], ["unfinished on", "segment", "bytes", "stored", "key"]);
    assert_eq!(lines[10][..2], ["1", "00000001000000000000001B"]);
    assert_eq!(lines[10][4], "wal_005/00000001000000000000001B.partial.zst");
    assert_eq!(
        lines[12],
        ["backup", "label", "timeline", "start", "stop", "finished", "raw", "stored", "reaches", "state"]
    );
    assert_eq!(
        lines[13],
        [
            "pg_basebackup base backup",
            "-",
            "1",
            "0/1500028",
            "0/1500100",
            "2026-11-20 21:05:43 UTC",
            "-",
            "-",
            "000000010000000000000015",
            "then a hole"
        ]
    );
    assert!(lines[15][0].starts_with(
        "missing 000000010000000000000016..000000010000000000000019 in \"/archive\": 4 segments are missing"
    ));
    assert!(lines[16][0].starts_with("HINT: "));
    assert_eq!(lines.len(), 17, "{told}");
    assert!(!told.contains('\x1b'), "colour is for terminals");
}

#[test]
fn list_says_how_far_each_backup_reaches_along_the_newest_timeline_that_it_leads_to() {
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    let reach = || {
        let told = sandbox.admin("list", &[]).stdout;
        let row = told.lines().find(|line| line.starts_with("pg_basebackup")).unwrap().to_owned();
        let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        cells[cells.len() - 2..].join(" ")
    };
    assert_eq!(reach(), "000000010000000000000015 then a hole");
    for number in ["16", "17", "18", "19"] {
        let name = format!("0000000100000000000000{number}");
        sandbox.segment(&name);
        sandbox.push(&name, &[]).succeeds();
    }
    assert_eq!(reach(), "00000002000000000000001C complete");
    fs::remove_file(sandbox.object("00000002000000000000001B")).unwrap();
    assert_eq!(reach(), "00000001000000000000001A then a hole");
    fs::remove_file(sandbox.object("00000002.history")).unwrap();
    assert_eq!(reach(), "00000001000000000000001B complete");
    fs::remove_file(sandbox.object("000000010000000000000015")).unwrap();
    assert_eq!(reach(), "- 1 missing");
}

#[test]
fn list_is_json_where_asked() {
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    let told = sandbox.admin("list", &["--json"]).told(1, &sandbox);
    let json: serde_json::Value = serde_json::from_str(&told).unwrap();
    let destination = &json["destinations"][0];
    assert_eq!(json["version"], 2);
    assert_eq!(
        (&destination["system_id"], &destination["segment_size"]),
        (&"7710362819239716105".into(), &(1 << 20).into())
    );
    let timelines = destination["timelines"].as_array().unwrap();
    assert_eq!(
        timelines[0]["gaps"][0],
        serde_json::json!({"from": "000000010000000000000016", "to": "000000010000000000000019", "segments": 4})
    );
    assert_eq!((&timelines[0]["history"], &timelines[1]["history"]), (&"none".into(), &"read".into()));
    assert_eq!((&timelines[1]["parent"], &timelines[1]["switch"]), (&1.into(), &"0/1B6BDA0".into()));
    assert_eq!(timelines[0]["partial"], serde_json::json!(["00000001000000000000001B"]));
    assert_eq!(
        (&timelines[0]["oldest"], &timelines[0]["raw_bytes"]),
        (&"2026-11-20T22:00:00Z".into(), &(3 << 20).into())
    );
    let backup = &destination["backups"][0];
    assert_eq!((&backup["label"], &backup["missing"]), (&"pg_basebackup base backup".into(), &0.into()));
    assert_eq!(json["findings"][0]["kind"], "missing");
}

#[test]
fn list_tells_strangers_and_unknown_encodings_from_wal() {
    let sandbox = Sandbox::new();
    sandbox.segment("000000010000000000000001");
    sandbox.push("000000010000000000000001", &[]).succeeds();
    let folder = sandbox.archive().join("wal_005");
    fs::write(folder.join("notes\x1b[2J.txt"), "12345").unwrap();
    fs::write(folder.join("000000010000000000000002.gpg"), "secret").unwrap();
    let told = sandbox.admin("list", &[]).told(1, &sandbox);
    let row =
        |what: &str| told.lines().find(|line| line.starts_with(what)).unwrap_or_else(|| panic!("{told}"));
    assert!(row("stranger").ends_with("5  wal_005/notes\u{FFFD}[2J.txt"), "{told}");
    assert!(row("unknown encoding").ends_with("6  wal_005/000000010000000000000002.gpg"));
    assert!(
        row("unknown-encoding 000000010000000000000002")
            .contains("an encoding that this version does not read")
    );
}

#[test]
fn list_shows_every_object_where_asked() {
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    fs::write(sandbox.archive().join("wal_005/00000001000000000000001A"), "x").unwrap();
    let told = sandbox.admin("list", &["--segments"]).told(0, &sandbox);
    let keys: Vec<&str> = told.lines().map(|line| line.rsplit("  ").next().unwrap()).collect();
    assert_eq!(keys.len(), 9, "{told}");
    assert!(keys.is_sorted() && keys[2] == "wal_005/00000001000000000000001A", "{told}");
    let told = sandbox.admin("list", &["--segments", "--json"]).told(0, &sandbox);
    let second: serde_json::Value = serde_json::from_str(told.lines().nth(2).unwrap()).unwrap();
    assert_eq!((&second["kind"], &second["bytes"]), (&"bare".into(), &1.into()));
    assert_eq!(second["name"], "00000001000000000000001A");
}

#[test]
fn what_is_no_archive_is_not_listed_as_an_empty_one() {
    let sandbox = Sandbox::without_archive();
    let run = sandbox.admin("list", &[]);
    assert!(
        run.code == Some(2) && run.stdout.is_empty() && run.stderr.contains("is not an archive"),
        "{run:?}"
    );
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    let missing = sandbox.path("elsewhere");
    let both = Run::of(
        sandbox
            .program("wal-archive")
            .arg("list")
            .arg("--archive")
            .arg(missing)
            .arg("--archive")
            .arg(sandbox.archive()),
    );
    assert!(
        both.code == Some(1) && both.stderr.contains("elsewhere") && both.stdout.contains("1 MiB"),
        "{both:?}"
    );
}
