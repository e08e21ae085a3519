//! From Docker 28 on a mirror on this machine, or one among the insecure registries, and docker.io's `hosts.toml` belong
//! together: checked once, here.

use serde_json::Value;

use crate::daemon_json::{self, same_mirror};
use crate::engine::Engine;
use crate::method::Method;
use crate::plan::{Action, FileChange, Part, PlanError, checked, refused};
use crate::repair::own_mirrors;
use crate::trust;

/// Checks a finished plan: it never removes Docker Hub's `hosts.toml`, and never does without it where the engine
/// needs it, while `daemon.json` or the engine itself still name a mirror in the end that belongs beside it. Taking out
/// Sampan, on `port`, leaves a person's own mirrors as they were before it came: the notes for the plan say which.
///
/// # Errors
/// [`PlanError::Together`] with that mirror, which is Sampan's own where Sampan is taken out; the file's own refusal where what it names cannot be known.
pub(crate) fn check(
    engine: &Engine,
    action: Action,
    port: u16,
    files: &[FileChange],
    intended: Option<&[String]>,
) -> Result<Vec<String>, PlanError> {
    let hub =
        files.iter().find(|file| matches!(&file.part, Part::Hosts(registry) if registry.is_docker_hub()));
    let (removed, there) = match hub {
        Some(change) => (change.after.is_none(), change.after.is_some()),
        None => (
            false,
            engine.hosts.iter().any(|seen| seen.registry.is_docker_hub() && seen.file.bytes.is_some()),
        ),
    };
    let missing = action == Action::Enable && engine.method() == Ok(Method::HostsAndMirrors) && !there;
    if !removed && !missing {
        return Ok(Vec::new());
    }
    let mut named = intended.unwrap_or(&engine.mirrors).to_vec();
    named.extend(engine.flag_mirrors.iter().cloned());
    if let Some(file) = &engine.config {
        let change = files.iter().find(|change| change.part == Part::DaemonJson);
        let last = match change {
            Some(change) => change.after.as_deref(),
            None => checked(file)?.bytes.as_deref(),
        };
        named.extend(daemon_json::mirrors(last.unwrap_or_default()).map_err(|r| refused(file, r))?);
    }
    let insecure = insecure(engine);
    let mut beside: Vec<String> = Vec::new();
    for url in named.into_iter().filter(|url| belongs_beside(url, &insecure)) {
        if !beside.iter().any(|other| same_mirror(other, &url)) {
            beside.push(url);
        }
    }
    let ours = own_mirrors(engine, port);
    let is_ours = |url: &String| ours.iter().any(|our| same_mirror(our, url));
    if let Some(url) = beside.iter().find(|url| action == Action::Enable || is_ours(url)) {
        return Err(PlanError::Together(url.clone()));
    }
    let note = |url: &String| {
        format!(
            "{url} stays in registry-mirrors; docker.io's hosts.toml goes. From Docker 28 on both files belong together."
        )
    };
    Ok(beside.iter().map(note).collect())
}

/// The engine's insecure registries, and those it will have once it has read its file.
pub(crate) fn insecure(engine: &Engine) -> Vec<String> {
    let file = engine.config.as_ref().and_then(|file| file.bytes.as_deref()).unwrap_or_default();
    let config: Value =
        serde_json::from_slice(file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file)).unwrap_or_default();
    let listed = config.get("insecure-registries").and_then(Value::as_array).into_iter().flatten();
    let listed = listed.filter_map(|name| name.as_str().map(str::to_owned));
    engine.insecure.iter().cloned().chain(listed).collect()
}

/// Whether a mirror belongs beside docker.io's `hosts.toml`: it is on this machine, or among the insecure registries.
pub(crate) fn belongs_beside(url: &str, insecure: &[String]) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    is_loopback(url) || trust::is_insecure(&authority.to_ascii_lowercase(), insecure)
}

/// Whether a mirror's URL leads to this machine.
pub(crate) fn is_loopback(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest).to_ascii_lowercase();
    ["127.", "localhost", "[::1]", "[::ffff:127.", "[0:0:0:0:0:0:0:1]"]
        .iter()
        .any(|own| host.starts_with(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insecure_mirror_belongs_beside_the_hosts_file_too() {
        let insecure = ["corp:5000", "10.1.0.0/16", "fd00::/8"].map(str::to_owned);
        for (url, expected) in [
            ("http://corp:5000", true),
            ("https://CORP:5000/path/", true),
            ("http://corp", false),
            ("http://10.1.2.3:80", true),
            ("https://10.1.2.3", true),
            ("http://10.2.0.1", false),
            ("http://[fd00::1]:5000/", true),
            ("https://mirror.example", false),
            ("http://127.0.0.1:7267", true),
        ] {
            assert_eq!(belongs_beside(url, &insecure), expected, "{url}");
        }
    }

    #[test]
    fn a_mirror_on_this_machine_is_recognised_in_every_spelling() {
        for (url, expected) in [
            ("http://127.0.0.1:5000", true),
            ("http://127.9.9.9/", true),
            ("HTTP://LocalHost:5000", true),
            ("http://[::1]:5000/", true),
            ("http://[::ffff:127.0.0.1]:5000", true),
            ("https://mirror.example", false),
            ("http://host.docker.internal:7267", false),
            ("http://10.127.0.1", false),
        ] {
            assert_eq!(is_loopback(url), expected, "{url}");
        }
    }
}
