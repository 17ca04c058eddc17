//! Every object read: decoded and proved by as many threads as asked for, or its trailer only.
//!
//! Files are taken in the order of their names; answers come back in the same order, so that the
//! records of one segment after the other can be walked on the way.

use super::chains::Chains;
use super::copies::{FileChecked, Patience, Piece};
use super::files::{Files, WalFile};
use super::names::{ByNames, Scope};
use super::{Count, Options, Progress};
use crate::archive::inventory::{Inventory, Runs};
use crate::finding::Finding;
use crate::host::detached;
use crate::storage::Shared;
use crate::wal::{SegmentName, SegmentSize, Timeline, WalName};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

/// How closely objects are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Names and trailers.
    Quick,
    /// Every object decoded.
    Full,
    /// The WAL records, too.
    Records,
}

/// What is to be looked at.
pub(super) struct Objects<'a> {
    pub(super) storages: &'a [Shared],
    pub(super) inventories: &'a [Inventory],
    pub(super) names: &'a ByNames,
    pub(super) scope: &'a Scope,
    pub(super) options: &'a Options,
    /// One for each destination.
    pub(super) patience: &'a [Patience],
}

/// What came out.
pub(super) struct Checked {
    pub(super) count: Count,
    pub(super) findings: Vec<Finding>,
    /// The segments of which at least one copy is intact.
    pub(super) intact: BTreeMap<Timeline, Runs>,
}

/// Answers that may wait while the first is worked on.
const WAITING: usize = 256;

/// Raw bytes that a worker may be ahead of the records, and the length of one piece about.
const AHEAD: u64 = 32 << 20;
const PIECE: u64 = 256 << 10;

/// A file that a worker has taken, and what it says of it.
type Taken = (WalName, Receiver<Piece>);

impl Objects<'_> {
    pub(super) fn check(&self, chains: Option<&mut Chains>, progress: Progress<'_>) -> Checked {
        let total = self.inventories.iter().map(|inventory| inventory.total.objects).sum();
        let checked = Checked { count: Count::default(), findings: Vec::new(), intact: BTreeMap::new() };
        let with_records = chains.is_some();
        let mut tally = Tally { checked, chains, size: self.names.size() };
        let files = Mutex::new(Files::list(self));
        let (order, answers) = sync_channel::<Taken>(WAITING);
        std::thread::scope(|scope| {
            let start = |_| {
                let (files, order) = (&files, order.clone());
                detached::spawn_scoped(scope, move || self.work_off(files, &order, with_records)).ok()
            };
            let started = (0..self.options.jobs.max(1)).map_while(start).count();
            drop(order);
            if started == 0 {
                log::debug!("no thread can be started, so one file is read after the other");
            }
            while started == 0
                && let Some(file) = next(&files)
            {
                tally.begin(file.name);
                self.look_at(&file, with_records, &mut |piece| tally.take(file.name, piece));
                progress(&tally.checked.count, total);
            }
            for (name, answer) in answers {
                tally.begin(name);
                // A worker that panicked has said so; its file counts as not intact.
                answer.into_iter().for_each(|piece| tally.take(name, piece));
                progress(&tally.checked.count, total);
            }
        });
        let files = files.into_inner().unwrap_or_else(PoisonError::into_inner);
        tally.end(files.failures)
    }

    /// The part of one thread: one file after the other, in the order in which all threads take them.
    fn work_off(&self, files: &Mutex<Files<'_>>, order: &SyncSender<Taken>, with_records: bool) {
        let ahead = self.names.size().bytes().min(AHEAD) / PIECE + 2;
        let capacity = if with_records { usize::try_from(ahead).unwrap_or(2) } else { 2 };
        loop {
            let (answer, receive) = sync_channel(capacity);
            let file = {
                // Locked until it is in the order, which is that of the files.
                let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(file) = files.next() else { return };
                // Nobody takes it any more only after a panic.
                if order.send((file.name, receive)).is_err() {
                    return;
                }
                file
            };
            self.look_at(&file, with_records, &mut |piece| drop(answer.send(piece)));
        }
    }
}

fn next(files: &Mutex<Files<'_>>) -> Option<WalFile> {
    files.lock().unwrap_or_else(PoisonError::into_inner).next()
}

/// What the files say, in their order.
struct Tally<'a> {
    checked: Checked,
    chains: Option<&'a mut Chains>,
    size: SegmentSize,
}

impl Tally<'_> {
    fn begin(&mut self, name: WalName) {
        if let (Some(chains), Some(segment), true) = (&mut self.chains, name.segment(), name.is_pages()) {
            chains.begin(segment);
        }
    }

    fn take(&mut self, name: WalName, piece: Piece) {
        match (piece, &mut self.chains) {
            (Piece::Bytes(bytes), Some(chains)) => chains.push(&bytes),
            (Piece::Copy(intact), Some(chains)) => chains.settle(intact),
            (Piece::Partial(title), Some(chains)) => chains.settle_partial(title),
            (Piece::Done(outcome), _) => self.checked.add(name, outcome, self.size),
            _ => {}
        }
    }

    fn end(mut self, failures: Vec<Finding>) -> Checked {
        if let Some(chains) = self.chains {
            chains.end();
        }
        self.checked.findings.extend(failures);
        self.checked
    }
}

impl Checked {
    fn add(&mut self, name: WalName, outcome: FileChecked, size: SegmentSize) {
        self.count.objects += outcome.count.objects;
        self.count.stored += outcome.count.stored;
        self.count.raw += outcome.count.raw;
        self.count.shut += outcome.count.shut;
        self.findings.extend(outcome.findings);
        if let (WalName::Segment(segment), true) = (name, outcome.intact)
            && let Some(number) = segment.number(size)
        {
            self.intact.entry(segment.timeline()).or_default().insert(number);
        }
    }
}

/// For [`Chains`], which knows segments by name.
pub(super) fn number(segment: SegmentName, size: SegmentSize) -> u64 {
    segment.number(size).unwrap_or(u64::MAX)
}
