//! The rows of a lane of the picture: one for each backup, with the stretch that it can reach, or why none.

use super::picture::{Picture, ROW, minute, moment, moment_behind};
use crate::archive::backups::State;
use crate::expire::backups::Backup;
use crate::restore::window::Window;
use crate::wal::Timeline;
use std::collections::BTreeMap;

impl Picture<'_> {
    /// The newest backups that lead along the timeline; how many others do.
    pub(super) fn windows(&mut self, timeline: Timeline, most: usize) -> usize {
        let here: Vec<&Window> =
            self.report.windows_once().filter(|window| window.timeline == timeline).collect();
        let left = here.len().saturating_sub(most);
        for window in here.into_iter().skip(left) {
            let (id, started) = (window.backup, window.backup.started());
            let drops = self.report.drops(window);
            let note = if drops { "; expire would delete it" } else { "" };
            let reach = match window.before {
                Some(before) => format!("from {} to before {}", moment_behind(window.from), moment(before)),
                None => format!("to {}: nothing was committed since", moment(window.from)),
            };
            let end = window.before.or(window.last_commit).unwrap_or(window.from).max(window.from);
            let title = format!("base backup {id} recovers along timeline {timeline} {reach}{note}");
            self.text("small", &format!("backup {}", minute(started)));
            self.bar("reach", window.from, end, (4.0, 6.0), &title);
            if drops {
                self.bar("doomed", window.from, end, (4.0, 6.0), &title);
            }
            self.shape("backup", started, "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0", &title);
            self.y += ROW;
        }
        left
    }

    /// The newest backups of the timeline from which nothing recovers, or which are not finished; how many
    /// others there are.
    pub(super) fn others(&mut self, timeline: Timeline, most: usize) -> usize {
        let windows = self.report.windows.as_deref().unwrap_or_default();
        let all_known = self.report.windows.is_ok() && self.report.refused.is_empty();
        let mut others = BTreeMap::new();
        for held in self.report.listed.backups.iter().flatten() {
            let reaches = windows.iter().any(|window| window.backup == held.id);
            if held.id.timeline == timeline && !reaches {
                others.insert(held.id, held);
            }
        }
        let left = others.len().saturating_sub(most);
        for (id, held) in others.into_iter().skip(left) {
            let (class, why) = match &held.state {
                State::Damaged(_, reason) | State::Unreadable(reason) => {
                    ("cross", format!("recovers nothing: damaged: {reason}"))
                }
                State::Complete(_) if all_known => {
                    ("cross", "recovers nothing: its WAL is not all there".to_owned())
                }
                State::Complete(_) => ("unfinished", "may recover: how far is not known".to_owned()),
                State::Incomplete => {
                    ("unfinished", "recovers nothing: it is not finished, or was given up".to_owned())
                }
            };
            let path = if class == "cross" { "m-5 -5l10 10m0 -10l-10 10" } else { "m-5 -5h10v10h-10z" };
            self.text("small", &format!("backup {}", minute(id.started())));
            self.shape(class, id.started(), path, &format!("base backup {id} {why}"));
            self.y += ROW;
        }
        left
    }

    /// Backups of other tools, by their history files: whether they still exist nobody here knows.
    pub(super) fn foreign(&mut self, timeline: Timeline, most: usize) -> usize {
        let union = self.union;
        let own = |start| self.report.listed.backups.iter().flatten().any(|held| held.id.start == start);
        let theirs: Vec<_> = union
            .backups
            .iter()
            .filter(|backup| backup.start_segment.timeline() == timeline)
            .filter_map(|backup| Some((backup, backup.content.as_ref().ok()?)))
            .filter(|(_, history)| !own(history.start))
            .filter_map(|(backup, history)| Some((backup, Backup::of(history).ok()?)))
            .collect();
        let left = theirs.len().saturating_sub(most);
        for (backup, named) in theirs.into_iter().skip(left) {
            let missing = union.missing_of(backup).map_or(1, |gaps| gaps.len());
            let (class, note) = match missing {
                0 => ("foreign", "its WAL is there; whether it still exists is not known"),
                _ => ("cross", "the WAL that it needs is not all there"),
            };
            let path = if missing == 0 { "m-5 -5h10v10h-10z" } else { "m-5 -5l10 10m0 -10l-10 10" };
            let title = format!("backup \"{}\" of another tool, {}: {note}", named.label, backup.name());
            self.text("small", &format!("other {}", minute(named.finished)));
            self.shape(class, named.finished, path, &title);
            self.y += ROW;
        }
        left
    }
}
