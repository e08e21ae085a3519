//! What a download knows of each connection that works for it, and how fast that one is.

use std::time::Duration;

use futures_util::stream::AbortHandle;
use tokio::time::Instant;

use super::claims::ClaimId;
use super::slots::Slot;
use crate::sources::Receipt;

/// Over how long speed is measured; the first time over half of it.
const SPEED_OVER: Duration = Duration::from_secs(4);
/// A speed this young is worth a decision.
const JUST: Duration = Duration::from_millis(200);
/// Fewer bytes than these say nothing about speed: they come in one burst.
const MEASURED_BYTES: u64 = 256 * 1024;

/// One connection at work.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) claim: ClaimId,
    /// Whose it is, among the download's supplies.
    pub(super) supply: usize,
    /// What it brought, where it may have to be told who brought what.
    pub(super) receipt: Option<Receipt>,
    /// Where its next byte belongs.
    pub(super) at: u64,
    pub(super) whole: bool,
    /// Whether its connection was there already.
    pub(super) reused: bool,
    /// Whether it was asked for more than is wanted of it by now.
    pub(super) shrunk: bool,
    /// When it last brought something.
    pub(super) last: Instant,
    /// Since when, and from which position, its speed is measured; `None` until its answer's head came.
    pub(super) measured: Option<(Instant, u64)>,
    /// Bytes per second, once measured.
    pub(super) rate: Option<u64>,
    pub(super) stop: AbortHandle,
    /// Gives the connection back to the others when the lane ends.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) slot: Slot,
}

impl Lane {
    /// Its answer's head came, and its body begins at `offset`.
    pub(super) fn open(&mut self, now: Instant, offset: u64) {
        (self.at, self.last, self.measured) = (offset, now, Some((now, offset)));
    }

    pub(super) fn is_open(&self) -> bool {
        self.measured.is_some()
    }

    /// What it did so far says nothing about the link.
    pub(super) fn excuse(&mut self, now: Instant) {
        (self.last, self.rate) = (now, None);
        if self.is_open() {
            self.measured = Some((now, self.at));
        }
    }

    /// Measures when it is time to. Returns a new value in bytes per second.
    pub(super) fn measure(&mut self, now: Instant) -> Option<u64> {
        let (since, from) = self.measured?;
        let due = if self.rate.is_some() { SPEED_OVER } else { SPEED_OVER / 2 };
        if now - since < due {
            return None;
        }
        self.rate = Some(rate(self.at - from, now - since));
        self.measured = Some((now, self.at));
        self.rate
    }

    /// The speed of one that ended too soon to be measured.
    pub(super) fn rate_at_end(&self, now: Instant) -> Option<u64> {
        let (since, from) = self.measured.filter(|(_, from)| self.at - from >= MEASURED_BYTES)?;
        self.rate.is_none().then(|| rate(self.at - from, now - since))
    }

    pub(super) fn was_just_measured(&self, now: Instant) -> bool {
        self.rate.is_some() && self.measured.is_some_and(|(since, _)| now - since < JUST)
    }
}

fn rate(bytes: u64, time: Duration) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1_000_000) / micros
}
