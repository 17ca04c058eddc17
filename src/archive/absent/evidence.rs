//! What shows that a WAL file existed: the rules that wal-fetch, and whoever looks at a whole archive,
//! have in common.
//!
//! PostgreSQL begins a segment only where the one before it is full, finishes a backup only after the
//! segment in which it began, and leaves a timeline for another one where its records end. Knows names
//! and histories only.

use crate::wal::{Lsn, SegmentSize, Timeline, TimelineHistory, WalName};

/// Whether the existence of one file shows that another one existed.
pub fn shows(other: WalName, asked: WalName) -> bool {
    match (asked, other) {
        // The backup was finished after the segment in which it began.
        (WalName::Segment(asked), WalName::BackupHistory(start, _)) => start >= asked,
        (WalName::Segment(asked), WalName::Segment(other) | WalName::Partial(other)) => other > asked,
        (WalName::TimelineHistory(timeline), other) => {
            other.segment().is_some_and(|segment| segment.timeline() == timeline)
        }
        _ => false,
    }
}

/// The number of the newest segment that a file shows, as [`shows`] has it: with it every older one of
/// its timeline. An unfinished segment shows only those before it.
pub fn newest_shown(file: WalName, size: SegmentSize) -> Option<u64> {
    let number = file.segment()?.number(size)?;
    match file {
        WalName::BackupHistory(..) => Some(number),
        WalName::Segment(_) | WalName::Partial(_) => number.checked_sub(1),
        WalName::TimelineHistory(_) => None,
    }
}

/// Where a history says that a timeline was left.
pub fn left_at(history: &TimelineHistory, timeline: Timeline) -> Option<Lsn> {
    history.ancestors.iter().find(|line| line.timeline == timeline).map(|line| line.switch)
}

/// The number of the newest segment that was complete where a timeline was left: the one in which the
/// next timeline begins need not be.
pub fn newest_before(switch: Lsn, size: SegmentSize) -> Option<u64> {
    (switch.0 / size.bytes()).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::SegmentName;
    use proptest::prelude::*;

    #[test]
    fn the_segment_of_a_switch_point_need_not_be_complete() {
        let size = SegmentSize::new(1 << 20).unwrap();
        let newest = [0, 1, 1 << 20, (1 << 20) + 1, 3 << 20].map(|switch| newest_before(Lsn(switch), size));
        assert_eq!(newest, [None, None, Some(0), Some(0), Some(2)]);
    }

    proptest! {
        #[test]
        fn a_file_shows_every_segment_up_to_the_newest_it_shows(
            of in 1u32..3, number in 0u64..10, asked in 0u64..10, kind in 0..3,
        ) {
            let size = SegmentSize::new(1 << 20).unwrap();
            let segment = |id, number| SegmentName::numbered(Timeline::new(id).unwrap(), number, size);
            let of = segment(of, number);
            let file = match kind {
                0 => WalName::Segment(of),
                1 => WalName::Partial(of),
                _ => WalName::BackupHistory(of, 0x28),
            };
            let known = shows(file, WalName::Segment(segment(of.timeline().get(), asked)));
            prop_assert_eq!(known, newest_shown(file, size).is_some_and(|newest| asked <= newest));
        }
    }
}
