//! A blob that cannot be kept: fetched for one client, hashed on the way, never completed unless it is right.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sampan_oci::{Clock, Hasher, RangeSet};
use sampan_store::{BlobFile, StoreError};
use sampan_upstream::{Upstream, UpstreamError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::EventSink;
use crate::download::{Meter, READ_BYTES, Throttle, Wanted, releasable};
use crate::error::PullError;
use crate::upstream_body::UpstreamBody;

/// The most blobs that stream from upstreams at once without being kept; more wait for their turn. After a pause every
/// client of every download becomes one.
const STREAMS_MAX: usize = 16;

/// What all blobs that pass through have in common.
#[derive(Debug)]
pub(crate) struct Passage {
    turns: Arc<Semaphore>,
    /// How long an outage is waited out.
    outage_wait: Duration,
    throttle: Arc<Throttle>,
    clock: Arc<dyn Clock>,
    sink: EventSink,
}

/// The file of a download that stopped, and which of its bytes are taken from there instead of from the upstream.
///
/// What the client was sent already has to be among them: the digest tells about the bytes that were hashed, and the
/// upstream's may be others than those that were in the file.
pub(crate) struct Remains {
    pub(crate) file: BlobFile,
    pub(crate) held: RangeSet,
}

impl Remains {
    /// Some bytes from `at` on; `None` if the file does not have the first of them.
    async fn read(&self, at: u64) -> Result<Option<Bytes>, PullError> {
        let run = self.held.end_of_run(at) - at;
        if run == 0 {
            return Ok(None);
        }
        let length = usize::try_from(run).unwrap_or(READ_BYTES).min(READ_BYTES);
        let bytes = self.file.read_at(at, length).await.map_err(StoreError::from)?;
        if bytes.is_empty() {
            return Err(StoreError::from(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)).into());
        }
        Ok(Some(bytes))
    }
}

/// Bytes `start..end` of a blob, straight from the upstream. The blob is hashed from its first byte whatever the range,
/// because nothing else can tell that the range is right; so many bytes as a download would hold back, it holds back.
pub(crate) struct Passthrough {
    body: UpstreamBody,
    remains: Option<Remains>,
    turns: Arc<Semaphore>,
    turn: Option<OwnedSemaphorePermit>,
    wanted: Wanted,
    /// `None` when the digest is right.
    hasher: Option<Hasher>,
    position: u64,
    start: u64,
    end: u64,
    size: u64,
    held_back: VecDeque<Bytes>,
    released: u64,
    meter: Meter,
    throttle: Arc<Throttle>,
}

impl Passage {
    pub(crate) fn new(
        outage_wait: Duration,
        throttle: Arc<Throttle>,
        clock: Arc<dyn Clock>,
        sink: EventSink,
    ) -> Self {
        Self { turns: Arc::new(Semaphore::new(STREAMS_MAX)), outage_wait, throttle, clock, sink }
    }

    /// A whole blob. The upstream is asked at once.
    pub(crate) async fn open(&self, upstream: Upstream, wanted: Wanted) -> Result<Passthrough, PullError> {
        let mut body = UpstreamBody::new(upstream, wanted.clone(), self.outage_wait);
        let turn = turn(&self.turns).await?;
        let size = body.open().await?;
        let mut passing = self.passing(body, wanted, size, None);
        passing.turn = Some(turn);
        if size == 0 {
            // An empty answer is complete as soon as its head is sent: it is checked before.
            passing.take().await?;
        }
        Ok(passing)
    }

    /// A blob of `size` bytes of which there may be remains. [`next`](Passthrough::next) asks for what is missing, if anything
    /// is.
    pub(crate) fn later(
        &self,
        upstream: Upstream,
        wanted: Wanted,
        size: u64,
        remains: Option<Remains>,
    ) -> Passthrough {
        let wanted = Wanted { size: Some(size), ..wanted };
        let body = UpstreamBody::new(upstream, wanted.clone(), self.outage_wait);
        self.passing(body, wanted, size, remains)
    }

    fn passing(
        &self,
        body: UpstreamBody,
        wanted: Wanted,
        size: u64,
        remains: Option<Remains>,
    ) -> Passthrough {
        let wanted = Wanted { size: Some(size), ..wanted };
        Passthrough {
            body,
            remains,
            turns: self.turns.clone(),
            turn: None,
            hasher: Some(wanted.digest.hasher()),
            meter: Meter::new(self.sink.clone(), self.clock.clone(), &wanted),
            wanted,
            position: 0,
            start: 0,
            end: size,
            size,
            held_back: VecDeque::new(),
            released: 0,
            throttle: self.throttle.clone(),
        }
    }
}

async fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, PullError> {
    turns.clone().acquire_owned().await.map_err(|_| PullError::Stopping)
}

impl Passthrough {
    /// The whole blob's size.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Limits what is let out to `start..end`. Before the first [`next`](Self::next).
    pub(crate) fn limit(&mut self, start: u64, end: u64) {
        (self.start, self.end, self.released) = (start, end, start);
    }

    /// The next bytes of the range; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        loop {
            if let Some(bytes) = self.release() {
                return Ok(Some(bytes));
            }
            if self.hasher.is_none() {
                return Ok(None);
            }
            self.take().await?;
        }
    }

    /// What may be let out now.
    fn release(&mut self) -> Option<Bytes> {
        let limit = match self.hasher {
            None => self.end,
            Some(_) => releasable(self.position, self.size, self.end),
        };
        let free = usize::try_from(limit.saturating_sub(self.released)).unwrap_or(usize::MAX);
        let mut bytes = self.held_back.pop_front()?;
        let rest = bytes.split_off(free.min(bytes.len()));
        if !rest.is_empty() {
            self.held_back.push_front(rest);
        }
        self.released += bytes.len() as u64;
        Some(bytes).filter(|bytes| !bytes.is_empty())
    }

    /// Takes in the next bytes of the blob, or checks the digest after the last.
    async fn take(&mut self) -> Result<(), PullError> {
        if self.position == self.size {
            return self.check();
        }
        let on_disk = match &self.remains {
            Some(remains) => remains.read(self.position).await?,
            None => None,
        };
        let bytes = match on_disk {
            Some(bytes) => bytes,
            None => self.fetch().await?,
        };
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        let (from, to) = (self.position, self.position + bytes.len() as u64);
        self.position = to;
        let (first, last) = (from.max(self.start), to.min(self.end));
        if first < last {
            // Both are within this chunk, whose length is a usize.
            #[expect(clippy::cast_possible_truncation, reason = "offsets within a chunk in memory")]
            self.held_back.push_back(bytes.slice((first - from) as usize..(last - from) as usize));
        }
        Ok(())
    }

    /// The next bytes, which the disk does not have.
    async fn fetch(&mut self) -> Result<Bytes, PullError> {
        if self.turn.is_none() {
            self.turn = Some(turn(&self.turns).await?);
        }
        let missing = self.position..self.size;
        let gap = self.remains.as_ref().and_then(|remains| remains.held.gaps(missing.clone()).next());
        let bytes = self.body.next(gap.unwrap_or(missing)).await?;
        self.meter.read(self.body.received());
        self.throttle.pass(bytes.len() as u64).await;
        Ok(bytes)
    }

    fn check(&mut self) -> Result<(), PullError> {
        self.turn = None;
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let actual = hasher.finish();
        if actual == self.wanted.digest {
            return Ok(());
        }
        // Whoever asks once more gets nothing either.
        self.held_back.clear();
        let error = UpstreamError::Mismatch { expected: self.wanted.digest, actual: Box::new(actual) };
        Err(PullError::upstream(&self.wanted.image, error))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use sampan_oci::Digest;
    use sampan_store::{Store, StoreOptions};
    use sampan_testkit::{FakeRegistry, ImageSpec, Kind, TestClock, layer_bytes};
    use sampan_upstream::UpstreamConfig;

    const SIZE: u64 = 5_000_000;

    struct Cache {
        store: Store,
        _dir: tempfile::TempDir,
    }

    fn cache() -> Cache {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(dir.path().join("cache"), Arc::new(TestClock::new()));
        Cache { store: Store::open(options).unwrap(), _dir: dir }
    }

    fn passage() -> Passage {
        let (clock, sink) = (Arc::new(TestClock::new()), EventSink::new(|_| ()));
        Passage::new(Duration::from_mins(1), Arc::new(Throttle::new(None)), clock, sink)
    }

    fn upstream(registry: &FakeRegistry) -> Upstream {
        let config =
            UpstreamConfig { registry: "docker.io".parse().unwrap(), url: registry.url().parse().unwrap() };
        Upstream::new(config, sampan_upstream::client().unwrap())
    }

    fn wanted(digest: Digest) -> Wanted {
        Wanted { image: "docker.io/library/alpine".parse().unwrap(), digest, size: Some(SIZE) }
    }

    /// The file of a download that holds these ranges of `bytes`.
    async fn remains(cache: &Cache, digest: &Digest, bytes: &Bytes, held: &[Range<usize>]) -> Remains {
        let mut partial = cache.store.partial(digest, SIZE).await.unwrap();
        let pieces = held.iter().map(|range| (range.start as u64, bytes.slice(range.clone())));
        partial.write(pieces.collect()).await.unwrap();
        Remains { file: partial.reader(), held: partial.held().clone() }
    }

    async fn read(passing: &mut Passthrough) -> (Vec<u8>, Option<PullError>) {
        let mut read = Vec::new();
        loop {
            match passing.next().await {
                Ok(Some(bytes)) => read.extend_from_slice(&bytes),
                Ok(None) => return (read, None),
                Err(error) => return (read, Some(error)),
            }
        }
    }

    #[tokio::test]
    async fn what_is_on_disk_whole_asks_nobody() {
        let (registry, cache) = (FakeRegistry::start().await, cache());
        let image = registry.publish_image("library/alpine:3.20", &ImageSpec::new(7, &[5_000_000]));
        let layer = &image.layers()[0];
        let whole = remains(&cache, &layer.digest, &layer.bytes, &[0..2_000_000, 2_000_000..5_000_000]).await;
        let mut passing = passage().later(upstream(&registry), wanted(layer.digest), SIZE, Some(whole));
        passing.limit(1_000_000, SIZE);
        let (bytes, error) = read(&mut passing).await;
        assert!(error.is_none() && bytes == layer.bytes[1_000_000..]);
        assert_eq!(registry.requests(Kind::Blob), 0);
    }

    #[tokio::test]
    async fn only_what_is_not_on_disk_is_fetched() {
        let (registry, cache) = (FakeRegistry::start().await, cache());
        let image = registry.publish_image("library/alpine:3.20", &ImageSpec::new(7, &[5_000_000]));
        let layer = &image.layers()[0];
        let held = [0..500_000, 2_000_000..3_000_000];
        let some = remains(&cache, &layer.digest, &layer.bytes, &held).await;
        let mut passing = passage().later(upstream(&registry), wanted(layer.digest), SIZE, Some(some));
        let (bytes, error) = read(&mut passing).await;
        assert!(error.is_none() && bytes == layer.bytes);
        assert_eq!(registry.ranges_of(&layer.digest), [500_000..2_000_000, 3_000_000..SIZE]);
    }

    #[tokio::test]
    async fn wrong_bytes_on_disk_are_never_made_good_by_right_ones_of_the_upstream() {
        let (registry, cache) = (FakeRegistry::start().await, cache());
        let image = registry.publish_image("library/alpine:3.20", &ImageSpec::new(7, &[5_000_000]));
        let layer = &image.layers()[0];
        let other = layer_bytes(8, 5_000_000);
        let wrong =
            remains(&cache, &layer.digest, &other, &[2_000_000..2_500_000, 2_500_000..3_000_000]).await;
        let mut passing = passage().later(upstream(&registry), wanted(layer.digest), SIZE, Some(wrong));
        // The client was sent 2..3 MB of the file.
        passing.limit(3_000_000, SIZE);
        let (bytes, error) = read(&mut passing).await;
        assert!(matches!(error, Some(PullError::Upstream { .. })), "{error:?}");
        assert!(bytes.len() < 2_000_000, "the end is not let out");
        assert!(matches!(passing.next().await, Ok(None)), "nor when asked once more");
    }
}
