//! A privileged helper that was killed in the middle of a change: whoever looks next says so, and the next change runs the
//! helper, which settles it. No engine answers here: its socket does not exist.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use sampan_docker::{
    Access, Action, ApplyMethod, Change, Choice, Elevation, ElevationError, Engine, Environment, FileSeen,
    HelperReport, ImageStore, Kind, Part, PlanError, Verb, apply, detect, hold, plan,
};
use sampan_oci::{Clock, Digest, Millis, RegistryName};
use serde_json::json;

const WANTED: &str = "{\"registry-mirrors\": [\"http://127.0.0.1:7267\"]}\n";

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Millis {
        Millis(1_795_000_000_000)
    }
}

struct Place {
    dir: tempfile::TempDir,
    env: Environment,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Environment {
            docker_host: Some(format!("unix://{}", dir.path().join("nobody.sock").display())),
            docker_context: None,
            docker_config_dir: None,
            buildx_config_dir: None,
            home: dir.path().into(),
            xdg_config_home: None,
            uid: rustix::process::getuid().as_raw(),
            state_dir: dir.path().join("state"),
            system_state_dir: dir.path().join("system"),
            registries: vec![RegistryName::docker_hub()],
            clock: Arc::new(Stopped),
        };
        Self { dir, env }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("daemon.json")
    }

    /// The helper's journal as a kill leaves it, about the engine at `endpoint`.
    fn helper_was_killed(&self, endpoint: &str) {
        let change = Change {
            target: self.config(),
            part: Part::DaemonJson,
            endpoint: endpoint.into(),
            port: 7267,
            before: None,
            interim: None,
            going_back: None,
            after: Some(Digest::of(WANTED.as_bytes())),
            backup: None,
            made_folders: Vec::new(),
            leaving: false,
        };
        std::fs::create_dir_all(&self.env.system_state_dir).unwrap();
        let journal = json!({"pending": [change], "installed": []}).to_string();
        std::fs::write(self.env.system_state_dir.join("docker.json"), journal).unwrap();
    }
}

#[tokio::test]
async fn a_helper_that_was_killed_is_noticed_by_whoever_looks_next_and_one_at_work_is_not() {
    let place = Place::new();
    if place.env.uid != 0 {
        sampan_testkit::cannot_run(
            "the helper's journal counts only where nobody but root can have written it",
        );
        return;
    }
    let endpoint = place.env.docker_host.clone().unwrap();
    assert_eq!(detect(&place.env).await.cut_short, [""; 0].map(PathBuf::from), "nothing was begun");
    place.helper_was_killed("unix:///run/another.sock");
    assert_eq!(detect(&place.env).await.cut_short, [""; 0].map(PathBuf::from), "another engine's");
    place.helper_was_killed(&endpoint);
    let engine = detect(&place.env).await;
    assert_eq!(engine.cut_short, [place.config()], "{:#?}", engine.evidence);
    assert!(engine.evidence.iter().any(|line| line.contains("was cut short")), "{:#?}", engine.evidence);

    let at_work = hold(&place.env.system_state_dir, 0).unwrap();
    assert!(detect(&place.env).await.cut_short.is_empty(), "what is under way was not cut short");
    drop(at_work);
    assert_eq!(detect(&place.env).await.cut_short, [place.config()], "until it ends without ending it");

    let helper = Environment { state_dir: place.env.system_state_dir.clone(), ..place.env.clone() };
    assert!(detect(&helper).await.cut_short.is_empty(), "the helper itself settles it");
}

/// The system's Docker, which is as `config` says, and a change of the helper's that was cut short.
fn engine(config: &str) -> Engine {
    let mut engine = Engine::unknown("unix:///var/run/docker.sock".into());
    (engine.found, engine.kind, engine.pid) = (true, Kind::Linux, Some(4242));
    engine.version = Some("20.10.24".into());
    engine.image_store = Some(ImageStore::Classic);
    engine.config = Some(FileSeen {
        path: "/etc/docker/daemon.json".into(),
        target: "/etc/docker/daemon.json".into(),
        bytes: Some(config.as_bytes().to_vec()),
        access: Access::NeedsElevation,
        problem: None,
    });
    engine.cut_short = vec!["/etc/docker/daemon.json".into()];
    engine
}

#[test]
fn a_plan_on_top_of_a_change_that_was_cut_short_is_never_nothing() {
    for (action, config, mirrors, verb) in [
        (Action::Enable, WANTED, &["http://127.0.0.1:7267/"][..], Verb::Enable),
        (Action::Disable, "{}\n", &[], Verb::Disable),
    ] {
        let mut engine = engine(config);
        engine.mirrors = mirrors.iter().map(|&url| url.into()).collect();
        let settling = plan(&engine, action, 7267, &Choice::AsNow).unwrap();
        assert!(settling.files.is_empty() && settling.apply == ApplyMethod::Nothing, "{settling:?}");
        assert!(settling.settles && settling.needs_elevation && !settling.is_nothing(), "{settling:?}");
        assert_eq!(settling.verb, verb);
        let notes = settling.notes.join(" ");
        assert!(notes.contains("cut short") && !notes.contains("as wanted"), "{notes}");
        engine.cut_short.clear();
        let usual = plan(&engine, action, 7267, &Choice::AsNow).unwrap();
        assert!(usual.is_nothing() && !usual.settles, "{usual:?}");
        assert_ne!(usual.id, settling.id, "a consent for one is none for the other");
    }
    let mut elsewhere = engine("{}");
    elsewhere.endpoint = "unix:///srv/docker.sock".into();
    let refused = plan(&elsewhere, Action::Disable, 7267, &Choice::AsNow);
    assert!(
        matches!(refused, Err(PlanError::NotTheSystems { .. })),
        "the helper knows one Docker: {refused:?}"
    );
}

/// A helper that does as it is told, and says what that was.
#[derive(Debug, Default)]
struct Asked(Mutex<Vec<Verb>>);

impl Elevation for Asked {
    fn run(&self, verb: Verb, _port: u16) -> BoxFuture<'_, Result<HelperReport, ElevationError>> {
        self.0.lock().unwrap().push(verb);
        let steps = vec!["Took everything back.".into()];
        let report = HelperReport { done: true, steps, ..HelperReport::default() };
        Box::pin(async { Ok(report) })
    }
}

#[tokio::test]
async fn agreeing_to_it_runs_the_helper_once_although_no_file_has_to_change() {
    let place = Place::new();
    let mut engine = engine(WANTED);
    engine.mirrors = vec!["http://127.0.0.1:7267/".into()];
    let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
    let helper = Asked::default();
    let applied = apply(&place.env, &engine, &planned, false, &helper).await.unwrap();
    assert_eq!(*helper.0.lock().unwrap(), [Verb::Enable]);
    assert_eq!(applied.steps, ["Took everything back."], "what it did is said");
}
