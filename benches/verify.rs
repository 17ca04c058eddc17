//! `wal-archive verify` against the library's own decoding of the same files by as many threads as
//! there are processors, in turn: `cargo bench --bench verify`.
//!
//! Prints raw bytes per second, least and median of each, and the ratio of the medians.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark"
)]

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use wal_archive::object::{Checks, Encryption, Identity, decode, encode};
use wal_archive::storage::Shared;
use wal_archive::storage::local::Local;
use wal_archive::verify::{Depth, Options, verify};
use wal_archive::wal::{FirstPage, SegmentName, SegmentSize, Start, SystemId, Timeline, WalName, Walker};

const SEGMENTS: u64 = 64;
const ROUNDS: usize = 7;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let size = SegmentSize::new(16 << 20).unwrap();
    let names = make(folder.path(), size);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    let raw = SEGMENTS * size.bytes();
    println!("{SEGMENTS} segments of {size}, {threads} threads, {ROUNDS} rounds in turn");
    let (mut plain, mut whole, mut records) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let times = [
            decode_all(folder.path(), &names, threads),
            verify_all(folder.path(), Depth::Full, threads),
            verify_all(folder.path(), Depth::Records, threads),
        ];
        if round > 0 {
            // The first fills the page cache.
            plain.push(times[0]);
            whole.push(times[1]);
            records.push(times[2]);
        }
    }
    for (version, segment) in [(15, "00000002000000000000001B"), (16, "000000010000000000000006")] {
        walk(version, segment);
    }
    let base = show("decode + sha256", &mut plain, raw);
    for (what, times) in [("verify", &mut whole), ("verify --records", &mut records)] {
        let median = show(what, times, raw);
        println!("{what}: {:.2} x of decode + sha256", base / median);
    }
}

/// Segments whose bytes are those of a real server, under names that they do not have there.
fn make(root: &Path, size: SegmentSize) -> Vec<WalName> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/wal/postgresql-15");
    let pieces: Vec<Vec<u8>> =
        ["00000001000000000000001A", "00000002000000000000001B", "00000002000000000000001C"]
            .iter()
            .map(|name| vectors.join(format!("{name}.zst")))
            .map(|path| {
                zstd::stream::decode_all(&fs::read(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"))[..])
                    .unwrap()
            })
            .collect();
    let system_id = FirstPage::read(&pieces[0]).unwrap().system_id();
    fs::create_dir(root.join("wal_005")).unwrap();
    let identity = Identity { system_id, segment_size: size, foreign: false, encryption: Encryption::None };
    fs::write(root.join("archive.json"), identity.write()).unwrap();
    (0..SEGMENTS)
        .map(|number| {
            let segment = SegmentName::numbered(Timeline::FIRST, number, size);
            let mut bytes: Vec<u8> = Vec::new();
            for piece in pieces.iter().cycle().skip(number as usize).take(16) {
                bytes.extend(piece);
            }
            bytes[4..8].copy_from_slice(&1u32.to_le_bytes());
            bytes[8..16].copy_from_slice(&segment.start(size).unwrap().0.to_le_bytes());
            bytes[32..36].copy_from_slice(&(size.bytes() as u32).to_le_bytes());
            // No two objects are the same, and no codec sees more than what one segment repeats.
            bytes.chunks_mut(8192).skip(1).enumerate().for_each(|(page, bytes)| {
                bytes[100..108].copy_from_slice(&(number << 32 | page as u64).to_le_bytes());
            });
            let name = WalName::Segment(segment);
            let mut object = Vec::new();
            encode(name, size.bytes(), Some(SystemId(system_id.0)), 1, &mut &bytes[..], &mut object).unwrap();
            fs::write(root.join(format!("wal_005/{name}.zst")), object).unwrap();
            name
        })
        .collect()
}

fn decode_all(root: &Path, names: &[WalName], threads: usize) -> Duration {
    let start = Instant::now();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut object = File::open(root.join(format!("wal_005/{name}.zst"))).unwrap();
                    decode(*name, Checks::Header, &mut object, &mut io::sink()).unwrap();
                }
            });
        }
    });
    start.elapsed()
}

fn verify_all(root: &Path, depth: Depth, jobs: usize) -> Duration {
    let storages: [Shared; 1] = [Arc::new(Local::new(root.to_owned()))];
    let options = Options {
        depth,
        since: None,
        label: None,
        accepted: Vec::new(),
        accepted_histories: Vec::new(),
        jobs,
        checks: Checks::Header,
    };
    let start = Instant::now();
    let report = verify(&storages, &options, SystemTime::now(), &mut |_, _| ()).unwrap();
    let elapsed = start.elapsed();
    assert_eq!(report.checked.objects, SEGMENTS);
    // These records form no chain, so only the walk's own work is seen with them.
    assert!(depth == Depth::Records || report.findings.is_empty(), "{:?}", report.findings);
    elapsed
}

/// The walk alone, on one processor, over a segment of large or of small records.
fn walk(version: u32, segment: &str) {
    let path = format!("{}/tests/vectors/wal/postgresql-{version}/{segment}.zst", env!("CARGO_MANIFEST_DIR"));
    let bytes = zstd::stream::decode_all(&fs::read(path).unwrap()[..]).unwrap();
    let (start, mut records) = (Instant::now(), 0);
    for _ in 0..200 {
        let mut walker = Walker::new(Start::Anywhere);
        walker.begin(segment.parse().unwrap());
        walker.push(&bytes);
        let found = walker.walk();
        assert!(found.complete);
        records = found.records;
    }
    let rate = 200.0 * bytes.len() as f64 / start.elapsed().as_secs_f64() / f64::from(1 << 20);
    println!("walk of {records} records in {} KiB: {rate:.0} MiB/s", bytes.len() >> 10);
}

/// The median, in seconds.
fn show(what: &str, times: &mut [Duration], raw: u64) -> f64 {
    times.sort();
    let rate = |time: Duration| raw as f64 / time.as_secs_f64() / f64::from(1 << 20);
    let (least, median) = (times[0], times[times.len() / 2]);
    println!("{what}: {:.0} MiB/s at best, {:.0} median", rate(least), rate(median));
    median.as_secs_f64()
}
