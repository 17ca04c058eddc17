//! What an administrator runs: `wal-archive verify`, `check`, `drain`, `copy` and `expire`, each judged.

use crate::destination::{Outage, Sort};
use crate::node::Node;
use crate::oracle::Violation;
use crate::programs;
use crate::recovery::Recovered;
use crate::step::{Archiving, Snapshot, Target};
use crate::world::World;
use std::fs;
use std::time::{Duration, SystemTime};
use wal_archive::check::State;
use wal_archive::finding::{Finding, FindingKind};
use wal_archive::object::Stored;
use wal_archive::verify::{Recoverable, Verified};
use wal_archive::wal::{Lsn, SegmentName, SegmentSize, WalName};

impl World {
    fn place(&self, index: usize) -> String {
        self.destinations[index].open().place().to_owned()
    }

    fn all_answer(&self) -> bool {
        self.destinations.iter().all(|destination| destination.outage.is_none())
    }

    /// `verify --records` finds exactly what was done to the archive, and names the end that a
    /// recovery reaches.
    pub fn verify(&mut self) -> Result<(), Violation> {
        let nothing = self.destinations.iter().any(|destination| destination.objects().is_empty());
        if !self.all_answer() || nothing {
            return Ok(());
        }
        // An hour later: nothing that is missing is just on its way.
        let now = SystemTime::now() + Duration::from_secs(3600);
        let storages: Vec<_> = self.destinations.iter().map(|destination| destination.open()).collect();
        let report = programs::verify(&storages, now)?;
        for index in 0..self.destinations.len() {
            self.damage_is_found(index, &report)?;
            self.losses_are_found(index, &report)?;
        }
        for recoverable in &report.recoverable {
            self.end_is_reached(recoverable, &report)?;
        }
        Ok(())
    }

    fn damage_is_found(&self, index: usize, report: &Verified) -> Result<(), Violation> {
        let place = self.place(index);
        let found = |finding: &&Finding| finding.kind == FindingKind::Damaged && finding.place == place;
        let damaged: Vec<&Finding> = report.findings.iter().filter(found).collect();
        let mut explained = vec![false; damaged.len()];
        for (key, stored) in self.destinations[index].objects() {
            if !self.oracle.is_damaged(index, &key) {
                continue;
            }
            let name = stored.name().unwrap().to_string();
            let mut seen = false;
            for (finding, explained) in damaged.iter().zip(&mut explained) {
                let is_it = finding.name == name || finding.name.ends_with(&key);
                *explained |= is_it;
                seen |= is_it;
            }
            if !seen {
                let found = &report.findings;
                return Err(format!(
                    "verify does not find the damage of \"{key}\" in destination {index}, but {found:?}"
                ));
            }
        }
        match damaged.iter().zip(explained).find(|(_, explained)| !explained) {
            Some((finding, _)) => {
                Err(format!("verify calls \"{}\" damaged, which it is not: {}", finding.name, finding.reason))
            }
            None => Ok(()),
        }
    }

    /// What is missing between a backup and a later segment of its timeline.
    fn losses_are_found(&self, index: usize, report: &Verified) -> Result<(), Violation> {
        let (place, size) = (self.place(index), SegmentSize::MIN);
        let of_kind = |kind| {
            let here = move |finding: &&Finding| finding.kind == kind;
            report.findings.iter().filter(here).filter(|finding| finding.place == place)
        };
        let objects = self.destinations[index].objects();
        let segments: Vec<SegmentName> = objects
            .iter()
            .filter(|(key, _)| !self.oracle.is_damaged(index, key))
            .filter_map(|(_, stored)| match stored {
                Stored::Wal(WalName::Segment(segment), _) => Some(*segment),
                _ => None,
            })
            .collect();
        for finding in of_kind(FindingKind::Missing) {
            let (first, last) = finding.name.split_once("..").unwrap_or((&finding.name, &finding.name));
            let (Ok(first), Ok(last)) = (first.parse::<SegmentName>(), last.parse::<SegmentName>()) else {
                continue;
            };
            if let Some(there) = segments.iter().find(|segment| (first..=last).contains(segment)) {
                return Err(format!(
                    "verify says that \"{there}\" is missing, which is in destination {index}"
                ));
            }
        }
        let known: Vec<&crate::wal::BaseBackup> = self
            .backups
            .iter()
            .map(|backup| &backup.base)
            .filter(|base| {
                let key = self.destinations[index].key_of(base.history_name().parse().unwrap());
                objects.contains_key(&key) && !self.oracle.is_damaged(index, &key)
            })
            .collect();
        for (name, _) in self.oracle.acknowledged() {
            let WalName::Segment(segment) = name else { continue };
            let key = self.destinations[index].key_of(name);
            let later = segments.iter().any(|s| s.timeline() == segment.timeline() && *s > segment);
            let needed = known
                .iter()
                .any(|base| base.timeline == segment.timeline() && base.start_segment() <= segment);
            if objects.contains_key(&key) || !later || !needed || self.oracle.is_expired(name) {
                continue;
            }
            let number = segment.number(size);
            let told = of_kind(FindingKind::Missing).any(|finding| {
                let (first, last) = finding.name.split_once("..").unwrap_or((&finding.name, &finding.name));
                let number_of = |text: &str| text.parse::<SegmentName>().ok().and_then(|s| s.number(size));
                number_of(first) <= number && number <= number_of(last)
            });
            if !told {
                return Err(format!("verify does not say that \"{name}\" is missing in destination {index}"));
            }
        }
        for segment in &segments {
            let timeline = segment.timeline();
            let key = self.destinations[index].key_of(WalName::TimelineHistory(timeline));
            // Of the lowest one that is there, the archive may have begun on it.
            let began_earlier =
                objects.values().filter_map(Stored::name).any(|name| name.timeline() < timeline);
            if began_earlier
                && !objects.contains_key(&key)
                && of_kind(FindingKind::NoHistory).next().is_none()
            {
                return Err(format!("verify does not say that the history of {timeline} is missing"));
            }
        }
        Ok(())
    }

    fn end_is_reached(&mut self, said: &Recoverable, report: &Verified) -> Result<(), Violation> {
        let Some(label) = &said.label else { return Ok(()) };
        let Some(backup) = self.backups.iter().position(|backup| backup.base.label == *label) else {
            return Ok(());
        };
        let target = Target::Timeline(said.timeline.get());
        let mut reached = self.try_recovery(backup as u8, target)?;
        let must_end = report.findings.is_empty() && said.consistent && said.complete;
        if reached.is_none() && must_end {
            reached = self.patiently(|world| world.try_recovery(backup as u8, target))?;
        }
        match (reached, said.end) {
            (Some(end), Some(said)) if end != said => {
                Err(format!("verify says that \"{label}\" recovers to {said}, and a recovery reaches {end}"))
            }
            (None, _) if must_end => Err(format!(
                "verify says that \"{label}\" recovers on timeline {}, and it does not: {}",
                said.timeline, self.last_failure
            )),
            _ => Ok(()),
        }
    }

    /// Where a recovery along a timeline ends; `None` where it does not.
    pub fn try_recovery(&mut self, backup: u8, target: Target) -> Result<Option<Lsn>, Violation> {
        let Some(mut node) = self.prepared(backup, '_', Snapshot::Nothing, Archiving::Off) else {
            return Ok(None);
        };
        let outcome = self.recover(&mut node, backup, target);
        let _ = fs::remove_dir_all(&node.data);
        node.drop_spool();
        Ok(match outcome? {
            Recovered::Ended(log, ..) => Some(log.end()),
            Recovered::Stopped => None,
        })
    }

    /// `check` is critical where the next push would fail, or something acknowledged is gone.
    pub fn check(&mut self, server: char) -> Result<(), Violation> {
        let Some(node) = self.nodes.get(&server) else { return Ok(()) };
        let places: Vec<_> = self
            .destinations
            .iter()
            .map(|one| (one.open(), (one.sort == Sort::Directory).then(|| one.root().to_owned())))
            .collect();
        let (state, said) = programs::check(places, &node.data);
        let broken = self.destinations.iter().position(|destination| destination.outage.is_some());
        let alarm = matches!(state, State::Critical | State::Unknown);
        if let Some(index) = broken
            && !alarm
            && self.shows(index, server)
        {
            let outage = self.destinations[index].outage;
            return Err(format!("check is {state:?} while destination {index} is {outage:?}: {said}"));
        }
        match self.lost_behind(server) {
            Some((name, index)) if !alarm => Err(format!(
                "check is {state:?} though server {server} archived \"{name}\" and destination {index} lacks it: {said}"
            )),
            _ => Ok(()),
        }
    }

    /// Whether the outage can be seen: where nothing was archived, nothing is missed.
    fn shows(&self, index: usize, server: char) -> bool {
        match self.destinations[index].outage {
            Some(Outage::Swapped | Outage::EmptyFolder) => false, // see `lost_behind`
            Some(Outage::Dangling) => self.last_done(server).is_some(),
            outage => outage.is_some(),
        }
    }

    /// The newest segment that a primary archived, by its status files.
    fn last_done(&self, server: char) -> Option<WalName> {
        let node = self.nodes.get(&server).filter(|node| node.upstream.is_none())?;
        let done = |name: &&WalName| matches!(name, WalName::Segment(_)) && node.is_done(**name);
        let of_its_own = |name: &&WalName| name.timeline() == node.log.timeline();
        node.files.keys().filter(of_its_own).rfind(done).copied()
    }

    /// The newest file that a server takes for archived, and a destination that lacks it.
    fn lost_behind(&self, server: char) -> Option<(WalName, usize)> {
        let name = self.last_done(server).filter(|name| !self.oracle.is_expired(*name))?;
        let key = self.destinations.first()?.key_of(name);
        // What is older than everything there may have been archived before that place was one.
        let number = |name: WalName| name.segment().and_then(|segment| segment.number(SegmentSize::MIN));
        let lacks = |destination: &crate::destination::Destination| {
            let objects = destination.objects();
            let oldest = objects.values().filter_map(|stored| number(stored.name()?)).min();
            destination.read(&key).is_none() && oldest.is_none_or(|oldest| Some(oldest) <= number(name))
        };
        self.destinations.iter().position(lacks).map(|index| (name, index))
    }

    /// The server is dead; what it still holds is brought into the archive, and it is gone.
    pub fn drain(&mut self, server: char) -> Result<(), Violation> {
        let Some(node) = self.nodes.remove(&server) else { return Ok(()) };
        let outcome = self.drain_of(&node);
        let _ = fs::remove_dir_all(&node.data);
        node.drop_spool();
        outcome
    }

    fn drain_of(&mut self, node: &Node) -> Result<(), Violation> {
        let current = node.save_current();
        self.oracle.stored_unasked(node.files.keys().copied(), &self.destinations);
        for name in self.run(|world| programs::drain(&world.site(node))).0 {
            let content = match name {
                WalName::Partial(segment)
                    if current.as_ref().is_some_and(|(name, _)| *name == segment)
                        && !node.files.contains_key(&name) =>
                {
                    let image = current.as_ref().unwrap().1.clone();
                    self.oracle.produce(name, image, false)
                }
                WalName::Partial(segment) if !node.files.contains_key(&name) => {
                    let image = node.files[&WalName::Segment(segment)].image.clone();
                    self.oracle.produce(name, image, false)
                }
                name => match node.files.get(&name) {
                    Some(content) => content.clone(),
                    None => return Err(format!("drain stored \"{name}\", which it should not")),
                },
            };
            self.oracle.acknowledge(name, &content, &self.destinations)?;
        }
        Ok(())
    }

    /// `wal-archive copy`, with or without `--repair`.
    pub fn copy(&mut self, from: u8, to: u8, repair: bool) {
        let (from, to) =
            (usize::from(from) % self.destinations.len(), usize::from(to) % self.destinations.len());
        if from == to || !self.all_answer() {
            return;
        }
        self.run(|world| {
            programs::copy(&world.destinations[from].open(), &world.destinations[to].open(), repair);
        });
        let destinations = &self.destinations;
        self.oracle.look_again(destinations);
    }

    /// `wal-archive expire`: only the newest backups are kept.
    pub fn expire(&mut self, keep: u8) {
        if !self.all_answer() {
            return;
        }
        let storages: Vec<_> = self.destinations.iter().map(|destination| destination.open()).collect();
        let (plan, _) = self.run(|_| programs::expire(&storages, usize::from(keep) + 1));
        if let Some(plan) = plan {
            self.oracle.expire(&|name| plan.deletes(name).is_some());
            self.oracle.look_again(&self.destinations);
            let kept: Vec<_> = self.backups.drain(..).collect();
            let stays = |base: &crate::wal::BaseBackup| {
                plan.deletes(WalName::Segment(base.start_segment())).is_none()
            };
            self.backups = kept.into_iter().filter(|backup| stays(&backup.base)).collect();
        }
    }
}
