//! A bar on stderr while something takes long; nothing where stderr is no terminal.

use super::table;
use crate::verify::Count;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// See the module.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    pub(super) fn new() -> Self {
        Progress(std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(5));
            match ProgressStyle::with_template("{bar:30} {pos}/{len} objects, {msg}, {eta} left") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        }))
    }

    pub(super) fn set(&self, count: &Count, total: u64) {
        if let Some(bar) = &self.0 {
            bar.set_length(total.max(count.objects));
            bar.set_position(count.objects);
            bar.set_message(table::bytes(count.stored));
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
