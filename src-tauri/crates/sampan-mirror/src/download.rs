//! The one download of a blob, and everybody who follows it while it grows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sampan_oci::{Clock, Digest, Event, ImageName};
use sampan_store::{BlobFile, Store, StoreError};
use sampan_upstream::{Upstream, UpstreamError};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::error::PullError;
use crate::upstream_body::UpstreamBody;
use crate::{EventSink, Tasks};

/// Blobs up to this size are verified whole before their first byte is let out (CLIENTS.md R-M5).
pub(crate) const SMALL_BYTES: u64 = 4 * 1024 * 1024;
/// Of larger ones, so many last bytes are held back until the digest is right (SECURITY.md R4).
pub(crate) const TAIL_BYTES: u64 = 64 * 1024;
/// How much a reader takes from disk at a time.
pub(crate) const READ_BYTES: usize = 256 * 1024;
/// How often received bytes are told, and at the latest after how many: what is served from them is told too, and would
/// look like a saving until then.
const TELL_EVERY: Duration = Duration::from_millis(200);
const TELL_BYTES: u64 = 256 * 1024;

/// The most downloads at once; more wait for their turn (SECURITY.md 3).
const DOWNLOADS_MAX: usize = 64;

/// Up to where bytes may be let out before the blob's digest was checked, to a client that wants those before `end`. Its
/// last byte is always held back: an answer that is complete is an answer that is right, for a part as for the whole.
pub(crate) fn releasable(ready: u64, size: u64, end: u64) -> u64 {
    if size <= SMALL_BYTES { 0 } else { ready.min(size - TAIL_BYTES).min(end.saturating_sub(1)) }
}

/// How far a download is.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// The upstream was asked.
    Asking,
    /// The upstream answered: bytes come.
    Flowing,
    /// All bytes are there and are the right ones; the blob is published.
    Verified,
    /// It ended without success.
    Failed(PullError),
}

#[derive(Clone, Debug)]
struct Progress {
    ready: u64,
    phase: Phase,
}

/// One download. It belongs to the mirror: it goes on when every client has left.
#[derive(Debug)]
pub(crate) struct Download {
    /// Set once the upstream has answered: the growing file and the whole blob's size.
    file: OnceLock<(BlobFile, u64)>,
    progress: watch::Sender<Progress>,
}

impl Download {
    fn new() -> Self {
        Self {
            file: OnceLock::new(),
            progress: watch::Sender::new(Progress { ready: 0, phase: Phase::Asking }),
        }
    }

    /// Waits until bytes can be expected, and returns the whole blob's size.
    pub(crate) async fn opened(&self) -> Result<u64, PullError> {
        let mut progress = self.progress.subscribe();
        let settled = progress.wait_for(|p| !matches!(p.phase, Phase::Asking)).await;
        match settled.map(|p| p.phase.clone()) {
            Ok(Phase::Failed(error)) => Err(error),
            Ok(_) => self.file.get().map(|(_, size)| *size).ok_or(PullError::Stopping),
            Err(_) => Err(PullError::Stopping),
        }
    }

    /// Waits until the blob is whole and right.
    pub(crate) async fn verified(&self) -> Result<(), PullError> {
        let mut progress = self.progress.subscribe();
        let ended = progress.wait_for(|p| matches!(p.phase, Phase::Verified | Phase::Failed(_))).await;
        match ended.map(|p| p.phase.clone()) {
            Ok(Phase::Failed(error)) => Err(error),
            Ok(Phase::Asking | Phase::Flowing | Phase::Verified) => Ok(()),
            Err(_) => Err(PullError::Stopping),
        }
    }

    /// The file as far as it is, and how many bytes of it were written: for going on elsewhere when the disk is full.
    pub(crate) fn remains(&self) -> Option<(BlobFile, u64)> {
        self.file.get().map(|(file, _)| (file.clone(), self.progress.borrow().ready))
    }

    /// A reader of bytes `start..end`.
    pub(crate) fn follow(self: &Arc<Self>, start: u64, end: u64) -> Follower {
        Follower { download: self.clone(), progress: self.progress.subscribe(), at: start, end }
    }

    fn tell(&self, ready: u64, phase: Phase) {
        self.progress.send_replace(Progress { ready, phase });
    }
}

/// Reads a download in order, as fast as it grows and as its client takes it. A slow one slows nobody else.
#[derive(Debug)]
pub(crate) struct Follower {
    download: Arc<Download>,
    progress: watch::Receiver<Progress>,
    at: u64,
    end: u64,
}

impl Follower {
    /// Where the next byte comes from.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// The next bytes; `None` after the last of the range. An error means that no more may be sent.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        while self.at < self.end {
            let Progress { ready, phase } = self.progress.borrow_and_update().clone();
            if let Some((file, size)) = self.download.file.get() {
                let verified = matches!(phase, Phase::Verified);
                let limit = if verified { self.end } else { releasable(ready, *size, self.end) };
                if self.at < limit {
                    let wanted = usize::try_from(limit - self.at).unwrap_or(READ_BYTES).min(READ_BYTES);
                    let bytes = file.read_at(self.at, wanted).await.map_err(StoreError::from)?;
                    if bytes.is_empty() {
                        return Err(StoreError::from(std::io::Error::from(
                            std::io::ErrorKind::UnexpectedEof,
                        ))
                        .into());
                    }
                    self.at += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
            }
            if let Phase::Failed(error) = phase {
                return Err(error);
            }
            self.progress.changed().await.map_err(|_| PullError::Stopping)?;
        }
        Ok(None)
    }
}

/// What a download needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) image: ImageName,
    pub(crate) digest: Digest,
    /// The size the manifest gives, where one is known.
    pub(crate) size: Option<u64>,
}

/// All downloads under way, at most one a digest.
#[derive(Debug)]
pub(crate) struct Downloads {
    running: Arc<Mutex<HashMap<Digest, Arc<Download>>>>,
    slots: Arc<Semaphore>,
    store: Store,
    clock: Arc<dyn Clock>,
    sink: EventSink,
    tasks: Tasks,
}

impl Downloads {
    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>, sink: EventSink, tasks: Tasks) -> Self {
        let slots = Arc::new(Semaphore::new(DOWNLOADS_MAX));
        Self { running: Arc::default(), slots, store, clock, sink, tasks }
    }

    /// Whether that digest is being downloaded now.
    pub(crate) fn is_running(&self, digest: &Digest) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).contains_key(digest)
    }

    /// The running download of that digest and `true`, or a new one and `false`.
    pub(crate) fn join_or_start(&self, wanted: Wanted, upstream: &Upstream) -> (Arc<Download>, bool) {
        let download = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(download) = running.get(&wanted.digest) {
                return (download.clone(), true);
            }
            let download = Arc::new(Download::new());
            running.insert(wanted.digest, download.clone());
            download
        };
        // The lock is free here: a runtime that is ending drops the task at once, and that takes the lock again.
        let ended =
            Ended { running: self.running.clone(), digest: wanted.digest, download: download.clone() };
        let (upstream, slots) = (upstream.clone(), self.slots.clone());
        let (store, clock, sink) = (self.store.clone(), self.clock.clone(), self.sink.clone());
        self.tasks.spawn("download", |token| async move {
            let ended = ended;
            let mut run = Run { store, clock, sink, slots, wanted, download: ended.download.clone() };
            let result = run.fetch(upstream, token).await;
            if let Err(error) = &result {
                tracing::warn!(digest = %run.wanted.digest, image = %run.wanted.image, %error, "a download failed");
            }
            ended.settle(result);
        });
        (download, false)
    }
}

/// Takes the download off the list and wakes its followers, also when its task is dropped.
struct Ended {
    running: Arc<Mutex<HashMap<Digest, Arc<Download>>>>,
    digest: Digest,
    download: Arc<Download>,
}

impl Ended {
    fn settle(&self, result: Result<(), PullError>) {
        // Off the list first: whoever comes now finds the published blob, or starts anew after a failure.
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
        let ready = self.download.progress.borrow().ready;
        self.download.tell(ready, result.map_or_else(Phase::Failed, |()| Phase::Verified));
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let settled = matches!(self.download.progress.borrow().phase, Phase::Verified | Phase::Failed(_));
        if !settled {
            self.settle(Err(PullError::Stopping));
        }
    }
}

struct Run {
    store: Store,
    clock: Arc<dyn Clock>,
    sink: EventSink,
    slots: Arc<Semaphore>,
    wanted: Wanted,
    download: Arc<Download>,
}

impl Run {
    async fn fetch(&mut self, upstream: Upstream, token: CancellationToken) -> Result<(), PullError> {
        tokio::select! {
            result = self.fetch_all(upstream) => result,
            () = token.cancelled() => Err(PullError::Stopping),
        }
    }

    async fn fetch_all(&mut self, upstream: Upstream) -> Result<(), PullError> {
        let Wanted { image, digest, size } = self.wanted.clone();
        // The one before may have published it between this client's look at the disk and now.
        if let Some(file) = self.store.open_blob(&digest).await?.filter(BlobFile::verified) {
            let size = file.size();
            let _ = self.download.file.set((file, size));
            self.download.tell(size, Phase::Flowing);
            return Ok(());
        }
        let _slot = self.slots.acquire().await.map_err(|_| PullError::Stopping)?;
        let mut meter = Meter::new(self.sink.clone(), self.clock.clone(), &self.wanted);
        let mut body = UpstreamBody::new(upstream, image.clone(), digest, size, 0);
        let size = body.open().await?;
        let mut stage = self.store.stage(&digest, size).await?;
        let _ = self.download.file.set((stage.reader(), size));
        self.download.tell(0, Phase::Flowing);
        loop {
            let next = body.next().await;
            meter.read(body.received());
            let Some(bytes) = next? else { break };
            stage.append(bytes).await?;
            self.download.tell(stage.len(), Phase::Flowing);
        }
        drop(meter);
        stage.publish().await.map_err(|error| match error {
            // The store found out, but it is the upstream that sent something else.
            StoreError::Mismatch { expected, actual } => {
                PullError::upstream(&image, UpstreamError::Mismatch { expected, actual })
            }
            kept_out @ (StoreError::Full
            | StoreError::ReadOnly
            | StoreError::Size { .. }
            | StoreError::Dead
            | StoreError::Stopped
            | StoreError::Io(_)
            | StoreError::Index(_)) => kept_out.into(),
        })?;
        if let Err(error) = self.store.add_link(&image, &digest, Some(size)).await {
            tracing::warn!(%image, %digest, %error, "that the repository has this blob could not be kept");
        }
        Ok(())
    }
}

/// Tells what came in, a few times a second, and the rest when it is dropped: no received byte is left out.
pub(crate) struct Meter {
    sink: EventSink,
    clock: Arc<dyn Clock>,
    image: ImageName,
    digest: Digest,
    received: u64,
    told: u64,
    since: Instant,
}

impl Meter {
    pub(crate) fn new(sink: EventSink, clock: Arc<dyn Clock>, wanted: &Wanted) -> Self {
        let (image, digest) = (wanted.image.clone(), wanted.digest);
        Self { sink, clock, image, digest, received: 0, told: 0, since: Instant::now() }
    }

    /// Takes note that `received` bytes came in so far.
    pub(crate) fn read(&mut self, received: u64) {
        self.received = received;
        if self.since.elapsed() >= TELL_EVERY || self.received - self.told >= TELL_BYTES {
            self.tell();
        }
    }

    fn tell(&mut self) {
        let bytes = self.received - self.told;
        if bytes > 0 {
            let (at, image, digest) = (self.clock.now(), self.image.clone(), Some(self.digest));
            self.sink.tell(&Event::Fetched { at, image, digest, bytes });
        }
        (self.told, self.since) = (self.received, Instant::now());
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.tell();
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
