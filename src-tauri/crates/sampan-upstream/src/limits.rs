//! Every limit of a conversation with an upstream (SECURITY section 3).

use std::time::Duration;

/// How long and how much Sampan takes from an upstream. [`Default`] is what ships.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until the answer's head is there, with connecting, TLS, a token and redirects.
    pub headers: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// The window over which a body's rate is averaged.
    pub rate_window: Duration,
    /// The least body bytes of one window; below it, the body counts as stalled.
    pub rate_bytes_min: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            headers: Duration::from_secs(20),
            idle: Duration::from_secs(30),
            rate_window: Duration::from_mins(2),
            rate_bytes_min: 120 * 1024,
        }
    }
}

/// Until the TCP connection and TLS stand.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept for the next request: less than registries keep them, so that none is used in
/// the moment it is closed.
pub(crate) const POOL_IDLE: Duration = Duration::from_secs(30);
/// How long the body of an answer nobody wants may take: past that, a new connection is the better deal.
pub(crate) const FINISH: Duration = Duration::from_secs(2);
/// Redirects followed for one blob.
pub(crate) const REDIRECTS_MAX: usize = 5;
/// New addresses of a blob asked for in a row while none of them brings bytes (SECURITY R36); see `BlobSource`.
pub(crate) const RENEWALS_MAX: u32 = 5;
/// All header names and values of one answer.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// A token endpoint's answer.
pub(crate) const TOKEN_BODY_BYTES_MAX: usize = 64 * 1024;
/// A token.
pub(crate) const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// A `WWW-Authenticate` header.
pub(crate) const CHALLENGE_BYTES_MAX: usize = 4 * 1024;
/// A page of tags.
pub(crate) const TAGS_BYTES_MAX: usize = 1024 * 1024;
/// Pages of one list of referrers; all of them together may be as large as a manifest.
pub(crate) const REFERRERS_PAGES_MAX: usize = 16;
/// Tags asked for in one page (distribution's own maximum).
pub(crate) const TAGS_MAX: u32 = 1000;
/// The longest `Retry-After` that is believed.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);
