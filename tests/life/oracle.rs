//! What must be true, by what was acknowledged and what was done to the archive from outside.
//!
//! Knows the files that servers made, which of them were acknowledged, and what stands at the
//! destinations. Does not know how the programs come to their answers.

use crate::destination::{Destination, Sort};
use crate::node::Node;
use crate::wal::{Image, Log};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use wal_archive::object::{Sha256Sum, Stored};
use wal_archive::wal::{
    Branch, Lsn, SegmentName, SegmentSize, Start, Timeline, TimelineHistory, WalName, Walker,
};

/// A promise that does not hold.
pub type Violation = String;

/// What a server made under some name.
#[derive(Debug)]
pub struct Content {
    pub image: Image,
    pub sum: Sha256Sum,
    /// Of a segment: whether its records reach its end.
    pub complete: bool,
}

#[derive(Default)]
pub struct Oracle {
    produced: BTreeMap<WalName, Vec<Arc<Content>>>,
    acknowledged: BTreeMap<WalName, Vec<Arc<Content>>>,
    /// Objects that were changed, by destination and key.
    damaged: BTreeMap<(usize, String), Option<Vec<u8>>>,
    /// Files of which an object was changed or removed by others.
    harmed: BTreeSet<WalName>,
    /// Of these, those that a server may have stored while a destination could not be asked what it holds.
    unasked: BTreeSet<WalName>,
    /// Files that `expire` removed.
    expired: BTreeSet<WalName>,
    /// Timelines that begin behind records which are not of their ancestors.
    astray: BTreeSet<Timeline>,
}

impl Oracle {
    /// A server makes a file.
    pub fn produce(&mut self, name: WalName, image: Image, complete: bool) -> Arc<Content> {
        let known = self.produced.entry(name).or_default();
        if let Some(content) = known.iter().find(|content| content.image == image) {
            return Arc::clone(content);
        }
        let sum = Sha256Sum::of(&image.bytes());
        let content = Arc::new(Content { image, sum, complete });
        known.push(Arc::clone(&content));
        content
    }

    /// An object was changed by others, or removed.
    pub fn harm(&mut self, index: usize, destination: &Destination, key: &str, name: WalName, damaged: bool) {
        self.harmed.insert(name);
        self.damaged.remove(&(index, key.to_owned()));
        if damaged {
            self.damaged.insert((index, key.to_owned()), destination.read(key));
        }
    }

    /// Something may have been done to one of its objects.
    pub fn harm_name(&mut self, name: WalName) {
        self.harmed.insert(name);
    }

    /// A server stores these where it can, while not every destination answers: what others removed
    /// from one leaves its name to this server there, though another one holds the right file.
    pub fn stored_unasked(&mut self, names: impl Iterator<Item = WalName>, destinations: &[Destination]) {
        if destinations.iter().any(|destination| destination.outage.is_some_and(|o| !o.answers())) {
            let harmed = names.filter(|name| self.harmed.contains(name));
            self.unasked.extend(harmed);
        }
    }

    /// What was repaired is damaged no more.
    pub fn look_again(&mut self, destinations: &[Destination]) {
        self.damaged.retain(|(index, key), bytes| destinations[*index].read(key) == *bytes);
    }

    pub fn is_damaged(&self, destination: usize, key: &str) -> bool {
        self.damaged.contains_key(&(destination, key.to_owned()))
    }

    pub fn expire(&mut self, goes: &dyn Fn(WalName) -> bool) {
        let gone: Vec<WalName> = self.acknowledged.keys().copied().filter(|name| goes(*name)).collect();
        self.expired.extend(gone);
    }

    pub fn is_expired(&self, name: WalName) -> bool {
        self.expired.contains(&name)
    }

    /// A server begins this timeline after a recovery that replayed, of an old timeline, what that one's server
    /// wrote behind the fork: the segment in which the new one begins was not archived yet, and PostgreSQL
    /// takes the whole old one (`XLogFileReadAnyTLI` compares where timelines begin, and nothing where
    /// they end). No archive can tell that from a recovery along the old timeline.
    pub fn goes_astray(&mut self, timeline: Timeline) {
        self.astray.insert(timeline);
    }

    /// Whether two servers chose the timeline, or one of its ancestors, each for a future of its own.
    pub fn is_contested(&self, log: &Log) -> bool {
        let ancestors = log.ancestors().iter().map(|(timeline, _)| *timeline);
        self.are_contested(&ancestors.chain([log.timeline()]).collect::<Vec<_>>())
    }

    /// The same of timelines.
    pub fn are_contested(&self, timelines: &[Timeline]) -> bool {
        // Two that were promoted at the same address have the same history, and other segments.
        self.produced.keys().any(|name| timelines.contains(&name.timeline()) && self.has_two_contents(*name))
    }

    /// Whether two servers finished the file, each with other bytes.
    fn has_two_contents(&self, name: WalName) -> bool {
        let contents = self.produced.get(&name).map(Vec::as_slice).unwrap_or_default();
        contents.iter().filter(|content| content.complete).count() > 1
    }

    /// `wal-push` ended with 0: the file is there, now.
    pub fn acknowledge(
        &mut self,
        name: WalName,
        content: &Arc<Content>,
        destinations: &[Destination],
    ) -> Result<(), Violation> {
        // What goes to another place than the archive is no promise about the archive, and comes to it by
        // others' hands.
        if destinations.iter().any(Destination::looks_whole) {
            self.harmed.insert(name);
            return Ok(());
        }
        let harmed = self.harmed.contains(&name);
        let before = self.acknowledged.entry(name).or_default();
        if harmed && !before.iter().any(|known| known.sum == content.sum) {
            before.clear(); // what was removed by others does not come back
        }
        let other = before.iter().find(|other| other.sum != content.sum && other.complete);
        if let (Some(_), true, false) = (other, content.complete, matches!(name, WalName::Partial(_))) {
            return Err(format!("two different \"{name}\" were acknowledged"));
        }
        if !before.iter().any(|known| known.sum == content.sum) {
            before.push(Arc::clone(content));
        }
        for (index, destination) in destinations.iter().enumerate() {
            // Whoever harms a bucket within minutes is documented: it is not asked a second time.
            if destination.sort != Sort::Directory && self.harmed.contains(&name) {
                continue;
            }
            if !self.holds(index, destination, name, content) {
                return Err(format!("\"{name}\" was acknowledged, and destination {index} does not hold it"));
            }
        }
        Ok(())
    }

    /// Whether the destination holds the file intact.
    fn holds(&self, index: usize, destination: &Destination, name: WalName, content: &Content) -> bool {
        let beside = !content.complete || matches!(name, WalName::Partial(_));
        let variant = destination.variant_of(name, &content.sum).filter(|_| beside);
        [destination.key_of(name)].into_iter().chain(variant).any(|key| {
            let there = destination.sum(&key);
            there.is_some_and(|(_, sum)| sum == content.sum.to_string()) && !self.is_damaged(index, &key)
        })
    }

    /// What some server wrote under that name, if these are its bytes.
    pub fn written(&self, name: WalName, bytes: &[u8]) -> Option<Arc<Content>> {
        self.produced.get(&name)?.iter().find(|content| content.image.is(bytes)).cloned()
    }

    /// `wal-fetch` ended with 0: these bytes, and no others.
    pub fn delivered(
        &self,
        name: WalName,
        bytes: &[u8],
        destinations: &[Destination],
    ) -> Result<Arc<Content>, Violation> {
        let Some(content) = self.written(name, bytes) else {
            return Err(format!("\"{name}\" was delivered with bytes that no server ever wrote"));
        };
        if matches!(name, WalName::Segment(_)) && !content.complete {
            return Err(format!("\"{name}\" was delivered cut short"));
        }
        let acknowledged = self.acknowledged.get(&name).map(Vec::as_slice).unwrap_or_default();
        // What others removed everywhere left its name to another server, which stores it ahead, too, and
        // its history together with a segment.
        let is_lost = |right: &Content| {
            self.unasked.contains(&name)
                || self.harmed.contains(&name)
                    && !(0..destinations.len())
                        .any(|index| self.holds(index, &destinations[index], name, right))
        };
        if let Some(right) = acknowledged.iter().find(|right| right.complete)
            && right.sum != content.sum
            && !is_lost(right)
        {
            return Err(format!("\"{name}\" was acknowledged with other bytes than were delivered"));
        }
        Ok(content)
    }

    /// `wal-fetch` ended with 1: nothing but `pg_wal` could satisfy the request.
    pub fn absent(&self, name: WalName, node: &Node, destinations: &[Destination]) -> Result<(), Violation> {
        let wrong = |why: String| Err(format!("\"{name}\" was answered with \"absent\", but {why}"));
        let size = node.log.size();
        for (index, destination) in destinations.iter().enumerate() {
            // Nothing tells an older copy of an archive from the archive, nor a mount point that was
            // archived into.
            if destination.looks_whole() {
                return Ok(());
            }
            if let Some(outage) = destination.outage.filter(|outage| !outage.answers()) {
                return wrong(format!("destination {index} is {outage:?}"));
            }
            let objects = destination.objects();
            if destination.read("archive.json").is_none() || objects.is_empty() {
                return wrong(format!("nothing shows that destination {index} is an archive"));
            }
            if let Some(key) = objects.iter().find(|(_, stored)| is_copy(stored, name)) {
                return wrong(format!("destination {index} holds \"{}\"", key.0));
            }
            let evidence = objects.iter().find(|(_, stored)| is_evidence(stored, name, size));
            if let Some((key, _)) = evidence {
                let excused = match name {
                    WalName::Segment(segment) => has_complete_copy(&node.pg_wal(), segment),
                    _ => name.timeline() <= node.own_timeline(),
                };
                if !excused {
                    return wrong(format!("destination {index} holds \"{key}\""));
                }
            }
        }
        if let WalName::Segment(segment) = name
            && let Some(history) = fork_behind(&node.pg_wal(), segment, size)
            && !has_complete_copy(&node.pg_wal(), segment)
        {
            return wrong(format!("by \"{history}\" in pg_wal its timeline goes on behind it"));
        }
        let acknowledged = self.acknowledged.get(&name).is_some_and(|all| all.iter().any(|one| one.complete));
        if acknowledged && !self.harmed.contains(&name) && !self.is_expired(name) {
            return wrong("it was acknowledged and nobody harmed it".to_owned());
        }
        Ok(())
    }

    /// `wal-fetch` ended with an error: something must be wrong.
    pub fn failed(&self, name: WalName, said: &str, destinations: &[Destination]) -> Result<(), Violation> {
        let out = destinations.iter().any(|destination| destination.outage.is_some_and(|o| !o.answers()));
        if out {
            return Ok(());
        }
        let intact = destinations.iter().enumerate().any(|(index, destination)| {
            let key = destination.key_of(name);
            destination.read(&key).is_some() && !self.is_damaged(index, &key)
        });
        match intact {
            true => Err(format!("\"{name}\" is there, intact, and was not delivered: {said}")),
            false => Ok(()),
        }
    }

    /// A recovery along this branch ended there, and the server was promoted.
    pub fn ended(
        &self,
        branch: &Branch,
        from: Lsn,
        end: Lsn,
        read: &[(SegmentName, Image)],
        destinations: &[Destination],
    ) -> Result<(), Violation> {
        if destinations.iter().any(Destination::looks_whole) {
            return Ok(());
        }
        let timelines: Vec<_> = branch.parts().map(|(timeline, _)| timeline).collect();
        if timelines.iter().any(|timeline| self.astray.contains(timeline)) {
            return Ok(());
        }
        // Two servers write one timeline, and others make room for the second: nothing can tell.
        if !self.harmed.is_empty() && self.are_contested(&timelines) {
            return Ok(());
        }
        // A clone was opened without a promotion, archived first, and a newer timeline left the other server's
        // future: PostgreSQL ends where its records do not go on from the clone's (`xl_prev`), and no archive can
        // tell before.
        let is_behind_another = |timeline: Timeline| {
            read.iter()
                .any(|(name, _)| name.timeline() < timeline && self.has_two_contents(WalName::Segment(*name)))
        };
        let size = SegmentSize::MIN;
        for (name, contents) in &self.acknowledged {
            let WalName::Segment(segment) = name else { continue };
            let (Some(number), Some(start)) = (segment.number(size), segment.start(size)) else { continue };
            let needed = branch.file(number, size) == *segment && number >= from.0 / size.bytes();
            // What was read is right, even where its only record goes on in the next segment.
            if !needed
                || end > start
                || read.iter().any(|(name, _)| name == segment)
                || !contents.iter().any(|content| content.complete)
                || is_behind_another(segment.timeline())
            {
                continue;
            }
            let there = destinations.iter().enumerate().any(|(index, destination)| {
                let key = destination.key_of(*name);
                destination.read(&key).is_some() && !self.is_damaged(index, &key)
            });
            if there || !(self.harmed.contains(name) || self.is_expired(*name)) {
                return Err(format!("recovery ended at {end}, but \"{name}\" was acknowledged"));
            }
        }
        Ok(())
    }

    /// Files of which a complete content was acknowledged.
    pub fn acknowledged(&self) -> impl Iterator<Item = (WalName, &Arc<Content>)> {
        let complete = |(name, contents): (&WalName, &'_ Vec<Arc<Content>>)| {
            contents.iter().position(|content| content.complete).map(|at| (*name, at))
        };
        let found: Vec<_> = self.acknowledged.iter().filter_map(complete).collect();
        found.into_iter().map(|(name, at)| (name, &self.acknowledged[&name][at]))
    }
}

fn is_copy(stored: &Stored, name: WalName) -> bool {
    matches!(stored, Stored::Wal(other, _) | Stored::Unknown(other, _) if *other == name)
}

/// Whether an object shows that the file asked for once was there, too.
fn is_evidence(stored: &Stored, asked: WalName, size: SegmentSize) -> bool {
    let Some(name) = stored.name() else { return false };
    match asked {
        WalName::Segment(segment) => name.segment().is_some_and(|other| {
            other.timeline() == segment.timeline() && other.number(size) > segment.number(size)
        }),
        WalName::TimelineHistory(timeline) => {
            name.timeline() == timeline && !matches!(name, WalName::TimelineHistory(_))
        }
        _ => false,
    }
}

fn has_complete_copy(pg_wal: &Path, segment: SegmentName) -> bool {
    let Ok(bytes) = fs::read(pg_wal.join(segment.to_string())) else { return false };
    let mut walker = Walker::new(Start::Anywhere);
    walker.begin(segment);
    walker.push(&bytes);
    walker.walk().complete
}

/// The history in `pg_wal` by which the segment's timeline was left at its end or later.
fn fork_behind(pg_wal: &Path, segment: SegmentName, size: SegmentSize) -> Option<WalName> {
    let end = segment.start(size)?.0 + size.bytes();
    for entry in fs::read_dir(pg_wal).ok()?.flatten() {
        let Ok(name) = entry.file_name().to_str()?.parse::<WalName>() else { continue };
        let WalName::TimelineHistory(timeline) = name else { continue };
        let Ok(history) = TimelineHistory::parse(timeline, &fs::read(entry.path()).ok()?) else { continue };
        let behind = |ancestor: &wal_archive::wal::history::Ancestor| {
            ancestor.timeline == segment.timeline() && ancestor.switch.0 >= end
        };
        if history.ancestors.iter().any(behind) {
            return Some(name);
        }
    }
    None
}
