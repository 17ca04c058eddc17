//! `wal-archive keygen FILE`: a new pair of keys.

use super::super::exit::AdminExit;
use super::answer::show;
use crate::failure::Failure;
use crate::object::age::Identity;
use clap::{Arg, ArgMatches, Command};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(super) fn command() -> Command {
    Command::new("keygen")
        .about("Makes an identity, the private key that decrypts an archive")
        .after_help("Examples:\n  wal-archive keygen /etc/wal-archive/identity")
        .arg(
            Arg::new("file")
                .required(true)
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Where the identity goes; it must not exist. The recipient, the public key, goes to stdout"),
        )
}

pub(super) fn run(matches: &ArgMatches) -> Result<AdminExit, Failure> {
    let path = matches.get_one::<PathBuf>("file").cloned().unwrap_or_default();
    let identity =
        Identity::generate().map_err(|error| Failure::new((), format!("cannot make a key: {error}")))?;
    let created = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    write(&path, identity.write(&created).as_bytes()).map_err(|error| {
        let failure =
            Failure::new((), format!("cannot write the identity to \"{}\": {error}", path.display()));
        match error.kind() {
            io::ErrorKind::AlreadyExists => {
                failure.hint("an existing file is never replaced: it may be the only key of an archive")
            }
            _ => failure,
        }
    })?;
    show(&format!("{}\n", identity.recipient()));
    Ok(AdminExit::Fine)
}

/// A new file of this user's alone, durable.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
