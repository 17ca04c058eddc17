//! Size and CRC-32C of every file of a backup, taken as its tars pass, and their comparison with the
//! manifest.

use super::label;
use super::manifest::{self, Checksum, Manifest, ManifestError};
use super::tar::{Entry, Error, Kind, Sink};
use crc_fast::{CrcAlgorithm, Digest};
use std::collections::HashMap;
use std::io::Read;

/// Of so many files it is said what is wrong; the others are counted.
const SAID: usize = 20;

/// No backup label comes near this.
const MAX_LABEL: usize = 64 * 1024;

/// A file's size and sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSum {
    pub size: u64,
    pub crc: u32,
}

/// What is wrong with the files of a backup, by its manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Sentences, not more than some.
    pub said: Vec<String>,
    pub count: u64,
}

impl Differences {
    pub fn add(&mut self, what: String) {
        self.count += 1;
        if self.said.len() < SAID {
            self.said.push(what);
        }
    }
}

/// CRC-32C, as PostgreSQL's manifests have it.
pub struct Crc(Digest);

impl Default for Crc {
    fn default() -> Self {
        Crc(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }
}

impl Crc {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn sum(&self) -> u32 {
        // An algorithm of 32 bits.
        u32::try_from(self.0.finalize()).unwrap_or_default()
    }
}

/// The files of the tars so far.
#[derive(Default)]
pub struct Sums {
    files: HashMap<Vec<u8>, FileSum>,
    /// Before the paths of the tar at hand, with its slash.
    prefix: Vec<u8>,
    current: Option<Current>,
    /// The content of `backup_label`.
    label: Option<Vec<u8>>,
}

struct Current {
    path: Vec<u8>,
    size: u64,
    crc: Crc,
    kept: Option<Vec<u8>>,
}

impl Sums {
    /// The tar of a tablespace follows, or of the data directory.
    pub fn begin_tar(&mut self, tablespace: Option<u32>) {
        self.prefix = prefix(tablespace);
    }

    /// The backup label, once it has passed.
    pub fn label(&self) -> Option<label::BackupLabel> {
        label::BackupLabel::parse(self.label.as_ref()?)
    }

    /// Compares with a manifest, which names all files and no others.
    pub fn compare(mut self, manifest: &mut dyn Read) -> Result<(Manifest, Differences), ManifestError> {
        let mut differences = Differences::default();
        let read = manifest::read(manifest, &mut |file| {
            let path = String::from_utf8_lossy(&file.path).into_owned();
            match self.files.remove(&file.path) {
                None => differences.add(format!("\"{path}\" is in the manifest and was not sent")),
                Some(found) => {
                    if let Some(what) = found.differs(file.size, &file.checksum) {
                        differences.add(format!("\"{path}\" {what}"));
                    }
                }
            }
        })?;
        for path in self.files.keys() {
            let path = String::from_utf8_lossy(path);
            differences.add(format!("\"{path}\" was sent and is not in the manifest"));
        }
        Ok((read, differences))
    }
}

impl FileSum {
    /// What is wrong with it by the manifest.
    pub fn differs(&self, size: u64, checksum: &Checksum) -> Option<String> {
        match checksum {
            _ if self.size != size => Some(format!("has {} bytes, and {size} by the manifest", self.size)),
            Checksum::Crc32c(crc) if *crc != self.crc => {
                Some(format!("has the checksum {:08x}, and {crc:08x} by the manifest", self.crc))
            }
            Checksum::Crc32c(_) | Checksum::None => None,
            Checksum::Other(name) => Some(format!("has a checksum of the unknown kind \"{name}\"")),
        }
    }
}

/// Where the files of a tablespace are in the manifest, and below a data directory.
pub fn prefix(tablespace: Option<u32>) -> Vec<u8> {
    tablespace.map_or_else(Vec::new, |oid| format!("pg_tblspc/{oid}/").into_bytes())
}

impl Sink for Sums {
    fn begin(&mut self, entry: &Entry) -> Result<(), Error> {
        if entry.kind != Kind::File {
            return Ok(());
        }
        let path = [self.prefix.as_slice(), entry.path.as_slice()].concat();
        if self.files.contains_key(&path) {
            let shown = String::from_utf8_lossy(&path);
            return Err(Error::Damaged(format!("\"{shown}\" is in the backup twice")));
        }
        let kept = (path == label::PATH.as_bytes()).then(Vec::new);
        self.current = Some(Current { path, size: 0, crc: Crc::default(), kept });
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if let Some(current) = &mut self.current {
            current.size += bytes.len() as u64;
            current.crc.update(bytes);
            if let Some(kept) = &mut current.kept
                && kept.len() < MAX_LABEL
            {
                kept.extend_from_slice(bytes);
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        if let Some(Current { path, size, crc, kept }) = self.current.take() {
            self.files.insert(path, FileSum { size, crc: crc.sum() });
            self.label = kept.or(self.label.take());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::manifest;
    use super::super::tar::Reader;
    use super::super::tar::tests::tar;
    use super::*;

    fn sums(files: &[(&str, &[u8])], tablespace: &[(&str, &[u8])]) -> Sums {
        let mut sums = Sums::default();
        for (oid, files) in [(None, files), (Some(16406), tablespace)] {
            sums.begin_tar(oid);
            let mut reader = Reader::default();
            reader.push(&tar(files), &mut sums).unwrap();
            reader.finish().unwrap();
        }
        sums
    }

    fn differences(sums: Sums, manifest: &[u8]) -> Vec<String> {
        let mut said = sums.compare(&mut &manifest[..]).unwrap().1.said;
        said.sort();
        said
    }

    #[test]
    fn a_backup_is_sound_where_every_file_is_what_the_manifest_says() {
        let label = b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nBACKUP FROM: primary\nSTART TIMELINE: 1\n";
        let sent = || sums(&[("backup_label", label), ("base/1/empty", b"")], &[("PG_15/5/1", b"x")]);
        let all: [(&str, &[u8]); 3] =
            [("backup_label", label), ("base/1/empty", b""), ("pg_tblspc/16406/PG_15/5/1", b"x")];
        assert!(sent().label().is_some());
        assert_eq!(differences(sent(), &manifest(&all)), [""; 0]);
        let fewer = differences(sent(), &manifest(&all[..2]));
        assert_eq!(fewer, ["\"pg_tblspc/16406/PG_15/5/1\" was sent and is not in the manifest"]);
        let more = [all.as_slice(), &[("base/1/2", b"y".as_slice())]].concat();
        assert_eq!(
            differences(sent(), &manifest(&more)),
            ["\"base/1/2\" is in the manifest and was not sent"]
        );
        let changed = [all[0], all[1], ("pg_tblspc/16406/PG_15/5/1", b"y".as_slice())];
        assert!(differences(sent(), &manifest(&changed))[0].contains("checksum"));
        let longer = [all[0], ("base/1/empty", b"z".as_slice()), all[2]];
        assert!(differences(sent(), &manifest(&longer))[0].contains("0 bytes"));
    }

    #[test]
    fn a_file_that_comes_twice_is_damage() {
        let mut sums = Sums::default();
        let twice = tar(&[("a", b"1"), ("a", b"1")]);
        assert!(Reader::default().push(&twice, &mut sums).is_err());
    }

    #[test]
    fn the_checksum_is_crc_32c() {
        let mut crc = Crc::default();
        crc.update(b"123456789");
        assert_eq!(crc.sum(), 0xE306_9283);
    }
}
