//! One destination as an archive: whose it is, and the proof that it is one at all.
//!
//! "Not there" is an answer only where an archive was seen: an empty directory is an unmounted
//! disk until proved otherwise. `archive.json` is that proof, made create-only before the first
//! object, and by hand (`wal-archive init`).

mod encryption;
mod new;
pub(in crate::archive) mod survey;
#[cfg(test)]
mod tests;

pub use encryption::{refuse_plain, refuse_to_write};
pub use new::{Made, init};

use crate::archive::lookup;
use crate::object::{Checks, Encryption, Identity, Key};
use crate::spool::{Fresh, Spool};
use crate::storage::{Error, Kind, Range, Result, Storage, hides_what_is_missing};
use crate::wal::{SegmentSize, SystemId};
use std::io::Read;
use std::time::SystemTime;

/// Why a destination is not this cluster's archive.
#[derive(Debug)]
pub enum Refusal {
    /// It belongs to another cluster, or to one with another segment size.
    OtherCluster {
        /// A statement with both ids.
        message: String,
        hint: String,
    },
    /// It is encrypted and what comes is not, or the other way round.
    Encryption { message: String, hint: String },
    /// It has no `archive.json`, and a push makes none there.
    NoArchive(Error),
    /// It could not be asked, or is not where it was.
    Storage(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Storage(error)
    }
}

/// What the pusher knows of its cluster.
#[derive(Clone, Copy)]
pub struct Claimant {
    /// By the file or `pg_control`.
    pub system_id: Option<SystemId>,
    pub segment_size: Option<SegmentSize>,
    /// Whether the pages of its files are looked at.
    pub checks: Checks,
}

/// Reads `archive.json`; `None` where the store answered that there is none.
pub fn identity(storage: &dyn Storage) -> Result<Option<Identity>> {
    let object = match storage.get(&Key::identity(), Range::Whole) {
        Ok(object) => object,
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let read = object.body.take(Identity::MAX_LEN).read_to_end(&mut bytes);
    read.map_err(|error| Error::of_io(error, storage.place()))?;
    Identity::read(&bytes).map(Some).map_err(|reason| {
        Error::new(
            Kind::Damaged,
            format!("\"{}/{}\" cannot be understood: {reason}", storage.place(), Key::identity()),
        )
        .hint("restore the file from another destination, or use a newer version of this program")
    })
}

/// The identity as it stands there now, remembered in the spool.
pub fn identity_now(
    storage: &dyn Storage,
    spool: Option<&Spool>,
    now: SystemTime,
) -> Result<Option<Identity>> {
    let found = identity(storage)?;
    if let Some(identity) = found
        && let Some(spool) = spool
        && spool
            .fresh(&storage.address(), identity.system_id, now)
            .is_none_or(|known| known.identity != identity)
    {
        // That it is an archive says nothing about whether creating there may replace.
        remember(storage, &Fresh { identity, writable: false }, Some(spool), now);
    }
    Ok(found)
}

/// The identity for whom a wrong one costs only time: of a bucket, what the spool remembers of today;
/// of a directory always what stands there.
pub fn known_identity(
    storage: &dyn Storage,
    system_id: Option<SystemId>,
    spool: Option<&Spool>,
    now: SystemTime,
) -> Result<Option<Identity>> {
    if storage.nature().is_directory() {
        return identity(storage);
    }
    let fresh = spool.zip(system_id).and_then(|(spool, id)| spool.fresh(&storage.address(), id, now));
    if let Some(known) = fresh {
        return Ok(Some(known.identity));
    }
    identity_now(storage, spool, now)
}

/// Whose WAL a place holds that is only read; what is not known is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub system_id: Option<SystemId>,
    /// The size of its segments.
    pub segment_size: Option<SegmentSize>,
    /// How objects are stored there.
    pub encryption: Encryption,
}

/// Tells whose WAL a place holds: by its identity, else by the WAL files that stand there. A place
/// that shows no sign of being an archive is an error.
pub fn owner(storage: &dyn Storage, checks: Checks) -> Result<Owner> {
    let found = identity(storage)?;
    Ok(match found {
        Some(Identity { system_id, segment_size, encryption, .. }) => {
            Owner { system_id: Some(system_id), segment_size: Some(segment_size), encryption }
        }
        None => {
            refuse_empty(storage)?;
            let held = survey::survey(storage, checks)?;
            let encryption = Encryption::None;
            Owner { system_id: held.system_id, segment_size: held.segment_size, encryption }
        }
    })
}

/// What a destination is to the cluster whose identity it has.
const VERB: &str = "is the archive of";

/// Proves before a push that the destination is this cluster's archive. Where other tools archived
/// this cluster there, it becomes one.
pub fn claim(
    storage: &dyn Storage,
    claimant: &Claimant,
    spool: Option<&Spool>,
    now: SystemTime,
) -> std::result::Result<Identity, Refusal> {
    let id = claimant.system_id;
    let fresh = spool.zip(id).and_then(|(spool, id)| spool.fresh(&storage.address(), id, now));
    // A directory may be another one by now; a bucket stays what it was for a day.
    if let Some(known) = &fresh
        && known.writable
        && !storage.nature().is_directory()
        && compare(storage, VERB, &known.identity, claimant).is_ok()
    {
        return Ok(known.identity);
    }
    let found = match identity(storage) {
        Err(error) if hides_what_is_missing(storage, &error) => {
            return Err(Refusal::NoArchive(new::no_archive_seen(storage, error)));
        }
        other => other?,
    };
    let (mut found, is_new) = match found {
        Some(found) => (found, false),
        None => without_identity(storage, claimant, spool)?,
    };
    compare(storage, VERB, &found, claimant)?;
    let proved = fresh.is_some_and(|known| known.writable);
    if !proved {
        storage.prove_create()?;
    }
    if is_new && let new::Created::Before(theirs) = new::create(storage, found)? {
        compare(storage, VERB, &theirs, claimant)?;
        found = theirs;
    }
    if !proved {
        remember(storage, &Fresh { identity: found, writable: true }, spool, now);
    }
    Ok(found)
}

/// The identity that a place without one gets by this push, and `true`; or the one that another
/// program has made there meanwhile.
fn without_identity(
    storage: &dyn Storage,
    claimant: &Claimant,
    spool: Option<&Spool>,
) -> std::result::Result<(Identity, bool), Refusal> {
    let memory = spool.zip(claimant.system_id).and_then(|(spool, id)| spool.expects(&storage.address(), id));
    // Where it was an archive before, nothing is made of what may stand in its place.
    if memory.is_none() {
        match new::taken_over(storage, claimant) {
            Ok(Some(wanted)) => return Ok((wanted, true)),
            Err(Refusal::Storage(error)) if hides_what_is_missing(storage, &error) => {
                log::debug!("whether other tools wrote to it cannot be seen: {error}");
            }
            other => drop(other?),
        }
    }
    match identity(storage)? {
        Some(made_meanwhile) => Ok((made_meanwhile, false)),
        None if memory.is_some() => Err(Refusal::NoArchive(not_where_it_was(storage))),
        None => Err(Refusal::NoArchive(new::no_archive(storage))),
    }
}

fn remember(storage: &dyn Storage, found: &Fresh, spool: Option<&Spool>, now: SystemTime) {
    if let Some(spool) = spool
        && let Err(error) = spool.remember(&storage.address(), found, now)
    {
        log::debug!("cannot write to the spool \"{}\": {error}", spool.folder().display());
    }
}

fn not_where_it_was(storage: &dyn Storage) -> Error {
    let place = storage.place();
    Error::new(
        Kind::Unavailable,
        format!("\"{place}\" is not the archive that was there before: it has no \"archive.json\""),
    )
    .hint(format!(
        "mount its disk or correct the path; only if the archive is to start anew there: wal-archive init {place}"
    ))
}

fn other_cluster(storage: &dyn Storage, verb: &str, theirs: SystemId, ours: SystemId) -> Refusal {
    Refusal::OtherCluster {
        message: format!(
            "\"{}\" {verb} the cluster with system identifier {theirs}, this one has {ours}",
            storage.place()
        ),
        hint: "two clusters share a prefix, or this one was made anew by initdb or pg_upgrade: \
               give each cluster a prefix of its own"
            .to_owned(),
    }
}

fn compare(
    storage: &dyn Storage,
    verb: &str,
    found: &Identity,
    claimant: &Claimant,
) -> std::result::Result<(), Refusal> {
    if let Some(ours) = claimant.system_id
        && ours != found.system_id
    {
        return Err(other_cluster(storage, verb, found.system_id, ours));
    }
    if let Some(size) = claimant.segment_size
        && size != found.segment_size
    {
        return Err(Refusal::OtherCluster {
            message: format!(
                "\"{}\" {verb} a cluster with segments of {}, this one has {size}; both have system identifier {}",
                storage.place(),
                found.segment_size,
                found.system_id
            ),
            hint:
                "after pg_resetwal --wal-segsize the names of segments mean other addresses: use a new prefix"
                    .to_owned(),
        });
    }
    encryption::fits_what_is_written(storage, verb, found.encryption)
}

/// Refuses the archive of another cluster.
pub fn refuse_other(storage: &dyn Storage, found: &Identity, ours: Option<SystemId>) -> Result<()> {
    match ours {
        Some(ours) if ours != found.system_id => Err(Error::new(
            Kind::Invalid,
            format!(
                "\"{}\" is the archive of the cluster with system identifier {}, this one has {ours}",
                storage.place(),
                found.system_id
            ),
        )),
        _ => Ok(()),
    }
}

/// Refuses a place that has no identity and holds no WAL file: it shows no sign of being an archive.
pub fn refuse_empty(storage: &dyn Storage) -> Result<()> {
    if lookup::sample(storage, true, lookup::SAMPLE)?.example.is_some() {
        return Ok(());
    }
    Err(Error::new(
        Kind::NoPlace,
        format!(
            "\"{}\" is not an archive: it holds neither \"archive.json\" nor any WAL file",
            storage.place()
        ),
    )
    .hint("mount its disk or correct the path"))
}
