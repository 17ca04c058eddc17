//! Messages to and from a server, whatever they mean.

use super::stream::Stream;
use super::{Cause, Result, protocol};
use crate::failure::Failure;
use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use log::Level;
use postgres_protocol::message::backend::{ErrorFields, Message};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

/// How much is read from the socket at once.
const READ: usize = 128 * 1024;

/// A conversation with a server.
pub(super) struct Channel {
    stream: Stream,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// For messages.
    place: String,
    /// What the server said of itself.
    pub(super) status: BTreeMap<String, String>,
    /// Its warnings.
    pub(super) warnings: Vec<String>,
}

impl Channel {
    pub(super) fn new(stream: Stream, place: String) -> Self {
        let (incoming, outgoing) = (BytesMut::with_capacity(READ), BytesMut::new());
        Channel { stream, incoming, outgoing, place, status: BTreeMap::new(), warnings: Vec::new() }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Sends what is written.
    pub(super) fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<()> {
        self.outgoing.clear();
        let sent = write(&mut self.outgoing).and_then(|()| self.stream.write_all(&self.outgoing));
        sent.and_then(|()| self.stream.flush()).map_err(|error| self.broken(&error))
    }

    /// The next message that is an answer. What the server says in between is kept; its error is the
    /// failure.
    pub(super) fn receive(&mut self) -> Result<Message> {
        loop {
            let message = Message::parse(&mut self.incoming)
                .map_err(|error| protocol(format!("says what cannot be understood: {error}")))?;
            match message {
                None => self.read_more()?,
                Some(Message::NoticeResponse(body)) => self.note(&Said::read(body.fields())),
                Some(Message::ParameterStatus(body)) => {
                    if let (Ok(name), Ok(value)) = (body.name(), body.value()) {
                        self.status.insert(name.to_owned(), value.to_owned());
                    }
                }
                Some(Message::NotificationResponse(_)) => {}
                Some(Message::ErrorResponse(body)) => return Err(self.refused(Said::read(body.fields()))),
                Some(other) => return Ok(other),
            }
        }
    }

    fn read_more(&mut self) -> Result<()> {
        let held = self.incoming.len();
        self.incoming.resize(held + READ, 0);
        let read = loop {
            let room = self.incoming.get_mut(held..).unwrap_or_default();
            match self.stream.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => break other,
            }
        };
        self.incoming.truncate(held + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => Err(self.broken(&io::Error::other("the server closed it"))),
            Ok(_) => Ok(()),
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn broken(&self, error: &io::Error) -> Failure<Cause> {
        let what = format!("the connection to the server at \"{}\" broke: {error}", self.place);
        Failure::new(Cause::Connection, what).hint("the server's log says whether it ended it, and why")
    }

    fn refused(&self, said: Said) -> Failure<Cause> {
        let mut what = format!("the server at \"{}\" says: {}", self.place, said.message);
        if let Some(detail) = said.detail {
            what = format!("{what} ({detail})");
        }
        let hint = hint(&said.state).map(str::to_owned).or(said.hint);
        let failure = Failure::new(Cause::Server(said.state), one_line(&what));
        match hint {
            Some(hint) => failure.hint(one_line(&hint)),
            None => failure,
        }
    }

    fn note(&mut self, said: &Said) {
        let message = one_line(&said.message);
        let level = if said.severity == "WARNING" { Level::Warn } else { Level::Info };
        log::log!(level, "the server at \"{}\" says: {message}", self.place);
        if level == Level::Warn {
            self.warnings.push(message);
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What to do about an SQLSTATE (`src/backend/utils/errcodes.txt`), where the server does not say it.
fn hint(state: &str) -> Option<&'static str> {
    Some(match state {
        "28P01" => "correct the password in ~/.pgpass or the connection string",
        "28000" => {
            "pg_hba.conf needs a line for \"replication\" and this user, and the role needs REPLICATION"
        }
        "42501" => "the role needs REPLICATION: ALTER ROLE name REPLICATION",
        "53300" => "raise max_wal_senders, or end another replication connection",
        _ => return None,
    })
}

/// The fields of an error or a notice.
#[derive(Default)]
struct Said {
    severity: String,
    state: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Said {
    fn read(mut fields: ErrorFields<'_>) -> Self {
        let mut said = Said::default();
        while let Ok(Some(field)) = fields.next() {
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'V' => said.severity = value,
                b'C' => said.state = value,
                b'M' => said.message = value,
                b'D' => said.detail = Some(value),
                b'H' => said.hint = Some(value),
                _ => {}
            }
        }
        said
    }
}
