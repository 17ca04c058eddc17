use super::plan::{Before, Fate, Rules, plan};
use super::*;
use crate::archive::inventory::Runs;
use crate::object::encode;
use crate::storage::Body;
use crate::storage::faulty::{Fault, Faulty, Request};
use crate::storage::memory::Memory;
use crate::wal::{Branch, Lsn, SegmentSize, TimelineHistory};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const MIB: u64 = 1 << 20;

fn tli(id: u32) -> Timeline {
    Timeline::new(id).unwrap()
}

fn hour(hours: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(3600 * hours)
}

/// A cluster's life: servers that write, are backed up, promoted, lose segments.
struct World {
    lines: Vec<Server>,
    backups: Vec<(Backup, bool)>,
    hours: u64,
}

struct Server {
    id: u32,
    /// Ancestors and where they were left, oldest first: the history file.
    ancestors: Vec<(u32, u64)>,
    position: u64,
    segments: BTreeSet<u64>,
}

impl Server {
    fn write(&mut self, bytes: u64) {
        let begin = self.position / MIB;
        self.position += bytes;
        self.segments.extend(begin..self.position / MIB);
    }

    fn begin(&self) -> u64 {
        self.ancestors.last().map_or(3 * MIB, |(_, at)| *at)
    }

    fn history_file(&self) -> String {
        self.ancestors.iter().map(|(id, at)| format!("{id}\t{}\twhy\n", Lsn(*at))).collect()
    }
}

impl World {
    fn of(actions: &[(u8, u8, u8)]) -> World {
        let first =
            Server { id: 1, ancestors: Vec::new(), position: 3 * MIB + 40, segments: BTreeSet::new() };
        let mut world = World { lines: vec![first], backups: Vec::new(), hours: 24 * 365 };
        for (what, which, how) in actions {
            world.act(*what, *which, u64::from(*how));
            world.hours += 1;
        }
        world
    }

    fn act(&mut self, what: u8, which: u8, how: u64) {
        let count = self.lines.len();
        // The newest server is the one that lives, mostly.
        let at = if which < 160 { count - 1 } else { usize::from(which) % count };
        let next = u32::try_from(count).unwrap() + 1;
        let hours = self.hours;
        let server = &mut self.lines[at];
        match what % 10 {
            0..=3 => server.write(how * MIB / 50 + 100),
            4..=6 => {
                let start = server.position;
                server.write((how % 7) * 400_000 + 1000);
                let stop = server.position;
                // pg_backup_stop switches to the next segment.
                server.write(MIB - server.position % MIB + 40);
                let label = if how.is_multiple_of(4) { "other" } else { "nightly" };
                let backup = Backup {
                    start: Lsn(start),
                    timeline: tli(server.id),
                    stop: Some(Lsn(stop)),
                    finished: hour(hours),
                    label: label.to_owned(),
                    whole_at: None,
                };
                self.backups.push((backup, !how.is_multiple_of(4)));
            }
            7 => {
                let begin = server.begin();
                let mut switch = begin + (server.position - begin) * how / 255;
                if how.is_multiple_of(11) {
                    switch = begin / 2 + 20; // a standby that lagged
                }
                if let Some((backup, _)) =
                    self.backups.iter().rfind(|(backup, _)| backup.timeline == tli(server.id))
                    && how.is_multiple_of(5)
                {
                    switch = backup.stop.unwrap().0; // recovered to the end of a backup, and no further
                }
                let mut ancestors = server.ancestors.clone();
                ancestors.push((server.id, switch));
                let mut child = Server { id: next, ancestors, position: switch, segments: BTreeSet::new() };
                child.write(how * MIB / 80);
                self.lines.push(child);
            }
            8 => {
                let lost = server.segments.iter().nth((how as usize) % server.segments.len().max(1)).copied();
                lost.map(|lost| server.segments.remove(&lost));
            }
            _ => self.hours += how,
        }
    }

    fn facts(&self, files: &BTreeSet<(u32, u64)>) -> Facts {
        let line = |server: &Server| {
            let history = match server.id {
                1 => History::Known(Branch::without_history(Timeline::FIRST)),
                id => {
                    let text = server.history_file();
                    History::Known(Branch::of(&TimelineHistory::parse(tli(id), text.as_bytes()).unwrap()))
                }
            };
            let own = files.iter().filter(|(id, _)| *id == server.id).map(|(_, number)| *number);
            (tli(server.id), Line { history, segments: own.collect(), stored: None })
        };
        Facts { size: SegmentSize::MIN, timelines: self.lines.iter().map(line).collect() }
    }

    /// A destination that missed some of the segments.
    fn place(&self, files: &BTreeSet<(u32, u64)>, missed: u8) -> Place {
        let has = |(_, number): &&(u32, u64)| (number / 3) % 8 != u64::from(missed % 16);
        let own: BTreeSet<_> = files.iter().filter(has).copied().collect();
        Place { name: missed.to_string(), facts: self.facts(&own) }
    }

    fn files(&self) -> BTreeSet<(u32, u64)> {
        let all = |server: &Server| {
            let id = server.id;
            server.segments.iter().map(move |number| (id, *number)).collect::<Vec<_>>()
        };
        self.lines.iter().flat_map(all).collect()
    }
}

/// PostgreSQL's own way through an archive, by its source and not by the planner's: which files a
/// recovery reads. (`timeline.c`: `readTimeLineHistory`, `tliOfPointInHistory`; `xlogrecovery.c`:
/// `XLogFileReadAnyTLI`.)
struct Recovery {
    /// `expectedTLEs`: id, begin, end (0: none), newest first.
    expected: Vec<(u32, u64, u64)>,
}

impl Recovery {
    fn to(server: &Server) -> Recovery {
        let mut expected = Vec::new();
        let mut previous_end = 0;
        for (id, end) in &server.ancestors {
            expected.insert(0, (*id, previous_end, *end));
            previous_end = *end;
        }
        expected.insert(0, (server.id, previous_end, 0));
        Recovery { expected }
    }

    fn timeline_of(&self, point: u64) -> Option<u32> {
        let holds = |(_, begin, end): &&(u32, u64, u64)| {
            (*begin == 0 || *begin <= point) && (*end == 0 || point < *end)
        };
        self.expected.iter().find(holds).map(|(id, ..)| *id)
    }

    /// Whether the backup can be recovered to this timeline at all.
    fn can_use(&self, backup: &Backup) -> bool {
        let id = Some(backup.timeline.get());
        self.timeline_of(backup.start.0) == id && self.timeline_of(backup.stop.unwrap().0 - 1) == id
    }

    /// The files that are read from the backup's start on, up to the first one missing.
    fn reads(&self, backup: &Backup, files: &BTreeSet<(u32, u64)>) -> Vec<(u32, u64)> {
        // Its checkpoint is on its own timeline: no parent's file has that.
        let (mut read, mut current) = (Vec::new(), backup.timeline.get());
        for number in backup.start.0 / MIB.. {
            let mut found = None;
            for (id, begin, end) in &self.expected {
                if *id < current {
                    break; // older than the one last read from
                }
                if *begin != 0 && number < begin / MIB {
                    continue;
                }
                if files.contains(&(*id, number)) {
                    found = Some((*id, *end));
                    break;
                }
            }
            match found {
                // A parent's file behind the switch is another server's life.
                Some((id, end)) if end == 0 || number <= end / MIB => {
                    current = id;
                    read.push((id, number));
                }
                _ => break,
            }
        }
        read
    }

    /// Whether it gets as far as the backup's stop.
    fn completes(&self, backup: &Backup, files: &BTreeSet<(u32, u64)>) -> bool {
        let last = (backup.stop.unwrap().0 - 1) / MIB;
        self.can_use(backup) && self.reads(backup, files).last().is_some_and(|(_, number)| *number >= last)
    }
}

fn name(file: &(u32, u64)) -> WalName {
    WalName::Segment(SegmentName::numbered(tli(file.0), file.1, SegmentSize::MIN))
}

fn held(facts: &Facts) -> BTreeSet<(u32, u64)> {
    let of = |(id, line): (&Timeline, &Line)| {
        let numbers = line.segments.ranges().flat_map(|(first, last)| first..=last);
        numbers.map(|number| (id.get(), number)).collect::<Vec<_>>()
    };
    facts.timelines.iter().flat_map(of).collect()
}

/// Of the backups that recover by these files, and of those that recover to the newest timeline, the
/// newest by the rules still do; and to the end of each timeline recovers what did.
fn check_rules(
    world: &World,
    rules: &Rules,
    files: &BTreeSet<(u32, u64)>,
    after: &BTreeSet<(u32, u64)>,
    named: &[Backup],
    kept: &[&Backup],
) -> std::result::Result<(), TestCaseError> {
    let left: BTreeSet<_> = files.intersection(after).copied().collect();
    let count = rules.keep_backups.unwrap_or(0);
    let begin =
        rules.keep_days.map(|days| hour(world.hours) - Duration::from_secs(24 * 3600 * u64::from(days)));
    for lines in [&world.lines[..], &world.lines[world.lines.len() - 1..]] {
        let recovers = |backup: &Backup, files: &BTreeSet<_>| {
            lines.iter().any(|line| Recovery::to(line).completes(backup, files))
        };
        let mut whole: Vec<_> = named.iter().filter(|backup| recovers(backup, files)).collect();
        whole.sort_by_key(|backup| std::cmp::Reverse((backup.finished, backup.start, backup.timeline)));
        let last = begin.and_then(|begin| whole.iter().find(|backup| backup.finished <= begin));
        for backup in whole.iter().take(count).chain(last) {
            prop_assert!(kept.contains(backup), "{:?} goes", backup);
            prop_assert!(recovers(backup, &left), "{:?} does not recover any more", backup);
        }
    }
    for recovery in world.lines.iter().map(Recovery::to) {
        let whole = kept.iter().filter(|backup| recovery.completes(backup, files));
        if let Some(best) = whole.max_by_key(|backup| backup.start) {
            let (before, now) = (recovery.reads(best, files), recovery.reads(best, &left));
            prop_assert!(now.starts_with(&before), "{:?} recovers less", best);
        }
    }
    Ok(())
}

/// What must hold for every plan.
fn check(
    world: &World,
    rules: &Rules,
    files: &BTreeSet<(u32, u64)>,
    halves: &[u8],
) -> std::result::Result<usize, TestCaseError> {
    let now = hour(world.hours);
    let facts = world.facts(files);
    let places =
        |files: &BTreeSet<_>| halves.iter().map(|half| world.place(files, *half)).collect::<Vec<_>>();
    let named = |gone: &dyn Fn(&Backup) -> bool| {
        let named = world.backups.iter().filter(|(backup, named)| *named && !gone(backup));
        named.map(|(backup, _)| backup.clone()).collect::<Vec<_>>()
    };
    let Ok(made) = plan(&facts, &places(files), named(&|_| false), rules, now) else { return Ok(0) };
    let after: BTreeSet<_> =
        files.iter().filter(|file| made.deletes(name(file)).is_none()).copied().collect();
    let kept: Vec<_> = made
        .backups
        .iter()
        .filter(|(_, fate)| matches!(fate, Fate::Kept(_)))
        .map(|(backup, _)| backup)
        .collect();
    prop_assert!(!kept.is_empty());
    let newest = kept
        .iter()
        .filter(|backup| world.lines.iter().any(|line| Recovery::to(line).completes(backup, files)))
        .max_by_key(|backup| backup.finished);
    prop_assert!(newest.is_some(), "one complete backup is always kept");
    for line in &world.lines {
        let recovery = Recovery::to(line);
        let usable = || kept.iter().filter(|backup| recovery.can_use(backup));
        for backup in usable() {
            let (before, left) = (recovery.reads(backup, files), recovery.reads(backup, &after));
            let needed = match rules.between_backups {
                false => before.len(),
                true => {
                    let last = (backup.stop.unwrap().0 - 1) / MIB;
                    before.iter().filter(|(_, number)| *number <= last).count()
                }
            };
            prop_assert_eq!(
                &before[..needed],
                &left[..needed.min(left.len())],
                "{:?} to {}",
                backup,
                line.id
            );
        }
        // The newest one that leads there recovers to the very end, and so does the newest of all.
        let best =
            usable().filter(|backup| recovery.completes(backup, files)).max_by_key(|backup| backup.start);
        for backup in best.into_iter().chain(newest.filter(|backup| recovery.can_use(backup))) {
            // (Where a stranger's file stood in the way before, it may even read more now.)
            let (before, left) = (recovery.reads(backup, files), recovery.reads(backup, &after));
            prop_assert!(left.starts_with(&before), "{:?} to {}: {:?}, {:?}", backup, line.id, before, left);
        }
    }
    let alone = places(files).into_iter().map(|place| held(&place.facts));
    for copy in [files.clone()].into_iter().chain(alone) {
        check_rules(world, rules, &copy, &after, &named(&|_| false), &kept)?;
    }
    let oldest = kept.iter().map(|backup| backup.start.0 / MIB).min().unwrap();
    for file in files {
        let stays = after.contains(file);
        let (_, number) = *file;
        if let Some(Before::Address(before)) = rules.before {
            prop_assert!(stays || number < before.0 / MIB);
        } else {
            prop_assert!(!stays || number >= oldest, "what is older goes, on every timeline");
        }
        prop_assert!(stays || rules.between_backups || number < oldest);
    }
    for line in &world.lines {
        let of_it = |files: &BTreeSet<(u32, u64)>| -> Runs {
            files.iter().filter(|(id, _)| *id == line.id).map(|(_, number)| *number).collect()
        };
        let gone: BTreeSet<_> = files.difference(&after).copied().collect();
        prop_assert_eq!(made.of(tli(line.id), &of_it(files)), of_it(&gone));
    }
    for (backup, fate) in &made.backups {
        let older = backup.start.0 / MIB < oldest;
        prop_assert!(*fate != Fate::Dropped || older || rules.between_backups, "{:?}: its WAL stays", backup);
    }
    for line in &world.lines {
        prop_assert_eq!(made.deletes(WalName::TimelineHistory(tli(line.id))), None);
    }
    for backup in &kept {
        let segment = SegmentName::at(backup.timeline, backup.start, SegmentSize::MIN);
        prop_assert_eq!(made.deletes(WalName::BackupHistory(segment, 40)), None);
    }
    // Interrupted anywhere, the next run's plan is the same for what is left.
    let doomed: Vec<_> = files.difference(&after).copied().collect();
    for done in [doomed.len() / 3, doomed.len() / 2, doomed.len()] {
        let left: BTreeSet<_> = files.iter().filter(|file| !doomed[..done].contains(file)).copied().collect();
        let reached = doomed[..done].last();
        let gone = |backup: &Backup| {
            let segment = (backup.timeline.get(), backup.start.0 / MIB);
            let of_backup = SegmentName::at(backup.timeline, backup.start, SegmentSize::MIN);
            made.deletes(WalName::BackupHistory(of_backup, 40)).is_some()
                && reached.is_some_and(|at| segment <= *at)
        };
        let again = plan(&world.facts(&left), &places(&left), named(&gone), rules, now);
        prop_assert!(again.is_ok(), "{:?}", again.err());
        let again = again.unwrap();
        for file in &left {
            prop_assert_eq!(again.deletes(name(file)), made.deletes(name(file)), "{:?} of {}", file, done);
        }
    }
    Ok(doomed.len())
}

#[test]
fn in_random_histories_no_file_goes_that_recovery_from_a_kept_backup_reads() {
    let actions = proptest::collection::vec(any::<(u8, u8, u8)>(), 10..70);
    let rules = (0usize..4, 0u32..20, 0u64..60, any::<bool>());
    let halves = proptest::collection::vec(any::<u8>(), 0..3);
    let (deleted, refused, between) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let cases = std::env::var("WAL_ARCHIVE_HISTORIES").map_or(2000, |text| text.parse().unwrap());
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome =
        runner.run(&(actions, rules, halves), |(actions, (count, days, before, between_backups), halves)| {
            let world = World::of(&actions);
            let rules = Rules {
                keep_backups: (count > 0).then_some(count),
                keep_days: days.checked_sub(9).filter(|days| *days > 0),
                before: (before > 40).then_some(Before::Address(Lsn(before * MIB))),
                between_backups,
            };
            match check(
                &world,
                &rules,
                &world.files(),
                &halves[..if halves.len() > 1 { halves.len() } else { 0 }],
            )? {
                0 => refused.set(refused.get() + 1),
                _ if between_backups => between.set(between.get() + 1),
                _ => deleted.set(deleted.get() + 1),
            }
            Ok(())
        });
    outcome.unwrap();
    println!("{deleted:?} plans delete older WAL, {between:?} between backups, {refused:?} nothing");
    assert!(deleted.get() > cases / 8 && between.get() > cases / 8, "the histories are worth something");
}

fn backup(start: u64, stop: u64, timeline: u32, hours: u64) -> Backup {
    Backup {
        start: Lsn(start * MIB + 40),
        timeline: tli(timeline),
        stop: Some(Lsn(stop * MIB + 80)),
        finished: hour(1000 + hours),
        label: String::new(),
        whole_at: None,
    }
}

/// Timeline 1 with segments 0 to 99.
fn straight() -> Facts {
    let history = History::Known(Branch::without_history(Timeline::FIRST));
    let line = Line { history, segments: (0..100).collect(), stored: None };
    Facts { size: SegmentSize::MIN, timelines: BTreeMap::from([(Timeline::FIRST, line)]) }
}

/// The segments of timeline 1 that go.
fn gone(facts: &Facts, named: &[Backup], rules: &Rules) -> Vec<u64> {
    let made = plan(facts, &[], named.to_vec(), rules, hour(1000 + 240)).unwrap();
    (0..100).filter(|number| made.deletes(name(&(1, *number))).is_some()).collect()
}

#[test]
fn of_several_rules_the_most_careful_counts() {
    let named = [backup(10, 11, 1, 0), backup(20, 20, 1, 48), backup(30, 31, 1, 96), backup(40, 40, 1, 144)];
    let facts = straight();
    let rules = |keep_backups, keep_days, before: Option<u64>| Rules {
        keep_backups,
        keep_days,
        before: before.map(|number| Before::Address(Lsn(number * MIB))),
        between_backups: false,
    };
    let up_to = |end: u64| (0..end).collect::<Vec<_>>();
    assert_eq!(gone(&facts, &named, &rules(None, None, None)), up_to(10), "all that are named");
    assert_eq!(gone(&facts, &named, &rules(Some(2), None, None)), up_to(30));
    // Six days ago is hour 96: the third backup had just been finished.
    assert_eq!(gone(&facts, &named, &rules(None, Some(6), None)), up_to(30));
    assert_eq!(
        gone(&facts, &named, &rules(None, Some(7), None)),
        up_to(20),
        "its predecessor recovers the first hours"
    );
    assert_eq!(gone(&facts, &named, &rules(Some(1), Some(7), None)), up_to(20));
    assert_eq!(gone(&facts, &named, &rules(Some(3), Some(6), None)), up_to(20));
    assert_eq!(gone(&facts, &named, &rules(Some(1), None, Some(15))), up_to(15));
    assert_eq!(gone(&facts, &named, &rules(Some(1), None, Some(90))), up_to(40));
    assert_eq!(gone(&facts, &named, &rules(Some(9), None, None)), up_to(10), "there are not so many");
}

#[test]
fn between_backups_each_keeps_its_own_range_and_the_newest_all_after_it() {
    let named = [backup(10, 11, 1, 0), backup(20, 20, 1, 48), backup(30, 31, 1, 96)];
    let rules = Rules { keep_backups: Some(3), between_backups: true, ..Rules::default() };
    let expected: Vec<_> = (0..10).chain(12..20).chain(21..30).collect();
    assert_eq!(gone(&straight(), &named, &rules), expected);
}

#[test]
fn a_backup_that_is_incomplete_does_not_count_as_one_of_those_to_keep() {
    let named = [backup(10, 11, 1, 0), backup(20, 25, 1, 48), backup(30, 31, 1, 96), backup(98, 102, 1, 144)];
    let mut facts = straight();
    facts.timelines.get_mut(&Timeline::FIRST).unwrap().segments.remove(22);
    let rules = |count| Rules { keep_backups: Some(count), ..Rules::default() };
    assert_eq!(gone(&facts, &named, &rules(1)).last(), Some(&29), "the newest is not whole yet");
    assert_eq!(gone(&facts, &named, &rules(2)).last(), Some(&9), "the second has a hole");
    let hollow = plan(&facts, &[], vec![backup(20, 25, 1, 48)], &rules(1), hour(2000)).unwrap_err();
    assert!(hollow.message.contains("nothing may be deleted"), "{hollow}");
}

#[test]
fn a_backup_whose_first_segment_only_its_parent_has_is_incomplete() {
    let mut facts = straight();
    let line = |id, history: &str, segments: std::ops::Range<u64>| {
        let history = TimelineHistory::parse(tli(id), history.as_bytes()).unwrap();
        (
            tli(id),
            Line {
                history: History::Known(Branch::of(&history)),
                segments: segments.collect(),
                stored: None,
            },
        )
    };
    facts.timelines.extend([line(2, "1\t0/1400010\tx\n", 20..50)]);
    let named = [backup(10, 11, 1, 0), backup(25, 26, 1, 24), backup(35, 36, 2, 48), backup(30, 31, 3, 72)];
    let rules = Rules { between_backups: true, ..Rules::default() };
    for (begin, complete) in [(30, true), (31, false)] {
        facts.timelines.extend([line(3, "1\t0/1400010\tx\n2\t0/1E00010\tx\n", begin..50)]);
        let made = plan(&facts, &[], named.to_vec(), &rules, hour(2000)).unwrap();
        let of_three = |(backup, _): &&(Backup, Fate)| backup.timeline == tli(3);
        let (_, fate) = made.backups.iter().find(of_three).unwrap();
        assert_eq!(format!("{fate:?}").contains("incomplete"), !complete, "{fate:?}");
        // Without it, recovery to timeline 3 begins with the oldest one.
        for file in [(1, 15), (2, 22)] {
            assert_eq!(made.deletes(name(&file)).is_some(), complete, "{file:?}, from segment {begin} on");
        }
    }
}

#[test]
fn our_own_backups_and_named_ones_are_counted_apart() {
    let own = |start, hours| Backup { whole_at: Some(BTreeSet::from([0])), ..backup(start, start, 1, hours) };
    let named =
        [own(10, 0), own(20, 24), backup(30, 31, 1, 48), backup(40, 41, 1, 72), backup(50, 50, 1, 96)];
    let rules = |count| Rules { keep_backups: Some(count), ..Rules::default() };
    assert_eq!(gone(&straight(), &named, &rules(1)).last(), Some(&19));
    assert_eq!(gone(&straight(), &named, &rules(2)).last(), Some(&9));
    assert_eq!(gone(&straight(), &named[2..], &rules(2)).last(), Some(&39));
}

#[test]
fn between_backups_all_of_the_newest_timeline_stays_where_no_backup_leads_to_it() {
    let mut facts = straight();
    for (id, at) in [(2, "0/500000"), (3, "0/600000")] {
        let history = TimelineHistory::parse(tli(id), format!("1\t{at}\tx\n").as_bytes()).unwrap();
        let history = History::Known(Branch::of(&history));
        facts.timelines.insert(tli(id), Line { history, segments: (5..60).collect(), stored: None });
    }
    let rules = Rules { between_backups: true, ..Rules::default() };
    let made =
        plan(&facts, &[], vec![backup(10, 11, 1, 0), backup(30, 30, 1, 9)], &rules, hour(2000)).unwrap();
    assert_eq!(made.deletes(name(&(1, 15))), Some(Why::Between));
    assert_eq!(made.deletes(name(&(2, 15))), Some(Why::Between));
    assert_eq!(made.deletes(name(&(3, 15))), None);
}

#[test]
fn days_count_on_every_timeline_that_was_archived_to_in_them() {
    let mut facts = straight();
    let history = |id, text: &str| {
        History::Known(Branch::of(&TimelineHistory::parse(tli(id), text.as_bytes()).unwrap()))
    };
    let line = |history, stored| Line { history, segments: (5..60).collect(), stored: Some(hour(stored)) };
    // Timeline 2 left timeline 1 in segment 15, timeline 3 in segment 45.
    for (stored, kept) in [(1000 + 239, 10), (1000 + 10, 40)] {
        facts.timelines.insert(tli(2), line(history(2, "1\t0/F80000\tx\n"), stored));
        facts.timelines.insert(tli(3), line(history(3, "1\t0/2D80000\tx\n"), 1000 + 240));
        let named = [backup(10, 11, 1, 0), backup(20, 21, 1, 24), backup(40, 41, 1, 48)];
        let rules = Rules { keep_days: Some(2), ..Rules::default() };
        assert_eq!(gone(&facts, &named, &rules).last(), Some(&(kept - 1)), "stored {stored}");
    }
}

#[test]
fn without_a_named_backup_or_a_known_stop_nothing_may_be_deleted() {
    let rules =
        Rules { before: Some(Before::Address(Lsn(50 * MIB))), between_backups: true, ..Rules::default() };
    let refused = plan(&straight(), &[], Vec::new(), &rules, hour(2000)).unwrap_err();
    assert!(refused.message.contains("no backup to keep is named"), "{refused}");
    let listed = Backup { stop: None, ..backup(10, 10, 1, 0) };
    let refused = plan(&straight(), &[], vec![listed.clone()], &rules, hour(2000)).unwrap_err();
    assert!(refused.hint.unwrap().contains("STOP_LSN"));
    // The label of the same backup knows it.
    assert!(plan(&straight(), &[], vec![listed, backup(10, 11, 1, 0)], &rules, hour(2000)).is_ok());
}

#[test]
fn a_missing_or_unreadable_history_is_never_guessed_at() {
    let mut facts = straight();
    let line = |history| Line { history, segments: (50..60).collect(), stored: None };
    let rules = Rules { between_backups: true, ..Rules::default() };
    for (history, word) in
        [(History::Missing, "missing"), (History::Unreadable("cut".into()), "cannot be read")]
    {
        facts.timelines.insert(tli(2), line(history));
        let refused = plan(&facts, &[], vec![backup(10, 11, 1, 0)], &rules, hour(2000)).unwrap_err();
        assert!(refused.message.contains(word), "{refused}");
        // Where only what is older goes, no timeline's ancestors matter.
        assert!(plan(&facts, &[], vec![backup(10, 11, 1, 0)], &Rules::default(), hour(2000)).is_ok());
    }
}

#[test]
fn the_newest_timeline_without_its_history_needs_a_backup_of_its_own() {
    let mut facts = straight();
    facts
        .timelines
        .insert(tli(2), Line { history: History::Missing, segments: (50..60).collect(), stored: None });
    let rules = Rules { keep_backups: Some(1), ..Rules::default() };
    let refused = plan(&facts, &[], vec![backup(10, 11, 1, 0)], &rules, hour(2000)).unwrap_err();
    assert!(refused.message.contains("history file of timeline 2 is missing"), "{refused}");
    assert!(plan(&facts, &[], vec![backup(10, 11, 1, 0), backup(52, 53, 2, 9)], &rules, hour(2000)).is_ok());
}

#[test]
fn a_timeline_that_came_after_the_plan_is_not_touched_between_backups() {
    let rules = Rules { between_backups: true, ..Rules::default() };
    let made =
        plan(&straight(), &[], vec![backup(10, 11, 1, 0), backup(30, 30, 1, 9)], &rules, hour(2000)).unwrap();
    assert_eq!(made.deletes(name(&(1, 20))), Some(Why::Between));
    assert_eq!(made.deletes(name(&(2, 20))), None);
    assert_eq!(made.deletes(name(&(2, 9))), Some(Why::Older));
}

fn put(memory: &Memory, key: &str, bytes: &[u8]) {
    memory.create(&Key::parse(key).unwrap(), &Body::from(bytes.to_vec())).unwrap();
}

fn text_object(file: &str, content: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(file.parse().unwrap(), content.len() as u64, None, 1, &mut content.as_bytes(), &mut bytes)
        .unwrap();
    bytes
}

/// Timelines 1 and 2, a backup in segment 8 of the first, and one of everything else.
fn archive() -> Arc<Memory> {
    let memory = Memory::default();
    put(
        &memory,
        "archive.json",
        b"{\"wal-archive\":1,\"system_id\":\"7\",\"segment_size\":1048576,\"foreign\":true}\n",
    );
    put(&memory, "wal-archive-probe", b"x");
    for number in 0..12 {
        put(&memory, &format!("wal_005/{}.zst", name(&(1, number))), b"segment");
    }
    put(&memory, "000000020000000000000006.gz", b"segment");
    put(&memory, "wal_005/000000020000000000000009.lz4", b"segment");
    put(&memory, "wal_005/000000010000000000000003.gpg", b"secret");
    put(&memory, "wal_005/000000010000000000000002.partial.zst", b"partial");
    put(&memory, "wal_005/000000010000000000000002.partial.0123456789abcdef.zst", b"partial");
    put(&memory, "wal_005/notes.txt", b"mine");
    put(&memory, "basebackups_005/000000010000000000000001.zst", b"theirs");
    put(&memory, "quarantine/000000010000000000000001.0123456789abcdef", b"damaged");
    put(&memory, "wal_005/00000002.history.zst", &text_object("00000002.history", "1\t0/600000\twhy\n"));
    for (start, label) in [(1, "other"), (8, "nightly")] {
        let file = format!("{}.00000028.backup", name(&(1, start)));
        let content = format!(
            "START WAL LOCATION: 0/{start}00028 (file {segment})\nSTOP WAL LOCATION: 0/{start}00100 (file {segment})\n\
             CHECKPOINT LOCATION: 0/{start}00060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
             START TIME: 2026-11-20 21:05:43 UTC\nLABEL: {label}\nSTART TIMELINE: 1\n\
             STOP TIME: 2026-11-20 21:05:44 UTC\nSTOP TIMELINE: 1\n",
            segment = name(&(1, start))
        );
        put(&memory, &format!("wal_005/{file}.zst"), &text_object(&file, &content));
    }
    memory.advance(Duration::from_secs(3600));
    Arc::new(memory)
}

fn keys(storage: &dyn Storage) -> BTreeSet<String> {
    let folders = ["", "wal_005/", "quarantine/", "basebackups_005/"];
    let list = |folder| storage.list(folder, "").unwrap().map(|entry| entry.unwrap().key).collect::<Vec<_>>();
    folders.into_iter().flat_map(list).collect()
}

#[test]
fn of_an_archive_only_wal_goes_that_no_kept_backup_needs() {
    let memory = archive();
    let destinations: Vec<Shared> = vec![memory.clone()];
    let archive = look(&destinations).unwrap();
    let named = archive.labelled(&["night*".to_owned()]).unwrap();
    assert_eq!(archive.unread, 1);
    let made = plan(&archive.facts, &[], named, &Rules::default(), SystemTime::now()).unwrap();
    let ranges = doomed(memory.as_ref(), &made).unwrap();
    let shown: Vec<_> =
        ranges.iter().map(|range| (range.first.to_string(), range.last.to_string(), range.objects)).collect();
    let segment = |file| name(&file).to_string();
    assert_eq!(
        shown,
        [(segment((1, 0)), segment((1, 7)), 8 + 2 + 1), (segment((2, 6)), segment((2, 6)), 1)],
        "eight segments, two partial ones, a backup history file"
    );
    let before = keys(memory.as_ref());
    let told = Cell::new(0);
    let deleted =
        apply(memory.as_ref(), &made, SystemTime::now(), &|keys| told.set(told.get() + keys.len())).unwrap();
    assert_eq!((deleted, told.get()), (12, 12));
    let gone: Vec<_> = before.difference(&keys(memory.as_ref())).cloned().collect();
    assert_eq!(gone.len(), 12);
    assert!(gone.contains(&"000000020000000000000006.gz".to_owned()));
    for left in ["archive.json", "wal-archive-probe", "wal_005/notes.txt", "wal_005/00000002.history.zst"] {
        assert!(!gone.contains(&left.to_owned()), "{left}");
    }
    assert_eq!(
        apply(memory.as_ref(), &made, SystemTime::now(), &|_| {}).unwrap(),
        0,
        "the repeat has nothing to do"
    );
}

#[test]
fn interrupted_at_any_request_the_repeat_finishes() {
    for interrupted in 0..3 {
        let memory = archive();
        let looked = look(&[memory.clone() as Shared]).unwrap();
        let named = || looked.labelled(&["nightly".to_owned()]).unwrap();
        let made = plan(&looked.facts, &[], named(), &Rules::default(), SystemTime::now()).unwrap();
        let count = std::sync::atomic::AtomicUsize::new(0);
        let plan_of_faults = move |_: Request, _: &str| match count
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
            == interrupted
        {
            true => Fault::After(crate::storage::Kind::TimedOut),
            false => Fault::None,
        };
        let faulty = Faulty::new(memory.clone(), Box::new(plan_of_faults));
        apply(&faulty, &made, SystemTime::now(), &|_| {}).unwrap_err();
        apply(memory.as_ref(), &made, SystemTime::now(), &|_| {}).unwrap();
        assert!(doomed(memory.as_ref(), &made).unwrap().is_empty());
        assert!(keys(memory.as_ref()).contains(&format!("wal_005/{}.zst", name(&(1, 8)))));
    }
}

#[test]
fn what_cannot_be_listed_or_read_ends_it_before_anything_is_deleted() {
    let memory = archive();
    let down = |_: Request, key: &str| match key {
        "wal_005/" => Fault::Before(crate::storage::Kind::Unavailable),
        _ => Fault::None,
    };
    let faulty: Shared = Arc::new(Faulty::new(memory.clone(), Box::new(down)));
    assert!(look(&[memory.clone(), faulty]).is_err(), "one of two destinations does not answer");
    let file = format!("wal_005/{}.00000028.backup.zst", name(&(1, 5)));
    put(&memory, &file, b"junk");
    let archive = look(&[memory.clone() as Shared]).unwrap();
    let refused = archive.labelled(&["nightly".to_owned()]).unwrap_err();
    assert!(refused.message.contains("nothing may be deleted"), "{refused}");
    assert!(refused.hint.unwrap().contains("quarantine"));
    // Another destination has it.
    let other = Memory::default();
    put(
        &other,
        "archive.json",
        b"{\"wal-archive\":1,\"system_id\":\"7\",\"segment_size\":1048576,\"foreign\":true}\n",
    );
    let name = format!("{}.00000028.backup", name(&(1, 5)));
    let content = "START WAL LOCATION: 0/500028 (file 000000010000000000000005)\nSTOP WAL LOCATION: 0/500100 (file \
                   000000010000000000000005)\nSTART TIME: 2026-11-20 21:05:43 UTC\nLABEL: nightly\nSTOP TIME: \
                   2026-11-20 21:05:44 UTC\n";
    put(&other, &file, &text_object(&name, content));
    let archive = look(&[memory as Shared, Arc::new(other)]).unwrap();
    let named = archive.labelled(&["nightly".to_owned()]).unwrap();
    assert_eq!(named.len(), 2);
    let stranger = Memory::default();
    put(
        &stranger,
        "archive.json",
        b"{\"wal-archive\":1,\"system_id\":\"8\",\"segment_size\":1048576,\"foreign\":true}\n",
    );
    assert!(look(&[self::archive() as Shared, Arc::new(stranger)]).is_err(), "of another cluster");
}

#[test]
fn each_destination_keeps_a_backup_that_is_whole_there_and_leads_to_the_newest_timeline() {
    let mut facts = straight();
    let history = TimelineHistory::parse(tli(2), b"1\t0/2D80000\tx\n").unwrap();
    let history = History::Known(Branch::of(&history));
    facts.timelines.insert(tli(2), Line { history, segments: (45..60).collect(), stored: None });
    let own = |whole_at: &[usize], start, hours| Backup {
        whole_at: Some(whole_at.iter().copied().collect()),
        ..backup(start, start, 1, hours)
    };
    // The second leads there and is whole at one of them; the third began behind the fork.
    let backups = vec![own(&[0, 1], 10, 0), own(&[0], 20, 24), own(&[0, 1], 50, 48)];
    let places = ["one", "other"].map(|name| Place { name: name.to_owned(), facts: facts.clone() });
    let rules = Rules { keep_backups: Some(1), ..Rules::default() };
    let made = plan(&facts, &places, backups, &rules, hour(1000 + 240)).unwrap();
    assert!(made.deletes(name(&(1, 9))).is_some());
    assert_eq!(made.deletes(name(&(1, 10))), None, "the other destination recovers from there");
}
