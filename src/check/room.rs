//! Free room of a file system, and the least that is wanted.

use super::{Finding, Limits, Metric, Report, State, within};
use crate::failure::size;
use rustix::fs::statvfs;
use std::path::Path;
use std::str::FromStr;
use std::time::Instant;

/// The least free room that is no alarm: a share, or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// Of the whole, in percent.
    Percent(u8),
    /// In bytes.
    Bytes(u64),
}

impl Least {
    fn bytes(self, total: u64) -> u64 {
        match self {
            Least::Percent(percent) => (u128::from(total) * u128::from(percent) / 100) as u64,
            Least::Bytes(bytes) => bytes,
        }
    }
}

/// The text is neither a share nor a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAmount;

impl std::fmt::Display for NoAmount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not an amount such as 10% or 20GiB")
    }
}

impl std::error::Error for NoAmount {}

impl FromStr for Least {
    type Err = NoAmount;

    /// `10%`, or bytes with a unit: `500MiB`, `20GiB`, `1TiB`.
    fn from_str(text: &str) -> Result<Self, NoAmount> {
        if let Some(share) = text.strip_suffix('%') {
            let share = share.parse().ok().filter(|share| *share <= 100);
            return share.map(Least::Percent).ok_or(NoAmount);
        }
        let units = [("MiB", 20), ("GiB", 30), ("TiB", 40)];
        let (number, shift) = units
            .into_iter()
            .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))
            .ok_or(NoAmount)?;
        let number: u64 = number.parse().map_err(|_| NoAmount)?;
        number.checked_mul(1 << shift).map(Least::Bytes).ok_or(NoAmount)
    }
}

/// What a file system says.
#[derive(Clone, Copy, Debug)]
struct Room {
    free: u64,
    total: u64,
    free_files: u64,
    total_files: u64,
}

/// Looks at the file system of a directory.
pub(super) fn check(path: &Path, of: &str, least: [Least; 2], at: Instant) -> Report {
    let mut report = Report::default();
    let directory = path.to_owned();
    let asked = within(at, move || {
        let said = statvfs(&directory)?;
        Ok::<_, rustix::io::Errno>(Room {
            // What this user may still use: `f_bavail`, without root's reserve.
            free: said.f_bavail.saturating_mul(said.f_frsize),
            total: said.f_blocks.saturating_mul(said.f_frsize),
            free_files: said.f_favail,
            total_files: said.f_files,
        })
    });
    let room = match asked {
        Some(Ok(room)) => room,
        Some(Err(error)) => {
            let what = format!("cannot ask for the free room of \"{}\": {error}", path.display());
            report.push(Finding::new(State::Unknown, "room", of, what));
            return report;
        }
        None => {
            let what = format!("the file system of \"{}\" did not answer in time", path.display());
            report
                .push(Finding::new(State::Critical, "room", of, what).hint("look at the disk or the mount"));
            return report;
        }
    };
    report.push(finding(&room, path, of, least));
    let [warning, critical] = least.map(|least| least.bytes(room.total) as f64);
    let free = Metric::new("free_bytes", Some(of), room.free as f64);
    report.metrics.push(free.limits(Limits::Least(warning, critical)));
    report
}

fn finding(room: &Room, path: &Path, of: &str, least: [Least; 2]) -> Finding {
    let below = |least: Least| {
        // Inodes are counted, not measured; some file systems have no number of them.
        let files = match least {
            Least::Percent(_) if room.total_files > 0 => room.free_files < least.bytes(room.total_files),
            _ => room.total_files > 0 && room.free_files == 0,
        };
        (room.free < least.bytes(room.total), files)
    };
    let [warning, critical] = least.map(below);
    let state = match (warning, critical) {
        (_, (true, _) | (_, true)) => State::Critical,
        ((true, _) | (_, true), _) => State::Warning,
        _ => State::Ok,
    };
    let free = match warning.1 || critical.1 {
        true => format!("{} of {} inodes", room.free_files, room.total_files),
        false => format!("{} of {}", size(room.free), size(room.total)),
    };
    let finding = Finding::new(state, "room", of, format!("\"{}\" has {free} free", path.display()));
    match state {
        State::Ok => finding,
        _ => finding.hint("make room, or enlarge the file system, before it is full"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_share_or_a_size() {
        assert_eq!("10%".parse(), Ok(Least::Percent(10)));
        assert_eq!("20GiB".parse(), Ok(Least::Bytes(20 << 30)));
        for bad in ["", "%", "101%", "-1%", "20", "20GB", "1.5GiB", "99999999999TiB", "GiB"] {
            assert_eq!(bad.parse::<Least>(), Err(NoAmount), "{bad:?}");
        }
    }

    #[test]
    fn room_is_judged_by_bytes_and_inodes() {
        let least = [Least::Percent(10), Least::Percent(5)];
        let state = |free, free_files| {
            let room = Room { free, total: 1000, free_files, total_files: 100 };
            finding(&room, Path::new("/x"), "/x", least).kind
        };
        assert_eq!(state(100, 100), State::Ok);
        assert_eq!(state(99, 100), State::Warning);
        assert_eq!(state(49, 100), State::Critical);
        assert_eq!(state(500, 9), State::Warning);
        assert_eq!(state(500, 0), State::Critical);
        // btrfs has no number of inodes.
        let room = Room { free: 500, total: 1000, free_files: 0, total_files: 0 };
        assert_eq!(finding(&room, Path::new("/x"), "/x", least).kind, State::Ok);
    }
}
