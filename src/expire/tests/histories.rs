//! No file goes that a recovery from a kept backup reads, in the histories of random clusters.

use super::*;
use crate::archive::inventory::Runs;
use crate::expire::plan::{Before, Fate, Rules, plan};
use crate::wal::{Branch, Lsn, TimelineHistory};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::cell::Cell;
use std::collections::BTreeSet;

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
