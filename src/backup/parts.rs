//! A stream of tars cut into parts, which are compressed and stored side by side.
//!
//! Of each part in work there are at most its bytes or their compressed form: what is compressed is
//! given back piece by piece. So a backup needs about 33 MiB for each job, and as much for the part
//! that is being filled.

use super::places::Places;
use super::{Cause, Result};
use crate::archive::forms::{Forms, Objects};
use crate::base_backup::{BackupId, Stored, part};
use crate::failure::Failure;
use crate::host::detached;
use crate::object::{EncodeError, Encoder, Encryption, Sha256Sum};
use crate::storage::{BodyWriter, body};
use crate::wal::SystemId;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Scope;

/// Bytes of one piece of a part.
const PIECE: usize = 1 << 20;

/// Where parts go, and how.
pub(super) struct Parts<'a> {
    pub(super) id: BackupId,
    pub(super) system_id: SystemId,
    pub(super) level: i32,
    pub(super) jobs: usize,
    pub(super) places: &'a Places,
}

/// The tablespace of a tar and the number of one of its parts, counted from 1.
pub(super) type Number = (Option<u32>, usize);

/// Takes bytes and cuts them.
pub(super) struct Cutter<'s> {
    /// Nobody stores anything any more.
    stopped: &'s AtomicBool,
    work: SyncSender<(Number, Pieces)>,
    tablespace: Option<u32>,
    /// Of the part that is being filled.
    number: usize,
    filling: Pieces,
}

/// The parts that were stored, and the first failure.
#[derive(Default)]
struct Outcome {
    stored: BTreeMap<Number, InForms>,
    failure: Option<Failure<Cause>>,
}

impl Parts<'_> {
    /// Runs `fill`, while what it puts into the cutter is stored. All parts, once all are stored.
    pub(super) fn store<T>(
        &self,
        fill: impl FnOnce(&mut Cutter<'_>) -> Result<T>,
    ) -> Result<(T, BTreeMap<Number, InForms>)> {
        let outcome = Mutex::new(Outcome::default());
        let (work, waiting) = sync_channel(0);
        let waiting = Mutex::new(waiting);
        let stopped = &AtomicBool::new(false);
        let filled = std::thread::scope(|scope| {
            self.start(scope, &waiting, &outcome, stopped)?;
            let filling = Pieces::default();
            let mut cutter = Cutter { stopped, work, tablespace: None, number: 1, filling };
            let filled = fill(&mut cutter)?;
            cutter.end_of_tar()?;
            Ok(filled)
        });
        let outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
        match outcome.failure {
            // Why nobody took the parts any more.
            Some(failure) => Err(failure),
            None => Ok((filled?, outcome.stored)),
        }
    }

    fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        waiting: &'scope Mutex<Receiver<(Number, Pieces)>>,
        outcome: &'scope Mutex<Outcome>,
        stopped: &'scope AtomicBool,
    ) -> Result<()> {
        for started in 0..self.jobs {
            match detached::spawn_scoped(scope, || self.work(waiting, outcome, stopped)) {
                Ok(()) => {}
                Err(error) if started > 0 => log::debug!("cannot start a thread: {error}"),
                Err(error) => {
                    return Err(Failure::new(Cause::CouldNot, format!("cannot start a thread: {error}")));
                }
            }
        }
        Ok(())
    }

    fn work(
        &self,
        waiting: &Mutex<Receiver<(Number, Pieces)>>,
        outcome: &Mutex<Outcome>,
        stopped: &AtomicBool,
    ) {
        let outcome = || outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((number, pieces)) = next else { return };
            // What comes after a failure is thrown away, so that whoever fills is not kept waiting.
            if stopped.load(Ordering::Relaxed) {
                continue;
            }
            match self.store_one(number, pieces) {
                Ok(stored) => drop(outcome().stored.insert(number, stored)),
                Err(failure) => {
                    outcome().failure.get_or_insert(failure);
                    stopped.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    fn store_one(&self, (tablespace, number): Number, mut pieces: Pieces) -> Result<InForms> {
        let len = pieces.len as u64;
        self.put(&part::stem(tablespace, number), len, &mut pieces)
    }

    /// Compresses, encrypts where that is asked for, and stores one object of the backup.
    pub(super) fn put(&self, stem: &str, size: u64, source: &mut dyn Read) -> Result<InForms> {
        let failed = |error: &io::Error| {
            Failure::new(Cause::CouldNot, format!("cannot compress \"{stem}\": {error}"))
                .hint("make room for a temporary file in $TMPDIR, /var/tmp or /tmp")
        };
        let objects = self.encode(stem, size, source).map_err(|error| match error {
            EncodeError::Read(error) | EncodeError::Write(error) => failed(&error),
            EncodeError::Length(read) => failed(&io::Error::other(format!("{read} bytes of {size}"))),
        })?;
        self.places.create(&self.id, &|encryption| {
            Some((part::file(stem, encryption), objects.stored(encryption)?))
        })?;
        let stored = |encryption| -> io::Result<Option<Stored>> {
            let Some(body) = objects.stored(encryption) else { return Ok(None) };
            let sha256 = Sha256Sum::of_reader(&mut body.reader())?;
            Ok(Some(Stored { file: part::file(stem, encryption), size, stored: body.len(), sha256 }))
        };
        let plain = stored(Encryption::None).map_err(|error| failed(&error))?;
        let sealed = stored(Encryption::Age).map_err(|error| failed(&error))?;
        Ok(InForms { plain, sealed })
    }

    /// The object in all forms that the destinations store; the encrypted one is the same at all of them.
    fn encode(
        &self,
        stem: &str,
        size: u64,
        source: &mut dyn Read,
    ) -> std::result::Result<Objects<String>, EncodeError> {
        let mut encoder = Encoder::one_of(self.jobs, self.level).map_err(EncodeError::Write)?;
        let forms = Forms::of(&self.places.left());
        let mut output =
            forms.writer(|| BodyWriter::new(body::overflow_folders(None))).map_err(EncodeError::Write)?;
        let of = (&self.id, stem);
        let trailer = part::encode(&mut encoder, of, size, self.system_id, source, &mut output)?;
        output.finish(&trailer).map_err(EncodeError::Write)
    }
}

/// One object as the destinations store it.
#[derive(Clone)]
pub(super) struct InForms {
    plain: Option<Stored>,
    sealed: Option<Stored>,
}

impl InForms {
    pub(super) fn get(&self, encryption: Encryption) -> Option<&Stored> {
        match encryption {
            Encryption::None => self.plain.as_ref(),
            Encryption::Age => self.sealed.as_ref(),
        }
    }
}

impl Cutter<'_> {
    /// The parts of another tar follow.
    pub(super) fn begin_tar(&mut self, tablespace: Option<u32>) -> Result<()> {
        self.end_of_tar()?;
        (self.tablespace, self.number) = (tablespace, 1);
        Ok(())
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = part::SIZE - self.filling.len;
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.filling.push(now);
            bytes = rest;
            if self.filling.len == part::SIZE {
                self.hand_over()?;
            }
        }
        Ok(())
    }

    fn end_of_tar(&mut self) -> Result<()> {
        if self.filling.len > 0 { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> Result<()> {
        let part = std::mem::take(&mut self.filling);
        let number = (self.tablespace, self.number);
        self.number += 1;
        let ended = || Failure::new(Cause::CouldNot, "the parts of the backup cannot be stored");
        if self.stopped.load(Ordering::Relaxed) {
            return Err(ended());
        }
        self.work.send((number, part)).map_err(|_| ended())
    }
}

/// Bytes in pieces that are given back as they are read.
#[derive(Default)]
struct Pieces {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that were read.
    read: usize,
    len: usize,
}

impl Pieces {
    fn push(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            match self.pieces.back_mut().filter(|piece| piece.len() < PIECE) {
                Some(piece) => {
                    let (now, rest) = bytes.split_at((PIECE - piece.len()).min(bytes.len()));
                    piece.extend_from_slice(now);
                    bytes = rest;
                }
                None => self.pieces.push_back(Vec::with_capacity(PIECE)),
            }
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(piece) = self.pieces.front() else { return Ok(0) };
            match piece.get(self.read..).unwrap_or_default() {
                [] => {
                    self.pieces.pop_front();
                    self.read = 0;
                }
                mut left => {
                    let read = left.read(buffer)?;
                    self.read += read;
                    return Ok(read);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_as_they_went_in() {
        let data: Vec<u8> = (0..3 * PIECE + 17).map(|i| (i >> 3) as u8).collect();
        let mut pieces = Pieces::default();
        data.chunks(30_001).for_each(|bytes| pieces.push(bytes));
        assert_eq!(pieces.len, data.len());
        let mut back = Vec::new();
        pieces.read_to_end(&mut back).unwrap();
        assert!(back == data && pieces.pieces.is_empty());
    }
}
