//! A server that recovers from the archive, request by request.
//!
//! Source: PostgreSQL 15 `src/backend/access/transam/xlogrecovery.c` (`InitWalRecovery`,
//! `XLogFileReadAnyTLI`, `WaitForWALToBecomeAvailable`), `timeline.c` (`findNewestTimeLine`,
//! `readTimeLineHistory`), `xlog.c` (`StartupXLOG`).

use crate::node::Node;
use crate::oracle::{Content, Violation};
use crate::step::{Archiving, Snapshot, Target};
use crate::wal::{Image, Log};
use crate::world::{Got, World};
use std::fs;
use std::sync::Arc;
use wal_archive::wal::{Branch, Lsn, SegmentName, Start, Timeline, TimelineHistory, WalName, Walker};

/// What the recovery comes to.
pub enum Recovered {
    /// It replayed up to here, and the server would be promoted; the newest timeline it knows, and whether
    /// it went on along an old timeline behind the fork.
    Ended(Log, Timeline, bool),
    /// A request failed, or PostgreSQL itself refuses: the server stops and can be started again.
    Stopped,
}

/// The files a recovery read.
struct Read {
    walker: Walker,
    files: Vec<(SegmentName, Image)>,
}

impl World {
    /// `Restore`: a new server from a backup.
    pub fn restore(
        &mut self,
        backup: u8,
        name: char,
        snapshot: Snapshot,
        target: Target,
        archiving: Archiving,
    ) -> Result<(), Violation> {
        if self.nodes.contains_key(&name) {
            return Ok(());
        }
        let Some(mut node) = self.prepared(backup, name, snapshot, archiving) else { return Ok(()) };
        let recovered = self.recover(&mut node, backup, target)?;
        if let Recovered::Ended(log, newest, astray) = recovered {
            node.log = log;
            self.promote(&mut node, newest, archiving);
            if astray {
                self.oracle.goes_astray(node.log.timeline());
            }
            self.nodes.insert(name, node);
        } else {
            let _ = fs::remove_dir_all(&node.data);
            node.drop_spool();
        }
        Ok(())
    }

    /// `Recover`: the same, and nothing is left of it.
    pub fn rehearse(&mut self, backup: u8, snapshot: Snapshot, target: Target) -> Result<(), Violation> {
        let Some(mut node) = self.prepared(backup, '_', snapshot, Archiving::Off) else { return Ok(()) };
        let outcome = self.recover(&mut node, backup, target);
        let _ = fs::remove_dir_all(&node.data);
        node.drop_spool();
        outcome.map(drop)
    }

    /// From the first backup along every timeline that anybody acknowledged.
    pub fn recover_everything(&mut self) -> Result<(), Violation> {
        let mut timelines: Vec<u32> =
            self.oracle.acknowledged().map(|(name, _)| name.timeline().get()).collect();
        timelines.dedup();
        timelines.sort_unstable();
        timelines.dedup();
        for backup in 0..self.backups.len().min(1) {
            for timeline in &timelines {
                self.rehearse(backup as u8, Snapshot::Nothing, Target::Timeline(*timeline))?;
            }
            self.rehearse(backup as u8, Snapshot::Nothing, Target::Latest)?;
        }
        Ok(())
    }

    /// The data directory of a server that is about to recover.
    pub fn prepared(
        &mut self,
        backup: u8,
        name: char,
        snapshot: Snapshot,
        archiving: Archiving,
    ) -> Option<Node> {
        let index = usize::from(backup).checked_rem(self.backups.len())?;
        let backup = &self.backups[index];
        let mut node = Node::new(self.base(), name, backup.log.clone(), None, archiving);
        fs::write(node.data.join("backup_label"), backup.base.label_file()).unwrap();
        fs::write(node.data.join("recovery.signal"), "").unwrap();
        if snapshot == Snapshot::Nothing {
            return Some(node);
        }
        let (files, current) = (backup.files.clone(), backup.current.clone());
        for (name, content, status) in files {
            node.put(name, &content);
            node.set_status(name, status.filter(|_| snapshot == Snapshot::Whole));
        }
        if let Some((segment, image)) = current {
            let content = self.oracle.produce(WalName::Segment(segment), image, false);
            node.put(WalName::Segment(segment), &content);
        }
        Some(node)
    }

    pub fn recover(&mut self, node: &mut Node, backup: u8, target: Target) -> Result<Recovered, Violation> {
        let backup = self.backups[usize::from(backup) % self.backups.len()].base.clone();
        let wanted = match target {
            Target::Current => backup.timeline,
            Target::Timeline(id) => Timeline::new(id).unwrap(),
            Target::Latest => match self.newest_timeline(node, false)? {
                Some(newest) => newest,
                None => return Ok(Recovered::Stopped),
            },
        };
        let Some(history) = self.history(node, wanted)? else { return Ok(Recovered::Stopped) };
        let branch = history.as_ref().map_or(Branch::without_history(wanted), Branch::of);
        if !branch.passes(backup.timeline, backup.start) {
            return Ok(Recovered::Stopped); // "requested timeline is not a child of this server's history"
        }
        let Some(read) = self.replay(node, &branch, backup.start)? else { return Ok(Recovered::Stopped) };
        let walk = read.walker.walk();
        let (Some(end), Some(last)) = (walk.end, walk.last) else {
            // The backup of a server that lost its timeline to another one leads nowhere, and says so.
            let timelines: Vec<_> = branch.parts().map(|(timeline, _)| timeline).collect();
            if self.oracle.are_contested(&timelines) {
                return Ok(Recovered::Stopped);
            }
            self.oracle.ended(&branch, backup.start, Lsn(0), &read.files, &self.destinations)?;
            return Ok(Recovered::Stopped); // "could not locate required checkpoint record"
        };
        self.oracle.ended(&branch, backup.start, end, &read.files, &self.destinations)?;
        if end < backup.stop {
            return Ok(Recovered::Stopped); // "WAL ends before end of online backup"
        }
        let ancestors = history.into_iter().flat_map(|history| history.ancestors);
        let ancestors = ancestors.map(|ancestor| (ancestor.timeline, ancestor.switch)).collect();
        let of = (node.log.system_id(), node.log.size());
        node.log = Log::recovered(of, wanted, ancestors, &read.files, last, end);
        // The end of recovery asks for the last segment again, and for the newest timeline.
        if let Some((name, _)) = read.files.last()
            && matches!(self.fetch(node, WalName::Segment(*name))?, Got::Failed)
        {
            return Ok(Recovered::Stopped);
        }
        let Some(newest) = self.newest_timeline(node, false)? else { return Ok(Recovered::Stopped) };
        let read = read.files.last().map(|(name, _)| name.timeline());
        let astray = branch.parts().any(|(timeline, begin)| Some(timeline) > read && begin < end);
        Ok(Recovered::Ended(node.log.clone(), newest, astray))
    }

    /// `readTimeLineHistory`. `None`: the server stops; `Some(None)`: the timeline has no ancestors.
    fn history(
        &mut self,
        node: &mut Node,
        timeline: Timeline,
    ) -> Result<Option<Option<TimelineHistory>>, Violation> {
        if timeline == Timeline::FIRST {
            return Ok(Some(None));
        }
        let name = WalName::TimelineHistory(timeline);
        let content = match self.fetch(node, name)? {
            Got::File(content) => {
                node.put(name, &content);
                node.notify_as_standby(name);
                content
            }
            Got::Absent => match node.files.get(&name) {
                Some(content) => Arc::clone(content),
                None => return Ok(None), // "recovery target timeline does not exist"
            },
            Got::Failed => return Ok(None),
        };
        Ok(Some(TimelineHistory::parse(timeline, &content.image.bytes()).ok()))
    }

    /// Reads segments until the records end. `None`: the server stops.
    fn replay(&mut self, node: &mut Node, branch: &Branch, from: Lsn) -> Result<Option<Read>, Violation> {
        let size = node.log.size();
        let mut read = Read { walker: Walker::new(Start::At(from)), files: Vec::new() };
        let mut current = branch.parts().last().map_or(Timeline::FIRST, |(timeline, _)| timeline);
        for number in from.0 / size.bytes().. {
            let mut found = None;
            for (timeline, begin) in branch.parts().collect::<Vec<_>>() {
                if begin.0 / size.bytes() > number {
                    continue;
                }
                if timeline < current {
                    break;
                }
                let segment = SegmentName::numbered(timeline, number, size);
                match self.segment(node, segment)? {
                    Got::File(content) => {
                        found = Some((segment, content));
                        break;
                    }
                    Got::Absent => {}
                    Got::Failed => return Ok(None),
                }
            }
            let Some((segment, content)) = found else { break };
            current = segment.timeline();
            read.walker.begin(segment);
            let more = read.walker.push(&content.image.bytes());
            read.files.push((segment, content.image.clone()));
            if !more {
                break;
            }
        }
        Ok(Some(read))
    }

    /// The archive's copy, else that of `pg_wal`.
    fn segment(&mut self, node: &mut Node, segment: SegmentName) -> Result<Got, Violation> {
        let name = WalName::Segment(segment);
        match self.fetch(node, name)? {
            Got::File(content) => {
                node.put(name, &content);
                node.notify_as_standby(name);
                Ok(Got::File(content))
            }
            Got::Absent => Ok(local(node.files.get(&name))),
            Got::Failed => Ok(Got::Failed),
        }
    }
}

fn local(content: Option<&Arc<Content>>) -> Got {
    content.map_or(Got::Absent, |content| Got::File(Arc::clone(content)))
}
