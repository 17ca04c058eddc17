//! The readers of other tools' encodings under damage, and what a fetch asks of a store.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wal_archive::fetch::{Answer, Context, Fetch, fetch};
use wal_archive::object::{Checks, DecodeError, Encoding, Encryption, Identity, Key, decode_as, encode};
use wal_archive::storage::faulty::{Fault, Faulty};
use wal_archive::storage::memory::Memory;
use wal_archive::storage::{Body, Shared, Storage};
use wal_archive::wal::{SegmentSize, SystemId, WalName};

const SEGMENT: &str = "00000001000000000000001B";
const SMALL: [&str; 2] = ["00000002.history", "000000010000000000000015.00000028.backup"];

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn wal(name: &str) -> Vec<u8> {
    let path = vectors().join(format!("wal/postgresql-15/{name}.zst"));
    zstd::decode_all(fs::File::open(path).unwrap()).unwrap()
}

/// The object of a name as WAL-G stores it, or as `gzip` and `cp` do.
fn object(name: &str, encoding: Encoding) -> Vec<u8> {
    let fixture = match encoding {
        Encoding::Zstd => "zstd",
        Encoding::Lz4 => "lz4",
        Encoding::Lzma => "lzma",
        Encoding::Brotli => "brotli",
        Encoding::Bare => return wal(name),
        Encoding::Age => panic!("no other tool's"),
        Encoding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&wal(name)).unwrap();
            return encoder.finish().unwrap();
        }
    };
    let path = format!("foreign/wal-g-{fixture}/wal_005/{name}.{}", encoding.extension());
    fs::read(vectors().join(path)).unwrap()
}

fn decoded(name: &str, encoding: Encoding, object: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    decode_as(encoding, name.parse().unwrap(), Checks::Header, &mut Cursor::new(object), &mut out)?;
    Ok(out)
}

/// What may come out of a damaged object.
fn assert_harmless(name: &str, encoding: Encoding, damaged: &[u8], how: &str) {
    let content = wal(name);
    match decoded(name, encoding, damaged) {
        Err(DecodeError::Damaged(_)) => {}
        Err(other) => panic!("{name} {encoding:?}, {how}: {other}"),
        Ok(other) => {
            let has_checksum = matches!(encoding, Encoding::Zstd | Encoding::Lz4 | Encoding::Gzip);
            assert!(other == content || !has_checksum, "{name} {encoding:?}, {how}: other bytes came out");
            // Without a checksum the size and the first page still hold.
            let pages = name.parse::<WalName>().unwrap().is_pages();
            assert!(
                !pages || other.len() == content.len(),
                "{name} {encoding:?}, {how}: {} bytes",
                other.len()
            );
        }
    }
}

#[test]
fn every_flipped_bit_of_a_small_object_is_damage_or_harmless() {
    for name in SMALL {
        for encoding in Encoding::PLAIN {
            let good = object(name, encoding);
            assert!(decoded(name, encoding, &good).unwrap() == wal(name));
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_harmless(name, encoding, &bad, &format!("bit {bit}"));
            }
        }
    }
}

#[test]
fn flipped_bits_all_over_a_segment_are_damage_or_harmless() {
    for encoding in Encoding::PLAIN {
        let good = object(SEGMENT, encoding);
        let bits = good.len() * 8;
        let rounds = 300;
        for bit in (0..200)
            .chain((0..rounds).map(|i| 200 + i * (bits - 400) / rounds + i % 8))
            .chain(bits - 100..bits)
        {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_harmless(SEGMENT, encoding, &bad, &format!("bit {bit}"));
        }
    }
}

#[test]
fn objects_with_many_wrong_bytes_are_damage_or_harmless_and_never_a_panic() {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % below
    };
    for name in ["00000002.history", SEGMENT] {
        for encoding in Encoding::PLAIN {
            let good = object(name, encoding);
            for round in 0..300 {
                let mut bad = good.clone();
                for _ in 0..=random(8) {
                    let at = random(bad.len());
                    bad[at] = random(256) as u8;
                }
                if round % 3 == 0 {
                    let at = random(bad.len());
                    bad.drain(at..(at + 1 + random(40)).min(good.len()));
                }
                assert_harmless(name, encoding, &bad, &format!("round {round}"));
            }
        }
    }
}

#[test]
fn every_cut_of_a_small_object_and_many_of_a_segment_are_damage() {
    for encoding in Encoding::PLAIN {
        // Nothing tells that a bare text is cut, but a history that lost its last line's end may.
        for name in SMALL.into_iter().filter(|_| encoding != Encoding::Bare) {
            let good = object(name, encoding);
            for len in 0..good.len() {
                assert!(decoded(name, encoding, &good[..len]).is_err(), "{name} {encoding:?} cut to {len}");
            }
        }
        let good = object(SEGMENT, encoding);
        for len in (0..200).map(|i| i * good.len() / 200).chain(good.len() - 50..good.len()) {
            assert!(decoded(SEGMENT, encoding, &good[..len]).is_err(), "{encoding:?} cut to {len}");
        }
    }
}

#[test]
fn output_is_bounded_by_what_the_first_page_claims() {
    let bomb = [wal(SEGMENT), vec![0; 300 << 20]].concat();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bomb).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(&bomb).unwrap();
    let lz4 = lz4.finish().unwrap();
    for (encoding, object) in [(Encoding::Gzip, gzip), (Encoding::Lz4, lz4), (Encoding::Bare, bomb)] {
        let mut out = Vec::new();
        let name = SEGMENT.parse().unwrap();
        let result = decode_as(encoding, name, Checks::Header, &mut Cursor::new(object), &mut out);
        assert!(matches!(result, Err(DecodeError::Damaged(_))), "{encoding:?}: {result:?}");
        assert!(out.len() <= 2 << 20, "{encoding:?}: {} bytes were written", out.len());
    }
}

#[test]
fn without_page_checks_a_file_must_still_have_the_size_of_a_segment() {
    let content = wal(SEGMENT);
    let name = SEGMENT.parse().unwrap();
    for (len, fine) in [(content.len(), true), (content.len() - 8192, false), (0, false)] {
        let mut object = &content[..len];
        let result = decode_as(Encoding::Bare, name, Checks::NoHeader, &mut object, &mut std::io::sink());
        assert_eq!(result.is_ok(), fine, "{len}: {result:?}");
    }
}

/// A store in memory that notes every request.
struct Noted {
    storage: Shared,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Noted {
    fn new(objects: &[(&str, Vec<u8>)]) -> Self {
        let memory = Memory::default();
        for (key, content) in objects {
            memory.create(&Key::parse(key).unwrap(), &Body::from(content.clone())).unwrap();
        }
        let requests = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&requests);
        let plan = move |request, key: &str| {
            noted.lock().unwrap().push(format!("{request:?} {key}"));
            Fault::None
        };
        Noted { storage: Arc::new(Faulty::new(Arc::new(memory), Box::new(plan))), requests }
    }

    /// Fetches, and tells what was asked; the content is proved by the fetch itself.
    fn fetch(&self, name: &str) -> (Option<Answer>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("RECOVERYXLOG");
        let context = Context::of(vec![Arc::clone(&self.storage)]);
        let answer = fetch(&Fetch::new(name.parse().unwrap(), &path, &context, Duration::from_secs(60)));
        if matches!(answer, Ok(Answer::Delivered)) {
            let mut content = Vec::new();
            fs::File::open(folder.path().join("RECOVERYXLOG")).unwrap().read_to_end(&mut content).unwrap();
            assert!(content == wal(name));
        }
        (answer.ok(), std::mem::take(&mut *self.requests.lock().unwrap()))
    }
}

fn ours(name: &str) -> Vec<u8> {
    let (content, mut object) = (wal(name), Vec::new());
    let size = content.len() as u64;
    encode(name.parse().unwrap(), size, Some(SystemId(7)), 1, &mut Cursor::new(content), &mut object)
        .unwrap();
    object
}

fn identity(foreign: bool) -> (&'static str, Vec<u8>) {
    let segment_size = SegmentSize::new(1 << 20).unwrap();
    (
        "archive.json",
        Identity { system_id: SystemId(7), segment_size, foreign, encryption: Encryption::None }.write(),
    )
}

#[test]
fn in_our_own_archive_a_hit_is_one_request_beside_the_identity_and_a_miss_at_most_two_gets_and_two_lists() {
    let key = format!("wal_005/{SEGMENT}.zst");
    let noted = Noted::new(&[identity(false), (&key, ours(SEGMENT))]);
    // Without a data directory nothing remembers that the archive is not encrypted.
    let asked = vec![format!("Get {key}"), "Get archive.json".to_owned()];
    assert_eq!(noted.fetch(SEGMENT), (Some(Answer::Delivered), asked));
    let next = "00000001000000000000001C";
    let (answer, requests) = noted.fetch(next);
    assert_eq!(answer, Some(Answer::Absent));
    assert_eq!(
        requests,
        [format!("Get wal_005/{next}.zst"), "Get archive.json".into(), "List wal_005/00000001".into()]
    );
    let (answer, requests) = noted.fetch("00000003.history");
    assert_eq!((answer, requests.len()), (Some(Answer::Absent), 4));
}

#[test]
fn in_a_foreign_archive_our_own_object_is_one_request_beside_the_identity_and_another_tools_a_few() {
    let key = format!("wal_005/{SEGMENT}.zst");
    let noted = Noted::new(&[identity(true), (&key, ours(SEGMENT))]);
    // Without a data directory nothing remembers that the archive is not encrypted.
    let asked = vec![format!("Get {key}"), "Get archive.json".to_owned()];
    assert_eq!(noted.fetch(SEGMENT), (Some(Answer::Delivered), asked));
    for encoding in Encoding::PLAIN {
        for folder in ["wal_005/", ""] {
            let dot = if encoding == Encoding::Bare { "" } else { "." };
            let key = format!("{folder}{SEGMENT}{dot}{}", encoding.extension());
            for identity in [vec![identity(true)], vec![]] {
                let noted = Noted::new(&[&identity[..], &[(&key, object(SEGMENT, encoding))]].concat());
                let (answer, requests) = noted.fetch(SEGMENT);
                assert_eq!(answer, Some(Answer::Delivered), "{key}");
                assert!(requests.len() <= 5, "{key}: {requests:?}");
            }
        }
    }
}
