use super::*;
use crate::finding::FindingKind;
use crate::object::{Key, Sha256Sum, encode};
use crate::storage::faulty::{Fault, Faulty, Request as Asked};
use crate::storage::memory::Memory;
use crate::storage::{Body, Kind, Range};
use crate::wal::SystemId;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const IDENTITY: &[u8] =
    b"{\"wal-archive\":1,\"system_id\":\"7\",\"segment_size\":1048576,\"foreign\":false}\n";

fn history(id: u32) -> (String, Vec<u8>) {
    (format!("{id:08X}.history"), format!("1\t0/{id:07X}\tno recovery target specified\n").into_bytes())
}

fn object(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let name = name.parse().unwrap();
    encode(name, content.len() as u64, Some(SystemId(7)), 1, &mut &content[..], &mut bytes).unwrap();
    bytes
}

fn put(memory: &Memory, key: &str, bytes: &[u8]) {
    memory.create(&Key::parse(key).unwrap(), &Body::from(bytes.to_vec())).unwrap();
}

/// An archive without a WAL file, as init makes it.
fn new_archive() -> Arc<Memory> {
    let memory = Memory::default();
    put(&memory, "archive.json", IDENTITY);
    Arc::new(memory)
}

/// An archive with our own objects of these histories.
fn archive(ids: std::ops::RangeInclusive<u32>) -> Arc<Memory> {
    let memory = new_archive();
    for (name, content) in ids.map(history) {
        put(&memory, &format!("wal_005/{name}.zst"), &object(&name, &content));
    }
    memory
}

/// Everything that an archive holds.
fn everything(storage: &dyn Storage) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for folder in ["", "wal_005/", "quarantine/"] {
        for entry in storage.list(folder, "").unwrap() {
            let key = entry.unwrap().key;
            let mut bytes = Vec::new();
            let mut object = storage.get(&Key::parse(&key).unwrap(), Range::Whole).unwrap();
            object.body.read_to_end(&mut bytes).unwrap();
            all.push((key, bytes));
        }
    }
    all
}

fn request<'a>(from: &'a Shared, to: &'a Shared) -> Request<'a> {
    Request {
        from,
        to,
        checks: Checks::Header,
        level: 1,
        repair: false,
        encrypted: Encrypted::PassOn,
        jobs: 3,
        progress: &|_| {},
    }
}

fn run(from: &Shared, to: &Shared, repair: bool) -> Copied {
    copy(&Request { repair, ..request(from, to) }).unwrap()
}

#[test]
fn what_is_missing_is_copied_byte_for_byte_and_the_repeat_skips_it() {
    let source = archive(2..=9);
    let (from, target) = ((source.clone() as Shared), new_archive());
    let to = target.clone() as Shared;
    let made = run(&from, &to, false);
    assert_eq!((made.listed, made.seen, made.copied, made.encoded), (8, 8, 8, 0));
    assert_eq!(everything(source.as_ref()), everything(target.as_ref()));
    let again = run(&from, &to, false);
    assert_eq!((again.copied, again.identical, again.bytes), (0, 8, 0));
    assert!(again.findings.is_empty() && again.failures.is_empty(), "{again:?}");
}

#[test]
fn interrupted_at_any_request_the_repeat_completes_it() {
    let source = archive(2..=4);
    let from = source.clone() as Shared;
    let mut completed = false;
    for interrupted in 0.. {
        let target = new_archive();
        let count = AtomicUsize::new(0);
        // Everything fails from this request on, the first of them after it was done.
        let plan = move |_: Asked, _: &str| match count.fetch_add(1, Ordering::Relaxed) {
            at if at < interrupted => Fault::None,
            at if at == interrupted => Fault::After(Kind::TimedOut),
            _ => Fault::Before(Kind::TimedOut),
        };
        let to = Arc::new(Faulty::new(target.clone(), Box::new(plan))) as Shared;
        let made = copy(&Request { jobs: 1, ..request(&from, &to) });
        completed = made.is_ok_and(|made| made.failures.is_empty());
        let again = run(&from, &(target.clone() as Shared), false);
        assert!(again.findings.is_empty() && again.failures.is_empty(), "request {interrupted}: {again:?}");
        assert_eq!(everything(source.as_ref()), everything(target.as_ref()), "request {interrupted}");
        if completed {
            assert!(interrupted > 5, "the faults hit");
            break;
        }
    }
    assert!(completed);
}

#[test]
fn what_differs_is_listed_and_never_replaced() {
    let (source, target) = (archive(2..=3), archive(3..=3));
    let (name, _) = history(2);
    put(&target, &format!("wal_005/{name}.zst"), &object(&name, &history(5).1));
    let before = everything(target.as_ref());
    for repair in [false, true] {
        let made = run(&(source.clone() as Shared), &(target.clone() as Shared), repair);
        assert_eq!(made.identical, 1);
        let [Finding { kind: FindingKind::Conflict, place, .. }] = &made.findings[..] else {
            panic!("{made:?}")
        };
        assert_eq!(place, "memory");
        assert_eq!(everything(target.as_ref()), before);
    }
}

#[test]
fn a_damaged_source_is_listed_and_not_copied() {
    let (source, target) = (archive(2..=2), new_archive());
    let (name, content) = history(3);
    let mut bytes = object(&name, &content);
    bytes[20] ^= 1;
    put(&source, &format!("wal_005/{name}.zst"), &bytes);
    put(&source, "wal_005/00000004.history.gpg", b"secret");
    put(&source, "wal_005/notes.txt", b"mine");
    let made = run(&(source as Shared), &(target.clone() as Shared), false);
    let found: Vec<_> = made
        .findings
        .iter()
        .map(|finding| (finding.kind, finding.key.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(
        found,
        [
            (FindingKind::Damaged, "wal_005/00000003.history.zst"),
            (FindingKind::UnknownEncoding, "wal_005/00000004.history.gpg")
        ]
    );
    assert_eq!(made.strangers, ["wal_005/notes.txt"]);
    assert_eq!(made.copied, 1);
    assert_eq!(everything(target.as_ref()).len(), 2);
}

#[test]
fn repair_moves_damaged_objects_aside_and_creates_them_and_the_missing_ones() {
    let (source, target) = (archive(2..=4), archive(2..=2));
    let (name, content) = history(3);
    let mut bytes = object(&name, &content);
    bytes[20] ^= 1; // in the frame: the trailer alone looks fine
    put(&target, &format!("wal_005/{name}.zst"), &bytes);
    let (from, to) = ((source.clone() as Shared), (target.clone() as Shared));
    let blind = run(&from, &to, false);
    assert_eq!((blind.identical, blind.copied, blind.repaired), (2, 1, 0), "trailers alone say nothing");
    let young = run(&from, &to, true);
    assert!(young.failures.len() == 1 && young.repaired == 0, "a push may still count on it: {young:?}");
    target.advance(std::time::Duration::from_secs(3600));
    let made = run(&from, &to, true);
    assert_eq!((made.identical, made.copied, made.repaired), (2, 0, 1));
    assert!(made.findings.is_empty(), "{made:?}");
    let mut expected = everything(source.as_ref());
    expected.push((format!("quarantine/{name}.{}", Sha256Sum::of(&bytes).short()), bytes));
    assert_eq!(everything(target.as_ref()), expected);
}

#[test]
fn a_damaged_object_at_the_destination_stays_where_the_source_has_none_that_is_intact() {
    let (source, target) = (archive(2..=2), archive(2..=2));
    let (name, _) = history(3);
    for memory in [&source, &target] {
        put(memory, &format!("wal_005/{name}.zst"), b"junk");
    }
    let before = everything(target.as_ref());
    let made = run(&(source as Shared), &(target.clone() as Shared), true);
    assert_eq!(made.findings.len(), 1);
    assert_eq!(everything(target.as_ref()), before);
}

#[test]
fn another_clusters_archive_is_refused_and_an_empty_place_is_no_source() {
    let (source, target) = (archive(2..=2), Memory::default());
    put(&target, "archive.json", &String::from_utf8_lossy(IDENTITY).replace("\"7\"", "\"8\"").into_bytes());
    let (from, to) = ((source as Shared), (Arc::new(target) as Shared));
    let request = |from, to| Request { jobs: 1, ..request(from, to) };
    let refused = copy(&request(&from, &to)).unwrap_err();
    assert!(refused.message.contains("system identifier 8"), "{refused}");
    let empty: Shared = Arc::new(Memory::default());
    let refused = copy(&request(&empty, &from)).unwrap_err();
    assert!(refused.message.contains("not an archive"), "{refused}");
}

#[test]
fn an_object_of_another_cluster_is_found_by_the_word_that_verify_has_for_it() {
    let (source, (name, content)) = (archive(2..=3), history(4));
    let mut theirs = Vec::new();
    let (parsed, len) = (name.parse().unwrap(), content.len() as u64);
    encode(parsed, len, Some(SystemId(8)), 1, &mut &content[..], &mut theirs).unwrap();
    put(&source, &format!("wal_005/{name}.zst"), &theirs);
    let made = run(&(source as Shared), &(new_archive() as Shared), false);
    assert_eq!(made.copied, 2);
    assert_eq!(made.findings.iter().map(|found| found.kind).collect::<Vec<_>>(), [FindingKind::OtherCluster]);
}

#[test]
fn other_encodings_at_the_source_must_agree_and_those_at_the_destination_count() {
    let (name, content) = history(2);
    let other = history(5).1;
    // At the source: bare and zstd differ.
    let source = Memory::default();
    put(&source, "archive.json", IDENTITY);
    put(&source, &format!("wal_005/{name}"), &content);
    put(&source, &name, &other);
    let target = new_archive();
    let made = run(&(Arc::new(source) as Shared), &(target.clone() as Shared), false);
    assert_eq!(made.findings.len(), 1);
    assert_eq!(made.findings[0].kind, FindingKind::Conflict);
    assert_eq!(everything(target.as_ref()).len(), 1, "only the identity");
    // At the destination: the same content, bare, in an archive of another tool.
    for (there, identical, conflicts) in [(&content, 1, 0), (&other, 0, 1)] {
        let target = Memory::default();
        let foreign = String::from_utf8_lossy(IDENTITY).replace("false", "true");
        put(&target, "archive.json", foreign.as_bytes());
        put(&target, &name, there);
        let target = Arc::new(target);
        let before = everything(target.as_ref());
        let made = run(&(archive(2..=2) as Shared), &(target.clone() as Shared), false);
        assert_eq!((made.identical, made.findings.len()), (identical, conflicts));
        assert_eq!(everything(target.as_ref()), before);
    }
}

#[test]
fn converted_in_place_everything_stays_and_our_own_objects_stand_beside() {
    let (name, content) = history(2);
    let archive = Memory::default();
    let foreign = String::from_utf8_lossy(IDENTITY).replace("false", "true");
    put(&archive, "archive.json", foreign.as_bytes());
    put(&archive, &name, &content);
    let (zstd, zstd_content) = history(3);
    put(&archive, &format!("wal_005/{zstd}.zst"), &zstd::encode_all(&zstd_content[..], 1).unwrap());
    let archive: Arc<Memory> = Arc::new(archive);
    let before = everything(archive.as_ref());
    let place = archive.clone() as Shared;
    let made = run(&place, &place, false);
    assert_eq!((made.encoded, made.left, made.findings.len()), (1, 1, 0));
    let after = everything(archive.as_ref());
    assert_eq!(after.len(), before.len() + 1);
    assert!(before.iter().all(|object| after.contains(object)));
    let again = run(&place, &place, false);
    assert_eq!((again.identical, again.left), (1, 1));
}

const BACKUP: &str = "00000002000000000000000A.00000028.backup";
const PARTIAL: &str = "00000003000000000000000B.partial";

/// A history of timeline 3, which descends from 2.
const THIRD: &[u8] = b"1\t0/0000002\tx\n2\t0/0A00000\tx\n";

/// Runs it without a look at pages, so that any bytes are a segment.
fn run_blind(source: &Arc<Memory>, target: &Arc<Memory>) -> Copied {
    let (from, to) = (source.clone() as Shared, target.clone() as Shared);
    copy(&Request { checks: Checks::NoHeader, ..request(&from, &to) }).unwrap()
}

fn hold(memory: &Memory, name: &str, content: &[u8]) {
    put(memory, &format!("wal_005/{name}.zst"), &object(name, content));
}

/// An archive of three timelines, each with files.
fn three_timelines() -> Arc<Memory> {
    let memory = new_archive();
    hold(&memory, "00000002.history", &history(2).1);
    hold(&memory, "00000003.history", THIRD);
    for name in ["00000001000000000000000A", "00000002000000000000000A", "00000003000000000000000B"] {
        hold(&memory, name, &[7; 1 << 20]);
    }
    hold(&memory, PARTIAL, &[8; 1 << 20]);
    hold(&memory, BACKUP, b"START WAL LOCATION: 0/A000028 (file 00000002000000000000000A)\n");
    memory
}

/// The names that the archive holds.
fn held(memory: &Memory) -> Vec<String> {
    let all = everything(memory).into_iter().map(|(key, _)| key);
    all.filter_map(|key| Some(key.strip_prefix("wal_005/")?.strip_suffix(".zst")?.to_owned())).collect()
}

#[test]
fn nothing_is_copied_of_a_timeline_whose_history_conflicts_or_of_its_descendants() {
    let (source, target) = (three_timelines(), new_archive());
    hold(&target, "00000002.history", &history(5).1);
    let before = everything(target.as_ref());
    let made = run_blind(&source, &target);
    let found: Vec<_> = made.findings.iter().map(|found| (found.kind, found.name.clone())).collect();
    assert_eq!(found, [(FindingKind::Conflict, "00000002.history".to_owned())]);
    let words = "nothing of timeline 2 and of its descendants was copied";
    assert!(made.findings[0].reason.contains(words), "{:?}", made.findings);
    assert_eq!((made.listed, made.seen, made.copied, made.held_back), (7, 7, 1, 5), "{made:?}");
    assert_eq!(held(&target), ["00000001000000000000000A", "00000002.history"]);
    assert!(before.iter().all(|object| everything(target.as_ref()).contains(object)));
}

#[test]
fn nothing_is_copied_of_a_timeline_whose_history_cannot_be_copied() {
    let (source, target) = (three_timelines(), new_archive());
    let key = Key::parse("wal_005/00000003.history.zst").unwrap();
    let damaged = object("00000003.history", THIRD);
    source.delete(&key).unwrap();
    put(&source, key.as_str(), &damaged[..20]); // of its trailer nothing is left
    let made = run_blind(&source, &target);
    assert_eq!((made.findings.len(), made.held_back), (1, 2), "{made:?}");
    assert!(held(&target).iter().all(|name| !name.starts_with("00000003")), "{:?}", held(&target));
    // A good one at the destination serves,
    hold(&target, "00000003.history", THIRD);
    let made = run_blind(&source, &target);
    assert_eq!((made.findings.len(), made.held_back, made.copied), (1, 0, 2), "{made:?}");
    // but not where the source's was another one by what is left of it.
    let (source, target) = (three_timelines(), new_archive());
    source.delete(&key).unwrap();
    let mut damaged = object("00000003.history", b"1\t0/0000002\tx\n");
    damaged[20] ^= 1;
    put(&source, key.as_str(), &damaged);
    hold(&target, "00000003.history", THIRD);
    let made = run_blind(&source, &target);
    assert_eq!((made.findings.len(), made.held_back, made.copied), (1, 2, 4), "{made:?}");
}

#[test]
fn nothing_is_copied_of_a_timeline_whose_history_could_not_be_stored() {
    let (source, target) = (three_timelines(), new_archive());
    let plan = |request: Asked, key: &str| match request {
        Asked::Create if key == "wal_005/00000002.history.zst" => Fault::Before(Kind::TimedOut),
        _ => Fault::None,
    };
    let to: Shared = Arc::new(Faulty::new(target.clone(), Box::new(plan)));
    let from = source as Shared;
    let made = copy(&Request { checks: Checks::NoHeader, ..request(&from, &to) }).unwrap();
    assert_eq!(made.failures.len(), 1, "{made:?}");
    assert_eq!(held(&target), ["00000001000000000000000A"]);
}

#[test]
fn a_timeline_without_a_history_at_either_end_is_copied() {
    let (source, target) = (new_archive(), new_archive());
    hold(&source, "00000002000000000000000A", &[7; 1 << 20]);
    hold(&source, "00000003000000000000000A", &[7; 1 << 20]);
    hold(&target, "00000003.history", THIRD);
    let made = run_blind(&source, &target);
    assert!(made.findings.is_empty() && made.failures.is_empty(), "{made:?}");
    assert_eq!((made.copied, made.held_back), (2, 0));
}

#[test]
fn a_timelines_history_is_given_only_to_files_of_which_one_at_least_is_the_sources() {
    let lost = |same: bool| {
        let (source, target) = (three_timelines(), new_archive());
        hold(&target, "00000002000000000000000A", if same { &[7; 1 << 20] } else { &[9; 1 << 20] });
        (run_blind(&source, &target), held(&target))
    };
    let (made, held) = lost(true);
    assert!(made.findings.is_empty() && held.contains(&"00000002.history".to_owned()), "{made:?}");
    let (made, held) = lost(false);
    assert_eq!(held, ["00000001000000000000000A", "00000002000000000000000A"]);
    let words = ["of timeline 2", "no history"];
    let says = |found: &Finding| words.iter().all(|word| found.reason.contains(word));
    assert!(made.findings.iter().any(says), "{made:?}");
    assert_eq!((made.findings.len(), made.held_back), (1, 5), "{made:?}");
}

#[test]
fn a_history_that_was_moved_aside_at_the_destination_is_brought_back() {
    let (source, target) = (three_timelines(), new_archive());
    hold(&target, "00000002000000000000000A", &[9; 1 << 20]);
    put(&target, "quarantine/00000002.history.0123456789abcdef", &object("00000002.history", &history(2).1));
    let made = run_blind(&source, &target);
    // The segment is told by itself.
    let found: Vec<_> = made.findings.iter().map(|found| found.name.clone()).collect();
    assert_eq!(found, ["00000002000000000000000A"], "{made:?}");
    assert!(held(&target).contains(&"00000002.history".to_owned()));
}
