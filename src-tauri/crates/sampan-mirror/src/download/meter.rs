//! Tells what a download does: what came in, and how it goes.

use std::sync::Arc;
use std::time::Duration;

use sampan_oci::{Clock, Digest, Event, ImageName};
use tokio::time::Instant;

use super::Wanted;
use crate::EventSink;

/// How often received bytes are told, and at the latest after how many: what is served from them is told too, and would
/// look like a saving until then.
const TELL_EVERY: Duration = Duration::from_millis(200);
const TELL_BYTES: u64 = 256 * 1024;

/// Tells what came in, a few times a second, and the rest when it is dropped: no received byte is left out.
pub(crate) struct Meter {
    sink: EventSink,
    clock: Arc<dyn Clock>,
    image: ImageName,
    digest: Digest,
    received: u64,
    told: u64,
    since: Instant,
    going: Going,
    told_going: Going,
}

/// How a download goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Going {
    /// Connections in use now.
    connections: u32,
    /// Requests that had to be asked again before a byte came.
    retries: u64,
    /// Bodies that broke off, or were replaced, in the middle, and were continued.
    repaired: u64,
    /// Nothing comes, and it is waited for the upstream to come back.
    waiting: bool,
}

impl Meter {
    pub(crate) fn new(sink: EventSink, clock: Arc<dyn Clock>, wanted: &Wanted) -> Self {
        let (image, digest) = (wanted.image.clone(), wanted.digest);
        let (going, told_going) = (Going::default(), Going::default());
        Self { sink, clock, image, digest, received: 0, told: 0, since: Instant::now(), going, told_going }
    }

    /// Takes note that `received` bytes came in so far.
    pub(crate) fn read(&mut self, received: u64) {
        self.received = received;
        if self.since.elapsed() >= TELL_EVERY || self.received - self.told >= TELL_BYTES {
            self.tell();
        }
    }

    /// Takes note that `bytes` more came in.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.read(self.received + bytes);
    }

    /// Takes note of how many connections are in use.
    pub(crate) fn connections(&mut self, connections: usize) {
        self.going.connections = u32::try_from(connections).unwrap_or(u32::MAX);
        if self.since.elapsed() >= TELL_EVERY {
            self.tell();
        }
    }

    /// Takes note of whether it is waited for the upstream to come back.
    pub(crate) fn waits(&mut self, waiting: bool) {
        self.going.waiting = waiting;
    }

    /// A question had to be asked again before a byte of its answer came.
    pub(crate) fn retried(&mut self) {
        self.going.retries += 1;
    }

    /// A body broke off, or was given up, in the middle, and what is missing comes in another.
    pub(crate) fn repaired(&mut self) {
        self.going.repaired += 1;
    }

    fn tell(&mut self) {
        let (at, bytes) = (self.clock.now(), self.received - self.told);
        if bytes > 0 {
            let (image, digest) = (self.image.clone(), Some(self.digest));
            self.sink.tell(&Event::Fetched { at, image, digest, bytes });
        }
        if self.going != self.told_going {
            let (image, digest) = (self.image.clone(), self.digest);
            let Going { connections, retries, repaired, waiting } = self.going;
            self.sink.tell(&Event::Download { at, image, digest, connections, retries, repaired, waiting });
        }
        (self.told, self.told_going, self.since) = (self.received, self.going, Instant::now());
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        (self.going.connections, self.going.waiting) = (0, false);
        self.tell();
    }
}
