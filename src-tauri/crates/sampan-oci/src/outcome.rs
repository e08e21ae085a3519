//! What becomes of a request: one closed vocabulary for control flow, logs, counters and the UI.

use serde::{Deserialize, Serialize};

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Served from the store; the upstream was not asked.
    Hit,
    /// Served from the store; the upstream confirmed that our copy is current.
    Revalidated,
    /// Fetched from the upstream, verified, stored, served.
    Miss,
    /// Served from a download that another request had started: no byte crossed the link for this one.
    Joined,
    /// The upstream could not answer, or was not to be asked; our copy was served.
    Stale(Stale),
    /// Fetched and served, but not kept.
    Bypass(Bypass),
    /// Not served, or not to the end.
    Failed(Failure),
}

/// Why a copy was served that its upstream did not confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stale {
    /// The upstream cannot be reached.
    Outage,
    /// The upstream's rate limit is used up.
    RateLimit,
    /// The upstream did not answer within the time a tag's check is given.
    Deadline,
    /// The upstream answered with an error of its own, or with something else than it promised.
    Upstream,
    /// A person switched Sampan offline.
    Offline,
    /// The upstream did not answer the last times, and is left alone for a moment: nobody asked.
    Resting,
}

impl Stale {
    /// Why an upstream that failed like this is no reason to fail a pull of what is held.
    pub fn of(failure: Failure) -> Self {
        match failure {
            Failure::RateLimited => Self::RateLimit,
            Failure::Offline => Self::Offline,
            Failure::Unreachable | Failure::Stopping | Failure::ClientLeft => Self::Outage,
            Failure::Invalid
            | Failure::Forbidden
            | Failure::NotFound
            | Failure::Upstream
            | Failure::Mismatch
            | Failure::Store => Self::Upstream,
        }
    }

    /// One stable word for logs and databases.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outage => "outage",
            Self::RateLimit => "rate-limit",
            Self::Deadline => "deadline",
            Self::Upstream => "upstream",
            Self::Offline => "offline",
            Self::Resting => "resting",
        }
    }
}

/// Why something was passed through without being kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bypass {
    /// The disk, or the room Sampan may use of it, is full.
    Full,
    /// The cache cannot be written to.
    ReadOnly,
    /// The person paused Sampan.
    Paused,
    /// The answer is not one that is kept (tag lists, `/v2/`).
    Uncacheable,
}

/// Why a request was not served, or not to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The request is not one of the specification, or names nothing valid.
    Invalid,
    /// The request may come from a web page, or from elsewhere than this machine.
    Forbidden,
    /// The client hung up before the end.
    ClientLeft,
    /// The upstream does not have it, or does not show it to us (then Docker asks with its own login).
    NotFound,
    /// The upstream cannot be reached, or does not answer in time.
    Unreachable,
    /// The upstream's rate limit is used up.
    RateLimited,
    /// A person switched Sampan offline: no upstream is asked.
    Offline,
    /// The upstream answered with an error of its own.
    Upstream,
    /// The upstream sent something else than it promised: wrong digest, wrong length, not a manifest.
    Mismatch,
    /// Our own disk failed.
    Store,
    /// Sampan is ending.
    Stopping,
}

/// Whose fault a failure is: picks log level and tray colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The client's.
    Client,
    /// The upstream's, or the link's.
    Upstream,
    /// Ours.
    Sampan,
}

impl Failure {
    /// Whose fault it is.
    pub fn fault(self) -> Fault {
        match self {
            Self::Invalid | Self::Forbidden | Self::ClientLeft | Self::NotFound => Fault::Client,
            Self::Unreachable | Self::RateLimited | Self::Upstream | Self::Mismatch | Self::Offline => {
                Fault::Upstream
            }
            Self::Store | Self::Stopping => Fault::Sampan,
        }
    }
}

impl Outcome {
    /// Whether the body came from this machine without the link carrying it for this request.
    pub fn is_hit(self) -> bool {
        match self {
            Self::Hit | Self::Revalidated | Self::Stale(_) | Self::Joined => true,
            Self::Miss | Self::Bypass(_) | Self::Failed(_) => false,
        }
    }

    /// Why a copy was served without its upstream's word, if this is one.
    pub fn stale(self) -> Option<Stale> {
        match self {
            Self::Stale(why) => Some(why),
            Self::Hit | Self::Revalidated | Self::Miss | Self::Joined | Self::Bypass(_) | Self::Failed(_) => {
                None
            }
        }
    }

    /// One stable word for logs and databases.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Joined => "joined",
            Self::Stale(_) => "stale",
            Self::Bypass(Bypass::Full) => "bypass-full",
            Self::Bypass(Bypass::ReadOnly) => "bypass-read-only",
            Self::Bypass(Bypass::Paused) => "bypass-paused",
            Self::Bypass(Bypass::Uncacheable) => "bypass-uncacheable",
            Self::Failed(Failure::Invalid) => "failed-invalid",
            Self::Failed(Failure::Forbidden) => "failed-forbidden",
            Self::Failed(Failure::ClientLeft) => "failed-client-left",
            Self::Failed(Failure::NotFound) => "failed-not-found",
            Self::Failed(Failure::Unreachable) => "failed-unreachable",
            Self::Failed(Failure::RateLimited) => "failed-rate-limited",
            Self::Failed(Failure::Offline) => "failed-offline",
            Self::Failed(Failure::Upstream) => "failed-upstream",
            Self::Failed(Failure::Mismatch) => "failed-mismatch",
            Self::Failed(Failure::Store) => "failed-store",
            Self::Failed(Failure::Stopping) => "failed-stopping",
        }
    }
}

/// Where the bytes of one blob come from, as a person sees it on the layer's lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// From this machine's disk.
    Disk,
    /// From a download that another request started.
    Joined,
    /// From the upstream, for this request.
    Upstream,
}
