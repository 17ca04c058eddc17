//! The records of a row of segments, one after the other, as PostgreSQL reads them in recovery:
//! where the last good one ends, when its last transaction was committed, and why it goes no
//! further.
//!
//! Source: PostgreSQL `src/backend/access/transam/xlogreader.c` (`XLogReadRecord`,
//! `XLogFindNextRecord`).
//!
//! Memory: the first bytes of one record, whatever its length (up to 1 GiB). Does not know: files,
//! what the records do, which timeline a segment should be of.

mod pages;
mod record;
#[cfg(test)]
mod tests;

pub use pages::PageFault;

use super::{Lsn, SegmentName};
use pages::{Input, Page, Pages, take};
use record::Record;
use std::fmt;
use std::io::{self, Write};
use std::time::SystemTime;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first record that begins in the first segment.
    Anywhere,
    /// With the record at this address, which lies in the first segment; the address of a page
    /// means the first record on it.
    At(Lsn),
}

/// A record that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The commit or abort of a transaction, if it was not prepared before.
    Transaction(u32),
    /// `pg_create_restore_point`
    RestorePoint(String),
}

/// How far the records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Where the first good record begins; `None` where none was whole.
    pub first: Option<Lsn>,
    /// Where the last good record begins.
    pub last: Option<Lsn>,
    /// One past the last good record, where the next one would begin: what recovery reports as
    /// its end, and what a history file has for the switch point.
    pub end: Option<Lsn>,
    pub records: u64,
    /// When the last committed transaction was, by the server's clock (`xl_xact_commit.xact_time`).
    pub last_commit: Option<SystemTime>,
    /// The same for the last committed or aborted one: "last completed transaction was at log
    /// time" in the server's log.
    pub last_completed: Option<SystemTime>,
    /// The latest time of all of them: times are not in the order of the records.
    pub greatest_completed: Option<SystemTime>,
    /// Where the first record begins that was looked for.
    pub marked: Option<Lsn>,
    /// Why there are no more.
    pub stop: Stop,
    /// Whether the last segment given is complete: its records fill it, cross its end, or switch
    /// away from it.
    pub complete: bool,
}

/// Why the records end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The bytes ended. The record that had begun and is not whole, if there is one.
    EndOfInput(Option<Lsn>),
    /// Nothing was written from here on (`xl_tot_len` is 0, or the page is empty).
    Nothing(Lsn),
    /// The record here is shorter than its own header.
    Length(Lsn),
    /// The record here does not name the one before it.
    Previous {
        at: Lsn,
        /// `xl_prev`.
        found: Lsn,
    },
    /// The record here has a wrong checksum.
    Checksum(Lsn),
    /// The record here is not continued on the next page, and none after it says that it was
    /// given up.
    Continuation { at: Lsn, page: Lsn },
    /// The page here begins in the middle of a record, where one should begin.
    InTheMiddle(Lsn),
    /// The page here cannot follow; no address where it is the very first.
    Page(Option<Lsn>, PageFault),
}

impl Stop {
    /// Where the first byte stands that belongs to no good record, where that is known.
    pub fn position(&self) -> Option<Lsn> {
        match self {
            Stop::EndOfInput(at) | Stop::Page(at, _) => *at,
            Stop::Nothing(at)
            | Stop::Length(at)
            | Stop::Previous { at, .. }
            | Stop::Checksum(at)
            | Stop::Continuation { at, .. }
            | Stop::InTheMiddle(at) => Some(*at),
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::EndOfInput(None) => f.write_str("the segments end"),
            Stop::EndOfInput(Some(at)) => write!(f, "the segments end within the record at {at}"),
            Stop::Nothing(at) => write!(f, "nothing was written at {at}"),
            Stop::Length(at) => write!(f, "the record at {at} has an impossible length"),
            Stop::Previous { at, found } => {
                write!(f, "the record at {at} names {found} as the one before it, which it is not")
            }
            Stop::Checksum(at) => write!(f, "the record at {at} has a wrong checksum"),
            Stop::Continuation { at, page } => {
                write!(f, "the record at {at} is not continued on the page at {page}")
            }
            Stop::InTheMiddle(at) => {
                write!(f, "the page at {at} begins in the middle of a record that is not there")
            }
            Stop::Page(Some(at), fault) => write!(f, "the WAL breaks off at {at}: {fault}"),
            Stop::Page(None, fault) => fault.fmt(f),
        }
    }
}

/// Reads the records of consecutive segments. For each one [`Walker::begin`], then its bytes in
/// pieces of any size; what comes after the stop is ignored.
#[derive(Clone)]
pub struct Walker {
    pages: Pages,
    state: State,
    /// The one at hand.
    record: Record,
    /// A record whose continuation was lost in a crash; the next one must say so.
    given_up: Option<Lsn>,
    stop: Option<Stop>,
    /// Records from here on do not count.
    limit: Option<Lsn>,
    mark: Option<Mark>,
    found: Walk,
}

#[derive(Clone)]
enum State {
    /// Passing over the end of a record that began before the first segment.
    Seek,
    /// Passing over everything before the first record wanted.
    SeekTo(Lsn),
    /// So many bytes of alignment, then a record.
    Between(u64),
    /// Within the record at hand.
    Within,
    /// After a switch: nothing counts until the next segment.
    Switched,
}

impl Walker {
    /// Nothing read so far.
    pub fn new(start: Start) -> Self {
        let state = match start {
            Start::Anywhere => State::Seek,
            Start::At(lsn) => State::SeekTo(lsn),
        };
        let found = Walk {
            first: None,
            last: None,
            end: None,
            records: 0,
            last_commit: None,
            last_completed: None,
            greatest_completed: None,
            marked: None,
            stop: Stop::EndOfInput(None),
            complete: false,
        };
        let record = Record::new(Lsn(0));
        Walker {
            pages: Pages::new(),
            state,
            record,
            given_up: None,
            stop: None,
            limit: None,
            mark: None,
            found,
        }
    }

    /// Ends before the first record that begins at this address or later.
    pub fn until(self, limit: Lsn) -> Self {
        Walker { limit: Some(limit), ..self }
    }

    /// Looks for a record.
    pub fn looking_for(self, mark: Mark) -> Self {
        Walker { mark: Some(mark), ..self }
    }

    /// The bytes of this segment follow. A walk goes from one to the next in order of address, on
    /// one timeline or from a parent's to a child's.
    pub fn begin(&mut self, name: SegmentName) {
        if self.stop.is_none() && !self.pages.begin(name) {
            self.stop = Some(self.end_of_input());
        }
    }

    /// Takes the next bytes. `false` once nothing can change the result any more.
    pub fn push(&mut self, mut bytes: &[u8]) -> bool {
        if self.stop.is_none()
            && let Err(stop) = self.read(&mut bytes)
        {
            self.stop = Some(stop);
        }
        self.stop.is_none()
    }

    /// What was found; more bytes may follow.
    pub fn walk(&self) -> Walk {
        let complete = self.stop.is_none() && self.pages.is_between_segments();
        let stop = self.stop.clone().unwrap_or_else(|| self.end_of_input());
        Walk { stop, complete, ..self.found.clone() }
    }

    fn end_of_input(&self) -> Stop {
        Stop::EndOfInput(match &self.state {
            State::Within => Some(self.record.start),
            _ => self.given_up,
        })
    }

    fn read(&mut self, bytes: &mut &[u8]) -> Result<(), Stop> {
        loop {
            if matches!(self.state, State::Switched) {
                if self.pages.skip_to_segment_end(bytes) {
                    return Ok(());
                }
                self.state = State::Between(0);
            }
            match self.pages.next(bytes) {
                Ok(None) => return Ok(()),
                Ok(Some(Input::Page(page))) => self.page(page)?,
                Ok(Some(Input::Content(at, content))) => self.content(at, content)?,
                Err(PageFault::Empty) => return Err(self.nothing()),
                Err(fault) => return Err(Stop::Page(self.pages.position(), fault)),
            }
        }
    }

    /// What an unwritten page means.
    fn nothing(&self) -> Stop {
        let page = self.pages.position().unwrap_or(Lsn(0));
        match (&self.state, self.given_up) {
            (State::Within, _) => Stop::Continuation { at: self.record.start, page },
            (_, Some(at)) => Stop::Continuation { at, page },
            _ => Stop::Nothing(page),
        }
    }

    fn page(&mut self, page: Page) -> Result<(), Stop> {
        match &self.state {
            State::Seek => {
                // As `XLogFindNextRecord`: where it fills the page, the next one tells.
                let rest = u64::from(page.continued.unwrap_or(0)).next_multiple_of(8);
                if rest < self.pages.content_left() {
                    self.state = State::Between(rest);
                }
            }
            State::SeekTo(lsn) if *lsn <= page.content => {
                self.state = State::Between(0);
                return self.page(page);
            }
            State::Between(_) if page.continued.is_some() => return Err(Stop::InTheMiddle(page.address)),
            State::Within => match page.continued {
                Some(rest) if u64::from(rest) == self.record.missing() => {}
                Some(_) => return Err(Stop::Continuation { at: self.record.start, page: page.address }),
                // A crash lost the continuation. Since 13.5 and 14.1 PostgreSQL marks the page and
                // begins it with a record that names the lost one; only the latter is relied upon.
                None => {
                    self.given_up = Some(self.record.start);
                    self.state = State::Between(0);
                }
            },
            _ => {}
        }
        Ok(())
    }

    fn content(&mut self, at: Lsn, mut bytes: &[u8]) -> Result<(), Stop> {
        let end = at.0.saturating_add(bytes.len() as u64);
        while !bytes.is_empty() {
            let at = Lsn(end.saturating_sub(bytes.len() as u64));
            match &mut self.state {
                State::Seek | State::Switched => return Ok(()),
                State::SeekTo(lsn) if lsn.0 >= end => return Ok(()),
                State::SeekTo(lsn) => self.state = State::Between(lsn.0.saturating_sub(at.0)),
                State::Between(0) if self.limit.is_some_and(|limit| at >= limit) => {
                    return Err(Stop::EndOfInput(None));
                }
                State::Between(0) => {
                    self.record = Record::new(at);
                    self.state = State::Within;
                }
                State::Between(count) => {
                    *count -= take(&mut bytes, *count).len() as u64;
                }
                State::Within => {
                    if self.record.take(&mut bytes, self.found.last)? {
                        let past = Lsn(end.saturating_sub(bytes.len() as u64));
                        self.state = self.finish(past)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The record at hand is whole; its last byte stands before `past`.
    fn finish(&mut self, past: Lsn) -> Result<State, Stop> {
        let record = &self.record;
        record.check()?;
        if let Some(at) = self.given_up
            && record.gives_up() != Some(at)
        {
            return Err(Stop::Continuation { at, page: record.start });
        }
        self.given_up = None;
        let found = &mut self.found;
        found.first.get_or_insert(record.start);
        found.last = Some(record.start);
        found.records += 1;
        if found.marked.is_none() && self.mark.as_ref().is_some_and(|mark| record.is(mark)) {
            found.marked = Some(record.start);
        }
        let time = record.time();
        if let Some((time, committed)) = time {
            found.last_completed = Some(time);
            found.greatest_completed = found.greatest_completed.max(Some(time));
            if committed {
                found.last_commit = Some(time);
            }
        }
        let next = past.0.next_multiple_of(8);
        if record.is_switch()
            && let Some(size) = self.pages.segment_size()
        {
            // "Pretend it extends to end of segment."
            found.end = Some(Lsn(next.next_multiple_of(size)));
            return Ok(State::Switched);
        }
        found.end = Some(Lsn(next));
        Ok(State::Between(next - past.0))
    }
}

/// Segments may be decoded straight into it; it never fails.
impl Write for Walker {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
