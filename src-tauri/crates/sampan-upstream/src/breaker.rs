//! When an upstream that does not answer is left alone: a circuit breaker. Pure; time and chance are brought along.
//!
//! Closed, everybody asks. Three questions in a row without an answer open it: then nobody asks, until a pause is over and
//! one probe may go out. The probe's answer, or any other, closes it; a failed probe doubles the pause. Bodies and the
//! requests of running downloads are not held up here: those have a patience of their own.

use std::time::{Duration, Instant};

/// Questions in a row without an answer that open it.
const OPENS_AFTER: u32 = 3;
/// The first pause before a probe; each further one doubles it, up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_AT_MOST: Duration = Duration::from_secs(30);
/// A probe that was not heard of for so long is not awaited: whoever sent it is gone.
const PROBE_AT_MOST: Duration = Duration::from_mins(1);

/// The breaker of one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breaker {
    /// Everybody may ask; so many questions in a row had no answer.
    Closed { failures: u32 },
    /// Nobody may ask until then, when one probe may go out; so many probes failed.
    Open { round: u32, until: Instant },
    /// One probe is out since then; nobody else may ask.
    Probing { round: u32, since: Instant },
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Whether questions may go out.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    /// When the next probe may go out, while nobody may ask and none is out.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        match *self {
            Self::Open { until, .. } => Some(until),
            Self::Closed { .. } | Self::Probing { .. } => None,
        }
    }

    /// Takes the turn to probe, if it is time and nobody has it.
    pub(crate) fn take_probe(&mut self, now: Instant) -> bool {
        let round = match *self {
            Self::Open { round, until } if until <= now => round,
            Self::Probing { round, since } if now.saturating_duration_since(since) >= PROBE_AT_MOST => round,
            Self::Closed { .. } | Self::Open { .. } | Self::Probing { .. } => return false,
        };
        *self = Self::Probing { round, since: now };
        true
    }

    /// An answer came, whoever asked.
    pub(crate) fn answered(&mut self) {
        *self = Self::default();
    }

    /// A question had no answer. `chance`: 0 to 1.
    pub(crate) fn failed(&mut self, now: Instant, chance: f64) {
        // Those that were on their way when it opened say nothing new.
        if let Self::Closed { failures } = *self {
            *self = match failures + 1 {
                failures if failures >= OPENS_AFTER => Self::Open { round: 0, until: now + pause(0, chance) },
                failures => Self::Closed { failures },
            };
        }
    }

    /// The probe had no answer.
    pub(crate) fn probe_failed(&mut self, now: Instant, chance: f64) {
        if let Self::Probing { round, .. } = *self {
            let round = round.saturating_add(1);
            *self = Self::Open { round, until: now + pause(round, chance) };
        }
    }
}

/// How long to wait for the probe after `round` failed ones: doubling, and half of it by chance, so that many Sampans do
/// not come back to a registry together.
fn pause(round: u32, chance: f64) -> Duration {
    let full = PAUSE.saturating_mul(2_u32.saturating_pow(round)).min(PAUSE_AT_MOST);
    full / 2 + full.mul_f64(chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn open(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..OPENS_AFTER {
            breaker.failed(now, 1.0);
        }
        breaker
    }

    #[test]
    fn three_failures_in_a_row_open_it_and_an_answer_between_them_does_not() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.failed(now, 0.0);
        breaker.failed(now, 0.0);
        breaker.answered();
        breaker.failed(now, 0.0);
        breaker.failed(now, 0.0);
        assert!(breaker.is_closed());
        breaker.failed(now, 0.0);
        assert!(!breaker.is_closed());
    }

    #[test]
    fn one_probe_at_a_time_goes_out_each_after_a_longer_pause() {
        let mut now = Instant::now();
        let mut breaker = open(now);
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            assert!(
                !breaker.take_probe(now + (pause * SECOND).saturating_sub(Duration::from_millis(1))),
                "{pause} s"
            );
            now += pause * SECOND;
            assert!(breaker.take_probe(now), "{pause} s");
            assert!(!breaker.take_probe(now), "one at a time");
            breaker.failed(now, 0.0);
            assert!(!breaker.take_probe(now), "a late failure of another question is no end of the probe");
            breaker.probe_failed(now, 1.0);
        }
        breaker.answered();
        assert!(
            breaker.is_closed() && !breaker.take_probe(now + PAUSE_AT_MOST),
            "the first answer closes it"
        );
    }

    #[test]
    fn a_probe_nobody_heard_of_again_is_replaced() {
        let now = Instant::now();
        let mut breaker = open(now);
        assert!(breaker.take_probe(now + SECOND));
        assert!(!breaker.take_probe(now + PROBE_AT_MOST));
        assert!(breaker.take_probe(now + SECOND + PROBE_AT_MOST));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Ask(bool),
        Probe(bool),
    }

    proptest! {
        #[test]
        fn an_outage_of_any_length_costs_few_questions_and_ends_with_the_first_answer(
            steps in prop::collection::vec(prop_oneof![
                (0_u64..5_000).prop_map(Step::Wait),
                any::<bool>().prop_map(Step::Ask),
                any::<bool>().prop_map(Step::Probe),
            ], 0..200),
            chance in 0.0_f64..1.0,
        ) {
            let (mut breaker, mut now, mut in_a_row) = (Breaker::default(), Instant::now(), 0);
            let mut next_probe = now;
            for step in steps {
                match step {
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                    Step::Ask(good) if breaker.is_closed() => {
                        if good { breaker.answered() } else { breaker.failed(now, chance) }
                        in_a_row = if good { 0 } else { in_a_row + 1 };
                        prop_assert!(in_a_row <= OPENS_AFTER);
                        if !breaker.is_closed() { next_probe = now + PAUSE / 2; }
                    }
                    Step::Ask(_) => prop_assert!(in_a_row > 0, "only failures open it"),
                    Step::Probe(good) => {
                        if breaker.take_probe(now) {
                            prop_assert!(now >= next_probe, "never without a pause");
                            if good { breaker.answered() } else { breaker.probe_failed(now, chance) }
                            in_a_row = if good { 0 } else { in_a_row };
                            prop_assert_eq!(breaker.is_closed(), good);
                            next_probe = now + PAUSE / 2;
                        }
                    }
                }
                prop_assert!(breaker.is_closed() || {
                    let mut later = breaker;
                    later.take_probe(now + PAUSE_AT_MOST)
                }, "a probe is never further away than the longest pause");
            }
        }
    }
}
