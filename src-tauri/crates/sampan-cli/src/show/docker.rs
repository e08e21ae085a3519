//! What is said of Docker's set-up.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use sampan_app::api::{ApplyMethod, DiffKind, Docker, DockerAction, DockerApplied, DockerPlan, FileChange};

use super::{columns, plain, time};

/// What `docker status` says. `runs`: whether a Sampan runs.
pub(crate) fn docker(docker: &Docker, runs: bool, zone: &TimeZone) -> String {
    let version = docker.version.as_deref().unwrap_or_default();
    let engine = plain(format!("{} {version}", docker.engine).trim_end());
    let head = match (docker.found, docker.enabled, &docker.drift) {
        (false, _, _) => format!("No Docker answers at {}", plain(&docker.endpoint)),
        (true, _, Some(_)) => format!("{engine} is no longer set up as Sampan left it"),
        (true, true, None) => format!("{engine} asks Sampan first"),
        (true, false, None) => format!("{engine} does not ask Sampan"),
    };
    let mut rows = vec![["Engine".into(), docker.endpoint.clone()]];
    if let Some(store) = &docker.image_store {
        rows.push(["Images".into(), format!("in the {store} store")]);
    }
    if let Some(file) = &docker.config_file {
        rows.push(["Configuration".into(), file.clone()]);
    }
    if docker.found {
        let mirrors = if docker.mirrors.is_empty() { "none".into() } else { docker.mirrors.join(", ") };
        rows.push(["Mirrors".into(), mirrors]);
    }
    let active = docker.registries.iter().filter(|registry| registry.active);
    let active: Vec<&str> = active.map(|registry| registry.registry.as_str()).collect();
    if !active.is_empty() {
        rows.push(["Registries".into(), active.join(", ")]);
    }
    let last_used = match docker.last_used {
        Some(at) => time(at, zone),
        None if runs => "never, as far as is recorded".into(),
        None => "not known while Sampan does not run".into(),
    };
    rows.push(["Last used".into(), last_used]);
    let mut text = format!("{head}\n\n{}", columns(&rows));
    if let Some(drift) = &docker.drift {
        let _ = writeln!(text, "\nChanged by somebody else, noticed {}", time(drift.since, zone));
        text.push_str(&list(&drift.what));
        text.push_str("  `sampan docker enable` restores it, `sampan docker leave` leaves it so.\n");
    }
    if !docker.cut_short.is_empty() {
        let _ =
            write!(text, "\nA change of Docker's configuration was cut short\n{}", list(&docker.cut_short));
        text.push_str("  `sampan docker enable` or `sampan docker disable` finishes it.\n");
    }
    if let Some(repair) = &docker.needs_repair {
        let _ = write!(text, "\nTo repair\n{}", list(std::slice::from_ref(repair)));
    }
    if !docker.notes.is_empty() {
        let _ = write!(text, "\nTo know\n{}", list(&docker.notes));
    }
    let _ = write!(text, "\nSeen\n{}", list(&docker.evidence));
    if !runs {
        text.push_str("\nSampan is not running: Docker goes straight to its registries.\n");
    }
    text
}

/// What `docker plan` says.
pub(crate) fn plan(plan: &DockerPlan) -> String {
    let mut text = String::new();
    for file in &plan.files {
        text.push_str(&change(file));
        text.push('\n');
    }
    if plan.needs_elevation {
        text.push_str("Administrator rights are needed: the system asks for them once.\n");
    }
    if plan.apply == ApplyMethod::Restart {
        let _ = match plan.stops.as_slice() {
            [] => writeln!(text, "Docker restarts; no container stops."),
            stops => writeln!(text, "Docker restarts and stops {}.", plain(&stops.join(", "))),
        };
    }
    for note in &plan.notes {
        text.push_str(&plain(note));
        text.push('\n');
    }
    if !plan.commands.is_empty() {
        let _ = write!(text, "\nThe same by hand\n{}", list(&plan.commands));
    }
    text
}

fn change(file: &FileChange) -> String {
    let what = match (file.created, file.removed) {
        (true, _) => "new",
        (false, true) => "removed",
        (false, false) => "changed",
    };
    let mut text = format!("{} ({what})\n", plain(&file.path));
    for line in &file.diff {
        let sign = match line.kind {
            DiffKind::Same => ' ',
            DiffKind::Added => '+',
            DiffKind::Removed => '-',
        };
        text.push_str(format!("{sign} {}", code(&line.text)).trim_end());
        text.push('\n');
    }
    text
}

/// Lines of a file: a tab is part of how a person wrote it.
fn code(text: &str) -> String {
    text.split('\t').map(plain).collect::<Vec<_>>().join("\t")
}

/// What is asked before `plan` is carried out, one after the other: a restart needs a consent of its own.
pub(crate) fn questions(plan: &DockerPlan) -> Vec<String> {
    let mut questions = vec!["\nChange it? [y/N] ".to_owned()];
    if plan.apply == ApplyMethod::Restart {
        let stops = match plan.stops.as_slice() {
            [] => String::new(),
            stops => format!(", which stops {}", plain(&stops.join(", "))),
        };
        questions.push(format!("Docker restarts for this{stops}. Restart it now? [y/N] "));
    }
    questions
}

/// What `docker enable` and `docker disable` say in the end.
pub(crate) fn applied(action: DockerAction, applied: &DockerApplied) -> String {
    let mut text = String::new();
    for step in &applied.steps {
        text.push_str(&plain(step));
        text.push('\n');
    }
    text.push_str(match action {
        DockerAction::Enable => "Docker asks Sampan first. `sampan docker disable` takes this back.\n",
        DockerAction::Disable => "Docker goes straight to its registries.\n",
    });
    text
}

fn list(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines.iter().flat_map(|line| line.lines()) {
        let _ = writeln!(text, "  {}", code(line));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DAY: i64 = 1_795_132_800_000; // 2026-11-20T00:00:00Z

    fn found() -> Docker {
        serde_json::from_value(json!({
            "found": true, "engine": "Docker Engine", "version": "28.5.2",
            "endpoint": "unix:///var/run/docker.sock", "image_store": "classic",
            "config_file": "/etc/docker/daemon.json", "mirrors": ["http://127.0.0.1:7267/"], "enabled": true,
            "registries": [
                {"registry": "docker.io", "active": true, "path": null, "foreign": false, "changeable": false},
                {"registry": "ghcr.io", "active": true, "path": null, "foreign": false, "changeable": true},
                {"registry": "quay.io", "active": false, "path": null, "foreign": false, "changeable": true},
            ],
            "containers": [], "live_restore": false, "builders": [], "needs_repair": null,
            "supported": true, "notes": [], "evidence": ["/info lists it"],
            "last_used": DAY, "drift": null,
        }))
        .unwrap()
    }

    #[test]
    fn the_status_says_whether_docker_asks_sampan_and_when_it_last_did() {
        let text = docker(&found(), true, &TimeZone::UTC);
        let expected = "\
Docker Engine 28.5.2 asks Sampan first

Engine         unix:///var/run/docker.sock
Images         in the classic store
Configuration  /etc/docker/daemon.json
Mirrors        http://127.0.0.1:7267/
Registries     docker.io, ghcr.io
Last used      2026-11-20 00:00:00

Seen
  /info lists it
";
        assert_eq!(text, expected);
        let never = Docker { last_used: None, ..found() };
        assert!(docker(&never, true, &TimeZone::UTC).contains("never, as far as is recorded"));
        let alone = docker(&never, false, &TimeZone::UTC);
        assert!(alone.contains("not known") && alone.contains("Sampan is not running"), "{alone}");
        let off = Docker { enabled: false, mirrors: Vec::new(), ..found() };
        assert!(docker(&off, true, &TimeZone::UTC).starts_with("Docker Engine 28.5.2 does not ask Sampan\n"));
        let none = Docker { found: false, ..off };
        assert!(docker(&none, true, &TimeZone::UTC).starts_with("No Docker answers at unix:"));
    }

    #[test]
    fn what_somebody_else_changed_is_said_with_both_ways_out() {
        let what = vec!["Sampan was taken out of /etc/docker/daemon.json.".into()];
        let drift = Some(sampan_app::api::DockerDrift { what, since: DAY });
        let text = docker(&Docker { drift, enabled: false, ..found() }, true, &TimeZone::UTC);
        assert!(text.starts_with("Docker Engine 28.5.2 is no longer set up as Sampan left it\n"), "{text}");
        for part in ["noticed 2026-11-20 00:00:00", "taken out of", "docker enable", "docker leave"] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }

    #[test]
    fn a_change_that_was_cut_short_is_said_with_its_files_and_the_way_out() {
        let files = vec!["/etc/docker/daemon.json\u{1b}".to_owned()];
        let text = docker(&Docker { cut_short: files, ..found() }, true, &TimeZone::UTC);
        for part in ["cut short\n  /etc/docker/daemon.json\\u{1b}\n", "docker enable", "docker disable"] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(!docker(&found(), true, &TimeZone::UTC).contains("cut short"), "else nothing is said");
    }

    #[test]
    fn a_plan_shows_each_line_the_prompt_the_containers_and_the_way_by_hand() {
        let shown: DockerPlan = serde_json::from_value(json!({
            "id": "1", "action": "enable", "apply": "restart", "stops": ["web", "db\u{1b}[2J"],
            "needs_elevation": true, "commands": ["sudo a", "cat <<'EOF'\n{\n\t\"x\": 1\n}\nEOF"],
            "notes": ["A note."], "registries": [],
            "files": [{
                "path": "/etc/docker/daemon.json", "created": false, "removed": false,
                "diff": [
                    {"kind": "same", "text": "{"},
                    {"kind": "removed", "text": "\t\"a\": 1"},
                    {"kind": "added", "text": "\t\"a\": 1,"},
                    {"kind": "same", "text": ""},
                ],
            }],
        }))
        .unwrap();
        let expected = "\
/etc/docker/daemon.json (changed)
  {
- \t\"a\": 1
+ \t\"a\": 1,


Administrator rights are needed: the system asks for them once.
Docker restarts and stops web, db\\u{1b}[2J.
A note.

The same by hand
  sudo a
  cat <<'EOF'
  {
  \t\"x\": 1
  }
  EOF
";
        assert_eq!(plan(&shown), expected);
        let questions = questions(&shown);
        assert!(
            questions.len() == 2 && questions[1].contains("stops web"),
            "a restart is asked for by itself"
        );
    }
}
