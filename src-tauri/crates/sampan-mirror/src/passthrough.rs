//! A blob that cannot be kept: fetched for one client, hashed on the way, never completed unless it is right.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use sampan_oci::{Clock, Hasher};
use sampan_store::{BlobFile, StoreError};
use sampan_upstream::{Upstream, UpstreamError};

use crate::EventSink;
use crate::download::{Meter, READ_BYTES, Throttle, Wanted, releasable};
use crate::error::PullError;
use crate::upstream_body::UpstreamBody;

/// Bytes `start..end` of a blob, straight from the upstream. The blob is hashed from its first byte whatever the range,
/// because nothing else can tell that the range is right; so many bytes as a download would hold back, it holds back.
pub(crate) struct Passthrough {
    body: UpstreamBody,
    wanted: Wanted,
    hasher: Option<Hasher>,
    position: u64,
    start: u64,
    end: u64,
    size: u64,
    held: VecDeque<Bytes>,
    released: u64,
    meter: Meter,
    throttle: Arc<Throttle>,
}

impl Passthrough {
    /// Opens the upstream. `remains` is the file of a download that stopped, and how many bytes of it the client has:
    /// those are hashed again, not fetched again.
    pub(crate) async fn open(
        upstream: Upstream,
        mut wanted: Wanted,
        remains: Option<(BlobFile, u64)>,
        clock: Arc<dyn Clock>,
        sink: EventSink,
        throttle: Arc<Throttle>,
    ) -> Result<Self, PullError> {
        let mut hasher = wanted.digest.hasher();
        let mut position = 0;
        if let Some((file, ready)) = remains {
            while position < ready {
                let length = usize::try_from(ready - position).unwrap_or(READ_BYTES).min(READ_BYTES);
                let bytes = file.read_at(position, length).await.map_err(StoreError::from)?;
                if bytes.is_empty() {
                    break;
                }
                hasher.update(&bytes);
                position += bytes.len() as u64;
            }
        }
        let mut body =
            UpstreamBody::new(upstream, wanted.image.clone(), wanted.digest, wanted.size, position);
        // With every byte on disk there is nothing left to ask for.
        let size = match wanted.size {
            Some(size) if size == position => size,
            Some(_) | None => body.open().await?,
        };
        wanted.size = Some(size);
        let hasher = Some(hasher);
        let meter = Meter::new(sink, clock, &wanted);
        let (held, released) = (VecDeque::new(), position);
        let (start, end) = (position, size);
        let mut passing =
            Self { body, wanted, hasher, position, start, end, size, held, released, meter, throttle };
        if size == 0 {
            // An empty answer is complete as soon as its head is sent: it is checked before.
            passing.take().await?;
        }
        Ok(passing)
    }

    /// The whole blob's size.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Limits what is let out to `start..end`; `start` is not before the bytes that [`open`](Self::open) hashed from disk.
    pub(crate) fn limit(&mut self, start: u64, end: u64) {
        (self.start, self.end, self.released) = (start, end, start);
    }

    /// The next bytes of the range; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        loop {
            if self.released == self.end && self.hasher.is_none() {
                return Ok(None);
            }
            let limit = match self.hasher {
                None => self.size,
                Some(_) => releasable(self.position, self.size, self.end),
            };
            if let Some(bytes) = self.held.pop_front() {
                if self.released + bytes.len() as u64 <= limit {
                    self.released += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                let part = usize::try_from(limit.saturating_sub(self.released)).unwrap_or(0);
                let mut rest = bytes;
                let first = rest.split_to(part);
                self.held.push_front(rest);
                if part > 0 {
                    self.released += part as u64;
                    return Ok(Some(first));
                }
            }
            self.take().await?;
        }
    }

    /// Takes in the next bytes of the upstream, or checks the digest after the last.
    async fn take(&mut self) -> Result<(), PullError> {
        if self.position == self.size {
            if let Some(hasher) = self.hasher.take() {
                let actual = hasher.finish();
                if actual != self.wanted.digest {
                    let error =
                        UpstreamError::Mismatch { expected: self.wanted.digest, actual: Box::new(actual) };
                    return Err(PullError::upstream(&self.wanted.image, error));
                }
            }
            return Ok(());
        }
        let Some(bytes) = self.body.next().await? else {
            let error = UpstreamError::Truncated { got: self.position, expected: self.size };
            return Err(PullError::upstream(&self.wanted.image, error));
        };
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        let (from, to) = (self.position, self.position + bytes.len() as u64);
        self.position = to;
        self.meter.read(self.body.received());
        self.throttle.pass(to - from).await;
        let (first, last) = (from.max(self.start), to.min(self.end));
        if first < last {
            // Both are within this chunk, whose length is a usize.
            #[expect(clippy::cast_possible_truncation, reason = "offsets within a chunk in memory")]
            self.held.push_back(bytes.slice((first - from) as usize..(last - from) as usize));
        }
        Ok(())
    }
}
