//! Whether an upstream answers, as the last request saw it, and whether it is asked at all.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::UpstreamError;
use crate::breaker::Breaker;

/// What the last request told about an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether it answered at all, with any status; `None` before the first request.
    pub reachable: Option<bool>,
    /// When that was; `None` before the first request.
    pub checked: Option<Instant>,
    /// It did not answer several times in a row, and is left alone but for a probe now and then.
    pub resting: bool,
    /// While it is left alone: when the next probe may go out; `None` while one is on its way.
    pub probe_at: Option<Instant>,
}

/// The health of one upstream, shared by all who ask it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse(Arc<Mutex<(Health, Breaker)>>);

impl Pulse {
    fn state(&self) -> MutexGuard<'_, (Health, Breaker)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self) -> Health {
        let (health, breaker) = *self.state();
        Health { resting: !breaker.is_closed(), probe_at: breaker.probe_at(), ..health }
    }

    /// Refuses a question while the upstream is left alone.
    pub(crate) fn admit(&self) -> Result<(), UpstreamError> {
        if self.state().1.is_closed() { Ok(()) } else { Err(UpstreamError::Resting) }
    }

    /// Takes the turn to probe; whoever has it tells the end by [`probed`](Self::probed).
    pub(crate) fn take_probe(&self) -> bool {
        self.state().1.take_probe(Instant::now())
    }

    /// Notes how a request ended. An answer is an answer, whatever its status.
    pub(crate) fn note<T>(&self, result: &Result<T, UpstreamError>) {
        let Some(reachable) = said(result) else { return };
        let (health, breaker) = &mut *self.state();
        *health = Health { reachable: Some(reachable), checked: Some(Instant::now()), ..Health::default() };
        if reachable {
            breaker.answered();
        }
    }

    /// [`note`](Self::note), of a question that counts: several without an answer, and the upstream is left alone.
    pub(crate) fn count<T>(&self, result: &Result<T, UpstreamError>) {
        self.note(result);
        if said(result) == Some(false) {
            self.state().1.failed(Instant::now(), chance());
        }
    }

    /// [`note`](Self::note), of the probe.
    pub(crate) fn probed<T>(&self, result: &Result<T, UpstreamError>) {
        self.note(result);
        // Also where nothing was asked: somebody else may probe then.
        if said(result) != Some(true) {
            self.state().1.probe_failed(Instant::now(), chance());
        }
    }
}

/// Whether the upstream answered; `None`: it was not asked.
fn said<T>(result: &Result<T, UpstreamError>) -> Option<bool> {
    match result {
        // A login that could not be used says nothing of who it was for.
        Err(UpstreamError::Offline | UpstreamError::Resting | UpstreamError::Login(_)) => None,
        Err(UpstreamError::Unreachable(_) | UpstreamError::Timeout) => Some(false),
        Ok(_) | Err(_) => Some(true),
    }
}

/// 0 to 1. Randomly keyed by the standard library: enough for this, and no crate for it.
fn chance() -> f64 {
    let random = RandomState::new().build_hasher().finish() % 1024;
    f64::from(u16::try_from(random).unwrap_or(0)) / 1024.0
}
