//! The picture of the report: x is time, a lane for each timeline with its fork, the backups below it with
//! the stretch that each can reach, holes, rehearsals. Every mark has a `<title>`.

use super::Report;
use super::page::escape;
use crate::archive::inventory::{Gap, Inventory};
use crate::failure::{exact_time, time};
use crate::restore::window::Window;
use crate::verify::range;
use crate::wal::Timeline;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 100.0;
const RIGHT: f64 = 20.0;
const LANE: f64 = 46.0;

/// So many backups are drawn, the newest, and so many holes of a timeline.
const DRAWN: usize = 300;

struct Scale {
    from: SystemTime,
    span: f64,
}

impl Scale {
    fn x(&self, at: SystemTime) -> f64 {
        let since = at.duration_since(self.from).unwrap_or_default().as_secs_f64();
        LEFT + (WIDTH - LEFT - RIGHT) * (since / self.span).clamp(0.0, 1.0)
    }
}

/// When the segments of each timeline were stored, at any destination.
fn times(report: &Report) -> BTreeMap<Timeline, (SystemTime, SystemTime)> {
    let mut times = BTreeMap::new();
    for (timeline, files) in report.listed.inventories.iter().flat_map(|one| &one.timelines) {
        if let Some((oldest, newest)) = files.times {
            let (first, last) = times.entry(*timeline).or_insert((oldest, newest));
            (*first, *last) = (oldest.min(*first), newest.max(*last));
        }
    }
    times
}

/// Empty where there is no WAL.
pub(super) fn svg(report: &Report) -> String {
    let times = times(report);
    let Some(inventory) = report.listed.inventories.first() else { return String::new() };
    let Some(from) = times.values().map(|(oldest, _)| *oldest).min() else { return String::new() };
    let span = report.made.duration_since(from).unwrap_or_default().as_secs_f64().max(1.0);
    let scale = Scale { from, span };
    let height = LANE * (times.len() as f64 + 1.0) + 50.0; // a few lanes
    let mut drawing = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"Timelines, backups, holes and rehearsals over time\">\n"
    );
    let lane = |number: usize| 24.0 + LANE * number as f64;
    let lanes: BTreeMap<Timeline, f64> = times.keys().enumerate().map(|(n, id)| (*id, lane(n))).collect();
    for (timeline, (oldest, newest)) in &times {
        let y = lanes.get(timeline).copied().unwrap_or_default();
        let (left, right) = (scale.x(*oldest), scale.x(*newest));
        drawing += &fork(inventory, *timeline, &lanes, (left, y));
        drawing +=
            &format!("<text class=\"label\" x=\"4\" y=\"{:.1}\">timeline {timeline}</text>\n", y + 11.0);
        let told = [*oldest, *newest].map(|at| time(at).unwrap_or_default());
        let title = format!("timeline {timeline}: WAL stored from {} to {}", told[0], told[1]);
        drawing += &bar("wal", (left, right), y, 14.0, &title);
        drawing += &holes(inventory, *timeline, (left, right), y);
    }
    drawing += &backups(report, &scale, &lanes);
    drawing += &rehearsals(report, &scale, lane(times.len()));
    drawing + &axis(&scale, height) + "</svg>\n"
}

fn bar(class: &str, (left, right): (f64, f64), y: f64, height: f64, title: &str) -> String {
    format!(
        "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height}\"><title>{}</title></rect>\n",
        (right - left).max(3.0),
        escape(title)
    )
}

fn fork(
    inventory: &Inventory,
    timeline: Timeline,
    lanes: &BTreeMap<Timeline, f64>,
    (x, y): (f64, f64),
) -> String {
    let history = inventory.timelines.get(&timeline).and_then(|files| files.history.as_ref()?.as_ref().ok());
    let Some(parent) = history.and_then(|history| history.ancestors.last()) else { return String::new() };
    let Some(from) = lanes.get(&parent.timeline) else { return String::new() };
    format!(
        "<path class=\"fork\" d=\"M{x:.1} {:.1}V{:.1}\"><title>timeline {timeline} leaves {} at {}</title></path>\n",
        from + 7.0,
        y + 7.0,
        parent.timeline,
        parent.switch
    )
}

/// Where in the lane, by their numbers.
fn holes(inventory: &Inventory, timeline: Timeline, (left, right): (f64, f64), y: f64) -> String {
    let Some(files) = inventory.timelines.get(&timeline) else { return String::new() };
    let (Some(first), Some(last)) = (files.segments.first(), files.segments.last()) else {
        return String::new();
    };
    let count = (last - first + 1) as f64; // to a pixel
    let at = |number: u64| left + (right - left).max(3.0) * ((number - first) as f64 / count);
    let one = |class: &str, what: &str, gap: &Gap| {
        let title = format!("{what}: {}", range(inventory, *gap));
        bar(class, (at(gap.first), at(gap.last + 1)), y, 14.0, &title)
    };
    let gaps = inventory.gaps_of(timeline);
    let lost = gaps.lost.iter().take(DRAWN).map(|gap| one("hole", "missing", gap));
    let expired = gaps.expired.iter().take(DRAWN).map(|gap| one("expired", "expired between backups", gap));
    expired.chain(lost).collect()
}

fn backups(report: &Report, scale: &Scale, lanes: &BTreeMap<Timeline, f64>) -> String {
    let windows = report.windows.as_deref().unwrap_or_default();
    let newest = windows.get(windows.len().saturating_sub(DRAWN)..).unwrap_or_default();
    let one = |window: &Window| {
        let Some(y) = lanes.get(&window.timeline) else { return String::new() };
        let end = window.before.or(window.last_commit).unwrap_or(window.from);
        let shown = |at: SystemTime| exact_time(at).unwrap_or_default();
        let title = format!(
            "backup {} along timeline {}: from {} to before {}",
            window.backup,
            window.timeline,
            shown(window.from),
            shown(end)
        );
        let x = scale.x(window.backup.started());
        let reach = bar("reach", (scale.x(window.from), scale.x(end)), y + 20.0, 5.0, &title);
        reach
            + &format!(
                "<circle class=\"backup\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"5\"><title>{}</title></circle>\n",
                y + 22.5,
                escape(&title)
            )
    };
    newest.iter().map(one).collect()
}

fn rehearsals(report: &Report, scale: &Scale, y: f64) -> String {
    let mut drawing = format!("<text class=\"label\" x=\"4\" y=\"{:.1}\">rehearsals</text>\n", y + 11.0);
    for rehearsal in report.listed.rehearsals.iter().flatten() {
        let (x, y) = (scale.x(rehearsal.rehearsed), y + 1.0);
        let title = format!(
            "rehearsed {}: {}",
            time(rehearsal.rehearsed).unwrap_or_default(),
            rehearsal.verdict.word()
        );
        drawing += &format!(
            "<path class=\"{}\" d=\"M{x:.1} {y:.1}l6 6l-6 6l-6 -6z\"><title>{}</title></path>\n",
            rehearsal.verdict.word(),
            escape(&title)
        );
    }
    drawing
}

fn axis(scale: &Scale, height: f64) -> String {
    let mut drawing = String::new();
    for tick in 0..=4 {
        let at = scale.from + Duration::from_secs_f64(scale.span * f64::from(tick) / 4.0);
        let (x, y) = (scale.x(at), height - 8.0);
        let anchor = match tick {
            0 => "start",
            4 => "end",
            _ => "middle",
        };
        let text = time(at).unwrap_or_default().replace('T', " ").replace('Z', "");
        let text = text.get(..16).unwrap_or_default();
        drawing += &format!(
            "<path class=\"tick\" d=\"M{x:.1} 16V{:.1}\"/><text class=\"label\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n",
            y - 14.0
        );
    }
    drawing
}
