//! The pure parts: codec, sum, names. `cargo bench`; whole processes are `scripts/bench.sh`'s.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark")]

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::LazyLock;
use wal_archive::object::{Checks, Encoding, Encryption, Key, Sha256Sum, Stored, decode, encode};
use wal_archive::wal::WalName;

const MIB: usize = 1 << 20;
const SIZE: usize = 16 * MIB;

fn main() {
    divan::main();
}

/// A segment of 16 MiB to work on.
#[derive(Clone, Copy)]
enum Segment {
    /// Real WAL under load, of PostgreSQL 13, 14, 16, 17 and 18, mostly full-page images.
    Busy,
    /// Real WAL of small changes.
    Compressible,
    /// As of a database that holds images, or ciphertext.
    Incompressible,
    /// Switched after a few records: zeros to the end.
    NearlyEmpty,
}

const SEGMENTS: [Segment; 4] =
    [Segment::Busy, Segment::Compressible, Segment::Incompressible, Segment::NearlyEmpty];

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Segment::Busy => "busy",
            Segment::Compressible => "compressible",
            Segment::Incompressible => "incompressible",
            Segment::NearlyEmpty => "nearly empty",
        })
    }
}

impl Segment {
    fn content(self) -> &'static [u8] {
        static CONTENTS: LazyLock<[Vec<u8>; 4]> =
            LazyLock::new(|| SEGMENTS.map(|segment| with_header(segment.body())));
        &CONTENTS[self as usize]
    }

    fn body(self) -> Vec<u8> {
        match self {
            Segment::Busy => repeated(&[
                "postgresql-13/000000010000000000000007",
                "postgresql-14/000000010000000000000008",
                "postgresql-16/000000010000000000000006",
                "postgresql-17/000000010000000000000006",
                "postgresql-18/000000010000000000000009",
            ]),
            Segment::Compressible => repeated(&[
                "postgresql-15/00000001000000000000001A",
                "postgresql-15/00000002000000000000001C",
            ]),
            Segment::Incompressible => noise(),
            Segment::NearlyEmpty => {
                let mut body = repeated(&["postgresql-15/00000001000000000000001A"]);
                body[64 * 1024..].fill(0);
                body
            }
        }
    }
}

/// Real segments of 1 MiB one after the other. What is repeated is further away than the window of
/// zstd's level 1 (512 KiB), so that it compresses as the real ones do.
fn repeated(fixtures: &[&str]) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/wal");
    let pieces = fixtures.iter().map(|name| {
        let packed = fs::File::open(folder.join(format!("{name}.zst"))).unwrap();
        zstd::decode_all(packed).unwrap()
    });
    let mut pieces: Vec<u8> = pieces.flatten().collect();
    while pieces.len() < SIZE {
        pieces.extend_from_within(..pieces.len().min(SIZE - pieces.len()));
    }
    pieces.truncate(SIZE);
    pieces
}

/// Xorshift64 (Marsaglia, 2003).
fn noise() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state)
    };
    std::iter::from_fn(next).flat_map(u64::to_le_bytes).take(SIZE).collect()
}

/// The first page's header of a segment of 16 MiB with [`name`]; offsets as in `wal::page`.
fn with_header(mut body: Vec<u8>) -> Vec<u8> {
    let header = repeated(&["postgresql-15/00000001000000000000001A"]);
    body[..40].copy_from_slice(&header[..40]);
    body[8..16].copy_from_slice(&(0x1A * SIZE as u64).to_le_bytes());
    body[32..36].copy_from_slice(&(SIZE as u32).to_le_bytes());
    body
}

fn name() -> WalName {
    "00000001000000000000001A".parse().unwrap()
}

fn object(segment: Segment) -> Vec<u8> {
    let mut object = Vec::new();
    encode(name(), SIZE as u64, None, 1, &mut segment.content(), &mut object).unwrap();
    object
}

#[divan::bench(args = SEGMENTS)]
fn encode_level_1(bencher: Bencher<'_, '_>, segment: Segment) {
    let content = segment.content();
    bencher
        .counter(BytesCount::new(SIZE))
        .bench(|| encode(name(), SIZE as u64, None, 1, &mut black_box(content), &mut io::sink()).unwrap());
}

#[divan::bench(args = SEGMENTS)]
fn decode_and_prove(bencher: Bencher<'_, '_>, segment: Segment) {
    let object = object(segment);
    bencher.counter(BytesCount::new(SIZE)).bench(|| {
        decode(name(), Checks::Header, &mut black_box(object.as_slice()), &mut io::sink()).unwrap()
    });
}

#[divan::bench]
fn sha256_alone(bencher: Bencher<'_, '_>) {
    let content = Segment::Busy.content();
    bencher.counter(BytesCount::new(SIZE)).bench(|| Sha256Sum::of(black_box(content)));
}

#[divan::bench(args = SEGMENTS)]
fn zstd_1_alone(bencher: Bencher<'_, '_>, segment: Segment) {
    let content = segment.content();
    bencher.counter(BytesCount::new(SIZE)).bench(|| {
        let mut encoder = zstd::Encoder::new(io::sink(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.set_pledged_src_size(Some(SIZE as u64)).unwrap();
        io::copy(&mut black_box(content), &mut encoder).unwrap();
        encoder.finish().unwrap()
    });
}

#[divan::bench(args = SEGMENTS)]
fn unzstd_alone(bencher: Bencher<'_, '_>, segment: Segment) {
    let object = object(segment);
    bencher.counter(BytesCount::new(SIZE)).bench(|| {
        zstd::stream::copy_decode(black_box(object.as_slice()), io::sink()).unwrap();
    });
}

const NAMES: [&str; 4] = [
    "00000001000000000000001A",
    "00000001000000000000001B.partial",
    "000000010000000000000015.00000028.backup",
    "00000002.history",
];

#[divan::bench]
fn parse_names(bencher: Bencher<'_, '_>) {
    bencher
        .counter(ItemsCount::new(NAMES.len()))
        .bench(|| black_box(NAMES).map(|text| text.parse::<WalName>().unwrap()));
}

#[divan::bench]
fn parse_stored_names(bencher: Bencher<'_, '_>) {
    let stored = NAMES.map(|name| format!("{name}.{}", Encoding::Zstd.extension()));
    bencher
        .counter(ItemsCount::new(stored.len()))
        .bench(|| stored.each_ref().map(|text| Stored::parse(black_box(text))));
}

#[divan::bench]
fn key_of_a_name(bencher: Bencher<'_, '_>) {
    let name = name();
    bencher.bench(|| Key::of(black_box(name), Encryption::None));
}
