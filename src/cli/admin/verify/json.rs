//! What `wal-archive verify` found as JSON (`docs/json.md`, verify).

use super::super::super::exit::AdminExit;
use crate::failure::exact_time;
use crate::verify::{Depth, Options, Recoverable, Unfinished, Verified};
use serde_json::{Value, json};

pub(super) fn value(report: &Verified, options: &Options, exit: AdminExit) -> Value {
    let ways: Value = report.recoverable.iter().map(way).collect();
    let destinations: Vec<&str> =
        report.inventories.iter().map(|inventory| inventory.place.as_str()).collect();
    json!({
        "verdict": match exit {
            AdminExit::Fine => "sound",
            AdminExit::Findings => "findings",
            _ => "could-not-tell",
        },
        "depth": match options.depth {
            Depth::Quick => "quick",
            Depth::Full => "full",
            Depth::Records => "records",
        },
        "destinations": destinations,
        "checked": {
            "objects": report.checked.objects,
            "stored_bytes": report.checked.stored,
            "raw_bytes": report.checked.raw,
            "not_decrypted": report.checked.shut,
        },
        "findings": report.findings,
        "accepted_gaps": report.accepted,
        "strangers": report.inventories.iter().map(|inventory| inventory.strangers_total.objects).sum::<u64>(),
        "recoverable": ways,
    })
}

fn way(way: &Recoverable) -> Value {
    let partials: Value = way
        .partials
        .iter()
        .map(|Unfinished { file, end, last_commit }| {
            json!({
                "file": file,
                "end": end.map(|end| end.to_string()),
                "last_commit": last_commit.and_then(exact_time),
            })
        })
        .collect();
    json!({
        "backup": way.label,
        "from": way.from.to_string(),
        "timeline": way.timeline.get(),
        "to": way.to.map(|to| to.to_string()),
        "consistent": way.consistent,
        "complete": way.complete,
        "end": way.end.map(|end| end.to_string()),
        "last_commit": way.last_commit.and_then(exact_time),
        "expired": way.expired,
        "partial": partials,
    })
}
