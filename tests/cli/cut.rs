//! Cut segments: what a server archives of its upstream's last segment never takes the name of the
//! whole one.

use crate::util::{CLUSTER, MIB, Run, Sandbox};
use crate::wal::{Control, Image, Log, PAGE, State, write_control};
use std::fs;
use std::time::{Duration, SystemTime};
use wal_archive::object::Sha256Sum;
use wal_archive::spool::Spool;
use wal_archive::wal::{Lsn, SegmentName, SegmentSize, SystemId, Timeline, WalName};

fn second(number: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000 + number)
}

fn timeline(id: u32) -> Timeline {
    Timeline::new(id).unwrap()
}

/// A primary's life, and what its standby has received of it when that one's upstream is promoted.
struct Life {
    primary: Log,
    history: String,
    /// The last segment of timeline 1, as far as it was received.
    name: SegmentName,
    cut: Image,
}

impl Life {
    fn new() -> Self {
        let mut primary = Log::new(SystemId(CLUSTER), SegmentSize::new(MIB as u64).unwrap());
        primary.commit(second(1));
        primary.switch();
        primary.noop(100_000);
        primary.commit(second(2));
        let history = primary.promoted(timeline(2), second(3)).history().unwrap();
        let (name, cut) = (primary.current(), primary.current_image().unwrap());
        primary.take_finished();
        Life { primary, history, name, cut }
    }

    /// The primary lives on: the same segment, whole.
    fn whole(&self) -> Image {
        let mut primary = self.primary.clone();
        primary.noop(50_000);
        primary.commit(second(4));
        primary.fill();
        primary.take_finished().remove(0).1
    }

    /// The standby: the child's history and the cut segment are in its pg_wal.
    fn standby(&self) -> Sandbox {
        let sandbox = Sandbox::new();
        sandbox.wal("00000002.history", self.history.as_bytes());
        sandbox.wal(&self.name.to_string(), &self.cut.bytes());
        sandbox
    }

    fn variant_of(&self, image: &Image) -> String {
        format!("{}.{}.zst", self.name, Sha256Sum::of(&image.bytes()).short())
    }

    fn push(&self, sandbox: &Sandbox, args: &[&str]) -> Run {
        sandbox.push(&self.name.to_string(), args)
    }

    /// The primary's own push, from a data directory that knows of no child.
    fn push_whole(&self, sandbox: &Sandbox) -> Run {
        let primary = sandbox.make_data_directory("primary", CLUSTER);
        self.whole().write(&primary.join("pg_wal").join(self.name.to_string()));
        let mut push = sandbox.program("wal-push");
        push.current_dir(primary).arg("--archive").arg(sandbox.archive());
        Run::of(push.arg(format!("pg_wal/{}", self.name)))
    }

    fn assert_fetched(&self, sandbox: &Sandbox, image: &Image) {
        sandbox.fetch(&self.name.to_string(), &["--prefetch", "0"]).succeeds();
        assert!(image.is(&sandbox.fetched()));
    }
}

#[test]
fn a_cut_segment_leaves_its_name_to_the_whole_one_whoever_comes_first() {
    let life = Life::new();
    for cut_first in [true, false] {
        let sandbox = life.standby();
        if !cut_first {
            life.push_whole(&sandbox).succeeds();
        }
        for _ in 0..2 {
            let words = ["warning", &life.name.to_string(), "is cut", "timeline 2 forks off", "stored as"];
            let run = life.push(&sandbox, &[]).fails(0, &words);
            assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        }
        assert!(sandbox.objects().contains(&life.variant_of(&life.cut)));
        assert_eq!(sandbox.object(&life.name.to_string()).exists(), !cut_first);
        life.push_whole(&sandbox).succeeds();
        life.assert_fetched(&sandbox, &life.whole());
    }
}

#[test]
fn a_segment_is_cut_where_the_rest_of_it_is_an_older_use_of_the_file() {
    let life = Life::new();
    let mut older = Log::beginning_at(SystemId(CLUSTER), SegmentSize::new(MIB as u64).unwrap(), 1);
    older.fill();
    let recycled = life.cut.over(&older.take_finished().remove(0).1);
    let sandbox = life.standby();
    sandbox.wal(&life.name.to_string(), &recycled.bytes());
    life.push(&sandbox, &[]).fails(0, &["is cut"]);
    assert!(sandbox.objects().contains(&life.variant_of(&recycled)));
    assert!(!sandbox.object(&life.name.to_string()).exists());
}

#[test]
fn a_cut_segment_far_beyond_the_fork_leaves_its_name_too_and_the_whole_ones_before_it_do_not() {
    // The upstream was paused at the fork and went on receiving; its cascading standby has it all.
    let life = Life::new();
    let mut received = life.primary.clone();
    received.fill();
    received.noop(3000);
    received.switch();
    received.commit(second(5));
    let whole = received.take_finished();
    let (last, cut) = (received.current().to_string(), received.current_image().unwrap());
    let sandbox = life.standby();
    for (name, image) in &whole {
        sandbox.wal(&name.to_string(), &image.bytes());
        sandbox.push(&name.to_string(), &[]).succeeds();
    }
    sandbox.wal(&last, &cut.bytes());
    sandbox.push(&last, &[]).fails(0, &["is cut", "timeline 2 forks off"]);
    let mut expected: Vec<_> = whole.iter().map(|(name, _)| format!("{name}.zst")).collect();
    expected.push(format!("{last}.{}.zst", Sha256Sum::of(&cut.bytes()).short()));
    assert_eq!(sandbox.objects(), expected);
}

#[test]
fn a_whole_segment_that_finds_a_cut_one_under_its_name_says_how_to_move_it_aside() {
    let life = Life::new();
    let sandbox = life.standby();
    fs::remove_file(sandbox.data().join("pg_wal/00000002.history")).unwrap();
    life.push(&sandbox, &[]).succeeds(); // as another tool would, or an older version
    let run = life.push_whole(&sandbox).fails(12, &["exists cut", "HINT:", "wal-archive quarantine"]);
    let hint = run.stderr.split_once("\"wal-archive quarantine ").unwrap().1.split_once('"').unwrap().0;
    let moved = Run::of(sandbox.program("wal-archive").arg("quarantine").args(hint.split(' ')));
    assert_eq!(moved.code, Some(0), "{moved:?}");
    life.push_whole(&sandbox).succeeds();
    life.assert_fetched(&sandbox, &life.whole());
}

#[test]
fn a_cut_segment_of_another_history_under_the_name_is_a_conflict_like_any_other() {
    let life = Life::new();
    let sandbox = life.standby();
    fs::remove_file(sandbox.data().join("pg_wal/00000002.history")).unwrap();
    let mut other = Log::new(SystemId(CLUSTER), life.primary.size());
    other.switch();
    other.noop(90_000);
    sandbox.wal(&life.name.to_string(), &other.current_image().unwrap().bytes());
    life.push(&sandbox, &[]).succeeds();
    let run = life.push_whole(&sandbox).fails(12, &["already exists with different content"]);
    assert!(!run.stderr.contains("quarantine"), "{run:?}");
}

#[test]
fn a_cut_segment_is_a_variant_at_every_destination() {
    let life = Life::new();
    let sandbox = life.standby();
    let second = sandbox.make_archive("second");
    life.push(&sandbox, &["--archive", second.to_str().unwrap()]).fails(0, &["is cut", "second"]);
    for folder in [sandbox.archive(), second] {
        let objects = crate::util::names(&folder.join("wal_005"));
        assert_eq!(objects, [life.variant_of(&life.cut)]);
    }
}

#[test]
fn a_cut_segment_is_a_variant_beside_the_whole_one_at_every_destination() {
    let life = Life::new();
    let sandbox = life.standby();
    let second = sandbox.make_archive("second");
    let both = ["--archive", second.to_str().unwrap()];
    life.push_whole(&sandbox).succeeds();
    life.push(&sandbox, &both).fails(0, &["is cut", "second"]);
    assert_eq!(crate::util::names(&second.join("wal_005")), [life.variant_of(&life.cut)]);
}

#[test]
fn a_cut_or_partial_segment_of_another_servers_timeline_is_stored_at_no_destination() {
    let mut two = Life::new().primary.promoted(timeline(2), second(3));
    two.noop(100_000);
    let three = two.promoted(timeline(3), second(5));
    let (name, cut) = (two.current().to_string(), two.current_image().unwrap());
    let sandbox = Sandbox::new();
    for child in [&two, &three] {
        let history = WalName::TimelineHistory(child.timeline()).to_string();
        sandbox.wal(&history, child.history().unwrap().as_bytes());
    }
    let names = [format!("{name}.partial"), name];
    names.iter().for_each(|name| drop(sandbox.wal(name, &cut.bytes())));
    // One destination has another server's timeline 2; the other one lost it.
    let winner = sandbox.make_data_directory("winner", CLUSTER);
    fs::write(winner.join("pg_wal/00000002.history"), "1\t0/200000\tx\n").unwrap();
    let mut push = sandbox.program("wal-push");
    push.current_dir(winner).arg("--archive").arg(sandbox.archive());
    Run::of(push.arg("pg_wal/00000002.history")).succeeds();
    let lost = sandbox.make_archive("second");
    for name in names {
        let run = sandbox.push(&name, &["--archive", lost.to_str().unwrap()]);
        run.fails(12, &["00000002.history", "different content"]);
        assert!(!lost.join("wal_005").exists(), "of two servers: {name}");
    }
}

#[test]
fn two_whole_segments_that_differ_are_a_conflict_whatever_forks_off() {
    let life = Life::new();
    let sandbox = life.standby();
    life.push_whole(&sandbox).succeeds();
    let mut other = life.primary.clone();
    other.commit(second(77));
    other.switch();
    sandbox.wal(&life.name.to_string(), &other.take_finished().remove(0).1.bytes());
    let run = life.push(&sandbox, &[]).fails(12, &["already exists with different content"]);
    assert!(!run.stderr.contains("cut"), "{run:?}");
}

#[test]
fn where_the_records_cannot_be_read_only_a_server_in_recovery_may_have_a_cut_segment() {
    let life = Life::new();
    let mut unknown = life.cut.bytes();
    unknown.chunks_mut(PAGE).for_each(|page| page[..2].copy_from_slice(&[0x99, 0xD9]));
    let name = life.name.to_string();
    for args in [&[][..], &["--no-header-check"]] {
        for signal in ["standby.signal", "recovery.signal"] {
            let sandbox = life.standby();
            sandbox.wal(&name, &unknown);
            fs::write(sandbox.data().join(signal), "").unwrap();
            life.push(&sandbox, args).fails(12, &[&name, "cannot be told", "HINT:"]);
            assert!(sandbox.objects().is_empty());
        }
        let sandbox = life.standby();
        sandbox.wal(&name, &unknown);
        assert_eq!(life.push(&sandbox, args).code, Some(0));
        assert!(sandbox.object(&name).exists());
    }
}

#[test]
fn a_history_that_cannot_be_read_blocks_only_what_may_be_cut() {
    let life = Life::new();
    let sandbox = life.standby();
    sandbox.wal("00000002.history", b"junk\n");
    life.push(&sandbox, &[]).fails(10, &["00000002.history", "cannot be read", "HINT:"]);
    assert!(sandbox.objects().is_empty());
    sandbox.wal(&life.name.to_string(), &life.whole().bytes());
    life.push(&sandbox, &[]).succeeds();
}

#[test]
fn a_segment_that_was_made_of_a_partial_one_leaves_its_name_though_no_timeline_forks() {
    let life = Life::new();
    let sandbox = life.standby();
    fs::remove_file(sandbox.data().join("pg_wal/00000002.history")).unwrap();
    let spool = Spool::open(sandbox.path("data.wal-spool")).unwrap();
    spool.note_partial(life.name, &Sha256Sum::of(&life.cut.bytes())).unwrap();
    life.push(&sandbox, &[]).fails(0, &["is cut", "--partial"]);
    assert_eq!(sandbox.objects(), [life.variant_of(&life.cut)]);
    life.push_whole(&sandbox).succeeds();
    sandbox.wal(&life.name.to_string(), &life.whole().bytes());
    life.push(&sandbox, &[]).succeeds();
    life.assert_fetched(&sandbox, &life.whole());
}

#[test]
fn a_push_that_looks_ahead_never_gives_a_cut_segment_the_name() {
    let life = Life::new();
    let sandbox = life.standby();
    let first = life.primary.clone();
    let before = SegmentName::numbered(Timeline::FIRST, 1, first.size()).to_string();
    sandbox.wal(&before, &crate::util::segment(&before, MIB, CLUSTER, 1));
    for name in [before.clone(), life.name.to_string()] {
        fs::write(sandbox.data().join(format!("pg_wal/archive_status/{name}.ready")), "").unwrap();
    }
    std::thread::sleep(Duration::from_millis(50)); // a file that has just changed is left to its own call
    let run = sandbox.push(&before, &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(sandbox.objects(), [format!("{before}.zst"), life.variant_of(&life.cut)]);
    assert_eq!(life.push(&sandbox, &[]).code, Some(0));
    life.push_whole(&sandbox).succeeds();
    life.assert_fetched(&sandbox, &life.whole());
}

/// A server on this timeline, with what was saved of the pg_wal of one that left timeline 1 as timeline 2.
fn with_saved(own: u32, history: &str, name: &str, bytes: &[u8]) -> Sandbox {
    let sandbox = Sandbox::new();
    let size = SegmentSize::new(MIB as u64).unwrap();
    let (system_id, redo) = (SystemId(CLUSTER), Lsn(size.bytes()));
    let state = State::InProduction;
    let control = Control { system_id, size, state, timeline: timeline(own), redo, minimum_recovery: None };
    write_control(&sandbox.data(), &control);
    sandbox.wal("00000002.history", history.as_bytes());
    if own == 3 {
        sandbox.wal("00000003.history", b"1\t0/900000\tx\n");
    }
    sandbox.wal(name, bytes);
    sandbox
}

#[test]
fn an_unfinished_segment_of_a_timeline_that_the_server_never_was_on_leaves_its_name() {
    let life = Life::new();
    let mut saved = life.primary.promoted(timeline(2), second(3));
    saved.commit(second(4));
    let (name, cut) = (saved.current().to_string(), saved.current_image().unwrap());
    saved.fill();
    let whole = saved.take_finished().remove(0).1;
    for own in [1, 3] {
        let sandbox = with_saved(own, &life.history, &name, &cut.bytes());
        let why = format!("nothing shows timeline 2 to lead to timeline {own}");
        sandbox.push(&name, &[]).fails(0, &["is cut", &why, "stored as"]);
        assert!(!sandbox.object(&name).exists(), "{:?}", sandbox.objects());
        // As the server that wrote it stores it, and as this one would.
        sandbox.wal(&name, &whole.bytes());
        sandbox.push(&name, &[]).succeeds();
        sandbox.fetch(&name, &["--prefetch", "0"]).succeeds();
        assert!(whole.is(&sandbox.fetched()));
    }
    let sandbox = with_saved(2, &life.history, &name, &cut.bytes());
    sandbox.push(&name, &[]).succeeds(); // its own, of which no server archives an unfinished one
}

#[test]
fn a_standby_whose_control_file_does_not_name_the_timeline_yet_archives_what_cannot_be_read() {
    let life = Life::new();
    let mut upstream = life.primary.promoted(timeline(2), second(3));
    upstream.fill();
    let (name, image) = upstream.take_finished().remove(0);
    let (name, mut unknown) = (name.to_string(), image.bytes());
    unknown.chunks_mut(PAGE).for_each(|page| page[..2].copy_from_slice(&[0x99, 0xD9]));
    for args in [&[][..], &["--no-header-check"]] {
        let sandbox = with_saved(1, &life.history, &name, &unknown);
        fs::write(sandbox.data().join("standby.signal"), "").unwrap();
        assert_eq!(sandbox.push(&name, args).code, Some(0));
        assert!(sandbox.object(&name).exists());
    }
}
