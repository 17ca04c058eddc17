//! WAL as a PostgreSQL 15 server writes it, made by the tests themselves: pages, records with
//! checksums, commits with times, switches, timelines that fork, any segment size, and the small
//! files around it. `pg_waldump` and `pg_controldata` read what comes out.
//!
//! Made for thousands of short lives: an [`Image`] holds only what was written, the rest of a file is
//! a hole of zeros.
//!
//! Sources: PostgreSQL 15 `src/include/access/xlog_internal.h`, `xlogrecord.h`, `xact.h`,
//! `src/include/catalog/pg_control.h`, `src/backend/access/transam/xlog.c` (`CopyXLogRecordToWAL`,
//! `ReserveXLogSwitch`, `XLogFileCopy`), `timeline.c`, `xlogbackup.c`.

#![allow(dead_code, reason = "each test crate uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crc_fast::{CrcAlgorithm, Digest};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use wal_archive::wal::{Lsn, SegmentName, SegmentSize, SystemId, Timeline};

/// `XLOG_BLCKSZ`.
pub const PAGE: usize = 8192;

/// `XLOG_PAGE_MAGIC` of PostgreSQL 15.
const MAGIC: u16 = 0xD110;

/// Compared as a whole, which is many times faster than byte by byte.
const ZEROS: [u8; PAGE] = [0; PAGE];

const SHORT_HEADER: usize = 24;
const RECORD_HEADER: usize = 24;

const FIRST_IS_CONTINUATION: u16 = 1;
const LONG_HEADER: u16 = 2;

/// Resource managers, and what they call their records.
const XLOG: u8 = 0;
const XACT: u8 = 1;
const CHECKPOINT_ONLINE: u8 = 0x10;
const NOOP: u8 = 0x20;
const SWITCH: u8 = 0x40;
const END_OF_RECOVERY: u8 = 0x90;
const COMMIT: u8 = 0x00;
const ABORT: u8 = 0x20;

/// One file of WAL: what was written to it, and zeros.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    written: Arc<[u8]>,
    size: usize,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} of {} bytes)", self.written.len(), self.size)
    }
}

impl Image {
    /// How many bytes were written.
    pub fn len(&self) -> usize {
        self.written.len()
    }

    /// From what a file holds.
    pub fn of(bytes: &[u8]) -> Self {
        let empty = bytes.rchunks(PAGE).take_while(|page| **page == ZEROS[..page.len()]).map(<[u8]>::len);
        let rest = &bytes[..bytes.len() - empty.sum::<usize>()];
        let written = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Image { written: bytes[..written].into(), size: bytes.len() }
    }

    /// All bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size];
        bytes[..self.written.len()].copy_from_slice(&self.written);
        bytes
    }

    /// Whether they are all there, and no others.
    pub fn is(&self, bytes: &[u8]) -> bool {
        let (written, zeros) = bytes.split_at(self.written.len().min(bytes.len()));
        bytes.len() == self.size
            && *written == *self.written
            && zeros.chunks(PAGE).all(|page| *page == ZEROS[..page.len()])
    }

    /// Makes a file of it; what it does not reach is a hole.
    pub fn write(&self, path: &Path) {
        let mut file = File::create(path).unwrap();
        file.write_all(&self.written).unwrap();
        file.set_len(self.size as u64).unwrap();
    }

    /// The first bytes of it only, and zeros: what a receiver has of a segment when its upstream
    /// ends.
    pub fn cut(&self, len: usize) -> Image {
        Image { written: self.written[..len.min(self.written.len())].into(), size: self.size }
    }

    /// The same, written over an older use of the file.
    pub fn over(&self, older: &Image) -> Image {
        let mut bytes = older.bytes();
        bytes[..self.written.len()].copy_from_slice(&self.written);
        Image::of(&bytes)
    }
}

/// The WAL of one timeline, as its server writes it. A clone writes another future.
#[derive(Clone, Debug)]
pub struct Log {
    system_id: SystemId,
    size: SegmentSize,
    timeline: Timeline,
    /// Oldest first, each with where the next one left it.
    ancestors: Vec<(Timeline, Lsn)>,
    /// Where the last record begins.
    previous: u64,
    /// The segment that is being written.
    number: u64,
    /// What was written to it.
    bytes: Vec<u8>,
    /// The segments that are full, or were switched away from; of the ancestors, too.
    finished: BTreeMap<SegmentName, Image>,
    /// Of this timeline, since they were last taken.
    untaken: Vec<(SegmentName, Image)>,
    redo: Lsn,
    parent: Option<Arc<Log>>,
}

impl Log {
    /// A new cluster, which begins as `initdb` leaves it: with a checkpoint in segment 1.
    pub fn new(system_id: SystemId, size: SegmentSize) -> Self {
        Log::beginning_at(system_id, size, 1)
    }

    /// The same with another first segment.
    pub fn beginning_at(system_id: SystemId, size: SegmentSize, number: u64) -> Self {
        let mut log = Log {
            system_id,
            size,
            timeline: Timeline::FIRST,
            ancestors: Vec::new(),
            previous: 0,
            number,
            bytes: Vec::new(),
            finished: BTreeMap::new(),
            untaken: Vec::new(),
            redo: Lsn(0),
            parent: None,
        };
        log.checkpoint(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        log
    }

    pub fn system_id(&self) -> SystemId {
        self.system_id
    }

    pub fn size(&self) -> SegmentSize {
        self.size
    }

    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Oldest first, each with where the next one left it.
    pub fn ancestors(&self) -> &[(Timeline, Lsn)] {
        &self.ancestors
    }

    /// One past the last record: what recovery would report as its end.
    pub fn end(&self) -> Lsn {
        Lsn(self.number * self.size.bytes() + self.bytes.len() as u64)
    }

    /// Where the last checkpoint's recovery would begin.
    pub fn redo(&self) -> Lsn {
        self.redo
    }

    /// The segment that is being written; nothing may be written to it yet.
    pub fn current(&self) -> SegmentName {
        SegmentName::numbered(self.timeline, self.number, self.size)
    }

    /// What was written to the current segment; `None` where that is nothing.
    pub fn current_image(&self) -> Option<Image> {
        (!self.bytes.is_empty()).then(|| self.image(&self.bytes))
    }

    /// The finished segments of this timeline that were not taken yet.
    pub fn take_finished(&mut self) -> Vec<(SegmentName, Image)> {
        std::mem::take(&mut self.untaken)
    }

    /// The finished segments, those of the ancestors up to the fork included.
    pub fn finished(&self) -> &BTreeMap<SegmentName, Image> {
        &self.finished
    }

    /// The parent's log as it was when this timeline left it.
    pub fn parent(&self) -> Option<&Log> {
        self.parent.as_deref()
    }

    /// Whether `later` is this log with more behind it, on this timeline or a descendant.
    pub fn is_beginning_of(&self, later: &Log) -> bool {
        let on_branch = match later.ancestors.get(self.ancestors.len()) {
            None => self.timeline == later.timeline && self.end() <= later.end(),
            Some((timeline, fork)) => *timeline == self.timeline && self.end() <= *fork,
        };
        let same_file = |(name, image): (&SegmentName, &Image)| {
            let theirs = later.finished.get(name);
            theirs.is_none_or(|theirs| theirs == image)
        };
        let current = || {
            let at = later.written(self.current(), self.number);
            at.is_some_and(|theirs| theirs.starts_with(&self.bytes))
        };
        on_branch
            && later.ancestors.starts_with(&self.ancestors)
            && self.finished.iter().all(same_file)
            && (self.bytes.is_empty() || current())
    }

    /// What is known of a segment, finished or not, by this timeline or the child that took it over.
    fn written(&self, name: SegmentName, number: u64) -> Option<&[u8]> {
        if let Some(image) = self.finished.get(&name) {
            return Some(&image.written);
        }
        if self.number == number {
            return Some(&self.bytes);
        }
        let same = |(other, _): &(&SegmentName, &Image)| other.number(self.size) == Some(number);
        self.finished.iter().find(same).map(|(_, image)| &*image.written)
    }

    /// What a recovery that ended there has: the files it read, in order, the address of the last
    /// record, and the ancestors that are left behind.
    pub fn recovered(
        of: (SystemId, SegmentSize),
        timeline: Timeline,
        ancestors: Vec<(Timeline, Lsn)>,
        files: &[(SegmentName, Image)],
        last: Lsn,
        end: Lsn,
    ) -> Log {
        let (system_id, size) = of;
        let number = end.0 / size.bytes();
        let written = (end.0 % size.bytes()) as usize;
        let mut log = Log {
            system_id,
            size,
            timeline,
            ancestors,
            previous: last.0,
            number,
            bytes: Vec::new(),
            finished: BTreeMap::new(),
            untaken: Vec::new(),
            redo: last,
            parent: None,
        };
        for (name, image) in files {
            match name.number(size) {
                Some(at) if at < number => drop(log.finished.insert(*name, image.clone())),
                Some(at) if at == number => {
                    log.bytes = image.written.get(..written).unwrap_or(&image.written).to_vec();
                    log.bytes.resize(written, 0);
                }
                _ => {}
            }
        }
        log
    }

    /// A transaction committed at that time, with so many bytes of its own.
    pub fn commit(&mut self, time: SystemTime) -> Lsn {
        self.put(XACT, COMMIT, &timestamp(time).to_le_bytes())
    }

    /// A transaction rolled back at that time.
    pub fn abort(&mut self, time: SystemTime) -> Lsn {
        self.put(XACT, ABORT, &timestamp(time).to_le_bytes())
    }

    /// A record that does nothing, with so many bytes in it.
    pub fn noop(&mut self, len: usize) -> Lsn {
        let byte = (self.previous >> 3) as u8;
        self.put(XLOG, NOOP, &vec![byte; len])
    }

    /// The same with these bytes in it.
    pub fn noop_of(&mut self, bytes: &[u8]) -> Lsn {
        self.put(XLOG, NOOP, bytes)
    }

    /// An online checkpoint whose redo point is here.
    pub fn checkpoint(&mut self, time: SystemTime) -> Lsn {
        let at = self.next_record();
        self.redo = at;
        let body = checkpoint(at, self.timeline, self.timeline, time);
        self.put(XLOG, CHECKPOINT_ONLINE, &body)
    }

    /// Fills the segment so that its last record goes on in the next one.
    pub fn fill(&mut self) {
        let number = self.number;
        let left = self.size.bytes() as usize - self.bytes.len();
        self.noop(left);
        assert!(self.number == number + 1 && !self.bytes.is_empty(), "it crosses the end");
    }

    /// Ends the segment early, as `pg_switch_wal` does; its name, or `None` where nothing is in it.
    pub fn switch(&mut self) -> Option<SegmentName> {
        if self.bytes.is_empty() {
            return None;
        }
        let (name, number) = (self.current(), self.number);
        self.put(XLOG, SWITCH, &[]);
        if self.number == number {
            self.turn(); // the rest are zeros
        }
        Some(name)
    }

    /// A server that recovered up to here is promoted: its own future, on a timeline of this id.
    pub fn promoted(&self, timeline: Timeline, time: SystemTime) -> Log {
        assert!(timeline > self.timeline);
        let mut child = self.clone();
        child.parent = Some(Arc::new(self.clone()));
        child.untaken.clear();
        child.ancestors.push((self.timeline, self.end()));
        child.timeline = timeline;
        let body = [
            &timestamp(time).to_le_bytes()[..],
            &timeline.get().to_le_bytes(),
            &self.timeline.get().to_le_bytes(),
        ];
        child.put(XLOG, END_OF_RECOVERY, &body.concat());
        child
    }

    /// `TIMELINE.history`; `None` for timeline 1.
    pub fn history(&self) -> Option<String> {
        let line = |(timeline, switch): &(Timeline, Lsn)| {
            format!("{timeline}\t{switch}\tno recovery target specified\n")
        };
        let lines: Vec<_> = self.ancestors.iter().map(line).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// Where the next record would begin, behind the header of its page.
    fn next_record(&self) -> Lsn {
        let end = self.end().0;
        Lsn(match self.bytes.len() {
            0 => end + SHORT_HEADER as u64 + 16,
            len if len.is_multiple_of(PAGE) => end + SHORT_HEADER as u64,
            _ => end,
        })
    }

    fn image(&self, bytes: &[u8]) -> Image {
        Image { written: bytes.into(), size: self.size.bytes() as usize }
    }

    /// The current segment is finished.
    fn turn(&mut self) {
        let image = self.image(&self.bytes);
        self.untaken.push((self.current(), image.clone()));
        self.finished.insert(self.current(), image);
        self.number += 1;
        self.bytes.clear();
    }

    /// Begins a page where one begins; so many bytes of a record go on in it.
    fn page(&mut self, rest: Option<usize>) {
        if !self.bytes.len().is_multiple_of(PAGE) {
            return;
        }
        let (address, long) = (self.end().0, self.bytes.is_empty());
        let info = if long { LONG_HEADER } else { 0 } | rest.map_or(0, |_| FIRST_IS_CONTINUATION);
        self.bytes.extend(MAGIC.to_le_bytes());
        self.bytes.extend(info.to_le_bytes());
        self.bytes.extend(self.timeline.get().to_le_bytes());
        self.bytes.extend(address.to_le_bytes());
        self.bytes.extend(u64::try_from(rest.unwrap_or(0)).unwrap().to_le_bytes());
        if long {
            self.bytes.extend(self.system_id.0.to_le_bytes());
            self.bytes.extend(u32::try_from(self.size.bytes()).unwrap().to_le_bytes());
            self.bytes.extend((PAGE as u32).to_le_bytes());
        }
    }

    /// Writes a record; where it begins.
    fn put(&mut self, manager: u8, info: u8, data: &[u8]) -> Lsn {
        self.page(None);
        let start = self.end();
        let record = record(self.previous, manager, info, data);
        let mut rest = &record[..];
        loop {
            let room = PAGE - self.bytes.len() % PAGE;
            let (now, later) = rest.split_at(rest.len().min(room));
            self.bytes.extend(now);
            rest = later;
            self.turn_where_full();
            if rest.is_empty() {
                break;
            }
            self.page(Some(rest.len()));
        }
        self.previous = start.0;
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.turn_where_full();
        start
    }

    fn turn_where_full(&mut self) {
        if self.bytes.len() as u64 == self.size.bytes() {
            self.turn();
        }
    }
}

fn record(previous: u64, manager: u8, info: u8, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0; RECORD_HEADER];
    match u8::try_from(data.len()) {
        Ok(0) => {}
        Ok(len) => record.extend([255, len]),
        Err(_) => {
            record.push(254);
            record.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        }
    }
    record.extend(data);
    let len = u32::try_from(record.len()).unwrap();
    record[0..4].copy_from_slice(&len.to_le_bytes());
    record[8..16].copy_from_slice(&previous.to_le_bytes());
    (record[16], record[17]) = (info, manager);
    let sum = crc32c(&[&record[RECORD_HEADER..], &record[..20]]);
    record[20..24].copy_from_slice(&sum.to_le_bytes());
    record
}

fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    parts.iter().for_each(|part| digest.update(part));
    u32::try_from(digest.finalize()).unwrap()
}

/// Microseconds since 2000-01-01.
fn timestamp(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap() - 946_684_800_000_000
}

/// `CheckPoint`.
fn checkpoint(redo: Lsn, timeline: Timeline, before: Timeline, time: SystemTime) -> [u8; 88] {
    let mut bytes = [0; 88];
    bytes[0..8].copy_from_slice(&redo.0.to_le_bytes());
    bytes[8..12].copy_from_slice(&timeline.get().to_le_bytes());
    bytes[12..16].copy_from_slice(&before.get().to_le_bytes());
    bytes[16] = 1; // full_page_writes
    bytes[24..32].copy_from_slice(&750u64.to_le_bytes()); // next transaction
    bytes[32..36].copy_from_slice(&16384u32.to_le_bytes()); // next oid
    bytes[36..40].copy_from_slice(&1u32.to_le_bytes()); // next multixact
    bytes[44..48].copy_from_slice(&717u32.to_le_bytes()); // oldest transaction
    bytes[48..52].copy_from_slice(&1u32.to_le_bytes());
    bytes[52..56].copy_from_slice(&1u32.to_le_bytes());
    bytes[56..60].copy_from_slice(&1u32.to_le_bytes());
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    bytes[64..72].copy_from_slice(&seconds.to_le_bytes());
    bytes
}

/// What `global/pg_control` says of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    pub system_id: SystemId,
    pub size: SegmentSize,
    pub state: State,
    /// Of the last checkpoint.
    pub timeline: Timeline,
    pub redo: Lsn,
    /// Zero and no timeline where the server is no standby and recovers nothing.
    pub minimum_recovery: Option<(Lsn, Timeline)>,
}

/// `DBState`.
#[derive(Clone, Copy, Debug)]
pub enum State {
    ShutDown = 1,
    InArchiveRecovery = 5,
    InProduction = 6,
}

impl Control {
    /// The file of PostgreSQL 15 (`ControlFileData`).
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; PAGE];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &self.system_id.0.to_le_bytes());
        put(8, &1300u32.to_le_bytes()); // PG_CONTROL_VERSION
        put(12, &202_209_061u32.to_le_bytes()); // CATALOG_VERSION_NO
        put(16, &(self.state as u32).to_le_bytes());
        put(24, &1_700_000_000u64.to_le_bytes());
        put(32, &self.redo.0.to_le_bytes()); // checkPoint
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        put(40, &checkpoint(self.redo, self.timeline, self.timeline, time));
        if let Some((lsn, timeline)) = self.minimum_recovery {
            put(136, &lsn.0.to_le_bytes());
            put(144, &timeline.get().to_le_bytes());
        }
        put(172, &1u32.to_le_bytes()); // wal_level = replica
        put(180, &100u32.to_le_bytes());
        put(204, &8u32.to_le_bytes()); // maxAlign
        put(208, &1_234_567.0f64.to_le_bytes()); // floatFormat
        put(216, &8192u32.to_le_bytes());
        put(220, &131_072u32.to_le_bytes());
        put(224, &(PAGE as u32).to_le_bytes());
        put(228, &u32::try_from(self.size.bytes()).unwrap().to_le_bytes());
        put(232, &64u32.to_le_bytes());
        put(236, &32u32.to_le_bytes());
        put(240, &1996u32.to_le_bytes());
        put(244, &2048u32.to_le_bytes());
        put(248, &[1]);
        let sum = crc32c(&[&bytes[..288]]);
        bytes[288..292].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

/// A base backup: where recovery from it begins, and where it is consistent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseBackup {
    pub label: String,
    pub timeline: Timeline,
    pub size: SegmentSize,
    pub start: Lsn,
    pub stop: Lsn,
}

impl BaseBackup {
    pub fn start_segment(&self) -> SegmentName {
        SegmentName::at(self.timeline, self.start, self.size)
    }

    /// `backup_label`.
    pub fn label_file(&self) -> String {
        format!(
            "START WAL LOCATION: {0} (file {1})\nCHECKPOINT LOCATION: {0}\nBACKUP METHOD: streamed\n\
             BACKUP FROM: primary\nSTART TIME: 2026-11-20 21:05:43 UTC\nLABEL: {2}\nSTART TIMELINE: {3}\n",
            self.start,
            self.start_segment(),
            self.label,
            self.timeline
        )
    }

    /// The name of its backup history file.
    pub fn history_name(&self) -> String {
        format!("{}.{:08X}.backup", self.start_segment(), self.start.0 % self.size.bytes())
    }

    /// The content of its backup history file.
    pub fn history(&self) -> String {
        let last = Lsn(self.stop.0 - 1);
        let label = self.label_file();
        let (first, rest) = label.split_once('\n').unwrap();
        format!(
            "{first}\nSTOP WAL LOCATION: {} (file {})\n{rest}STOP TIME: 2026-11-20 21:05:44 UTC\nSTOP TIMELINE: {}\n",
            self.stop,
            SegmentName::at(self.timeline, last, self.size),
            self.timeline
        )
    }
}

/// Makes the folders of a data directory, and the files that say whose it is.
pub fn make_data_directory(path: &Path, control: &Control) {
    fs::create_dir_all(path.join("pg_wal/archive_status")).unwrap();
    fs::create_dir_all(path.join("global")).unwrap();
    fs::write(path.join("PG_VERSION"), "15\n").unwrap();
    write_control(path, control);
}

/// Replaces `global/pg_control`.
pub fn write_control(path: &Path, control: &Control) {
    fs::write(path.join("global/pg_control"), control.bytes()).unwrap();
}
