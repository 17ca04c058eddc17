//! What a server recovered, compared with what the records in the archive say: the same that
//! `verify --records` tells.

use crate::archive::rehearsals::Flaw;
use crate::failure::{Failure, exact_time};
use crate::finding::Finding;
use crate::rehearse::Outcome;
use crate::restore::window::reached;
use crate::restore::{Archive, Cause, look};
use crate::storage::Shared;
use crate::wal::{Lsn, Timeline};
use std::time::SystemTime;

pub(super) struct Expected<'a> {
    pub(super) destinations: &'a [Shared],
    /// Where recovery began.
    pub(super) from: Lsn,
    /// The timeline that it was to go along.
    pub(super) timeline: Option<Timeline>,
    /// Whether nothing was to stop it before the end of the archived WAL.
    pub(super) to_the_end: bool,
}

impl Expected<'_> {
    /// Adds what differs, and tells when the last transaction was committed that was recovered. `archive` is
    /// as it was before the rehearsal.
    pub(super) fn compare(
        &self,
        archive: Archive,
        outcome: &mut Outcome,
    ) -> Result<Option<SystemTime>, Failure> {
        let plain =
            |failure: Failure<Cause>| Failure { kind: (), message: failure.message, hint: failure.hint };
        let (Some(timeline), Some(end)) = (outcome.timeline, outcome.end) else { return Ok(None) };
        let differs = |what: String| {
            Finding::new(Flaw::Differs, "recovery", &archive.inventory.place, what)
                .hint("\"wal-archive verify --records\" tells how far the archived WAL leads")
        };
        if let Some(expected) = self.timeline.filter(|expected| *expected != timeline) {
            let what = format!("recovery went along timeline {timeline}, and not along {expected}");
            outcome.findings.push(differs(what));
            return Ok(outcome.last_completed);
        }
        if self.to_the_end {
            let whole = reached(&archive, timeline, self.from, None).map_err(plain)?;
            // More may have arrived meanwhile.
            if let Some(last) = whole.and_then(|walk| walk.end).filter(|last| *last > end) {
                let what = format!("recovery ended at {end}, and the archived WAL leads to {last}");
                outcome.findings.push(differs(what));
            }
        }
        let mut shown = reached(&archive, timeline, self.from, Some(end)).map_err(plain)?;
        if shown.is_none() {
            let now = look(self.destinations).map_err(plain)?;
            shown = reached(&now, timeline, self.from, Some(end)).map_err(plain)?;
        }
        // What the backup brought itself beyond the archive is not in it.
        let Some(shown) = shown else { return Ok(outcome.last_completed) };
        if outcome.last_completed.is_some() && outcome.last_completed != shown.last_completed {
            let said =
                |time: Option<SystemTime>| time.and_then(exact_time).unwrap_or_else(|| "none".to_owned());
            outcome.findings.push(differs(format!(
                "the last transaction that was recovered ended at {}, and before {end} in the archived WAL at {}",
                said(outcome.last_completed),
                said(shown.last_completed)
            )));
        }
        Ok(shown.last_commit.or(outcome.last_completed))
    }
}
