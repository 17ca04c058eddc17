//! How findings of an archive are shown, and the code that they make. Their JSON is their own.

use super::super::exit::AdminExit;
use super::look::Look;
use super::table::{Cell, Tone, paint, printable};
use crate::archive::inventory::{Gap, Inventory};
use crate::finding::{Finding, FindingKind};
use serde_json::{Value, json};

/// What is known to be wrong counts more than what is not known.
pub(super) fn exit<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> AdminExit {
    let code = |finding: &Finding| match finding.kind {
        FindingKind::NotRead => AdminExit::CouldNotTell,
        _ => AdminExit::Findings,
    };
    AdminExit::of_all(&findings.into_iter().map(code).collect::<Vec<_>>())
}

/// A line each, and one with what to do; more where they are longer than the terminal is wide.
pub(super) fn text(findings: &[Finding], look: Look) -> String {
    let paragraph = |Finding { kind, place, name, reason, hint, .. }: &Finding| {
        let tone = if *kind == FindingKind::NotRead { Tone::Notable } else { Tone::Bad };
        let word = kind.word();
        let statement = look.wrap(&printable(&format!("{word} {name} in \"{place}\": {reason}")), 4);
        let painted = paint(&Cell::new(tone, word), look.colour);
        let hint = hint.as_deref().map_or_else(String::new, |hint| {
            format!("{}\n", look.wrap(&printable(&format!("    HINT: {hint}")), 10))
        });
        format!("{}\n{hint}", statement.replacen(word, &painted, 1))
    };
    findings.iter().map(paragraph).collect()
}

/// A gap as JSON.
pub(super) fn gap(inventory: &Inventory, gap: Gap) -> Value {
    json!({
        "from": inventory.name(gap.timeline, gap.first).to_string(),
        "to": inventory.name(gap.timeline, gap.last).to_string(),
        "segments": gap.last - gap.first + 1,
    })
}
