//! `wal-archive report`.

use crate::simulated::archive_with_everything;
use crate::util::Sandbox;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

/// Every opened element is closed, in its order.
fn assert_balanced(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in html.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
        let name = tag.split([' ', '/']).find(|name| !name.is_empty()).unwrap();
        match tag.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed), "</{closed}> after {open:?}"),
            None if tag.ends_with('/') || ["!doctype", "meta", "br"].contains(&name) => {}
            None => open.push(name),
        }
    }
    assert_eq!(open, [""; 0]);
}

#[test]
fn a_report_is_one_page_without_scripts_that_says_what_list_says() {
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    fs::write(sandbox.archive().join("wal_005/<b>&.txt"), "x").unwrap();
    let page = sandbox.path("report.html");
    sandbox.admin("report", &[page.to_str().unwrap()]).says(1, &["the report is in"]);
    let html = fs::read_to_string(&page).unwrap();
    assert_balanced(&html);
    for words in [
        "default-src 'none'; style-src 'unsafe-inline'",
        "cluster 7710362819239716105",
        "No base backup of wal-archive can be recovered; never rehearsed, as far as is recorded.",
        "<title>missing: 000000010000000000000016..000000010000000000000019, 4 segments</title>",
        "<title>timeline 2 leaves timeline 1 at 0/1B6BDA0</title>",
        "<span class=\"kind\">missing</span>",
        "take a new base backup now",
        "<td>2026-11-20</td>",
        "<h2>Settings</h2>",
    ] {
        assert!(html.contains(words), "{words:?} is not in {html}");
    }
    for foreign in ["<script", "http:", "https:", "url(h", "src=", "href", "@import", "<b>"] {
        assert!(!html.contains(foreign), "{foreign} is in {html}");
    }
    assert!(html.len() < 200_000);
    // It is replaced; where it cannot be, that is no report.
    sandbox.admin("report", &[page.to_str().unwrap()]).says(1, &["the report is in"]);
    sandbox.admin("report", &["/no/such/directory/report.html"]).fails(2, &["cannot write"]);
}

/// Also makes the page that a browser looks at (`scripts/browser.sh`).
#[test]
fn a_report_of_an_archive_with_everything_in_it_shows_everything() {
    let sandbox = Sandbox::new();
    let offsite = archive_with_everything(&sandbox, SystemTime::now());
    let page = std::env::var_os("WAL_ARCHIVE_REPORT_SAMPLE");
    let page = page.map_or_else(|| sandbox.path("report.html"), PathBuf::from);
    let args =
        ["--archive", offsite.to_str().unwrap(), "--quick", "--keep-days", "10", page.to_str().unwrap()];
    sandbox.admin("report", &args).says(1, &["the report is in"]);
    let html = fs::read_to_string(&page).unwrap();
    let html = html.replace(sandbox.path("").to_str().unwrap(), "/mnt/wal/");
    fs::write(&page, &html).unwrap();
    assert_balanced(&html);
    for words in [
        "Recoverable to any moment from ",
        ", and in 2 earlier stretches before holes; last rehearsed ",
        "<title>missing: 000000010000000000000027..000000010000000000000029, 3 segments</title>",
        "<title>damaged: 0000000200000000",
        "<title>expired between backups: 0000000100000000",
        "Shaded is what wal-archive expire --keep-days 10 would delete now: ",
        "recovers nothing: it is not finished, or was given up</title>",
        " of another tool, ",
        "lacks what another has: 3 segments, the first 0000000300000000",
        "<td>has all that any other has</td>",
        "<td>findings</td>",
    ] {
        assert!(html.contains(words), "{words:?} is not in {html}");
    }
    // Expire says the same.
    let expire = ["--archive", offsite.to_str().unwrap(), "--keep-days", "10", "--json"];
    let plan: Value = serde_json::from_str(&sandbox.admin("expire", &expire).stdout).unwrap();
    let doomed = &plan["destinations"][1]["backups"];
    let ids = doomed.as_array().unwrap().iter().map(|backup| backup["backup"].as_str().unwrap());
    let ids: Vec<&str> = ids.collect();
    for row in html.split("<tr>").filter(|row| row.contains("<td>delete</td>")) {
        assert!(ids.iter().any(|id| row.contains(id)), "{row} is not among {ids:?}");
    }
    assert!(html.contains("<td>delete</td>") && html.contains("<td>keep</td>"));
    assert!(html.len() < 200_000, "{}", html.len());
}

#[test]
fn a_report_of_any_archive_is_small_and_says_what_it_leaves_out() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.archive().join("wal_005")).unwrap();
    for timeline in 1..=40 {
        for number in (0..200).step_by(2) {
            let name = format!("{timeline:08X}{:08X}{:08X}", timeline, number);
            fs::write(sandbox.object(&name), "x").unwrap();
        }
    }
    let page = sandbox.path("report.html");
    sandbox.admin("report", &[page.to_str().unwrap()]).says(1, &["the report is in"]);
    let html = fs::read_to_string(&page).unwrap();
    assert_balanced(&html);
    assert!(html.len() < 200_000, "{}", html.len());
    for words in ["Not drawn: 28 older timelines", " more findings: ", " stretches, "] {
        assert!(html.contains(words), "{words:?} is not in {html}");
    }
}
