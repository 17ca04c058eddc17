//! `wal-archive drain`, and `wal-fetch --partial`, which gives what it stored last.

use crate::util::{Run, Sandbox, flip, names, noise};
use std::fs;
use std::path::Path;

// Of the cluster of the sandbox (`tests/vectors/wal/postgresql-15`).
const A: &str = "00000001000000000000001A";
const B: &str = "00000001000000000000001B";
const HISTORY: &str = "00000002.history";
/// Where the records of the partial segment end.
const END: usize = 0x6_BDA0;

fn real(name: &str) -> Vec<u8> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/wal/postgresql-15");
    zstd::stream::decode_all(&fs::read(vectors.join(format!("{name}.zst"))).unwrap()[..]).unwrap()
}

/// The unfinished segment, with what a recycled one holds behind its end.
fn unfinished() -> Vec<u8> {
    let mut bytes = real(&format!("{B}.partial"));
    let tail = noise(3, bytes.len() - 600_000);
    bytes[600_000..].copy_from_slice(&tail);
    bytes
}

/// An archive with one segment; the dead server holds the next one, unfinished.
fn dead() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.wal(A, &real(A));
    sandbox.push(A, &[]).succeeds();
    sandbox.wal(B, &unfinished());
    sandbox.wal("00000001000000000000001C", &real(A)); // recycled
    sandbox.wal("00000001000000000000001D", &vec![0; 1 << 20]);
    sandbox
}

fn drain(sandbox: &Sandbox, args: &[&str]) -> Run {
    Run::of(sandbox.program("wal-archive").arg("drain").arg("--archive").arg(sandbox.archive()).args(args))
}

/// The same, with nothing left in pg_wal: the server is lost.
fn drained() -> Sandbox {
    let sandbox = dead();
    let run = drain(&sandbox, &["--pgdata", "."]);
    assert_eq!(run.code, Some(0), "{run:?}");
    for name in names(&sandbox.data().join("pg_wal")).iter().filter(|name| name.starts_with("0000")) {
        fs::remove_file(sandbox.data().join("pg_wal").join(name)).unwrap();
    }
    sandbox
}

#[test]
fn the_unfinished_segment_goes_in_as_a_partial_one_and_the_steps_are_told() {
    let sandbox = dead();
    let plan = drain(&sandbox, &["--pgdata", ".", "--dry-run"]);
    assert_eq!((plan.code, sandbox.objects()), (Some(0), vec![format!("{A}.zst")]), "{plan:?}");
    assert!(
        plan.stdout.contains(&format!("to be stored    {B}.partial  unfinished, up to 0/1B6BDA0")),
        "{plan:?}"
    );
    let run = drain(&sandbox, &["--pgdata", "."]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(sandbox.objects(), [format!("{A}.zst"), format!("{B}.partial.zst")]);
    for words in [
        format!("there already  {A}"),
        "left           2 recycled or preallocated\n".to_owned(),
        format!("stored         {B}.partial  unfinished, up to 0/1B6BDA0"),
        "timeline 1: up to 0/1B6BDA0, last commit 2026-11-20T21:05:52.639220Z".to_owned(),
        "wal-fetch --partial %f %p', recovery_target_timeline = '1'".to_owned(),
    ] {
        assert!(run.stdout.contains(&words), "{words}: {run:?}");
    }
    assert!(run.stderr.is_empty(), "{run:?}");
    assert_eq!(
        names(&sandbox.data().join("pg_wal/archive_status")),
        [""; 0],
        "status files are PostgreSQL's"
    );
}

#[test]
fn a_drain_that_cannot_be_done_is_code_2_and_stores_nothing() {
    let sandbox = dead();
    let before = sandbox.objects();
    drain(&sandbox, &[]).fails(2, &["--pgdata", "--wal-dir"]);
    drain(&sandbox, &["--pgdata", "/nonexistent"]).fails(2, &["not a data directory", "HINT:", "--wal-dir"]);
    drain(&sandbox, &["--wal-dir", "/nonexistent"]).fails(2, &["/nonexistent"]);
    let empty = sandbox.path("empty");
    fs::create_dir(&empty).unwrap();
    drain(&sandbox, &["--wal-dir", empty.to_str().unwrap()]).fails(2, &["holds no WAL file"]);
    let only = ["drain", "--pgdata", ".", "--archive", empty.to_str().unwrap()];
    Run::of(sandbox.program("wal-archive").args(only)).fails(2, &["is not an archive", "HINT:"]);
    fs::write(sandbox.data().join("postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
    drain(&sandbox, &["--pgdata", "."]).fails(2, &["a server runs in", "HINT:", "--live", "postmaster.pid"]);
    // The folder alone knows its data directory, too.
    drain(&sandbox, &["--wal-dir", "pg_wal"]).fails(2, &["a server runs in"]);
    let folder = sandbox.path("disk");
    fs::rename(sandbox.data().join("pg_wal"), &folder).unwrap();
    std::os::unix::fs::symlink(&folder, sandbox.data().join("pg_wal")).unwrap();
    drain(&sandbox, &["--wal-dir", "pg_wal"]).fails(2, &["a server runs in"]);
    assert_eq!(sandbox.objects(), before);
    let run = drain(&sandbox, &["--pgdata", ".", "--live"]);
    assert!(run.code == Some(0) && run.stdout.contains("it is being written"), "{run:?}");
    assert_eq!(sandbox.objects(), before);
}

#[test]
fn a_destination_that_is_lost_with_the_server_keeps_nothing_from_the_other_one() {
    let sandbox = dead();
    // A disk that is not mounted, or not even its mount point; an archive that comes back.
    let (unmounted, gone, back) =
        (sandbox.path("unmounted"), sandbox.path("gone"), sandbox.make_archive("back"));
    fs::create_dir(&unmounted).unwrap();
    fs::rename(&back, sandbox.path("aside")).unwrap();
    let others = [&unmounted, &gone, &back].map(|path| path.to_str().unwrap());
    let args = ["--pgdata", ".", "--archive", others[0], "--archive", others[1], "--archive", others[2]];
    let plan = drain(&sandbox, &[&args[..], &["--dry-run"]].concat());
    assert!(
        plan.code == Some(2) && plan.stdout.contains(&format!("to be stored    {B}.partial")),
        "{plan:?}"
    );
    let run = drain(&sandbox, &args);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert_eq!(sandbox.objects(), [format!("{A}.zst"), format!("{B}.partial.zst")]);
    for place in others {
        assert_eq!(
            run.stderr.lines().filter(|line| line.contains(&format!("\"{place}"))).count(),
            1,
            "{run:?}"
        );
    }
    assert_eq!(run.stderr.matches("name the others alone with --archive").count(), 3, "{run:?}");
    assert!(run.stdout.contains(&format!("failed  {B}.partial")), "{run:?}");
    fs::rename(sandbox.path("aside"), &back).unwrap();
    let run = drain(&sandbox, &["--pgdata", ".", "--archive", others[2]]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(names(&back.join("wal_005")), [format!("{A}.zst"), format!("{B}.partial.zst")]);
}

#[test]
fn a_conflict_is_found_where_another_destination_is_lost_too() {
    let sandbox = dead();
    let mut other = real(A);
    *other.last_mut().unwrap() = 1;
    sandbox.wal(A, &other);
    let before = sandbox.objects();
    let lost = sandbox.path("lost");
    let run = drain(&sandbox, &["--pgdata", ".", "--archive", lost.to_str().unwrap()]);
    assert!(run.code == Some(2) && run.stdout.contains(&format!("refused    {A}")), "{run:?}");
    assert!(run.stdout.contains(&format!("held back  {B}.partial")), "{run:?}");
    assert_eq!(sandbox.objects(), before);
}

#[test]
fn another_content_under_a_name_is_code_1_and_nothing_behind_it_is_stored() {
    let sandbox = dead();
    let mut other = real(A);
    *other.last_mut().unwrap() = 1;
    sandbox.wal(A, &other);
    let before = sandbox.objects();
    let run =
        drain(&sandbox, &["--pgdata", "."]).says(1, &["held back", B, "no archiver gets here behind", A]);
    assert!(run.stdout.contains(&format!("refused    {A}")), "{run:?}");
    assert!(
        run.stderr.contains("already exists with different content") && run.stderr.contains("HINT:"),
        "{run:?}"
    );
    assert_eq!(sandbox.objects(), before);
}

#[test]
fn a_partial_segment_is_given_for_the_whole_one_only_where_asked_and_ends_in_zeros() {
    let sandbox = drained();
    assert_eq!(sandbox.fetch(B, &[]).code, Some(1));
    let run = sandbox.fetch(B, &["--partial"]);
    assert!(run.code == Some(0) && run.stderr.contains("0/1B6BDA0"), "{run:?}");
    let given = sandbox.fetched();
    assert!(given[..END] == unfinished()[..END] && given.len() == 1 << 20);
    assert!(given[END..].iter().all(|byte| *byte == 0));
    // What is there is given as ever.
    sandbox.fetch(A, &["--partial"]).succeeds();
    assert!(sandbox.fetched() == real(A));
    assert_eq!(sandbox.fetch("00000001000000000000001C", &["--partial"]).code, Some(1));
}

#[test]
fn a_partial_segment_is_not_given_where_a_child_timeline_or_a_longer_copy_counts() {
    let sandbox = drained();
    sandbox.wal(B, &unfinished());
    assert_eq!(sandbox.fetch(B, &["--partial"]).code, Some(1), "PostgreSQL has its own");
    fs::remove_file(sandbox.data().join("pg_wal").join(B)).unwrap();
    sandbox.wal(HISTORY, &real(HISTORY));
    sandbox.push(HISTORY, &[]).succeeds();
    let run = sandbox.fetch(B, &["--partial"]);
    assert!(run.code == Some(1) && run.stderr.contains("timeline 2 forks off"), "{run:?}");
    sandbox.nothing_fetched();
    // A history that cannot be read may hold that fork.
    fs::remove_file(sandbox.data().join("pg_wal").join(HISTORY)).unwrap();
    flip(&sandbox.object(HISTORY), 8 * 12);
    sandbox.fetch(B, &["--partial"]).fails(221, &[HISTORY, "cannot be read"]);
}

#[test]
fn a_damaged_partial_segment_is_given_to_nobody() {
    let sandbox = drained();
    flip(&sandbox.object(&format!("{B}.partial")), 8 * 50_000);
    sandbox.fetch(B, &["--partial"]).fails(221, &["is damaged"]);
    sandbox.nothing_fetched();
    let unchecked = sandbox.fetch(B, &["--partial", "--no-header-check"]);
    unchecked.fails(202, &["partial and no_header_check", "HINT:"]);
}

#[test]
fn a_partial_segment_of_wal_g_is_given_too() {
    let sandbox = drained();
    let vector = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/foreign/wal-g-lz4/wal_005");
    fs::remove_file(sandbox.object(&format!("{B}.partial"))).unwrap();
    let name = format!("{B}.partial.lz4");
    fs::copy(vector.join(&name), sandbox.archive().join("wal_005").join(&name)).unwrap();
    assert_eq!(sandbox.fetch(B, &["--partial"]).code, Some(0));
    assert!(sandbox.fetched()[..END] == real(&format!("{B}.partial"))[..END]);
}
