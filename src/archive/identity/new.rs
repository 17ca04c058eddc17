//! How a place becomes an archive: by `wal-archive init`, or by the first push where other tools
//! already archived this very cluster.
//!
//! Nothing else makes `archive.json`. A place without one may be the mount point of a disk that is
//! not mounted, a typing error, or another root swapped in.

use super::survey::{Holds, survey};
use super::{Claimant, Refusal, compare, encryption, identity};
use crate::failure::Failure;
use crate::object::{Checks, Encryption, Identity, Key};
use crate::storage::{Body, Error, Kind, Storage, hides_what_is_missing};
use crate::wal::{SegmentSize, SystemId};

/// What [`init`] found or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    New,
    /// An archive of what other tools stored there.
    TakenOver,
    /// The archive was there before.
    There,
}

/// Makes the place an archive of this cluster, unless it is one.
pub fn init(
    storage: &dyn Storage,
    system_id: SystemId,
    segment_size: SegmentSize,
    checks: Checks,
) -> Result<Made, Refusal> {
    let claimant = Claimant { system_id: Some(system_id), segment_size: Some(segment_size), checks };
    match identity(storage) {
        Ok(Some(found)) => return compare(storage, super::VERB, &found, &claimant).map(|()| Made::There),
        Ok(None) => {}
        // Whether it is there shows when it is created.
        Err(error) if hides_what_is_missing(storage, &error) => {}
        Err(error) => return Err(error.into()),
    }
    let held = match survey(storage, checks) {
        Err(error) if hides_what_is_missing(storage, &error) => {
            Failure::warn(
                format!("whether other tools store WAL in \"{}\" cannot be seen: {error}", storage.place()),
                "if they do, allow s3:ListBucket to wal-archive init",
            );
            Holds::default()
        }
        other => other?,
    };
    let encryption = storage.keys().writes();
    encryption::fits_what_is_held(storage, encryption, &held)?;
    let foreign = encryption == Encryption::None && (held.foreign || held.more);
    let wanted = Identity { system_id, segment_size, foreign, encryption };
    compare(storage, super::VERB, &wanted, &claimant)?;
    if let Some(example) = &held.example {
        of_this_cluster(storage, &held, example, &claimant)?;
    }
    storage.prove_create()?;
    match create(storage, wanted)? {
        Created::Now if held.foreign => Ok(Made::TakenOver),
        Created::Now => Ok(Made::New),
        Created::Before(found) => compare(storage, super::VERB, &found, &claimant).map(|()| Made::There),
    }
}

fn of_this_cluster(
    storage: &dyn Storage,
    held: &Holds,
    example: &str,
    claimant: &Claimant,
) -> Result<(), Refusal> {
    match (held.system_id, held.segment_size.or(claimant.segment_size), claimant.checks) {
        (Some(system_id), Some(segment_size), _) => {
            let (foreign, encryption) = (held.foreign, storage.keys().writes());
            let held = Identity { system_id, segment_size, foreign, encryption };
            compare(storage, "holds WAL of", &held, claimant)
        }
        (_, _, Checks::NoHeader) => {
            log::warn!("whose WAL files \"{}\" already holds was not checked", storage.place());
            Ok(())
        }
        _ => Err(nobodys(storage, example).into()),
    }
}

/// What the first push makes of a place where other tools archived this cluster: `None` where it
/// is no such place.
pub(super) fn taken_over(storage: &dyn Storage, claimant: &Claimant) -> Result<Option<Identity>, Refusal> {
    let held = survey(storage, claimant.checks)?;
    let size = held.segment_size.or(claimant.segment_size);
    let (Some(system_id), Some(segment_size)) = (held.system_id, size) else { return Ok(None) };
    let wanted = Identity { system_id, segment_size, foreign: true, encryption: Encryption::None };
    compare(storage, "holds WAL of", &wanted, claimant)?;
    Ok((held.foreign && claimant.system_id == Some(system_id)).then_some(wanted))
}

/// Which `archive.json` is there now.
pub(super) enum Created {
    Now,
    Before(Identity),
}

/// Creates `archive.json`; where another program was faster, its identity counts.
pub(super) fn create(storage: &dyn Storage, wanted: Identity) -> Result<Created, Refusal> {
    match storage.create(&Key::identity(), &Body::from(wanted.write())) {
        Ok(()) => Ok(Created::Now),
        Err(error) if error.kind() == Kind::AlreadyExists => match identity(storage)? {
            Some(found) => Ok(Created::Before(found)),
            None => Err(Error::new(
                Kind::Unavailable,
                format!("\"archive.json\" of \"{}\" comes and goes", storage.place()),
            )
            .into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// There is no `archive.json`, and a push makes none.
pub(super) fn no_archive(storage: &dyn Storage) -> Error {
    let place = storage.place();
    Error::new(Kind::Unavailable, format!("\"{place}\" is not an archive: it has no \"archive.json\""))
        .hint(format!("mount its disk or correct the path; for a new archive run: wal-archive init {place}"))
}

/// Whether there is an `archive.json` was not told.
pub(super) fn no_archive_seen(storage: &dyn Storage, error: Error) -> Error {
    let place = storage.place();
    Error::new(
        Kind::Denied,
        format!("\"{place}\" is not an archive, or its \"archive.json\" may not be read"),
    )
    .caused_by(error)
    .hint(format!(
        "allow s3:GetObject, or correct the prefix; for a new archive run: wal-archive init {place}"
    ))
}

fn nobodys(storage: &dyn Storage, key: &str) -> Error {
    Error::new(
        Kind::Invalid,
        format!(
            "\"{}\" holds WAL files, such as \"{key}\", but none tells which cluster it is of",
            storage.place()
        ),
    )
    .hint("archive to an empty prefix of its own")
}
