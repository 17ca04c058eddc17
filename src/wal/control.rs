//! `global/pg_control`: which cluster a data directory is, and how far it is.
//!
//! Source: PostgreSQL `src/include/catalog/pg_control.h` (`ControlFileData`, `CheckPoint`), seen
//! alike in the files that 13 to 18 write on 64-bit little-endian machines. The system identifier
//! is the first field of every version; the rest counts only where the constant that PostgreSQL
//! puts there to tell a strange layout is where it belongs.

use super::lsn::SegmentSize;
use super::name::Timeline;
use super::page::SystemId;

/// `floatFormat`, by which PostgreSQL itself recognises the layout (`FLOATFORMAT_VALUE`).
const FLOAT_FORMAT: f64 = 1_234_567.0;

const CHECKPOINT_TIMELINE: usize = 48; // checkPointCopy.ThisTimeLineID
const MIN_RECOVERY_TIMELINE: usize = 144; // minRecoveryPointTLI, 0 outside of recovery
const FLOAT_FORMAT_AT: usize = 208;
const SEGMENT_SIZE: usize = 228; // xlog_seg_size
const LIMITS: usize = 180; // MaxConnections, the first of five
const CHECKSUM_VERSION: usize = 252; // data_checksum_version

/// What a control file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlFile {
    pub system_id: SystemId,
    /// `None` in an unknown layout, as all that follows.
    pub segment_size: Option<SegmentSize>,
    /// Of the latest checkpoint.
    pub checkpoint_timeline: Option<Timeline>,
    /// Up to which recovery must get before the cluster is consistent; `None` outside of recovery.
    pub min_recovery_timeline: Option<Timeline>,
    /// Of the server that wrote the WAL: what replays it needs no less.
    pub limits: Option<Limits>,
    /// Whether data pages have checksums.
    pub has_checksums: Option<bool>,
}

/// Settings of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_connections: u32,
    pub max_worker_processes: u32,
    pub max_wal_senders: u32,
    pub max_prepared_transactions: u32,
    pub max_locks_per_transaction: u32,
}

impl ControlFile {
    /// How many bytes are looked at.
    pub const LEN: usize = 296;

    /// `None` where the file is too short to name its cluster.
    pub fn read(content: &[u8]) -> Option<Self> {
        let system_id = SystemId::from_control_file(content)?;
        let float = content.get(FLOAT_FORMAT_AT..).and_then(|at| at.first_chunk());
        let known = float.is_some_and(|bytes| f64::from_le_bytes(*bytes) == FLOAT_FORMAT);
        let field = |at: usize| {
            let bytes = content.get(at..).filter(|_| known)?.first_chunk()?;
            Some(u32::from_le_bytes(*bytes))
        };
        Some(ControlFile {
            system_id,
            segment_size: field(SEGMENT_SIZE).and_then(|size| SegmentSize::new(size.into())),
            checkpoint_timeline: field(CHECKPOINT_TIMELINE).and_then(Timeline::new),
            min_recovery_timeline: field(MIN_RECOVERY_TIMELINE).and_then(Timeline::new),
            limits: Limits::read(|number| field(LIMITS + 4 * number)),
            has_checksums: field(CHECKSUM_VERSION).map(|version| version != 0),
        })
    }
}

impl Limits {
    fn read(number: impl Fn(usize) -> Option<u32>) -> Option<Self> {
        Some(Limits {
            max_connections: number(0)?,
            max_worker_processes: number(1)?,
            max_wal_senders: number(2)?,
            max_prepared_transactions: number(3)?,
            max_locks_per_transaction: number(4)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(&[u8], u64); 6] = [
        (include_bytes!("../../tests/vectors/control/postgresql-13"), 7_712_325_799_346_289_362),
        (include_bytes!("../../tests/vectors/control/postgresql-14"), 7_712_325_802_340_272_916),
        (include_bytes!("../../tests/vectors/control/postgresql-15"), 7_712_325_805_637_208_912),
        (include_bytes!("../../tests/vectors/control/postgresql-16"), 7_712_325_810_176_445_320),
        (include_bytes!("../../tests/vectors/control/postgresql-17"), 7_712_325_813_936_593_856),
        (include_bytes!("../../tests/vectors/control/postgresql-18"), 7_712_325_817_485_835_256),
    ];

    #[test]
    fn the_files_of_all_supported_versions_are_understood() {
        for (number, (content, system_id)) in (13..).zip(FILES) {
            let limits = Limits {
                max_connections: 100,
                max_worker_processes: 8,
                max_wal_senders: 10,
                max_prepared_transactions: 0,
                max_locks_per_transaction: 64,
            };
            let expected = ControlFile {
                system_id: SystemId(system_id),
                segment_size: SegmentSize::new(64 << 20),
                checkpoint_timeline: Timeline::new(1),
                min_recovery_timeline: None,
                limits: Some(limits),
                // On by default from 18.
                has_checksums: Some(number >= 18),
            };
            assert_eq!(ControlFile::read(content), Some(expected));
            assert_eq!(ControlFile::read(content.get(..ControlFile::LEN).unwrap()), Some(expected));
        }
    }

    #[test]
    fn each_field_is_read_where_it_is() {
        let mut content = FILES[2].0.to_vec();
        content[CHECKPOINT_TIMELINE] = 7;
        content[MIN_RECOVERY_TIMELINE] = 9;
        content[LIMITS + 12] = 5;
        let control = ControlFile::read(&content).unwrap();
        assert_eq!(control.checkpoint_timeline, Timeline::new(7));
        assert_eq!(control.min_recovery_timeline, Timeline::new(9));
        assert_eq!(control.limits.unwrap().max_prepared_transactions, 5);
    }

    #[test]
    fn of_an_unknown_layout_only_the_cluster_is_believed() {
        let mut content = FILES[2].0.to_vec();
        content[FLOAT_FORMAT_AT] ^= 1;
        let only = |system_id| ControlFile {
            system_id,
            segment_size: None,
            checkpoint_timeline: None,
            min_recovery_timeline: None,
            limits: None,
            has_checksums: None,
        };
        assert_eq!(ControlFile::read(&content), Some(only(SystemId(FILES[2].1))));
        assert_eq!(ControlFile::read(&7u64.to_le_bytes()), Some(only(SystemId(7))));
        assert_eq!(ControlFile::read(&[0; 7]), None);
    }
}
