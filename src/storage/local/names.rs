//! The smallest names of many, in the order of their bytes, within bounded memory: one text with all of them, and
//! eight bytes for the place of each.
//!
//! Does not know: where names come from, or how the others are had.

use std::cmp::Ordering;
use std::ops::Range;
use std::vec;

/// Takes names in any order, and keeps the smallest.
pub(super) struct Smallest {
    text: Vec<u8>,
    places: Vec<Place>,
    /// In bytes.
    room: usize,
    /// The smallest name for which there was no room.
    left_out: Option<Vec<u8>>,
}

/// Where a name is in the text.
#[derive(Clone, Copy)]
struct Place {
    start: u32,
    end: u32,
}

/// Names in order.
#[derive(Default)]
pub(super) struct Names {
    text: Vec<u8>,
    places: vec::IntoIter<Place>,
}

impl Smallest {
    /// There is always room for one name.
    pub(super) fn within(room: usize) -> Self {
        Smallest { text: Vec::new(), places: Vec::new(), room, left_out: None }
    }

    pub(super) fn add(&mut self, name: &str) {
        let name = name.as_bytes();
        if self.left_out.as_ref().is_some_and(|left_out| left_out.as_slice() <= name) {
            return;
        }
        let start = self.text.len();
        self.text.extend_from_slice(name);
        self.places.push(Place::new(start, self.text.len()));
        let held = self.text.len() + self.places.len() * size_of::<Place>();
        if held > self.room && self.places.len() > 1 {
            self.halve();
        }
    }

    /// Leaves the greater half out.
    fn halve(&mut self) {
        let Smallest { text, places, left_out, .. } = self;
        let kept = (places.len() / 2).max(1);
        let (_, first, _) = places.select_nth_unstable_by(kept, |a, b| a.cmp(*b, text));
        *left_out = Some(first.of(text).to_vec());
        places.truncate(kept);
        // From the front, each to where the one before it ends: never onto one that is still to be moved.
        places.sort_unstable_by_key(|place| place.start);
        let mut end = 0;
        for place in places {
            let range = place.range();
            let start = end;
            end += range.len();
            text.copy_within(range, start);
            *place = Place::new(start, end);
        }
        text.truncate(end);
    }

    /// Them in order, and whether any was left out.
    pub(super) fn sorted(self) -> (Names, bool) {
        let Smallest { text, mut places, left_out, .. } = self;
        places.sort_unstable_by(|a, b| a.cmp(*b, &text));
        (Names { text, places: places.into_iter() }, left_out.is_some())
    }
}

impl Place {
    fn new(start: usize, end: usize) -> Self {
        let short = |at| u32::try_from(at).unwrap_or(u32::MAX); // the room is far smaller
        Place { start: short(start), end: short(end) }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.range()).unwrap_or_default()
    }

    fn cmp(self, other: Self, text: &[u8]) -> Ordering {
        self.of(text).cmp(other.of(text))
    }
}

impl Names {
    pub(super) fn next(&mut self) -> Option<&str> {
        let place = self.places.next()?;
        str::from_utf8(place.of(&self.text)).ok()
    }

    /// The greatest of those that are still to come.
    pub(super) fn last(&self) -> Option<&str> {
        let place = self.places.as_slice().last()?;
        str::from_utf8(place.of(&self.text)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn all(mut names: Names) -> Vec<String> {
        std::iter::from_fn(|| names.next().map(str::to_owned)).collect()
    }

    fn smallest(room: usize, names: &[&str]) -> (Vec<String>, bool) {
        let mut smallest = Smallest::within(room);
        names.iter().for_each(|name| smallest.add(name));
        let (names, left_out) = smallest.sorted();
        (all(names), left_out)
    }

    #[test]
    fn names_are_sorted_by_their_bytes() {
        let names = ["b", "a.zst", "a", "ä", "a-", "B", "ab"];
        let sorted = ["B", "a", "a-", "a.zst", "ab", "b", "ä"].map(str::to_owned).to_vec();
        assert_eq!(smallest(1 << 20, &names), (sorted, false));
        assert_eq!(smallest(1 << 20, &[]), (vec![], false));
    }

    #[test]
    fn one_name_is_kept_however_long_it_is() {
        let long = "x".repeat(255);
        assert_eq!(smallest(0, &[&long]), (vec![long.clone()], false));
        assert_eq!(smallest(0, &[&long, "z", "a", "b"]), (vec!["a".to_owned()], true));
    }

    #[test]
    fn a_million_names_of_segments_fit_into_one_pass() {
        let mut smallest = Smallest::within(super::super::listing::ROOM);
        (0..1_000_000u32).for_each(|number| smallest.add(&format!("{:024X}.zst", number.reverse_bits())));
        let (mut names, left_out) = smallest.sorted();
        assert!(!left_out && names.places.len() == 1_000_000);
        let mut before = String::new();
        while let Some(name) = names.next() {
            assert!(*before < *name);
            before.clear();
            before.push_str(name);
        }
    }

    proptest! {
        #[test]
        fn as_many_as_there_is_room_for_are_the_smallest(
            names in proptest::collection::hash_set("[a-dä]{0,9}", 0..200), room in 0usize..2000
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let model: BTreeSet<&str> = names.iter().copied().collect();
            let (found, left_out) = smallest(room, &names);
            prop_assert!(found.iter().zip(&model).all(|(name, expected)| name == expected));
            prop_assert_eq!(left_out, found.len() < model.len());
            let held: usize = found.iter().map(|name| name.len() + 8).sum();
            prop_assert!(held <= room || found.len() <= 1);
            // At least a third of the room is used, a long name apart.
            prop_assert!(!left_out || held + 40 >= room / 3, "{held} of {room}");
        }
    }
}
