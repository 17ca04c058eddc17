use super::*;
use crate::wal::{SegmentSize, Timeline};
use proptest::prelude::*;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const PAGE: u64 = 8192;

fn name(text: &str) -> SegmentName {
    text.parse().unwrap()
}

fn lsn(text: &str) -> Lsn {
    text.parse().unwrap()
}

/// A segment of a real server (`tests/vectors/wal`).
fn real(version: u32, segment: &str) -> Vec<u8> {
    let path = format!("{}/tests/vectors/wal/postgresql-{version}/{segment}.zst", env!("CARGO_MANIFEST_DIR"));
    zstd::stream::decode_all(&std::fs::read(path).unwrap()[..]).unwrap()
}

fn walk_in_pieces(start: Start, segments: &[(&str, &[u8])], piece: usize) -> Walk {
    let mut walker = Walker::new(start);
    for (segment, bytes) in segments {
        walker.begin(name(segment));
        for piece in bytes.chunks(piece) {
            walker.push(piece);
        }
    }
    walker.walk()
}

fn walk(start: Start, segments: &[(&str, &[u8])]) -> Walk {
    walk_in_pieces(start, segments, 1 << 16)
}

fn alone(version: u32, segment: &str) -> Walk {
    walk(Start::Anywhere, &[(segment, &real(version, segment))])
}

/// Microseconds since 1970, as PostgreSQL shows them.
fn micros(time: Option<SystemTime>) -> u128 {
    time.unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros()
}

// The numbers are those of PostgreSQL 15's pg_waldump; for other versions, of a copy with 15's magic.

#[test]
fn records_of_every_version_are_those_of_pg_waldump() {
    let cases = [
        (13, "000000010000000000000007", 10889, "0/700080", "0/7FFF68"),
        (15, "00000002000000000000001C", 560, "0/1C00BA8", "0/1CFE398"),
        (16, "000000010000000000000006", 10889, "0/600080", "0/6FFF68"),
        (17, "000000010000000000000006", 10889, "0/600078", "0/6FFF60"),
        (18, "000000010000000000000009", 10890, "0/900030", "0/9FFF78"),
    ];
    for (version, segment, records, first, last) in cases {
        let found = alone(version, segment);
        assert_eq!(
            (found.records, found.first, found.last),
            (records, Some(lsn(first)), Some(lsn(last))),
            "{version}"
        );
        assert!(found.complete, "{version}: {found:?}");
        assert!(matches!(found.stop, Stop::EndOfInput(_)), "{version}: {found:?}");
    }
}

#[test]
fn a_switch_ends_a_segment_and_fills_it() {
    let found = alone(15, "00000001000000000000001A");
    assert_eq!((found.records, found.last), (674, Some(lsn("0/1AD7130"))));
    assert_eq!(
        (found.end, found.stop, found.complete),
        (Some(lsn("0/1B00000")), Stop::EndOfInput(None), true)
    );
    // 2026-11-20 21:05:49.771211 UTC
    assert_eq!(micros(found.last_commit), 1_795_208_749_771_211);
}

#[test]
fn a_partial_segment_ends_where_the_new_timeline_begins() {
    let partial = real(15, "00000001000000000000001B.partial");
    let found = walk(Start::Anywhere, &[("00000001000000000000001B", &partial)]);
    assert_eq!(found.end, Some(lsn("0/1B6BDA0")), "the switch point in 00000002.history");
    assert!(!found.complete, "{found:?}");
    assert_eq!(micros(found.last_commit), 1_795_208_752_639_220);
}

#[test]
fn segments_are_walked_from_a_parent_to_its_child() {
    let names = ["00000001000000000000001A", "00000002000000000000001B", "00000002000000000000001C"];
    let bytes = names.map(|name| real(15, name));
    let row: Vec<_> = names.iter().copied().zip(bytes.iter().map(Vec::as_slice)).collect();
    let found = walk(Start::Anywhere, &row);
    // One record crosses from 1B to 1C.
    assert_eq!((found.records, found.last), (674 + 630 + 1 + 560, Some(lsn("0/1CFE398"))));
    assert_eq!(micros(found.last_commit), 1_795_208_753_559_351);
    assert!(found.complete);

    let from_within = walk(Start::At(lsn("0/1AD7108")), &row);
    assert_eq!(from_within.records, 2 + 630 + 1 + 560);
    assert_eq!(from_within.end, found.end);

    let old = real(15, "00000001000000000000001B");
    let back = walk(Start::Anywhere, &[row[1], (names[0], &old)]);
    assert!(matches!(back.stop, Stop::Page(_, PageFault::First(_))), "{back:?}");
    let gap = walk(Start::Anywhere, &[row[0], row[2]]);
    let expected = PageFault::Address { found: lsn("0/1C00000"), expected: lsn("0/1B00000") };
    assert_eq!(gap.stop, Stop::Page(Some(lsn("0/1B00000")), expected));
    assert_eq!((gap.end, gap.complete), (Some(lsn("0/1B00000")), false));
}

#[test]
fn a_start_that_is_no_record_finds_nothing() {
    let bytes = real(15, "00000001000000000000001A");
    let row = [("00000001000000000000001A", &bytes[..])];
    let found = walk(Start::At(lsn("0/1AD7110")), &row);
    assert_eq!((found.records, found.complete), (0, false), "{found:?}");
    let continued = real(16, "000000010000000000000006");
    let found = walk(Start::At(lsn("0/600000")), &[("000000010000000000000006", &continued)]);
    assert_eq!(found.stop, Stop::InTheMiddle(lsn("0/600000")));
    // PostgreSQL writes the first address of a page for the first record on it.
    assert_eq!(walk(Start::At(lsn("0/1A00000")), &row).records, 674);
}

/// What a server would write: a row of pages made by hand, with a checksum of its own.
struct Log {
    bytes: Vec<u8>,
    base: u64,
    previous: u64,
}

const BASE: u64 = 5 * MIB;

impl Log {
    fn new() -> Self {
        Log { bytes: Vec::new(), base: BASE, previous: 77 }
    }

    fn at(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Begins a page where one begins.
    fn page(&mut self, info: u16, rest: u32) {
        let at = self.at();
        if !at.is_multiple_of(PAGE) {
            return;
        }
        let long = at.is_multiple_of(MIB);
        self.bytes.extend(0xD110u16.to_le_bytes());
        self.bytes.extend((info | if long { 2 } else { 0 }).to_le_bytes());
        self.bytes.extend(1u32.to_le_bytes());
        self.bytes.extend(at.to_le_bytes());
        self.bytes.extend([rest.to_le_bytes(), [0; 4]].concat());
        if long {
            self.bytes.extend(9u64.to_le_bytes());
            self.bytes.extend([(MIB as u32).to_le_bytes(), (PAGE as u32).to_le_bytes()].concat());
        }
    }

    fn room(&self) -> usize {
        (PAGE - self.at() % PAGE) as usize
    }

    /// Writes a record; its address. `keep`: how many pages of it reach the disk.
    fn put(&mut self, manager: u8, info: u8, data: &[u8]) -> Lsn {
        self.put_pages(manager, info, data, usize::MAX)
    }

    fn put_pages(&mut self, manager: u8, info: u8, data: &[u8], pages: usize) -> Lsn {
        self.page(0, 0);
        let start = self.at();
        let mut record = vec![0; 24];
        if !data.is_empty() {
            record.push(254);
            record.extend((data.len() as u32).to_le_bytes());
            record.extend(data);
        }
        let len = record.len() as u32;
        record[0..4].copy_from_slice(&len.to_le_bytes());
        record[8..16].copy_from_slice(&self.previous.to_le_bytes());
        (record[16], record[17]) = (info, manager);
        let sum = crc32c(record[24..].iter().chain(&record[..20]));
        record[20..24].copy_from_slice(&sum.to_le_bytes());
        let mut rest = &record[..];
        for _ in 0..pages {
            let (now, later) = rest.split_at(rest.len().min(self.room()));
            self.bytes.extend(now);
            rest = later;
            if rest.is_empty() {
                break;
            }
            if pages == usize::MAX {
                self.page(1, rest.len() as u32);
            }
        }
        if rest.is_empty() {
            self.previous = start;
            self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        }
        Lsn(start)
    }

    fn commit(&mut self, microseconds: i64) -> Lsn {
        self.put(1, 0, &microseconds.to_le_bytes())
    }

    fn walk(&self, start: Start) -> Walk {
        let mut whole = self.bytes.clone();
        whole.resize(whole.len().next_multiple_of(MIB as usize), 0);
        walk_log(start, &whole)
    }
}

fn walk_log(start: Start, bytes: &[u8]) -> Walk {
    let size = SegmentSize::new(MIB).unwrap();
    let names: Vec<_> = (0..bytes.len() as u64 / MIB)
        .map(|number| SegmentName::at(Timeline::FIRST, Lsn(BASE + number * MIB), size).to_string())
        .collect();
    let row: Vec<_> = names.iter().map(String::as_str).zip(bytes.chunks(MIB as usize)).collect();
    walk(start, &row)
}

/// Bit by bit, from the polynomial.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82F6_3B78 * (sum & 1)))
    })
}

#[test]
fn the_checksum_is_castagnolis() {
    assert_eq!(crc32c(b"123456789".iter()), 0xE306_9283, "the check value of CRC-32C");
    let mut log = Log::new();
    let (first, second) = (log.commit(1), log.put(10, 0, b"x"));
    let found = log.walk(Start::Anywhere);
    assert_eq!((found.first, found.last, found.records), (Some(first), Some(second), 2));
    assert_eq!((found.end, found.stop), (Some(Lsn(log.at())), Stop::Nothing(Lsn(log.at()))));
}

#[test]
fn a_record_may_span_pages_and_whole_segments() {
    let mut log = Log::new();
    let first = log.put(10, 0, b"before");
    let large = log.put(10, 0, &vec![7; 3 * MIB as usize]);
    let after = log.commit(1_000_000);
    let found = log.walk(Start::Anywhere);
    assert_eq!((found.first, found.last, found.records), (Some(first), Some(after), 3));
    assert!(large < after);
    let mut whole = log.bytes.clone();
    whole.resize(whole.len().next_multiple_of(MIB as usize), 0);
    // From the middle of the large record, and in the middle of it.
    let size = MIB as usize;
    let later = |from: usize| {
        let names = ["000000010000000000000006", "000000010000000000000007", "000000010000000000000008"];
        let row: Vec<_> =
            names[from..].iter().copied().zip(whole[size * (1 + from)..].chunks(size)).collect();
        walk(Start::Anywhere, &row)
    };
    for from in 0..3 {
        assert_eq!((later(from).first, later(from).last), (Some(after), Some(after)), "{from}");
    }
    let inside = walk(Start::Anywhere, &[("000000010000000000000006", &whole[size..2 * size])]);
    assert_eq!((inside.first, inside.end, inside.complete), (None, None, true));
}

#[test]
fn a_record_that_fills_its_page_ends_at_the_next_one() {
    let mut log = Log::new();
    log.page(0, 0);
    let room = log.room();
    log.put(10, 0, &vec![1; room - 24 - 5]);
    assert_eq!(log.at(), BASE + PAGE);
    let next = log.commit(5);
    assert_eq!(next.0, BASE + PAGE + 24);
    let found = log.walk(Start::Anywhere);
    assert_eq!((found.records, found.last), (2, Some(next)));
    log.bytes.truncate(PAGE as usize);
    let found = log.walk(Start::Anywhere);
    assert_eq!((found.end, found.stop), (Some(Lsn(BASE + PAGE)), Stop::Nothing(Lsn(BASE + PAGE))));
}

#[test]
fn a_lost_continuation_is_passed_over_only_where_the_next_record_gives_it_up() {
    let lost = |gives_up: &dyn Fn(Lsn) -> Option<u64>| {
        let mut log = Log::new();
        log.put(10, 0, b"before");
        let lost = log.put_pages(10, 0, &vec![3; 20_000], 1);
        assert!(log.at().is_multiple_of(PAGE));
        log.page(8, 0);
        match gives_up(lost) {
            Some(named) => log.put(0, 0xD0, &[named.to_le_bytes(), [0; 8]].concat()),
            None => log.put(10, 0, b"another"),
        };
        let last = log.commit(9);
        (lost, last, log.walk(Start::Anywhere))
    };
    let (_, last, found) = lost(&|lost| Some(lost.0));
    assert_eq!((found.records, found.last), (3, Some(last)));
    for wrong in [Some(1), None] {
        let (start, _, found) = lost(&|_| wrong);
        assert!(matches!(found.stop, Stop::Continuation { at, .. } if at == start), "{found:?}");
        assert_eq!((found.records, found.end), (1, Some(start)));
    }
    let mut log = Log::new();
    let lost = log.put_pages(10, 0, &vec![3; 20_000], 1);
    let page = Lsn(log.at());
    assert_eq!(log.walk(Start::Anywhere).stop, Stop::Continuation { at: lost, page });
}

#[test]
fn what_breaks_the_chain_stops_the_walk_at_the_last_good_record() {
    let mut log = Log::new();
    let (first, second, third) = (log.commit(1), log.put(10, 0, &[1; 100]), log.commit(2));
    let broken = |offset: u64, byte: u8| {
        let mut bytes = log.bytes.clone();
        bytes[(second.0 - BASE + offset) as usize] ^= byte;
        bytes.resize(MIB as usize, 0);
        let found = walk_log(Start::Anywhere, &bytes);
        assert_eq!((found.records, found.last, found.end), (1, Some(first), Some(second)), "{found:?}");
        assert!(!found.complete);
        found.stop
    };
    assert_eq!(broken(60, 1), Stop::Checksum(second));
    assert_eq!(broken(17, 1), Stop::Checksum(second));
    assert_eq!(broken(22, 1), Stop::Checksum(second));
    assert!(matches!(broken(9, 1), Stop::Previous { at, .. } if at == second));
    assert_eq!(broken(0, 0x81 ^ 23), Stop::Length(second));
    // pg_resetwal begins with a record that has none before it.
    let mut reset = Log { previous: 0, ..Log::new() };
    reset.bytes = log.bytes.clone();
    let at = reset.commit(3);
    assert_eq!(reset.walk(Start::Anywhere).stop, Stop::Previous { at, found: Lsn(0) });
    assert_eq!(reset.walk(Start::Anywhere).last, Some(third));
}

#[test]
fn pages_of_another_use_of_the_file_end_the_wal() {
    let mut log = Log::new();
    while log.bytes.len() < 3 * PAGE as usize {
        log.put(10, 0, &[5; 1000]);
    }
    let page = PAGE as usize;
    log.bytes.truncate(3 * page);
    let with = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = log.bytes.clone();
        change(&mut bytes[2 * page..]);
        bytes.resize(MIB as usize, 0);
        let found = walk_log(Start::Anywhere, &bytes);
        assert!(!found.complete && found.records > 5, "{found:?}");
        found.stop
    };
    let at = Some(Lsn(BASE + 2 * PAGE));
    let older =
        PageFault::Address { found: Lsn(BASE + 2 * PAGE - (4 << 16)), expected: Lsn(BASE + 2 * PAGE) };
    assert_eq!(with(&|b| b[10] -= 4), Stop::Page(at, older));
    assert_eq!(with(&|b| b[0] = 6), Stop::Page(at, PageFault::Magic { found: 0xD106, expected: 0xD110 }));
    let newer = PageFault::Timeline { found: 2, before: 1, newest: 1 };
    assert_eq!(with(&|b| b[4] = 2), Stop::Page(at, newer));
    assert_eq!(with(&|b| b[2] |= 2), Stop::Page(at, PageFault::LongHeader));
    assert!(matches!(with(&|b| b[16] ^= 1), Stop::Continuation { .. }));
    assert!(matches!(with(&|b| b.fill(0)), Stop::Continuation { .. }));
}

#[test]
fn commits_and_aborts_tell_their_time_behind_any_other_header() {
    let microseconds = 846_000_000_123_456i64;
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(846_000_000_123_456 + 946_684_800_000_000);
    let mut log = Log::new();
    log.commit(microseconds);
    log.put(1, 0x20, &(microseconds + 1).to_le_bytes()); // abort
    let found = log.walk(Start::Anywhere);
    let later = at + Duration::from_micros(1);
    assert_eq!((found.last_commit, found.last_completed), (Some(at), Some(later)));
    log.put(1, 0x30 | 0x80, &(microseconds + 2).to_le_bytes()); // commit prepared, with more behind it
    log.put(1, 0x10, &i64::MAX.to_le_bytes()); // prepare
    log.put(2, 0x00, &i64::MAX.to_le_bytes()); // another resource manager
    let last = Some(later + Duration::from_micros(1));
    let found = log.walk(Start::Anywhere);
    assert_eq!((found.last_commit, found.last_completed), (last, last));
    let before_2000 = {
        let mut log = Log::new();
        log.commit(-1);
        log.walk(Start::Anywhere).last_commit
    };
    assert_eq!(micros(before_2000), 946_684_799_999_999);
}

#[test]
fn a_segment_that_is_cut_or_too_long_is_told() {
    let bytes = real(15, "00000001000000000000001A");
    let (a, b) = ("00000001000000000000001A", "00000001000000000000001B");
    let cut = walk(Start::Anywhere, &[(a, &bytes[..500_000]), (b, &real(15, b))]);
    assert!(matches!(cut.stop, Stop::EndOfInput(Some(_))), "{cut:?}");
    assert!(!cut.complete);
    let longer = [&bytes[..], &[0]].concat();
    let long = walk(Start::Anywhere, &[(a, &longer)]);
    assert!(matches!(long.stop, Stop::Page(_, PageFault::Beyond(_))), "{long:?}");
    let none = Walker::new(Start::Anywhere).walk();
    assert_eq!((none.stop, none.complete, none.end), (Stop::EndOfInput(None), false, None));
}

proptest! {
    #[test]
    fn pieces_of_any_size_give_the_same_answer(piece in 1usize..20_000) {
        let bytes = real(15, "00000001000000000000001A");
        let row = [("00000001000000000000001A", &bytes[..])];
        let found = walk_in_pieces(Start::Anywhere, &row, piece);
        prop_assert_eq!(found, walk(Start::Anywhere, &row));
    }

    #[test]
    fn no_change_of_a_byte_that_counts_goes_unseen(at in 0usize..0xD7148, bit in 0u32..8) {
        let mut bytes = real(15, "00000001000000000000001A");
        let row = |bytes: &[u8]| walk(Start::Anywhere, &[("00000001000000000000001A", bytes)]);
        let whole = row(&bytes);
        bytes[at] ^= 1 << bit;
        let found = row(&bytes);
        // Alignment, unused bits and what belongs to the segment before are nobody's; all else stops it.
        prop_assert!(found == whole || !found.complete || found.first != whole.first, "{found:?}");
        prop_assert!(found.records <= whole.records);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..20_000), at in 0usize..40_000) {
        let mut log = Log::new();
        log.put(10, 0, &vec![1; 30_000]);
        log.commit(4);
        let at = at.min(log.bytes.len());
        log.bytes.splice(at.., bytes);
        log.walk(Start::Anywhere);
        log.walk(Start::At(Lsn(BASE + at as u64)));
    }
}
