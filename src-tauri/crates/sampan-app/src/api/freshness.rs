//! The contract about freshness: how often tags are asked about, and what became of asking.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// The longest time between two checks, and the longest age of a stale answer: a year, in seconds.
pub const FRESHNESS_SECONDS_MAX: u32 = 366 * 24 * 3600;
/// The most rules there may be.
pub const FRESHNESS_RULES_MAX: usize = 200;

/// How often a tag's registry is asked where it points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Freshness {
    /// At every pull.
    #[default]
    Always,
    /// When the last answer is this many seconds old: 1 to [`FRESHNESS_SECONDS_MAX`].
    Every(u32),
    /// Only by [`Command::Refresh`](super::Command::Refresh).
    OnRequest,
    /// Never: what is held stays what the tag means.
    Never,
}

/// What holds for some repositories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct FreshnessRule {
    /// `docker.io/library/*`, `ghcr.io/acme/**`, `quay.io`, `nginx`; of several that fit, the closest decides.
    pub pattern: String,
    /// How often.
    pub check: Freshness,
    /// How many seconds after its last confirmation a tag is still answered while its registry cannot be asked, 1 to
    /// [`FRESHNESS_SECONDS_MAX`]; `None`: for ever.
    #[serde(default)]
    pub stale_max_seconds: Option<u32>,
}

/// A change of the rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum FreshnessChange {
    /// Adds a rule, or replaces the one for the same pattern.
    Set(FreshnessRule),
    /// Removes the rule for this pattern.
    Unset(String),
}

/// Why a tag was answered from the cache without its registry's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum StaleReason {
    /// The registry cannot be reached.
    Outage,
    /// Its rate limit is used up.
    RateLimit,
    /// It did not answer in time.
    Deadline,
    /// It answered with an error of its own.
    Upstream,
    /// A person switched Sampan offline.
    Offline,
    /// It did not answer the last times, and is left alone for a moment.
    Resting,
}

/// How answers about tags came about, since this run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct TagAnswers {
    /// The registry was not to be asked: its policy says so, or the tag is frozen.
    #[ts(type = "number")]
    pub unasked: u64,
    /// Stale: the registry cannot be reached.
    #[ts(type = "number")]
    pub outage: u64,
    /// Stale: its rate limit is used up.
    #[ts(type = "number")]
    pub rate_limit: u64,
    /// Stale: it did not answer in time.
    #[ts(type = "number")]
    pub deadline: u64,
    /// Stale: it answered with an error of its own.
    #[ts(type = "number")]
    pub upstream: u64,
    /// Stale: a person switched Sampan offline.
    #[ts(type = "number")]
    pub offline: u64,
    /// Stale: it did not answer the last times, and was left alone.
    #[serde(default)]
    #[ts(type = "number")]
    pub resting: u64,
}

/// What became of asking about a tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct Refreshed {
    /// `docker.io/library/nginx:1.27`.
    pub name: String,
    /// What the registry said.
    pub result: RefreshResult,
    /// Where the tag pointed, if it was held.
    pub before: Option<String>,
    /// Where it points.
    pub digest: Option<String>,
    /// Why it failed.
    pub message: Option<String>,
}

/// What a registry said of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum RefreshResult {
    /// It points where it did.
    Current,
    /// It points elsewhere now, and that manifest was fetched; the layers come with the next pull.
    Moved,
    /// There is no such tag any more, or it needs a login.
    Gone,
    /// A person froze it; nobody was asked.
    Frozen,
    /// Its policy is `never`; nobody was asked.
    Never,
    /// The registry could not say.
    Failed,
}

impl FromStr for Freshness {
    type Err = String;

    /// Reads `always`, `on-request`, `never`, or a time such as `15m` or `every 15m`. The error is a sentence for the
    /// person who wrote it.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim().to_ascii_lowercase();
        match text.as_str() {
            "always" => return Ok(Self::Always),
            "on-request" | "on request" | "on_request" => return Ok(Self::OnRequest),
            "never" => return Ok(Self::Never),
            _ => {}
        }
        let every = text.strip_prefix("every").unwrap_or(&text);
        parse_age(every)
            .map(Self::Every)
            .map_err(|_| "write always, a time from 1s to 366d such as 15m, on-request, or never".to_owned())
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Every(seconds) => write!(f, "every {}", age(*seconds)),
            Self::OnRequest => f.write_str("on-request"),
            Self::Never => f.write_str("never"),
        }
    }
}

/// Reads a time of whole seconds, 1 to [`FRESHNESS_SECONDS_MAX`]: `90s`, `15m`, `1h 30m`, `7d`.
/// # Errors
/// A sentence for the person who wrote it.
pub fn parse_age(text: &str) -> Result<u32, String> {
    let bad = || "write a time from 1s to 366d, such as 15m, 12h or 7d".to_owned();
    // A day is 24 hours here; jiff leaves that to whoever knows the calendar.
    let (days, rest) = match text.trim().split_once('d') {
        Some((days, rest)) => (days.trim().parse::<u32>().map_err(|_| bad())?, rest.trim()),
        None => (0, text.trim()),
    };
    let seconds = if rest.is_empty() && days > 0 {
        0
    } else {
        let time = rest.parse::<jiff::SignedDuration>().map_err(|_| bad())?;
        u32::try_from(time.as_secs()).map_err(|_| bad())?
    };
    let seconds = days.checked_mul(24 * 3600).and_then(|days| days.checked_add(seconds));
    seconds.filter(|seconds| (1..=FRESHNESS_SECONDS_MAX).contains(seconds)).ok_or_else(bad)
}

/// Seconds as [`parse_age`] reads them: `15m`, `7d`, `1h 30m`.
pub fn age(seconds: u32) -> String {
    let parts =
        [(seconds / 86_400, 'd'), (seconds / 3600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if parts.is_empty() { "0s".into() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_written() {
        for (written, check) in [
            ("always", Freshness::Always),
            ("15m", Freshness::Every(900)),
            ("every 15m", Freshness::Every(900)),
            ("every 1d 2h 3m 4s", Freshness::Every(93_784)),
            ("7d", Freshness::Every(604_800)),
            ("On-Request", Freshness::OnRequest),
            ("never", Freshness::Never),
        ] {
            assert_eq!(written.parse(), Ok(check), "{written}");
            assert_eq!(check.to_string().parse(), Ok(check), "{check}");
        }
        for bad in ["", "0s", "every", "sometimes", "-5m", "15", "400d", "9999999999d", "d"] {
            assert!(bad.parse::<Freshness>().is_err_and(|why| why.contains("15m")), "{bad:?}");
        }
    }
}
