//! Looking ahead: while PostgreSQL waits for one file, the next ones are stored too.
//!
//! The archiver asks for one file at a time and in a known order, so what it will ask for next is
//! known by its `.ready` file. Each file that is durable in every destination leaves a mark,
//! and its own call then costs no more than a look at that. A file that fails leaves none: its own
//! call finds the same fault and reports it. The `.ready` and `.done` files are PostgreSQL's, and
//! are only read.
//!
//! PostgreSQL never asks for a file before the one before it is archived, and whoever archives to a place
//! of another server stops at the first file in which the two differ. Looking ahead keeps to that: from a
//! segment, along its timeline, and nothing is created before that segment was, by this call. Otherwise
//! the loser of a split brain would leave its later segments behind the winner's.
//!
//! Compressing takes cores, so only a few files are compressed at once; storing takes patience, so
//! as many are being stored as their bodies find memory.

use super::Push;
use crate::archive::intake::{Cause, Intake, Source};
use crate::failure::Failure;
use crate::host::data_directory::{DataDirectory, RunningServer};
use crate::host::detached;
use crate::object::Encoder;
use crate::spool::Marks;
use crate::storage::Shared;
use crate::storage::body::wait_for_room;
use crate::wal::{SegmentName, SegmentSize, WalName};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long after the requested file is settled another one may be begun.
const BEGIN: Duration = Duration::from_secs(10);

/// How much longer what was begun may take. PostgreSQL waits, and so does its shutdown.
const FINISH: Duration = Duration::from_secs(20);

/// How much WAL is compressed at once; very large segments keep a machine busy one by one.
const IN_FLIGHT: u64 = 256 << 20;

/// The other files of a call, being stored by threads of their own.
pub(super) struct LookAhead {
    ahead: Arc<Ahead>,
    /// Threads that begin when the requested file is durable.
    held_back: usize,
    /// Held by every thread, so that the other end tells when all have ended.
    running: Sender<()>,
    ended: Receiver<()>,
}

/// What the threads share. They may outlive the call that started them, where a destination hangs.
struct Ahead {
    folder: PathBuf,
    queue: Mutex<Queue>,
    destinations: Vec<Shared>,
    /// Of what nobody waits for.
    intake: Intake,
    asked_by: Option<RunningServer>,
    marks: Marks,
    jobs: usize,
    deadline: Instant,
    /// Whether the others may be created; nobody knows until the requested file is settled.
    may_create: Mutex<Option<bool>>,
    settled: Condvar,
}

/// What is still to be begun, and until when.
struct Queue {
    names: VecDeque<WalName>,
    until: Instant,
}

impl LookAhead {
    /// Starts it where PostgreSQL waits for files: there is a place for marks, and the file asked
    /// for, which has so many bytes, has its `.ready` file.
    pub(super) fn start(
        request: &Push<'_>,
        size: u64,
        marks: Option<Marks>,
        deadline: Instant,
    ) -> Option<Self> {
        let (marks, folder) = (marks?, request.path.parent()?.to_owned());
        let at_once = usize::try_from(IN_FLIGHT / size.max(1)).unwrap_or(usize::MAX).min(request.jobs);
        let others = at_once.checked_sub(1).filter(|others| *others > 0)?;
        let names = waiting(&folder, request.name, size, &marks, request.look_ahead);
        let workers = names.len().min(others);
        if workers == 0 {
            return None;
        }
        let ahead = Arc::new(Ahead {
            folder,
            queue: Mutex::new(Queue { names, until: deadline }),
            destinations: request.destinations.to_vec(),
            intake: Intake { urgent: false, ..request.intake.clone() },
            asked_by: request.intake.data_directory.as_ref().and_then(DataDirectory::server),
            marks,
            jobs: at_once,
            deadline,
            may_create: Mutex::default(),
            settled: Condvar::new(),
        });
        // The first push of a day proves the destinations, and once is enough.
        let now = if destinations_are_proved(request) { workers } else { 0 };
        let (running, ended) = channel();
        // The requested file's own place is free when it is durable.
        let look_ahead = LookAhead { ahead, held_back: workers + 1 - now, running, ended };
        look_ahead.add_workers(now);
        Some(look_ahead)
    }

    fn add_workers(&self, count: usize) {
        for _ in 0..count {
            let (ahead, running) = (Arc::clone(&self.ahead), self.running.clone());
            start(move || ahead.work(&running));
        }
    }

    /// Waits for the rest, now that the requested file is settled. Where it failed, or was there already,
    /// nothing else is created.
    pub(super) fn finish(self, created: bool) {
        let begin = Instant::now() + if created { BEGIN } else { Duration::ZERO };
        self.ahead.stop_at(begin);
        *self.ahead.may_create() = Some(created);
        self.ahead.settled.notify_all();
        if created {
            self.add_workers(self.held_back);
        }
        let LookAhead { ahead, running, ended, .. } = self;
        drop(running);
        let end = ahead.deadline.min(begin + FINISH);
        let ended = ended.recv_timeout(end.saturating_duration_since(Instant::now()));
        if ended == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            log::debug!("what was begun beyond the requested file did not end in time, and is dropped");
        }
    }
}

/// Runs it beside everything else.
fn start(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = detached::spawn("look-ahead", work) {
        log::debug!("cannot start a thread to look ahead: {error}");
    }
}

/// Whether all destinations were proved today.
pub(super) fn destinations_are_proved(request: &Push<'_>) -> bool {
    let Intake { data_directory, spool, .. } = &request.intake;
    let id = data_directory.as_ref().and_then(|directory| directory.system_id().ok().flatten());
    let Some((spool, id)) = spool.as_ref().zip(id) else { return false };
    let now = SystemTime::now();
    let fresh =
        |storage: &Shared| spool.fresh(&storage.address(), id, now).is_some_and(|fresh| fresh.writable);
    request.destinations.iter().all(fresh)
}

/// The segments behind this one, of so many bytes each, that PostgreSQL will ask for next, as far as the
/// window reaches and without those that have a mark. Asked for by name: with 100,000 files waiting the
/// folder takes longer to read than a segment to archive.
fn waiting(folder: &Path, asked: WalName, size: u64, marks: &Marks, window: usize) -> VecDeque<WalName> {
    let status = folder.join("archive_status");
    let waits = |segment: &SegmentName| status.join(format!("{segment}.ready")).exists();
    let (WalName::Segment(asked), Some(size)) = (asked, SegmentSize::new(size)) else {
        return VecDeque::new();
    };
    if window == 0 || !waits(&asked) {
        return VecDeque::new();
    }
    let marked = marks.names(SystemTime::now());
    let next = std::iter::successors(asked.next(size), |segment| segment.next(size)).take_while(waits);
    next.map(WalName::Segment).filter(|name| !marked.contains(name)).take(window).collect()
}

impl Ahead {
    fn may_create(&self) -> std::sync::MutexGuard<'_, Option<bool>> {
        self.may_create.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the requested file is settled; whether this one may be created then.
    fn is_allowed(&self) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let waited = self.settled.wait_timeout_while(self.may_create(), left, |settled| settled.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.unwrap_or(false)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        // Every change is whole, so a poisoned lock still guards a whole queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop_at(&self, moment: Instant) {
        let mut queue = self.queue();
        queue.until = queue.until.min(moment);
    }

    fn next(&self) -> Option<WalName> {
        let until = self.queue().until; // the queue is not held while it waits
        wait_for_room(until);
        let mut queue = self.queue();
        let name = if Instant::now() < queue.until { queue.names.pop_front() } else { None };
        drop(queue);
        // A restart of the server waits for this process: its shared memory is in use.
        let abandoned = || {
            let directory = self.intake.data_directory.as_ref();
            directory.is_some_and(|directory| directory.is_abandoned_by(self.asked_by.as_ref()))
        };
        name.filter(|_| !abandoned())
    }

    /// Reads and compresses one file after the other; each is stored beside the next one.
    fn work(self: &Arc<Self>, running: &Sender<()>) {
        let mut encoder = match Encoder::one_of(self.jobs, self.intake.level) {
            Ok(encoder) => encoder,
            Err(error) => return log::debug!("cannot look ahead: {error}"),
        };
        while let Some(name) = self.next() {
            let (path, begun) = (self.folder.join(name.to_string()), SystemTime::now());
            match Source::read(name, &path, &self.intake, &mut encoder) {
                // A change in the tick of the clock in which the file was last changed would not show.
                Ok(source) if !source.stamp.is_settled(begun) => {}
                Ok(source) => {
                    let (ahead, running) = (Arc::clone(self), running.clone());
                    start(move || {
                        ahead.store(source);
                        drop(running);
                    });
                }
                Err(failure) => self.failed(&[failure]),
            }
        }
    }

    fn store(&self, source: Source) {
        if !self.is_allowed() {
            return;
        }
        let (name, stamp) = (source.name, source.stamp);
        let stored = source.store_everywhere(&self.intake, &self.destinations, self.deadline);
        drop(source); // its memory is somebody's room
        let stored = stored.map(|stored| {
            let stored: Vec<_> =
                super::within(&self.destinations, self.deadline).into_iter().zip(stored).collect();
            self.marks.leave(name, stamp, &stored, SystemTime::now())
        });
        match stored {
            Ok(Ok(marked)) => log::debug!("looked ahead: \"{name}\" is stored, marked: {marked}"),
            Ok(Err(error)) => log::debug!("cannot leave a mark for \"{name}\": {error}"),
            Err(failures) => self.failed(&failures),
        }
    }

    fn failed(&self, failures: &[Failure<Cause>]) {
        for failure in failures {
            log::debug!("looked ahead: {failure}");
        }
        // The next file would meet the same fault, or follow another server's.
        let general = |cause| !matches!(cause, Cause::Source | Cause::Invalid);
        if failures.iter().any(|failure| general(failure.kind)) {
            self.stop_at(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::forms::Forms;
    use crate::object::Checks;
    use crate::spool::Spool;
    use crate::storage::Body;

    #[test]
    fn a_push_that_is_done_is_not_held_up_by_a_wait_for_room() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path().join("spool")).unwrap();
        let until = Instant::now() + Duration::from_secs(3600);
        let ahead = Arc::new(Ahead {
            folder: folder.path().to_owned(),
            queue: Mutex::new(Queue { names: VecDeque::new(), until }),
            destinations: Vec::new(),
            intake: Intake {
                data_directory: None,
                spool: None,
                level: 1,
                checks: Checks::Header,
                drop_cache: false,
                forms: Forms::of([]),
                urgent: false,
            },
            asked_by: None,
            marks: spool.marks(folder.path(), &[]).unwrap(),
            jobs: 1,
            deadline: until,
            may_create: Mutex::default(),
            settled: Condvar::new(),
        });
        let hung = Body::from(vec![1; 64 << 20]);
        let waiter = Arc::clone(&ahead);
        let waiter = std::thread::spawn(move || waiter.next());
        std::thread::sleep(Duration::from_millis(200)); // so that it waits
        // The wait is for an hour, and the test ends.
        ahead.stop_at(Instant::now());
        drop(hung);
        assert_eq!(waiter.join().unwrap(), None);
    }
}
