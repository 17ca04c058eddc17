//! The whole command, over archives.

use super::*;
use crate::expire::plan::{Rules, plan};
use crate::object::encode;
use crate::storage::Body;
use crate::storage::faulty::{Fault, Faulty, Request};
use crate::storage::memory::Memory;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

fn put(memory: &Memory, key: &str, bytes: &[u8]) {
    memory.create(&Key::parse(key).unwrap(), &Body::from(bytes.to_vec())).unwrap();
}

fn text_object(file: &str, content: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(file.parse().unwrap(), content.len() as u64, None, 1, &mut content.as_bytes(), &mut bytes)
        .unwrap();
    bytes
}

/// Timelines 1 and 2, a backup in segment 8 of the first, and one of everything else.
fn archive() -> Arc<Memory> {
    let memory = Memory::default();
    put(
        &memory,
        "archive.json",
        b"{\"wal-archive\":1,\"system_id\":\"7\",\"segment_size\":1048576,\"foreign\":true}\n",
    );
    put(&memory, "wal-archive-probe", b"x");
    for number in 0..12 {
        put(&memory, &format!("wal_005/{}.zst", name(&(1, number))), b"segment");
    }
    put(&memory, "000000020000000000000006.gz", b"segment");
    put(&memory, "wal_005/000000020000000000000009.lz4", b"segment");
    put(&memory, "wal_005/000000010000000000000003.gpg", b"secret");
    put(&memory, "wal_005/000000010000000000000002.partial.zst", b"partial");
    put(&memory, "wal_005/000000010000000000000002.partial.0123456789abcdef.zst", b"partial");
    put(&memory, "wal_005/notes.txt", b"mine");
    put(&memory, "basebackups_005/000000010000000000000001.zst", b"theirs");
    put(&memory, "quarantine/000000010000000000000001.0123456789abcdef", b"damaged");
    put(&memory, "wal_005/00000002.history.zst", &text_object("00000002.history", "1\t0/600000\twhy\n"));
    for (start, label) in [(1, "other"), (8, "nightly")] {
        let file = format!("{}.00000028.backup", name(&(1, start)));
        let content = format!(
            "START WAL LOCATION: 0/{start}00028 (file {segment})\nSTOP WAL LOCATION: 0/{start}00100 (file {segment})\n\
             CHECKPOINT LOCATION: 0/{start}00060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
             START TIME: 2026-11-20 21:05:43 UTC\nLABEL: {label}\nSTART TIMELINE: 1\n\
             STOP TIME: 2026-11-20 21:05:44 UTC\nSTOP TIMELINE: 1\n",
            segment = name(&(1, start))
        );
        put(&memory, &format!("wal_005/{file}.zst"), &text_object(&file, &content));
    }
    memory.advance(Duration::from_secs(3600));
    Arc::new(memory)
}

fn keys(storage: &dyn Storage) -> BTreeSet<String> {
    let folders = ["", "wal_005/", "quarantine/", "basebackups_005/"];
    let list = |folder| storage.list(folder, "").unwrap().map(|entry| entry.unwrap().key).collect::<Vec<_>>();
    folders.into_iter().flat_map(list).collect()
}

#[test]
fn of_an_archive_only_wal_goes_that_no_kept_backup_needs() {
    let memory = archive();
    let destinations: Vec<Shared> = vec![memory.clone()];
    let archive = look(&destinations).unwrap();
    let named = archive.labelled(&["night*".to_owned()]).unwrap();
    assert_eq!(archive.unread, 1);
    let made = plan(&archive.facts, &[], named, &Rules::default(), SystemTime::now()).unwrap();
    let ranges = doomed(memory.as_ref(), &made).unwrap();
    let shown: Vec<_> =
        ranges.iter().map(|range| (range.first.to_string(), range.last.to_string(), range.objects)).collect();
    let segment = |file| name(&file).to_string();
    assert_eq!(
        shown,
        [(segment((1, 0)), segment((1, 7)), 8 + 2 + 1), (segment((2, 6)), segment((2, 6)), 1)],
        "eight segments, two partial ones, a backup history file"
    );
    let before = keys(memory.as_ref());
    let told = Cell::new(0);
    let deleted =
        apply(memory.as_ref(), &made, SystemTime::now(), &|keys| told.set(told.get() + keys.len())).unwrap();
    assert_eq!((deleted, told.get()), (12, 12));
    let gone: Vec<_> = before.difference(&keys(memory.as_ref())).cloned().collect();
    assert_eq!(gone.len(), 12);
    assert!(gone.contains(&"000000020000000000000006.gz".to_owned()));
    for left in ["archive.json", "wal-archive-probe", "wal_005/notes.txt", "wal_005/00000002.history.zst"] {
        assert!(!gone.contains(&left.to_owned()), "{left}");
    }
    assert_eq!(
        apply(memory.as_ref(), &made, SystemTime::now(), &|_| {}).unwrap(),
        0,
        "the repeat has nothing to do"
    );
}

#[test]
fn interrupted_at_any_request_the_repeat_finishes() {
    for interrupted in 0..3 {
        let memory = archive();
        let looked = look(&[memory.clone() as Shared]).unwrap();
        let named = || looked.labelled(&["nightly".to_owned()]).unwrap();
        let made = plan(&looked.facts, &[], named(), &Rules::default(), SystemTime::now()).unwrap();
        let count = std::sync::atomic::AtomicUsize::new(0);
        let plan_of_faults = move |_: Request, _: &str| match count
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
            == interrupted
        {
            true => Fault::After(crate::storage::Kind::TimedOut),
            false => Fault::None,
        };
        let faulty = Faulty::new(memory.clone(), Box::new(plan_of_faults));
        apply(&faulty, &made, SystemTime::now(), &|_| {}).unwrap_err();
        apply(memory.as_ref(), &made, SystemTime::now(), &|_| {}).unwrap();
        assert!(doomed(memory.as_ref(), &made).unwrap().is_empty());
        assert!(keys(memory.as_ref()).contains(&format!("wal_005/{}.zst", name(&(1, 8)))));
    }
}

#[test]
fn what_cannot_be_listed_or_read_ends_it_before_anything_is_deleted() {
    let memory = archive();
    let down = |_: Request, key: &str| match key {
        "wal_005/" => Fault::Before(crate::storage::Kind::Unavailable),
        _ => Fault::None,
    };
    let faulty: Shared = Arc::new(Faulty::new(memory.clone(), Box::new(down)));
    assert!(look(&[memory.clone(), faulty]).is_err(), "one of two destinations does not answer");
    let file = format!("wal_005/{}.00000028.backup.zst", name(&(1, 5)));
    put(&memory, &file, b"junk");
    let archive = look(&[memory.clone() as Shared]).unwrap();
    let refused = archive.labelled(&["nightly".to_owned()]).unwrap_err();
    assert!(refused.message.contains("nothing may be deleted"), "{refused}");
    assert!(refused.hint.unwrap().contains("quarantine"));
    // Another destination has it.
    let other = Memory::default();
    put(
        &other,
        "archive.json",
        b"{\"wal-archive\":1,\"system_id\":\"7\",\"segment_size\":1048576,\"foreign\":true}\n",
    );
    let name = format!("{}.00000028.backup", name(&(1, 5)));
    let content = "START WAL LOCATION: 0/500028 (file 000000010000000000000005)\nSTOP WAL LOCATION: 0/500100 (file \
                   000000010000000000000005)\nSTART TIME: 2026-11-20 21:05:43 UTC\nLABEL: nightly\nSTOP TIME: \
                   2026-11-20 21:05:44 UTC\n";
    put(&other, &file, &text_object(&name, content));
    let archive = look(&[memory as Shared, Arc::new(other)]).unwrap();
    let named = archive.labelled(&["nightly".to_owned()]).unwrap();
    assert_eq!(named.len(), 2);
    let stranger = Memory::default();
    put(
        &stranger,
        "archive.json",
        b"{\"wal-archive\":1,\"system_id\":\"8\",\"segment_size\":1048576,\"foreign\":true}\n",
    );
    assert!(look(&[self::archive() as Shared, Arc::new(stranger)]).is_err(), "of another cluster");
}
