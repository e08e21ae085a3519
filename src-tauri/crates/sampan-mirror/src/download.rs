//! The one download of a blob, and everybody who follows it while it grows.
//!
//! `run` takes a blob from the disk's remains to the published file, `fetch` drives its connections (`lane`, `lanes`) by what
//! `claims` (which bytes), `slots` and `level` (how many connections, over all blobs of an upstream: `link`), `pace` (how
//! long to wait), `patience` (what a failure means), `throttle` (the person's speed limit) and `demand` (who goes first)
//! decide; `follow` is what its clients see.

mod claims;
mod demand;
mod fetch;
mod follow;
mod lane;
mod lanes;
mod level;
mod link;
mod meter;
mod pace;
mod patience;
mod run;
mod slots;
mod supply;
mod throttle;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sampan_oci::{Clock, Digest, ImageName};
use sampan_store::Store;
use tokio::sync::watch;

pub(crate) use demand::Ahead;
pub(crate) use follow::{Download, Follower};
pub(crate) use meter::Meter;
pub(crate) use patience::{Facts, Patience, Verdict};
pub(crate) use throttle::Throttle;

use crate::error::PullError;
use crate::manifests::bypass;
use crate::sources::Sources;
use crate::{EventSink, Tasks};
use demand::{Clients, Demand};
pub(crate) use link::Link;
use run::Run;

/// Blobs up to this size are verified whole before their first byte is let out (CLIENTS.md R-M5).
pub(crate) const SMALL_BYTES: u64 = 4 * 1024 * 1024;
/// Of larger ones, so many last bytes are held back until the digest is right (SECURITY.md R4).
pub(crate) const TAIL_BYTES: u64 = 64 * 1024;
/// How much a reader takes from disk at a time.
pub(crate) const READ_BYTES: usize = 256 * 1024;

/// Up to where bytes may be let out before the blob's digest was checked, to a client that wants those before `end`. Its
/// last byte is always held back: an answer that is complete is an answer that is right, for a part as for the whole.
pub(crate) fn releasable(ready: u64, size: u64, end: u64) -> u64 {
    if size <= SMALL_BYTES { 0 } else { ready.min(size - TAIL_BYTES).min(end.saturating_sub(1)) }
}

/// What a download needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) image: ImageName,
    pub(crate) digest: Digest,
    /// The size the manifest gives, where one is known.
    pub(crate) size: Option<u64>,
}

/// What a person decides about all downloads.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// How long an outage is waited out while a client listens.
    pub(crate) outage_wait: Duration,
    /// The speed limit all connections share.
    pub(crate) throttle: Arc<Throttle>,
}

/// Every download under way, by its digest.
type Running = Arc<Mutex<HashMap<Digest, Arc<Download>>>>;

/// All downloads under way, at most one a digest.
#[derive(Debug)]
pub(crate) struct Downloads {
    running: Running,
    clients: Clients,
    paused: watch::Sender<bool>,
    limits: Limits,
    store: Store,
    clock: Arc<dyn Clock>,
    sink: EventSink,
    tasks: Tasks,
}

impl Downloads {
    pub(crate) fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        sink: EventSink,
        tasks: Tasks,
        limits: Limits,
    ) -> Self {
        let (running, clients, paused) = (Arc::default(), Clients::default(), watch::Sender::new(false));
        Self { running, clients, paused, limits, store, clock, sink, tasks }
    }

    /// Whether that digest is being downloaded now.
    pub(crate) fn is_running(&self, digest: &Digest) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).contains_key(digest)
    }

    /// Whether nothing is being downloaded now that a client asked for.
    pub(crate) fn is_idle(&self) -> bool {
        self.clients.are_none()
    }

    /// Waits until nothing is being downloaded that a client asked for.
    pub(crate) async fn idle(&self) {
        self.clients.none().await;
    }

    /// While paused nothing is downloaded: what runs ends at once, and its bytes stay on disk.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// The running download of that digest and `true`, or a new one and `false`, for a client. `proven`: the repository is
    /// known to have it; else only the trusted upstream's bytes show that (SECURITY.md R84).
    pub(crate) fn join_or_start(
        &self,
        wanted: Wanted,
        sources: &Arc<Sources>,
        proven: bool,
    ) -> (Arc<Download>, bool) {
        self.find_or_start(wanted, sources, proven, |demand| demand.ask(&self.clients))
    }

    /// The download of a digest that the repository is known to have, for somebody who is in no hurry: it rests while any
    /// client waits for another one, and ends when nobody wants it any longer.
    pub(crate) fn ahead(&self, wanted: Wanted, sources: &Arc<Sources>) -> Ahead {
        Ahead::new(self.find_or_start(wanted, sources, true, Demand::look_ahead).0)
    }

    /// `want` is told who wants it before anybody can find out that nobody does.
    fn find_or_start(
        &self,
        wanted: Wanted,
        sources: &Arc<Sources>,
        proven: bool,
        want: impl FnOnce(&Demand),
    ) -> (Arc<Download>, bool) {
        let download = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(download) = running.get(&wanted.digest) {
                want(download.demand());
                return (download.clone(), true);
            }
            let download = Arc::new(Download::new());
            want(download.demand());
            running.insert(wanted.digest, download.clone());
            download
        };
        // The lock is free here: a runtime that is ending drops the task at once, and that takes the lock again.
        let ended = Ended {
            running: self.running.clone(),
            clients: self.clients.clone(),
            digest: wanted.digest,
            download: download.clone(),
        };
        let run = Run {
            store: self.store.clone(),
            clock: self.clock.clone(),
            sink: self.sink.clone(),
            sources: sources.clone(),
            proven,
            evidence: Mutex::default(),
            throttle: self.limits.throttle.clone(),
            outage_wait: self.limits.outage_wait,
            paused: self.paused.subscribe(),
            running: self.running.clone(),
            clients: self.clients.clone(),
            wanted,
            download: download.clone(),
        };
        self.tasks.spawn("download", |token| async move {
            let ended = ended;
            let result = run.fetch(token).await;
            let not_kept = |error: &PullError| matches!(error, PullError::Store(why) if bypass(why).is_some());
            // A full or read-only disk is told by the app, once a minute and not per request (SECURITY.md R70).
            if let Err(error) = &result
                && !not_kept(error)
                && !matches!(error, PullError::Unwanted)
            {
                tracing::warn!(digest = %run.wanted.digest, image = %run.wanted.image, %error, "a download failed");
            }
            ended.settle(result);
            run.name_the_liars().await;
        });
        (download, false)
    }
}

/// Takes the download off the list and wakes its followers, also when its task is dropped.
struct Ended {
    running: Running,
    clients: Clients,
    digest: Digest,
    download: Arc<Download>,
}

impl Ended {
    fn settle(&self, result: Result<(), PullError>) {
        // Off the list first: whoever comes now finds the published blob, or starts anew after a failure.
        {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            // One that nobody wanted has left already, and another one may be in its place.
            if running.get(&self.digest).is_some_and(|other| Arc::ptr_eq(other, &self.download)) {
                running.remove(&self.digest);
            }
        }
        self.download.demand().end(&self.clients);
        self.download.settle(result);
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if !self.download.is_settled() {
            self.settle(Err(PullError::Stopping));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_blobs_wait_for_their_digest_and_large_ones_hold_back_their_tail() {
        let (small, large) = (SMALL_BYTES, SMALL_BYTES + 1);
        assert_eq!(releasable(small, small, small), 0);
        assert_eq!(releasable(10, large, large), 10);
        assert_eq!(releasable(large, large, large), large - TAIL_BYTES);
        assert_eq!(releasable(large, large, 1000), 999, "of a part its last byte, wherever it lies");
        assert_eq!(releasable(large, large, 0), 0);
    }
}
