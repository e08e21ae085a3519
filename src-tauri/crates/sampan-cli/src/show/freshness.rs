//! Freshness, as text for people.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sampan_app::api::{FreshnessRule, Image, RefreshResult, Refreshed, StaleReason, age};

use super::{columns, plain, time};

/// What `freshness` says.
pub(crate) fn freshness(rules: &[FreshnessRule]) -> String {
    if rules.is_empty() {
        return "Every tag is asked about at every pull.\n".into();
    }
    let mut rows = vec![["PATTERN", "CHECKED", "STALE AT MOST"].map(str::to_owned)];
    rows.extend(rules.iter().map(|rule| {
        let stale = rule.stale_max_seconds.map_or_else(|| "for ever".into(), age);
        [rule.pattern.clone(), rule.check.to_string(), stale]
    }));
    format!("{}Other tags are asked about at every pull.\n", columns(&rows))
}

/// What `offline` says.
pub(crate) fn offline(offline: bool) -> String {
    if offline {
        "Sampan is offline: it serves what it has and asks no registry, until `sampan offline off`.\n".into()
    } else {
        "Sampan is online.\n".into()
    }
}

/// What `refresh` says.
pub(crate) fn refreshed(all: &[Refreshed]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|refreshed| {
            let said = match refreshed.result {
                RefreshResult::Current => "is current".into(),
                RefreshResult::Moved => format!("moved to {}", refreshed.digest.as_deref().unwrap_or("?")),
                RefreshResult::Gone => "is gone at its registry, or needs a login".into(),
                RefreshResult::Frozen => "is frozen; `sampan unfreeze` lets it move".into(),
                RefreshResult::Never => "is never asked about, by `sampan freshness`".into(),
                RefreshResult::Failed => {
                    format!("could not be asked about: {}", refreshed.message.as_deref().unwrap_or("?"))
                }
            };
            [refreshed.name.clone(), said]
        })
        .collect();
    columns(&rows)
}

/// Why a pull was answered from the cache, beside what it is.
pub(super) fn stale(why: Option<StaleReason>) -> &'static str {
    match why {
        Some(StaleReason::RateLimit) => ", copy at hand (the registry's rate limit is used up)",
        Some(StaleReason::Deadline) => ", copy at hand (the registry did not answer in time)",
        Some(StaleReason::Upstream) => ", copy at hand (the registry failed)",
        Some(StaleReason::Offline) => ", copy at hand (Sampan is offline)",
        Some(StaleReason::Resting) => ", copy at hand (the registry did not answer the last times)",
        Some(StaleReason::Outage) | None => ", copy at hand (the registry could not be asked)",
    }
}

/// What became of a tag: `moved yesterday`. `None` without a tag.
pub(super) fn past(image: &Image, now: i64, zone: &TimeZone) -> Option<String> {
    let tag = image.tag.as_ref()?;
    if image.frozen.is_some() {
        return Some(format!("{} is frozen at {}", plain(tag), image.digest));
    }
    if let Some(gone) = image.gone {
        return Some(format!("{} is gone at its registry since {}", plain(tag), day(gone, now, zone)));
    }
    let newest = image.history.first()?;
    Some(if image.history.len() > 1 && newest.digest == image.digest {
        format!("{} last moved {}", plain(tag), day(newest.first_seen, now, zone))
    } else if image.history.len() > 1 {
        format!("{} points where it pointed before", plain(tag))
    } else {
        format!("{} has not moved since {}", plain(tag), day(newest.first_seen, now, zone))
    })
}

/// A day as people say it: `today`, `yesterday`, `5 days ago`; older ones with their time.
fn day(at: i64, now: i64, zone: &TimeZone) -> String {
    let date = |millis| Timestamp::from_millisecond(millis).map(|at| at.to_zoned(zone.clone()).date());
    let days = date(at).ok().zip(date(now).ok()).and_then(|(then, today)| then.until(today).ok());
    match days.map(|span| span.get_days()) {
        Some(0) => "today".into(),
        Some(1) => "yesterday".into(),
        Some(days @ 2..=31) => format!("{days} days ago"),
        Some(_) | None => time(at, zone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sampan_app::api::TagDigest;

    const DAY: i64 = 24 * 3_600_000;
    /// 2026-01-01 12:00 UTC.
    const NOW: i64 = 1_767_268_800_000;

    fn nginx(history: &[(&str, i64)]) -> Image {
        let known = |(digest, first_seen): &(&str, i64)| TagDigest {
            digest: (*digest).into(),
            first_seen: *first_seen,
            held: true,
        };
        Image {
            tag: Some("latest".into()),
            digest: "b".into(),
            history: history.iter().map(known).collect(),
            ..Image::default()
        }
    }

    #[test]
    fn a_tags_past_is_told_in_days() {
        let says = |image: &Image| past(image, NOW, &TimeZone::UTC).unwrap();
        for (ago, said) in [(0, "today"), (DAY, "yesterday"), (5 * DAY, "5 days ago")] {
            let moved = nginx(&[("b", NOW - ago), ("a", NOW - 40 * DAY)]);
            assert_eq!(says(&moved), format!("latest last moved {said}"));
            assert_eq!(says(&nginx(&[("b", NOW - ago)])), format!("latest has not moved since {said}"));
        }
        assert!(says(&nginx(&[("b", NOW - 40 * DAY)])).ends_with("2025-11-22 12:00:00"));
        assert_eq!(says(&nginx(&[("a", NOW), ("b", NOW - DAY)])), "latest points where it pointed before");
        let frozen = Image { frozen: Some("b".into()), ..nginx(&[("b", NOW)]) };
        assert_eq!(says(&frozen), "latest is frozen at b");
        let gone = Image { gone: Some(NOW - DAY), ..nginx(&[("b", NOW)]) };
        assert_eq!(says(&gone), "latest is gone at its registry since yesterday");
        assert_eq!(past(&Image::default(), NOW, &TimeZone::UTC), None);
    }
}
