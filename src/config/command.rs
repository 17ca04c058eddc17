//! The wal-fetch that reads what this call reads, as a `restore_command`: what was given by flags and in
//! the environment, which the server will not have, becomes its flags.

use super::programs::Common;
use super::setting::{Program, Scope, Takes};
use super::{Error, Layers, Origin, SETTINGS};
use crate::storage::Location;
use std::env;
use std::path::Path;

/// Variables of AWS that hold a secret or lead to one.
const AWS_SECRETS: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];

impl Layers {
    /// The command, with `%f` and `%p`. Refused where a secret is only in the environment: it belongs
    /// neither into a command line nor into a server's settings.
    pub fn restore_command(&self, wal_fetch: &Path) -> Result<String, Error> {
        let common = self.common(Program::Fetch)?;
        self.refuse_secrets(uses_buckets(&common))?;
        let command = self.fetch_command(wal_fetch, &[])?;
        match command.contains('\n') {
            false => Ok(command),
            true => Err(Error::new(
                (),
                "a path for restore_command has a newline, which PostgreSQL's settings cannot hold",
            )
            .hint("rename it, or name another way to it, such as a symbolic link")),
        }
    }

    /// The same for a server that this process starts and that so has its environment; with options that beat
    /// all others.
    pub fn fetch_command(&self, wal_fetch: &Path, options: &[(&str, &str)]) -> Result<String, Error> {
        let common = self.common(Program::Fetch)?;
        let mut words = vec![quoted(&wal_fetch.display().to_string())];
        if let Some(file) = self.file_in_use() {
            let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
            words.extend(["--config".to_owned(), quoted(&path.display().to_string())]);
        }
        if let Some(chosen) = self.cluster() {
            words.extend(["--cluster".to_owned(), quoted(&chosen.name)]);
        }
        words.extend(self.given(&common, uses_buckets(&common))?);
        for (name, value) in options {
            words.extend([format!("--{name}"), quoted(value)]);
        }
        words.extend(["%f".to_owned(), "%p".to_owned()]);
        Ok(words.join(" "))
    }

    fn given(&self, common: &Common, buckets: bool) -> Result<Vec<String>, Error> {
        let mut words = Vec::new();
        // In another directory than the file's a call is refused that does not name the archive itself.
        let is_bound = self.cluster().is_none() && self.pgdata()?.is_some() && !self.has_destination_tables();
        let rows = SETTINGS.iter().filter(|row| row.programs.contains(&Program::Fetch) && row.has_flag());
        for row in rows.filter(|row| row.scope != Scope::Call && (buckets || row.scope != Scope::Destination))
        {
            let resolved = self.resolve(row, Program::Fetch)?;
            let is_known = matches!(resolved.origin, Origin::File(..) | Origin::Default);
            if is_known && !(is_bound && row.name == "archive") {
                continue;
            }
            // As they were understood: a relative path means another place in the server's directory.
            let values = match row.name {
                "archive" => common.archive.iter().map(ToString::to_string).collect(),
                _ => resolved.values,
            };
            for value in values {
                match row.takes {
                    Takes::Switch if value == "true" => words.push(format!("--{}", row.name)),
                    Takes::Switch => {}
                    _ => words.extend([format!("--{}", row.name), quoted(&value)]),
                }
            }
        }
        Ok(words)
    }

    fn refuse_secrets(&self, buckets: bool) -> Result<(), Error> {
        if !buckets {
            return Ok(());
        }
        let secret = |row: &&&super::Row| {
            row.secret
                && self
                    .resolve(row, Program::Fetch)
                    .is_ok_and(|found| matches!(found.origin, Origin::Environment(_) | Origin::Theirs(_)))
        };
        let ours = SETTINGS.iter().find(secret).and_then(|row| row.variable());
        let theirs =
            AWS_SECRETS.iter().find(|name| env::var_os(name).is_some()).map(|name| (*name).to_owned());
        match ours.or(theirs) {
            None => Ok(()),
            Some(name) => Err(Error::new(
                (),
                format!("the credentials are only in the environment ({name}), which the server will not have"),
            )
            .hint("write them into the configuration file or a profile of ~/.aws/credentials of the server's user")),
        }
    }
}

fn uses_buckets(common: &Common) -> bool {
    common.archive.iter().any(|one| matches!(one.location, Location::S3 { .. }))
}

/// A word for the shell, in which PostgreSQL replaces nothing.
fn quoted(word: &str) -> String {
    let word = word.replace('%', "%%");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:,=%@+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_for_the_shell_and_for_postgresql() {
        assert_eq!(quoted("/usr/bin/wal-fetch"), "/usr/bin/wal-fetch");
        assert_eq!(quoted("/my archive"), "'/my archive'");
        assert_eq!(quoted("it's 100%"), "'it'\\''s 100%%'");
        assert_eq!(quoted(""), "''");
    }
}
