//! What names alone tell: segments that recovery would ask for and that are not there, timelines
//! without their history, history files that cannot be read, destinations of different clusters.

use super::{Finding, Kind};
use crate::inventory::{Content, Gap, Inventory, Need, Runs, Unreadable, coalesce, needs};
use crate::wal::{BackupHistory, SegmentName, SegmentSize, SystemId, Timeline};
use std::collections::BTreeMap;

/// Which part of an archive is asked about.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Nothing before this segment number, of any timeline.
    pub since: Option<u64>,
    /// Only what the backups with this label need.
    pub label: Option<String>,
    /// Segments known to be lost, first and last.
    pub accepted: Vec<(SegmentName, SegmentName)>,
}

/// What names told.
pub struct Names {
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// The gaps that were accepted and are indeed there, as `FROM..TO`.
    pub accepted: Vec<String>,
    /// All destinations as one, as fetch sees them.
    pub union: Inventory,
    /// The ways to recover.
    pub needs: Vec<Need>,
}

/// Compares what should be there with what is. `None` where there is no destination.
pub fn by_names(inventories: &[Inventory], scope: &Scope) -> Option<Names> {
    let (first, others) = inventories.split_first()?;
    let mut union = first.clone();
    others.iter().for_each(|other| union.absorb(other));
    let wanted = |index: usize| match (&scope.label, union.backups.get(index)) {
        (Some(label), Some(backup)) => backup.content.as_ref().is_ok_and(|content| content.label == *label),
        _ => true,
    };
    let mut needs = needs(&union, &wanted);
    if let Some(since) = scope.since {
        needs.retain(|need| need.last >= since);
        // What is passed over may be missing, so nothing is said of the backups before it.
        for need in needs.iter_mut().filter(|need| need.first < since) {
            (need.backup, need.first, need.consistent) = (None, since, since);
        }
        needs.dedup();
    }
    let mut names = Names { findings: Vec::new(), accepted: Vec::new(), union, needs };
    names.compare_clusters(inventories);
    for inventory in inventories {
        names.look_at_histories(inventory);
        names.look_at_unread(inventory);
        names.look_for_gaps(inventory, inventories, &scope.accepted);
    }
    Some(names)
}

/// `NAME`, or `FROM..TO`.
pub fn range(inventory: &Inventory, gap: Gap) -> String {
    let name = |number| inventory.name(gap.timeline, number);
    match gap.first == gap.last {
        true => name(gap.first).to_string(),
        false => format!("{}..{}", name(gap.first), name(gap.last)),
    }
}

fn count(gap: Gap) -> String {
    match gap.last - gap.first {
        0 => "the segment is".to_owned(),
        more => format!("{} segments are", more + 1),
    }
}

impl Names {
    /// How a message names where a need begins.
    pub fn origin(&self, need: &Need) -> String {
        match need.backup.and_then(|index| self.union.backups.get(index)) {
            Some(backup) => match &backup.content {
                Ok(BackupHistory { label, .. }) => format!("backup \"{label}\" ({})", backup.start_segment),
                Err(_) => format!("the backup at {}", backup.start_segment),
            },
            None => format!("segment {}", need.branch.file(need.first, self.size())),
        }
    }

    /// Needs are there only where the size is known.
    pub fn size(&self) -> SegmentSize {
        self.union.segment_size.unwrap_or(SegmentSize::MIN)
    }

    fn compare_clusters(&mut self, inventories: &[Inventory]) {
        let known = |inventory: &Inventory| -> Option<(SystemId, SegmentSize)> {
            Some((inventory.system_id?, inventory.segment_size?))
        };
        let mut ours = None;
        for inventory in inventories {
            if inventory.segment_size.is_none() && inventory.total.objects > 0 {
                self.findings.push(Finding {
                    kind: Kind::NotRead,
                    destination: inventory.place.clone(),
                    name: "archive.json".to_owned(),
                    reason: "the segment size is not known: there is no \"archive.json\", and no segment that can be read".to_owned(),
                    hint: "decrypt or decode the archive with the tool that wrote it".to_owned(),
                });
            }
            let Some((id, size)) = known(inventory) else { continue };
            let (first, first_size) = *ours.get_or_insert((id, size));
            if (first, first_size) != (id, size) {
                self.findings.push(Finding {
                    kind: Kind::OtherCluster,
                    destination: inventory.place.clone(),
                    name: "archive.json".to_owned(),
                    reason: format!(
                        "it is the archive of the cluster with system identifier {id} and segments of {size}, the first destination has {first} and {first_size}"
                    ),
                    hint: "name only destinations of one cluster".to_owned(),
                });
            }
        }
    }

    fn look_at_histories(&mut self, inventory: &Inventory) {
        // Where archiving began on a later timeline, nothing older is there to follow from.
        let oldest = inventory.timelines.keys().next().copied().unwrap_or(Timeline::FIRST);
        for (timeline, files) in &inventory.timelines {
            let name = format!("{:08X}.history", timeline.get());
            match &files.history {
                Some(content) => self.unreadable(inventory, name, content),
                None if *timeline != oldest && !files.segments.is_empty() => {
                    self.findings.push(Finding {
                        kind: Kind::NoHistory,
                        destination: inventory.place.clone(),
                        name,
                        reason: format!(
                            "the history of timeline {timeline} is missing, although segments of it are there; without it recovery cannot follow from its parent"
                        ),
                        hint: "archive the file again from pg_wal of a server of that timeline".to_owned(),
                    });
                }
                None => {}
            }
        }
        for backup in &inventory.backups {
            self.unreadable(inventory, backup.name().to_string(), &backup.content);
        }
    }

    fn unreadable<T>(&mut self, inventory: &Inventory, name: String, content: &Content<T>) {
        let Err(Unreadable { key, damaged, reason }) = content else { return };
        self.findings.push(Finding {
            kind: if *damaged { Kind::Damaged } else { Kind::NotRead },
            destination: inventory.place.clone(),
            name,
            reason: format!("\"{key}\" cannot be used: {reason}"),
            hint: "restore the object from another destination or server".to_owned(),
        });
    }

    fn look_at_unread(&mut self, inventory: &Inventory) {
        for (timeline, files) in &inventory.timelines {
            for (first, last) in files.unread.ranges() {
                let gap = Gap { timeline: *timeline, first, last };
                self.findings.push(Finding {
                    kind: Kind::UnknownEncoding,
                    destination: inventory.place.clone(),
                    name: range(inventory, gap),
                    reason: format!(
                        "{} there only in an encoding that this version does not read",
                        count(gap)
                    ),
                    hint:
                        "decrypt or decode it with the tool that stored it, and put the plain file beside it"
                            .to_owned(),
                });
            }
        }
    }

    fn look_for_gaps(
        &mut self,
        inventory: &Inventory,
        all: &[Inventory],
        accepted: &[(SegmentName, SegmentName)],
    ) {
        let found: Vec<(Vec<Gap>, &Need)> = self
            .needs
            .iter()
            .map(|need| (inventory.missing(&need.branch, need.first, need.last), need))
            .collect();
        // Within a destination's own span, what another one has should be there too.
        let mut gaps: Vec<Gap> = found.iter().flat_map(|(gaps, _)| gaps.iter().copied()).collect();
        for (timeline, files) in &inventory.timelines {
            for (first, last) in files.segments.gaps() {
                let others = all.iter().filter_map(|other| other.timelines.get(timeline));
                for (from, to) in others.flat_map(|other| other.segments.ranges()) {
                    let (first, last) = (first.max(from), last.min(to));
                    if first <= last {
                        gaps.push(Gap { timeline: *timeline, first, last });
                    }
                }
            }
        }
        let mut waived: BTreeMap<Timeline, Runs> = BTreeMap::new();
        for (from, to) in accepted {
            let numbers = inventory.number(*from).zip(inventory.number(*to));
            if let Some((first, last)) = numbers.filter(|(first, last)| first <= last) {
                waived.entry(from.timeline()).or_default().insert_range(first, last);
            }
        }
        let mut findings = Vec::new();
        for gap in coalesce(gaps) {
            let nothing = Runs::default();
            let waived = waived.get(&gap.timeline).unwrap_or(&nothing);
            let open = waived.missing(gap.first, gap.last);
            for (first, last) in closed(gap, &open) {
                self.accepted.push(range(inventory, Gap { first, last, ..gap }));
            }
            for (first, last) in open {
                let gap = Gap { first, last, ..gap };
                let cut: Vec<&Need> = found
                    .iter()
                    .filter(|(gaps, _)| gaps.iter().any(|g| overlap(*g, gap)))
                    .map(|(_, need)| *need)
                    .collect();
                findings.push(self.gap(inventory, all, gap, &cut));
            }
        }
        self.findings.extend(findings);
        self.accepted.sort();
        self.accepted.dedup();
    }

    fn gap(&self, inventory: &Inventory, all: &[Inventory], gap: Gap, cut: &[&Need]) -> Finding {
        let mut origins: Vec<String> = Vec::new();
        for need in cut {
            let origin = self.origin(need);
            if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
        let consequence = match origins.as_slice() {
            [] => "although another destination holds later and earlier ones".to_owned(),
            [one] => format!("recovery from {one} ends before"),
            [one, _] => format!("recovery from {one} and 1 other ends before"),
            [one, others @ ..] => format!("recovery from {one} and {} others ends before", others.len()),
        };
        let elsewhere = all.iter().find(|other| {
            other.place != inventory.place
                && other
                    .timelines
                    .get(&gap.timeline)
                    .is_some_and(|f| f.segments.missing(gap.first, gap.last).is_empty())
        });
        let name = range(inventory, gap);
        let hint = match elsewhere {
            Some(other) => format!("\"wal-archive copy {} {}\" brings it", other.place, inventory.place),
            None => format!(
                "look into pg_wal of every server and standby; if it is lost, take a new base backup now, then --accept-gap {}..{}",
                inventory.name(gap.timeline, gap.first),
                inventory.name(gap.timeline, gap.last)
            ),
        };
        let reason = format!("{} missing, {consequence}", count(gap));
        Finding { kind: Kind::Missing, destination: inventory.place.clone(), name, reason, hint }
    }
}

fn overlap(one: Gap, other: Gap) -> bool {
    one.timeline == other.timeline && one.first <= other.last && other.first <= one.last
}

/// What is left of a gap without its open parts.
fn closed(gap: Gap, open: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut runs = Runs::default();
    open.iter().for_each(|(first, last)| runs.insert_range(*first, *last));
    runs.missing(gap.first, gap.last)
}
