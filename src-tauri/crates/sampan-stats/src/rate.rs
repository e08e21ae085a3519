//! Speed over a sliding window. Pure: whoever asks brings the time.

use std::collections::VecDeque;

use sampan_oci::Millis;

/// The window's length.
const WINDOW_MILLIS: u64 = 20_000;
/// Bytes reported within this time share one entry, which bounds a window at 41 entries.
const BUCKET_MILLIS: u64 = 500;
/// Below this there is too little to tell a speed from.
const SPAN_MILLIS_MIN: u64 = 1_000;

/// Bytes of the last 20 s, and since when they flow.
#[derive(Clone, Debug, Default)]
pub(crate) struct RateWindow {
    began: Option<Millis>,
    buckets: VecDeque<(Millis, u64)>,
}

impl RateWindow {
    /// The first byte is awaited from `at` on; later calls change nothing.
    pub(crate) fn begin(&mut self, at: Millis) {
        self.began.get_or_insert(at);
    }

    /// `bytes` more were handed over by `at`. Reports that come late count as of the newest one.
    pub(crate) fn add(&mut self, at: Millis, bytes: u64) {
        self.begin(at);
        match self.buckets.back_mut() {
            Some((start, sum)) if at.since(*start) < BUCKET_MILLIS => *sum = sum.saturating_add(bytes),
            Some(_) | None => self.buckets.push_back((at, bytes)),
        }
        while self.buckets.front().is_some_and(|(start, _)| at.since(*start) >= WINDOW_MILLIS) {
            self.buckets.pop_front();
        }
    }

    /// Bytes per second over the last 20 s, or since the beginning where that is less; `None` in the first second.
    pub(crate) fn rate(&self, now: Millis) -> Option<u64> {
        let span = now.since(self.began?).min(WINDOW_MILLIS);
        if span < SPAN_MILLIS_MIN {
            return None;
        }
        let recent = self.buckets.iter().filter(|(start, _)| now.since(*start) < WINDOW_MILLIS);
        let bytes = recent.fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        Some(u64::try_from(u128::from(bytes) * 1000 / u128::from(span)).unwrap_or(u64::MAX))
    }
}

/// Whole seconds until `remaining` bytes have flowed; `None` while nothing flows.
pub(crate) fn eta_seconds(remaining: u64, rate: Option<u64>) -> Option<u64> {
    rate.filter(|&rate| rate > 0).map(|rate| remaining.div_ceil(rate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_steady_stream_has_its_speed_from_the_first_second_on() {
        let mut window = RateWindow::default();
        window.begin(Millis(0));
        assert_eq!(window.rate(Millis(999)), None, "too early to tell");
        for tick in 1..=400 {
            window.add(Millis(tick * 100), 1_000);
            if tick >= 10 {
                let rate = window.rate(Millis(tick * 100)).unwrap();
                assert!((9_500..=10_500).contains(&rate), "10 kB/s, not {rate}, after {tick} ticks");
            }
        }
    }

    #[test]
    fn a_stall_is_seen_and_forgotten_again() {
        let mut window = RateWindow::default();
        window.add(Millis(0), 100_000);
        assert_eq!(window.rate(Millis(10_000)), Some(10_000));
        assert_eq!(window.rate(Millis(20_000)), Some(0), "nothing in the last 20 s");
        window.add(Millis(60_000), 20_000);
        assert_eq!(window.rate(Millis(60_000)), Some(1_000), "over the whole window, the silence included");
    }

    #[test]
    fn a_clock_set_back_gives_no_speed_rather_than_a_wrong_one() {
        let mut window = RateWindow::default();
        window.add(Millis(1_000_000), 5);
        assert_eq!(window.rate(Millis(0)), None);
    }

    #[test]
    fn no_time_left_is_told_where_nothing_flows() {
        assert_eq!(eta_seconds(10, None), None);
        assert_eq!(eta_seconds(10, Some(0)), None);
        assert_eq!(eta_seconds(10, Some(3)), Some(4), "rounded up: never done too early");
        assert_eq!(eta_seconds(0, Some(3)), Some(0));
    }

    proptest! {
        #[test]
        fn a_window_stays_small_and_never_exceeds_what_was_added(
            adds in proptest::collection::vec((0_i64..200_000, 0_u64..1_000_000), 0..300), now in 0_i64..200_000,
        ) {
            let mut window = RateWindow::default();
            for (at, bytes) in &adds {
                window.add(Millis(*at), *bytes);
            }
            prop_assert!(window.buckets.len() <= 41);
            if let Some(rate) = window.rate(Millis(now)) {
                prop_assert!(rate <= adds.iter().map(|(_, bytes)| bytes).sum::<u64>());
            }
        }
    }
}
