//! What a person sets with the real program `sampan`, and how long it holds.
//!
//! Unix only: it sends signals and speaks to the control socket.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

mod common;

use common::{Place, text};

#[test]
fn a_speed_limit_holds_until_it_is_lifted_and_outlives_a_restart() {
    let place = Place::new();
    let limit = |arguments: &[&str]| {
        let asked = place.run(&[&["limit"], arguments].concat());
        assert_eq!(asked.status.code(), Some(0), "{arguments:?}: {}", text(&asked.stderr));
        text(&asked.stdout)
    };
    let serving = place.serve(&[]);
    assert_eq!(limit(&[]), "There is no speed limit.\n");
    assert_eq!(limit(&["2MB/s"]), "All downloads together take at most 2.0 MB/s.\n");
    let json: serde_json::Value = serde_json::from_str(&limit(&["--json"])).unwrap();
    assert_eq!(json, serde_json::json!({"speed_limit": 2_000_000}));
    let status = text(&place.run(&["status"]).stdout);
    assert!(status.contains("2.0 MB/s for all downloads"), "{status}");

    serving.signal("TERM");
    drop(serving);
    let _again = place.serve(&[]);
    assert_eq!(limit(&[]), "All downloads together take at most 2.0 MB/s.\n", "it was saved");
    let json: serde_json::Value = serde_json::from_str(&limit(&["off", "--json"])).unwrap();
    assert_eq!(json, serde_json::json!({"speed_limit": null}));
    let saved = std::fs::read_to_string(place.path("state/settings.toml")).unwrap();
    assert!(!saved.contains("speed_limit"), "only differences are saved: {saved}");
}

#[test]
fn freshness_and_the_offline_switch_hold_until_changed_and_outlive_a_restart() {
    let place = Place::new();
    let run = |arguments: &[&str], code: i32| {
        let asked = place.run(arguments);
        assert_eq!(asked.status.code(), Some(code), "{arguments:?}: {}", text(&asked.stderr));
        (text(&asked.stdout), text(&asked.stderr))
    };
    let serving = place.serve(&[]);
    assert_eq!(run(&["freshness"], 0).0, "Every tag is asked about at every pull.\n");
    run(&["freshness", "set", "docker.io/library/*", "15m", "--stale-max", "7d"], 0);
    let shown = run(&["freshness", "set", "nginx", "never"], 0).0;
    assert!(
        shown.contains("docker.io/library/*") && shown.contains("every 15m") && shown.contains("7d"),
        "{shown}"
    );
    assert_eq!(run(&["offline", "status"], 0).0, "Sampan is online.\n");
    assert!(run(&["offline", "on"], 0).0.contains("sampan offline off"));

    serving.signal("TERM");
    drop(serving);
    let _again = place.serve(&[]);
    let json: serde_json::Value = serde_json::from_str(&run(&["offline", "status", "--json"], 0).0).unwrap();
    assert_eq!(json, serde_json::json!({"offline": true}));
    let rules: serde_json::Value = serde_json::from_str(&run(&["freshness", "show", "--json"], 0).0).unwrap();
    let expected = serde_json::json!([
        {"pattern": "docker.io/library/*", "check": {"every": 900}, "stale_max_seconds": 604_800},
        {"pattern": "docker.io/library/nginx", "check": "never", "stale_max_seconds": null},
    ]);
    assert_eq!(rules, expected, "they were saved");
    run(&["offline", "off"], 0);
    run(&["freshness", "unset", "nginx"], 0);
    run(&["freshness", "unset", "docker.io/library/*"], 0);
    let saved = std::fs::read_to_string(place.path("state/settings.toml")).unwrap();
    assert!(!saved.contains("fresh") && !saved.contains("offline"), "only differences are saved: {saved}");

    assert!(run(&["freshness", "unset", "nginx"], 1).1.contains("sampan freshness"));
    assert!(run(&["freshness", "set", "nginx", "sometimes"], 2).1.contains("on-request"));
    for arguments in [&["freeze", "nginx:1"][..], &["unfreeze", "nginx:1"], &["refresh", "nginx"]] {
        let told = run(arguments, 1).1;
        assert!(told.contains("nginx"), "{arguments:?} says what to do: {told}");
    }
}

#[test]
fn a_pause_lasts_as_long_as_told_or_until_resumed() {
    let place = Place::new();
    let run = |arguments: &[&str]| {
        let asked = place.run(arguments);
        assert_eq!(asked.status.code(), Some(0), "{arguments:?}: {}", text(&asked.stderr));
        text(&asked.stdout)
    };
    let json = |arguments: &[&str]| serde_json::from_str::<serde_json::Value>(&run(arguments)).unwrap();
    let _serving = place.serve(&[]);

    let began = json(&["status", "--json"])["at"].as_i64().unwrap();
    let paused = json(&["pause", "15m", "--json"]);
    assert_eq!(paused["paused"], true);
    let until = paused["paused_until"].as_i64().unwrap();
    assert!(until - began >= 15 * 60_000, "{until} is a quarter of an hour after {began}");
    assert_eq!(json(&["status", "--json"])["mirror"]["paused_until"], until);

    assert!(run(&["pause"]).contains("until `sampan resume`"), "a pause that goes on can be made open");
    assert!(run(&["status"]).contains("nothing new is kept while paused"));
    assert_eq!(run(&["resume"]), "Sampan is not paused.\n");
    assert!(!run(&["status"]).contains("paused"));
    let nothing = json(&["resume", "--json"]);
    assert_eq!(nothing, serde_json::json!({"paused": false, "paused_until": null}), "again does no harm");
}
