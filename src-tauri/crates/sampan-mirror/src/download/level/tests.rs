//! The level on simulated links.

use super::*;
use proptest::prelude::*;

const STEP: Duration = Duration::from_millis(50);
const MB: f64 = 1_000_000.0;
const FAR_TRIP: Duration = Duration::from_millis(220);

/// What so many full-grown connections bring together, in bytes per second.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// BASELINES.md: each connection as little as its losses allow.
    LossLimited { each: f64, cap: f64 },
    /// Few fill the link.
    BbrLike { cap: f64 },
    /// One fills the link.
    Clean { cap: f64 },
}

impl Kind {
    fn rate(self, connections: f64) -> f64 {
        match self {
            Self::LossLimited { each, cap } => (connections * each).min(cap),
            Self::BbrLike { cap } if connections < 1.0 => cap * 0.6 * connections,
            Self::BbrLike { cap } => cap * (0.6 + 0.3 * (connections - 1.0)).min(1.0),
            Self::Clean { cap } => cap * connections.min(1.0),
        }
    }
}

const LOSSY: Kind = Kind::LossLimited { each: 0.145 * MB, cap: 12.0 * MB };
const BBR: Kind = Kind::BbrLike { cap: 11.3 * MB };
const CLEAN: Kind = Kind::Clean { cap: 12.0 * MB };

/// A link with a download that never ends, and the level that looks at it.
struct World {
    level: Level,
    kind: Kind,
    round_trip: Duration,
    limit: f64,
    now: Instant,
    /// When each connection began, and when its piece ends.
    connections: Vec<(Instant, Instant)>,
    received: f64,
    noise: f64,
    noisy: f64,
    steps: u32,
    random: u64,
}

impl World {
    fn new(kind: Kind, round_trip: Duration, max: usize, seed: u64) -> Self {
        Self {
            level: Level::new(max),
            kind,
            round_trip,
            limit: f64::INFINITY,
            now: Instant::now(),
            connections: Vec::new(),
            received: 0.0,
            noise: 1.0,
            noisy: if matches!(kind, Kind::Clean { .. }) { 0.05 } else { 0.15 },
            steps: 0,
            random: seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// Evenly from 0 to 1.
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        f64::from(u32::try_from(self.random >> 32).unwrap()) / f64::from(u32::MAX)
    }

    fn step(&mut self) {
        self.now += STEP;
        self.steps += 1;
        if self.steps.is_multiple_of(10) {
            self.noise = 1.0 + self.noisy * (2.0 * self.random() - 1.0);
        }
        // Pieces take about four seconds, and only then can a connection end.
        for at in (0..self.connections.len()).rev() {
            if self.connections[at].1 <= self.now {
                if self.connections.len() > self.level.now() {
                    self.connections.swap_remove(at);
                } else {
                    self.connections[at].1 = self.piece_end();
                }
            }
        }
        while self.connections.len() < self.level.now() {
            let end = self.piece_end();
            self.connections.push((self.now, end));
        }
        let ramp = self.round_trip.as_secs_f64() * 6.0;
        let grown: f64 = self
            .connections
            .iter()
            .map(|(begun, _)| ((self.now - *begun).as_secs_f64() / ramp).min(1.0))
            .sum();
        let rate = self.kind.rate(grown) * self.noise;
        self.received += rate.min(self.limit) * STEP.as_secs_f64();
        if self.steps.is_multiple_of(4) {
            let in_use = self.connections.len();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small positive number"
            )]
            let received = self.received as u64;
            let sample = Sample {
                received,
                in_use,
                saturated: in_use >= self.level.now(),
                throttled: rate > self.limit,
                round_trip: Some(self.round_trip),
            };
            self.level.observe(self.now, sample);
        }
    }

    fn piece_end(&mut self) -> Instant {
        self.now + Duration::from_secs_f64(2.0 + 4.0 * self.random())
    }

    fn run(&mut self, seconds: u64) -> Vec<usize> {
        let end = self.now + Duration::from_secs(seconds);
        let mut levels = Vec::new();
        while self.now < end {
            self.step();
            levels.push(self.level.now());
        }
        levels
    }

    /// How much of what the link can bring it brought in this time, but for the noise.
    fn used(&self, levels: &[usize]) -> f64 {
        levels.iter().map(|&level| self.kind.rate(number(level))).sum::<f64>()
            / number(levels.len())
            / self.kind.rate(64.0)
    }
}

/// Each level and for how many seconds.
fn told(levels: &[usize]) -> String {
    let told = |run: &[usize]| format!("{} for {:.1} s", run[0], number(run.len()) * STEP.as_secs_f64());
    levels.chunk_by(|a, b| a == b).map(told).collect::<Vec<_>>().join(", ")
}

const SEEDS: std::ops::Range<u64> = 0..100;

#[test]
fn where_loss_is_the_limit_all_connections_are_used_within_seconds() {
    for seed in SEEDS {
        let mut world = World::new(LOSSY, FAR_TRIP, 32, seed);
        let climb = world.run(4);
        assert_eq!(climb.last(), Some(&32), "seed {seed}: {}", told(&climb));
        let after = world.run(60);
        assert!(after.iter().all(|&level| level >= 28), "seed {seed}: {}", told(&after));
    }
}

#[test]
fn where_loss_is_the_limit_it_climbs_as_far_as_it_may() {
    for seed in SEEDS {
        let mut world = World::new(LOSSY, FAR_TRIP, 64, seed);
        let climb = world.run(10);
        assert_eq!(climb.last(), Some(&64), "seed {seed}: {}", told(&climb));
    }
}

#[test]
fn where_a_few_fill_a_lossy_link_no_more_are_used() {
    let mut all = 0.0;
    for seed in SEEDS {
        let mut world = World::new(BBR, FAR_TRIP, 32, seed);
        world.run(40);
        let after = world.run(100);
        // More are tried now and then, for a few seconds.
        let mean = after.iter().map(|&level| number(level)).sum::<f64>() / number(after.len());
        assert!(mean <= 6.0 && after.iter().all(|&level| level <= 12), "seed {seed}: {}", told(&after));
        let used = world.used(&after);
        assert!(used >= 0.85, "seed {seed}: {used}, even with the noise against it, and what trying costs");
        all += used / number(SEEDS.count());
    }
    assert!(all >= 0.95, "{all} of the link");
}

#[test]
fn where_one_fills_the_link_few_are_used() {
    for (round_trip, few) in [(5, 2), (30, 2), (220, 6)] {
        for seed in SEEDS {
            let mut world = World::new(CLEAN, Duration::from_millis(round_trip), 32, seed);
            world.run(40);
            let after = world.run(100);
            assert!(
                after.iter().all(|&level| level <= few),
                "{round_trip} ms, seed {seed}: {}",
                told(&after)
            );
        }
    }
}

#[test]
fn where_a_dozen_fill_the_link_it_finds_about_as_many() {
    for seed in SEEDS {
        let kind = Kind::LossLimited { each: 0.3 * MB, cap: 3.6 * MB };
        let mut world = World::new(kind, FAR_TRIP, 32, seed);
        world.run(30);
        let after = world.run(100);
        let used = world.used(&after);
        assert!(used >= 0.85, "seed {seed}: {used}");
    }
}

#[test]
fn a_link_that_becomes_another_one_is_noticed() {
    for seed in SEEDS {
        let mut world = World::new(BBR, FAR_TRIP, 32, seed);
        world.run(100);
        world.kind = LOSSY;
        let noticed = world.run(30);
        assert!(noticed.contains(&32), "seed {seed}: {}", told(&noticed));
        world.run(60);
        world.kind = CLEAN;
        let noticed = world.run(60);
        assert!(noticed.iter().any(|&level| level <= 4), "seed {seed}: {}", told(&noticed));
    }
}

#[test]
fn a_refusal_halves_and_nothing_more_is_tried_for_a_while() {
    let mut world = World::new(LOSSY, FAR_TRIP, 32, 1);
    world.run(10);
    for _ in 0..16 {
        world.level.refused(world.now, Duration::from_secs(40));
    }
    assert_eq!(world.level.now(), 16, "sixteen connections were told the same");
    assert!(world.run(40).iter().all(|&level| level == 16));
    assert!(world.run(20).contains(&32), "then more are tried again");
    for halved in [16, 8, 4, 2, 1, 1] {
        world.level.refused(world.now, Duration::ZERO);
        assert_eq!(world.level.now(), halved);
        assert!(world.run(20).iter().all(|&level| level == halved), "30 s at least");
    }
}

#[test]
fn under_a_speed_limit_fewer_are_enough_and_without_it_more_again() {
    for seed in SEEDS {
        let mut world = World::new(LOSSY, FAR_TRIP, 32, seed);
        world.run(10);
        world.limit = 0.4 * MB;
        let under = world.run(60);
        assert!(matches!(under.last(), Some(2..=6)), "seed {seed}: three bring as much: {}", told(&under));
        world.limit = f64::INFINITY;
        let without = world.run(30);
        assert!(without.contains(&32), "seed {seed}: {}", told(&without));
    }
    let mut world = World::new(CLEAN, Duration::from_millis(30), 32, 1);
    world.limit = 0.1 * MB;
    assert_eq!(world.run(40).last(), Some(&1));
}

/// A sample every 200 ms of `seconds`, as `what` says of the seconds since the beginning.
fn observe(level: &mut Level, begun: Instant, seconds: u32, what: impl Fn(f64) -> Sample) {
    for step in 1..=5 * seconds {
        let after = Duration::from_millis(200) * step;
        level.observe(begun + after, what(after.as_secs_f64()));
    }
}

const IDLE: Sample =
    Sample { received: 0, in_use: 4, saturated: true, throttled: false, round_trip: Some(FAR_TRIP) };

#[test]
fn what_says_nothing_about_the_link_changes_nothing() {
    let begun = Instant::now();
    let mut level = Level::new(32);
    observe(&mut level, begun, 60, |_| IDLE);
    assert_eq!(level.now(), START, "nothing comes");
    let begun = begun + Duration::from_mins(1);
    observe(&mut level, begun, 60, |after| Sample { received: flow(after), saturated: false, ..IDLE });
    assert_eq!(level.now(), START, "there is not enough to do");
    for n in 2..60 {
        let at = begun + Duration::from_mins(n);
        level.observe(at, Sample { received: n * 1_000_000, ..IDLE });
    }
    assert_eq!(level.now(), START, "nobody looked in between");
    let begun = begun + Duration::from_hours(2);
    observe(&mut level, begun, 3, |after| Sample { received: 1_000_000_000 + flow(after), ..IDLE });
    assert!(level.now() > START, "this does");
}

/// A megabyte per second.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
fn flow(seconds: f64) -> u64 {
    (seconds * MB) as u64
}

#[test]
fn more_blobs_than_connections_wanted_are_where_the_search_begins() {
    let mut level = Level::new(64);
    let far = |after| Sample { received: 20 * flow(after), in_use: 12, ..IDLE };
    observe(&mut level, Instant::now(), 4, far);
    assert_eq!(level.now(), 24);
}

proptest! {
    #[test]
    fn there_is_always_at_least_one_and_never_more_than_there_may_be(
        max in 0usize..80,
        steps in prop::collection::vec((0u64..3000, any::<u32>(), 0usize..80, 0u8..20, 0u64..2000), 0..300),
    ) {
        let (mut level, max) = (Level::new(max), max.max(1));
        let (mut at, mut received) = (Instant::now(), 0);
        for (passed, came, in_use, what, round_trip) in steps {
            at += Duration::from_millis(passed / if passed % 7 == 0 { 1 } else { 10 });
            received += u64::from(came);
            match what {
                0 => level.refused(at, Duration::from_millis(passed)),
                _ => level.observe(at, Sample {
                    received,
                    in_use,
                    saturated: what != 2,
                    throttled: what == 3,
                    round_trip: (round_trip > 0).then(|| Duration::from_millis(round_trip)),
                }),
            }
            prop_assert!((1..=max).contains(&level.now()));
        }
    }
}
