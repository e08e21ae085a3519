//! One measurement of a link: how many bytes per second so many connections bring.

use std::time::{Duration, Instant};

/// While the rate still grows by more than this within its last half, a measurement goes on for a quarter of its length, at
/// most so many times.
const STILL_GROWING: f64 = 1.2;
const LONGER_AT_MOST: u32 = 4;

/// What is seen of an upstream's link, every 100 to 250 ms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// All body bytes that came so far, of all blobs. Never less than before.
    pub(crate) received: u64,
    /// Connections in use.
    pub(crate) in_use: usize,
    /// Whether as many connections as [`Level::now`] says had work, ever since the last sample.
    pub(crate) saturated: bool,
    /// Whether the person's speed limit held bytes back since the last sample.
    pub(crate) throttled: bool,
    /// The time between a question and its answer, if any is known.
    pub(crate) round_trip: Option<Duration>,
}

/// One measurement while it goes on. Every sample of it was saturated.
#[derive(Debug)]
pub(super) struct Epoch {
    /// When, and how many bytes had come by then.
    samples: Vec<(Instant, u64)>,
    last: (Instant, u64),
    throttled: usize,
    /// The fewest connections in use at any time.
    in_use: usize,
    longer: u32,
}

/// What a measurement says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Bytes per second.
    pub(super) rate: f64,
    /// The fewest connections in use at any time.
    pub(super) in_use: usize,
    /// Whether the person's limit set the rate.
    pub(super) throttled: bool,
}

impl Epoch {
    /// Begins with a saturated sample.
    pub(super) fn begin(at: Instant, sample: &Sample) -> Self {
        let last = (at, sample.received);
        Self { samples: vec![last], last, throttled: 0, in_use: sample.in_use, longer: 0 }
    }

    /// When the last sample was taken.
    pub(super) fn last(&self) -> Instant {
        self.last.0
    }

    /// The next saturated sample.
    pub(super) fn add(&mut self, at: Instant, sample: &Sample) {
        self.last = (at, sample.received);
        self.samples.push(self.last);
        self.throttled += usize::from(sample.throttled);
        self.in_use = self.in_use.min(sample.in_use);
    }

    /// What it says, once it took `length`; or longer if the connections are new and still grow. Of new ones only the last
    /// half counts.
    pub(super) fn measured(&mut self, length: Duration, grown: bool) -> Option<Measured> {
        let (end, _) = self.last;
        let begun = self.samples.first().map_or(end, |(at, _)| *at);
        if end.saturating_duration_since(begun) < length + length / 4 * self.longer {
            return None;
        }
        let from = if grown { begun } else { end.checked_sub(length / 2).unwrap_or(begun) };
        if !grown && self.longer < LONGER_AT_MOST {
            let middle = end.checked_sub(length / 4).unwrap_or(begun);
            if self.rate(middle, end) > STILL_GROWING * self.rate(from, middle) {
                self.longer += 1;
                return None;
            }
        }
        // Now and then a burst is held back even by a limit above what the link brings.
        let throttled = 2 * self.throttled >= self.samples.len() - 1;
        Some(Measured { rate: self.rate(from, end), in_use: self.in_use, throttled })
    }

    /// Bytes per second between two moments.
    fn rate(&self, from: Instant, to: Instant) -> f64 {
        let seconds = to.saturating_duration_since(from).as_secs_f64();
        if seconds > 0.0 { (self.received(to) - self.received(from)).max(0.0) / seconds } else { 0.0 }
    }

    /// Bytes of this measurement that had come by `at`: between two samples, evenly.
    fn received(&self, at: Instant) -> f64 {
        let first = self.samples.first().map_or(0, |(_, received)| *received);
        let since_first = |received: u64| f64::from(u32::try_from(received - first).unwrap_or(u32::MAX));
        let next = self.samples.partition_point(|(sampled, _)| *sampled < at);
        let Some(&(after, high)) = self.samples.get(next) else { return since_first(self.last.1) };
        let Some(&(before, low)) = self.samples[..next].last() else { return since_first(high) };
        let part = (at - before).as_secs_f64() / (after - before).as_secs_f64();
        since_first(low) + (since_first(high) - since_first(low)) * part
    }
}
