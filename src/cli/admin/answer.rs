//! What goes to stdout: text for people, or one JSON object on one line.

use clap::{Arg, ArgAction};
use serde_json::{Value, json};
use std::io::Write;

/// The version of the objects in `docs/json.md` that have no findings.
pub(super) const VERSION: u32 = 1;

/// The version of those with findings, which looked different with each command before.
pub(super) const VERSION_WITH_FINDINGS: u32 = 2;

/// `--json`
pub(super) fn json_flag() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("As JSON")
}

/// Writes to stdout; a closed one is the reader's choice.
pub(super) fn show(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}

/// Writes the fields of an object, and which version of them it is.
pub(super) fn show_json(version: u32, mut object: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("version".to_owned(), json!(version));
    }
    show(&format!("{object}\n"));
}
