//! Archives that other tools wrote: WAL-G's in each of its encodings, and those of `cp` and `gzip`.
//! The objects were made by a real WAL-G, and are never made by code of this project.

use crate::util::{CLUSTER, MIB, Run, Sandbox, flip, names, noise, segment};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const WAL_G: [(&str, &str); 5] = [
    ("wal-g-lz4", ".lz4"),
    ("wal-g-zstd", ".zst"),
    ("wal-g-lzma", ".lzma"),
    ("wal-g-brotli", ".br"),
    ("", ""),
];

const A: &str = "00000001000000000000001A";
const B: &str = "00000001000000000000001B";
/// The next segment after all that the fixtures hold.
const NEXT: &str = "00000002000000000000001D";

pub fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// The WAL files that the fixtures were made from.
pub fn wal() -> Vec<(String, Vec<u8>)> {
    let folder = vectors().join("wal/postgresql-15");
    let raw = |file: String| {
        let mut bytes = Vec::new();
        let object = fs::File::open(folder.join(&file)).unwrap();
        zstd::Decoder::new(object).unwrap().read_to_end(&mut bytes).unwrap();
        (file.strip_suffix(".zst").unwrap().to_owned(), bytes)
    };
    names(&folder).into_iter().map(raw).collect()
}

fn raw(name: &str) -> Vec<u8> {
    wal().into_iter().find(|(other, _)| other == name).unwrap().1
}

/// A sandbox whose archive is a copy of a fixture, or bare where that has no name.
pub fn archive_of(fixture: &str) -> Sandbox {
    let sandbox = Sandbox::without_archive();
    let folder = sandbox.archive().join("wal_005");
    fs::create_dir(&folder).unwrap();
    if fixture.is_empty() {
        for (name, content) in wal() {
            fs::write(folder.join(name), content).unwrap();
        }
        return sandbox;
    }
    let from = vectors().join("foreign").join(fixture).join("wal_005");
    for name in names(&from) {
        fs::copy(from.join(&name), folder.join(&name)).unwrap();
    }
    sandbox
}

fn at(sandbox: &Sandbox, key: &str) -> PathBuf {
    sandbox.archive().join(key)
}

/// Everything of the archive, to show that nothing was touched.
fn everything(sandbox: &Sandbox) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for folder in [sandbox.archive(), sandbox.archive().join("wal_005")] {
        let files = names(&folder).into_iter().map(|name| folder.join(name)).filter(|path| path.is_file());
        all.extend(files.map(|path| (path.clone(), fs::read(path).unwrap())));
    }
    all
}

fn delivers_all(sandbox: &Sandbox) {
    for (name, content) in wal() {
        sandbox.fetch(&name, &[]).succeeds();
        assert!(sandbox.fetched() == content, "{name}");
    }
}

#[test]
fn every_object_of_wal_g_is_restored_byte_for_byte() {
    for (fixture, _) in WAL_G {
        let sandbox = archive_of(fixture);
        let before = everything(&sandbox);
        delivers_all(&sandbox);
        assert_eq!(sandbox.fetch(NEXT, &[]).code, Some(1), "{fixture}");
        assert_eq!(sandbox.fetch("00000003.history", &[]).code, Some(1), "{fixture}");
        assert!(everything(&sandbox) == before, "{fixture}: a fetch changes nothing");
    }
}

#[test]
fn wal_gs_metadata_is_a_stranger() {
    let sandbox = archive_of("wal-g-metadata");
    sandbox.fetch(A, &[]).succeeds();
    assert!(sandbox.fetched() == raw(A));
    fs::rename(at(&sandbox, &format!("wal_005/{A}.json")), at(&sandbox, &format!("wal_005/{NEXT}.json")))
        .unwrap();
    assert_eq!(sandbox.fetch(NEXT, &[]).code, Some(1));
    sandbox.segment(NEXT);
    assert_eq!(sandbox.push(NEXT, &[]).code, Some(0));
    assert!(sandbox.object(NEXT).exists());
}

#[test]
fn archives_of_cp_gzip_and_zstd_directly_under_the_prefix_are_restored() {
    for tool in ["cat", "gzip -1", "zstd -q", "zstd -q --no-check", "lz4 -q"] {
        let extension = match tool.split(' ').next() {
            Some("gzip") => ".gz",
            Some("zstd") => ".zst",
            Some("lz4") => ".lz4",
            _ => "",
        };
        let sandbox = Sandbox::without_archive();
        let source = sandbox.path("source");
        for (name, content) in wal() {
            fs::write(&source, content).unwrap();
            let script = format!("{tool} < \"$0\" > \"$1\"");
            let to = at(&sandbox, &format!("{name}{extension}"));
            let status = Command::new("sh").args(["-c", &script]).arg(&source).arg(to).status().unwrap();
            assert!(status.success(), "{tool}");
        }
        delivers_all(&sandbox);
        assert_eq!(sandbox.fetch(NEXT, &[]).code, Some(1), "{tool}");
        let hole = sandbox.fetch_now("000000010000000000000016", &[]);
        hole.fails(224, &["a hole", "000000010000000000000016", A]);
    }
}

#[test]
fn a_hole_is_seen_in_every_encoding() {
    for (fixture, _) in WAL_G {
        let sandbox = archive_of(fixture);
        let hole = sandbox.fetch_now("000000010000000000000017", &[]);
        hole.fails(224, &["a hole", "000000010000000000000017", A]);
        sandbox.nothing_fetched();
    }
}

#[test]
fn a_cut_object_is_damage_in_every_encoding_and_nothing_is_delivered() {
    for (fixture, extension) in WAL_G {
        let sandbox = archive_of(fixture);
        for name in [A, "000000010000000000000015"] {
            let key = format!("wal_005/{name}{extension}");
            let good = fs::read(at(&sandbox, &key)).unwrap();
            for len in
                [0, 1, 7, 100, good.len() / 2, good.len() - 9, good.len() - 8, good.len() - 4, good.len() - 1]
            {
                fs::write(at(&sandbox, &key), &good[..len]).unwrap();
                sandbox.fetch(name, &[]).fails(221, &[&key, "damaged", "HINT:"]);
            }
            fs::write(at(&sandbox, &key), [&good[..], b"x"].concat()).unwrap();
            sandbox.fetch(name, &[]).fails(221, &[&key, "damaged"]);
        }
        sandbox.nothing_fetched();
    }
}

#[test]
fn a_file_of_another_cluster_or_name_is_never_delivered() {
    for (fixture, extension) in WAL_G {
        let sandbox = archive_of(fixture);
        let key = |name: &str| at(&sandbox, &format!("wal_005/{name}{extension}"));
        fs::copy(key(A), key(NEXT)).unwrap();
        sandbox.fetch(NEXT, &[]).fails(221, &[NEXT, "damaged or not the file asked for"]);
        sandbox.make_data_directory("data", 42);
        sandbox.fetch(A, &[]).fails(221, &["42", &CLUSTER.to_string(), "HINT:"]);
        sandbox.nothing_fetched();
    }
}

#[test]
fn a_damaged_copy_is_passed_over_with_a_warning_that_names_it() {
    let sandbox = archive_of("wal-g-lz4");
    let content = raw(A);
    let damaged = [format!("wal_005/{A}.zst"), format!("wal_005/{A}.br"), format!("{A}.gz"), A.to_owned()];
    for key in &damaged {
        fs::write(at(&sandbox, key), "junk").unwrap();
        let run = sandbox.fetch(A, &[]).fails(0, &["warning", key, "damaged"]);
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        assert!(sandbox.fetched() == content);
        fs::remove_file(at(&sandbox, key)).unwrap();
    }
    // And with the good copy under the prefix only.
    fs::rename(at(&sandbox, &format!("wal_005/{A}.lz4")), at(&sandbox, &format!("{A}.lz4"))).unwrap();
    fs::write(at(&sandbox, &format!("wal_005/{A}.lz4")), "junk").unwrap();
    sandbox.fetch(A, &[]).fails(0, &["warning", &format!("wal_005/{A}.lz4"), "damaged"]);
    assert!(sandbox.fetched() == content);
}

#[test]
fn two_copies_with_different_content_are_damage_and_two_equal_ones_are_not() {
    for (fixture, extension) in WAL_G {
        let sandbox = archive_of(fixture);
        let beside = at(&sandbox, &format!("wal_005/{A}.gz"));
        let put = |content: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, content).unwrap();
            fs::write(&beside, encoder.finish().unwrap()).unwrap();
        };
        put(&raw(A));
        sandbox.fetch(A, &[]).succeeds();
        assert!(sandbox.fetched() == raw(A));
        put(&segment(A, MIB, CLUSTER, 7));
        let first = format!("{A}{extension}");
        sandbox.fetch(A, &[]).fails(221, &[&first, &format!("{A}.gz"), "different content", "HINT:"]);
        sandbox.nothing_fetched();
    }
}

#[test]
fn an_unknown_encoding_is_an_error_until_a_readable_copy_stands_beside_it() {
    let sandbox = archive_of("wal-g-lz4");
    for key in [format!("wal_005/{NEXT}.gpg"), format!("{NEXT}.age"), "00000003.history.xz".to_owned()] {
        fs::write(at(&sandbox, &key), "x").unwrap();
        let name = if key.contains("history") { "00000003.history" } else { NEXT };
        sandbox.fetch_now(name, &[]).fails(220, &[&key, "encoding", "HINT:"]);
        if name == NEXT {
            sandbox.segment(NEXT);
            sandbox.push(NEXT, &[]).fails(12, &[&key, "encoding", "HINT:"]);
        }
        fs::remove_file(at(&sandbox, &key)).unwrap();
    }
    fs::write(at(&sandbox, &format!("wal_005/{A}.gpg")), "x").unwrap();
    sandbox.fetch(A, &[]).succeeds();
}

#[test]
fn a_push_into_wal_gs_archive_keeps_to_what_is_there() {
    for (fixture, extension) in WAL_G {
        let sandbox = archive_of(fixture);
        let before = sandbox.objects();
        for (name, content) in wal() {
            sandbox.wal(&name, &content);
            sandbox.push(&name, &[]).succeeds();
        }
        assert_eq!(sandbox.objects(), before, "{fixture}: identical files are not stored again");
        let identity = fs::read_to_string(at(&sandbox, "archive.json")).unwrap();
        let expected = format!(
            "{{\"wal-archive\":1,\"system_id\":\"{CLUSTER}\",\"segment_size\":{MIB},\"foreign\":true}}\n"
        );
        assert_eq!(identity, expected, "{fixture}");

        let there = format!("{A}{extension}");
        sandbox.wal(A, &segment(A, MIB, CLUSTER, 7));
        sandbox.push(A, &[]).fails(12, &[&there, "different content", "nothing was overwritten"]);
        assert_eq!(sandbox.objects(), before);
        let content = sandbox.segment(NEXT);
        sandbox.push(NEXT, &[]).succeeds();
        sandbox.push(NEXT, &[]).succeeds();
        assert_eq!(sandbox.objects().len(), before.len() + 1);
        assert!(sandbox.object(NEXT).exists());

        delivers_all(&sandbox);
        sandbox.fetch(NEXT, &[]).succeeds();
        assert!(sandbox.fetched() == content);
        fs::write(at(&sandbox, &format!("wal_005/{there}")), "junk").unwrap();
        sandbox.wal(A, &raw(A));
        sandbox.push(A, &[]).fails(12, &[&there, "damaged", "HINT:"]);
    }
}

#[test]
fn a_push_into_a_plain_archive_keeps_to_what_is_there() {
    let sandbox = Sandbox::without_archive();
    fs::write(at(&sandbox, A), raw(A)).unwrap();
    sandbox.wal(A, &raw(A));
    sandbox.push(A, &[]).succeeds();
    assert!(!at(&sandbox, "wal_005").exists() || sandbox.objects().is_empty());
    sandbox.wal(A, &segment(A, MIB, CLUSTER, 7));
    sandbox.push(A, &[]).fails(12, &[A, "different content"]);
    sandbox.wal(B, &raw(B));
    sandbox.push(B, &[]).succeeds();
    assert_eq!(sandbox.objects(), [format!("{B}.zst")]);
    for name in [A, B] {
        sandbox.fetch(name, &[]).succeeds();
        assert!(sandbox.fetched() == raw(name));
    }
}

#[test]
fn a_different_partial_segment_is_stored_beside_wal_gs() {
    let sandbox = archive_of("wal-g-lz4");
    let name = format!("{B}.partial");
    let content = segment(B, MIB, CLUSTER, 7);
    sandbox.wal(&name, &content);
    let before = sandbox.objects();
    for _ in 0..2 {
        sandbox.push(&name, &[]).fails(0, &["warning", "stored beside it"]);
    }
    let sum = wal_archive::object::Sha256Sum::of(&content).short();
    let new: Vec<_> = sandbox.objects().into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(new, [format!("{name}.{sum}.zst")]);
    sandbox.fetch(&name, &[]).succeeds();
    assert!(sandbox.fetched() == raw(&name));
}

#[test]
fn another_clusters_or_segment_sizes_archive_is_refused_and_stays_as_it_is() {
    for (fixture, _) in WAL_G {
        let sandbox = archive_of(fixture);
        let before = everything(&sandbox);
        sandbox.make_data_directory("data", 42);
        sandbox.wal(NEXT, &segment(NEXT, MIB, 42, 1));
        sandbox.push(NEXT, &[]).fails(11, &["holds WAL of", "42", &CLUSTER.to_string(), "HINT:"]);
        sandbox.make_data_directory("data", CLUSTER);
        sandbox.wal(NEXT, &segment(NEXT, 2 * MIB, CLUSTER, 1));
        sandbox.push(NEXT, &[]).fails(11, &["1 MiB", "2 MiB", "pg_resetwal", "HINT:"]);
        assert!(everything(&sandbox) == before, "{fixture}");
    }
}

#[test]
fn an_archive_that_nobody_can_read_is_refused() {
    // WAL-G's encryption leaves the names as they are.
    for (extension, folder) in [("lz4", "wal_005/"), ("zst", "wal_005/"), ("gpg", "wal_005/"), ("gz", "")] {
        let sandbox = Sandbox::without_archive();
        fs::create_dir(at(&sandbox, "wal_005")).unwrap();
        for (seed, (name, _)) in (1..).zip(wal()) {
            fs::write(at(&sandbox, &format!("{folder}{name}.{extension}")), noise(seed, 70_000)).unwrap();
        }
        let before = everything(&sandbox);
        sandbox.segment(NEXT);
        sandbox.push(NEXT, &[]).fails(13, &["encrypted", "HINT:", "empty prefix", "wal-g wal-fetch"]);
        assert!(everything(&sandbox) == before, "{extension}");
        let code = if extension == "gpg" { 220 } else { 221 };
        sandbox.fetch(A, &[]).fails(code, &[A, extension]);
    }
}

#[test]
fn some_damaged_segments_do_not_hide_whose_an_archive_is() {
    let sandbox = archive_of("wal-g-lz4");
    for name in ["000000010000000000000015", A] {
        fs::write(at(&sandbox, &format!("wal_005/{name}.lz4")), "junk").unwrap();
    }
    sandbox.make_data_directory("data", 42);
    sandbox.wal(NEXT, &segment(NEXT, MIB, 42, 1));
    sandbox.push(NEXT, &[]).fails(11, &["42", &CLUSTER.to_string()]);
}

#[test]
fn a_lost_identity_of_our_own_archive_is_made_again_by_init_and_by_no_push() {
    let sandbox = Sandbox::new();
    sandbox.wal(A, &raw(A));
    sandbox.push(A, &[]).succeeds();
    let identity = fs::read(at(&sandbox, "archive.json")).unwrap();
    fs::remove_file(at(&sandbox, "archive.json")).unwrap();
    fs::remove_dir_all(sandbox.path("data.wal-spool")).unwrap();
    sandbox.wal(B, &raw(B));
    sandbox.push(B, &[]).fails(13, &["it has no \"archive.json\"", "run: wal-archive init"]);
    let init = |id: u64| sandbox.admin("init", &["--segment-size", "1MB", "--system-id", &id.to_string()]);
    init(42).fails(1, &["holds WAL of the cluster", &CLUSTER.to_string(), "42"]);
    assert!(!at(&sandbox, "archive.json").exists());
    init(CLUSTER).says(0, &["is now the archive"]);
    sandbox.push(B, &[]).succeeds();
    assert!(fs::read(at(&sandbox, "archive.json")).unwrap() == identity);
}

#[test]
fn the_next_destination_is_asked_after_damage_in_a_foreign_one() {
    let sandbox = archive_of("wal-g-lz4");
    let other = sandbox.path("other");
    fs::create_dir_all(other.join("wal_005")).unwrap();
    fs::copy(
        vectors().join(format!("foreign/wal-g-brotli/wal_005/{A}.br")),
        other.join(format!("wal_005/{A}.br")),
    )
    .unwrap();
    flip(&at(&sandbox, &format!("wal_005/{A}.lz4")), 99_999);
    let fetch = Run::of(
        sandbox
            .program("wal-fetch")
            .arg("--archive")
            .arg(sandbox.archive())
            .arg("--archive")
            .arg(&other)
            .args([A, "pg_wal/RECOVERYXLOG"]),
    );
    fetch.fails(0, &["warning", &format!("wal_005/{A}.lz4"), "damaged"]);
    assert!(sandbox.fetched() == raw(A));
}
