//! The base backups at a destination, as `wal-archive list` shows them.

use super::super::table::{Align, Cell, Table, Tone, time};
use crate::archive::backups::{Held, State, missing_wal};
use crate::archive::inventory::Inventory;
use crate::failure::size;
use serde_json::{Value, json};

/// Whether a backup can be restored.
enum Usable {
    Yes,
    /// So many segments that it needs are not there (yet).
    Waiting(u64),
    Unknown(String),
    No(String),
    Unfinished,
}

impl Usable {
    fn of(inventory: &Inventory, held: &Held) -> Self {
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

    fn word(&self) -> &'static str {
        match self {
            Usable::Yes => "complete",
            Usable::Waiting(_) => "waiting",
            Usable::Unknown(_) => "unknown",
            Usable::No(_) => "damaged",
            Usable::Unfinished => "incomplete",
        }
    }

    fn cell(&self) -> Cell {
        match self {
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

pub(super) fn table(inventory: &Inventory, held: &[Held]) -> Table {
    let mut table = Table::new(&[
        ("base backup", Align::Left),
        ("label", Align::Left),
        ("finished", Align::Left),
        ("raw", Align::Right),
        ("stored", Align::Right),
        ("state", Align::Left),
    ]);
    for one in held {
        let record = one.record();
        table.row([
            one.id.to_string().into(),
            record.map_or_else(|| "-".to_owned(), |record| record.label.clone()).into(),
            record.map_or_else(|| "-".to_owned(), |record| time(record.finished)).into(),
            record.map_or_else(|| "-".to_owned(), |record| size(record.sizes().0)).into(),
            size(one.stored()).into(),
            Usable::of(inventory, one).cell(),
        ]);
    }
    table
}

pub(super) fn value(inventory: &Inventory, held: &[Held]) -> Value {
    held.iter()
        .map(|one| {
            let record = one.record();
            let usable = Usable::of(inventory, one);
            json!({
                "backup": one.id.to_string(),
                "state": usable.word(),
                "missing": match usable { Usable::Waiting(count) => Some(count), _ => None },
                "error": match usable { Usable::No(reason) | Usable::Unknown(reason) => Some(reason), _ => None },
                "label": record.map(|record| record.label.as_str()),
                "timeline": one.id.timeline.get(),
                "start": one.id.start.to_string(),
                "stop": record.map(|record| record.stop.to_string()),
                "started": time(one.id.started()),
                "finished": record.map(|record| time(record.finished)),
                "raw_bytes": record.map(|record| record.sizes().0),
                "stored_bytes": one.stored(),
                "objects": one.objects.len(),
                "checksums_fine": record.map(|record| record.checksums_fine),
            })
        })
        .collect()
}
