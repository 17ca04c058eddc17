//! The last rehearsal of an archive, as `wal-archive list` shows it.

use super::super::clock::local;
use super::super::table::{Align, Cell, Table, Tone, time};
use crate::archive::rehearsals::{Rehearsal, Verdict};
use crate::failure::exact_time;
use serde_json::{Value, json};

pub(super) fn table(last: Option<&Rehearsal>) -> Table {
    let mut table = Table::new(&[
        ("last rehearsal", Align::Left),
        ("backup", Align::Left),
        ("recovered to", Align::Left),
        ("last commit", Align::Left),
        ("verdict", Align::Left),
    ])
    .leaving_out(&["last commit", "recovered to"]);
    if let Some(last) = last {
        let dash = |text: Option<String>| Cell::from(text.unwrap_or_else(|| "-".to_owned()));
        let tone = if last.verdict == Verdict::Sound { Tone::Good } else { Tone::Bad };
        table.row([
            local(last.rehearsed).into(),
            dash(last.backup.clone()),
            dash(last.end_lsn.clone()),
            dash(last.last_commit.map(local)),
            Cell::new(tone, last.verdict.word()),
        ]);
    }
    table
}

pub(super) fn value(last: &Rehearsal) -> Value {
    json!({
        "rehearsed": time(last.rehearsed),
        "verdict": last.verdict,
        "backup": last.backup,
        "timeline": last.timeline,
        "end_lsn": last.end_lsn,
        "last_commit": last.last_commit.and_then(exact_time),
        "phases": last.phases,
    })
}
