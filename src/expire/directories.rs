//! The backups that pg_basebackup keeps in directories, by their manifests. One that is not whole, of
//! another cluster or without a manifest is an error: its WAL might go.

use super::backups::{Backup, fits};
use crate::base_backup::manifest::{self, Manifest, ManifestError};
use crate::failure::Failure;
use crate::host::data_directory::DataDirectory;
use crate::wal::SystemId;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, Failure>;

/// The file that a backup has once it is finished.
const MANIFEST: &str = "backup_manifest";

/// The backups in the directories whose last part fits a pattern; none is an error, too.
pub fn directories(pattern: &Path, cluster: Option<SystemId>) -> Result<Vec<Backup>> {
    let found = fitting(pattern)
        .map_err(|error| Failure::new((), format!("cannot look for \"{}\": {error}", pattern.display())))?;
    if found.is_empty() {
        let what = format!("no directory fits \"{}\", so nothing may be deleted", pattern.display());
        return Err(Failure::new((), what).hint("* and ? stand in the last part of a path only; quote it"));
    }
    found.iter().map(|directory| of(directory, cluster)).collect()
}

fn fitting(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(last) = pattern.file_name() else { return Ok(Vec::new()) };
    let parent = pattern.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name();
        // What is deleted is often renamed to a hidden name first, as with a shell's patterns.
        let hidden = name.as_encoded_bytes().starts_with(b".") && !last.as_encoded_bytes().starts_with(b".");
        if !hidden && fits(&last.to_string_lossy(), &name.to_string_lossy()) && entry.path().is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// What the backup in a directory needs.
fn of(directory: &Path, cluster: Option<SystemId>) -> Result<Backup> {
    let path = directory.join(MANIFEST);
    let shown = path.display();
    let failed = |why: String| {
        Failure::new((), format!("{why}, so nothing may be deleted")).hint(
            "name directories of finished backups only; list those without a manifest with --backups FILE",
        )
    };
    let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.modified()?, file)));
    let (finished, mut file) = opened.map_err(|error| failed(format!("cannot read \"{shown}\": {error}")))?;
    let manifest = manifest::read(&mut file, &mut |_| {}).map_err(|error| match error {
        ManifestError::Read(error) => failed(format!("cannot read \"{shown}\": {error}")),
        ManifestError::Damaged(reason) => failed(format!("\"{shown}\": {reason}")),
    })?;
    match (owner(directory, &manifest), cluster) {
        (Some(theirs), Some(ours)) if theirs != ours => {
            let what = format!(
                "\"{}\" is a backup of the cluster {theirs}, and the archive is of {ours}",
                directory.display()
            );
            return Err(failed(what));
        }
        (None, _) => return Err(failed(format!("nothing in \"{}\" tells whose it is", directory.display()))),
        _ => {}
    }
    let first = manifest.wal.iter().min_by_key(|range| range.start);
    let first = first.ok_or_else(|| failed(format!("\"{shown}\" names no WAL")))?;
    Ok(Backup {
        start: first.start,
        timeline: first.timeline,
        stop: manifest.wal.iter().map(|range| range.end).max(),
        finished,
        label: directory.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        whole_at: None,
    })
}

/// From 17 on the manifest says it; in the plain format the control file.
fn owner(directory: &Path, manifest: &Manifest) -> Option<SystemId> {
    let of_files = || DataDirectory::at(directory)?.system_id().ok().flatten();
    manifest.system_id.or_else(of_files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base_backup::manifest::tests::manifest;
    use crate::wal::{Lsn, Timeline};

    /// Of the control file below.
    const OURS: SystemId = SystemId(7_712_325_805_637_208_912);

    fn backup(parent: &Path, name: &str) -> PathBuf {
        let directory = parent.join(name);
        fs::create_dir_all(directory.join("global")).unwrap();
        fs::write(directory.join("PG_VERSION"), "15\n").unwrap();
        let control = include_bytes!("../../tests/vectors/control/postgresql-15");
        fs::write(directory.join("global/pg_control"), control).unwrap();
        fs::write(directory.join(MANIFEST), manifest(&[("PG_VERSION", b"15\n")])).unwrap();
        directory
    }

    #[test]
    fn the_manifests_of_the_directories_that_fit_tell_what_their_backups_need() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["night-2", "night-1", "other", ".night-0"] {
            backup(folder.path(), name);
        }
        fs::write(folder.path().join("night-log"), "").unwrap();
        let found = directories(&folder.path().join("night*"), Some(OURS)).unwrap();
        assert_eq!(found.iter().map(|one| one.label.as_str()).collect::<Vec<_>>(), ["night-1", "night-2"]);
        assert_eq!((found[0].start, found[0].stop), (Lsn(0x200_0028), Some(Lsn(0x200_0100))));
        assert_eq!(found[0].timeline, Timeline::FIRST);
    }

    #[test]
    fn what_is_not_a_finished_backup_of_this_cluster_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let all = folder.path().join("*");
        let why = || directories(&all, Some(OURS)).unwrap_err().message;
        assert!(why().contains("no directory fits"));
        let one = backup(folder.path(), "one");
        assert!(directories(&all, Some(OURS)).is_ok());
        assert!(
            directories(&all, Some(SystemId(1))).unwrap_err().message.contains("is a backup of the cluster")
        );
        let running = folder.path().join("running");
        fs::create_dir(&running).unwrap();
        assert!(why().contains("running/backup_manifest"));
        fs::remove_dir(&running).unwrap();
        fs::write(one.join(MANIFEST), &manifest(&[])[..100]).unwrap();
        assert!(why().contains("cannot be understood"));
        fs::write(one.join(MANIFEST), manifest(&[])).unwrap();
        fs::remove_file(one.join("PG_VERSION")).unwrap();
        assert!(why().contains("tells whose it is"));
    }
}
