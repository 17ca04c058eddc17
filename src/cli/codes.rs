//! What each exit code of [`super::exit`] means and what to do about it: the one table behind every `--help`,
//! `wal-archive explain` and `docs/exit-codes.md`.

/// One end of one program.
pub(super) struct Row {
    /// The program, with its command if it has some.
    pub(super) of: &'static str,
    /// Of wal-fetch in both forms.
    pub(super) codes: &'static [u8],
    pub(super) meaning: &'static str,
    /// What to do about it; empty where there is nothing to do.
    pub(super) remedy: &'static str,
}

impl Row {
    /// `20 / 220`
    pub(super) fn codes(&self) -> String {
        self.codes.iter().map(u8::to_string).collect::<Vec<_>>().join(" / ")
    }
}

const fn row(of: &'static str, codes: &'static [u8], meaning: &'static str, remedy: &'static str) -> Row {
    Row { of, codes, meaning, remedy }
}

const PUSH: &str = "wal-push";
const FETCH: &str = "wal-fetch";
const SETTING: &str =
    "correct what the message names; \"wal-archive config\" shows where each setting comes from";
const REPEAT: &str = "repair what the message names, and repeat";

/// All of them, program by program, in the order of the codes.
pub(super) const ROWS: &[Row] = &[
    row(
        PUSH,
        &[0],
        "durable in every destination: stored now, or already there with identical content (then made durable again)",
        "",
    ),
    row(PUSH, &[2], "bad arguments (also a name that is not a WAL file's) or configuration", SETTING),
    row(
        PUSH,
        &[10],
        "the source cannot be read, or changed while it was read",
        "look at the disk of the data directory, and for whatever else writes to pg_wal",
    ),
    row(
        PUSH,
        &[11],
        "not a valid WAL file for its name, or of another cluster",
        "give each cluster an archive of its own; after initdb, pg_upgrade or pg_resetwal make a new one. Of a file that nobody but PostgreSQL wrote, report it",
    ),
    row(
        PUSH,
        &[12],
        "a different or damaged object already has that name",
        "damaged: \"wal-archive quarantine NAME\", and PostgreSQL stores the good one. Different: two servers archive into one place; find the wrong one first",
    ),
    row(
        PUSH,
        &[13],
        "a destination failed or refused",
        "mount its disk, make room, or correct what the store's answer names; a new archive needs \"wal-archive init\"",
    ),
    row(
        PUSH,
        &[14],
        "the deadline passed",
        "look for a hung mount or a slow disk or network before you raise --timeout",
    ),
    row(FETCH, &[0], "the verified file is at the destination path", ""),
    row(
        FETCH,
        &[1],
        "proved absent: nothing but PostgreSQL's own pg_wal could satisfy the request",
        "nothing: that is how an archive ends",
    ),
    row(FETCH, &[2, 202], "bad arguments or configuration", SETTING),
    row(
        FETCH,
        &[20, 220],
        "a destination is unreachable, refuses, or is not an archive",
        "mount its disk, or correct the path, the rights or what the store's answer names",
    ),
    row(
        FETCH,
        &[21, 221],
        "the object is damaged, or not the file asked for",
        "bring an intact copy: \"wal-archive copy --repair\" from another destination; else \"wal-archive quarantine NAME\" and wal-push from the pg_wal of any server that has it",
    ),
    row(FETCH, &[22, 222], "the local path cannot be written", "look at room and owner of pg_wal"),
    row(FETCH, &[23, 223], "the deadline passed", "look for a hung mount or a store that does not answer"),
    row(
        FETCH,
        &[24, 224],
        "a hole or a lost history: what follows the file is there",
        "bring the file from another destination or from the pg_wal of any server that has it; only if it is lost for good, --accept-gap NAME gives up everything from there on",
    ),
    row("wal-archive init", &[0], "each destination is the archive of this cluster now, or already was", ""),
    row(
        "wal-archive init",
        &[1],
        "one is the archive, or holds WAL, of another cluster or segment size",
        "give each cluster a place of its own",
    ),
    row(
        "wal-archive init",
        &[2],
        "bad usage; or one could not be asked, replaces what it has, or holds WAL files that cannot be read",
        REPEAT,
    ),
    row("wal-archive list", &[0], "nothing is wrong", ""),
    row(
        "wal-archive list",
        &[1],
        "findings, such as a gap that a recovery would ask for",
        "each finding says what to do",
    ),
    row(
        "wal-archive list",
        &[2],
        "bad usage; or nothing is known to be wrong, but not everything could be read",
        REPEAT,
    ),
    row(
        "wal-archive verify",
        &[0],
        "sound: whatever a recovery from a known backup asks for is there and right",
        "",
    ),
    row(
        "wal-archive verify",
        &[1],
        "findings: something is missing or damaged",
        "each finding says what to do",
    ),
    row(
        "wal-archive verify",
        &[2],
        "bad usage; or nothing is known to be wrong, but not everything could be read",
        REPEAT,
    ),
    row("wal-archive check", &[0], "OK: archiving works", ""),
    row("wal-archive check", &[1], "warning", "its line says what to do"),
    row("wal-archive check", &[2], "critical", "its line says what to do; begin with the first"),
    row("wal-archive check", &[3], "unknown, or wrong arguments", REPEAT),
    row("wal-archive expire", &[0], "the plan was shown; with --yes it was carried out", ""),
    row(
        "wal-archive expire",
        &[2],
        "refused, and nothing was deleted; or with --yes a destination failed meanwhile",
        "name the backups to keep, or repair what the message names; then repeat",
    ),
    row("wal-archive backup", &[0], "the backup is complete everywhere, with its WAL", ""),
    row(
        "wal-archive backup",
        &[1],
        "it is complete, but a destination lacks it, its WAL has not arrived, or the server found wrong page checksums; or what was sent is not what the manifest says, and nothing counts",
        "each line says what to do; keep the older backups until another one is complete",
    ),
    row("wal-archive backup", &[2], "bad usage, or it could not be taken", REPEAT),
    row("wal-archive restore", &[0], "the data directory is restored", ""),
    row(
        "wal-archive restore",
        &[1],
        "refused: the target cannot be reached, the backup is damaged, or the directory is not empty",
        "\"wal-archive window\" shows which targets can be reached; --backup names another backup",
    ),
    row(
        "wal-archive restore",
        &[2],
        "bad usage, or it could not be done",
        "repair what the message names, and repeat with --force",
    ),
    row("wal-archive window", &[0], "shown", ""),
    row(
        "wal-archive window",
        &[1],
        "nothing can be recovered, or not to that time, or WAL at the end of a timeline is damaged",
        "take a base backup; \"wal-archive verify\" says what is missing",
    ),
    row("wal-archive window", &[2], "bad usage, or it could not be told", REPEAT),
    row("wal-archive rehearse", &[0], "recovered, and sound", ""),
    row(
        "wal-archive rehearse",
        &[1],
        "findings: what was recovered is not what it should be, or nothing was",
        "each finding says what to do; until then trust no restore from this archive",
    ),
    row(
        "wal-archive rehearse",
        &[2],
        "bad usage; or it could not be done, which says nothing of the backup; or its record could not be stored",
        REPEAT,
    ),
    row("wal-archive report", &[0], "written", ""),
    row("wal-archive report", &[1], "written, with findings in it", "each finding says what to do"),
    row("wal-archive report", &[2], "bad usage, or something could not be told or written", REPEAT),
    row("wal-archive drain", &[0], "all that the data directory holds is in the archive", ""),
    row(
        "wal-archive drain",
        &[1],
        "a file was refused, cannot be read, or its records break off; everything else is stored",
        "each line says which, and what to do",
    ),
    row(
        "wal-archive drain",
        &[2],
        "bad usage; a server is running there; or a destination failed or is not this cluster's archive",
        REPEAT,
    ),
    row("wal-archive copy", &[0], "everything that FROM holds is at TO", ""),
    row(
        "wal-archive copy",
        &[1],
        "something was not copied, everything else was",
        "each finding says what to do",
    ),
    row("wal-archive copy", &[2], "bad usage; or a place failed, or is not an archive", REPEAT),
    row("wal-archive quarantine", &[0], "moved aside, now or before; or shown; or deleted", ""),
    row(
        "wal-archive quarantine",
        &[1],
        "nothing was moved, as it is intact, needed, or nowhere; or something that was to be purged stays",
        "look at what the message names; --force goes on all the same",
    ),
    row("wal-archive quarantine", &[2], "bad usage, or a destination failed", REPEAT),
    row("wal-archive keygen", &[0], "the identity was made", ""),
    row(
        "wal-archive keygen",
        &[2],
        "bad usage, or the file is there already or cannot be written",
        "name a new file",
    ),
    row("wal-archive config", &[0], "shown; with --check: the settings can be used", ""),
    row("wal-archive config", &[2], "the settings cannot be used", SETTING),
    row("wal-archive explain", &[0], "explained", ""),
    row(
        "wal-archive explain",
        &[2],
        "no program ends with this code",
        "126 and 127 are the shell's: the program cannot be run, or is not there. 124 is that of \"timeout\", and a number above 128 of a shell or wrapper a signal: call the programs without a wrapper",
    ),
];

#[cfg(test)]
mod tests {
    use super::super::exit::{FetchExit, Form, PushExit};
    use super::*;

    const PAGE: &str = include_str!("../../docs/exit-codes.md");

    #[test]
    fn the_page_of_exit_codes_has_a_row_for_each_end_and_no_other() {
        let heading = "| program | code | meaning | what to do |";
        let documented: Vec<&str> = PAGE
            .lines()
            .skip_while(|line| *line != heading)
            .skip(2)
            .take_while(|line| !line.is_empty())
            .collect();
        let cell = |text: &str| if text.is_empty() { " |".to_owned() } else { format!(" {text} |") };
        let mut program = "";
        let expected: Vec<String> = ROWS
            .iter()
            .map(|row| {
                let first = std::mem::replace(&mut program, row.of) != row.of;
                let of = if first { format!("`{}`", row.of) } else { String::new() };
                format!("|{}{}{}{}", cell(&of), cell(&row.codes()), cell(row.meaning), cell(row.remedy))
            })
            .collect();
        assert!(documented == expected, "docs/exit-codes.md should have\n{}", expected.join("\n"));
    }

    #[test]
    fn each_code_of_the_two_commands_of_postgresql_has_its_row() {
        let codes =
            |of| ROWS.iter().filter(|row| row.of == of).map(|row| row.codes.to_vec()).collect::<Vec<_>>();
        assert_eq!(codes(PUSH), PushExit::ALL.map(|exit| vec![exit.code()]));
        let mut both = FetchExit::ALL.map(|exit| vec![exit.code(Form::Retry), exit.code(Form::Abort)]);
        both.iter_mut().for_each(Vec::dedup);
        assert_eq!(codes(FETCH), both);
    }
}
