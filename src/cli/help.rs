//! How much a `--help` says: `-h` the options, `--help` also examples and exit codes, `--help-s3` also the options
//! for S3. Nothing is wider than 80 columns.

use super::codes::ROWS;
use clap::{Arg, ArgAction, Command};
use std::ffi::OsString;

const WIDTH: usize = 80;

/// The headings below a command's own options.
pub(super) const COMMON: &str = "Common options";
pub(super) const S3: &str = "Options for S3";

/// What wal-push and wal-fetch read and keep.
pub(super) const FILES: &str = "\
    Files:\n  \
    /etc/wal-archive/config.toml  the settings, where it exists\n  \
    DATADIR.wal-spool             a cache, never the only copy of anything\n\n\
    Every setting may also be given in the environment (WAL_ARCHIVE, WAL_ARCHIVE_TIMEOUT, ...) or in the \
    configuration file; \"wal-archive config\" shows what is in force.";

/// What of the help is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// Whatever asks for none, as nearly every call does: none is made.
    Nothing,
    /// `-h`, and no argument at all.
    Options,
    /// `--help`, `wal-archive help`
    Examples,
    /// `--help-s3`, the manual pages
    Everything,
}

impl Detail {
    /// By the raw arguments, because the help is made before they are parsed.
    pub(super) fn of(args: &[OsString]) -> Self {
        match args {
            _ if args.iter().any(|arg| arg == "--help-s3") => Detail::Everything,
            _ if args.iter().any(|arg| arg == "--help") => Detail::Examples,
            [_, first, ..] if first == "help" => Detail::Examples,
            [_] => Detail::Options,
            _ if args.iter().any(|arg| arg == "-h") => Detail::Options,
            _ => Detail::Nothing,
        }
    }
}

/// The flags that ask for help.
pub(super) fn flags() -> [Arg; 4] {
    let flag = |id: &'static str, help| Arg::new(id).global(true).help(help).help_heading(COMMON);
    let show = ArgAction::HelpShort; // what it has is decided by `Detail`
    [
        flag("h", "Show the options").short('h').action(show.clone()),
        flag("help", "Show examples and exit codes, too").long("help").action(show.clone()),
        flag("help-s3", "Show the options for S3, too").long("help-s3").action(show),
        Arg::new("version")
            .short('V')
            .long("version")
            .action(ArgAction::Version)
            .help("Show the version")
            .help_heading(COMMON),
    ]
}

/// The command with what its help is to say.
pub(super) fn detailed(command: Command, detail: Detail) -> Command {
    if detail == Detail::Nothing {
        return command;
    }
    let of = command.get_name().to_owned();
    of_one(command, &of, detail).term_width(WIDTH).mut_subcommands(|subcommand| {
        let of = format!("{of} {}", subcommand.get_name());
        of_one(subcommand, &of, detail)
    })
}

fn of_one(command: Command, of: &str, detail: Detail) -> Command {
    let after = command.get_after_help().map(ToString::to_string);
    let after = match detail {
        Detail::Nothing | Detail::Options => None,
        Detail::Examples | Detail::Everything => {
            let parts: Vec<String> = after.into_iter().chain(exit_codes(of)).collect();
            Some(parts.join("\n\n"))
        }
    };
    command
        .after_help(after.unwrap_or_else(|| {
            "\"--help\" shows examples and exit codes, too, \"--help-s3\" the options for S3.".to_owned()
        }))
        .mut_args(with_default)
}

/// Every default looks like those of the settings.
fn with_default(arg: Arg) -> Arg {
    let default = arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
    let shown = default.filter(|text| !text.is_empty() && arg.get_action().takes_values());
    match (shown, arg.get_help()) {
        (Some(default), Some(help)) if !arg.is_hide_default_value_set() => {
            let help = format!("{help} (default: {default})");
            arg.help(help).hide_default_value(true)
        }
        _ => arg,
    }
}

/// Of one program or command, if it has its own.
fn exit_codes(of: &str) -> Option<String> {
    let rows = ROWS.iter().filter(|row| row.of == of);
    let lines: Vec<String> = rows.map(|row| hanging(&format!("{:>8}  ", row.codes()), row.meaning)).collect();
    (!lines.is_empty()).then(|| {
        let more = "\"wal-archive explain CODE\" says what to do.";
        format!("Exit codes:\n{}\n\n{more}", lines.join("\n"))
    })
}

/// A text behind a label, its further lines below its first.
pub(super) fn hanging(label: &str, text: &str) -> String {
    let indent = " ".repeat(label.len());
    let (mut lines, mut line) = (String::new(), label.to_owned());
    for word in text.split(' ') {
        let full = line.len() + word.len() >= WIDTH && line.len() > indent.len();
        if full {
            lines += &format!("{}\n", line.trim_end());
            line.clone_from(&indent);
        }
        line += word;
        line.push(' ');
    }
    lines + line.trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    const PAGE: &str = include_str!("../../docs/configuration.md");

    fn row(of: &str, arg: &Arg) -> String {
        let value = arg.get_value_names().unwrap_or_default().join(" ");
        let value = if arg.get_action().takes_values() { value } else { String::new() };
        let long = arg.get_long().map(|long| format!("--{long}"));
        let short = arg.get_short().map(|short| format!("-{short}"));
        let names: Vec<String> = short.into_iter().chain(long).collect();
        let option = format!("{} {value}", names.join(", "));
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        format!("| {of} | `{}` | {help} |", option.trim())
            .replace("SEGMENT|", "SEGMENT\\|")
            .replace("LSN|", "LSN\\|")
            .replace("WAL|", "WAL\\|")
    }

    #[test]
    fn the_page_of_settings_has_every_option_that_is_no_setting() {
        let [.., archive] = crate::cli::commands();
        let own = |command: &Command, of: &str| -> Vec<String> {
            // What is global is a setting, or told once.
            let root = command.get_name() == archive.get_name();
            let is_setting = |arg: &Arg| root && SETTINGS.iter().any(|row| row.name == arg.get_id());
            let args = command.get_arguments().filter(|arg| !is_setting(arg) && !arg.is_hide_set());
            args.map(|arg| row(of, arg)).collect()
        };
        let commands = archive.get_subcommands().flat_map(|one| own(one, &format!("`{}`", one.get_name())));
        let expected: Vec<String> = own(&archive, "all").into_iter().chain(commands).collect();
        let rows = PAGE.lines().skip_while(|line| *line != "| command | option | meaning |").skip(2);
        let documented: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
        assert!(documented == expected, "docs/configuration.md should have\n{}", expected.join("\n"));
    }

    #[test]
    fn a_long_text_goes_on_below_its_first_word() {
        let text = ["word"; 30].join(" ");
        let shown = hanging("  12  ", &text);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.len() > 1 && lines[0].starts_with("  12  word word"), "{shown}");
        assert!(lines[1..].iter().all(|line| line.starts_with("      word")), "{shown}");
        assert!(lines.iter().all(|line| line.len() < WIDTH), "{shown}");
        assert_eq!(shown.split_whitespace().count(), 31);
        assert_eq!(hanging("1  ", "short"), "1  short");
    }
}
