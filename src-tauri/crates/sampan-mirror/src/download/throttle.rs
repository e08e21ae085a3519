//! The person's speed limit.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// What may be saved up in quiet moments, as a part of a second's worth.
const BURST_PART: u128 = 8;
const NANOS: u128 = 1_000_000_000;

/// One speed limit for every connection together.
///
/// Bytes are charged when they came already, and whoever brought them waits until they are paid; the connection behind
/// it then fills up and the sender slows down. First come, first served.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Bytes per second; 0 when there is no limit.
    rate: AtomicU64,
    account: Mutex<Account>,
    changed: Notify,
    waiting: AtomicUsize,
    /// How often somebody was made to wait, so far.
    waited: AtomicU64,
}

/// In billionths of bytes, so that a nanosecond of any rate is a whole number.
#[derive(Debug, Default)]
struct Account {
    /// Everything that came while there was a limit.
    charged: u128,
    /// As much of it as the limit has allowed so far, and what was saved up beyond it.
    paid: u128,
    paid_at: Option<Instant>,
}

impl Account {
    /// Pays for the time that passed at `rate` bytes per second.
    fn pay(&mut self, rate: u64, now: Instant) {
        let passed = self.paid_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let most = self.charged + u128::from(rate) * NANOS / BURST_PART;
        // Saved at a higher limit, it is not taken away again: `most` may lie below it.
        let paid = self.paid + u128::from(rate) * passed.as_nanos();
        self.paid = paid.min(most).max(self.paid);
        self.paid_at = Some(now);
    }
}

impl Throttle {
    /// A limit of so many bytes per second, shared by everybody; `None` (and 0, which is no speed) is no limit.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self {
            rate: AtomicU64::new(limit.unwrap_or(0)),
            account: Mutex::default(),
            changed: Notify::new(),
            waiting: AtomicUsize::new(0),
            waited: AtomicU64::new(0),
        }
    }

    /// Another limit from now on, for those who wait already too.
    pub(crate) fn set(&self, limit: Option<u64>) {
        let new = limit.unwrap_or(0);
        {
            let mut account = self.lock();
            let old = self.rate.swap(new, Ordering::AcqRel);
            account.pay(old, Instant::now());
            if old == 0 || new == 0 {
                // Without a limit nothing is owed, and nothing is saved up.
                account.paid = account.charged;
            }
        }
        self.changed.notify_waiters();
    }

    /// `bytes` came: returns when the next ones may. Given up (dropped), they stay charged.
    pub(crate) async fn pass(&self, bytes: u64) {
        if self.rate.load(Ordering::Acquire) == 0 {
            return;
        }
        let Some(mark) = self.charge(bytes) else { return };
        let mut waits = None;
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let Some(debt) = self.debt(mark) else { return };
            waits.get_or_insert_with(|| Waiting::new(self));
            // Whether it was the time or the limit: look again.
            let _ = tokio::time::timeout(debt, changed).await;
        }
    }

    /// The limit in bytes per second; `None`: there is none.
    pub(crate) fn limit(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Acquire)).filter(|rate| *rate > 0)
    }

    /// Whether anybody waits now, or was made to wait since the count in `seen`, which is brought up to date.
    pub(crate) fn held_back_since(&self, seen: &mut u64) -> bool {
        let waited = self.waited.load(Ordering::Acquire);
        std::mem::replace(seen, waited) != waited || self.waiting.load(Ordering::Acquire) > 0
    }

    /// The state of the account at which `bytes` will be paid.
    fn charge(&self, bytes: u64) -> Option<u128> {
        let mut account = self.lock();
        let rate = self.rate.load(Ordering::Acquire);
        if rate == 0 {
            return None;
        }
        account.pay(rate, Instant::now());
        account.charged += u128::from(bytes) * NANOS;
        Some(account.charged)
    }

    /// How long until the account has reached `mark`; `None` when it has.
    fn debt(&self, mark: u128) -> Option<Duration> {
        let mut account = self.lock();
        let rate = self.rate.load(Ordering::Acquire);
        if rate == 0 {
            return None;
        }
        account.pay(rate, Instant::now());
        let owed = mark.checked_sub(account.paid).filter(|&owed| owed > 0)?;
        Some(Duration::from_nanos(u64::try_from(owed.div_ceil(u128::from(rate))).unwrap_or(u64::MAX)))
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one that waits, however it ends.
struct Waiting<'a>(&'a Throttle);

impl<'a> Waiting<'a> {
    fn new(throttle: &'a Throttle) -> Self {
        throttle.waiting.fetch_add(1, Ordering::AcqRel);
        throttle.waited.fetch_add(1, Ordering::AcqRel);
        Self(throttle)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::future::join_all;

    const MB: u64 = 1_000_000;
    const CHUNK: u64 = 16 * 1024;

    /// What each of `passers` brought in `time`, in chunks, through the same limit.
    async fn brought(throttle: &Throttle, passers: usize, time: Duration) -> Vec<u64> {
        let end = Instant::now() + time;
        let passer = || async {
            let mut bytes = 0;
            while tokio::time::timeout_at(end, throttle.pass(CHUNK)).await.is_ok() {
                bytes += CHUNK;
            }
            bytes
        };
        join_all((0..passers).map(|_| passer())).await
    }

    #[tokio::test(start_paused = true)]
    async fn one_or_many_get_as_much_as_the_limit_says_and_equal_shares() {
        const SECONDS: u64 = 10;
        for passers in [1, 32] {
            let throttle = Throttle::new(Some(MB));
            let shares = brought(&throttle, passers, Duration::from_secs(SECONDS)).await;
            let sum: u64 = shares.iter().sum();
            assert!((95 * MB / 10..=105 * MB / 10).contains(&sum), "{passers}: {sum}");
            let equal = sum / passers as u64;
            assert!(shares.iter().all(|share| share.abs_diff(equal) <= equal / 5), "{passers}: {shares:?}");
            assert!(throttle.held_back_since(&mut 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn quiet_moments_are_saved_for_an_eighth_of_a_second_at_most() {
        let throttle = Throttle::new(Some(MB));
        let mut seen = 0;
        throttle.pass(MB).await;
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(throttle.held_back_since(&mut seen), "the first megabyte waited");
        assert!(throttle.pass(MB / 8).now_or_never().is_some());
        assert!(!throttle.held_back_since(&mut seen), "this did not");
        let begun = Instant::now();
        throttle.pass(MB / 2).await;
        assert_eq!(begun.elapsed().as_millis(), 500, "and nothing was left of it");
    }

    #[tokio::test(start_paused = true)]
    async fn first_come_is_first_served() {
        let throttle = Throttle::new(Some(1000));
        let order = Mutex::new(Vec::new());
        let pass = |bytes| {
            let (throttle, order) = (&throttle, &order);
            async move {
                throttle.pass(bytes).await;
                order.lock().unwrap().push(bytes);
            }
        };
        join_all([pass(5000), pass(1), pass(3000), pass(2)]).await;
        assert_eq!(*order.lock().unwrap(), [5000, 1, 3000, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_reaches_those_who_wait() {
        let throttle = Throttle::new(Some(1000));
        let begun = Instant::now();
        let change = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            throttle.set(Some(10_000));
        };
        tokio::join!(throttle.pass(100_000), change);
        assert_eq!(begun.elapsed().as_secs(), 19, "10 s at 1000, 90 000 left at 10 000");
        let change = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            throttle.set(Some(1000));
        };
        let begun = Instant::now();
        tokio::join!(throttle.pass(20_000), change);
        assert_eq!(begun.elapsed().as_secs(), 11, "1 s at 10 000, 10 000 left at 1000");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits_and_nothing_is_owed() {
        let mut seen = 0;
        let throttle = Throttle::new(Some(1));
        let mut waits = Box::pin(throttle.pass(MB));
        assert!((&mut waits).now_or_never().is_none());
        throttle.set(None);
        throttle.set(Some(1));
        assert!(waits.now_or_never().is_some(), "it was let go, though a limit is there again");
        assert!(throttle.pass(1).now_or_never().is_none());
        throttle.set(Some(0));
        assert!(throttle.pass(u64::MAX).now_or_never().is_some());
        assert!(throttle.held_back_since(&mut seen));
        assert!(!throttle.held_back_since(&mut seen));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_long_counts_as_held_back_all_the_time() {
        let mut seen = 0;
        let throttle = Throttle::new(Some(1));
        let mut waits = Box::pin(throttle.pass(MB));
        assert!((&mut waits).now_or_never().is_none());
        assert!(throttle.held_back_since(&mut seen) && throttle.held_back_since(&mut seen));
        drop(waits);
        assert!(!throttle.held_back_since(&mut seen));
    }
}
