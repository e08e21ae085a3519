//! A download from its first look at the disk to the published blob.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sampan_oci::{Clock, Lie};
use sampan_store::{BlobFile, Store, StoreError};
use sampan_upstream::UpstreamError;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Running;
use super::claims::FIRST_PIECE;
use super::demand::Clients;
use super::fetch::{Begun, Fetch};
use super::follow::Download;
use super::patience::{self, Facts, Patience, Verdict};
use super::throttle::Throttle;
use super::{Meter, Wanted};
use crate::EventSink;
use crate::error::PullError;
use crate::sources::{Evidence, Source, Sources};

/// Everything one download works with.
pub(super) struct Run {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) sink: EventSink,
    pub(super) sources: Arc<Sources>,
    /// Whether the repository is known to have the blob.
    pub(super) proven: bool,
    /// Blobs of this digest that turned out wrong.
    pub(super) evidence: Mutex<Vec<Evidence>>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) outage_wait: Duration,
    pub(super) paused: watch::Receiver<bool>,
    pub(super) running: Running,
    pub(super) clients: Clients,
    pub(super) wanted: Wanted,
    pub(super) download: Arc<Download>,
}

impl Run {
    /// Fetches and publishes. Whatever ends it early, the bytes on disk stay, and the next one continues with them.
    pub(super) async fn fetch(&self, token: CancellationToken) -> Result<(), PullError> {
        let mut paused = self.paused.clone();
        tokio::select! {
            result = self.fetch_in_turn() => result,
            () = token.cancelled() => Err(PullError::Stopping),
            Ok(_) = paused.wait_for(|paused| *paused) => Err(PullError::Paused),
        }
    }

    /// Fetches while it is its turn. Where it is not, everything is let go of but the bytes on disk.
    async fn fetch_in_turn(&self) -> Result<(), PullError> {
        let demand = self.download.demand();
        loop {
            demand.turn(&self.clients, || self.leave()).await?;
            tokio::select! {
                result = self.fetch_all() => return result,
                () = demand.turn_ends(&self.clients) => {}
            }
            tracing::debug!(digest = %self.wanted.digest, "a download nobody waits for rests");
        }
    }

    /// Takes the download off the list if nobody wants it; whoever comes later starts another one.
    fn leave(&self) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let unwanted = self.download.demand().is_unwanted();
        if unwanted {
            running.remove(&self.wanted.digest);
        }
        unwanted
    }

    async fn fetch_all(&self) -> Result<(), PullError> {
        let Wanted { image, digest, size } = &self.wanted;
        // The one before may have published it between this client's look at the disk and now.
        if let Some(file) = self.store.open_blob(digest).await?.filter(BlobFile::verified) {
            let size = file.size();
            self.download.open(file, size);
            return Ok(());
        }
        // Before what is left is read again, which takes its time: whoever has most of a blob is not sent away.
        let hopeful = self.sources.is_hopeful();
        self.download.set_hopeful(hopeful || self.store.left_of(digest) > 0);
        let trusted = self.sources.trusted().ok_or(PullError::Stopping)?.clone();
        let _turn = trusted.link.turn().await.map_err(|_| PullError::Stopping)?;
        let mut meter = Meter::new(self.sink.clone(), self.clock.clone(), &self.wanted);
        let (size, mut begun) = match size {
            Some(size) => (*size, None),
            None => self.begin(&trusted, &mut meter).await.map(|(size, begun)| (size, Some(begun)))?,
        };
        let mut one_stream = false;
        let mut wrong = None;
        // Who is asked now; and who was asked for the whole blob alone, after bytes of several turned out wrong.
        let mut sources = self.first_sources(size, begun.is_some());
        let mut alone: Vec<Arc<Source>> = Vec::new();
        loop {
            let partial = self.store.partial(digest, size).await?;
            let resumed = !partial.held().is_empty();
            let file = partial.reader();
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
            // While somebody else can be asked, nobody's outage is waited out.
            let is_last = alone.is_empty() || self.next_alone(size, &alone).is_none();
            let fetch =
                Fetch::new(self, sources.clone(), partial, &mut meter, one_stream, begun.take(), is_last);
            let fetched = match fetch.run().await {
                Ok(fetched) => fetched,
                Err(error @ (PullError::Upstream { .. } | PullError::BlobUnknown { .. })) if !is_last => {
                    let Some(next) = self.next_alone(size, &alone) else { return Err(error) };
                    alone.push(next.clone());
                    sources = vec![next];
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (suspects, in_pieces) = (fetched.suspects, fetched.in_pieces);
            match fetched.partial.publish().await {
                Ok(()) => {
                    for (source, lie) in suspects {
                        self.sources.lied(&source, lie, image, digest);
                    }
                    break;
                }
                // The store found out, but it is the upstream that sent something else. Where the bytes came in pieces,
                // one of them may be another blob's, or the disk's fault: one honest stream tells.
                Err(StoreError::Mismatch { expected, actual }) => {
                    let error = PullError::upstream(image, UpstreamError::Mismatch { expected, actual });
                    if self.is_choice() {
                        self.keep_evidence(Evidence { file, brought: fetched.brought }, size);
                        let Some(next) = self.next_alone(size, &alone) else { return Err(error) };
                        alone.push(next.clone());
                        sources = vec![next];
                    } else if one_stream || !(resumed || in_pieces) {
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
    async fn begin(&self, by: &Arc<Source>, meter: &mut Meter) -> Result<(u64, Begun), PullError> {
        let Wanted { image, digest, .. } = &self.wanted;
        let mut patience = Patience::new(Instant::now(), by.link.is_hopeful());
        loop {
            let source = by.upstream.blob_source(&image.repository, digest);
            let asked = Instant::now();
            let error = match source.begin(Some(FIRST_PIECE), None).await {
                Ok(body) => {
                    let unknown = || self.failed(UpstreamError::Protocol("a blob of unknown size"));
                    let size = body.size.ok_or_else(unknown)?;
                    return Ok((size, Begun { by: by.clone(), source, body, after: asked.elapsed() }));
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

    /// Whether others may be asked for the bytes than the registry itself.
    pub(super) fn is_choice(&self) -> bool {
        !self.sources.is_alone()
    }

    /// Whether this is the upstream that is believed about what a repository has.
    pub(super) fn is_trusted(&self, source: &Arc<Source>) -> bool {
        self.sources.trusted().is_some_and(|trusted| Arc::ptr_eq(trusted, source))
    }

    /// Who may bring the blob: everybody, if the repository is known to have it.
    fn first_sources(&self, size: u64, begun: bool) -> Vec<Arc<Source>> {
        if !begun && self.proven {
            return self.sources.for_bytes(&self.wanted.image, &self.wanted.digest, Some(size));
        }
        self.sources.trusted().cloned().into_iter().collect()
    }

    /// Who is asked next for all of it alone: the registry itself first, then those that did not have their turn.
    fn next_alone(&self, size: u64, had: &[Arc<Source>]) -> Option<Arc<Source>> {
        let fit = if self.proven {
            self.sources.for_bytes(&self.wanted.image, &self.wanted.digest, Some(size))
        } else {
            self.sources.trusted().cloned().into_iter().collect()
        };
        let fit = self.sources.origin().cloned().into_iter().chain(fit);
        fit.into_iter().find(|source| !had.iter().any(|other| Arc::ptr_eq(other, source)))
    }

    /// Keeps what may tell who sent wrong bytes. One that sent all of them alone is named at once.
    fn keep_evidence(&self, evidence: Evidence, size: u64) {
        let Wanted { image, digest, .. } = &self.wanted;
        match evidence.only_one(digest, size) {
            Some(liar) => self.sources.lied(liar, Lie::Bytes, image, digest),
            None => self.evidence.lock().unwrap_or_else(PoisonError::into_inner).push(evidence),
        }
    }

    /// Compares what turned out wrong with the right bytes, if they came, and names who sent others.
    pub(super) async fn name_the_liars(&self) {
        let evidence = std::mem::take(&mut *self.evidence.lock().unwrap_or_else(PoisonError::into_inner));
        if evidence.is_empty() {
            return;
        }
        let Wanted { image, digest, .. } = &self.wanted;
        let Ok(Some(right)) = self.store.open_blob(digest).await else { return };
        for wrong in evidence {
            for liar in wrong.liars(&right).await {
                self.sources.lied(&liar, Lie::Bytes, image, digest);
            }
        }
    }

    /// The failure as clients see it.
    pub(super) fn failed(&self, error: UpstreamError) -> PullError {
        PullError::blob(&self.wanted.image, &self.wanted.digest, error)
    }
}
