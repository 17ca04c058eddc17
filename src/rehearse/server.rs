//! The server that recovers: what it is told so that it does nothing else, its start and its end.
//!
//! Everything is said on the command line, which no file of the copy beats: its `postgresql.conf` and
//! `pg_hba.conf` are not read, its `postgresql.auto.conf` was emptied.

use super::copy::Control;
use super::scratch::Scratch;
use super::stop::{PAUSE, Stop};
use super::story::Story;
use super::{Request, Result, wal_kept};
use crate::archive::rehearsals::Flaw;
use crate::failure::Failure;
use crate::finding::Finding;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to end at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// The server, which ends with it.
pub(super) struct Server {
    process: Child,
    log: File,
    /// The beginning of a line that is not finished.
    rest: String,
    story: Story,
}

/// How recovery ended.
pub(super) enum Ended {
    Ready,
    WithoutRecovery(Box<Finding<Flaw>>),
}

impl Server {
    pub(super) fn start(request: &Request<'_>, control: &Control) -> Result<Self> {
        let scratch = request.scratch;
        let failed = |error: io::Error| Failure::new((), format!("cannot start the server: {error}"));
        configuration(scratch).map_err(failed)?;
        let path = scratch.root().join("server.log");
        let log = private().open(&path).map_err(failed)?;
        let mut postgres = request.programs.command("postgres", scratch);
        postgres.arg("-D").arg(scratch.data());
        for (name, value) in settings(request, control) {
            postgres.args(["-c", &format!("{name}={value}")]);
        }
        for (file, name) in
            [("config_file", "postgresql.conf"), ("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")]
        {
            postgres.args(["-c", &format!("{file}={}", scratch.root().join(name).display())]);
        }
        let process = begin(&mut postgres, &log).map_err(failed)?;
        let log = File::open(&path).map_err(failed)?;
        Ok(Server { process, log, rest: String::new(), story: Story::default() })
    }

    pub(super) fn story(&self) -> &Story {
        &self.story
    }

    /// Waits until it is open for writing, or has ended.
    pub(super) fn recover(&mut self, request: &Request<'_>) -> Result<Ended> {
        let stop = request.stop;
        loop {
            let ended = self.process.try_wait().map_err(unknown)?;
            self.listen()?;
            if self.story.is_ready() {
                return Ok(Ended::Ready);
            }
            if let Some(status) = ended {
                // It may have been told to end together with this process.
                std::thread::sleep(PAUSE);
                stop.check()?;
                return match self.story.why_ended(request.telling)? {
                    Some(finding) => Ok(Ended::WithoutRecovery(Box::new(finding))),
                    None => {
                        let said = self.story.fatal().unwrap_or("it says no reason");
                        let what = format!("the server ended with {status} and recovered nothing: {said}");
                        Err(Failure::new((), what)
                            .hint("look at the room, memory and limits of this machine, and at --preload"))
                    }
                };
            }
            stop.check()?;
            std::thread::sleep(PAUSE);
        }
    }

    /// Ends it in order, so that its files are whole.
    pub(super) fn stop(mut self, stop: &Stop) -> Result<()> {
        self.signal(Signal::INT);
        loop {
            match self.process.try_wait().map_err(unknown)? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(Failure::new((), format!("the server did not stop in order: {status}")));
                }
                None => stop.check()?,
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Takes in what was logged since.
    fn listen(&mut self) -> Result<()> {
        let mut bytes = Vec::new();
        self.log.read_to_end(&mut bytes).map_err(unknown)?;
        self.rest += &String::from_utf8_lossy(&bytes);
        let now = Instant::now();
        while let Some((line, rest)) = self.rest.split_once('\n') {
            log::debug!("server: {line}");
            self.story.read(line, now);
            self.rest = rest.to_owned();
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.process), signal); // it may have ended just now
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let start = Instant::now();
        let runs = |process: &mut Child| matches!(process.try_wait(), Ok(None));
        if runs(&mut self.process) {
            self.signal(Signal::QUIT);
        }
        while runs(&mut self.process) && start.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
    }
}

fn unknown(error: io::Error) -> Failure {
    Failure::new((), format!("cannot tell what the server does: {error}"))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options
}

/// Of a process group of its own: what a terminal sends to this one is not for it.
fn begin(postgres: &mut Command, log: &File) -> io::Result<Child> {
    postgres.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?).process_group(0).spawn()
}

/// Whoever gets to the socket may connect: only its owner does.
fn configuration(scratch: &Scratch) -> io::Result<()> {
    for (name, text) in
        [("postgresql.conf", ""), ("pg_hba.conf", "local all all trust\n"), ("pg_ident.conf", "")]
    {
        fs::write(scratch.root().join(name), text)?;
    }
    Ok(())
}

fn settings(request: &Request<'_>, control: &Control) -> Vec<(&'static str, String)> {
    let socket = request.scratch.run().display().to_string();
    let mut settings: Vec<(&'static str, String)> = vec![
        // Reached by nobody else.
        ("listen_addresses", String::new()),
        ("unix_socket_directories", socket),
        ("port", "5432".to_owned()),
        ("ssl", "off".to_owned()),
        // A copy does not act: it archives, streams, subscribes, runs and notifies nothing.
        ("archive_mode", "off".to_owned()),
        ("archive_command", String::new()),
        ("archive_cleanup_command", String::new()),
        ("recovery_end_command", String::new()),
        ("primary_conninfo", String::new()),
        ("primary_slot_name", String::new()),
        ("synchronous_standby_names", String::new()),
        ("max_logical_replication_workers", "0".to_owned()),
        ("shared_preload_libraries", request.preload.to_owned()),
        ("session_preload_libraries", String::new()),
        ("local_preload_libraries", String::new()),
        ("autovacuum", "off".to_owned()),
        // A parameter that the WAL raises pauses the replay of a hot standby.
        ("hot_standby", "off".to_owned()),
        ("recovery_target_action", "promote".to_owned()),
        ("recovery_target_inclusive", "on".to_owned()),
        ("recovery_min_apply_delay", "0".to_owned()),
        ("restart_after_crash", "off".to_owned()),
        // It is thrown away at the end, and leaves nothing outside of its directory.
        ("fsync", "off".to_owned()),
        ("synchronous_commit", "off".to_owned()),
        ("dynamic_shared_memory_type", "mmap".to_owned()),
        ("huge_pages", "off".to_owned()),
        ("wal_level", "logical".to_owned()),
        ("max_replication_slots", "128".to_owned()),
        // Its log is read here.
        ("logging_collector", "off".to_owned()),
        ("log_destination", "stderr".to_owned()),
        ("log_line_prefix", String::new()),
        ("log_min_messages", "warning".to_owned()),
        ("log_error_verbosity", "default".to_owned()),
        ("lc_messages", "C".to_owned()),
        ("TimeZone", "UTC".to_owned()),
        ("log_timezone", "UTC".to_owned()),
    ];
    settings.extend(control.least().map(|(name, value)| (name, value.to_string())));
    let (least, most) = wal_kept(control.segment_size);
    settings.extend([
        ("min_wal_size", format!("{}MB", least >> 20)),
        ("max_wal_size", format!("{}MB", most >> 20)),
    ]);
    if control.major >= 15 {
        settings.push(("archive_library", String::new()));
        if request.has_target {
            // It would ask for what is behind the target, and end where there is a hole.
            settings.push(("recovery_prefetch", "off".to_owned()));
        }
    }
    if control.major < 16 {
        settings.push(("promote_trigger_file", String::new()));
    }
    if control.major >= 17 {
        settings.push(("event_triggers", "off".to_owned()));
    }
    if control.major >= 18 {
        settings.push(("max_active_replication_origins", "128".to_owned()));
    }
    settings.extend(request.recovery.iter().cloned());
    settings
}
