//! The contract of [`super::Storage`] as a suite that every backend and wrapper must pass.

// A test suite in library form: a broken expectation must stop the test that runs it.
#![allow(clippy::expect_used, clippy::missing_panics_doc)]

use super::{Body, Entry, Kind, Object, Range, Shared};
use crate::object::Key;
use std::io::Read;
use std::sync::Barrier;

/// Runs the whole suite; `fresh` makes an empty store each time it is called.
pub fn run(fresh: &dyn Fn() -> Shared) {
    what_is_created_reads_back_whole_and_in_parts(fresh());
    an_existing_object_is_never_touched(fresh());
    of_racing_creators_exactly_one_wins(fresh());
    what_is_not_there_is_not_found(fresh());
    deleting_is_idempotent(fresh());
    a_fingerprint_changes_with_the_object(fresh());
    a_listing_is_sorted_complete_and_bounded(fresh());
    a_listing_of_more_than_a_page_is_complete(fresh());
    look_alike_neighbours_are_told_apart(fresh());
    many_readers_at_once_get_the_same_bytes(fresh());
}

fn key(text: &str) -> Key {
    Key::parse(text).expect("a valid key")
}

fn bytes(object: Object) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut body = object.body;
    body.read_to_end(&mut bytes).expect("the body reads to its end");
    bytes
}

fn create(store: &Shared, at: &str, content: &[u8]) {
    store.create(&key(at), &Body::from(content.to_vec())).expect("created");
}

fn read(store: &Shared, at: &str) -> Vec<u8> {
    bytes(store.get(&key(at), Range::Whole).expect("it is there"))
}

fn keys(store: &Shared, prefix: &str, after: &str) -> Vec<String> {
    let entries = store.list(prefix, after).expect("a listing");
    entries.map(|entry| entry.expect("an entry").key).collect()
}

fn what_is_created_reads_back_whole_and_in_parts(store: Shared) {
    let large: Vec<u8> = (0..3_000_001u32).map(|i| (i ^ (i >> 9)) as u8).collect();
    for (at, content) in [("wal_005/empty", &[][..]), ("wal_005/small", b"12345"), ("large", &large)] {
        create(&store, at, content);
        assert!(read(&store, at) == content, "{at}");
        let Entry { key: name, size, modified } = store.head(&key(at)).expect("head");
        assert_eq!((name.as_str(), size), (at, content.len() as u64));
        let ranges = [1, 3, 256, 10_000_000]
            .map(|count| [Range::First(count), Range::Last(count), Range::From(count)]);
        for range in ranges.into_iter().flatten().chain([Range::From(0), Range::From(size)]) {
            let object = store.get(&key(at), range).expect("a range");
            assert_eq!((object.size, object.modified), (size, modified), "of the whole object");
            let part = range.start(size) as usize..range.end(size) as usize;
            assert!(bytes(object) == content.get(part).unwrap_or_default(), "{at}, {range:?}");
        }
        store.make_durable(&key(at)).expect("made durable");
    }
}

fn an_existing_object_is_never_touched(store: Shared) {
    create(&store, "wal_005/a", b"first");
    for second in [&b"second"[..], b"first", b""] {
        let error = store.create(&key("wal_005/a"), &Body::from(second.to_vec()));
        assert_eq!(error.expect_err("taken").kind(), Kind::AlreadyExists);
        assert_eq!(read(&store, "wal_005/a"), b"first");
    }
    assert_eq!(keys(&store, "wal_005/", ""), ["wal_005/a"], "nothing else became visible");
}

fn of_racing_creators_exactly_one_wins(store: Shared) {
    for round in 0..25 {
        let at = key(&format!("wal_005/round-{round}"));
        let contents: Vec<Vec<u8>> = (0..8u8).map(|id| vec![id; 100_000]).collect();
        let start = Barrier::new(contents.len());
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = contents
                .iter()
                .map(|content| {
                    scope.spawn(|| {
                        let body = Body::from(content.clone());
                        start.wait();
                        store.create(&at, &body)
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().expect("no panic")).collect()
        });
        let mut winner = None;
        for (outcome, content) in outcomes.into_iter().zip(&contents) {
            match outcome {
                Ok(()) => assert!(winner.replace(content).is_none(), "two winners in round {round}"),
                Err(error) => assert_eq!(error.kind(), Kind::AlreadyExists, "{error}"),
            }
        }
        assert!(&read(&store, at.as_str()) == winner.expect("a winner"), "round {round}");
    }
}

fn what_is_not_there_is_not_found(store: Shared) {
    for round in 0..2 {
        for at in ["archive.json", "wal_005/missing", "wal_005/taken.zst"] {
            assert_eq!(store.get(&key(at), Range::Whole).err().expect("none").kind(), Kind::NotFound, "{at}");
            assert_eq!(
                store.get(&key(at), Range::Last(9)).err().expect("none").kind(),
                Kind::NotFound,
                "{at}"
            );
            assert_eq!(store.head(&key(at)).expect_err("none").kind(), Kind::NotFound, "{at}");
        }
        // Once with an empty store, once with neighbours.
        if round == 0 {
            create(&store, "wal_005/taken", b"x");
        }
    }
}

fn a_fingerprint_changes_with_the_object(store: Shared) {
    create(&store, "wal_005/a", b"first");
    let at = key("wal_005/a");
    let shown = || store.fingerprint(&at).expect("a fingerprint");
    let before = shown();
    assert_eq!(before.is_some(), store.nature().is_directory(), "what may vanish shows what is there");
    assert_eq!(shown(), before);
    if before.is_some() {
        store.delete(&at).expect("deleted");
        assert_eq!(store.fingerprint(&at).expect_err("gone").kind(), Kind::NotFound);
        create(&store, "wal_005/a", b"first");
        assert_ne!(shown(), before, "another object of the same content");
    }
    store.clock().expect("a clock");
}

fn deleting_is_idempotent(store: Shared) {
    store.delete(&key("wal_005/never")).expect("nothing to delete is success");
    create(&store, "wal_005/a", b"x");
    create(&store, "wal_005/ab", b"y");
    for _ in 0..2 {
        store.delete(&key("wal_005/a")).expect("deleted");
    }
    assert_eq!(keys(&store, "wal_005/", ""), ["wal_005/ab"]);
    create(&store, "wal_005/a", b"again");
    assert_eq!(read(&store, "wal_005/a"), b"again");
    store.delete_all(&[]).expect("nothing is deleted");
    let all = [key("wal_005/a"), key("wal_005/never"), key("wal_005/ab")];
    store.delete_all(&all).expect("all are deleted");
    assert_eq!(keys(&store, "wal_005/", ""), [""; 0]);
}

fn a_listing_is_sorted_complete_and_bounded(store: Shared) {
    assert_eq!(keys(&store, "", ""), [""; 0]);
    assert_eq!(keys(&store, "wal_005/", ""), [""; 0]);
    for at in
        ["wal_005/b", "wal_005/a", "wal_005/B", "wal_005/a.x", "wal_005/aa", "wal_006/z", "top", "wal_004"]
    {
        create(&store, at, at.as_bytes());
    }
    let all = ["wal_005/B", "wal_005/a", "wal_005/a.x", "wal_005/aa", "wal_005/b"];
    assert_eq!(keys(&store, "wal_005/", ""), all);
    assert_eq!(keys(&store, "wal_005/a", ""), ["wal_005/a", "wal_005/a.x", "wal_005/aa"]);
    assert_eq!(keys(&store, "wal_005/", "wal_005/a.x"), ["wal_005/aa", "wal_005/b"]);
    assert_eq!(keys(&store, "wal_005/", "wal_005/a.w"), ["wal_005/a.x", "wal_005/aa", "wal_005/b"]);
    assert_eq!(keys(&store, "wal_005/", "archive.json"), all);
    assert_eq!(keys(&store, "wal_005/", "wal_006/"), [""; 0]);
    assert_eq!(keys(&store, "wal_005/c", ""), [""; 0]);
    assert_eq!(keys(&store, "", ""), ["top", "wal_004"], "folders are not descended into");
    create(&store, "wal_005/d/e/f", b"");
    assert_eq!(store.folders("").expect("folders"), ["wal_005", "wal_006"]);
    assert_eq!(store.folders("wal_005/").expect("folders"), ["d"]);
    assert_eq!(store.folders("nowhere/").expect("folders"), [""; 0]);
    assert_eq!(keys(&store, "wal_005/", ""), all);
    for prefix in ["wal_005/", "wal_005/a", "wal_005/c", "", "nowhere/"] {
        let entries = store.list_unordered(prefix).expect("a listing");
        let mut unordered: Vec<String> = entries.map(|entry| entry.expect("an entry").key).collect();
        unordered.sort();
        assert_eq!(unordered, keys(&store, prefix, ""), "{prefix}");
    }
    let entry = store.list("wal_005/a.", "").expect("a listing").next().expect("one").expect("an entry");
    assert_eq!(entry.size, 11);
}

fn a_listing_of_more_than_a_page_is_complete(store: Shared) {
    let mut expected: Vec<String> = (0..1_203).map(|i| format!("wal_005/{:05}", i * 7 % 1_203)).collect();
    for at in &expected {
        create(&store, at, b"");
    }
    expected.sort();
    assert_eq!(keys(&store, "wal_005/", ""), expected);
    // More than one request may carry.
    let all: Vec<Key> = expected.iter().skip(100).map(|at| key(at)).collect();
    store.delete_all(&all).expect("deleted");
    assert_eq!(keys(&store, "wal_005/", ""), expected.get(..100).unwrap_or_default());
    // A caller that stops early must not block or leak anything.
    let mut entries = store.list("wal_005/", "").expect("a listing");
    assert_eq!(entries.next().expect("one").expect("an entry").key, "wal_005/00000");
}

fn look_alike_neighbours_are_told_apart(store: Shared) {
    let names = [
        "wal_005/00000001000000000000001B.zst",
        "wal_005/00000001000000000000001B.partial.zst",
        "wal_005/00000001000000000000001B.zst.bak",
        "wal_005/00000001000000000000001b.zst",
        "00000001000000000000001B.zst",
        "wal_005x",
    ];
    for at in names {
        create(&store, at, at.as_bytes());
    }
    for at in names {
        assert_eq!(read(&store, at), at.as_bytes());
    }
    store.delete(&key("wal_005/00000001000000000000001B.zst")).expect("deleted");
    let gone = store.head(&key("wal_005/00000001000000000000001B.zst"));
    assert_eq!(gone.expect_err("deleted").kind(), Kind::NotFound);
    assert_eq!(keys(&store, "wal_005/", "").len(), 3);
}

fn many_readers_at_once_get_the_same_bytes(store: Shared) {
    let content: Vec<u8> = (0..700_000u32).map(|i| (i >> 3) as u8).collect();
    create(&store, "wal_005/shared", &content);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(read(&store, "wal_005/shared") == content));
        }
    });
}
