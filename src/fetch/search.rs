//! All destinations asked for one file, as often as patience allows, and what their answers mean.
//!
//! Knows: the order of asking, when to ask again, what PostgreSQL's own copies in pg_wal are worth.
//! Does not know: exit codes, prefetched files, who waits for the answer.

use super::destination::{Proof, Said};
use super::{ABANDONED, Cause, Failures, Fetch, hint_in_promotion, is_promoting, local};
use crate::cluster::{self, RunningServer};
use crate::failure::Failure;
use crate::storage::Storage;
use crate::storage::deadline::Deadline;
use crate::target::{Target, Temporary};
use crate::wal::{SystemId, Timeline, WalName};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_secs(1);

/// The answer, and what is known of the file that is at the path now.
pub(super) enum End {
    /// An object of that name was delivered.
    Archived(Proof),
    /// What else may be given for it was: PostgreSQL's own copy, or a partial segment.
    Otherwise,
    Absent,
}

/// What came of asking all destinations.
pub(super) enum Asked {
    /// The proved file is at the path.
    Delivered(Proof),
    Nobody(Round),
}

/// What all destinations said, none of them having the file.
pub(super) struct Round {
    /// A later segment of the timeline, and where it was seen.
    later: Option<(WalName, String)>,
    faults: Failures,
}

pub(super) struct Search<'a> {
    pub(super) request: &'a Fetch<'a>,
    pub(super) target: Target,
    pub(super) control: Option<SystemId>,
    asked_by: Option<RunningServer>,
    /// Why the destinations are asked again; said once.
    before: Failures,
    /// Nobody asked yet: that it is not there needs no proof.
    pub(super) unasked: bool,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        request: &'a Fetch<'a>,
        target: Target,
        control: Option<SystemId>,
        asked_by: Option<RunningServer>,
    ) -> Self {
        Search { request, target, control, asked_by, before: Vec::new(), unasked: false }
    }

    /// Asks until there is an answer.
    pub(super) fn run(mut self, start: Instant, deadline: Instant) -> Result<End, Failures> {
        loop {
            let round = match self.ask_all(deadline)? {
                Asked::Nobody(round) => round,
                Asked::Delivered(proof) => return Ok(End::Archived(proof)),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match self.conclude(round, start, left)? {
                true => return self.absent(deadline),
                false => {
                    // A restart of the server waits for this process: its shared memory is in use.
                    self.still_asked().map_err(|failure| vec![failure])?;
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Asks the destinations in order, going on past every fault; `later` empty and no faults
    /// means that the file is proved absent.
    pub(super) fn ask_all(&self, deadline: Instant) -> Result<Asked, Failures> {
        let destinations = self.request.destinations;
        let mut round = Round { later: None, faults: Vec::new() };
        for (index, destination) in destinations.iter().enumerate() {
            // A slow destination must not eat the next one's part.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(destinations.len() - index).unwrap_or(u32::MAX);
            let storage = Deadline::new(Arc::clone(destination), Instant::now() + share);
            match self.ask(&storage) {
                Ok(Said::Delivered(mut proof)) => {
                    let faults = round.faults.iter().map(Failure::to_string);
                    proof.warnings.splice(..0, faults);
                    return Ok(Asked::Delivered(proof));
                }
                Ok(Said::Absent) => {}
                Ok(Said::Later(name)) => round.later = Some((name, storage.place().to_owned())),
                Err(failures) if failures.iter().any(|failure| failure.kind == Cause::Local) => {
                    return Err(failures);
                }
                Err(failures) => round.faults.extend(failures),
            }
        }
        Ok(Asked::Nobody(round))
    }

    /// Whether a round proves the file absent; `Ok(false)` where it is to be asked for again.
    fn conclude(&mut self, mut round: Round, start: Instant, left: Duration) -> Result<bool, Failures> {
        let request = self.request;
        if let (WalName::Segment(segment), Some((later, place))) = (request.name, &round.later) {
            if round.faults.is_empty() && request.accept_gap.contains(&segment) {
                log::warn!(
                    "\"{segment}\" is missing in the archive although \"{later}\" is there; accepted by --accept-gap"
                );
                return Ok(true);
            }
            if round.faults.is_empty() && self.stands_in_pg_wal() {
                log::warn!(
                    "\"{segment}\" is missing in the archive although \"{later}\" is there; PostgreSQL uses its own copy in pg_wal"
                );
                return Ok(true);
            }
            if start.elapsed() < request.hole_patience && left > PAUSE {
                return Ok(false);
            }
            round.faults.push(
                Failure::new(
                    Cause::Hole,
                    format!("a hole in the archive: \"{segment}\" is in no destination, but the later \"{later}\" is in \"{place}\""),
                )
                .hint(format!(
                    "bring \"{segment}\" from another copy of the archive or from the pg_wal of a server that has it; \
                     if it is lost for good, --accept-gap {segment} lets recovery end before it"
                )),
            );
            return Err(round.faults);
        }
        if round.faults.is_empty() {
            return Ok(true);
        }
        if let WalName::TimelineHistory(timeline) = request.name {
            let transient =
                round.faults.iter().all(|fault| matches!(fault.kind, Cause::Unreachable | Cause::Deadline));
            // Not with the last second: what is known now says more than one more timeout.
            if transient && left > PAUSE {
                self.tell(round.faults, left);
                return Ok(false);
            }
            // The last round was cut by the deadline: an earlier one knows more.
            if !self.before.is_empty() && round.faults.iter().all(|fault| fault.kind == Cause::Deadline) {
                round.faults = std::mem::take(&mut self.before);
            }
            self.explain_history(timeline, &mut round.faults);
        }
        Err(round.faults)
    }

    /// Proved absent; perhaps a partial segment may stand in for it.
    fn absent(&self, deadline: Instant) -> Result<End, Failures> {
        match self.request.name {
            WalName::Segment(segment) if self.request.partial => {
                let delivered = self.deliver_partial(segment, deadline).map_err(|failure| vec![failure])?;
                Ok(if delivered { End::Otherwise } else { End::Absent })
            }
            _ => Ok(End::Absent),
        }
    }

    /// An orphan of an earlier server must not put its file where a newer one reads its own.
    pub(super) fn publish(&self, temporary: Temporary) -> Result<(), Failure<Cause>> {
        self.still_asked()?;
        self.target.publish(temporary).map_err(|error| local(&error))
    }

    pub(super) fn still_asked(&self) -> Result<(), Failure<Cause>> {
        match self.request.data_directory {
            Some(directory) if directory.is_abandoned_by(self.asked_by.as_ref()) => {
                Err(Failure::new(Cause::Refused, ABANDONED))
            }
            _ => Ok(()),
        }
    }

    /// PostgreSQL's own copy of the file, which it uses where the archive has none.
    fn own_copy(&self) -> Option<PathBuf> {
        let copy = self.request.path.with_file_name(self.request.name.to_string());
        (copy != self.request.path).then_some(copy)
    }

    pub(super) fn stands_in_pg_wal(&self) -> bool {
        let WalName::Segment(segment) = self.request.name else { return false };
        let Some(copy) = self.own_copy() else { return false };
        let (Ok(metadata), Ok(Some(page))) = (fs::metadata(&copy), cluster::first_page(&copy)) else {
            return false;
        };
        page.check(segment, metadata.len()).is_ok() && self.control.is_none_or(|id| id == page.system_id())
    }

    fn tell(&mut self, faults: Failures, left: Duration) {
        if self.before.is_empty() {
            for fault in &faults {
                log::warn!("{fault}");
            }
            log::warn!(
                "\"{}\" is asked for again for up to {}: taking its absence for an answer could reuse a timeline id",
                self.request.name,
                humantime::format_duration(Duration::from_secs(left.as_secs()))
            );
        }
        self.before = faults;
    }

    /// A failed request for a history means more than it says.
    fn explain_history(&self, timeline: Timeline, faults: &mut [Failure<Cause>]) {
        let Some(last) = faults.last_mut() else { return };
        let own = last.hint.take().map_or_else(String::new, |hint| format!("{hint}; "));
        last.hint = Some(if is_promoting(self.request) {
            format!("{own}{}", hint_in_promotion(timeline))
        } else {
            format!(
                "{own}no restore command can tell a standby's poll from a promotion: do not promote while the archive \
                 does not answer, or archived WAL may be missed and a timeline id used twice"
            )
        });
    }
}
