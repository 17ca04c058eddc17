//! `rehearsals/TIME.json`: what `wal-archive rehearse` recovered from the archive, and what it found.
//!
//! Evidence for people, and the age of the last one for `list` and `check`. Nothing else is decided by
//! it. It is plain in an encrypted archive, too, so it holds no data of the database.

use crate::failure::exact_time;
use crate::finding::Finding;
use crate::object::key::REHEARSALS_FOLDER;
use crate::object::{Key, versioned};
use crate::storage::{Body, Error, Kind, Range, Result, Storage, hides_what_is_missing};
use serde::{Deserialize, Serialize, Serializer};
use std::io::Read;
use std::time::{Duration, SystemTime};

const VERSION: u32 = 1;

/// A record with a finding for each of a thousand tables is shorter.
const MAX_LEN: u64 = 1 << 20;

/// So many findings are kept in it.
pub const FINDINGS_KEPT: usize = 100;

/// Seconds that are tried until one is free.
const ATTEMPTS: u64 = 10;

/// What a rehearsal came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Sound,
    Findings,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Sound => "sound",
            Verdict::Findings => "findings",
        }
    }
}

/// What a rehearsal found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// There is nothing to restore, or the archived WAL does not lead to the target.
    Refused,
    /// The files are not what the backup's manifest says.
    Manifest,
    /// wal-fetch could not give what recovery asked for.
    RestoreCommand,
    /// PostgreSQL gave up.
    Recovery,
    /// It recovered something else than the archived WAL holds.
    Differs,
    /// `pg_amcheck`
    Amcheck,
    /// A statement of the user's.
    Sql,
    /// `pg_checksums`
    Checksums,
}

impl Flaw {
    pub fn word(self) -> &'static str {
        match self {
            Flaw::Refused => "refused",
            Flaw::Manifest => "manifest",
            Flaw::RestoreCommand => "restore-command",
            Flaw::Recovery => "recovery",
            Flaw::Differs => "differs",
            Flaw::Amcheck => "amcheck",
            Flaw::Sql => "sql",
            Flaw::Checksums => "checksums",
        }
    }
}

impl Serialize for Flaw {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// How long it took, in seconds; `None`: it did not come to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    pub restore_seconds: Option<f64>,
    pub replay_seconds: Option<f64>,
    pub ready_seconds: Option<f64>,
}

/// The record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// When it began.
    #[serde(with = "text")]
    pub rehearsed: SystemTime,
    pub verdict: Verdict,
    /// The base backup; `None` where a command brought another tool's.
    pub backup: Option<String>,
    /// As PostgreSQL writes it; `None`: to the end of the archived WAL.
    pub target: Option<String>,
    pub timeline: Option<u32>,
    pub end_lsn: Option<String>,
    #[serde(with = "text_or_null")]
    pub last_commit: Option<SystemTime>,
    pub data_lost_seconds: Option<f64>,
    pub phases: Phases,
    pub replayed_bytes: Option<u64>,
    pub server_major: Option<u32>,
    /// What was checked beside the recovery itself.
    pub checked: Vec<String>,
    #[serde(skip_deserializing)]
    pub findings: Vec<Finding<Flaw>>,
}

mod text {
    use super::exact_time;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use std::time::SystemTime;

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        exact_time(*time).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        humantime::parse_rfc3339(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

mod text_or_null {
    use super::exact_time;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use std::time::SystemTime;

    pub(super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.and_then(exact_time).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SystemTime>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| humantime::parse_rfc3339(&text).map_err(D::Error::custom)).transpose()
    }
}

#[derive(Serialize, Deserialize)]
struct Versioned<R> {
    #[serde(rename = "wal-archive")]
    version: u32,
    #[serde(flatten)]
    rehearsal: R,
}

impl Rehearsal {
    /// One line of JSON.
    fn write(&self) -> Vec<u8> {
        let mut kept = self.clone();
        kept.findings.truncate(FINDINGS_KEPT);
        versioned::write(&Versioned { version: VERSION, rehearsal: &kept })
    }

    /// Reads a record. The error says what is wrong.
    fn read(bytes: &[u8]) -> std::result::Result<Self, String> {
        versioned::read(bytes, VERSION).map(|read: Versioned<Self>| read.rehearsal)
    }
}

/// Creates the record; its key.
pub fn create(storage: &dyn Storage, rehearsal: &Rehearsal) -> Result<Key> {
    let body = Body::from(rehearsal.write());
    for later in 0..ATTEMPTS {
        let key = rehearsal.rehearsed.checked_add(Duration::from_secs(later)).and_then(Key::rehearsal);
        let key = key.ok_or_else(|| Error::new(Kind::Invalid, "the clock of this machine is before 1970"))?;
        match storage.create(&key, &body) {
            Err(error) if error.kind() == Kind::AlreadyExists => {}
            other => return other.map(|()| key),
        }
    }
    let what = format!("\"{}\" takes no record of the rehearsal", storage.place());
    Err(Error::new(Kind::Unavailable, what))
}

/// The newest record at a destination that can be understood; `None` also where a policy hides them.
pub fn newest(storage: &dyn Storage) -> Result<Option<Rehearsal>> {
    Ok(latest(storage, 1)?.0.pop())
}

/// So many, newest first, and how many older ones there are.
pub fn latest(storage: &dyn Storage, count: usize) -> Result<(Vec<Rehearsal>, usize)> {
    let keys = storage.list(REHEARSALS_FOLDER, "").and_then(|entries| {
        let keys = entries.map(|entry| Ok(Key::parse(&entry?.key)));
        Ok(keys.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect::<Vec<Key>>())
    });
    let keys = match keys {
        Err(error) if hides_what_is_missing(storage, &error) => {
            log::debug!("whether there were rehearsals cannot be seen: {error}");
            return Ok((Vec::new(), 0));
        }
        keys => keys?,
    };
    let mut found = Vec::new();
    let mut keys = keys.iter().rev().filter(|key| key.as_str().ends_with(".json"));
    while found.len() < count
        && let Some(key) = keys.next()
    {
        let object = match storage.get(key, Range::First(MAX_LEN)) {
            Err(error) if error.kind() == Kind::NotFound => continue,
            object => object?,
        };
        let (mut bytes, place) = (Vec::new(), storage.place());
        let read = object.body.take(MAX_LEN).read_to_end(&mut bytes);
        read.map_err(|error| Error::of_io(error, place))?;
        match Rehearsal::read(&bytes) {
            Ok(rehearsal) => found.push(rehearsal),
            Err(reason) => log::warn!("\"{place}/{key}\" is no record of a rehearsal: {reason}"),
        }
    }
    Ok((found, keys.count()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::storage::memory::Memory;

    pub(crate) fn rehearsal(verdict: Verdict) -> Rehearsal {
        let time = |text: &str| humantime::parse_rfc3339(text).unwrap();
        Rehearsal {
            rehearsed: time("2026-11-21T13:04:05.25Z"),
            verdict,
            backup: Some("20261121T020405Z-000000002E000028-1".to_owned()),
            target: None,
            timeline: Some(1),
            end_lsn: Some("0/5A000000".to_owned()),
            last_commit: Some(time("2026-11-21T13:03:05.5Z")),
            data_lost_seconds: Some(59.75),
            phases: Phases { restore_seconds: Some(1.5), replay_seconds: Some(2.0), ready_seconds: None },
            replayed_bytes: Some(1 << 20),
            server_major: Some(15),
            checked: vec!["pg_verifybackup".to_owned()],
            findings: Vec::new(),
        }
    }

    #[test]
    fn a_record_is_one_line_of_json_and_reads_back() {
        let mut record = rehearsal(Verdict::Findings);
        record.findings.push(Finding::new(Flaw::Sql, "checks.sql", "server", "statement 1 did not hold"));
        let text = String::from_utf8(record.write()).unwrap();
        assert!(text.starts_with(
            "{\"wal-archive\":1,\"rehearsed\":\"2026-11-21T13:04:05.250000Z\",\"verdict\":\"findings\",\"backup\":\"2026"
        ));
        assert!(text.ends_with("\n") && text.matches('\n').count() == 1);
        assert!(text.contains("\"kind\":\"sql\",\"place\":\"server\",\"name\":\"checks.sql\""));
        let read = Rehearsal::read(text.as_bytes()).unwrap();
        assert_eq!(read, Rehearsal { findings: Vec::new(), ..record });
        assert!(Rehearsal::read(text.replace("-archive\":1", "-archive\":2").as_bytes()).is_err());
    }

    #[test]
    fn the_newest_record_that_can_be_understood_counts_and_none_is_replaced() {
        let storage = Memory::default();
        assert_eq!(newest(&storage).unwrap(), None);
        let first = rehearsal(Verdict::Sound);
        assert_eq!(create(&storage, &first).unwrap().as_str(), "rehearsals/20261121T130405Z.json");
        let second = rehearsal(Verdict::Findings);
        assert_eq!(create(&storage, &second).unwrap().as_str(), "rehearsals/20261121T130406Z.json");
        let junk = Key::parse("rehearsals/20991121T130405Z.json").unwrap();
        storage.create(&junk, &Body::from(b"junk".to_vec())).unwrap();
        assert_eq!(newest(&storage).unwrap(), Some(second.clone()));
        assert_eq!(latest(&storage, 1).unwrap(), (vec![second.clone()], 1));
        assert_eq!(latest(&storage, 9).unwrap(), (vec![second, first], 0));
    }
}
