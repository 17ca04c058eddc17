//! Which form the exit codes take, settled before anything can fail.

use crate::cli::exit::Form;
use crate::config::{ON_ERROR, OnError};
use crate::host::data_directory::DataDirectory;
use std::env;
use std::ffi::OsString;
use std::path::Path;

/// The form asked for, from the raw arguments and the environment; what cannot be understood is
/// an error for later, in the form of the default.
pub(super) fn on_error_of(args: &[OsString]) -> OnError {
    let mut found = ON_ERROR.row.variable().and_then(|variable| env::var(variable).ok());
    let flag = format!("--{}", ON_ERROR.row.name);
    let mut args = args.iter().skip(1).map(|arg| arg.to_string_lossy());
    while let Some(arg) = args.next() {
        match arg.split_once('=') {
            _ if arg == "--" => break,
            None if arg == flag => found = args.next().map(|value| value.into_owned()).or(found),
            Some((name, value)) if name == flag => found = Some(value.to_owned()),
            _ => {}
        }
    }
    found.and_then(|text| text.parse().ok()).unwrap_or(OnError::Auto)
}

/// Without a standby PostgreSQL takes any code up to 125 for the end of the archive and promotes.
pub(super) fn settle(on_error: OnError) -> Form {
    match on_error {
        OnError::Retry => Form::Retry,
        OnError::Abort => Form::Abort,
        OnError::Auto if Path::new("standby.signal").exists() => Form::Retry,
        OnError::Auto => Form::Abort,
    }
}

/// The same by the data directory whose cluster the file must be of, once it is known: pg_rewind's
/// target is not the working directory.
pub(super) fn settle_for(on_error: OnError, directory: Option<&DataDirectory>) -> Form {
    match (on_error, directory) {
        (OnError::Auto, Some(directory)) if directory.is_standby() => Form::Retry,
        (OnError::Auto, Some(_)) => Form::Abort,
        _ => settle(on_error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(args: &[&str]) -> OnError {
        on_error_of(&args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_form_is_read_from_raw_arguments_however_wrong_the_rest_is() {
        assert_eq!(form(&["wal-fetch", "--on-error", "retry", "--no-such"]), OnError::Retry);
        assert_eq!(form(&["wal-fetch", "--no-such", "--on-error=abort"]), OnError::Abort);
        assert_eq!(form(&["wal-fetch", "--on-error=abort", "--on-error", "retry"]), OnError::Retry);
        assert_eq!(form(&["wal-fetch", "--", "--on-error=retry"]), OnError::Auto);
        assert_eq!(form(&["wal-fetch", "--on-error"]), OnError::Auto);
        assert_eq!(form(&["wal-fetch", "--on-error=never"]), OnError::Auto);
        assert_eq!(form(&[]), OnError::Auto);
    }
}
