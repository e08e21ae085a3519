//! Whether an upstream answers, as the last request saw it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::UpstreamError;

/// What the last request told about an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether it answered at all, with any status; `None` before the first request.
    pub reachable: Option<bool>,
    /// When that was; `None` before the first request.
    pub checked: Option<Instant>,
}

/// The health of one upstream, shared by all who ask it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse(Arc<Mutex<Health>>);

impl Pulse {
    pub(crate) fn read(&self) -> Health {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a request ended. An answer is an answer, whatever its status.
    pub(crate) fn note<T>(&self, result: &Result<T, UpstreamError>) {
        let reachable = !matches!(result, Err(UpstreamError::Unreachable(_) | UpstreamError::Timeout));
        let health = Health { reachable: Some(reachable), checked: Some(Instant::now()) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }
}
