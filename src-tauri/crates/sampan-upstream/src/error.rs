//! What can go wrong with an upstream, told by what a caller does about it.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use sampan_oci::{Digest, Failure, InvalidManifest, Stale};

use crate::address::PrivateAddress;

/// What [`UpstreamError::Protocol`] says of a blob of another size than the one known.
pub const OTHER_SIZE: &str = "the blob has another size than its manifest says";

/// Why an upstream did not give what was asked. Texts are for people; they hold no URL, no token and no header.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// 404: the upstream does not have it.
    #[error("the registry does not have it")]
    NotFound,
    /// 401 or 403 although we came with an anonymous token: private, or not there.
    #[error("the registry does not show it without a login")]
    Denied,
    /// 429.
    #[error("the registry's rate limit is used up")]
    RateLimited {
        /// How long to wait, where the upstream said so; at most five minutes.
        retry_after: Option<Duration>,
    },
    /// 503 with `Retry-After`: too much is asked of the upstream just now.
    #[error("the registry is busy")]
    Busy {
        /// How long the upstream asks to wait; at most five minutes.
        retry_after: Duration,
    },
    /// Another status. 401, 403 and 404 appear here only from the target of a redirect, whose address may have
    /// expired: asking the registry again gives a new one.
    #[error("the registry answered with status {0}")]
    Status(u16),
    /// No connection, or a broken one: name resolution, refused, reset, TLS.
    #[error("the registry cannot be reached: {0}")]
    Unreachable(String),
    /// It did not answer the last times, and is left alone for a moment; nothing was sent.
    #[error("the registry did not answer the last times; it is asked again in a moment")]
    Resting,
    /// A person switched Sampan offline; nothing was sent, or what was under way was cut off.
    #[error("Sampan is offline, and this is not in its cache; `sampan offline off` lets it ask")]
    Offline,
    /// The head did not come, the body stood still, or it came slower than anyone waits for.
    #[error("the registry did not answer in time")]
    Timeout,
    /// The connection ended before the body did.
    #[error("the connection ended after {got} of {expected} bytes")]
    Truncated {
        /// Body bytes received.
        got: u64,
        /// Body bytes promised; equal to `got` + 1 where the upstream promised no length.
        expected: u64,
    },
    /// The bytes are not those the digest names.
    #[error("the registry sent {actual} for {expected}")]
    Mismatch {
        /// What was asked for, or what the upstream's header claimed.
        expected: Digest,
        /// What the bytes hash to, or what the upstream's header claimed instead.
        actual: Box<Digest>,
    },
    /// The manifest is none.
    #[error(transparent)]
    InvalidManifest(#[from] InvalidManifest),
    /// The upstream answered a range request with the whole body or with 416: only from the first byte on can the
    /// blob be had.
    #[error("the registry does not give parts of this blob")]
    RangeRefused,
    /// The answer to a question for a part contradicts the range asked for or the size known: what this upstream says
    /// about parts is not to be relied on. The whole may be honest all the same.
    #[error("the registry sent another part than the one asked for")]
    OtherPart,
    /// Its strong ETag or its size is not what the same place told before: another blob is there now.
    #[error("the blob changed while it was fetched")]
    Changed,
    /// The login that was to be shown could not be, or was not taken.
    #[error(transparent)]
    Login(#[from] crate::LoginTrouble),
    /// The upstream broke HTTP or the distribution specification, or led somewhere we do not go.
    #[error("the registry broke the rules: {0}")]
    Protocol(&'static str),
}

impl UpstreamError {
    /// Whether asking again, now or later, may well succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Busy { .. }
            | Self::Unreachable(_)
            | Self::Resting
            | Self::Offline
            | Self::Timeout
            | Self::Truncated { .. } => true,
            Self::Status(status) => *status >= 500 || matches!(status, 401 | 403 | 404 | 408 | 425),
            Self::NotFound
            | Self::Denied
            | Self::Mismatch { .. }
            | Self::InvalidManifest(_)
            | Self::RangeRefused
            | Self::OtherPart
            | Self::Changed
            | Self::Login(_)
            | Self::Protocol(_) => false,
        }
    }

    /// How long the upstream asked to be left alone, where it did.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::RateLimited { retry_after } = self {
            *retry_after
        } else if let Self::Busy { retry_after } = self {
            Some(*retry_after)
        } else {
            None
        }
    }

    /// The same in the vocabulary of outcomes.
    pub fn failure(&self) -> Failure {
        match self {
            // Docker then asks with its own login, whatever is wrong with ours.
            Self::NotFound | Self::Denied | Self::Login(_) => Failure::NotFound,
            Self::RateLimited { .. } => Failure::RateLimited,
            Self::Busy { .. } | Self::Status(_) => Failure::Upstream,
            Self::Unreachable(_) | Self::Resting | Self::Timeout | Self::Truncated { .. } => {
                Failure::Unreachable
            }
            Self::Offline => Failure::Offline,
            Self::Mismatch { .. }
            | Self::InvalidManifest(_)
            | Self::RangeRefused
            | Self::OtherPart
            | Self::Changed
            | Self::Protocol(_) => Failure::Mismatch,
        }
    }

    /// Why a copy at hand is served where this kept its upstream from confirming it.
    pub fn stale(&self) -> Stale {
        if matches!(self, Self::Resting) { Stale::Resting } else { Stale::of(self.failure()) }
    }

    /// Reads an error of a request that got no answer.
    pub(crate) fn of_request(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        if error.is_builder() {
            return Self::Protocol("an address that is none");
        }
        let mut source = error.source();
        while let Some(cause) = source {
            if cause.is::<PrivateAddress>() {
                return Self::Protocol("it led to a private address");
            }
            // Somebody answers there: telling that as an outage would send people looking at their cables.
            if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
                return Self::Protocol("its answer is not HTTP");
            }
            source = cause.source();
        }
        Self::Unreachable(reason(error))
    }

    /// Reads an error in the middle of a body.
    pub(crate) fn of_body(error: &reqwest::Error, got: u64, expected: Option<u64>) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        match broken_connection(error) {
            Some(kind) => Self::Unreachable(kind.to_string()),
            None => Self::Truncated { got, expected: expected.unwrap_or(got + 1) },
        }
    }
}

/// Whether the connection died under a request before any of its answer came, as one does that the upstream closed
/// while it lay idle.
pub(crate) fn died_before_answer(error: &reqwest::Error) -> bool {
    if error.is_connect() || error.is_timeout() {
        return false;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<hyper::Error>()
            && (cause.is_incomplete_message() || cause.is_canceled() || cause.is_closed())
        {
            return true;
        }
        source = cause.source();
    }
    broken_connection(error).is_some()
}

/// The innermost cause: the outer layers only repeat that a request failed, and where to.
fn reason(error: &reqwest::Error) -> String {
    let mut innermost: Option<&dyn std::error::Error> = error.source();
    while let Some(next) = innermost.and_then(std::error::Error::source) {
        innermost = Some(next);
    }
    let text = innermost.map_or_else(|| "the request failed".to_owned(), ToString::to_string);
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// The kind of a connection's violent end. FIN in the middle of a body is none: that is a truncated body.
fn broken_connection(error: &reqwest::Error) -> Option<io::ErrorKind> {
    let mut source = error.source();
    while let Some(cause) = source {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        if let Some(
            kind @ (io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe),
        ) = kind
        {
            return Some(kind);
        }
        source = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_transient() {
        for error in [
            UpstreamError::Timeout,
            UpstreamError::Unreachable(String::new()),
            UpstreamError::Truncated { got: 1, expected: 2 },
            UpstreamError::RateLimited { retry_after: None },
            UpstreamError::Busy { retry_after: Duration::ZERO },
            UpstreamError::Status(503),
            UpstreamError::Status(403),
        ] {
            assert!(error.is_transient(), "{error}");
        }
        for error in [
            UpstreamError::NotFound,
            UpstreamError::Denied,
            UpstreamError::Status(400),
            UpstreamError::RangeRefused,
            UpstreamError::OtherPart,
            UpstreamError::Changed,
            UpstreamError::Protocol("x"),
        ] {
            assert!(!error.is_transient(), "{error}");
        }
    }

    #[test]
    fn a_broken_link_is_never_told_as_missing() {
        assert_eq!(UpstreamError::Timeout.failure(), Failure::Unreachable);
        assert_eq!(UpstreamError::Status(500).failure(), Failure::Upstream);
        assert_eq!(UpstreamError::Denied.failure(), Failure::NotFound, "then Docker asks with its own login");
    }
}
