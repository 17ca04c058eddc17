//! When a rehearsal gives up: its time is over, or somebody wants it to end.

use super::Result;
use crate::failure::Failure;
use crate::host::detached;
use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two looks.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

pub struct Stop {
    limit: Duration,
    until: Instant,
    told: Arc<AtomicBool>,
}

impl Stop {
    /// From now on the usual signals end nothing by themselves; [`Stop::check`] tells of them. To be called
    /// while the process has one thread.
    pub fn after(limit: Duration) -> Result<Self> {
        let told = Arc::new(AtomicBool::new(false));
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        let failed = |error: String| Failure::new((), format!("cannot wait for signals: {error}"));
        signals.thread_block().map_err(|error| failed(error.to_string()))?;
        let tell = Arc::clone(&told);
        let wait = move || {
            if signals.wait().is_ok() {
                tell.store(true, Ordering::Relaxed);
            }
        };
        detached::spawn("signals", wait).map_err(|error| failed(error.to_string()))?;
        let now = Instant::now();
        let far = now.checked_add(Duration::from_secs(100 * 365 * 24 * 3600)).unwrap_or(now);
        Ok(Stop { limit, until: now.checked_add(limit).unwrap_or(far), told })
    }

    /// An error once it is time to give up.
    pub fn check(&self) -> Result<()> {
        if self.told.load(Ordering::Relaxed) {
            return Err(Failure::new((), "the rehearsal was told to end by a signal"));
        }
        if Instant::now() >= self.until {
            let limit = humantime::format_duration(self.limit);
            return Err(Failure::new((), format!("the rehearsal took longer than {limit}"))
                .hint("give it more time with --timeout, or look at what is slow with -v"));
        }
        Ok(())
    }
}
