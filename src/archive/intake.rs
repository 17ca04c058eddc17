//! One WAL file on its way into an archive: read once, checked, hashed and compressed, and proved
//! not to have changed meanwhile.
//!
//! Only what PostgreSQL never archives is rejected (rules R1 to R8 of `wal::page`): one file that
//! cannot be archived blocks every later one. Source: PostgreSQL
//! `src/include/access/xlog_internal.h`, `src/backend/access/transam/xlogreader.c`.

use crate::archive::forms::{Forms, Objects};
use crate::failure::Failure;
use crate::host::data_directory::DataDirectory;
use crate::object::proof::MAX_TEXT;
use crate::object::{Checks, EncodeError, Encoder, Trailer};
use crate::spool::{Spool, Stamp};
use crate::storage::{BodyWriter, body};
use crate::wal::{BackupHistory, FirstPage, SegmentName, SegmentSize, SystemId, TimelineHistory, WalName};
use rustix::fs::{Mode, OFlags};
use std::fs::{self, File, Metadata};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What archiving a file can fail of, gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The source cannot be read, or changed while it was read.
    Source,
    /// Not a valid WAL file for its name, or of another cluster.
    Invalid,
    /// A different or damaged object stands under the name.
    Conflict,
    /// A destination failed or refused.
    Destination,
    Deadline,
    /// Something must be configured first.
    Configuration,
}

type Result<T> = std::result::Result<T, Failure<Cause>>;

/// Where the files of a call come from, and how they are read: the same for all of them.
#[derive(Clone, Debug)]
pub struct Intake {
    /// The cluster's, where it is known.
    pub data_directory: Option<DataDirectory>,
    /// Where large bodies may be kept.
    pub spool: Option<Spool>,
    /// zstd's.
    pub level: i32,
    /// Whether pages are looked at.
    pub checks: Checks,
    /// Whether the system is to forget the files' pages, which nobody may read again.
    pub drop_cache: bool,
    /// In which forms the destinations store it.
    pub forms: Forms,
    /// Whether somebody waits for it. What can wait takes only the memory that is left.
    pub urgent: bool,
}

/// How long it may take to archive a file of so many bytes, where nobody says otherwise.
pub fn patience(size: u64) -> Duration {
    Duration::from_secs(120) + Duration::from_secs(size >> 20)
}

/// The file, read, checked and encoded.
pub struct Source {
    /// By the last part of the path.
    pub name: WalName,
    /// Where it was read.
    pub path: PathBuf,
    /// What its object says of it.
    pub trailer: Trailer,
    pub objects: Objects,
    /// Of a segment whose pages are looked at.
    pub page: Option<FirstPage>,
    /// Where the file tells.
    pub segment_size: Option<SegmentSize>,
    /// When it was last written to.
    pub modified: SystemTime,
    /// What tells it from every other file, and from itself after a change.
    pub stamp: Stamp,
}

impl Source {
    /// Reads it once and encodes it.
    pub fn read(name: WalName, path: &Path, intake: &Intake, encoder: &mut Encoder) -> Result<Self> {
        let (mut file, before) = open(path)?;
        let incoming = Incoming { name, path, intake, len: before.len() };
        let control = control_system_id(intake.data_directory.as_ref())?;
        let mut head = Vec::new();
        let head_len = if name.is_pages() { FirstPage::LEN as u64 } else { MAX_TEXT };
        file.by_ref().take(head_len).read_to_end(&mut head).map_err(|error| unreadable(path, &error))?;
        let Checked { page, segment_size, system_id } = incoming.check(&head, control)?;
        let content = Cursor::new(&head).chain(file.by_ref());
        let (trailer, objects) = incoming.encode(content, system_id, encoder)?;
        let stamp = incoming.unchanged(&before, &file)?;
        if intake.drop_cache
            && let Err(error) = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
        {
            log::debug!("\"{}\" stays in the page cache: {error}", path.display());
        }
        let modified = before.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Source { name, path: path.to_owned(), trailer, objects, page, segment_size, modified, stamp })
    }
}

fn open(path: &Path) -> Result<(File, Metadata)> {
    // A pipe would be waited for until somebody writes to it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from);
    let opened = opened.map(File::from).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = opened.map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        return Err(Failure::new(Cause::Source, format!("\"{}\" is not a regular file", path.display())));
    }
    Ok((file, metadata))
}

/// What the content proves.
struct Checked {
    page: Option<FirstPage>,
    segment_size: Option<SegmentSize>,
    system_id: Option<SystemId>,
}

/// One file while it is read.
struct Incoming<'a> {
    name: WalName,
    path: &'a Path,
    intake: &'a Intake,
    len: u64,
}

impl Incoming<'_> {
    fn check(&self, head: &[u8], control: Option<SystemId>) -> Result<Checked> {
        match self.name {
            WalName::Segment(segment) | WalName::Partial(segment) => {
                return self.check_pages(segment, head, control);
            }
            WalName::TimelineHistory(timeline) => {
                let history =
                    TimelineHistory::parse(timeline, head).map_err(|bad| self.invalid(bad.to_string()))?;
                self.warn(history.oddities());
            }
            // PostgreSQL writes it without fsync and never reads it, so nothing in it may block archiving.
            WalName::BackupHistory(segment, _) => match BackupHistory::parse(head) {
                Some(backup) if backup.start_segment == segment => {}
                Some(backup) => self.warn([format!("it speaks of segment \"{}\"", backup.start_segment)]),
                None => self.warn(["it is not a backup history file that can be understood".to_owned()]),
            },
        }
        Ok(Checked { page: None, segment_size: None, system_id: control })
    }

    fn check_pages(&self, segment: SegmentName, head: &[u8], control: Option<SystemId>) -> Result<Checked> {
        let len = self.len;
        if self.intake.checks == Checks::NoHeader {
            let size = SegmentSize::new(len)
                .ok_or_else(|| self.invalid(format!("{len} bytes is no size of a segment")))?;
            return Ok(Checked { page: None, segment_size: Some(size), system_id: control });
        }
        let page = FirstPage::read(head).ok_or_else(|| self.invalid(format!("it has only {len} bytes")))?;
        let size = page.check(segment, len).map_err(|bad| {
            self.invalid(bad.to_string()).hint(
                "PostgreSQL never archives such a file; if somebody put it into pg_wal, remove it and its .ready file",
            )
        })?;
        if let Some(control) = control.filter(|control| *control != page.system_id()) {
            return Err(self.other_cluster(page.system_id(), control));
        }
        self.warn(page.oddities());
        Ok(Checked { page: Some(page), segment_size: Some(size), system_id: Some(page.system_id()) })
    }

    /// Reads the rest of the file into its object, in all its forms.
    fn encode(
        &self,
        mut content: impl Read,
        system_id: Option<SystemId>,
        encoder: &mut Encoder,
    ) -> Result<(Trailer, Objects)> {
        let Incoming { name, path, intake, len } = *self;
        let folders = body::overflow_folders(intake.spool.as_ref().map(Spool::folder));
        let room = || match intake.urgent {
            true => BodyWriter::new(folders.clone()),
            false => BodyWriter::sharing(folders.clone()),
        };
        let encoded = intake.forms.writer(room).map_err(EncodeError::Write).and_then(|mut forms| {
            let trailer = encoder.encode(name, len, system_id, &mut content, &mut forms)?;
            let objects = forms.finish(&trailer).map_err(EncodeError::Write)?;
            Ok((trailer, objects))
        });
        encoded.map_err(|error| match error {
            EncodeError::Read(error) => unreadable(path, &error),
            EncodeError::Length(read) => self.changed(&format!("{read} bytes were read of {len}")),
            EncodeError::Write(error) => {
                let hint = match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        "raise the limits of processes and threads (ulimit -u, TasksMax)"
                    }
                    _ => "make room for a temporary file in the spool directory, $TMPDIR, /var/tmp or /tmp",
                };
                let what = format!("cannot keep the compressed form of \"{}\": {error}", path.display());
                Failure::new(Cause::Source, what).hint(hint)
            }
        })
    }

    /// Proves that the path still names the file that was opened, and that it is as it was then.
    fn unchanged(&self, before: &Metadata, file: &File) -> Result<Stamp> {
        let after = file.metadata().and_then(|open| Ok((open, fs::metadata(self.path)?)));
        let (open, named) = after.map_err(|error| unreadable(self.path, &error))?;
        let stamp = Stamp::of(before);
        match stamp == Stamp::of(&open) && stamp == Stamp::of(&named) {
            true => Ok(stamp),
            false => Err(self.changed("its size, times or inode differ")),
        }
    }

    fn warn(&self, oddities: impl IntoIterator<Item = String>) {
        for oddity in oddities {
            log::warn!("\"{}\": {oddity}; archived all the same", self.path.display());
        }
    }

    fn invalid(&self, reason: String) -> Failure<Cause> {
        let what = format!("\"{}\" is not a valid \"{}\": {reason}", self.path.display(), self.name);
        Failure::new(Cause::Invalid, what)
    }

    fn other_cluster(&self, theirs: SystemId, control: SystemId) -> Failure<Cause> {
        let directory = self.intake.data_directory.as_ref();
        let shown = directory.map_or_else(String::new, |it| format!("\"{}\" ", it.path().display()));
        let failure = self.invalid(format!(
            "it is of the cluster with system identifier {theirs}, the data directory {shown}has {control}"
        ));
        failure.hint(match directory.is_some_and(|directory| directory.holds(self.path)) {
            true => "a file of another cluster, or from before pg_upgrade or initdb, lies in pg_wal: remove it and its .ready file",
            false => "the file lies elsewhere and may be good: run wal-push in the data directory that it comes from, or correct PGDATA",
        })
    }

    fn changed(&self, how: &str) -> Failure<Cause> {
        let what = format!("\"{}\" changed while it was read ({how})", self.path.display());
        Failure::new(Cause::Source, what).hint("nothing was stored; PostgreSQL asks again by itself")
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure<Cause> {
    Failure::new(Cause::Source, format!("cannot read \"{}\": {error}", path.display()))
}

fn control_system_id(data_directory: Option<&DataDirectory>) -> Result<Option<SystemId>> {
    let Some(data_directory) = data_directory else { return Ok(None) };
    data_directory.system_id().map_err(|error| {
        Failure::new(
            Cause::Source,
            format!(
                "cannot read the system identifier in \"{}/global/pg_control\": {error}",
                data_directory.path().display()
            ),
        )
    })
}
