//! A bar on stderr while something takes long; nothing where stderr is no terminal.

use crate::failure::size;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// See the module.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    pub(super) fn new() -> Self {
        Progress::of("{bar:30} {pos}/{len} objects, {msg}, {eta} left")
    }

    /// Of bytes alone.
    pub(super) fn of_bytes() -> Self {
        Progress::of("{bar:30} {binary_bytes}/{binary_total_bytes}, {binary_bytes_per_sec}, {eta} left")
    }

    fn of(template: &str) -> Self {
        Progress(std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(5));
            match ProgressStyle::with_template(template) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        }))
    }

    /// How many of how many are done, and their bytes.
    pub(super) fn set(&self, done: u64, total: u64, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.set_length(total.max(done));
            bar.set_position(done);
            bar.set_message(size(bytes));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
