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
use crate::archive::intake::{Cause, Rules, Source};
use crate::archive::lookup;
use crate::archive::object::{Label, Opener, Verdict, label};
use crate::archive::put::compare::Stood;
use crate::archive::quarantine;
use crate::failure::Failure;
use crate::object::key::WAL_FOLDER;
use crate::object::{Encoder, Encoding, Identity, Key, Sha256Sum, Stored as Listed, decode};
use crate::spool::Stored;
use crate::storage::{Error, Storage, hides_what_is_missing};
use crate::wal::{Timeline, TimelineHistory, WalName};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// zstd's; a history is a few lines.
const LEVEL: i32 = 1;

/// How many of a timeline's files are compared with those of pg_wal.
const COMPARED: usize = 16;

impl Source {
    /// Makes the history of the file's timeline durable at the destination, before the file itself.
    pub(super) fn bring_history(
        &self,
        identity: &Identity,
        rules: &Rules<'_>,
        storage: &dyn Storage,
    ) -> Result<()> {
        let timeline = self.name.timeline();
        let histories = Histories { folder: self.folder(), identity, rules, storage };
        if timeline != Timeline::FIRST && !histories.bring(timeline)? {
            histories.warn_of_none(self.name);
        }
        Ok(())
    }

    /// Stores it as the history of this timeline.
    pub(super) fn put_history(
        &self,
        timeline: Timeline,
        identity: &Identity,
        rules: &Rules<'_>,
        storage: &dyn Storage,
    ) -> Result<Stored> {
        Histories { folder: self.folder(), identity, rules, storage }.put(timeline, self)
    }
}

/// The histories of a pg_wal and a destination.
struct Histories<'a> {
    folder: &'a Path,
    identity: &'a Identity,
    rules: &'a Rules<'a>,
    storage: &'a dyn Storage,
}

impl Histories<'_> {
    /// Makes the history of a timeline durable; `false` where neither pg_wal nor the destination
    /// has one.
    fn bring(&self, timeline: Timeline) -> Result<bool> {
        let name = WalName::TimelineHistory(timeline);
        let path = self.folder.join(name.to_string());
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.is_there(timeline),
            Err(error) => {
                let what = format!("cannot read \"{}\": {error}", path.display());
                return Err(Failure::new(Cause::Source, what));
            }
        };
        if self.is_remembered(timeline, Some(&Sha256Sum::of(&text))) {
            return Ok(true);
        }
        let mut encoder = Encoder::new(LEVEL)
            .map_err(|error| Failure::new(Cause::Source, format!("cannot start the compressor: {error}")))?;
        let history = Source::read(name, &path, self.rules, &mut encoder)?;
        self.put(timeline, &history).map_err(|failure| {
            let message = format!("{}; nothing of timeline {timeline} is stored before it", failure.message);
            Failure { message, ..failure }
        })?;
        Ok(true)
    }

    /// Whether the destination has one of its own.
    fn is_there(&self, timeline: Timeline) -> Result<bool> {
        if self.is_remembered(timeline, None) {
            return Ok(true);
        }
        let name = WalName::TimelineHistory(timeline);
        let copies = match self.identity.foreign {
            true => lookup::copies(self.storage, name, true).map(|around| around.copies),
            false => Ok(vec![(Key::of(name), Encoding::Zstd)]),
        };
        let opener = Opener::of_any_cluster(self.rules.checks);
        for (key, _) in copies.map_err(|error| failed(&error))? {
            let opened = opener.open(self.storage, &key, &mut io::sink()).map_err(Error::from);
            match opened.map(|opened| opened.map(|opened| opened.verdict)) {
                Ok(Some(Verdict::Intact(found))) => {
                    self.remember(timeline, &Stored { key, created: false }, &found.sha256);
                    return Ok(true);
                }
                Ok(Some(verdict)) => log::warn!("\"{}/{key}\" is {verdict}", self.storage.place()),
                Ok(None) => {}
                // So a bucket answers for what is not there to whoever may not list.
                Err(error) if hides_what_is_missing(self.storage, &error) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(false)
    }

    /// Stores a history, where no other server's files of its timeline stand; those of its ancestors
    /// go first.
    fn put(&self, timeline: Timeline, history: &Source) -> Result<Stored> {
        let own = Key::of(history.name);
        // What is there already, identical, needs no listing; whatever else, the attempt to create tells.
        let found = history.compare(self.rules, self.storage, &own);
        let stored = if let Ok(Some(Stood::Identical { created })) = found {
            self.storage.make_durable(&own).map_err(|error| failed(&error))?;
            Stored { key: own, created }
        } else {
            self.may_begin(timeline, history)?;
            history.put(self.identity, self.rules, self.storage)?
        };
        self.remember(timeline, &stored, &history.trailer.sha256);
        Ok(stored)
    }

    /// Refuses to give a timeline a history where another server's files of that timeline may
    /// stand: the same id would mean two histories.
    fn may_begin(&self, timeline: Timeline, history: &Source) -> Result<()> {
        match self.files_of(timeline) {
            Ok(Files { history: true, .. }) => return Ok(()),
            Ok(Files { names, .. }) => self.are_ours(history, &names)?,
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
        let mut text = Vec::new();
        let decoded = decode(history.name, self.rules.checks, &mut history.body.reader(), &mut text);
        let parsed = decoded.ok().and_then(|_| TimelineHistory::parse(timeline, &text).ok());
        let ancestors = parsed.into_iter().flat_map(|history| history.ancestors);
        for ancestor in ancestors.map(|ancestor| ancestor.timeline).filter(|id| *id > Timeline::FIRST) {
            self.bring(ancestor)?;
        }
        Ok(())
    }

    /// What the destination holds of a timeline.
    fn files_of(&self, timeline: Timeline) -> crate::storage::Result<Files> {
        let mut files = Files::default();
        for folder in lookup::folders(self.identity.foreign) {
            for entry in self.storage.list(&format!("{folder}{:08X}", timeline.get()), "")? {
                let key = entry?.key;
                let listed = Listed::parse(key.strip_prefix(folder).unwrap_or(&key));
                match listed.name() {
                    Some(WalName::TimelineHistory(_)) => {
                        // Of this timeline, and before all its segments in the order of names.
                        return Ok(Files { history: true, names: Vec::new() });
                    }
                    Some(name) => files.names.push((key, name, listed)),
                    None => {}
                }
            }
        }
        Ok(files)
    }

    /// Files without their history must be those that this pg_wal holds, too, unless this very history
    /// was there and has been moved aside.
    fn are_ours(&self, source: &Source, files: &[(String, WalName, Listed)]) -> Result<()> {
        let history = source.name;
        let Some((first, ..)) = files.first() else { return Ok(()) };
        let mut compared = 0;
        for (key, name, listed) in files.iter().rev() {
            let path = self.folder.join(name.to_string());
            if compared == COMPARED || !path.is_file() {
                continue;
            }
            compared += 1;
            if self.is_the_same(&path, key, listed)? {
                return Ok(());
            }
        }
        if self.was_moved_aside(source)? {
            return Ok(());
        }
        let (place, timeline) = (self.storage.place(), history.timeline());
        let what = format!(
            "\"{place}\" holds files of timeline {timeline}, \"{first}\" the first of them, but no history of it, and none \
             of them is this server's: another server used the same timeline id, or its history was lost"
        );
        Err(Failure::new(Cause::Conflict, what).hint(format!(
            "bring \"{history}\" back from where it was written or from another destination (\"wal-archive copy\"), and \
             recover this server again, which then takes another id; if those files are this server's own, copy its \
             \"{history}\" to \"{place}/{WAL_FOLDER}\" by hand; if nobody needs them, move each aside with \"wal-archive \
             quarantine --force --from {place} KEY\""
        )))
    }

    /// Whether a copy of this history was moved aside, by what its trailer says, or one that does not
    /// say what it was.
    fn was_moved_aside(&self, history: &Source) -> Result<bool> {
        let moved = quarantine::moved_before(self.storage, history.name).map_err(|error| failed(&error))?;
        for key in moved.iter().filter_map(|key| Key::parse(key)) {
            match label(self.storage, &key).map_err(|error| failed(&error))? {
                Label::Ours(theirs) if theirs.sha256 != history.trailer.sha256 => {}
                _ => return Ok(true),
            }
        }
        Ok(false)
    }

    fn is_the_same(&self, path: &Path, key: &str, listed: &Listed) -> Result<bool> {
        let unreadable = |error: io::Error| {
            Failure::new(Cause::Source, format!("cannot read \"{}\": {error}", path.display()))
        };
        let mut file = File::open(path).map_err(unreadable)?;
        let ours = Sha256Sum::of_reader(&mut file).map_err(unreadable)?;
        let key = match (listed, Key::parse(key)) {
            (Listed::Wal(..), Some(key)) => key,
            (Listed::Variant(_, sum), _) => return Ok(*sum == ours.short()),
            _ => return Ok(false),
        };
        let theirs = match label(self.storage, &key).map_err(|error| failed(&error))? {
            Label::Ours(trailer) => Some(trailer.sha256),
            Label::None | Label::Damaged(_) => {
                let intact = Opener::of_any_cluster(self.rules.checks).intact(self.storage, &key);
                intact.map_err(|error| failed(&error))?.map(|decoded| decoded.sha256)
            }
        };
        Ok(theirs == Some(ours))
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
        self.rules.spool.is_some_and(|spool| spool.has_history(self.storage, id, timeline, sha256, now))
    }

    fn remember(&self, timeline: Timeline, stored: &Stored, sha256: &Sha256Sum) {
        let Some(spool) = self.rules.spool else { return };
        let (id, now) = (self.identity.system_id, SystemTime::now());
        if let Err(error) = spool.remember_history(self.storage, id, timeline, (&stored.key, sha256), now) {
            log::debug!("cannot write to the spool \"{}\": {error}", spool.folder().display());
        }
    }
}

/// What a destination holds of a timeline.
#[derive(Default)]
struct Files {
    history: bool,
    /// Everything else, where there is no history.
    names: Vec<(String, WalName, Listed)>,
}
