//! `settings.toml` in the state folder: what a person changed while Sampan ran. Only differences from the defaults are in
//! it, and keys of newer versions stay.

use std::io::{self, Write as _};
use std::path::Path;

use toml_edit::{DocumentMut, value};

use super::{ConfigError, settings_file};
use crate::api::{SPEED_LIMIT_MAX, SPEED_LIMIT_MIN, Settings, Theme};

/// The version written into new files. A change that older versions would misread raises it.
const VERSION: i64 = 1;

/// Reads the saved settings. A damaged file costs the settings, never the start: a person can choose them again.
pub(super) fn load(state_dir: &Path) -> Result<Settings, ConfigError> {
    let file = settings_file(state_dir);
    let bytes = match std::fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Settings::default()),
        Err(source) => return Err(ConfigError::Settings { file, source }),
    };
    if let Some(document) = parse(bytes) {
        return Ok(read(&document));
    }
    tracing::warn!(file = %file.display(), "the settings file is damaged: using the defaults");
    Ok(Settings::default())
}

fn parse(bytes: Vec<u8>) -> Option<DocumentMut> {
    String::from_utf8(bytes).ok()?.parse().ok()
}

/// Replaces the file by one with `settings` in it.
pub(super) fn save(state_dir: &Path, settings: &Settings) -> Result<(), ConfigError> {
    let file = settings_file(state_dir);
    write(state_dir, &file, settings).map_err(|source| ConfigError::Settings { file, source })
}

fn write(state_dir: &Path, file: &Path, settings: &Settings) -> io::Result<()> {
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
    apply(&mut document, settings);
    let mut staged = tempfile::Builder::new().prefix(".settings-").tempfile_in(state_dir)?;
    staged.write_all(document.to_string().as_bytes())?;
    staged.as_file().sync_all()?;
    staged.persist(file).map_err(|error| error.error)?;
    Ok(())
}

fn read(document: &DocumentMut) -> Settings {
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
    Settings { language, theme, speed_limit }
}

fn apply(document: &mut DocumentMut, settings: &Settings) {
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
}
