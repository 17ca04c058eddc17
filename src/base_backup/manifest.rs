//! `backup_manifest`: every file of a backup with its size and checksum, read as a stream.
//!
//! Source: PostgreSQL `src/backend/backup/backup_manifest.c`, `doc/src/sgml/backup-manifest.sgml`. Its
//! last line is the SHA-256 of everything before that line.

use crate::object::Sha256Sum;
use crate::wal::{Lsn, SystemId, Timeline};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::{self, BufReader, Read};

/// The newest version that is read: 17's, with the system identifier.
const VERSION: u64 = 2;

/// `"Manifest-Checksum": "<64 digits>"}` and a newline.
const LAST_LINE: usize = 89;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Below the data directory.
    pub path: Vec<u8>,
    pub size: u64,
    pub checksum: Checksum,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checksum {
    None,
    Crc32c(u32),
    /// One of another kind.
    Other(String),
}

/// WAL that the backup needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRange {
    pub timeline: Timeline,
    pub start: Lsn,
    pub end: Lsn,
}

/// What a manifest says beside the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// From 17 on.
    pub system_id: Option<SystemId>,
    pub wal: Vec<WalRange>,
}

#[derive(Debug)]
pub enum ManifestError {
    Read(io::Error),
    /// It is not a manifest, or not what it was. The reason.
    Damaged(String),
}

/// Reads a manifest and proves it by its own checksum; `file` is told every file. What it was told is
/// worth nothing where this fails.
pub fn read(source: &mut dyn Read, file: &mut dyn FnMut(File)) -> Result<Manifest, ManifestError> {
    let mut hashed = Hashed { source, held: Vec::new(), sha: Sha256::default(), failed: None };
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(&mut hashed));
    let top = TopVisitor { file }.deserialize(&mut json).and_then(|top| json.end().map(|()| top));
    drop(json);
    if let Some(error) = hashed.failed.take() {
        return Err(ManifestError::Read(error));
    }
    let damaged = |reason: String| ManifestError::Damaged(reason);
    let top = top.map_err(|error| damaged(format!("the manifest cannot be understood: {error}")))?;
    let version = top.version.ok_or_else(|| damaged("the manifest has no version".to_owned()))?;
    if !(1..=VERSION).contains(&version) {
        return Err(damaged(format!(
            "the manifest is of version {version}; this program reads up to {VERSION}"
        )));
    }
    let (sum, last) = hashed.finish();
    let expected = format!("\"Manifest-Checksum\": \"{sum}\"}}\n");
    if last != expected.as_bytes() {
        return Err(damaged("the manifest is not what it was: its own checksum differs".to_owned()));
    }
    let system_id = top.system_id.map(|id| id.to_string().parse()).transpose();
    let system_id = system_id.map_err(|_| damaged("the manifest has no system identifier".to_owned()))?;
    Ok(Manifest {
        system_id,
        wal: top.wal.iter().map(WalText::range).collect::<Option<_>>().unwrap_or_default(),
    })
}

/// Passes everything on and hashes all but the last line.
struct Hashed<'a> {
    source: &'a mut dyn Read,
    held: Vec<u8>,
    sha: Sha256,
    failed: Option<io::Error>,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.source.read(buffer) {
            Ok(read) => {
                self.held.extend_from_slice(buffer.get(..read).unwrap_or_default());
                let ready = self.held.len().saturating_sub(LAST_LINE);
                self.sha.update(self.held.get(..ready).unwrap_or_default());
                self.held.drain(..ready);
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}

impl Hashed<'_> {
    fn finish(self) -> (Sha256Sum, Vec<u8>) {
        (Sha256Sum::from(self.sha), self.held)
    }
}

#[derive(Default)]
struct Top {
    version: Option<u64>,
    system_id: Option<u64>,
    wal: Vec<WalText>,
}

struct TopVisitor<'f> {
    file: &'f mut dyn FnMut(File),
}

impl<'de> DeserializeSeed<'de> for TopVisitor<'_> {
    type Value = Top;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Top, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TopVisitor<'_> {
    type Value = Top;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a backup manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Top, A::Error> {
        let mut top = Top::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "PostgreSQL-Backup-Manifest-Version" => top.version = Some(map.next_value()?),
                "System-Identifier" => top.system_id = Some(map.next_value()?),
                "WAL-Ranges" => top.wal = map.next_value()?,
                "Files" => map.next_value_seed(FilesVisitor { file: &mut *self.file })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(top)
    }
}

struct FilesVisitor<'f> {
    file: &'f mut dyn FnMut(File),
}

impl<'de> DeserializeSeed<'de> for FilesVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for FilesVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the files of a backup")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(text) = seq.next_element::<FileText>()? {
            let read = text.read().ok_or_else(|| serde::de::Error::custom("a file is described wrongly"))?;
            (self.file)(read);
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct FileText {
    #[serde(rename = "Path")]
    path: Option<String>,
    /// In hexadecimal digits, where it is not UTF-8.
    #[serde(rename = "Encoded-Path")]
    encoded: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

impl FileText {
    fn read(self) -> Option<File> {
        let path = match (self.path, self.encoded) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(encoded)) => bytes(&encoded)?,
            _ => return None,
        };
        let checksum = match (self.algorithm.as_deref(), self.checksum) {
            (None, None) => Checksum::None,
            // As the bytes of the number are in the memory of PostgreSQL's machine.
            (Some("CRC32C"), Some(digits)) => {
                Checksum::Crc32c(u32::from_le_bytes(bytes(&digits)?.try_into().ok()?))
            }
            (Some(other), Some(_)) => Checksum::Other(other.to_owned()),
            _ => return None,
        };
        Some(File { path, size: self.size, checksum })
    }
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.len().is_multiple_of(2).then(|| digits.as_bytes().chunks_exact(2).map(pair).collect())?
}

#[derive(Deserialize)]
struct WalText {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

impl WalText {
    fn range(&self) -> Option<WalRange> {
        Some(WalRange {
            timeline: Timeline::new(self.timeline)?,
            start: self.start.parse().ok()?,
            end: self.end.parse().ok()?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::sums::Crc;
    use super::*;

    /// A manifest of these files, as PostgreSQL 15 writes it.
    pub(crate) fn manifest(files: &[(&str, &[u8])]) -> Vec<u8> {
        let lines: Vec<String> = files
            .iter()
            .map(|(path, content)| {
                let mut crc = Crc::default();
                crc.update(content);
                let crc: String = crc.sum().to_le_bytes().iter().map(|b| format!("{b:02x}")).collect();
                format!(
                    "{{ \"Path\": \"{path}\", \"Size\": {}, \"Last-Modified\": \"2026-11-21 13:04:05 GMT\", \
                     \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{crc}\" }}",
                    content.len()
                )
            })
            .collect();
        let mut text = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{}\n],\n\"WAL-Ranges\": [\n\
             {{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }}\n],\n",
            lines.join(",\n")
        );
        let sum = Sha256Sum::of(text.as_bytes());
        text += &format!("\"Manifest-Checksum\": \"{sum}\"}}\n");
        text.into_bytes()
    }

    fn files(bytes: &[u8]) -> Result<(Manifest, Vec<File>), ManifestError> {
        let mut files = Vec::new();
        let read = read(&mut &bytes[..], &mut |file| files.push(file))?;
        Ok((read, files))
    }

    #[test]
    fn a_manifest_names_files_and_the_wal_that_they_need() {
        let (manifest, files) = files(&manifest(&[("PG_VERSION", b"15\n"), ("base/1/2", b"")])).unwrap();
        assert_eq!(files[0].path, b"PG_VERSION");
        assert_eq!((files[1].size, &files[1].checksum), (0, &Checksum::Crc32c(0)));
        assert_eq!((manifest.wal[0].start, manifest.wal[0].end), (Lsn(0x200_0028), Lsn(0x200_0100)));
        assert_eq!(manifest.system_id, None);
    }

    #[test]
    fn any_changed_byte_of_a_manifest_is_damage() {
        let good = manifest(&[("PG_VERSION", b"15\n"), ("base/1/2", b"x")]);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(files(&bad).is_err(), "byte {at}");
        }
        assert!(files(&good[..good.len() - 1]).is_err());
        assert!(files(&[good.as_slice(), b"\n"].concat()).is_err());
        assert!(files(b"").is_err());
    }

    #[test]
    fn a_path_that_is_no_text_is_in_digits() {
        let text = FileText {
            path: None,
            encoded: Some("61ff".to_owned()),
            size: 0,
            algorithm: None,
            checksum: None,
        };
        assert_eq!(text.read(), Some(File { path: vec![b'a', 0xff], size: 0, checksum: Checksum::None }));
    }
}
