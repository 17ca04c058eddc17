//! One destination asked: our own object by its key, then what other tools stored, then what its
//! listings show of a file that is not there.

use super::asking::{Asker, Asking};
use super::{Cause, Failures, explain, failed, local};
use crate::archive::absent::{Evidence, Lack, Seen, Shape};
use crate::archive::identity;
use crate::archive::lookup::{self, Around};
use crate::archive::object::{OpenError, Opener, SHUT_HINT, Verdict};
use crate::failure::Failure;
use crate::host::target::Temporary;
use crate::object::{Checks, Decoded, Encoding, Encryption, Identity, Key, Sha256Sum, Stored};
use crate::storage::{Error, Kind, Storage};
use crate::wal::SystemId;
use std::io::{self, Write};
use std::time::SystemTime;

/// How often a destination is asked whose answers contradict each other.
const ATTEMPTS: usize = 3;

/// What one destination said.
pub(super) enum Said {
    Delivered(Proof),
    /// It gives nothing of the name.
    Nothing(Box<Shape>),
}

/// What is known of a file that was put at the path.
pub(super) struct Proof {
    pub size: u64,
    pub sha256: Sha256Sum,
    /// What whoever takes the file must be told.
    pub warnings: Vec<Failure>,
}

impl Asking<'_> {
    /// Asks one destination. A hit in an archive of our own is one request.
    pub(super) fn ask(&self, storage: &dyn Storage) -> Result<Said, Failures> {
        let name = self.name;
        for _ in 0..ATTEMPTS {
            let mut copies = Copies::default();
            let own = Key::of(name, storage.keys().expects());
            self.try_copy(storage, &own, &mut copies).map_err(|failure| vec![failure])?;
            if copies
                .good
                .as_ref()
                .is_some_and(|good| self.tells_by_itself(&good.decoded) && !self.is_stray(storage, &good.key))
            {
                if Stored::of(&own).encoding() == Some(Encoding::Age) {
                    self.note_opened(storage);
                }
                return self.settle(copies);
            }
            let beyond = match self.look_further(storage, &mut copies) {
                Ok(beyond) => beyond,
                // A proved copy is better than the knowledge that it is the only one.
                Err(failure) if copies.good.as_ref().is_some_and(|good| self.is_ours(&good.decoded)) => {
                    copies.faults.push(failure);
                    return self.settle(copies);
                }
                Err(failure) => {
                    copies.faults.push(failure);
                    return Err(copies.faults);
                }
            };
            if let Some(key) = beyond.around.copies.unknown.as_ref().filter(|_| copies.good.is_none()) {
                copies.faults.push(explain::unknown(storage.place(), name, key));
            }
            if copies.good.is_some() || !copies.faults.is_empty() {
                return self.settle(copies);
            }
            if beyond.around.copies.keys.is_empty() {
                return Ok(Said::Nothing(Box::new(self.shape(storage, beyond))));
            }
            // Stored in this very moment, or gone again.
        }
        let what = format!("\"{}\" lists \"{name}\" but does not give it", storage.place());
        Err(vec![Failure::new(Cause::Unreachable, what)])
    }

    /// Whether the object alone proves that it is the file: it has our trailer, and says whose it is.
    fn tells_by_itself(&self, decoded: &Decoded) -> bool {
        decoded.trailer.is_some() && self.is_ours(decoded)
    }

    /// Whether it is a plain object of an archive that is encrypted. Whoever has keys asks for encrypted ones
    /// first. Where the archive does not tell, a proved copy is believed.
    fn is_stray(&self, storage: &dyn Storage, key: &Key) -> bool {
        let is_plain = Stored::of(key).encoding() != Some(Encoding::Age);
        is_plain && self.encryption(storage).is_ok_and(|encryption| encryption == Encryption::Age)
    }

    /// How the archive stores objects, for whom what the spool remembers of it is enough.
    pub(super) fn encryption(&self, storage: &dyn Storage) -> crate::storage::Result<Encryption> {
        let (spool, now) = (self.context.spool.as_ref(), SystemTime::now());
        let archive = identity::known_identity(storage, self.system_id, spool, now)?;
        Ok(archive.map_or(storage.keys().expects(), |archive| archive.encryption))
    }

    /// Whether it is of this cluster, by its own word, where the cluster is known. That it is of
    /// another one is damage.
    fn is_ours(&self, decoded: &Decoded) -> bool {
        self.system_id.is_none() || decoded.system_id().is_some()
    }

    /// Looks for what other tools may have stored, and for what stands around it.
    fn look_further(&self, storage: &dyn Storage, copies: &mut Copies) -> Result<Beyond, Failure<Cause>> {
        let name = self.name;
        let identity = self.identity(storage).map_err(|error| failed(&error))?;
        let encryption = identity.map_or(storage.keys().expects(), |identity| identity.encryption);
        copies.leave(encryption);
        self.refuse_unreadable(storage, identity.as_ref(), encryption).map_err(|error| failed(&error))?;
        self.refuse_nameless(storage, copies, identity.map(|found| found.system_id))?;
        let ours = copies.good.as_ref().is_some_and(|good| good.decoded.trailer.is_some());
        // A copy without our trailer tells by itself that other tools were at work.
        let foreign = copies.good.is_some() || identity.is_none_or(|identity| identity.foreign);
        if ours || (self.asker == Asker::Prefetcher && !foreign) {
            return Ok(Beyond { identity, ..Beyond::default() });
        }
        if foreign && storage.nature().is_directory() {
            for key in Key::all_of(name).skip(1) {
                self.try_copy(storage, &key, copies)?;
            }
            if copies.good.as_ref().is_some_and(|good| self.is_ours(&good.decoded)) {
                return Ok(Beyond { identity, ..Beyond::default() });
            }
        }
        // In a directory of our own, too: one of the servers may still use "cp".
        let around = lookup::around(storage, name, foreign || storage.nature().is_directory());
        let mut around = around.map_err(|error| failed(&error))?;
        around.copies.leave(encryption);
        for key in &around.copies.keys {
            if !copies.tried.contains(key) {
                self.try_copy(storage, key, copies)?;
            }
        }
        let held_by = match identity {
            Some(identity) => Some(identity.system_id),
            None if self.system_id.is_none()
                || copies.good.as_ref().is_some_and(|good| self.is_ours(&good.decoded)) =>
            {
                None
            }
            None => self.held_by(storage, &around).map_err(|error| failed(&error))?,
        };
        self.refuse_nameless(storage, copies, held_by)?;
        let nothing = around.copies == lookup::Copies::default() && copies.tried.is_empty();
        if nothing && encryption == Encryption::Age && self.asker == Asker::PostgreSql {
            self.prove_keys(storage, &around, identity.map(|identity| identity.segment_size))?;
        }
        Ok(Beyond { identity, held_by, around })
    }

    /// The cluster by the WAL files that stand there: those around the name, else the first.
    fn held_by(&self, storage: &dyn Storage, around: &Around) -> crate::storage::Result<Option<SystemId>> {
        let checks = self.context.checks;
        match lookup::system_id(storage, &around.samples, self.system_id, checks)? {
            Some(id) if self.system_id.is_none_or(|ours| ours == id) => Ok(Some(id)),
            other => {
                let sample = lookup::sample(storage, true, lookup::SAMPLE)?;
                Ok(lookup::system_id(storage, &sample.keys, self.system_id, checks)?.or(other))
            }
        }
    }

    /// A file that does not say whose it is, is that of the archive in which it was found.
    fn refuse_nameless(
        &self,
        storage: &dyn Storage,
        copies: &mut Copies,
        owner: Option<SystemId>,
    ) -> Result<(), Failure<Cause>> {
        let Some(theirs) = owner.filter(|theirs| self.system_id.is_some_and(|ours| ours != *theirs)) else {
            return Ok(());
        };
        if copies.good.take_if(|good| !self.is_ours(&good.decoded)).is_none() {
            return Ok(());
        }
        let refusal = explain::lack(storage.place(), Lack::Cluster(theirs), self.system_id);
        refusal.map_or(Ok(()), Err)
    }

    /// Refuses an archive of the wrong kind. Where it is encrypted and nothing here can decrypt, nothing is
    /// said of a file that may not be there either: what its histories show is not seen.
    fn refuse_unreadable(
        &self,
        storage: &dyn Storage,
        identity: Option<&Identity>,
        encryption: Encryption,
    ) -> crate::storage::Result<()> {
        identity::refuse_plain(storage, identity)?;
        if encryption == Encryption::Age && storage.keys().identities.is_empty() {
            let what =
                format!("\"{}\" is encrypted, and there is no identity to decrypt it", storage.place());
            return Err(Error::new(Kind::Invalid, what).hint(SHUT_HINT));
        }
        Ok(())
    }

    /// Whose archive it is. For nobody who asked, of a bucket, what the spool remembers is enough; an
    /// answer is given only by what stands there.
    fn identity(&self, storage: &dyn Storage) -> crate::storage::Result<Option<Identity>> {
        let (spool, now) = (self.context.spool.as_ref(), SystemTime::now());
        match self.asker {
            Asker::Prefetcher => identity::known_identity(storage, self.system_id, spool, now),
            Asker::PostgreSql => identity::identity_now(storage, spool, now),
        }
    }

    /// What was seen, for [`crate::archive::absent::conclude`].
    fn shape(&self, storage: &dyn Storage, beyond: Beyond) -> Shape {
        let Beyond { identity, held_by, around } = beyond;
        // Where even the store does not know its time, everything in it is young.
        let clock = match around.later.is_some() || !around.timelines.is_empty() {
            true => storage.clock().ok(),
            false => None,
        };
        let age = |stored: SystemTime| clock.and_then(|now| now.duration_since(stored).ok());
        let place = storage.place();
        Shape {
            place: place.to_owned(),
            identity,
            held_by,
            holds_wal: around.holds_wal,
            copy: around.copies.unknown,
            evidence: around.later.map(|later| Evidence {
                seen: Seen::File(later.name),
                place: place.to_owned(),
                age: age(later.stored),
            }),
            histories: around
                .timelines
                .into_iter()
                .filter_map(|relative| relative.history)
                .map(|(history, stored)| (history, age(stored)))
                .collect(),
        }
    }

    /// Reads one copy. The first that is intact is kept; another must be the same. Damage is noted,
    /// a missing copy is not; other failures are errors.
    fn try_copy(&self, storage: &dyn Storage, key: &Key, copies: &mut Copies) -> Result<(), Failure<Cause>> {
        let mut temporary = None;
        let opened = if copies.good.is_some() {
            self.open(storage, key, self.context.checks, &mut io::sink())
        } else {
            let temporary = temporary.insert(self.target.temporary().map_err(|error| local(&error))?);
            self.open(storage, key, self.context.checks, &mut temporary.file)
        };
        let decoded = match opened {
            Ok(Some(decoded)) => decoded,
            Ok(None) => return Ok(()),
            Err(failure) => {
                copies.tried.push(key.clone());
                if failure.kind != Cause::Damaged {
                    return Err(failure);
                }
                copies.faults.push(failure);
                return Ok(());
            }
        };
        copies.tried.push(key.clone());
        match copies.good.take() {
            Some(good) if good.decoded.sha256 != decoded.sha256 => {
                return Err(explain::differ(storage.place(), &good.key, key));
            }
            Some(good) => copies.good = Some(good),
            None => copies.good = temporary.map(|temporary| Good { key: key.clone(), temporary, decoded }),
        }
        Ok(())
    }

    /// Reads and proves one object; `None` where it is not there.
    pub(super) fn open(
        &self,
        storage: &dyn Storage,
        key: &Key,
        checks: Checks,
        output: &mut (dyn Write + Send),
    ) -> Result<Option<Decoded>, Failure<Cause>> {
        let opener = Opener { checks, system_id: self.system_id, segment_size: self.segment_size };
        let opened = opener.open(storage, key, output).map_err(|error| match error {
            OpenError::Storage(error) => failed(&error),
            OpenError::Output(error) => local(&self.target.unwritable(error)),
        })?;
        match opened.map(|opened| opened.verdict) {
            None => Ok(None),
            Some(Verdict::Intact(decoded)) => Ok(Some(decoded)),
            Some(Verdict::Damaged(reason)) => Err(explain::damaged(storage.place(), key, &reason)),
            Some(Verdict::OtherCluster(reason)) => Err(explain::damaged(storage.place(), key, &reason)
                .hint("name the archive of this cluster in restore_command")),
            Some(shut @ Verdict::Shut(_)) => {
                let what = format!("\"{}/{key}\" is {shut}", storage.place());
                Err(Failure::new(Cause::Refused, what).hint(SHUT_HINT))
            }
            Some(Verdict::Unread) => {
                let name = Stored::of(key).name().unwrap_or(self.name);
                Err(explain::unknown(storage.place(), name, key.as_str()))
            }
        }
    }

    /// Puts the intact copy at the path, naming those that are not.
    fn settle(&self, copies: Copies) -> Result<Said, Failures> {
        let Some(good) = copies.good else { return Err(copies.faults) };
        let Decoded { size, sha256, page, .. } = good.decoded;
        let oddities = page.map(|page| page.oddities()).unwrap_or_default();
        let oddities = oddities.iter().map(|oddity| Failure::new((), format!("\"{}\": {oddity}", self.name)));
        let warnings = copies.faults.iter().map(Failure::remark).chain(oddities).collect();
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

impl Copies {
    /// Leaves what is read in such an archive; of the rest it does not matter what is wrong with it.
    fn leave(&mut self, encryption: Encryption) {
        let is_read =
            |key: &Key| Stored::of(key).encoding().is_none_or(|encoding| encoding.is_read(encryption));
        self.good.take_if(|good| !is_read(&good.key));
        if !self.tried.iter().all(is_read) {
            self.faults.clear();
            self.tried.retain(is_read);
        }
    }
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
    /// The cluster by the identity, else by the WAL files.
    held_by: Option<SystemId>,
    around: Around,
}
