//! `docs/configuration.md` against the table of settings.

use super::{ConfigFile, Preset, Program, Row, SETTINGS, Scope, Takes};
use std::path::Path;

const PAGE: &str = include_str!("../../docs/configuration.md");

/// What the tables of the page have in each row.
const HEADING: &str = "| in the file | flag | environment | default | of | meaning |";

/// The rows below each such heading.
fn documented() -> Vec<&'static str> {
    let mut rows = Vec::new();
    let mut lines = PAGE.lines();
    while lines.any(|line| line == HEADING) {
        rows.extend(lines.by_ref().skip(1).take_while(|line| line.starts_with('|')));
    }
    rows
}

fn expected(row: &Row) -> String {
    let code = |text: &str| format!("`{text}`");
    let key = row.key();
    let in_file = match (row.scope, row.programs) {
        (Scope::Call, _) => String::new(),
        (Scope::Destination, _) => code(&format!("[s3] {key}")),
        (Scope::Encryption, _) => code(&format!("[encryption] {key}")),
        (Scope::Own, _) => code(&format!("[[destination]] {key}")),
        (Scope::Program, [Program::Push]) => code(&format!("[push] {key}")),
        (Scope::Program, [Program::Fetch]) => code(&format!("[fetch] {key}")),
        (Scope::Program | Scope::File, _) => code(&key),
    };
    let flag = |value: &str| code(&format!("--{} {value}", row.name));
    let flag = match row.takes {
        _ if !row.has_flag() => String::new(),
        Takes::Switch => code(&format!("--{}", row.name)),
        Takes::Boolean => flag("BOOLEAN"),
        Takes::Text(value) | Takes::Number(value) => flag(value),
        Takes::List(value) => format!("{}, repeatable", flag(value)),
    };
    let list = if matches!(row.takes, Takes::List(_)) { ", comma list" } else { "" };
    let ours = row.variable().map_or(String::new(), |name| code(&name) + list);
    let theirs: Vec<String> = row.theirs.iter().map(|name| code(name)).collect();
    let environment = if theirs.is_empty() { ours } else { format!("{ours}; else {}", theirs.join(", ")) };
    let default = match row.default {
        Preset::Nothing => String::new(),
        Preset::Value(value) => code(value),
        Preset::Words(words) => words.to_owned(),
    };
    let of = match row.programs {
        [_, _, _] => "all".to_owned(),
        some => some.iter().filter_map(|program| program.section()).collect::<Vec<_>>().join(", "),
    };
    let cells = [in_file.as_str(), &flag, &environment, &default, &of, row.help];
    format!(
        "|{}",
        cells.map(|cell| if cell.is_empty() { " |".to_owned() } else { format!(" {cell} |") }).concat()
    )
}

#[test]
fn the_page_of_settings_has_a_row_for_each_setting_and_no_other() {
    let (mut documented, mut expected): (Vec<_>, Vec<_>) = (
        documented().into_iter().map(str::to_owned).collect(),
        SETTINGS.iter().map(|row| expected(row)).collect(),
    );
    let all = expected.join("\n");
    documented.sort();
    expected.sort();
    let lacking: Vec<_> = expected.iter().filter(|row| !documented.contains(row)).collect();
    let unknown: Vec<_> = documented.iter().filter(|row| !expected.contains(row)).collect();
    assert!(
        lacking.is_empty() && unknown.is_empty(),
        "docs/configuration.md lacks\n{lacking:#?}\nand has\n{unknown:#?}\nAll rows:\n{all}"
    );
    assert_eq!(documented, expected, "a row is there twice");
}

#[test]
fn the_examples_of_the_page_are_files_that_are_understood() {
    let examples: Vec<&str> =
        PAGE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 2, "{examples:?}");
    for example in examples {
        assert_eq!(ConfigFile::parse(Path::new("/example"), example).err(), None, "{example}");
    }
}
