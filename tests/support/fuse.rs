//! A file system that does not answer: every look below its root waits in the kernel, where not
//! even SIGKILL ends it.

use fuser::{
    BackgroundSession, Config, FileAttr, FileHandle, FileType, Filesystem, INodeNo, ReplyAttr, ReplyEntry,
    Request,
};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

/// Mounted until it is dropped; then whoever hangs in it gets an error and ends.
pub struct Hung {
    folder: PathBuf,
    asked: Arc<AtomicUsize>,
    session: Option<BackgroundSession>,
}

impl Hung {
    /// Mounts one at a new folder. Needs root and /dev/fuse.
    pub fn mount(folder: &Path) -> Self {
        std::fs::create_dir(folder).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let session = fuser::spawn_mount(Silent(Arc::clone(&asked)), folder, &Config::default()).unwrap();
        Hung { folder: folder.to_owned(), asked, session: Some(session) }
    }

    /// An archive in it.
    pub fn archive(&self) -> PathBuf {
        self.folder.join("below/archive")
    }

    /// How many requests wait for an answer.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // By force: that is what ends the requests. Lazily: whoever is just ending may be in it.
        for how in ["-f", "-l"] {
            let _ = Command::new("umount").arg(how).arg(&self.folder).output();
        }
        drop(self.session.take());
    }
}

struct Silent(Arc<AtomicUsize>);

impl Filesystem for Silent {
    fn lookup(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::mem::forget(reply); // dropped, it would answer
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let root = FileAttr {
            ino,
            size: 0,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: FileType::Directory,
            perm: 0o755,
            nlink: 2,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        };
        reply.attr(&Duration::from_secs(60), &root);
    }
}
