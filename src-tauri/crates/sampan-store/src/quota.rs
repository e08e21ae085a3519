//! Room for what is to come: what is asked for, what makes way.
//!
//! Two limits hold at once: the quota (what the cache may take) and the floor (what the disk keeps free). Both are
//! decided before a byte is written. Images and partial downloads that nobody has open stand in one row, by last use
//! and last write: a download that was cut short yesterday goes before an image used today.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sampan_oci::Digest;

use crate::clear::Removal;
use crate::error::StoreError;
use crate::evict::{self, Eviction, Going, Holdings, Idle, Lack};
use crate::index::{self, Change, Watch};
use crate::moment::Moment;
use crate::own;
use crate::room::{Limits, Room};
use crate::store::{Inner, Store};

/// What one transaction lets go of at most, so that nobody waits long for the next: units, blobs, and time. Removing one
/// large file may take as long as a thousand small ones.
const BATCH_UNITS_MAX: usize = 64;
const BATCH_BLOBS_MAX: usize = 256;
const BATCH_TIME_MAX: Duration = Duration::from_millis(10);

/// How long an eviction lets others pass between two transactions.
const PASSING_TIME_MAX: Duration = Duration::from_millis(20);

/// How long an eviction that nobody waits for rests after each transaction, so that hits have the processor and the disk
/// for most of the time: as a multiple of what that took, but no longer than this for each blob that went.
const REST: u32 = 4;
const REST_FOR_A_BLOB: Duration = Duration::from_micros(240);

/// How often a decision is made again because what it would have removed came into use meanwhile.
const ROUNDS_MAX: u32 = 4;
/// How often it is made again because something could not be removed.
const STUCK_ROUNDS_MAX: u32 = 16;
/// How long nobody tries again to remove what could not be removed.
const STUCK_FOR: Duration = Duration::from_hours(1);

const GIB: u64 = 1024 * 1024 * 1024;

/// What made way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// How many image entries.
    pub images: u64,
    /// How many blobs, with the entries or by themselves.
    pub blobs: u64,
    /// How many partial downloads.
    pub partials: u64,
    /// How many bytes all that took.
    pub freed_bytes: u64,
}

impl Evicted {
    pub(crate) fn add(&mut self, other: Self) {
        self.images += other.images;
        self.blobs += other.blobs;
        self.partials += other.partials;
        self.freed_bytes += other.freed_bytes;
    }
}

/// The quota where a person chose none: a quarter of what is free or ours already, at least 1 GiB (or all of it, if it is
/// less), at most 100 GiB. All in bytes.
pub fn default_quota(free_bytes: u64, cache_bytes: u64) -> u64 {
    let all = free_bytes.saturating_add(cache_bytes);
    (all / 4).max(GIB).min(all).min(100 * GIB)
}

impl Store {
    /// Sets the most bytes the cache may take: blobs, partial downloads, what running ones have yet to write, what is
    /// kept of damaged files, and the index and the ledgers, as large as the last
    /// [`settle_layout`](Self::settle_layout) found them. `None`: whatever the disk has. It counts from the next download
    /// on, or from [`make_room`](Self::make_room). Where the index alone takes as much, which nothing that makes way would
    /// change, every download is [`StoreError::Full`], and only what is beyond the quota without the index makes way.
    pub fn set_quota(&self, bytes: Option<u64>) {
        *self.0.quota.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
    }

    /// Brings a cache that takes more than its quota down to 90 % of it, or as near as what must stay allows. Beforehand,
    /// whatever it takes, removes the partial downloads that nobody went on with for 14 days. Otherwise does nothing.
    /// # Errors
    /// [`StoreError::ReadOnly`], [`StoreError::Io`], [`StoreError::Index`]: what made way until then is gone.
    pub async fn make_room(&self) -> Result<Evicted, StoreError> {
        self.run(|inner| inner.make_room()).await
    }

    /// Removes every entry, and every blob that no entry leads to, that was not used for longer than `max_age`, is not
    /// pinned and not being downloaded: the rule of age. Only time that this cache has seen pass makes anything older: time
    /// with the store open, on Linux also while the machine sleeps, and of the time between two openings what the wall clock
    /// says, at most three days. So no step of the clock removes anything, and a use noted under a wrong clock counts as any other.
    /// # Errors
    /// As [`make_room`](Self::make_room).
    pub async fn remove_unused(&self, max_age: Duration) -> Result<Evicted, StoreError> {
        self.run(move |inner| inner.remove_unused(max_age)).await
    }
}

impl Inner {
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        fs4::available_space(&self.dir).ok()
    }

    /// What would be free without the index's log, in bytes. The log grows by what is recorded, long after room was set aside
    /// for what that is about: all that it may become is set aside beforehand.
    fn free_without_log(&self) -> Option<u64> {
        Some(self.free_bytes()?.saturating_add(own::log(&self.layout).min(self.set_aside_for_log())))
    }

    /// Where less is to stay free than the log may become, as much again: a person wants nearly all of a small disk.
    fn set_aside_for_log(&self) -> u64 {
        self.free_space_floor_bytes.min(own::LOG_MAX.into())
    }

    pub(crate) fn quota(&self) -> Option<u64> {
        *self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn quarantine_bytes(&self) -> u64 {
        self.quarantine.bytes()
    }

    /// What there is, and how much there may be.
    pub(crate) fn limits(&self) -> Limits {
        let (blobs, _) = self.index.totals();
        let taken = blobs.saturating_add(self.partials.bytes()).saturating_add(self.quarantine_bytes());
        // Nothing that makes way makes the index smaller: it is taken from the quota, not added to what could go.
        let quota = self.quota().map(|quota| quota.saturating_sub(self.own.bytes()));
        let floor = self.free_space_floor_bytes.saturating_add(self.set_aside_for_log());
        Limits { taken, quota, free: self.free_without_log(), floor }
    }

    /// The quota and the bytes of the index, where these leave nothing of it for images.
    fn outgrown(&self) -> Option<(u64, u64)> {
        let own = self.own.bytes();
        self.quota().filter(|quota| *quota <= own && own > 0).map(|quota| (quota, own))
    }

    /// Empties the quarantine, and expects the disk to give it back.
    fn empty_quarantine(&self) {
        self.freeing(|| ((), self.quarantine.empty()));
    }

    /// Removes something, told how many bytes: the disk is expected to have them free from now on.
    fn freeing<T>(&self, remove: impl FnOnce() -> (T, u64)) -> T {
        let free = self.free_without_log();
        let (done, freed) = remove();
        self.running.freed(free, freed);
        done
    }

    /// Sets room aside for `size` more bytes of the blob. What was not used for the longest makes way, where that is enough;
    /// otherwise nothing does.
    pub(crate) fn reserve(&self, digest: Digest, size: u64) -> Result<Room, StoreError> {
        if self.outgrown().is_some() {
            return Err(StoreError::Full);
        }
        if let Some(room) = self.running.reserve(digest, size, || self.limits()) {
            return Ok(room);
        }
        let _need = Need::of(&self.in_need);
        let _turn = self.making_room();
        // Kept for diagnosis only: they are the first to make way.
        self.empty_quarantine();
        // Promised before it is there: nobody else takes what is about to become free.
        let (room, lack) = self.running.promise(digest, size, || self.limits());
        if lack.least == 0 || self.evict(lack)?.1 {
            return Ok(room);
        }
        Err(StoreError::Full)
    }

    fn remove_unused(&self, max_age: Duration) -> Result<Evicted, StoreError> {
        let _turn = self.making_room();
        self.write_touched();
        let before = self.index.age().saturating_sub(i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX));
        // Everything was used since the beginning of the count.
        if before <= 0 {
            return Ok(Evicted::default());
        }
        let watch = self.index.watch();
        let mut busy = self.running.busy();
        busy.extend(self.stuck.lately());
        let catalog = self.index.report(|connection| index::catalog(connection))?;
        let entries = catalog.entries(|_| None);
        let holdings = Holdings { catalog: &catalog, entries: &entries, idle: &[], busy: &busy };
        let units = evict::plan_by_age(holdings, before);
        if units.is_empty() {
            return Ok(Evicted::default());
        }
        let LetGo { done, error } = self.let_go(units, &watch)?;
        match error {
            Some(error) if done == Evicted::default() => Err(error),
            Some(_) | None => Ok(done),
        }
    }

    /// Notes how much time has passed, where that is due; with `always`, now.
    pub(crate) fn keep_age(&self, always: bool) {
        if let Err(error) = self.index.keep_age(always, self.clock.now()) {
            tracing::warn!(%error, "how much time has passed could not be noted: what is held counts as younger");
        }
    }

    fn make_room(&self) -> Result<Evicted, StoreError> {
        let _turn = self.making_room();
        self.keep_age(false);
        let mut done = self.remove_old_partials(Moment::now());
        done.add(self.go_below_quota()?);
        Ok(done)
    }

    pub(crate) fn remove_old_partials(&self, now: Moment) -> Evicted {
        if self.layout.is_read_only() {
            return Evicted::default();
        }
        self.freeing(|| {
            let removed = self.partials.remove_old(&self.layout.partial, now);
            (removed, removed.freed_bytes)
        })
    }

    fn go_below_quota(&self) -> Result<Evicted, StoreError> {
        let outgrown = self.outgrown();
        if let Some((quota, own)) = outgrown {
            tracing::warn!(
                quota,
                own,
                "the cache's index alone takes more than the quota: nothing new is kept until that is raised"
            );
        }
        // To empty the cache would not make its index smaller. What images take by themselves stays within the quota.
        let by_quota = |limits: Limits| outgrown.map_or(limits.quota, |(quota, _)| Some(quota));
        let limits = || {
            let limits = self.limits();
            Limits { free: None, floor: 0, quota: by_quota(limits), ..limits }
        };
        let lack = || self.running.lack(limits);
        if lack().least == 0 {
            return Ok(Evicted::default());
        }
        self.empty_quarantine();
        // Where pins and running downloads take too much, all else goes.
        let Lack { wanted, .. } = lack();
        Ok(self.evict(Lack { least: wanted, wanted, or_all: true })?.0)
    }

    /// Removes what `lack` asks for. `false`: that is not to be had, and nothing was removed, or not enough because what was
    /// to go came into use meanwhile or could not be removed. What cannot be removed is an error only where nothing else
    /// could be removed either.
    fn evict(&self, mut lack: Lack) -> Result<(Evicted, bool), StoreError> {
        let mut evicted = Evicted::default();
        let (mut rounds, mut stuck_rounds, mut failed) = (0, 0, None);
        while lack.least > 0 && rounds < ROUNDS_MAX && stuck_rounds < STUCK_ROUNDS_MAX {
            // Before the whole index is read: more than everything is not to be had.
            let (blobs, _) = self.index.totals();
            let all = blobs.saturating_add(self.partials.idle_bytes());
            if lack.within(all).least > all {
                break;
            }
            self.write_touched();
            // From before the decision, so that nothing falls between.
            let watch = self.index.watch();
            let eviction = self.decide(lack)?;
            lack = lack.within(eviction.evictable);
            if eviction.evictable < lack.least {
                break;
            }
            let let_go = self.let_go(eviction.units, &watch)?;
            let done = let_go.done;
            evicted.add(done);
            if let_go.error.is_some() {
                failed = failed.or(let_go.error);
                stuck_rounds += 1;
            } else {
                rounds += 1;
            }
            // Free space is not asked for again: some file systems give back only later what was removed.
            lack.least = lack.least.saturating_sub(done.freed_bytes);
            lack.wanted = lack.wanted.saturating_sub(done.freed_bytes);
        }
        if evicted != Evicted::default() {
            let Evicted { images, blobs, partials, freed_bytes } = evicted;
            tracing::info!(images, blobs, partials, freed_bytes, "the cache made room");
        }
        match failed {
            Some(error) if evicted == Evicted::default() => Err(error),
            Some(_) | None => Ok((evicted, lack.least == 0)),
        }
    }

    /// Decides what makes way, by everything as it is now.
    fn decide(&self, lack: Lack) -> Result<Eviction, StoreError> {
        let stuck = self.stuck.lately();
        let mut busy = self.running.busy();
        busy.extend(&stuck);
        let idle = self.partials.idle(&self.layout.partial).into_iter();
        let idle = idle.filter(|(digest, ..)| !stuck.contains(digest));
        let idle: Vec<Idle> = idle.map(|(digest, bytes, written)| Idle { digest, bytes, written }).collect();
        let catalog = self.index.report(|connection| index::catalog(connection))?;
        let entries = catalog.entries(|_| None);
        Ok(evict::plan(Holdings { catalog: &catalog, entries: &entries, idle: &idle, busy: &busy }, lack))
    }

    /// Removes the units, a batch at a time. What cannot be removed stays, with all that stands and falls with it, and the
    /// others go.
    fn let_go(&self, units: Vec<Going>, watch: &Watch<'_>) -> Result<LetGo, StoreError> {
        let mut let_go = LetGo::default();
        let mut units = units.into_iter().peekable();
        let mut saved = HashSet::new();
        while units.peek().is_some() {
            let begun = Instant::now();
            let mut batch = || {
                self.index.change(|change| {
                // What came into use since the decision stays, with all that stands and falls with it.
                saved.extend(watch.named());
                saved.extend(self.running.busy());
                let mut batch =
                    Batch { store: self, removal: Removal::default(), done: Evicted::default(), blobs: 0, last: None };
                let (begun, mut count) = (Instant::now(), 0);
                let mut failed = None;
                while failed.is_none() && count < BATCH_UNITS_MAX && begun.elapsed() < BATCH_TIME_MAX {
                    let fits =
                        |unit: &Going| batch.blobs == 0 || batch.blobs + unit.blobs.len() <= BATCH_BLOBS_MAX;
                    let Some(unit) = units.next_if(fits) else { break };
                    count += 1;
                    if unit.reach.iter().any(|digest| saved.contains(digest)) {
                        saved.extend(unit.reach);
                        continue;
                    }
                    match batch.let_go(&unit, change) {
                        Ok(()) => batch.forget(unit),
                        Err(error @ (StoreError::Io(_) | StoreError::ReadOnly)) => {
                            tracing::warn!(digest = ?batch.last, %error, "what was to make way cannot be removed: others do");
                            self.stuck.add(batch.last);
                            saved.extend(unit.reach);
                            let_go.error.get_or_insert(error);
                        }
                        Err(error) => failed = Some(error),
                    }
                }
                change.forget(&batch.removal)?;
                self.waiting.forget(&batch.removal.entries);
                Ok((batch.done, failed))
            })
            };
            let (done, failed) = self.freeing(|| {
                let done = batch();
                let freed = done.as_ref().map_or(0, |(done, _)| done.freed_bytes);
                (done, freed)
            })?;
            let_go.done.add(done);
            if let Some(error) = failed {
                return Err(error);
            }
            self.let_others_pass();
            if units.peek().is_some() {
                let blobs = u32::try_from(done.blobs).unwrap_or(u32::MAX);
                self.rest((begun.elapsed() * REST).min(REST_FOR_A_BLOB.saturating_mul(blobs.max(1))));
            }
        }
        Ok(let_go)
    }

    /// Leaves the processor and the disk to others, unless somebody waits for the room.
    fn rest(&self, time: Duration) {
        let begun = Instant::now();
        while self.in_need.load(Ordering::Acquire) == 0 && begun.elapsed() < time {
            std::thread::sleep(time.saturating_sub(begun.elapsed()).min(Duration::from_millis(5)));
        }
    }

    /// The lock of the index's writer is not fair: whoever takes it again at once takes it from those who wait.
    fn let_others_pass(&self) {
        let begun = Instant::now();
        while self.index.is_wanted() && begun.elapsed() < PASSING_TIME_MAX {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Only one decides and removes at a time. Never taken within a change of the index, which it makes.
    fn making_room(&self) -> MutexGuard<'_, ()> {
        self.making_room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody waits for room: an eviction that goes on does not rest.
struct Need<'a>(&'a AtomicU32);

impl<'a> Need<'a> {
    fn of(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Need<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What could not be removed, and when that was found out. It is spared for a while with all that leads to it, so that it
/// does not stand in the way of the rest.
#[derive(Debug, Default)]
pub(crate) struct Stuck(Mutex<HashMap<Digest, Instant>>);

impl Stuck {
    fn lately(&self) -> HashSet<Digest> {
        let mut stuck = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stuck.retain(|_, at| at.elapsed() < STUCK_FOR);
        stuck.keys().copied().collect()
    }

    fn add(&self, digest: Option<Digest>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(digest.map(|digest| (digest, Instant::now())));
    }
}

/// What was let go of.
#[derive(Debug, Default)]
struct LetGo {
    done: Evicted,
    /// Why something could not be removed: the first of the reasons.
    error: Option<StoreError>,
}

/// What one transaction lets go of.
struct Batch<'a> {
    store: &'a Inner,
    removal: Removal,
    done: Evicted,
    blobs: usize,
    /// What it began to remove last.
    last: Option<Digest>,
}

impl Batch<'_> {
    /// The files go first: a crash leaves rows without files, which the next start drops.
    fn let_go(&mut self, unit: &Going, change: &mut Change<'_>) -> Result<(), StoreError> {
        if let Some(digest) = unit.partial {
            self.last = Some(digest);
            let bytes = self.store.partials.remove_if_idle(&self.store.layout.partial, &digest)?;
            self.done.partials += u64::from(bytes.is_some());
            self.done.freed_bytes += bytes.unwrap_or(0);
        }
        for (digest, size) in &unit.blobs {
            self.last = Some(*digest);
            self.store.remove_blob(change, digest)?;
            self.blobs += 1;
            self.done.blobs += 1;
            self.done.freed_bytes += size;
        }
        Ok(())
    }

    fn forget(&mut self, unit: Going) {
        self.done.images += u64::from(unit.shown.is_some());
        self.removal.tags.extend(unit.tag);
        self.removal.links.extend(unit.links);
        self.removal.entries.extend(unit.shown);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use sampan_oci::{Clock, Millis};

    use super::*;
    use crate::StoreOptions;

    #[derive(Debug)]
    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Millis {
            Millis(0)
        }
    }

    #[tokio::test]
    async fn what_comes_into_use_between_the_decision_and_the_deed_stays() {
        let temporary = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(temporary.path().join("cache"), Arc::new(Stopped));
        let store = Store::open(options).unwrap();
        let alpine = "docker.io/library/alpine".parse().unwrap();
        let [named, fetched, used, noted, unused] = [&b"named"[..], b"fetched", b"used", b"noted", b"unused"]
            .map(|bytes| (Digest::of(bytes), Bytes::from_static(bytes)));
        for (digest, bytes) in [&named, &fetched, &used, &noted, &unused] {
            store.put(digest, bytes.clone()).await.unwrap();
        }
        let all = Lack { least: 27, wanted: 27, or_all: false };
        let watch = store.0.index.watch();
        let decided = store.0.decide(all).unwrap();
        assert_eq!((decided.freed, decided.units.len()), (27, 5));
        store.add_link(&alpine, &named.0, None).await.unwrap();
        store.touch(&alpine, &noted.0, false).await;
        store.0.write_touched();
        store.touch(&alpine, &used.0, false).await;
        let stage = store.stage(&fetched.0, 7).await.unwrap();
        let evicted = store.0.let_go(decided.units, &watch).unwrap().done;
        assert_eq!((evicted.blobs, evicted.freed_bytes), (1, 6), "what nobody came for goes");
        assert!(store.open_blob(&named.0).await.unwrap().is_some());
        assert!(store.open_blob(&fetched.0).await.unwrap().is_some());
        assert!(store.open_blob(&noted.0).await.unwrap().is_some(), "a use counts, written");
        assert!(store.open_blob(&used.0).await.unwrap().is_some(), "or not yet");
        assert!(store.open_blob(&unused.0).await.unwrap().is_none());
        drop((watch, stage));
        let (evicted, enough) = store.0.evict(Lack { least: 21, wanted: 21, or_all: false }).unwrap();
        assert_eq!((evicted.blobs, enough), (4, true), "afterwards they are like others");
    }

    #[tokio::test]
    async fn an_age_rule_that_finds_nothing_changes_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(temporary.path().join("cache"), Arc::new(Stopped));
        let store = Store::open(options).unwrap();
        store.put(&Digest::of(b"x"), Bytes::from_static(b"x")).await.unwrap();
        std::thread::sleep(Duration::from_millis(5));
        store.0.index.take_stale();
        let before = store.0.index.hot.generation();
        assert_eq!(store.remove_unused(Duration::from_hours(1)).await.unwrap(), Evicted::default());
        assert_eq!(store.0.index.hot.generation(), before, "what is kept in memory stays known");
        assert!(!store.0.index.take_stale(), "and index.json as it is");
        assert_eq!(store.remove_unused(Duration::ZERO).await.unwrap().blobs, 1);
    }

    #[test]
    fn the_default_quota_is_a_quarter_between_1_and_100_gib() {
        for (free, cache, quota) in [
            (0, 0, 0),
            (GIB / 2, 0, GIB / 2),
            (GIB / 2, GIB / 4, GIB / 2 + GIB / 4),
            (2 * GIB, 0, GIB),
            (4 * GIB, 0, GIB),
            (40 * GIB, 0, 10 * GIB),
            (30 * GIB, 10 * GIB, 10 * GIB),
            (399 * GIB, 0, 399 * GIB / 4),
            (4000 * GIB, 0, 100 * GIB),
            (u64::MAX, u64::MAX, 100 * GIB),
        ] {
            assert_eq!(default_quota(free, cache), quota, "{free} free, {cache} ours");
        }
    }
}
