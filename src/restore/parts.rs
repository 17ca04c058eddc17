//! The parts of a tar, read and decoded side by side, and handed on in their order.

use super::{Result, Source, could_not, from_any};
use crate::archive::backups::{self, FetchError};
use crate::base_backup::part::Proof;
use crate::host::detached;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};

/// The number of a tar and of one of its parts, counted from 0, and who waits for it.
type Job = (usize, usize, SyncSender<Result<Vec<u8>>>);

/// Calls `then` with all bytes of a tar, by its number and that of its parts. At most `jobs` parts are ahead
/// of it.
pub(super) fn each(
    sources: &[Source],
    (series, parts): (usize, usize),
    jobs: usize,
    then: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let (give, take) = channel::<Job>();
    let take = &Mutex::new(take);
    std::thread::scope(|scope| {
        for started in 0..jobs {
            match detached::spawn_scoped(scope, move || work(sources, take)) {
                Ok(()) => {}
                Err(error) if started > 0 => log::debug!("cannot start a thread: {error}"),
                Err(error) => return Err(could_not(format!("cannot start a thread: {error}"))),
            }
        }
        in_order((series, parts), jobs, give, then)
    })
}

fn in_order(
    (series, parts): (usize, usize),
    jobs: usize,
    give: Sender<Job>,
    then: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let gone = || could_not("a thread that reads parts has ended");
    let mut waiting: VecDeque<Receiver<Result<Vec<u8>>>> = VecDeque::new();
    let mut left = 0..parts;
    loop {
        while waiting.len() < jobs
            && let Some(part) = left.next()
        {
            let (answer, answered) = sync_channel(1);
            give.send((series, part, answer)).map_err(|_| gone())?;
            waiting.push_back(answered);
        }
        let Some(next) = waiting.pop_front() else { return Ok(()) };
        then(&next.recv().map_err(|_| gone())??)?;
    }
}

fn work(sources: &[Source], jobs: &Mutex<Receiver<Job>>) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((series, part, answer)) = next else { return };
        // Nobody waits any more where an earlier part could not be had.
        let _ = answer.send(from_any(sources, |source| fetch(source, series, part)));
    }
}

fn fetch(source: &Source, series: usize, part: usize) -> std::result::Result<Vec<u8>, FetchError> {
    let (storage, record) = (source.storage.as_ref(), &source.record);
    let part = record.series.get(series).and_then(|series| series.parts.get(part)).ok_or_else(|| {
        FetchError::Damaged(format!("\"{}\" holds other parts of the backup {}", storage.place(), record.id))
    })?;
    let mut content = Vec::with_capacity(usize::try_from(part.size).unwrap_or(0));
    backups::fetch(storage, (record, part), Proof::Stored, &mut content)?;
    Ok(content)
}
