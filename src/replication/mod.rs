//! PostgreSQL's replication protocol, as a client: finds the server as libpq would, connects, and asks
//! for base backups.
//!
//! Synchronous, over one socket. Framing and SCRAM are those of the crate `postgres-protocol`. Does not
//! know: what becomes of the bytes, or archives.
//!
//! Sources: PostgreSQL `doc/src/sgml/protocol.sgml`, `src/interfaces/libpq/fe-connect.c`,
//! `src/backend/backup/basebackup.c` (up to 14 `src/backend/replication/basebackup.c`).

mod authentication;
mod base_backup;
mod channel;
mod connection;
mod hosts;
mod keywords;
mod parameters;
mod password_file;
mod service_file;
mod stream;
mod tls;

pub use base_backup::{BackupStream, Checkpoint, Event, Request, Started, Tablespace};
pub use connection::{Connection, System};
pub use hosts::Host;
pub use parameters::{Parameters, Surroundings};

use crate::failure::Failure;

/// What a conversation with a server can fail of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The connection string, a file that it names, or a variable.
    Settings,
    /// The server cannot be reached, or the connection broke.
    Connection,
    /// The server refused; its SQLSTATE.
    Server(String),
    /// The server says what the protocol does not know.
    Protocol,
}

impl Cause {
    /// The server read pages whose checksums are wrong: `ERRCODE_DATA_CORRUPTED`.
    pub fn is_corruption(&self) -> bool {
        matches!(self, Cause::Server(state) if state == "XX001")
    }
}

type Result<T> = std::result::Result<T, Failure<Cause>>;

fn settings(what: impl Into<String>) -> Failure<Cause> {
    Failure::new(Cause::Settings, what)
}

fn protocol(what: impl Into<String>) -> Failure<Cause> {
    Failure::new(Cause::Protocol, format!("the server {}", what.into()))
        .hint("is it PostgreSQL 13 or newer, without a connection pooler between?")
}
