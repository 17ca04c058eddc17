//! The WAL that the tests write is what PostgreSQL's own programs and this library's walker read.

use crate::wal::{BaseBackup, Control, Image, Log, PAGE, State, make_data_directory, write_control};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};
use wal_archive::wal::{
    BackupHistory, Lsn, SegmentName, SegmentSize, Start, SystemId, Timeline, TimelineHistory, Walk, Walker,
};

const ID: SystemId = SystemId(7_710_362_819_239_716_105);

fn mebibytes(count: u64) -> SegmentSize {
    SegmentSize::new(count << 20).unwrap()
}

fn second(number: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000 + number)
}

fn timeline(id: u32) -> Timeline {
    Timeline::new(id).unwrap()
}

/// A program of PostgreSQL 15; `None`, said on stderr, where it is not installed.
fn program(name: &str) -> Option<Command> {
    let path = PathBuf::from("/usr/lib/postgresql/15/bin").join(name);
    if path.exists() {
        return Some(Command::new(path));
    }
    let required = std::env::var("WAL_ARCHIVE_REQUIRE_ALL").is_ok_and(|value| value == "1");
    assert!(!required, "WAL_ARCHIVE_REQUIRE_ALL=1, but there is no {name} of PostgreSQL 15");
    eprintln!("SKIPPED: no {name} of PostgreSQL 15");
    None
}

fn walk(row: &[(SegmentName, Image)]) -> Walk {
    let mut walker = Walker::new(Start::Anywhere);
    for (name, image) in row {
        walker.begin(*name);
        walker.push(&image.bytes());
    }
    walker.walk()
}

/// Everything a log holds: the finished segments, and the one being written.
fn row(log: &Log) -> Vec<(SegmentName, Image)> {
    let current = log.current_image().map(|image| (log.current(), image));
    let own = log.finished().iter().filter(|(name, _)| name.timeline() == log.timeline());
    own.map(|(name, image)| (*name, image.clone())).chain(current).collect()
}

/// A life with everything in it that a record can do to a page and a segment.
fn busy(size: SegmentSize) -> Log {
    let mut log = Log::new(ID, size);
    log.commit(second(1));
    log.noop(100);
    log.noop(3 * PAGE);
    log.switch();
    log.commit(second(2));
    log.fill();
    log.commit(second(3));
    // A record that ends with its page: the next one begins behind a header.
    while !log.end().0.is_multiple_of(PAGE as u64) {
        let room = PAGE as u64 - log.end().0 % PAGE as u64;
        log.noop(if room > 600 { 300 } else { room as usize - 24 - if room > 281 { 5 } else { 2 } });
    }
    log.commit(second(4));
    log.checkpoint(second(5));
    log.abort(second(6));
    log
}

/// Where pg_waldump finds nothing more, and how many records it read before.
fn waldump(folder: &Path, first: SegmentName, last: SegmentName) -> Option<(Lsn, usize)> {
    let mut command = program("pg_waldump")?;
    let Output { stdout, stderr, .. } = command
        .arg("--path")
        .arg(folder)
        .arg(first.to_string())
        .arg(last.to_string())
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let said = String::from_utf8(stderr).unwrap();
    let end = said.split("invalid record length at ").nth(1);
    let end = end.unwrap_or_else(|| panic!("{said}")).split(':').next().unwrap();
    Some((end.parse().unwrap(), String::from_utf8(stdout).unwrap().lines().count()))
}

#[test]
fn pg_waldump_and_our_own_walker_find_the_same_records_and_the_same_end() {
    for size in [1, 4] {
        let log = busy(mebibytes(size));
        let folder = tempfile::tempdir().unwrap();
        let row = row(&log);
        for (name, image) in &row {
            image.write(&folder.path().join(name.to_string()));
        }
        let found = walk(&row);
        assert_eq!(found.end, Some(log.end()), "{found:?}");
        assert_eq!((found.last_commit, found.last_completed), (Some(second(4)), Some(second(6))));
        assert!(!found.complete, "{found:?}");
        let Some(theirs) = waldump(folder.path(), row[0].0, log.current()) else { return };
        assert_eq!(theirs, (log.end(), found.records as usize), "segments of {size} MiB");
    }
}

#[test]
fn a_promoted_server_carries_its_parents_pages_and_both_programs_follow_it() {
    let size = mebibytes(1);
    let mut parent = busy(size);
    let mut child = parent.promoted(timeline(3), second(10));
    let fork = parent.end();
    parent.commit(second(11));
    parent.switch();
    child.commit(second(12));
    child.switch();
    child.commit(second(13));
    assert_eq!(child.ancestors(), [(Timeline::FIRST, fork)]);
    let history = TimelineHistory::parse(timeline(3), child.history().unwrap().as_bytes()).unwrap();
    assert_eq!(history.ancestors[0].switch, fork);

    let (old, new) = (row(&parent), row(&child));
    let shared = (fork.0 % size.bytes()) as usize;
    let last = &old.last().unwrap().1.bytes()[..shared];
    assert_eq!(last, &new[0].1.bytes()[..shared], "the pages before the fork are the parent's");
    let before: Vec<_> = old[..old.len() - 1].to_vec();
    let whole: Vec<_> = before.into_iter().chain(new.clone()).collect();
    let found = walk(&whole);
    assert_eq!((found.end, found.last_commit), (Some(child.end()), Some(second(13))), "{found:?}");

    let folder = tempfile::tempdir().unwrap();
    for (name, image) in &new {
        image.write(&folder.path().join(name.to_string()));
    }
    let Some((end, _)) = waldump(folder.path(), new[0].0, child.current()) else { return };
    assert_eq!(end, child.end());
}

#[test]
fn a_fork_between_two_pages_or_two_segments_gives_the_child_the_whole_page() {
    let size = mebibytes(1);
    let mut log = Log::new(ID, size);
    log.switch();
    let child = log.promoted(timeline(2), second(1));
    assert_eq!(log.end().0 % size.bytes(), 0, "nothing was written behind the switch");
    assert_eq!(walk(&row(&child)).end, Some(child.end()));
    assert_eq!(row(&child).len(), 1, "the child begins with the segment behind the fork");
}

#[test]
fn a_cut_segment_ends_where_it_was_cut_and_what_was_there_before_is_no_record() {
    let mut log = busy(mebibytes(1));
    let older = row(&log)[0].1.clone();
    let cut_at = log.end();
    log.commit(second(7));
    log.switch();
    let (name, whole) = log.finished().iter().next_back().unwrap();
    assert!(walk(&[(*name, whole.clone())]).complete);
    let cut = whole.cut((cut_at.0 % (1 << 20)) as usize);
    for image in [cut.clone(), cut.over(&older)] {
        let found = walk(&[(*name, image)]);
        assert_eq!((found.end, found.complete), (Some(cut_at), false), "{found:?}");
    }
    assert!(whole.is(&whole.bytes()) && !cut.is(&whole.bytes()));
}

#[test]
fn pg_controldata_reads_the_control_file() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control {
        system_id: ID,
        size: mebibytes(1),
        state: State::InArchiveRecovery,
        timeline: timeline(7),
        redo: Lsn(0x2_0300_0028),
        minimum_recovery: Some((Lsn(0x2_0310_0000), timeline(9))),
    };
    make_data_directory(folder.path(), &control);
    write_control(folder.path(), &control);
    assert_eq!(fs::metadata(folder.path().join("global/pg_control")).unwrap().len(), 8192);
    let Some(mut command) = program("pg_controldata") else { return };
    let output = command.arg(folder.path()).env("LC_ALL", "C").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let value = |name: &str| {
        let line = said.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{said}"));
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    assert!(output.status.success() && !said.contains("WARNING"), "{said}");
    assert_eq!(value("Database system identifier"), ID.to_string());
    assert_eq!(value("Database cluster state"), "in archive recovery");
    assert_eq!(value("Latest checkpoint's REDO location"), "2/3000028");
    assert_eq!(value("Latest checkpoint's TimeLineID"), "7");
    assert_eq!(value("Minimum recovery ending location"), "2/3100000");
    assert_eq!(value("Min recovery ending loc's timeline"), "9");
    assert_eq!(value("Bytes per WAL segment"), "1048576");
}

#[test]
fn a_backup_history_file_says_what_the_backup_was() {
    let backup = BaseBackup {
        label: "nightly".to_owned(),
        timeline: timeline(1),
        size: mebibytes(1),
        start: Lsn(0x20_0028),
        stop: Lsn(0x30_0000),
    };
    assert_eq!(backup.history_name(), "000000010000000000000002.00000028.backup");
    let read = BackupHistory::parse(backup.history().as_bytes()).unwrap();
    assert_eq!((read.start, read.stop, read.label.as_str()), (backup.start, backup.stop, "nightly"));
    assert_eq!((read.start_segment, read.stop_segment), (backup.start_segment(), backup.start_segment()));
}
