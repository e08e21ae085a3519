//! Which bytes of one blob the client has.

/// The most separate ranges remembered of one blob; beyond it the closest two count as one.
const RANGES_MAX: usize = 64;

/// Ranges delivered by any number of answers, resumed, parallel or repeated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delivered {
    /// Sorted, apart from each other, `start..end`.
    ranges: Vec<(u64, u64)>,
    most: u64,
}

impl Delivered {
    /// Bytes `start..end` were handed over. An empty range says that the client has what lies before it.
    pub(crate) fn cover(&mut self, start: u64, end: u64) {
        let (mut start, mut end) = (start, end.max(start));
        self.ranges.retain(|&(s, e)| {
            let apart = e < start || s > end;
            if !apart {
                (start, end) = (start.min(s), end.max(e));
            }
            apart
        });
        let at = self.ranges.partition_point(|&(s, _)| s < start);
        self.ranges.insert(at, (start, end));
        if self.ranges.len() > RANGES_MAX {
            self.join_the_closest();
        }
        self.most = self.most.max(self.sum());
    }

    /// Bytes the client has. What lies before the first range it had already, or it would have asked for it
    /// (a resumed download). Never shrinks, so that no progress bar runs backwards.
    pub(crate) fn bytes(&self) -> u64 {
        self.most
    }

    fn sum(&self) -> u64 {
        let before = self.ranges.first().map_or(0, |&(start, _)| start);
        self.ranges.iter().fold(before, |sum, (start, end)| sum.saturating_add(end - start))
    }

    fn join_the_closest(&mut self) {
        let gap = |pair: &[(u64, u64)]| pair[1].0 - pair[0].1;
        let closest = self.ranges.windows(2).enumerate().min_by_key(|(_, pair)| gap(pair));
        if let Some((at, _)) = closest {
            let (_, end) = self.ranges.remove(at + 1);
            self.ranges[at].1 = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(ranges: &[(u64, u64)]) -> u64 {
        let mut delivered = Delivered::default();
        for &(start, end) in ranges {
            delivered.cover(start, end);
        }
        delivered.bytes()
    }

    #[test]
    fn bytes_sent_twice_are_had_once() {
        assert_eq!(after(&[(0, 60), (0, 60)]), 60, "a repeated GET");
        assert_eq!(after(&[(0, 60), (50, 100)]), 100, "a resume that overlaps");
        assert_eq!(after(&[(0, 10), (50, 60), (20, 30)]), 30, "parallel ranges: the holes are missing");
    }

    #[test]
    fn a_resume_counts_what_the_client_had_before() {
        assert_eq!(after(&[(50, 50)]), 50, "asked for the rest, so it has the beginning");
        assert_eq!(after(&[(50, 100)]), 100);
        assert_eq!(after(&[(50, 100), (0, 10)]), 100, "a second client takes nothing away from the first");
    }

    proptest! {
        #[test]
        fn it_grows_stays_below_the_highest_end_and_stays_small(
            ranges in proptest::collection::vec((0_u64..10_000, 0_u64..200), 1..200),
        ) {
            let mut delivered = Delivered::default();
            let (mut before, mut highest) = (0, 0);
            for (start, len) in ranges {
                delivered.cover(start, start + len);
                highest = highest.max(start + len);
                prop_assert!(delivered.bytes() >= before && delivered.bytes() <= highest);
                prop_assert!(delivered.ranges.len() <= RANGES_MAX);
                prop_assert!(delivered.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "sorted and apart");
                before = delivered.bytes();
            }
        }
    }
}
