//! A download from its first look at the disk to the published blob.

use std::sync::Arc;
use std::time::Duration;

use sampan_oci::Clock;
use sampan_store::{BlobFile, Store, StoreError};
use sampan_upstream::{Upstream, UpstreamError};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::claims::FIRST_PIECE;
use super::fetch::{Begun, Fetch};
use super::follow::Download;
use super::link::Link;
use super::patience::{self, Facts, Patience, Verdict};
use super::throttle::Throttle;
use super::{Meter, Wanted};
use crate::EventSink;
use crate::error::PullError;

/// Everything one download works with.
pub(super) struct Run {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) sink: EventSink,
    pub(super) link: Arc<Link>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) outage_wait: Duration,
    pub(super) paused: watch::Receiver<bool>,
    pub(super) wanted: Wanted,
    pub(super) download: Arc<Download>,
}

impl Run {
    /// Fetches and publishes. Whatever ends it early, the bytes on disk stay, and the next one continues with them.
    pub(super) async fn fetch(&self, upstream: &Upstream, token: CancellationToken) -> Result<(), PullError> {
        let mut paused = self.paused.clone();
        tokio::select! {
            result = self.fetch_all(upstream) => result,
            () = token.cancelled() => Err(PullError::Stopping),
            Ok(_) = paused.wait_for(|paused| *paused) => Err(PullError::Paused),
        }
    }

    async fn fetch_all(&self, upstream: &Upstream) -> Result<(), PullError> {
        let Wanted { image, digest, size } = &self.wanted;
        // The one before may have published it between this client's look at the disk and now.
        if let Some(file) = self.store.open_blob(digest).await?.filter(BlobFile::verified) {
            let size = file.size();
            self.download.open(file, size);
            return Ok(());
        }
        // Before what is left is read again, which takes its time: whoever has most of a blob is not sent away.
        self.download.set_hopeful(self.link.is_hopeful() || self.store.left_of(digest) > 0);
        let _turn = self.link.turn().await.map_err(|_| PullError::Stopping)?;
        let mut meter = Meter::new(self.sink.clone(), self.clock.clone(), &self.wanted);
        let (size, mut begun) = match size {
            Some(size) => (*size, None),
            None => self.begin(upstream, &mut meter).await.map(|(size, begun)| (size, Some(begun)))?,
        };
        let mut one_stream = false;
        let mut wrong = None;
        loop {
            let partial = self.store.partial(digest, size).await?;
            let resumed = !partial.held().is_empty();
            match wrong.take() {
                None => {
                    self.download.prepare(partial.reader(), size, partial.held().clone());
                }
                Some(why) => self.download.begin_again(partial.reader(), size, why),
            }
            if resumed {
                tracing::info!(%digest, held = partial.held().len(), size, "a download goes on where it stopped");
                self.download.flow();
            }
            let fetched =
                Fetch::new(self, upstream, partial, &mut meter, one_stream, begun.take()).run().await?;
            match fetched.partial.publish().await {
                Ok(()) => break,
                // The store found out, but it is the upstream that sent something else. Where the bytes came in pieces,
                // one of them may be another blob's, or the disk's fault: one honest stream tells.
                Err(StoreError::Mismatch { expected, actual }) => {
                    let error = UpstreamError::Mismatch { expected, actual };
                    let error = PullError::upstream(image, error);
                    if one_stream || !(resumed || fetched.in_pieces) {
                        return Err(error);
                    }
                    tracing::warn!(%digest, %image, %error, "the pieces of a blob do not fit: fetching it anew");
                    (one_stream, wrong) = (true, Some(error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        drop(meter);
        if let Err(error) = self.store.add_link(image, digest, Some(size)).await {
            tracing::warn!(%image, %digest, %error, "that the repository has this blob could not be kept");
        }
        Ok(())
    }

    /// A blob that no manifest has named yet: the answer to the first question tells its size, and brings its first bytes.
    async fn begin(&self, upstream: &Upstream, meter: &mut Meter) -> Result<(u64, Begun), PullError> {
        let Wanted { image, digest, .. } = &self.wanted;
        let mut patience = Patience::new(Instant::now(), self.link.is_hopeful());
        loop {
            let source = upstream.blob_source(&image.repository, digest);
            let asked = Instant::now();
            let error = match source.begin(Some(FIRST_PIECE), None).await {
                Ok(body) => {
                    let unknown = || self.failed(UpstreamError::Protocol("a blob of unknown size"));
                    let size = body.size.ok_or_else(unknown)?;
                    return Ok((size, Begun { source, body, after: asked.elapsed() }));
                }
                Err(error) => error,
            };
            let now = Instant::now();
            let wait = patience::wait(true, self.outage_wait);
            let facts = Facts { now, was_open: false, others_bring: false, one_stream: true, wait };
            let rest = match patience.judge(&error, facts) {
                Verdict::GiveUp | Verdict::OneStream => return Err(self.failed(error)),
                Verdict::AgainAfter(rest) => rest,
                Verdict::Again | Verdict::AgainWithFewer => Duration::ZERO,
            };
            meter.retried();
            meter.waits(true);
            meter.connections(0);
            tokio::time::sleep_until(patience.retry_at().unwrap_or(now).max(now + rest)).await;
        }
    }

    /// The failure as clients see it.
    pub(super) fn failed(&self, error: UpstreamError) -> PullError {
        PullError::blob(&self.wanted.image, &self.wanted.digest, error)
    }
}
