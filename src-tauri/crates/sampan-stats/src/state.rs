//! Everything kept in memory: pulls, the sums of each day, and what the database does not hold yet. Pure.

use std::collections::{BTreeMap, HashMap};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use sampan_oci::{Event, ImageName, Millis, TransferId};

use crate::Totals;
use crate::client::engine_asked;
use crate::days::day_of;
use crate::db::{HISTORY_MAX, Loaded};
use crate::record::PullRecord;
use crate::tracker::PullTracker;

/// The most sums that wait for the database; further images count as unnamed until it takes them.
const WAITING_MAX: usize = 4_096;
/// The most answers under way whose bytes are counted before their end.
const FLOWING_MAX: usize = 4_096;
/// Pull numbers set aside ahead of their use, so that a run that is killed never gives one out twice.
const IDS_AHEAD: u64 = 1_000;

/// What the database has yet to take.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// To be added. `None`: no valid image was named.
    pub(crate) totals: HashMap<(Date, Option<ImageName>), Totals>,
    /// To be written over what is there.
    pub(crate) pulls: BTreeMap<u64, PullRecord>,
    pub(crate) last_used: Option<Millis>,
    /// Pull numbers below this may be in use.
    pub(crate) ids_reserved: Option<u64>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.totals.is_empty()
            && self.pulls.is_empty()
            && self.last_used.is_none()
            && self.ids_reserved.is_none()
    }

    fn add(&mut self, day: Date, image: Option<&ImageName>, totals: Totals) {
        let key = (day, image.cloned());
        let full = self.totals.len() >= WAITING_MAX && !self.totals.contains_key(&key);
        *self.totals.entry(if full { (day, None) } else { key }).or_default() += totals;
    }

    fn keep(&mut self, pull: PullRecord) {
        self.pulls.insert(pull.id, pull);
        if self.pulls.len() > HISTORY_MAX {
            self.pulls.pop_first();
        }
    }
}

/// What is known at this moment.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) tracker: PullTracker,
    pub(crate) days: BTreeMap<Date, Totals>,
    pub(crate) last_used: Option<Millis>,
    batch: Batch,
    /// Of each blob on its way: for which image, and how many of its bytes are in the sums already. Bytes that left are
    /// served, whether or not more will follow: else a first pull would look like a loss until its layers end.
    flowing: HashMap<TransferId, (ImageName, u64)>,
    ids_reserved: u64,
    /// Something happened since the last tick.
    touched: bool,
    /// What the last tick saw: the day, and the pulls shown.
    seen: Option<(Date, Vec<u64>)>,
    /// The writer has something to do.
    pub(crate) dirty: bool,
    pub(crate) stop: bool,
}

impl State {
    /// Goes on from what the database held.
    pub(crate) fn new(loaded: Loaded) -> Self {
        let mut state = Self {
            tracker: PullTracker::new(loaded.next_id),
            days: loaded.days,
            last_used: loaded.last_used,
            batch: Batch::default(),
            flowing: HashMap::new(),
            ids_reserved: loaded.next_id,
            touched: true,
            seen: None,
            dirty: true,
            stop: false,
        };
        state.reserve_ids();
        state
    }

    /// Takes in what happened.
    pub(crate) fn record(&mut self, event: &Event, zone: &TimeZone) {
        self.tracker.record(event);
        self.reserve_ids();
        if let Some(at) = engine_asked(event) {
            self.used(at);
        }
        match event {
            Event::Fetched { at, image, bytes, .. } => {
                self.count(day_of(*at, zone), Some(image), Totals::of_fetched(*bytes));
            }
            Event::Answered(answer) => {
                let counted = self.flowing.remove(&answer.id).map_or(0, |(_, counted)| counted);
                if let Some(mut totals) = Totals::of_answer(answer) {
                    totals.served_bytes = totals.served_bytes.saturating_sub(counted);
                    self.count(day_of(answer.at, zone), answer.image.as_ref(), totals);
                }
            }
            Event::BlobStarted { id, image, .. } => {
                if self.flowing.len() < FLOWING_MAX {
                    self.flowing.entry(*id).or_insert_with(|| (image.clone(), 0));
                }
            }
            // Neither crosses a byte by itself: what comes in is told as fetched, what goes out as answered.
            Event::Manifest { .. } | Event::Download { .. } | Event::Lied { .. } => {}
            Event::BlobProgress { id, at, sent } => self.flowed(*id, *sent, day_of(*at, zone)),
        }
        (self.touched, self.dirty) = (true, true);
    }

    fn count(&mut self, day: Date, image: Option<&ImageName>, totals: Totals) {
        *self.days.entry(day).or_default() += totals;
        self.batch.add(day, image, totals);
    }

    /// Counts what has left of a blob since the last word of it.
    fn flowed(&mut self, id: TransferId, sent: u64, day: Date) {
        let Some((image, counted)) = self.flowing.get_mut(&id) else { return };
        let served_bytes = sent.saturating_sub(*counted);
        *counted = (*counted).max(sent);
        let image = image.clone();
        self.count(day, Some(&image), Totals { served_bytes, ..Totals::default() });
    }

    fn used(&mut self, at: Millis) {
        self.last_used = self.last_used.max(Some(at));
        self.batch.last_used = self.last_used;
    }

    fn reserve_ids(&mut self) {
        if self.tracker.next_id() + IDS_AHEAD / 2 >= self.ids_reserved {
            self.ids_reserved = self.tracker.next_id() + IDS_AHEAD;
            self.batch.ids_reserved = Some(self.ids_reserved);
        }
    }

    /// Ends what is over; whether anything shown to people may differ from the last tick.
    pub(crate) fn tick(&mut self, now: Millis, today: Date) -> bool {
        let active = self.tracker.active_count();
        self.tracker.tick(now);
        self.dirty |= self.tracker.active_count() != active;
        let seen = Some((today, self.tracker.live(now).iter().map(|pull| pull.id).collect()));
        // While a pull goes on its speed changes even when nothing arrives.
        let changed = self.touched || active > 0 || seen != self.seen;
        (self.touched, self.seen) = (false, seen);
        changed
    }

    /// What the database has yet to take, also left here for whoever reads.
    pub(crate) fn waiting(&mut self) -> &Batch {
        for pull in self.tracker.take_changed() {
            self.batch.keep(pull);
        }
        &self.batch
    }

    /// Hands that over to the database.
    pub(crate) fn take_waiting(&mut self) -> Batch {
        self.waiting();
        self.dirty = false;
        std::mem::take(&mut self.batch)
    }

    /// The database did not take it.
    pub(crate) fn give_back(&mut self, batch: Batch) {
        for ((day, image), totals) in batch.totals {
            self.batch.add(day, image.as_ref(), totals);
        }
        for (id, pull) in batch.pulls {
            if !self.batch.pulls.contains_key(&id) {
                self.batch.keep(pull);
            }
        }
        self.batch.last_used = self.batch.last_used.max(batch.last_used);
        self.batch.ids_reserved = self.batch.ids_reserved.max(batch.ids_reserved);
        self.dirty = true;
    }
}
