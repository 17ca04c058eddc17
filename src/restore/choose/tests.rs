use super::*;
use crate::base_backup::record::tests::record;
use crate::object::{Encryption, Identity, Key, encode};
use crate::storage::memory::Memory;
use crate::storage::{Body, Storage};
use crate::wal::{SegmentSize, SystemId, WalName};
use std::time::Duration;

/// Segments of 16 MiB, on timeline 1 from 0x2E to 0x33, on timeline 2 from 0x32 on.
const FORK: &str = "1\t0/32000100\tx\n";

fn archive(names: &[&str]) -> Inventory {
    let storage = Memory::default();
    let identity = Identity {
        system_id: SystemId(7),
        segment_size: SegmentSize::new(16 << 20).unwrap(),
        foreign: false,
        encryption: Encryption::None,
    };
    storage.create(&Key::identity(), &Body::from(identity.write())).unwrap();
    for name in names {
        let wal: WalName = name.parse().unwrap();
        let mut bytes = Vec::new();
        let text = if name.ends_with("history") { FORK } else { "" };
        encode(wal, text.len() as u64, None, 1, &mut text.as_bytes(), &mut bytes).unwrap();
        storage.create(&Key::parse(&format!("wal_005/{name}.zst")).unwrap(), &Body::from(bytes)).unwrap();
    }
    Inventory::read(&storage).unwrap()
}

fn segments(timeline: u32, numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("{timeline:08X}00000000{number:08X}")).collect()
}

fn all() -> Vec<String> {
    let own = segments(1, 0x2E..=0x33);
    own.into_iter().chain(segments(2, 0x32..=0x34)).chain(["00000002.history".to_owned()]).collect()
}

/// Backups at the beginning of segments 0x2E and 0x30, consistent within the same.
fn backups() -> Vec<Record> {
    let older = record();
    let id = "20261122T130405Z-0000000030000028-1".parse().unwrap();
    let newer = Record { id, stop: Lsn(0x3000_0100), finished: older.finished + day(1), ..older.clone() };
    vec![older, newer]
}

fn day(count: u64) -> Duration {
    Duration::from_secs(24 * 3600 * count)
}

/// A transaction ended an hour after each backup, and the last one at this time.
struct Known(SystemTime);

impl Evidence for Known {
    fn newest_within(&self, _: &Record, _: &Branch) -> Result<Option<SystemTime>> {
        Ok(None)
    }

    fn ended_after(
        &self,
        _: &Branch,
        _: (u64, u64),
        time: SystemTime,
    ) -> Result<std::result::Result<(), Option<SystemTime>>> {
        Ok(if self.0 > time { Ok(()) } else { Err(Some(self.0)) })
    }

    fn last_record(&self, _: &Branch, (_, last): (u64, u64)) -> Result<Option<Lsn>> {
        Ok(Some(Lsn((last + 1) * record().segment_size.bytes() - 0x100)))
    }

    fn first(&self, record: &Record, _: &Branch, _: u64, mark: &Mark) -> Result<Option<Lsn>> {
        Ok((*mark == Mark::Transaction(7)).then_some(Lsn(record.stop.0 + 8)))
    }
}

fn chosen(
    names: &[String],
    target: Target,
    timeline: Option<u32>,
) -> std::result::Result<(usize, u32), String> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let wish = Wish { backup: None, target, exclusive: false, timeline: timeline.and_then(Timeline::new) };
    let last = Known(record().finished + day(9));
    let choice = choose(&archive(&names), &backups(), &wish, &last).map_err(|failure| failure.message)?;
    let which = backups().iter().position(|one| one.id == choice.record.id).unwrap();
    Ok((which, choice.timeline.get()))
}

#[test]
fn the_newest_backup_that_ends_before_the_target_is_taken_along_the_newest_timeline() {
    assert_eq!(chosen(&all(), Target::End, None), Ok((1, 2)));
    assert_eq!(chosen(&all(), Target::Immediate, Some(1)), Ok((1, 1)));
    assert_eq!(chosen(&all(), Target::Lsn(Lsn(0x3000_0100)), None), Ok((1, 2)));
    assert_eq!(chosen(&all(), Target::Lsn(Lsn(0x3000_00FF)), None), Ok((0, 2)));
    assert_eq!(chosen(&all(), Target::Time(record().finished + day(2)), None), Ok((1, 2)));
    assert_eq!(chosen(&all(), Target::Time(record().finished + Duration::from_secs(5)), None), Ok((0, 2)));
    assert_eq!(chosen(&all(), Target::Mark(Mark::Transaction(7)), None), Ok((1, 2)));
}

#[test]
fn a_newest_timeline_to_which_no_backup_leads_is_refused_to_the_end_and_told_otherwise() {
    let names = all();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let inventory = archive(&names);
    let evidence = Known(record().finished + day(9));
    // It left timeline 1 before the only backup.
    let late = Record {
        id: "20261122T130405Z-0000000033000028-1".parse().unwrap(),
        stop: Lsn(0x3300_0100),
        ..record()
    };
    let backups = [late];
    let of = |target: Target, timeline: Option<u32>, backup| {
        let timeline = timeline.and_then(Timeline::new);
        let choice =
            choose(&inventory, &backups, &Wish { backup, target, exclusive: false, timeline }, &evidence);
        choice.map(|choice| (choice.timeline.get(), choice.unreached.map(Timeline::get)))
    };
    let refused = of(Target::End, None, None).unwrap_err();
    assert_eq!(refused.kind, Cause::Refused);
    assert_eq!(refused.message, "no base backup leads to timeline 2, the newest");
    assert!(refused.hint.unwrap().contains("--target-timeline 1"));
    assert_eq!(of(Target::End, Some(1), None).unwrap(), (1, None));
    assert_eq!(of(Target::End, None, Some(backups[0].id)).unwrap(), (1, Some(2)));
    assert_eq!(of(Target::Immediate, None, None).unwrap(), (1, Some(2)));
    assert_eq!(chosen(&all(), Target::End, None), Ok((1, 2)));
}

#[test]
fn without_the_target_itself_the_time_of_the_last_commit_is_reached() {
    let names = all();
    let inventory = archive(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let last = record().finished + day(9);
    let reaches = |time, exclusive| {
        let wish = Wish { backup: None, target: Target::Time(time), exclusive, timeline: None };
        choose(&inventory, &backups(), &wish, &Known(last)).is_ok()
    };
    assert!(reaches(last, true) && !reaches(last, false));
    assert!(!reaches(last + Duration::from_micros(1), true));
}

#[test]
fn the_reason_that_is_said_is_that_of_a_backup_on_the_way() {
    let names: Vec<String> = all().into_iter().filter(|name| name != "000000020000000000000033").collect();
    let inventory = archive(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let late = "20261123T130405Z-0000000033000028-1".parse().unwrap();
    let late = Record { id: late, stop: Lsn(0x3300_0100), ..record() };
    let known = [backups(), vec![late]].concat();
    let wish = Wish { backup: None, target: Target::End, exclusive: false, timeline: None };
    let refused = choose(&inventory, &known, &wish, &Known(record().finished + day(9))).unwrap_err();
    assert!(refused.message.contains("\"000000020000000000000033\" is not"), "{}", refused.message);
}

#[test]
fn what_the_wal_does_not_lead_to_is_refused_by_name() {
    let refused = |names: &[String], target, timeline, words: &str| {
        let message = chosen(names, target, timeline).unwrap_err();
        assert!(message.contains(words), "{words:?} is not in {message:?}");
    };
    let without = |hole: &str| all().into_iter().filter(|name| name != hole).collect::<Vec<_>>();
    refused(&without("000000020000000000000033"), Target::End, None, "\"000000020000000000000033\" is not");
    // A hole before the newest backup does not matter to it, and one in it makes it useless.
    assert_eq!(chosen(&without("00000001000000000000002F"), Target::End, None), Ok((1, 2)));
    let newer = without("000000010000000000000030");
    refused(&newer, Target::End, None, "cannot become consistent");
    assert_eq!(chosen(&newer, Target::Immediate, None), Ok((0, 2)));
    refused(&all(), Target::Lsn(Lsn(0x3500_0000)), None, "\"000000020000000000000035\" is not");
    refused(&all(), Target::Lsn(Lsn(0x2E00_0000)), None, "before the backup");
    let last = Lsn(0x34FF_FF00);
    assert_eq!(chosen(&all(), Target::Lsn(last), None), Ok((1, 2)));
    refused(&all(), Target::Lsn(Lsn(last.0 + 1)), None, "the last record of the archived WAL begins at");
    refused(&all(), Target::Time(record().finished + day(9)), None, "cannot be reached");
    refused(&all(), Target::Time(record().finished - day(1)), None, "before the backup");
    refused(&all(), Target::Mark(Mark::RestorePoint("x".to_owned())), None, "no restore point \"x\"");
    refused(&all(), Target::End, Some(9), "nothing of timeline 9");
    refused(&[], Target::End, None, "cannot become consistent");
}
