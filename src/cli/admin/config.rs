//! `wal-archive config`: the settings in force, and where each came from.

use super::super::args;
use super::super::exit::AdminExit;
use super::answer::{VERSION, json_flag, show, show_json};
use super::look::Look;
use super::table::{Align, Table};
use crate::config::{Caller, Chosen, Common, Layers, Program, Resolved, SETTINGS, Scope};
use crate::failure::Failure;
use crate::host::data_directory::DataDirectory;
use crate::host::identities::IdentitySource;
use crate::object::key::WAL_FOLDER;
use crate::storage::s3::without_password;
use crate::storage::{Destination, Location};
use clap::{Arg, ArgAction, ArgMatches, Command};
use rustix::fs::{Access, access};
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;
use std::time::Instant;

pub(super) fn command() -> Command {
    let check = Arg::new("check").long("check").action(ArgAction::SetTrue).conflicts_with("json");
    Command::new("config")
        .about("Shows the settings in force and where each came from")
        .after_help("Examples:\n  wal-archive config\n  wal-archive config --cluster main --check")
        .arg(json_flag())
        .arg(check.help(
            "Show nothing, but tell whether they can be used, without asking a bucket or writing anything",
        ))
}

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let mut layers = args::read(matches)?;
    let directory = super::surrounding_data_directory();
    let chosen = layers.choose(Caller::of(directory.as_ref()));
    super::super::log::set_format(layers.log_format(Program::Archive)?);
    if matches.get_flag("check") {
        chosen?;
        return check(&layers, directory);
    }
    tell(&layers, matches.get_flag("json"))?;
    // What is shown must also be usable.
    chosen?;
    layers.push()?;
    layers.fetch()?;
    Ok(AdminExit::Fine)
}

/// One row of `wal-archive config`.
pub(super) struct Shown {
    pub(super) setting: String,
    pub(super) values: Vec<String>,
    pub(super) from: String,
}

/// Every setting of every program, without secrets: common ones once, the others under their section.
pub(super) fn rows(layers: &Layers) -> Result<Vec<Shown>, Failure> {
    let mut rows = Vec::new();
    for program in [Program::Archive, Program::Push, Program::Fetch] {
        for row in SETTINGS.iter().filter(|row| row.programs.contains(&program)) {
            let common = row.programs.contains(&Program::Archive);
            if common != (program == Program::Archive) {
                continue;
            }
            let mut resolved = layers.resolve(row, program)?;
            match (row.name, layers.cluster()) {
                ("config", _) if resolved.values.is_empty() => {
                    resolved.values.extend(layers.file_in_use().map(|path| path.display().to_string()));
                }
                ("cluster", Some(Chosen { name, by })) => {
                    resolved = Resolved { values: vec![name.clone()], origin: by.clone() };
                }
                _ => {}
            }
            let from = match resolved.values.is_empty() {
                true => "not set".to_owned(),
                false => resolved.origin.to_string(),
            };
            let section = match row.scope {
                Scope::Destination => Some("s3"),
                Scope::Encryption => Some("encryption"),
                Scope::Own => continue, // told with each destination
                Scope::Program | Scope::File | Scope::Call => program.section(),
            };
            let section = section.map_or_else(String::new, |section| format!("{section}."));
            let values = shown(row.secret, resolved.values);
            rows.push(Shown { setting: format!("{section}{}", row.key()), values, from });
        }
    }
    for (number, row, resolved) in layers.own_settings() {
        let values = shown(row.secret, resolved.values);
        let setting = format!("destination {number}: {}", row.key());
        rows.push(Shown { setting, values, from: resolved.origin.to_string() });
    }
    Ok(rows)
}

fn tell(layers: &Layers, json: bool) -> Result<(), Failure> {
    let rows = rows(layers)?;
    warn(layers);
    if json {
        let rows: Value = rows
            .iter()
            .map(|row| json!({"setting": row.setting, "values": row.values, "from": row.from}))
            .collect();
        show_json(VERSION, json!({"settings": rows}));
    } else {
        let mut table = Table::new(&[("", Align::Left), ("", Align::Left), ("", Align::Left)]);
        for Shown { setting, values, from } in rows {
            let values = if values.is_empty() { "-".to_owned() } else { values.join(", ") };
            table.row([setting.into(), values.into(), from.into()]);
        }
        show(&table.render(Look::default()));
    }
    Ok(())
}

/// Tells what is not wrong, but not as it should be.
fn warn(layers: &Layers) {
    for name in layers.unknown_variables() {
        log::warn!("the environment variable {name} means nothing to this program");
    }
    for path in layers.exposed_secrets() {
        let path = path.display();
        Failure::warn(
            format!("\"{path}\" holds secrets, and other users can read it"),
            format!("chmod 0600 \"{path}\"; 0640 is right where root owns it"),
        );
    }
}

/// Tells all that is wrong with the settings, as far as this machine knows.
fn check(layers: &Layers, surrounding: Option<DataDirectory>) -> Result<AdminExit, Failure> {
    let (push, fetch) = (layers.push()?.common, layers.fetch()?.common);
    warn(layers);
    let mut wrong = Vec::new();
    for destination in &push.archive {
        wrong.extend(unusable(destination, true).err());
    }
    for destination in fetch.archive.iter().filter(|destination| !push.archive.contains(destination)) {
        wrong.extend(unusable(destination, false).err());
    }
    let configured = layers.pgdata()?.and_then(|path| DataDirectory::at(&path));
    let data_directory = configured.or(surrounding);
    let directories = [&push, &fetch].map(|common| common.check_directories(data_directory.as_ref()));
    wrong.extend(directories.into_iter().find_map(Result::err));
    wrong.extend(unusable_identity(&fetch).err());
    warn_of_identity(&push, data_directory.as_ref());
    wrong.iter().for_each(|failure| failure.log(log::Level::Error));
    if !wrong.is_empty() {
        return Ok(AdminExit::CouldNotTell);
    }
    show("the settings can be used; \"wal-archive check\" proves that archiving works\n");
    Ok(AdminExit::Fine)
}

/// Reads the file of private keys, which wal-fetch refuses where others can read it. A command is not run:
/// it may ask somebody.
fn unusable_identity(fetch: &Common) -> Result<(), Failure> {
    match &fetch.identity {
        Some(source @ IdentitySource::File(_)) => match source.load(Instant::now()) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::new((), error.message).hint(error.hint)),
        },
        Some(IdentitySource::Command(_)) | None => Ok(()),
    }
}

/// A server that archives needs no private key, unless it recovers, too, as a node that may become a standby.
fn warn_of_identity(push: &Common, directory: Option<&DataDirectory>) {
    let archives = directory.is_some_and(|directory| !directory.is_in_archive_recovery())
        && push
            .archive
            .iter()
            .filter_map(|place| place.keys.as_ref())
            .any(|keys| !keys.recipients.is_empty());
    if let (Some(source), true) = (&push.identity, archives) {
        Failure::warn(
            format!("this server archives, and with {source} whoever takes it over can read the archive"),
            "where it never runs wal-fetch, take the identity away: recipients are enough to archive",
        );
    }
}

/// Looks at the files that a destination's settings name.
fn unusable(destination: &Destination, to_push: bool) -> Result<(), Failure> {
    if let Some(bundle) = &destination.s3.ca_bundle {
        File::open(bundle).map_err(|error| {
            Failure::new((), format!("cannot read the CA bundle \"{}\": {error}", bundle.display()))
        })?;
    }
    let Location::Directory(root) = &destination.location else { return Ok(()) };
    let wrong = |path: &Path, reason: &str, hint: &str| {
        Err(Failure::new((), format!("the archive's directory \"{}\" {reason}", path.display())).hint(hint))
    };
    if !root.is_dir() {
        let hint = "mount its disk, or make the directory: the root itself is never made";
        return wrong(root, "is not there", hint);
    }
    let needed = if to_push {
        Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK
    } else {
        Access::READ_OK | Access::EXEC_OK
    };
    for path in [root.clone(), root.join(WAL_FOLDER)] {
        if path.exists()
            && let Err(error) = access(&path, needed)
        {
            let hint = "give the user that PostgreSQL runs as the right to it, and run this as that user";
            return wrong(&path, &format!("is not this user's to use: {error}"), hint);
        }
    }
    Ok(())
}

/// Secrets are hidden, and so are passwords inside URLs.
fn shown(secret: bool, values: Vec<String>) -> Vec<String> {
    let show = |value: String| if secret { "********".to_owned() } else { without_password(&value) };
    values.into_iter().map(show).collect()
}
