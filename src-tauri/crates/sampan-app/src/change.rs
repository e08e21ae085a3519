//! What a change makes of the settings. Pure.

use crate::api::{
    AGE_LIMIT_DAYS_MAX, AgeLimit, ApiError, QUOTA_MAX, QUOTA_MIN, QuietChange, QuietHours, Quota,
    SPEED_LIMIT_MAX, SPEED_LIMIT_MIN, Settings, SettingsChange, SpeedLimit,
};
use crate::app::invalid;
use crate::freshness;

/// Minutes of a day.
pub(crate) const DAY_MINUTES: u16 = 24 * 60;

/// The settings after `change`: all of it, or an error and nothing.
/// # Errors
/// [`Code::InvalidRequest`](crate::api::Code::InvalidRequest) where a value is out of its bounds.
pub(crate) fn changed(settings: &Settings, change: &SettingsChange) -> Result<Settings, ApiError> {
    let language = match change.language.as_deref() {
        None => settings.language.clone(),
        Some("system") => None,
        Some(language @ ("en" | "vi")) => Some(language.into()),
        Some(_) => return Err(invalid("the language is `en`, `vi` or `system`")),
    };
    let speed_limit = match change.speed_limit {
        None => settings.speed_limit,
        Some(SpeedLimit::Off) => None,
        Some(SpeedLimit::BytesPerSecond(limit @ SPEED_LIMIT_MIN..=SPEED_LIMIT_MAX)) => Some(limit),
        Some(SpeedLimit::BytesPerSecond(_)) => {
            return Err(invalid("the speed limit is 10 kB/s to 1 TB/s, or off"));
        }
    };
    let quota = match change.quota {
        None => settings.quota,
        Some(Quota::Bytes(bytes)) if !(QUOTA_MIN..=QUOTA_MAX).contains(&bytes) => {
            return Err(invalid("the quota is 100 MB to 1 PB, `auto` or `off`"));
        }
        Some(quota) => quota,
    };
    let max_age_days = match change.max_age_days {
        None => settings.max_age_days,
        Some(AgeLimit::Off) => None,
        Some(AgeLimit::Days(days @ 1..=AGE_LIMIT_DAYS_MAX)) => Some(days),
        Some(AgeLimit::Days(_)) => return Err(invalid("the age limit is 1 to 3650 days, or off")),
    };
    let freshness = match &change.freshness {
        None => settings.freshness.clone(),
        Some(change) => freshness::changed(&settings.freshness, change)?,
    };
    let quiet_hours = match change.quiet_hours {
        None => settings.quiet_hours,
        Some(QuietChange::Off) => None,
        Some(QuietChange::Hours(QuietHours { from, to })) if from >= DAY_MINUTES || to >= DAY_MINUTES => {
            return Err(invalid("the quiet hours begin and end at a minute of the day: 0 to 1439"));
        }
        Some(QuietChange::Hours(QuietHours { from, to })) if from == to => {
            return Err(invalid("the quiet hours begin and end at two different times, or are off"));
        }
        Some(QuietChange::Hours(hours)) => Some(hours),
    };
    Ok(Settings {
        language,
        theme: change.theme.unwrap_or(settings.theme),
        speed_limit,
        quota,
        max_age_days,
        verify: change.verify.unwrap_or(settings.verify),
        offline: change.offline.unwrap_or(settings.offline),
        freshness,
        quiet_hours,
        metered: change.metered.unwrap_or(settings.metered),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Code, Freshness, FreshnessRule, Theme, Verify};

    fn settings() -> Settings {
        Settings {
            language: Some("vi".into()),
            theme: Theme::Dark,
            speed_limit: Some(250_000),
            quota: Quota::Bytes(QUOTA_MIN),
            max_age_days: Some(90),
            verify: Verify::Always,
            offline: true,
            freshness: vec![FreshnessRule {
                pattern: "docker.io/**".into(),
                check: Freshness::Never,
                stale_max_seconds: None,
            }],
            quiet_hours: Some(QuietHours { from: 1320, to: 360 }),
            metered: crate::api::Metered::On,
        }
    }

    fn with_limit(limit: SpeedLimit) -> SettingsChange {
        SettingsChange { speed_limit: Some(limit), ..SettingsChange::default() }
    }

    #[test]
    fn what_is_not_mentioned_stays() {
        assert_eq!(changed(&settings(), &SettingsChange::default()).unwrap(), settings());
        let lifted = changed(&settings(), &with_limit(SpeedLimit::Off)).unwrap();
        assert_eq!(lifted, Settings { speed_limit: None, ..settings() });
        let language = SettingsChange { language: Some("system".into()), ..SettingsChange::default() };
        assert_eq!(changed(&settings(), &language).unwrap(), Settings { language: None, ..settings() });
    }

    #[test]
    fn a_limit_within_its_bounds_is_taken_and_no_other() {
        for limit in [SPEED_LIMIT_MIN, 1_500_000, SPEED_LIMIT_MAX] {
            let limited = changed(&settings(), &with_limit(SpeedLimit::BytesPerSecond(limit))).unwrap();
            assert_eq!(limited.speed_limit, Some(limit));
        }
        for limit in [0, SPEED_LIMIT_MIN - 1, SPEED_LIMIT_MAX + 1, u64::MAX] {
            let refused = changed(&settings(), &with_limit(SpeedLimit::BytesPerSecond(limit))).unwrap_err();
            assert_eq!(refused.code, Code::InvalidRequest, "{limit}");
        }
    }

    #[test]
    fn the_quota_and_the_age_limit_are_taken_within_their_bounds_and_no_others() {
        let with_quota = |quota| SettingsChange { quota: Some(quota), ..SettingsChange::default() };
        for quota in [Quota::Auto, Quota::Off, Quota::Bytes(QUOTA_MIN), Quota::Bytes(QUOTA_MAX)] {
            assert_eq!(changed(&settings(), &with_quota(quota)).unwrap().quota, quota);
        }
        for bytes in [0, QUOTA_MIN - 1, QUOTA_MAX + 1] {
            let refused = changed(&settings(), &with_quota(Quota::Bytes(bytes))).unwrap_err();
            assert_eq!(refused.code, Code::InvalidRequest, "{bytes}");
        }
        let with_age = |limit| SettingsChange { max_age_days: Some(limit), ..SettingsChange::default() };
        assert_eq!(changed(&settings(), &with_age(AgeLimit::Off)).unwrap().max_age_days, None);
        assert_eq!(changed(&settings(), &with_age(AgeLimit::Days(3650))).unwrap().max_age_days, Some(3650));
        for days in [0, 3651] {
            assert!(changed(&settings(), &with_age(AgeLimit::Days(days))).is_err(), "{days}");
        }
        let daily = SettingsChange { verify: Some(Verify::Daily), ..SettingsChange::default() };
        assert_eq!(changed(&settings(), &daily).unwrap().verify, Verify::Daily);
    }

    #[test]
    fn quiet_hours_are_two_different_times_of_a_day() {
        let with = |from, to| SettingsChange {
            quiet_hours: Some(QuietChange::Hours(QuietHours { from, to })),
            ..SettingsChange::default()
        };
        let kept = changed(&settings(), &with(0, 1439)).unwrap().quiet_hours;
        assert_eq!(kept, Some(QuietHours { from: 0, to: 1439 }));
        for (from, to) in [(1440, 0), (0, 1440), (60, 60)] {
            assert!(changed(&settings(), &with(from, to)).is_err(), "{from} {to}");
        }
        let off = SettingsChange { quiet_hours: Some(QuietChange::Off), ..SettingsChange::default() };
        assert_eq!(changed(&settings(), &off).unwrap(), Settings { quiet_hours: None, ..settings() });
    }

    #[test]
    fn a_language_there_is_no_text_in_is_refused() {
        let change = SettingsChange { language: Some("fr".into()), ..SettingsChange::default() };
        assert_eq!(changed(&settings(), &change).unwrap_err().code, Code::InvalidRequest);
    }

    #[test]
    fn a_change_is_written_as_the_window_writes_it() {
        let table = [
            (r#"{"speed_limit":"off"}"#, Some(SpeedLimit::Off)),
            (r#"{"speed_limit":{"bytes_per_second":250000}}"#, Some(SpeedLimit::BytesPerSecond(250_000))),
            (r#"{"language":null,"theme":null,"speed_limit":null}"#, None),
            (r#"{"theme":"dark"}"#, None),
        ];
        for (json, limit) in table {
            let change: SettingsChange = serde_json::from_str(json).unwrap();
            assert_eq!(change.speed_limit, limit, "{json}");
        }
    }
}
