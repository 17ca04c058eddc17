//! The way from the first timeline to one of its descendants: which timeline serves which segment.
//!
//! Source: PostgreSQL `src/backend/access/transam/xlogrecovery.c` (`XLogFileReadAnyTLI`) and
//! `src/backend/access/transam/timeline.c` (`readTimeLineHistory`, `tliOfPointInHistory`).
//! Does not know which files exist.

use super::history::TimelineHistory;
use super::lsn::{Lsn, SegmentSize};
use super::name::{SegmentName, Timeline};

/// A timeline and its ancestors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Newest first, each with the address at which it left its parent.
    parts: Vec<(Timeline, Lsn)>,
}

impl Branch {
    /// Of a timeline without a history file, which PostgreSQL takes to have no ancestors.
    pub fn without_history(timeline: Timeline) -> Self {
        Branch { parts: vec![(timeline, Lsn(0))] }
    }

    /// Of the timeline that the history file is of.
    pub fn of(history: &TimelineHistory) -> Self {
        let mut parts = Vec::with_capacity(history.ancestors.len() + 1);
        let mut begin = Lsn(0);
        for ancestor in &history.ancestors {
            parts.push((ancestor.timeline, begin));
            begin = ancestor.switch;
        }
        parts.push((history.timeline, begin));
        parts.reverse();
        Branch { parts }
    }

    /// The timeline that it leads to.
    pub fn timeline(&self) -> Timeline {
        self.parts.first().map_or(Timeline::FIRST, |(timeline, _)| *timeline)
    }

    /// The timelines of the branch, newest first, each with the address at which it begins.
    pub fn parts(&self) -> impl Iterator<Item = (Timeline, Lsn)> + '_ {
        self.parts.iter().copied()
    }

    /// The timeline whose file PostgreSQL wants for a segment: the newest one that had begun by
    /// the end of it. So the segment in which a timeline begins is served by that timeline, whose
    /// file holds a copy of what its parent wrote; the parent's own copy is not needed.
    pub fn serving(&self, segment: u64, size: SegmentSize) -> Timeline {
        let begun = self.parts.iter().find(|(_, begin)| begin.0 / size.bytes() <= segment);
        begun.map_or(Timeline::FIRST, |(timeline, _)| *timeline)
    }

    /// The file of that timeline for that segment.
    pub fn file(&self, segment: u64, size: SegmentSize) -> SegmentName {
        SegmentName::numbered(self.serving(segment, size), segment, size)
    }

    /// The timeline that an address belongs to: `tliOfPointInHistory`.
    pub fn timeline_at(&self, lsn: Lsn) -> Timeline {
        let begun = self.parts.iter().find(|(_, begin)| *begin <= lsn);
        begun.map_or(Timeline::FIRST, |(timeline, _)| *timeline)
    }

    /// Whether a backup that began there can be recovered along this branch: the timeline is one
    /// of the branch, and was not left before that address.
    pub fn passes(&self, timeline: Timeline, lsn: Lsn) -> bool {
        self.timeline_at(lsn) == timeline
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn tli(id: u32) -> Timeline {
        Timeline::new(id).unwrap()
    }

    fn branch(timeline: u32, history: &str) -> Branch {
        Branch::of(&TimelineHistory::parse(tli(timeline), history.as_bytes()).unwrap())
    }

    fn serving(branch: &Branch, segments: std::ops::Range<u64>) -> Vec<u32> {
        let size = SegmentSize::new(MIB).unwrap();
        segments.map(|segment| branch.serving(segment, size).get()).collect()
    }

    #[test]
    fn the_segment_of_a_switch_point_is_served_by_the_child() {
        let branch = branch(3, "1\t0/250000\tx\n2\t0/4FFFF8\tx\n");
        assert_eq!(serving(&branch, 0..7), [1, 1, 2, 2, 3, 3, 3]);
        assert_eq!(branch.file(4, SegmentSize::new(MIB).unwrap()).to_string(), "000000030000000000000004");
        assert_eq!(branch.timeline(), tli(3));
    }

    #[test]
    fn a_switch_on_a_boundary_needs_the_parent_up_to_it() {
        assert_eq!(serving(&branch(2, "1\t0/300000\tx\n"), 0..5), [1, 1, 1, 2, 2]);
    }

    #[test]
    fn a_timeline_without_history_serves_everything_itself() {
        let branch = Branch::without_history(tli(7));
        assert_eq!(serving(&branch, 0..3), [7, 7, 7]);
        assert!(branch.passes(tli(7), Lsn(5)) && !branch.passes(tli(1), Lsn(5)));
    }

    #[test]
    fn switch_points_that_go_backwards_leave_a_timeline_without_segments() {
        // Seen when a standby that lagged was promoted.
        assert_eq!(serving(&branch(3, "1\t0/400000\tx\n2\t0/200000\tx\n"), 0..5), [1, 1, 3, 3, 3]);
    }

    #[test]
    fn a_backup_is_recovered_along_the_branches_that_had_not_left_its_timeline() {
        let branch = branch(2, "1\t0/250000\tx\n");
        assert!(branch.passes(tli(1), Lsn(0x24_FFFF)));
        assert!(!branch.passes(tli(1), Lsn(0x25_0000)), "the old primary ran on");
        assert!(branch.passes(tli(2), Lsn(0x25_0000)));
    }

    proptest! {
        /// The loop of `XLogFileReadAnyTLI`, where every file is there.
        #[test]
        fn the_rule_is_that_of_postgresql(switches in proptest::collection::vec(0u64..40 * MIB, 1..6), segment in 0u64..50) {
            let text: String = (1..).zip(&switches).map(|(id, at)| format!("{id}\t{}\tx\n", Lsn(*at))).collect();
            let newest = switches.len() as u32 + 1;
            let mut expected = None;
            for id in (1..=newest).rev() {
                let begin = if id == 1 { 0 } else { switches[id as usize - 2] };
                if begin != 0 && segment < begin / MIB {
                    continue;
                }
                expected = Some(id);
                break;
            }
            let size = SegmentSize::new(MIB).unwrap();
            prop_assert_eq!(Some(branch(newest, &text).serving(segment, size).get()), expected);
        }
    }
}
