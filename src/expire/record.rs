//! The record of what goes between backups, made before anything goes: without it `verify` would take
//! the range for lost.
//!
//! It names only what the plan deletes, never a kept segment that is missing between two that go.

use super::plan::{Plan, Why};
use super::{Doomed, doomed};
use crate::archive::inventory::Runs;
use crate::object::{Expired, Key};
use crate::storage::{Body, Error, Kind, Result, Storage};
use crate::wal::{Timeline, WalName};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// Times that are tried until one is free.
const ATTEMPTS: u64 = 100;

/// Writes the record where anything goes between backups.
pub(super) fn write(storage: &dyn Storage, plan: &Plan, now: SystemTime) -> Result<()> {
    let record = record(plan, &doomed(storage, plan)?);
    if record.ranges.is_empty() {
        return Ok(());
    }
    let body = Body::from(record.write());
    for later in 0..ATTEMPTS {
        let key = now.checked_add(Duration::from_micros(later)).and_then(Key::expired);
        let key = key.ok_or_else(|| Error::new(Kind::Invalid, "the clock of this machine is before 1970"))?;
        match storage.create(&key, &body) {
            Err(error) if error.kind() == Kind::AlreadyExists => {}
            other => return other,
        }
    }
    let what = format!("\"{}\" takes no record of what is to be expired", storage.place());
    Err(Error::new(Kind::Unavailable, what))
}

fn record(plan: &Plan, ranges: &[Doomed]) -> Expired {
    let mut removed: BTreeMap<Timeline, Runs> = BTreeMap::new();
    for range in ranges.iter().filter(|range| range.why == Why::Between) {
        let timeline = range.first.timeline();
        let Some((first, last)) = plan.number(range.first).zip(plan.number(range.last)) else { continue };
        let goes =
            |number: &u64| plan.deletes(WalName::Segment(plan.name(timeline, *number))) == Some(Why::Between);
        let runs = removed.entry(timeline).or_default();
        (first..=last).filter(goes).for_each(|number| runs.insert(number));
    }
    let named = removed.iter().flat_map(|(timeline, runs)| {
        runs.ranges().map(|(first, last)| (plan.name(*timeline, first), plan.name(*timeline, last)))
    });
    Expired { ranges: named.collect() }
}
