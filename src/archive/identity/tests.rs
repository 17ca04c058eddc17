use super::*;
use crate::object::encode;
use crate::storage::faulty::{Fault, Faulty, Request};
use crate::storage::local::Local;
use crate::storage::memory::Memory;
use crate::storage::{Body, Shared};
use crate::wal::WalName;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const ID: SystemId = SystemId(7);

fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

fn identity_of(foreign: bool) -> Identity {
    Identity { system_id: ID, segment_size: size(), foreign, encryption: Encryption::None }
}

fn claimant() -> Claimant {
    Claimant { system_id: Some(ID), segment_size: Some(size()), checks: Checks::Header }
}

fn put(storage: &dyn Storage, key: &str, bytes: Vec<u8>) {
    storage.create(&Key::parse(key).unwrap(), &Body::from(bytes)).unwrap();
}

/// A raw segment, as `cp` stores it.
fn segment(number: u64) -> (String, Vec<u8>) {
    let mut bytes = vec![0; 1 << 20];
    bytes[0..2].copy_from_slice(&0xD110u16.to_le_bytes());
    bytes[2] = 6;
    bytes[4] = 1;
    bytes[8..16].copy_from_slice(&(number << 20).to_le_bytes());
    bytes[24..32].copy_from_slice(&ID.0.to_le_bytes());
    bytes[32..36].copy_from_slice(&(1u32 << 20).to_le_bytes());
    bytes[36..40].copy_from_slice(&8192u32.to_le_bytes());
    (format!("0000000100000000{number:08X}"), bytes)
}

/// An object of this program.
fn own(number: u64) -> (String, Vec<u8>) {
    let (name, content) = segment(number);
    let mut bytes = Vec::new();
    let of: WalName = name.parse().unwrap();
    encode(of, content.len() as u64, Some(ID), 1, &mut &content[..], &mut bytes).unwrap();
    (format!("{name}.zst"), bytes)
}

/// `inner`, where another program acts after so many reads of `archive.json`.
fn meanwhile(inner: &Arc<Memory>, after: usize, acts: impl Fn(&Memory) + Send + Sync + 'static) -> Faulty {
    let (memory, reads) = (Arc::clone(inner), AtomicUsize::new(0));
    let plan = move |request, key: &str| {
        let now = request == Request::Get && key == "archive.json";
        if now && reads.fetch_add(1, Ordering::Relaxed) + 1 == after {
            acts(&memory);
            return Fault::Before(Kind::NotFound); // what the store would have said before
        }
        Fault::None
    };
    Faulty::new(Arc::clone(inner) as Shared, Box::new(plan))
}

fn place_of(outcome: std::result::Result<Identity, Refusal>) -> String {
    match outcome {
        Err(Refusal::NoArchive(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn whoever_comes_second_to_a_new_archive_uses_the_one_that_is_there() {
    let now = SystemTime::now();
    let made = |memory: &Memory| put(memory, "archive.json", identity_of(true).write());
    for foreign_wal in [true, false] {
        // The other's archive.json appears right after we saw that there is none.
        let memory = Arc::new(Memory::default());
        if foreign_wal {
            let (name, bytes) = segment(1);
            put(memory.as_ref(), &format!("wal_005/{name}"), bytes);
        }
        assert_eq!(claim(&meanwhile(&memory, 1, made), &claimant(), None, now).unwrap(), identity_of(true));
        let memory = Arc::new(Memory::default());
        let storage = meanwhile(&memory, 1, made);
        assert_eq!(init(&storage, ID, size(), Checks::Header).unwrap(), Made::There);
    }
}

#[test]
fn a_spool_that_another_push_has_just_written_to_refuses_nothing() {
    let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
    let spool = Spool::open(folder.path().join("spool")).unwrap();
    let memory = Arc::new(Memory::default());
    let other = spool.clone();
    let acts = move |memory: &Memory| {
        put(memory, "archive.json", identity_of(false).write());
        other
            .remember(&memory.address(), &Fresh { identity: identity_of(false), writable: true }, now)
            .unwrap();
    };
    // By its age the memory saves no question here.
    let late = now - std::time::Duration::from_secs(60);
    let storage = meanwhile(&memory, 1, acts);
    assert_eq!(claim(&storage, &claimant(), Some(&spool), late).unwrap(), identity_of(false));
}

#[test]
fn only_other_tools_files_make_a_push_take_over() {
    let now = SystemTime::now();
    let with = |files: Vec<(String, Vec<u8>)>| {
        let memory = Memory::default();
        files.into_iter().for_each(|(key, bytes)| put(&memory, &key, bytes));
        memory
    };
    let below = |(name, bytes): (String, Vec<u8>)| (format!("wal_005/{name}"), bytes);
    for files in [vec![], vec![("wal_005/notes".to_owned(), vec![1])], vec![below(own(1))]] {
        let memory = with(files);
        let told = place_of(claim(&memory, &claimant(), None, now));
        assert_eq!(told, "\"memory\" is not an archive: it has no \"archive.json\"");
        assert_eq!(identity(&memory).unwrap(), None);
    }
    for files in [vec![below(segment(1))], vec![segment(1)], vec![below(own(1)), segment(2)]] {
        let memory = with(files);
        assert_eq!(claim(&memory, &claimant(), None, now).unwrap(), identity_of(true));
        assert_eq!(identity(&memory).unwrap(), Some(identity_of(true)));
    }
    // Whose file it is has to be known.
    let memory = with(vec![segment(1)]);
    let nobody = Claimant { system_id: None, ..claimant() };
    place_of(claim(&memory, &nobody, None, now));
    let unchecked = Claimant { checks: Checks::NoHeader, ..claimant() };
    place_of(claim(&memory, &unchecked, None, now));
    assert_eq!(identity(&memory).unwrap(), None);
}

#[test]
fn what_a_bucket_does_not_show_is_not_made_by_a_push_but_by_init() {
    // Without the right to list, S3 refuses a key that is not there.
    let memory = Arc::new(Memory::default());
    let reader = Arc::clone(&memory);
    let plan = move |request, key: &str| match request {
        Request::List => Fault::Before(Kind::Denied),
        Request::Get if reader.head(&Key::parse(key).unwrap()).is_err() => Fault::Before(Kind::Denied),
        _ => Fault::None,
    };
    let storage = Faulty::new(Arc::clone(&memory) as Shared, Box::new(plan));
    match claim(&storage, &claimant(), None, SystemTime::now()) {
        Err(Refusal::NoArchive(error)) => {
            assert!(error.hint_text().unwrap().ends_with("run: wal-archive init memory"), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(identity(memory.as_ref()).unwrap(), None);
    assert_eq!(init(&storage, ID, size(), Checks::Header).unwrap(), Made::New);
    claim(&storage, &claimant(), None, SystemTime::now()).unwrap();
}

#[test]
fn a_store_that_answers_not_found_and_lists_nothing_gets_no_archive_by_a_push_either() {
    let plan = |request, _: &str| match request {
        Request::List => Fault::Before(Kind::Denied),
        _ => Fault::None,
    };
    let storage = Faulty::new(Arc::new(Memory::default()), Box::new(plan));
    place_of(claim(&storage, &claimant(), None, SystemTime::now()));
    assert_eq!(identity(&storage).unwrap(), None);
}

#[test]
fn a_survey_ends_after_its_samples() {
    let memory = Memory::default();
    for number in 0..200 {
        let (name, bytes) = segment(number);
        put(&memory, &format!("wal_005/{name}"), bytes);
    }
    let held = survey::survey(&memory, Checks::Header).unwrap();
    assert!(held.more && held.foreign && held.system_id == Some(ID));
    // Where all that was seen is ours, what was not seen may be another tool's.
    let folder = tempfile::tempdir().unwrap();
    let local = Local::new(folder.path().to_owned());
    for number in 0..20 {
        let (name, bytes) = own(number);
        put(&local, &format!("wal_005/{name}"), bytes);
    }
    let held = survey::survey(&local, Checks::Header).unwrap();
    assert!(held.more && !held.foreign);
    assert_eq!(init(&local, ID, size(), Checks::Header).unwrap(), Made::New);
    assert_eq!(identity(&local).unwrap(), Some(identity_of(true)));
}
