//! Drives the connections of one download until all of its bytes are on disk.

mod choose;
mod fail;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::{AbortHandle, Abortable, BoxStream, SelectAll, StreamExt as _};
use sampan_oci::Lie;
use sampan_store::{Partial, StoreError};
use sampan_upstream::{BlobBody, BlobSource, OTHER_SIZE, UpstreamError};
use tokio::time::{Instant, MissedTickBehavior};

use super::claims::{Claims, FIRST_PIECE, MIN_PIECE};
use super::lane::{self, Ask, Happened, Opened};
use super::lanes::Lane;
use super::meter::Meter;
use super::pace::{self, SILENCE_AT_MOST, SOON};
use super::patience;
use super::run::Run;
use super::slots::Slot;
use super::supply::{Supply, any_slot};
use crate::error::PullError;
use crate::sources::{Brought, Receipt, Source};

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
    /// Who brought what, where it may have to be told.
    pub(super) brought: Vec<Brought>,
    /// Who told of the blob what cannot be true if it turns out right.
    pub(super) suspects: Vec<(Arc<Source>, Lie)>,
}

/// An answer that came before the download knew what it is about.
pub(super) struct Begun {
    /// Who gave it.
    pub(super) by: Arc<Source>,
    pub(super) source: BlobSource,
    /// Its first [`FIRST_PIECE`] bytes, or the whole.
    pub(super) body: BlobBody,
    pub(super) after: Duration,
}

/// A download with its connections.
pub(super) struct Fetch<'r> {
    run: &'r Run,
    meter: &'r mut Meter,
    /// Who may bring bytes; the best one at `lead`.
    supplies: Vec<Supply>,
    lead: usize,
    /// So many besides it are asked although nobody has answered yet.
    asked_besides: usize,
    brought: Vec<Brought>,
    begun: Option<(BlobBody, Duration)>,
    partial: Partial,
    claims: Claims,
    lanes: HashMap<u64, Lane>,
    happenings: SelectAll<Abortable<BoxStream<'static, (u64, Happened)>>>,
    /// Received, not written yet.
    pending: Vec<(u64, Bytes)>,
    pending_bytes: usize,
    written_at: Instant,
    synced_at: Instant,
    syncing: Option<BoxFuture<'static, Result<(), StoreError>>>,
    unsynced_bytes: usize,
    /// One stream from the first byte: the upstream gives no parts, or lies about them.
    one_stream: bool,
    asked: u64,
    held_back: u64,
    looked_at: Instant,
}

impl<'r> Fetch<'r> {
    /// `sources`: who is asked, most promising first; not empty. `hopeful`: an outage is waited out from the start.
    pub(super) fn new(
        run: &'r Run,
        sources: Vec<Arc<Source>>,
        partial: Partial,
        meter: &'r mut Meter,
        one_stream: bool,
        begun: Option<Begun>,
        hopeful: bool,
    ) -> Self {
        let now = Instant::now();
        let claims = Claims::new(partial.size(), partial.held().clone());
        let mut supplies: Vec<_> = sources
            .into_iter()
            .map(|source| {
                let hopeful = hopeful && (!partial.held().is_empty() || source.link.is_hopeful());
                Supply::new(source, &run.wanted, hopeful)
            })
            .collect();
        let begun = begun.and_then(|Begun { by, source, body, after }| {
            let nth = supplies.iter().position(|supply| Arc::ptr_eq(&supply.source, &by))?;
            supplies.swap(0, nth);
            supplies[0].blob = source;
            // Of use only where nothing of it is held, and no rest behind it is worth taking along.
            let is_of_use = claims.held().is_empty()
                && !(FIRST_PIECE + 1..FIRST_PIECE + MIN_PIECE).contains(&partial.size());
            is_of_use.then_some((body, after))
        });
        Self {
            meter,
            supplies,
            lead: 0,
            asked_besides: 0,
            brought: Vec::new(),
            begun,
            partial,
            claims,
            lanes: HashMap::new(),
            happenings: SelectAll::new(),
            pending: Vec::new(),
            pending_bytes: 0,
            written_at: now,
            synced_at: now,
            syncing: None,
            unsynced_bytes: 0,
            one_stream,
            asked: 0,
            held_back: 0,
            looked_at: now,
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
        self.note_unanswered();
        self.close_all(None);
        let suspects = self.supplies.iter().filter_map(|s| Some((s.source.clone(), s.suspect?))).collect();
        Ok(Fetched { in_pieces: self.asked > 1, partial: self.partial, brought: self.brought, suspects })
    }

    async fn drive(&mut self) -> Result<(), PullError> {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.claims.is_complete() {
            self.want_slots();
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
                (nth, slot) = any_slot(&mut self.supplies) => self.start(nth, slot),
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

    fn start(&mut self, nth: usize, slot: Slot) {
        let size = self.partial.size();
        let now = Instant::now();
        let source = self.supplies[nth].source.clone();
        if self.is_choice() && nth != self.lead && !source.weather(|weather| weather.may_ask(now)) {
            self.supplies[nth].scouted = Some(now);
            return;
        }
        let claim = if self.one_stream {
            self.claims.claim_whole()
        } else {
            let Some((from, len)) = self.piece(nth) else { return };
            self.claims.next(from, len)
        };
        let Some(claim) = claim else { return };
        let range = claim.range.clone();
        let ask = if let Some((body, after)) = self.begun.take() {
            Ask::Nothing { body, after }
        } else if self.one_stream {
            // What earlier answers said is not held against it: the digest will tell.
            self.supplies[nth].blob =
                source.upstream.blob_source(&self.run.wanted.image.repository, &self.run.wanted.digest);
            Ask::Whole { size: Some(size) }
        } else if !self.supplies[nth].answered && range.start == 0 {
            Ask::Begin { len: range.end, size }
        } else {
            Ask::Part { range: range.clone(), size }
        };
        tracing::trace!(digest = %self.run.wanted.digest, ?ask, "asking");
        let id = self.asked;
        self.asked += 1;
        let (stop, registration) = AbortHandle::new_pair();
        let events = lane::run(self.supplies[nth].blob.clone(), ask, self.run.throttle.clone());
        let events = events.map(move |happened| (id, happened)).boxed();
        self.happenings.push(Abortable::new(events, registration));
        let lane = Lane {
            claim: claim.id,
            supply: nth,
            receipt: self.run.is_choice().then(|| Receipt::new(&self.run.wanted.digest)),
            at: range.start,
            whole: self.one_stream,
            reused: source.link.asks(),
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
            Happened::Opened(opened) => self.opened(id, &opened),
            Happened::Bytes(bytes) => {
                self.bytes(id, &bytes);
                Ok(())
            }
            Happened::Ended => {
                let Some(mut ended) = self.lanes.remove(&id) else { return Ok(()) };
                let (now, nth) = (Instant::now(), ended.supply);
                if let Some(rate) = ended.rate_at_end(now) {
                    self.supplies[nth].source.link.measured(rate);
                    self.supplies[nth].source.weather(|weather| weather.part_at(rate, now));
                }
                self.close_receipt(&mut ended);
                let (missing, got) = (self.claims.remaining_of(ended.claim), ended.at);
                self.claims.release(ended.claim);
                self.go();
                if missing == 0 {
                    return Ok(());
                }
                self.failed(nth, UpstreamError::Truncated { got, expected: got + missing }, true)
            }
            Happened::Broke(error) => {
                let Some(mut lane) = self.lanes.remove(&id) else { return Ok(()) };
                self.close_receipt(&mut lane);
                self.claims.release(lane.claim);
                self.failed(lane.supply, error, lane.is_open())
            }
        }
    }

    fn opened(&mut self, id: u64, opened: &Opened) -> Result<(), PullError> {
        let Opened { after, offset, whole, size, digest } = *opened;
        let expected = self.partial.size();
        let Some(nth) = self.lanes.get(&id).map(|lane| lane.supply) else { return Ok(()) };
        if size.is_some_and(|told| told != expected) {
            // A manifest and its registry disagree: no stream will change that. Another upstream may know better.
            let error = UpstreamError::Protocol(OTHER_SIZE);
            if !self.is_choice() || self.one_stream {
                return Err(self.run.failed(error));
            }
            self.close(id);
            return self.failed(nth, error, false);
        }
        let asked = self.run.wanted.digest;
        if self.is_choice()
            && !self.one_stream
            && let Some(named) =
                digest.filter(|named| named.algorithm() == asked.algorithm() && *named != asked)
        {
            self.close(id);
            let error = UpstreamError::Mismatch { expected: asked, actual: Box::new(named) };
            return self.failed(nth, error, false);
        }
        self.run.download.flow();
        let now = Instant::now();
        let supply = &mut self.supplies[nth];
        supply.answered = true;
        supply.source.weather(|weather| weather.answered(after, now));
        supply.source.has(&self.run.wanted.image);
        let Some(lane) = self.lanes.get_mut(&id) else { return Ok(()) };
        supply.source.link.answered(after, lane.reused);
        lane.open(now, offset);
        if whole && !lane.whole && self.claims.remaining_of(lane.claim) < expected {
            // It was asked for a part and sends everything: then everything is taken from this one stream.
            if self.supplies.iter().enumerate().any(|(other, s)| other != nth && s.out.is_none()) {
                self.close(id);
                return self.failed(nth, UpstreamError::RangeRefused, true);
            }
            tracing::info!(digest = %self.run.wanted.digest, "the upstream gives no parts: one stream");
            self.claims.release(lane.claim);
            (self.one_stream, self.lead) = (true, nth);
            let Some(claim) = self.claims.claim_whole() else {
                return self.failed(nth, UpstreamError::RangeRefused, true);
            };
            (lane.claim, lane.whole) = (claim.id, true);
        }
        if self.one_stream {
            self.supplies[nth].patience.stream_begins();
        }
        Ok(())
    }

    fn bytes(&mut self, id: u64, bytes: &Bytes) {
        let length = bytes.len() as u64;
        self.meter.add(length);
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let supply = &mut self.supplies[lane.supply];
        supply.source.link.received(length);
        supply.source.weather(|weather| weather.brought(length));
        let (now, at) = (Instant::now(), lane.at);
        (lane.at, lane.last) = (at + length, now);
        let mut is_new = false;
        for wanted in self.claims.received(lane.claim, at, length) {
            is_new = true;
            let piece = bytes.slice(within(&wanted, at));
            self.pending_bytes += piece.len();
            if let Some(receipt) = &mut lane.receipt {
                receipt.add(wanted.start, &piece);
            }
            self.pending.push((wanted.start, piece));
        }
        supply.patience.progress(now, is_new);
        if lane.shrunk && self.claims.remaining_of(lane.claim) == 0 {
            self.close(id);
        }
    }

    /// Ends a lane and its connection; what it did not bring is free again.
    fn close(&mut self, id: u64) {
        if let Some(mut lane) = self.lanes.remove(&id) {
            lane.stop.abort();
            self.close_receipt(&mut lane);
            self.claims.release(lane.claim);
            self.go();
        }
    }

    fn close_receipt(&mut self, lane: &mut Lane) {
        let source = &self.supplies[lane.supply].source;
        self.brought.extend(lane.receipt.take().and_then(|receipt| receipt.close(source)));
    }

    /// How long an outage is waited out.
    fn wait(&self) -> Duration {
        patience::wait(self.run.download.reader(0).is_some(), self.run.outage_wait)
    }

    /// Looks at the connections: who is silent, who is far behind.
    fn look(&mut self) -> Result<(), PullError> {
        for supply in &self.supplies {
            supply.source.link.look(&self.run.throttle);
        }
        let now = Instant::now();
        let held_up = now - std::mem::replace(&mut self.looked_at, now) >= HELD_UP;
        let throttled = self.run.throttle.held_back_since(&mut self.held_back);
        if throttled || held_up {
            // Whoever waits for the speed limit, or for a slow disk, is neither silent nor slow.
            for lane in self.lanes.values_mut() {
                lane.excuse(now);
            }
        }
        for lane in self.lanes.values_mut() {
            if let Some(rate) = lane.measure(now) {
                self.supplies[lane.supply].source.link.measured(rate);
            }
        }
        self.replace_silent_and_slow(now)?;
        self.look_at_upstreams(now, throttled || held_up)?;
        let wait = self.wait();
        let over = |supply: &Supply| supply.patience.is_failing() && supply.patience.is_over(now, wait);
        if self.lanes.is_empty() && self.supplies.iter().all(|supply| supply.out.is_some() || over(supply)) {
            let of_one = |supply: &mut Supply| supply.last_error.take();
            let error = self.supplies.iter_mut().find_map(of_one).unwrap_or(UpstreamError::Timeout);
            return Err(self.run.failed(error));
        }
        self.share_the_end();
        let silent = |supply: &Supply| supply.source.link.silent_for().is_none_or(|for_| for_ >= DOWN_AFTER);
        let waits = |supply: &Supply| supply.out.is_some() || supply.patience.is_over(now, DOWN_AFTER);
        let down = self.supplies.iter().all(silent) && self.supplies.iter().all(waits);
        self.meter.waits(!throttled && down);
        self.go();
        if self.unsynced_bytes > 0 && self.syncing.is_none() && self.synced_at.elapsed() >= SYNC_EVERY {
            (self.unsynced_bytes, self.syncing) = (0, Some(self.partial.sync().boxed()));
        }
        Ok(())
    }

    fn replace_silent_and_slow(&mut self, now: Instant) -> Result<(), PullError> {
        let alive = |supply: &Supply| {
            supply.source.link.silent_for().is_some_and(|silence| silence < Duration::from_secs(1))
        };
        let somebody_is_alive = self.supplies.iter().any(alive);
        for nth in 0..self.supplies.len() {
            let link = &self.supplies[nth].source.link;
            let patience = if somebody_is_alive || self.others_are_able(nth) {
                pace::silence(link.round_trip())
            } else {
                SILENCE_AT_MOST
            };
            let own = || self.lanes.iter().filter(move |(_, lane)| lane.supply == nth);
            let silent = |lane: &Lane| lane.is_open() && !lane.whole && now - lane.last >= patience;
            let median = pace::median(own().filter_map(|(_, lane)| lane.rate).collect());
            // The last ones have nobody beside them: they are held against what connections usually bring.
            let median = median.or(link.rate().filter(|_| self.claims.unclaimed() == 0));
            let slow = |lane: &Lane| match (lane.rate, median) {
                (Some(rate), Some(median)) if !lane.whole && lane.was_just_measured(now) => {
                    pace::is_far_below(rate, median, self.claims.remaining_of(lane.claim))
                }
                _ => false,
            };
            let given_up: Vec<u64> =
                own().filter(|(_, lane)| silent(lane) || slow(lane)).map(|(id, _)| *id).collect();
            for id in &given_up {
                self.close(*id);
                self.failed(nth, UpstreamError::Timeout, true)?;
            }
            if alive(&self.supplies[nth]) && !given_up.is_empty() {
                // It is these connections that are bad, not the link: others may be tried at once.
                self.supplies[nth].patience.forgive();
            }
        }
        Ok(())
    }

    /// At the end of a blob, a connection without work takes half of what a slow one still has to bring. The slow one is
    /// closed when it comes to the other's half: what is on its way then is lost, so this is for long waits alone.
    fn share_the_end(&mut self) {
        let lead = &self.supplies[self.lead];
        let busy = self.claims.unclaimed() > 0 || self.one_stream || lead.is_resting();
        if busy || lead.out.is_some() || lead.patience.is_failing() || !lead.source.link.has_room() {
            return;
        }
        let claims = &mut self.claims;
        let left = |claims: &Claims, lane: &Lane| {
            pace::time_for(claims.remaining_of(lane.claim), lane.rate.unwrap_or(u64::MAX))
        };
        let slowest = self.lanes.values_mut().max_by_key(|lane| left(claims, lane));
        // Another upstream's slowness is not shared by the link that helps out.
        let lead = self.lead;
        let soon = |lane: &Lane| if lane.supply == lead { SOON } else { SOON / 4 };
        if let Some(lane) = slowest.filter(|lane| left(claims, lane) > soon(lane)) {
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

/// `range` as a place in a chunk that begins at `at`.
#[expect(clippy::cast_possible_truncation, reason = "offsets within a chunk in memory")]
fn within(range: &Range<u64>, at: u64) -> Range<usize> {
    (range.start - at) as usize..(range.end - at) as usize
}
