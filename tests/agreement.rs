//! wal-fetch and `wal-archive verify` judge one archive by one rule: where a fetch says that a file is
//! missing, verify has a finding; where it says that the archive ends, verify misses nothing.
//!
//! Random small archives, of one or two directories. What is asked is what PostgreSQL would ask from
//! each backup, or from the oldest segment, along each timeline (`XLogFileReadAnyTLI` in
//! `src/backend/access/transam/xlogrecovery.c`). Older segments are left out: verify requires nothing
//! before the oldest backup, and a fetch cannot know which backups there are. So are switch points that go
//! backwards (a standby that lagged was promoted): before the youngest timeline's own first segment is
//! archived, a fetch takes what a middle one wrote beyond that for missing, and verify does not require it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use wal_archive::archive::inventory::Inventory;
use wal_archive::fetch::{Answer, Cause, Context, Fetch, fetch};
use wal_archive::finding::FindingKind;
use wal_archive::object::{Encryption, Identity, Key, Sha256Sum, encode};
use wal_archive::storage::memory::Memory;
use wal_archive::storage::{Body, Nature, Shared, Storage};
use wal_archive::verify::{Scope, by_names};
use wal_archive::wal::{SegmentName, SegmentSize, SystemId, Timeline, WalName};

const MIB: u64 = 1 << 20;

/// Segments are numbered below this.
const END: u64 = 9;

/// What a timeline's file is, beside its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Segment,
    Partial,
    Cut,
    /// A backup that began in the segment and ended so many segments later.
    Backup(u64),
}

#[derive(Clone, Debug)]
struct Archive {
    /// By timeline: its ancestors, each with the address at which it was left; and where the file is.
    histories: BTreeMap<u32, (Vec<(u32, u64)>, u8)>,
    /// Timeline, number, what; and where it is.
    files: BTreeMap<(u32, u64, What), u8>,
}

/// At which destinations something is, by bits; mostly at all of them.
fn places() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(3u8), 1 => Just(1u8), 1 => Just(2u8), 2 => Just(0u8)]
}

fn archive() -> impl Strategy<Value = Archive> {
    let switch =
        || (1u64..END - 1, prop_oneof![Just(0), Just(0x2000)]).prop_map(|(at, more)| at * MIB + more);
    let what = prop_oneof![
        8 => Just(What::Segment),
        1 => Just(What::Partial),
        1 => Just(What::Cut),
        2 => (0u64..3).prop_map(What::Backup),
    ];
    let files = proptest::collection::vec(((1u32..=4, 0..END, what), places()), 0..6);
    let runs = proptest::collection::vec((1u32..=4, 0..END, 1u64..6, places()), 1..5);
    let histories = (switch(), switch(), switch(), any::<(bool, bool)>(), [places(), places(), places()]);
    (files, runs, histories).prop_map(|(files, runs, (two, three, four, (from_two, from_three), at))| {
        let mut all: BTreeMap<_, _> = files.into_iter().filter(|(_, places)| *places != 0).collect();
        for (timeline, first, count, places) in runs.into_iter().filter(|(.., places)| *places != 0) {
            for number in first..(first + count).min(END) {
                all.insert((timeline, number, What::Segment), places);
            }
        }
        let second = vec![(1, two)];
        let third = match from_two {
            true => vec![(1, two), (2, three.max(two))],
            false => vec![(1, three)],
        };
        let last = third.last().map_or(0, |(_, switch)| *switch);
        let fourth = match from_three {
            true => [third.clone(), vec![(3, four.max(last))]].concat(),
            false => vec![(1, four)],
        };
        let histories = [(2, (second, at[0])), (3, (third, at[1])), (4, (fourth, at[2]))];
        let histories = histories.into_iter().filter(|(_, (_, places))| *places != 0).collect();
        Archive { histories, files: all }
    })
}

fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

fn id(timeline: u32) -> Timeline {
    Timeline::new(timeline).unwrap()
}

fn segment(timeline: u32, number: u64) -> SegmentName {
    SegmentName::numbered(id(timeline), number, size())
}

impl Archive {
    /// One destination, or nothing where no WAL file is there.
    fn store(&self, bit: u8, place: &'static str) -> Option<Shared> {
        let memory = Memory::new(place, Nature::Directory);
        let put = |key: Key, bytes: Vec<u8>| memory.create(&key, &Body::from(bytes)).unwrap();
        let text = |name: WalName, text: String| {
            let mut bytes = Vec::new();
            let (content, length) = (text.as_bytes(), text.len() as u64);
            encode(name, length, Some(SystemId(7)), 1, &mut &content[..], &mut bytes).unwrap();
            put(Key::of(name, Encryption::None), bytes);
        };
        let mut any = false;
        for (timeline, (ancestors, places)) in &self.histories {
            if places & bit != 0 {
                any = true;
                let line =
                    |(id, switch): &(u32, u64)| format!("{id}\t{:X}/{:X}\tx\n", switch >> 32, *switch as u32);
                text(WalName::TimelineHistory(id(*timeline)), ancestors.iter().map(line).collect());
            }
        }
        for ((timeline, number, what), _) in self.files.iter().filter(|(_, places)| **places & bit != 0) {
            any = true;
            let name = segment(*timeline, *number);
            match what {
                What::Segment => put(Key::of(WalName::Segment(name), Encryption::None), b"whatever".to_vec()),
                What::Partial => put(Key::of(WalName::Partial(name), Encryption::None), b"whatever".to_vec()),
                What::Cut => {
                    put(
                        Key::variant(
                            WalName::Segment(name),
                            &Sha256Sum::of(b"cut").short(),
                            Encryption::None,
                        ),
                        b"whatever".to_vec(),
                    );
                }
                What::Backup(more) => {
                    let offset = 0x28 + 8 * *more as u32; // several may begin in one segment
                    let (start, stop) = (number * MIB + u64::from(offset), (number + more + 1) * MIB - 8);
                    let last = segment(*timeline, number + more);
                    text(
                        WalName::BackupHistory(name, offset),
                        format!(
                            "START WAL LOCATION: 0/{start:X} (file {name})\nSTOP WAL LOCATION: 0/{stop:X} (file {last})\n\
                             LABEL: x\nSTART TIME: x\nSTOP TIME: x\n"
                        ),
                    );
                }
            }
        }
        let identity = Identity {
            system_id: SystemId(7),
            segment_size: size(),
            foreign: false,
            encryption: Encryption::None,
        };
        put(Key::identity(), identity.write());
        any.then(|| Arc::new(memory) as Shared)
    }

    fn holds(&self, timeline: u32, number: u64) -> bool {
        self.files.contains_key(&(timeline, number, What::Segment))
    }

    fn backups(&self) -> impl Iterator<Item = (u32, u64, u64)> + '_ {
        self.files.keys().filter_map(|(timeline, number, what)| match what {
            What::Backup(more) => Some((*timeline, *number, number + more)),
            _ => None,
        })
    }

    /// Newest first, each with the number of the segment in which it begins, and that address.
    fn branch(&self, timeline: u32) -> Vec<(u32, u64, u64)> {
        let mut parts = Vec::new();
        let mut begin = 0;
        for (ancestor, switch) in self.histories.get(&timeline).map_or(&[][..], |(all, _)| all) {
            parts.push((*ancestor, begin / MIB, begin));
            begin = *switch;
        }
        parts.push((timeline, begin / MIB, begin));
        parts.reverse();
        parts
    }

    fn timelines(&self) -> BTreeSet<u32> {
        self.files.keys().map(|(timeline, ..)| *timeline).chain(self.histories.keys().copied()).collect()
    }

    /// The segments from which a recovery along the branch begins.
    fn starts(&self, branch: &[(u32, u64, u64)]) -> Vec<u64> {
        let at = |address: u64| branch.iter().find(|(.., begin)| *begin <= address).map(|(id, ..)| *id);
        let mut any = false;
        let mut starts = Vec::new();
        for (timeline, first, last) in self.backups() {
            any = true;
            let end = (last + 1) * MIB - 9;
            if at(first * MIB + 0x28) == Some(timeline) && at(end) == Some(timeline) {
                starts.push(first);
            }
        }
        if !any {
            let serving = |number: u64| branch.iter().find(|(_, begin, _)| *begin <= number);
            let held = |number: &u64| serving(*number).is_some_and(|(id, ..)| self.holds(*id, *number));
            starts.extend((0..END).find(held));
        }
        starts
    }
}

/// What a fetch says of a file that is nowhere: whether it is missing. Else the archive ends.
fn is_missing(stores: &[Shared], folder: &std::path::Path, name: WalName) -> bool {
    let path = folder.join("RECOVERYXLOG");
    let context = Context::of(stores.to_vec());
    match fetch(&Fetch::new(name, &path, &context, Duration::from_secs(600))) {
        Ok(Answer::Absent) => false,
        Err(failures) if failures.iter().all(|failure| failure.kind == Cause::Hole) => true,
        Ok(Answer::Delivered) => panic!("{name} is nowhere"),
        Err(failures) => panic!("{name}: {failures:?}"),
    }
}

/// What verify finds missing.
#[derive(Debug, Default)]
struct Missing {
    segments: BTreeSet<(u32, u64)>,
    histories: BTreeSet<u32>,
}

fn verify(stores: &[Shared]) -> Missing {
    let inventories: Vec<_> = stores.iter().map(|store| Inventory::read(store.as_ref()).unwrap()).collect();
    let mut missing = Missing::default();
    for finding in by_names(&inventories, &Scope::default()).unwrap().findings {
        match finding.kind {
            FindingKind::Missing => {
                let (first, last) = finding.name.split_once("..").unwrap_or((&finding.name, &finding.name));
                let number = |name: &str| name.parse::<SegmentName>().unwrap().number(size()).unwrap();
                let timeline = first.parse::<SegmentName>().unwrap().timeline().get();
                missing.segments.extend((number(first)..=number(last)).map(|number| (timeline, number)));
            }
            FindingKind::NoHistory => {
                let WalName::TimelineHistory(timeline) = finding.name.parse().unwrap() else { panic!() };
                missing.histories.insert(timeline.get());
            }
            other => panic!("{other:?}: {finding:?}"),
        }
    }
    missing
}

fn agree(archive: &Archive) -> std::result::Result<(), TestCaseError> {
    let stores: Vec<_> =
        [(1, "/one"), (2, "/two")].into_iter().filter_map(|(bit, place)| archive.store(bit, place)).collect();
    if stores.is_empty() {
        return Ok(());
    }
    let folder = tempfile::tempdir().unwrap();
    let found = verify(&stores);
    let known = RefCell::new(BTreeMap::new());
    let asks = |timeline: u32, number: u64| {
        let ask = || is_missing(&stores, folder.path(), WalName::Segment(segment(timeline, number)));
        *known.borrow_mut().entry((timeline, number)).or_insert_with(ask)
    };
    // What a recovery would stop at is found.
    for timeline in archive.timelines() {
        let branch = archive.branch(timeline);
        for start in archive.starts(&branch) {
            let mut oldest = 0;
            for number in start..END + 3 {
                let asked = branch.iter().filter(|(_, begin, _)| *begin <= number);
                for (id, ..) in asked.take_while(|(id, ..)| *id >= oldest).copied().collect::<Vec<_>>() {
                    let held = archive.holds(id, number);
                    if !held && !asks(id, number) {
                        continue;
                    }
                    // Where the timeline begins is not known without its history, which is found then.
                    prop_assert!(
                        held || found.segments.contains(&(id, number)) || found.histories.contains(&id),
                        "recovery to timeline {timeline} from {start} misses {id}/{number}, verify only {found:?}"
                    );
                    // As if it had been brought back: PostgreSQL never goes back to an older timeline.
                    oldest = id;
                    break;
                }
            }
        }
    }
    // What is found is missed by somebody: a fetch, a destination of several, or a backup by its own word.
    for (timeline, number) in &found.segments {
        let of_backup =
            |(id, first, last): (u32, u64, u64)| id == *timeline && (first..=last).contains(number);
        prop_assert!(
            archive.holds(*timeline, *number) || archive.backups().any(of_backup) || asks(*timeline, *number),
            "verify misses {timeline}/{number}, where the archive ends"
        );
    }
    // Whoever recovers is on the oldest timeline at least.
    let timelines = archive.timelines();
    for timeline in timelines.iter().copied().filter(|id| !archive.histories.contains_key(id)) {
        let lost = is_missing(&stores, folder.path(), WalName::TimelineHistory(id(timeline)));
        let lost = lost && Some(&timeline) != timelines.first();
        prop_assert_eq!(lost, found.histories.contains(&timeline), "history of {}: {:?}", timeline, found);
    }
    Ok(())
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(64, |text| text.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_fetch_and_verify_agree_on_what_is_missing_and_where_an_archive_ends(archive in archive()) {
        agree(&archive)?;
    }
}
