//! One blob's bytes from an upstream, in order, across broken connections.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use sampan_oci::{Digest, Failure, ImageName};
use sampan_upstream::{BlobBody, Upstream, UpstreamError};

use crate::error::PullError;

/// How long a download that has begun goes on trying without a single new byte. A link that changes networks or a
/// train in a tunnel is back within that; what arrived before must not have to come again.
const PATIENCE: Duration = Duration::from_mins(1);
/// A failure this quick at the very beginning is tried once more; after a slow one the client that waits for headers is
/// better off with an error it can fall back from.
const QUICK: Duration = Duration::from_secs(2);
/// How often a blob is fetched from its first byte again, from an upstream that gives no parts.
const WITHOUT_RANGES_AT_MOST: u32 = 3;
/// The longest `Retry-After` that is waited for inside a download; a longer one ends it.
const WAIT_AT_MOST: Duration = Duration::from_secs(10);
/// The first pause; each further one doubles it, up to the longest.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_AT_MOST: Duration = Duration::from_secs(5);

/// The bytes of one blob from `position` on. A cut connection is resumed with a range request from the last byte; an
/// upstream that gives no parts is asked for the whole, and what is known already is passed over.
pub(crate) struct UpstreamBody {
    upstream: Upstream,
    image: ImageName,
    digest: Digest,
    size: Option<u64>,
    position: u64,
    body: Option<BlobBody>,
    /// Where the open body is; before `position` while an upstream without ranges sends what is known already.
    body_at: u64,
    ranges: bool,
    /// Body bytes received, those that were known already included.
    received: u64,
    /// Failures since the last new byte, and when that was (or the beginning).
    failures: u32,
    since: Instant,
}

impl UpstreamBody {
    /// Nothing is asked before [`open`](Self::open) or [`next`](Self::next). `size` is the whole blob's, where known.
    pub(crate) fn new(
        upstream: Upstream,
        image: ImageName,
        digest: Digest,
        size: Option<u64>,
        position: u64,
    ) -> Self {
        Self {
            upstream,
            image,
            digest,
            size,
            position,
            body: None,
            body_at: 0,
            ranges: true,
            received: 0,
            failures: 0,
            since: Instant::now(),
        }
    }

    /// Body bytes received so far, whether or not they were new.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Asks the upstream and returns the whole blob's size.
    pub(crate) async fn open(&mut self) -> Result<u64, PullError> {
        while self.body.is_none() {
            if let Err(error) = self.ask().await {
                self.pause(error).await?;
            }
        }
        self.size.ok_or_else(|| self.failed(UpstreamError::Protocol("a blob of unknown size")))
    }

    /// The next bytes; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        loop {
            let size = self.open().await?;
            if self.position == size {
                return Ok(None);
            }
            let next = match &mut self.body {
                Some(body) => body.stream.next().await,
                None => None,
            };
            let error = match next {
                Some(Ok(bytes)) => {
                    if let Some(new) = self.advance(bytes, size)? {
                        return Ok(Some(new));
                    }
                    continue;
                }
                Some(Err(error)) => error,
                None => UpstreamError::Truncated { got: self.position, expected: size },
            };
            self.body = None;
            self.pause(error).await?;
        }
    }

    /// What of `bytes` is new; `None`: nothing.
    fn advance(&mut self, mut bytes: Bytes, size: u64) -> Result<Option<Bytes>, PullError> {
        self.received += bytes.len() as u64;
        let end = self.body_at + bytes.len() as u64;
        if end > size {
            return Err(self.failed(UpstreamError::Protocol("a body longer than its blob")));
        }
        let known = self.position.saturating_sub(self.body_at);
        self.body_at = end;
        if end <= self.position {
            return Ok(None);
        }
        // Less than the chunk's length, or everything in it would be known.
        let new = bytes.split_off(usize::try_from(known).unwrap_or(0));
        self.position = end;
        (self.failures, self.since) = (0, Instant::now());
        Ok(Some(new))
    }

    async fn ask(&mut self) -> Result<(), UpstreamError> {
        let body = match (self.position, self.size) {
            (from @ 1.., Some(size)) if self.ranges => {
                let part =
                    self.upstream.get_blob_part(&self.image.repository, &self.digest, from..size, size).await;
                match part {
                    Err(UpstreamError::RangeRefused) => {
                        self.ranges = false;
                        self.upstream.get_blob(&self.image.repository, &self.digest, 0).await?
                    }
                    other => other?,
                }
            }
            _ => self.upstream.get_blob(&self.image.repository, &self.digest, 0).await?,
        };
        if let (Some(known), Some(told)) = (self.size, body.size)
            && known != told
        {
            return Err(UpstreamError::Protocol("the blob has another size than its manifest says"));
        }
        self.size = self.size.or(body.size);
        self.body_at = body.offset;
        self.body = Some(body);
        Ok(())
    }

    /// Waits before asking again, or gives up with `error`.
    async fn pause(&mut self, error: UpstreamError) -> Result<(), PullError> {
        self.failures += 1;
        let waited = self.since.elapsed();
        let patient =
            if self.position == 0 { self.failures < 2 && waited < QUICK } else { waited < PATIENCE };
        // Without ranges every new attempt carries all bytes again: that is not worth a minute of trying.
        let patient = patient && (self.ranges || self.failures <= WITHOUT_RANGES_AT_MOST);
        let limited = matches!(error, UpstreamError::RateLimited { .. });
        let asked_to_wait =
            error.retry_after().unwrap_or(if limited { WAIT_AT_MOST } else { Duration::ZERO });
        if !error.is_transient() || !patient || asked_to_wait >= WAIT_AT_MOST {
            return Err(self.failed(error));
        }
        tracing::info!(digest = %self.digest, position = self.position, %error, "asking for a blob again");
        let pause = PAUSE.saturating_mul(2_u32.saturating_pow(self.failures - 1)).min(PAUSE_AT_MOST);
        tokio::time::sleep(asked_to_wait.max(pause)).await;
        Ok(())
    }

    fn failed(&self, error: UpstreamError) -> PullError {
        if error.failure() == Failure::NotFound {
            PullError::BlobUnknown { image: self.image.clone(), digest: self.digest }
        } else {
            PullError::upstream(&self.image, error)
        }
    }
}
