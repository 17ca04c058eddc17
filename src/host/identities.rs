//! Private keys from the machine: a file that nobody else can read, or what a command prints.
//!
//! From the moment on that one is read, this process leaves no core dump, and our copies of what was read
//! are erased. Does not know: what is decrypted with them.

use crate::host::detached;
use crate::object::age::{Identities, KeyError};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Where they come from.
#[derive(Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// age's own file of identities.
    File(PathBuf),
    /// A program and its arguments; it prints such a file.
    Command(Vec<String>),
}

/// Why there are none.
#[derive(Debug)]
pub struct IdentityError {
    /// Whether a setting is wrong; else the command may do better next time.
    pub is_setting: bool,
    pub message: String,
    pub hint: &'static str,
}

/// No file of identities is longer.
const MAX_LEN: u64 = 64 << 10;

/// How often the end of a command is looked for.
const POLL: Duration = Duration::from_millis(20);

const USE_COMMAND: &str = "identity_command names a program that prints the identity, whatever protects it";

/// The arguments of a command may be secrets.
impl fmt::Debug for IdentitySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for IdentitySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentitySource::File(path) => write!(f, "the identity file \"{}\"", path.display()),
            IdentitySource::Command(arguments) => {
                write!(f, "identity_command \"{}\"", arguments.first().map_or("", String::as_str))
            }
        }
    }
}

impl IdentitySource {
    /// Reads them; a command ends by the deadline.
    pub fn load(&self, deadline: Instant) -> Result<Identities, IdentityError> {
        no_core_dumps();
        let bytes = match self {
            IdentitySource::File(path) => self.read_file(path)?,
            IdentitySource::Command(arguments) => self.run(arguments, deadline)?,
        };
        if bytes.len() as u64 > MAX_LEN {
            return Err(self.wrong(&format!("gives more than {MAX_LEN} bytes"), USE_COMMAND));
        }
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| self.wrong("is not a file of identities", USE_COMMAND))?;
        Identities::parse(text).map_err(|(line, error)| {
            let hint = match error {
                KeyError::Plugin | KeyError::Encrypted => USE_COMMAND,
                _ => "\"wal-archive keygen FILE\" or \"age-keygen -o FILE\" makes one",
            };
            self.wrong(&format!("cannot be used, line {line}: it is {error}"), hint)
        })
    }

    fn wrong(&self, what: &str, hint: &'static str) -> IdentityError {
        IdentityError { is_setting: true, message: format!("{self} {what}"), hint }
    }

    fn read_file(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        let unreadable = |error: io::Error| {
            let hint = "name the file with the private key, and let the user that PostgreSQL runs as read it";
            self.wrong(&format!("cannot be read: {error}"), hint)
        };
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty());
        let mut file = file.map(File::from).map_err(|error| unreadable(error.into()))?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(self.wrong("is not a regular file", USE_COMMAND));
        }
        if metadata.mode() & 0o027 & !0o040 != 0 {
            let hint = "chmod 0600 or 0640; whoever can read it reads the archive";
            return Err(self.wrong("is open to others, or its group may change it", hint));
        }
        read_all(&mut file).map_err(unreadable)
    }

    fn run(&self, arguments: &[String], deadline: Instant) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        let failed =
            |what: String, hint| IdentityError { is_setting: false, message: format!("{self} {what}"), hint };
        let Some((program, arguments)) = arguments.split_first() else {
            return Err(self.wrong("names no program", USE_COMMAND));
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().map_err(|error| {
            let hint = "it is a list of a program and its arguments, run without a shell";
            self.wrong(&format!("cannot be started: {error}"), hint)
        })?;
        let printed = printed(&mut child, deadline);
        let ended = end(&mut child, deadline);
        match (printed, ended) {
            // Nobody read the rest, of which it may have died.
            (Ok(bytes), _) if bytes.len() as u64 > MAX_LEN => Ok(bytes),
            (Ok(bytes), Ok(Some(status))) if status.success() => Ok(bytes),
            (Ok(_), Ok(Some(status))) => Err(failed(
                format!("failed: {status}"),
                "its own words are above; try it as the user that PostgreSQL runs as",
            )),
            (_, Err(error)) | (Err(Some(error)), _) => {
                Err(failed(format!("cannot be read: {error}"), "try it again"))
            }
            _ => Err(failed(
                "did not end in time".to_owned(),
                "try it as the user that PostgreSQL runs as; --timeout gives it longer",
            )),
        }
    }
}

fn read_all(source: &mut dyn Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it, so that no piece is left behind where it grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LEN as usize + 1));
    source.take(MAX_LEN + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a command prints; the error is `None` where that did not end in time.
fn printed(child: &mut Child, deadline: Instant) -> Result<Zeroizing<Vec<u8>>, Option<io::Error>> {
    let mut stdout = child.stdout.take().ok_or(None)?;
    let (give, take) = sync_channel(1);
    // Whatever the command started may hold the pipe open, so nobody waits for this thread.
    detached::spawn("identity", move || drop(give.send(read_all(&mut stdout)))).map_err(Some)?;
    match take.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(read) => read.map_err(Some),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(None),
    }
}

/// How it ended; `None` where it was killed, as its time was over.
fn end(child: &mut Child, deadline: Instant) -> io::Result<Option<std::process::ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Neither a file nor a program that collects dumps gets the memory of this process.
fn no_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited =
        setrlimit(Resource::Core, none).and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = limited {
        log::debug!("core dumps cannot be switched off: {error}");
    }
}
