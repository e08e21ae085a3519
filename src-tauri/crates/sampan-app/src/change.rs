//! What a change makes of the settings. Pure.

use crate::api::{ApiError, SPEED_LIMIT_MAX, SPEED_LIMIT_MIN, Settings, SettingsChange, SpeedLimit};
use crate::app::invalid;

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
    Ok(Settings { language, theme: change.theme.unwrap_or(settings.theme), speed_limit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Code, Theme};

    fn settings() -> Settings {
        Settings { language: Some("vi".into()), theme: Theme::Dark, speed_limit: Some(250_000) }
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
