//! `wal-archive copy` and `quarantine` with a bucket at either end.

use crate::bucket::Bucket;
use crate::support::proxy::Fate;
use crate::util::{Run, flip, names};
use std::fs;
use std::path::Path;

fn vectors() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn wal() -> Vec<(String, Vec<u8>)> {
    let folder = vectors().join("wal/postgresql-15");
    let raw = |file: String| {
        let object = fs::File::open(folder.join(&file)).unwrap();
        (file.strip_suffix(".zst").unwrap().to_owned(), zstd::decode_all(object).unwrap())
    };
    names(&folder).into_iter().map(raw).collect()
}

#[test]
fn an_archive_of_wal_g_moves_into_a_bucket_and_out_again_and_is_repaired_there() {
    let Some(bucket) = Bucket::new() else { return };
    let from = vectors().join("foreign/wal-g-lz4");
    let copy = |args: &[&str], from: &str, to: &str| {
        Run::of(bucket.program("wal-archive").arg("copy").args(args).args([from, to]))
    };
    let run = copy(&[], from.to_str().unwrap(), &bucket.url());
    assert_eq!(run.code, Some(0), "{run:?}");
    let files = wal();
    for (name, content) in &files {
        bucket.fetch(name, &[]).succeeds();
        assert!(bucket.sandbox.fetched() == *content, "{name}");
    }
    // The repeat reads trailers, and creates nothing.
    bucket.requests();
    let back = bucket.sandbox.make_archive("back");
    let run = copy(&[], &bucket.url(), back.to_str().unwrap()).says(0, &["copied", "8"]);
    assert!(run.stderr.is_empty(), "{run:?}");
    bucket.requests();
    copy(&[], &bucket.url(), back.to_str().unwrap()).says(0, &["identical", "8"]);
    let asked = bucket.requests();
    assert!(asked.iter().all(|request| !request.starts_with("PUT")), "{asked:?}");
    // Damaged in the bucket, repaired from the directory.
    let name = &files[0].0;
    let Some(object) = bucket.server.file(&format!("archive/wal_005/{name}.zst")) else {
        eprintln!("SKIPPED: only versitygw keeps objects as files");
        return;
    };
    let good = fs::read(&object).unwrap();
    flip(&object, 300);
    assert_eq!(bucket.fetch(name, &[]).code, Some(221));
    let repair = || copy(&["--repair"], back.to_str().unwrap(), &bucket.url());
    let young = repair();
    assert!(young.code == Some(2) && young.stderr.contains("15 minutes"), "{young:?}");
    bucket.planned(|_| Fate::LongAgo);
    repair().says(0, &["repaired", "1"]);
    bucket.planned(|_| Fate::Pass);
    assert!(fs::read(&object).unwrap() == good);
    let aside = bucket.server.file("archive/quarantine").unwrap();
    assert_eq!(names(&aside).len(), 1);
    flip(&object, 300);
    let quarantine =
        |args: &[&str]| Run::of(bucket.program("wal-archive").args(["quarantine", name]).args(args));
    assert_eq!(quarantine(&[]).code, Some(2));
    assert!(object.exists());
    quarantine(&["--force"]).says(0, &["damaged", "moved to \"quarantine/"]);
    assert!(!object.exists());
}
