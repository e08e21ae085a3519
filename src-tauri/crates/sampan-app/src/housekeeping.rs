//! What has to be done from time to time without anybody asking: ending clears, making room, the age limit, the scrub.
//!
//! One task sleeps until the next piece is due. Idle, that is every half minute.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often clears that wait are looked at.
const CLEARS_EVERY: Duration = Duration::from_secs(1);
/// How often bytes on their way to the disk are settled, and the health is read again.
const LAYOUT_EVERY: Duration = Duration::from_secs(30);
/// How often the cache is brought below its quota, and the age limit is looked at.
const ROOM_EVERY: Duration = Duration::from_mins(10);
/// How long after a change of the settings: whoever goes through a list with the arrow keys chooses each entry on the way.
const SETTINGS_WAIT: Duration = Duration::from_secs(10);
/// When they are first looked at: the start comes first.
const SOON: Duration = Duration::from_secs(20);
/// When the slow scrub is first looked at, and how often.
const SCRUB_FIRST: Duration = Duration::from_mins(10);
const SCRUB_EVERY: Duration = Duration::from_hours(1);

/// A piece of housekeeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Remove what was cleared and can no longer be brought back.
    Clears,
    /// Settle the folder, read the health.
    Layout,
    /// Go below the quota, remove what is past the age limit.
    Room,
    /// Begin the slow scrub, if something is due and nothing else goes on.
    Scrub,
}

/// Who carries it out.
pub(crate) trait House: Send + Sync {
    /// Carries it out, to its end; [`Work::Scrub`] only begins. Says whether it should be done again soon.
    fn carry_out(&self, work: Work) -> impl Future<Output = bool> + Send;
}

/// What wakes it before its time.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    /// Something was cleared and waits.
    pub(crate) clears: Notify,
    /// A setting of the cache was changed: room is made 10 s after the last change.
    pub(crate) settings: Notify,
}

/// Does what is due, when it is due, until the end.
pub(crate) async fn run(house: impl House, wakes: Arc<Wakes>, token: CancellationToken) {
    let mut schedule = Schedule::new(Instant::now());
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            () = wakes.clears.notified() => schedule.clears = Some(Instant::now() + CLEARS_EVERY),
            () = wakes.settings.notified() => schedule.room = Instant::now() + SETTINGS_WAIT,
            () = tokio::time::sleep_until(schedule.next()) => {}
        }
        for work in schedule.due(Instant::now()) {
            let again = tokio::select! {
                () = token.cancelled() => return,
                again = house.carry_out(work) => again,
            };
            if again && work == Work::Clears {
                schedule.clears = Some(Instant::now() + CLEARS_EVERY);
            }
        }
    }
}

/// When each piece is next due.
#[derive(Debug)]
struct Schedule {
    /// `None`: nothing waits.
    clears: Option<Instant>,
    layout: Instant,
    room: Instant,
    scrub: Instant,
}

impl Schedule {
    fn new(now: Instant) -> Self {
        Self { clears: None, layout: now, room: now + SOON, scrub: now + SCRUB_FIRST }
    }

    fn next(&self) -> Instant {
        let regular = self.layout.min(self.room).min(self.scrub);
        self.clears.map_or(regular, |clears| clears.min(regular))
    }

    /// What is due now; each is due again after its time.
    fn due(&mut self, now: Instant) -> Vec<Work> {
        let mut due = Vec::new();
        if self.clears.is_some_and(|at| at <= now) {
            self.clears = None;
            due.push(Work::Clears);
        }
        let regular = [
            (&mut self.layout, LAYOUT_EVERY, Work::Layout),
            (&mut self.room, ROOM_EVERY, Work::Room),
            (&mut self.scrub, SCRUB_EVERY, Work::Scrub),
        ];
        for (at, every, work) in regular {
            if *at <= now {
                *at = now + every;
                due.push(work);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Writes down what it is asked to do, and when.
    #[derive(Clone)]
    struct Diary {
        began: Instant,
        done: Arc<Mutex<Vec<(u64, Work)>>>,
        /// How many times clears still wait after they were looked at.
        waiting: Arc<AtomicU32>,
    }

    impl House for Diary {
        async fn carry_out(&self, work: Work) -> bool {
            self.done.lock().unwrap().push((self.began.elapsed().as_secs(), work));
            let left = |waiting: u32| waiting.checked_sub(1);
            work == Work::Clears
                && self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok()
        }
    }

    impl Diary {
        fn new() -> Self {
            Self { began: Instant::now(), done: Arc::default(), waiting: Arc::default() }
        }

        fn times(&self, work: Work) -> Vec<u64> {
            self.done.lock().unwrap().iter().filter(|(_, done)| *done == work).map(|(at, _)| *at).collect()
        }
    }

    /// Keeps house for `seconds`, with something happening on the way.
    async fn keep(diary: &Diary, seconds: u64, meanwhile: impl AsyncFnOnce(&Wakes)) {
        let (wakes, token) = (Arc::new(Wakes::default()), CancellationToken::new());
        let keeping = run(diary.clone(), wakes.clone(), token.clone());
        let ending = async {
            let end = Instant::now() + Duration::from_secs(seconds);
            meanwhile(&wakes).await;
            tokio::time::sleep_until(end).await;
            token.cancel();
        };
        tokio::join!(keeping, ending);
    }

    #[tokio::test(start_paused = true)]
    async fn left_alone_it_wakes_every_half_minute_and_does_the_rest_in_its_time() {
        let diary = Diary::new();
        keep(&diary, 3599, async |_| {}).await;
        assert_eq!(diary.times(Work::Clears), [0; 0], "nothing waits");
        assert_eq!(diary.times(Work::Layout).len(), 120, "every 30 s, at the start too");
        assert_eq!(diary.times(Work::Room), [20, 620, 1220, 1820, 2420, 3020]);
        assert_eq!(diary.times(Work::Scrub), [600], "and again an hour later");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clear_that_waits_is_looked_at_each_second_until_it_is_gone() {
        let diary = Diary::new();
        diary.waiting.store(9, Ordering::SeqCst);
        keep(&diary, 100, async |wakes| {
            tokio::time::sleep(Duration::from_secs(5)).await;
            wakes.clears.notify_one();
        })
        .await;
        assert_eq!(diary.times(Work::Clears), (6..=15).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_new_quota_takes_goes_10_s_after_the_last_change_and_an_end_ends_it() {
        let diary = Diary::new();
        keep(&diary, 65, async |wakes| {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(7)).await;
                wakes.settings.notify_one();
            }
            tokio::time::sleep(Duration::from_secs(39)).await;
            wakes.settings.notify_one();
        })
        .await;
        assert_eq!(
            diary.times(Work::Room),
            [31],
            "changes at 7, 14 and 21 s; the one at 60 s is not waited for"
        );
    }
}
