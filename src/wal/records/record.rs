//! One record: its header checked, its checksum taken, and the little of its content that tells
//! when a transaction ended.
//!
//! Source: PostgreSQL `src/include/access/xlogrecord.h` (`XLogRecord`) and
//! `src/backend/access/transam/xlogreader.c` (`ValidXLogRecordHeader`, `ValidXLogRecord`). Layout,
//! little-endian, unchanged since 9.5; a record begins at a multiple of 8 and goes on behind the
//! header of the next page:
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | u32 | `xl_tot_len`, with the header |
//! | 4 | u32 | `xl_xid` |
//! | 8 | u64 | `xl_prev`: where the record before it begins |
//! | 16 | u8 | `xl_info` |
//! | 17 | u8 | `xl_rmid`, then 2 bytes of padding |
//! | 20 | u32 | `xl_crc`: CRC-32C of what follows, then of the 20 bytes before |
//!
//! Whether the resource manager is one that exists is left to the checksum: versions differ in them.

use super::pages::take;
use super::{Mark, Stop};
use crate::wal::Lsn;
use crc_fast::{CrcAlgorithm, Digest};
use std::time::{Duration, SystemTime};

/// Length of a record's header (`SizeOfXLogRecord`).
const HEADER: u64 = 24;
/// The part of the header that its checksum covers.
const SUMMED: usize = 20;
/// What is kept of a record: more than a restore point needs to say its name (see [`Record::is`]).
const HEAD: usize = 128;

/// A record on its way.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) start: Lsn,
    /// Its first bytes, as far as they came.
    head: [u8; HEAD],
    got: u64,
    /// `xl_tot_len`, once it came.
    len: Option<u32>,
    sum: Digest,
}

impl Record {
    pub(super) fn new(start: Lsn) -> Self {
        Record {
            start,
            head: [0; HEAD],
            got: 0,
            len: None,
            // The polynomial of iSCSI is Castagnoli's (`src/include/port/pg_crc32c.h`).
            sum: Digest::new(CrcAlgorithm::Crc32Iscsi),
        }
    }

    pub(super) fn missing(&self) -> u64 {
        u64::from(self.len.unwrap_or(0)).saturating_sub(self.got)
    }

    /// What is kept of the bytes that came.
    fn head(&self) -> &[u8] {
        let len = usize::try_from(self.got).unwrap_or(HEAD).min(HEAD);
        self.head.get(..len).unwrap_or_default()
    }

    fn field<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.head().get(offset..)?.first_chunk().copied()
    }

    /// Takes up to so many of the record's bytes off the front.
    fn keep<'a>(&mut self, bytes: &mut &'a [u8], count: u64) -> &'a [u8] {
        let taken = take(bytes, count);
        let kept = usize::try_from(self.got).unwrap_or(HEAD);
        for (place, byte) in self.head.iter_mut().skip(kept).zip(taken) {
            *place = *byte;
        }
        self.got += taken.len() as u64;
        taken
    }

    /// Takes the record's bytes off the front; `true` once it is whole. The header is checked as
    /// soon as it is there, so that nothing is read on the word of garbage.
    pub(super) fn take(&mut self, bytes: &mut &[u8], previous: Option<Lsn>) -> Result<bool, Stop> {
        if self.got < HEADER {
            self.keep(bytes, HEADER - self.got);
            if let (None, Some(len)) = (self.len, self.field(0).map(u32::from_le_bytes)) {
                match u64::from(len) {
                    0 => return Err(Stop::Nothing(self.start)),
                    1..HEADER => return Err(Stop::Length(self.start)),
                    _ => self.len = Some(len),
                }
            }
            if self.got < HEADER {
                return Ok(false);
            }
            let found = Lsn(self.field(8).map_or(0, u64::from_le_bytes));
            // As `ValidXLogRecordHeader`: of the first record only the order is known.
            if previous.map_or(found >= self.start, |previous| found != previous) {
                return Err(Stop::Previous { at: self.start, found });
            }
        }
        let data = self.keep(bytes, self.missing());
        self.sum.update(data);
        Ok(self.missing() == 0)
    }

    pub(super) fn check(&self) -> Result<(), Stop> {
        let mut sum = self.sum;
        sum.update(self.head().get(..SUMMED).unwrap_or_default());
        let claimed = self.field(SUMMED).map(u32::from_le_bytes);
        match claimed.map(u64::from) == Some(sum.finalize()) {
            true => Ok(()),
            false => Err(Stop::Checksum(self.start)),
        }
    }

    /// Resource manager, and the four bits of `xl_info` that it uses itself.
    fn kind(&self) -> (u8, u8) {
        let [info, manager] = self.field(16).unwrap_or_default();
        (manager, info & 0xF0)
    }

    /// `XLOG_SWITCH` of `RM_XLOG_ID` (`src/include/catalog/pg_control.h`).
    pub(super) fn is_switch(&self) -> bool {
        self.kind() == (0, 0x40)
    }

    /// The record that an `XLOG_OVERWRITE_CONTRECORD` gives up (`xl_overwrite_contrecord`).
    pub(super) fn gives_up(&self) -> Option<Lsn> {
        let lost = self.data()?.first_chunk()?;
        (self.kind() == (0, 0xD0)).then_some(Lsn(u64::from_le_bytes(*lost)))
    }

    /// When a transaction ended, and whether it was committed, by `xact_time`, the first field of
    /// `xl_xact_commit` and `xl_xact_abort` (`src/include/access/xact.h`): `RM_XACT_ID` with
    /// `XLOG_XACT_COMMIT`, `_ABORT`, `_COMMIT_PREPARED` or `_ABORT_PREPARED`.
    pub(super) fn time(&self) -> Option<(SystemTime, bool)> {
        let (manager, info) = self.kind();
        let committed = match (manager, info & 0x70) {
            (1, 0x00 | 0x30) => true,
            (1, 0x20 | 0x40) => false,
            _ => return None,
        };
        let microseconds = i64::from_le_bytes(*self.data()?.first_chunk()?);
        // Microseconds since 2000-01-01 (`src/include/datatype/timestamp.h`).
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800);
        let time = match u64::try_from(microseconds) {
            Ok(after) => epoch.checked_add(Duration::from_micros(after)),
            Err(_) => epoch.checked_sub(Duration::from_micros(microseconds.unsigned_abs())),
        };
        Some((time?, committed))
    }

    /// Whether it is what somebody looks for: the end of a transaction by its id (`XLOG_XACT_COMMIT` and
    /// `_ABORT`; of a prepared one the id is elsewhere), or a restore point (`XLOG_RESTORE_POINT`, with
    /// `xl_restore_point`: a time and a name of up to 63 bytes).
    pub(super) fn is(&self, mark: &Mark) -> bool {
        match (mark, self.kind()) {
            (Mark::Transaction(id), (1, info)) if matches!(info & 0x70, 0x00 | 0x20) => {
                self.field(4).map(u32::from_le_bytes) == Some(*id)
            }
            (Mark::RestorePoint(name), (0, 0x70)) => {
                let field = self.data().and_then(|data| data.get(8..));
                field.and_then(|field| field.split(|byte| *byte == 0).next()) == Some(name.as_bytes())
            }
            _ => false,
        }
    }

    /// The main data of a record without blocks, as far as it was kept: it stands behind its own
    /// header, and that behind those of the origin and of the top transaction (`xlogrecord.h`,
    /// `XLR_BLOCK_ID_…`; `src/backend/access/transam/xloginsert.c`, `XLogRecordAssemble`).
    fn data(&self) -> Option<&[u8]> {
        let mut rest = self.head().get(HEADER as usize..)?;
        loop {
            let (id, after) = rest.split_first()?;
            rest = match id {
                255 => return after.get(1..),
                254 => return after.get(4..),
                253 => after.get(2..)?,
                252 => after.get(4..)?,
                _ => return None,
            };
        }
    }
}
