//! How much room text for people has, and whether it may have colour.

use clap::{Arg, ArgAction, ArgMatches};
use rustix::termios::tcgetwinsize;
use std::env;
use std::io::{IsTerminal, stdout};
use std::os::fd::AsFd;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    pub(super) colour: bool,
    /// `None`: lines are as long as they come, and no column is left out.
    pub(super) width: Option<usize>,
}

impl Look {
    /// Of stdout: of any width unless it is a terminal.
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let width = if matches.get_flag("wide") { None } else { width(stdout()) };
        Look { width, ..Look::wide() }
    }

    /// The same with all columns.
    pub(super) fn wide() -> Self {
        Look { colour: colour(), width: None }
    }

    /// Breaks text, which ends none of its lines, where words end; later lines are indented. A word that is
    /// longer than a line stays whole.
    pub(super) fn wrap(self, text: &str, indent: usize) -> String {
        let Some(width) = self.width else { return text.to_owned() };
        let mut lines = Vec::new();
        let mut line = String::new();
        for (number, word) in text.split(' ').enumerate() {
            let needed = line.chars().count() + 1 + word.chars().count();
            if !line.trim().is_empty() && needed > width {
                lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            } else if number > 0 {
                line.push(' ');
            }
            line += word;
        }
        lines.push(line);
        lines.join("\n")
    }
}

/// `--wide`
pub(super) fn wide_flag() -> Arg {
    Arg::new("wide")
        .long("wide")
        .action(ArgAction::SetTrue)
        .conflicts_with("json")
        .help("On a terminal: all columns, in lines of any length")
}

/// Of a terminal; one that does not know has 80 columns.
pub(super) fn width(of: impl AsFd + IsTerminal) -> Option<usize> {
    let columns = || tcgetwinsize(&of).map_or(0, |size| usize::from(size.ws_col));
    of.is_terminal().then(|| Some(columns()).filter(|columns| *columns > 0).unwrap_or(80))
}

/// Whether stdout is a terminal that takes colour (<https://no-color.org>).
pub(super) fn colour() -> bool {
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    stdout().is_terminal() && !set("NO_COLOR") && !is_dumb()
}

/// Whether the terminal obeys no control characters.
pub(super) fn is_dumb() -> bool {
    env::var_os("TERM").is_some_and(|term| term == "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_where_words_end_and_no_line_is_longer_than_the_width() {
        let look = |width| Look { colour: false, width };
        let text = "the segment is missing, look into pg_wal";
        assert_eq!(look(None).wrap(text, 4), text);
        assert_eq!(look(Some(80)).wrap(text, 4), text);
        assert_eq!(look(Some(23)).wrap(text, 4), "the segment is missing,\n    look into pg_wal");
        assert_eq!(
            look(Some(8)).wrap("a 00000001000000000000001A b", 2),
            "a\n  00000001000000000000001A\n  b"
        );
        assert_eq!(look(Some(10)).wrap("    HINT: wait", 8), "    HINT:\n        wait");
    }
}
