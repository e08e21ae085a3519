//! The handle everyone holds, and the thread that writes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use sampan_oci::{Clock, Event, ImageName, Millis};

use crate::days::{day_of, last_days};
use crate::db::{Db, HISTORY_MAX, StatsError};
use crate::state::State;
use crate::{DayTotals, ImageTotals, PullRecord, SavingsReport, Totals};

/// The most days one report covers.
pub const DAYS_MAX: u32 = 366;
/// What happens within this time is written together.
const BATCH: Duration = Duration::from_millis(250);
/// After a failed write the disk is left alone for this long. Nothing is lost: it stays in memory.
const RETRY: Duration = Duration::from_secs(30);

/// Statistics of one Sampan: cheap to clone, one file. Dropping the last clone ends the writer without writing;
/// call [`Stats::flush`] first.
#[derive(Clone, Debug)]
pub struct Stats {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// Locks are taken in this order: `db`, then `state`. `db` is held through every write, so that what a reader adds up
/// from both is there exactly once; `state` never waits for a disk.
#[derive(Debug)]
struct Shared {
    db: Mutex<Db>,
    state: Mutex<State>,
    wake: Condvar,
    clock: Arc<dyn Clock>,
    zone: TimeZone,
}

impl Stats {
    /// Opens or makes the database at `path`, whose folder exists. Days are those of `zone`. A damaged file is set aside
    /// as `<path>.damaged-<milliseconds>` and a new one begun, with a warning in the log.
    /// # Errors
    /// [`StatsError::Future`] if a newer Sampan wrote the file (it is left as it is), else what the disk said.
    pub fn open(path: &Path, clock: Arc<dyn Clock>, zone: TimeZone) -> Result<Self, StatsError> {
        let mut db = Db::open(path, clock.now())?;
        let mut state = State::new(db.load()?);
        // Before the first number is given out, so that the next run cannot give it out again.
        db.write(&state.take_waiting())?;
        let shared = Arc::new(Shared {
            db: Mutex::new(db),
            state: Mutex::new(state),
            wake: Condvar::new(),
            clock,
            zone,
        });
        let writer = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("stats".into()).spawn(move || shared.write_until_stopped())?
        };
        Ok(Self { inner: Arc::new(Inner { shared, writer: Some(writer) }) })
    }

    /// Takes in what happened. Never waits for a disk; it is written within a quarter of a second.
    pub fn record(&self, event: &Event) {
        let shared = &self.inner.shared;
        let mut state = shared.state();
        let idle = !state.dirty;
        state.record(event, &shared.zone);
        drop(state);
        if idle {
            shared.wake.notify_all();
        }
    }

    /// Ends pulls that are over. To be called about four times a second while anyone looks or a pull goes on; returns
    /// whether [`live`](Self::live), [`today`](Self::today) or [`last_used`](Self::last_used) may have changed since the
    /// last call.
    pub fn tick(&self) -> bool {
        let shared = &self.inner.shared;
        let now = shared.clock.now();
        let mut state = shared.state();
        let changed = state.tick(now, day_of(now, &shared.zone));
        if state.dirty {
            shared.wake.notify_all();
        }
        changed
    }

    /// Pulls that go on and those that ended in the last minute, newest first, at most [`crate::LIVE_MAX`].
    pub fn live(&self) -> Vec<PullRecord> {
        let now = self.inner.shared.clock.now();
        self.inner.shared.state().tracker.live(now)
    }

    /// The sums of the local day that it is now.
    pub fn today(&self) -> Totals {
        let today = self.inner.shared.today();
        self.inner.shared.state().days.get(&today).copied().unwrap_or_default()
    }

    /// The sums of the last `days` local days (1 to [`DAYS_MAX`], else the nearest), today included, by day and by image.
    /// Reads the disk.
    /// # Errors
    /// [`StatsError::Database`] if the database cannot be read.
    pub fn savings(&self, days: u32) -> Result<SavingsReport, StatsError> {
        let shared = &self.inner.shared;
        let days = last_days(shared.today(), days.clamp(1, DAYS_MAX));
        let db = shared.db();
        let (days, waiting) = {
            let mut state = shared.state();
            let totals = |day: &Date| state.days.get(day).copied().unwrap_or_default();
            let days: Vec<DayTotals> =
                days.iter().map(|day| DayTotals { day: *day, totals: totals(day) }).collect();
            (days, state.waiting().totals.clone())
        };
        let (Some(first), Some(last)) = (days.first(), days.last()) else {
            return Ok(SavingsReport::default());
        };
        let mut by_image: HashMap<Option<ImageName>, Totals> = db.images(first.day, last.day)?;
        drop(db);
        for ((day, image), totals) in waiting {
            if (first.day..=last.day).contains(&day) {
                *by_image.entry(image).or_default() += totals;
            }
        }
        let unnamed = by_image.remove(&None).unwrap_or_default();
        let named = by_image.into_iter().filter_map(|(image, totals)| Some((image?, totals)));
        let mut images: Vec<ImageTotals> =
            named.map(|(image, totals)| ImageTotals { image, totals }).collect();
        images.sort_by(|a, b| {
            b.totals.saved_bytes().cmp(&a.totals.saved_bytes()).then_with(|| a.image.cmp(&b.image))
        });
        let mut total = Totals::default();
        for day in &days {
            total += day.totals;
        }
        Ok(SavingsReport { total, days, images, unnamed })
    }

    /// The last `limit` pulls that ended, newest first; at most [`HISTORY_MAX`] are kept. Reads the disk.
    /// # Errors
    /// [`StatsError::Database`] if the database cannot be read.
    pub fn history(&self, limit: u32) -> Result<Vec<PullRecord>, StatsError> {
        let limit = usize::try_from(limit).unwrap_or(HISTORY_MAX).min(HISTORY_MAX);
        let shared = &self.inner.shared;
        let db = shared.db();
        let mut state = shared.state();
        let waiting = state.waiting().pulls.clone();
        let active: HashSet<u64> = state.tracker.active_ids().collect();
        drop(state);
        // Pulls that go on are in the database too, for the case that this run is killed.
        let stored = db.pulls(limit.saturating_add(active.len()))?;
        drop(db);
        let mut pulls: BTreeMap<u64, PullRecord> = stored.into_iter().map(|pull| (pull.id, pull)).collect();
        pulls.extend(waiting);
        Ok(pulls.into_values().rev().filter(|pull| !active.contains(&pull.id)).take(limit).collect())
    }

    /// When a container engine last asked for a manifest, in this run or an earlier one.
    pub fn last_used(&self) -> Option<Millis> {
        self.inner.shared.state().last_used
    }

    /// Keeps what was spent of registries' allowances for the next run, instead of what was kept before: when, and for
    /// which image. Waits for the disk.
    /// # Errors
    /// [`StatsError::Database`] if the disk did not take it.
    pub fn keep_spent(&self, spent: &[(Millis, ImageName)]) -> Result<(), StatsError> {
        self.inner.shared.db().keep_spent(spent)
    }

    /// What was kept of that, oldest first. Reads the disk.
    /// # Errors
    /// [`StatsError::Database`] if the database cannot be read.
    pub fn spent(&self) -> Result<Vec<(Millis, ImageName)>, StatsError> {
        self.inner.shared.db().spent()
    }

    /// Writes everything recorded so far; after `Ok` it survives the end of the process. Waits for the disk.
    /// # Errors
    /// [`StatsError::Database`] if the disk did not take it: it stays in memory and is tried again.
    pub fn flush(&self) -> Result<(), StatsError> {
        self.inner.shared.write()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.wake.notify_all();
        if let Some(writer) = self.writer.take() {
            // The thread only ever fails by panicking, and then has said so already.
            drop(writer.join());
        }
    }
}

impl Shared {
    fn db(&self) -> MutexGuard<'_, Db> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn today(&self) -> Date {
        day_of(self.clock.now(), &self.zone)
    }

    fn write(&self) -> Result<(), StatsError> {
        let mut db = self.db();
        let batch = self.state().take_waiting();
        let written = db.write(&batch);
        if written.is_err() {
            self.state().give_back(batch);
        }
        written
    }

    fn write_until_stopped(&self) {
        let mut pause = BATCH;
        loop {
            let state = self.state();
            let idle = self.wake.wait_while(state, |state| !state.dirty && !state.stop);
            let state = idle.unwrap_or_else(PoisonError::into_inner);
            let more = self.wake.wait_timeout_while(state, pause, |state| !state.stop);
            let (state, _) = more.unwrap_or_else(PoisonError::into_inner);
            if state.stop {
                return;
            }
            drop(state);
            pause = match self.write() {
                Ok(()) => BATCH,
                Err(error) => {
                    let error = &error as &(dyn std::error::Error + 'static);
                    tracing::warn!(error, "statistics cannot be written; they are kept in memory for now");
                    RETRY
                }
            };
        }
    }
}

#[cfg(test)]
mod tests;
