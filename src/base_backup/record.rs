//! `backup.json`: what a backup is made of. Where it is, the backup is complete.

use super::id::BackupId;
use super::part;
use crate::object::{Encryption, Sha256Sum, versioned};
use crate::wal::{Lsn, SegmentName, SegmentSize, SystemId, Timeline};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

const VERSION: u32 = 1;

/// A complete backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: BackupId,
    pub label: String,
    pub system_id: SystemId,
    /// As `150004`.
    pub server_version: u32,
    pub segment_size: SegmentSize,
    /// Where it is consistent.
    pub stop: Lsn,
    /// The timeline of that address; of a standby's backup it may be a later one.
    pub stop_timeline: Timeline,
    pub finished: SystemTime,
    pub from_standby: bool,
    /// Whether the server found no page whose checksum is wrong.
    pub checksums_fine: bool,
    /// Paths of configuration files that are not in the data directory, and so not in the backup.
    pub outside: Vec<String>,
    /// That of the data directory first.
    pub series: Vec<Series>,
    pub manifest: Stored,
}

/// The parts of one tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// `None`: the data directory.
    pub tablespace: Option<(u32, String)>,
    pub parts: Vec<Stored>,
}

/// One object, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    pub file: String,
    /// Bytes before it was compressed.
    pub size: u64,
    /// Bytes as stored.
    pub stored: u64,
    #[serde(with = "text")]
    pub sha256: Sha256Sum,
}

mod text {
    use crate::object::Sha256Sum;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(sum: &Sha256Sum, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(sum)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Sha256Sum, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(|_| serde::de::Error::custom("a sha256 is not one"))
    }
}

#[derive(Serialize, Deserialize)]
struct Text {
    #[serde(rename = "wal-archive")]
    version: u32,
    backup: String,
    label: String,
    system_id: String,
    server_version: u32,
    segment_size: u64,
    timeline: u32,
    start: String,
    stop: String,
    stop_timeline: u32,
    started: String,
    finished: String,
    from_standby: bool,
    checksums_fine: bool,
    #[serde(default)]
    outside: Vec<String>,
    series: Vec<SeriesText>,
    manifest: Stored,
}

#[derive(Serialize, Deserialize)]
struct SeriesText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tablespace: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    parts: Vec<Stored>,
}

impl Record {
    /// A backup of a hundred thousand parts is shorter.
    pub const MAX_LEN: u64 = 64 << 20;

    /// One line of JSON, which ends with the SHA-256 of what is before it.
    pub fn write(&self) -> Vec<u8> {
        let time = |time| humantime::format_rfc3339_micros(time).to_string();
        let series = |series: &Series| SeriesText {
            tablespace: series.tablespace.as_ref().map(|(oid, _)| *oid),
            location: series.tablespace.as_ref().map(|(_, location)| location.clone()),
            parts: series.parts.clone(),
        };
        let text = Text {
            version: VERSION,
            backup: self.id.to_string(),
            label: self.label.clone(),
            system_id: self.system_id.to_string(),
            server_version: self.server_version,
            segment_size: self.segment_size.bytes(),
            timeline: self.id.timeline.get(),
            start: self.id.start.to_string(),
            stop: self.stop.to_string(),
            stop_timeline: self.stop_timeline.get(),
            started: time(self.id.started()),
            finished: time(self.finished),
            from_standby: self.from_standby,
            checksums_fine: self.checksums_fine,
            outside: self.outside.clone(),
            series: self.series.iter().map(series).collect(),
            manifest: self.manifest.clone(),
        };
        let mut bytes = versioned::write(&text);
        bytes.truncate(bytes.len().saturating_sub("}\n".len()));
        let end = end(&bytes);
        bytes.extend(end);
        bytes
    }

    /// Reads the record of a backup. The error says what is wrong.
    pub fn read(id: BackupId, bytes: &[u8]) -> Result<Self, String> {
        let text: Text = versioned::read(bytes, VERSION)?;
        let summed = bytes.len().checked_sub(end(&[]).len()).and_then(|at| bytes.split_at_checked(at));
        if summed.is_none_or(|(before, after)| after != end(before)) {
            return Err("it is not what was written: its checksum differs".to_owned());
        }
        if text.backup != id.to_string() {
            return Err(format!("it is that of the backup \"{}\"", text.backup));
        }
        let stop: Lsn = text.stop.parse().map_err(|_| "its stop is no address".to_owned())?;
        if stop < id.start {
            return Err("it stops before it starts".to_owned());
        }
        let record = Record {
            id,
            label: text.label,
            system_id: text.system_id.parse().map_err(|_| "its system_id is not a number".to_owned())?,
            server_version: text.server_version,
            segment_size: SegmentSize::new(text.segment_size).ok_or("its segment_size is not one")?,
            stop,
            stop_timeline: Timeline::new(text.stop_timeline).ok_or("its stop_timeline is 0")?,
            finished: humantime::parse_rfc3339(&text.finished).map_err(|_| "its finished is no time")?,
            from_standby: text.from_standby,
            checksums_fine: text.checksums_fine,
            outside: text.outside,
            series: text.series.into_iter().map(SeriesText::read).collect::<Result<_, _>>()?,
            manifest: text.manifest,
        };
        record.check_names()?;
        Ok(record)
    }

    /// Every part is where a backup puts it, so that none can lead anywhere else, and no larger than one.
    fn check_names(&self) -> Result<(), String> {
        let main = self.series.first().is_some_and(|series| series.tablespace.is_none());
        let encryption = self.encryption();
        let fine = |series: &Series| {
            let oid = series.tablespace.as_ref().map(|(oid, _)| *oid);
            let name = |number| part::file(&part::stem(oid, number), encryption);
            (1..)
                .zip(&series.parts)
                .all(|(number, stored)| stored.file == name(number) && stored.size <= part::SIZE as u64)
                && !series.parts.is_empty()
        };
        let one_main = self.series.iter().skip(1).all(|series| series.tablespace.is_some());
        match main
            && one_main
            && self.series.iter().all(fine)
            && self.manifest.file == part::file(part::MANIFEST, encryption)
        {
            true => Ok(()),
            false => Err("its parts have names or sizes that no backup gives".to_owned()),
        }
    }

    /// How its objects are stored.
    pub fn encryption(&self) -> Encryption {
        part::encryption(&self.manifest.file).map_or(Encryption::None, |(_, encryption)| encryption)
    }

    /// All of its objects but the record.
    pub fn objects(&self) -> impl Iterator<Item = &Stored> {
        self.series.iter().flat_map(|series| &series.parts).chain([&self.manifest])
    }

    /// Bytes before they were compressed, and as stored.
    pub fn sizes(&self) -> (u64, u64) {
        self.objects().fold((0, 0), |(size, stored), object| (size + object.size, stored + object.stored))
    }

    /// The segments that it needs to become consistent, by number.
    pub fn segments(&self) -> (u64, u64) {
        let size = self.segment_size.bytes();
        // The stop is the address behind the last byte that is needed.
        let last = self.stop.0.saturating_sub(1).max(self.id.start.0);
        (self.id.start.0 / size, last / size)
    }

    /// The first of them.
    pub fn start_segment(&self) -> SegmentName {
        SegmentName::at(self.id.timeline, self.id.start, self.segment_size)
    }

    /// The last of them, whose arrival says that the backup can be used.
    pub fn stop_segment(&self) -> SegmentName {
        SegmentName::numbered(self.stop_timeline, self.segments().1, self.segment_size)
    }
}

/// How a record ends, by what is before it.
fn end(before: &[u8]) -> Vec<u8> {
    format!(",\"checksum\":\"{}\"}}\n", Sha256Sum::of(before)).into_bytes()
}

impl SeriesText {
    fn read(self) -> Result<Series, String> {
        let tablespace = match (self.tablespace, self.location) {
            (None, None) => None,
            (Some(oid), Some(location)) => Some((oid, location)),
            _ => return Err("a tablespace has no location".to_owned()),
        };
        Ok(Series { tablespace, parts: self.parts })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn stored(file: &str) -> Stored {
        Stored { file: file.to_owned(), size: 10, stored: 5, sha256: Sha256Sum::of(file.as_bytes()) }
    }

    pub(crate) fn record() -> Record {
        let id: BackupId = "20261121T130405Z-000000002E000028-1".parse().unwrap();
        Record {
            id,
            label: "nightly".to_owned(),
            system_id: SystemId(7_622_915_573_421_581_577),
            server_version: 150_004,
            segment_size: SegmentSize::new(16 << 20).unwrap(),
            stop: Lsn(0x2E00_0100),
            stop_timeline: Timeline::FIRST,
            finished: id.started(),
            from_standby: false,
            checksums_fine: true,
            outside: Vec::new(),
            series: vec![
                Series {
                    tablespace: None,
                    parts: vec![stored("base-00001.tar.zst"), stored("base-00002.tar.zst")],
                },
                Series {
                    tablespace: Some((16406, "/mnt/fast".to_owned())),
                    parts: vec![stored("16406-00001.tar.zst")],
                },
            ],
            manifest: stored("manifest.zst"),
        }
    }

    #[test]
    fn the_record_is_one_line_of_json_and_reads_back() {
        let record = record();
        let text = String::from_utf8(record.write()).unwrap();
        assert!(text.starts_with(
            "{\"wal-archive\":1,\"backup\":\"20261121T130405Z-000000002E000028-1\",\"label\":\"nightly\",\"system_id\":\"7622915573421581577\",\"server_version\":150004,\"segment_size\":16777216,\"timeline\":1,\"start\":\"0/2E000028\",\"stop\":\"0/2E000100\",\"stop_timeline\":1,\"started\":\"2026-11-21T13:04:05.000000Z\""
        ));
        assert!(text.ends_with("\"}\n") && text.matches('\n').count() == 1);
        assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["checksum"].is_string());
        assert_eq!(Record::read(record.id, text.as_bytes()), Ok(record.clone()));
        assert_eq!(record.encryption(), Encryption::None);
        let mut sealed = record;
        for object in sealed.series.iter_mut().flat_map(|series| &mut series.parts) {
            object.file = object.file.replace(".zst", ".age");
        }
        sealed.manifest.file = "manifest.age".to_owned();
        assert_eq!(Record::read(sealed.id, &sealed.write()), Ok(sealed.clone()));
        assert_eq!(sealed.encryption(), Encryption::Age);
    }

    #[test]
    fn any_changed_or_missing_byte_of_a_record_is_an_error() {
        let good = record().write();
        for bit in 0..8 * good.len() {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::read(record().id, &bad).is_err(), "bit {bit}");
        }
        for cut in 0..good.len() {
            assert!(Record::read(record().id, &good[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_record_of_another_backup_or_with_odd_names_is_an_error() {
        let good = String::from_utf8(record().write()).unwrap();
        for (from, to) in [
            ("base-00001.tar.zst", "../../archive.json"),
            ("base-00002.tar.zst", "base-00003.tar.zst"),
            ("\"backup\":\"2026", "\"backup\":\"2025"),
            ("\"stop\":\"0/2E000100\"", "\"stop\":\"0/1\""),
            ("\"wal-archive\":1", "\"wal-archive\":2"),
            ("manifest.zst", "base-00001.tar.zst"),
            ("\"size\":10,", "\"size\":33554433,"),
            ("base-00001.tar.zst", "base-00001.tar.age"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert!(bad != good, "{from}");
            let (before, _) = bad.split_at(bad.len() - end(b"").len());
            let bad = [before.as_bytes(), &end(before.as_bytes())].concat();
            let read = Record::read(record().id, &bad);
            assert!(read.as_ref().is_err_and(|why| !why.contains("checksum")), "{from}: {read:?}");
        }
        assert!(Record::read(record().id, b"").is_err());
    }

    #[test]
    fn a_backup_that_stops_on_a_boundary_needs_nothing_behind_it() {
        let mut record = record();
        assert_eq!(record.segments(), (0x2E, 0x2E));
        record.stop = Lsn(0x3000_0000);
        assert_eq!(record.segments(), (0x2E, 0x2F));
        assert_eq!(record.stop_segment().to_string(), "00000001000000000000002F");
    }
}
