//! Clients that ask for blobs all the time, and how long each hit took.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};

use super::make::Path;
use crate::bench::{image::Random, wire::Connection};

/// Clients that ask for small blobs; one more asks for the big one.
const SMALL_CLIENTS: u64 = 7;
/// How often each client asks, where it does not ask as often as it can.
const SMALL_EVERY: Duration = Duration::from_millis(10);
const BIG_EVERY: Duration = Duration::from_millis(500);

/// When a client asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// At fixed times, which the machine can keep with ease: what is slower shows in how long hits take.
    Steady,
    /// As soon as it has its answer: no processor time is left over, and whatever runs besides takes some away.
    FlatOut,
}

impl Pace {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::FlatOut => "flat out",
        }
    }
}

/// Who asks for what.
#[derive(Debug)]
pub(super) struct Load<'a> {
    pub(super) port: u16,
    pub(super) small: &'a [Path],
    pub(super) big: &'a Path,
    pub(super) pace: Pace,
}

/// One answer, whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    /// When it had come.
    at: Instant,
    took: Duration,
    big: bool,
}

impl Load<'_> {
    /// Everything once: the first hit since a start is hashed.
    pub(super) fn warm(&self) -> Result<()> {
        let mut connection = Connection::open(self.port)?;
        self.small.iter().chain([self.big]).try_for_each(|path| path.get(&mut connection))
    }

    /// Has the clients ask while `work` runs; what it returns, and their hits.
    ///
    /// # Errors
    /// Those of `work`, else an answer that was none or too short.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Hit>)> {
        let end = AtomicBool::new(false);
        thread::scope(|scope| {
            let end = &end;
            let clients: Vec<_> =
                (0..=SMALL_CLIENTS).map(|number| scope.spawn(move || self.client(number, end))).collect();
            let worked = work();
            end.store(true, Ordering::Relaxed);
            let mut hits = Vec::new();
            for client in clients {
                hits.extend(client.join().map_err(|_| anyhow!("a client panicked"))??);
            }
            Ok((worked?, hits))
        })
    }

    fn client(&self, number: u64, end: &AtomicBool) -> Result<Vec<Hit>> {
        let big = number == SMALL_CLIENTS;
        let every = if big { BIG_EVERY } else { SMALL_EVERY };
        let mut random = Random::new(number + 1);
        let mut connection = Connection::open(self.port)?;
        let mut hits = Vec::new();
        let mut due = Instant::now();
        while !end.load(Ordering::Relaxed) {
            let begun = match self.pace {
                Pace::FlatOut => Instant::now(),
                Pace::Steady => {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    let begun = due;
                    // Counted from when it was due: a slow answer keeps those behind it waiting too.
                    due += every;
                    begun
                }
            };
            let path = if big { Some(self.big) } else { pick(self.small, &mut random) };
            let Some(path) = path else { bail!("there is nothing to ask for") };
            path.get(&mut connection)?;
            let at = Instant::now();
            hits.push(Hit { at, took: at.saturating_duration_since(begun), big });
        }
        Ok(hits)
    }
}

fn pick<'a>(paths: &'a [Path], random: &mut Random) -> Option<&'a Path> {
    // The low bits are the weak ones.
    let index = usize::try_from(random.next() >> 33).ok()?.checked_rem(paths.len())?;
    paths.get(index)
}

/// The hits of one kind within some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) per_second: f64,
    /// Milliseconds; NaN of none.
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl Figures {
    #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
    fn of(times: impl Iterator<Item = Duration>, window: Duration) -> Self {
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        let at = |percent: usize| {
            // Nearest rank: the least that so many per cent do not exceed.
            let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(rank).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
        };
        Self { per_second: times.len() as f64 / window.as_secs_f64(), p50: at(50), p99: at(99) }
    }
}

/// The hits that had come within some time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) small: Figures,
    pub(super) big: Figures,
}

impl Window {
    pub(super) fn of(hits: &[Hit], from: Instant, to: Instant) -> Self {
        let figures = |big: bool| {
            let within = hits.iter().filter(|hit| hit.big == big && hit.at >= from && hit.at < to);
            Figures::of(within.map(|hit| hit.took), to.saturating_duration_since(from))
        };
        Self { small: figures(false), big: figures(true) }
    }

    /// A row of the table.
    pub(super) fn row(&self, name: String) -> Vec<String> {
        let Self { small, big } = self;
        vec![
            name,
            format!("{:.0}", small.per_second),
            format!("{:.2}", small.p50),
            format!("{:.2}", small.p99),
            format!("{:.1}", big.per_second),
            format!("{:.1}", big.p50),
            format!("{:.1}", big.p99),
        ]
    }
}

impl Path {
    fn get(&self, connection: &mut Connection) -> Result<()> {
        let got = connection.get(&self.path, |_| ())?;
        if got == self.size { Ok(()) } else { bail!("{}: {got} bytes instead of {}", self.path, self.size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let times = (1..=200).map(Duration::from_millis);
        let figures = Figures::of(times, Duration::from_secs(10));
        assert_eq!(figures, Figures { per_second: 20.0, p50: 100.0, p99: 198.0 });
        assert!(Figures::of(std::iter::empty(), Duration::from_secs(1)).p50.is_nan());
    }

    #[test]
    fn a_window_counts_its_own_hits_by_kind() {
        let begun = Instant::now();
        let hit = |at, big| Hit { at: begun + Duration::from_secs(at), took: Duration::from_millis(at), big };
        let hits = [hit(1, false), hit(2, false), hit(2, true), hit(3, false)];
        let window = Window::of(&hits, begun + Duration::from_secs(2), begun + Duration::from_secs(3));
        assert_eq!((window.small.per_second, window.small.p50), (1.0, 2.0));
        assert_eq!((window.big.per_second, window.big.p50), (1.0, 2.0));
    }
}
