//! File primitives that survive a crash: the only place that fsyncs.
//!
//! The order of [`publish_new`], proved by `tests/cli/syscalls.rs`:
//!
//! 1. create a temporary file with a unique name in the target's directory,
//! 2. write, set owner and mode, fsync the file,
//! 3. publish it under the final name without replacing anything (`renameat2` with
//!    `RENAME_NOREPLACE`, or `link` where the file system lacks it),
//! 4. fsync the directory, and every directory above it that the caller names.
//!
//! A crash before 3 leaves only the temporary file; a reader never sees a half-written one. After
//! 3 and before 4 the file may vanish in a crash, but nobody was told that it is there.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What the name of every unfinished file begins with; the dot hides it from listings.
pub const TEMPORARY_PREFIX: &str = ".wal-archive.";

const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// Makes a file with this content, durably, or fails with `AlreadyExists` and changes nothing.
///
/// `folders` are fsynced last, the file's own directory first. On any failure before publication
/// the temporary file is removed.
pub fn publish_new(
    target: &Path,
    folders: &[&Path],
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let folder = folders.first().copied().unwrap_or(Path::new("."));
    // Opened before the write: what is fsynced last is what was written into, whatever is mounted
    // over it meanwhile.
    let handles: Vec<File> = folders.iter().map(File::open).collect::<io::Result<_>>()?;
    let mut file = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).suffix(".tmp").tempfile_in(folder)?;
    write(file.as_file_mut())?;
    // The umask of PostgreSQL's archiver is 0077; an archive that its group cannot read is a trap.
    file.as_file().set_permissions(Permissions::from_mode(FILE_MODE))?;
    if let Some((uid, gid)) = owner_to_give(folder)? {
        fchown(file.as_file(), Some(uid), Some(gid))?;
    }
    file.as_file().sync_all()?;
    file.persist_noclobber(target).map_err(|failed| failed.error)?;
    handles.iter().try_for_each(File::sync_all)
}

/// Replaces a file of the spool: atomic, not durable. For caches, whose loss costs only time.
pub fn replace_cached(target: &Path, content: &[u8]) -> io::Result<()> {
    replace(target, content, 0o600)
}

/// Replaces a file that others read, whole at every moment: atomic, not durable. For what is
/// made anew every few minutes.
pub fn replace_public(target: &Path, content: &[u8]) -> io::Result<()> {
    replace(target, content, 0o644)
}

fn replace(target: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = target.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).suffix(".tmp").tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.persist(target).map_err(|failed| failed.error)?;
    Ok(())
}

/// Makes what another process wrote durable: the file, then the folders.
pub fn sync_existing(file: &Path, folders: &[&Path]) -> io::Result<()> {
    File::open(file)?.sync_all()?;
    sync_folders(folders)
}

/// Makes the entries of folders durable.
pub fn sync_folders(folders: &[&Path]) -> io::Result<()> {
    folders.iter().try_for_each(|folder| File::open(folder)?.sync_all())
}

/// Makes a folder below an existing one; one that is there already is fine.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE))?;
    if let Some(parent) = folder.parent() {
        if let Some((uid, gid)) = owner_to_give(parent)? {
            chown(folder, Some(uid), Some(gid))?;
        }
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// What root makes in a folder gets the folder's owner, or the server could not use it.
fn owner_to_give(folder: &Path) -> io::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let metadata = fs::metadata(folder)?;
    Ok(Some((metadata.uid(), metadata.gid())))
}

/// Removes unfinished files of this program that are older than `age`: what a `kill -9` left.
/// Returns the removed paths.
pub fn sweep(folder: &Path, age: Duration, now: SystemTime) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|n| n.starts_with(TEMPORARY_PREFIX) && n.ends_with(".tmp"));
        if !ours {
            continue;
        }
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let old = modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|elapsed| elapsed > age));
        if old && fs::remove_file(entry.path()).is_ok() {
            removed.push(entry.path());
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
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
    fn only_old_unfinished_files_of_our_own_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".wal-archive.x1.tmp", ".other.tmp", "00000001000000000000001B.zst"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let day = Duration::from_secs(24 * 3600);
        assert!(sweep(folder.path(), day, SystemTime::now()).unwrap().is_empty());
        let removed = sweep(folder.path(), day, SystemTime::now() + 2 * day).unwrap();
        assert_eq!(removed, [folder.path().join(".wal-archive.x1.tmp")]);
        assert_eq!(names(folder.path()), [".other.tmp", "00000001000000000000001B.zst"]);
    }
}
