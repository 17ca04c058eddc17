//! The marks on a lane of the picture: as many as there is room for, near ones together where there are more.

use super::html::escape;
use super::line::{LEFT, WIDTH};

/// No mark is narrower.
const NARROWEST: f64 = 4.0;

/// Of a letter in the picture.
const LETTER: f64 = 6.2;

/// One or more neighbours of a kind on a lane.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mark {
    pub(super) class: &'static str,
    pub(super) left: f64,
    pub(super) right: f64,
    /// What it is, such as `missing`.
    pub(super) what: &'static str,
    /// The names of the first and the last WAL file.
    pub(super) first: String,
    pub(super) last: String,
    /// How many WAL files, and in how many stretches.
    pub(super) files: u64,
    pub(super) stretches: u64,
}

impl Mark {
    fn title(&self) -> String {
        let Mark { what, first, last, files, stretches, .. } = self;
        match (stretches, first == last) {
            (1, true) => format!("{what}: {first}"),
            (1, false) => format!("{what}: {first}..{last}, {files} segments"),
            _ => format!("{what}: {files} segments in {stretches} stretches, {first} to {last}"),
        }
    }

    /// The same with the last name short.
    fn label(&self) -> String {
        let Mark { what, first, last, stretches, .. } = self;
        let last = last.get(16..).unwrap_or(last);
        match (stretches, first.ends_with(last)) {
            (1, true) => format!("{what} {first}"),
            (1, false) => format!("{what} {first}..{last}"),
            _ => format!("{what}: {stretches} stretches from {first}"),
        }
    }

    fn width(&self) -> f64 {
        (self.right - self.left).max(NARROWEST)
    }

    pub(super) fn svg(&self, y: f64) -> String {
        let Mark { class, left, .. } = self;
        let (width, title) = (self.width(), escape(&self.title()));
        let cross = match *class {
            // So that it is told from a hole without colour.
            "damage" => {
                format!(
                    "<path class=\"cross\" d=\"M{:.1} {:.1}l6 6m0 -6l-6 6\"/>",
                    left + width / 2.0 - 3.0,
                    y - 8.0
                )
            }
            _ => String::new(),
        };
        format!(
            "<g><title>{title}</title><rect class=\"{class}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"14\"/>{cross}</g>\n"
        )
    }
}

/// At most so many, by taking the nearest together. In the order of their places.
pub(super) fn together(mut marks: Vec<Mark>, most: usize) -> Vec<Mark> {
    marks.sort_by(|one, other| one.left.total_cmp(&other.left));
    for near in [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 2.0 * WIDTH] {
        if marks.len() <= most {
            break;
        }
        let mut fewer: Vec<Mark> = Vec::new();
        for mark in marks {
            match fewer.last_mut() {
                Some(before) if mark.left - before.right < near => {
                    before.right = before.right.max(mark.right);
                    before.files += mark.files;
                    before.stretches += mark.stretches;
                    before.last = mark.last;
                }
                _ => fewer.push(mark),
            }
        }
        marks = fewer;
    }
    marks
}

/// The names of the marks that can be written beside each other; the others have their title only.
pub(super) fn names(marks: &[Mark], y: f64) -> String {
    let (mut text, mut free) = (String::new(), LEFT);
    for mark in marks {
        let label = mark.label();
        let length = label.chars().count() as f64 * LETTER; // a short text
        let x = mark.left.min(WIDTH - length).max(LEFT);
        if x >= free {
            text += &format!("<text class=\"name\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>\n", escape(&label));
            free = x + length + LETTER;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: u32) -> Mark {
        let name = format!("00000001{number:016X}");
        let left = 200.0 + f64::from(number) * 0.5;
        let (first, last) = (name.clone(), name);
        Mark { class: "hole", left, right: left + 0.1, what: "missing", first, last, files: 1, stretches: 1 }
    }

    #[test]
    fn more_marks_than_there_is_room_for_are_taken_together_and_none_is_lost() {
        let marks = together((0..1000).map(mark).collect(), 30);
        assert!(marks.len() <= 30 && !marks.is_empty(), "{}", marks.len());
        assert_eq!(marks.iter().map(|mark| mark.stretches).sum::<u64>(), 1000);
        let few: Vec<_> = (0..3).map(mark).collect();
        assert_eq!(together(few.clone(), 30), few);
        assert!(few[1].svg(1.0).contains("<title>missing: 000000010000000000000001</title>"));
    }

    #[test]
    fn names_do_not_overlap() {
        let text = names(&[mark(0), mark(2), mark(900)], 9.0);
        assert_eq!(text.matches("<text").count(), 2, "{text}");
    }
}
