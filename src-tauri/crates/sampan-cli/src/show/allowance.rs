//! What registries let us have.

use jiff::tz::TimeZone;
use sampan_app::api::Allowance;

use super::{columns, duration, plain, time};

/// One line: what is left, until when, and what to expect.
pub(super) fn line(allowance: &Allowance, zone: &TimeZone) -> String {
    let mut parts = vec![format!("{}: {}", allowance.registry, left(allowance))];
    parts.extend(outlook(allowance, zone));
    plain(&parts.join("; "))
}

fn left(allowance: &Allowance) -> String {
    let window =
        allowance.window_seconds.map(|window| format!(" in {}", duration(window))).unwrap_or_default();
    match (allowance.remaining, allowance.limit) {
        (Some(remaining), Some(limit)) => format!("{remaining} of {limit} pulls left{window}"),
        (Some(remaining), None) => format!("{remaining} pulls left{window}"),
        (None, Some(limit)) => format!("{limit} pulls{window}, how many are left is not known"),
        (None, None) => "how many pulls it allows is not known".into(),
    }
}

fn outlook(allowance: &Allowance, zone: &TimeZone) -> Vec<String> {
    let parts = [
        allowance.rests_until.map(|until| format!("refused, asked again after {}", time(until, zone))),
        allowance.forecast.map(|at| format!("at this pace used up at {}", time(at, zone))),
        allowance.is_low.then(|| "what is left is kept for images that are not in the cache".into()),
        allowance.resets_at.map(|at| format!("more by {}", time(at, zone))),
    ];
    parts.into_iter().flatten().collect()
}

/// What `allowance` says.
pub(crate) fn allowances(allowances: &[Allowance], zone: &TimeZone) -> String {
    if allowances.is_empty() {
        return "No registry told how many pulls it allows (yet).\n".into();
    }
    let texts = allowances.iter().map(|allowance| details(allowance, zone));
    texts.collect::<Vec<_>>().join("\n")
}

fn details(allowance: &Allowance, zone: &TimeZone) -> String {
    let source = allowance.source.as_deref().map(|source| format!(" for {source}")).unwrap_or_default();
    let used = allowance.limit.zip(allowance.remaining).map(|(limit, left)| limit.saturating_sub(left));
    let others = match used.and_then(|used| used.checked_sub(allowance.spent)) {
        Some(others @ 1..) => format!(", by others at the same address: {others}"),
        Some(0) | None => String::new(),
    };
    let mut lines = vec![format!("{}: {}", allowance.registry, left(allowance))];
    lines.extend(outlook(allowance, zone).into_iter().map(|part| format!("  {part}")));
    lines.push(format!("  told at {}{source}", time(allowance.seen_at, zone)));
    lines.push(format!("  spent here: {}{others}", allowance.spent));
    let text: String = lines.iter().map(|line| plain(line) + "\n").collect();
    let rows: Vec<_> =
        allowance.spent_by.iter().map(|by| [format!("    {:>4}", by.count), by.image.clone()]).collect();
    text + &columns(&rows)
}

#[cfg(test)]
mod tests {
    use sampan_app::api::SpentBy;

    use super::*;

    const DAY: i64 = 1_795_132_800_000; // 2026-11-20T00:00:00Z

    fn hub() -> Allowance {
        let by = |image: &str, count| SpentBy { image: image.into(), count };
        Allowance {
            registry: "docker.io".into(),
            limit: Some(100),
            remaining: Some(76),
            window_seconds: Some(21_600),
            source: Some("203.0.113.7".into()),
            seen_at: DAY,
            resets_at: Some(DAY + 3_600_000),
            rests_until: None,
            is_low: false,
            forecast: Some(DAY + 1_800_000),
            spent: 14,
            spent_by: vec![by("docker.io/library/nginx", 12), by("docker.io/library/alpine", 2)],
        }
    }

    #[test]
    fn status_has_one_line_for_a_registry() {
        assert_eq!(
            line(&hub(), &TimeZone::UTC),
            "docker.io: 76 of 100 pulls left in 6 h 0 min; at this pace used up at 2026-11-20 00:30:00; \
             more by 2026-11-20 01:00:00"
        );
        let refused = Allowance {
            limit: None,
            remaining: None,
            window_seconds: None,
            resets_at: None,
            forecast: None,
            rests_until: Some(DAY),
            source: Some("\u{1b}[31m".into()),
            ..hub()
        };
        let text = line(&refused, &TimeZone::UTC);
        assert_eq!(
            text,
            "docker.io: how many pulls it allows is not known; refused, asked again after 2026-11-20 00:00:00"
        );
        assert!(!allowances(&[refused], &TimeZone::UTC).contains('\u{1b}'));
    }

    #[test]
    fn the_details_name_who_spent_it() {
        let text = allowances(&[Allowance { is_low: true, ..hub() }], &TimeZone::UTC);
        assert_eq!(
            text,
            "docker.io: 76 of 100 pulls left in 6 h 0 min\n\
             \u{20} at this pace used up at 2026-11-20 00:30:00\n\
             \u{20} what is left is kept for images that are not in the cache\n\
             \u{20} more by 2026-11-20 01:00:00\n\
             \u{20} told at 2026-11-20 00:00:00 for 203.0.113.7\n\
             \u{20} spent here: 14, by others at the same address: 10\n\
             \u{20}     12  docker.io/library/nginx\n\
             \u{20}      2  docker.io/library/alpine\n"
        );
        assert!(allowances(&[], &TimeZone::UTC).starts_with("No registry"));
    }
}
