//! How one upstream does: how soon it answers, how fast it brings bytes, how often it fails. Pure; time is brought along.
//!
//! What was measured counts half as much after each [`HALF_LIFE`]. An upstream that did not answer rests, each time for
//! longer; when the rest is over one question goes first, and finds out.

use std::time::Duration;

use tokio::time::Instant;

/// After this time something measured counts half as much as something new.
const HALF_LIFE: Duration = Duration::from_secs(20);
/// The least a new measurement counts, however soon it follows the one before.
const LEAST: f64 = 0.25;
/// A speed older than this says little: it is worth measuring again beside the others' work.
const FRESH: Duration = Duration::from_mins(1);
/// The first rest after a failure; each further one doubles it, up to the longest.
const REST: Duration = Duration::from_secs(30);
const REST_AT_MOST: Duration = Duration::from_mins(10);
/// A probe that was not heard of for so long is not awaited.
const PROBE_AT_MOST: Duration = Duration::from_mins(1);
/// What an upstream of which nothing is known may be expected to take for its answer's head.
const UNKNOWN_FIRST_BYTE: Duration = Duration::from_millis(600);
/// The blob by which upstreams are compared where none is at hand.
const USUAL_BYTES: u64 = 8 * 1024 * 1024;
/// A failure costs as much as this, and less as it is forgotten.
const FAILURE_COSTS: f64 = 1.0;
/// Over how long a speed is measured.
const SAMPLE: Duration = Duration::from_secs(1);

/// Something measured again and again.
#[derive(Clone, Copy, Debug)]
struct Aged {
    value: f64,
    at: Instant,
}

/// What is left of a weight of 1 after `age`.
fn faded(age: Duration) -> f64 {
    0.5_f64.powf(age.as_secs_f64() / HALF_LIFE.as_secs_f64())
}

fn aged(before: Option<Aged>, value: f64, now: Instant) -> Aged {
    let Some(before) = before else { return Aged { value, at: now } };
    let new = (1.0 - faded(now.saturating_duration_since(before.at))).max(LEAST);
    Aged { value: before.value + (value - before.value) * new, at: now }
}

/// The weather of one upstream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    first_byte: Option<Aged>,
    rate: Option<Aged>,
    failures: Option<Aged>,
    /// Since when, and from how many bytes on, its speed is measured.
    sample: Option<(Instant, u64)>,
    /// Failures in a row that made it rest, and until when.
    rest: Option<(u32, Instant)>,
    probing: Option<Instant>,
    /// Blob bytes it brought.
    bytes: u64,
}

impl Weather {
    /// An answer's head came after so long.
    pub(crate) fn answered(&mut self, after: Duration, now: Instant) {
        self.first_byte = Some(aged(self.first_byte, after.as_secs_f64(), now));
        (self.rest, self.probing) = (None, None);
    }

    /// It brought bytes of a blob.
    pub(crate) fn brought(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Looks at how fast it is. `active`: bytes of it are awaited now; `excused`: how fast they come says nothing of it.
    pub(crate) fn look(&mut self, active: bool, excused: bool, now: Instant) {
        match self.sample {
            _ if !active || excused => self.sample = None,
            None => self.sample = Some((now, self.bytes)),
            Some((since, from)) if now - since >= SAMPLE => {
                self.measured(self.bytes - from, now - since, now);
                self.sample = Some((now, self.bytes));
            }
            Some(_) => {}
        }
    }

    /// It brought `bytes` in `time`.
    #[expect(clippy::cast_precision_loss, reason = "speeds need no 53 bits")]
    fn measured(&mut self, bytes: u64, time: Duration, now: Instant) {
        self.rate = Some(aged(self.rate, bytes as f64 / time.as_secs_f64().max(0.001), now));
    }

    /// One connection brought its part at `rate` bytes per second; all that is known of work too short to be measured.
    #[expect(clippy::cast_precision_loss, reason = "speeds need no 53 bits")]
    pub(crate) fn part_at(&mut self, rate: u64, now: Instant) {
        if self.rate(now).is_none() {
            self.rate = Some(Aged { value: rate as f64, at: now });
        }
    }

    /// Something failed that another upstream may do better.
    pub(crate) fn failed(&mut self, now: Instant) {
        let before = self.failures(now);
        self.failures = Some(Aged { value: before + 1.0, at: now });
    }

    /// It did not answer at all.
    pub(crate) fn silent(&mut self, now: Instant) {
        self.failed(now);
        self.probing = None;
        // Questions that were on their way together are one failure.
        if self.is_resting(now) {
            return;
        }
        let round = self.rest.map_or(0, |(round, _)| round + 1);
        let rest = REST.saturating_mul(2_u32.saturating_pow(round)).min(REST_AT_MOST);
        self.rest = Some((round, now + rest));
    }

    /// Whether nobody asks it now.
    pub(crate) fn is_resting(&self, now: Instant) -> bool {
        self.rest.is_some_and(|(_, until)| until > now)
    }

    /// Until when nobody asks it.
    pub(crate) fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.rest.map(|(_, until)| until).filter(|until| *until > now)
    }

    /// Whether its last question had no answer: the next one is not one to wait for.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.rest.is_some()
    }

    /// Takes the turn to ask an upstream that rested, unless somebody has it; of any other one everybody may ask.
    pub(crate) fn may_ask(&mut self, now: Instant) -> bool {
        if self.rest.is_none() {
            return true;
        }
        let asked = self.probing.is_some_and(|since| now.saturating_duration_since(since) < PROBE_AT_MOST);
        if asked || self.is_resting(now) {
            return false;
        }
        self.probing = Some(now);
        true
    }

    /// The time to an answer's head, smoothed.
    pub(crate) fn first_byte(&self) -> Option<Duration> {
        self.first_byte.map(|aged| Duration::from_secs_f64(aged.value.max(0.0)))
    }

    /// Bytes per second, smoothed, while that is worth something.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a speed is no negative number"
    )]
    pub(crate) fn rate(&self, now: Instant) -> Option<u64> {
        self.rate.filter(|aged| now.saturating_duration_since(aged.at) < FRESH).map(|aged| aged.value as u64)
    }

    /// The same, however old.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a speed is no negative number"
    )]
    pub(crate) fn last_rate(&self) -> Option<u64> {
        self.rate.map(|aged| aged.value as u64)
    }

    /// Failures, each counting less as it is forgotten.
    pub(crate) fn failures(&self, now: Instant) -> f64 {
        self.failures.map_or(0.0, |aged| aged.value * faded(now.saturating_duration_since(aged.at)))
    }

    /// Blob bytes it brought so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many seconds it may be expected to take for `bytes`; of what is not known of it `usual`, in bytes per second,
    /// is believed. Upstreams are compared by this: the least is the best.
    #[expect(clippy::cast_precision_loss, reason = "a comparison needs no 53 bits")]
    pub(crate) fn expected_seconds(&self, bytes: Option<u64>, usual: Option<u64>, now: Instant) -> f64 {
        let first = self.first_byte().unwrap_or(UNKNOWN_FIRST_BYTE).as_secs_f64();
        let rate = self.last_rate().or(usual).unwrap_or(u64::MAX).max(1);
        first + bytes.unwrap_or(USUAL_BYTES) as f64 / rate as f64 + self.failures(now) * FAILURE_COSTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn measured(rate: u64, first_byte: Duration, now: Instant) -> Weather {
        let mut weather = Weather::default();
        weather.answered(first_byte, now);
        weather.part_at(rate, now);
        weather
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_measured_long_ago_counts_little() {
        let now = Instant::now();
        let mut weather = measured(1_000_000, SECOND, now);
        weather.measured(2_000_000, SECOND, now);
        assert_eq!(weather.rate(now), Some(1_250_000), "a moment later a quarter");
        let later = now + HALF_LIFE;
        weather.measured(250_000, SECOND, later);
        assert_eq!(weather.rate(later), Some(750_000), "after its half-life half");
        let much_later = later + 10 * HALF_LIFE;
        weather.measured(100_000, SECOND, much_later);
        assert!(weather.rate(much_later).unwrap() < 101_000, "much later all");
        assert_eq!(weather.rate(much_later + FRESH), None, "and then it is measured again");
        assert!(weather.last_rate().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_question_finds_out_whether_a_dead_upstream_is_back() {
        let mut now = Instant::now();
        let mut weather = Weather::default();
        assert!(weather.may_ask(now) && weather.may_ask(now), "nothing is held against it");
        for rest in [30, 60, 120, 240, 480, 600, 600] {
            weather.silent(now);
            weather.silent(now);
            assert!(!weather.may_ask(now + (rest - 1) * SECOND), "{rest} s");
            now += rest * SECOND;
            assert!(weather.may_ask(now), "{rest} s");
            assert!(!weather.may_ask(now), "one at a time");
        }
        weather.answered(SECOND, now);
        assert!(weather.may_ask(now) && weather.may_ask(now) && !weather.is_doubtful());
    }

    #[tokio::test(start_paused = true)]
    async fn the_best_is_the_one_that_brings_this_blob_the_soonest() {
        let now = Instant::now();
        let near = measured(1_000_000, Duration::from_millis(20), now);
        let fast = measured(10_000_000, Duration::from_millis(500), now);
        let expects = |weather: &Weather, bytes| weather.expected_seconds(Some(bytes), None, now);
        assert!(expects(&near, 1000) < expects(&fast, 1000), "a small one by the quick answer");
        assert!(expects(&fast, 10_000_000) < expects(&near, 10_000_000), "a large one by the speed");
        let mut failing = fast.clone();
        for _ in 0..20 {
            failing.failed(now);
        }
        assert!(expects(&near, 10_000_000) < expects(&failing, 10_000_000), "failures count");
        let later = now + 10 * HALF_LIFE;
        assert!(failing.failures(later) < 0.1, "and are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_speed_is_measured_only_while_bytes_are_awaited() {
        let mut now = Instant::now();
        let mut weather = Weather::default();
        for second in 0..5 {
            weather.look(true, second == 2, now);
            weather.brought(1000);
            now += SECOND;
        }
        assert_eq!(weather.rate(now), Some(1000));
        weather.look(false, false, now);
        now += 10 * SECOND;
        weather.look(true, false, now);
        now += SECOND;
        weather.look(true, false, now);
        assert!(weather.rate(now).unwrap() < 1000, "awaited, and none came");
    }
}
