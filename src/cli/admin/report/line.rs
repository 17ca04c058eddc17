//! When the segments of a timeline were stored: from a number to a time, and from a time to a place.

use super::Report;
use crate::wal::Timeline;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

pub(super) const WIDTH: f64 = 1000.0;
pub(super) const LEFT: f64 = 192.0;
const RIGHT: f64 = 14.0;

/// From time to the place in the picture.
pub(super) struct Scale {
    pub(super) from: SystemTime,
    pub(super) span: f64,
}

impl Scale {
    /// From the oldest thing that is shown to the moment of the report.
    pub(super) fn of(report: &Report, lines: &BTreeMap<Timeline, Line>) -> Option<Self> {
        let backups = report.listed.backups.iter().flatten().map(|held| held.id.started());
        let from = lines.values().map(|line| line.from).chain(backups).min()?;
        let span = report.made.duration_since(from).unwrap_or_default().as_secs_f64().max(1.0);
        Some(Scale { from, span })
    }

    pub(super) fn x(&self, at: SystemTime) -> f64 {
        let since = at.duration_since(self.from).unwrap_or_default().as_secs_f64();
        LEFT + (WIDTH - LEFT - RIGHT) * (since / self.span).clamp(0.0, 1.0)
    }

    /// The time at a part of the whole.
    pub(super) fn at(&self, part: f64) -> SystemTime {
        self.from.checked_add(Duration::from_secs_f64(self.span * part)).unwrap_or(self.from)
    }
}

/// A timeline's WAL over time.
pub(super) struct Line {
    pub(super) from: SystemTime,
    pub(super) to: SystemTime,
    /// Segments and when they were stored, both rising.
    knots: Vec<(u64, SystemTime)>,
}

impl Line {
    /// Of each timeline that has segments, by the destination that holds most of it.
    pub(super) fn all(report: &Report) -> BTreeMap<Timeline, Line> {
        let mut fullest = BTreeMap::new();
        for (timeline, files) in report.listed.inventories.iter().flat_map(|one| &one.timelines) {
            let known = fullest.entry(*timeline).or_insert(files);
            if files.stored.objects > known.stored.objects {
                *known = files;
            }
        }
        let line = |(timeline, files): (Timeline, &crate::archive::inventory::TimelineFiles)| {
            let (from, to) = files.times?;
            Some((timeline, Line::of((from, to), files.days.values().flat_map(|day| [day.first, day.last]))))
        };
        fullest.into_iter().filter_map(line).collect()
    }

    fn of((from, to): (SystemTime, SystemTime), knots: impl Iterator<Item = (u64, SystemTime)>) -> Self {
        let mut knots: Vec<_> = knots.collect();
        knots.sort_unstable();
        knots.dedup_by_key(|knot| knot.0);
        let mut latest = from;
        for (_, at) in &mut knots {
            latest = latest.max(*at);
            *at = latest;
        }
        Line { from, to, knots }
    }

    /// When a segment was stored, about; of one that was not, when it would have been.
    pub(super) fn at(&self, number: u64) -> SystemTime {
        let behind = self.knots.partition_point(|(known, _)| *known < number);
        let (Some(next), before) = (self.knots.get(behind), behind.checked_sub(1)) else { return self.to };
        let Some(before) = before.and_then(|before| self.knots.get(before)) else { return next.1 };
        let part = (number - before.0) as f64 / (next.0 - before.0) as f64; // to a pixel
        before.1 + next.1.duration_since(before.1).unwrap_or_default().mul_f64(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_between_its_neighbours_in_time() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        // The fourth was stored late.
        let knots = [(10, at(1000)), (14, at(1400)), (20, at(1300)), (30, at(2400))];
        let line = Line::of((at(1000), at(2400)), knots.into_iter());
        let found = [5, 10, 12, 14, 17, 20, 25, 30, 99].map(|number| line.at(number));
        assert_eq!(found, [1000, 1000, 1200, 1400, 1400, 1400, 1900, 2400, 2400].map(at));
    }
}
