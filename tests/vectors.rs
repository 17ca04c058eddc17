//! Byte vectors: real WAL of PostgreSQL 13 to 18, objects and base backups that must be read or refused for
//! ever. `vectors/make.py` and `vectors/backups.py` say how they were made, without this project's code.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wal_archive::archive::backups;
use wal_archive::object::age::{Identities, Keyring};
use wal_archive::object::{Checks, DecodeError, Decoded, Sha256Sum, Trailer, decode, encode};
use wal_archive::storage::s3::S3Settings;
use wal_archive::storage::{Destination, Location};
use wal_archive::verify::{Count, verify_backups};
use wal_archive::wal::{BackupHistory, FirstPage, SystemId, TimelineHistory, WalName};

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(vectors().join(folder)).unwrap().map(|e| e.unwrap().path()).collect();
    found.sort();
    assert!(!found.is_empty(), "{folder}");
    found
}

fn stem(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().strip_suffix(".zst").unwrap().to_owned()
}

fn raw(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    zstd::Decoder::new(fs::File::open(path).unwrap()).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// The WAL file of that name from PostgreSQL 15.
fn wal(name: &str) -> Vec<u8> {
    raw(&vectors().join("wal/postgresql-15").join(format!("{name}.zst")))
}

fn decoded(name: WalName, object: &[u8]) -> Result<(Vec<u8>, Decoded), DecodeError> {
    let mut out = Vec::new();
    let decoded = decode(name, Checks::Header, &mut Cursor::new(object), &mut out)?;
    Ok((out, decoded))
}

fn object(name: WalName, bytes: &[u8], id: Option<SystemId>, level: i32) -> Vec<u8> {
    let mut out = Vec::new();
    encode(name, bytes.len() as u64, id, level, &mut Cursor::new(bytes), &mut out).unwrap();
    out
}

#[test]
fn the_first_page_of_every_major_version_passes_the_rules() {
    let mut seen = Vec::new();
    for version in 13..=18 {
        for path in files(&format!("wal/postgresql-{version}")) {
            let (name, bytes) = (stem(&path).parse::<WalName>().unwrap(), raw(&path));
            let (WalName::Segment(segment) | WalName::Partial(segment)) = name else { continue };
            let page = FirstPage::read(&bytes).unwrap();
            assert_eq!(
                page.check(segment, bytes.len() as u64).unwrap().bytes(),
                1 << 20,
                "{}",
                path.display()
            );
            assert_eq!(page.version(), Some(version.to_string().as_str()));
            assert!(page.oddities().is_empty(), "{:?}", page.oddities());
            // Under its neighbour's name it is a renamed file.
            let size = page.segment_size().unwrap();
            assert!(page.check(segment.next(size).unwrap(), bytes.len() as u64).is_err());
            seen.push(version);
        }
    }
    seen.dedup();
    assert_eq!(seen, [13, 14, 15, 16, 17, 18]);
}

#[test]
fn history_files_of_a_real_promotion_and_backup_are_understood() {
    let WalName::TimelineHistory(two) = "00000002.history".parse().unwrap() else { panic!() };
    let history = TimelineHistory::parse(two, &wal("00000002.history")).unwrap();
    assert_eq!(history.ancestors.len(), 1);
    assert_eq!(history.ancestors[0].switch.to_string(), "0/1B6BDA0");
    let backup = BackupHistory::parse(&wal("000000010000000000000015.00000028.backup")).unwrap();
    assert_eq!(backup.start.to_string(), "0/1500028");
    assert_eq!(backup.start_segment.to_string(), "000000010000000000000015");
    assert_eq!(backup.stop.to_string(), "0/1500100");
    assert_eq!(backup.label, "pg_basebackup base backup");
}

#[test]
fn every_accepted_object_gives_the_very_bytes() {
    for path in files("objects/accepted") {
        let stem = stem(&path);
        let (name, reason) = stem.split_once("--").unwrap();
        let (bytes, found) = decoded(name.parse().unwrap(), &fs::read(&path).unwrap())
            .unwrap_or_else(|error| panic!("{stem}: {error}"));
        assert!(bytes == wal(name), "{stem}");
        let ours = ["version-1", "without-system-id", "unknown-field"].contains(&reason);
        assert_eq!(found.trailer.is_some(), ours, "{stem}");
        if let Some(trailer) = found.trailer {
            let id = (reason != "without-system-id").then_some(SystemId(7_710_362_819_239_716_105));
            assert_eq!((trailer.system_id, trailer.sha256), (id, Sha256Sum::of(&bytes)), "{stem}");
        }
    }
}

#[test]
fn every_rejected_object_is_damage_with_a_reason() {
    for path in files("objects/rejected") {
        let stem = stem(&path);
        let (name, _) = stem.split_once("--").unwrap();
        match decoded(name.parse().unwrap(), &fs::read(&path).unwrap()) {
            Err(DecodeError::Damaged(reason)) => assert!(reason.len() > 8, "{stem}: {reason}"),
            Err(other) => panic!("{stem}: {other}"),
            Ok(_) => panic!("{stem} was accepted"),
        }
    }
}

#[test]
fn a_bomb_is_stopped_at_what_its_header_claims() {
    let path = vectors().join("objects/rejected/000000010000000000000015--bomb-of-zeros.zst");
    let mut out = Vec::new();
    let name = "000000010000000000000015".parse().unwrap();
    decode(name, Checks::Header, &mut fs::File::open(path).unwrap(), &mut out).unwrap_err();
    assert!(out.len() <= 2 << 20, "{} bytes were written", out.len());
}

#[test]
fn every_file_survives_every_level_with_the_trailer_of_the_format_page() {
    for path in files("wal/postgresql-15") {
        let (name, bytes) = (stem(&path).parse::<WalName>().unwrap(), raw(&path));
        for level in [-5, -1, 1, 3, 19] {
            let made = object(name, &bytes, Some(SystemId(7)), level);
            let (back, found) = decoded(name, &made).unwrap();
            assert!(back == bytes, "{name} at level {level}");
            let trailer = found.trailer.unwrap();
            assert_eq!(trailer, Trailer::read(&made[made.len() - 256..]).unwrap());
            assert_eq!(trailer.object_len(), made.len() as u64);
            assert_eq!((trailer.size, trailer.sha256), (bytes.len() as u64, Sha256Sum::of(&bytes)));
            // Content size and checksum flags of the frame header (RFC 8878 §3.1.1.1.1).
            assert!(made[4] & 0b100 != 0, "no content checksum");
            assert_eq!(zstd::zstd_safe::get_frame_content_size(&made).unwrap(), Some(bytes.len() as u64));
        }
    }
}

/// The heart of the format: damage is damage, or harmless; never other bytes.
fn assert_damaged_or_the_same(name: WalName, bytes: &[u8], object: &[u8], how: &str) {
    match decoded(name, object) {
        Err(DecodeError::Damaged(_)) => {}
        Err(other) => panic!("{name}, {how}: {other}"),
        Ok((back, _)) => assert!(back == bytes, "{name}, {how}: other bytes came out"),
    }
}

#[test]
fn every_flipped_bit_cut_and_appended_byte_of_a_small_object_is_damage_or_harmless() {
    for text in ["00000002.history", "000000010000000000000015.00000028.backup"] {
        let (name, bytes) = (text.parse().unwrap(), wal(text));
        let good = object(name, &bytes, Some(SystemId(7)), 1);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_damaged_or_the_same(name, &bytes, &bad, &format!("bit {bit}"));
        }
        for len in 0..good.len() {
            assert_damaged_or_the_same(name, &bytes, &good[..len], &format!("cut to {len}"));
        }
        for byte in 0..=255 {
            let bad = [&good[..], &[byte]].concat();
            assert!(decoded(name, &bad).is_err(), "{name} with {byte} appended");
            let bad = [&[byte], &good[..]].concat();
            assert!(decoded(name, &bad).is_err(), "{name} after {byte}");
        }
    }
}

#[test]
fn flipped_bits_and_cuts_all_over_a_segment_are_damage_or_harmless() {
    let name: WalName = "00000001000000000000001B".parse().unwrap();
    let bytes = wal("00000001000000000000001B");
    let good = object(name, &bytes, Some(SystemId(7)), 1);
    // Every bit of the header and the trailer, and a thousand between, evenly spread.
    let bits = good.len() * 8;
    let between = (0..1000).map(|i| 200 + i * (bits - 2400) / 1000 + i % 8);
    for bit in (0..200).chain(between).chain(bits - 2100..bits) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_damaged_or_the_same(name, &bytes, &bad, &format!("bit {bit}"));
    }
    for len in (0..300).map(|i| i * good.len() / 300).chain(good.len() - 300..good.len()) {
        assert_damaged_or_the_same(name, &bytes, &good[..len], &format!("cut to {len}"));
    }
    assert!(decoded(name, &good[..good.len() - 256]).is_ok(), "without its trailer it is a plain zstd file");
}

#[test]
fn base_backups_are_read_and_their_records_written_byte_for_byte() {
    let text = fs::read_to_string(vectors().join("age/identity")).unwrap();
    let keys = Keyring { identities: Identities::parse(&text).unwrap(), ..Keyring::default() };
    let nobody = Keyring::default();
    for (kind, keys, shut) in [("plain", None, 0), ("sealed", Some(keys), 0), ("sealed", Some(nobody), 4)] {
        let root = vectors().join("backups").join(kind);
        let place = Destination {
            location: Location::Directory(root.clone()),
            s3: S3Settings::default(),
            keys: keys.map(Arc::new),
        };
        let storage = place.open();
        let held = backups::all(storage.as_ref()).unwrap();
        let [one] = held.as_slice() else { panic!("{held:?}") };
        let record = one.record().unwrap();
        let folder = root.join(record.id.folder());
        assert_eq!(record.write(), fs::read(folder.join("backup.json")).unwrap());
        let mut count = Count::default();
        let found = verify_backups(&[storage], &[], &mut count, &mut |_| {});
        assert!(found.is_empty(), "{found:?}");
        assert_eq!((count.objects, count.shut), (4, shut), "{kind}");
    }
}
