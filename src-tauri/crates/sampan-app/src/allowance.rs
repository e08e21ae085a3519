//! The gauges of registries that count pulls, and when what is left is used up. The forecast is pure.

use std::collections::BTreeMap;
use std::time::Duration;

use sampan_mirror::Mirror;
use sampan_oci::{ImageName, Millis};
use sampan_stats::Stats;
use tokio::time::Instant;

use crate::api::{Allowance, SpentBy};

/// Fewer pulls than these are no pace.
const PULLS_MIN: usize = 5;
/// Nor are those of a shorter time: one image with its parts comes in seconds, and then none for a day.
const TIME_MIN: Duration = Duration::from_mins(10);
/// What was pulled in this time weighs as much as all of the window: the faster of the two paces is the one to fear.
const LATELY: Duration = Duration::from_hours(1);
/// How far a forecast looks where no reset is known.
const HORIZON: Duration = Duration::from_hours(6);
/// The images that are named.
const IMAGES_MAX: usize = 20;

/// Takes back what the run before spent, so that a restart forgets nobody.
pub(crate) fn recall(stats: &Stats, mirror: &Mirror, now: Millis) {
    let spent = stats.spent().unwrap_or_else(|error| {
        tracing::warn!(%error, "what was spent of registries' allowances cannot be read");
        Vec::new()
    });
    for upstream in mirror.origins() {
        let theirs = spent.iter().filter(|(_, image)| image.registry == *upstream.registry());
        let ago = |at: &Millis| Duration::from_millis(now.since(*at));
        upstream.recall(theirs.map(|(at, image)| (ago(at), image.repository.clone())));
    }
}

/// Keeps what was spent for the next run, if anything was in the time since `within` ago.
pub(crate) async fn keep(stats: &Stats, mirror: &Mirror, now: Millis, within: Duration) {
    let mut spent = Vec::new();
    for upstream in mirror.origins() {
        let image = |repository| ImageName { registry: upstream.registry().clone(), repository };
        spent.extend(upstream.spent().into_iter().map(|(ago, repository)| (ago, image(repository))));
    }
    if !spent.iter().any(|(ago, _)| *ago <= within) {
        return;
    }
    let wall = |ago: Duration| now.plus(-i64::try_from(ago.as_millis()).unwrap_or(i64::MAX));
    let spent: Vec<_> = spent.into_iter().map(|(ago, image)| (wall(ago), image)).collect();
    let stats = stats.clone();
    match tokio::task::spawn_blocking(move || stats.keep_spent(&spent)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "what was spent of registries' allowances cannot be kept"),
        Err(error) => tracing::warn!(%error, "what was spent of registries' allowances cannot be kept"),
    }
}

/// The gauge of each registry that has one, by name.
pub(crate) fn gauges(mirror: &Mirror, now: Millis) -> Vec<Allowance> {
    let told = mirror.origins().filter_map(|upstream| upstream.allowance().map(|told| (upstream, told)));
    let mut gauges: Vec<_> =
        told.map(|(upstream, told)| gauge(upstream.registry(), &told, Instant::now(), now)).collect();
    gauges.sort_by(|a, b| a.registry.cmp(&b.registry));
    gauges
}

/// One gauge; `at` and `now` are the same moment.
fn gauge(
    registry: &sampan_oci::RegistryName,
    told: &sampan_upstream::Allowance,
    at: Instant,
    now: Millis,
) -> Allowance {
    let wall = |then: Instant| {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let ahead = millis(then.saturating_duration_since(at));
        now.plus(ahead).plus(-millis(at.saturating_duration_since(then))).0
    };
    // Whole seconds and minutes, so that looking twice at the same facts shows the same times.
    let minute = |then: Instant| (wall(then) + 59_999).div_euclid(60_000) * 60_000;
    let ages: Vec<_> = told.spent.iter().map(|(then, _)| at.saturating_duration_since(*then)).collect();
    let horizon = told.resets.map_or(told.window.unwrap_or(HORIZON), |resets| resets - at);
    let forecast = told.remaining.and_then(|remaining| runs_out_in(remaining, &ages, horizon));
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (_, repository) in &told.spent {
        let image = ImageName { registry: registry.clone(), repository: repository.clone() };
        *counts.entry(image.to_string()).or_default() += 1;
    }
    let mut spent_by: Vec<_> = counts.into_iter().map(|(image, count)| SpentBy { image, count }).collect();
    spent_by.sort_by_key(|image| std::cmp::Reverse(image.count));
    spent_by.truncate(IMAGES_MAX);
    Allowance {
        registry: registry.to_string(),
        limit: told.limit,
        remaining: told.remaining,
        window_seconds: told.window.map(|window| window.as_secs()),
        source: told.source.clone(),
        seen_at: wall(told.seen).div_euclid(1000) * 1000,
        resets_at: told.resets.map(minute),
        rests_until: told.rests_until.map(|until| wall(until).div_euclid(1000) * 1000),
        is_low: told.is_low,
        forecast: forecast.map(|time| minute(at + time)),
        spent: told.spent.len() as u64,
        spent_by,
    }
}

/// How long what remains lasts, from how long ago each pull was; `None`: longer than `horizon`, nothing remains, or there
/// are too few pulls to tell (fewer than 5, or all within the last 10 minutes).
fn runs_out_in(remaining: u64, ages: &[Duration], horizon: Duration) -> Option<Duration> {
    if remaining == 0 {
        return None;
    }
    let lasts = |within: Duration| {
        let of_then = || ages.iter().filter(|age| **age <= within);
        let (pulls, since) = (of_then().count(), of_then().max()?);
        if pulls < PULLS_MIN || *since < TIME_MIN {
            return None;
        }
        let millis = since.as_millis() * u128::from(remaining) / pulls as u128;
        u64::try_from(millis).ok().map(Duration::from_millis)
    };
    [lasts(LATELY), lasts(Duration::MAX)].into_iter().flatten().min().filter(|time| *time < horizon)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOURS_6: Duration = Duration::from_hours(6);

    fn minutes(ages: &[u64]) -> Vec<Duration> {
        ages.iter().map(|age| Duration::from_mins(*age)).collect()
    }

    #[test]
    fn the_forecast_is_the_pace_of_pulls_carried_on() {
        let every_10: Vec<u64> = (0..=6).map(|n| n * 10).collect();
        let burst: Vec<u64> = [300, 290, 280].into_iter().chain((0..20).map(|n| n * 2)).collect();
        for (remaining, ages, horizon, expected) in [
            // Seven in an hour: seven more in the next.
            (7, &every_10[..], HOURS_6, Some(60)),
            (14, &every_10, HOURS_6, Some(120)),
            (14, &every_10, Duration::from_mins(119), None),
            (1000, &every_10, HOURS_6, None),
            (0, &every_10, HOURS_6, None),
            // Lately it goes fast: twenty in 38 minutes.
            (20, &burst, HOURS_6, Some(38)),
            // Long ago it did.
            (10, &[300, 301, 302, 303, 304], HOURS_6, None),
            (5, &[300, 301, 302, 303, 304], HOURS_6, Some(304)),
            // Too few, too short.
            (5, &[10, 20, 30, 40], HOURS_6, None),
            (5, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], HOURS_6, None),
            (5, &[], HOURS_6, None),
        ] {
            let told = runs_out_in(remaining, &minutes(ages), horizon);
            assert_eq!(told.map(|time| time.as_secs() / 60), expected, "{remaining} left, {ages:?}");
        }
    }

    #[test]
    fn more_left_never_lasts_shorter_and_no_forecast_goes_beyond_the_reset() {
        let mut told = 0;
        for (pulls, apart, horizon) in [0, 4, 5, 6, 30, 200]
            .into_iter()
            .flat_map(|pulls| [0, 1, 3, 40].map(|apart| (pulls, apart)))
            .flat_map(|(pulls, apart)| [0, 1, 30, 400].map(|horizon| (pulls, apart, horizon)))
        {
            let ages: Vec<_> = (0..pulls).map(|n| Duration::from_mins(n * apart)).collect();
            let horizon = Duration::from_mins(horizon);
            let lasts: Vec<_> = (0..200).map(|remaining| runs_out_in(remaining, &ages, horizon)).collect();
            assert_eq!(lasts[0], None);
            let some: Vec<_> = lasts.iter().flatten().collect();
            assert!(
                some.is_sorted() && some.iter().all(|time| **time < horizon),
                "{pulls} {apart} {horizon:?}"
            );
            assert!(some.is_empty() || pulls >= 5);
            told += some.len();
        }
        assert!(told > 1000, "{told}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_gauge_tells_times_of_the_clock_on_the_wall() {
        let began = Instant::now();
        tokio::time::advance(Duration::from_hours(2)).await;
        let at = Instant::now();
        let spent = |name: &str, ago: u64| (at - Duration::from_mins(ago), name.parse().unwrap());
        let told = sampan_upstream::Allowance {
            limit: Some(100),
            remaining: Some(60),
            window: Some(HOURS_6),
            source: Some("203.0.113.7".into()),
            seen: at - Duration::from_secs(90),
            resets: Some(began + HOURS_6),
            rests_until: None,
            is_low: false,
            counts_heads: false,
            spent: (0..30)
                .map(|n| spent(if n % 3 == 0 { "library/a" } else { "library/b" }, n * 2))
                .collect(),
        };
        let now = Millis(1_767_268_800_000); // 12:00
        let gauge = gauge(&"docker.io".parse().unwrap(), &told, at, now);
        assert_eq!((now.0 - gauge.seen_at) / 1000, 90);
        assert_eq!(gauge.resets_at, Some(now.0 + 4 * 3_600_000));
        assert_eq!(gauge.forecast, Some(now.0 + 116 * 60_000), "30 in 58 minutes: 60 in 116");
        assert_eq!(gauge.spent, 30);
        let by = |image: &str, count| SpentBy { image: image.into(), count };
        assert_eq!(gauge.spent_by, [by("docker.io/library/b", 20), by("docker.io/library/a", 10)]);
    }
}
