//! A connection in replication mode, and what can be asked over it: `IDENTIFY_SYSTEM`, `SHOW`.

use super::authentication::authenticate;
use super::channel::Channel;
use super::hosts::Host;
use super::parameters::Parameters;
use super::stream::Stream;
use super::{Cause, Result, protocol};
use crate::failure::Failure;
use crate::wal::{Lsn, SystemId, Timeline};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;

/// A connection that has nothing asked.
pub struct Connection {
    pub(super) channel: Channel,
}

/// What the server says of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct System {
    pub id: SystemId,
    pub timeline: Timeline,
    /// How far its WAL goes.
    pub position: Lsn,
}

/// One row of an answer; `None` is NULL.
pub(super) type Row = Vec<Option<String>>;

impl Connection {
    /// Connects to the first of the servers that answers.
    pub fn open(parameters: &Parameters) -> Result<Self> {
        let mut failed = None;
        for host in &parameters.hosts {
            match Connection::to(host, parameters) {
                Ok(connection) => return Ok(connection),
                // What answered and refused is not to be passed over for another one.
                Err(failure) if failure.kind != Cause::Connection => return Err(failure),
                Err(failure) => {
                    log::debug!("{}", failure.message);
                    failed.get_or_insert(failure);
                }
            }
        }
        Err(failed.unwrap_or_else(|| super::settings("the connection string names no server")))
    }

    fn to(host: &Host, parameters: &Parameters) -> Result<Self> {
        let timeout = parameters.connect_timeout;
        let stream = Stream::open(host, timeout, &parameters.tls)?;
        let mut channel = Channel::new(stream, host.to_string());
        let mut pairs = vec![
            ("user", parameters.user.as_str()),
            ("replication", "true"),
            ("application_name", parameters.application_name.as_str()),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO"),
        ];
        pairs.extend(parameters.options.as_deref().map(|options| ("options", options)));
        channel.send(|out| frontend::startup_message(pairs, out))?;
        authenticate(&mut channel, &parameters.user, host.password.as_deref())?;
        loop {
            match channel.receive()? {
                Message::ReadyForQuery(_) => break,
                Message::BackendKeyData(_) => {}
                _ => return Err(protocol("says something unknown after the authentication")),
            }
        }
        // A checkpoint that is spread takes minutes in which nothing is said.
        channel.stream().set_timeout(None).map_err(|error| {
            Failure::new(Cause::Connection, format!("cannot set the timeout of a socket: {error}"))
        })?;
        Ok(Connection { channel })
    }

    /// The server, for messages.
    pub fn place(&self) -> &str {
        self.channel.place()
    }

    /// `IDENTIFY_SYSTEM`
    pub fn identify_system(&mut self) -> Result<System> {
        let row = self.only_row("IDENTIFY_SYSTEM")?;
        let field = |index: usize| row.get(index).and_then(Option::as_deref);
        let timeline = field(1).and_then(|text| text.parse().ok()).and_then(Timeline::new);
        match (field(0).and_then(|text| text.parse().ok()), timeline, field(2).and_then(|t| t.parse().ok())) {
            (Some(id), Some(timeline), Some(position)) => Ok(System { id, timeline, position }),
            _ => Err(protocol(format!("answers IDENTIFY_SYSTEM with {row:?}"))),
        }
    }

    /// A setting of the server.
    pub fn show(&mut self, name: &str) -> Result<String> {
        let row = self.only_row(&format!("SHOW {name}"))?;
        row.into_iter().next().flatten().ok_or_else(|| protocol(format!("does not tell its {name}")))
    }

    /// The same where the role may not see it, or this version does not have it.
    pub fn show_if_allowed(&mut self, name: &str) -> Result<Option<String>> {
        match self.show(name) {
            Ok(value) => Ok(Some(value)),
            Err(failure) if matches!(failure.kind, Cause::Server(_)) => {
                log::debug!("{}", failure.message);
                self.until_ready()?;
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// As `150004`.
    pub fn version(&mut self) -> Result<u32> {
        let text = self.show("server_version_num")?;
        text.parse().map_err(|_| protocol(format!("says that its version is \"{text}\"")))
    }

    fn only_row(&mut self, command: &str) -> Result<Row> {
        self.send(command)?;
        let mut rows = self.rows()?;
        self.until_ready()?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) => Ok(row),
            _ => Err(protocol(format!("does not answer {command} with one row"))),
        }
    }

    pub(super) fn send(&mut self, command: &str) -> Result<()> {
        self.channel.send(|out| frontend::query(command, out))
    }

    /// The rows of one result set, up to its end.
    pub(super) fn rows(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        loop {
            match self.channel.receive()? {
                Message::RowDescription(_) => {}
                Message::DataRow(body) => rows.push(row(&body)?),
                Message::CommandComplete(_) => return Ok(rows),
                _ => return Err(protocol("answers with something else than rows")),
            }
        }
    }

    pub(super) fn until_ready(&mut self) -> Result<()> {
        loop {
            match self.channel.receive()? {
                Message::ReadyForQuery(_) => return Ok(()),
                Message::CommandComplete(_) => {}
                _ => return Err(protocol("says more than was asked")),
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // So that the server's log does not speak of a lost connection.
        let _ = self.channel.send(|out| {
            frontend::terminate(out);
            Ok(())
        });
    }
}

fn row(body: &DataRowBody) -> Result<Row> {
    let mut row = Row::new();
    let mut ranges = body.ranges();
    let odd = |error| protocol(format!("sends a row that cannot be understood: {error}"));
    while let Some(range) = ranges.next().map_err(odd)? {
        let value = range.and_then(|range| body.buffer().get(range));
        row.push(value.map(|value| String::from_utf8_lossy(value).into_owned()));
    }
    Ok(row)
}
