//! Every object read: decoded and proved by as many threads as asked for, or its trailer only.
//!
//! Files are taken in the order of their names, all copies of one together, so that memory does
//! not grow with the archive; answers come back in the same order, so that the records of one
//! segment after the other can be walked on the way.

use super::chains::Chains;
use super::copies::{Copy, Job, Outcome, Patience, Piece};
use super::names::{Names, Scope};
use super::{Count, Finding, Kind, Options, Progress};
use crate::archive::inventory::{Inventory, Item, Items, Runs, items};
use crate::object::{Key, Stored};
use crate::storage::{self, Error, Shared, Storage};
use crate::wal::{SegmentName, SegmentSize, Timeline, WalName};
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
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
    pub(super) names: &'a Names,
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

impl Objects<'_> {
    pub(super) fn check(&self, mut chains: Option<&mut Chains>, progress: Progress<'_>) -> Checked {
        let total = self.inventories.iter().map(|inventory| inventory.total.objects).sum();
        let mut checked = Checked { count: Count::default(), findings: Vec::new(), intact: BTreeMap::new() };
        let jobs = self.options.jobs.max(1);
        let (give, take) = sync_channel::<Job>(jobs);
        let take = Mutex::new(take);
        let (order, answers) = sync_channel::<(WalName, Receiver<Piece>)>(WAITING);
        let (fail, failures) = channel();
        let with_records = chains.is_some();
        std::thread::scope(|scope| {
            scope.spawn(move || self.produce(with_records, &give, &order, &fail));
            for _ in 0..jobs {
                let take = &take;
                scope.spawn(move || {
                    loop {
                        let job = take.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(job) = job else { return };
                        self.work(&job, with_records);
                    }
                });
            }
            for (name, answer) in answers {
                if let (Some(chains), Some(segment), true) =
                    (chains.as_deref_mut(), name.segment(), name.is_pages())
                {
                    chains.begin(segment);
                }
                // A worker that panicked has said so; its file counts as not intact.
                for piece in answer {
                    match (piece, chains.as_deref_mut()) {
                        (Piece::Bytes(bytes), Some(chains)) => chains.push(&bytes),
                        (Piece::Copy(intact), Some(chains)) => chains.settle(intact),
                        (Piece::Partial(title), Some(chains)) => chains.settle_partial(title),
                        (Piece::Done(outcome), _) => checked.add(name, outcome, self.names.size()),
                        _ => {}
                    }
                }
                progress(&checked.count, total);
            }
        });
        if let Some(chains) = chains {
            chains.end();
        }
        checked.findings.extend(failures);
        checked
    }

    /// Lists every destination once more and hands out the files in order.
    fn produce(
        &self,
        with_records: bool,
        give: &SyncSender<Job>,
        order: &SyncSender<(WalName, Receiver<Piece>)>,
        fail: &Sender<Finding>,
    ) {
        let mut streams = Vec::new();
        for (destination, storage) in self.storages.iter().enumerate() {
            match items(storage.as_ref()) {
                Ok(items) => streams.push((destination, WalItems(items).peekable())),
                Err(error) => drop(fail.send(not_listed(storage.as_ref(), &error))),
            }
        }
        let ahead = self.names.size().bytes().min(AHEAD) / PIECE + 2;
        let capacity = if with_records { usize::try_from(ahead).unwrap_or(2) } else { 2 };
        while let Some(group) = self.group(&mut streams, fail) {
            for (name, copies) in group {
                let (answer, receive) = sync_channel(capacity);
                // Both ends go away only when the other side has panicked.
                if order.send((name, receive)).is_err() || give.send(Job { name, copies, answer }).is_err() {
                    return;
                }
            }
        }
    }

    /// Every object of the next segment, at whichever destination, by WAL file.
    fn group(
        &self,
        streams: &mut Vec<(usize, Peekable<WalItems>)>,
        fail: &Sender<Finding>,
    ) -> Option<BTreeMap<WalName, Vec<Copy>>> {
        streams.retain_mut(|(destination, stream)| match stream.peek() {
            Some(Err(error)) => {
                let storage = self.storages.get(*destination);
                let finding = storage.map(|storage| not_listed(storage.as_ref(), error));
                finding.into_iter().for_each(|finding| drop(fail.send(finding)));
                false
            }
            Some(Ok(_)) => true,
            None => false,
        });
        let stem = |item: &Item| stem_of(&item.key).to_owned();
        let next =
            streams.iter_mut().filter_map(|(_, stream)| stream.peek()?.as_ref().ok().map(stem)).min()?;
        let mut group: BTreeMap<WalName, Vec<Copy>> = BTreeMap::new();
        for (destination, stream) in streams {
            while let Some(Ok(item)) =
                stream.next_if(|item| item.as_ref().is_ok_and(|item| stem(item) == next))
            {
                if let (Some(name), Some(key)) = (item.stored.name(), item.key())
                    && self.is_wanted(name)
                    && !matches!(item.stored, Stored::Unknown(..))
                    && self.inventories.get(*destination).is_some_and(|inventory| inventory.reads(&item.key))
                {
                    let copy = Copy { destination: *destination, key, stored: item.stored, size: item.size };
                    group.entry(name).or_default().push(copy);
                }
            }
        }
        // In the order in which fetch believes them; variants, which it believes never, last.
        for (name, copies) in &mut group {
            let places: Vec<Key> = Key::all_of(*name).map(|(key, _)| key).collect();
            let place =
                |copy: &Copy| places.iter().position(|place| *place == copy.key).unwrap_or(places.len());
            let is_variant = |copy: &Copy| matches!(copy.stored, Stored::Variant(..));
            copies.sort_by_key(|copy| (is_variant(copy), copy.destination, place(copy)));
        }
        Some(group)
    }

    /// Whether the scope holds it.
    fn is_wanted(&self, name: WalName) -> bool {
        let (WalName::Segment(segment) | WalName::Partial(segment)) = name else { return true };
        let size = self.names.size();
        let Some(number) = segment.number(size) else { return false };
        let young = self.scope.since.is_none_or(|since| number >= since);
        let asked_for = || {
            let mut needs = self.names.needs.iter();
            needs.any(|n| {
                (n.first..=n.last).contains(&number) && n.branch.serving(number, size) == segment.timeline()
            })
        };
        young && (self.scope.label.is_none() || asked_for())
    }
}

impl Checked {
    fn add(&mut self, name: WalName, outcome: Outcome, size: SegmentSize) {
        self.count.objects += outcome.count.objects;
        self.count.stored += outcome.count.stored;
        self.count.raw += outcome.count.raw;
        self.findings.extend(outcome.findings);
        if let (WalName::Segment(segment), true) = (name, outcome.intact)
            && let Some(number) = segment.number(size)
        {
            self.intact.entry(segment.timeline()).or_default().insert(number);
        }
    }
}

/// The objects of WAL files; the others have no place in the order of segments.
struct WalItems(Items);

impl Iterator for WalItems {
    type Item = storage::Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.find(|item| item.as_ref().map_or(true, |item| item.stored.name().is_some()))
    }
}

/// The digits that the names of one segment's files share.
fn stem_of(key: &str) -> &str {
    let file = key.rsplit('/').next().unwrap_or(key);
    file.split('.').next().unwrap_or(file)
}

fn not_listed(storage: &dyn Storage, error: &Error) -> Finding {
    Finding {
        kind: Kind::NotRead,
        destination: storage.place().to_owned(),
        name: "archive.json".to_owned(),
        reason: format!("the listing broke off: {error}"),
        hint: "verify it again".to_owned(),
    }
}

/// For [`Chains`], which knows segments by name.
pub(super) fn number(segment: SegmentName, size: SegmentSize) -> u64 {
    segment.number(size).unwrap_or(u64::MAX)
}
