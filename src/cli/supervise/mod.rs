//! The two processes of a call of wal-push or wal-fetch.
//!
//! PostgreSQL waits for the *supervisor*. It reads arguments, configuration, data directory and
//! spool, never a path of the archive, and so it cannot hang where the archive hangs. It keeps the
//! deadline and the exit code. The *worker* is the same program behind a hidden first argument. It
//! goes to the archive, and whatever becomes of it (a signal, an abort, a request that the kernel
//! never ends) is no more to PostgreSQL than one of the documented codes.
//!
//! The worker's stdout is a pipe on which it [reports](Report); the supervisor decides by that, and
//! neither by the worker's end, which a stuck thread may hold up, nor by its status, which an
//! inherited disposition of SIGCHLD may hide.

mod supervisor;
mod worker;

pub(super) use supervisor::{End, Outcome, supervise};
pub(super) use worker::{begin, tell};

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt;
use std::time::{Duration, Instant};

/// The hidden first argument.
const FLAG: &str = "--worker";

/// The worker ends by itself by so much before the supervisor ends it, but no more than a quarter of
/// the time: what it has to say is better than that it said nothing.
const MARGIN: Duration = Duration::from_secs(1);

/// What a supervisor tells its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Orders {
    pub(super) supervisor: u32,
    /// What is left of the call's time, in milliseconds.
    left: u64,
    /// Whether further files may be archived in this call.
    pub(super) look_ahead: bool,
}

impl Orders {
    /// From this process, for a call that ends at the deadline.
    pub(super) fn until(deadline: Instant, look_ahead: bool) -> Self {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left - MARGIN.min(left / 4);
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        Orders { supervisor: std::process::id(), left, look_ahead }
    }

    /// The time of the worker.
    pub(super) fn left(&self) -> Duration {
        Duration::from_millis(self.left)
    }

    /// Takes them from the arguments of a worker. What is not well formed stays there, and is
    /// refused as any unknown argument.
    pub(super) fn take(args: &mut Vec<OsString>) -> Option<Self> {
        let orders = match args.get(1..3)? {
            [flag, orders] if flag == FLAG => serde_json::from_str(orders.to_str()?).ok()?,
            _ => return None,
        };
        args.drain(1..3);
        Some(orders)
    }

    fn arguments(&self) -> serde_json::Result<[String; 2]> {
        Ok([FLAG.to_owned(), serde_json::to_string(self)?])
    }
}

/// A line from the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// wal-push: the requested file is durable in every destination; what follows is look-ahead.
    Durable,
    /// It has ended with this code, which is wal-fetch's in the retry form.
    End(u8),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Durable => f.write_str("durable"),
            Report::End(code) => write!(f, "end {code}"),
        }
    }
}

impl Report {
    fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            Some(("end", code)) => code.parse().ok().map(Report::End),
            None if line == "durable" => Some(Report::Durable),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_pass_through_the_arguments_and_nothing_else_does() {
        let orders = Orders::until(Instant::now() + Duration::from_secs(60), false);
        assert!(orders.left() <= Duration::from_millis(59_000));
        let [flag, text] = orders.arguments().unwrap();
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let mut args = words(&["wal-push", &flag, &text, "pg_wal/x"]);
        assert_eq!(Orders::take(&mut args), Some(orders));
        assert_eq!(args, words(&["wal-push", "pg_wal/x"]));
        for wrong in [&["wal-push"][..], &["wal-push", "--worker"], &["wal-push", "--worker", "{}", "x"]] {
            let mut args = words(wrong);
            assert_eq!(Orders::take(&mut args), None);
            assert_eq!(args, words(wrong));
        }
    }

    #[test]
    fn a_worker_ends_before_its_supervisor_ends_it() {
        for (whole, left) in [(0, 0), (1000, 750), (4000, 3000), (60_000, 59_000)] {
            let orders = Orders::until(Instant::now() + Duration::from_millis(whole), true);
            assert!(orders.left() <= Duration::from_millis(left), "{whole}: {orders:?}");
        }
    }

    #[test]
    fn a_report_is_read_as_it_is_written() {
        for report in [Report::Durable, Report::End(0), Report::End(255)] {
            assert_eq!(Report::parse(&report.to_string()), Some(report));
        }
        for junk in ["", "end", "end ", "end 256", "end -1", "durable x", "end 0 0"] {
            assert_eq!(Report::parse(junk), None, "{junk:?}");
        }
    }
}
