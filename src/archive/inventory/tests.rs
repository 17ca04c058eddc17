use super::*;
use crate::object::{Key, encode};
use crate::storage::faulty::{Fault, Faulty, Request};
use crate::storage::memory::Memory;
use crate::storage::{Body, Kind, Shared};
use std::sync::Arc;

const BACKUP: &str = "START WAL LOCATION: 0/500028 (file 000000010000000000000005)
STOP WAL LOCATION: 0/600050 (file 000000010000000000000006)
CHECKPOINT LOCATION: 0/500060
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-20 21:05:43 UTC
LABEL: nightly
START TIMELINE: 1
STOP TIME: 2026-11-20 21:05:44 UTC
STOP TIMELINE: 1
";

fn create(storage: &dyn Storage, key: &str, bytes: &[u8]) {
    storage.create(&Key::parse(key).unwrap(), &Body::from(bytes.to_vec())).unwrap();
}

fn object(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(name.parse().unwrap(), content.len() as u64, None, 1, &mut &content[..], &mut bytes).unwrap();
    bytes
}

fn archive(segments: &[&str], texts: &[(&str, &str)]) -> Memory {
    let memory = Memory::default();
    let identity = Identity {
        system_id: SystemId(7),
        segment_size: SegmentSize::new(1 << 20).unwrap(),
        foreign: false,
        encryption: Encryption::None,
    };
    create(&memory, "archive.json", &identity.write());
    for segment in segments {
        create(&memory, &format!("wal_005/{segment}.zst"), b"12345");
    }
    for (name, text) in texts {
        create(&memory, &format!("wal_005/{name}.zst"), &object(name, text.as_bytes()));
    }
    memory
}

fn tli(id: u32) -> Timeline {
    Timeline::new(id).unwrap()
}

fn gap(timeline: u32, first: u64, last: u64) -> Gap {
    Gap { timeline: tli(timeline), first, last }
}

fn gaps(inventory: &Inventory, timeline: u32) -> Vec<(u64, u64)> {
    inventory.timelines[&tli(timeline)].segments.gaps().collect()
}

#[test]
fn segments_timelines_and_backups_are_told_apart_from_strangers() {
    let memory = archive(
        &[
            "000000010000000000000005",
            "000000010000000000000006",
            "000000010000000000000009",
            "000000010000000000000009.partial",
            "00000002000000000000000A",
            "000000010000000000001000",
        ],
        &[("00000002.history", "1\t0/980000\tx\n"), ("000000010000000000000005.00000028.backup", BACKUP)],
    );
    create(&memory, "wal_005/000000010000000000000006", b"abc");
    create(&memory, "wal_005/00000001000000000000000A.gpg", b"1");
    create(&memory, "wal_005/000000010000000000000009.0123456789abcdef.zst", b"1");
    create(&memory, "wal_005/README", b"1234567");
    let inventory = Inventory::read(&memory).unwrap();
    assert_eq!((inventory.system_id, inventory.timelines.len()), (Some(SystemId(7)), 2));
    let first = &inventory.timelines[&tli(1)];
    assert_eq!(first.segments.ranges().collect::<Vec<_>>(), [(5, 6), (9, 10)]);
    assert_eq!(gaps(&inventory, 1), [(7, 8)]);
    assert_eq!(first.unread.ranges().collect::<Vec<_>>(), [(10, 10)]);
    let partials: Vec<_> = first.partials[&9].iter().filter_map(|item| item.stored.title()).collect();
    assert_eq!(partials, ["000000010000000000000009.0123456789abcdef", "000000010000000000000009.partial"]);
    assert_eq!(first.stored, Total { objects: 5, bytes: 3 * 5 + 3 + 1 });
    assert!(first.times.is_some() && first.history.is_none());
    let history = inventory.timelines[&tli(2)].history.as_ref().unwrap().as_ref().unwrap();
    assert_eq!(history.ancestors[0].timeline, tli(1));
    assert_eq!(inventory.variants.len(), 1);
    // 4096 segments of 1 MiB share the first part of a name.
    let strangers: Vec<_> = inventory.strangers.iter().map(|item| item.key.as_str()).collect();
    assert_eq!(strangers, ["wal_005/000000010000000000001000.zst", "wal_005/README"]);
    assert_eq!(inventory.strangers_total, Total { objects: 2, bytes: 12 });
    assert_eq!(inventory.unknown_total.objects, 1);
    let [backup] = &inventory.backups[..] else { panic!("{:?}", inventory.backups) };
    assert_eq!(backup.content.as_ref().unwrap().label, "nightly");
    assert_eq!(inventory.missing_of(backup), Ok(vec![]));
    assert!(inventory.holds("00000002000000000000000A".parse().unwrap()));
    assert!(!inventory.holds("000000020000000000000009".parse().unwrap()));
}

#[test]
fn what_a_branch_asks_for_is_missing_from_the_timeline_that_serves_it() {
    let memory = archive(
        &["000000010000000000000003", "000000010000000000000006", "000000020000000000000008"],
        &[("00000002.history", "1\t0/680000\tx\n")],
    );
    let inventory = Inventory::read(&memory).unwrap();
    let branch = inventory.branch(tli(2)).unwrap();
    let missing = inventory.missing(&branch, 3, 9);
    assert_eq!(missing, [gap(1, 4, 5), gap(2, 6, 7), gap(2, 9, 9)]);
    assert_eq!(inventory.missing(&branch, 3, 3), []);
}

#[test]
fn a_history_file_that_cannot_be_read_is_kept_as_such() {
    let memory = archive(&["000000010000000000000005"], &[]);
    create(&memory, "wal_005/00000002.history.zst", b"junk");
    create(&memory, "wal_005/00000003.history.gpg", b"junk");
    let other = "000000010000000000000004.00000028.backup";
    create(&memory, &format!("wal_005/{other}.zst"), &object(other, BACKUP.as_bytes()));
    create(&memory, "wal_005/000000010000000000000005.00000028.backup", BACKUP.as_bytes());
    create(&memory, "wal_005/000000010000000000000005.00000028.backup.zst", b"junk");
    let inventory = Inventory::read(&memory).unwrap();
    let unreadable = |id| inventory.branch(tli(id)).unwrap_err();
    assert_eq!((unreadable(2).damaged, unreadable(2).key.as_str()), (true, "wal_005/00000002.history.zst"));
    assert!(!unreadable(3).damaged && unreadable(3).reason.contains("encoding"));
    assert!(inventory.branch(tli(4)).is_ok(), "a missing one means no ancestors");
    let [wrong, right] = &inventory.backups[..] else { panic!("{:?}", inventory.backups) };
    assert!(wrong.content.as_ref().unwrap_err().reason.contains("another backup"));
    assert!(inventory.missing_of(wrong).is_err());
    assert_eq!(right.content.as_ref().unwrap().label, "nightly", "the second copy is intact");
    assert_eq!(inventory.missing_of(right).unwrap(), [gap(1, 6, 6)]);
}

#[test]
fn an_archive_of_another_tool_tells_its_size_by_a_segment() {
    let memory = Memory::default();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/foreign/wal-g-lz4/wal_005");
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let key = format!("wal_005/{}", entry.file_name().into_string().unwrap());
        create(&memory, &key, &std::fs::read(entry.path()).unwrap());
    }
    create(&memory, "wal_005/000000010000000000000014.lz4", b"damaged");
    let inventory = Inventory::read(&memory).unwrap();
    assert_eq!(inventory.segment_size, SegmentSize::new(1 << 20));
    assert!(inventory.system_id.is_some() && inventory.identity.is_none());
    assert_eq!(gaps(&inventory, 1), [(0x16, 0x19)]);
    assert_eq!(inventory.branch(tli(2)).unwrap().timeline(), tli(2));
}

#[test]
fn where_nothing_tells_the_size_names_keep_their_order_and_gaps_are_not_claimed() {
    let memory = Memory::default();
    create(&memory, "wal_005/0000000100000000000000FF.gpg", b"1");
    create(&memory, "wal_005/000000010000000100000000.gpg", b"1");
    let inventory = Inventory::read(&memory).unwrap();
    assert_eq!(inventory.segment_size, None);
    let files = &inventory.timelines[&tli(1)];
    let name = |number: Option<u64>| inventory.name(tli(1), number.unwrap()).to_string();
    assert_eq!(name(files.segments.first()), "0000000100000000000000FF");
    assert_eq!(name(files.segments.last()), "000000010000000100000000");
    assert_eq!(inventory.missing(&Branch::without_history(tli(1)), 0, 9), []);
}

#[test]
fn an_empty_place_is_an_archive_only_where_its_identity_says_so() {
    assert!(Inventory::read(&Memory::default()).is_ok());
    let refused = Inventory::read_archive(&Memory::default()).unwrap_err();
    assert!(refused.to_string().contains("is not an archive"), "{refused}");
    assert!(Inventory::read_archive(&archive(&[], &[])).is_ok());
}

#[test]
fn a_listing_that_breaks_off_is_no_inventory() {
    let memory: Shared = Arc::new(archive(&["000000010000000000000005"], &[]));
    for folder in ["", "wal_005/"] {
        let plan = move |request, prefix: &str| match request == Request::List && prefix == folder {
            true => Fault::Before(Kind::Unavailable),
            false => Fault::None,
        };
        let faulty = Faulty::new(Arc::clone(&memory), Box::new(plan));
        assert_eq!(Inventory::read(&faulty).unwrap_err().kind(), Kind::Unavailable);
    }
}

#[test]
fn a_history_file_that_does_not_come_is_not_called_damaged() {
    let memory = archive(&[], &[("00000002.history", "1\t0/680000\tx\n")]);
    let plan = |request, key: &str| match request == Request::Get && key.contains("history") {
        true => Fault::Before(Kind::Denied),
        false => Fault::None,
    };
    let inventory = Inventory::read(&Faulty::new(Arc::new(memory), Box::new(plan))).unwrap();
    assert!(!inventory.branch(tli(2)).unwrap_err().damaged);
}

#[test]
fn what_stands_directly_under_the_prefix_of_our_own_bucket_is_told_and_not_counted_as_there() {
    let memory = archive(&["000000010000000000000005"], &[]);
    create(&memory, "000000010000000000000006", b"abc");
    let inventory = Inventory::read(&memory).unwrap();
    assert_eq!(inventory.misplaced_total, Total { objects: 1, bytes: 3 });
    assert!(!inventory.holds("000000010000000000000006".parse().unwrap()), "wal-fetch does not look there");
    // A directory is looked at there, too, before anything is called absent.
    let folder = tempfile::tempdir().unwrap();
    let directory = crate::storage::local::Local::new(folder.path().to_owned());
    for key in ["archive.json", "wal_005/000000010000000000000005.zst", "000000010000000000000006"] {
        let mut bytes = Vec::new();
        let read = memory.get(&Key::parse(key).unwrap(), crate::storage::Range::Whole).unwrap().body;
        std::io::Read::read_to_end(&mut { read }, &mut bytes).unwrap();
        create(&directory, key, &bytes);
    }
    let inventory = Inventory::read(&directory).unwrap();
    assert_eq!(inventory.misplaced_total.objects, 1);
    assert!(inventory.holds("000000010000000000000006".parse().unwrap()));
}

#[test]
fn what_expire_recorded_is_no_loss() {
    let memory = archive(&["000000010000000000000003", "000000010000000000000009"], &[]);
    let record = |first: &str, last: &str| {
        crate::object::Expired { ranges: vec![(first.parse().unwrap(), last.parse().unwrap())] }.write()
    };
    create(&memory, "expired/1.json", &record("000000010000000000000004", "000000010000000000000005"));
    create(&memory, "expired/2.json", &record("000000010000000000000007", "000000010000000000000007"));
    create(&memory, "expired/3.json", b"junk");
    let inventory = Inventory::read(&memory).unwrap();
    let gaps = Gaps { lost: vec![gap(1, 6, 6), gap(1, 8, 8)], expired: vec![gap(1, 4, 5), gap(1, 7, 7)] };
    assert_eq!(inventory.gaps_of(tli(1)), gaps);
    assert_eq!(inventory.unreadable_records.len(), 1);
    assert!(inventory.unreadable_records[0].damaged && inventory.is_expired(tli(1), 7));
}

#[test]
fn a_history_alone_requires_what_leads_to_its_timeline() {
    let last = |switch: &str, backup: bool| {
        let history = format!("1\t{switch}\tx\n");
        let start = "000000010000000000000002";
        let stop = "START WAL LOCATION: 0/200028 (file 000000010000000000000002)\n\
             STOP WAL LOCATION: 0/500100 (file 000000010000000000000005)\nLABEL: x\nSTART TIME: x\nSTOP TIME: x\n";
        let (history_name, backup_name) = ("00000002.history", format!("{start}.00000028.backup"));
        let mut texts = vec![(history_name, &*history)];
        texts.extend(backup.then_some((&*backup_name, stop)));
        let inventory = Inventory::read(&archive(&[start], &texts)).unwrap();
        let needs = needs(&inventory, &|_| true).into_iter().filter(|need| need.target() == tli(2));
        needs.map(|need| (need.first, need.last)).collect::<Vec<_>>()
    };
    assert_eq!(last("0/500000", false), [(2, 4)]);
    assert_eq!(last("0/500200", false), [(2, 4)], "its own first segment may not be archived so far");
    assert_eq!(last("0/600000", true), [(2, 5)]);
    assert_eq!(last("0/500200", true), [], "nor is then the end of the backup");
    assert_eq!(last("0/500000", true), [], "it left while the backup was taken");
}

#[test]
fn of_two_different_histories_none_is_believed() {
    let history = |switch: &str| format!("1\t0/{switch}\tno recovery target specified\n");
    let inventory = |place: &str, text: &str| {
        let memory = archive(&[], &[("00000002.history", text)]);
        Inventory { place: place.to_owned(), ..Inventory::read(&memory).unwrap() }
    };
    let (one, another) = (inventory("one", &history("900000")), inventory("another", &history("A00000")));
    let is_known = |union: &Inventory| union.branch(tli(2)).is_ok();
    let mut union = one.clone();
    union.absorb(&one);
    assert!(is_known(&union));
    union.absorb(&another);
    let said = union.branch(tli(2)).unwrap_err();
    assert_eq!(said.reason, "\"one\" and \"another\" hold different ones");
    union.absorb(&one);
    assert!(!is_known(&union), "not by a majority");
}
