//! One upstream as all downloads from it share it: its connections, and how many of them are worth having.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::claims::Known;
use super::level::{Level, ROUND_TRIP_UNKNOWN, Sample};
use super::slots::{Member, Slots};
use super::throttle::Throttle;

/// The most downloads from one upstream at once; more wait for their turn (SECURITY.md 3).
const DOWNLOADS_MAX: usize = 64;
/// How often the level looks at the link.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The shortest time to an answer's head is believed for this long: a person may change networks.
const ROUND_TRIP_KEPT: Duration = Duration::from_mins(1);
/// Connections that nobody used for so long may be closed by now.
const UNUSED_KEPT: Duration = Duration::from_secs(20);
/// So many answers on new connections are remembered.
const GUESSES: usize = 8;
/// Bytes that came this lately say that the upstream is there, and will be there again after an outage.
const LATELY: Duration = Duration::from_mins(2);

/// The connections to one upstream.
#[derive(Debug)]
pub(crate) struct Link {
    slots: Slots,
    turns: Semaphore,
    /// Body bytes received by all its downloads.
    received: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    level: Level,
    looked: Option<Instant>,
    held_back: u64,
    round_trip: Option<(Duration, Instant)>,
    /// What it may be, from answers on new connections; their median counts until it is known.
    guesses: VecDeque<Duration>,
    /// How many connections were made so far, at least: what is not in use waits to be used again.
    made: usize,
    /// What one connection brings, in bytes per second, smoothed.
    rate: Option<u64>,
    last_byte: Option<Instant>,
    /// The upstream asked for a pause until then.
    resting: Option<Instant>,
}

impl State {
    fn round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|(time, _)| time).or_else(|| {
            let mut guesses: Vec<Duration> = self.guesses.iter().copied().collect();
            guesses.sort_unstable();
            guesses.get(guesses.len() / 2).copied()
        })
    }
}

impl Link {
    /// No more than `connections_max` at once.
    pub(crate) fn new(connections_max: usize) -> Self {
        let (slots, level) = (Slots::new(connections_max), Level::new(connections_max));
        slots.set_level(level.now());
        Self {
            slots,
            turns: Semaphore::new(DOWNLOADS_MAX),
            received: AtomicU64::new(0),
            state: Mutex::new(State {
                level,
                looked: None,
                held_back: 0,
                round_trip: None,
                guesses: VecDeque::new(),
                made: 0,
                rate: None,
                last_byte: None,
                resting: None,
            }),
        }
    }

    /// Waits for a download's turn.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.turns.acquire().await
    }

    /// A download's membership: its right to a fair share of the connections.
    pub(super) fn join(&self) -> Member {
        self.slots.register()
    }

    /// Body bytes came in.
    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
        self.state().last_byte = Some(Instant::now());
    }

    /// A request goes out. Whether it finds a connection that is there already, rather than making one.
    pub(super) fn asks(&self) -> bool {
        let in_use = self.slots.in_use();
        let mut state = self.state();
        if state.last_byte.is_none_or(|at| at.elapsed() > UNUSED_KEPT) {
            state.made = 0;
        }
        let reused = in_use <= state.made;
        state.made = state.made.max(in_use);
        reused
    }

    /// An answer's head came after so long; making a connection first takes another round trip, or more.
    pub(super) fn answered(&self, after: Duration, reused: bool) {
        let now = Instant::now();
        let mut state = self.state();
        if reused {
            let keep = state.round_trip.filter(|(best, at)| *best <= after && now - *at < ROUND_TRIP_KEPT);
            state.round_trip = Some(keep.unwrap_or((after, now)));
        } else {
            state.guesses.push_back(after / 2);
            if state.guesses.len() > GUESSES {
                state.guesses.pop_front();
            }
        }
    }

    /// A connection brought bytes at `rate` per second.
    pub(super) fn measured(&self, rate: u64) {
        let mut state = self.state();
        state.rate = Some(state.rate.map_or(rate, |before| before / 4 * 3 + rate / 4));
    }

    /// What one connection usually brings, in bytes per second.
    pub(super) fn rate(&self) -> Option<u64> {
        self.state().rate
    }

    /// What is known of it for a download that holds `held` connections.
    pub(super) fn known(&self, held: usize) -> Known {
        let members = self.slots.members().max(1);
        let state = self.state();
        Known {
            rate: state.rate,
            round_trip: state.round_trip().unwrap_or(ROUND_TRIP_UNKNOWN),
            settled: state.level.is_settled(),
            connections: held.max(state.level.now() / members),
        }
    }

    /// The upstream does not want as many connections, or none for a while.
    pub(super) fn refused(&self, rest: Duration) {
        let now = Instant::now();
        let mut state = self.state();
        state.level.refused(now.into_std(), rest);
        state.resting = state.resting.max(Some(now + rest));
        self.slots.set_level(state.level.now());
    }

    /// Until when the upstream asked to be left alone.
    pub(super) fn resting(&self) -> Option<Instant> {
        self.state().resting.filter(|until| *until > Instant::now())
    }

    /// The time a question and its answer's head take.
    pub(super) fn round_trip(&self) -> Duration {
        self.state().round_trip().unwrap_or(ROUND_TRIP_UNKNOWN)
    }

    /// How long nothing came; `None`: nothing ever did.
    pub(super) fn silent_for(&self) -> Option<Duration> {
        self.state().last_byte.map(|at| at.elapsed())
    }

    /// Whether bytes came lately.
    pub(crate) fn is_hopeful(&self) -> bool {
        self.silent_for().is_some_and(|silence| silence < LATELY)
    }

    /// Whether a connection more may be had at once.
    pub(super) fn has_room(&self) -> bool {
        self.slots.in_use() < self.state().level.now()
    }

    /// Looks at the link and settles how many connections it is worth. Called often, by every download.
    pub(super) fn look(&self, throttle: &Throttle) {
        let now = Instant::now();
        let mut state = self.state();
        if state.looked.is_some_and(|at| now - at < LOOK_EVERY) {
            return;
        }
        state.looked = Some(now);
        let throttled = throttle.held_back_since(&mut state.held_back);
        let sample = Sample {
            received: self.received.load(Ordering::Relaxed),
            in_use: self.slots.in_use(),
            saturated: self.slots.in_use() >= state.level.now(),
            throttled,
            round_trip: state.round_trip(),
        };
        let before = state.level.now();
        state.level.observe(now.into_std(), sample);
        let level = state.level.now();
        if level != before {
            tracing::debug!(connections = level, before, round_trip = ?sample.round_trip, "another number of connections");
            self.slots.set_level(level);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
