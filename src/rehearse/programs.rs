//! PostgreSQL's programs of one major version, and running one of them.

use super::Result;
use super::scratch::Scratch;
use super::stop::{PAUSE, Stop};
use crate::failure::Failure;
use rustix::process::{Pid, Signal, kill_process_group};
use std::env;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// So much is read of what a program prints.
const READ: u64 = 1 << 20;

pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Those of the major version, `needed` among them, in the named directory, else where packages put them,
    /// else in PATH.
    pub fn find(named: Option<&Path>, major: u32, needed: &[&str]) -> Result<Self> {
        let packaged = [format!("/usr/lib/postgresql/{major}/bin"), format!("/usr/pgsql-{major}/bin")];
        let path = env::var_os("PATH").unwrap_or_default();
        let places: Vec<PathBuf> = match named {
            Some(folder) => vec![folder.to_owned()],
            None => packaged.iter().map(PathBuf::from).chain(env::split_paths(&path)).collect(),
        };
        let fits = |folder: &&PathBuf| {
            needed.iter().all(|name| folder.join(name).is_file())
                && version(&folder.join("postgres")) == Some(major)
        };
        match places.iter().find(fits) {
            Some(folder) => Ok(Programs { folder: folder.clone() }),
            None => {
                let place = match named {
                    Some(folder) => format!("\"{}\"", folder.display()),
                    None => format!("\"{}\", \"{}\" or PATH", packaged[0], packaged[1]),
                };
                let what =
                    format!("the programs of PostgreSQL {major} ({}) are not in {place}", needed.join(", "));
                Err(Failure::new((), what).hint(format!(
                    "install the server of PostgreSQL {major}, or name its directory: --pg-bindir DIRECTORY"
                )))
            }
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.folder.join(name).is_file()
    }

    /// One of them, to be run in the scratch directory: nothing that is set for other servers counts.
    pub(super) fn command(&self, name: &str, scratch: &Scratch) -> Command {
        let mut command = Command::new(self.folder.join(name));
        let variables = env::vars_os().map(|(name, _)| name);
        variables.filter(|name| name.as_encoded_bytes().starts_with(b"PG")).for_each(|name| {
            command.env_remove(name);
        });
        command.env("LC_ALL", "C").current_dir(scratch.root());
        command
    }
}

/// The major version that a server program says of itself.
fn version(postgres: &Path) -> Option<u32> {
    let output = Command::new(postgres).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let number = text.split_whitespace().nth(2)?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A program that has ended.
pub struct Ran {
    pub status: ExitStatus,
    pub output: String,
    pub errors: String,
}

impl Ran {
    /// The last thing that it said, on one line.
    pub fn last_words(&self) -> String {
        let said = if self.errors.trim().is_empty() { &self.output } else { &self.errors };
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join("; ");
        if last.is_empty() { self.status.to_string() } else { last }
    }
}

/// Runs a program to its end, or until it is time to give up. What it prints goes to files in the scratch
/// directory, so that none of its children can hold this up.
pub fn run(command: &mut Command, scratch: &Scratch, stop: &Stop) -> Result<Ran> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| Failure::new((), format!("cannot run \"{program}\": {error}"));
    let paths = ["output", "errors"].map(|name| scratch.root().join(name));
    let [output, errors] = &paths;
    let (out, err) = (File::create(output).map_err(failed)?, File::create(errors).map_err(failed)?);
    command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let status = wait(&mut child, stop, failed)?;
    let text = |path: &Path| {
        let mut bytes = Vec::new();
        // What was read before a fault is all there is to tell.
        let _ = File::open(path).and_then(|file| file.take(READ).read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let ran = Ran { status, output: text(output), errors: text(errors) };
    paths.iter().for_each(|path| drop(fs::remove_file(path)));
    log::debug!("\"{program}\" ended with {status}: {}", ran.last_words());
    Ok(ran)
}

fn wait(child: &mut Child, stop: &Stop, failed: impl Fn(io::Error) -> Failure) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().map_err(&failed)? {
            if !status.success() {
                // It may have been told to end together with this process.
                std::thread::sleep(PAUSE);
                stop.check()?;
            }
            return Ok(status);
        }
        if let Err(over) = stop.check() {
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL); // it may have ended just now
            let _ = child.wait();
            return Err(over);
        }
        std::thread::sleep(PAUSE);
    }
}
