//! Whose a new file or folder is, and who may read it: always by descriptor, never by path.
//!
//! What root makes is given to the owner of the folder around it, or the server could not use it.
//! By path that would be a gift to whoever can put a symbolic link in its place meanwhile.
//!
//! A file system that knows neither owners nor modes (vfat, CIFS, some FUSE) refuses both: that is
//! said once, and what was written is as good as elsewhere.

use super::temporary_name;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Below a folder with this bit, new files and folders get the folder's group.
const SET_GROUP_ID: u32 = 0o2000;

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub user: u32,
    pub group: u32,
}

impl Owner {
    /// By what `stat` said.
    pub fn of(metadata: &Metadata) -> Self {
        Owner { user: metadata.uid(), group: metadata.gid() }
    }

    /// That of this process.
    pub fn own() -> Self {
        Owner { user: rustix::process::geteuid().as_raw(), group: rustix::process::getegid().as_raw() }
    }
}

/// Who a new folder is for.
pub(super) enum For {
    /// Whoever may use the folder around it.
    Group(u32),
    /// One user; by default the owner of the folder around it.
    User(Option<Owner>),
}

/// Makes a folder below an existing one; `None` where something of that name is there already.
/// The folder around it is not synced.
pub(super) fn make_in(parent: &File, name: &OsStr, whose: &For) -> io::Result<Option<File>> {
    // What root makes is given away, and only while it is empty: nobody may put a file into it before.
    if !rustix::process::geteuid().is_root() {
        return make(parent, name, whose);
    }
    let hidden = temporary_name();
    let Some(made) = make(parent, OsStr::new(&hidden), whose)? else { return make(parent, name, whose) };
    let renamed = rustix::fs::renameat_with(parent, &hidden, parent, name, RenameFlags::NOREPLACE);
    if renamed.is_ok() {
        return Ok(Some(made));
    }
    let _ = rustix::fs::unlinkat(parent, &hidden, AtFlags::REMOVEDIR); // a sweep finds it
    match renamed {
        Err(Errno::EXIST) => Ok(None),
        // Not every file system can rename without replacing.
        _ => make(parent, name, whose),
    }
}

fn make(parent: &File, name: &OsStr, whose: &For) -> io::Result<Option<File>> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?);
    let around = parent.metadata()?;
    match whose {
        For::Group(mode) => {
            give_new_folder(&made, Owner::of(&around))?;
            permit(&made, mode | around.mode() & SET_GROUP_ID)?;
        }
        For::User(owner) => give_new_folder(&made, owner.unwrap_or(Owner::of(&around)))?,
    }
    Ok(Some(made))
}

/// Gives away only what can have been made a moment ago: another folder of root's may have been
/// moved to its place.
fn give_new_folder(folder: &File, owner: Owner) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let is_new = folder.metadata()?.uid() == 0
        && rustix::fs::Dir::read_from(folder)?
            .all(|entry| entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")));
    if !is_new {
        return Err(io::Error::other("another folder was put into the place of the one that was just made"));
    }
    give(folder, owner)
}

/// Gives an open file of root's to somebody; what another user makes stays that user's.
pub(super) fn give(file: &File, owner: Owner) -> io::Result<()> {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    match fchown(file, Some(owner.user), Some(owner.group)) {
        Err(error) if is_refused(&error) => {
            say_once(&SAID, &format!("the file system does not let root give files away: {error}"));
            Ok(())
        }
        other => other,
    }
}

/// Sets the mode, whatever the umask was.
pub(super) fn permit(file: &File, mode: u32) -> io::Result<()> {
    static SAID: AtomicBool = AtomicBool::new(false);
    match file.set_permissions(Permissions::from_mode(mode)) {
        Err(error) if is_refused(&error) => {
            say_once(
                &SAID,
                &format!(
                    "the file system does not let modes be set, so its mount options decide who may read the archive: {error}"
                ),
            );
            Ok(())
        }
        other => other,
    }
}

fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)
}

/// Makes the entries of a folder durable. Where the file system has nothing to do for that, it
/// says so in one of these ways (PostgreSQL `src/common/file_utils.c` and
/// `src/backend/storage/file/fd.c`, `fsync_fname_ext`).
pub(super) fn sync_folder(folder: &File) -> io::Result<()> {
    static SAID: AtomicBool = AtomicBool::new(false);
    let unsupported = [Errno::BADF, Errno::INVAL, Errno::OPNOTSUPP].map(|errno| Some(errno.raw_os_error()));
    match folder.sync_all() {
        Err(error) if unsupported.contains(&error.raw_os_error()) => {
            say_once(
                &SAID,
                &format!(
                    "the file system cannot fsync a directory, so a crash of the system may undo what was just stored there: {error}"
                ),
            );
            Ok(())
        }
        other => other,
    }
}

fn say_once(said: &AtomicBool, what: &str) {
    if !said.swap(true, Ordering::Relaxed) {
        log::warn!("{what}");
    }
}

/// Opens a folder for what is done below it, with further flags; it need not be readable.
pub(super) fn open_folder(folder: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(folder, flags, Mode::empty())?))
}

/// The folder around a path, and the path's own name in it.
pub(super) fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let around = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    Ok((around, name))
}

/// Whether something of that name is there, be it a link that leads nowhere.
pub(super) fn is_taken(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
