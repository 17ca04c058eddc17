//! The place where a process shows that it hangs at a destination, for as long as the system keeps
//! it.
//!
//! A process that the kernel does not let die keeps its descriptors, and so its locks. It takes
//! this one when it gives up a request that has not ended, never before: processes that work beside
//! each other do not meet here. A lock of a file in the spool; where there is none, a socket of the
//! abstract namespace with the user's and the destination's name. Both vanish with the process.

use super::{Spool, open};
use crate::host::durable;
use crate::object::Sha256Sum;
use fs2::FileExt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, socket,
};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// That of one destination.
#[derive(Clone, Debug)]
pub struct Post {
    address: String,
    key: String,
    file: Option<PathBuf>,
}

/// Whoever looks connects and goes; each takes one place.
const BACKLOG: i32 = 4096;

impl Post {
    /// By the destination's address.
    pub fn of(spool: Option<&Spool>, address: &str) -> Self {
        let key = Sha256Sum::of(address.as_bytes()).short();
        let file = spool.map(|spool| spool.folder.join(format!("hung-{key}.lock")));
        Post { address: address.to_owned(), key, file }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// The process that hangs there.
    pub fn holder(&self) -> Option<String> {
        self.holder_of_file().or_else(|| self.holder_of_socket())
    }

    /// Shows until the end of this process that it hangs there. An error where another one does, or
    /// where it cannot be shown.
    pub fn hold(&self) -> io::Result<()> {
        match self.file.as_deref().map(hold_file) {
            Some(Ok(lock)) => std::mem::forget(lock),
            Some(Err(_)) | None => std::mem::forget(self.hold_socket()?),
        }
        Ok(())
    }

    fn holder_of_file(&self) -> Option<String> {
        let mut file = open(self.file.as_ref()?).ok()?;
        // Shared, so that two who look do not see each other.
        let locked = FileExt::try_lock_shared(&file).err()?;
        if locked.kind() != io::ErrorKind::WouldBlock {
            return None;
        }
        let mut pid = String::new();
        let _ = Read::take(&mut file, 20).read_to_string(&mut pid);
        Some(named(pid.trim().parse().ok()))
    }

    /// A socket of another user proves nothing.
    fn holder_of_socket(&self) -> Option<String> {
        let socket = stream().ok()?;
        match connect(socket.as_raw_fd(), &self.name().ok()?) {
            Ok(()) => {
                let peer = getsockopt(&socket, PeerCredentials).ok()?;
                let trusted = [0, rustix::process::geteuid().as_raw()].contains(&peer.uid());
                trusted.then(|| named(Some(peer.pid())))
            }
            Err(nix::errno::Errno::EAGAIN) => Some(named(None)),
            Err(_) => None,
        }
    }

    fn hold_socket(&self) -> io::Result<OwnedFd> {
        let socket = stream()?;
        bind(socket.as_raw_fd(), &self.name()?)?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(socket)
    }

    fn name(&self) -> nix::Result<UnixAddr> {
        let user = rustix::process::geteuid().as_raw();
        UnixAddr::new_abstract(format!("wal-archive/{user}/{}", self.key).as_bytes())
    }
}

fn stream() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

fn hold_file(path: &Path) -> io::Result<File> {
    let mut file = durable::open_cached(path)?;
    FileExt::try_lock_exclusive(&file)?;
    file.set_len(0)?;
    file.write_all(std::process::id().to_string().as_bytes())?;
    Ok(file)
}

/// A process of another PID namespace has no number here.
fn named(pid: Option<i32>) -> String {
    match pid.filter(|pid| *pid > 0) {
        Some(pid) => format!("process {pid}"),
        None => "a process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In this process the holder is this process.
    fn shows(spool: Option<&Spool>, address: &str) {
        let post = Post::of(spool, address);
        assert_eq!(post.holder(), None);
        post.hold().unwrap();
        assert_eq!(post.holder(), Some(format!("process {}", std::process::id())));
        assert_eq!(post.holder(), Some(format!("process {}", std::process::id())), "a look changes nothing");
        assert_eq!(Post::of(spool, &format!("{address}2")).holder(), None, "another destination");
    }

    #[test]
    fn a_process_that_hangs_is_named_by_a_lock_in_the_spool() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path().join("spool")).unwrap();
        shows(Some(&spool), "/archive");
        assert_eq!(Post::of(None, "/archive").holder(), None);
    }

    #[test]
    fn a_process_that_hangs_is_named_by_a_socket_without_a_spool() {
        let base = tempfile::tempdir().unwrap();
        shows(None, base.path().to_str().unwrap());
    }

    #[test]
    fn a_spool_that_takes_no_file_is_replaced_by_the_socket() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path().join("spool")).unwrap();
        std::fs::remove_dir(base.path().join("spool")).unwrap();
        shows(Some(&spool), base.path().to_str().unwrap());
    }

    #[test]
    fn the_lock_of_a_process_that_ended_counts_for_nothing() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path().join("spool")).unwrap();
        let post = Post::of(Some(&spool), "/archive");
        drop(hold_file(post.file.as_ref().unwrap()).unwrap());
        assert_eq!(post.holder(), None);
    }
}
