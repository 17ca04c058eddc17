//! The parts of a tar, read and decoded side by side, and handed on in their order.

use super::{Result, could_not, unfetched};
use crate::archive::backups;
use crate::base_backup::{Record, Series, Stored};
use crate::failure::Failure;
use crate::storage::Shared;
use log::Level;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

/// A part, and who waits for it.
type Job<'a> = (&'a Stored, SyncSender<Result<Vec<u8>>>);

/// Calls `then` with all bytes of a tar. At most `jobs` parts are ahead of it.
pub(super) fn each(
    sources: &[Shared],
    record: &Record,
    series: &Series,
    jobs: usize,
    then: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let (give, take) = channel::<Job<'_>>();
    let take = &Mutex::new(take);
    std::thread::scope(|scope| {
        for started in 0..jobs {
            let work = move || work(sources, record, take);
            match Builder::new().spawn_scoped(scope, work) {
                Ok(_) => {}
                Err(error) if started > 0 => log::debug!("cannot start a thread: {error}"),
                Err(error) => return Err(could_not(format!("cannot start a thread: {error}"))),
            }
        }
        in_order(&series.parts, jobs, give, then)
    })
}

fn in_order<'a>(
    parts: &'a [Stored],
    jobs: usize,
    give: Sender<Job<'a>>,
    then: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let gone = || could_not("a thread that reads parts has ended");
    let mut waiting: VecDeque<Receiver<Result<Vec<u8>>>> = VecDeque::new();
    let mut left = parts.iter();
    loop {
        while waiting.len() < jobs
            && let Some(part) = left.next()
        {
            let (answer, answered) = sync_channel(1);
            give.send((part, answer)).map_err(|_| gone())?;
            waiting.push_back(answered);
        }
        let Some(next) = waiting.pop_front() else { return Ok(()) };
        then(&next.recv().map_err(|_| gone())??)?;
    }
}

fn work(sources: &[Shared], record: &Record, jobs: &Mutex<Receiver<Job<'_>>>) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((part, answer)) = next else { return };
        // Nobody waits any more where an earlier part could not be had.
        let _ = answer.send(fetch(sources, record, part));
    }
}

/// From the first destination that has it intact.
fn fetch(sources: &[Shared], record: &Record, part: &Stored) -> Result<Vec<u8>> {
    let mut failed: Option<Failure<super::Cause>> = None;
    for source in sources {
        let mut content = Vec::with_capacity(usize::try_from(part.size).unwrap_or(0));
        match backups::fetch(source.as_ref(), record, part, &mut content) {
            Ok(()) => return Ok(content),
            Err(error) => {
                let failure = unfetched(error);
                failure.remark().log(Level::Warn);
                failed = Some(failure);
            }
        }
    }
    Err(failed.unwrap_or_else(|| could_not("no archive is named")))
}
