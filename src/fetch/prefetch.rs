//! The prefetcher: brings the segments after the one that PostgreSQL got last into the spool.
//!
//! It proves them exactly as a fetch does, and lives as long as its server recovers. At the first
//! segment that is missing or fails it stops until PostgreSQL itself got that one, so the end of
//! an archive costs one question and no storm. Does not know processes: who starts it, and what
//! becomes of its exit code, is the edge's.

use super::asking::{Asked, Asker, Asking};
use super::{Context, ahead};
use crate::host::data_directory::{DataDirectory, RunningServer};
use crate::host::detached;
use crate::host::target::Target;
use crate::object::Sha256Sum;
use crate::spool::{Prefetched, Spool};
use crate::wal::{ControlFile, SegmentName, SegmentSize, WalName};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Downloads at once at most: with round trips of 100 ms four keep ahead of replay, and their
/// buffers stay small.
const AT_ONCE: usize = 4;

/// Bytes in the spool at most, or one segment where that is larger.
const BYTES: u64 = 1 << 30;

/// Left free on the spool's file system: a tenth of it, or this where that is less.
const LEFT_FREE: u64 = 1 << 30;

/// Between two looks at the position.
const PAUSE: Duration = Duration::from_millis(20);

/// Between two looks at the server.
const WATCH: Duration = Duration::from_millis(250);

/// Without progress for so long, and nothing to do, it looks no more often than at the server.
const IDLE: Duration = Duration::from_secs(5);

/// How long the lock is tried for: a wal-fetch that asks whether it is taken holds it for a moment.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// What the prefetcher needs.
#[derive(Clone)]
pub struct Prefetching {
    /// With the data directory of the server that recovers, and the spool that segments are put in.
    pub context: Context,
    /// See [`super::Prefetcher::terms`].
    pub terms: Sha256Sum,
    /// How many segments to be ahead.
    pub window: usize,
    /// Of one segment.
    pub timeout: Duration,
}

/// Runs until the server recovers no more; `None` where there was nothing to do from the start.
pub fn prefetch(request: Prefetching) -> Option<()> {
    let Prefetching { context, terms, window, timeout } = request;
    let (directory, spool) = (context.data_directory.clone()?, context.spool.clone()?);
    let server = directory.server()?;
    let control = directory.control().ok()??;
    let prefetched =
        ahead::place(&spool, &directory, &server, control.system_id, &context.destinations, terms)?;
    let tried = Instant::now();
    let lock = loop {
        match spool.be_prefetcher().ok()? {
            Some(lock) => break lock,
            None if tried.elapsed() > LOCK_PATIENCE => return None,
            None => thread::sleep(PAUSE),
        }
    };
    let _ = spool.clear_prefetched(Some(&prefetched)); // the next one tries again
    let downloads =
        Downloads { context, directory, spool, server, control, prefetched, timeout, lock: Arc::new(lock) };
    downloads.run(window);
    Some(())
}

/// Everything that does not change.
#[derive(Clone)]
struct Downloads {
    context: Context,
    directory: DataDirectory,
    spool: Spool,
    server: RunningServer,
    control: ControlFile,
    prefetched: Prefetched,
    timeout: Duration,
    lock: Arc<File>,
}

impl Downloads {
    fn run(self, window: usize) {
        let source = Arc::new(self);
        let (send, finished) = mpsc::channel();
        let mut plan = Window::new(window);
        let (mut moved, mut watched) = (Instant::now(), Instant::now());
        loop {
            if watched.elapsed() > WATCH {
                if !source.spool.is_locked_by(&source.lock) {
                    return; // the spool was deleted, and what is there now is another one's
                }
                if source.spool.has_other_purpose(&source.prefetched) {
                    return; // the settings were changed; the next request starts one that has them
                }
                if source.is_over() {
                    let _ = fs::remove_dir_all(source.prefetched.folder()); // worth nothing any more
                    return;
                }
                watched = Instant::now();
            }
            if let Some(position) = source.prefetched.position()
                && plan.position != Some(position)
            {
                moved = Instant::now();
                plan.move_to(position);
                source.take_stock(&mut plan);
            }
            while let Some(name) = plan.next().filter(|_| source.has_room(&plan)) {
                if !source.start(name, &send) {
                    break;
                }
                plan.running.insert(name);
            }
            // One that ended now would soon be started again, and where nobody collects what has ended
            // (a container whose first process does not), each would be left as a zombie.
            let idle = plan.running.is_empty() && moved.elapsed() > IDLE;
            match finished.recv_timeout(if idle { WATCH } else { PAUSE }) {
                Ok((name, brought)) => {
                    plan.finish(name, brought);
                    // Who waits for it must not wait for what will not come.
                    if !brought || !plan.wants(name) {
                        source.prefetched.discard(name);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    /// The server is gone, is another one, or recovers no more.
    fn is_over(&self) -> bool {
        self.directory.is_abandoned_by(Some(&self.server)) || !self.directory.is_in_archive_recovery()
    }

    /// Deletes what is of no use, and finds what is there.
    fn take_stock(&self, plan: &mut Window) {
        let kept = self.prefetched.retain(!plan.running.is_empty(), |name, unfinished| match unfinished {
            true => plan.running.contains(&name),
            false => plan.wants(name) || plan.running.contains(&name),
        });
        if kept.is_err() {
            return; // the folder is not to be read; what is brought shows it again
        }
        let unknown: Vec<_> =
            plan.wanted.iter().filter(|name| !plan.running.contains(name)).copied().collect();
        plan.held.clear();
        for name in unknown {
            match self.prefetched.hit(name, self.context.checks, self.control.system_id, SystemTime::now()) {
                Some(_) => drop(plan.held.insert(name)),
                None => self.prefetched.discard(name),
            }
        }
    }

    fn has_room(&self, plan: &Window) -> bool {
        let Some((_, size)) = plan.position else { return false };
        let Ok(system) = rustix::fs::statvfs(self.spool.folder()) else { return false };
        let (free, whole) = (system.f_bavail * system.f_frsize, system.f_blocks * system.f_frsize);
        let running = u64::try_from(plan.running.len() + 1).unwrap_or(u64::MAX);
        let window = u64::try_from(plan.wanted.len()).unwrap_or(u64::MAX);
        let left = (whole / 10).min(LEFT_FREE).max(size.bytes().saturating_mul(2 * window));
        free > left.saturating_add(size.bytes().saturating_mul(running))
    }

    fn start(self: &Arc<Self>, name: SegmentName, send: &Sender<(SegmentName, bool)>) -> bool {
        let (source, send) = (Arc::clone(self), send.clone());
        let run = move || {
            // A panic is a segment that was not brought.
            let bring = std::panic::AssertUnwindSafe(|| source.bring(name).is_some());
            let brought = std::panic::catch_unwind(bring).unwrap_or(false);
            let _ = send.send((name, brought)); // nobody listens: it is over
        };
        detached::spawn("prefetch", run).is_ok()
    }

    /// Brings and seals one segment.
    fn bring(&self, name: SegmentName) -> Option<()> {
        let target = Target::private(self.prefetched.path(name), self.prefetched.part(name));
        // From now on a wal-fetch that wants this segment waits for it.
        let _claim = target.temporary().ok()?;
        let asked_by = Some(self.server.clone());
        let name_asked = WalName::Segment(name);
        let asking =
            Asking::new(&self.context, name_asked, Asker::Prefetcher, target, Some(self.control), asked_by);
        match asking.ask_all(Instant::now() + self.timeout) {
            Ok(Asked::Delivered(proof)) => {
                let sealed = self.prefetched.seal(name, proof.sha256, proof.warnings, SystemTime::now());
                sealed.ok()
            }
            Ok(Asked::Nobody(_)) | Err(_) => None,
        }
    }
}

/// Which segments are wanted, and what is known of each.
struct Window {
    window: usize,
    position: Option<(SegmentName, SegmentSize)>,
    /// The segments after the position.
    wanted: Vec<SegmentName>,
    held: BTreeSet<SegmentName>,
    running: BTreeSet<SegmentName>,
    /// This one is missing or failed: nothing from here on is asked for.
    stopped: Option<SegmentName>,
    /// Grows with success, so that the end of an archive is not asked for four segments.
    at_once: usize,
}

impl Window {
    fn new(window: usize) -> Self {
        Window {
            window,
            position: None,
            wanted: Vec::new(),
            held: BTreeSet::new(),
            running: BTreeSet::new(),
            stopped: None,
            at_once: 1,
        }
    }

    fn move_to(&mut self, position: (SegmentName, SegmentSize)) {
        let (name, size) = position;
        let fitting = usize::try_from(BYTES / size.bytes()).unwrap_or(usize::MAX).max(1);
        let following = std::iter::successors(name.next(size), |name| name.next(size));
        self.wanted = following.take(self.window.min(fitting)).collect();
        self.position = Some(position);
        // PostgreSQL got beyond it.
        self.stopped = self.stopped.filter(|name| self.wants(*name));
    }

    fn wants(&self, name: SegmentName) -> bool {
        self.wanted.contains(&name)
    }

    /// The next one to start.
    fn next(&self) -> Option<SegmentName> {
        if self.running.len() >= self.at_once {
            return None;
        }
        let before = self.wanted.iter().take_while(|name| self.stopped != Some(**name));
        before.copied().find(|name| !self.held.contains(name) && !self.running.contains(name))
    }

    fn finish(&mut self, name: SegmentName, brought: bool) {
        self.running.remove(&name);
        if brought {
            self.held.insert(name);
            if self.stopped.is_none() {
                self.at_once = (2 * self.at_once).min(AT_ONCE);
            }
        } else {
            self.at_once = 1;
            if self.wants(name) && self.stopped.is_none_or(|stopped| name < stopped) {
                self.stopped = Some(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64) -> SegmentName {
        format!("0000000100000000{number:08X}").parse().unwrap()
    }

    fn plan_at(number: u64, mebibytes: u64) -> Window {
        let mut plan = Window::new(8);
        plan.move_to((name(number), SegmentSize::new(mebibytes << 20).unwrap()));
        plan
    }

    /// Starts all that may be started.
    fn start(plan: &mut Window) -> Vec<SegmentName> {
        let next = || {
            let next = plan.next()?;
            plan.running.insert(next);
            Some(next)
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn it_begins_with_one_and_does_more_at_once_with_every_success() {
        let mut plan = plan_at(10, 16);
        assert_eq!(start(&mut plan), [name(11)]);
        plan.finish(name(11), true);
        assert_eq!(start(&mut plan), [name(12), name(13)]);
        plan.finish(name(12), true);
        assert_eq!(start(&mut plan), [name(14), name(15), name(16)]);
        for done in [13, 14, 15, 16] {
            plan.finish(name(done), true);
        }
        assert_eq!(start(&mut plan), [name(17), name(18)], "no more than the window");
        assert_eq!(start(&mut plan), []);
    }

    #[test]
    fn nothing_is_asked_beyond_a_missing_segment_until_postgresql_got_it() {
        let mut plan = plan_at(10, 16);
        plan.at_once = 4;
        assert_eq!(start(&mut plan).len(), 4);
        plan.finish(name(13), false);
        plan.finish(name(12), false);
        for brought in [11, 14] {
            plan.finish(name(brought), true);
        }
        assert_eq!(start(&mut plan), []);
        let size = SegmentSize::new(16 << 20).unwrap();
        plan.move_to((name(11), size));
        assert_eq!(start(&mut plan), [], "a hit is no news of the archive's end");
        plan.move_to((name(12), size));
        assert_eq!(start(&mut plan)[0], name(13));
    }

    #[test]
    fn what_was_under_way_when_the_end_was_met_does_not_make_the_next_beginning_a_storm() {
        let mut plan = plan_at(10, 16);
        plan.at_once = 4;
        assert_eq!(start(&mut plan), [name(11), name(12), name(13), name(14)]);
        for (done, brought) in [(13, false), (14, false), (11, true), (12, true)] {
            plan.finish(name(done), brought);
        }
        plan.move_to((name(13), SegmentSize::new(16 << 20).unwrap()));
        assert_eq!(start(&mut plan), [name(14)]);
    }

    #[test]
    fn large_segments_have_a_small_window() {
        assert_eq!(plan_at(1, 16).wanted.len(), 8);
        assert_eq!(plan_at(1, 256).wanted.len(), 4);
        assert_eq!(plan_at(1, 1024).wanted.len(), 1);
    }

    #[test]
    fn a_position_of_another_timeline_makes_a_plan_of_its_own() {
        let mut plan = plan_at(10, 16);
        start(&mut plan);
        plan.finish(name(11), false);
        let other = "000000020000000000000009".parse().unwrap();
        plan.move_to((other, SegmentSize::new(16 << 20).unwrap()));
        assert_eq!(plan.wanted.len(), 8);
        assert!(start(&mut plan).iter().all(|name| name.timeline().get() == 2));
    }

    #[test]
    fn the_server_is_looked_at_often_enough_for_an_end_within_two_seconds() {
        // A look may come a whole wait late.
        assert!(WATCH + WATCH.max(PAUSE) < Duration::from_secs(2));
    }
}
