//! The command line of each program, made from the table of settings.

use super::help::{self, COMMON, Detail, S3};
use crate::config::{Caller, Chosen, Environment, Flags, Layers, Program, Row, SETTINGS, Scope, Takes};
use crate::failure::Failure;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::env;
use std::ffi::OsString;
use std::io::Write;

/// What the command line turned out to be.
pub(super) enum Parsed {
    /// Arguments to work with.
    Run(Box<ArgMatches>),
    /// Help or version, already printed.
    Told,
    /// Wrong; the statement and a hint.
    Wrong(Failure),
}

/// The flags of one program, without its own arguments. Its own settings come first in the help, then those of
/// all programs, then those of S3 if they are asked for.
pub(super) fn command(name: &'static str, about: &'static str, program: Program, detail: Detail) -> Command {
    let settings =
        SETTINGS.iter().filter(|row| row.programs.contains(&program) && row.has_flag()).map(|row| {
            let arg = Arg::new(row.name).long(row.name).help(row.help()).global(true);
            // Of several values the last one counts, so that a wrapper can append its own.
            let one = |arg: Arg, value| arg.action(ArgAction::Set).overrides_with(row.name).value_name(value);
            match row.takes {
                Takes::Switch => arg.action(ArgAction::SetTrue),
                Takes::Boolean => one(arg, "BOOLEAN"),
                Takes::Text(value) => one(arg, value),
                Takes::Number(value) => one(arg, value).allow_negative_numbers(true),
                Takes::List(value) => arg.action(ArgAction::Append).value_name(value),
            }
            .help_heading(match (row.scope, row.programs) {
                (Scope::Destination, _) => Some(S3),
                (_, [_, _, _]) => Some(COMMON),
                _ if program == Program::Archive => Some(COMMON),
                _ => None,
            })
            .hide(row.scope == Scope::Destination && detail != Detail::Everything)
        });
    let verbose = Arg::new("verbose").short('v').long("verbose").action(ArgAction::Count).global(true);
    Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(settings)
        .arg(verbose.help("Say what is done; twice: everything").help_heading(COMMON))
        .args(help::flags())
}

/// Parses; help and version go to stdout.
pub(super) fn parse(command: Command, detail: Detail, args: Vec<OsString>) -> Parsed {
    let command = help::detailed(command, detail);
    let name = command.get_name().to_owned();
    let called = args.iter().skip(1).find_map(|arg| command.find_subcommand(arg));
    let called = called.map_or_else(|| name.clone(), |called| format!("{name} {}", called.get_name()));
    // A closed stdout is the reader's choice.
    let show = |text: &str| drop(writeln!(std::io::stdout(), "{}", text.trim_end()));
    match command.try_get_matches_from(args) {
        Ok(matches) => Parsed::Run(Box::new(matches)),
        Err(error) if error.exit_code() == 0 => {
            show(&error.to_string());
            Parsed::Told
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            show(&error.to_string());
            Parsed::Wrong(
                Failure::new((), "no command is named").hint(format!("\"{name} COMMAND --help\" shows more")),
            )
        }
        Err(error) => {
            // The first paragraph says it; the usage is a drawing of several lines.
            let text = error.to_string();
            let statement = text.split("\n\n").next().unwrap_or_default();
            let statement =
                statement.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
            let meant = meant(&error).map_or_else(String::new, |meant| format!("did you mean \"{meant}\"? "));
            Parsed::Wrong(
                Failure::new((), statement).hint(format!("{meant}\"{called} --help\" shows the arguments")),
            )
        }
    }
}

/// What is spelt like a word that is none.
fn meant(error: &Error) -> Option<&str> {
    let kinds = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    kinds.into_iter().find_map(|kind| match error.get(kind)? {
        ContextValue::String(text) => Some(text.as_str()),
        ContextValue::Strings(texts) => texts.last().map(String::as_str), // the likeliest
        _ => None,
    })
}

/// The value of an option that has a default.
pub(super) fn value<T: Clone + Send + Sync + 'static>(
    matches: &ArgMatches,
    name: &str,
) -> Result<T, Failure> {
    matches.get_one::<T>(name).cloned().ok_or_else(|| Failure::new((), format!("--{name} is missing")))
}

/// The settings given as flags.
pub(super) fn flags(matches: &ArgMatches) -> Flags {
    let given = |name: &str| {
        matches.try_contains_id(name).unwrap_or(false)
            && matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine)
    };
    let values = |row: &Row| match row.takes {
        Takes::Switch => vec![matches.get_flag(row.name).to_string()],
        Takes::Boolean | Takes::Text(_) | Takes::Number(_) | Takes::List(_) => {
            matches.get_many::<String>(row.name).unwrap_or_default().cloned().collect()
        }
    };
    let given = SETTINGS.iter().filter(|row| row.has_flag() && given(row.name));
    given.map(|row| (row.name, values(row))).collect()
}

/// The process's environment. What is not UTF-8 is shown as such by the value's own error.
pub(super) fn environment() -> Environment {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// Everything that was configured for the caller's cluster, with the log set up as asked.
pub(super) fn layers(matches: &ArgMatches, program: Program, caller: Caller<'_>) -> Result<Layers, Failure> {
    let mut layers = read(matches)?;
    let chosen = layers.choose(caller);
    super::log::set_format(layers.log_format(program)?);
    if let Some(Chosen { name, by }) = layers.cluster() {
        log::info!("the settings are those of cluster \"{name}\": {by}");
    }
    chosen.map(|()| layers)
}

/// The same for each cluster.
pub(super) fn layers_of_all(matches: &ArgMatches, program: Program) -> Result<Vec<Layers>, Failure> {
    let layers = read(matches)?;
    super::log::set_format(layers.log_format(program)?);
    layers.for_each_cluster()
}

/// Everything that was configured, of no cluster yet.
pub(super) fn read(matches: &ArgMatches) -> Result<Layers, Failure> {
    super::log::set_verbosity(matches.get_count("verbose"));
    Layers::read(flags(matches), environment())
}
