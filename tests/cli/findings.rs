//! What `list`, `verify`, `check`, `copy` and `drain` find looks alike.

use crate::util::{Run, Sandbox, flip};
use serde_json::Value;
use std::fs;

const SEGMENT: &str = "000000010000000000000015";
const SHORT: &str = "00000001000000000000001D";

/// An archive with a gap and a damaged object, and a server with a file that is cut.
fn damaged() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    flip(&sandbox.object(SEGMENT), 8 * 100);
    sandbox.wal(SHORT, b"cut");
    sandbox
}

fn run(sandbox: &Sandbox, command: &str, args: &[&str]) -> Run {
    let mut program = sandbox.program("wal-archive");
    program.arg(command);
    match command {
        "copy" => program.arg(sandbox.archive()).arg(sandbox.make_archive("offsite")),
        _ => program.arg("--archive").arg(sandbox.archive()),
    };
    Run::of(program.args(args))
}

#[test]
fn findings_of_every_command_have_the_same_fields() {
    let sandbox = damaged();
    for (command, args, kind, name) in [
        ("list", &[][..], "missing", "000000010000000000000016..000000010000000000000019"),
        ("verify", &[], "damaged", SEGMENT),
        ("check", &[], "OK", "identity"),
        ("copy", &[], "damaged", SEGMENT),
        ("drain", &["--pgdata", ".", "--dry-run"], "damaged", SHORT),
    ] {
        let answer = run(&sandbox, command, &[args, &["--json"]].concat());
        let json: Value = serde_json::from_str(&answer.stdout).unwrap_or_else(|_| panic!("{answer:?}"));
        assert_eq!(json["version"], 2, "{command}");
        let findings = json.get("findings").unwrap_or(&json["copies"][0]["findings"]).as_array().unwrap();
        let fields: Vec<Vec<&String>> =
            findings.iter().map(|finding| finding.as_object().unwrap().keys().collect()).collect();
        let expected = ["hint", "key", "kind", "name", "place", "reason"];
        assert!(fields.iter().all(|fields| *fields == expected), "{command}: {fields:?}");
        let found = findings.iter().find(|finding| finding["name"] == name);
        let found = found.unwrap_or_else(|| panic!("{command} finds nothing of {name}: {json}"));
        assert_eq!(found["kind"], kind, "{command}");
        if name == SEGMENT {
            assert_eq!(found["key"], format!("wal_005/{SEGMENT}.zst"), "{command}");
            assert!(found["hint"].is_string(), "{command}: {found}");
        }
    }
}

#[test]
fn findings_of_every_command_but_check_are_told_in_the_same_words() {
    let sandbox = damaged();
    let place = |path: &std::path::Path| fs::canonicalize(path).unwrap().display().to_string();
    let (archive, pg_wal) = (place(&sandbox.archive()), place(&sandbox.data().join("pg_wal")));
    for (command, args, statement) in [
        (
            "verify",
            &[][..],
            format!("damaged {SEGMENT} in \"{archive}\": \"wal_005/{SEGMENT}.zst\" is damaged"),
        ),
        ("copy", &[], format!("damaged {SEGMENT} in \"{archive}\": \"wal_005/{SEGMENT}.zst\" is damaged")),
        ("drain", &["--pgdata", ".", "--dry-run"], format!("damaged {SHORT} in \"{pg_wal}\": it is shorter")),
    ] {
        run(&sandbox, command, args).says(1, &[&statement]);
    }
}
