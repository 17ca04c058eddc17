//! A bucket that WAL-G wrote to, or `gzip`, and that our programs go on with.

use crate::bucket::Bucket;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// The raw bytes of a WAL file of the fixtures.
fn raw(name: &str) -> Vec<u8> {
    let path = vectors().join("wal/postgresql-15").join(format!("{name}.zst"));
    zstd::decode_all(fs::File::open(path).unwrap()).unwrap()
}

/// Puts a file into the bucket as another tool would have.
fn put(bucket: &Bucket, key: &str, content: &[u8]) -> Option<()> {
    let path = bucket.server.file(&format!("archive/{key}"))?;
    fs::create_dir_all(path.parent()?).unwrap();
    fs::write(path, content).unwrap();
    Some(())
}

#[test]
fn every_object_of_wal_g_is_restored_and_archiving_goes_on_beside_it() {
    for method in ["wal-g-lz4", "wal-g-zstd", "wal-g-lzma", "wal-g-brotli"] {
        let Some(bucket) = Bucket::without_archive() else { return };
        let mut names = Vec::new();
        for entry in fs::read_dir(vectors().join("foreign").join(method).join("wal_005")).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            if put(&bucket, &format!("wal_005/{file}"), &fs::read(&path).unwrap()).is_none() {
                eprintln!("SKIPPED: only versitygw keeps objects as files");
                return;
            }
            names.push(file.rsplit_once('.').unwrap().0.to_owned());
        }
        for name in &names {
            bucket.fetch(name, &[]).succeeds();
            assert!(bucket.sandbox.fetched() == raw(name), "{method}: {name}");
        }
        // Pushed again it is the same, whatever it is encoded in; the next one is ours.
        let (known, next) = ("00000001000000000000001A", "00000001000000000000001C");
        bucket.sandbox.wal(known, &raw(known));
        bucket.push(known, &[]).succeeds();
        bucket.sandbox.segment(next);
        bucket.push(next, &[]).succeeds();
        let mut identity = String::new();
        let file = bucket.server.file("archive/archive.json").unwrap();
        fs::File::open(file).unwrap().read_to_string(&mut identity).unwrap();
        assert!(identity.contains("\"foreign\":true"), "{identity}");
        let ours = bucket.server.file(&format!("archive/wal_005/{known}.zst")).unwrap();
        assert_eq!(ours.exists(), method == "wal-g-zstd", "{method}: no second copy is made");
        bucket.fetch(next, &[]).succeeds();
    }
}

#[test]
fn bare_and_gzip_files_directly_under_the_prefix_are_restored() {
    let Some(bucket) = Bucket::without_archive() else { return };
    let (bare, gzip) = ("00000001000000000000001A", "00000001000000000000001B");
    let mut packed = Vec::new();
    let content = raw(gzip);
    flate2::read::GzEncoder::new(&content[..], flate2::Compression::fast()).read_to_end(&mut packed).unwrap();
    if put(&bucket, bare, &raw(bare)).is_none() {
        eprintln!("SKIPPED: only versitygw keeps objects as files");
        return;
    }
    put(&bucket, &format!("{gzip}.gz"), &packed).unwrap();
    for name in [bare, gzip] {
        bucket.fetch(name, &[]).succeeds();
        assert!(bucket.sandbox.fetched() == raw(name), "{name}");
    }
    assert_eq!(bucket.fetch("00000001000000000000001C", &[]).code, Some(1));
    bucket.fetch_soon("000000010000000000000019", &[]).fails(224, &["hole", bare]);
}
