//! `wal-push`: one WAL file into every destination, durably, never over a different one.
//!
//! 1. Read the source once: check it, hash it, compress it; then prove that it did not change.
//! 2. At every destination at once: prove that it is this cluster's archive, create the object.
//! 3. Where the name is taken: identical is success (made durable again), different is a
//!    conflict, damaged is one too. In an archive that other tools wrote to, the name may be
//!    taken in another encoding, which is looked for first.
//!
//! Success means: durable in every destination. Every failure is reported, and the caller
//! decides by the gravest. Source: the PostgreSQL manual, "Continuous Archiving",
//! `archive_command`; `src/backend/postmaster/pgarch.c`.

use crate::archive::{self, Claimant, Refusal};
use crate::cluster::{self, DataDirectory};
use crate::failure::Failure;
use crate::lookup;
use crate::object::proof::MAX_TEXT;
use crate::object::{Checks, DecodeError, Decoded, EncodeError, Encoding, Key, Trailer, decode_as, encode};
use crate::spool::Spool;
use crate::storage::deadline::Deadline;
use crate::storage::{Body, BodyWriter, Error, Kind, Range, Shared, Storage};
use crate::wal::{BackupHistory, FirstPage, SegmentSize, SystemId, TimelineHistory, WalName};
use std::fs::{File, Metadata};
use std::io::{self, Cursor, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What a push can fail of, gravest first.
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
    /// The deadline passed.
    Deadline,
    /// Something must be configured first.
    Configuration,
}

/// One call of `archive_command`.
pub struct Push<'a> {
    /// By the last part of the path.
    pub name: WalName,
    /// `%p`.
    pub path: &'a Path,
    /// All of them must take the file.
    pub destinations: &'a [Shared],
    /// The cluster the file comes from, where it is known.
    pub data_directory: Option<&'a DataDirectory>,
    /// Where it can be had.
    pub spool: Option<&'a Spool>,
    /// zstd's.
    pub level: i32,
    /// Whether pages are looked at.
    pub checks: Checks,
    /// Of the whole call; by default it grows with the size of the source.
    pub timeout: Option<Duration>,
}

type Result<T> = std::result::Result<T, Failure<Cause>>;

/// Runs it. The failures of all destinations, never empty.
pub fn push(request: &Push<'_>) -> std::result::Result<(), Vec<Failure<Cause>>> {
    let start = Instant::now();
    let source = Source::read(request).map_err(|failure| vec![failure])?;
    let default = Duration::from_secs(120) + Duration::from_secs(source.trailer.size >> 20);
    let deadline = start + request.timeout.unwrap_or(default);
    let outcomes: Vec<Result<()>> = std::thread::scope(|scope| {
        let pushes: Vec<_> = request
            .destinations
            .iter()
            .map(|destination| {
                let storage = Deadline::new(Arc::clone(destination), deadline);
                let source = &source;
                scope.spawn(move || source.store(request, &storage))
            })
            .collect();
        let join = |push: std::thread::ScopedJoinHandle<'_, _>| {
            push.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        pushes.into_iter().map(join).collect()
    });
    let failures: Vec<_> = outcomes.into_iter().filter_map(std::result::Result::err).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

/// The file, read, checked and encoded.
struct Source {
    name: WalName,
    trailer: Trailer,
    body: Body,
    page: Option<FirstPage>,
    segment_size: Option<SegmentSize>,
    modified: SystemTime,
}

impl Source {
    fn read(request: &Push<'_>) -> Result<Self> {
        let Push { name, path, .. } = *request;
        let unreadable =
            |error| Failure::new(Cause::Source, format!("cannot read \"{}\": {error}", path.display()));
        let mut file = File::open(path).map_err(unreadable)?;
        let before = file.metadata().map_err(unreadable)?;
        if !before.is_file() {
            return Err(Failure::new(Cause::Source, format!("\"{}\" is not a regular file", path.display())));
        }
        let control = control_system_id(request.data_directory)?;
        let mut head = Vec::new();
        let head_len = if name.is_pages() { FirstPage::LEN as u64 } else { MAX_TEXT };
        file.by_ref().take(head_len).read_to_end(&mut head).map_err(unreadable)?;
        let checked = check(request, before.len(), &head, control)?;

        let mut folders: Vec<PathBuf> =
            request.spool.map(|spool| spool.folder().to_owned()).into_iter().collect();
        folders.push(std::env::temp_dir());
        let mut body = BodyWriter::new(folders);
        let mut content = Cursor::new(&head).chain(file.by_ref());
        let encoded = encode(name, before.len(), checked.system_id, request.level, &mut content, &mut body);
        let trailer = encoded.map_err(|error| match error {
            EncodeError::Read(error) => unreadable(error),
            EncodeError::Length(read) => {
                changed(path, &format!("{read} bytes were read of {}", before.len()))
            }
            EncodeError::Write(error) => Failure::new(
                Cause::Source,
                format!("cannot keep the compressed form of \"{path}\": {error}", path = path.display()),
            )
            .hint("make room for a temporary file in the spool directory or $TMPDIR"),
        })?;
        let after = file.metadata().and_then(|open| Ok((open, std::fs::metadata(path)?)));
        let (open, named) = after.map_err(unreadable)?;
        if !same_file(&before, &open) || !same_file(&before, &named) {
            return Err(changed(path, "its size, times or inode differ"));
        }
        Ok(Source {
            name,
            trailer,
            body: body.finish(),
            page: checked.page,
            segment_size: checked.segment_size,
            modified: before.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }

    /// Puts it into one destination.
    fn store(&self, request: &Push<'_>, storage: &dyn Storage) -> Result<()> {
        let folder = request.path.parent().unwrap_or(Path::new("."));
        let claimant = Claimant {
            system_id: self.trailer.system_id,
            segment_size: self.segment_size,
            neighbour_size: &|| cluster::segment_size_in(folder, self.trailer.system_id?),
            checks: request.checks,
        };
        let identity = archive::claim(storage, &claimant, request.spool, SystemTime::now()).map_err(|refusal| match refusal {
            Refusal::OtherCluster { message, hint } => Failure::new(Cause::Invalid, message).hint(hint),
            Refusal::Nameless => Failure::new(
                Cause::Configuration,
                format!("the archive \"{}\" is new, and \"{}\" does not tell which cluster it is to belong to", storage.place(), self.name),
            )
            .hint("run wal-push in the data directory, or set PGDATA"),
            Refusal::Storage(error) => failed(&error),
        })?;
        let own = Key::of(self.name);
        let foreign = match identity.foreign {
            true => self.find_foreign(request, storage, &own)?,
            false => None,
        };
        let (key, stood) = match foreign {
            Some(found) => found,
            None => {
                let stood = self.create_or_compare(request, storage, &own)?;
                (own, stood)
            }
        };
        match stood {
            Stood::Identical => Ok(()),
            // One file that cannot be archived blocks every later one, and two standbys promoted
            // from one parent legitimately leave different partial segments.
            Stood::Different(other) if matches!(self.name, WalName::Partial(_)) => {
                let variant = Key::variant(self.name, &self.trailer.sha256);
                match self.create_or_compare(request, storage, &variant)? {
                    Stood::Identical => {
                        log::warn!(
                            "\"{}\" already holds another \"{}\", of another promotion; this one is stored beside it as \"{variant}\"",
                            storage.place(),
                            self.name
                        );
                        Ok(())
                    }
                    Stood::Different(_) => Err(self.conflict(storage, &variant, &other)),
                }
            }
            Stood::Different(other) => Err(self.conflict(storage, &key, &other)),
        }
    }

    /// Looks for what other tools stored under the name. Where they stored it, all copies must be
    /// the same as ours, the one under our own key included.
    fn find_foreign(
        &self,
        request: &Push<'_>,
        storage: &dyn Storage,
        own: &Key,
    ) -> Result<Option<(Key, Stood)>> {
        let around = lookup::around(storage, self.name, true).map_err(|error| failed(&error))?;
        if let Some(key) = around.unknown {
            return Err(Failure::new(
                Cause::Conflict,
                format!(
                    "\"{}/{key}\" already stands there in an encoding that this version does not read",
                    storage.place()
                ),
            )
            .hint("decrypt or decode it with the tool that stored it, or archive to an empty prefix"));
        }
        let mut found = None;
        if around.copies.iter().all(|(key, _)| key == own) {
            return Ok(None); // the attempt to create it tells the rest
        }
        for (key, encoding) in around.copies {
            match self.compare(request, storage, &key, encoding) {
                Ok(Stood::Identical) => found = Some(key),
                Err(Compare::Gone(_)) => {}
                Ok(different) => return Ok(Some((key, different))),
                Err(Compare::Failed(failure)) => return Err(failure),
            }
        }
        let Some(key) = found else { return Ok(None) };
        storage.make_durable(&key).map_err(|error| failed(&error))?;
        Ok(Some((key, Stood::Identical)))
    }

    /// Creates the object, or tells whether the one that is there is the same. Only [`Cause::Conflict`]
    /// for damage, and the storage's own failures, are errors.
    fn create_or_compare(&self, request: &Push<'_>, storage: &dyn Storage, key: &Key) -> Result<Stood> {
        let mut last = None;
        // Twice more where the object vanishes between "exists" and the look at it.
        for _ in 0..3 {
            match storage.create(key, &self.body) {
                Ok(()) => return Ok(Stood::Identical),
                Err(error) if error.kind() == Kind::AlreadyExists => {}
                Err(error) => return Err(failed(&error)),
            }
            match self.compare(request, storage, key, Encoding::Zstd) {
                Ok(Stood::Identical) => {
                    // Whoever wrote it may have died before it was durable.
                    return storage
                        .make_durable(key)
                        .map(|()| Stood::Identical)
                        .map_err(|error| failed(&error));
                }
                Ok(other) => return Ok(other),
                Err(Compare::Gone(error)) => last = Some(error),
                Err(Compare::Failed(failure)) => return Err(failure),
            }
        }
        Err(last.map_or_else(
            || {
                Failure::new(
                    Cause::Destination,
                    format!("\"{}/{key}\" could not be created", storage.place()),
                )
            },
            |error| failed(&error),
        ))
    }

    fn compare(
        &self,
        request: &Push<'_>,
        storage: &dyn Storage,
        key: &Key,
        encoding: Encoding,
    ) -> std::result::Result<Stood, Compare> {
        let gone_or_failed = |error: Error| match error.kind() {
            Kind::NotFound => Compare::Gone(error),
            _ => Compare::Failed(failed(&error)),
        };
        if !storage.can_vanish() && encoding == Encoding::Zstd {
            let mut object = storage.get(key, Range::Last(Trailer::LEN as u64)).map_err(gone_or_failed)?;
            let mut tail = Vec::new();
            let read = object.body.read_to_end(&mut tail);
            read.map_err(|error| gone_or_failed(Error::of_io(error, storage.place())))?;
            if let Ok(theirs) = Trailer::read(&tail)
                && theirs.object_len() == object.size
                && (theirs.name, theirs.size, theirs.sha256)
                    == (self.name, self.trailer.size, self.trailer.sha256)
            {
                return Ok(Stood::Identical);
            }
        }
        let mut object = storage.get(key, Range::Whole).map_err(gone_or_failed)?;
        match decode_as(encoding, self.name, request.checks, &mut object.body, &mut io::sink()) {
            Ok(theirs) if (theirs.size, theirs.sha256) == (self.trailer.size, self.trailer.sha256) => {
                Ok(Stood::Identical)
            }
            Ok(theirs) => Ok(Stood::Different(Box::new((theirs, object.modified)))),
            Err(DecodeError::Damaged(reason)) => Err(Compare::Failed(
                Failure::new(
                    Cause::Conflict,
                    format!("\"{}/{key}\" stands there damaged: {reason}", storage.place()),
                )
                .hint("move it out of the archive by hand; the next push then stores the good one"),
            )),
            Err(DecodeError::Read(error) | DecodeError::Write(error)) => {
                Err(gone_or_failed(Error::of_io(error, storage.place())))
            }
        }
    }

    fn conflict(&self, storage: &dyn Storage, key: &Key, other: &(Decoded, SystemTime)) -> Failure<Cause> {
        let (theirs, stored) = other;
        let ours = describe(self.trailer.system_id, self.page.as_ref(), self.trailer.size, self.modified);
        let there = describe(theirs.system_id(), theirs.page.as_ref(), theirs.size, *stored);
        Failure::new(
            Cause::Conflict,
            format!("\"{}/{key}\" already stands there with different content ({there}); this \"{}\" is {ours}", storage.place(), self.name),
        )
        .hint(
            "two servers archive to the same place (a clone, a copy started without recovery.signal, a split brain): \
             stop or re-point the wrong one; nothing was overwritten",
        )
    }
}

/// What stands under a key.
enum Stood {
    /// Our bytes, durable.
    Identical,
    /// Other bytes, intact; when they were stored.
    Different(Box<(Decoded, SystemTime)>),
}

/// Why what stands under a key could not be compared.
enum Compare {
    /// It is not there any more.
    Gone(Error),
    Failed(Failure<Cause>),
}

/// What the content proves.
struct Checked {
    page: Option<FirstPage>,
    segment_size: Option<SegmentSize>,
    system_id: Option<SystemId>,
}

fn check(request: &Push<'_>, len: u64, head: &[u8], control: Option<SystemId>) -> Result<Checked> {
    let Push { name, path, .. } = *request;
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
            if request.checks == Checks::NoHeader {
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
                return Err(invalid(format!(
                    "it is of the cluster with system identifier {}, the data directory has {control}",
                    page.system_id()
                ))
                .hint("a file of another cluster, or from before pg_upgrade or initdb, lies in pg_wal: remove it and its .ready file"));
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

fn same_file(one: &Metadata, other: &Metadata) -> bool {
    let facts =
        |m: &Metadata| (m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
    facts(one) == facts(other)
}

fn changed(path: &Path, how: &str) -> Failure<Cause> {
    Failure::new(Cause::Source, format!("\"{}\" changed while it was read ({how})", path.display()))
        .hint("nothing was stored; PostgreSQL asks again by itself")
}

fn failed(error: &Error) -> Failure<Cause> {
    let cause = if error.kind() == Kind::TimedOut { Cause::Deadline } else { Cause::Destination };
    Failure::from_storage(cause, error)
}

fn describe(system_id: Option<SystemId>, page: Option<&FirstPage>, size: u64, time: SystemTime) -> String {
    let cluster = system_id.map_or_else(|| "unknown cluster".to_owned(), |id| format!("cluster {id}"));
    let timeline = page.map_or_else(String::new, |page| format!(", timeline {}", page.timeline()));
    format!("of {cluster}{timeline}, {size} bytes, of {}", humantime::format_rfc3339_seconds(time))
}
