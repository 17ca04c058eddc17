//! The restored data directory: whether a server may be started on it, and what is changed for that.

use super::Result;
use super::scratch::Scratch;
use crate::failure::Failure;
use crate::host::data_directory::DataDirectory;
use crate::wal::{Limits, Lsn, SegmentSize, Timeline, TimelineHistory};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

fn failed(path: &Path, error: io::Error) -> Failure {
    Failure::new((), format!("\"{}\": {error}", path.display()))
}

/// What the command that brings another tool's backup has left in the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brought {
    pub major: u32,
    /// Where recovery begins, and on which timeline.
    pub start: Lsn,
    pub timeline: Timeline,
}

impl Brought {
    pub fn look(scratch: &Scratch) -> Result<Self> {
        let data = scratch.data();
        let text = |name: &str| {
            fs::read_to_string(data.join(name)).map_err(|error| {
                Failure::new(
                    (),
                    format!("the command left no base backup in $DIR: no \"{name}\" can be read: {error}"),
                )
                .hint("it must fill the directory $DIR itself, with \"backup_label\" among the files")
            })
        };
        let (version, label) = (text("PG_VERSION")?, text("backup_label")?);
        let odd = |name: &str| Failure::new((), format!("\"{name}\" in $DIR is not understood"));
        let major = version.trim().parse().map_err(|_| odd("PG_VERSION"))?;
        let (start, timeline) = start(&label).ok_or_else(|| odd("backup_label"))?;
        Ok(Brought { major, start, timeline })
    }
}

/// `START WAL LOCATION: 0/2000028 (file 000000010000000000000002)`
fn start(label: &str) -> Option<(Lsn, Timeline)> {
    let rest = label.lines().find_map(|line| line.strip_prefix("START WAL LOCATION: "))?;
    let (lsn, rest) = rest.split_once(' ')?;
    let file = rest.split_once("(file ")?.1.trim_end_matches(')');
    let timeline = u32::from_str_radix(file.get(..8)?, 16).ok().and_then(Timeline::new)?;
    Some((lsn.parse().ok()?, timeline))
}

/// Makes it a copy that recovers and that has no other settings than those of the rehearsal. Refused where
/// anything of it is outside of the scratch directory: that may be the original's.
pub(super) fn prepare(scratch: &Scratch) -> Result<()> {
    let data = scratch.data();
    refuse_outside(scratch)?;
    for name in ["standby.signal", "recovery.conf", "postmaster.pid", "postmaster.opts"] {
        match fs::remove_file(data.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&data.join(name), error)),
            _ => {}
        }
    }
    for name in ["postgresql.auto.conf", "recovery.signal"] {
        File::create(data.join(name)).map_err(|error| failed(&data.join(name), error))?;
    }
    // Slots keep WAL, and ask for a wal_level.
    let slots = data.join("pg_replslot");
    let emptied = match fs::remove_dir_all(&slots) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    };
    emptied
        .and_then(|()| DirBuilder::new().mode(0o700).create(&slots))
        .and_then(|()| fs::set_permissions(&data, Permissions::from_mode(0o700)))
        .map_err(|error| failed(&slots, error))
}

/// Links of the data directory, and the places in `tablespace_map`, which the server makes links of.
fn refuse_outside(scratch: &Scratch) -> Result<()> {
    let data = scratch.data();
    let refuse = |what: String| {
        Err(Failure::new(
            (),
            format!("{what}, which is outside of the scratch directory: it may be the original's"),
        )
        .hint("let the command put tablespaces and pg_wal below \"$DIR/..\", and link them there"))
    };
    for folder in [data.clone(), data.join("pg_tblspc")] {
        for entry in fs::read_dir(&folder).map_err(|error| failed(&folder, error))? {
            let path = entry.map_err(|error| failed(&folder, error))?.path();
            if !path.is_symlink() {
                continue;
            }
            let to = fs::canonicalize(&path).map_err(|error| failed(&path, error))?;
            if !to.starts_with(scratch.root()) {
                return refuse(format!("\"{}\" leads to \"{}\"", path.display(), to.display()));
            }
        }
    }
    let map = match fs::read_to_string(data.join("tablespace_map")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        read => read.map_err(|error| failed(&data.join("tablespace_map"), error))?,
    };
    for to in places(&map) {
        let inside =
            to.starts_with(scratch.root()) && !to.components().any(|part| part == Component::ParentDir);
        if !inside {
            return refuse(format!("\"tablespace_map\" leads to \"{}\"", to.display()));
        }
    }
    Ok(())
}

/// `OID PATH`, a backslash before what is special.
fn places(map: &str) -> Vec<PathBuf> {
    let mut lines = vec![String::new()];
    let mut characters = map.chars();
    while let Some(c) = characters.next() {
        match (c, lines.last_mut()) {
            ('\\', Some(line)) => line.extend(characters.next()),
            ('\n' | '\r', _) => lines.push(String::new()),
            (c, Some(line)) => line.push(c),
            (_, None) => {}
        }
    }
    lines.iter().filter_map(|line| Some(PathBuf::from(line.split_once(' ')?.1))).collect()
}

/// What is known of the cluster.
pub(super) struct Control {
    pub(super) major: u32,
    pub(super) has_checksums: bool,
    pub(super) segment_size: SegmentSize,
    limits: Limits,
}

/// The WAL may raise it while nothing pauses; so many prepared transactions cost little.
const PREPARED: u32 = 256;

impl Control {
    pub(super) fn read(scratch: &Scratch) -> Result<Self> {
        let data = scratch.data();
        let odd =
            || Failure::new((), "\"PG_VERSION\" and \"global/pg_control\" of the backup are not understood");
        let major =
            fs::read_to_string(data.join("PG_VERSION")).ok().and_then(|text| text.trim().parse().ok());
        let directory = DataDirectory::at(&data).ok_or_else(odd)?;
        let control = directory.control().map_err(|error| failed(&data, error))?.ok_or_else(odd)?;
        Ok(Control {
            major: major.ok_or_else(odd)?,
            has_checksums: control.has_checksums.ok_or_else(odd)?,
            segment_size: control.segment_size.ok_or_else(odd)?,
            limits: control.limits.ok_or_else(odd)?,
        })
    }

    /// The settings that must not be smaller than where the WAL was written.
    pub(super) fn least(&self) -> [(&'static str, u32); 5] {
        let Limits {
            max_connections,
            max_worker_processes,
            max_wal_senders,
            max_prepared_transactions,
            max_locks_per_transaction,
        } = self.limits;
        [
            ("max_connections", max_connections),
            ("max_worker_processes", max_worker_processes),
            ("max_wal_senders", max_wal_senders),
            ("max_prepared_transactions", max_prepared_transactions.max(PREPARED)),
            ("max_locks_per_transaction", max_locks_per_transaction),
        ]
    }
}

/// The timeline that was recovered along, and where it was left: by the history of the new one.
pub(super) fn recovered(scratch: &Scratch, new: Option<Timeline>) -> Result<(Timeline, Lsn)> {
    let unknown = || Failure::new((), "the server does not say where its recovery ended");
    let new = new.ok_or_else(unknown)?;
    let path = scratch.data().join(format!("pg_wal/{:08X}.history", new.get()));
    let bytes = fs::read(&path).map_err(|error| failed(&path, error))?;
    let history = TimelineHistory::parse(new, &bytes).map_err(|_| unknown())?;
    let left = history.ancestors.last().ok_or_else(unknown)?;
    Ok((left.timeline, left.switch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_label_says_where_recovery_begins() {
        let label = "START WAL LOCATION: 2/5A000028 (file 000000030000000200000005)\nCHECKPOINT LOCATION: 2/5A000060\n";
        assert_eq!(start(label), Some((Lsn(0x2_5A00_0028), Timeline::new(3).unwrap())));
        assert_eq!(start("START WAL LOCATION: x"), None);
    }

    #[test]
    fn the_places_of_a_tablespace_map_are_read_with_what_is_escaped_in_them() {
        let map = "16406 /mnt/fast\n16407 /mnt/a\\\\b\\\nc d\n";
        assert_eq!(places(map), [PathBuf::from("/mnt/fast"), PathBuf::from("/mnt/a\\b\nc d")]);
    }

    #[test]
    fn a_copy_of_which_something_is_elsewhere_is_refused() {
        let around = tempfile::tempdir().unwrap();
        let scratch = Scratch::make(around.path()).unwrap();
        let links = scratch.data().join("pg_tblspc");
        fs::create_dir(&links).unwrap();
        std::os::unix::fs::symlink(scratch.tablespaces(), links.join("1")).unwrap();
        prepare(&scratch).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), links.join("2")).unwrap();
        let refused = prepare(&scratch).unwrap_err();
        assert!(refused.message.contains("outside of the scratch directory"), "{refused}");
        fs::remove_file(links.join("2")).unwrap();
        let map = scratch.data().join("tablespace_map");
        for (to, fine) in [
            (scratch.tablespaces().join("3"), true),
            (scratch.root().join("../x"), false),
            ("/x".into(), false),
        ] {
            fs::write(&map, format!("3 {}\n", to.display())).unwrap();
            assert_eq!(prepare(&scratch).is_ok(), fine, "{to:?}");
        }
    }
}
