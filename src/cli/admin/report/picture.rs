//! The picture of the report: x is time, a lane for each timeline with its fork, in it the WAL with what is
//! missing, damaged or about to expire, below it a row for each backup with the stretch that it can reach,
//! at the end the rehearsals. Every mark has a `<title>`, and another shape for another meaning.

use super::html::escape;
use super::line::{Line, Scale, WIDTH};
use super::marks::{Mark, names, together};
use super::{Report, Retention};
use crate::archive::inventory::{Inventory, Runs};
use crate::archive::rehearsals::Verdict;
use crate::failure::time;
use crate::finding::{Finding, FindingKind};
use crate::wal::{Timeline, WalName};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// So much is drawn: the newest timelines, and of all lanes together the newest backups and so many marks.
const LANES: usize = 12;
const BACKUPS: usize = 36;
const MARKS: usize = 120;

pub(super) const ROW: f64 = 14.0;

pub(super) struct Picture<'a> {
    pub(super) report: &'a Report,
    pub(super) union: &'a Inventory,
    scale: Scale,
    lines: BTreeMap<Timeline, Line>,
    /// Of the lanes that are drawn, where each is.
    lanes: BTreeMap<Timeline, f64>,
    pub(super) y: f64,
    svg: String,
}

/// And what is not drawn. Empty where there is nothing to draw.
pub(super) fn svg(report: &Report) -> (String, String) {
    let lines = Line::all(report);
    let (Some(union), Some(scale)) = (&report.union, Scale::of(report, &lines)) else {
        return (String::new(), String::new());
    };
    let drawn: Vec<Timeline> = union.timelines.keys().copied().rev().take(LANES).collect();
    let older = union.timelines.len() - drawn.len();
    let mut picture =
        Picture { report, union, scale, lines, lanes: BTreeMap::new(), y: 22.0, svg: String::new() };
    let mut left = 0;
    for timeline in drawn.iter().rev() {
        left += picture.lane(*timeline, drawn.len());
    }
    picture.rehearsals();
    let mut untold = Vec::new();
    for (count, what) in [(older, "older timelines"), (left, "older backups")] {
        if count > 0 {
            untold.push(format!("{count} {what}"));
        }
    }
    let untold = match untold.is_empty() {
        true => String::new(),
        false => format!("<p class=\"soft\">Not drawn: {}.</p>\n", untold.join(", ")),
    };
    (picture.end(), untold)
}

impl Picture<'_> {
    /// How many of its backups are not drawn.
    fn lane(&mut self, timeline: Timeline, lanes: usize) -> usize {
        self.lanes.insert(timeline, self.y);
        self.text("label", &format!("timeline {timeline}"));
        self.wal(timeline);
        self.fork(timeline);
        let mut wrong = self.holes(timeline);
        wrong.extend(self.damage(timeline));
        let wrong = together(wrong, MARKS / lanes / 2);
        let passed = together([self.expired(timeline), self.doomed(timeline)].concat(), MARKS / lanes / 2);
        for mark in passed.iter().chain(&wrong) {
            self.svg += &mark.svg(self.y);
        }
        self.y += ROW + 4.0;
        let names = names(&wrong, self.y + 8.0);
        if !names.is_empty() {
            self.svg += &names;
            self.y += ROW;
        }
        let most = (BACKUPS / lanes).max(1);
        let left = self.windows(timeline, most) + self.others(timeline, most) + self.foreign(timeline, most);
        self.y += ROW;
        left
    }

    pub(super) fn text(&mut self, class: &str, text: &str) {
        self.svg +=
            &format!("<text class=\"{class}\" x=\"4\" y=\"{:.1}\">{}</text>\n", self.y + 11.0, escape(text));
    }

    pub(super) fn bar(
        &mut self,
        class: &str,
        from: SystemTime,
        to: SystemTime,
        (down, height): (f64, f64),
        title: &str,
    ) {
        let (left, right) = (self.scale.x(from), self.scale.x(to));
        self.svg += &format!(
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height}\"><title>{}</title></rect>\n",
            self.y + down,
            (right - left).max(3.0),
            escape(title)
        );
    }

    /// A shape at a time; its path begins there, in the middle of the row.
    pub(super) fn shape(&mut self, class: &str, at: SystemTime, path: &str, title: &str) {
        self.svg += &format!(
            "<path class=\"{class}\" d=\"M{:.1} {:.1}{path}\"><title>{}</title></path>\n",
            self.scale.x(at),
            self.y + ROW / 2.0,
            escape(title)
        );
    }

    fn wal(&mut self, timeline: Timeline) {
        let Some(Line { from, to, .. }) = self.lines.get(&timeline) else { return };
        let (from, to) = (*from, *to);
        let segments = self.union.timelines.get(&timeline).map_or(0, |files| files.segments.count());
        let told = [from, to].map(moment);
        let title =
            format!("timeline {timeline}: {segments} segments, stored from {} to {}", told[0], told[1]);
        self.bar("wal", from, to, (0.0, 14.0), &title);
    }

    fn fork(&mut self, timeline: Timeline) {
        let history =
            self.union.timelines.get(&timeline).and_then(|files| files.history.as_ref()?.as_ref().ok());
        let Some(parent) = history.and_then(|history| history.ancestors.last()) else { return };
        let title = format!("timeline {timeline} leaves timeline {} at {}", parent.timeline, parent.switch);
        let text = format!("from {} at {}", parent.timeline, parent.switch);
        let (y, line) = (self.y, self.lines.get(&timeline));
        if let (Some(above), Some(line)) = (self.lanes.get(&parent.timeline), line) {
            self.svg += &format!(
                "<path class=\"fork\" d=\"M{:.1} {:.1}V{:.1}\"><title>{}</title></path>\n",
                self.scale.x(line.from),
                above + 7.0,
                y + 7.0,
                escape(&title)
            );
        }
        self.svg += &format!("<text class=\"small\" x=\"82\" y=\"{:.1}\">{text}</text>\n", y + 11.0);
    }

    /// Of the segments with these numbers.
    fn mark(
        &self,
        class: &'static str,
        what: &'static str,
        timeline: Timeline,
        (first, last): (u64, u64),
    ) -> Option<Mark> {
        let line = self.lines.get(&timeline)?;
        let name = |number| self.union.name(timeline, number).to_string();
        // From the segment before, as those that are missing have no time.
        let left = self.scale.x(line.at(first.saturating_sub(u64::from(class == "hole"))));
        let right = self.scale.x(line.at(last + 1));
        Some(Mark {
            class,
            left,
            right,
            what,
            first: name(first),
            last: name(last),
            files: last - first + 1,
            stretches: 1,
        })
    }

    /// What no destination has: between the ends of the timeline, and what recovery asks for.
    fn holes(&self, timeline: Timeline) -> Vec<Mark> {
        let mut missing = Runs::default();
        for gap in self.union.gaps_of(timeline).lost {
            missing.insert_range(gap.first, gap.last);
        }
        let nothing = Runs::default();
        let there = self.union.timelines.get(&timeline).map_or(&nothing, |files| &files.segments);
        for (first, last) in self.found(timeline, |kind| kind == FindingKind::Missing).map(|(_, range)| range)
        {
            there
                .missing(first, last)
                .into_iter()
                .for_each(|(first, last)| missing.insert_range(first, last));
        }
        missing.ranges().filter_map(|range| self.mark("hole", "missing", timeline, range)).collect()
    }

    fn damage(&self, timeline: Timeline) -> Vec<Mark> {
        let counts = |kind| {
            matches!(
                kind,
                FindingKind::Damaged
                    | FindingKind::Conflict
                    | FindingKind::Differs
                    | FindingKind::OtherCluster
                    | FindingKind::UnknownEncoding
            )
        };
        let found = self.found(timeline, counts);
        found
            .filter_map(|(finding, range)| self.mark("damage", finding.kind.word(), timeline, range))
            .collect()
    }

    /// The findings of some kinds that are of segments of a timeline, and their numbers.
    fn found(
        &self,
        timeline: Timeline,
        counts: impl Fn(FindingKind) -> bool,
    ) -> impl Iterator<Item = (&Finding, (u64, u64))> {
        self.report.findings.iter().filter(move |finding| counts(finding.kind)).filter_map(move |finding| {
            let (first, last) = finding.name.split_once("..").unwrap_or((&finding.name, &finding.name));
            let number = |name: &str| {
                let segment = name.parse::<WalName>().ok()?.segment()?;
                self.union.number(segment).filter(|_| segment.timeline() == timeline)
            };
            Some((finding, (number(first)?, number(last)?)))
        })
    }

    fn expired(&self, timeline: Timeline) -> Vec<Mark> {
        let gaps = self.union.gaps_of(timeline).expired;
        let mark = |gap: &crate::archive::inventory::Gap| {
            self.mark("expired", "expired between backups", timeline, (gap.first, gap.last))
        };
        gaps.iter().filter_map(mark).collect()
    }

    fn doomed(&self, timeline: Timeline) -> Vec<Mark> {
        let Retention::Known { doomed, .. } = &self.report.retention else { return Vec::new() };
        let runs = doomed.get(&timeline).into_iter().flat_map(Runs::ranges);
        runs.filter_map(|range| self.mark("doomed", "expire would delete", timeline, range)).collect()
    }

    fn rehearsals(&mut self) {
        if self.report.rehearsals.0.is_empty() {
            return;
        }
        self.text("label", "rehearsals");
        for (_, rehearsal) in self.report.rehearsals.0.iter().rev() {
            let (class, path) = match rehearsal.verdict {
                Verdict::Sound => ("sound", "m0 -6l6 6l-6 6l-6 -6z"),
                Verdict::Findings => ("cross", "m-5 -5l10 10m0 -10l-10 10"),
            };
            let title = format!("rehearsed {}: {}", moment(rehearsal.rehearsed), rehearsal.verdict.word());
            self.shape(class, rehearsal.rehearsed, path, &title);
        }
        self.y += 2.0 * ROW;
    }

    fn end(mut self) -> String {
        let (mut ticks, bottom) = (String::new(), self.y);
        for (part, anchor) in
            [(0.0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1.0, "end")]
        {
            let at = self.scale.at(part);
            ticks += &format!(
                "<path class=\"tick\" d=\"M{0:.1} 14V{bottom:.1}\"/><text class=\"small\" x=\"{0:.1}\" y=\"{1:.1}\" text-anchor=\"{anchor}\">{2}</text>\n",
                self.scale.x(at),
                bottom + 14.0,
                minute(at)
            );
        }
        self.svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"WAL, backups, holes and rehearsals over time; all of it is in the tables below\">\n\
             <defs><pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
             <rect class=\"stripe\" width=\"3\" height=\"6\"/></pattern></defs>\n{ticks}{}</svg>\n",
            bottom + 22.0,
            self.svg
        );
        self.svg
    }
}

/// As it is said to people, to the second before: `2026-11-21 14:01:47 UTC`.
pub(super) fn moment(at: SystemTime) -> String {
    match time(at) {
        Some(text) => text.replace('T', " ").replace('Z', " UTC"),
        None => "-".to_owned(),
    }
}

/// The same, to the second behind: what is promised from a moment on is promised from there.
pub(super) fn moment_behind(at: SystemTime) -> String {
    moment(at.checked_add(Duration::from_nanos(999_999_999)).unwrap_or(at))
}

pub(super) fn minute(at: SystemTime) -> String {
    let text = time(at).unwrap_or_default().replace('T', " ");
    text.get(..16).unwrap_or_default().to_owned()
}
