//! The snapshot: everything the first screen shows, put together from those who know it.

use sampan_oci::{Bypass, Event, Millis, Outcome};
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};

use crate::api::{Cache, MirrorState, NotKeeping, PullState, Snapshot};
use crate::app::Inner;

/// Whether the cache takes what is fetched, learnt from what happened last.
#[derive(Debug)]
pub(crate) struct Keeping {
    now: AtomicU8,
    /// When the log was told last.
    told: AtomicI64,
    /// How many bytes there was room for when it was first looked at after the last refusal; `u64::MAX`: not yet.
    room: AtomicU64,
}

impl Keeping {
    /// As a start finds the cache.
    pub(crate) fn of(store: &sampan_store::Store) -> Self {
        let now = if store.is_read_only() { READ_ONLY } else { GOOD };
        Self { now: AtomicU8::new(now), ..Self::default() }
    }
}

impl Default for Keeping {
    fn default() -> Self {
        Self { now: AtomicU8::new(GOOD), told: AtomicI64::new(NEVER), room: AtomicU64::new(u64::MAX) }
    }
}

const GOOD: u8 = 0;
const FULL: u8 = 1;
const READ_ONLY: u8 = 2;
const NEVER: i64 = i64::MIN;
/// So many bytes more than when something was refused are room again, whether or not anybody asks for anything.
const ROOM_AGAIN_BYTES: u64 = 16 * 1024 * 1024;
/// How often the log is told at most while it lasts (SECURITY.md R70).
const TOLD_EVERY_MILLIS: u64 = 60_000;

/// What the cache takes of the disk, and what it may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Published, unfinished and quarantined bytes.
    pub(crate) used: u64,
    /// The most of them; `None`: as many as the disk has.
    pub(crate) quota: Option<u64>,
    /// Free bytes on the disk.
    pub(crate) free: Option<u64>,
    /// Bytes that shall stay free.
    pub(crate) floor: u64,
}

impl Bounds {
    /// Which bound it is that refuses: the closer one.
    fn full(self) -> NotKeeping {
        let disk = self.free.map(|free| self.used.saturating_add(free).saturating_sub(self.floor));
        match (self.quota, disk) {
            (Some(quota), disk) if disk.is_none_or(|disk| quota < disk) => NotKeeping::QuotaFull,
            (Some(_) | None, _) => NotKeeping::DiskFull,
        }
    }

    /// How many bytes more would be within both bounds.
    fn room(self) -> u64 {
        let quota = self.quota.map_or(u64::MAX, |quota| quota.saturating_sub(self.used));
        quota.min(self.free.map_or(u64::MAX, |free| free.saturating_sub(self.floor)))
    }
}

impl Keeping {
    /// Takes in an event; says whether the log should be told that nothing new is kept.
    pub(crate) fn learn(&self, event: &Event) -> bool {
        let Event::Answered(answered) = event else { return false };
        let now = match answered.outcome {
            Outcome::Bypass(Bypass::Full) => FULL,
            Outcome::Bypass(Bypass::ReadOnly) => READ_ONLY,
            Outcome::Miss => GOOD,
            Outcome::Hit
            | Outcome::Revalidated
            | Outcome::Joined
            | Outcome::Stale(_)
            | Outcome::Bypass(Bypass::Paused | Bypass::Uncacheable)
            | Outcome::Failed(_) => return false,
        };
        let before = self.now.swap(now, Ordering::Relaxed);
        if now == GOOD {
            return false;
        }
        self.room.store(u64::MAX, Ordering::Relaxed);
        let told = self.told.load(Ordering::Relaxed);
        let due = told == NEVER || before != now || answered.at.since(Millis(told)) >= TOLD_EVERY_MILLIS;
        if due {
            self.told.store(answered.at.0, Ordering::Relaxed);
        }
        due
    }

    /// Whatever refused before may take things now: a setting has changed.
    pub(crate) fn forget(&self) {
        // A cache that cannot be written still cannot.
        let _ = self.now.compare_exchange(FULL, GOOD, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether the cache could not be written when that was last tried.
    pub(crate) fn is_read_only(&self) -> bool {
        self.now.load(Ordering::Relaxed) == READ_ONLY
    }

    /// It was tried, and it can be written.
    pub(crate) fn can_write(&self) {
        let _ = self.now.compare_exchange(READ_ONLY, GOOD, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Why nothing new is kept, if so. That there is more room than when something was refused ends a refusal too.
    pub(crate) fn not_keeping(&self, paused: bool, bounds: Bounds) -> Option<NotKeeping> {
        if self.now.load(Ordering::Relaxed) == FULL {
            let room = bounds.room();
            let first = self.room.compare_exchange(u64::MAX, room, Ordering::Relaxed, Ordering::Relaxed);
            if first.is_err_and(|then| room >= then.saturating_add(ROOM_AGAIN_BYTES)) {
                self.forget();
            }
        }
        match (self.now.load(Ordering::Relaxed), paused) {
            (_, true) => Some(NotKeeping::Paused),
            (FULL, _) => Some(bounds.full()),
            (READ_ONLY, _) => Some(NotKeeping::ReadOnly),
            _ => None,
        }
    }
}

impl Inner {
    /// Says in the log that nothing new is kept, and why.
    pub(crate) fn tell_not_keeping(&self) {
        let bounds = self.bounds(&self.newest().cache);
        let dir = self.config.cache_dir.display();
        match self.keeping.not_keeping(false, bounds) {
            Some(NotKeeping::DiskFull) => {
                let floor = bounds.floor;
                tracing::warn!(%dir, floor, "too little room is left on the disk above the floor: pulls go on, nothing new is kept");
            }
            Some(NotKeeping::QuotaFull) => {
                tracing::warn!(%dir, quota = bounds.quota, "nothing can make way under the quota: pulls go on, nothing new is kept");
            }
            Some(NotKeeping::ReadOnly) => {
                tracing::warn!(%dir, "the cache cannot be written to: pulls go on, nothing new is kept");
            }
            Some(NotKeeping::Paused) | None => {}
        }
    }

    pub(crate) fn bounds(&self, cache: &Cache) -> Bounds {
        Bounds {
            used: cache.used_bytes(),
            quota: cache.quota_bytes,
            free: cache.free_bytes,
            floor: self.floor_bytes,
        }
    }
}

/// The tray's state: trouble first, then what a person asked for, then what goes on.
pub(crate) fn mirror_state(paused: bool, troubled: bool, pulls: &[crate::api::Pull]) -> MirrorState {
    match (troubled, paused, pulls.iter().any(|pull| pull.state == PullState::Active)) {
        (true, _, _) => MirrorState::Attention,
        (false, true, _) => MirrorState::Paused,
        (false, false, true) => MirrorState::Working,
        (false, false, false) => MirrorState::Serving,
    }
}

/// Whether two snapshots show the same, whenever they were taken.
pub(crate) fn same(one: &Snapshot, other: &Snapshot) -> bool {
    let other = Snapshot { sequence: one.sequence, at: one.at, ..other.clone() };
    *one == other
}

#[cfg(test)]
mod tests {
    use super::*;
    use sampan_oci::{Answered, RequestKind, TransferId};

    fn answered(at: i64, outcome: Outcome) -> Event {
        Event::Answered(Answered {
            id: TransferId(1),
            at: Millis(at),
            took_millis: 0,
            kind: RequestKind::Blob,
            head: false,
            image: None,
            reference: None,
            outcome,
            status: 200,
            served_bytes: 0,
            user_agent: String::new(),
        })
    }

    fn bounds(used: u64, quota: Option<u64>, free: Option<u64>) -> Bounds {
        Bounds { used, quota, free, floor: 10 }
    }

    #[test]
    fn the_closer_bound_is_the_one_that_is_full() {
        let table = [
            (bounds(90, Some(100), Some(1000)), NotKeeping::QuotaFull),
            (bounds(90, Some(100), Some(15)), NotKeeping::DiskFull),
            (bounds(0, Some(100), Some(5)), NotKeeping::DiskFull),
            (bounds(90, None, Some(1000)), NotKeeping::DiskFull),
            (bounds(90, Some(100), None), NotKeeping::QuotaFull),
            (bounds(90, None, None), NotKeeping::DiskFull),
        ];
        for (bounds, why) in table {
            assert_eq!(bounds.full(), why, "{bounds:?}");
        }
    }

    #[test]
    fn that_nothing_is_kept_is_told_once_a_minute_and_not_per_request() {
        let keeping = Keeping::default();
        let full = Outcome::Bypass(Bypass::Full);
        assert!(keeping.learn(&answered(0, full)), "at once");
        let told = (1..600).filter(|n| keeping.learn(&answered(n * 100, full))).count();
        assert_eq!(told, 0, "not again within the minute");
        assert!(keeping.learn(&answered(60_000, full)));
        assert!(
            keeping.learn(&answered(60_001, Outcome::Bypass(Bypass::ReadOnly))),
            "that is something else"
        );
        let any = bounds(0, None, None);
        assert_eq!(keeping.not_keeping(false, any), Some(NotKeeping::ReadOnly));
        assert_eq!(keeping.not_keeping(true, any), Some(NotKeeping::Paused), "a person asked for it");
        assert!(!keeping.learn(&answered(60_002, Outcome::Hit)));
        assert_eq!(keeping.not_keeping(false, any), Some(NotKeeping::ReadOnly), "a hit says nothing of it");
        keeping.forget();
        assert!(keeping.is_read_only(), "nor does a setting");
        keeping.can_write();
        assert_eq!(keeping.not_keeping(false, any), None, "but a try does");
        assert!(
            keeping.learn(&answered(60_002, Outcome::Bypass(Bypass::ReadOnly))),
            "and it may change again"
        );
        assert!(!keeping.learn(&answered(60_003, Outcome::Miss)));
        assert_eq!(keeping.not_keeping(false, any), None, "what was fetched was kept");
    }

    #[test]
    fn more_room_than_at_the_refusal_ends_it_though_nobody_asks() {
        const MIB: u64 = 1024 * 1024;
        let keeping = Keeping::default();
        keeping.learn(&answered(0, Outcome::Bypass(Bypass::Full)));
        for (free, why) in [
            (20 * MIB, Some(NotKeeping::DiskFull)),
            (35 * MIB, Some(NotKeeping::DiskFull)),
            (5 * MIB, Some(NotKeeping::DiskFull)),
            (36 * MIB, None),
            (20 * MIB, None),
        ] {
            assert_eq!(keeping.not_keeping(false, bounds(0, None, Some(free))), why, "{free}");
        }
        keeping.learn(&answered(1, Outcome::Bypass(Bypass::Full)));
        let all = bounds(100 * MIB, Some(101 * MIB), Some(1000 * MIB));
        assert_eq!(
            keeping.not_keeping(false, all),
            Some(NotKeeping::QuotaFull),
            "a new refusal, of another bound"
        );
        assert_eq!(
            keeping.not_keeping(false, Bounds { used: 80 * MIB, ..all }),
            None,
            "something was cleared"
        );
    }
}
