//! wal-fetch's side of prefetching: take what was prefetched, say what was got, start who goes on.
//!
//! Whatever fails in here is a miss, and the file is fetched as ever.

use super::{Context, Fetch, Prefetcher};
use crate::host::data_directory::{DataDirectory, RunningServer};
use crate::host::target::{Target, TargetError};
use crate::object::Sha256Sum;
use crate::spool::{Hit, Prefetched, Purpose, Spool};
use crate::storage::Shared;
use crate::wal::{SegmentName, SegmentSize, SystemId, WalName};
use log::Level;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How long a download that does not grow is waited for, before the file is fetched a second time.
const STALL: Duration = Duration::from_secs(2);

/// Between two looks at a download.
const PAUSE: Duration = Duration::from_millis(2);

/// One request that may be served from the spool.
pub(super) struct Ahead<'a> {
    request: &'a Fetch<'a>,
    prefetcher: Prefetcher<'a>,
    name: SegmentName,
    directory: &'a DataDirectory,
    server: RunningServer,
    system_id: SystemId,
    spool: &'a Spool,
    prefetched: Prefetched,
    stall: Duration,
}

impl<'a> Ahead<'a> {
    /// `None` where nothing may be prefetched: only segments are, for a server that recovers from
    /// an archive, and of which everything is known.
    pub(super) fn of(
        request: &'a Fetch<'a>,
        control: Option<SystemId>,
        server: Option<RunningServer>,
    ) -> Option<Self> {
        let prefetcher = request.prefetch?;
        let WalName::Segment(name) = request.name else { return None };
        // pg_rewind asks backwards, and for its target's files under their own names.
        if request.path.file_name()?.to_str()? == name.to_string() {
            return None;
        }
        let (server, system_id) = (server?, control?);
        let Context { data_directory: Some(directory), spool: Some(spool), destinations, .. } =
            request.context
        else {
            return None;
        };
        let prefetched = place(spool, directory, &server, system_id, destinations, prefetcher.terms)?;
        Some(Ahead {
            request,
            prefetcher,
            name,
            directory,
            server,
            system_id,
            spool,
            prefetched,
            stall: STALL,
        })
    }

    /// Puts the prefetched file at the path, if there is one or will be in a moment.
    pub(super) fn deliver(&self, target: &Target, deadline: Instant) -> bool {
        let Some(mut hit) = self.await_hit(deadline) else { return false };
        if self.directory.is_abandoned_by(Some(&self.server)) {
            return false;
        }
        if let Err(reason) = put(target, &mut hit) {
            log::debug!("\"{}\" is not used: {reason}", hit.path.display());
            self.prefetched.discard(self.name);
            return false;
        }
        self.prefetched.taken(self.name);
        for warning in &hit.warnings {
            warning.log(Level::Warn);
        }
        self.go_on(hit.size);
        true
    }

    /// Says that the segment was got, and sees to it that the next ones are brought.
    pub(super) fn go_on(&self, size: SegmentSize) {
        if let Err(error) = self.prefetched.set_position(self.name, size) {
            log::debug!("cannot write to \"{}\": {error}", self.prefetched.folder().display());
        } else if !self.spool.has_prefetcher() {
            (self.prefetcher.start)(self.directory.path());
        }
    }

    /// The hit. A segment that is just being downloaded is waited for while it grows: replay is as
    /// fast as its downloads, and a second one of the same segment would make both slower.
    fn await_hit(&self, deadline: Instant) -> Option<Hit> {
        let start = Instant::now();
        let patience = deadline.saturating_duration_since(start) / 2;
        let (mut progress, mut grown) = (None, start);
        loop {
            let checks = self.request.context.checks;
            if let Some(hit) = self.prefetched.hit(self.name, checks, self.system_id, SystemTime::now()) {
                return Some(hit);
            }
            let now = self.prefetched.progress(self.name)?;
            if !self.spool.has_prefetcher() {
                // What a killed one left, or what somebody put there.
                self.prefetched.discard(self.name);
                return None;
            }
            if progress != Some(now) {
                (progress, grown) = (Some(now), Instant::now());
            }
            if grown.elapsed() > self.stall || start.elapsed() > patience {
                return None;
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Where a server's prefetched files are; `None` where there must be none.
pub(super) fn place(
    spool: &Spool,
    directory: &DataDirectory,
    server: &RunningServer,
    system_id: SystemId,
    destinations: &[Shared],
    terms: Sha256Sum,
) -> Option<Prefetched> {
    let allowed =
        directory.is_in_archive_recovery() && server.is_known_and_alive() && !server.adopts_orphans();
    if !allowed {
        return None;
    }
    let addresses = destinations.iter().map(|destination| destination.address()).collect();
    spool.prefetched(&Purpose { addresses, terms, system_id, server }).ok()
}

/// By renaming where the file systems are the same, else by a copy that is proved again.
fn put(target: &Target, hit: &mut Hit) -> Result<(), TargetError> {
    if target.adopt(&hit.path)? {
        return Ok(());
    }
    let mut temporary = target.temporary()?;
    let sum = Sha256Sum::of_copy(&mut hit.file, &mut temporary.file);
    let sum = sum.map_err(|error| target.unwritable(error))?;
    if sum != hit.sha256 {
        let changed = io::Error::new(io::ErrorKind::InvalidData, "the prefetched file has changed");
        return Err(target.unwritable(changed));
    }
    target.publish(temporary)?;
    let _ = fs::remove_file(&hit.path); // what stays is cleared by the prefetcher
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    const HOUR: Duration = Duration::from_secs(3600);

    /// Waits in this way for a download that stands still, and by another one's lock is under way.
    fn await_hit(stall: Duration, meanwhile: impl FnOnce(&Prefetched, SegmentName) + Send) -> Option<Hit> {
        let base = tempfile::tempdir().unwrap();
        let data = base.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("PG_VERSION"), "15\n").unwrap();
        fs::write(data.join("postmaster.pid"), "10\n/data\n20\n").unwrap();
        let directory = DataDirectory::at(&data).unwrap();
        let server = directory.server().unwrap();
        let spool = Spool::open(base.path().join("spool")).unwrap();
        let (system_id, terms) = (SystemId(7), Sha256Sum::of(b"terms"));
        let purpose = Purpose { addresses: Vec::new(), terms, system_id, server: &server };
        let prefetched = spool.prefetched(&purpose).unwrap();
        prefetched.create().unwrap();
        let name: SegmentName = "000000010000000000000002".parse().unwrap();
        fs::write(prefetched.part(name), "half").unwrap();
        let _prefetcher = spool.be_prefetcher().unwrap().unwrap();
        let (data_directory, kept) = (Some(directory.clone()), Some(spool.clone()));
        let context = Context { data_directory, spool: kept, ..Context::of(Vec::new()) };
        let path = data.join("RECOVERYXLOG");
        let request = Fetch::new(WalName::Segment(name), &path, &context, HOUR);
        let ahead = Ahead {
            request: &request,
            prefetcher: Prefetcher { start: &|_| {}, terms },
            name,
            directory: &directory,
            server: server.clone(),
            system_id,
            spool: &spool,
            prefetched: prefetched.clone(),
            stall,
        };
        thread::scope(|scope| {
            scope.spawn(|| meanwhile(&prefetched, name));
            ahead.await_hit(Instant::now() + 10 * HOUR)
        })
    }

    #[test]
    fn a_download_that_ends_without_a_segment_is_waited_for_no_longer() {
        let ended = AtomicBool::new(false);
        let hit = await_hit(HOUR, |prefetched, name| {
            thread::sleep(Duration::from_millis(100));
            ended.store(true, Ordering::SeqCst);
            fs::remove_file(prefetched.part(name)).unwrap();
        });
        assert!(hit.is_none() && ended.into_inner(), "it is waited for until then");
    }

    #[test]
    fn a_download_that_stands_still_is_not_waited_for_to_the_deadline() {
        assert!(await_hit(Duration::from_millis(50), |_, _| {}).is_none());
    }
}
