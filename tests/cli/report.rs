//! `wal-archive report`.

use crate::util::Sandbox;
use std::fs;

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
        "No base backup of wal-archive can be recovered. Never rehearsed, as far as is recorded.",
        "<title>missing: 000000010000000000000016..000000010000000000000019</title>",
        "<title>timeline 2 leaves 1 at 0/1B6BDA0</title>",
        "<span class=\"kind\">missing</span>",
        "take a new base backup now",
        "<td>2026-11-20</td>",
        "<h2>Settings</h2>",
    ] {
        assert!(html.contains(words), "{words:?} is not in {html}");
    }
    for foreign in ["<script", "http:", "https:", "url(", "@import", "<b>"] {
        assert!(!html.contains(foreign), "{foreign} is in {html}");
    }
    assert!(html.len() < 200_000);
    let marks = html.matches("<rect").count() + html.matches("<circle").count();
    assert!(marks > 0 && html.matches("<title>").count() > marks, "a mark has no title: {html}");
    // It is replaced; where it cannot be, that is no report.
    sandbox.admin("report", &[page.to_str().unwrap()]).says(1, &["the report is in"]);
    sandbox.admin("report", &["/no/such/directory/report.html"]).fails(2, &["cannot write"]);
}
