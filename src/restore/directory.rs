//! The data directory that is made: empty at first, marked while it is unfinished, durable at the end.

use super::files::{CONTROL, CONTROL_LATER};
use super::{Result, could_not, refused};
use crate::storage::Body;
use rustix::fs::syncfs;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Marks a directory that is not finished; its lines are the tablespaces that belong to it, as JSON. In
/// each of those it names the directory, so that a place that was given to another cluster since is left
/// alone.
pub(super) const MARK: &str = "wal-archive.restoring";

const AUTO_CONF: &str = "postgresql.auto.conf";

pub(super) struct Directory {
    path: PathBuf,
    /// It and the tablespaces, open since before anything was written: what cannot be written back
    /// meanwhile is told to whoever had the file system open then.
    places: Vec<(PathBuf, File)>,
}

impl Directory {
    /// Makes it and the tablespaces' directories, or takes empty ones. With `force` what an earlier
    /// restore left unfinished there is removed; nothing else ever is.
    pub(super) fn prepare(path: &Path, tablespaces: &BTreeMap<u32, PathBuf>, force: bool) -> Result<Self> {
        if rustix::process::geteuid().is_root() {
            return Err(could_not("root cannot own a data directory").hint(
                "run it as the user that PostgreSQL runs as: sudo -u postgres wal-archive restore ...",
            ));
        }
        if path.join(MARK).is_file() {
            // Killed after all else was done: a server may have been started on it since.
            if path.join(CONTROL).exists() {
                return Err(refused(format!(
                    "\"{}\" holds a cluster that was restored to its end",
                    path.display()
                ))
                .hint(format!(
                    "delete the file \"{MARK}\" in it, and in its tablespaces, to use it; or all of it by hand"
                )));
            }
            if !force {
                return Err(refused(format!("\"{}\" holds a restore that was not finished", path.display()))
                    .hint("repeat it with --force, which removes what is there"));
            }
            remove_unfinished(path).map_err(|error| failed(path, error))?;
        }
        let mut directory = Directory { path: path.to_owned(), places: Vec::new() };
        for one in tablespaces.values().map(PathBuf::as_path).chain([path]) {
            make_empty(one)?;
            let open = File::open(one).map_err(|error| failed(one, error))?;
            directory.places.push((one.to_owned(), open));
        }
        let lines: String = tablespaces.values().map(|place| line(place)).collect();
        directory.write(MARK, lines.as_bytes(), false)?;
        directory.sync_all()?;
        for place in tablespaces.values() {
            directory.write_to(&place.join(MARK), line(path).as_bytes(), false)?;
        }
        directory.sync_all()?;
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Everything but the control file is there: what recovery needs beside it, then all of it made
    /// durable, then the control file.
    pub(super) fn finish(
        &self,
        manifest: &Body,
        tablespaces: &BTreeMap<u32, PathBuf>,
        remapped: Option<()>,
        signal: &str,
        settings: &str,
    ) -> Result<()> {
        self.link(tablespaces)?;
        if remapped.is_some() {
            self.write_tablespace_map(tablespaces)?;
        }
        let mut file = self.create("backup_manifest")?;
        manifest.write_to(&mut file).map_err(|error| failed(&self.path.join("backup_manifest"), error))?;
        // The backup's own: standby.signal wins over the other, which would outlive a promotion then.
        for path in ["standby.signal", "recovery.signal"].map(|name| self.path.join(name)) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&path, error)),
                _ => {}
            }
        }
        self.write(AUTO_CONF, settings.as_bytes(), true)?;
        self.write(signal, b"", false)?;
        self.sync_all()?;
        let (from, to) = (self.path.join(CONTROL_LATER), self.path.join(CONTROL));
        fs::rename(&from, &to).map_err(|error| failed(&to, error))?;
        self.sync_all()?;
        for mark in tablespaces.values().chain([&self.path]).map(|place| place.join(MARK)) {
            fs::remove_file(&mark).map_err(|error| failed(&mark, error))?;
        }
        self.sync_all()
    }

    fn link(&self, tablespaces: &BTreeMap<u32, PathBuf>) -> Result<()> {
        for (oid, place) in tablespaces {
            let link = self.path.join(format!("pg_tblspc/{oid}"));
            symlink(place, &link).map_err(|error| failed(&link, error))?;
        }
        Ok(())
    }

    /// The server makes its links anew by it (`read_tablespace_map`): the old places would be linked again.
    fn write_tablespace_map(&self, tablespaces: &BTreeMap<u32, PathBuf>) -> Result<()> {
        let escaped = |place: &Path| place.display().to_string().replace('\\', "\\\\").replace('\n', "\\\n");
        let lines: String =
            tablespaces.iter().map(|(oid, place)| format!("{oid} {}\n", escaped(place))).collect();
        let path = self.path.join("tablespace_map");
        fs::write(&path, lines).map_err(|error| failed(&path, error))
    }

    fn create(&self, name: &str) -> Result<File> {
        let path = self.path.join(name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.map_err(|error| failed(&path, error))
    }

    fn write(&self, name: &str, content: &[u8], append: bool) -> Result<()> {
        self.write_to(&self.path.join(name), content, append)
    }

    fn write_to(&self, path: &Path, content: &[u8], append: bool) -> Result<()> {
        let mut options = OpenOptions::new();
        options.create(true).mode(0o600).append(append).write(true).truncate(!append);
        options.open(path).and_then(|mut file| file.write_all(content)).map_err(|error| failed(path, error))
    }

    /// Makes all that was written to the file systems of these directories durable.
    fn sync_all(&self) -> Result<()> {
        for (path, folder) in &self.places {
            let synced = syncfs(folder).map_err(io::Error::from).and_then(|()| folder.sync_all());
            synced.map_err(|error| failed(path, error))?;
        }
        Ok(())
    }
}

/// A path in a [`MARK`].
fn line(path: &Path) -> String {
    format!("{}\n", serde_json::Value::from(path.to_string_lossy()))
}

fn failed(path: &Path, error: io::Error) -> crate::failure::Failure<super::Cause> {
    could_not(format!("cannot write \"{}\": {error}", path.display()))
}

/// A new directory, or one that is there and empty; for its owner alone.
fn make_empty(path: &Path) -> Result<()> {
    match fs::read_dir(path) {
        Ok(mut entries) => match entries.next() {
            None => {}
            Some(_) => {
                return Err(refused(format!("\"{}\" is not empty", path.display()))
                    .hint("restore into an empty or new directory; nothing that is there is ever replaced"));
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = DirBuilder::new().mode(0o700).recursive(true).create(path);
            made.map_err(|error| could_not(format!("cannot make \"{}\": {error}", path.display())))?;
        }
        Err(error) => return Err(could_not(format!("cannot look into \"{}\": {error}", path.display()))),
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|error| failed(path, error))
}

/// Empties what an unfinished restore left, and those of its tablespaces that are still its own; the mark
/// goes last.
fn remove_unfinished(path: &Path) -> io::Result<()> {
    let lines = fs::read_to_string(path.join(MARK))?;
    for place in lines.lines().filter_map(|line| serde_json::from_str::<PathBuf>(line).ok()) {
        let mark = place.join(MARK);
        match fs::read_to_string(&mark) {
            Ok(whose) if whose == line(path) => {
                // A server's tablespace has folders of its version and nothing else.
                empty(&place, |name| name.starts_with("PG_"))?;
                fs::remove_file(mark)?;
            }
            // It was just being written.
            Ok(whose) if line(path).starts_with(&whose) => fs::remove_file(mark)?,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    empty(path, |name| name != MARK)?;
    fs::remove_file(path.join(MARK))
}

fn empty(folder: &Path, which: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !which(&entry.file_name().to_string_lossy()) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_unfinished_restore_only_what_is_still_its_own_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let tablespaces = ["own", "of another", "cleaned and used again", "just begun"];
        for name in ["data/base/1", "other"].into_iter().chain(tablespaces) {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("data/base/1/2"), b"x").unwrap();
        fs::write(at("data").join(MARK), tablespaces.map(|name| line(&at(name))).concat()).unwrap();
        for name in ["own", "of another", "cleaned and used again"] {
            fs::create_dir_all(at(name).join("PG_15_202209061/5")).unwrap();
        }
        fs::write(at("own/kept"), b"x").unwrap();
        fs::write(at("own").join(MARK), line(&at("data"))).unwrap();
        fs::write(at("of another").join(MARK), line(&at("other"))).unwrap();
        fs::write(at("just begun").join(MARK), b"\"/").unwrap();
        remove_unfinished(&at("data")).unwrap();
        let left = |name: &str| {
            let entries = fs::read_dir(at(name)).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(left("data"), [""; 0]);
        assert_eq!(left("own"), ["kept"]);
        assert_eq!(left("of another"), ["PG_15_202209061", MARK]);
        assert_eq!(left("cleaned and used again"), ["PG_15_202209061"]);
        assert_eq!(left("just begun"), [""; 0]);
    }
}
