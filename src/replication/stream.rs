//! The socket to a server: TCP or Unix.

use super::parameters::{Host, Place};
use super::{Cause, Result};
use crate::failure::Failure;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects to one server.
    pub(super) fn open(host: &Host, timeout: Duration) -> Result<Self> {
        let opened = match &host.at {
            Place::Unix(directory) => UnixStream::connect(host.socket(directory)).map(Stream::Unix),
            Place::Tcp { name, address } => {
                let addresses = match address {
                    Some(address) => Ok(vec![SocketAddr::new(*address, host.port)]),
                    None => (name.as_str(), host.port).to_socket_addrs().map(Iterator::collect),
                };
                addresses.and_then(|addresses| first_that_answers(&addresses, timeout)).map(Stream::Tcp)
            }
        };
        opened.map_err(|error| {
            Failure::new(Cause::Connection, format!("cannot connect to the server at \"{host}\": {error}"))
                .hint("is it running there, and does it accept connections? --connection says where else")
        })
    }

    /// How long one read or write may take; `None`: for ever.
    pub(super) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
        }
    }
}

fn first_that_answers(addresses: &[SocketAddr], timeout: Duration) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                // A server that is gone must not be waited for during a checkpoint that never ends.
                setsockopt(&stream, sockopt::KeepAlive, &true)?;
                setsockopt(&stream, sockopt::TcpKeepIdle, &60)?;
                setsockopt(&stream, sockopt::TcpKeepInterval, &10)?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.flush(),
            Stream::Unix(stream) => stream.flush(),
        }
    }
}
