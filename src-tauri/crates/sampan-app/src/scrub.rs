//! The scrub that goes on: the whole cache is read and compared with its digests, by hand or slowly by itself.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sampan_oci::{Event, Millis};
use sampan_store::ScrubPace;
use tokio_util::sync::CancellationToken;

use crate::api::{ScrubRun, ScrubState};
use crate::app::Inner;
use crate::convert;

/// How old the last check of a blob is before the slow scrub looks at it again: a pass takes a week at most.
const OLD: Duration = Duration::from_hours(7 * 24);
/// How fast the slow scrub reads at most.
const SLOW_BYTES_PER_SECOND: u64 = 50_000_000;
/// How long nothing has flowed before the slow scrub reads on.
const QUIET_MILLIS: u64 = 3_000;

/// At most one scrub, and how the last one ended.
#[derive(Debug, Default)]
pub(crate) struct Scrubs(Mutex<Slot>);

#[derive(Debug, Default)]
struct Slot {
    running: Option<Running>,
    last: Option<ScrubRun>,
    next: u64,
}

#[derive(Debug)]
struct Running {
    number: u64,
    background: bool,
    /// `None` until the store has said how much there is to read.
    state: Option<ScrubState>,
    stop: CancellationToken,
}

impl Scrubs {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that goes on, as far as there is something to show.
    pub(crate) fn state(&self) -> Option<ScrubState> {
        self.slot().running.as_ref().and_then(|running| running.state)
    }

    /// How the last one ended since the start.
    pub(crate) fn last(&self) -> Option<ScrubRun> {
        self.slot().last.clone()
    }

    /// Stops the one that goes on.
    pub(crate) fn stop(&self) {
        if let Some(running) = &self.slot().running {
            running.stop.cancel();
        }
    }

    /// Takes the place: `None` if there is nothing to begin. One by hand takes the slow one's place.
    fn begin(&self, background: bool, stop: CancellationToken) -> Option<u64> {
        let mut slot = self.slot();
        match &slot.running {
            Some(running) if background || !running.background => return None,
            Some(running) => running.stop.cancel(),
            None => {}
        }
        slot.next += 1;
        let number = slot.next;
        // By hand, whoever asked must see at once that it goes on.
        let state = (!background).then(ScrubState::default);
        slot.running = Some(Running { number, background, state, stop });
        Some(number)
    }

    fn progress(&self, number: u64, progress: sampan_store::ScrubProgress) {
        if let Some(running) = self.slot().running.as_mut().filter(|running| running.number == number) {
            running.state = Some(ScrubState {
                done_bytes: progress.bytes_done,
                total_bytes: progress.bytes,
                damaged: progress.damaged,
                background: running.background,
            });
        }
    }

    fn end(&self, number: u64, ended: Option<ScrubRun>) {
        let mut slot = self.slot();
        if slot.running.as_ref().is_some_and(|running| running.number == number) {
            slot.running = None;
            slot.last = ended.or(slot.last.take());
        }
    }
}

/// When something flowed, from or to this machine: the slow scrub waits meanwhile.
pub(crate) fn flowed(event: &Event) -> Millis {
    match event {
        Event::Manifest { at, .. }
        | Event::BlobStarted { at, .. }
        | Event::BlobProgress { at, .. }
        | Event::Fetched { at, .. }
        | Event::Download { at, .. }
        | Event::Lied { at, .. } => *at,
        Event::Answered(answered) => answered.at,
    }
}

impl Inner {
    /// Begins a scrub, unless one of its kind goes on. By hand it reads everything as fast as it can; in the
    /// `background` only what was not checked for a week, slowly, while nothing flows.
    pub(crate) fn begin_scrub(self: &Arc<Self>, background: bool) {
        let stop = self.stopping();
        let Some(number) = self.scrubs.begin(background, stop.clone()) else { return };
        let inner = self.clone();
        self.spawn("scrub", |token| async move {
            let ended = inner.scrub(number, background, stop, token).await;
            inner.scrubs.end(number, ended);
            inner.read_health().await;
            inner.refresh().await;
        });
    }

    async fn scrub(
        self: &Arc<Self>,
        number: u64,
        background: bool,
        stop: CancellationToken,
        token: CancellationToken,
    ) -> Option<ScrubRun> {
        let pace = if background {
            ScrubPace { bytes_per_second: Some(SLOW_BYTES_PER_SECOND), older_than: OLD, drop_pages: true }
        } else {
            ScrubPace::FULL
        };
        let busy = || background && self.flows_now();
        let progress = |progress| {
            self.scrubs.progress(number, progress);
            self.shows_something_new.store(true, Ordering::Relaxed);
        };
        let stopped = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = token.cancelled() => {}
            }
        };
        match self.store.scrub(pace, busy, progress, stopped).await {
            Ok(report) => {
                let run = convert::scrub_run(&report, self.clock.now());
                if run.damaged > 0 {
                    tracing::warn!(
                        damaged = run.damaged,
                        "the scrub found damaged blobs; the next pulls fetch them again"
                    );
                }
                // The slow one with nothing to do is not worth a word.
                (!background || run.blobs > 0).then_some(run)
            }
            Err(error) => {
                tracing::error!(%error, "the cache could not be read to its end");
                let error = Some(convert::store_failed(&error).message);
                (!background).then(|| ScrubRun { ended: self.clock.now().0, error, ..ScrubRun::default() })
            }
        }
    }

    fn flows_now(&self) -> bool {
        is_recent(Millis(self.flowed.load(Ordering::Relaxed)), self.clock.now())
    }
}

/// Whether something flowed just now. A time to come is that of a clock that was set back since.
fn is_recent(flowed: Millis, now: Millis) -> bool {
    flowed <= now && now.since(flowed) < QUIET_MILLIS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_by_hand_takes_the_slow_ones_place_and_no_other() {
        let scrubs = Scrubs::default();
        let slow = CancellationToken::new();
        let first = scrubs.begin(true, slow.clone()).unwrap();
        assert_eq!(scrubs.state(), None, "nothing to show until there is something to read");
        assert_eq!(scrubs.begin(true, CancellationToken::new()), None, "one is enough");
        let hand = scrubs.begin(false, CancellationToken::new()).unwrap();
        assert!(slow.is_cancelled(), "the slow one makes way");
        assert_eq!(scrubs.state(), Some(ScrubState::default()), "it is seen at once");
        assert_eq!(scrubs.begin(false, CancellationToken::new()), None, "it goes on already");

        let progress = sampan_store::ScrubProgress { bytes_done: 1, bytes: 2, ..Default::default() };
        scrubs.progress(first, progress);
        scrubs.end(first, Some(ScrubRun::default()));
        assert_eq!(scrubs.state(), Some(ScrubState::default()), "the slow one's end is not its end");
        assert_eq!(scrubs.last(), None);
        scrubs.progress(hand, progress);
        assert_eq!(scrubs.state().map(|state| state.done_bytes), Some(1));
        let run = ScrubRun { complete: true, ..ScrubRun::default() };
        scrubs.end(hand, Some(run.clone()));
        assert_eq!((scrubs.state(), scrubs.last()), (None, Some(run)));
    }

    #[test]
    fn the_slow_one_waits_for_what_flows_and_not_for_a_clock_that_was_set_back() {
        let now = Millis(1_000_000);
        let table = [(0, true), (-2_999, true), (-3_000, false), (1, false), (3_600_000, false)];
        for (later, recent) in table {
            assert_eq!(is_recent(now.plus(later), now), recent, "{later}");
        }
        assert!(!is_recent(Millis(i64::MIN), now), "nothing ever flowed");
    }
}
