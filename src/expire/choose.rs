//! Which backups are kept: a pure choice among those that are named.
//!
//! The rules hold several times: of all backups together; of our own, since a `.backup` file does not
//! say that its backup is still anywhere; of each destination alone, since it must recover the cluster
//! when the others are lost; and of the backups that lead to the timeline that is written now, since the
//! newest by their time may be of one that a point-in-time recovery left behind. What any of these keeps
//! is kept.

use super::backups::Backup;
use super::plan::{Facts, History, Place, Rules};
use crate::failure::Failure;
use crate::wal::{Branch, Lsn, Timeline};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, SystemTime};

type Result<T> = std::result::Result<T, Failure>;

/// A named backup and what becomes of it.
pub(super) struct Candidate {
    pub backup: Backup,
    /// Whether all it needs is at one destination or another.
    pub complete: bool,
    pub why: Option<String>,
}

/// The named backups, newest first, marked where a rule keeps them.
pub(super) fn choose(
    facts: &Facts,
    places: &[Place],
    named: Vec<Backup>,
    rules: &Rules,
    now: SystemTime,
) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::with_capacity(named.len());
    for backup in merged(named) {
        let complete = is_complete(facts, &backup)?;
        candidates.push(Candidate { backup, complete, why: None });
    }
    candidates
        .sort_by_key(|one| std::cmp::Reverse((one.backup.finished, one.backup.start, one.backup.timeline)));
    if candidates.is_empty() {
        return Err(Failure::new(
            (),
            "no backup to keep is named, or none of them is there, so nothing may be deleted",
        )
        .hint("--label and --backups name backups; \"wal-archive list\" shows the labels that are there"));
    }
    if !candidates.iter().any(|one| one.complete) {
        return Err(Failure::new(
            (),
            "the archive holds the whole WAL from start to stop of none of the named backups, so nothing may be deleted",
        )
        .hint("name the backups that exist; \"wal-archive verify\" says what is missing"));
    }
    let begin = rules.keep_days.map(|days| begin_of(days, now));
    keep_in_doubt(&mut candidates, rules, begin);
    let together: Vec<bool> = candidates.iter().map(|one| one.complete).collect();
    keep_of(&mut candidates, &together, rules, begin, "");
    let own: Vec<bool> = candidates.iter().map(|one| one.complete && one.backup.whole_at.is_some()).collect();
    keep_of(&mut candidates, &own, rules, begin, " of \"wal-archive backup\"");
    for (number, place) in places.iter().enumerate() {
        let alone = candidates
            .iter()
            .map(|one| Ok(one.backup.is_whole_at(number) && is_complete(&place.facts, &one.backup)?));
        let alone = alone.collect::<Result<Vec<_>>>()?;
        keep_of(&mut candidates, &alone, rules, begin, &format!(" at \"{}\"", place.name));
    }
    let newest = facts.timelines.keys().next_back().copied();
    for (timeline, line) in &facts.timelines {
        let is_newest = Some(*timeline) == newest;
        let written = begin.is_some_and(|begin| line.stored.is_some_and(|stored| stored > begin));
        let rules = Rules { keep_backups: rules.keep_backups.filter(|_| is_newest), ..*rules };
        if (rules.keep_backups.is_none() && rules.keep_days.is_none()) || !(is_newest || written) {
            continue;
        }
        let leading = leading(facts, places, &candidates, *timeline)?;
        for (leading, place) in leading {
            keep_of(
                &mut candidates,
                &leading,
                &rules,
                begin,
                &format!(" that lead to timeline {timeline}{place}"),
            );
        }
    }
    Ok(candidates)
}

/// A backup that is named twice, by its label and in the list, is one.
fn merged(named: Vec<Backup>) -> impl Iterator<Item = Backup> {
    let mut backups: BTreeMap<(Lsn, Timeline), Backup> = BTreeMap::new();
    for backup in named {
        match backups.entry((backup.start, backup.timeline)) {
            Entry::Vacant(entry) => {
                entry.insert(backup);
            }
            Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                known.stop = known.stop.max(backup.stop);
                known.finished = known.finished.max(backup.finished);
                if known.label.is_empty() {
                    known.label = backup.label;
                }
            }
        }
    }
    backups.into_values()
}

fn begin_of(days: u32, now: SystemTime) -> SystemTime {
    let days = Duration::from_secs(24 * 3600 * u64::from(days));
    now.checked_sub(days).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Keeps what no rule names, what the rules cannot tell, and what may become complete yet.
fn keep_in_doubt(candidates: &mut [Candidate], rules: &Rules, begin: Option<SystemTime>) {
    let all = |candidates: &mut [Candidate], why: &str| candidates.iter_mut().for_each(|one| one.keep(why));
    if rules.keep_backups.is_none() && rules.keep_days.is_none() {
        all(candidates, "named");
    }
    let complete = candidates.iter().filter(|one| one.complete);
    let (count, oldest) = (complete.clone().count(), complete.map(|one| one.backup.finished).min());
    if let Some(wanted) = rules.keep_backups.filter(|wanted| count < *wanted) {
        all(candidates, &format!("fewer than {wanted} are complete"));
    }
    if let (Some(days), Some(begin)) = (rules.keep_days, begin) {
        let young = candidates.iter_mut().filter(|one| one.backup.finished > begin);
        young.for_each(|one| one.keep(&format!("of the last {days} days")));
        if oldest.is_none_or(|oldest| oldest > begin) {
            all(candidates, &format!("none before the last {days} days is complete"));
        }
    }
    // Perhaps its last segment is on its way.
    let newer = candidates.iter_mut().take_while(|one| !one.complete);
    newer.for_each(|one| one.keep("newer than the newest that is complete"));
}

/// Keeps of these what the rules name: the newest so many, and the last one before so many days.
fn keep_of(
    candidates: &mut [Candidate],
    these: &[bool],
    rules: &Rules,
    begin: Option<SystemTime>,
    which: &str,
) {
    let mut these: Vec<&mut Candidate> =
        candidates.iter_mut().zip(these).filter(|(_, is_one)| **is_one).map(|(one, _)| one).collect();
    if let Some(count) = rules.keep_backups {
        let why = format!("one of the newest {count}{which}");
        these.iter_mut().take(count).for_each(|one| one.keep(&why));
    }
    if let (Some(days), Some(begin)) = (rules.keep_days, begin)
        && let Some(last) = these.iter_mut().find(|one| one.backup.finished <= begin)
    {
        last.keep(&format!("the last before the last {days} days{which}"));
    }
}

/// Which of the backups recover to this timeline: by all destinations together, and by each alone.
fn leading(
    facts: &Facts,
    places: &[Place],
    candidates: &[Candidate],
    timeline: Timeline,
) -> Result<Vec<(Vec<bool>, String)>> {
    let branch = branch(facts, timeline)?;
    let lead = |one: &Candidate| recovers(facts, &one.backup, &branch);
    let together: Vec<bool> = candidates.iter().map(lead).collect();
    let lost = facts.timelines.get(&timeline).is_some_and(|line| matches!(line.history, History::Missing));
    if lost && !together.contains(&true) {
        let what = format!(
            "the history file of timeline {timeline} is missing, so nothing tells which backups lead to it"
        );
        return Err(Failure::new((), what).hint(format!(
            "bring the file; or, if nobody needs that timeline, move it aside: wal-archive quarantine --timeline {timeline}"
        )));
    }
    let alone = places.iter().enumerate().map(|(number, place)| {
        let lead = |one: &Candidate| recovers_at((number, place), &one.backup, &branch);
        (candidates.iter().map(lead).collect(), format!(" at \"{}\"", place.name))
    });
    Ok([(together, String::new())].into_iter().chain(alone).collect())
}

impl Candidate {
    fn keep(&mut self, why: &str) {
        self.why.get_or_insert_with(|| why.to_owned());
    }
}

/// Whether recovery from the backup finds all it needs to become consistent, along its own
/// timeline or one that leads on from it.
fn is_complete(facts: &Facts, backup: &Backup) -> Result<bool> {
    let own = branch(facts, backup.timeline)?;
    let by_child =
        |history: &History| matches!(history, History::Known(child) if recovers(facts, backup, child));
    let mut lines = facts.timelines.values();
    Ok(is_complete_along(facts, backup, &own) || lines.any(|line| by_child(&line.history)))
}

/// Whether the backup can be recovered along the branch, and all is there that it needs to become consistent.
fn recovers(facts: &Facts, backup: &Backup, branch: &Branch) -> bool {
    leads(backup, branch) && is_complete_along(facts, backup, branch)
}

/// The same by this destination alone, with its number.
pub(super) fn recovers_at((number, place): (usize, &Place), backup: &Backup, branch: &Branch) -> bool {
    backup.is_whole_at(number) && recovers(&place.facts, backup, branch)
}

pub(super) fn is_complete_along(facts: &Facts, backup: &Backup, branch: &Branch) -> bool {
    let number = |lsn: Lsn| lsn.0 / facts.size.bytes();
    let (first, last) = (number(backup.start), number(last_byte(backup)));
    (first..=last).all(|number| is_there(facts, branch, backup.timeline, number))
}

/// Whether one of the files is there that serve a segment of a backup of this timeline: of the timelines
/// of the branch that had begun by then, and had not been left before. Never of an ancestor, whose file
/// of the segment in which the timeline begins has none of its records.
fn is_there(facts: &Facts, branch: &Branch, of: Timeline, number: u64) -> bool {
    let mut end = u64::MAX;
    branch.parts().any(|(timeline, begin)| {
        let begin = begin.0 / facts.size.bytes();
        // Switch points may go backwards: what was left earliest counts.
        let left = end;
        end = end.min(begin);
        let serves = timeline >= of && begin <= number && number <= left;
        serves && facts.timelines.get(&timeline).is_some_and(|line| line.segments.contains(number))
    })
}

/// Whether a backup can be recovered along a branch: its timeline was not left before its stop
/// (`xlogrecovery.c`, `CheckRecoveryConsistency` and the checks before it in `InitWalRecovery`).
/// The stop address is that behind the last byte: recovery to the end of the backup and no further
/// begins a timeline right there.
pub(super) fn leads(backup: &Backup, branch: &Branch) -> bool {
    branch.passes(backup.timeline, backup.start) && branch.passes(backup.timeline, last_byte(backup))
}

/// The last address that recovery from the backup needs to become consistent.
fn last_byte(backup: &Backup) -> Lsn {
    backup.stop.map_or(backup.start, |stop| Lsn(stop.0.saturating_sub(1)).max(backup.start))
}

pub(super) fn branch(facts: &Facts, timeline: Timeline) -> Result<Branch> {
    match facts.timelines.get(&timeline).map(|line| &line.history) {
        Some(History::Known(branch)) => Ok(branch.clone()),
        Some(History::Unreadable(reason)) => Err(Failure::new(
            (),
            format!(
                "the history file of timeline {timeline} cannot be read, so nothing may be deleted: {reason}"
            ),
        )
        .hint("\"wal-archive verify\" says more; \"wal-archive copy --repair\" brings a good one")),
        // PostgreSQL takes such a timeline to have no ancestors.
        Some(History::Missing) | None => Ok(Branch::without_history(timeline)),
    }
}
