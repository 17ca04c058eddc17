//! Whether directories can be destinations: where they lie, and that each is another one.

use super::Error;
use crate::host::data_directory::{self, DataDirectory};
use crate::storage::{Destination, Location};
use std::path::{Path, PathBuf};

/// Refuses destinations that are none: one inside the data directory dies with it, and base
/// backups copy it; one that is another one by a second name is no second copy. Asks the file
/// system, so it may take as long as the archive does.
pub fn check_directories(
    archive: &[Destination],
    data_directory: Option<&DataDirectory>,
) -> Result<(), Error> {
    let shown: Vec<_> = archive.iter().filter_map(|one| Shown::of(one, data_directory)).collect();
    check_shown(&shown)
}

/// What the file system shows of a destination that is a directory.
#[derive(Clone, Debug)]
pub struct Shown {
    path: PathBuf,
    /// The data directory that it lies in.
    inside: Option<PathBuf>,
    place: Option<(u64, u64)>,
}

impl Shown {
    /// `None` of a bucket. Asks the file system.
    pub fn of(destination: &Destination, data_directory: Option<&DataDirectory>) -> Option<Self> {
        let Location::Directory(path) = &destination.location else { return None };
        let inside = data_directory.filter(|directory| directory.contains(path));
        Some(Shown {
            path: path.clone(),
            inside: inside.map(|directory| directory.path().to_owned()),
            place: data_directory::place(path),
        })
    }
}

/// See [`check_directories`]; of those that were looked at. Asks nobody.
pub fn check_shown(shown: &[Shown]) -> Result<(), Error> {
    let mut seen: Vec<(&Path, (u64, u64))> = Vec::new();
    for Shown { path, inside, place } in shown {
        if let Some(directory) = inside {
            return Err(Error::new(
                (),
                format!(
                    "the archive \"{}\" lies inside the data directory \"{}\"",
                    path.display(),
                    directory.display()
                ),
            )
            .hint("it would be lost together with it: use a directory on another disk"));
        }
        let Some(place) = *place else { continue };
        if let Some((other, _)) = seen.iter().find(|(_, other)| *other == place) {
            return Err(Error::new(
                (),
                format!("\"{}\" and \"{}\" are the same directory", other.display(), path.display()),
            )
            .hint(
                "two names of one directory are one copy: name it once, or use a directory on another disk",
            ));
        }
        seen.push((path, place));
    }
    Ok(())
}
