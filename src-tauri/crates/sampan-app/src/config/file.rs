//! The configuration file: TOML, read by hand so that every refusal knows its line and what to write instead.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use sampan_oci::RegistryName;
use toml_edit::{Document, Item, Key, TableLike};
use url::Url;

use crate::api::{AGE_LIMIT_DAYS_MAX, FreshnessRule, Quota, Verify};

use super::rules;
use super::{ConfigError, parse_connections, parse_duration, parse_listen, parse_outage_wait, parse_url};

/// Every key there is, with an example of its value.
const KEYS: [(&str, &str); 12] = [
    ("listen", "\"127.0.0.1:7267\""),
    ("cache_dir", "\"/var/cache/sampan\""),
    ("state_dir", "\"/srv/sampan/state\""),
    ("upstreams", "{ \"docker.io\" = \"https://registry-1.docker.io\" }"),
    ("revalidate_timeout", "\"5s\""),
    ("connections", "32"),
    ("outage_wait", "\"10m\""),
    ("free_space_floor", "\"1 GiB\""),
    ("quota", "\"50 GB\""),
    ("max_age_days", "90"),
    ("verify", "\"daily\""),
    ("freshness", "{ \"docker.io/library/*\" = \"15m\" }"),
];
/// The largest configuration file; a longer one is some other file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How long a tag's check may at least and at most be given.
const REVALIDATE_TIMEOUT: Range<Duration> = Duration::from_millis(100)..Duration::from_mins(1);

/// What the file says; everything is optional.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FromFile {
    pub(super) listen: Option<SocketAddr>,
    pub(super) cache_dir: Option<PathBuf>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) upstreams: Vec<(RegistryName, Url)>,
    pub(super) revalidate_timeout: Option<Duration>,
    pub(super) connections: Option<usize>,
    pub(super) outage_wait: Option<Duration>,
    pub(super) free_space_floor_bytes: Option<u64>,
    pub(super) quota: Option<Quota>,
    pub(super) max_age_days: Option<u32>,
    pub(super) verify: Option<Verify>,
    pub(super) freshness: Vec<FreshnessRule>,
}

/// Something the file cannot mean, and where.
struct Refusal {
    at: Option<Range<usize>>,
    message: String,
    advice: String,
}

/// Reads the configuration file; relative folders in it are relative to its own folder.
pub(super) fn read(file: &Path) -> Result<FromFile, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
    if std::fs::metadata(file).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(unreadable(std::io::Error::other("it is larger than 1 MiB")));
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    parse(&text, file.parent().unwrap_or(Path::new(""))).map_err(|refusal| {
        let (line, column) = position(&text, refusal.at.map_or(0, |range| range.start));
        ConfigError::Invalid {
            file: file.to_owned(),
            line,
            column,
            message: refusal.message,
            advice: refusal.advice,
        }
    })
}

fn parse(text: &str, base: &Path) -> Result<FromFile, Refusal> {
    let document = Document::parse(text).map_err(|error| Refusal {
        at: error.span(),
        message: error.message().trim_end_matches('.').replace('\n', ", "),
        advice: "The file must be TOML: key = \"value\", one a line.".into(),
    })?;
    let mut found = FromFile::default();
    for (name, item) in document.iter() {
        let key = document.as_table().key(name);
        match name {
            "listen" => found.listen = Some(value(name, item, parse_listen)?),
            "cache_dir" => found.cache_dir = Some(value(name, item, |text| parse_folder(text, base))?),
            "state_dir" => found.state_dir = Some(value(name, item, |text| parse_folder(text, base))?),
            "upstreams" => found.upstreams = upstreams(item)?,
            "revalidate_timeout" => found.revalidate_timeout = Some(value(name, item, parse_timeout)?),
            "connections" => found.connections = Some(number(name, item, parse_connections)?),
            "outage_wait" => found.outage_wait = Some(value(name, item, parse_outage_wait)?),
            "free_space_floor" => found.free_space_floor_bytes = Some(value(name, item, parse_size)?),
            "quota" => found.quota = Some(value(name, item, str::parse)?),
            "max_age_days" => found.max_age_days = Some(number(name, item, parse_days)?),
            "verify" => found.verify = Some(value(name, item, str::parse)?),
            "freshness" => found.freshness = freshness(item)?,
            unknown => return Err(unknown_key(unknown, key)),
        }
    }
    Ok(found)
}

/// A text value, read by `parse`.
fn value<T>(name: &str, item: &Item, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Refusal> {
    let text = item.as_str().ok_or_else(|| Refusal {
        at: item.span(),
        message: format!("`{name}` is {}, not text", article(item.type_name())),
        advice: example(name),
    })?;
    parse(text).map_err(|advice| Refusal {
        at: item.span(),
        message: format!("`{name}` cannot be {text:?}"),
        advice: sentence(&advice),
    })
}

/// A whole number, read by `parse` from its digits.
fn number<T>(name: &str, item: &Item, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Refusal> {
    let number = item.as_integer().ok_or_else(|| Refusal {
        at: item.span(),
        message: format!("`{name}` is {}, not a number", article(item.type_name())),
        advice: example(name),
    })?;
    parse(&number.to_string()).map_err(|advice| Refusal {
        at: item.span(),
        message: format!("`{name}` cannot be {number}"),
        advice: sentence(&advice),
    })
}

fn upstreams(item: &Item) -> Result<Vec<(RegistryName, Url)>, Refusal> {
    let table: &dyn TableLike = item.as_table_like().ok_or_else(|| Refusal {
        at: item.span(),
        message: format!("`upstreams` is {}, not a table", article(item.type_name())),
        advice: example("upstreams"),
    })?;
    let mut found = Vec::new();
    for (name, item) in table.iter() {
        let registry = name.parse().map_err(|error: sampan_oci::InvalidName| Refusal {
            at: table.key(name).and_then(Key::span),
            message: format!("{name:?} is not a registry"),
            // TOML reads `docker.io = …` as a table `docker` with a key `io`.
            advice: if item.is_table_like() {
                "Write the registry's name in quotes: \"docker.io\" = \"https://registry-1.docker.io\"."
                    .into()
            } else {
                sentence(&error.to_string())
            },
        })?;
        if item.is_table_like() {
            return Err(Refusal {
                at: table.key(name).and_then(Key::span),
                message: format!("the upstream of {name:?} is a table, not text"),
                advice:
                    "Write the registry's name in quotes: \"docker.io\" = \"https://registry-1.docker.io\"."
                        .into(),
            });
        }
        let url = item.as_str().ok_or_else(|| Refusal {
            at: item.span(),
            message: format!("the upstream of {name:?} is {}, not text", article(item.type_name())),
            advice: example("upstreams"),
        })?;
        let url = parse_url(url).map_err(|advice| Refusal {
            at: item.span(),
            message: format!("the upstream of {name:?} is not the address of a registry"),
            advice: sentence(&advice),
        })?;
        found.push((registry, url));
    }
    Ok(found)
}

fn freshness(item: &Item) -> Result<Vec<FreshnessRule>, Refusal> {
    let table: &dyn TableLike = item.as_table_like().ok_or_else(|| Refusal {
        at: item.span(),
        message: format!("`freshness` is {}, not a table", article(item.type_name())),
        advice: example("freshness"),
    })?;
    let refused = |name: &str, item: &Item, advice: String| Refusal {
        at: item.span().or_else(|| table.key(name).and_then(Key::span)),
        message: format!("the freshness of {name:?} is not one"),
        advice: sentence(&advice),
    };
    let mut found = table
        .iter()
        .map(|(name, item)| rules::read(name, item).map_err(|advice| refused(name, item, advice)))
        .collect::<Result<Vec<_>, _>>()?;
    found.sort_by(|a, b| a.pattern.cmp(&b.pattern));
    Ok(found)
}

fn unknown_key(name: &str, key: Option<&Key>) -> Refusal {
    // 0.7 finds swapped, missing and doubled letters, and leaves words that merely share some.
    let nearest = KEYS
        .iter()
        .map(|(known, _)| (strsim::jaro_winkler(name, known), *known))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Refusal {
        at: key.and_then(Key::span),
        message: format!("`{name}` is not a setting"),
        advice: match nearest {
            Some((_, known)) => format!("Did you mean `{known}`?"),
            None => format!("There are {}.", KEYS.map(|(known, _)| format!("`{known}`")).join(", ")),
        },
    }
}

fn parse_folder(text: &str, base: &Path) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("write the path of a folder".into());
    }
    if text == "~" || text.starts_with("~/") {
        return Err("write the whole path: `~` means nothing in this file".into());
    }
    Ok(base.join(text))
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|duration| (REVALIDATE_TIMEOUT.start..=REVALIDATE_TIMEOUT.end).contains(duration))
        .ok_or_else(|| "write a time from 100ms to 60s, such as \"5s\"".into())
}

fn parse_size(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| "write a size, such as \"1 GiB\" or \"500 MB\"".into())
}

fn parse_days(text: &str) -> Result<u32, String> {
    let days = text.parse().ok().filter(|days| (1..=AGE_LIMIT_DAYS_MAX).contains(days));
    days.ok_or_else(|| format!("write a number of days from 1 to {AGE_LIMIT_DAYS_MAX}, or leave it out"))
}

fn example(name: &str) -> String {
    let example = KEYS.iter().find(|(known, _)| *known == name).map_or("", |(_, example)| example);
    format!("Write {name} = {example}.")
}

fn article(type_name: &str) -> String {
    let article = if type_name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {type_name}")
}

/// `write this` as a sentence: `Write this.`
fn sentence(advice: &str) -> String {
    let mut letters = advice.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}

/// The line and character, both from 1, of a byte in a text.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let before = String::from_utf8_lossy(before);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
