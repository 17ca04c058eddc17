//! The worker's side: bound to the life of its supervisor, reporting to it.

use super::{Orders, Report};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::ffi::CStr;
use std::io::{self, Write};

/// Binds this process to its supervisor's life. It must be the first thing it does.
pub(in crate::cli) fn begin(orders: &Orders, name: &CStr) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before that was set.
    let parent = getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs());
    if parent != Some(orders.supervisor) {
        return Err(io::Error::other("the process that started this worker is gone"));
    }
    // Started as /proc/self/exe, it would be listed as "exe".
    Ok(rustix::thread::set_name(name)?)
}

/// Tells the supervisor. Nobody else listens, so that nothing can be done where it fails.
pub(in crate::cli) fn tell(report: Report) {
    let mut stdout = io::stdout();
    let _ = stdout.write_all(format!("{report}\n").as_bytes()).and_then(|()| stdout.flush());
}
