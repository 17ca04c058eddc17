use super::*;
use crate::object::Identity;
use crate::storage::faulty::{Fault, Faulty, Request};
use crate::storage::memory::Memory;
use crate::storage::{Body, Kind as StorageKind};
use crate::wal::{SegmentSize, SystemId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const SEGMENTS: usize = 40;

/// A bucket of our own with segments that decode, of too few bytes each.
fn bucket() -> Arc<Memory> {
    let memory = Memory::default();
    let identity =
        Identity { system_id: SystemId(7), segment_size: SegmentSize::new(1 << 20).unwrap(), foreign: false };
    memory.create(&Key::identity(), &Body::from(identity.write())).unwrap();
    for number in 1..=SEGMENTS {
        let name: WalName = format!("0000000100000000{number:08X}").parse().unwrap();
        memory.create(&Key::of(name), &Body::from(b"no object".to_vec())).unwrap();
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
