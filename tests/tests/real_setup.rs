//! Setting Docker up and taking it back, through Sampan's own interface, with a real dockerd that reads the result.
//! Throughout, dockerd stays the process it was: nothing restarts.

#![cfg(target_os = "linux")]

use std::path::Path;

use sampan_app::api::{ApplyMethod, Code, DiffKind, DockerAction, FileChange};
use sampan_tests::{Dockerd, DockerdOptions, Place, Sampan, SampanOptions, disk, turn};

const DOCKER: [&str; 4] = ["dockerd", "docker", "unshare", "nsenter"];

/// Nobody listens there, and nobody is asked: the proof is an image of Sampan's own.
const NO_UPSTREAM: &str = "http://127.0.0.1:9";

fn sampan(dockerd: &Dockerd, beside: bool) -> Sampan {
    Sampan::start(&SampanOptions { upstream: NO_UPSTREAM.into(), dockerd: Some(dockerd), beside })
}

fn dockerd(config: &str) -> Dockerd {
    Dockerd::start(DockerdOptions { config: Some(config.into()), ..DockerdOptions::default() })
}

fn url(sampan: &Sampan) -> String {
    format!("http://{}", sampan.address())
}

fn added(file: &FileChange) -> Vec<&str> {
    let lines = file.diff.iter().filter(|line| line.kind == DiffKind::Added);
    lines.map(|line| line.text.as_str()).collect()
}

/// Enables, proves, disables. In between dockerd lists `mirrors`; in the end it lists `others` and the file is as it was.
async fn assert_there_and_back(dockerd: &mut Dockerd, sampan: &Sampan, others: &[&str]) {
    let original = dockerd.config();
    let pid = dockerd.id();
    let plan = sampan.plan(DockerAction::Enable).await.expect("this Docker can be set up");
    assert_eq!(dockerd.config(), original, "a plan changes nothing");
    assert_eq!(plan.apply, ApplyMethod::Reload, "never a restart: {plan:#?}");
    assert!(plan.stops.is_empty() && !plan.needs_elevation, "no container stops, nobody is asked: {plan:#?}");
    let [file] = &plan.files[..] else { panic!("one file changes: {plan:#?}") };
    assert_eq!(Path::new(&file.path), dockerd.config_path());
    assert_eq!(file.created, original.is_none(), "whether there was a file");
    assert!(added(file).concat().contains(&url(sampan)), "the diff shows it: {:#?}", file.diff);

    let applied = sampan.apply(&plan).await.expect("what was shown can be done");
    assert!(applied.proof.as_ref().is_some_and(|proof| proof.arrived), "{applied:#?}");
    assert!(applied.docker.enabled, "{applied:#?}");
    let ours = [sampan.mirror_url()];
    let all: Vec<&str> = ours.iter().map(String::as_str).chain(others.iter().copied()).collect();
    assert_eq!(dockerd.mirrors(), all, "ours first, the others in their order");
    let proof = sampan.prove().await;
    assert!(proof.arrived && proof.millis.is_some(), "Docker asks Sampan: {proof:?}");
    assert_eq!(dockerd.must(&["images", "--quiet", "--all"]), "", "the proof leaves no image behind");
    let again = sampan.plan(DockerAction::Enable).await.expect("it can be looked at again");
    assert!(
        again.files.is_empty() && again.apply == ApplyMethod::Nothing,
        "nothing is left to do: {again:#?}"
    );

    let undone = sampan.set_up(DockerAction::Disable).await;
    assert!(!undone.docker.enabled, "{undone:#?}");
    assert_eq!(dockerd.config(), original, "byte for byte as it was");
    assert_eq!(dockerd.mirrors(), others, "and dockerd has let go");
    assert!(!sampan.prove().await.arrived, "it does not ask Sampan any more");
    assert!(dockerd.runs() && dockerd.id() == pid, "the same dockerd all along");
    assert!(disk::held(&sampan.cache_dir()).is_empty(), "proofs are not kept");
}

#[tokio::test]
async fn real_docker_without_a_daemon_json_is_set_up_and_back() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let mut dockerd =
        Dockerd::start(DockerdOptions { place: Place::Usual, config: None, ..DockerdOptions::default() });
    let sampan = sampan(&dockerd, true);
    assert_there_and_back(&mut dockerd, &sampan, &[]).await;
    assert_eq!(dockerd.config(), None, "there was no file, and there is none");
}

#[tokio::test]
async fn real_docker_with_an_empty_daemon_json_is_set_up_and_back() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let mut dockerd = dockerd("{}");
    // An old dockerd does not start with an empty file, so it is emptied later.
    std::fs::write(dockerd.config_file(), "").unwrap();
    let sampan = sampan(&dockerd, false);
    assert_there_and_back(&mut dockerd, &sampan, &[]).await;
}

#[tokio::test]
async fn real_docker_keeps_its_other_mirrors_its_other_keys_and_its_formatting() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let original = "{\r\n\t\"log-level\":  \"info\",\r\n\t\"registry-mirrors\": [\r\n\t\t\"http://127.0.0.1:9\",\r\n\t\t\
                    \"https://mirror.example\"\r\n\t],\r\n\t\"max-concurrent-downloads\": 4\r\n}";
    let mut dockerd = dockerd(original);
    let sampan = sampan(&dockerd, false);
    assert_there_and_back(&mut dockerd, &sampan, &["http://127.0.0.1:9/", "https://mirror.example/"]).await;

    sampan.set_up(DockerAction::Enable).await;
    let expected = original.replace(
        "[\r\n\t\t\"http://127.0.0.1:9\"",
        &format!("[\r\n\t\t\"{}\",\r\n\t\t\"http://127.0.0.1:9\"", url(&sampan)),
    );
    assert_eq!(dockerd.config().as_deref(), Some(expected.as_str()), "one line more, and not a blank moved");
    assert!(dockerd.runs());
}

#[tokio::test]
async fn real_docker_with_a_linked_daemon_json_keeps_the_link() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let options = DockerdOptions {
        config: Some("{\"debug\": false}\n".into()),
        linked: true,
        ..DockerdOptions::default()
    };
    let mut dockerd = Dockerd::start(options);
    let sampan = sampan(&dockerd, false);
    let link = dockerd.config_file();
    let target = link.parent().unwrap().join("real/daemon.json");
    let is_link = || std::fs::read_link(&link).is_ok_and(|to| to == Path::new("real/daemon.json"));
    assert!(is_link(), "the test begins with a link");
    sampan.set_up(DockerAction::Enable).await;
    assert!(is_link(), "the link stays a link");
    let written = std::fs::read_to_string(&target).unwrap();
    assert!(written.contains(&url(&sampan)), "the file it leads to is what was written: {written}");
    sampan.set_up(DockerAction::Disable).await;
    assert!(is_link(), "and stays one");
    assert_there_and_back(&mut dockerd, &sampan, &[]).await;
}

#[tokio::test]
async fn real_docker_with_a_broken_daemon_json_is_left_alone_and_the_place_is_named() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let mut dockerd = dockerd("{}\n");
    let sampan = sampan(&dockerd, false);
    let table = [
        ("{\n  \"debug\": true,\n}\n", "line 3, column 1", "a comma too many"),
        ("{\n  // mine\n  \"debug\": true\n}\n", "line 2, column 3", "a comment"),
        ("{\n  \"debug\" true\n}\n", "line 2, column 11", "a colon too few"),
        ("{\"debug\": true, \"debug\": false}", "line 1, column 17", "a key twice"),
        ("{\n  \"registry-mirrors\": \"http://x\"\n}", "line 2, column 23", "a text where a list belongs"),
    ];
    for (broken, place, what) in table {
        std::fs::write(dockerd.config_file(), broken).unwrap();
        let error = sampan.plan(DockerAction::Enable).await.unwrap_err();
        assert_eq!(error.code, Code::ConfigInvalid, "{what}: {error:?}");
        assert!(error.message.contains(place), "{what} is at {place}: {error:?}");
        assert!(error.next_step.is_some(), "{what}: and what to do about it: {error:?}");
        assert_eq!(dockerd.config().as_deref(), Some(broken), "{what}: untouched");
    }
    assert_eq!(dockerd.mirrors(), Vec::<String>::new(), "dockerd was told nothing");
    let beside = std::fs::read_dir(dockerd.config_file().parent().unwrap()).unwrap();
    let left = beside.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("daemon.json"));
    assert_eq!(left.count(), 1, "and no backup of what was not edited lies beside it");

    std::fs::write(dockerd.config_file(), "{}\n").unwrap();
    assert_there_and_back(&mut dockerd, &sampan, &[]).await;
}

#[tokio::test]
async fn real_containers_go_on_running_while_docker_is_set_up_and_back() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let mut dockerd = dockerd("{}\n");
    let sampan = sampan(&dockerd, false);
    dockerd.start_container("sleeper");
    let before = dockerd.container_state("sleeper");
    assert!(before.starts_with("true "), "it runs: {before}");
    let plan = sampan.plan(DockerAction::Enable).await.unwrap();
    assert!(plan.stops.is_empty(), "no container stops: {plan:#?}");
    let applied = sampan.apply(&plan).await.unwrap();
    assert_eq!(applied.docker.containers, ["sleeper"], "Sampan knows of it");
    assert_eq!(dockerd.container_state("sleeper"), before, "the same process since the same moment");
    sampan.set_up(DockerAction::Disable).await;
    assert_eq!(dockerd.container_state("sleeper"), before, "and still");
    assert!(dockerd.runs());
    dockerd.must(&["rm", "--force", "sleeper"]);
}

#[tokio::test]
async fn real_docker_is_not_changed_by_a_plan_that_is_outdated() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let mut dockerd = dockerd("{\"debug\": false}\n");
    let sampan = sampan(&dockerd, false);
    let shown = sampan.plan(DockerAction::Enable).await.unwrap();
    let edited = "{\"debug\": false, \"max-concurrent-downloads\": 5}\n";
    std::fs::write(dockerd.config_file(), edited).unwrap();
    let refused = sampan.apply(&shown).await.unwrap_err();
    assert_eq!(refused.code, Code::PlanOutdated, "nobody consented to this file: {refused:?}");
    assert_eq!(dockerd.config().as_deref(), Some(edited), "somebody's edit stays");
    assert_eq!(dockerd.mirrors(), Vec::<String>::new(), "dockerd was told nothing");
    assert_there_and_back(&mut dockerd, &sampan, &[]).await;
}

#[tokio::test]
async fn real_docker_with_a_read_only_configuration_is_left_alone() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let options = DockerdOptions { place: Place::UsualReadOnly, ..DockerdOptions::default() };
    let mut dockerd = Dockerd::start(options);
    let sampan = sampan(&dockerd, true);
    let original = dockerd.config();
    let refused = sampan.plan(DockerAction::Enable).await.unwrap_err();
    assert_eq!(refused.code, Code::DockerUnsupported, "said before anybody consents: {refused:?}");
    assert!(refused.message.contains("read-only"), "and why: {refused:?}");
    assert_eq!(dockerd.config(), original, "untouched");
    assert!(dockerd.runs() && dockerd.mirrors().is_empty(), "dockerd was told nothing");
}

/// A dockerd that lists the mirror and never gets to it: it is in a network of its own, as a virtual machine is.
#[tokio::test]
async fn real_docker_that_never_asks_sampan_is_put_back_to_the_byte_and_goes_on_running() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let original = "{\r\n\t\"debug\":  false\r\n}";
    let mut dockerd = dockerd(original);
    dockerd.stop();
    dockerd.edit_unit("exec unshare --net dockerd \"$@\"");
    dockerd.start_again();
    while !dockerd.is_ready().expect("it starts") {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    dockerd.start_container("sleeper");
    let before = (dockerd.id(), dockerd.container_state("sleeper"));
    let sampan = sampan(&dockerd, false);
    let plan = sampan.plan(DockerAction::Enable).await.expect("this Docker can be set up");
    let refused = sampan.apply(&plan).await.expect_err("no request arrives");
    assert_eq!(refused.code, Code::RolledBack, "{refused:?}");
    assert!(refused.message.contains("without asking Sampan"), "what was seen: {refused:?}");
    assert!(refused.message.contains("as it was before"), "what was done about it: {refused:?}");
    assert!(refused.next_step.as_ref().is_some_and(|next| next.contains("sampan doctor")), "{refused:?}");
    assert_eq!(dockerd.config().as_deref(), Some(original), "byte for byte");
    assert_eq!(dockerd.mirrors(), Vec::<String>::new(), "and dockerd has let go");
    assert!(dockerd.runs(), "it runs");
    assert_eq!(
        (dockerd.id(), dockerd.container_state("sleeper")),
        before,
        "nothing restarted, nothing stopped"
    );
    dockerd.must(&["rm", "--force", "sleeper"]);
    let again = sampan.plan(DockerAction::Enable).await.expect("nothing is in the way of another try");
    assert_eq!(again.files.len(), 1, "{again:#?}");
}

#[tokio::test]
async fn real_docker_with_mirrors_on_its_command_line_is_refused_with_that_line_and_left_alone() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let original = "{\"debug\": false}\n";
    let mut dockerd = dockerd(original);
    dockerd.stop();
    dockerd.edit_unit("exec dockerd --registry-mirror=https://mirror.example \"$@\"");
    dockerd.start_again();
    while !dockerd.is_ready().expect("it starts") {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let sampan = sampan(&dockerd, false);
    let refused = sampan.plan(DockerAction::Enable).await.unwrap_err();
    assert_eq!(refused.code, Code::DockerUnsupported, "{refused:?}");
    assert!(refused.message.contains("--registry-mirror=https://mirror.example"), "the line: {refused:?}");
    assert!(refused.next_step.is_some_and(|next| next.contains("command line")), "and what to do");
    assert_eq!(dockerd.config().as_deref(), Some(original), "untouched");
    assert_eq!(dockerd.mirrors(), ["https://mirror.example/"], "dockerd was told nothing");
    assert!(dockerd.runs());
}
