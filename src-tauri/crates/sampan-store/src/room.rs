//! Room on the disk: what running downloads have yet to write is spoken for.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sampan_oci::Digest;

use crate::evict::Lack;

/// What running downloads have asked for, and have written since.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    promised: u64,
    written: u64,
    /// All that was ever written.
    ever: u64,
    /// What was removed lately, the oldest first.
    freed: VecDeque<Freed>,
    /// What is being downloaded, and by how many.
    busy: HashMap<Digest, u32>,
}

/// How long the disk may take to give back what was removed: a file that somebody reads, or file systems that free later.
const GIVING_BACK_MAX: Duration = Duration::from_mins(1);

/// What was removed.
#[derive(Clone, Copy, Debug)]
struct Freed {
    bytes: u64,
    at: Instant,
    /// What the disk said was free before.
    free: u64,
    /// What downloads had ever written by then.
    written: u64,
}

impl Sums {
    /// The free space to count with, where the disk says `free`. What was removed lately counts as free, so that nothing
    /// more goes for the same lack; what was written since does not.
    fn free(&self, free: Option<u64>, now: Instant) -> Option<u64> {
        let mut lately =
            self.freed.iter().skip_while(|freed| now.duration_since(freed.at) >= GIVING_BACK_MAX).peekable();
        // By the oldest, so that what others write is seen after a minute at the latest.
        let Some((before, written)) = lately.peek().map(|oldest| (oldest.free, oldest.written)) else {
            return free;
        };
        let freed: u64 = lately.map(|freed| freed.bytes).sum();
        let expected = before.saturating_add(freed).saturating_sub(self.ever - written);
        free.map(|free| free.max(expected))
    }

    /// What has to go, by these limits, before `promised` bytes are allowed.
    fn lack(&self, limits: Limits, promised: u64) -> Lack {
        let free = self.free(limits.free, Instant::now());
        Limits { free, ..limits }.lack(promised, self.written)
    }
}

/// What there is, and how much there may be, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// Bytes on disk, without what running downloads have written.
    pub(crate) taken: u64,
    /// The most the cache may take, in bytes.
    pub(crate) quota: Option<u64>,
    /// Bytes that can still be written to the disk. Where that is not known, only the disk itself can refuse.
    pub(crate) free: Option<u64>,
    /// Bytes that are to stay free.
    pub(crate) floor: u64,
}

impl Limits {
    /// What has to go before `promised` bytes, of which `written` are on disk, are allowed.
    fn lack(&self, promised: u64, written: u64) -> Lack {
        let needed = promised.saturating_sub(written).saturating_add(self.floor);
        let of_disk = self.free.map_or(0, |free| needed.saturating_sub(free));
        let used = self.taken.saturating_add(promised);
        let beyond = |limit: u64| used.saturating_sub(limit);
        let of_quota = self.quota.map_or(0, beyond);
        let wanted = if of_quota == 0 { 0 } else { self.quota.map_or(0, |quota| beyond(goal(quota))) };
        Lack { least: of_quota.max(of_disk), wanted: wanted.max(of_disk), or_all: false }
    }
}

/// How far an eviction for the quota goes down: to 90 % of it.
fn goal(quota: u64) -> u64 {
    quota - quota / 10
}

impl Running {
    /// Bytes that running downloads have written.
    pub(crate) fn written(&self) -> u64 {
        self.sums().written
    }

    /// What is being downloaded.
    pub(crate) fn busy(&self) -> HashSet<Digest> {
        self.sums().busy.keys().copied().collect()
    }

    /// Sets room aside for `size` more bytes of a blob, if there is. `limits` is asked while no room is set aside or given
    /// back, so that bytes on their way from a download to the blobs may be counted twice, never not at all.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        digest: Digest,
        size: u64,
        limits: impl FnOnce() -> Limits,
    ) -> Option<Room> {
        let mut sums = self.sums();
        let lack = sums.lack(limits(), sums.promised.saturating_add(size));
        (lack.least == 0).then(|| self.give(&mut sums, digest, size))
    }

    /// Sets room aside whether or not it is there, and says what has to go before anything is written into it.
    pub(crate) fn promise(
        self: &Arc<Self>,
        digest: Digest,
        size: u64,
        limits: impl FnOnce() -> Limits,
    ) -> (Room, Lack) {
        let mut sums = self.sums();
        let room = self.give(&mut sums, digest, size);
        let lack = sums.lack(limits(), sums.promised);
        (room, lack)
    }

    /// What has to go as things are.
    pub(crate) fn lack(&self, limits: impl FnOnce() -> Limits) -> Lack {
        let sums = self.sums();
        sums.lack(limits(), sums.promised)
    }

    /// Notes that so many bytes were removed, when the disk said that `before` bytes were free.
    pub(crate) fn freed(&self, before: Option<u64>, bytes: u64) {
        if bytes > 0 {
            self.freed_at(before, bytes, Instant::now());
        }
    }

    fn freed_at(&self, before: Option<u64>, bytes: u64, at: Instant) {
        let mut sums = self.sums();
        let written = sums.ever;
        sums.freed.retain(|freed| at.duration_since(freed.at) < GIVING_BACK_MAX);
        sums.freed.extend(before.map(|free| Freed { bytes, at, free, written }));
    }

    fn give(self: &Arc<Self>, sums: &mut Sums, digest: Digest, size: u64) -> Room {
        sums.promised = sums.promised.saturating_add(size);
        *sums.busy.entry(digest).or_default() += 1;
        Room { running: Arc::clone(self), digest, promised: size, written: 0 }
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One download's share of [`Running`].
#[derive(Debug)]
pub(crate) struct Room {
    running: Arc<Running>,
    digest: Digest,
    promised: u64,
    written: u64,
}

impl Room {
    /// Bytes written into it.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn wrote(&mut self, bytes: u64) {
        self.written += bytes;
        let mut sums = self.running.sums();
        sums.written += bytes;
        sums.ever += bytes;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut sums = self.running.sums();
        sums.promised = sums.promised.saturating_sub(self.promised);
        sums.written = sums.written.saturating_sub(self.written);
        if let Some(count) = sums.busy.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                sums.busy.remove(&self.digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserve(running: &Arc<Running>, size: u64, limits: Limits) -> Option<Room> {
        running.reserve(Digest::of(&size.to_le_bytes()), size, || limits)
    }

    #[test]
    fn downloads_together_never_promise_more_than_the_disk_has() {
        let running = Arc::new(Running::default());
        let disk = |free| Limits { free: Some(free), floor: 10, ..Limits::default() };
        let mut first = reserve(&running, 60, disk(100)).unwrap();
        assert!(
            reserve(&running, 40, disk(100)).is_none(),
            "60 are promised already, and 10 are to stay free"
        );
        let second = reserve(&running, 30, disk(100)).unwrap();
        first.wrote(60);
        assert_eq!(running.written(), 60);
        assert!(reserve(&running, 1, disk(40)).is_none(), "the second's 30 are not on disk yet");
        drop(second);
        assert!(reserve(&running, 30, disk(40)).is_some(), "what was given up is free again");
        drop(first);
        assert_eq!((running.written(), running.busy().len()), (0, 0));
        assert!(
            reserve(&running, u64::MAX, Limits { floor: 10, ..Limits::default() }).is_some(),
            "unknown free space refuses nothing"
        );
    }

    #[test]
    fn downloads_together_never_promise_more_than_the_quota() {
        let running = Arc::new(Running::default());
        let limits = |taken| Limits { taken, quota: Some(100), ..Limits::default() };
        let mut first = reserve(&running, 60, limits(0)).unwrap();
        assert!(reserve(&running, 41, limits(0)).is_none());
        first.wrote(60);
        assert!(reserve(&running, 41, limits(0)).is_none(), "written is as good as promised");
        assert!(reserve(&running, 30, limits(11)).is_none(), "what is held counts");
        assert!(reserve(&running, 40, limits(0)).is_some());
        assert_eq!(running.busy(), HashSet::from([Digest::of(&60_u64.to_le_bytes())]));
        let (_room, lack) = running.promise(Digest::of(b"x"), 50, || limits(30));
        assert_eq!(
            lack,
            Lack { least: 40, wanted: 50, or_all: false },
            "down to the quota, rather down to 90 of 100"
        );
    }

    #[test]
    fn what_was_removed_counts_as_free_for_a_minute_until_it_is_written_over() {
        let running = Arc::new(Running::default());
        let disk = || Limits { free: Some(10), floor: 10, ..Limits::default() };
        let (mut room, lack) = running.promise(Digest::of(b"x"), 40, disk);
        assert_eq!(lack.least, 40);
        let begun = Instant::now();
        running.freed_at(Some(10), 50, begun);
        assert_eq!(running.lack(disk).least, 0, "the disk says 10 still, but 50 were removed");
        assert!(reserve(&running, 10, disk()).is_some(), "the rest of it is there for the next");
        assert!(reserve(&running, 11, disk()).is_none(), "but not more");
        room.wrote(40);
        assert!(reserve(&running, 11, disk()).is_none(), "what is written is not free");
        let free = |at: Duration| running.sums().free(Some(10), begun + at);
        assert_eq!(free(Duration::from_secs(59)), Some(20));
        assert_eq!(free(GIVING_BACK_MAX), Some(10), "then the disk is believed");
        running.freed_at(Some(10), 5, begun + Duration::from_secs(1));
        assert_eq!(free(Duration::from_secs(2)), Some(25), "one after the other");
        assert_eq!(free(GIVING_BACK_MAX), Some(15), "and each for a minute");
        let given_back = running.sums().free(Some(100), begun + Duration::from_secs(2));
        assert_eq!(given_back, Some(100), "what was given back is not counted twice");
    }

    #[test]
    fn what_has_to_go_satisfies_the_quota_and_the_disk() {
        let limits = Limits { taken: 100, quota: Some(100), free: Some(5), floor: 10 };
        assert_eq!(
            limits.lack(0, 0),
            Lack { least: 5, wanted: 5, or_all: false },
            "a full cache need not shrink by itself"
        );
        assert_eq!(limits.lack(20, 0), Lack { least: 25, wanted: 30, or_all: false });
        assert_eq!(
            limits.lack(20, 20),
            Lack { least: 20, wanted: 30, or_all: false },
            "what is written needs no more of the disk"
        );
        let small = Limits { quota: Some(5), ..limits };
        assert_eq!(
            small.lack(0, 0),
            Lack { least: 95, wanted: 95, or_all: false },
            "a tenth of so little is nothing"
        );
    }
}
