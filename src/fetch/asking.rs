//! All destinations asked once for one file.
//!
//! Knows the order of asking and each destination's share of the time. Does not know what the answers
//! mean together, or for PostgreSQL ([`super::search`]).

use super::destination::{Proof, Said};
use super::{Cause, Context, Failures, local};
use crate::archive::absent::Shape;
use crate::failure::Failure;
use crate::host::data_directory::{self, RunningServer};
use crate::host::target::{Target, Temporary};
use crate::storage::Shared;
use crate::storage::deadline::Deadline;
use crate::wal::{ControlFile, SegmentSize, SystemId, WalName};
use std::sync::Arc;
use std::time::Instant;

/// Whose question it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// It waits, and believes every answer.
    PostgreSql,
    /// Nobody asked yet: that a file is not there needs no proof.
    Prefetcher,
}

/// One file that the destinations are asked for.
pub(super) struct Asking<'a> {
    pub(super) context: &'a Context,
    pub(super) name: WalName,
    pub(super) asker: Asker,
    /// Where the file goes.
    pub(super) target: Target,
    /// In the order in which they are asked.
    pub(super) destinations: Vec<Shared>,
    /// The cluster's, where it is known.
    pub(super) system_id: Option<SystemId>,
    pub(super) segment_size: Option<SegmentSize>,
    asked_by: Option<RunningServer>,
}

/// What came of asking all destinations.
pub(super) enum Asked {
    /// The proved file is at the path.
    Delivered(Proof),
    Nobody(Round),
}

/// What all destinations said, none of them having the file.
pub(super) struct Round {
    /// One for each destination; `None` where it failed.
    pub(super) shapes: Vec<Option<Shape>>,
    pub(super) faults: Failures,
}

impl<'a> Asking<'a> {
    pub(super) fn new(
        context: &'a Context,
        name: WalName,
        asker: Asker,
        target: Target,
        control: Option<ControlFile>,
        asked_by: Option<RunningServer>,
    ) -> Self {
        Asking {
            context,
            name,
            asker,
            target,
            destinations: context.healthy_first(),
            system_id: control.map(|control| control.system_id),
            segment_size: segment_size(context, control),
            asked_by,
        }
    }

    /// Asks the destinations in order, going on past every fault.
    pub(super) fn ask_all(&self, deadline: Instant) -> Result<Asked, Failures> {
        let mut round = Round { shapes: Vec::new(), faults: Vec::new() };
        for (index, destination) in self.destinations.iter().enumerate() {
            let storage = share(destination, self.destinations.len() - index, deadline);
            match self.ask(&storage) {
                Ok(Said::Delivered(mut proof)) => {
                    let faults = round.faults.iter().map(Failure::remark);
                    proof.warnings.splice(..0, faults);
                    return Ok(Asked::Delivered(proof));
                }
                Ok(Said::Nothing(shape)) => round.shapes.push(Some(*shape)),
                Err(failures) if failures.iter().any(|failure| failure.kind == Cause::Local) => {
                    return Err(failures);
                }
                Err(failures) => {
                    round.shapes.push(None);
                    round.faults.extend(failures);
                }
            }
        }
        Ok(Asked::Nobody(round))
    }

    /// Puts a proved file at the path, if whoever asked is still there.
    pub(super) fn publish(&self, temporary: Temporary) -> Result<(), Failure<Cause>> {
        self.still_asked()?;
        self.target.publish(temporary).map_err(|error| local(&error))
    }

    pub(super) fn still_asked(&self) -> Result<(), Failure<Cause>> {
        self.context.still_asked(self.asked_by.as_ref())
    }
}

/// A slow destination must not eat the next ones' part of the time.
fn share(destination: &Shared, remaining: usize, deadline: Instant) -> Deadline {
    let left = deadline.saturating_duration_since(Instant::now());
    let share = left / u32::try_from(remaining).unwrap_or(u32::MAX);
    Deadline::new(Arc::clone(destination), Instant::now() + share)
}

/// By the control file, else by a segment that lies in pg_wal.
fn segment_size(context: &Context, control: Option<ControlFile>) -> Option<SegmentSize> {
    let (directory, control) = (context.data_directory.as_ref()?, control?);
    control
        .segment_size
        .or_else(|| data_directory::segment_size_in(&directory.path().join("pg_wal"), control.system_id))
}
