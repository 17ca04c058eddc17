//! `wal-fetch --partial`: what counts as the end of a timeline, and what does not.

use crate::util::{CLUSTER, MIB, Run, Sandbox, flip, names};
use crate::wal::Log;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use wal_archive::wal::{SegmentSize, SystemId, Timeline};

/// The unfinished segment.
const TWO: &str = "000000010000000000000002";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

/// The log of a server that has finished segment 1 and writes to segment 2.
fn log() -> Log {
    let mut log = Log::new(SystemId(CLUSTER), SegmentSize::new(MIB as u64).unwrap());
    log.switch();
    log.commit(at(1));
    log
}

/// What its unfinished segment holds.
fn unfinished(log: &Log) -> Vec<u8> {
    assert_eq!(log.current().to_string(), TWO);
    log.current_image().unwrap().bytes()
}

/// The same log with more in it.
fn longer(log: &Log, seconds: u64) -> Log {
    let mut longer = log.clone();
    longer.commit(at(seconds));
    longer.commit(at(seconds + 1));
    longer
}

/// An archive that ends with segment 1.
fn archived(log: &Log) -> Sandbox {
    let sandbox = Sandbox::new();
    let (name, image) = log.clone().take_finished().remove(0);
    push(&sandbox, &name.to_string(), &image.bytes());
    sandbox
}

fn push(sandbox: &Sandbox, name: &str, content: &[u8]) {
    let path = sandbox.wal(name, content);
    assert_eq!(sandbox.push(name, &[]).code, Some(0), "{name}");
    fs::remove_file(path).unwrap();
}

/// An object of these bytes, without the programs under test.
fn object(content: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(content, 1).unwrap()
}

/// Where a cut segment with this content stands.
fn cut(sandbox: &Sandbox, content: &[u8]) -> PathBuf {
    let sum: String = Sha256::digest(content).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let path = sandbox.archive().join(format!("wal_005/{TWO}.{sum}.zst"));
    fs::write(&path, object(content)).unwrap();
    path
}

fn fetch(sandbox: &Sandbox, args: &[&str]) -> Run {
    sandbox.fetch_now(TWO, &[&["--partial"], args].concat())
}

/// It is given, up to its last record.
#[track_caller]
fn gives(sandbox: &Sandbox, log: &Log) {
    let run = fetch(sandbox, &[]);
    assert!(run.code == Some(0) && run.stderr.contains(&log.end().to_string()), "{run:?}");
    assert!(sandbox.fetched() == unfinished(log));
}

#[test]
fn a_cut_segment_is_given_as_a_partial_one_is() {
    let log = log();
    let sandbox = archived(&log);
    assert_eq!(fetch(&sandbox, &[]).code, Some(1));
    cut(&sandbox, &unfinished(&log));
    assert_eq!(sandbox.fetch_now(TWO, &[]).code, Some(1), "only where asked");
    gives(&sandbox, &log);
}

#[test]
fn of_several_the_longest_is_given_if_it_holds_what_the_others_hold() {
    let log = log();
    let more = longer(&log, 10);
    let most = longer(&more, 20);
    let sandbox = archived(&log);
    push(&sandbox, &format!("{TWO}.partial"), &unfinished(&more));
    gives(&sandbox, &more);
    let variant = cut(&sandbox, &unfinished(&log));
    gives(&sandbox, &more);
    cut(&sandbox, &unfinished(&most));
    gives(&sandbox, &most);
    // Two standbys went their own ways: nobody but a person knows which one counts.
    fs::remove_file(variant).unwrap();
    push(&sandbox, &format!("{TWO}.partial"), &unfinished(&longer(&log, 30)));
    fetch(&sandbox, &[]).fails(221, &["hold different content", "HINT:"]);
    sandbox.nothing_fetched();
}

#[test]
fn a_damaged_one_does_not_hide_an_intact_one_elsewhere() {
    let log = log();
    let sandbox = archived(&log);
    push(&sandbox, &format!("{TWO}.partial"), &unfinished(&log));
    let second = sandbox.path("second");
    assert!(copy(&sandbox.archive(), &second));
    flip(&sandbox.object(&format!("{TWO}.partial")), 8 * 100);
    fetch(&sandbox, &[]).fails(221, &["damaged"]);
    let args = ["--archive", second.to_str().unwrap()];
    fetch(&sandbox, &args).fails(0, &["warning", "damaged", "partial"]);
    assert!(sandbox.fetched() == unfinished(&log));
    fs::remove_file(sandbox.object(&format!("{TWO}.partial"))).unwrap();
    let encrypted = sandbox.archive().join(format!("wal_005/{TWO}.partial.gpg"));
    fs::write(encrypted, "x").unwrap();
    fetch(&sandbox, &[]).fails(220, &["partial.gpg", "encoding"]);
    fetch(&sandbox, &args).fails(0, &["warning", "partial.gpg"]);
}

fn copy(from: &Path, to: &Path) -> bool {
    std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success()
}

#[test]
fn a_child_whose_history_is_lost_or_unreadable_may_fork_off_in_it() {
    let log = log();
    let sandbox = archived(&log);
    push(&sandbox, &format!("{TWO}.partial"), &unfinished(&log));
    let folder = sandbox.archive().join("wal_005");
    let history = folder.join("00000003.history.gpg");
    fs::write(&history, "encrypted").unwrap();
    fetch(&sandbox, &[]).fails(220, &["00000003.history.gpg", "cannot be read"]);
    fs::rename(&history, folder.join("00000003.history")).unwrap();
    fetch(&sandbox, &[]).fails(221, &["00000003.history", "cannot be read"]);
    fs::remove_file(folder.join("00000003.history")).unwrap();
    let segment = folder.join("000000030000000000000005.zst");
    fs::write(&segment, "whatever it holds").unwrap();
    fetch(&sandbox, &[]).fails(224, &["a lost history", "00000003.history", "HINT:"]);
    sandbox.nothing_fetched();
    let accepted = fetch(&sandbox, &["--accept-gap", "00000003.history"]);
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    sandbox.fetched();
    // A history in pg_wal tells, too.
    let child = log.promoted(Timeline::new(3).unwrap(), at(40)).history().unwrap();
    sandbox.wal("00000003.history", child.as_bytes());
    let run = fetch(&sandbox, &[]);
    assert!(run.code == Some(1) && run.stderr.contains("timeline 3 forks off"), "{run:?}");
    sandbox.wal("00000003.history", b"1\t0/300000\tbehind it\n");
    // By that history segment 2 was finished, so that it is missing and no end.
    fetch(&sandbox, &[]).fails(224, &["a hole", TWO, "00000003.history"]);
}

#[test]
fn a_longer_copy_in_pg_wal_counts_and_a_shorter_one_does_not() {
    let log = log();
    let more = longer(&log, 10);
    let sandbox = archived(&log);
    push(&sandbox, &format!("{TWO}.partial"), &unfinished(&more));
    sandbox.wal(TWO, &unfinished(&longer(&more, 20)));
    assert_eq!(fetch(&sandbox, &[]).code, Some(1));
    sandbox.wal(TWO, &unfinished(&more));
    assert_eq!(fetch(&sandbox, &[]).code, Some(1));
    sandbox.wal(TWO, &unfinished(&log));
    gives(&sandbox, &more);
}

#[test]
fn what_was_given_is_noted_and_without_a_spool_nothing_is() {
    let log = log();
    let sandbox = archived(&log);
    push(&sandbox, &format!("{TWO}.partial"), &unfinished(&log));
    gives(&sandbox, &log);
    let noted = names(&sandbox.path("data.wal-spool/partials"));
    assert!(noted.len() == 1 && noted[0].starts_with(TWO), "{noted:?}");
    // The file that a recovered server would archive under the segment's name.
    sandbox.wal(TWO, &unfinished(&log));
    let run = sandbox.push(TWO, &[]);
    assert!(run.code == Some(0) && run.stderr.contains("warning"), "{run:?}");
    assert!(!sandbox.object(TWO).exists(), "{:?}", sandbox.objects());
    fs::remove_file(sandbox.data().join("pg_wal").join(TWO)).unwrap();
    fs::write(sandbox.path("a file"), "").unwrap();
    let nowhere = sandbox.path("a file").join("spool");
    let run = fetch(&sandbox, &["--spool-dir", nowhere.to_str().unwrap()]);
    run.fails(222, &["--partial needs a spool", "HINT:", "--spool-dir"]);
    sandbox.nothing_fetched();
}
