//! An archive with everything in it, four weeks long, made in a second: three timelines, two destinations,
//! base backups, a hole, damage, what was expired, rehearsals.

use crate::util::{CLUSTER, MIB, Sandbox, noise};
use crate::wal::{BaseBackup, Image, Log};
use serde_json::json;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use wal_archive::base_backup::{BackupId, Record, Series, Stored};
use wal_archive::object::{Expired, Sha256Sum, codec};
use wal_archive::wal::{SegmentName, SegmentSize, SystemId, Timeline, WalName};

const DAYS: f64 = 28.0;
const HOUR: Duration = Duration::from_secs(3600);

pub struct Simulated {
    roots: Vec<PathBuf>,
    now: SystemTime,
}

/// Makes it; the second destination, beside the sandbox's archive.
pub fn archive_with_everything(sandbox: &Sandbox, now: SystemTime) -> PathBuf {
    let simulated = Simulated { roots: vec![sandbox.archive(), sandbox.make_archive("offsite")], now };
    simulated.live();
    simulated.harm(&simulated.roots[0], &simulated.roots[1]);
    simulated.rehearse();
    simulated.roots[1].clone()
}

fn timeline(id: u32) -> Timeline {
    Timeline::new(id).unwrap()
}

fn text(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

impl Simulated {
    /// An empty one with the sandbox's archive alone.
    pub fn new(sandbox: &Sandbox, now: SystemTime) -> Self {
        Simulated { roots: vec![sandbox.archive()], now }
    }

    /// So many days after its beginning.
    pub fn day(&self, days: f64) -> SystemTime {
        self.now - Duration::from_secs_f64((DAYS - days) * 86400.0)
    }

    fn live(&self) {
        let mut log = Log::new(SystemId(CLUSTER), SegmentSize::new(MIB as u64).unwrap());
        for (from, label) in [(0.0, "nightly"), (3.0, "nightly"), (6.0, "nightly"), (9.0, "before the move")]
        {
            self.back_up(&mut log, self.day(from + 0.1), label, from == 6.0);
            self.work(&mut log, from + 0.2, (from + 3.0).min(11.4));
        }
        self.foreign_backup(&log);
        let mut log = self.promote(&log, 2, 11.5);
        self.work(&mut log, 11.6, 14.0);
        self.back_up(&mut log, self.day(14.1), "nightly", false);
        self.work(&mut log, 14.2, 18.4);
        let mut log = self.promote(&log, 3, 18.5);
        for from in [18.6, 21.0, 24.0, 26.5] {
            self.back_up(&mut log, self.day(from + 0.1), "nightly", false);
            self.work(&mut log, from + 0.2, (from + 2.4).min(27.9));
        }
    }

    /// Transactions, more of them by day.
    pub fn work(&self, log: &mut Log, from: f64, to: f64) {
        let mut at = self.day(from);
        while at < self.day(to) {
            let seed = log.end().0;
            log.noop_of(&noise(seed, 20_000 + (seed >> 20) as usize * 7919 % 160_000));
            log.commit(at);
            log.switch();
            self.store(log.take_finished(), at);
            at += HOUR * if (seed >> 20).is_multiple_of(9) { 7 } else { 3 };
        }
    }

    pub fn back_up(&self, log: &mut Log, at: SystemTime, label: &str, damaged: bool) {
        self.back_up_while(log, at, (label, damaged), |_| {});
    }

    /// With something that is written meanwhile.
    pub fn back_up_while(
        &self,
        log: &mut Log,
        at: SystemTime,
        (label, damaged): (&str, bool),
        write: impl FnOnce(&mut Log),
    ) {
        log.checkpoint(at);
        let (start, finished) = (log.redo(), at + HOUR / 4);
        write(log);
        log.commit(at + HOUR / 8);
        let stop = log.end();
        log.switch();
        self.store(log.take_finished(), finished);
        let part = noise(stop.0, 200_000);
        let stored = |file: &str| Stored {
            file: file.to_owned(),
            size: 1 << 20,
            stored: part.len() as u64,
            sha256: Sha256Sum::of(&part),
        };
        let id = BackupId::new(at, start, log.timeline()).unwrap();
        let record = Record {
            id,
            label: label.to_owned(),
            system_id: log.system_id(),
            server_version: 150_004,
            segment_size: log.size(),
            stop,
            stop_timeline: log.timeline(),
            finished,
            from_standby: false,
            checksums_fine: true,
            outside: Vec::new(),
            series: vec![Series { tablespace: None, parts: vec![stored("base-00001.tar.zst")] }],
            manifest: stored("manifest.zst"),
        };
        for root in &self.roots {
            let folder = root.join("backups").join(id.to_string());
            put(&folder.join("base-00001.tar.zst"), &part[usize::from(damaged)..], at);
            put(&folder.join("manifest.zst"), &part, at);
            put(&folder.join("backup.json"), &record.write(), finished);
        }
    }

    /// What the old primary had of its last segment stays as a `.partial` file.
    pub fn promote(&self, log: &Log, id: u32, days: f64) -> Log {
        let at = self.day(days);
        let mut log = log.clone();
        log.commit(at);
        let partial = WalName::Partial(log.current());
        self.store_as(partial, &log.current_image().unwrap().bytes(), at);
        let child = log.promoted(timeline(id), at);
        let history = child.history().unwrap();
        self.store_as(WalName::TimelineHistory(timeline(id)), history.as_bytes(), at);
        child
    }

    fn foreign_backup(&self, log: &Log) {
        let start = wal_archive::wal::Lsn(6 * MIB as u64 + 40);
        let backup = BaseBackup {
            label: "pgbackrest".to_owned(),
            timeline: log.timeline(),
            size: log.size(),
            start,
            stop: wal_archive::wal::Lsn(start.0 + 300),
        };
        let times = backup.history().replace("2026-11-20 21:05:44 UTC", &self.pg_time(0.8));
        let times = times.replace("2026-11-20 21:05:43 UTC", &self.pg_time(0.7));
        self.store_as(backup.history_name().parse().unwrap(), times.as_bytes(), self.day(0.8));
    }

    fn pg_time(&self, days: f64) -> String {
        text(self.day(days)).replace('T', " ").replace('Z', " UTC")
    }

    fn store(&self, segments: Vec<(SegmentName, Image)>, at: SystemTime) {
        for (name, image) in segments {
            self.store_as(WalName::Segment(name), &image.bytes(), at);
        }
    }

    fn store_as(&self, name: WalName, content: &[u8], at: SystemTime) {
        let mut object = Vec::new();
        let id = content.starts_with(&[0x10, 0xD1]).then_some(SystemId(CLUSTER));
        codec::encode(name, content.len() as u64, id, 1, &mut &content[..], &mut object).unwrap();
        for root in &self.roots {
            put(&root.join(format!("wal_005/{name}.zst")), &object, at);
        }
    }

    fn harm(&self, main: &Path, offsite: &Path) {
        let wal = |root: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(root.join("wal_005")).unwrap();
            let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            paths
        };
        let of = |root: &Path, id: u32| -> Vec<PathBuf> {
            let begins = format!("{id:08X}");
            let is = |path: &PathBuf| {
                let name = path.file_name().unwrap().to_str().unwrap();
                name.starts_with(&begins) && name.len() == 28
            };
            wal(root).into_iter().filter(is).collect()
        };
        // Lost everywhere; lost at one; removed by expire.
        for root in [main, offsite] {
            of(root, 1)[38..41].iter().for_each(|path| fs::remove_file(path).unwrap());
            let expired = of(root, 1)[12..20].to_vec();
            let name = |path: &Path| -> SegmentName {
                path.file_name().unwrap().to_str().unwrap()[..24].parse().unwrap()
            };
            let record = Expired { ranges: vec![(name(&expired[0]), name(&expired[7]))] };
            put(&root.join("expired/20261101T000000Z.json"), &record.write(), self.day(20.0));
            expired.iter().for_each(|path| fs::remove_file(path).unwrap());
        }
        of(offsite, 3)[7..10].iter().for_each(|path| fs::remove_file(path).unwrap());
        // Cut, so that its trailer is gone.
        let cut = &of(main, 2)[9];
        let bytes = fs::read(cut).unwrap();
        put(cut, &bytes[..bytes.len() / 2], self.day(14.5));
        // Begun and given up.
        let id = BackupId::new(self.day(23.0), wal_archive::wal::Lsn(28), timeline(3)).unwrap();
        put(&main.join(format!("backups/{id}/base-00001.tar.zst")), b"begun", self.day(23.0));
    }

    fn rehearse(&self) {
        for (days, sound) in [(4.0, true), (11.0, false), (18.0, true), (25.0, true), (27.5, true)] {
            let at = self.day(days);
            let record = json!({
                "wal-archive": 1, "rehearsed": text(at), "verdict": if sound { "sound" } else { "findings" },
                "backup": "20261121T020405Z-000000002E000028-1", "target": null, "timeline": 1,
                "end_lsn": format!("0/{:X}000000", 16 + days as u64), "last_commit": text(at - HOUR / 60),
                "data_lost_seconds": 60.0,
                "phases": {"restore_seconds": 41.2 + days, "replay_seconds": 97.0, "ready_seconds": 0.4},
                "replayed_bytes": 1u64 << 33, "server_major": 15, "checked": ["pg_verifybackup", "pg_amcheck"],
                "findings": [],
            });
            let name: String = text(at).chars().filter(|c| !matches!(c, '-' | ':')).collect();
            for root in &self.roots {
                put(&root.join(format!("rehearsals/{name}.json")), format!("{record}\n").as_bytes(), at);
            }
        }
    }
}

fn put(path: &Path, content: &[u8], at: SystemTime) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}
