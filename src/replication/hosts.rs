//! The servers of a connection string: hosts, addresses and ports, each list with commas.

use super::{Result, settings};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// One server to try.
#[derive(Clone, PartialEq, Eq)]
pub struct Host {
    pub at: Place,
    pub port: u16,
    pub password: Option<String>,
}

/// Where its socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory.
    Unix(PathBuf),
    Tcp {
        /// As in certificates.
        name: String,
        /// Where the name is not to be looked up.
        address: Option<IpAddr>,
    },
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Place::Unix(directory) => write!(f, "{}", self.socket(directory).display()),
            Place::Tcp { name, .. } => write!(f, "{name}:{}", self.port),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Host {
    /// The socket in a directory.
    pub(super) fn socket(&self, directory: &Path) -> PathBuf {
        directory.join(format!(".s.PGSQL.{}", self.port))
    }
}

/// Debian's, then PostgreSQL's own.
pub(super) const DEFAULT_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// All of them, without passwords.
pub(super) fn hosts(names: Option<&str>, addresses: Option<&str>, ports: Option<&str>) -> Result<Vec<Host>> {
    let list = |text: Option<&str>| -> Vec<String> {
        text.map_or_else(Vec::new, |text| text.split(',').map(|one| one.trim().to_owned()).collect())
    };
    let (names, addresses, ports) = (list(names), list(addresses), list(ports));
    let count = names.len().max(addresses.len());
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err(settings(format!(
            "the connection string has {} hosts and {} addresses",
            names.len(),
            addresses.len()
        )));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(settings(format!("the connection string has {} ports for {count} hosts", ports.len())));
    }
    let mut hosts = Vec::new();
    for index in 0..count.max(1) {
        let port = port(ports.get(index).or(ports.first()).map_or("", String::as_str))?;
        let name = names.get(index).map_or("", String::as_str);
        let address = addresses.get(index).filter(|address| !address.is_empty());
        let places = places(name, address.map(String::as_str))?;
        hosts.extend(places.into_iter().map(|at| Host { at, port, password: None }));
    }
    Ok(hosts)
}

fn places(name: &str, address: Option<&str>) -> Result<Vec<Place>> {
    Ok(match (name, address) {
        ("", None) => DEFAULT_DIRECTORIES.map(|directory| Place::Unix(directory.into())).to_vec(),
        (name, None) if name.starts_with('/') => vec![Place::Unix(name.into())],
        (name, _) if name.starts_with('@') => {
            return Err(settings(format!("\"{name}\" is an abstract socket, which is not supported here")));
        }
        (name, Some(address)) => {
            let address = address
                .parse()
                .map_err(|_| settings(format!("\"{address}\" is not an IP address, as hostaddr must be")))?;
            let name = if name.is_empty() { format!("{address}") } else { name.to_owned() };
            vec![Place::Tcp { name, address: Some(address) }]
        }
        (name, None) => vec![Place::Tcp { name: name.to_owned(), address: None }],
    })
}

fn port(text: &str) -> Result<u16> {
    if text.is_empty() {
        return Ok(5432);
    }
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| settings(format!("\"{text}\" is no port")))
}
