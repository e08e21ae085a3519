//! Drives the connections of one download until all of its bytes are on disk.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::{AbortHandle, Abortable, BoxStream, SelectAll, StreamExt as _};
use sampan_store::{Partial, StoreError};
use sampan_upstream::{BlobBody, BlobSource, Upstream, UpstreamError};
use tokio::time::{Instant, MissedTickBehavior};

use super::Wanted;
use super::claims::{Claims, FIRST_PIECE, MIN_PIECE, piece_len};
use super::lane::{self, Ask, Happened};
use super::lanes::Lane;
use super::meter::Meter;
use super::pace::{self, SILENCE_AT_MOST, SOON};
use super::patience::{self, Facts, Patience, Verdict};
use super::run::Run;
use super::slots::{Member, Slot};
use crate::error::PullError;

/// Received bytes are written at the latest when there are so many, or after this time.
const WRITE_BYTES: usize = 256 * 1024;
const WRITE_EVERY: Duration = Duration::from_millis(10);
/// How often what is written is made to survive a power cut.
const SYNC_EVERY: Duration = Duration::from_secs(3);
/// How often connections are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A download that could not look for so long was held up itself: no connection was silent.
const HELD_UP: Duration = Duration::from_secs(1);
/// Bytes of other connections that are this young show that they work.
const JUST_NOW: Duration = Duration::from_secs(1);

/// Where nothing came for so long, a person is told that the link is down.
const DOWN_AFTER: Duration = Duration::from_secs(5);

/// What came of it.
pub(super) struct Fetched {
    /// The file, with every byte in it.
    pub(super) partial: Partial,
    /// Whether more than one answer brought them.
    pub(super) in_pieces: bool,
}

/// An answer that came before the download knew what it is about.
pub(super) struct Begun {
    pub(super) source: BlobSource,
    /// Its first [`FIRST_PIECE`] bytes, or the whole.
    pub(super) body: BlobBody,
    pub(super) after: Duration,
}

/// A download with its connections.
pub(super) struct Fetch<'r> {
    run: &'r Run,
    meter: &'r mut Meter,
    upstream: &'r Upstream,
    source: BlobSource,
    begun: Option<(BlobBody, Duration)>,
    partial: Partial,
    claims: Claims,
    lanes: HashMap<u64, Lane>,
    happenings: SelectAll<Abortable<BoxStream<'static, (u64, Happened)>>>,
    member: Arc<Member>,
    asking_for_slot: Option<BoxFuture<'static, Slot>>,
    /// Received, not written yet.
    pending: Vec<(u64, Bytes)>,
    pending_bytes: usize,
    written_at: Instant,
    synced_at: Instant,
    syncing: Option<BoxFuture<'static, Result<(), StoreError>>>,
    unsynced_bytes: usize,
    /// One stream from the first byte: the upstream gives no parts, or lies about them.
    one_stream: bool,
    /// The first answer came: the rest may be asked for side by side.
    answered: bool,
    asked: u64,
    held_back: u64,
    looked_at: Instant,
    patience: Patience,
    last_error: Option<UpstreamError>,
}

impl<'r> Fetch<'r> {
    pub(super) fn new(
        run: &'r Run,
        upstream: &'r Upstream,
        partial: Partial,
        meter: &'r mut Meter,
        one_stream: bool,
        begun: Option<Begun>,
    ) -> Self {
        let now = Instant::now();
        let claims = Claims::new(partial.size(), partial.held().clone());
        let hopeful = !partial.held().is_empty() || run.link.is_hopeful();
        let (source, begun) = match begun {
            // Of use only where nothing of it is held, and no rest behind it is worth taking along.
            Some(Begun { source, body, after })
                if claims.held().is_empty()
                    && !(FIRST_PIECE + 1..FIRST_PIECE + MIN_PIECE).contains(&partial.size()) =>
            {
                (source, Some((body, after)))
            }
            Some(Begun { source, .. }) => (source, None),
            None => (source(upstream, &run.wanted), None),
        };
        Self {
            meter,
            upstream,
            source,
            begun,
            partial,
            claims,
            lanes: HashMap::new(),
            happenings: SelectAll::new(),
            member: Arc::new(run.link.join()),
            asking_for_slot: None,
            pending: Vec::new(),
            pending_bytes: 0,
            written_at: now,
            synced_at: now,
            syncing: None,
            unsynced_bytes: 0,
            one_stream,
            answered: false,
            asked: 0,
            held_back: 0,
            looked_at: now,
            patience: Patience::new(now, hopeful),
            last_error: None,
            run,
        }
    }

    /// Fetches until every byte is on disk.
    /// # Cancel safety
    /// Dropping the future closes the connections; what was written stays.
    pub(super) async fn run(mut self) -> Result<Fetched, PullError> {
        let driven = self.drive().await;
        if driven.is_err() {
            // What came is worth keeping, if the disk takes it.
            let _ = self.write().await;
        }
        driven?;
        // Whose body has ended is left to the next blob.
        while let Some(Some(_)) = self.happenings.next().now_or_never() {}
        self.write().await?;
        if let Some(syncing) = self.syncing.take() {
            syncing.await?;
        }
        self.meter.connections(0);
        Ok(Fetched { in_pieces: self.asked > 1, partial: self.partial })
    }

    async fn drive(&mut self) -> Result<(), PullError> {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.claims.is_complete() {
            self.want_slot();
            tokio::select! {
                Some((lane, happened)) = self.happenings.next(), if !self.happenings.is_empty() => {
                    self.take(lane, happened)?;
                    // Whatever else is there already goes into the same write.
                    while self.pending_bytes < WRITE_BYTES
                        && let Some(Some((lane, happened))) = self.happenings.next().now_or_never()
                    {
                        self.take(lane, happened)?;
                    }
                }
                Some(slot) = OptionFuture::from(self.asking_for_slot.as_mut()) => {
                    self.asking_for_slot = None;
                    self.start(slot);
                }
                () = tokio::time::sleep_until(self.written_at + WRITE_EVERY), if self.pending_bytes > 0 => {
                    self.write().await?;
                }
                Some(synced) = OptionFuture::from(self.syncing.as_mut()) => {
                    synced?;
                    (self.syncing, self.synced_at) = (None, Instant::now());
                }
                _ = looks.tick() => self.look()?,
            }
            if self.pending_bytes >= WRITE_BYTES || self.written_at.elapsed() >= WRITE_EVERY {
                self.write().await?;
            }
        }
        Ok(())
    }

    /// Gets in line for a connection when there is something to ask for; leaves the line when there is not.
    fn want_slot(&mut self) {
        let resting = self.is_resting();
        // The first answer, a probe after failures, and an upstream without ranges: one connection.
        let alone = !self.answered || self.patience.is_failing() || self.one_stream;
        let wants = !resting && self.claims.unclaimed() > 0 && (!alone || self.lanes.is_empty());
        if !wants {
            self.asking_for_slot = None;
        } else if self.asking_for_slot.is_none() {
            let member = self.member.clone();
            self.asking_for_slot = Some(async move { member.acquire().await }.boxed());
        }
    }

    fn is_resting(&self) -> bool {
        self.patience.is_pausing(Instant::now()) || self.run.link.resting().is_some()
    }

    fn start(&mut self, slot: Slot) {
        let size = self.partial.size();
        let turn = usize::try_from(self.asked).unwrap_or(0);
        let claim = if self.one_stream {
            self.claims.claim_whole()
        } else {
            let known = self.run.link.known(self.member.held());
            let len = if self.answered { piece_len(known, self.claims.unclaimed()) } else { FIRST_PIECE };
            self.claims.next(self.run.download.reader(turn), len)
        };
        let Some(claim) = claim else { return };
        let range = claim.range.clone();
        let ask = if let Some((body, after)) = self.begun.take() {
            Ask::Nothing { body, after }
        } else if self.one_stream {
            // What earlier answers said is not held against it: the digest will tell.
            self.source = source(self.upstream, &self.run.wanted);
            Ask::Whole { size: Some(size) }
        } else if !self.answered && range.start == 0 {
            Ask::Begin { len: range.end, size }
        } else {
            Ask::Part { range: range.clone(), size }
        };
        tracing::trace!(digest = %self.run.wanted.digest, ?ask, "asking");
        let (id, now) = (self.asked, Instant::now());
        self.asked += 1;
        let (stop, registration) = AbortHandle::new_pair();
        let events = lane::run(self.source.clone(), ask, self.run.throttle.clone());
        let events = events.map(move |happened| (id, happened)).boxed();
        self.happenings.push(Abortable::new(events, registration));
        let lane = Lane {
            claim: claim.id,
            at: range.start,
            whole: self.one_stream,
            reused: self.run.link.asks(),
            shrunk: false,
            last: now,
            measured: None,
            rate: None,
            stop,
            slot,
        };
        self.lanes.insert(id, lane);
        self.go();
    }

    fn take(&mut self, id: u64, happened: Happened) -> Result<(), PullError> {
        match happened {
            Happened::Opened { after, offset, whole, size } => self.opened(id, after, offset, whole, size),
            Happened::Bytes(bytes) => {
                self.bytes(id, &bytes);
                Ok(())
            }
            Happened::Ended => {
                let Some(ended) = self.lanes.remove(&id) else { return Ok(()) };
                if let Some(rate) = ended.rate_at_end(Instant::now()) {
                    self.run.link.measured(rate);
                }
                let (missing, got) = (self.claims.remaining_of(ended.claim), ended.at);
                self.claims.release(ended.claim);
                self.go();
                if missing == 0 {
                    return Ok(());
                }
                self.failed(UpstreamError::Truncated { got, expected: got + missing }, true)
            }
            Happened::Broke(error) => {
                let Some(lane) = self.lanes.remove(&id) else { return Ok(()) };
                self.claims.release(lane.claim);
                self.failed(error, lane.is_open())
            }
        }
    }

    fn opened(
        &mut self,
        id: u64,
        after: Duration,
        offset: u64,
        whole: bool,
        size: Option<u64>,
    ) -> Result<(), PullError> {
        let expected = self.partial.size();
        if size.is_some_and(|told| told != expected) {
            // A manifest and its registry disagree: no stream will change that.
            return Err(self
                .run
                .failed(UpstreamError::Protocol("the blob has another size than its manifest says")));
        }
        self.run.download.flow();
        self.answered = true;
        let Some(lane) = self.lanes.get_mut(&id) else { return Ok(()) };
        self.run.link.answered(after, lane.reused);
        lane.open(Instant::now(), offset);
        if whole && !lane.whole && self.claims.remaining_of(lane.claim) < expected {
            // It was asked for a part and sends everything: then everything is taken from this one stream.
            tracing::info!(digest = %self.run.wanted.digest, "the upstream gives no parts: one stream");
            self.claims.release(lane.claim);
            self.one_stream = true;
            let Some(claim) = self.claims.claim_whole() else {
                return self.failed(UpstreamError::RangeRefused, true);
            };
            (lane.claim, lane.whole) = (claim.id, true);
        }
        if self.one_stream {
            self.patience.stream_begins();
        }
        Ok(())
    }

    fn bytes(&mut self, id: u64, bytes: &Bytes) {
        let length = bytes.len() as u64;
        self.meter.add(length);
        self.run.link.received(length);
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let (now, at) = (Instant::now(), lane.at);
        (lane.at, lane.last) = (at + length, now);
        let mut is_new = false;
        for wanted in self.claims.received(lane.claim, at, length) {
            is_new = true;
            let piece = bytes.slice(within(&wanted, at));
            self.pending_bytes += piece.len();
            self.pending.push((wanted.start, piece));
        }
        self.patience.progress(now, is_new);
        if lane.shrunk && self.claims.remaining_of(lane.claim) == 0 {
            self.close(id);
        }
    }

    /// Ends a lane and its connection; what it did not bring is free again.
    fn close(&mut self, id: u64) {
        if let Some(lane) = self.lanes.remove(&id) {
            lane.stop.abort();
            self.claims.release(lane.claim);
            self.go();
        }
    }

    /// Does what a failure means.
    fn failed(&mut self, error: UpstreamError, was_open: bool) -> Result<(), PullError> {
        let link = &self.run.link;
        let facts = Facts {
            now: Instant::now(),
            was_open,
            others_bring: self.lanes.values().any(Lane::is_open)
                && link.silent_for().is_some_and(|silence| silence < JUST_NOW),
            one_stream: self.one_stream,
            wait: self.wait(),
        };
        if self.run.download.is_promised() {
            self.patience.hope();
        }
        let verdict = self.patience.judge(&error, facts);
        let (digest, held) = (&self.run.wanted.digest, self.claims.held().len());
        tracing::debug!(%digest, held, %error, ?verdict, "a connection failed");
        match verdict {
            Verdict::GiveUp => return Err(self.run.failed(error)),
            Verdict::OneStream => {
                // It refuses parts, or lies about them. What it sent so far is judged by the digest.
                tracing::info!(%digest, %error, "going on with one stream");
                for id in self.lanes.keys().copied().collect::<Vec<_>>() {
                    self.close(id);
                }
                self.one_stream = true;
            }
            Verdict::AgainAfter(rest) => link.refused(rest),
            Verdict::AgainWithFewer => link.refused(Duration::ZERO),
            Verdict::Again => {}
        }
        if was_open {
            self.meter.repaired();
        } else {
            self.meter.retried();
        }
        self.last_error = Some(error);
        self.go();
        Ok(())
    }

    /// How long an outage is waited out.
    fn wait(&self) -> Duration {
        patience::wait(self.run.download.reader(0).is_some(), self.run.outage_wait)
    }

    /// Looks at the connections: who is silent, who is far behind.
    fn look(&mut self) -> Result<(), PullError> {
        self.run.link.look(&self.run.throttle);
        let now = Instant::now();
        let held_up = now - std::mem::replace(&mut self.looked_at, now) >= HELD_UP;
        let throttled = self.run.throttle.held_back_since(&mut self.held_back);
        if throttled || held_up {
            // Whoever waits for the speed limit, or for a slow disk, is neither silent nor slow.
            for lane in self.lanes.values_mut() {
                lane.excuse(now);
            }
        }
        for rate in self.lanes.values_mut().filter_map(|lane| lane.measure(now)) {
            self.run.link.measured(rate);
        }
        self.replace_silent_and_slow(now)?;
        if self.patience.is_failing() && self.lanes.is_empty() && self.patience.is_over(now, self.wait()) {
            let error = self.last_error.take().unwrap_or(UpstreamError::Timeout);
            return Err(self.run.failed(error));
        }
        self.share_the_end();
        let link_is_silent = self.run.link.silent_for().is_none_or(|silence| silence >= DOWN_AFTER);
        self.meter.waits(!throttled && link_is_silent && self.patience.is_over(now, DOWN_AFTER));
        self.go();
        if self.unsynced_bytes > 0 && self.syncing.is_none() && self.synced_at.elapsed() >= SYNC_EVERY {
            (self.unsynced_bytes, self.syncing) = (0, Some(self.partial.sync().boxed()));
        }
        Ok(())
    }

    fn replace_silent_and_slow(&mut self, now: Instant) -> Result<(), PullError> {
        let link = &self.run.link;
        let link_is_alive = link.silent_for().is_some_and(|silence| silence < Duration::from_secs(1));
        let patience = if link_is_alive { pace::silence(link.round_trip()) } else { SILENCE_AT_MOST };
        let silent = |lane: &Lane| lane.is_open() && !lane.whole && now - lane.last >= patience;
        let median = pace::median(self.lanes.values().filter_map(|lane| lane.rate).collect());
        // The last ones have nobody beside them: they are held against what connections usually bring.
        let median = median.or(link.rate().filter(|_| self.claims.unclaimed() == 0));
        let slow = |lane: &Lane| match (lane.rate, median) {
            (Some(rate), Some(median)) if !lane.whole && lane.was_just_measured(now) => {
                pace::is_far_below(rate, median, self.claims.remaining_of(lane.claim))
            }
            _ => false,
        };
        let given_up: Vec<u64> =
            self.lanes.iter().filter(|(_, lane)| silent(lane) || slow(lane)).map(|(id, _)| *id).collect();
        for id in &given_up {
            self.close(*id);
            self.failed(UpstreamError::Timeout, true)?;
        }
        if link_is_alive && !given_up.is_empty() {
            // It is these connections that are bad, not the link: others may be tried at once.
            self.patience.forgive();
        }
        Ok(())
    }

    /// At the end of a blob, a connection without work takes half of what a slow one still has to bring. The slow one is
    /// closed when it comes to the other's half: what is on its way then is lost, so this is for long waits alone.
    fn share_the_end(&mut self) {
        let busy = self.claims.unclaimed() > 0 || self.one_stream || self.is_resting();
        if busy || self.patience.is_failing() || !self.run.link.has_room() {
            return;
        }
        let claims = &mut self.claims;
        let left = |claims: &Claims, lane: &Lane| {
            pace::time_for(claims.remaining_of(lane.claim), lane.rate.unwrap_or(u64::MAX))
        };
        let slowest = self.lanes.values_mut().max_by_key(|lane| left(claims, lane));
        if let Some(lane) = slowest.filter(|lane| left(claims, lane) > SOON) {
            lane.shrunk |= claims.split(lane.claim, MIN_PIECE);
        }
    }

    async fn write(&mut self) -> Result<(), PullError> {
        self.written_at = Instant::now();
        if self.pending.is_empty() {
            return Ok(());
        }
        let pieces = std::mem::take(&mut self.pending);
        self.unsynced_bytes += std::mem::take(&mut self.pending_bytes);
        let ranges: Vec<Range<u64>> =
            pieces.iter().map(|(at, bytes)| *at..*at + bytes.len() as u64).collect();
        self.partial.write(pieces).await?;
        self.run.download.grow(&ranges);
        Ok(())
    }

    fn go(&mut self) {
        self.meter.connections(self.lanes.len());
    }
}

fn source(upstream: &Upstream, wanted: &Wanted) -> BlobSource {
    upstream.blob_source(&wanted.image.repository, &wanted.digest)
}

/// `range` as a place in a chunk that begins at `at`.
#[expect(clippy::cast_possible_truncation, reason = "offsets within a chunk in memory")]
fn within(range: &Range<u64>, at: u64) -> Range<usize> {
    (range.start - at) as usize..(range.end - at) as usize
}
