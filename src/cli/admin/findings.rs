//! How findings are shown: one statement each and what to do, or JSON.

use super::super::exit::AdminExit;
use super::table::{Cell, Tone, colour, paint};
use crate::archive::inventory::{Gap, Inventory};
use crate::failure::Failure;
use crate::verify::{Finding, Kind, Verdict, range};
use serde_json::{Value, json};

/// The code of a verdict.
pub(super) fn exit(verdict: Verdict) -> AdminExit {
    match verdict {
        Verdict::Sound => AdminExit::Fine,
        Verdict::Findings => AdminExit::Findings,
        Verdict::CouldNotTell => AdminExit::CouldNotTell,
    }
}

/// Two lines each.
pub(super) fn text(findings: &[Finding]) -> String {
    let colour = colour();
    let one = |finding: &Finding| {
        let tone = if finding.kind == Kind::NotRead { Tone::Notable } else { Tone::Bad };
        let kind = paint(&Cell::new(tone, finding.kind.word()), colour);
        let Finding { destination, name, reason, hint, .. } = finding;
        let statement = paint(&Cell::from(format!("{name} in \"{destination}\": {reason}")), colour);
        format!("{kind} {statement}\n    HINT: {}\n", paint(&Cell::from(hint.as_str()), colour))
    };
    findings.iter().map(one).collect()
}

/// As a message on stderr.
pub(super) fn failure(finding: &Finding) -> Failure {
    Failure::new((), finding.reason.clone()).hint(finding.hint.clone())
}

pub(super) fn json(findings: &[Finding]) -> Value {
    let one = |finding: &Finding| {
        json!({
            "kind": finding.kind.word(),
            "destination": finding.destination,
            "name": finding.name,
            "reason": finding.reason,
            "hint": finding.hint,
        })
    };
    findings.iter().map(one).collect()
}

/// A gap as JSON.
pub(super) fn gap(inventory: &Inventory, gap: Gap) -> Value {
    json!({
        "from": inventory.name(gap.timeline, gap.first).to_string(),
        "to": inventory.name(gap.timeline, gap.last).to_string(),
        "segments": gap.last - gap.first + 1,
    })
}

/// A gap for people.
pub(super) fn gap_text(inventory: &Inventory, gap: Gap) -> String {
    range(inventory, gap)
}
