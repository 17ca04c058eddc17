//! The files of a tar, written and compared with the manifest as they come.

use crate::base_backup::manifest::{Checksum, File};
use crate::base_backup::sums::{Crc, FileSum, prefix};
use crate::base_backup::tar::{Entry, Error, Kind, Sink};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// The control file, without which no server starts; and its name until everything else is there.
pub(super) const CONTROL: &str = "global/pg_control";
pub(super) const CONTROL_LATER: &str = "global/pg_control.wal-archive";

/// What is to come, by the manifest.
#[derive(Default)]
pub(super) struct Expected(HashMap<Vec<u8>, (u64, Checksum)>);

impl Expected {
    pub(super) fn add(&mut self, file: File) {
        self.0.insert(file.path, (file.size, file.checksum));
    }

    /// One that did not come.
    pub(super) fn first(&self) -> Option<String> {
        self.0.keys().min().map(|path| String::from_utf8_lossy(path).into_owned())
    }
}

/// Writes the files of one tar below a directory.
pub(super) struct Files<'e> {
    place: PathBuf,
    prefix: Vec<u8>,
    expected: &'e mut Expected,
    current: Option<Current>,
    /// Directories get their modes last, or nothing could be put into one that forbids it.
    modes: Vec<(PathBuf, u32)>,
}

struct Current {
    path: Vec<u8>,
    at: PathBuf,
    file: BufWriter<fs::File>,
    size: u64,
    crc: Crc,
}

impl<'e> Files<'e> {
    pub(super) fn new(place: PathBuf, tablespace: Option<u32>, expected: &'e mut Expected) -> Self {
        Files { place, prefix: prefix(tablespace), expected, current: None, modes: Vec::new() }
    }

    /// Where an entry goes: below the place, whatever it says.
    fn below(&self, path: &[u8]) -> Result<PathBuf, Error> {
        let relative = Path::new(OsStr::from_bytes(path));
        let fine = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        match fine {
            true => Ok(self.place.join(relative)),
            false => {
                Err(Error::Damaged(format!("it has a file \"{}\" outside of itself", relative.display())))
            }
        }
    }

    pub(super) fn finish(self) -> Result<(), Error> {
        for (path, mode) in self.modes.iter().rev() {
            fs::set_permissions(path, Permissions::from_mode(*mode)).map_err(|error| failed(path, error))?;
        }
        Ok(())
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::Output(format!("cannot write \"{}\"", path.display()), error)
}

impl Sink for Files<'_> {
    fn begin(&mut self, entry: &Entry) -> Result<(), Error> {
        let path = [self.prefix.as_slice(), entry.path.as_slice()].concat();
        let at = self.below(match path == CONTROL.as_bytes() {
            true => CONTROL_LATER.as_bytes(),
            false => &entry.path,
        })?;
        match &entry.kind {
            Kind::Directory => {
                DirBuilder::new()
                    .mode(0o700)
                    .recursive(true)
                    .create(&at)
                    .map_err(|error| failed(&at, error))?;
                self.modes.push((at, entry.mode));
            }
            // PostgreSQL sends none where it sends a tablespace_map, and what follows would go through it.
            Kind::Link(_) => {
                let shown = String::from_utf8_lossy(&path).into_owned();
                return Err(Error::Damaged(format!("it has a link \"{shown}\"")));
            }
            Kind::File => {
                let mut options = OpenOptions::new();
                let file = options.write(true).create_new(true).mode(entry.mode).open(&at);
                let file = BufWriter::with_capacity(256 * 1024, file.map_err(|error| failed(&at, error))?);
                self.current = Some(Current { path, at, file, size: 0, crc: Crc::default() });
            }
        }
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if let Some(current) = &mut self.current {
            current.size += bytes.len() as u64;
            current.crc.update(bytes);
            current.file.write_all(bytes).map_err(|error| failed(&current.at, error))?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some(Current { path, at, mut file, size, crc }) = self.current.take() else { return Ok(()) };
        file.flush().map_err(|error| failed(&at, error))?;
        let shown = String::from_utf8_lossy(&path).into_owned();
        let Some((expected, checksum)) = self.expected.0.remove(&path) else {
            return Err(Error::Damaged(format!("\"{shown}\" is not in its manifest")));
        };
        match (FileSum { size, crc: crc.sum() }).differs(expected, &checksum) {
            Some(what) => Err(Error::Damaged(format!("\"{shown}\" {what}"))),
            None => Ok(()),
        }
    }
}
