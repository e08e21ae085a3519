//! What it would cost to fetch something again, by what the last pulls took. Pure.

use sampan_stats::PullRecord;

/// A pull that fetched less says more of latency than of speed.
const FETCHED_BYTES_MIN: u64 = 1_000_000;
/// The newest of them decide: links change.
const PULLS: usize = 10;
/// How many past pulls are looked through for those.
pub(crate) const HISTORY: u32 = 200;

/// Bytes per second that the newest pulls fetched, newest first in `pulls`; `None`: none fetched enough to tell.
pub(crate) fn link_rate(pulls: &[PullRecord]) -> Option<u64> {
    let mut measured = pulls.iter().filter_map(|pull| {
        let millis = pull.ended?.since(pull.started);
        (pull.fetched_bytes >= FETCHED_BYTES_MIN && millis > 0).then_some((pull.fetched_bytes, millis))
    });
    let (bytes, millis) =
        measured.by_ref().take(PULLS).fold((0_u128, 0_u128), |(bytes, millis), (more, longer)| {
            (bytes + u128::from(more), millis + u128::from(longer))
        });
    (bytes * 1000).checked_div(millis).and_then(|rate| u64::try_from(rate).ok()).filter(|rate| *rate > 0)
}

/// Whole seconds that `bytes` would take at `rate`.
pub(crate) fn refetch_seconds(bytes: u64, rate: Option<u64>) -> Option<u64> {
    rate.filter(|rate| *rate > 0).map(|rate| bytes.div_ceil(rate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sampan_oci::{Millis, Reference};
    use sampan_stats::PullState;

    fn pull(fetched_bytes: u64, seconds: Option<i64>) -> PullRecord {
        PullRecord {
            id: 1,
            image: "docker.io/library/nginx".parse().unwrap(),
            reference: Reference::Tag("1".parse().unwrap()),
            started: Millis(0),
            ended: seconds.map(|seconds| Millis(seconds * 1000)),
            state: PullState::Complete,
            stale: None,
            size_bytes: None,
            done_bytes: 0,
            fetched_bytes,
            rate: None,
            eta_seconds: None,
            connections: 0,
            retries: 0,
            repaired: 0,
            waiting: false,
            layers: Vec::new(),
            client: "docker".into(),
        }
    }

    #[test]
    fn the_speed_is_that_of_the_newest_pulls_that_fetched_something() {
        let table: [(Vec<PullRecord>, Option<u64>); 5] = [
            (vec![], None),
            (vec![pull(999_999, Some(1)), pull(0, Some(5))], None),
            (vec![pull(50_000_000, None)], None),
            (
                vec![pull(10_000_000, Some(10)), pull(20_000_000, Some(5)), pull(10, Some(900))],
                Some(2_000_000),
            ),
            (vec![pull(5_000_000, Some(0))], None),
        ];
        for (pulls, rate) in table {
            assert_eq!(link_rate(&pulls), rate, "{pulls:?}");
        }
        let mut many = vec![pull(2_000_000, Some(1)); PULLS];
        many.push(pull(900_000_000, Some(1)));
        assert_eq!(link_rate(&many), Some(2_000_000), "what is long ago no longer counts");
    }

    #[test]
    fn without_a_measured_speed_no_time_is_claimed() {
        assert_eq!(refetch_seconds(84_000_000, Some(700_000)), Some(120));
        assert_eq!(refetch_seconds(1, Some(700_000)), Some(1), "rounded up");
        assert_eq!(refetch_seconds(84_000_000, None), None);
    }
}
