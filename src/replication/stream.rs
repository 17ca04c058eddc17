//! The socket to a server: TCP, perhaps encrypted, or Unix.

use super::hosts::{Host, Place};
use super::parameters::{Encryption, Tls};
use super::tls::{self, Encrypted};
use super::{Cause, Result};
use crate::failure::Failure;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub(super) enum Stream {
    Tcp(TcpStream),
    Encrypted(Box<Encrypted>),
    Unix(UnixStream),
}

impl Stream {
    /// Connects to one server; no read or write takes longer than the time, until that is changed.
    pub(super) fn open(host: &Host, timeout: Duration, tls: &Tls) -> Result<Self> {
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
        let limited = opened.and_then(|stream| stream.set_timeout(Some(timeout)).map(|()| stream));
        let stream = limited.map_err(|error| {
            Failure::new(Cause::Connection, format!("cannot connect to the server at \"{host}\": {error}"))
                .hint("is it running there, and does it accept connections? --connection says where else")
        })?;
        match (stream, &host.at) {
            (Stream::Tcp(stream), Place::Tcp { name, .. }) if tls.encryption != Encryption::Off => {
                Ok(match tls::ask(stream, name, tls)? {
                    Ok(encrypted) => Stream::Encrypted(encrypted),
                    Err(plain) => Stream::Tcp(plain),
                })
            }
            (stream, _) => Ok(stream),
        }
    }

    /// How long one read or write may take; `None`: for ever.
    pub(super) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        let tcp = |stream: &TcpStream| {
            stream.set_read_timeout(timeout)?;
            stream.set_write_timeout(timeout)
        };
        match self {
            Stream::Tcp(stream) => tcp(stream),
            Stream::Encrypted(stream) => tcp(&stream.sock),
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
            Stream::Encrypted(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Encrypted(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.flush(),
            Stream::Encrypted(stream) => stream.flush(),
            Stream::Unix(stream) => stream.flush(),
        }
    }
}
