//! Where the spool of a data directory is, and whose: the owner's of the data directory, whoever
//! runs the program.

use super::Spool;
use crate::host::data_directory::DataDirectory;
use crate::host::durable::{Owner, make_private_folder};
use rustix::fs::{Access, AtFlags, CWD};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The place of a spool that may not be there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A folder that may hold the spools of several clusters; the spool is in it.
    shared: Option<PathBuf>,
    folder: PathBuf,
    owner: Owner,
}

impl Place {
    /// Beside the data directory, on the same file system and outside of pg_wal, where a stranger
    /// breaks pg_rewind; or below the folder that is configured, where each cluster has a folder of
    /// its own, so that none clears what another one needs. It is told by its system identifier, so
    /// that what is known of it outlasts a move of the data directory. `None` where neither is known.
    pub fn of(configured: Option<&Path>, data_directory: Option<&DataDirectory>) -> Option<Self> {
        let real = data_directory.map(|directory| {
            let path = directory.path();
            path.canonicalize().unwrap_or_else(|_| path.to_owned())
        });
        let owner = real.as_ref().and_then(|path| fs::metadata(path).ok());
        let owner = owner.as_ref().map_or_else(Owner::own, Owner::of);
        let cluster = data_directory.and_then(|directory| directory.system_id().ok().flatten());
        let (shared, folder) = match (configured, cluster) {
            (None, _) => (None, beside(&real?)),
            (Some(shared), None) => (None, shared.to_owned()),
            (Some(shared), Some(cluster)) => (Some(shared.to_owned()), shared.join(cluster.to_string())),
        };
        Some(Place { shared, folder, owner })
    }

    /// The spool's own folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens it, making it where it is not there.
    pub fn open(&self) -> io::Result<Spool> {
        for folder in self.shared.iter().chain([&self.folder]) {
            make_private_folder(folder, Some(self.owner))?;
            let metadata = fs::symlink_metadata(folder)?;
            let user = rustix::process::geteuid();
            // Root may write into the server's, as what it makes there is given to the server.
            if !user.is_root() && metadata.uid() != user.as_raw() {
                return Err(refused(format!("it belongs to user {}", metadata.uid())));
            }
            is_private(&metadata, self.owner_for(user.as_raw()))?;
        }
        Ok(Spool { folder: self.folder.clone() })
    }

    /// Another user than the server's works with a spool of its own.
    fn owner_for(&self, user: u32) -> u32 {
        if user == 0 { self.owner.user } else { user }
    }

    /// Whether the owner of the data directory can use it or make it. Changes nothing.
    pub fn check(&self) -> io::Result<()> {
        for folder in self.shared.iter().chain([&self.folder]) {
            match fs::symlink_metadata(folder) {
                Ok(metadata) => is_private(&metadata, self.owner.user)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return self.can_be_made(folder),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn can_be_made(&self, folder: &Path) -> io::Result<()> {
        let around = folder.parent().unwrap_or(Path::new("/"));
        let metadata = fs::metadata(around)?;
        let may = if self.owner.user == Owner::own().user {
            let access = Access::WRITE_OK | Access::EXEC_OK;
            rustix::fs::accessat(CWD, around, access, AtFlags::EACCESS).is_ok()
        } else {
            may_make_in(&metadata, self.owner)
        };
        match may && metadata.is_dir() {
            true => Ok(()),
            false => {
                Err(refused(format!("user {} cannot make it in \"{}\"", self.owner.user, around.display())))
            }
        }
    }
}

/// `DATADIR.wal-spool`.
fn beside(data_directory: &Path) -> PathBuf {
    let mut name = data_directory.file_name().unwrap_or_default().to_owned();
    name.push(".wal-spool");
    data_directory.with_file_name(name)
}

/// By the mode alone, for a user that this process is not.
fn may_make_in(folder: &Metadata, owner: Owner) -> bool {
    let shift = match () {
        () if owner.user == 0 => return true,
        () if folder.uid() == owner.user => 6,
        () if folder.gid() == owner.group => 3,
        () => 0,
    };
    folder.mode() >> shift & 0o3 == 0o3
}

fn is_private(metadata: &Metadata, user: u32) -> io::Result<()> {
    if !metadata.is_dir() {
        return Err(refused("it is not a directory".to_owned()));
    }
    if metadata.uid() != user {
        return Err(refused(format!("it belongs to user {} and not to {user}", metadata.uid())));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refused("others may read or write it; its mode must be 0700".to_owned()));
    }
    Ok(())
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn data_directory(base: &Path, name: &str, id: u64) -> DataDirectory {
        let path = base.join(name);
        fs::create_dir_all(path.join("global")).unwrap();
        fs::write(path.join("PG_VERSION"), "15\n").unwrap();
        fs::write(path.join("global/pg_control"), [&id.to_le_bytes()[..], &[0; 504]].concat()).unwrap();
        DataDirectory::at(&path).unwrap()
    }

    #[test]
    fn the_default_is_a_sibling_of_the_data_directory_by_its_real_name() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        data_directory(&base, "main", 7);
        symlink(base.join("main"), base.join("link")).unwrap();
        let place = Place::of(None, DataDirectory::at(&base.join("link")).as_ref()).unwrap();
        assert_eq!(place.folder(), base.join("main.wal-spool"));
        assert_eq!(Place::of(None, None), None);
    }

    #[test]
    fn each_cluster_has_a_folder_of_its_own_in_a_shared_one() {
        let base = tempfile::tempdir().unwrap();
        let shared = base.path().join("shared");
        let open = |name: &str, id: u64| {
            let directory = data_directory(base.path(), name, id);
            Place::of(Some(&shared), Some(&directory)).unwrap().open().unwrap().folder
        };
        assert_eq!(open("one", 7), shared.join("7"));
        assert_eq!(open("other", 8), shared.join("8"));
        assert_eq!(open("moved", 7), shared.join("7"));
        let alone = Place::of(Some(&shared), None).unwrap();
        assert_eq!(alone.folder(), shared, "nobody knows whose it is");
    }

    #[test]
    fn a_spool_that_others_can_write_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let directory = data_directory(base.path(), "data", 7);
        let folder = base.path().canonicalize().unwrap().join("data.wal-spool");
        let refusal = || {
            let place = Place::of(None, Some(&directory)).unwrap();
            assert!(place.check().is_err());
            place.open().unwrap_err().kind()
        };
        Place::of(None, Some(&directory)).unwrap().open().unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
        assert_eq!(refusal(), io::ErrorKind::PermissionDenied);
        let elsewhere = base.path().join("elsewhere");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(&folder, &elsewhere).unwrap();
        symlink(&elsewhere, &folder).unwrap();
        assert_eq!(refusal(), io::ErrorKind::PermissionDenied);
        assert!(Place::of(Some(&base.path().join("no/parent")), Some(&directory)).unwrap().open().is_err());
    }

    #[test]
    fn a_spool_that_root_makes_is_the_data_directorys_owners() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let base = tempfile::tempdir().unwrap();
        let directory = data_directory(base.path(), "data", 7);
        chown(directory.path(), Some(65534), Some(12345)).unwrap();
        let owner = Owner { user: 65534, group: 12345 };
        for configured in [None, Some(base.path().join("shared"))] {
            let place = Place::of(configured.as_deref(), Some(&directory)).unwrap();
            for _ in 0..2 {
                let folder = place.open().unwrap().folder;
                assert_eq!(Owner::of(&fs::metadata(&folder).unwrap()), owner);
                place.check().unwrap();
            }
            // One that root left before is no use to the server.
            chown(place.folder(), Some(0), Some(0)).unwrap();
            assert!(place.check().is_err() && place.open().is_err());
        }
    }

    #[test]
    fn whether_the_server_can_make_it_is_told_without_making_it() {
        let base = tempfile::tempdir().unwrap();
        let directory = data_directory(base.path(), "data", 7);
        let place = Place::of(None, Some(&directory)).unwrap();
        place.check().unwrap();
        assert!(!place.folder().exists());
        let folder = |mode: u32, user: u32, group: u32| {
            let path = base.path().join("folder");
            let _ = fs::remove_dir(&path);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            may_make_in(&fs::metadata(&path).unwrap(), Owner { user, group })
        };
        let (own, nobody) = (Owner::own(), 65534);
        assert!(folder(0o755, own.user, own.group) && !folder(0o555, own.user.max(1), own.group));
        assert!(folder(0o775, nobody, own.group) && !folder(0o757, nobody, own.group));
        assert!(folder(0o1777, nobody, nobody) && !folder(0o755, nobody, nobody));
        assert!(folder(0o500, 0, 0));
    }
}
