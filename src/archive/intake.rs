//! One WAL file on its way into an archive: read once, checked, hashed and compressed, and proved
//! not to have changed meanwhile.
//!
//! Only what PostgreSQL never archives is rejected (rules R1 to R8 of `wal::page`): one file that
//! cannot be archived blocks every later one. Source: PostgreSQL
//! `src/include/access/xlog_internal.h`, `src/backend/access/transam/xlogreader.c`.

use crate::failure::Failure;
use crate::host::data_directory::DataDirectory;
use crate::object::proof::MAX_TEXT;
use crate::object::{Checks, EncodeError, Encoder, Trailer};
use crate::spool::{Spool, Stamp};
use crate::storage::{Body, BodyWriter, body};
use crate::wal::{BackupHistory, FirstPage, SegmentSize, SystemId, TimelineHistory, WalName};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
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
    pub body: Body,
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
        let unreadable = |error: io::Error| {
            Failure::new(Cause::Source, format!("cannot read \"{}\": {error}", path.display()))
        };
        // A pipe would be waited for until somebody writes to it.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty());
        let mut file = file.map(File::from).map_err(|error| unreadable(error.into()))?;
        let before = file.metadata().map_err(unreadable)?;
        if !before.is_file() {
            return Err(Failure::new(Cause::Source, format!("\"{}\" is not a regular file", path.display())));
        }
        let control = control_system_id(intake.data_directory.as_ref())?;
        let mut head = Vec::new();
        let head_len = if name.is_pages() { FirstPage::LEN as u64 } else { MAX_TEXT };
        file.by_ref().take(head_len).read_to_end(&mut head).map_err(unreadable)?;
        let checked = check(name, path, intake, before.len(), &head, control)?;

        let folders = body::overflow_folders(intake.spool.as_ref().map(Spool::folder));
        let mut body = if intake.urgent { BodyWriter::new(folders) } else { BodyWriter::sharing(folders) };
        let mut content = Cursor::new(&head).chain(file.by_ref());
        let encoded = encoder.encode(name, before.len(), checked.system_id, &mut content, &mut body);
        let trailer = encoded.map_err(|error| match error {
            EncodeError::Read(error) => unreadable(error),
            EncodeError::Length(read) => {
                changed(path, &format!("{read} bytes were read of {}", before.len()))
            }
            EncodeError::Write(error) => {
                let hint = match error.kind() {
                    std::io::ErrorKind::WouldBlock => {
                        "raise the limits of processes and threads (ulimit -u, TasksMax)"
                    }
                    _ => "make room for a temporary file in the spool directory, $TMPDIR, /var/tmp or /tmp",
                };
                let what = format!("cannot keep the compressed form of \"{}\": {error}", path.display());
                Failure::new(Cause::Source, what).hint(hint)
            }
        })?;
        let after = file.metadata().and_then(|open| Ok((open, std::fs::metadata(path)?)));
        let (open, named) = after.map_err(unreadable)?;
        let stamp = Stamp::of(&before);
        if stamp != Stamp::of(&open) || stamp != Stamp::of(&named) {
            return Err(changed(path, "its size, times or inode differ"));
        }
        if intake.drop_cache
            && let Err(error) = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
        {
            log::debug!("\"{}\" stays in the page cache: {error}", path.display());
        }
        Ok(Source {
            name,
            path: path.to_owned(),
            trailer,
            body: body.finish(),
            page: checked.page,
            segment_size: checked.segment_size,
            modified: before.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            stamp,
        })
    }
}

/// What the content proves.
struct Checked {
    page: Option<FirstPage>,
    segment_size: Option<SegmentSize>,
    system_id: Option<SystemId>,
}

fn check(
    name: WalName,
    path: &Path,
    intake: &Intake,
    len: u64,
    head: &[u8],
    control: Option<SystemId>,
) -> Result<Checked> {
    let invalid = |reason: String| {
        Failure::new(Cause::Invalid, format!("\"{}\" is not a valid \"{name}\": {reason}", path.display()))
    };
    let odd = |oddities: Vec<String>| {
        for oddity in oddities {
            log::warn!("\"{}\": {oddity}; archived all the same", path.display());
        }
    };
    match name {
        WalName::Segment(segment) | WalName::Partial(segment) => {
            if intake.checks == Checks::NoHeader {
                let size = SegmentSize::new(len)
                    .ok_or_else(|| invalid(format!("{len} bytes is no size of a segment")))?;
                return Ok(Checked { page: None, segment_size: Some(size), system_id: control });
            }
            let page = FirstPage::read(head).ok_or_else(|| invalid(format!("it has only {len} bytes")))?;
            let size = page.check(segment, len).map_err(|bad| {
                invalid(bad.to_string()).hint(
                    "PostgreSQL never archives such a file; if somebody put it into pg_wal, remove it and its .ready file",
                )
            })?;
            if let Some(control) = control
                && control != page.system_id()
            {
                let own = intake.data_directory.as_ref().filter(|directory| directory.holds(path));
                return Err(invalid(format!(
                    "it is of the cluster with system identifier {}, the data directory {}has {control}",
                    page.system_id(),
                    intake.data_directory.as_ref().map_or_else(String::new, |directory| {
                        format!("\"{}\" ", directory.path().display())
                    })
                ))
                .hint(match own {
                    Some(_) => "a file of another cluster, or from before pg_upgrade or initdb, lies in pg_wal: remove it and its .ready file",
                    None => "the file lies elsewhere and may be good: run wal-push in the data directory that it comes from, or correct PGDATA",
                }));
            }
            odd(page.oddities());
            Ok(Checked { page: Some(page), segment_size: Some(size), system_id: Some(page.system_id()) })
        }
        WalName::TimelineHistory(timeline) => {
            let history = TimelineHistory::parse(timeline, head).map_err(|bad| invalid(bad.to_string()))?;
            odd(history.oddities());
            Ok(Checked { page: None, segment_size: None, system_id: control })
        }
        WalName::BackupHistory(segment, _) => {
            // PostgreSQL writes it without fsync and never reads it, so nothing in it may block archiving.
            match BackupHistory::parse(head) {
                Some(backup) if backup.start_segment == segment => {}
                Some(backup) => odd(vec![format!("it speaks of segment \"{}\"", backup.start_segment)]),
                None => odd(vec!["it is not a backup history file that can be understood".to_owned()]),
            }
            Ok(Checked { page: None, segment_size: None, system_id: control })
        }
    }
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

fn changed(path: &Path, how: &str) -> Failure<Cause> {
    Failure::new(Cause::Source, format!("\"{}\" changed while it was read ({how})", path.display()))
        .hint("nothing was stored; PostgreSQL asks again by itself")
}
