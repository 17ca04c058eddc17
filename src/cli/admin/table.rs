//! What people read: columns that are aligned and fit the terminal, counts and times.

use super::look::Look;
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
    rows: Vec<Row>,
    /// Columns that are left out where there is no room for them, the first one first.
    optional: &'static [&'static str],
}

enum Row {
    Cells(Vec<Cell>),
    /// Above or below the rows that it is about, over all columns.
    Title(String),
}

/// Between two columns.
const GAP: usize = 2;

/// No column is cut to less.
const LEAST: usize = 10;

impl Table {
    pub(super) fn new(heading: &[(&'static str, Align)]) -> Self {
        Table { heading: heading.to_vec(), rows: Vec::new(), optional: &[] }
    }

    pub(super) fn leaving_out(self, optional: &'static [&'static str]) -> Self {
        Table { optional, ..self }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(Row::Cells(cells.into_iter().collect()));
    }

    pub(super) fn title(&mut self, text: impl Into<String>) {
        self.rows.push(Row::Title(printable(&text.into())));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, each ended; nothing where there are no rows.
    pub(super) fn render(&self, look: Look) -> String {
        if self.is_empty() {
            return String::new();
        }
        let columns = self.columns(look.width);
        let mut text = String::new();
        if self.heading.iter().any(|(text, _)| !text.is_empty()) {
            let heading = |at: usize| self.heading.get(at).map_or("", |(text, _)| *text).to_owned();
            let bold = |text: &str| style(text, "1", look.colour);
            text += &line(&columns, |column| vec![heading(column.at)], |_, text| bold(text));
        }
        for row in &self.rows {
            match row {
                Row::Title(title) => text += &format!("{}\n", look.wrap(title, 10)),
                Row::Cells(cells) => {
                    let pieces = |column: &Column| {
                        let text = cells.get(column.at).map_or("", |cell| cell.text.as_str());
                        if column.is_last {
                            pieces(text, column.width)
                        } else {
                            vec![cut(text, column.width)]
                        }
                    };
                    let painted = |column: &Column, text: &str| {
                        let tone = cells.get(column.at).map_or(Tone::Plain, |cell| cell.tone);
                        paint(&Cell { text: text.to_owned(), tone }, look.colour)
                    };
                    text += &line(&columns, pieces, painted);
                }
            }
        }
        text
    }

    /// Those that are shown. What does not fit is left out, then broken over several lines in the last one,
    /// then cut in the widest.
    fn columns(&self, room: Option<usize>) -> Vec<Column> {
        let mut columns: Vec<Column> = (0..self.heading.len()).filter_map(|at| self.column(at)).collect();
        let total = |columns: &[Column]| {
            columns.iter().map(|column| column.width + GAP).sum::<usize>().saturating_sub(GAP)
        };
        let Some(room) = room else { return columns };
        for name in self.optional {
            if total(&columns) > room {
                columns.retain(|column| column.name != *name);
            }
        }
        if let Some(last) = columns.last_mut() {
            last.is_last = last.align == Align::Left;
        }
        while total(&columns) > room {
            // The last one may be broken, and so gives way first.
            let last = columns.iter_mut().find(|column| column.is_last && column.width > LEAST + 5);
            let Some(shrunk) = (match last {
                Some(last) => Some(last),
                None => columns.iter_mut().filter(|column| column.width > LEAST).max_by_key(|c| c.width),
            }) else {
                break;
            };
            shrunk.width -= 1;
        }
        columns
    }

    fn column(&self, at: usize) -> Option<Column> {
        let (name, align) = *self.heading.get(at)?;
        let cells = self.rows.iter().filter_map(|row| match row {
            Row::Cells(cells) => cells.get(at).map(|cell| cell.text.chars().count()),
            Row::Title(_) => None,
        });
        let width = cells.chain([name.chars().count()]).max()?;
        Some(Column { at, name, align, width, is_last: false })
    }
}

/// A column that is shown.
struct Column {
    at: usize,
    name: &'static str,
    align: Align,
    width: usize,
    /// Its cells may have several lines.
    is_last: bool,
}

/// A row's lines: `pieces` are those of a cell, of which all but the last column's have one.
fn line(
    columns: &[Column],
    pieces: impl Fn(&Column) -> Vec<String>,
    painted: impl Fn(&Column, &str) -> String,
) -> String {
    let cells: Vec<(&Column, Vec<String>)> = columns.iter().map(|column| (column, pieces(column))).collect();
    let lines = cells.iter().map(|(_, pieces)| pieces.len()).max().unwrap_or(0);
    let mut text = String::new();
    for number in 0..lines {
        let mut line = String::new();
        for (column, pieces) in &cells {
            let piece = pieces.get(number).map_or("", String::as_str);
            let padding = " ".repeat(column.width.saturating_sub(piece.chars().count()));
            let shown = painted(column, piece);
            line += &match column.align {
                Align::Left => format!("{shown}{padding}  "),
                Align::Right => format!("{padding}{shown}  "),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A text that is longer than its column ends with `…`.
fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// The lines of a text in a column: words, and of longer ones as much as fits.
fn pieces(text: &str, width: usize) -> Vec<String> {
    let wrapped = Look { colour: false, width: Some(width) }.wrap(text, 0);
    let words = wrapped.lines().flat_map(|line| {
        let letters: Vec<char> = line.chars().collect();
        letters.chunks(width.max(1)).map(|piece| piece.iter().collect()).collect::<Vec<String>>()
    });
    words.collect()
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
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
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

    const PLAIN: Look = Look { colour: false, width: None };

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_text() {
        let expected = "name         size  why\na               1  short\nlonger\u{FFFD}[2J  12345\n";
        assert_eq!(table().render(PLAIN), expected);
        assert_eq!(Table::new(&[("name", Align::Left)]).render(PLAIN), "");
        let mut bare = Table::new(&[("", Align::Right), ("", Align::Left)]);
        bare.row(["1".into(), "one".into()]);
        bare.row(["10".into(), "ten".into()]);
        assert_eq!(bare.render(PLAIN), " 1  one\n10  ten\n");
    }

    #[test]
    fn colour_changes_nothing_but_the_colour() {
        let coloured = table().render(Look { colour: true, ..PLAIN });
        assert!(coloured.contains("\x1b[31mlonger"), "{coloured:?}");
        let mut plain = coloured.clone();
        for code in ["\x1b[1m", "\x1b[31m", "\x1b[0m"] {
            plain = plain.replace(code, "");
        }
        let trimmed: Vec<_> = plain.lines().map(str::trim_end).collect();
        assert_eq!(trimmed, table().render(PLAIN).lines().collect::<Vec<_>>());
    }

    #[test]
    fn what_has_no_room_is_left_out_then_broken_then_cut() {
        let mut table = Table::new(&[
            ("file", Align::Left),
            ("bytes", Align::Right),
            ("stored", Align::Left),
            ("why", Align::Left),
        ])
        .leaving_out(&["stored", "bytes"]);
        let why = "it is damaged, and nobody has another one";
        table.row(["00000001000000000000001A".into(), "1".into(), "yesterday".into(), why.into()]);
        table.title("no more");
        let lines = |width| -> Vec<String> {
            let text = table.render(Look { colour: false, width: Some(width) });
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            text.lines().map(str::to_owned).collect()
        };
        assert_eq!(lines(200), table.render(PLAIN).lines().collect::<Vec<_>>());
        assert!(lines(80)[0].contains("bytes") && !lines(80)[0].contains("stored"));
        assert_eq!(
            lines(50),
            [
                "file                      why",
                "00000001000000000000001A  it is damaged, and",
                "                          nobody has another one",
                "no more",
            ]
        );
        assert_eq!(lines(30)[1], "0000000100000…  it is damaged,");
    }
}
