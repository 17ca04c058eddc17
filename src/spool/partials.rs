//! Which segments in pg_wal were made of partial ones, by `wal-fetch --partial`.
//!
//! Such a file has a segment's name and size, and is none: what follows its last record is zeros.
//! It must never take the segment's name in an archive. So wal-fetch notes its content here before
//! it puts it into place, durably, and wal-push looks here for every segment. The one thing in the
//! spool that is no cache: where it cannot be noted, nothing may be delivered.

use super::Spool;
use crate::host::durable;
use crate::object::Sha256Sum;
use crate::wal::SegmentName;
use std::io;
use std::path::PathBuf;

impl Spool {
    /// Notes, durably, that a file with this content is not the whole segment.
    pub fn note_partial(&self, segment: SegmentName, sha256: &Sha256Sum) -> io::Result<()> {
        let folder = self.partials();
        durable::make_private_folder(&folder, None)?;
        match durable::publish_new(&self.partial(segment, sha256), &[&folder, &self.folder], |_| Ok(())) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                durable::sync_existing(&self.partial(segment, sha256), &[&folder, &self.folder])
            }
            other => other,
        }
    }

    /// Whether that was noted.
    pub fn was_partial(&self, segment: SegmentName, sha256: &Sha256Sum) -> io::Result<bool> {
        self.partial(segment, sha256).try_exists()
    }

    fn partials(&self) -> PathBuf {
        self.folder.join("partials")
    }

    fn partial(&self, segment: SegmentName, sha256: &Sha256Sum) -> PathBuf {
        self.partials().join(format!("{segment}.{sha256}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_delivered_of_a_partial_segment_is_known_by_its_content() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path().join("spool")).unwrap();
        let name: SegmentName = "00000001000000000000001B".parse().unwrap();
        let (short, whole) = (Sha256Sum::of(b"short"), Sha256Sum::of(b"whole"));
        assert!(!spool.was_partial(name, &short).unwrap());
        spool.note_partial(name, &short).unwrap();
        spool.note_partial(name, &short).unwrap();
        assert!(spool.was_partial(name, &short).unwrap());
        assert!(!spool.was_partial(name, &whole).unwrap());
        let other = "00000002000000000000001B".parse().unwrap();
        assert!(!spool.was_partial(other, &short).unwrap());
    }

    #[test]
    fn what_cannot_be_noted_is_an_error() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path().join("spool")).unwrap();
        std::fs::write(base.path().join("spool/partials"), "").unwrap();
        let name: SegmentName = "00000001000000000000001B".parse().unwrap();
        assert!(spool.note_partial(name, &Sha256Sum::of(b"short")).is_err());
    }
}
