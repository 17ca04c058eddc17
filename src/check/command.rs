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
pub(super) enum Verdict {
    /// It is the program, and its code arrives.
    Plain,
    /// It is something else, which may be right: what it is.
    Other(String),
    /// Its code lies: by what.
    Lies(String),
}

/// Programs that end with the code of what they start.
const TRANSPARENT: [&str; 7] = ["env", "exec", "nice", "ionice", "chrt", "taskset", "stdbuf"];

/// What begins a statement whose code depends on what it does.
const KEYWORDS: [&str; 7] = ["if", "while", "until", "for", "case", "{", "!"];

/// Reads a command.
pub(super) fn judge(setting: Setting, command: &str) -> Verdict {
    let (program, arguments) = setting.program();
    let lies = |by: &str| Verdict::Lies(format!("{by} answers with a code of its own"));
    let calls = calls(command);
    for (_, operator) in &calls {
        match *operator {
            "|" | "|&" => return lies("a pipe"),
            "||" => return lies("\"||\""),
            "&" => return lies("\"&\""),
            _ => {}
        }
    }
    if calls.iter().any(|(words, _)| words.first().is_some_and(|word| KEYWORDS.contains(&word.as_str()))) {
        return Verdict::Other("it is a script, whose codes cannot be told here".to_owned());
    }
    let Some(at) = calls.iter().position(|(words, _)| calls_program(words, program)) else {
        return Verdict::Other(format!("it does not call {program}"));
    };
    let (ours, after) = calls.split_at(at + 1);
    let Some((words, operator)) = ours.last() else { return Verdict::Plain };
    if !after.is_empty() {
        match *operator {
            // Success, and then another program's failure: to PostgreSQL "not there".
            "&&" if setting == Setting::Restore => return lies("what follows \"&&\""),
            "&&" => {}
            _ => return lies("what follows \";\""),
        }
    }
    match judge_call(setting, words) {
        Verdict::Plain => {}
        other => return other,
    }
    // Inside a quoted script an argument may come by another way.
    match arguments.iter().find(|argument| !command.contains(**argument)) {
        Some(missing) => Verdict::Lies(format!("it does not pass {missing} on to {program}")),
        None => Verdict::Plain,
    }
}

/// The simple commands, each with the operator behind it.
fn calls(command: &str) -> Vec<(Vec<String>, &'static str)> {
    let mut calls = Vec::new();
    let mut words = Vec::new();
    for token in tokens(command) {
        match token {
            Token::Word(word) => words.push(word),
            // "( … )" joins nothing to nothing.
            Token::Operator("(" | ")") => {}
            Token::Operator(operator) => calls.push((std::mem::take(&mut words), operator)),
        }
    }
    calls.push((words, ""));
    calls.retain(|(words, operator)| !words.is_empty() || !matches!(*operator, "" | ";" | "\n"));
    calls
}

/// One simple command: its wrappers.
fn judge_call(setting: Setting, words: &[String]) -> Verdict {
    let (program, _) = setting.program();
    let mut words = words.iter().skip_while(|word| is_assignment(word)).peekable();
    while let Some(word) = words.next() {
        match base(word) {
            name if name == program => return Verdict::Plain,
            "timeout" => {
                return Verdict::Lies(
                    "\"timeout\" makes 124 or 137 of it; the programs have --timeout".to_owned(),
                );
            }
            "sh" | "bash" | "dash" => {
                let script = words.find(|word| !word.starts_with('-'));
                return script.map_or(Verdict::Plain, |script| judge(setting, script));
            }
            name if TRANSPARENT.contains(&name) => {
                // Their options, and the values of those: numbers, assignments, "-n 5".
                while words
                    .peek()
                    .is_some_and(|word| word.starts_with('-') || is_assignment(word) || is_number(word))
                {
                    words.next();
                }
            }
            name => {
                return Verdict::Other(format!(
                    "{program} is wrapped in \"{name}\", which may answer with codes of its own"
                ));
            }
        }
    }
    Verdict::Plain
}

fn calls_program(words: &[String], program: &str) -> bool {
    words
        .iter()
        .any(|word| base(word) == program || word.split_whitespace().any(|inner| base(inner) == program))
}

fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

fn is_assignment(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or_default();
    word.contains('=') && !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit())
}

/// A part of a command as the shell reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// Without its quotes.
    Word(String),
    /// What separates or joins commands.
    Operator(&'static str),
}

/// Longest first. Redirections are here so that their `&` and `|` are not taken for others.
const OPERATORS: [&str; 14] =
    ["&>>", "&>", ">&", "<&", ">|", "||", "|&", "&&", ";", "\n", "&", "|", "(", ")"];

/// The shell's words and operators: quotes and backslashes are honoured, expansions are not.
fn tokens(command: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = command;
    while let Some(first) = rest.chars().next() {
        let operator = OPERATORS.into_iter().find(|operator| rest.starts_with(operator));
        let after = |len: usize| rest.get(len..).unwrap_or_default();
        match (first, operator) {
            (_, Some(redirection @ ("&>>" | "&>" | ">&" | "<&" | ">|"))) => {
                // Part of the word before it, as in "2>&1"; what it names comes right after it.
                word.get_or_insert_default().push_str(redirection);
                rest = after(redirection.len()).trim_start_matches(' ');
            }
            (_, Some(operator)) => {
                tokens.extend(word.take().map(Token::Word));
                tokens.push(Token::Operator(operator));
                rest = after(operator.len());
            }
            ('\'' | '"', None) => {
                let quoted = after(1);
                let end = quoted.find(first).unwrap_or(quoted.len());
                word.get_or_insert_default().push_str(quoted.get(..end).unwrap_or_default());
                rest = quoted.get(end + 1..).unwrap_or_default();
            }
            ('\\', None) => {
                let mut escaped = after(1).chars();
                word.get_or_insert_default().extend(escaped.next());
                rest = escaped.as_str();
            }
            (space, None) if space.is_whitespace() => {
                tokens.extend(word.take().map(Token::Word));
                rest = after(space.len_utf8());
            }
            (other, None) => {
                word.get_or_insert_default().push(other);
                rest = after(other.len_utf8());
            }
        }
    }
    tokens.extend(word.map(Token::Word));
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn archive(command: &str) -> Verdict {
        judge(Setting::Archive, command)
    }

    fn restore(command: &str) -> Verdict {
        judge(Setting::Restore, command)
    }

    #[test]
    fn the_programs_alone_are_plain() {
        for command in [
            "/usr/bin/wal-push %p",
            "wal-push --archive /mnt/a %p",
            "exec /usr/bin/wal-push '%p' 2>>/var/log/push.log",
            "WAL_ARCHIVE=/a wal-push %p 2>&1",
            "env A=1 B=2 nice -n 5 /usr/bin/wal-push \"%p\"",
            "ionice -c 3 wal-push %p >/dev/null",
            "test -d /mnt/a && wal-push %p",
            "sh -c 'exec wal-push %p'",
            "wal-push %p;",
        ] {
            assert_eq!(archive(command), Verdict::Plain, "{command}");
        }
        assert_eq!(restore("/usr/bin/wal-fetch %f %p"), Verdict::Plain);
        assert_eq!(restore("wal-fetch --archive '/mnt/a|b' \"%f\" \"%p\""), Verdict::Plain);
    }

    #[test]
    fn whatever_hides_the_code_is_a_lie() {
        for command in [
            "timeout 60 wal-fetch %f %p",
            "/usr/bin/timeout -k 5 60 /usr/bin/wal-fetch %f %p",
            "nice timeout 60 wal-fetch %f %p",
            "wal-fetch %f %p || cp /other/%f %p",
            "cp /other/%f %p || wal-fetch %f %p",
            "wal-fetch %f %p | logger",
            "wal-fetch %f %p 2>&1 | logger -t fetch",
            "wal-fetch %f %p && touch /tmp/fetched",
            "wal-fetch %f %p; echo done",
            "wal-fetch %f %p & wait",
            "bash -c 'wal-fetch %f %p || exit 1'",
            "sh -c \"timeout 5 wal-fetch %f %p\"",
            "wal-fetch %f",
        ] {
            assert!(matches!(restore(command), Verdict::Lies(_)), "{command}: {:?}", restore(command));
        }
        for command in ["wal-push %p || true", "timeout 60 wal-push %p", "wal-push %p; true", "wal-push"] {
            assert!(matches!(archive(command), Verdict::Lies(_)), "{command}: {:?}", archive(command));
        }
    }

    #[test]
    fn another_program_may_be_right() {
        for command in [
            "cp %p /mnt/%f",
            "/usr/local/bin/archive.sh %p",
            "sudo -u backup wal-push %p",
            "flock /x wal-push %p",
        ] {
            assert!(matches!(archive(command), Verdict::Other(_)), "{command}: {:?}", archive(command));
        }
        // Its own pipe may hide anything, too.
        assert!(matches!(archive("gzip < %p | dd of=/mnt/%f"), Verdict::Lies(_)));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String, parts in proptest::collection::vec("[&|;>'\"\\\\ a%é]{0,3}", 0..12)) {
            archive(&text);
            restore(&parts.concat());
        }
    }
}
