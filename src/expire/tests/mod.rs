mod archive;
mod histories;
mod rules;

use super::*;
use crate::wal::SegmentSize;
use std::time::Duration;

const MIB: u64 = 1 << 20;

fn tli(id: u32) -> Timeline {
    Timeline::new(id).unwrap()
}

fn hour(hours: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(3600 * hours)
}

fn name(file: &(u32, u64)) -> WalName {
    WalName::Segment(SegmentName::numbered(tli(file.0), file.1, SegmentSize::MIN))
}
