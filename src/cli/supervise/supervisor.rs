//! The supervisor's side: starts the worker, passes on what it says, ends it at the deadline, and
//! waits for nothing that the worker could withhold.

use super::{Orders, Report};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::env;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the worker may take to end after its last report.
const ENDING: Duration = Duration::from_secs(2);

/// How long a killed worker may take to end: so long the kernel needs for its memory, not more.
const DYING: Duration = Duration::from_millis(200);

/// What became of a worker.
#[derive(Debug)]
pub(in crate::cli) struct Outcome {
    /// It reported that the requested file is durable.
    pub(in crate::cli) durable: bool,
    pub(in crate::cli) end: End,
}

#[derive(Debug)]
pub(in crate::cli) enum End {
    /// As it should, with this code.
    Reported(u8),
    /// Otherwise, in this way.
    Died(String),
    /// Not by the deadline.
    Late,
}

/// Runs a worker with this process's own arguments, until the deadline at most.
pub(in crate::cli) fn supervise(orders: &Orders, deadline: Instant) -> Outcome {
    match Worker::start(orders) {
        Ok(worker) => worker.run(deadline),
        Err(error) => Outcome { durable: false, end: End::Died(format!("could not be started: {error}")) },
    }
}

struct Worker {
    process: Child,
    reports: ChildStdout,
    /// `None` after its end.
    errors: Option<ChildStderr>,
    /// Whether `reports` has not ended: the process lives, or a part of it.
    lives: bool,
    /// The beginning of a line.
    unread: Vec<u8>,
    /// Whether the last line on stderr lacks its end.
    unended: bool,
    durable: bool,
    code: Option<u8>,
}

impl Worker {
    fn start(orders: &Orders) -> io::Result<Self> {
        let mut args = env::args_os();
        // The very program that runs, whatever stands at its path now.
        let mut command = Command::new("/proc/self/exe");
        command.arg0(args.next().unwrap_or_default()).args(orders.arguments()?).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn()?;
        let gone = || io::Error::other("no pipe");
        let reports = process.stdout.take().ok_or_else(gone)?;
        let errors = process.stderr.take();
        Ok(Worker {
            process,
            reports,
            errors,
            lives: true,
            unread: Vec::new(),
            unended: false,
            durable: false,
            code: None,
        })
    }

    fn run(mut self, deadline: Instant) -> Outcome {
        self.listen(deadline, |worker| worker.code.is_some());
        let late = self.lives && self.code.is_none();
        if !late {
            let ending = (Instant::now() + ENDING).min(deadline.max(Instant::now() + DYING));
            self.listen(ending, |_| false);
        }
        if self.lives {
            let _ = self.process.kill(); // what has ended already is no error
            self.listen(Instant::now() + DYING, |_| false);
        }
        self.drain();
        let end = match self.code {
            Some(code) => End::Reported(code),
            None if late => End::Late,
            None => End::Died(self.death()),
        };
        if self.lives {
            log::warn!(
                "process {} hangs in a request that the system does not end, and is left behind",
                self.process.id()
            );
        } else {
            // Its last descriptor is closed: there is nothing more that it could wait for.
            let _ = self.process.wait();
        }
        Outcome { durable: self.durable, end }
    }

    /// Listens until the worker's end, or until it is enough, or until that moment.
    fn listen(&mut self, until: Instant, enough: impl Fn(&Self) -> bool) {
        while self.lives && !enough(self) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.hear(left).is_err() {
                return;
            }
        }
    }

    /// Waits for the next thing that is said; whether something was.
    fn hear(&mut self, patience: Duration) -> io::Result<bool> {
        let reports = self.lives.then(|| PollFd::new(&self.reports, PollFlags::IN));
        let errors = self.errors.as_ref().map(|errors| PollFd::new(errors, PollFlags::IN));
        let (reporting, erring) = (reports.is_some(), errors.is_some());
        let mut pipes: Vec<_> = reports.into_iter().chain(errors).collect();
        match poll(&mut pipes, Timespec::try_from(patience).ok().as_ref()) {
            Err(error) if error != rustix::io::Errno::INTR => return Err(error.into()),
            _ => {}
        }
        let ready: Vec<bool> = pipes.iter().map(|pipe| !pipe.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        let reported = reporting && ready.next() == Some(true);
        let erred = erring && ready.next() == Some(true);
        if reported {
            self.read_reports();
        }
        if erred {
            self.pass_on();
        }
        Ok(reported || erred)
    }

    fn read_reports(&mut self) {
        let mut buffer = [0; 512];
        let read = self.reports.read(&mut buffer).unwrap_or(0);
        self.lives = read > 0;
        self.unread.extend_from_slice(buffer.get(..read).unwrap_or_default());
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            match Report::parse(String::from_utf8_lossy(&line).trim_end()) {
                Some(Report::Durable) => self.durable = true,
                Some(Report::End(code)) => self.code = self.code.or(Some(code)),
                None => {
                    log::debug!("a report that cannot be understood: {:?}", String::from_utf8_lossy(&line))
                }
            }
        }
    }

    /// Errors of writing are ignored, as with every message.
    fn pass_on(&mut self) {
        let mut buffer = [0; 4096];
        let read = self.errors.as_mut().map_or(0, |errors| errors.read(&mut buffer).unwrap_or(0));
        match buffer.get(..read) {
            Some(said @ [.., last]) => {
                self.unended = *last != b'\n';
                let _ = io::stderr().write_all(said);
            }
            _ => self.errors = None,
        }
    }

    /// Passes on what was said and not heard yet. Waits for no end of the pipe, which a process
    /// that is left behind keeps open.
    fn drain(&mut self) {
        while self.errors.is_some() && self.hear(Duration::ZERO).is_ok_and(|heard| heard) {}
        if self.unended {
            let _ = io::stderr().write_all(b"\n");
        }
    }

    /// How it died, having reported no end.
    fn death(&mut self) -> String {
        match self.process.wait() {
            Ok(status) => format!("ended without an answer ({status})"),
            Err(_) => "ended without an answer".to_owned(), // SIGCHLD is ignored here
        }
    }
}
