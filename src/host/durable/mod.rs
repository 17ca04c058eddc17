//! File primitives that survive a crash: the only place that fsyncs.
//!
//! The order of [`publish_new`], proved by `tests/cli/syscalls.rs`:
//!
//! 1. open the target's directory; everything below is relative to it,
//! 2. create a file in it without a name (`O_TMPFILE`), or with a temporary one where the system
//!    lacks that,
//! 3. write, set owner and mode, fsync the file,
//! 4. give it its name without replacing anything: `linkat`, or for one with a temporary name
//!    `renameat2` with `RENAME_NOREPLACE`, or `linkat` where the file system lacks that,
//! 5. fsync a file that had no name once more, except where that is known to be needless: btrfs
//!    logs nothing of a file while it has none (Linux `fs/btrfs/tree-log.c`,
//!    `btrfs_log_inode_parent`),
//! 6. fsync the directory, and every directory above it that the caller names.
//!
//! A crash before 4 leaves nothing, or only the temporary file; a reader never sees a half-written
//! one. After 4 and before 6 the file may vanish in a crash, but nobody was told that it is there.

mod ownership;
mod unfinished;

pub use ownership::Owner;

use ownership::{For, give, is_taken, make_in, open_folder, permit, split, sync_folder};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use unfinished::Unfinished;

/// What the name of every unfinished file begins with; the dot hides it from listings.
pub const TEMPORARY_PREFIX: &str = ".wal-archive.";

/// For what is made aside and then renamed.
fn temporary_name() -> String {
    format!("{TEMPORARY_PREFIX}{:016x}.tmp", fastrand::u64(..))
}

const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// Makes a file with this content, durably, or fails with `AlreadyExists` and changes nothing.
/// `Unsupported`: the file system has no way to do that.
///
/// `folders` are fsynced last, the file's own directory first. On any failure before publication
/// nothing is left. `write` may be asked twice, for two files.
pub fn publish_new(
    target: &Path,
    folders: &[&Path],
    write: impl Fn(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let (around, name) = split(target)?;
    // Opened before the write: what is fsynced last is what was written into, whatever is mounted
    // over it meanwhile.
    let handles: Vec<File> = folders.iter().map(File::open).collect::<io::Result<_>>()?;
    let own;
    let folder = match handles.first() {
        Some(folder) => folder,
        None => {
            own = File::open(around)?;
            &own
        }
    };
    publish_in(folder, name, Path::new(unfinished::DESCRIPTORS), &write)?;
    handles.iter().try_for_each(sync_folder)
}

fn publish_in(
    folder: &File,
    name: &OsStr,
    descriptors: &Path,
    write: &dyn Fn(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    if let Some(unnamed) = Unfinished::unnamed(folder, descriptors) {
        let mut unnamed = fill(folder, unnamed, write)?;
        match unnamed.publish(name) {
            Ok(()) if unnamed.was_logged_unnamed() => return Ok(()),
            Ok(()) => return unnamed.file.sync_all(),
            Err(error) if is_final(&error) => return Err(error),
            // A file system may make files without a name and not be able to link them.
            Err(error) => log::debug!("a file without a name got none: {error}"),
        }
    }
    fill(folder, Unfinished::named(folder)?, write)?.publish(name)
}

fn fill<'a>(
    folder: &File,
    mut unfinished: Unfinished<'a>,
    write: &dyn Fn(&mut File) -> io::Result<()>,
) -> io::Result<Unfinished<'a>> {
    write(&mut unfinished.file)?;
    // The umask of PostgreSQL's archiver is 0077; an archive that its group cannot read is a trap.
    give(&unfinished.file, Owner::of(&folder.metadata()?))?;
    permit(&unfinished.file, FILE_MODE)?;
    unfinished.file.sync_all()?;
    Ok(unfinished)
}

fn is_final(error: &io::Error) -> bool {
    use io::ErrorKind as Io;
    matches!(error.kind(), Io::AlreadyExists | Io::StorageFull | Io::QuotaExceeded | Io::ReadOnlyFilesystem)
}

/// Replaces a file of the spool: atomic, not durable. For caches, whose loss costs only time. The
/// folder must be one itself, not a link; what root writes is given to its owner.
pub fn replace_cached(target: &Path, content: &[u8]) -> io::Result<()> {
    let (around, name) = split(target)?;
    let folder = open_folder(around, OFlags::NOFOLLOW)?;
    let owner = Owner::of(&folder.metadata()?);
    replace(&folder, name, content, |file| give(file, owner))
}

/// Replaces a file that others read, whole at every moment: atomic, not durable. For what is
/// made anew every few minutes.
pub fn replace_public(target: &Path, content: &[u8]) -> io::Result<()> {
    let (around, name) = split(target)?;
    replace(&File::open(around)?, name, content, |file| permit(file, 0o644))
}

fn replace(
    folder: &File,
    name: &OsStr,
    content: &[u8],
    finish: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let mut unfinished = Unfinished::named(folder)?;
    unfinished.file.write_all(content)?;
    finish(&unfinished.file)?;
    unfinished.replace(name)
}

/// Opens a file of the spool to write or to lock it, making it where it is not there; never
/// through a link. What root makes is given to the folder's owner.
pub fn open_cached(path: &Path) -> io::Result<File> {
    let (around, name) = split(path)?;
    let folder = open_folder(around, OFlags::NOFOLLOW)?;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(&folder, name, flags, Mode::RUSR | Mode::WUSR)?);
    let owner = Owner::of(&folder.metadata()?);
    if Owner::of(&file.metadata()?) != owner {
        give(&file, owner)?;
    }
    Ok(file)
}

/// Makes what another process wrote durable: the file, then the folders.
pub fn sync_existing(file: &Path, folders: &[&Path]) -> io::Result<()> {
    File::open(file)?.sync_all()?;
    sync_folders(folders)
}

/// Makes the entries of folders durable.
pub fn sync_folders(folders: &[&Path]) -> io::Result<()> {
    folders.iter().try_for_each(|folder| sync_folder(&File::open(folder)?))
}

/// Makes a folder below an existing one, durably; one that is there already is fine. Its group is
/// that of the folder around it where that is made to be inherited.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    if is_taken(folder) {
        return Ok(());
    }
    let (around, name) = split(folder)?;
    let around = File::open(around)?;
    match make_in(&around, name, &For::Group(FOLDER_MODE))? {
        Some(_) => sync_folder(&around),
        None => Ok(()),
    }
}

/// Makes a folder for one user alone below an existing one; one that is there already is fine, and
/// looked at by nobody. What root makes is the `owner`'s, or that of the folder around it.
pub fn make_private_folder(folder: &Path, owner: Option<Owner>) -> io::Result<()> {
    if is_taken(folder) {
        return Ok(());
    }
    let (around, name) = split(folder)?;
    make_in(&open_folder(around, OFlags::empty())?, name, &For::User(owner)).map(drop)
}

/// Removes unfinished files of this program that are older than `age`: what a `kill -9` left where
/// the system has no files without a name. Ends at the moment `until`, perhaps before it has seen
/// everything. Returns the removed paths.
pub fn sweep(folder: &Path, age: Duration, now: SystemTime, until: Instant) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(folder)? {
        if Instant::now() >= until {
            break;
        }
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|n| n.starts_with(TEMPORARY_PREFIX) && n.ends_with(".tmp"));
        if !ours {
            continue;
        }
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let old = modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|elapsed| elapsed > age));
        // A folder is removed while it is empty, as it is until it has its name.
        let remove = |path: &Path| fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        if old && remove(&entry.path()).is_ok() {
            removed.push(entry.path());
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn threads_that_make_one_folder_at_once_all_find_it_usable() {
        let base = tempfile::tempdir().unwrap();
        for round in 0..100 {
            let folder = base.path().join(round.to_string());
            let made = |number: u32| {
                make_folder(&folder)?;
                fs::write(folder.join(number.to_string()), "x")
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|number| scope.spawn(move || made(number))).collect();
                threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
            });
            assert_eq!(names(&folder).len(), 4);
        }
        assert_eq!(names(base.path()).len(), 100);
    }

    #[test]
    fn a_published_file_is_whole_and_readable_by_its_group() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        publish_new(&target, &[folder.path()], |file| file.write_all(b"content")).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"content");
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o640);
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn an_existing_file_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        fs::write(&target, "first").unwrap();
        let error = publish_new(&target, &[folder.path()], |file| file.write_all(b"second")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&target).unwrap(), b"first");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        let failed = publish_new(&target, &[folder.path()], |file| {
            file.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_replaced_file_is_whole_and_has_the_mode_of_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        fs::write(&target, "first").unwrap();
        for (replace, mode) in
            [(replace_public as fn(&Path, &[u8]) -> io::Result<()>, 0o644), (replace_cached, 0o600)]
        {
            replace(&target, b"second").unwrap();
            assert_eq!(fs::read(&target).unwrap(), b"second");
            assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, mode);
            assert_eq!(names(folder.path()), ["a"]);
        }
    }

    #[test]
    fn a_file_is_published_where_there_are_no_files_without_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let handle = File::open(folder.path()).unwrap();
        let publish = |content: &'static [u8]| {
            let write = move |file: &mut File| file.write_all(content);
            publish_in(&handle, OsStr::new("a"), Path::new("/nonexistent"), &write)
        };
        publish(b"first").unwrap();
        assert_eq!(publish(b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"first");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn an_unfinished_file_has_no_name_in_a_folder_that_can_do_that() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap(); // tmpfs can
        publish_new(&folder.path().join("a"), &[folder.path()], |file| {
            assert!(names(folder.path()).is_empty());
            file.write_all(b"content")
        })
        .unwrap();
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"content");
    }

    #[test]
    fn a_folder_below_one_whose_group_is_inherited_has_that_group_and_passes_it_on() {
        let base = tempfile::tempdir().unwrap();
        for (mode, made) in [(0o2770, 0o2750), (0o755, 0o750)] {
            let root = base.path().join(format!("{mode:o}"));
            fs::create_dir(&root).unwrap();
            // Where this is not run by root, it is one of this user's groups anyway.
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::chown(&root, Some(65534), Some(12345)).unwrap();
            }
            fs::set_permissions(&root, fs::Permissions::from_mode(mode)).unwrap();
            make_folder(&root.join("wal_005")).unwrap();
            publish_new(&root.join("wal_005/a"), &[&root.join("wal_005")], |_| Ok(())).unwrap();
            let stat = |path: &str| fs::metadata(root.join(path)).unwrap();
            assert_eq!(stat("wal_005").mode() & 0o7777, made);
            for below in ["wal_005", "wal_005/a"] {
                assert_eq!(Owner::of(&stat(below)), Owner::of(&stat("")), "{below}");
            }
        }
    }

    #[test]
    fn a_private_folder_is_for_its_owner_alone_and_one_that_is_there_stays_what_it_is() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("private");
        let owner = match rustix::process::geteuid().is_root() {
            true => Owner { user: 65534, group: 12345 },
            false => Owner::own(),
        };
        make_private_folder(&folder, Some(owner)).unwrap();
        let metadata = fs::metadata(&folder).unwrap();
        assert_eq!((metadata.mode() & 0o7777, Owner::of(&metadata)), (0o700, owner));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        make_private_folder(&folder, None).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o7777, 0o755);
        // What is written there is its owner's.
        replace_cached(&folder.join("a"), b"x").unwrap();
        open_cached(&folder.join("b")).unwrap();
        make_private_folder(&folder.join("c"), None).unwrap();
        for name in ["a", "b", "c"] {
            assert_eq!(Owner::of(&fs::metadata(folder.join(name)).unwrap()), owner, "{name}");
        }
    }

    #[test]
    fn the_spool_is_not_written_to_through_a_link() {
        let base = tempfile::tempdir().unwrap();
        let (victim, link) = (base.path().join("victim"), base.path().join("link"));
        fs::create_dir(&victim).unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(replace_cached(&link.join("a"), b"x").is_err());
        assert!(open_cached(&link.join("a")).is_err());
        std::os::unix::fs::symlink(victim.join("b"), victim.join("c")).unwrap();
        assert!(open_cached(&victim.join("c")).is_err());
        assert_eq!(names(&victim), ["c"]);
    }

    #[test]
    fn only_old_unfinished_files_of_our_own_are_swept_and_not_for_long() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".wal-archive.x1.tmp", ".other.tmp", "00000001000000000000001B.zst"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let day = Duration::from_secs(24 * 3600);
        let (now, later) = (SystemTime::now(), Instant::now() + day);
        assert!(sweep(folder.path(), day, now, later).unwrap().is_empty());
        assert!(sweep(folder.path(), day, now + 2 * day, Instant::now()).unwrap().is_empty());
        let removed = sweep(folder.path(), day, now + 2 * day, later).unwrap();
        assert_eq!(removed, [folder.path().join(".wal-archive.x1.tmp")]);
        assert_eq!(names(folder.path()), [".other.tmp", "00000001000000000000001B.zst"]);
    }
}
