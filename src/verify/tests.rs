use super::*;
use crate::archive::inventory::Runs;
use crate::object::{Encryption, Identity};
use crate::storage::faulty::{Fault, Faulty, Request};
use crate::storage::memory::Memory;
use crate::storage::{Body, Kind as StorageKind};
use crate::wal::{SegmentSize, SystemId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const SEGMENTS: usize = 40;

/// A bucket of our own with segments that decode, of too few bytes each.
fn bucket() -> Arc<Memory> {
    let memory = Memory::default();
    let identity = Identity {
        system_id: SystemId(7),
        segment_size: SegmentSize::new(1 << 20).unwrap(),
        foreign: false,
        encryption: Encryption::None,
    };
    memory.create(&Key::identity(), &Body::from(identity.write())).unwrap();
    for number in 1..=SEGMENTS {
        let name: WalName = format!("0000000100000000{number:08X}").parse().unwrap();
        memory.create(&Key::of(name, Encryption::None), &Body::from(b"no object".to_vec())).unwrap();
    }
    Arc::new(memory)
}

fn run(plan: impl Fn(Request, &str) -> Fault + Send + Sync + 'static) -> Vec<Finding> {
    let storage: Shared = Arc::new(Faulty::new(bucket(), Box::new(plan)));
    let options = Options {
        depth: Depth::Full,
        since: None,
        label: None,
        accepted: Vec::new(),
        accepted_histories: Vec::new(),
        jobs: 3,
        checks: Checks::Header,
    };
    verify(&[storage], &options, SystemTime::now(), &mut |_, _| {}).unwrap().findings
}

fn not_read(findings: &[Finding]) -> Vec<&str> {
    let found = findings.iter().filter(|finding| finding.kind == FindingKind::NotRead);
    found.map(|finding| finding.name.as_str()).collect()
}

#[test]
fn credentials_that_expire_meanwhile_are_one_finding() {
    let asked = AtomicUsize::new(0);
    let findings = run(move |request, _| match request {
        Request::Get if asked.fetch_add(1, Ordering::Relaxed) >= 10 => Fault::Before(StorageKind::Denied),
        _ => Fault::None,
    });
    assert_eq!(not_read(&findings), ["archive.json"], "{findings:?}");
    assert!(findings.len() < 20, "what was read before is told: {findings:?}");
}

#[test]
fn one_object_that_is_refused_is_told_and_the_others_are_read() {
    let refused = "wal_005/000000010000000000000007.zst";
    let findings = run(move |request, key| match request {
        Request::Get if key == refused => Fault::Before(StorageKind::Denied),
        _ => Fault::None,
    });
    assert_eq!(not_read(&findings), ["000000010000000000000007"]);
    assert_eq!(findings.len(), SEGMENTS);
}

#[test]
fn a_destination_that_fails_again_and_again_is_left_alone() {
    let findings = run(|request, key| match request {
        Request::Get if key.starts_with("wal_005/") => Fault::Before(StorageKind::TimedOut),
        _ => Fault::None,
    });
    let told = not_read(&findings);
    assert!(told.len() < SEGMENTS / 2 && told.contains(&"archive.json"), "{told:?}");
}

/// What names and intact files tell of archives with these keys, where every segment is intact but those
/// that are named.
fn by_names_of(archives: &[&[&str]], damaged: &[&str], scope: &Scope) -> (ByNames, Vec<Recoverable>) {
    let read = |(number, keys): (usize, &&[&str])| {
        let place = format!("place {number}");
        Inventory { place, ..Inventory::read(&holding(7, keys)).unwrap() }
    };
    let inventories: Vec<_> = archives.iter().enumerate().map(read).collect();
    let names = by_names(&inventories, scope).unwrap();
    let mut intact: BTreeMap<Timeline, Runs> = BTreeMap::new();
    for (timeline, files) in &names.union.timelines {
        let runs = intact.entry(*timeline).or_default();
        for number in files.segments.ranges().flat_map(|(first, last)| first..=last) {
            if !damaged.contains(&names.union.name(*timeline, number).to_string().as_str()) {
                runs.insert(number);
            }
        }
    }
    let recoverable = recovery::recoverable(&names, &intact, None);
    (names, recoverable)
}

/// An archive of that cluster; histories say that their timeline left the first one in segment 3.
fn holding(cluster: u64, keys: &[&str]) -> Memory {
    let memory = Memory::default();
    let segment_size = SegmentSize::new(1 << 20).unwrap();
    let identity =
        Identity { system_id: SystemId(cluster), segment_size, foreign: true, encryption: Encryption::None };
    memory.create(&Key::identity(), &Body::from(identity.write())).unwrap();
    for key in keys {
        let content = if key.ends_with(".history") { "1\t0/380000\tno reason\n" } else { "x" };
        memory
            .create(&Key::parse(&format!("wal_005/{key}")).unwrap(), &Body::from(content.as_bytes().to_vec()))
            .unwrap();
    }
    memory
}

const FIRST: [&str; 6] = [
    "000000010000000000000001",
    "000000010000000000000002",
    "000000010000000000000003",
    "000000010000000000000004",
    "000000010000000000000005",
    "000000010000000000000006",
];
const CHILD: [&str; 3] = ["00000002.history", "000000020000000000000003", "000000020000000000000004"];

fn kinds(names: &ByNames) -> Vec<(FindingKind, &str)> {
    names.findings.iter().map(|finding| (finding.kind, finding.name.as_str())).collect()
}

fn ends(recoverable: &[Recoverable]) -> Vec<(u32, Option<String>, bool)> {
    let end =
        |way: &Recoverable| (way.timeline.get(), way.to.map(|segment| segment.to_string()), way.complete);
    recoverable.iter().map(end).collect()
}

#[test]
fn a_gap_is_missing_unless_it_is_accepted_and_recovery_ends_before_it() {
    let keys = [FIRST[0], FIRST[1], FIRST[4], FIRST[5]];
    let (names, ways) = by_names_of(&[&keys], &[], &Scope::default());
    let gap = format!("{}..{}", FIRST[2], FIRST[3]);
    assert_eq!(kinds(&names), [(FindingKind::Missing, gap.as_str())]);
    assert_eq!(ends(&ways), [(1, Some(FIRST[1].to_owned()), false)]);
    let accepted = vec![(FIRST[2].parse().unwrap(), FIRST[3].parse().unwrap())];
    let (names, ways) = by_names_of(&[&keys], &[], &Scope { accepted, ..Scope::default() });
    assert_eq!((kinds(&names), &names.accepted), (vec![], &vec![gap]));
    assert_eq!(ends(&ways), [(1, Some(FIRST[1].to_owned()), false)], "accepted, and lost all the same");
}

#[test]
fn what_one_destination_lacks_another_may_give_and_verify_says_how_to_bring_it() {
    let (names, ways) = by_names_of(&[&FIRST, &[FIRST[0], FIRST[1], FIRST[3]]], &[], &Scope::default());
    let after = format!("{}..{}", FIRST[4], FIRST[5]);
    assert_eq!(kinds(&names), [(FindingKind::Missing, FIRST[2]), (FindingKind::Missing, after.as_str())]);
    for finding in &names.findings {
        let hint = finding.hint.as_deref();
        assert_eq!(hint, Some("\"wal-archive copy place 0 place 1\" brings it"), "{finding:?}");
    }
    assert_eq!(ends(&ways), [(1, Some(FIRST[5].to_owned()), true)]);
}

#[test]
fn recovery_goes_to_the_end_of_each_timeline_and_ends_before_a_damaged_segment() {
    let keys: Vec<_> = FIRST.iter().chain(&CHILD).copied().collect();
    let (names, ways) = by_names_of(&[&keys], &[], &Scope::default());
    assert_eq!(kinds(&names), []);
    let both = [(1, Some(FIRST[5].to_owned()), true), (2, Some(CHILD[2].to_owned()), true)];
    assert_eq!(ends(&ways), both);
    // The parent's segment of the child's number is not asked for by whoever follows the child.
    let (_, ways) = by_names_of(&[&keys], &[FIRST[2]], &Scope::default());
    assert_eq!(ends(&ways), [(1, Some(FIRST[1].to_owned()), false), both[1].clone()]);
    let (_, ways) = by_names_of(&[&keys], &[CHILD[1]], &Scope::default());
    assert_eq!(ends(&ways), [both[0].clone(), (2, Some(FIRST[1].to_owned()), false)]);
    let (_, ways) = by_names_of(&[&keys], &[FIRST[0]], &Scope::default());
    assert_eq!(ends(&ways), [(1, None, false), (2, None, false)]);
}

#[test]
fn a_lost_history_is_one_finding_and_may_be_accepted() {
    let keys: Vec<_> = FIRST.iter().chain(&CHILD[1..]).copied().collect();
    let (names, _) = by_names_of(&[&keys], &[], &Scope::default());
    assert_eq!(kinds(&names), [(FindingKind::NoHistory, CHILD[0])]);
    let scope = Scope { accepted_histories: vec![Timeline::new(2).unwrap()], ..Scope::default() };
    let (names, _) = by_names_of(&[&keys], &[], &scope);
    assert_eq!((kinds(&names), &names.accepted), (vec![], &vec![CHILD[0].to_owned()]));
}

#[test]
fn of_two_clusters_nothing_else_is_said() {
    let read = |cluster, keys: &[&str]| Inventory::read(&holding(cluster, keys)).unwrap();
    let names = by_names(&[read(7, &FIRST), read(8, &[FIRST[0], FIRST[5]])], &Scope::default()).unwrap();
    assert_eq!(kinds(&names), [(FindingKind::OtherCluster, "archive.json")]);
    assert!(names.needs.is_empty());
}

#[test]
fn records_that_end_in_a_segment_are_broken_only_where_recovery_asks_for_a_later_one() {
    for (keys, broken) in [(&FIRST[..2], vec![FIRST[0]]), (&FIRST[..1], vec![])] {
        let (names, _) = by_names_of(&[keys], &[], &Scope::default());
        let mut chains = Chains::new(&names);
        for key in keys {
            chains.begin(key.parse().unwrap());
            chains.push(&[0; 8192]);
            chains.settle(*key == FIRST[0]);
        }
        chains.end();
        let found = chains.findings(&names, "memory");
        assert_eq!(found.iter().map(|finding| finding.name.as_str()).collect::<Vec<_>>(), broken);
    }
}
