//! Each rule, over facts.

use super::*;
use crate::expire::plan::{Before, Fate, Rules, plan};
use crate::wal::{Branch, Lsn, TimelineHistory};
use std::collections::BTreeSet;

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
