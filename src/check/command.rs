//! What is wrong with an `archive_command` or a `restore_command`, by its text: does its exit
//! code reach PostgreSQL as it was meant?
//!
//! PostgreSQL gives the text to `sh -c` and sees only the code of the whole (`src/backend/archive/
//! shell_archive.c`; `src/backend/access/transam/xlogarchive.c`, `RestoreArchivedFile`). A pipe, an
//! `||` or a `timeout` around wal-fetch answers with a code of its own, which PostgreSQL takes for
//! the end of the archive.

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    Archive,
    Restore,
}

impl Setting {
    pub(super) fn name(self) -> &'static str {
        match self {
            Setting::Archive => "archive_command",
            Setting::Restore => "restore_command",
        }
    }

    /// The program that is meant, and its arguments.
    fn program(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Setting::Archive => ("wal-push", &["%p"]),
            Setting::Restore => ("wal-fetch", &["%f", "%p"]),
        }
    }
}

/// What a command does to the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Passes {
    /// It is the program alone, and its code arrives.
    Unchanged,
    /// It is something else, which may be right: what it is.
    Unknown(String),
    /// It answers with another code: what does.
    Never(String),
}

/// What always puts a code of its own in the place of the program's. Longest first.
const HIDING: [(&str, &str); 5] = [
    ("||", "\"||\""),
    ("|", "a pipe"),
    ("&", "\"&\""),
    (";", "what follows \";\""),
    ("\n", "what follows a line"),
];

/// Reads a command: ours first and nothing of the shell is right, what hides the code is wrong, whatever
/// else nobody can tell. Quotes are not understood, as a script inside them hides the code, too.
pub(super) fn passes(setting: Setting, command: &str) -> Passes {
    let (program, arguments) = setting.program();
    // "2>&1" starts nothing; what may end a command joins nothing.
    let plain = command.replace(">&", "> ").replace("&>", " >");
    let plain = plain.trim_end().trim_end_matches(';');
    let hides = |by: &str| Passes::Never(format!("{by} answers with a code of its own"));
    let and = plain.contains("&&");
    let without_and = plain.replace("&&", " ");
    if let Some((_, by)) = HIDING.into_iter().find(|(operator, _)| without_and.contains(operator)) {
        return hides(by);
    }
    let words: Vec<&str> = plain.split_whitespace().collect();
    if words.iter().any(|word| base(word) == "timeout") {
        return Passes::Never("\"timeout\" makes 124 or 137 of it; the programs have --timeout".to_owned());
    }
    if !words.iter().any(|word| base(word) == program) {
        return Passes::Unknown(format!("it does not call {program}"));
    }
    // To PostgreSQL the failure of what comes before or after is "not there".
    if and && setting == Setting::Restore {
        return hides("what else \"&&\" joins");
    }
    if let Some(missing) = arguments.iter().find(|argument| !command.contains(**argument)) {
        return Passes::Never(format!("it does not pass {missing} on to {program}"));
    }
    let first = words.iter().find(|word| !is_assignment(word));
    match first.is_some_and(|word| base(word) == program) && !and && !plain.contains(['$', '`', '(']) {
        true => Passes::Unchanged,
        false => Passes::Unknown(format!(
            "{program} is not all that it calls, and the rest may answer with codes of its own"
        )),
    }
}

/// The last part of a path, without what may quote it.
fn base(word: &str) -> &str {
    let word = word.trim_matches(['\'', '"']);
    word.rsplit('/').next().unwrap_or(word)
}

/// `NAME=value` before a command.
fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(command: &str) -> Passes {
        passes(Setting::Archive, command)
    }

    fn restore(command: &str) -> Passes {
        passes(Setting::Restore, command)
    }

    #[test]
    fn the_programs_alone_are_right() {
        for command in [
            "/usr/bin/wal-push %p",
            "wal-push --archive /mnt/a %p",
            "/usr/bin/wal-push '%p' 2>>/var/log/push.log",
            "WAL_ARCHIVE=/a wal-push %p 2>&1",
            "'/usr/bin/wal-push' \"%p\" >/dev/null",
            "wal-push %p;",
        ] {
            assert_eq!(archive(command), Passes::Unchanged, "{command}");
        }
        assert_eq!(restore("/usr/bin/wal-fetch %f %p"), Passes::Unchanged);
        assert_eq!(restore("wal-fetch --archive '/mnt/a' \"%f\" \"%p\""), Passes::Unchanged);
    }

    #[test]
    fn whatever_hides_the_code_is_wrong() {
        for command in [
            "timeout 60 wal-fetch %f %p",
            "/usr/bin/timeout -k 5 60 /usr/bin/wal-fetch %f %p",
            "nice timeout 60 wal-fetch %f %p",
            "wal-fetch %f %p || cp /other/%f %p",
            "cp /other/%f %p || wal-fetch %f %p",
            "wal-fetch %f %p | logger",
            "wal-fetch %f %p 2>&1 | logger -t fetch",
            "wal-fetch %f %p && touch /tmp/fetched",
            "cd /srv && wal-fetch %f %p",
            "wal-fetch %f %p; echo done",
            "wal-fetch %f %p & wait",
            "bash -c 'wal-fetch %f %p || exit 1'",
            "sh -c \"timeout 5 wal-fetch %f %p\"",
            "wal-fetch %f",
        ] {
            assert!(matches!(restore(command), Passes::Never(_)), "{command}: {:?}", restore(command));
        }
        for command in ["wal-push %p || true", "timeout 60 wal-push %p", "wal-push %p; true", "wal-push"] {
            assert!(matches!(archive(command), Passes::Never(_)), "{command}: {:?}", archive(command));
        }
        // Its own pipe may hide anything, too.
        assert!(matches!(archive("gzip < %p | dd of=/mnt/%f"), Passes::Never(_)));
    }

    #[test]
    fn another_program_may_be_right() {
        for command in [
            "cp %p /mnt/%f",
            "/usr/local/bin/archive.sh %p",
            "sudo -u backup wal-push %p",
            "nice -n 5 /usr/bin/wal-push %p",
            "test -d /mnt/a && wal-push %p",
            "sh -c 'exec wal-push %p'",
            "wal-push --archive $ARCHIVE %p",
        ] {
            assert!(matches!(archive(command), Passes::Unknown(_)), "{command}: {:?}", archive(command));
        }
    }
}
