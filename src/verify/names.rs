//! What names alone tell: segments that recovery would ask for and that are not there, timelines
//! without their history, history files that cannot be read, destinations of different clusters.

use crate::archive::absent::{self, Asked, Conclusion, Evidence, Gap as Judged, OwnCopy};
use crate::archive::inventory::{Content, Gap, Inventory, Need, Runs, Unreadable, coalesce, needs};
use crate::archive::lookup::WAL_G_DECRYPTS;
use crate::finding::{Finding, FindingKind};
use crate::object::Encryption;
use crate::wal::{BackupHistory, SegmentName, SegmentSize, SystemId, Timeline, WalName};
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
    /// Timelines whose history file is known to be lost.
    pub accepted_histories: Vec<Timeline>,
}

/// What names told.
pub struct ByNames {
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// What was accepted and is indeed missing: `FROM..TO`, or the name of a history file.
    pub accepted: Vec<String>,
    /// All destinations as one, as fetch sees them.
    pub union: Inventory,
    /// The ways to recover.
    pub needs: Vec<Need>,
}

/// Compares what should be there with what is. `None` where there is no destination.
pub fn by_names(inventories: &[Inventory], scope: &Scope) -> Option<ByNames> {
    let (first, others) = inventories.split_first()?;
    let mut union = first.clone();
    let mixed = two_clusters(inventories);
    if !mixed.is_empty() {
        // Whatever else would be said follows from that.
        return Some(ByNames { findings: mixed, accepted: Vec::new(), union, needs: Vec::new() });
    }
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
    let mut names = ByNames { findings: Vec::new(), accepted: Vec::new(), union, needs };
    for inventory in inventories {
        names.look_at_the_whole(inventory);
        names.look_at_histories(inventory, inventories, &scope.accepted_histories);
        names.look_at_unread(inventory);
        names.look_for_gaps(inventory, inventories, &scope.accepted);
    }
    names.accepted.sort();
    names.accepted.dedup();
    Some(names)
}

/// Destinations of different clusters: the cause of everything else that would be found there.
pub(super) fn two_clusters(inventories: &[Inventory]) -> Vec<Finding> {
    let known = |inventory: &Inventory| -> Option<(SystemId, SegmentSize)> {
        Some((inventory.system_id?, inventory.segment_size?))
    };
    let mut findings = Vec::new();
    let mut ours: Option<(&str, SystemId, SegmentSize)> = None;
    for inventory in inventories {
        let Some((id, size)) = known(inventory) else { continue };
        let (place, first, first_size) = *ours.get_or_insert((&inventory.place, id, size));
        if (first, first_size) != (id, size) {
            let what = format!(
                "it is the archive of the cluster with system identifier {id} and segments of {size}, \"{place}\" that of {first} and {first_size}; nothing else was looked at"
            );
            findings.push(
                Finding::new(FindingKind::OtherCluster, "archive.json", &inventory.place, what)
                    .hint("name only destinations of one cluster"),
            );
        }
    }
    findings
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

impl ByNames {
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

    /// What concerns no single file.
    fn look_at_the_whole(&mut self, inventory: &Inventory) {
        if inventory.segment_size.is_none() && inventory.total.objects > 0 {
            let what = "the segment size is not known: there is no \"archive.json\", and no segment that can be read";
            let hint = format!("decrypt or decode the archive with the tool that wrote it; {WAL_G_DECRYPTS}");
            let finding = Finding::new(FindingKind::NotRead, "archive.json", &inventory.place, what);
            self.findings.push(finding.hint(hint));
        }
        if let (Some(first), objects) = (inventory.misplaced.first(), inventory.misplaced_total.objects) {
            let (are, ends) = if objects == 1 { ("WAL file is", "s") } else { ("WAL files are", "") };
            let unseen = match inventory.root_is_read {
                true => "",
                false => ", and wal-fetch does not look there",
            };
            let what = format!(
                "{objects} {are} directly under the prefix; wal-push stores nothing there{unseen}: another archive_command write{ends} to it"
            );
            let hint = "find the server that still archives with cp or another tool and set its archive_command to wal-push";
            let finding = Finding::new(FindingKind::Misplaced, &first.key, &inventory.place, what);
            self.findings.push(finding.hint(hint));
        }
        for record in &inventory.unreadable_records {
            let what = format!(
                "the record of what was expired cannot be used, so that may look lost: {}",
                record.reason
            );
            let finding = unreadable(inventory, &record.key, record, what);
            self.findings.push(finding.hint("restore the object from another destination"));
        }
    }

    fn look_at_histories(&mut self, inventory: &Inventory, all: &[Inventory], accepted: &[Timeline]) {
        for (timeline, files) in &inventory.timelines {
            if let Some(content) = &files.history {
                self.look_at_content(inventory, WalName::TimelineHistory(*timeline), content);
            }
        }
        for (timeline, Evidence { seen, .. }) in self.lost_histories(inventory) {
            let name = WalName::TimelineHistory(timeline).to_string();
            if accepted.contains(&timeline) {
                self.accepted.push(name);
                continue;
            }
            let what = format!(
                "the history of timeline {timeline} is missing, although {seen} is there; without it recovery cannot follow from its parent"
            );
            let holds = |other: &&Inventory| other.histories().any(|found| found.timeline == timeline);
            let hint = match all.iter().find(holds) {
                Some(other) => format!("\"wal-archive copy {} {}\" brings it", other.place, inventory.place),
                None => format!(
                    "archive the file again from pg_wal of a server of that timeline; if it is lost, --accept-gap {name}; if \
                     nobody needs the timeline, as after a rehearsal that archived, \"wal-archive quarantine --timeline {timeline} \
                     --from {}\" shows what goes with it",
                    inventory.place
                ),
            };
            let finding = Finding::new(FindingKind::NoHistory, name, &inventory.place, what);
            self.findings.push(finding.hint(hint));
        }
        for backup in &inventory.backups {
            self.look_at_content(inventory, backup.name(), &backup.content);
        }
    }

    /// The timelines of a destination whose history is lost, by the rule of wal-fetch for whoever is on
    /// the oldest timeline: where archiving began on a later one, nothing older is there to follow from.
    fn lost_histories(&self, inventory: &Inventory) -> Vec<(Timeline, Evidence)> {
        let judged = |timeline: &Timeline| {
            let asked = Asked {
                name: WalName::TimelineHistory(*timeline),
                system_id: inventory.system_id,
                segment_size: inventory.segment_size,
                own_timeline: self.union.timelines.keys().next().copied(),
                own_copy: OwnCopy::None,
                histories: &[],
                accepted: false,
                allow_empty: false,
            };
            match absent::conclude(&asked, &[Some(inventory.shape(asked.name))]) {
                Conclusion::Missing(Judged::LostHistory(evidence)) => Some((*timeline, evidence)),
                _ => None,
            }
        };
        inventory.timelines.keys().filter_map(judged).collect()
    }

    fn look_at_content<T>(&mut self, inventory: &Inventory, name: WalName, content: &Content<T>) {
        // That it was not decrypted is told of all such objects together.
        let Some(file) = content.as_ref().err().filter(|file| !file.shut) else { return };
        let what = format!("\"{}\" cannot be used: {}", file.key, file.reason);
        let finding = unreadable(inventory, name, file, what);
        self.findings.push(finding.hint("restore the object from another destination or server"));
    }

    fn look_at_unread(&mut self, inventory: &Inventory) {
        for (timeline, files) in &inventory.timelines {
            for (first, last) in files.unread.ranges() {
                let gap = Gap { timeline: *timeline, first, last };
                let (why, hint) = match inventory.encryption() {
                    Encryption::None => (
                        "in an encoding that this version does not read",
                        "decrypt or decode it with the tool that stored it, and put the plain file beside it",
                    ),
                    Encryption::Age => (
                        "in an encoding that an encrypted archive does not hold",
                        "store it encrypted with wal-push, or with \"wal-archive copy\" from an archive that is not encrypted",
                    ),
                };
                let what = format!("{} there only {why}", count(gap));
                let finding =
                    Finding::new(FindingKind::UnknownEncoding, range(inventory, gap), &inventory.place, what);
                self.findings.push(finding.hint(hint));
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
                for (first, last) in others.flat_map(|other| other.segments.within(first, last)) {
                    gaps.push(Gap { timeline: *timeline, first, last });
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
            let removed = inventory.expired.get(&gap.timeline).unwrap_or(&nothing);
            let lost = removed.missing(gap.first, gap.last);
            let waived = waived.get(&gap.timeline).unwrap_or(&nothing);
            let open: Vec<_> = lost.iter().flat_map(|(first, last)| waived.missing(*first, *last)).collect();
            let accepted = lost
                .iter()
                .flat_map(|(first, last)| closed(Gap { first: *first, last: *last, ..gap }, &open));
            for (first, last) in accepted {
                let name = |number| inventory.name(gap.timeline, number);
                self.accepted.push(format!("{}..{}", name(first), name(last)));
            }
            for (first, last) in open {
                let gap = Gap { first, last, ..gap };
                let cut: Vec<&Need> = found
                    .iter()
                    .filter(|(gaps, _)| {
                        // They rise, and may be very many.
                        let from = gaps.partition_point(|g| g.last < gap.first);
                        let mut near = gaps.iter().skip(from).take_while(|g| g.first <= gap.last);
                        near.any(|g| overlap(*g, gap))
                    })
                    .map(|(_, need)| *need)
                    .collect();
                findings.push(self.gap(inventory, all, gap, &cut));
            }
        }
        self.findings.extend(findings);
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
        Finding::new(FindingKind::Missing, name, &inventory.place, reason).hint(hint)
    }
}

fn unreadable(inventory: &Inventory, name: impl ToString, file: &Unreadable, what: String) -> Finding {
    let kind = if file.damaged { FindingKind::Damaged } else { FindingKind::NotRead };
    Finding::new(kind, name, &inventory.place, what).key(&file.key)
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
