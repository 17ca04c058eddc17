//! HTML by hand: what comes from outside goes through [`escape`], and nothing grows beyond its budget.

use std::borrow::Cow;

/// No text of a cell, a title or a sentence is longer.
const LONGEST: usize = 400;

/// What a text is in HTML, in attributes too.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in cut(text).chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c if c.is_control() => escaped.push('\u{FFFD}'),
            c => escaped.push(c),
        }
    }
    escaped
}

fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()).into(),
        None => text.into(),
    }
}

/// Items until so many bytes are spent, and how many are left out.
pub(super) fn within(budget: usize, items: impl IntoIterator<Item = String>) -> (String, usize) {
    let (mut text, mut left) = (String::new(), 0);
    for item in items {
        match left == 0 && text.len() + item.len() <= budget {
            true => text += &item,
            false => left += 1,
        }
    }
    (text, left)
}

/// What is not shown is said.
pub(super) fn rest(left: usize, what: &str) -> String {
    if left == 0 { String::new() } else { format!("<p class=\"soft\">{left} more {what}</p>\n") }
}

pub(super) fn section(title: &str, content: &str) -> String {
    if content.is_empty() { String::new() } else { format!("<h2>{title}</h2>\n{content}") }
}

/// What may be wider than the page, and is then moved by itself.
pub(super) fn scrolled(label: &str, content: &str) -> String {
    format!("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{label}\">\n{content}</div>\n")
}

/// Of headings that begin with `#` the column holds numbers. Empty where there are no rows.
pub(super) fn table(
    (label, budget): (&str, usize),
    heading: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let class = |title: &str| if title.starts_with('#') { " class=\"n\"" } else { "" };
    let head: String = heading
        .iter()
        .map(|title| format!("<th scope=\"col\"{}>{}</th>", class(title), title.trim_start_matches('#')))
        .collect();
    let row = |cells: Vec<String>| {
        let cells = cells.iter().zip(heading);
        let cells: String =
            cells.map(|(cell, title)| format!("<td{}>{}</td>", class(title), escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let (shown, left) = within(budget, rows.into_iter().map(row));
    if shown.is_empty() {
        return rest(left, "not shown");
    }
    let table = format!("<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{shown}</tbody>\n</table>\n");
    scrolled(label, &table) + &rest(left, "not shown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_is_markup_or_endless() {
        assert_eq!(escape("<a href='x\"'>&\u{1b}"), "&lt;a href=&#39;x&quot;&#39;&gt;&amp;\u{FFFD}");
        assert_eq!(escape(&"ä".repeat(9999)), format!("{}…", "ä".repeat(LONGEST)));
        let table = table(("T", 1000), &["name", "#size"], [vec!["<b>".to_owned(), "1".to_owned()]]);
        assert!(table.contains("<tr><td>&lt;b&gt;</td><td class=\"n\">1</td></tr>"), "{table}");
        assert!(table.contains("<th scope=\"col\" class=\"n\">size</th>"), "{table}");
    }

    #[test]
    fn a_long_table_is_cut_and_says_so() {
        let rows = (1000..2000).map(|number| vec![number.to_string()]);
        let table = table(("T", 230), &["number"], rows);
        assert!(table.contains("1009") && !table.contains("1010") && table.contains("990 more not shown"));
    }
}
