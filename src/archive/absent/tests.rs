//! The table of cases: one line each, from the plain miss to the last exception.

use super::*;
use crate::object::Encryption;

const US: SystemId = SystemId(7);
const OTHERS: SystemId = SystemId(42);
const MIB: u64 = 1 << 20;

fn size(mebibytes: u64) -> SegmentSize {
    SegmentSize::new(mebibytes * MIB).unwrap()
}

fn asked(name: &str) -> Asked<'static> {
    Asked {
        name: name.parse().unwrap(),
        system_id: Some(US),
        segment_size: Some(size(1)),
        own_timeline: None,
        own_copy: OwnCopy::None,
        histories: &[],
        accepted: false,
        allow_empty: false,
    }
}

/// An archive of ours that holds WAL and nothing that matters.
fn shape() -> Shape {
    Shape {
        place: "/a".to_owned(),
        identity: Some(Identity {
            system_id: US,
            segment_size: size(1),
            foreign: false,
            encryption: Encryption::None,
        }),
        held_by: None,
        holds_wal: true,
        copy: None,
        evidence: None,
        histories: Vec::new(),
    }
}

fn foreign(held_by: Option<SystemId>) -> Shape {
    Shape { identity: None, held_by, ..shape() }
}

fn with(file: &str) -> Shape {
    aged(file, Some(Duration::from_secs(3600)))
}

fn aged(file: &str, age: Age) -> Shape {
    let seen = Seen::File(file.parse().unwrap());
    Shape { evidence: Some(Evidence { seen, place: "/a".to_owned(), age }), ..shape() }
}

fn history(timeline: u32, text: &str) -> TimelineHistory {
    TimelineHistory::parse(Timeline::new(timeline).unwrap(), text.as_bytes()).unwrap()
}

/// What is judged, as one word.
fn word(asked: &Asked<'_>, shapes: &[Option<Shape>]) -> String {
    let gap = |gap: &Gap| match gap {
        Gap::Hole(evidence) => format!("hole before {}", evidence.seen),
        Gap::LostHistory(evidence) => format!("lost beside {}", evidence.seen),
    };
    match conclude(asked, shapes) {
        Conclusion::Absent => "absent".to_owned(),
        Conclusion::Excused(found, excuse) => format!("{excuse:?}: {}", gap(&found)),
        Conclusion::Missing(found) => gap(&found),
        Conclusion::Unproved(lacks, found) => {
            let lacks: Vec<_> = lacks.iter().map(|(index, lack)| format!("{index} {lack:?}")).collect();
            let lacks = lacks.join(", ");
            found.map_or(lacks.clone(), |found| format!("{lacks}; {}", gap(&found)))
        }
    }
}

const FOUR: &str = "000000010000000000000004";

#[test]
fn every_destination_must_answer_be_ours_and_hold_wal_without_the_name() {
    let empty = || Shape { holds_wal: false, ..shape() };
    let other = || Shape {
        identity: Some(Identity {
            system_id: OTHERS,
            segment_size: size(1),
            foreign: false,
            encryption: Encryption::None,
        }),
        ..shape()
    };
    let other_size = || Shape {
        identity: Some(Identity {
            system_id: US,
            segment_size: size(16),
            foreign: false,
            encryption: Encryption::None,
        }),
        ..shape()
    };
    let named = || Shape { copy: Some("wal_005/x.gpg".to_owned()), ..shape() };
    for (shapes, expected) in [
        (vec![], ""),
        (vec![Some(shape())], "absent"),
        (vec![Some(shape()), Some(shape())], "absent"),
        (vec![None], "0 Answer"),
        (vec![Some(shape()), None], "1 Answer"),
        (vec![None, Some(shape())], "0 Answer"),
        (vec![Some(other())], "0 Cluster(SystemId(42))"),
        (vec![Some(shape()), Some(other())], "1 Cluster(SystemId(42))"),
        (vec![Some(other_size())], "0 SegmentSize(SegmentSize(16777216))"),
        (vec![Some(empty())], "0 Wal"),
        (vec![Some(empty()), Some(shape()), None], "0 Wal, 2 Answer"),
        (vec![Some(named())], "0 Absence"),
        (vec![Some(foreign(Some(US)))], "absent"),
        (vec![Some(foreign(Some(OTHERS)))], "0 Cluster(SystemId(42))"),
        (vec![Some(foreign(None))], "0 Owner"),
        (vec![Some(Shape { holds_wal: false, ..foreign(None) })], "0 Wal"),
    ] {
        assert_eq!(word(&asked(FOUR), &shapes), expected, "{shapes:?}");
        assert_eq!(word(&asked("00000002.history"), &shapes), expected, "{shapes:?}");
    }
}

#[test]
fn allow_empty_overrides_the_lack_of_wal_and_nothing_else() {
    let asked = |system_id| Asked { allow_empty: true, system_id, ..asked(FOUR) };
    let empty = Shape { holds_wal: false, ..shape() };
    let nothing = Shape { holds_wal: false, ..foreign(None) };
    let other =
        Identity { system_id: OTHERS, segment_size: size(1), foreign: false, encryption: Encryption::None };
    assert_eq!(word(&asked(Some(US)), &[Some(empty.clone())]), "absent");
    assert_eq!(word(&asked(Some(US)), &[Some(nothing)]), "absent");
    let other = Shape { identity: Some(other), ..empty };
    assert_eq!(word(&asked(Some(US)), &[Some(other.clone())]), "0 Cluster(SystemId(42))");
    assert_eq!(word(&asked(None), &[Some(other)]), "absent");
    assert_eq!(word(&asked(Some(US)), &[Some(foreign(None))]), "0 Owner");
    assert_eq!(word(&asked(Some(US)), &[None]), "0 Answer");
}

#[test]
fn without_knowing_the_cluster_any_archive_counts() {
    let asked = Asked { system_id: None, segment_size: None, ..asked(FOUR) };
    for shape in [shape(), foreign(None), foreign(Some(OTHERS))] {
        assert_eq!(word(&asked, &[Some(shape)]), "absent");
    }
}

#[test]
fn the_history_of_timeline_1_is_absent_without_asking_anyone() {
    for shapes in [vec![], vec![None], vec![Some(with(FOUR))]] {
        assert_eq!(word(&asked("00000001.history"), &shapes), "absent");
    }
}

#[test]
fn later_files_of_the_timeline_make_a_hole() {
    let five = "000000010000000000000005";
    for file in [five.to_owned(), format!("{five}.partial"), format!("{five}.00000028.backup")] {
        let hole = format!("hole before \"{file}\"");
        assert_eq!(word(&asked(FOUR), &[Some(with(&file))]), hole);
        assert_eq!(word(&asked(FOUR), &[Some(shape()), Some(with(&file))]), hole);
        let accepted = Asked { accepted: true, ..asked(FOUR) };
        assert_eq!(word(&accepted, &[Some(with(&file))]), format!("Accepted: {hole}"));
        let own = |own_copy| word(&Asked { own_copy, ..asked(FOUR) }, &[Some(with(&file))]);
        assert_eq!(own(OwnCopy::Complete), format!("OwnCopy: {hole}"));
        assert_eq!(own(OwnCopy::EndsAt(Lsn(4 * MIB + 100))), hole);
        // What one destination shows counts although another one proves nothing.
        assert_eq!(word(&asked(FOUR), &[None, Some(with(&file))]), format!("0 Answer; {hole}"));
        assert_eq!(word(&accepted, &[None, Some(with(&file))]), "0 Answer");
        // And what another cluster's archive shows does not.
        let theirs = Shape { identity: None, held_by: Some(OTHERS), ..with(&file) };
        assert_eq!(word(&asked(FOUR), &[Some(theirs), Some(shape())]), "0 Cluster(SystemId(42))");
    }
    for own_copy in [OwnCopy::None, OwnCopy::EndsAt(Lsn(5)), OwnCopy::Complete] {
        let without = Asked { own_copy, ..asked(FOUR) };
        assert_eq!(word(&without, &[Some(shape())]), "absent", "without evidence pg_wal does not matter");
    }
}

#[test]
fn the_lowest_and_oldest_of_several_later_files_tells_when_the_hole_was_made() {
    let minutes = |count: u64| Some(Duration::from_secs(60 * count));
    let (five, six) = ("000000010000000000000005", "000000010000000000000006");
    let told = |shapes: &[Option<Shape>]| match conclude(&asked(FOUR), shapes) {
        Conclusion::Missing(gap) => (gap.evidence().seen.to_string(), gap.evidence().age),
        other => panic!("{other:?}"),
    };
    let shapes = [Some(aged(six, minutes(9))), Some(aged(five, minutes(1)))];
    assert_eq!(told(&shapes), (format!("\"{five}\""), minutes(1)));
    let shapes = [Some(aged(five, None)), Some(aged(five, minutes(3))), Some(aged(five, minutes(2)))];
    assert_eq!(told(&shapes), (format!("\"{five}\""), minutes(3)));
}

#[test]
fn a_history_that_leaves_the_timeline_later_makes_a_hole() {
    // Segments of 1 MiB: segment 4 ends at 0/500000.
    for (text, is_hole) in [
        ("1\t0/4FFFF8\tx\n", false),
        ("1\t0/500000\tx\n", true),
        ("1\t0/6000000\tx\n", true),
        ("1\t0/300000\tx\n2\t0/900000\tx\n", false),
        ("1\t0/900000\tx\n2\t0/300000\tx\n", true),
    ] {
        let history = history(3, text);
        let switch = history.ancestors[0].switch;
        let hole = format!("hole before \"00000003.history\", by which its timeline reached {switch},");
        let expected = if is_hole { hole } else { "absent".to_owned() };
        let histories = [history];
        let by_pg_wal = Asked { histories: &histories, ..asked(FOUR) };
        assert_eq!(word(&by_pg_wal, &[Some(shape())]), expected, "{text}");
        let [history] = histories;
        let in_archive = Shape { histories: vec![(history, None)], ..shape() };
        assert_eq!(word(&asked(FOUR), &[Some(in_archive.clone())]), expected, "{text}");
        // The archive, too, knows the size of segments; where nobody does, nothing can be said.
        let unsized_ = Asked { segment_size: None, ..asked(FOUR) };
        assert_eq!(word(&unsized_, &[Some(in_archive.clone())]), expected, "{text}");
        let unsized_archive = Shape { identity: None, held_by: Some(US), ..in_archive };
        assert_eq!(word(&unsized_, &[Some(unsized_archive)]), "absent", "{text}");
    }
}

#[test]
fn a_file_is_told_rather_than_a_fork() {
    let histories = [history(2, "1\t0/900000\tx\n")];
    let both = Asked { histories: &histories, ..asked(FOUR) };
    let five = "000000010000000000000005";
    assert_eq!(word(&both, &[Some(with(five))]), format!("hole before \"{five}\""));
}

#[test]
fn a_history_whose_timeline_has_files_is_lost_and_not_absent() {
    let lost = |own: Option<u32>, own_copy, accepted| {
        let own_timeline = own.and_then(Timeline::new);
        let asked = Asked { own_timeline, own_copy, accepted, ..asked("00000003.history") };
        word(&asked, &[Some(with("000000030000000000000004"))])
    };
    let gap = "lost beside \"000000030000000000000004\"";
    assert_eq!(lost(None, OwnCopy::None, false), gap);
    assert_eq!(lost(Some(1), OwnCopy::None, false), gap);
    assert_eq!(lost(Some(2), OwnCopy::None, false), gap);
    assert_eq!(lost(Some(3), OwnCopy::None, false), "absent", "the data directory is on it already");
    assert_eq!(lost(Some(4), OwnCopy::None, false), "absent");
    assert_eq!(lost(Some(2), OwnCopy::Complete, false), format!("OwnCopy: {gap}"));
    assert_eq!(lost(Some(2), OwnCopy::None, true), format!("Accepted: {gap}"));
}

#[test]
fn what_postgresql_never_asks_for_is_simply_there_or_not() {
    for name in ["000000010000000000000004.partial", "000000010000000000000004.00000028.backup"] {
        assert_eq!(word(&asked(name), &[Some(shape())]), "absent");
        assert_eq!(word(&asked(name), &[None]), "0 Answer");
    }
}
