//! Reads what a registry says of its allowance: `ratelimit-limit: 100;w=21600` and its kin. No I/O, no clock.
//!
//! Docker Hub sends these with manifests, for GET and HEAD alike; the form is that of the IETF's draft "RateLimit header
//! fields for HTTP". What cannot be read is not there: a gauge that is missing is better than a wrong one.

use std::time::Duration;

use reqwest::header::HeaderMap;

/// The most pulls of a window that are believed.
const PULLS_MAX: u64 = 1_000_000_000;
/// The longest window, and the longest time until it ends, that is believed: a month. An epoch is longer.
const WINDOW_MAX: Duration = Duration::from_hours(31 * 24);
/// The longest header that is read.
const HEADER_BYTES_MAX: usize = 256;
/// The longest name of a source: longer than any address.
const SOURCE_BYTES_MAX: usize = 64;

/// What one answer tells of the allowance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateHeaders {
    /// Pulls allowed in a window.
    pub limit: Option<u64>,
    /// Pulls left of it; never more than `limit`.
    pub remaining: Option<u64>,
    /// How long a window is.
    pub window: Option<Duration>,
    /// Whom the registry counts: an address, or an account's name.
    pub source: Option<String>,
    /// How long until the window ends.
    pub reset: Option<Duration>,
}

impl RateHeaders {
    /// Reads the headers of an answer. Nonsense, a header that is there twice with different values, and a rest that is
    /// more than the whole are ignored.
    pub fn read(headers: &HeaderMap) -> Self {
        let limit = one(headers, "ratelimit-limit").and_then(quantity);
        let remaining = one(headers, "ratelimit-remaining").and_then(quantity);
        let source = one(headers, "docker-ratelimit-source").and_then(source);
        let reset = one(headers, "ratelimit-reset").and_then(number).and_then(within_a_month);
        let (limit, remaining) = match (limit, remaining) {
            (Some(limit), Some(left)) if left.pulls > limit.pulls => (None, None),
            both => both,
        };
        let window = limit.and_then(|limit| limit.window).or(remaining.and_then(|left| left.window));
        Self {
            limit: limit.map(|limit| limit.pulls),
            remaining: remaining.map(|left| left.pulls),
            window,
            source,
            reset,
        }
    }

    /// Whether it tells how many pulls there are.
    pub(crate) fn counts(&self) -> bool {
        self.limit.is_some() || self.remaining.is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quantity {
    pulls: u64,
    window: Option<Duration>,
}

/// The header's one value, as text.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.any(|value| value != first) || first.len() > HEADER_BYTES_MAX {
        return None;
    }
    first.to_str().ok().map(str::trim)
}

/// `100;w=21600`: a number, and parameters of which only the window counts. Of a list the first counts.
fn quantity(text: &str) -> Option<Quantity> {
    let mut parts = text.split(',').next()?.split(';').map(str::trim);
    let pulls = number(parts.next()?).filter(|pulls| *pulls <= PULLS_MAX)?;
    let mut window = None;
    for part in parts {
        let (name, value) = part.split_once('=')?;
        if name.trim() == "w" {
            if window.is_some() {
                return None;
            }
            window = Some(number(value.trim()).and_then(within_a_month).filter(|w| !w.is_zero())?);
        }
    }
    Some(Quantity { pulls, window })
}

/// Digits and nothing else: `u64`'s own reading takes a sign.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn within_a_month(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds)).filter(|time| *time <= WINDOW_MAX)
}

fn source(text: &str) -> Option<String> {
    let good = !text.is_empty()
        && text.len() <= SOURCE_BYTES_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:@/+".contains(&b));
    good.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    const LIMIT: &str = "ratelimit-limit";
    const REMAINING: &str = "ratelimit-remaining";

    fn read(headers: &[(&'static str, &str)]) -> RateHeaders {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        RateHeaders::read(&map)
    }

    #[test]
    fn what_docker_hub_sends_is_read() {
        let told = read(&[
            (LIMIT, "100;w=21600"),
            (REMAINING, "76;w=21600"),
            ("docker-ratelimit-source", "203.0.113.7"),
            ("ratelimit-reset", "1200"),
        ]);
        let expected = RateHeaders {
            limit: Some(100),
            remaining: Some(76),
            window: Some(Duration::from_hours(6)),
            source: Some("203.0.113.7".into()),
            reset: Some(Duration::from_mins(20)),
        };
        assert_eq!(told, expected);
        assert!(told.counts() && !read(&[]).counts());
    }

    #[test]
    fn quantities_are_read_strictly() {
        let hours = |pulls, hours| Some((pulls, Some(Duration::from_hours(hours))));
        for (text, expected) in [
            ("100;w=21600", hours(100, 6)),
            (" 100 ; w=21600 ", hours(100, 6)),
            ("100, 100;w=3600", Some((100, None))),
            ("100;w=3600, 10;w=60", hours(100, 1)),
            ("100;burst=5;w=3600", hours(100, 1)),
            ("0", Some((0, None))),
            ("1000000000", Some((1_000_000_000, None))),
            ("1000000001", None),
            ("99999999999999999999999999", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1e3", None),
            ("0x10", None),
            ("", None),
            (";w=21600", None),
            ("many", None),
            ("100;w", None),
            ("100;w=", None),
            ("100;w=0", None),
            ("100;w=-1", None),
            ("100;w=soon", None),
            ("100;w=60;w=61", None),
            ("100;w=99999999999", None),
            ("100;", None),
        ] {
            assert_eq!(quantity(text).map(|q| (q.pulls, q.window)), expected, "{text:?}");
        }
    }

    #[test]
    fn contradictions_are_ignored() {
        assert_eq!(read(&[(LIMIT, "10;w=60"), (REMAINING, "11;w=60")]), RateHeaders::default());
        assert_eq!(read(&[(LIMIT, "10"), (LIMIT, "20"), (REMAINING, "5")]).limit, None, "which of the two?");
        assert_eq!(read(&[(LIMIT, "10"), (LIMIT, "10")]).limit, Some(10), "said twice");
        assert_eq!(read(&[("ratelimit-reset", "1795132800")]).reset, None, "a date, not a time to wait");
        for text in ["", "a b", "<b>", "\"x\"", &"x".repeat(65)] {
            assert_eq!(read(&[("docker-ratelimit-source", text)]).source, None, "{text:?}");
        }
        assert_eq!(read(&[("docker-ratelimit-source", "2001:db8::/64")]).source.unwrap(), "2001:db8::/64");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_bounded_or_ignored(limit in "[ -~]{0,40}", remaining in "[0-9;w=, ]{0,40}", source in "[ -~]{0,100}") {
            let told = read(&[(LIMIT, &limit), (REMAINING, &remaining), ("docker-ratelimit-source", &source)]);
            prop_assert!(told.limit.is_none_or(|n| n <= PULLS_MAX) && told.remaining.is_none_or(|n| n <= PULLS_MAX));
            prop_assert!(told.window.is_none_or(|w| !w.is_zero() && w <= WINDOW_MAX));
            prop_assert!(told.limit.zip(told.remaining).is_none_or(|(limit, left)| left <= limit));
            prop_assert!(told.source.is_none_or(|s| s.len() <= SOURCE_BYTES_MAX));
        }

        #[test]
        fn what_is_well_said_is_read(limit in 0..=PULLS_MAX, spent in 0..=PULLS_MAX, window in 1u64..=2_678_400) {
            let left = limit.saturating_sub(spent);
            let told = read(&[(LIMIT, &format!("{limit};w={window}")), (REMAINING, &format!("{left};w={window}"))]);
            prop_assert_eq!((told.limit, told.remaining), (Some(limit), Some(left)));
            prop_assert_eq!(told.window, Some(Duration::from_secs(window)));
        }
    }
}
