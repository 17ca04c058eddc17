//! One destination asked: our own object by its key, then what other tools stored.

use super::search::Search;
use super::{Cause, Failures, Fetch, failed, local};
use crate::archive;
use crate::failure::Failure;
use crate::lookup::{self, Around};
use crate::object::{DecodeError, Decoded, Encoding, Identity, Key, Sha256Sum, decode_as};
use crate::storage::{Error, Kind, Range, Storage};
use crate::target::Temporary;
use crate::wal::WalName;
use std::io::{self, Read, Write};
use std::time::SystemTime;

/// What one destination said.
pub(super) enum Said {
    Delivered(Proof),
    Absent,
    /// It is not there, but this later file of its timeline is.
    Later(WalName),
}

/// What is known of a file that was put at the path.
pub(super) struct Proof {
    /// Bytes.
    pub size: u64,
    pub sha256: Sha256Sum,
    /// What whoever takes the file must be told.
    pub warnings: Vec<String>,
}

impl Search<'_> {
    /// Asks one destination. A hit in an archive of our own is one request.
    pub(super) fn ask(&self, storage: &dyn Storage) -> Result<Said, Failures> {
        let name = self.request.name;
        let mut broken = None;
        for _ in 0..3 {
            let mut copies = Copies::default();
            match self.try_copy(storage, &Key::of(name), Encoding::Zstd, &mut copies) {
                Ok(()) => {}
                // A body breaks off behind the back of whoever repeats requests.
                Err(failure) if failure.kind == Cause::Unreachable && !copies.tried.is_empty() => {
                    log::debug!("{failure}");
                    broken = Some(failure);
                    continue;
                }
                Err(failure) => return Err(vec![failure]),
            }
            if copies.good.as_ref().is_some_and(|good| good.decoded.trailer.is_some()) {
                return self.settle(copies);
            }
            let beyond = match self.look_further(storage, &mut copies) {
                Ok(beyond) => beyond,
                // A proved copy is better than the knowledge that it is the only one.
                Err(failure) if copies.good.is_some() => {
                    copies.faults.push(failure);
                    Beyond::default()
                }
                Err(failure) => {
                    copies.faults.push(failure);
                    return Err(copies.faults);
                }
            };
            if let Some(key) = beyond.around.unknown.filter(|_| copies.good.is_none()) {
                copies.faults.push(unknown(storage, name, &key));
            }
            if copies.good.is_some() || !copies.faults.is_empty() {
                return self.settle(copies);
            }
            if !beyond.around.copies.is_empty() {
                continue; // stored in this very moment, or gone again
            }
            // Neither "not there" nor "a hole" counts from what is not this cluster's archive.
            if !self.request.allow_empty {
                let proved = archive::prove(storage, beyond.identity.as_ref(), self.control);
                proved.map_err(|error| vec![failed(&error)])?;
            }
            if let Some(later) = beyond.around.later {
                return Ok(Said::Later(later));
            }
            return Ok(Said::Absent);
        }
        Err(vec![broken.unwrap_or_else(|| {
            let what = format!("\"{}\" lists \"{name}\" but does not give it", storage.place());
            Failure::new(Cause::Unreachable, what)
        })])
    }

    /// Looks for what other tools may have stored, and for what stands around it.
    fn look_further(&self, storage: &dyn Storage, copies: &mut Copies) -> Result<Beyond, Failure<Cause>> {
        let name = self.request.name;
        // A copy without our trailer tells by itself that other tools were at work.
        let identity = match copies.good {
            Some(_) => None,
            None => {
                let (spool, now) = (self.request.spool, SystemTime::now());
                archive::known_identity(storage, self.control, spool, now).map_err(|error| failed(&error))?
            }
        };
        let foreign = identity.is_none_or(|identity| identity.foreign);
        if self.unasked && !foreign {
            return Ok(Beyond::default());
        }
        if foreign && storage.lists_slowly() {
            for (key, encoding) in Key::all_of(name).skip(1) {
                self.try_copy(storage, &key, encoding, copies)?;
            }
            if copies.good.is_some() {
                return Ok(Beyond::default());
            }
        }
        let around = lookup::around(storage, name, foreign).map_err(|error| failed(&error))?;
        for (key, encoding) in &around.copies {
            if !copies.tried.contains(key) {
                self.try_copy(storage, key, *encoding, copies)?;
            }
        }
        Ok(Beyond { identity, around })
    }

    /// Reads one copy. The first that is intact is kept; another must be the same. Damage is noted,
    /// a missing copy is not; other failures are errors.
    fn try_copy(
        &self,
        storage: &dyn Storage,
        key: &Key,
        encoding: Encoding,
        copies: &mut Copies,
    ) -> Result<(), Failure<Cause>> {
        let mut object = match storage.get(key, Range::Whole) {
            Ok(object) => object,
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            Err(error) => return Err(failed(&error)),
        };
        copies.tried.push(key.clone());
        let mut temporary = None;
        let decoded = if copies.good.is_some() {
            self.decode(storage, key, encoding, &mut object.body, &mut io::sink())
        } else {
            let temporary = temporary.insert(self.target.temporary().map_err(|error| local(&error))?);
            self.decode(storage, key, encoding, &mut object.body, &mut temporary.file)
        };
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(failure) if failure.kind == Cause::Damaged => {
                copies.faults.push(failure);
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        match copies.good.take() {
            Some(good) if good.decoded.sha256 != decoded.sha256 => {
                return Err(differ(storage, &good.key, key));
            }
            Some(good) => copies.good = Some(good),
            None => copies.good = temporary.map(|temporary| Good { key: key.clone(), temporary, decoded }),
        }
        Ok(())
    }

    /// Decodes and proves one object.
    fn decode(
        &self,
        storage: &dyn Storage,
        key: &Key,
        encoding: Encoding,
        body: &mut dyn Read,
        output: &mut (dyn Write + Send),
    ) -> Result<Decoded, Failure<Cause>> {
        let Fetch { name, checks, .. } = *self.request;
        let decoded = decode_as(encoding, name, checks, body, output).map_err(|error| match error {
            DecodeError::Read(error) => failed(&Error::of_io(error, storage.place())),
            DecodeError::Write(error) => local(&self.target.unwritable(error)),
            DecodeError::Damaged(reason) => damaged(storage, key, &reason),
        })?;
        match (decoded.system_id(), self.control) {
            (Some(theirs), Some(ours)) if theirs != ours => {
                let reason =
                    format!("it is of the cluster with system identifier {theirs}, this one has {ours}");
                Err(damaged(storage, key, &reason)
                    .hint("name the archive of this cluster in restore_command"))
            }
            _ => Ok(decoded),
        }
    }

    /// Puts the intact copy at the path, naming those that are not.
    fn settle(&self, copies: Copies) -> Result<Said, Failures> {
        let Some(good) = copies.good else { return Err(copies.faults) };
        let Decoded { size, sha256, page, .. } = good.decoded;
        let oddities = page.map(|page| page.oddities()).unwrap_or_default();
        let oddities = oddities.iter().map(|oddity| format!("\"{}\": {oddity}", self.request.name));
        let warnings = copies.faults.iter().map(Failure::to_string).chain(oddities).collect();
        self.publish(good.temporary).map_err(|failure| vec![failure])?;
        Ok(Said::Delivered(Proof { size, sha256, warnings }))
    }
}

/// The copies of the file at one destination.
#[derive(Default)]
struct Copies {
    /// The first that is intact.
    good: Option<Good>,
    /// Why others are not.
    faults: Failures,
    /// The keys of both.
    tried: Vec<Key>,
}

/// A proved copy, not yet at the path.
struct Good {
    key: Key,
    temporary: Temporary,
    decoded: Decoded,
}

/// What is known beyond the copies.
#[derive(Default)]
struct Beyond {
    identity: Option<Identity>,
    around: Around,
}

fn damaged(storage: &dyn Storage, key: &Key, reason: &str) -> Failure<Cause> {
    Failure::new(Cause::Damaged, format!("\"{}/{key}\" is damaged or not the file asked for: {reason}", storage.place()))
        .hint(format!(
            "\"wal-archive copy --repair\" puts a good copy from another destination in its place, \"wal-archive quarantine {}\" \
             makes room for one from a server that still has it; until then recovery waits, nothing is lost",
            key.to_quarantine()
        ))
}

fn differ(storage: &dyn Storage, one: &Key, other: &Key) -> Failure<Cause> {
    Failure::new(
        Cause::Damaged,
        format!("\"{one}\" and \"{other}\" in \"{}\" are both intact and hold different content", storage.place()),
    )
    .hint(
        "two servers or two tools archived there: find out which file belongs to this history, and move the other one \
         aside with \"wal-archive quarantine --force KEY\"",
    )
}

fn unknown(storage: &dyn Storage, name: WalName, key: &str) -> Failure<Cause> {
    Failure::new(
        Cause::Refused,
        format!("\"{}/{key}\" is \"{name}\" in an encoding that this version does not read", storage.place()),
    )
    .hint("decrypt or decode it with the tool that stored it, and put the plain file beside it")
}
