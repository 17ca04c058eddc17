//! WAL by the day on which it was stored: a chart, and the newest days as a table.

use super::html::{escape, rest, scrolled, section, table};
use super::{Report, picture};
use crate::archive::inventory::{Inventory, Total};
use crate::failure::size;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// So many columns at most; of longer times each stands for several days.
const COLUMNS: u64 = 90;

/// So many days are in the table.
const ROWS: usize = 14;

const HEIGHT: f64 = 110.0;

/// Of the destination that holds most.
pub(super) fn shown(report: &Report) -> String {
    let fullest = report.listed.inventories.iter().max_by_key(|inventory| inventory.total.objects);
    let Some((inventory, days)) = fullest.map(|inventory| (inventory, by_day(inventory))) else {
        return String::new();
    };
    let Some((most, _)) = days.iter().max_by_key(|(_, total)| total.bytes) else { return String::new() };
    let bytes: u64 = days.values().map(|total| total.bytes).sum();
    let text = format!(
        "{} as stored on {} days, most on {}, in {}",
        size(bytes),
        days.len(),
        date(*most),
        inventory.place
    );
    let rows = days
        .iter()
        .rev()
        .take(ROWS)
        .map(|(day, total)| vec![date(*day), total.objects.to_string(), size(total.bytes)]);
    let rows = table(("WAL of the newest days", 4000), &["day", "#segments", "#as stored"], rows);
    let left = rest(days.len().saturating_sub(ROWS), "days are in the chart only");
    section(
        "WAL by the day it was stored",
        &format!(
            "<p>{}.</p>\n{}{rows}{left}",
            escape(&text),
            scrolled("Chart of WAL by the day", &chart(&days))
        ),
    )
}

fn by_day(inventory: &Inventory) -> BTreeMap<u64, Total> {
    let mut days: BTreeMap<u64, Total> = BTreeMap::new();
    for (day, one) in inventory.timelines.values().flat_map(|files| &files.days) {
        *days.entry(*day).or_default() += one.stored;
    }
    days
}

fn date(day: u64) -> String {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(day.saturating_mul(86_400)));
    at.map_or_else(|| "-".to_owned(), |at| picture::moment(at).get(..10).unwrap_or("-").to_owned())
}

fn chart(days: &BTreeMap<u64, Total>) -> String {
    let (first, last) =
        days.first_key_value().zip(days.last_key_value()).map_or((0, 0), |(a, b)| (*a.0, *b.0));
    let step = (last - first) / COLUMNS + 1;
    let mut columns: BTreeMap<u64, Total> = BTreeMap::new();
    for (day, one) in days {
        *columns.entry((day - first) / step).or_default() += *one;
    }
    let most = columns.values().map(|total| total.bytes).max().unwrap_or(0);
    let width = (980.0 / ((last - first) / step + 1) as f64).min(60.0); // at most 91
    let mut svg = format!(
        "<svg viewBox=\"0 0 1000 {}\" role=\"img\" aria-label=\"WAL by the day; the newest days are in the table below\">\n\
         <text class=\"small\" x=\"4\" y=\"11\">{}</text>\n",
        HEIGHT + 34.0,
        size(most)
    );
    for (column, total) in &columns {
        let (from, to) = (first + column * step, (first + (column + 1) * step - 1).min(last));
        let when = if from == to { date(from) } else { format!("{} to {}", date(from), date(to)) };
        let height = (HEIGHT * total.bytes as f64 / most.max(1) as f64).max(2.0); // to a pixel
        svg += &format!(
            "<rect class=\"wal\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{when}: {} in {} segments</title></rect>\n",
            10.0 + width * *column as f64,
            16.0 + HEIGHT - height,
            width * 0.8,
            size(total.bytes),
            total.objects
        );
    }
    let right = 10.0 + width * ((last - first) / step + 1) as f64;
    svg += &format!("<text class=\"small\" x=\"10\" y=\"{:.1}\">{}</text>\n", HEIGHT + 30.0, date(first));
    if last > first && right > 200.0 {
        svg += &format!(
            "<text class=\"small\" x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            HEIGHT + 30.0,
            date(last)
        );
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_of_many_years_has_few_columns_and_leaves_no_day_out() {
        let total = |bytes| Total { objects: 1, bytes };
        let days: BTreeMap<u64, Total> = (0..20_000).map(|day| (day, total(1 << 20))).collect();
        let chart = chart(&days);
        assert!(
            chart.len() < 30_000
                && chart.contains("<title>1970-01-01 to 1970-08-11: 223.0 MiB in 223 segments")
        );
        let few = super::chart(&BTreeMap::from([(20_000, total(1)), (20_002, total(2))]));
        assert_eq!(few.matches("<rect").count(), 2);
        assert!(few.contains("<title>2024-10-06: 2 B in 1 segments</title>"), "{few}");
    }
}
