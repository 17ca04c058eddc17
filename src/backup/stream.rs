//! What the server sends: tars into parts, every file summed; then the manifest, compared.

use super::parts::{Cutter, InForms, Number, Parts};
use super::{Cause, Result, could_not};
use crate::base_backup::manifest::{ManifestError, WalRange};
use crate::base_backup::sums::{Differences, Sums};
use crate::base_backup::{Series, part, tar};
use crate::failure::Failure;
use crate::object::Encryption;
use crate::replication::{BackupStream, Event, Started};
use crate::storage::{Body, BodyWriter, body};
use crate::wal::{Lsn, Timeline};
use log::Level;
use std::collections::BTreeMap;
use std::io::Write;

/// A backup that was sent and stored, all but its record.
#[derive(Clone)]
pub(super) struct Streamed {
    pub(super) stop: Lsn,
    pub(super) stop_timeline: Timeline,
    pub(super) from_standby: bool,
    /// What the server said of pages with wrong checksums.
    pub(super) checksum_failure: Option<Failure>,
    pub(super) manifest: InForms,
    parts: BTreeMap<Number, InForms>,
}

impl Streamed {
    /// The parts in one form by their tars, that of the data directory first; `None` where one was not
    /// stored so.
    pub(super) fn series(
        &self,
        encryption: Encryption,
        location: &dyn Fn(u32) -> Option<String>,
    ) -> Option<Vec<Series>> {
        let mut all: Vec<Series> = Vec::new();
        let mut of = None;
        for ((oid, _), stored) in &self.parts {
            if of != Some(*oid) {
                of = Some(*oid);
                let tablespace = oid.map(|oid| (oid, location(oid).unwrap_or_default()));
                all.push(Series { tablespace, parts: Vec::new() });
            }
            if let Some(series) = all.last_mut() {
                series.parts.push(stored.get(encryption)?.clone());
            }
        }
        Some(all)
    }
}

/// Everything that came through the stream.
struct Received {
    sums: Sums,
    manifest: Body,
    stop: Lsn,
    stop_timeline: Timeline,
}

/// Receives a backup to its end and compares it with its manifest.
pub(super) fn receive(
    sent: &mut BackupStream<'_>,
    started: &Started,
    parts: &Parts<'_>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Streamed> {
    let (received, stored) = parts.store(|cutter| read(sent, started, cutter, progress))?;
    let checksum_failure = match sent.verdict() {
        Ok(()) => None,
        Err(failure) if failure.kind.is_corruption() => {
            let what = format!("pages with wrong checksums are in the backup: {}", failure.message);
            Some(
                Failure::new((), what)
                    .hint("the server's log names the files; restore their relations, or repair the disk"),
            )
        }
        Err(failure) => return Err(could_not(failure)),
    };
    let Received { sums, manifest, stop, stop_timeline } = received;
    let label = sums.label().ok_or_else(|| {
        Failure::new(Cause::Mismatch, "the server sent no \"backup_label\" that can be understood")
    })?;
    compare(sums, &manifest, started, stop)?;
    let manifest = parts.put(part::MANIFEST, manifest.len(), &mut manifest.reader())?;
    Ok(Streamed {
        stop,
        stop_timeline,
        from_standby: label.from_standby,
        checksum_failure,
        manifest,
        parts: stored,
    })
}

fn read(
    sent: &mut BackupStream<'_>,
    started: &Started,
    cutter: &mut Cutter,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Received> {
    let (mut sums, mut tar) = (Sums::default(), None::<tar::Reader>);
    let mut manifest = BodyWriter::new(body::overflow_folders(None));
    let mut done = 0;
    loop {
        match sent.receive().map_err(could_not)? {
            Event::Archive(tablespace) => {
                finish(tar.replace(tar::Reader::default()))?;
                sums.begin_tar(tablespace);
                cutter.begin_tar(tablespace)?;
            }
            Event::Manifest => finish(tar.take())?,
            Event::Data(bytes) => match &mut tar {
                Some(tar) => {
                    tar.push(&bytes, &mut sums).map_err(not_a_tar)?;
                    cutter.push(&bytes)?;
                    done += bytes.len() as u64;
                    progress(done, started.estimate);
                }
                None => manifest.write_all(&bytes).map_err(|error| {
                    Failure::new(Cause::CouldNot, format!("cannot keep the manifest: {error}"))
                        .hint("make room for a temporary file in $TMPDIR, /var/tmp or /tmp")
                })?,
            },
            Event::End { stop, timeline } => {
                finish(tar.take())?;
                return Ok(Received { sums, manifest: manifest.finish(), stop, stop_timeline: timeline });
            }
        }
    }
}

fn finish(tar: Option<tar::Reader>) -> Result<()> {
    tar.map_or(Ok(()), |tar| tar.finish()).map_err(not_a_tar)
}

fn not_a_tar(error: tar::Error) -> Failure<Cause> {
    let what = match error {
        tar::Error::Damaged(reason) => format!("the server sent no proper tar: {reason}"),
        tar::Error::Output(what, error) => format!("{what}: {error}"),
    };
    Failure::new(Cause::Mismatch, what).hint("repeat the backup; if it fails again, keep the server's log")
}

/// Proves that what was sent is what the manifest says.
fn compare(sums: Sums, manifest: &Body, started: &Started, stop: Lsn) -> Result<()> {
    let mismatch = |what: String| {
        Failure::new(Cause::Mismatch, what)
            .hint("nothing of this backup counts; repeat it, and look at the network and the server's log")
    };
    let (manifest, Differences { said, count }) =
        sums.compare(&mut manifest.reader()).map_err(|error| match error {
            ManifestError::Read(error) => {
                Failure::new(Cause::CouldNot, format!("cannot read the manifest again: {error}"))
            }
            ManifestError::Damaged(reason) => mismatch(reason),
        })?;
    for what in &said {
        Failure::new((), what.clone()).log(Level::Error);
    }
    if count > 0 {
        return Err(mismatch(format!("{count} files that the server sent are not what its manifest says")));
    }
    let starts = |range: &WalRange| (range.timeline, range.start) == (started.timeline, started.start);
    let ends = |range: &WalRange| range.end == stop;
    if !manifest.wal.iter().any(starts) || !manifest.wal.iter().any(ends) {
        return Err(mismatch("the manifest names other WAL than the server does".to_owned()));
    }
    Ok(())
}
