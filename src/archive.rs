//! One destination as an archive: whose it is, and the proof that it is one at all.
//!
//! "Not there" is an answer only where an archive was seen: an empty directory is an unmounted
//! disk until proved otherwise. `archive.json` is that proof, made create-only before the first
//! object.

use crate::lookup;
use crate::object::key::WAL_FOLDER;
use crate::object::{Checks, Encoding, Identity, Key, Stored};
use crate::spool::{Fresh, Spool};
use crate::storage::{Body, Error, Kind, Range, Result, Storage};
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
        /// The usual causes.
        hint: String,
    },
    /// It cannot be made an archive, because the pusher does not know its cluster.
    Nameless,
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
pub struct Claimant<'a> {
    /// By the file or `pg_control`.
    pub system_id: Option<SystemId>,
    /// By the file; for a file that is no segment it may be found with `neighbour_size`.
    pub segment_size: Option<SegmentSize>,
    /// Finds the segment size from the files around, asked only where it is needed.
    pub neighbour_size: &'a (dyn Fn() -> Option<SegmentSize> + Sync),
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

/// The identity for a fetch: of a bucket, what the spool remembers of today, so that a miss costs
/// one request less; of a directory always what stands there.
pub fn known_identity(
    storage: &dyn Storage,
    system_id: Option<SystemId>,
    spool: Option<&Spool>,
    now: SystemTime,
) -> Result<Option<Identity>> {
    if storage.can_vanish() {
        return identity(storage);
    }
    let fresh = spool.zip(system_id).and_then(|(spool, id)| spool.fresh(&storage.address(), id, now));
    if let Some(known) = fresh {
        return Ok(Some(known.identity));
    }
    let found = identity(storage)?;
    if let Some(identity) = found {
        // That it is an archive says nothing about whether creating there may replace.
        remember(storage, &Fresh { identity, writable: false }, spool, now);
    }
    Ok(found)
}

/// Whose WAL a place holds that is only read; what is not known is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub system_id: Option<SystemId>,
    /// The size of its segments.
    pub segment_size: Option<SegmentSize>,
}

/// Tells whose WAL a place holds: by its identity, else by the WAL files that stand there. A place
/// that shows no sign of being an archive is an error.
pub fn owner(storage: &dyn Storage, checks: Checks) -> Result<Owner> {
    let found = identity(storage)?;
    prove(storage, found.as_ref(), None)?;
    Ok(match found {
        Some(found) => Owner { system_id: Some(found.system_id), segment_size: Some(found.segment_size) },
        None => {
            let held = survey(storage, checks)?;
            Owner { system_id: held.system_id, segment_size: held.segment_size }
        }
    })
}

/// What a destination is to the cluster whose identity it has.
const VERB: &str = "is the archive of";

/// Proves before a push that the destination is this cluster's archive, making it one where it
/// has no identity and never had.
pub fn claim(
    storage: &dyn Storage,
    claimant: &Claimant<'_>,
    spool: Option<&Spool>,
    now: SystemTime,
) -> std::result::Result<Identity, Refusal> {
    let id = claimant.system_id;
    let fresh = spool.zip(id).and_then(|(spool, id)| spool.fresh(&storage.address(), id, now));
    // A directory may be another one by now; a bucket stays what it was for a day.
    if let Some(known) = &fresh
        && known.writable
        && !storage.can_vanish()
        && compare(storage, VERB, &known.identity, claimant).is_ok()
    {
        return Ok(known.identity);
    }
    let expected = || spool.zip(id).and_then(|(spool, id)| spool.expects(&storage.address(), id));
    let found = match identity(storage) {
        // Without the right to list, S3 answers so for what is not there, too; whether it is
        // there shows when it is created.
        Err(error) if error.kind() == Kind::Denied && !storage.can_vanish() && expected().is_none() => None,
        other => other?,
    };
    if found.is_none()
        && let Some(memory) = expected()
    {
        return Err(not_where_it_was(storage, &memory).into());
    }
    if let Some(found) = &found {
        compare(storage, VERB, found, claimant)?;
    }
    let proved = fresh.is_some_and(|known| known.writable);
    if !proved {
        storage.prove_create()?;
    }
    let found = match found {
        Some(found) => found,
        None => make(storage, claimant)?,
    };
    compare(storage, VERB, &found, claimant)?;
    if !proved {
        remember(storage, &Fresh { identity: found, writable: true }, spool, now);
        // Once a day is often enough to look for what a kill left behind.
        if let Err(error) = storage.sweep(now) {
            log::debug!("{error}");
        }
    }
    Ok(found)
}

fn remember(storage: &dyn Storage, found: &Fresh, spool: Option<&Spool>, now: SystemTime) {
    if let Some(spool) = spool
        && let Err(error) = spool.remember(&storage.address(), found, now)
    {
        log::debug!("cannot write to the spool \"{}\": {error}", spool.folder().display());
    }
}

fn not_where_it_was(storage: &dyn Storage, memory: &std::path::Path) -> Error {
    Error::new(
        Kind::Unavailable,
        format!(
            "\"{}\" is not the archive that was there before: it has no \"archive.json\"",
            storage.place()
        ),
    )
    .hint(format!(
        "mount its disk or correct the path; if the archive is meant to start anew there, remove \"{}\"",
        memory.display()
    ))
}

/// Creates the identity; where another push was faster, its identity counts.
fn make(storage: &dyn Storage, claimant: &Claimant<'_>) -> std::result::Result<Identity, Refusal> {
    let held = match survey(storage, claimant.checks) {
        Err(error) if error.kind() == Kind::Denied && !storage.can_vanish() => {
            log::debug!("whether other tools wrote to it cannot be seen: {error}");
            Holds::default()
        }
        other => other?,
    };
    let size = held.segment_size.or(claimant.segment_size).or_else(claimant.neighbour_size);
    let wanted = Identity {
        system_id: held.system_id.or(claimant.system_id).ok_or(Refusal::Nameless)?,
        segment_size: size.ok_or(Refusal::Nameless)?,
        foreign: held.foreign,
    };
    compare(storage, "holds WAL of", &wanted, claimant)?;
    match storage.create(&Key::identity(), &Body::from(wanted.write())) {
        Ok(()) => Ok(wanted),
        Err(error) if error.kind() == Kind::AlreadyExists => identity(storage)?.ok_or_else(|| {
            Error::new(
                Kind::Unavailable,
                format!("\"archive.json\" of \"{}\" comes and goes", storage.place()),
            )
            .into()
        }),
        Err(error) => Err(error.into()),
    }
}

/// What stands in an archive without an identity, as far as anything told.
#[derive(Default)]
struct Holds {
    system_id: Option<SystemId>,
    segment_size: Option<SegmentSize>,
    /// Whether other tools wrote to it.
    foreign: bool,
}

/// How many objects are read to learn whose they are: some may be damaged.
const SAMPLE: usize = 16;

/// Reads the first segments that stand there until one tells whose they are.
fn survey(storage: &dyn Storage, checks: Checks) -> Result<Holds> {
    let (mut pages, mut texts) = (Vec::new(), Vec::new());
    let (mut anything, mut holds) = (None, Holds::default());
    for folder in [WAL_FOLDER, ""] {
        for entry in storage.list(folder, "")? {
            let key = entry?.key;
            let stored = Stored::parse(key.strip_prefix(folder).unwrap_or(&key));
            if stored.name().is_none() {
                continue;
            }
            anything.get_or_insert_with(|| key.clone());
            // This program puts nothing else there, and nothing elsewhere.
            let may_be_ours = matches!(stored, Stored::Wal(_, Encoding::Zstd) | Stored::Variant(..));
            holds.foreign |= !may_be_ours || folder != WAL_FOLDER;
            if let (Stored::Wal(name, encoding), Some(key)) = (stored, Key::parse(&key)) {
                let sample = if name.is_pages() { &mut pages } else { &mut texts };
                if sample.len() < SAMPLE {
                    sample.push((key, name, encoding));
                }
            }
        }
    }
    let Some(anything) = anything else { return Ok(holds) };
    let mut intact = false;
    for (key, name, encoding) in pages.into_iter().chain(texts) {
        let found = match lookup::read(storage, &key, encoding, name, checks, &mut std::io::sink()) {
            Ok(Ok(found)) => found,
            Ok(Err(reason)) => {
                log::debug!("\"{}/{key}\": {reason}", storage.place());
                continue;
            }
            Err(error) if error.kind() == Kind::NotFound => continue,
            Err(error) => return Err(error),
        };
        intact = true;
        holds.foreign |= found.trailer.is_none();
        holds.system_id = found.system_id();
        if holds.system_id.is_some() {
            holds.segment_size = name.is_pages().then(|| SegmentSize::new(found.size)).flatten();
            break;
        }
    }
    if intact { Ok(holds) } else { Err(unreadable(storage, &anything)) }
}

fn unreadable(storage: &dyn Storage, key: &str) -> Error {
    Error::new(
        Kind::Invalid,
        format!(
            "\"{}\" holds WAL files, \"{key}\" the first of them, but none that was tried can be read: they are encrypted, \
             damaged or in an unknown encoding",
            storage.place()
        ),
    )
    .hint("archive to an empty prefix of its own")
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
    claimant: &Claimant<'_>,
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
    Ok(())
}

/// Proves after a miss that the destination is an archive, and of this cluster where its id is
/// known: by its [`known_identity`], or at least one WAL file.
pub fn prove(storage: &dyn Storage, found: Option<&Identity>, system_id: Option<SystemId>) -> Result<()> {
    if let Some(found) = found {
        return match system_id {
            Some(ours) if ours != found.system_id => Err(Error::new(
                Kind::Invalid,
                format!(
                    "\"{}\" is the archive of the cluster with system identifier {}, this one has {ours}",
                    storage.place(),
                    found.system_id
                ),
            )
            .hint("name the archive of this cluster in restore_command")),
            _ => Ok(()),
        };
    }
    for folder in [WAL_FOLDER, ""] {
        for entry in storage.list(folder, "")? {
            let key = entry?.key;
            if Stored::parse(key.strip_prefix(folder).unwrap_or(&key)).name().is_some() {
                return Ok(());
            }
        }
    }
    Err(Error::new(
        Kind::Unavailable,
        format!(
            "\"{}\" is not an archive: it holds neither \"archive.json\" nor any WAL file",
            storage.place()
        ),
    )
    .hint("mount its disk or correct the path; wal-fetch --allow-empty accepts an empty archive"))
}
