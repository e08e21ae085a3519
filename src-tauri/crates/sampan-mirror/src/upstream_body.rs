//! One blob's bytes from an upstream, in order, across broken connections.

use std::ops::Range;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use sampan_upstream::{BlobBody, Upstream, UpstreamError};
use tokio::time::Instant;

use crate::download::{Facts, Patience, Verdict, Wanted};
use crate::error::PullError;

/// The bytes of one blob, one connection at a time. A cut connection is resumed with a range request from the last byte;
/// an upstream that gives no parts, or lies about them, is asked for the whole, and what is not wanted is passed over.
pub(crate) struct UpstreamBody {
    upstream: Upstream,
    wanted: Wanted,
    body: Option<BlobBody>,
    /// What came and was not handed out yet, and where in the blob it begins.
    chunk: Bytes,
    at: u64,
    ranges: bool,
    /// Body bytes received, those passed over included.
    received: u64,
    patience: Patience,
    outage_wait: Duration,
}

impl UpstreamBody {
    /// Nothing is asked before [`open`](Self::open) or [`next`](Self::next), which goes on for `outage_wait` without a new
    /// byte.
    pub(crate) fn new(upstream: Upstream, wanted: Wanted, outage_wait: Duration) -> Self {
        Self {
            upstream,
            wanted,
            body: None,
            chunk: Bytes::new(),
            at: 0,
            ranges: true,
            received: 0,
            patience: Patience::new(Instant::now(), false),
            outage_wait,
        }
    }

    /// Body bytes received so far, whether or not they were wanted.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Asks for the whole blob and returns its size. A client that waits for a head is soon told when there is none.
    pub(crate) async fn open(&mut self) -> Result<u64, PullError> {
        self.patience.progress(Instant::now(), false);
        while self.body.is_none() {
            if let Err(error) = self.ask(None).await {
                self.pause(error).await?;
            }
        }
        self.wanted.size.ok_or_else(|| self.failed(UpstreamError::Protocol("a blob of unknown size")))
    }

    /// Bytes from the first of `range` on: at least one of them, and none beyond it. It is not empty.
    pub(crate) async fn next(&mut self, range: Range<u64>) -> Result<Bytes, PullError> {
        // How long the client took for the bytes before these uses up nobody's patience.
        self.patience.progress(Instant::now(), false);
        self.patience.hope();
        let in_place = self.body.as_ref().is_none_or(|body| {
            // A part is never wanted beyond its end; a stream of everything brings all that lies ahead.
            if body.whole { self.at <= range.start } else { self.at == range.start }
        });
        if !in_place {
            self.close();
        }
        loop {
            let passed = usize::try_from(range.start.saturating_sub(self.at)).unwrap_or(usize::MAX);
            self.skip(passed.min(self.chunk.len()));
            if !self.chunk.is_empty() {
                let wanted = usize::try_from(range.end - self.at).unwrap_or(usize::MAX);
                let bytes = self.chunk.split_to(wanted.min(self.chunk.len()));
                self.at += bytes.len() as u64;
                self.patience.progress(Instant::now(), true);
                return Ok(bytes);
            }
            if let Err(error) = self.receive(&range).await {
                self.close();
                self.pause(error).await?;
            }
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.chunk.advance(bytes);
        self.at += bytes as u64;
    }

    fn close(&mut self) {
        (self.body, self.chunk) = (None, Bytes::new());
    }

    /// Takes in the next chunk, from a connection that brings at least `range` if none is open.
    async fn receive(&mut self, range: &Range<u64>) -> Result<(), UpstreamError> {
        if self.body.is_none() {
            let part = self.wanted.size.filter(|size| self.ranges && *range != (0..*size));
            self.ask(part.map(|size| (range.clone(), size))).await?;
        }
        let Some(body) = &mut self.body else { return Ok(()) };
        let Some(bytes) = body.stream.next().await.transpose()? else {
            return Err(UpstreamError::Truncated { got: self.at, expected: range.end });
        };
        self.received += bytes.len() as u64;
        if self.wanted.size.is_some_and(|size| self.at + bytes.len() as u64 > size) {
            return Err(UpstreamError::Protocol("a body longer than its blob"));
        }
        self.chunk = bytes;
        Ok(())
    }

    /// Asks for a part of the blob of that size; `None`: for everything.
    async fn ask(&mut self, part: Option<(Range<u64>, u64)>) -> Result<(), UpstreamError> {
        let (repository, digest) = (&self.wanted.image.repository, &self.wanted.digest);
        let body = if let Some((range, size)) = part {
            self.upstream.get_blob_part(repository, digest, range, size).await?
        } else {
            if !self.ranges {
                self.patience.stream_begins();
            }
            self.upstream.get_blob(repository, digest, 0).await?
        };
        if let (Some(known), Some(told)) = (self.wanted.size, body.size)
            && known != told
        {
            return Err(UpstreamError::Protocol("the blob has another size than its manifest says"));
        }
        self.wanted.size = self.wanted.size.or(body.size);
        (self.at, self.chunk) = (body.offset, Bytes::new());
        self.body = Some(body);
        Ok(())
    }

    /// Waits before asking again, or gives up with `error`.
    async fn pause(&mut self, error: UpstreamError) -> Result<(), PullError> {
        let now = Instant::now();
        let facts = Facts {
            now,
            was_open: false,
            others_bring: false,
            one_stream: !self.ranges,
            wait: self.outage_wait,
        };
        let rest = match self.patience.judge(&error, facts) {
            Verdict::GiveUp => return Err(self.failed(error)),
            Verdict::OneStream => {
                self.ranges = false;
                return Ok(());
            }
            Verdict::AgainAfter(rest) => rest,
            Verdict::Again | Verdict::AgainWithFewer => Duration::ZERO,
        };
        // Whoever gives up before the rest is over need not wait for it.
        if self.patience.is_over(now + rest, self.outage_wait) {
            return Err(self.failed(error));
        }
        tracing::info!(digest = %self.wanted.digest, position = self.at, %error, "asking for a blob again");
        tokio::time::sleep_until(self.patience.retry_at().unwrap_or(now).max(now + rest)).await;
        Ok(())
    }

    fn failed(&self, error: UpstreamError) -> PullError {
        PullError::blob(&self.wanted.image, &self.wanted.digest, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sampan_oci::Digest;
    use sampan_testkit::{FakeRegistry, Fault, Image, ImageSpec, Kind};
    use sampan_upstream::UpstreamConfig;

    const SIZE: u64 = 6_000_000;

    async fn registry() -> (FakeRegistry, Image) {
        let upstream = FakeRegistry::start().await;
        let image = upstream.publish_image("library/alpine:3.20", &ImageSpec::new(7, &[6_000_000]));
        (upstream, image)
    }

    fn of(registry: &FakeRegistry, digest: Digest, outage_wait: Duration) -> UpstreamBody {
        let config =
            UpstreamConfig { registry: "docker.io".parse().unwrap(), url: registry.url().parse().unwrap() };
        let upstream = Upstream::new(config, sampan_upstream::client().unwrap());
        let image = "docker.io/library/alpine".parse().unwrap();
        UpstreamBody::new(upstream, Wanted { image, digest, size: Some(SIZE) }, outage_wait)
    }

    async fn read(body: &mut UpstreamBody, range: Range<u64>) -> Vec<u8> {
        let mut read = Vec::new();
        while (read.len() as u64) < range.end - range.start {
            let at = range.start + read.len() as u64;
            read.extend_from_slice(&body.next(at..range.end).await.unwrap());
        }
        read
    }

    #[tokio::test]
    async fn only_what_is_wanted_is_asked_for() {
        let (upstream, image) = registry().await;
        let layer = &image.layers()[0];
        let mut body = of(&upstream, layer.digest, Duration::from_mins(1));
        assert_eq!(read(&mut body, 10..20).await, layer.bytes[10..20]);
        assert_eq!(read(&mut body, 5_000_000..SIZE).await, layer.bytes[5_000_000..]);
        assert_eq!(upstream.ranges_of(&layer.digest), [10..20, 5_000_000..SIZE]);
    }

    #[tokio::test]
    async fn an_upstream_that_lies_about_parts_is_asked_for_the_whole_once() {
        for fault in [Fault::RangeIgnored, Fault::RangeUnsatisfiable, Fault::WrongContentRange] {
            let (upstream, image) = registry().await;
            let layer = &image.layers()[0];
            let mut body = of(&upstream, layer.digest, Duration::from_mins(1));
            upstream.fails_on(Kind::Blob, fault.clone());
            for wanted in [10..20, 30..40, 5_000_000..SIZE] {
                let (first, last) =
                    (usize::try_from(wanted.start).unwrap(), usize::try_from(wanted.end).unwrap());
                let read = read(&mut body, wanted).await;
                assert!(read == layer.bytes[first..last], "{fault:?}: {first}..{last}");
            }
            assert_eq!(upstream.requests(Kind::Blob), 2, "{fault:?}");
        }
    }

    #[tokio::test]
    async fn the_time_a_client_takes_is_not_counted_as_an_outage() {
        let (upstream, image) = registry().await;
        let layer = &image.layers()[0];
        let mut body = of(&upstream, layer.digest, Duration::from_millis(300));
        upstream.fails_next(1, Kind::Blob, Fault::CutAfter(1_000_000));
        let first = body.next(0..SIZE).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(read(&mut body, first.len() as u64..SIZE).await == layer.bytes[first.len()..]);
    }

    #[tokio::test]
    async fn an_outage_is_waited_out_as_long_as_the_person_said() {
        let (upstream, image) = registry().await;
        let mut body = of(&upstream, image.layers()[0].digest, Duration::from_millis(600));
        upstream.fails_next(1, Kind::Blob, Fault::CutAfter(1_000_000));
        let mut at = body.next(0..SIZE).await.unwrap().len() as u64;
        upstream.fails_with(Fault::RefuseConnection);
        let began = Instant::now();
        let ended = loop {
            match body.next(at..SIZE).await {
                Ok(bytes) => at += bytes.len() as u64,
                Err(error) => break error,
            }
        };
        assert!(matches!(ended, PullError::Upstream { .. }), "{ended}");
        assert!((Duration::from_millis(500)..Duration::from_secs(3)).contains(&began.elapsed()));
    }
}
