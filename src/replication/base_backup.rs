//! `BASE_BACKUP`: one stream of events, whatever the server's version.
//!
//! Up to 14 each tablespace, and then the manifest, is a copy of its own, without the two blocks that
//! end a tar; from 15 on there is one copy of tagged messages. Sources: PostgreSQL
//! `src/backend/backup/basebackup.c` and `basebackup_copy.c`, up to 14
//! `src/backend/replication/basebackup.c`.

use super::connection::{Connection, Row};
use super::{Cause, Result, protocol};
use crate::failure::Failure;
use crate::wal::{Lsn, Timeline};
use bytes::{Buf, Bytes};
use postgres_protocol::message::backend::Message;

/// How the backup begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// At once.
    Fast,
    /// Over the time that the server's settings give one.
    Spread,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub label: String,
    pub checkpoint: Checkpoint,
    /// KiB a second, as PostgreSQL counts.
    pub max_rate: Option<u32>,
}

/// A tablespace beside the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    pub oid: u32,
    pub location: String,
}

/// What the server says before the first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    pub start: Lsn,
    pub timeline: Timeline,
    pub tablespaces: Vec<Tablespace>,
    /// Bytes of all files, as the server estimates.
    pub estimate: u64,
}

/// The next thing in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A tar begins: of a tablespace, or of the data directory.
    Archive(Option<u32>),
    /// `backup_manifest` begins.
    Manifest,
    /// Bytes of what began last.
    Data(Bytes),
    /// Everything was sent.
    End { stop: Lsn, timeline: Timeline },
}

/// A backup on its way.
pub struct BackupStream<'c> {
    connection: &'c mut Connection,
    form: Form,
    ended: bool,
}

enum Form {
    /// From 15 on.
    Tagged { began: bool },
    /// Up to 14: what is still to come, the next one last.
    Copies { left: Vec<Event>, inside: Option<Event> },
}

/// The first version with tagged messages and named options.
const TAGGED: u32 = 150_000;

impl Connection {
    /// Begins a backup; returns once its checkpoint is done.
    pub fn base_backup(&mut self, request: &Request, version: u32) -> Result<(Started, BackupStream<'_>)> {
        if version < 130_000 {
            return Err(Failure::new(
                Cause::Protocol,
                format!("the server is of version {version}, and backups need 13 (130000) or newer"),
            ));
        }
        self.send(&command(request, version))?;
        let start = self.rows()?;
        let (start, timeline) = position(&start)?;
        let tablespaces = self.rows()?;
        let sizes = tablespaces.iter().map(|row| number(row, 2).unwrap_or(0));
        let estimate = sizes.sum::<u64>().saturating_mul(1024);
        let archives = tablespaces.iter().map(archive).collect::<Result<Vec<_>>>()?;
        let form = match version >= TAGGED {
            true => Form::Tagged { began: false },
            false => {
                let archives = archives.iter().map(|one| Event::Archive(one.as_ref().map(|it| it.oid)));
                let mut left: Vec<Event> = archives.chain([Event::Manifest]).collect();
                left.reverse();
                Form::Copies { left, inside: None }
            }
        };
        let tablespaces = archives.into_iter().flatten().collect();
        let started = Started { start, timeline, tablespaces, estimate };
        Ok((started, BackupStream { connection: self, form, ended: false }))
    }
}

impl BackupStream<'_> {
    /// The next event; nothing follows [`Event::End`].
    pub fn receive(&mut self) -> Result<Event> {
        loop {
            let event = match &mut self.form {
                Form::Tagged { .. } => self.tagged()?,
                Form::Copies { .. } => self.copied()?,
            };
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    /// After [`Event::End`]: whether the server found nothing wrong with what it read, which it says
    /// last.
    pub fn verdict(&mut self) -> Result<()> {
        match self.ended {
            true => self.connection.until_ready(),
            false => Err(protocol("has not ended the backup")),
        }
    }

    /// What the server warned of so far.
    pub fn warnings(&self) -> &[String] {
        &self.connection.channel.warnings
    }

    fn tagged(&mut self) -> Result<Option<Event>> {
        let message = self.connection.channel.receive()?;
        let Form::Tagged { began } = &mut self.form else { return Ok(None) };
        match message {
            Message::CopyOutResponse(_) if !*began => {
                *began = true;
                Ok(None)
            }
            Message::CopyData(body) if *began => untagged(body.into_bytes()),
            Message::CopyDone if *began => self.end().map(Some),
            _ => Err(protocol("sends something else than a backup")),
        }
    }

    fn copied(&mut self) -> Result<Option<Event>> {
        let Form::Copies { left, inside } = &self.form else { return Ok(None) };
        if left.is_empty() && inside.is_none() {
            return self.end().map(Some);
        }
        let message = self.connection.channel.receive()?;
        let Form::Copies { left, inside } = &mut self.form else { return Ok(None) };
        match (message, inside.as_ref()) {
            (Message::CopyOutResponse(_), None) => {
                *inside = left.pop();
                Ok(inside.clone())
            }
            (Message::CopyData(body), Some(_)) => {
                let data = body.into_bytes();
                Ok((!data.is_empty()).then_some(Event::Data(data)))
            }
            (Message::CopyDone, Some(_)) => match inside.take() {
                Some(Event::Archive(_)) => Ok(Some(Event::Data(Bytes::from_static(&END_OF_TAR)))),
                _ => Ok(None),
            },
            _ => Err(protocol("sends something else than a backup")),
        }
    }

    fn end(&mut self) -> Result<Event> {
        let rows = self.connection.rows()?;
        let (stop, timeline) = position(&rows)?;
        self.ended = true;
        Ok(Event::End { stop, timeline })
    }
}

/// Two empty blocks.
static END_OF_TAR: [u8; 1024] = [0; 1024];

/// What a message of the tagged form says; `None` for progress and empty ones.
fn untagged(mut data: Bytes) -> Result<Option<Event>> {
    if data.is_empty() {
        return Ok(None);
    }
    match data.get_u8() {
        b'd' => Ok((!data.is_empty()).then_some(Event::Data(data))),
        b'p' => Ok(None),
        b'm' => Ok(Some(Event::Manifest)),
        b'n' => {
            let name = data.split(|byte| *byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name);
            let oid = match name.strip_suffix(".tar") {
                Some("base") => Some(None),
                Some(oid) => oid.parse().ok().map(Some),
                None => None,
            };
            let unknown = || protocol(format!("sends an archive \"{name}\", which is none of a backup"));
            oid.map(|oid| Some(Event::Archive(oid))).ok_or_else(unknown)
        }
        other => Err(protocol(format!("sends a message of a backup of the unknown type {other}"))),
    }
}

fn command(request: &Request, version: u32) -> String {
    let label = request.label.replace('\'', "''");
    let fast = request.checkpoint == Checkpoint::Fast;
    if version >= TAGGED {
        let checkpoint = if fast { "fast" } else { "spread" };
        let rate = request.max_rate.map_or_else(String::new, |rate| format!(", MAX_RATE {rate}"));
        return format!(
            "BASE_BACKUP (LABEL '{label}', PROGRESS, CHECKPOINT '{checkpoint}', WAIT false, TABLESPACE_MAP, \
             MANIFEST 'yes'{rate})"
        );
    }
    let rate = request.max_rate.map_or_else(String::new, |rate| format!(" MAX_RATE {rate}"));
    let fast = if fast { " FAST" } else { "" };
    format!("BASE_BACKUP LABEL '{label}' PROGRESS{fast} NOWAIT TABLESPACE_MAP MANIFEST 'yes'{rate}")
}

fn position(rows: &[Row]) -> Result<(Lsn, Timeline)> {
    let field = |index: usize| match rows {
        [row] => row.get(index).and_then(Option::as_deref),
        _ => None,
    };
    let lsn = field(0).and_then(|text| text.parse().ok());
    let timeline = field(1).and_then(|text| text.parse().ok()).and_then(Timeline::new);
    lsn.zip(timeline).ok_or_else(|| protocol(format!("tells an address by {rows:?}")))
}

fn number(row: &Row, index: usize) -> Option<u64> {
    row.get(index)?.as_deref()?.parse().ok()
}

/// The tablespace of a row; `None` for the data directory, which has no id.
fn archive(row: &Row) -> Result<Option<Tablespace>> {
    let odd = || protocol(format!("tells a tablespace by {row:?}"));
    match (row.first(), row.get(1)) {
        (Some(None), _) => Ok(None),
        (Some(Some(oid)), Some(Some(location))) => {
            let oid = oid.parse().map_err(|_| odd())?;
            Ok(Some(Tablespace { oid, location: location.clone() }))
        }
        _ => Err(odd()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(max_rate: Option<u32>) -> Request {
        Request { label: "it's".to_owned(), checkpoint: Checkpoint::Fast, max_rate }
    }

    #[test]
    fn each_version_is_asked_in_its_own_words() {
        assert_eq!(
            command(&request(Some(1024)), 150_004),
            "BASE_BACKUP (LABEL 'it''s', PROGRESS, CHECKPOINT 'fast', WAIT false, TABLESPACE_MAP, MANIFEST 'yes', \
             MAX_RATE 1024)"
        );
        assert_eq!(
            command(&request(None), 140_010),
            "BASE_BACKUP LABEL 'it''s' PROGRESS FAST NOWAIT TABLESPACE_MAP MANIFEST 'yes'"
        );
        let spread = Request { checkpoint: Checkpoint::Spread, ..request(Some(32)) };
        assert!(
            command(&spread, 130_000).ends_with("PROGRESS NOWAIT TABLESPACE_MAP MANIFEST 'yes' MAX_RATE 32")
        );
        assert!(command(&spread, 180_000).contains("CHECKPOINT 'spread'"));
    }

    #[test]
    fn tagged_messages_are_archives_data_and_a_manifest() {
        let read = |bytes: &'static [u8]| untagged(Bytes::from_static(bytes));
        assert_eq!(read(b"nbase.tar\0\0"), Ok(Some(Event::Archive(None))));
        assert_eq!(read(b"n16406.tar\0/mnt/fast\0"), Ok(Some(Event::Archive(Some(16406)))));
        assert_eq!(read(b"m"), Ok(Some(Event::Manifest)));
        assert_eq!(read(b"dxyz"), Ok(Some(Event::Data(Bytes::from_static(b"xyz")))));
        for nothing in [b"".as_slice(), b"d", b"p\0\0\0\0\0\0\0\x01"] {
            assert_eq!(read(nothing), Ok(None));
        }
        assert!(read(b"x").is_err() && read(b"nother.tar\0\0").is_err() && read(b"n").is_err());
    }

    #[test]
    fn positions_and_tablespaces_are_rows() {
        let row = |fields: &[Option<&str>]| -> Row { fields.iter().map(|f| f.map(str::to_owned)).collect() };
        let here = position(&[row(&[Some("0/2000028"), Some("1")])]);
        assert_eq!(here, Ok((Lsn(0x200_0028), Timeline::FIRST)));
        assert!(position(&[]).is_err() && position(&[row(&[Some("x"), Some("1")])]).is_err());
        assert_eq!(archive(&row(&[None, None, Some("10")])), Ok(None));
        let found = archive(&row(&[Some("16406"), Some("/mnt/fast"), Some("10")])).unwrap().unwrap();
        assert_eq!((found.oid, found.location.as_str()), (16406, "/mnt/fast"));
        assert!(archive(&row(&[Some("x"), Some("/mnt/fast")])).is_err());
    }

    /// A message of a server.
    fn message(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = u32::try_from(content.len() + 4).unwrap().to_be_bytes();
        [&[tag], len.as_slice(), content].concat()
    }

    /// One result set, its description left empty.
    fn answer(rows: &[&[Option<&str>]]) -> Vec<u8> {
        let mut out = message(b'T', &[0, 0]);
        for row in rows {
            let mut content = u16::try_from(row.len()).unwrap().to_be_bytes().to_vec();
            for field in *row {
                let len = field.map_or(-1, |text| i32::try_from(text.len()).unwrap());
                content.extend(len.to_be_bytes());
                content.extend(field.unwrap_or_default().as_bytes());
            }
            out.extend(message(b'D', &content));
        }
        out.extend(message(b'C', b"SELECT\0"));
        out
    }

    fn copy(pieces: &[&[u8]]) -> Vec<u8> {
        let data: Vec<u8> = pieces.iter().flat_map(|piece| message(b'd', piece)).collect();
        [message(b'H', &[0, 0, 0]), data, message(b'c', b"")].concat()
    }

    /// Connects to a server that says these things, whatever it is asked, and asks it for a backup.
    fn told(version: u32, said: Vec<u8>) -> Result<(Started, Vec<Event>)> {
        use crate::replication::{Parameters, Surroundings};
        use std::io::{Read, Write};
        let folder = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&message(b'R', &[0, 0, 0, 0])).unwrap();
            stream.write_all(&message(b'Z', b"I")).unwrap();
            stream.write_all(&said).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // Until the client has gone.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let text = format!("host={} user=x", folder.path().display());
        let parameters = Parameters::resolve(&text, &Surroundings::default()).unwrap();
        let mut connection = Connection::open(&parameters).unwrap();
        let told = connection.base_backup(&request(None), version).and_then(|(started, mut stream)| {
            let mut events = Vec::new();
            loop {
                events.push(stream.receive()?);
                if matches!(events.last(), Some(Event::End { .. })) {
                    stream.verdict()?;
                    return Ok((started, events));
                }
            }
        });
        drop(connection);
        server.join().unwrap();
        told
    }

    fn beginning() -> Vec<u8> {
        let spaces: [&[Option<&str>]; 2] =
            [&[Some("16406"), Some("/mnt/fast"), Some("1")], &[None, None, Some("7")]];
        [answer(&[&[Some("0/2000028"), Some("1")]]), answer(&spaces)].concat()
    }

    fn ending() -> Vec<u8> {
        [answer(&[&[Some("0/2000100"), Some("1")]]), message(b'C', b"BASE_BACKUP\0"), message(b'Z', b"I")]
            .concat()
    }

    #[test]
    fn both_forms_of_the_protocol_are_one_stream_of_events() {
        let old = [copy(&[b"fast", b""]), copy(&[b"ba", b"se"]), copy(&[b"manifest"])].concat();
        let new = copy(&[
            b"n16406.tar\0/mnt/fast\0",
            b"dfast",
            b"p\0\0\0\0\0\0\0\x01",
            b"nbase.tar\0\0",
            b"dba",
            b"dse",
            b"m",
            b"dmanifest",
        ]);
        let data = |text: &'static [u8]| Event::Data(Bytes::from_static(text));
        let end = Event::Data(Bytes::from_static(&END_OF_TAR));
        let last = Event::End { stop: Lsn(0x200_0100), timeline: Timeline::FIRST };
        let (started, events) = told(140_000, [beginning(), old, ending()].concat()).unwrap();
        assert_eq!((started.estimate, started.tablespaces.len()), (8192, 1));
        let (fast, base) = (Event::Archive(Some(16406)), Event::Archive(None));
        assert_eq!(
            events,
            [
                fast.clone(),
                data(b"fast"),
                end.clone(),
                base.clone(),
                data(b"ba"),
                data(b"se"),
                end,
                Event::Manifest,
                data(b"manifest"),
                last.clone()
            ]
        );
        let (_, events) = told(170_000, [beginning(), new, ending()].concat()).unwrap();
        let expected =
            [fast, data(b"fast"), base, data(b"ba"), data(b"se"), Event::Manifest, data(b"manifest"), last];
        assert_eq!(events, expected);
    }

    #[test]
    fn wrong_checksums_that_the_server_reports_at_the_end_are_told_apart_from_other_errors() {
        let error = |state: &str| message(b'E', format!("SERROR\0VERROR\0C{state}\0Mno\0\0").as_bytes());
        let sent = |error: Vec<u8>| {
            let stop = answer(&[&[Some("0/2000100"), Some("1")]]);
            told(150_000, [beginning(), copy(&[b"nbase.tar\0\0"]), stop, error].concat()).unwrap_err()
        };
        assert!(sent(error("XX001")).kind.is_corruption());
        let other = sent(error("57P01"));
        assert!(!other.kind.is_corruption() && other.message.contains("says: no"), "{other:?}");
        assert!(told(150_000, beginning()[..10].to_vec()).is_err(), "a connection that breaks off");
        assert!(told(120_000, Vec::new()).unwrap_err().message.contains("need 13"));
    }
}
