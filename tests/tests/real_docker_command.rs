//! `sampan docker …` as a person and an uninstaller use it, with a real dockerd.

#![cfg(target_os = "linux")]

use std::process::Output;

use sampan_app::api::{Command, Docker, DockerAction, DockerApplied, DockerPlan, DockerProof, Reply};
use sampan_tests::{Dockerd, DockerdOptions, Sampan, SampanOptions, turn};

const DOCKER: [&str; 4] = ["dockerd", "docker", "unshare", "nsenter"];
/// Nobody listens there, and nobody is asked: the proof is an image of Sampan's own.
const NO_UPSTREAM: &str = "http://127.0.0.1:9";

fn start(config: &str) -> (Dockerd, Sampan) {
    let dockerd = Dockerd::start(DockerdOptions { config: Some(config.into()), ..DockerdOptions::default() });
    let options = SampanOptions { upstream: NO_UPSTREAM.into(), dockerd: Some(&dockerd), beside: false };
    let sampan = Sampan::start(&options);
    (dockerd, sampan)
}

/// Runs `sampan docker <arguments>`, which ends with `code`; what it says on both ways.
fn docker(sampan: &Sampan, arguments: &[&str], code: i32) -> String {
    let output: Output = sampan.cli(&[&["docker"], arguments].concat());
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert_eq!(output.status.code(), Some(code), "sampan docker {}: {text}", arguments.join(" "));
    text
}

fn status(sampan: &Sampan, code: i32) -> Docker {
    let output = sampan.cli(&["docker", "status", "--json"]);
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

#[tokio::test]
async fn real_docker_is_set_up_proved_and_taken_back_by_the_command() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let original = "{\n  \"debug\": false\n}\n";
    let (mut dockerd, sampan) = start(original);

    assert!(!status(&sampan, 4).enabled, "not set up is 4");
    let plan: DockerPlan = sampan.cli_json(&["docker", "plan"]);
    assert!(
        plan.action == DockerAction::Enable && plan.files.len() == 1 && !plan.needs_elevation,
        "{plan:#?}"
    );
    let shown = docker(&sampan, &["plan"], 0);
    let added = format!("+   \"registry-mirrors\": [\"http://{}\"]", sampan.address());
    for part in [added.as_str(), "(changed)", "no container stops", "The same by hand", "kill -HUP"] {
        assert!(shown.contains(part), "{part:?} is in the plan: {shown}");
    }
    assert_eq!(dockerd.config().as_deref(), Some(original), "a plan changes nothing");
    let unasked = docker(&sampan, &["enable"], 2);
    assert!(unasked.contains("--yes"), "nobody can be asked here: {unasked}");
    assert_eq!(dockerd.config().as_deref(), Some(original), "and nothing was changed");
    let nothing = docker(&sampan, &["disable"], 0);
    assert!(nothing.contains("as wanted"), "nothing to take back is no question: {nothing}");
    assert!(docker(&sampan, &["prove"], 7).contains("without asking Sampan"), "not proved is 7");

    let enabled: DockerApplied = sampan.cli_json(&["docker", "enable", "--yes"]);
    assert!(enabled.proof.is_some_and(|proof| proof.arrived) && enabled.docker.enabled, "proved");
    assert_eq!(dockerd.mirrors(), [sampan.mirror_url()]);
    let again = docker(&sampan, &["enable", "--yes"], 0);
    assert!(again.contains("as wanted already"), "again is good, too: {again}");
    let proof: DockerProof = sampan.cli_json(&["docker", "prove"]);
    assert!(proof.arrived, "{proof:?}");
    assert!(status(&sampan, 0).enabled, "set up is 0");
    assert!(docker(&sampan, &["status"], 0).contains("asks Sampan first"));

    let disabled = docker(&sampan, &["disable", "--yes"], 0);
    assert!(disabled.contains("Docker now lists no mirrors"), "the steps are told: {disabled}");
    assert_eq!(dockerd.config().as_deref(), Some(original), "byte for byte as it was");
    assert!(dockerd.mirrors().is_empty() && dockerd.runs(), "and dockerd has let go");
}

#[tokio::test]
async fn real_docker_is_taken_back_where_no_sampan_runs() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let original = "{\"debug\": false}\n";
    let (mut dockerd, mut sampan) = start(original);
    sampan.set_up(DockerAction::Enable).await;
    // A power cut: no Sampan tidies up behind itself.
    sampan.kill();

    let seen = docker(&sampan, &["status"], 0);
    assert!(seen.contains("Sampan is not running"), "set up, and said so: {seen}");
    docker(&sampan, &["enable", "--yes"], 3);
    docker(&sampan, &["prove"], 3);
    let planned: DockerPlan = sampan.cli_json(&["docker", "plan", "disable"]);
    assert_eq!(planned.files.len(), 1, "{planned:#?}");
    docker(&sampan, &["disable"], 2);
    let disabled = docker(&sampan, &["disable", "--yes"], 0);
    assert!(disabled.contains("Docker now lists no mirrors"), "{disabled}");
    assert_eq!(dockerd.config().as_deref(), Some(original), "byte for byte as it was");
    assert!(dockerd.mirrors().is_empty() && dockerd.runs(), "the list was empty until dockerd let go");
    assert!(docker(&sampan, &["disable", "--yes"], 0).contains("as wanted"), "an uninstaller may ask twice");

    sampan.restart();
    assert_eq!(sampan.snapshot().await.docker_drift, None, "a person's own undo is nobody else's change");
}

#[tokio::test]
async fn real_docker_that_does_not_run_is_taken_back_too() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let original = "{\"debug\": false}\n";
    let (mut dockerd, mut sampan) = start(original);
    sampan.set_up(DockerAction::Enable).await;
    dockerd.stop();
    assert!(!status(&sampan, 4).found, "it does not answer");
    docker(&sampan, &["enable", "--yes"], 5);
    sampan.stop();
    let disabled = docker(&sampan, &["disable", "--yes"], 0);
    assert!(!disabled.contains("now lists"), "there is nobody to tell: {disabled}");
    assert_eq!(dockerd.config().as_deref(), Some(original), "byte for byte as it was");
}

#[tokio::test]
async fn real_docker_that_was_started_by_hand_is_not_restarted_and_the_commands_are_said() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let original = "{\"debug\": false}\n";
    let (mut dockerd, mut sampan) = start(original);
    let by_hand = format!("kill {}", dockerd.id());
    for arguments in [&["plan", "--restart"][..], &["enable", "--restart", "--yes"]] {
        let refused = docker(&sampan, arguments, 5);
        assert!(refused.contains("started by hand") && refused.contains(&by_hand), "{refused}");
    }
    assert_eq!(dockerd.config().as_deref(), Some(original), "nothing was changed");
    sampan.set_up(DockerAction::Enable).await;
    sampan.stop();
    let alone = docker(&sampan, &["disable", "--restart", "--yes"], 5);
    assert!(alone.contains(&by_hand), "nor where no Sampan runs: {alone}");
    docker(&sampan, &["disable", "--yes"], 0);
    assert_eq!(dockerd.config().as_deref(), Some(original), "a reload does it, byte for byte");
    docker(&sampan, &["disable", "--restart", "--yes"], 0);
    assert!(dockerd.runs(), "nothing to change restarts nothing");
}

#[tokio::test]
async fn real_docker_whose_file_sampan_does_not_edit_is_refused_with_5() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let (dockerd, sampan) = start("{}\n");
    std::fs::write(dockerd.config_file(), "{\n  // mine\n}\n").unwrap();
    let refused = docker(&sampan, &["enable", "--yes"], 5);
    assert!(refused.contains("line 2, column 3"), "where and why: {refused}");
    docker(&sampan, &["plan"], 5);
    assert_eq!(dockerd.config().as_deref(), Some("{\n  // mine\n}\n"), "untouched");
}

#[tokio::test]
async fn real_docker_that_somebody_else_changed_is_noticed_and_restored_or_left() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let (dockerd, mut sampan) = start("{}\n");
    sampan.set_up(DockerAction::Enable).await;
    assert_eq!(status(&sampan, 0).drift, None, "as it was left");
    let with_ours = dockerd.config().unwrap();

    std::fs::write(dockerd.config_file(), "{\"registry-mirrors\": [\"https://mirror.example\"]}\n").unwrap();
    let drift = status(&sampan, 4).drift.expect("it is noticed when somebody looks");
    assert!(drift.what[0].contains("Sampan was taken out of"), "{drift:?}");
    assert_eq!(sampan.snapshot().await.docker_drift, Some(drift.clone()), "and shown everywhere");
    docker(&sampan, &["enable", "--yes"], 0);
    assert_eq!(status(&sampan, 0).drift, None, "restored");
    let restored = format!("[\"http://{}\",\"https://mirror.example\"]", sampan.address());
    let now = dockerd.config().unwrap().replace(", ", ",");
    assert!(now.contains(&restored), "first again, and the other one stays: {now}");

    std::fs::write(dockerd.config_file(), "{}\n").unwrap();
    assert!(status(&sampan, 4).drift.is_some());
    docker(&sampan, &["leave"], 0);
    assert_eq!(status(&sampan, 0).drift, None, "left as it is, while dockerd still has the list");
    sampan.stop();
    sampan.restart();
    assert_eq!(status(&sampan, 0).drift, None, "after a restart too");
    std::fs::write(dockerd.config_file(), "{\"debug\": true}\n").unwrap();
    assert!(status(&sampan, 4).drift.is_some(), "changed again is told again");
    std::fs::write(dockerd.config_file(), with_ours).unwrap();
    assert_eq!(status(&sampan, 0).drift, None, "put back by hand is as good");
}

#[tokio::test]
async fn real_docker_uses_are_remembered_and_proofs_and_curl_are_none() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let (dockerd, mut sampan) = start("{}\n");
    sampan.set_up(DockerAction::Enable).await;
    let url = format!("http://{}/v2/library/nothing/manifests/1", sampan.address());
    let _ = std::process::Command::new("curl").args(["--silent", "--output", "/dev/null", &url]).status();
    assert_eq!(status(&sampan, 0).last_used, None, "a proof is no use, and neither is a curl");
    // It fails, for there is no registry behind; that Docker asked is what counts.
    let _ = dockerd.docker(&["pull", "library/nothing:1"]);
    let used = status(&sampan, 0).last_used.expect("Docker asked");
    sampan.stop();
    assert_eq!(status(&sampan, 0).last_used, Some(used), "where no Sampan runs too");
    sampan.restart();
    let Ok(Reply::Docker(docker)) = sampan.call(Command::Docker).await else { panic!("not Docker") };
    assert_eq!(docker.last_used, Some(used), "to the millisecond, after a restart");
}
