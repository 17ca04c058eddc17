//! Histories first: nothing of a timeline is stored at a destination before its history is durable
//! there.
//!
//! A timeline without its history cannot be followed from its parent, and PostgreSQL, which looks
//! for the next id until there is none (`src/backend/access/transam/timeline.c`,
//! `findNewestTimeLine`), would give the id away a second time. PostgreSQL archives histories before
//! everything else, but not that of a promotion while archiving was off. So pg_wal's own is brought
//! with the first file that needs it, whatever its status file says; what is durable is remembered
//! in the spool. A history that conflicts keeps out everything of its timeline: two servers use one id.

use super::{Result, failed};
use crate::archive::intake::{Cause, Intake, Source};
use crate::archive::lookup;
use crate::archive::object::{Opener, Verdict};
use crate::archive::orphans::{COMPARED, Held, Orphan, held, was_moved_aside};
use crate::archive::put::compare::Stood;
use crate::failure::Failure;
use crate::object::key::WAL_FOLDER;
use crate::object::{Encoder, Encryption, Identity, Key, Sha256Sum};
use crate::spool::Stored;
use crate::storage::{Error, Storage, hides_what_is_missing};
use crate::wal::{Timeline, TimelineHistory, WalName};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// zstd's; a history is a few lines.
const LEVEL: i32 = 1;

impl Source {
    /// Makes the history of the file's timeline durable at the destination, before the file itself.
    pub(super) fn bring_history(
        &self,
        identity: &Identity,
        intake: &Intake,
        storage: &dyn Storage,
    ) -> Result<()> {
        let timeline = self.name.timeline();
        let histories = Histories { folder: self.folder(), identity, intake, storage };
        if timeline != Timeline::FIRST && !histories.bring(timeline)? {
            histories.warn_of_none(self.name);
        }
        Ok(())
    }

    /// Why the history of the file's timeline, or one that would come with it, may not be stored at the
    /// destination; nothing is stored. What cannot be asked, says so when it is to be.
    pub(super) fn refuse_history(
        &self,
        identity: &Identity,
        intake: &Intake,
        storage: &dyn Storage,
    ) -> Option<Failure<Cause>> {
        let timeline = self.name.timeline();
        let name = WalName::TimelineHistory(timeline);
        if timeline == Timeline::FIRST {
            return None;
        }
        let histories = Histories { folder: self.folder(), identity, intake, storage };
        let own;
        let history = if self.name == name {
            self
        } else {
            own = match histories.own(timeline) {
                Ok(Own::Unknown(history)) => history,
                Ok(Own::Remembered | Own::None) | Err(_) => return None,
            };
            &own
        };
        let of_ancestor = |ancestor| match histories.own(ancestor) {
            Ok(Own::Unknown(history)) => histories.refuse(&history),
            Ok(Own::Remembered | Own::None) | Err(_) => None,
        };
        let mut ancestors = histories.ancestors(history).into_iter();
        histories.refuse(history).or_else(|| ancestors.find_map(of_ancestor))
    }

    /// Stores it as the history of this timeline.
    pub(super) fn put_history(
        &self,
        timeline: Timeline,
        identity: &Identity,
        intake: &Intake,
        storage: &dyn Storage,
    ) -> Result<Stored> {
        Histories { folder: self.folder(), identity, intake, storage }.put(timeline, self)
    }
}

/// A history in pg_wal.
enum Own {
    /// Nothing is remembered of it at the destination.
    Unknown(Box<Source>),
    /// It is durable at the destination.
    Remembered,
    None,
}

/// The histories of a pg_wal and a destination.
struct Histories<'a> {
    folder: &'a Path,
    identity: &'a Identity,
    intake: &'a Intake,
    storage: &'a dyn Storage,
}

impl Histories<'_> {
    /// Makes the history of a timeline durable; `false` where neither pg_wal nor the destination
    /// has one.
    fn bring(&self, timeline: Timeline) -> Result<bool> {
        let history = match self.own(timeline)? {
            Own::Unknown(history) => history,
            Own::Remembered => return Ok(true),
            Own::None => return self.is_there(timeline),
        };
        self.put(timeline, &history).map_err(|failure| {
            let message = format!("{}; nothing of timeline {timeline} is stored before it", failure.message);
            Failure { message, ..failure }
        })?;
        Ok(true)
    }

    /// What pg_wal has as the history of a timeline.
    fn own(&self, timeline: Timeline) -> Result<Own> {
        let name = WalName::TimelineHistory(timeline);
        let path = self.folder.join(name.to_string());
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Own::None),
            Err(error) => {
                let what = format!("cannot read \"{}\": {error}", path.display());
                return Err(Failure::new(Cause::Source, what));
            }
        };
        if self.is_remembered(timeline, Some(&Sha256Sum::of(&text))) {
            return Ok(Own::Remembered);
        }
        let mut encoder = Encoder::new(LEVEL)
            .map_err(|error| Failure::new(Cause::Source, format!("cannot start the compressor: {error}")))?;
        Source::read(name, &path, self.intake, &mut encoder).map(|history| Own::Unknown(Box::new(history)))
    }

    /// Whether the destination has one, whoever stored it.
    fn is_there(&self, timeline: Timeline) -> Result<bool> {
        if self.is_remembered(timeline, None) {
            return Ok(true);
        }
        let name = WalName::TimelineHistory(timeline);
        let own = Key::of(name, self.identity.encryption);
        if self.holds(timeline, &own)? {
            return Ok(true);
        }
        // What was put by hand, or by another tool, may be in another encoding.
        let copies = match lookup::copies(self.storage, name, self.identity.foreign) {
            Ok(copies) => copies.keys,
            Err(error) if hides_what_is_missing(self.storage, &error) => return Ok(false),
            Err(error) => return Err(failed(&error)),
        };
        let read = |key: &&Key| {
            let encoding = crate::object::Stored::of(key).encoding();
            encoding.is_some_and(|encoding| encoding.is_read(self.identity.encryption)) && **key != own
        };
        for key in copies.iter().filter(read) {
            if self.holds(timeline, key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the destination holds the history under this key; it is remembered then.
    fn holds(&self, timeline: Timeline, key: &Key) -> Result<bool> {
        let opener = Opener::of_any_cluster(self.intake.checks);
        let opened = opener.open(self.storage, key, &mut io::sink()).map_err(Error::from);
        match opened.map(|opened| opened.map(|opened| opened.verdict)) {
            Ok(Some(Verdict::Intact(found))) => {
                self.remember(timeline, &Stored { key: key.clone(), created: false }, &found.sha256);
                Ok(true)
            }
            // What it holds is not seen, and that it is whole is enough.
            Ok(Some(Verdict::Shut(_))) => Ok(true),
            Ok(Some(verdict)) => {
                log::warn!("\"{}/{key}\" is {verdict}", self.storage.place());
                Ok(false)
            }
            Ok(None) => Ok(false),
            // So a bucket answers for what is not there to whoever may not list.
            Err(error) if hides_what_is_missing(self.storage, &error) => Ok(false),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Why this history may not be stored.
    fn refuse(&self, history: &Source) -> Option<Failure<Cause>> {
        let key = Key::of(history.name, self.storage.keys().writes());
        let refusal = match history.compare(self.intake, self.storage, &key) {
            Ok(Some(Stood::Identical { .. })) | Err(_) => return None,
            Ok(Some(Stood::Different(other))) => history.conflict(self.storage, &key, &other),
            Ok(None) => match held(self.storage, history.name.timeline(), self.identity.foreign).ok()? {
                Held::History(keys) => self.another(history, &keys).ok()??,
                Held::Orphans(orphans) => self.are_ours(history, &orphans).err()?,
            },
        };
        (refusal.kind == Cause::Conflict).then_some(refusal)
    }

    /// The ancestors of its timeline that have a history.
    fn ancestors(&self, history: &Source) -> Vec<Timeline> {
        let mut text = Vec::new();
        let decoded = history.objects.decode(history.name, self.intake.checks, &mut text);
        let parsed = decoded.ok().and_then(|_| TimelineHistory::parse(history.name.timeline(), &text).ok());
        let ancestors = parsed.into_iter().flat_map(|history| history.ancestors);
        ancestors.map(|ancestor| ancestor.timeline).filter(|id| *id > Timeline::FIRST).collect()
    }

    /// Stores a history, where no other server's files of its timeline stand; those of its ancestors
    /// go first.
    fn put(&self, timeline: Timeline, history: &Source) -> Result<Stored> {
        let own = Key::of(history.name, self.storage.keys().writes());
        // What is there already, identical, needs no listing; whatever else, the attempt to create tells.
        let found = history.compare(self.intake, self.storage, &own);
        let stored = if let Ok(Some(Stood::Identical { created })) = found {
            self.storage.make_durable(&own).map_err(|error| failed(&error))?;
            Stored { key: own, created }
        } else {
            self.may_begin(timeline, history)?;
            history.put(self.identity, self.intake, self.storage)?
        };
        self.remember(timeline, &stored, &history.trailer.sha256);
        Ok(stored)
    }

    /// Refuses to give a timeline a history where it has another one, or another server's files of that
    /// timeline may stand: the same id would mean two histories.
    fn may_begin(&self, timeline: Timeline, history: &Source) -> Result<()> {
        match held(self.storage, timeline, self.identity.foreign) {
            Ok(Held::History(keys)) => self.another(history, &keys)?.map_or(Ok(()), Err)?,
            Ok(Held::Orphans(orphans)) => self.are_ours(history, &orphans)?,
            Err(error) if hides_what_is_missing(self.storage, &error) => {
                log::warn!(
                    "whether \"{}\" holds files of another timeline {timeline} cannot be seen: {error}; \"{}\" is stored \
                     all the same",
                    self.storage.place(),
                    history.name
                );
            }
            Err(error) => return Err(failed(&error)),
        }
        for ancestor in self.ancestors(history) {
            self.bring(ancestor)?;
        }
        Ok(())
    }

    /// The conflict with what somebody put there by hand, or another tool stored, where it is not this very
    /// history; an encrypted archive does not read it, and it tells all the same whose the timeline is.
    fn another(&self, history: &Source, keys: &[Key]) -> Result<Option<Failure<Cause>>> {
        for key in keys {
            if let Some(Stood::Different(other)) = history.compare(self.intake, self.storage, key)? {
                return Ok(Some(history.conflict(self.storage, key, &other)));
            }
        }
        Ok(None)
    }

    /// Files without their history must be those that this pg_wal holds, too, unless this very history
    /// was there and has been moved aside.
    fn are_ours(&self, source: &Source, orphans: &[Orphan]) -> Result<()> {
        let history = source.name;
        let Some(Orphan { key: first, .. }) = orphans.first() else { return Ok(()) };
        let own = |orphan: &&Orphan| self.folder.join(orphan.name.to_string()).is_file();
        for orphan in orphans.iter().rev().filter(own).take(COMPARED) {
            if self.is_the_same(orphan)? {
                return Ok(());
            }
        }
        let moved = was_moved_aside(self.storage, history, &source.trailer.sha256);
        if moved.map_err(|error| failed(&error))? {
            return Ok(());
        }
        let (place, timeline) = (self.storage.place(), history.timeline());
        let what = format!(
            "\"{place}\" holds files of timeline {timeline}, \"{first}\" the first of them, but no history of it, and none \
             of them is this server's: another server used the same timeline id, or its history was lost"
        );
        // In an encrypted archive it is only a sign, which is read by nobody.
        let then = match self.identity.encryption {
            Encryption::None => String::new(),
            Encryption::Age => format!(
                ", archive again, which stores it encrypted, and remove \"{place}/{WAL_FOLDER}{history}\"; until then a \
                 wal-fetch of it is refused"
            ),
        };
        Err(Failure::new(Cause::Conflict, what).hint(format!(
            "bring \"{history}\" back from where it was written or from another destination (\"wal-archive copy\"), and \
             recover this server again, which then takes another id; if those files are this server's own, copy its \
             \"{history}\" to \"{place}/{WAL_FOLDER}\" by hand{then}; if nobody needs them, move them aside with \"wal-archive \
             quarantine --timeline {timeline} --from {place}\""
        )))
    }

    fn is_the_same(&self, orphan: &Orphan) -> Result<bool> {
        let path = self.folder.join(orphan.name.to_string());
        let unreadable = |error: io::Error| {
            Failure::new(Cause::Source, format!("cannot read \"{}\": {error}", path.display()))
        };
        let mut file = File::open(&path).map_err(unreadable)?;
        let ours = Sha256Sum::of_reader(&mut file).map_err(unreadable)?;
        orphan
            .holds(self.storage, &ours, &Opener::of_any_cluster(self.intake.checks))
            .map_err(|error| failed(&error))
    }

    fn warn_of_none(&self, name: WalName) {
        log::warn!(
            "\"{}\" is neither in \"{}\" nor in \"{}\": no recovery finds its way from another timeline to \"{name}\", \
             which is stored all the same",
            WalName::TimelineHistory(name.timeline()),
            self.folder.display(),
            self.storage.place()
        );
    }

    fn is_remembered(&self, timeline: Timeline, sha256: Option<&Sha256Sum>) -> bool {
        let (id, now) = (self.identity.system_id, SystemTime::now());
        self.intake
            .spool
            .as_ref()
            .is_some_and(|spool| spool.has_history(self.storage, id, timeline, sha256, now))
    }

    fn remember(&self, timeline: Timeline, stored: &Stored, sha256: &Sha256Sum) {
        let Some(spool) = &self.intake.spool else { return };
        let (id, now) = (self.identity.system_id, SystemTime::now());
        if let Err(error) = spool.remember_history(self.storage, id, timeline, (&stored.key, sha256), now) {
            log::debug!("cannot write to the spool \"{}\": {error}", spool.folder().display());
        }
    }
}
