//! How long things are waited for: pure rules over durations.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// The first pause after a failure; each further one doubles it, up to the longest.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_AT_MOST: Duration = Duration::from_secs(5);
/// How long a connection may say nothing: at least this, and never longer than the other.
const SILENCE_AT_LEAST: Duration = Duration::from_secs(3);
pub(super) const SILENCE_AT_MOST: Duration = Duration::from_secs(10);
/// Round trips a lost packet may take to come again, and the one after it.
const SILENT_ROUND_TRIPS: u32 = 12;
/// A connection this much slower than the median is not worth keeping.
const FAR_BELOW: u64 = 4;
/// What will be there within this time is not worth a new connection: what lies in the old one's buffers is lost, and its
/// sender has counted it as sent.
pub(super) const SOON: Duration = Duration::from_secs(4);

/// How long to wait before the `failures`th new attempt (from 1): doubling, and half of it random, so that connections
/// that broke together do not come back together.
pub(super) fn back_off(failures: u32) -> Duration {
    let full = PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(PAUSE_AT_MOST);
    // Randomly keyed by the standard library: enough for this, and no crate for it.
    let random = RandomState::new().build_hasher().finish() % 1024;
    full / 2 + full.mul_f64(f64::from(u16::try_from(random).unwrap_or(0)) / 2048.0)
}

/// How long a connection may be silent while others of the same upstream bring bytes. A lost packet costs a round trip or
/// two; a connection whose repeats are lost too waits ever longer, and a new one is quicker.
pub(super) fn silence(round_trip: Duration) -> Duration {
    (round_trip * SILENT_ROUND_TRIPS).clamp(SILENCE_AT_LEAST, SILENCE_AT_MOST)
}

/// How long `bytes` take at `rate` bytes per second.
pub(super) fn time_for(bytes: u64, rate: u64) -> Duration {
    bytes.saturating_mul(1000).checked_div(rate).map_or(Duration::MAX, Duration::from_millis)
}

/// Whether a connection that brings `rate` while the median brings `median` (bytes per second) is to be replaced, with
/// `remaining` bytes still to bring.
pub(super) fn is_far_below(rate: u64, median: u64, remaining: u64) -> bool {
    rate.saturating_mul(FAR_BELOW) < median && time_for(remaining, rate) > SOON
}

/// The middle of some rates; `None` for fewer than three, where no middle means anything.
pub(super) fn median(mut rates: Vec<u64>) -> Option<u64> {
    rates.sort_unstable();
    if rates.len() < 3 { None } else { rates.get(rates.len() / 2).copied() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_are_never_the_same_for_all() {
        for (failures, full) in [(1, 250), (2, 500), (3, 1000), (5, 4000), (6, 5000), (60, 5000)] {
            let full = Duration::from_millis(full);
            let pauses: Vec<_> = (0..64).map(|_| back_off(failures)).collect();
            assert!(pauses.iter().all(|pause| (full / 2..=full).contains(pause)), "{failures}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "64 connections would come back at once");
        }
    }

    #[test]
    fn silence_is_measured_in_round_trips_within_limits() {
        assert_eq!(silence(Duration::from_millis(1)), SILENCE_AT_LEAST);
        assert_eq!(silence(Duration::from_millis(300)), Duration::from_millis(3600));
        assert_eq!(silence(Duration::from_secs(5)), SILENCE_AT_MOST);
    }

    #[test]
    fn only_a_connection_far_behind_with_much_left_is_replaced() {
        assert!(is_far_below(24, 100, 1000));
        assert!(!is_far_below(25, 100, 1000), "four times is the limit");
        assert!(!is_far_below(24, 100, 50), "it is done in a moment");
        assert!(is_far_below(0, 100, 50), "nothing is never done");
        assert!(!is_far_below(0, 0, 50), "all are as slow");
    }

    #[test]
    fn a_median_needs_three() {
        assert_eq!(median(vec![1, 9]), None);
        assert_eq!(median(vec![9, 1, 5]), Some(5));
    }
}
