//! What a fetch and the prefetcher have in common: whom to ask, and for which cluster.

use super::Cause;
use crate::failure::Failure;
use crate::host::data_directory::{DataDirectory, RunningServer};
use crate::object::Checks;
use crate::spool::Spool;
use crate::storage::Shared;
use crate::wal::ControlFile;
use std::time::SystemTime;

/// The destinations, and the cluster that recovers from them.
#[derive(Clone)]
pub struct Context {
    /// In the order in which they are asked.
    pub destinations: Vec<Shared>,
    /// That of the cluster, where it is known.
    pub data_directory: Option<DataDirectory>,
    /// `None` where none can be had.
    pub spool: Option<Spool>,
    /// Whether pages are checked.
    pub checks: Checks,
}

impl Context {
    /// For whichever cluster, without a spool.
    pub fn of(destinations: Vec<Shared>) -> Self {
        Context { destinations, data_directory: None, spool: None, checks: Checks::Header }
    }

    /// The destinations, those that did not answer lately last.
    pub(super) fn healthy_first(&self) -> Vec<Shared> {
        match &self.spool {
            Some(spool) => spool.healthy_first(&self.destinations, SystemTime::now()),
            None => self.destinations.clone(),
        }
    }

    /// The server that runs now.
    pub(super) fn server(&self) -> Option<RunningServer> {
        self.data_directory.as_ref().and_then(DataDirectory::server)
    }

    /// What the control file says of the cluster.
    pub(super) fn control(&self) -> Result<Option<ControlFile>, Failure<Cause>> {
        let Some(directory) = &self.data_directory else { return Ok(None) };
        directory.control().map_err(|error| {
            let what = format!("cannot read \"{}/global/pg_control\": {error}", directory.path().display());
            Failure::new(Cause::Local, what)
        })
    }

    /// An orphan of an earlier server must not put its file where a newer one reads its own.
    pub(super) fn still_asked(&self, asked_by: Option<&RunningServer>) -> Result<(), Failure<Cause>> {
        match &self.data_directory {
            Some(directory) if directory.is_abandoned_by(asked_by) => Err(Failure::new(
                Cause::Refused,
                "the server that asked is gone, so nothing was put in its place",
            )),
            _ => Ok(()),
        }
    }
}
