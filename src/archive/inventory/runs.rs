//! A set of segment numbers, kept as ranges: an archive of millions of segments has few of them.

use rangemap::RangeInclusiveSet;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(RangeInclusiveSet<u64>);

impl Runs {
    pub fn insert(&mut self, number: u64) {
        self.insert_range(number, number);
    }

    /// Adds every number from `first` to `last`, both included.
    pub fn insert_range(&mut self, first: u64, last: u64) {
        self.0.insert(first..=last);
    }

    /// Takes a number out.
    pub fn remove(&mut self, number: u64) {
        self.0.remove(number..=number);
    }

    /// Whether a number is in it.
    pub fn contains(&self, number: u64) -> bool {
        self.0.contains(&number)
    }

    /// The ranges, first and last of each.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|range| (*range.start(), *range.end()))
    }

    /// The ranges missing between the first and the last number.
    pub fn gaps(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let pairs = self.ranges().zip(self.ranges().skip(1));
        pairs.map(|((_, last), (first, _))| (last + 1, first - 1))
    }

    /// The ranges missing from `first` to `last`, both included.
    pub fn missing(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        match first <= last {
            true => self.0.gaps(&(first..=last)).map(|gap| (*gap.start(), *gap.end())).collect(),
            false => Vec::new(),
        }
    }

    /// What of `first` to `last` is in it.
    pub fn within(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let overlapping = (first <= last).then(|| self.0.overlapping(first..=last)).into_iter().flatten();
        overlapping.map(move |range| (first.max(*range.start()), last.min(*range.end())))
    }

    pub fn count(&self) -> u64 {
        self.ranges().map(|(first, last)| last - first + 1).sum()
    }

    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|range| *range.start())
    }

    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|range| *range.end())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<u64> for Runs {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        let mut runs = Runs::default();
        numbers.into_iter().for_each(|number| runs.insert(number));
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn neighbours_are_one_range() {
        let runs: Runs = [3, 1, 2, 7, 9, 8, 0].into_iter().collect();
        assert_eq!(runs.ranges().collect::<Vec<_>>(), [(0, 3), (7, 9)]);
        assert_eq!(runs.gaps().collect::<Vec<_>>(), [(4, 6)]);
        assert_eq!((runs.first(), runs.last(), runs.count()), (Some(0), Some(9), 7));
    }

    proptest! {
        #[test]
        fn it_is_a_set(numbers in proptest::collection::vec(0u64..60, 0..80), first in 0u64..60, len in 0u64..30) {
            let set: BTreeSet<u64> = numbers.iter().copied().collect();
            let mut runs: Runs = numbers.into_iter().chain([first]).collect();
            if !set.contains(&first) {
                runs.remove(first);
            }
            prop_assert_eq!(runs.count(), set.len() as u64);
            for number in 0..70 {
                prop_assert_eq!(runs.contains(number), set.contains(&number));
            }
            let last = first + len;
            let missing: Vec<u64> = runs.missing(first, last).iter().flat_map(|(a, b)| *a..=*b).collect();
            let expected: Vec<u64> = (first..=last).filter(|number| !set.contains(number)).collect();
            prop_assert_eq!(missing, expected);
            let within: Vec<u64> = runs.within(first, last).flat_map(|(a, b)| a..=b).collect();
            let expected: Vec<u64> = (first..=last).filter(|number| set.contains(number)).collect();
            prop_assert_eq!(within, expected);
            prop_assert!(runs.ranges().zip(runs.ranges().skip(1)).all(|((_, a), (b, _))| a + 1 < b));
        }
    }
}
