//! The records of what `wal-archive expire` removed between backups.

use crate::archive::inventory;
use crate::object::Expired;
use crate::storage::{Body, Error, Kind, Result, Storage};
use crate::wal::{SegmentName, WalName};
use std::collections::BTreeSet;

/// Brings the records of what was expired on purpose, but for ranges of which the destination still holds
/// something: it keeps them longer, and may lose some of them.
pub(super) fn carry(from: &dyn Storage, to: &dyn Storage) -> Result<()> {
    let keys = inventory::records(from)?;
    if keys.is_empty() {
        return Ok(());
    }
    let segment = |item: inventory::Item| match item.stored.name()? {
        WalName::Segment(segment) if item.stored.partial().is_none() => Some(segment),
        _ => None,
    };
    let segments = inventory::items(to)?.filter_map(|item| item.map(segment).transpose());
    let there: BTreeSet<SegmentName> = segments.collect::<Result<_>>()?;
    for key in keys {
        let Some(bytes) = inventory::record(from, &key)? else { continue };
        let mut record = Expired::read(&bytes).map_err(|reason| {
            let what = format!("\"{}/{key}\" cannot be understood: {reason}", from.place());
            Error::new(Kind::Damaged, what).hint("restore the object from another destination")
        })?;
        record.ranges.retain(|(first, last)| there.range(first..=last).next().is_none());
        if record.ranges.is_empty() {
            continue;
        }
        match to.create(&key, &Body::from(record.write())) {
            // Its time is in its name, to the microsecond.
            Err(error) if error.kind() == Kind::AlreadyExists => {}
            other => other?,
        }
    }
    Ok(())
}
