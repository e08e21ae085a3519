//! How many connections one upstream is worth: found by trying, never fixed.
//!
//! Where packets are lost and the sender takes every loss for a full link, each connection brings the same small rate, and
//! the sum grows with their number, to 64 and beyond. Where the sender does not mind loss, two to four fill the link, and
//! more only make it lose packets. On a clean link one or two do. Which it is shows only in what more or fewer bring.

use std::time::{Duration, Instant};

use epoch::{Epoch, Measured};

pub(crate) use epoch::Sample;

mod epoch;
/// Whether each of so many connections, which bring `rate` together, carries so little that loss or a narrow link must hold
/// it back.
fn are_held_back(connections: usize, rate: f64, round_trip: Duration) -> bool {
    round_trip >= FAR && window(connections, rate, round_trip) < SMALL_WINDOW
}

/// The bytes that each of so many connections has in flight.
fn window(connections: usize, rate: f64, round_trip: Duration) -> f64 {
    rate / number(connections) * round_trip.as_secs_f64()
}

#[cfg(test)]
mod tests;

/// What is tried first.
const START: usize = 8;
/// Up to here fewer are tried one by one.
const FEW: usize = 4;
/// A measurement takes so many round trips: time for new connections to grow, and then to see what they bring.
const EPOCH_ROUND_TRIPS: u32 = 8;
const EPOCH_AT_LEAST: Duration = Duration::from_millis(400);
/// Where small differences count.
const EPOCH_AT_LEAST_FINE: Duration = Duration::from_secs(1);
const EPOCH_AT_MOST: Duration = Duration::from_secs(3);
/// Assumed until a round trip was measured.
pub(super) const ROUND_TRIP_UNKNOWN: Duration = Duration::from_millis(200);
/// Samples further apart say nothing about the time between them.
const SAMPLES_APART_AT_MOST: Duration = Duration::from_secs(2);

/// From this round trip on, climbing takes big steps if connections have small windows.
const FAR: Duration = Duration::from_millis(60);
/// A connection with fewer bytes in flight is held back by loss, or shares a narrow link; which of them, one big step tells.
/// Small ones would compare connections that are new with others that are not, and new ones bring more at first.
const SMALL_WINDOW: f64 = 128.0 * 1024.0;
/// With fewer still there is no need to wait until it has stopped growing.
const TINY_WINDOW: f64 = 56.0 * 1024.0;
/// A connection that brings fewer bytes per second is slow, wherever it leads to.
const SLOW_EACH: f64 = 400.0 * 1024.0;
const BIG_STEP: f64 = 4.0;
const STEP: f64 = 2.0;
/// More connections are kept if they bring at least this part of what as many more should bring.
const WORTH_IT: f64 = 0.25;
/// Below this part of it, they are kept, but fewer of them may do as well.
const SUSPICIOUS: f64 = 0.5;

/// Fewer connections are kept if they bring this part of the rate, given up if they bring less than the other, and
/// measured longer in between: a link's rate varies by a fifth from one moment to the next.
const AS_GOOD: f64 = 0.95;
const TOO_FEW: f64 = 0.85;
/// Enough for half the connections, if nothing clearer comes out.
const NEARLY_AS_GOOD: f64 = 0.9;
/// So many measurements before fewer connections, which must first grow into what the others left, are judged; more before
/// a few less are taken for as good; and at most so many.
const JUDGED_AFTER: u32 = 2;
const ACCEPTED_AFTER: u32 = 3;
const JUDGED_AT_LAST: u32 = 5;
/// How long connections may take to end after the level was lowered. If there are more then, there are as many blobs.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// How long a level that was found is kept before something else is tried; doubled while that changes nothing.
const HOLD: Duration = Duration::from_secs(15);
const HOLD_AT_MOST: Duration = Duration::from_mins(2);
/// A link whose rate was so far off the level's, below or above, for so many measurements is another link.
const OTHER_LINK: std::ops::Range<f64> = 0.5..1.7;
const OTHER_LINK_AFTER: u32 = 2;
/// How much a new measurement counts in what a level that is kept brings.
const HOLD_WEIGHT: f64 = 0.2;
/// How much a new measurement counts in what fewer connections bring.
const FINE_WEIGHT: f64 = 0.3;
/// How long an upstream that refused connections is left in peace, if it does not ask for longer.
const REFUSED: Duration = Duration::from_secs(30);
/// Refusals this close together are one: many connections are told the same.
const REFUSED_ONCE: Duration = Duration::from_secs(2);

/// The number of connections that one upstream is worth, between 1 and the most there may be.
#[derive(Debug)]
pub(crate) struct Level {
    max: usize,
    now: usize,
    phase: Phase,
    /// The measurement that goes on, if one does.
    epoch: Option<Epoch>,
    /// Whether the connections are the same as in the measurement before, which have grown already.
    grown: bool,
    hold: Duration,
    refused_at: Option<Instant>,
    refused_until: Option<Instant>,
    /// Whether the last round trip was a long one.
    far: bool,
}

/// What is being found out. Rates are in bytes per second.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// What this level brings, before more are tried.
    Base,
    /// Whether this level brings more than `from` did.
    Up {
        from: usize,
        rate: f64,
        mean: Mean,
    },
    Down(Down),
    Hold(Hold),
}

/// Whether this level brings as much as `from` did.
#[derive(Clone, Copy, Debug)]
struct Down {
    from: usize,
    rate: f64,
    /// So few are known to bring less; 0 if nothing is known.
    floor: usize,
    /// The person's limit, not the link, sets the rate.
    throttled: bool,
    since: Instant,
    mean: Mean,
}

/// Nothing: the level is kept.
#[derive(Clone, Copy, Debug)]
struct Hold {
    /// When something else is tried. `None`: more would be worth it, but there may not be more.
    until: Option<Instant>,
    mean: Mean,
    /// How many measurements, one after the other, looked like another link.
    off: u32,
    throttled: bool,
}

/// A mean of measurements, the later ones counting more.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    rate: f64,
    count: u32,
}

impl Mean {
    fn of(rate: f64) -> Self {
        Self { rate, count: 1 }
    }

    /// With one more; of many, each new one counts `weight`.
    fn with(self, rate: f64, weight: f64) -> Self {
        let weight = weight.max(1.0 / f64::from(self.count + 1));
        Self { rate: self.rate + (rate - self.rate) * weight, count: self.count + 1 }
    }
}

impl Level {
    /// The first guess, at most `max`, which is at least 1.
    pub(crate) fn new(max: usize) -> Self {
        let max = max.max(1);
        Self {
            max,
            now: START.min(max),
            phase: Phase::Base,
            epoch: None,
            grown: false,
            hold: HOLD,
            refused_at: None,
            refused_until: None,
            far: false,
        }
    }

    /// How many connections are wanted now.
    pub(crate) fn now(&self) -> usize {
        self.now
    }

    /// Whether the number was found: nothing else is tried for the time being.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Hold { .. })
    }

    /// The upstream refused connections and asked to be left alone `pause` long: half of them, and no more for a while.
    pub(crate) fn refused(&mut self, at: Instant, pause: Duration) {
        let until = at + pause.max(REFUSED);
        let again = self.refused_at.is_some_and(|before| at.saturating_duration_since(before) < REFUSED_ONCE);
        self.refused_until = self.refused_until.max(Some(until));
        if !again {
            self.refused_at = Some(at);
            let hold = Hold { until: Some(until), mean: Mean::default(), off: 0, throttled: false };
            self.go(self.now / 2, Phase::Hold(hold));
        }
    }

    /// What was seen by `at`. Changes [`Level::now`] at the end of a measurement.
    pub(crate) fn observe(&mut self, at: Instant, sample: Sample) {
        self.far = sample.round_trip.unwrap_or(ROUND_TRIP_UNKNOWN) >= FAR;
        if let Phase::Down(down) = self.phase
            && sample.in_use > self.now
        {
            // The connections above the level have not ended yet.
            self.epoch = None;
            if at.saturating_duration_since(down.since) >= SETTLED_AFTER {
                self.keep(at, down.from, down.rate, down.throttled);
            }
            return;
        }
        let round_trip = sample.round_trip.unwrap_or(ROUND_TRIP_UNKNOWN);
        let follows =
            |epoch: &&mut Epoch| at.saturating_duration_since(epoch.last()) <= SAMPLES_APART_AT_MOST;
        let Some(epoch) = self.epoch.as_mut().filter(|_| sample.saturated).filter(follows) else {
            self.epoch = sample.saturated.then(|| Epoch::begin(at, &sample));
            return;
        };
        epoch.add(at, &sample);
        let at_least = match self.phase {
            Phase::Base | Phase::Up { .. } => EPOCH_AT_LEAST,
            Phase::Down(_) | Phase::Hold(_) => EPOCH_AT_LEAST_FINE,
        };
        let length = (round_trip * EPOCH_ROUND_TRIPS).clamp(at_least, EPOCH_AT_MOST);
        let Some(measured) = epoch.measured(length, self.grown) else { return };
        self.epoch = Some(Epoch::begin(at, &sample));
        if measured.rate > 0.0 {
            let new = !std::mem::replace(&mut self.grown, true);
            // New connections with large windows may still grow: what more of them add is known only against what these
            // bring once they do not.
            let tiny = round_trip >= FAR && window(self.now, measured.rate, round_trip) < TINY_WINDOW;
            let still_growing = new && !tiny;
            if !(still_growing && matches!(self.phase, Phase::Base)) {
                self.judge(at, &measured, round_trip);
            }
        }
    }

    fn is_held_back(&self, rate: f64, round_trip: Duration) -> bool {
        are_held_back(self.now, rate, round_trip)
    }

    fn judge(&mut self, at: Instant, measured: &Measured, round_trip: Duration) {
        let Measured { rate, in_use, throttled } = *measured;
        match self.phase {
            Phase::Base | Phase::Up { .. } if throttled => self.try_fewer(at, self.now, rate, 0, true),
            Phase::Base | Phase::Up { .. } if in_use > self.now => {
                // More blobs than connections wanted: each has one, and so many brought this rate.
                self.now = in_use.min(self.max);
                self.climb(at, rate, round_trip);
            }
            Phase::Base => self.begin(at, rate, round_trip),
            Phase::Up { from, rate: before, mean } => {
                self.judge_more(at, from, before, mean.with(rate, 0.5), round_trip);
            }
            Phase::Down(down) if throttled && !down.throttled => self.try_fewer(at, self.now, rate, 0, true),
            Phase::Down(down) => self.judge_fewer(at, measured, down),
            // More blobs than connections wanted: this says nothing about the level.
            Phase::Hold(_) if in_use > self.now => {}
            Phase::Hold(hold) => self.watch(at, measured, hold),
        }
    }

    fn judge_more(&mut self, at: Instant, from: usize, before: f64, mean: Mean, round_trip: Duration) {
        let (gain, ratio) = (mean.rate / before, number(self.now) / number(from));
        if ratio < 2.0 && mean.count < JUDGED_AFTER {
            // A small step must be told from noise.
            self.phase = Phase::Up { from, rate: before, mean };
        } else if gain >= 1.0 + WORTH_IT * (ratio - 1.0) {
            self.hold = HOLD;
            if gain < SUSPICIOUS * ratio {
                self.try_fewer(at, self.now, mean.rate, from, false);
            } else if self.now == self.max && !are_held_back(from, before, round_trip) {
                // It was not loss that led here, and the rate may have grown by itself meanwhile.
                self.try_fewer(at, self.now, mean.rate, 0, false);
            } else {
                self.climb(at, mean.rate, round_trip);
            }
        } else if gain > 1.0 + WORTH_IT {
            // New connections bring more at first than they can keep up, so that the few before looked better than they
            // were: kept for now.
            self.keep(at, self.now, mean.rate, false);
        } else {
            // Both rates are what the full link brings.
            self.try_fewer(at, from, f64::midpoint(mean.rate, before), 0, false);
        }
    }

    fn judge_fewer(&mut self, at: Instant, measured: &Measured, down: Down) {
        let mean = down.mean.with(measured.rate, FINE_WEIGHT);
        let part = mean.rate / down.rate;
        // One connection less can hardly be told from noise; half of them can.
        let small = 2 * self.now > down.from;
        let (as_good, too_few) = if down.throttled {
            (measured.throttled, !measured.throttled)
        } else {
            let last = mean.count >= JUDGED_AT_LAST;
            (part >= if last && !small { NEARLY_AS_GOOD } else { AS_GOOD }, last || part < TOO_FEW)
        };
        let enough = if as_good && small && !down.throttled { ACCEPTED_AFTER } else { JUDGED_AFTER };
        if mean.count < enough || !(as_good || too_few) {
            self.phase = Phase::Down(Down { mean, ..down });
        } else if as_good {
            self.hold = HOLD;
            // Half of it is still the best, or many small steps would lead far down.
            let rate = f64::midpoint(down.rate, mean.rate);
            self.try_fewer(at, self.now, rate, down.floor, down.throttled);
        } else {
            self.keep(at, down.from, down.rate, down.throttled);
        }
    }

    /// Sees whether the link is still the one that the level was found on, and whether it is time to try something.
    fn watch(&mut self, at: Instant, measured: &Measured, hold: Hold) {
        let Measured { rate, throttled, .. } = *measured;
        let part = if hold.mean.count == 0 { 1.0 } else { rate / hold.mean.rate };
        let off = if OTHER_LINK.contains(&part) && throttled == hold.throttled { 0 } else { hold.off + 1 };
        if off >= OTHER_LINK_AFTER {
            self.hold = HOLD;
            if throttled || (part > 1.0 && self.now == self.max) {
                self.try_fewer(at, self.now, rate, 0, throttled);
            } else if hold.throttled && self.now < self.max {
                // The limit is gone, or just above what these bring.
                self.try_some_more(rate);
            } else {
                self.go(self.now, Phase::Base);
            }
        } else if off == 0 && hold.until.is_some_and(|until| at >= until) {
            let mean = hold.mean.with(rate, HOLD_WEIGHT);
            if throttled || self.now == self.max {
                self.try_fewer(at, self.now, mean.rate, 0, throttled);
            } else {
                self.try_some_more(mean.rate);
            }
        } else {
            let mean = if off == 0 { hold.mean.with(rate, HOLD_WEIGHT) } else { hold.mean };
            self.phase = Phase::Hold(Hold { mean, off, ..hold });
        }
    }

    /// The first look: this level brings `rate`. Connections that are slow, each of them, ask for more of them. Fast ones fill the
    /// link, or nearly: on a far one fewer may do as well, and lose fewer packets; on a near one, where a few more or fewer
    /// cost nothing but the search, they are kept.
    fn begin(&mut self, at: Instant, rate: f64, round_trip: Duration) {
        if self.is_held_back(rate, round_trip) || rate / number(self.now) < SLOW_EACH {
            self.climb(at, rate, round_trip);
        } else if round_trip >= FAR {
            self.try_fewer(at, self.now, rate, 0, false);
        } else {
            self.keep(at, self.now, rate, false);
        }
    }

    /// This level brings `rate`: tries more, if there may be more.
    fn climb(&mut self, at: Instant, rate: f64, round_trip: Duration) {
        if self.now == self.max {
            self.hold = HOLD;
            self.go(
                self.now,
                Phase::Hold(Hold { until: None, mean: Mean::of(rate), off: 0, throttled: false }),
            );
        } else if self.refused_until.is_some_and(|until| at < until) {
            self.keep(at, self.now, rate, false);
        } else {
            let factor = if self.is_held_back(rate, round_trip) { BIG_STEP } else { STEP };
            let more = count(number(self.now) * factor, self.max);
            // The small step that would be left could not be told from noise.
            let more = if 4 * more >= 3 * self.max { self.max } else { more };
            self.go(more, Phase::Up { from: self.now, rate, mean: Mean::default() });
        }
    }

    /// This level brings `rate`, and more did not help lately: tries a small step.
    fn try_some_more(&mut self, rate: f64) {
        let more = self.now + self.now.div_ceil(2);
        self.go(more, Phase::Up { from: self.now, rate, mean: Mean::default() });
    }

    /// `from` connections are known to bring `rate`: tries fewer, if there can be fewer than that and more than `floor`.
    fn try_fewer(&mut self, at: Instant, from: usize, rate: f64, floor: usize, throttled: bool) {
        let fewer = if from <= FEW { from - 1 } else { from / 2 };
        // On a far link each question costs a round trip in which its connection brings nothing: a few fill that for each
        // other. Under a person's limit nothing is lost.
        let floor = if self.far && !throttled { floor.max(FEW - 1) } else { floor };
        if fewer <= floor {
            self.keep(at, from, rate, throttled);
        } else {
            self.go(fewer, Phase::Down(Down { from, rate, floor, throttled, ..Down::begin(at) }));
        }
    }

    /// Keeps a level that is known to bring `rate`, for a while.
    fn keep(&mut self, at: Instant, level: usize, rate: f64, throttled: bool) {
        let until = Some(at + self.hold).max(self.refused_until);
        self.hold = (self.hold * 2).min(HOLD_AT_MOST);
        self.go(level, Phase::Hold(Hold { until, mean: Mean::of(rate), off: 0, throttled }));
    }

    fn go(&mut self, level: usize, phase: Phase) {
        let level = level.clamp(1, self.max);
        self.grown &= level == self.now;
        (self.now, self.phase, self.epoch) = (level, phase, None);
    }
}

impl Down {
    fn begin(since: Instant) -> Self {
        Self { from: 1, rate: 0.0, floor: 0, throttled: false, since, mean: Mean::default() }
    }
}

fn number(connections: usize) -> f64 {
    f64::from(u32::try_from(connections).unwrap_or(u32::MAX))
}

/// The fewest connections that are at least `wanted`, and no more than `max`.
fn count(wanted: f64, max: usize) -> usize {
    (1..max).find(|&connections| number(connections) >= wanted).unwrap_or(max)
}
