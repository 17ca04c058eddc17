//! Whether a configuration file holds only what is known, in the right shape.

use super::clusters::check_name;
use super::table::{ARCHIVE, PGDATA};
use super::{Error, Program, Row, SETTINGS, Scope, Takes};
use toml::{Table, Value};

/// The table of tables that holds the clusters.
const CLUSTER: &str = "cluster";

/// The array of tables that stands for `archive`.
const DESTINATION: &str = "destination";

/// Checks the whole file.
pub(super) fn check(file: &Table) -> Result<(), Error> {
    check_part(file.iter().filter(|(key, _)| *key != CLUSTER)).map_err(|reason| Error::new((), reason))?;
    let clusters = match file.get(CLUSTER) {
        None => return Ok(()),
        Some(Value::Table(clusters)) => clusters,
        Some(_) => return Err(not_a_cluster()),
    };
    for (name, value) in clusters {
        check_name(name)?;
        let Value::Table(cluster) = value else { return Err(not_a_cluster()) };
        check_part(cluster.iter())
            .map_err(|reason| Error::new((), format!("[{CLUSTER}.{name}]: {reason}")))?;
    }
    let shared = [ARCHIVE.row.name, DESTINATION, PGDATA.row.name];
    match shared.into_iter().find(|key| file.contains_key(*key) && !clusters.is_empty()) {
        Some(key) => Err(Error::new((), format!("\"{key}\" is set at the top, outside of every cluster"))
            .hint("each cluster has its own: move it into its [cluster.NAME]")),
        None => Ok(()),
    }
}

fn not_a_cluster() -> Error {
    Error::new((), "\"cluster\" does not name a cluster")
        .hint("write each cluster's settings below [cluster.NAME]")
}

/// Checks the top of the file, or a cluster.
fn check_part<'a>(part: impl Iterator<Item = (&'a String, &'a Value)>) -> Result<(), String> {
    let mut naming = Vec::new();
    for (key, value) in part {
        match (key.as_str(), value) {
            ("push", Value::Table(section)) => section_is_known(Program::Push, section)?,
            ("fetch", Value::Table(section)) => section_is_known(Program::Fetch, section)?,
            ("s3", Value::Table(section)) => {
                scope_is_known("[s3]", &[Scope::Destination], section.iter())?;
            }
            ("encryption", Value::Table(section)) => {
                scope_is_known("[encryption]", &[Scope::Encryption], section.iter())?;
            }
            (DESTINATION, Value::Array(all)) => all.iter().try_for_each(destination_is_known)?,
            _ => match SETTINGS.iter().find(|row| row.is_common() && row.key() == *key) {
                Some(row) => texts(row, value).map(|_| ())?,
                None => return Err(format!("unknown key \"{key}\"")),
            },
        }
        if key == DESTINATION || key == ARCHIVE.row.name {
            naming.push(key);
        }
    }
    match naming.len() {
        0 | 1 => Ok(()),
        _ => Err("both \"archive\" and [[destination]] name destinations; keep one of them".to_owned()),
    }
}

fn section_is_known(program: Program, section: &Table) -> Result<(), String> {
    let name = program.section().unwrap_or_default();
    for (key, value) in section {
        let known =
            |row: &&&Row| row.scope == Scope::Program && row.programs.contains(&program) && row.key() == *key;
        match SETTINGS.iter().find(known) {
            Some(row) => texts(row, value).map_err(|reason| format!("[{name}]: {reason}"))?,
            None => return Err(format!("unknown key \"{key}\" in [{name}]")),
        };
    }
    Ok(())
}

fn scope_is_known<'a>(
    place: &str,
    scopes: &[Scope],
    mut keys: impl Iterator<Item = (&'a String, &'a Value)>,
) -> Result<(), String> {
    keys.try_for_each(|(key, value)| {
        match SETTINGS.iter().find(|row| scopes.contains(&row.scope) && row.key() == *key) {
            Some(row) => texts(row, value).map(|_| ()).map_err(|reason| format!("{place}: {reason}")),
            None => Err(format!("unknown key \"{key}\" in {place}")),
        }
    })
}

fn destination_is_known(destination: &Value) -> Result<(), String> {
    let table = destination.as_table().ok_or("[[destination]] is not a table")?;
    let scopes = [Scope::Destination, Scope::Own];
    scope_is_known("[[destination]]", &scopes, table.iter().filter(|(key, _)| *key != "url"))?;
    match table.get("url") {
        Some(Value::String(_)) => Ok(()),
        _ => Err("a [[destination]] needs a \"url\"".to_owned()),
    }
}

/// The texts of a value in the file.
pub(super) fn texts(row: &Row, value: &Value) -> Result<Vec<String>, String> {
    let wrong = |right: &str| Err(format!("\"{}\" must be {right}", row.key()));
    match (row.takes, value) {
        (Takes::Switch | Takes::Boolean, Value::Boolean(value)) => Ok(vec![value.to_string()]),
        (Takes::Text(_) | Takes::Number(_) | Takes::Boolean, Value::String(value)) => Ok(vec![value.clone()]),
        (Takes::Text(_) | Takes::Number(_) | Takes::Boolean, Value::Integer(value)) => {
            Ok(vec![value.to_string()])
        }
        (Takes::Switch | Takes::Boolean, _) => wrong("true or false"),
        (Takes::Text(_) | Takes::Number(_), _) => wrong("one value"),
        (Takes::List(_), Value::String(value)) => Ok(vec![value.clone()]),
        (Takes::List(_), Value::Array(all)) => {
            match all.iter().map(Value::as_str).collect::<Option<Vec<_>>>() {
                Some(texts) => Ok(texts.into_iter().map(str::to_owned).collect()),
                None => wrong("an array of strings"),
            }
        }
        (Takes::List(_), _) => wrong("an array of strings"),
    }
}
