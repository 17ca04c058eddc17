//! The backups at a destination as `wal-archive list` shows them: our own, and those of other programs that left a
//! backup history file.

use super::super::clock::local;
use super::super::table::{Align, Cell, Table, Tone};
use crate::archive::backups::{Held, State, missing_wal};
use crate::archive::inventory::{Backup, Inventory};
use crate::failure::size;
use crate::wal::{Lsn, SegmentName, Timeline};

/// Whether a backup can be restored.
pub(super) enum Usable {
    Yes,
    /// So many segments that it needs are not there (yet).
    Waiting(u64),
    Unknown(String),
    No(String),
    Unfinished,
}

impl Usable {
    pub(super) fn of(inventory: &Inventory, held: &Held) -> Self {
        match &held.state {
            State::Complete(record) => match missing_wal(inventory, record) {
                Ok(gaps) if gaps.is_empty() => Usable::Yes,
                Ok(gaps) => Usable::Waiting(gaps.iter().map(|gap| gap.last - gap.first + 1).sum()),
                Err(unreadable) => Usable::Unknown(unreadable.reason),
            },
            State::Damaged(_, reason) | State::Unreadable(reason) => Usable::No(reason.clone()),
            State::Incomplete => Usable::Unfinished,
        }
    }

    pub(super) fn word(&self) -> &'static str {
        match self {
            Usable::Yes => "complete",
            Usable::Waiting(_) => "waiting",
            Usable::Unknown(_) => "unknown",
            Usable::No(_) => "damaged",
            Usable::Unfinished => "incomplete",
        }
    }

    fn cell(&self, reach: &Reach) -> Cell {
        match self {
            Usable::Yes if reach.hole => Cell::new(Tone::Notable, "then a hole"),
            Usable::Yes => Cell::new(Tone::Good, self.word()),
            Usable::Waiting(missing) => {
                Cell::new(Tone::Notable, format!("waiting: {missing} segments missing"))
            }
            Usable::Unknown(reason) | Usable::No(reason) => {
                Cell::new(Tone::Bad, format!("{}: {reason}", self.word()))
            }
            Usable::Unfinished => Cell::new(Tone::Notable, self.word()),
        }
    }
}

/// How many segments another program's backup lacks to become consistent.
pub(super) fn wal_of(inventory: &Inventory, backup: &Backup) -> Result<u64, String> {
    let missing = inventory.missing_of(backup).map_err(|unreadable| unreadable.reason)?;
    if inventory.segment_size.is_none() {
        return Err("the segment size is not known".to_owned());
    }
    Ok(missing.iter().map(|gap| gap.last - gap.first + 1).sum())
}

/// How far recovery from a backup goes by names, along the newest timeline that it leads to.
#[derive(Default)]
struct Reach {
    to: Option<SegmentName>,
    /// Whether segments are missing behind that, and later ones are there.
    hole: bool,
}

impl Reach {
    /// Of a backup from where it starts to where it is consistent.
    fn of(inventory: &Inventory, start: (Timeline, Lsn), stop: (Timeline, Lsn)) -> Self {
        let Some(size) = inventory.segment_size else { return Reach::default() };
        let end = Lsn(stop.1.0.saturating_sub(1));
        let first = start.1.0 / size.bytes();
        for (timeline, files) in inventory.timelines.iter().rev() {
            let (Ok(branch), Some(last)) = (inventory.branch(*timeline), files.segments.last()) else {
                continue;
            };
            if last < first || !branch.passes(start.0, start.1) || !branch.passes(stop.0, end) {
                continue;
            }
            let Some(gap) = inventory.missing(&branch, first, last).into_iter().min_by_key(|gap| gap.first)
            else {
                return Reach { to: Some(branch.file(last, size)), hole: false };
            };
            let reached = gap.first.checked_sub(1).filter(|reached| *reached >= first);
            return Reach {
                to: reached.map(|reached| branch.file(reached, size)),
                hole: !inventory.is_expired(gap.timeline, gap.first),
            };
        }
        Reach::default()
    }
}

/// One line for each backup: of one that is ours, its history file is no other one.
pub(super) fn table(inventory: &Inventory, held: &[Held]) -> Table {
    let mut table = Table::new(&[
        ("backup", Align::Left),
        ("label", Align::Left),
        ("timeline", Align::Right),
        ("start", Align::Left),
        ("stop", Align::Left),
        ("finished", Align::Left),
        ("raw", Align::Right),
        ("stored", Align::Right),
        ("reaches", Align::Left),
        ("state", Align::Left),
    ])
    .leaving_out(&["raw", "stop", "start", "timeline", "label", "stored", "finished"]);
    held.iter().for_each(|one| own(&mut table, inventory, one));
    for backup in &inventory.backups {
        let is_of = |one: &Held| {
            backup.content.as_ref().is_ok_and(|content| {
                (backup.start_segment.timeline(), content.start) == (one.id.timeline, one.id.start)
            })
        };
        if !held.iter().any(is_of) {
            of_others(&mut table, inventory, backup);
        }
    }
    table
}

fn dash(text: Option<String>) -> Cell {
    text.unwrap_or_else(|| "-".to_owned()).into()
}

fn own(table: &mut Table, inventory: &Inventory, one: &Held) {
    let record = one.record();
    let reach = record.map_or_else(Reach::default, |record| {
        Reach::of(inventory, (record.id.timeline, record.id.start), (record.stop_timeline, record.stop))
    });
    table.row([
        one.id.to_string().into(),
        dash(record.map(|record| record.label.clone())),
        one.id.timeline.to_string().into(),
        one.id.start.to_string().into(),
        dash(record.map(|record| record.stop.to_string())),
        dash(record.map(|record| local(record.finished))),
        dash(record.map(|record| size(record.sizes().0))),
        size(one.stored()).into(),
        dash(reach.to.map(|to| to.to_string())),
        Usable::of(inventory, one).cell(&reach),
    ]);
}

fn of_others(table: &mut Table, inventory: &Inventory, backup: &Backup) {
    let content = backup.content.as_ref().ok();
    let reach = content.map_or_else(Reach::default, |content| {
        let (start, stop) = (content.start_segment.timeline(), content.stop_segment.timeline());
        Reach::of(inventory, (start, content.start), (stop, content.stop))
    });
    table.row([
        content.map_or_else(|| backup.name().to_string(), |content| content.label.clone()).into(),
        dash(None),
        backup.start_segment.timeline().to_string().into(),
        dash(content.map(|content| content.start.to_string())),
        dash(content.map(|content| content.stop.to_string())),
        dash(content.map(|content| content.stop_time.clone())),
        dash(None),
        dash(None),
        dash(reach.to.map(|to| to.to_string())),
        match wal_of(inventory, backup) {
            Ok(0) if reach.hole => Cell::new(Tone::Notable, "then a hole"),
            Ok(0) => Cell::new(Tone::Good, "complete"),
            Ok(missing) => Cell::new(Tone::Bad, format!("{missing} missing")),
            Err(reason) => Cell::new(Tone::Bad, format!("unknown: {reason}")),
        },
    ]);
}
