//! `--records`: one walk over the records of each timeline, continued into every child from where
//! its parent stood.
//!
//! Files come in the order of their names, timeline by timeline, and a child's id is larger than
//! its parent's; so when a child's first file comes, what its parent's walk had reached there is
//! known already.

use super::names::ByNames;
use super::objects::number;
use crate::finding::{Finding, FindingKind};
use crate::wal::{SegmentName, SegmentSize, Start, Timeline, Walk, Walker};
use std::collections::BTreeMap;

/// Consecutive files of one timeline whose records form one chain.
pub(super) struct Stretch {
    pub(super) timeline: Timeline,
    /// Numbers of the first and the last file.
    pub(super) first: u64,
    pub(super) last: u64,
    /// The stretch of the parent that it continues.
    pub(super) parent: Option<usize>,
    /// From the first record of the oldest stretch to the last one here.
    pub(super) walk: Walk,
    /// Whether the records end within the last file.
    pub(super) stopped: bool,
}

/// An unfinished segment and where its records lead, continued from what is before it.
pub(super) struct Tail {
    pub(super) segment: SegmentName,
    /// The stretch that it continues; `None` where nothing before it reaches it.
    pub(super) after: Option<usize>,
    /// `NAME.partial`, or a variant.
    pub(super) title: String,
    pub(super) walk: Walk,
}

pub(super) struct Chains {
    size: SegmentSize,
    /// The timeline that a child leaves, the number of the child's first file, the child.
    forks: Vec<(Timeline, u64, Timeline)>,
    /// Where a child's parent stood before the child's first file: the walker, its stretch.
    inherited: BTreeMap<Timeline, (u64, Walker, usize)>,
    pub(super) stretches: Vec<Stretch>,
    pub(super) tails: Vec<Tail>,
    /// Of the last stretch, which further files may continue.
    walker: Option<Walker>,
    /// The file at hand, and the walk before it: an attempt with a damaged copy is undone.
    at_hand: Option<(SegmentName, Walker)>,
    attempt: Option<Walker>,
}

impl Chains {
    pub(super) fn new(names: &ByNames) -> Self {
        let size = names.size();
        let mut forks = Vec::new();
        for timeline in names.union.timelines.keys() {
            let Ok(branch) = names.union.branch(*timeline) else { continue };
            let begin = branch.parts().next().map_or(0, |(_, begin)| begin.0 / size.bytes());
            if let Some(before) = begin.checked_sub(1) {
                let parent = branch.serving(before, size);
                if parent != *timeline {
                    forks.push((parent, begin, *timeline));
                }
            }
        }
        Chains {
            size,
            forks,
            inherited: BTreeMap::new(),
            stretches: Vec::new(),
            tails: Vec::new(),
            walker: None,
            at_hand: None,
            attempt: None,
        }
    }

    /// The bytes of this segment follow, of one copy or several, then those of unfinished ones.
    pub(super) fn begin(&mut self, segment: SegmentName) {
        if self.at_hand.as_ref().is_some_and(|(at_hand, _)| *at_hand == segment) {
            return;
        }
        self.finish();
        let (timeline, at) = (segment.timeline(), number(segment, self.size));
        // Nobody needs an unfinished one where the segment is there.
        if self.stretches.last().is_some_and(|stretch| stretch.timeline == timeline && stretch.last == at) {
            return;
        }
        let continues = |stretch: &Stretch| stretch.timeline == timeline && stretch.last + 1 == at;
        if !self.stretches.last().is_some_and(continues) {
            self.walker = None;
        }
        let before = match (self.walker.take(), self.inherited.get(&timeline)) {
            (Some(walker), _) => walker,
            (None, Some((begin, walker, _))) if *begin == at => walker.clone(),
            _ => Walker::new(Start::Anywhere),
        };
        self.at_hand = Some((segment, before));
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if let (None, Some((segment, before))) = (&self.attempt, &self.at_hand) {
            let mut walker = before.clone();
            walker.begin(*segment);
            self.attempt = Some(walker);
        }
        if let Some(walker) = &mut self.attempt {
            walker.push(bytes);
        }
    }

    /// The copy at hand is over.
    pub(super) fn settle(&mut self, intact: bool) {
        let attempt = self.attempt.take();
        let (true, Some(walker)) = (intact, attempt) else { return };
        let Some((segment, _)) = self.at_hand.take() else { return };
        let (timeline, at) = (segment.timeline(), number(segment, self.size));
        let walk = walker.walk();
        let stopped = !walk.complete;
        let continued = self.stretches.last().is_some_and(|stretch| {
            stretch.timeline == timeline && stretch.last + 1 == at && !stretch.stopped
        });
        match self.stretches.last_mut().filter(|_| continued) {
            Some(stretch) => (stretch.last, stretch.walk, stretch.stopped) = (at, walk, stopped),
            None => {
                let inherited = self.inherited.get(&timeline).filter(|(begin, _, _)| *begin == at);
                let parent = inherited.map(|(_, _, stretch)| *stretch);
                self.stretches.push(Stretch { timeline, first: at, last: at, parent, walk, stopped });
            }
        }
        if stopped {
            return;
        }
        let stretch = self.stretches.len() - 1;
        for (_, begin, child) in
            self.forks.iter().filter(|(parent, begin, _)| *parent == timeline && *begin == at + 1)
        {
            self.inherited.insert(*child, (*begin, walker.clone(), stretch));
        }
        self.walker = Some(walker);
    }

    /// An unfinished segment at hand is over; its name where it was intact.
    pub(super) fn settle_partial(&mut self, title: Option<String>) {
        let attempt = self.attempt.take();
        let (Some(title), Some(walker), Some((segment, _))) = (title, attempt, &self.at_hand) else { return };
        let (timeline, at) = (segment.timeline(), number(*segment, self.size));
        let continued = self.stretches.last().is_some_and(|stretch| {
            stretch.timeline == timeline && stretch.last + 1 == at && !stretch.stopped
        });
        let after = match continued {
            true => self.stretches.len().checked_sub(1),
            false => {
                let inherited = self.inherited.get(&timeline).filter(|(begin, _, _)| *begin == at);
                inherited.map(|(_, _, stretch)| *stretch)
            }
        };
        self.tails.push(Tail { segment: *segment, after, title, walk: walker.walk() });
    }

    /// No copy of the file at hand was intact: what follows begins anew.
    fn finish(&mut self) {
        if self.at_hand.take().is_some() {
            self.walker = None;
        }
        self.attempt = None;
    }

    pub(super) fn end(&mut self) {
        self.finish();
        self.walker = None;
    }

    /// The walk of a child's parent to where the child begins.
    pub(super) fn before(&self, child: Timeline, begin: u64) -> Option<Walk> {
        let (at, walker, _) = self.inherited.get(&child)?;
        (*at == begin).then(|| walker.walk())
    }

    /// Files in which the records end although recovery asks for later ones, and files that do not
    /// continue their timeline.
    pub(super) fn findings(&self, names: &ByNames, place: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        for stretch in self.stretches.iter().filter(|stretch| stretch.stopped) {
            let cut = names.needs.iter().find(|need| {
                (need.first..need.last).contains(&stretch.last)
                    && need.branch.serving(stretch.last, self.size) == stretch.timeline
            });
            if let Some(need) = cut {
                let what = format!(
                    "{}; recovery from {} ends there, although later segments are archived",
                    stretch.walk.stop,
                    names.origin(need)
                );
                let name = SegmentName::numbered(stretch.timeline, stretch.last, self.size);
                findings.push(Finding::new(FindingKind::BrokenRecords, name, place, what).hint(
                    "the segment was archived before it was complete, or pg_resetwal was run: take a new base backup",
                ));
            }
        }
        findings
    }
}
