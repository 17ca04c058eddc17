//! `wal-archive backup`: a base backup of a running server into every destination.
//!
//! The server's tars are cut into parts, compressed and stored as they come; every file in them is
//! summed and compared with the manifest that comes last. Only where that agrees `backup.json` is
//! written, and only once the WAL has arrived the backup can be restored.

mod places;
mod parts;
mod stream;
mod wait;

use crate::archive::identity::Claimant;
use crate::base_backup::{BackupId, Record, id};
use crate::failure::Failure;
use crate::finding::{Finding, FindingKind};
use crate::object::{Checks, Encryption};
use crate::replication::{self, Checkpoint, Connection, Started};
use crate::storage::{Body, Shared};
use crate::wal::SegmentSize;
use parts::Parts;
use places::Places;
use std::path::Path;
use std::time::{Duration, SystemTime};
use stream::Streamed;

/// Why there is no backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It could not be made.
    CouldNot,
    /// What the server sent is not what it says it sent.
    Mismatch,
}

type Result<T> = std::result::Result<T, Failure<Cause>>;

/// What is asked for.
pub struct Request<'a> {
    pub connection: &'a mut Connection,
    pub destinations: &'a [Shared],
    pub label: String,
    pub checkpoint: Checkpoint,
    /// KiB a second.
    pub max_rate: Option<u32>,
    /// zstd's.
    pub level: i32,
    /// Parts that are compressed and stored at once.
    pub jobs: usize,
    /// How long the WAL is waited for; `None`: not at all.
    pub wait: Option<Duration>,
    /// Told what is being done, as it goes on.
    pub progress: &'a (dyn Fn(Phase) + Sync),
}

/// What a backup is busy with; before the first of them the server makes a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Bytes so far, and how many there will be by the server's estimate.
    Receiving {
        bytes: u64,
        estimate: u64,
    },
    AwaitingWal,
}

/// A backup that was made.
#[derive(Clone, Debug)]
pub struct Made {
    pub record: Record,
    /// Where it is complete.
    pub places: Vec<String>,
    /// Destinations that do not have it, and why.
    pub failures: Vec<Failure>,
    /// What is wrong with it, although it is complete: pages with wrong checksums, WAL that is missing.
    pub findings: Vec<Finding>,
}

/// What was learned of the server.
struct Server {
    system: replication::System,
    version: u32,
    segment_size: SegmentSize,
    outside: Vec<String>,
}

/// Takes a backup.
pub fn backup(request: Request<'_>) -> Result<Made> {
    let server = Server::ask(request.connection).map_err(could_not)?;
    let claimant = Claimant {
        system_id: Some(server.system.id),
        segment_size: Some(server.segment_size),
        checks: Checks::Header,
    };
    let places = Places::claim(request.destinations, &claimant)?;
    let began = SystemTime::now();
    let (asked, version) = (
        replication::Request {
            label: request.label.clone(),
            checkpoint: request.checkpoint,
            max_rate: request.max_rate,
        },
        server.version,
    );
    let (started, mut sent) = request.connection.base_backup(&asked, version).map_err(could_not)?;
    let id = BackupId::new(began, started.start, started.timeline)
        .ok_or_else(|| Failure::new(Cause::CouldNot, "the clock of this machine is wrong"))?;
    log::info!("backup {id} begins");
    let parts =
        Parts { id, system_id: server.system.id, level: request.level, jobs: request.jobs, places: &places };
    let streamed = stream::receive(&mut sent, &started, &parts, &|bytes, estimate| {
        (request.progress)(Phase::Receiving { bytes, estimate });
    })?;
    let finished = SystemTime::now();
    let record = |encryption| record(&request, &server, id, (&started, finished), &streamed, encryption);
    let (plain, sealed) = (record(Encryption::None), record(Encryption::Age));
    let body = |record: &Option<Record>| record.as_ref().map(|record| Body::from(record.write()));
    let bodies = (body(&plain), body(&sealed));
    places.create(&id, &|encryption| {
        let body = if encryption == Encryption::None { &bodies.0 } else { &bodies.1 };
        Some((id::RECORD.to_owned(), body.as_ref()?))
    })?;
    let no_parts = || Failure::new(Cause::CouldNot, "nothing of the backup was stored");
    let record = plain.or(sealed).ok_or_else(no_parts)?;
    let mut findings: Vec<Finding> = Vec::new();
    if let Some(failure) = &streamed.checksum_failure {
        findings.push(Finding::of_failure(FindingKind::Damaged, id, "server", failure));
    }
    if let Some(patience) = request.wait {
        (request.progress)(Phase::AwaitingWal);
        findings.extend(wait::for_wal(&places.left(), &record, patience));
    }
    Ok(Made { record, places: places.names(), failures: places.failures(), findings })
}

/// The record of what was stored in one form; `None` where not everything was.
fn record(
    request: &Request<'_>,
    server: &Server,
    id: BackupId,
    (started, finished): (&Started, SystemTime),
    streamed: &Streamed,
    encryption: Encryption,
) -> Option<Record> {
    let location =
        |oid: u32| started.tablespaces.iter().find(|it| it.oid == oid).map(|it| it.location.clone());
    Some(Record {
        id,
        label: request.label.clone(),
        system_id: server.system.id,
        server_version: server.version,
        segment_size: server.segment_size,
        stop: streamed.stop,
        stop_timeline: streamed.stop_timeline,
        finished,
        from_standby: streamed.from_standby,
        checksums_fine: streamed.checksum_failure.is_none(),
        outside: server.outside.clone(),
        series: streamed.series(encryption, &location)?,
        manifest: streamed.manifest.get(encryption)?.clone(),
    })
}

fn could_not(failure: Failure<replication::Cause>) -> Failure<Cause> {
    Failure { kind: Cause::CouldNot, message: failure.message, hint: failure.hint }
}

impl Server {
    fn ask(connection: &mut Connection) -> std::result::Result<Self, Failure<replication::Cause>> {
        let system = connection.identify_system()?;
        let version = connection.version()?;
        let shown = connection.show("wal_segment_size")?;
        let segment_size = segment_size(&shown).ok_or_else(|| {
            Failure::new(
                replication::Cause::Protocol,
                format!("the server says that its segments have \"{shown}\""),
            )
        })?;
        if connection.show_if_allowed("archive_mode")?.as_deref() == Some("off") {
            Failure::warn(
                "the server does not archive: archive_mode is off",
                "a backup is worth nothing without its WAL; set archive_command to wal-push",
            );
        }
        let outside = outside(connection)?;
        Ok(Server { system, version, segment_size, outside })
    }
}

/// `16MB`
fn segment_size(shown: &str) -> Option<SegmentSize> {
    let digits = shown.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match shown.get(digits.len()..)? {
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    SegmentSize::new(digits.parse::<u64>().ok()?.checked_mul(unit)?)
}

/// The configuration files that are not in the data directory, as on Debian; none where the role may
/// not know.
fn outside(connection: &mut Connection) -> std::result::Result<Vec<String>, Failure<replication::Cause>> {
    let Some(inside) = connection.show_if_allowed("data_directory")? else { return Ok(Vec::new()) };
    let mut outside = Vec::new();
    for setting in ["config_file", "hba_file", "ident_file"] {
        if let Some(path) = connection.show_if_allowed(setting)?
            && !path.is_empty()
            && !Path::new(&path).starts_with(&inside)
        {
            outside.push(path);
        }
    }
    Ok(outside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_size_is_shown_with_a_unit() {
        assert_eq!(segment_size("16MB"), SegmentSize::new(16 << 20));
        assert_eq!(segment_size("1GB"), SegmentSize::new(1 << 30));
        assert_eq!(segment_size("1MB"), SegmentSize::new(1 << 20));
        for bad in ["", "16", "MB", "3MB", "16TB"] {
            assert_eq!(segment_size(bad), None, "{bad}");
        }
    }
}
