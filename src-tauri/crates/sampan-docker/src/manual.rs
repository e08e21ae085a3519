//! A plan as shell commands, for people who would rather run them than let Sampan.

use std::path::Path;

use crate::daemon_json::{self, same_mirror};
use crate::engine::{Engine, Kind};
use crate::plan::{ApplyMethod, FileChange, Part};
use crate::service;

/// The commands, in order, one a line. They end in the same bytes as the plan.
pub(crate) fn commands(
    engine: &Engine,
    files: &[FileChange],
    apply: ApplyMethod,
    as_root: bool,
) -> Vec<String> {
    let sudo = if as_root { "sudo " } else { "" };
    let tell = tell(engine, apply, sudo);
    let mut lines = Vec::new();
    let mut told = false;
    for file in files {
        let mut steps = self::file(file, sudo);
        let last = steps.pop();
        lines.extend(steps);
        if let Some(interim) = file.interim.clone().or_else(|| interim(file, apply)) {
            lines.push(write(&file.target, &interim, sudo));
            lines.extend(tell.clone());
            lines.extend(wait(engine, files, apply, sudo));
            told = true;
        }
        lines.extend(last);
        if file.part == Part::DaemonJson && !told {
            lines.extend(tell.clone());
            lines.extend(wait(engine, files, apply, sudo));
            told = true;
        }
    }
    if !told {
        lines.extend(tell);
    }
    lines
}

/// The commands that give one file its last content, in order; the last one does it.
pub(crate) fn file(file: &FileChange, sudo: &str) -> Vec<String> {
    let Some(after) = &file.after else { return vec![format!("{sudo}rm {}", quoted_path(&file.target))] };
    let folder = file.target.parent().filter(|folder| file.created && !folder.as_os_str().is_empty());
    let mut lines: Vec<_> =
        folder.map(|folder| format!("{sudo}mkdir -p {}", quoted_path(folder))).into_iter().collect();
    lines.push(write(&file.target, after, sudo));
    lines
}

/// A running dockerd keeps its mirrors when the key is gone: it must see an empty list first.
fn interim(file: &FileChange, apply: ApplyMethod) -> Option<Vec<u8>> {
    let last = file.after.as_deref().unwrap_or_default();
    let needed = file.part == Part::DaemonJson
        && apply == ApplyMethod::Reload
        && daemon_json::has_list(last).is_ok_and(|has| !has);
    needed.then(|| daemon_json::with_empty_list(last).ok()).flatten()
}

/// Waits until the engine no longer lists the mirrors that go, where a `hosts.toml` goes after them.
fn wait(engine: &Engine, files: &[FileChange], apply: ApplyMethod, sudo: &str) -> Option<String> {
    let removes = files.iter().any(|file| matches!(file.part, Part::Hosts(_)) && file.after.is_none());
    if apply != ApplyMethod::Reload || !removes {
        return None;
    }
    let config = files.iter().find(|file| file.part == Part::DaemonJson)?;
    let listed = |bytes: Option<&Vec<u8>>| {
        daemon_json::mirrors(bytes.map(Vec::as_slice).unwrap_or_default()).unwrap_or_default()
    };
    let stay = listed(config.after.as_ref());
    let mut go: Vec<String> = listed(config.before.as_ref());
    go.extend(engine.mirrors.iter().cloned());
    go.retain(|url| !stay.iter().any(|other| same_mirror(url, other)));
    let mut patterns: Vec<String> =
        go.iter().map(|url| format!(" -e {}", quoted(url.trim_end_matches('/')))).collect();
    patterns.sort();
    patterns.dedup();
    let endpoint = quoted(&engine.endpoint);
    // Only an answer counts: what is printed where Docker does not answer is no list.
    (!patterns.is_empty()).then(|| {
        format!(
            "until {sudo}docker -H {endpoint} info --format '{{{{json .RegistryConfig.Mirrors}}}}' | grep '^[[n]' | \
             grep -qvF{}; do sleep 1; done",
            patterns.concat()
        )
    })
}

fn tell(engine: &Engine, apply: ApplyMethod, sudo: &str) -> Option<String> {
    match (apply, &engine.kind, &engine.unit, engine.pid) {
        (ApplyMethod::Nothing, ..) => None,
        (ApplyMethod::Restart, ..) => {
            let lines = service::by_hand(engine, sudo);
            (!lines.is_empty()).then(|| lines.join(" && "))
        }
        (ApplyMethod::Reload, Kind::Rootless, Some(unit), _) => {
            Some(format!("systemctl --user reload {unit}"))
        }
        // The snap's unit has no reload; its daemon takes the signal all the same.
        (ApplyMethod::Reload, Kind::Snap, _, Some(pid)) | (ApplyMethod::Reload, _, None, Some(pid)) => {
            Some(format!("{sudo}kill -HUP {pid}"))
        }
        (ApplyMethod::Reload, _, Some(unit), _) => Some(format!("{sudo}systemctl reload {unit}")),
        (ApplyMethod::Reload, _, None, None) => Some(format!("{sudo}systemctl reload docker")),
    }
}

/// One line that writes exactly these bytes, readable where the content allows it.
fn write(path: &Path, bytes: &[u8], sudo: &str) -> String {
    let text = String::from_utf8_lossy(bytes);
    let content = match text.strip_suffix('\n') {
        Some(lines) if !text.contains('\r') => {
            let quoted: Vec<String> = lines.split('\n').map(quoted).collect();
            format!("printf '%s\\n' {}", quoted.join(" "))
        }
        Some(_) | None => {
            let escaped = text
                .replace('\\', "\\\\")
                .replace('\'', "\\'")
                .replace('\r', "\\r")
                .replace('\n', "\\n")
                .replace('\t', "\\t");
            format!("printf '%s' $'{escaped}'")
        }
    };
    format!("{content} | {sudo}tee {} > /dev/null", quoted_path(path))
}

pub(crate) fn quoted_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_');
    if text.bytes().all(plain) { text.into_owned() } else { quoted(&text) }
}

pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_written_command_writes_exactly_the_bytes_of_the_plan() {
        let dir = tempfile::tempdir().unwrap();
        for (index, content) in [
            "{\n  \"debug\": true\n}\n",
            "{\r\n  \"a\": \"it's\"\r\n}\r\n",
            "{\"a\": \"back\\\\slash %s %d\"}",
            "{\n\t\"a\": \"it's $HOME `id`\"\n}\n",
            "\n",
        ]
        .into_iter()
        .enumerate()
        {
            let path = dir.path().join(format!("a file {index}"));
            let line = write(&path, content.as_bytes(), "");
            let status = std::process::Command::new("bash").arg("-c").arg(&line).status().unwrap();
            assert!(status.success(), "bash runs: {line}");
            assert_eq!(
                std::fs::read_to_string(&path).unwrap(),
                content,
                "by hand is the same as by Sampan: {line}"
            );
        }
    }
}
