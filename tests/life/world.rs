//! The world of one life: servers, destinations, backups, and the oracle beside them.

use crate::commands::Commands;
use crate::destination::{Destination, Outage, Sort};
use crate::node::{Node, Status};
use crate::oracle::{Content, Oracle, Violation};
use crate::programs::{self, Fetched, Pushed, Site};
use crate::step::{Archiving, Life, Programs, Step};
use crate::wal::{BaseBackup, Image, Log};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use wal_archive::wal::{SegmentName, SegmentSize, SystemId, Timeline, WalName};

pub const CLUSTER: SystemId = SystemId(7_710_362_819_239_716_105);

/// How long a request may take of which the answer is no surprise, and one of which it is.
const HASTE: Duration = Duration::from_millis(900);
const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    folder: TempDir,
    life: Life,
    pub nodes: BTreeMap<char, Node>,
    pub destinations: Vec<Destination>,
    pub backups: Vec<Backup>,
    pub oracle: Oracle,
    kill_next: Option<(usize, u8)>,
    /// How long a request may take.
    haste: Duration,
    /// Why the last request that failed did.
    pub last_failure: String,
    /// What others removed, while it was intact: destination, key, content.
    removed: Vec<(usize, String, Vec<u8>)>,
    /// Seconds, so that no two commits are the same.
    clock: u64,
}

/// A base backup, and what lay in `pg_wal` when it was made.
pub struct Backup {
    pub base: BaseBackup,
    pub log: Log,
    /// With their status files.
    pub files: Vec<(WalName, Arc<Content>, Option<Status>)>,
    /// The segment that was being written.
    pub current: Option<(SegmentName, Image)>,
}

/// Says what happens, where `WAL_ARCHIVE_LIFE_TRACE` is set.
fn trace(what: impl FnOnce() -> String) {
    if std::env::var_os("WAL_ARCHIVE_LIFE_TRACE").is_some() {
        eprintln!("{}", what());
    }
}

/// Memory where there is some: no test of a life is about a disk.
fn place() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

impl World {
    pub fn new(life: &Life) -> Self {
        let folder = tempfile::Builder::new().prefix("wal-archive-life.").tempdir_in(place()).unwrap();
        let destinations: Vec<_> = life
            .destinations
            .iter()
            .enumerate()
            .map(|(number, sort)| {
                Destination::new(folder.path(), number, *sort, life.programs == Programs::Encrypted)
            })
            .collect();
        let size = SegmentSize::MIN;
        for destination in &destinations {
            programs::init(&destination.open(), CLUSTER, size);
        }
        let log = Log::new(CLUSTER, size);
        let first = Node::new(folder.path(), 'A', log, None, Archiving::On);
        World {
            folder,
            life: Life { steps: Vec::new(), ..life.clone() },
            nodes: BTreeMap::from([('A', first)]),
            destinations,
            backups: Vec::new(),
            oracle: Oracle::default(),
            kill_next: None,
            haste: HASTE,
            last_failure: String::new(),
            removed: Vec::new(),
            clock: 0,
        }
    }

    pub fn base(&self) -> &Path {
        self.folder.path()
    }

    pub fn now(&mut self) -> SystemTime {
        self.clock += 1;
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000 + self.clock)
    }

    fn push(&self, server: char, name: WalName, look_ahead: u8) -> Pushed {
        let node = &self.nodes[&server];
        let outcome = match self.life.programs {
            Programs::Library | Programs::Encrypted => self.site(node).push(name, look_ahead.into()),
            Programs::Real => Commands::new(&node.data, &self.destinations).push(name, look_ahead.into()),
        };
        trace(|| format!("  push by {server}: {name}: {outcome:?}"));
        outcome
    }

    fn ask(&self, node: &Node, name: WalName, to: &str, timeout: Duration) -> Fetched {
        let outcome = match self.life.programs {
            Programs::Library | Programs::Encrypted => self.site(node).fetch(name, to, timeout),
            Programs::Real => Commands::new(&node.data, &self.destinations).fetch(name, to, timeout),
        };
        trace(|| format!("  fetch: {name}: {outcome:?}"));
        outcome
    }

    pub fn site(&self, node: &Node) -> Site {
        Site {
            data: node.data.clone(),
            spool: node.spool,
            destinations: self.destinations.iter().map(Destination::open).collect(),
        }
    }

    /// Runs a step; a violation ends the life.
    pub fn apply(&mut self, step: &Step) -> Result<(), Violation> {
        trace(|| format!("{step:?}"));
        match *step {
            Step::Write(server, count) => self.write(server, |log, now| {
                (0..count).for_each(|_| {
                    log.noop(200);
                    log.commit(now);
                });
            }),
            Step::Fill(server) => self.write(server, |log, _| log.fill()),
            Step::Switch(server) => self.write(server, |log, _| {
                let _ = log.switch();
            }),
            Step::Checkpoint(server) => self.checkpoint(server),
            Step::Backup(server) => self.backup(server),
            Step::CopyWal { of, backup } => {
                if let (Some(node), Some(index)) =
                    (self.nodes.get(&of), usize::from(backup).checked_rem(self.backups.len()))
                {
                    let current = node.received.current_image();
                    let backup = &mut self.backups[index];
                    backup.current = current.map(|image| (node.received.current(), image));
                    backup.files = node.listed();
                }
            }
            Step::Archive { server, files, look_ahead } => self.archive(server, files, look_ahead)?,
            Step::ArchiveKilled { server, look_ahead, destination, requests } => {
                let index = usize::from(destination) % self.destinations.len();
                if self.life.programs == Programs::Real {
                    return self.kill(server, look_ahead, requests);
                }
                self.destinations[index].kill_after(Some(requests));
                let outcome = self.archive(server, 1, look_ahead);
                self.destinations[index].kill_after(None);
                outcome?;
            }
            Step::Standby { of, name, archiving } => self.standby(of, name, archiving),
            Step::Clone { of, name, spool, standby } => self.clone_server(of, name, spool, standby),
            Step::Stream { server, replay } => self.stream(server, replay),
            Step::Promote { server, archiving, blind } => self.promote_standby(server, archiving, blind)?,
            Step::SetArchiving(server, archiving) => {
                if let Some(node) = self.nodes.get_mut(&server) {
                    node.archiving = archiving;
                }
            }
            Step::Lose(server) => {
                if let Some(node) = self.nodes.remove(&server) {
                    let _ = fs::remove_dir_all(&node.data);
                    node.drop_spool();
                }
            }
            Step::Restore { backup, name, snapshot, target, archiving } => {
                self.restore(backup, name, snapshot, target, archiving)?;
            }
            Step::Recover { backup, snapshot, target } => self.rehearse(backup, snapshot, target)?,
            Step::Fail(destination, outage) => {
                let index = usize::from(destination) % self.destinations.len();
                let outage = match (self.life.programs, outage) {
                    // What a wrapper of the library does.
                    (Programs::Real, Outage::Unreachable | Outage::Denied | Outage::Full) => Outage::NoRoot,
                    (_, outage) => outage,
                };
                self.fail(index, outage);
            }
            Step::Heal => self.heal(),
            Step::Damage { destination, object } => self.damage(destination, object),
            Step::Remove { destination, object } => self.remove(destination, object),
            Step::RemoveEverywhere { object } => self.remove_everywhere(object),
            Step::Quarantine { destination, object } => self.quarantine(destination, object),
            Step::Verify => self.verify()?,
            Step::Check(server) => self.check(server)?,
            Step::Drain(server) => self.drain(server)?,
            Step::Copy { from, to, repair } => self.copy(from, to, repair),
            Step::Expire { more } => self.expire(more),
            Step::Unconditional(destination, unconditional) => {
                let index = usize::from(destination) % self.destinations.len();
                self.destinations[index].bucket().unconditional.store(unconditional, Ordering::Relaxed);
            }
            Step::DropSpool(server) => {
                if let Some(node) = self.nodes.get(&server) {
                    node.drop_spool();
                }
            }
            Step::SetSpool(server, spool) => {
                if let Some(node) = self.nodes.get_mut(&server) {
                    node.spool = spool;
                }
            }
            Step::KillNext { destination, requests } => {
                self.kill_next = Some((usize::from(destination) % self.destinations.len(), requests));
            }
            Step::Jump(hours) => self.jump(hours),
        }
        Ok(())
    }

    fn write(&mut self, server: char, change: impl FnOnce(&mut Log, SystemTime)) {
        let now = self.now();
        let Some(mut node) = self.nodes.remove(&server) else { return };
        if node.upstream.is_none() {
            change(&mut node.log, now);
            self.publish(&mut node);
        }
        self.nodes.insert(server, node);
    }

    /// The segments that a primary finished go to `pg_wal` and to the archiver.
    pub fn publish(&mut self, node: &mut Node) {
        let (own, size) = (node.log.timeline(), node.log.size());
        let new = |name: &SegmentName| name.timeline() == own && name.number(size) >= Some(node.unfinished);
        let finished: Vec<_> = node
            .log
            .finished()
            .iter()
            .filter(|(name, _)| new(name))
            .map(|(name, image)| (*name, image.clone()))
            .collect();
        for (name, image) in finished {
            let name = WalName::Segment(name);
            let content = self.oracle.produce(name, image, true);
            node.put(name, &content);
            node.notify_where_archiving(name);
        }
        node.unfinished = node.log.current().number(size).unwrap();
        node.received = node.log.clone();
    }

    fn checkpoint(&mut self, server: char) {
        let now = self.now();
        let Some(mut node) = self.nodes.remove(&server) else { return };
        if node.upstream.is_none() {
            node.log.checkpoint(now);
            self.publish(&mut node);
        }
        let archives = archives(&node);
        let current = node.log.current().number(node.log.size());
        let old: Vec<WalName> = node.files.keys().copied().collect();
        for name in old {
            let WalName::Segment(segment) = name else { continue };
            if segment.number(node.log.size()) >= current {
                continue;
            }
            match archives {
                true if node.is_done(name) => node.remove(name),
                true if node.has_status(name) => {}
                true => node.notify(name),
                false => node.remove(name),
            }
        }
        node.save();
        self.nodes.insert(server, node);
    }

    fn backup(&mut self, server: char) {
        let now = self.now();
        let Some(mut node) = self.nodes.remove(&server) else { return };
        if node.upstream.is_none() {
            node.log.checkpoint(now);
            let start = node.log.redo();
            let (timeline, size) = (node.log.timeline(), node.log.size());
            node.log.noop(40);
            let stop = node.log.end();
            // "pg_backup_stop" ends the segment before it writes the backup history file.
            node.log.switch();
            let log = node.log.clone();
            let label = format!("backup {}", self.backups.len());
            let base = BaseBackup { label, timeline, size, start, stop };
            self.publish(&mut node);
            let name: WalName = base.history_name().parse().unwrap();
            let image = Image::of(base.history().as_bytes());
            let content = self.oracle.produce(name, image, true);
            node.put(name, &content);
            node.notify_where_archiving(name);
            self.backups.push(Backup { base, log, files: node.listed(), current: None });
        }
        self.nodes.insert(server, node);
    }

    fn archive(&mut self, server: char, files: u8, look_ahead: u8) -> Result<(), Violation> {
        let Some(node) = self.nodes.get(&server) else { return Ok(()) };
        if !archives(node) {
            return Ok(());
        }
        if look_ahead > 0 {
            // A mark is left for files only that have not changed for a tick of the clock.
            std::thread::sleep(Duration::from_millis(25));
        }
        self.oracle.stored_unasked(node.files.keys().copied(), &self.destinations);
        for _ in 0..files {
            let Some(name) = node.ready().first().copied() else { break };
            match self.push(server, name, look_ahead) {
                Pushed::Stored => {
                    let content = &node.files[&name];
                    self.oracle.acknowledge(name, content, &self.destinations)?;
                    node.done(name);
                }
                Pushed::Refused { .. } => break,
            }
        }
        Ok(())
    }

    /// The archiver's command is killed; it never answered.
    fn kill(&self, server: char, look_ahead: u8, moment: u8) -> Result<(), Violation> {
        let Some(node) = self.nodes.get(&server) else { return Ok(()) };
        if let Some(name) = node.ready().first().copied().filter(|_| archives(node)) {
            let after = Duration::from_micros(u64::from(moment) * 1500);
            Commands::new(&node.data, &self.destinations).push_killed(name, look_ahead.into(), after);
        }
        Ok(())
    }

    fn standby(&mut self, of: char, name: char, archiving: Archiving) {
        let Some(upstream) = self.nodes.get(&of).filter(|_| !self.nodes.contains_key(&name)) else { return };
        let log = upstream.log.clone();
        let mut node = Node::new(self.base(), name, log, Some(of), archiving);
        for (name, content) in &upstream.files {
            if matches!(name, WalName::TimelineHistory(_)) {
                node.put(*name, content);
                node.done(*name);
            }
        }
        self.nodes.insert(name, node);
    }

    fn clone_server(&mut self, of: char, name: char, spool: bool, standby: bool) {
        let Some(source) = self.nodes.get(&of).filter(|_| !self.nodes.contains_key(&name)) else { return };
        let upstream = standby.then_some(of);
        let mut node = Node::new(self.base(), name, source.log.clone(), upstream, source.archiving);
        for (file, content, status) in source.listed() {
            node.put(file, &content);
            node.set_status(file, status);
        }
        let from = programs::spool_of(&source.data);
        if spool && from.exists() {
            copy_folder(&from, &programs::spool_of(&node.data));
        }
        self.nodes.insert(name, node);
    }

    fn stream(&mut self, server: char, replay: bool) {
        let Some(mut node) = self.nodes.remove(&server) else { return };
        let source =
            node.upstream.and_then(|upstream| self.nodes.get(&upstream)).map(|up| match up.upstream {
                None => up.log.clone(),
                Some(_) => up.received.clone(),
            });
        if let Some(source) = source {
            self.receive(&mut node, source);
            if replay && node.log.is_beginning_of(&node.received) {
                node.log = node.received.clone();
            }
            node.save();
        }
        self.nodes.insert(server, node);
    }

    fn receive(&mut self, node: &mut Node, source: Log) {
        let own = node.received.timeline();
        if source.timeline() != own {
            let mut parent = source.parent();
            while let Some(log) = parent.filter(|log| log.timeline() != own) {
                parent = log.parent();
            }
            let Some(parent) = parent.cloned() else { return };
            if node.received.is_beginning_of(&parent) {
                self.receive_segments(node, &parent);
                node.received = parent;
            } else if !parent.is_beginning_of(&node.received) {
                return; // the upstream has no WAL from there on, so the timeline's end is not reached
            }
            // The receiver ends in the middle of a segment, and closes it.
            if let Some(image) = node.received.current_image() {
                let name = WalName::Segment(node.received.current());
                let older =
                    node.files.values().find(|content| content.complete && content.image.len() > 8192);
                let recycled = older.filter(|_| image.len() % 3 == 0).map(|older| image.over(&older.image));
                let content = self.oracle.produce(name, recycled.unwrap_or(image), false);
                node.put(name, &content);
                node.notify_as_standby(name);
            }
            self.take_histories(node, &source);
            if !node.log.is_beginning_of(&source) {
                return; // it cannot follow
            }
        } else if !node.received.is_beginning_of(&source) {
            return;
        }
        self.receive_segments(node, &source);
        node.received = source;
    }

    fn receive_segments(&mut self, node: &mut Node, source: &Log) {
        let from = node.received.current().number(source.size());
        let own = source.timeline();
        for (name, image) in source.finished() {
            let file = WalName::Segment(*name);
            let new = name.timeline() == own && !node.files.contains_key(&file);
            if new && (name.number(source.size()) >= from || own != node.received.timeline()) {
                let content = self.oracle.produce(file, image.clone(), true);
                node.put(file, &content);
                node.notify_as_standby(file);
            }
        }
    }

    /// A receiver asks its upstream for the histories before it asks for WAL.
    fn take_histories(&mut self, node: &mut Node, source: &Log) {
        let mut log = Some(source);
        while let Some(one) = log.filter(|one| one.timeline() > node.received.timeline()) {
            let name = WalName::TimelineHistory(one.timeline());
            if !node.files.contains_key(&name)
                && let Some(text) = one.history()
            {
                let content = self.oracle.produce(name, Image::of(text.as_bytes()), true);
                node.put(name, &content);
                node.notify_as_standby(name);
            }
            log = one.parent();
        }
    }

    fn promote_standby(&mut self, server: char, archiving: Archiving, blind: bool) -> Result<(), Violation> {
        let Some(mut node) = self.nodes.remove(&server) else { return Ok(()) };
        if node.upstream.is_none() {
            self.nodes.insert(server, node);
            return Ok(());
        }
        let newest = self.newest_timeline(&mut node, blind);
        if let Ok(Some(newest)) = newest {
            self.promote(&mut node, newest, archiving);
        }
        self.nodes.insert(server, node);
        newest.map(drop)
    }

    /// `findNewestTimeLine`; `None` where a request failed, which ends the server.
    pub fn newest_timeline(&mut self, node: &mut Node, blind: bool) -> Result<Option<Timeline>, Violation> {
        let mut newest = node.log.timeline();
        loop {
            let next = Timeline::new(newest.get() + 1).unwrap();
            let name = WalName::TimelineHistory(next);
            let there = match blind {
                true => Got::Absent,
                false => self.fetch(node, name)?,
            };
            match there {
                Got::File(_) => {}
                Got::Absent if node.files.contains_key(&name) => {}
                Got::Absent => return Ok(Some(newest)),
                Got::Failed => return Ok(None),
            }
            newest = next;
        }
    }

    /// The server leaves recovery on the timeline after the newest one that is known.
    pub fn promote(&mut self, node: &mut Node, newest: Timeline, archiving: Archiving) {
        let now = self.now();
        let old = node.log.clone();
        node.archiving = archiving;
        node.upstream = None;
        node.log = old.promoted(Timeline::new(newest.get() + 1).unwrap(), now);
        // `RemoveNonParentXlogFiles`: behind the segment of the last byte
        let size = old.size();
        let last = Some(old.end().0.saturating_sub(1) / size.bytes());
        let beyond: Vec<WalName> = node.files.keys().copied().collect();
        for name in beyond {
            if let WalName::Segment(segment) = name
                && segment.number(size) > last
                && !node.ready().contains(&name)
            {
                node.remove(name);
            }
        }
        if let Some(image) = old.current_image() {
            let segment = old.current();
            let full = WalName::Segment(segment);
            let name = match archiving {
                Archiving::Off => full,
                _ => WalName::Partial(segment),
            };
            if !node.has_status(full) {
                node.remove(full);
                let content = self.oracle.produce(name, image, false);
                node.put(name, &content);
                if archiving != Archiving::Off {
                    node.notify(name);
                }
            }
        }
        let name = WalName::TimelineHistory(node.log.timeline());
        let text = node.log.history().unwrap();
        let content = self.oracle.produce(name, Image::of(text.as_bytes()), true);
        node.put(name, &content);
        node.notify_where_archiving(name);
        node.received = node.log.clone();
        node.unfinished = old.current().number(size).unwrap();
        self.publish(node);
        node.save();
    }

    fn fail(&mut self, index: usize, outage: Outage) {
        let destination = &self.destinations[index];
        // Who empties a bucket removes objects.
        if destination.sort != Sort::Directory && matches!(outage, Outage::NoRoot | Outage::Empty) {
            for stored in destination.objects().values() {
                self.oracle.harm_name(stored.name().unwrap());
            }
        }
        self.destinations[index].set_outage(Some(outage));
    }

    /// Runs the command of an administrator, which may be killed; whether it was to be.
    pub fn run<T>(&mut self, command: impl FnOnce(&mut Self) -> T) -> (T, bool) {
        let kill = self.kill_next.take();
        if let Some((index, requests)) = kill {
            self.destinations[index].kill_after(Some(requests));
        }
        let outcome = command(self);
        self.destinations.iter().for_each(|destination| destination.kill_after(None));
        (outcome, kill.is_some())
    }

    fn heal(&mut self) {
        self.destinations.iter_mut().for_each(|destination| destination.set_outage(None));
    }

    fn chosen(&self, destination: usize, object: u8) -> Option<(String, WalName)> {
        let objects = self.destinations[destination].objects();
        let index = usize::from(object).checked_rem(objects.len())?;
        let (key, stored) = objects.into_iter().nth(index)?;
        Some((key, stored.name()?))
    }

    fn is_whole(&self, destination: usize) -> bool {
        self.destinations[destination].outage.is_none_or(Outage::answers)
    }

    fn damage(&mut self, destination: u8, object: u8) {
        let index = usize::from(destination) % self.destinations.len();
        if let Some((key, name)) = self.chosen(index, object).filter(|_| self.is_whole(index)) {
            let again = self.oracle.is_damaged(index, &key);
            if !again && self.destinations[index].damage(&key, u64::from(object) + 1) {
                self.oracle.harm(index, &self.destinations[index], &key, name, true);
            }
        }
    }

    fn remove(&mut self, destination: u8, object: u8) {
        let index = usize::from(destination) % self.destinations.len();
        if let Some((key, name)) = self.chosen(index, object).filter(|_| self.is_whole(index)) {
            self.take_away(index, &key);
            self.oracle.harm(index, &self.destinations[index], &key, name, false);
        }
    }

    fn remove_everywhere(&mut self, object: u8) {
        let whole = (0..self.destinations.len()).all(|index| self.is_whole(index));
        let Some((key, name)) = self.chosen(0, object).filter(|_| whole) else { return };
        for index in 0..self.destinations.len() {
            self.take_away(index, &key);
            self.oracle.harm(index, &self.destinations[index], &key, name, false);
        }
    }

    fn take_away(&mut self, index: usize, key: &str) {
        if let Some(bytes) = self.destinations[index].read(key)
            && !self.oracle.is_damaged(index, key)
        {
            self.removed.push((index, key.to_owned(), bytes));
        }
        self.destinations[index].remove(key);
    }

    fn quarantine(&mut self, destination: u8, object: u8) {
        let index = usize::from(destination) % self.destinations.len();
        let Some((_, name)) = self.chosen(index, object).filter(|_| self.is_whole(index)) else { return };
        let (moved, killed) =
            self.run(|world| programs::quarantine(&world.destinations[index].open(), &name.to_string()));
        if killed {
            self.oracle.harm_name(name); // it may be half done
        }
        for (key, name) in moved.unwrap_or_default() {
            self.oracle.harm(index, &self.destinations[index], &key, name, false);
        }
    }

    fn jump(&mut self, hours: i8) {
        self.destinations.iter().for_each(|destination| destination.age(hours));
        for node in self.nodes.values() {
            let _ = fs::remove_dir_all(programs::spool_of(&node.data).join("marks"));
        }
    }

    /// Does something that a slow machine must not fail.
    pub fn patiently<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        self.haste = PATIENCE;
        let outcome = work(self);
        self.haste = HASTE;
        outcome
    }

    /// One request of a server, judged.
    pub fn fetch(&mut self, node: &mut Node, name: WalName) -> Result<Got, Violation> {
        let to = match name {
            WalName::TimelineHistory(_) => "RECOVERYHISTORY",
            _ => "RECOVERYXLOG",
        };
        let path = node.pg_wal().join(to);
        let mut fetched = self.ask(node, name, to, self.haste);
        if let Fetched::Failed(said) = &fetched
            && self.oracle.failed(name, said, &self.destinations).is_err()
        {
            fetched = self.ask(node, name, to, PATIENCE); // the machine may be slow
        }
        let got = match fetched {
            Fetched::Delivered => {
                let bytes = fs::read(&path).unwrap();
                fs::remove_file(&path).unwrap();
                // While the archive is out, the server keeps to the histories that it has itself.
                let out = self.destinations.iter().any(|one| one.outage.is_some_and(|o| !o.answers()));
                let own = node.files.get(&name).filter(|own| own.image.is(&bytes));
                if let (WalName::TimelineHistory(_), true, Some(own)) = (name, out, own) {
                    return Ok(Got::File(Arc::clone(own)));
                }
                // What was archived into a place that looks like the archive is given from there.
                if self.destinations.iter().any(Destination::looks_whole)
                    && let Some(content) = self.oracle.written(name, &bytes)
                {
                    return Ok(Got::File(content));
                }
                Got::File(self.oracle.delivered(name, &bytes, &self.destinations)?)
            }
            Fetched::Absent => {
                self.oracle.absent(name, node, &self.destinations)?;
                Got::Absent
            }
            Fetched::Failed(said) => {
                self.oracle.failed(name, &said, &self.destinations)?;
                self.last_failure = format!("{name}: {said}");
                Got::Failed
            }
        };
        Ok(got)
    }

    /// Everything is healed, and each server archives what waits: nothing is stuck for ever, and
    /// everything that was acknowledged can be recovered.
    pub fn settle(&mut self) -> Result<(), Violation> {
        self.heal();
        self.accept_races();
        self.jump(24); // nothing in a bucket is too young to be moved aside
        let servers: Vec<char> = self.nodes.keys().copied().collect();
        for server in servers {
            self.catch_up(server)?;
        }
        self.recover_everything()
    }

    /// "use a store that honours conditional writes, or accept the race"
    fn accept_races(&self) {
        let careless = self.destinations.iter().filter(|destination| destination.sort == Sort::Careless);
        careless.for_each(|destination| destination.bucket().unconditional.store(true, Ordering::Relaxed));
    }

    /// Somebody reads the message and does what it says; whether that changed anything.
    fn obey(&mut self, said: &str) -> bool {
        if let Some(words) = said.split("HINT: bring \"").nth(1) {
            let Ok(name) = words.split('"').next().unwrap_or_default().parse() else { return false };
            let key = self.destinations[0].key_of(name);
            let back = self.removed.iter().filter(|(index, removed, _)| {
                *removed == key && self.destinations[*index].read(&key).is_none()
            });
            let back: Vec<_> = back.cloned().collect();
            back.iter().for_each(|(index, key, bytes)| self.destinations[*index].put_back(key, bytes));
            return !back.is_empty() || self.copy_history_by_hand(name);
        }
        let Some(words) = said.split("\"wal-archive quarantine ").nth(1) else { return false };
        let subject = words.split('"').next().unwrap_or_default();
        let mut changed = false;
        trace(|| format!("  wal-archive quarantine {subject}"));
        for index in 0..self.destinations.len() {
            let moved = programs::quarantine(&self.destinations[index].open(), subject);
            for (key, name) in moved.unwrap_or_default() {
                changed = true;
                self.oracle.harm(index, &self.destinations[index], &key, name, false);
            }
        }
        changed
    }

    /// What no archive has any more, a server may have in its `pg_wal`.
    fn copy_history_by_hand(&mut self, name: WalName) -> bool {
        let Some(content) = self.nodes.values().find_map(|node| node.files.get(&name)) else { return false };
        let mut changed = false;
        for destination in &self.destinations {
            let lacks = !destination.objects().values().any(|stored| stored.name() == Some(name));
            if lacks {
                destination.put_back(&format!("wal_005/{name}"), &content.image.bytes());
                changed = true;
            }
        }
        changed
    }

    /// Beside the encrypted one, of which it was a sign only.
    fn remove_histories_put_by_hand(&self) {
        for destination in &self.destinations {
            for key in destination.objects().keys() {
                let is_stored = |name| {
                    destination.key_of(name) != *key && destination.read(&destination.key_of(name)).is_some()
                };
                let name = key.strip_prefix("wal_005/").and_then(|file| file.parse().ok());
                if destination.is_encrypted() && name.is_some_and(is_stored) {
                    destination.remove(key);
                }
            }
        }
    }

    fn catch_up(&mut self, server: char) -> Result<(), Violation> {
        self.archive(server, u8::MAX, 0)?;
        for _ in 0..32 {
            self.remove_histories_put_by_hand();
            let node = &self.nodes[&server];
            let Some(name) = node.ready().first().copied().filter(|_| archives(node)) else { return Ok(()) };
            match self.push(server, name, 0) {
                Pushed::Stored => self.archive(server, u8::MAX, 0)?,
                Pushed::Refused { said, .. } if self.obey(&said) => {}
                Pushed::Refused { conflict: true, .. } if self.is_contested(server, name) => {
                    return Ok(());
                }
                Pushed::Refused { said, .. } => return Err(format!("server {server} is stuck: {said}")),
            }
        }
        Ok(())
    }

    /// Whether the file, or what the server follows, is of a timeline that two servers chose.
    fn is_contested(&self, server: char, name: WalName) -> bool {
        let node = &self.nodes[&server];
        let logs = [&node.log, &node.received];
        self.oracle.are_contested(&[name.timeline()])
            || logs.into_iter().any(|log| self.oracle.is_contested(log))
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let there = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &there),
            false => drop(fs::copy(entry.path(), there)),
        }
    }
}

/// Whether the server's archiver runs.
pub fn archives(node: &Node) -> bool {
    match node.upstream {
        None => node.archiving != Archiving::Off,
        Some(_) => node.archiving == Archiving::Always,
    }
}

/// What a server got.
pub enum Got {
    File(Arc<Content>),
    Absent,
    Failed,
}
