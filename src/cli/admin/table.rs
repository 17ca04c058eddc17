//! What people read: aligned columns, colour on a terminal only, counts and times.

use std::io::IsTerminal;
use std::time::SystemTime;

/// How a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// What a cell wants to be noticed as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
    Notable,
}

/// A text in a table.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn new(tone: Tone, text: impl Into<String>) -> Self {
        Cell { text: printable(&text.into()), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell::new(Tone::Plain, text)
    }
}

/// Rows below a heading, or without one where all of its texts are empty.
pub(super) struct Table {
    heading: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(heading: &[(&'static str, Align)]) -> Self {
        Table { heading: heading.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, each ended; nothing where there are no rows.
    pub(super) fn render(&self, colour: bool) -> String {
        if self.is_empty() {
            return String::new();
        }
        let heading: Vec<Cell> = self.heading.iter().map(|(text, _)| Cell::from(*text)).collect();
        let rows = || std::iter::once(&heading).chain(&self.rows);
        let width =
            |column: usize| rows().filter_map(|row| Some(row.get(column)?.text.chars().count())).max();
        let widths: Vec<usize> = (0..self.heading.len()).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        let bare = self.heading.iter().all(|(text, _)| text.is_empty());
        for (number, row) in rows().enumerate().skip(usize::from(bare)) {
            let mut line = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(&self.heading) {
                let padding = " ".repeat(width.saturating_sub(cell.text.chars().count()));
                let shown = if number == 0 { style(&cell.text, "1", colour) } else { paint(cell, colour) };
                line += &match align {
                    Align::Left => format!("{shown}{padding}  "),
                    Align::Right => format!("{padding}{shown}  "),
                };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// A cell's text in its colour.
pub(super) fn paint(cell: &Cell, colour: bool) -> String {
    match cell.tone {
        Tone::Plain => cell.text.clone(),
        Tone::Good => style(&cell.text, "32", colour),
        Tone::Bad => style(&cell.text, "31", colour),
        Tone::Notable => style(&cell.text, "33", colour),
    }
}

fn style(text: &str, code: &str, colour: bool) -> String {
    if colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Names of strangers may hold anything; a terminal obeys control characters.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

/// Whether stdout is a terminal that takes colour (<https://no-color.org>).
pub(super) fn colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
}

/// `1 segment`, `2 segments`
pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// RFC 3339 in UTC, to the second; `-` for a time that has no such form.
pub(super) fn time(time: SystemTime) -> String {
    crate::failure::time(time).unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[("name", Align::Left), ("size", Align::Right), ("why", Align::Left)]);
        table.row(["a".into(), "1".into(), "short".into()]);
        table.row([Cell::new(Tone::Bad, "longer\x1b[2J"), "12345".into(), "".into()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_text() {
        let expected = "name         size  why\na               1  short\nlonger\u{FFFD}[2J  12345\n";
        assert_eq!(table().render(false), expected);
        assert_eq!(Table::new(&[("name", Align::Left)]).render(false), "");
        let mut bare = Table::new(&[("", Align::Right), ("", Align::Left)]);
        bare.row(["1".into(), "one".into()]);
        bare.row(["10".into(), "ten".into()]);
        assert_eq!(bare.render(false), " 1  one\n10  ten\n");
    }

    #[test]
    fn colour_changes_nothing_but_the_colour() {
        let coloured = table().render(true);
        assert!(coloured.contains("\x1b[31mlonger"), "{coloured:?}");
        let mut plain = coloured.clone();
        for code in ["\x1b[1m", "\x1b[31m", "\x1b[0m"] {
            plain = plain.replace(code, "");
        }
        let trimmed: Vec<_> = plain.lines().map(str::trim_end).collect();
        assert_eq!(trimmed, table().render(false).lines().collect::<Vec<_>>());
    }
}
