//! A set of segment numbers, kept as ranges: an archive of millions of segments has few of them.

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// First and last of each range, rising, with a gap between any two.
    ranges: Vec<(u64, u64)>,
}

impl Runs {
    /// Adds a number; cheapest in rising order.
    pub fn insert(&mut self, number: u64) {
        let at = self.ranges.partition_point(|(_, last)| *last < number);
        let follows = at.checked_sub(1).and_then(|before| self.ranges.get(before)).map(|(_, last)| *last);
        let touches_before = follows.is_some_and(|last| last + 1 == number);
        let touches_after = self.ranges.get(at).and_then(|(first, _)| first.checked_sub(1)) == Some(number);
        if self.ranges.get(at).is_some_and(|(first, _)| *first <= number) {
            return; // it is there
        }
        match (touches_before, touches_after) {
            (true, true) => {
                let (_, last) = self.ranges.remove(at);
                self.extend_before(at, last);
            }
            (true, false) => self.extend_before(at, number),
            (false, true) => {
                if let Some((first, _)) = self.ranges.get_mut(at) {
                    *first = number;
                }
            }
            (false, false) => self.ranges.insert(at, (number, number)),
        }
    }

    fn extend_before(&mut self, at: usize, to: u64) {
        if let Some((_, last)) = at.checked_sub(1).and_then(|before| self.ranges.get_mut(before)) {
            *last = to;
        }
    }

    /// Takes a number out.
    pub fn remove(&mut self, number: u64) {
        let at = self.ranges.partition_point(|(_, last)| *last < number);
        let Some((first, last)) = self.ranges.get(at).copied().filter(|(first, _)| *first <= number) else {
            return;
        };
        let rest = [(first, number.wrapping_sub(1)), (number.wrapping_add(1), last)];
        let kept = [number > first, number < last];
        let rest = rest.into_iter().zip(kept).filter_map(|(range, kept)| kept.then_some(range));
        self.ranges.splice(at..=at, rest);
    }

    /// Whether a number is in it.
    pub fn contains(&self, number: u64) -> bool {
        let at = self.ranges.partition_point(|(_, last)| *last < number);
        self.ranges.get(at).is_some_and(|(first, _)| *first <= number)
    }

    /// The ranges, first and last of each.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().copied()
    }

    /// The ranges missing between the first and the last number.
    pub fn gaps(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let pairs = self.ranges.iter().zip(self.ranges.iter().skip(1));
        pairs.map(|((_, last), (first, _))| (last + 1, first - 1))
    }

    /// The ranges missing from `first` to `last`, both included.
    pub fn missing(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut next = first;
        let from = self.ranges.partition_point(|(_, end)| *end < first);
        for (begin, end) in self.ranges.iter().skip(from).take_while(|(begin, _)| *begin <= last) {
            if *begin > next {
                missing.push((next, begin - 1));
            }
            next = end.saturating_add(1);
        }
        if next <= last {
            missing.push((next, last));
        }
        missing
    }

    /// How many numbers.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// The smallest number.
    pub fn first(&self) -> Option<u64> {
        self.ranges.first().map(|(first, _)| *first)
    }

    /// The largest number.
    pub fn last(&self) -> Option<u64> {
        self.ranges.last().map(|(_, last)| *last)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
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
            prop_assert!(runs.ranges().zip(runs.ranges().skip(1)).all(|((_, a), (b, _))| a + 1 < b));
        }
    }
}
