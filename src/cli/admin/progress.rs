//! One line on stderr while something takes long: what is being done, how much of it is done, how fast, and how long
//! it still takes. Nothing where stderr is no terminal.

use super::super::log::LINE_BELOW;
use super::look::{is_dumb, width};
use crate::failure::size;
use std::io::{Write, stderr};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// See the module.
pub(super) struct Progress(Option<Mutex<Shown>>);

struct Shown {
    phase: &'static str,
    begun: Instant,
    drawn: Instant,
}

/// Between two drawings.
const PAUSE: Duration = Duration::from_millis(200);

/// How much of a phase is done.
#[derive(Clone, Copy, Debug)]
struct Done {
    /// `None`: only bytes count.
    objects: Option<(u64, u64)>,
    bytes: u64,
    /// 0 where nobody knows.
    all_bytes: u64,
    elapsed: Duration,
}

impl Progress {
    pub(super) fn new(phase: &'static str) -> Self {
        let now = Instant::now();
        let is_shown = width(stderr()).is_some() && !is_dumb();
        let progress = Progress(is_shown.then(|| Mutex::new(Shown { phase, begun: now, drawn: now })));
        progress.begin(phase);
        progress
    }

    /// A phase of which nothing is known but that it takes its time.
    pub(super) fn begin(&self, phase: &'static str) {
        if let Some(mut shown) = self.0.as_ref().and_then(|shown| shown.lock().ok()) {
            shown.phase = phase;
            draw(&format!("{phase} …").chars().take(room()).collect::<String>());
        }
    }

    /// How many objects of how many are done (0: nobody knows), and their bytes.
    pub(super) fn set(&self, phase: &'static str, done: u64, total: u64, bytes: u64) {
        self.update(phase, |elapsed| Done { objects: Some((done, total)), bytes, all_bytes: 0, elapsed });
    }

    /// How many bytes of how many are done.
    pub(super) fn set_bytes(&self, phase: &'static str, bytes: u64, all_bytes: u64) {
        self.update(phase, |elapsed| Done { objects: None, bytes, all_bytes, elapsed });
    }

    fn update(&self, phase: &'static str, done: impl FnOnce(Duration) -> Done) {
        let Some(mut shown) = self.0.as_ref().and_then(|shown| shown.lock().ok()) else { return };
        let now = Instant::now();
        if shown.phase != phase {
            (shown.phase, shown.begun) = (phase, now);
        } else if now.duration_since(shown.drawn) < PAUSE {
            return;
        }
        shown.drawn = now;
        let done = done(now.duration_since(shown.begun));
        draw(&line(phase, &done, room()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.0.is_some() {
            draw("");
            LINE_BELOW.store(false, Ordering::Relaxed);
        }
    }
}

/// The last column stays free: a terminal may go on to the next line behind it.
fn room() -> usize {
    width(stderr()).unwrap_or(80).saturating_sub(1)
}

/// Replaces what is in the terminal's line.
fn draw(line: &str) {
    LINE_BELOW.store(true, Ordering::Relaxed);
    let _ = stderr().write_all(format!("\r\x1b[K{line}").as_bytes());
}

/// At most `width` characters: what matters least is left out first.
fn line(phase: &str, done: &Done, width: usize) -> String {
    let Done { objects, bytes, all_bytes, elapsed } = *done;
    let seconds = elapsed.as_secs_f64();
    let (part, all) = objects.unwrap_or((bytes, all_bytes));
    let share = (all > 0).then(|| (part as f64 / all as f64).min(1.0)); // shown without digits
    let stored = match all_bytes {
        0 => size(bytes),
        all => format!("{} of {}", size(bytes), size(all)),
    };
    let rate = (seconds >= 1.0).then(|| format!("{}/s", size((bytes as f64 / seconds) as u64)));
    let rest = share.filter(|share| *share > 0.0 && seconds >= 1.0).map(|share| seconds / share - seconds);
    let counted = objects.map(|(done, all)| match all {
        0 => format!("{done} objects"),
        all => format!("{done} of {all} objects"),
    });
    // In the order of the line, each with its rank: 0 matters most.
    let parts = [
        (4, share.map(|share| format!("{:.0} %", (100.0 * share).floor()))),
        (3, counted),
        (0, Some(stored)),
        (2, rate),
        (1, rest.map(|rest| format!("{} left", span(rest)))),
    ];
    let with = |most: u8| {
        let fitting = parts.iter().filter(|(rank, _)| *rank <= most).filter_map(|(_, text)| text.as_deref());
        [phase].into_iter().chain(fitting).collect::<Vec<_>>().join(", ")
    };
    let fits = |line: &String| line.chars().count() <= width;
    let line = (0..=4).rev().map(with).find(fits).unwrap_or_else(|| phase.to_owned());
    line.chars().take(width).collect()
}

/// `2h 05m`, `5m 10s`, `12s`
fn span(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m {seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h {minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTS: Done =
        Done { objects: Some((250, 1000)), bytes: 3 << 30, all_bytes: 0, elapsed: Duration::from_secs(60) };

    #[test]
    fn the_line_says_phase_bytes_rate_and_time_left_and_leaves_out_what_has_no_room() {
        for (width, expected) in [
            (200, "WAL, 25 %, 250 of 1000 objects, 3.0 GiB, 51.2 MiB/s, 3m 00s left"),
            (59, "WAL, 250 of 1000 objects, 3.0 GiB, 51.2 MiB/s, 3m 00s left"),
            (40, "WAL, 3.0 GiB, 51.2 MiB/s, 3m 00s left"),
            (30, "WAL, 3.0 GiB, 3m 00s left"),
            (20, "WAL, 3.0 GiB"),
            (5, "WAL"),
            (2, "WA"),
        ] {
            assert_eq!(line("WAL", &OBJECTS, width), expected, "{width}");
        }
        let bytes = Done { objects: None, all_bytes: 12 << 30, ..OBJECTS };
        assert_eq!(
            line("restoring", &bytes, 79),
            "restoring, 25 %, 3.0 GiB of 12.0 GiB, 51.2 MiB/s, 3m 00s left"
        );
        for width in 0..100 {
            assert!(line("base backups", &OBJECTS, width).chars().count() <= width);
        }
    }

    #[test]
    fn nothing_is_promised_before_anything_is_known() {
        let unknown = Done { objects: Some((7, 0)), bytes: 0, all_bytes: 0, elapsed: Duration::ZERO };
        assert_eq!(line("base backups", &unknown, 79), "base backups, 7 objects, 0 B");
        let none = Done { objects: Some((0, 9)), bytes: 0, all_bytes: 0, elapsed: Duration::from_secs(9) };
        assert_eq!(line("WAL", &none, 79), "WAL, 0 %, 0 of 9 objects, 0 B, 0 B/s");
        assert_eq!((span(0.2), span(3599.5), span(7500.0)), ("1s".into(), "1h 00m".into(), "2h 05m".into()));
    }
}
