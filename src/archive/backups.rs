//! The base backups at a destination: which are complete, what is left of others, and their parts, read
//! and proved.
//!
//! Does not know: which backup anybody needs, or where the WAL leads from it.

use crate::archive::identity;
use crate::archive::inventory::{Gap, Inventory, Unreadable};
use crate::archive::lookup;
use crate::archive::object::stored_bytes;
use crate::base_backup::part::{self, Proof};
use crate::base_backup::{BackupId, Record, Stored, id};
use crate::object::age::Content;
use crate::object::{DecodeError, Encryption, Identity, Key, Sha256Sum};
use crate::storage::{Entry, Error, Kind, Range, Result, Storage};
use crate::wal::{Branch, Lsn, Timeline, WalName};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::SystemTime;

/// A backup, or what was begun of one.
#[derive(Clone, Debug)]
pub struct Held {
    pub id: BackupId,
    pub state: State,
    /// All that is in its folder.
    pub objects: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// By its record, of which every object is there with its size.
    Complete(Box<Record>),
    /// It is not what its record says. The reason.
    Damaged(Box<Record>, String),
    /// It has a record that cannot be understood. The reason.
    Unreadable(String),
    /// It has no record: it was given up, or is just being made.
    Incomplete,
}

impl Held {
    pub fn record(&self) -> Option<&Record> {
        match &self.state {
            State::Complete(record) => Some(record),
            State::Damaged(..) | State::Unreadable(_) | State::Incomplete => None,
        }
    }

    /// Its record, where that can be understood.
    pub fn known(&self) -> Option<&Record> {
        match &self.state {
            State::Complete(record) | State::Damaged(record, _) => Some(record),
            State::Unreadable(_) | State::Incomplete => None,
        }
    }

    /// Bytes as stored.
    pub fn stored(&self) -> u64 {
        self.objects.iter().map(|object| object.size).sum()
    }

    /// When its newest object was stored.
    pub fn newest(&self) -> Option<SystemTime> {
        self.objects.iter().map(|object| object.modified).max()
    }

    /// The keys of all of its objects, the record first: what is deleted in this order is never taken
    /// for complete.
    pub fn keys(&self) -> Vec<Key> {
        let record = self.id.key(id::RECORD);
        let others = self.objects.iter().filter_map(|object| Key::parse(&object.key));
        record.clone().into_iter().chain(others.filter(|key| Some(key) != record.as_ref())).collect()
    }
}

/// All backups of a destination, in the order in which they were begun.
pub fn all(storage: &dyn Storage) -> Result<Vec<Held>> {
    // Other folders are strangers.
    let mut ids: Vec<BackupId> =
        storage.folders(id::FOLDER)?.iter().filter_map(|name| name.parse().ok()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    ids.sort();
    let identity = identity::identity(storage)?;
    let held = ids.into_iter().filter_map(|id| held(storage, identity.as_ref(), id).transpose());
    held.collect()
}

/// One of them; `None` where nothing is in its folder.
fn held(storage: &dyn Storage, identity: Option<&Identity>, id: BackupId) -> Result<Option<Held>> {
    let objects = storage.list(&id.folder(), "")?.collect::<Result<Vec<Entry>>>()?;
    if objects.is_empty() {
        return Ok(None);
    }
    let state = match record(storage, id)? {
        None => State::Incomplete,
        Some(Err(reason)) => State::Unreadable(reason),
        // Anybody who can write there may put a backup of his own in the clear.
        Some(Ok(record)) if encryption(identity) != record.encryption() => {
            State::Unreadable(match encryption(identity) {
                Encryption::Age => "it is in the clear, and the archive is encrypted".to_owned(),
                Encryption::None => "it is encrypted, and the archive is not".to_owned(),
            })
        }
        Some(Ok(record)) if identity.is_some_and(|identity| identity.system_id != record.system_id) => {
            State::Unreadable(format!("its record is of the cluster {}", record.system_id))
        }
        Some(Ok(record)) => match absent(&record, &objects) {
            None => State::Complete(Box::new(record)),
            Some(reason) => State::Damaged(Box::new(record), reason),
        },
    };
    Ok(Some(Held { id, state, objects }))
}

fn encryption(identity: Option<&Identity>) -> Encryption {
    identity.map_or(Encryption::None, |identity| identity.encryption)
}

/// The record of a backup of which every object is at one of these destinations at least, as far as
/// listings show.
pub fn whole_together<'h>(copies: impl Iterator<Item = &'h Held>) -> Option<&'h Record> {
    let known: Vec<(&Record, Vec<bool>)> = copies
        .filter_map(|held| {
            let record = held.known()?;
            let sizes = sizes(record.id, &held.objects);
            let there = |object: &Stored| sizes.get(object.file.as_str()) == Some(&object.stored);
            Some((record, record.objects().map(there).collect()))
        })
        .collect();
    let (record, first) = known.first()?;
    let somewhere = |at: usize| known.iter().any(|(_, there)| there.get(at) == Some(&true));
    (0..first.len()).all(somewhere).then_some(*record)
}

fn sizes(id: BackupId, objects: &[Entry]) -> BTreeMap<&str, u64> {
    let folder = id.folder();
    objects.iter().filter_map(|entry| Some((entry.key.strip_prefix(&folder)?, entry.size))).collect()
}

/// What is not as the record says, as far as a listing shows.
fn absent(record: &Record, objects: &[Entry]) -> Option<String> {
    let folder = record.id.folder();
    let sizes = sizes(record.id, objects);
    record.objects().find_map(|object| match sizes.get(object.file.as_str()) {
        None => Some(format!("\"{folder}{}\" is missing", object.file)),
        Some(size) if *size != object.stored => {
            Some(format!("\"{folder}{}\" has {size} bytes, and {} by the record", object.file, object.stored))
        }
        Some(_) => None,
    })
}

/// A backup's record; the inner error says why it cannot be understood.
pub fn record(storage: &dyn Storage, id: BackupId) -> Result<Option<std::result::Result<Record, String>>> {
    let Some(key) = id.key(id::RECORD) else { return Ok(None) };
    let object = match storage.get(&key, Range::Whole) {
        Ok(object) => object,
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let read = object.body.take(Record::MAX_LEN).read_to_end(&mut bytes);
    read.map_err(|error| Error::of_io(error, storage.place()))?;
    Ok(Some(Record::read(id, &bytes).map_err(|reason| format!("\"{key}\" cannot be understood: {reason}"))))
}

/// Why a part could not be had.
#[derive(Debug)]
pub enum FetchError {
    Storage(Error),
    /// It is not there, or not what was stored. The reason.
    Damaged(String),
    /// It is what was stored, and no identity here decrypts it. A sentence.
    Shut(String),
    Output(std::io::Error),
}

/// Reads one object of a backup, proves it and writes what it holds.
pub fn fetch(
    storage: &dyn Storage,
    (record, object): (&Record, &Stored),
    proof: Proof,
    output: &mut dyn Write,
) -> std::result::Result<(), FetchError> {
    let damaged = |reason: String| {
        FetchError::Damaged(format!("\"{}/{}{}\" {reason}", storage.place(), record.id.folder(), object.file))
    };
    let Some(key) = record.id.key(&object.file) else { return Err(damaged("is no key".to_owned())) };
    let stored = stored_bytes(storage, &key).map_err(FetchError::Storage)?;
    let Some((_, body)) = stored else { return Err(damaged("is missing".to_owned())) };
    let sum = Sha256Sum::of_reader(&mut body.reader())
        .map_err(|error| FetchError::Storage(Error::of_io(error, storage.place())))?;
    if sum != object.sha256 {
        return Err(damaged("is not what was stored: its sha256 is not that of the record".to_owned()));
    }
    let of = (&record.id, object.file.as_str());
    let (cluster, keys) = ((record.system_id, object.size), (&storage.keys().identities, proof));
    match part::decode(of, cluster, keys, &mut body.reader(), output) {
        Ok(Content::Open((), _)) => Ok(()),
        Ok(Content::Shut(seal)) => Err(FetchError::Shut(format!(
            "\"{}/{key}\" cannot be decrypted: no identity here fits; written for {}",
            storage.place(),
            seal.written_for()
        ))),
        Err(DecodeError::Damaged(reason)) => Err(damaged(format!("is damaged: {reason}"))),
        Err(DecodeError::Read(error)) => Err(FetchError::Storage(Error::of_io(error, storage.place()))),
        Err(DecodeError::Write(error)) => Err(FetchError::Output(error)),
    }
}

/// Whether the last segment that a backup needs has arrived, in any encoding.
pub fn has_stop_segment(storage: &dyn Storage, record: &Record) -> Result<bool> {
    let name = WalName::Segment(record.stop_segment());
    Ok(!lookup::copies(storage, name, storage.nature().is_directory())?.keys.is_empty())
}

/// What a backup needs to become consistent and is not there. `Err` where nobody can tell, as the history
/// of its timeline cannot be read.
pub fn missing_wal(inventory: &Inventory, record: &Record) -> std::result::Result<Vec<Gap>, Unreadable> {
    let branch = match inventory.branch(record.stop_timeline) {
        Ok(branch) => branch,
        // As where only an identity shows it, which the server does not have. What a primary wrote during a
        // backup is of its own timeline, wherever that began.
        Err(_) if record.id.timeline == record.stop_timeline => Branch::without_history(record.stop_timeline),
        Err(unreadable) => return Err(unreadable.clone()),
    };
    let (first, last) = record.segments();
    let mut missing = inventory.missing(&branch, first, last);
    // Once a child has begun in one of its segments, that may be there under the child's name only.
    for timeline in inventory.timelines.keys().filter(|timeline| **timeline > record.stop_timeline) {
        let Ok(child) = inventory.branch(*timeline) else { continue };
        if !missing.is_empty() && passes(&child, record) {
            let along = inventory.missing(&child, first, last);
            if along.len() < missing.len() {
                missing = along;
            }
        }
    }
    Ok(missing)
}

/// Whether a backup becomes consistent along a branch.
pub fn passes(branch: &Branch, record: &Record) -> bool {
    let end = Lsn(record.stop.0.saturating_sub(1));
    branch.passes(record.id.timeline, record.id.start) && branch.passes(record.stop_timeline, end)
}

/// The newest timeline that has WAL, where none of these backups leads to it: as after a recovery to a time
/// before the last backup, until the next one is taken. Of a timeline whose history cannot be read nobody knows.
pub fn newest_without_backup<'r>(
    inventory: &Inventory,
    backups: impl IntoIterator<Item = &'r Record>,
) -> Option<Timeline> {
    let newest = inventory.timelines.iter().rev().find(|(_, files)| !files.segments.is_empty());
    let timeline = *newest?.0;
    let branch = inventory.branch(timeline).ok()?;
    // A backup of a timeline of which no segment has arrived yet goes further.
    let leads = backups.into_iter().any(|record| passes(&branch, record) || record.stop_timeline > timeline);
    (!leads).then_some(timeline)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base_backup::Series;
    use crate::object::Encoder;
    use crate::storage::Body;
    use crate::storage::memory::Memory;
    use crate::wal::{SegmentSize, SystemId};

    const SYSTEM: SystemId = SystemId(7);

    fn stored(storage: &Memory, id: BackupId, stem: &str, content: &[u8]) -> Stored {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(1).unwrap();
        let file = part::file(stem, Encryption::None);
        part::encode(&mut encoder, (&id, stem), content.len() as u64, SYSTEM, &mut &content[..], &mut bytes)
            .unwrap();
        let (len, sha256) = (bytes.len() as u64, Sha256Sum::of(&bytes));
        storage.create(&id.key(&file).unwrap(), &Body::from(bytes)).unwrap();
        Stored { file, size: content.len() as u64, stored: len, sha256 }
    }

    fn backup(storage: &Memory, name: &str) -> Record {
        let id: BackupId = name.parse().unwrap();
        let part = stored(storage, id, "base-00001.tar", b"tar");
        Record {
            id,
            label: String::new(),
            system_id: SYSTEM,
            server_version: 150_000,
            segment_size: SegmentSize::MIN,
            stop: Lsn(id.start.0 + 1),
            stop_timeline: Timeline::FIRST,
            finished: id.started(),
            from_standby: false,
            checksums_fine: true,
            outside: Vec::new(),
            series: vec![Series { tablespace: None, parts: vec![part] }],
            manifest: stored(storage, id, "manifest", b"manifest"),
        }
    }

    fn complete(storage: &Memory, record: &Record) {
        storage.create(&record.id.key(id::RECORD).unwrap(), &Body::from(record.write())).unwrap();
    }

    const ONE: &str = "20261121T130405Z-000000002E000028-1";
    const TWO: &str = "20261122T130405Z-000000003E000028-1";

    #[test]
    fn a_backup_is_complete_once_its_record_is_there_and_every_object_with_it() {
        let storage = Memory::default();
        let (one, two) = (backup(&storage, ONE), backup(&storage, TWO));
        complete(&storage, &one);
        storage.create(&Key::parse("backups/other/x").unwrap(), &Body::from(vec![1])).unwrap();
        let found = all(&storage).unwrap();
        assert_eq!(found.iter().map(|held| held.id).collect::<Vec<_>>(), [one.id, two.id]);
        assert_eq!((found[0].record(), &found[1].state), (Some(&one), &State::Incomplete));
        assert_eq!(found[0].keys()[0].as_str(), format!("backups/{ONE}/backup.json"));
        assert_eq!(found[0].keys().len(), 3);
        storage.delete(&one.id.key("manifest.zst").unwrap()).unwrap();
        let held = held(&storage, None, one.id).unwrap().unwrap();
        assert!(
            matches!(held.state, State::Damaged(_, reason) if reason.contains("manifest.zst\" is missing"))
        );
    }

    #[test]
    fn a_part_that_was_exchanged_is_damage() {
        let storage = Memory::default();
        let (one, two) = (backup(&storage, ONE), backup(&storage, TWO));
        let part = &one.series[0].parts[0];
        let fetched = |part: &Stored| {
            let all = [Proof::Content, Proof::Stored].map(|proof| {
                let mut content = Vec::new();
                fetch(&storage, (&one, part), proof, &mut content).map(|()| content)
            });
            assert!(all.iter().all(|one| one.is_ok() == all[0].is_ok()), "{all:?}");
            all.into_iter().next().unwrap()
        };
        assert_eq!(fetched(part).unwrap(), b"tar");
        let key = one.id.key(&part.file).unwrap();
        let theirs = stored_bytes(&storage, &two.id.key(&part.file).unwrap()).unwrap().unwrap().1;
        storage.delete(&key).unwrap();
        assert!(matches!(fetched(part), Err(FetchError::Damaged(_))));
        storage.create(&key, &theirs).unwrap();
        assert!(matches!(fetched(part), Err(FetchError::Damaged(_))));
        // Even where the record were exchanged, too.
        let two_part = &two.series[0].parts[0];
        assert!(matches!(fetched(two_part), Err(FetchError::Damaged(_))));
    }
}
