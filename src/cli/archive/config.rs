//! `wal-archive config`: the settings in force, and where each came from.

use super::super::args;
use super::super::exit::AdminExit;
use crate::config::{Layers, Program, SETTINGS};
use crate::failure::Failure;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::io::Write;

pub(super) fn command() -> Command {
    Command::new("config")
        .about("Shows the settings in force and where each came from")
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("As JSON"))
}

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure<()>> {
    let layers = args::layers(matches, Program::Archive)?;
    show(&layers, matches.get_flag("json")).map(|()| AdminExit::Fine)
}

/// One row of `wal-archive config`.
struct Row {
    setting: String,
    values: Vec<String>,
    from: String,
}

/// Prints every setting of every program: common ones once, the others under their section.
fn show(layers: &Layers, json: bool) -> Result<(), Failure<()>> {
    let mut rows = Vec::new();
    for program in [Program::Archive, Program::Push, Program::Fetch] {
        for setting in SETTINGS.iter().filter(|setting| setting.programs.contains(&program)) {
            let common = setting.programs.contains(&Program::Archive);
            if common != (program == Program::Archive) {
                continue;
            }
            let mut resolved = layers.resolve(setting, program)?;
            if setting.name == "config" && resolved.values.is_empty() {
                resolved.values.extend(layers.file_in_use().map(|path| path.display().to_string()));
            }
            let from = match resolved.values.is_empty() {
                true => "not set".to_owned(),
                false => resolved.origin.to_string(),
            };
            let section = if setting.s3 { Some("s3") } else { program.section() };
            let section = section.map_or_else(String::new, |section| format!("{section}."));
            let values = if setting.secret { hidden(resolved.values) } else { resolved.values };
            rows.push(Row { setting: format!("{section}{}", setting.key()), values, from });
        }
    }
    for (number, name, resolved) in layers.own_settings() {
        let secret = SETTINGS.iter().any(|setting| setting.name == name && setting.secret);
        let values = if secret { hidden(resolved.values) } else { resolved.values };
        let setting = format!("destination {number}: {}", name.replace('-', "_"));
        rows.push(Row { setting, values, from: resolved.origin.to_string() });
    }
    for name in layers.unknown_variables() {
        log::warn!("the environment variable {name} means nothing to this program");
    }
    let mut text = String::new();
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| serde_json::json!({"setting": row.setting, "values": row.values, "from": row.from}))
            .collect();
        text = format!("{}\n", serde_json::Value::from(rows));
    } else {
        let value = |row: &Row| if row.values.is_empty() { "-".to_owned() } else { row.values.join(", ") };
        let width = |cell: &dyn Fn(&Row) -> usize| rows.iter().map(cell).max().unwrap_or(0);
        let (first, second) = (width(&|row| row.setting.len()), width(&|row| value(row).len()));
        for row in &rows {
            text += &format!("{:first$}  {:second$}  {}\n", row.setting, value(row), row.from);
        }
    }
    let _ = std::io::stdout().write_all(text.as_bytes()); // a closed stdout is the reader's choice
    // What is shown must also be usable.
    layers.push()?;
    layers.fetch()?;
    Ok(())
}

fn hidden(values: Vec<String>) -> Vec<String> {
    values.into_iter().map(|_| "********".to_owned()).collect()
}
