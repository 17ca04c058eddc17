//! Histories first, as wal-push has it: of a timeline nothing is brought to a destination that does not
//! hold its history, or holds another one. Two histories of one id would make a recovery mix the files
//! of two servers.

use super::names::Named;
use super::one::{Done, own_seal, own_trailer};
use super::{Copier, SharedReport};
use crate::archive::lookup;
use crate::archive::object::Verdict;
use crate::archive::orphans::{COMPARED, Held, Orphan, held, was_moved_aside};
use crate::finding::{Finding, FindingKind};
use crate::object::{Key, Sha256Sum};
use crate::storage::{Error, Kind, Result};
use crate::wal::{Timeline, TimelineHistory, WalName};
use std::collections::BTreeSet;
use std::io;

/// The timelines of which nothing may be brought.
pub(super) type HeldBack = BTreeSet<Timeline>;

/// What is known of a history.
enum Content {
    /// What it says, and its sum.
    Read(TimelineHistory, Sha256Sum),
    /// That it is whole; nothing here decrypts it.
    Sealed,
}

/// What became of a history.
enum Came {
    /// The destination holds it, or has its own where the source has none that can be read.
    There,
    /// The destination holds another one, or none.
    NotThere,
    /// It was not looked at, since the timeline descends from one that is held back.
    Descends,
}

impl Copier<'_> {
    /// Brings the histories one after the other, those of ancestors first, which have lower ids.
    /// `timelines`: all of which the source holds anything.
    pub(super) fn bring_histories(
        &self,
        histories: &[Named],
        timelines: &BTreeSet<Timeline>,
        state: &SharedReport<'_>,
    ) -> HeldBack {
        let mut held_back = HeldBack::new();
        let mut without: BTreeSet<_> = timelines.iter().filter(|id| **id > Timeline::FIRST).collect();
        for named in histories {
            if !state.goes_on() {
                break; // nothing else is brought, either
            }
            let timeline = named.name.timeline();
            without.remove(&timeline);
            let mut done = Done::default();
            let came = self.bring_history(named, &held_back, &mut done);
            if !matches!(came, Ok(Came::There)) {
                held_back.insert(timeline);
                for finding in &mut done.findings {
                    finding.reason +=
                        &format!("; nothing of timeline {timeline} and of its descendants was copied");
                }
            }
            match came {
                Ok(Came::There | Came::NotThere) => state.add(done, None),
                Ok(Came::Descends) => state.hold_back(),
                Err(error) => state.add(done, Some(error)),
            }
        }
        without.into_iter().for_each(|timeline| self.warn_of_none(*timeline));
        held_back
    }

    fn bring_history(&self, named: &Named, held_back: &HeldBack, done: &mut Done) -> Result<Came> {
        // In place nothing comes to the timeline that was not there.
        if self.in_place || named.name.timeline() == Timeline::FIRST {
            self.bring(named, done)?;
            return Ok(Came::There);
        }
        let content = self.content(named)?;
        let descends = match &content {
            Some(Content::Read(history, _)) => {
                history.ancestors.iter().any(|ancestor| held_back.contains(&ancestor.timeline))
            }
            // From which one it descends is not seen.
            Some(Content::Sealed) => !held_back.is_empty(),
            None => false,
        };
        if descends {
            return Ok(Came::Descends);
        }
        if let Some(content) = &content
            && let Some(finding) = self.orphans_of_another(named.name, content)?
        {
            done.findings.push(finding);
            return Ok(Came::NotThere);
        }
        self.bring(named, done)?;
        let differs = done.findings.iter().any(|finding| finding.kind == FindingKind::Conflict);
        if !done.outcomes.is_empty() || !differs && self.has_history_like(named)? {
            return Ok(Came::There);
        }
        if done.findings.is_empty() {
            let what = format!("\"{}/{}\" was deleted while it was copied", self.from.place(), named.name);
            return Err(Error::new(Kind::Unavailable, what).hint("copy again"));
        }
        Ok(Came::NotThere)
    }

    fn content(&self, named: &Named) -> Result<Option<Content>> {
        for key in &named.copies {
            let mut text = Vec::new();
            let opened = self.opener.open(self.from, key, &mut text)?.map(|opened| opened.verdict);
            let history = TimelineHistory::parse(named.name.timeline(), &text);
            match (opened, history) {
                (Some(Verdict::Intact(decoded)), Ok(history)) => {
                    return Ok(Some(Content::Read(history, decoded.sha256)));
                }
                (Some(Verdict::Shut(_)), _) => return Ok(Some(Content::Sealed)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Whether the destination holds a history that is whole, and that is not another one than the
    /// source's damaged one was by its label.
    fn has_history_like(&self, named: &Named) -> Result<bool> {
        let Some(theirs) = self.history_there(named.name)? else { return Ok(false) };
        for key in &named.copies {
            let differs = match &theirs {
                Verdict::Intact(there) => {
                    let was = own_trailer(self.from, key)?;
                    was.is_some_and(|was| was.sha256 != there.sha256)
                }
                Verdict::Shut(there) => own_seal(self.from, key)?.is_some_and(|was| !was.is_like(there)),
                _ => false,
            };
            if differs {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The destination's history, where it holds one that is whole.
    fn history_there(&self, name: WalName) -> Result<Option<Verdict>> {
        let mut copies = lookup::copies(self.to, name, self.other_encodings)?;
        copies.leave(self.encryption.1);
        for key in copies.keys {
            let opened = self.opener.open(self.to, &key, &mut io::sink())?.map(|opened| opened.verdict);
            if let Some(whole @ (Verdict::Intact(_) | Verdict::Shut(_))) = opened {
                return Ok(Some(whole));
            }
        }
        Ok(None)
    }

    /// Files at the destination of a timeline that has no history there, where none of them is the
    /// source's.
    fn orphans_of_another(&self, history: WalName, content: &Content) -> Result<Option<Finding>> {
        let timeline = history.timeline();
        let held = held(self.to, timeline, self.other_encodings)?;
        let Held::Orphans(orphans) = held else { return Ok(None) };
        let Some(Orphan { key: first, .. }) = orphans.first() else { return Ok(None) };
        for orphan in orphans.iter().rev().take(COMPARED) {
            if self.source_holds(orphan)? {
                return Ok(None);
            }
        }
        if let Content::Read(_, sum) = content
            && was_moved_aside(self.to, history, sum)?
        {
            return Ok(None);
        }
        let what = format!(
            "\"{first}\" is a file of timeline {timeline}, of which there is no history, and none of the last files of \
             that timeline is the same as at \"{}\": another server used the same timeline id, or its history was lost",
            self.from.place()
        );
        Ok(Some(Finding::new(FindingKind::Conflict, history, self.to.place(), what).key(first)))
    }

    /// Whether the source holds the very bytes.
    fn source_holds(&self, orphan: &Orphan) -> Result<bool> {
        let variant = Key::parse(&orphan.key).filter(|_| orphan.is_variant());
        if let Some(key) = variant {
            return self.from.list(key.as_str(), "")?.next().transpose().map(|found| found.is_some());
        }
        let mut copies = lookup::copies(self.from, orphan.name, true)?;
        copies.leave(self.encryption.0);
        for key in copies.keys {
            if let Some(sum) = self.opener.intact(self.from, &key)?.map(|decoded| decoded.sha256)
                && orphan.holds(self.to, &sum, &self.opener)?
            {
                return Ok(true);
            }
            if self.passes_on
                && let (Some(there), Some(here)) = (Key::parse(&orphan.key), own_seal(self.from, &key)?)
                && own_seal(self.to, &there)?.is_some_and(|there| there.is_like(&here))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A timeline of which the source has no history.
    fn warn_of_none(&self, timeline: Timeline) {
        let name = WalName::TimelineHistory(timeline);
        match self.history_there(name) {
            Ok(Some(_)) => {}
            Ok(None) => log::warn!(
                "\"{name}\" is neither in \"{}\" nor in \"{}\": no recovery finds its way from another timeline to this \
                 one, whose files are copied all the same",
                self.from.place(),
                self.to.place()
            ),
            Err(error) => log::debug!("{error}"), // whatever is brought says so again
        }
    }
}
