//! Which bytes of something are there: a set of byte ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of bytes, kept as the fewest ranges `start..end` (first byte, and the byte after the last): sorted, not empty,
/// and never touching each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start to end.
    runs: BTreeMap<u64, u64>,
    /// The sum of their lengths.
    bytes: u64,
}

impl RangeSet {
    /// A set without any byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the bytes of `range`; what is there already stays. An empty or reversed range adds nothing.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        // Those that overlap it or touch it, the last one first.
        while let Some((&s, &e)) = self.runs.range(..=end).next_back() {
            if e < start {
                break;
            }
            (start, end) = (start.min(s), end.max(e));
            self.runs.remove(&s);
            self.bytes -= e - s;
        }
        self.runs.insert(start, end);
        self.bytes += end - start;
    }

    /// Takes the bytes of `range` out. An empty or reversed range takes nothing.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&s, &e)) = self.runs.range(..range.end).next_back() {
            if e <= range.start {
                break;
            }
            self.runs.remove(&s);
            self.bytes -= e - s;
            for (start, end) in [(s, range.start), (range.end, e)] {
                if start < end {
                    self.runs.insert(start, end);
                    self.bytes += end - start;
                }
            }
            if s <= range.start {
                break;
            }
        }
    }

    /// Whether the byte at `at` is there.
    pub fn contains(&self, at: u64) -> bool {
        self.run_at(at).is_some()
    }

    /// Whether every byte of `range` is there. Of an empty range every byte is.
    pub fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.run_at(range.start).is_some_and(|run| range.end <= run.end)
    }

    /// Where the run of bytes that holds `at` ends: the first missing byte from `at` on. `at` itself if it is missing.
    pub fn end_of_run(&self, at: u64) -> u64 {
        self.run_at(at).map_or(at, |run| run.end)
    }

    /// What is missing of `range`, in order.
    pub fn gaps(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let Range { start, end } = range;
        let first = self.end_of_run(start);
        let runs = if start < end { Some(self.runs.range(start..end)) } else { None };
        runs.into_iter()
            .flatten()
            .map(|(&s, &e)| s..e)
            .chain(std::iter::once(end..end))
            .scan(first, |at, run| {
                let gap = *at..run.start;
                *at = (*at).max(run.end);
                Some(gap)
            })
            .filter(|gap| !gap.is_empty())
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.runs.iter().map(|(&start, &end)| start..end)
    }

    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many ranges there are.
    pub fn count(&self) -> usize {
        self.runs.len()
    }

    fn run_at(&self, at: u64) -> Option<Range<u64>> {
        let (&start, &end) = self.runs.range(..=at).next_back()?;
        (at < end).then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn set(ranges: &[(u64, u64)]) -> RangeSet {
        let mut set = RangeSet::new();
        for &(start, end) in ranges {
            set.insert(start..end);
        }
        set
    }

    fn pair(range: Range<u64>) -> (u64, u64) {
        (range.start, range.end)
    }

    fn runs(set: &RangeSet) -> Vec<(u64, u64)> {
        set.iter().map(pair).collect()
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let touching = set(&[(10, 20), (30, 40), (20, 30)]);
        assert_eq!(runs(&touching), [(10, 40)]);
        assert_eq!((touching.len(), touching.count()), (30, 1));
    }

    #[test]
    fn a_hole_splits_a_range() {
        let mut holed = set(&[(0, 100)]);
        holed.remove(40..60);
        assert_eq!(runs(&holed), [(0, 40), (60, 100)]);
        assert_eq!(holed.gaps(10..90).map(pair).collect::<Vec<_>>(), [(40, 60)]);
        assert_eq!((holed.end_of_run(0), holed.end_of_run(40), holed.end_of_run(99)), (40, 40, 100));
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "that they change nothing is the point")]
    fn empty_and_reversed_ranges_change_nothing() {
        let mut unchanged = set(&[(10, 20)]);
        for range in [15..15, 0..0, 18..12, 30..5] {
            unchanged.insert(range.clone());
            unchanged.remove(range.clone());
            assert!(unchanged.covers(&range));
            assert_eq!(unchanged.gaps(range).count(), 0);
        }
        assert_eq!(unchanged, set(&[(10, 20)]));
    }

    #[test]
    fn the_last_byte_of_all_can_be_held() {
        let all = set(&[(0, u64::MAX)]);
        assert_eq!(all.len(), u64::MAX);
        assert!(all.covers(&(0..u64::MAX)));
        assert_eq!(all.end_of_run(7), u64::MAX);
    }

    const BYTES: u64 = 60;

    proptest! {
        #[test]
        fn it_is_a_set_of_bytes(
            steps in prop::collection::vec((any::<bool>(), 0..BYTES, 0..BYTES), 0..60),
            asked in (0..BYTES, 0..BYTES),
        ) {
            let (mut set, mut model) = (RangeSet::new(), BTreeSet::new());
            for (adds, start, end) in steps {
                if adds {
                    set.insert(start..end);
                    model.extend(start..end);
                } else {
                    set.remove(start..end);
                    model.retain(|byte| !(start..end).contains(byte));
                }
                let held: Vec<u64> = set.iter().flatten().collect();
                prop_assert_eq!(held, model.iter().copied().collect::<Vec<_>>());
                prop_assert!(set.iter().all(|run| !run.is_empty()));
                let ends: Vec<Range<u64>> = set.iter().collect();
                prop_assert!(ends.windows(2).all(|pair| pair[0].end < pair[1].start), "they never touch");
                prop_assert_eq!(set.len(), model.len() as u64);
                prop_assert_eq!(set.is_empty(), model.is_empty());
                prop_assert_eq!(set.count(), set.iter().count());
            }
            let asked = asked.0..asked.1;
            let missing: Vec<u64> = set.gaps(asked.clone()).flatten().collect();
            prop_assert_eq!(missing, asked.clone().filter(|byte| !model.contains(byte)).collect::<Vec<_>>());
            prop_assert_eq!(set.covers(&asked), asked.clone().all(|byte| model.contains(&byte)));
            prop_assert_eq!(set.contains(asked.start), model.contains(&asked.start));
            let missing = (asked.start..=BYTES).find(|byte| !model.contains(byte));
            prop_assert_eq!(Some(set.end_of_run(asked.start)), missing);
        }
    }
}
