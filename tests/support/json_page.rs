//! `docs/json.md` against what `--json` prints.

#![allow(dead_code, reason = "each test crate uses a part")]

use serde_json::Value;
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../docs/json.md");

/// What `rehearse` prints is what it stores.
const FORMAT: &str = include_str!("../../docs/format.md");

/// Every section of the page: its title and its text.
pub fn sections() -> Vec<(String, String)> {
    let all = PAGE.split("\n## ").skip(1);
    all.map(|section| section.split_once('\n').unwrap())
        .map(|(title, text)| (title.to_owned(), text.to_owned()))
        .collect()
}

fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let begin = format!("\n## {title}\n");
    let text = page.split(&begin).nth(1).unwrap_or_else(|| panic!("no section {title:?}"));
    text.split("\n## ").next().unwrap()
}

/// The names between backticks, each part of `findings[].kind` by itself.
fn names(text: &str) -> BTreeSet<String> {
    let code = text.split('`').skip(1).step_by(2);
    let parts = code.flat_map(|code| code.split('.')).map(|part| part.trim_end_matches("[]").to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

/// The names in the first column of the section's tables.
pub fn fields_of(title: &str) -> BTreeSet<String> {
    promised(section(PAGE, title))
}

fn promised(page: &str) -> BTreeSet<String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    rows.flat_map(names).collect()
}

/// Of the fields in the first column those inside another: `gaps.from` of `gaps[].from`, and behind it `gaps.to` of `.to`.
fn promised_inside(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for cell in page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()) {
        let mut outer = "";
        for (before, name) in cell.split('`').skip(1).step_by(2).filter_map(|code| code.split_once('.')) {
            outer = if before.is_empty() { outer } else { before.trim_end_matches("[]") };
            found.insert(format!("{outer}.{name}"));
        }
    }
    found
}

/// Every name of a field, at any depth, and for those inside another one also `gaps.from`; the keys of `settings` are
/// PostgreSQL's.
fn fields(value: &Value, outer: Option<&str>, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                found.insert(name.clone());
                found.extend(outer.map(|outer| format!("{outer}.{name}")));
                if !(name == "settings" && value.is_object()) {
                    fields(value, Some(name), found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| fields(value, outer, found)),
        _ => {}
    }
}

/// All answers of a command together have each field that its section has in the first column of a table, and
/// none that it does not name; where the column has a field inside another one, it has all that are inside that.
#[track_caller]
pub fn assert_as_documented(command: &str, answers: &[&str]) {
    let mut printed = BTreeSet::new();
    for answer in answers {
        fields(
            &serde_json::from_str(answer).unwrap_or_else(|_| panic!("no JSON: {answer}")),
            None,
            &mut printed,
        );
    }
    printed.remove("version");
    let (inside, printed): (BTreeSet<_>, BTreeSet<_>) =
        printed.into_iter().partition(|name| name.contains('.'));
    let record = if command == "rehearse" { section(FORMAT, "Rehearsals") } else { "" };
    let pages = [section(PAGE, command), record];
    let mut known: BTreeSet<String> = pages.iter().flat_map(|page| names(page)).collect();
    known.extend(names(section(PAGE, "Findings")));
    let unknown: Vec<_> = printed.difference(&known).collect();
    assert!(unknown.is_empty(), "docs/json.md, {command}, does not have {unknown:?}");
    let mut promised: BTreeSet<String> = pages.iter().flat_map(|page| promised(page)).collect();
    // The version of the record, in whose place `--json` has its own.
    promised.remove("wal-archive");
    let lacking: Vec<_> = promised.difference(&printed).collect();
    assert!(lacking.is_empty(), "{command} --json printed none of {lacking:?}");
    let promised: BTreeSet<String> = pages.iter().flat_map(|page| promised_inside(page)).collect();
    let outer = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let outers: BTreeSet<String> = promised.iter().map(|name| outer(name)).collect();
    let told = |name: &&String| outers.contains(&outer(name)) && outer(name) != "findings";
    let unknown: Vec<_> = inside.difference(&promised).filter(told).collect();
    assert!(unknown.is_empty(), "docs/json.md, {command}, does not have {unknown:?}");
    let lacking: Vec<_> = promised.difference(&inside).collect();
    assert!(lacking.is_empty(), "{command} --json printed none of {lacking:?}");
}
