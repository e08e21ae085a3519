//! `settings.toml` in the state folder: what a person changed while Sampan ran. Only differences from the defaults are in
//! it, and keys of newer versions stay.

use std::io::{self, Write as _};
use std::path::Path;

use toml_edit::{DocumentMut, value};

use super::{ConfigError, rules, settings_file};
use crate::api::{
    AGE_LIMIT_DAYS_MAX, Metered, QUOTA_MAX, QUOTA_MIN, Quota, SPEED_LIMIT_MAX, SPEED_LIMIT_MIN, Settings,
    Theme, Verify,
};

/// The version written into new files. A change that older versions would misread raises it.
const VERSION: i64 = 1;

/// Reads the saved settings over `unchanged`. A damaged file costs the settings, never the start: a person can choose them again.
pub(super) fn load(state_dir: &Path, unchanged: &Settings) -> Result<Settings, ConfigError> {
    let file = settings_file(state_dir);
    let bytes = match std::fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(unchanged.clone()),
        Err(source) => return Err(ConfigError::Settings { file, source }),
    };
    if let Some(document) = parse(bytes) {
        return Ok(read(&document, unchanged));
    }
    tracing::warn!(file = %file.display(), "the settings file is damaged: using the defaults");
    Ok(unchanged.clone())
}

fn parse(bytes: Vec<u8>) -> Option<DocumentMut> {
    String::from_utf8(bytes).ok()?.parse().ok()
}

/// Replaces the file by one with `settings` in it, as far as they differ from `unchanged`.
pub(super) fn save(state_dir: &Path, settings: &Settings, unchanged: &Settings) -> Result<(), ConfigError> {
    let file = settings_file(state_dir);
    write(state_dir, &file, settings, unchanged).map_err(|source| ConfigError::Settings { file, source })
}

fn write(state_dir: &Path, file: &Path, settings: &Settings, unchanged: &Settings) -> io::Result<()> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut document = if let Some(document) = parse(bytes) {
        document
    } else {
        // Perhaps a person edited it and slipped: their text is kept beside ours.
        std::fs::rename(file, file.with_extension("toml.damaged"))?;
        DocumentMut::new()
    };
    apply(&mut document, settings, unchanged);
    let mut staged = tempfile::Builder::new().prefix(".settings-").tempfile_in(state_dir)?;
    staged.write_all(document.to_string().as_bytes())?;
    staged.as_file().sync_all()?;
    staged.persist(file).map_err(|error| error.error)?;
    Ok(())
}

fn read(document: &DocumentMut, unchanged: &Settings) -> Settings {
    let text = |key| document.get(key).and_then(toml_edit::Item::as_str);
    let theme = match text("theme") {
        Some("light") => Theme::Light,
        Some("dark") => Theme::Dark,
        // An unknown look is one of a newer version: it stays in the file, and the system decides meanwhile.
        Some(_) | None => Theme::System,
    };
    let language = text("language").filter(|l| crate::i18n::LOCALES.contains(l)).map(str::to_owned);
    let speed_limit = document.get("speed_limit").and_then(toml_edit::Item::as_integer);
    let speed_limit = speed_limit
        .and_then(|limit| u64::try_from(limit).ok())
        .filter(|limit| (SPEED_LIMIT_MIN..=SPEED_LIMIT_MAX).contains(limit));
    let whole = |key| document.get(key).and_then(toml_edit::Item::as_integer);
    let quota = match (text("quota"), whole("quota").and_then(|bytes| u64::try_from(bytes).ok())) {
        (Some("auto"), _) => Quota::Auto,
        (Some("off"), _) => Quota::Off,
        (_, Some(bytes @ QUOTA_MIN..=QUOTA_MAX)) => Quota::Bytes(bytes),
        (Some(_) | None, _) => unchanged.quota,
    };
    let max_age_days = match (text("max_age_days"), whole("max_age_days").and_then(|n| u32::try_from(n).ok()))
    {
        (Some("off"), _) => None,
        (_, Some(days @ 1..=AGE_LIMIT_DAYS_MAX)) => Some(days),
        (Some(_) | None, _) => unchanged.max_age_days,
    };
    let verify = match text("verify") {
        Some("daily") => Verify::Daily,
        Some("always") => Verify::Always,
        Some(_) | None => unchanged.verify,
    };
    let offline = document.get("offline").and_then(toml_edit::Item::as_bool).unwrap_or_default();
    let freshness =
        document.get("freshness").and_then(rules::read_all).unwrap_or_else(|| unchanged.freshness.clone());
    let quiet_hours = text("quiet_hours").and_then(|hours| hours.parse().ok());
    let metered = text("metered").and_then(|metered| metered.parse().ok()).unwrap_or_default();
    Settings {
        language,
        theme,
        speed_limit,
        quota,
        max_age_days,
        verify,
        offline,
        freshness,
        quiet_hours,
        metered,
    }
}

fn apply(document: &mut DocumentMut, settings: &Settings, unchanged: &Settings) {
    if !document.contains_key("version") {
        document.insert("version", value(VERSION));
    }
    match &settings.language {
        Some(language) => document["language"] = value(language),
        None => drop(document.remove("language")),
    }
    match settings.theme {
        Theme::System => drop(document.remove("theme")),
        Theme::Light => document["theme"] = value("light"),
        Theme::Dark => document["theme"] = value("dark"),
    }
    match settings.speed_limit.and_then(|limit| i64::try_from(limit).ok()) {
        Some(limit) => document["speed_limit"] = value(limit),
        None => drop(document.remove("speed_limit")),
    }
    match settings.quiet_hours {
        Some(hours) => document["quiet_hours"] = value(hours.to_string()),
        None => drop(document.remove("quiet_hours")),
    }
    match settings.metered {
        Metered::Auto => drop(document.remove("metered")),
        Metered::On => document["metered"] = value("on"),
        Metered::Off => document["metered"] = value("off"),
    }
    if settings.quota == unchanged.quota {
        document.remove("quota");
    } else {
        document["quota"] = match settings.quota {
            Quota::Auto => value("auto"),
            Quota::Off => value("off"),
            Quota::Bytes(bytes) => value(i64::try_from(bytes).unwrap_or(i64::MAX)),
        };
    }
    if settings.max_age_days == unchanged.max_age_days {
        document.remove("max_age_days");
    } else {
        document["max_age_days"] =
            settings.max_age_days.map_or_else(|| value("off"), |days| value(i64::from(days)));
    }
    if settings.offline {
        document["offline"] = value(true);
    } else {
        document.remove("offline");
    }
    if settings.freshness == unchanged.freshness {
        document.remove("freshness");
    } else {
        document["freshness"] = rules::write(&settings.freshness);
    }
    if settings.verify == unchanged.verify {
        document.remove("verify");
    } else {
        document["verify"] = match settings.verify {
            Verify::Daily => value("daily"),
            Verify::Always => value("always"),
        };
    }
}
