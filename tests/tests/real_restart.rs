//! A restart that a person asked for, with a real dockerd: what stops, what goes on, and what is left when the daemon
//! does not come back. The test is the service here, as systemd is elsewhere: it starts dockerd and starts it again.

#![cfg(target_os = "linux")]

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sampan_docker::{
    Action, Applied, ApplyError, ApplyMethod, Choice, Direct, Engine, Environment, Kind, Plan, PlanError,
    Service, apply, apply_with, backups, detect, plan, survey, undo_with,
};
use sampan_oci::{Clock, Millis, RegistryName};
use sampan_tests::{Dockerd, DockerdOptions, scratch, turn};

const DOCKER: [&str; 3] = ["dockerd", "docker", "unshare"];
const PORT: u16 = 7267;
const OURS: &str = "http://127.0.0.1:7267/";
const ORIGINAL: &str = "{\r\n\t\"debug\": false\r\n}";
const LIVE: &str = "{\"live-restore\": true}\n";
/// From the end of the old daemon to the new one.
const BACK_WITHIN: Duration = Duration::from_secs(45);

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Millis {
        Millis(1_795_000_000_000)
    }
}

/// What systemd is to dockerd elsewhere: ends it, starts it again, says whether it is ready or has failed.
struct Unit(Mutex<Dockerd>);

impl std::fmt::Debug for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unit")
    }
}

impl Unit {
    fn start(config: &str) -> Arc<Self> {
        let options = DockerdOptions { config: Some(config.into()), ..DockerdOptions::default() };
        Arc::new(Self(Mutex::new(Dockerd::start(options))))
    }

    fn dockerd(&self) -> MutexGuard<'_, Dockerd> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn again(&self, done: &str) -> Result<String, String> {
        self.dockerd().stop();
        self.dockerd().start_again();
        loop {
            let ready = self.dockerd().is_ready();
            match ready {
                Ok(true) => return Ok(done.into()),
                Ok(false) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(line) => return Err(format!("the unit failed: {line}.")),
            }
        }
    }

    fn container(&self) -> String {
        self.dockerd().container_state("sleeper")
    }
}

type Answer<'a> = std::pin::Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;

impl Service for Unit {
    fn restart(&self) -> Answer<'_> {
        Box::pin(self.again("Restarted the unit."))
    }

    fn start_anew(&self) -> Answer<'_> {
        Box::pin(self.again("Started the unit again."))
    }
}

/// A person's Sampan beside that dockerd.
struct Beside {
    unit: Arc<Unit>,
    env: Environment,
    folder: tempfile::TempDir,
}

impl Beside {
    fn start(config: &str) -> Self {
        let unit = Unit::start(config);
        let folder = scratch();
        let env = Environment {
            docker_host: Some(unit.dockerd().endpoint()),
            docker_context: None,
            docker_config_dir: None,
            buildx_config_dir: None,
            home: folder.path().into(),
            xdg_config_home: None,
            uid: 0,
            state_dir: folder.path().join("state"),
            system_state_dir: folder.path().join("system"),
            registries: vec![RegistryName::docker_hub()],
            clock: Arc::new(Stopped),
        };
        Self { unit, env, folder }
    }

    /// The engine, as one that a unit runs.
    async fn engine(&self) -> Engine {
        let mut engine = detect(&self.env).await;
        engine.unit = Some("docker.service".into());
        engine
    }

    async fn planned(&self, action: Action) -> (Engine, Plan) {
        let engine = self.engine().await;
        let planned = plan(&engine, action, PORT, &Choice::AsNow).expect("this Docker can be set up");
        let planned = planned.restarting(&engine).expect("a unit can be restarted");
        (engine, planned)
    }

    async fn apply(&self, engine: &Engine, plan: &Plan) -> Result<Applied, ApplyError> {
        apply_with(&self.env, engine, plan, true, &Direct, &*self.unit).await
    }

    fn config(&self) -> Option<String> {
        self.unit.dockerd().config()
    }

    fn mirrors(&self) -> Vec<String> {
        self.unit.dockerd().mirrors()
    }
}

#[tokio::test]
async fn real_restart_stops_containers_without_live_restore_and_says_which() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let beside = Beside::start(ORIGINAL);
    beside.unit.dockerd().start_container("sleeper");
    let old = beside.unit.dockerd().id();
    let (engine, planned) = beside.planned(Action::Enable).await;
    assert!(!engine.live_restore && !engine.swarm_active, "as dockerd says: {:#?}", engine.evidence);
    assert_eq!(planned.apply, ApplyMethod::Restart);
    assert_eq!(planned.stops, ["sleeper"], "what the person consents to");

    let refused = apply(&beside.env, &engine, &planned, false, &Direct).await;
    assert!(matches!(refused, Err(ApplyError::RestartNotConsented)), "{refused:?}");
    assert_eq!(beside.config().as_deref(), Some(ORIGINAL), "without that consent nothing is touched");
    assert!(beside.unit.container().starts_with("true "), "and nothing stops");

    // Started while a password was typed: the privileged helper, which plans anew, finds that nobody agreed to it.
    let (_, _, agreed) = planned.verb.means();
    beside.unit.dockerd().must(&[
        "run",
        "--detach",
        "--name=later",
        "--network=none",
        "--volume=/:/host:ro",
        "--stop-signal=SIGKILL",
        "sampan-sleeper:1",
        "sleep",
        "1000",
    ]);
    let (_, later) = beside.planned(Action::Enable).await;
    let others = later.stops_only(agreed.expect("it restarts"));
    assert_eq!(others, Err(vec!["later".to_owned(), "sleeper".into()]), "asked again, by name");
    beside.unit.dockerd().must(&["rm", "--force", "later"]);
    let (_, again) = beside.planned(Action::Enable).await;
    assert_eq!(again.stops_only(agreed.expect("it restarts")), Ok(()), "and not where it is gone again");

    let applied = beside.apply(&engine, &planned).await.expect("it restarts");
    assert_ne!(beside.unit.dockerd().id(), old, "another process");
    assert_eq!(beside.mirrors(), [OURS], "which read the new file: {applied:#?}");
    assert!(beside.unit.container().starts_with("false "), "the container was stopped, as was said");

    let (engine, planned) = beside.planned(Action::Disable).await;
    assert!(planned.stops.is_empty(), "nothing runs any more");
    beside.apply(&engine, &planned).await.expect("it restarts");
    assert_eq!(beside.config().as_deref(), Some(ORIGINAL), "byte for byte as it was");
    assert_eq!(beside.mirrors(), Vec::<String>::new(), "and dockerd has let go");
}

#[tokio::test]
async fn real_restart_leaves_containers_running_with_live_restore() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let beside = Beside::start(LIVE);
    beside.unit.dockerd().start_container("sleeper");
    let before = beside.unit.container();
    assert!(before.starts_with("true "), "it runs: {before}");
    let old = beside.unit.dockerd().id();
    let (engine, planned) = beside.planned(Action::Enable).await;
    assert!(engine.live_restore, "as dockerd says: {:#?}", engine.evidence);
    assert_eq!(engine.containers, ["sleeper"]);
    assert!(planned.stops.is_empty(), "nothing stops: {planned:#?}");

    let applied = beside.apply(&engine, &planned).await.expect("it restarts");
    assert_ne!(beside.unit.dockerd().id(), old, "another dockerd");
    assert_eq!(beside.mirrors(), [OURS], "with the new file: {applied:#?}");
    assert_eq!(beside.unit.container(), before, "the same process since the same moment");

    let restarted = beside.unit.dockerd().id();
    let steps = undo_with(&beside.env, &engine, &planned, &applied, &Direct, &*beside.unit).await;
    assert_eq!(beside.config().as_deref(), Some(LIVE), "byte for byte as it was: {steps:#?}");
    assert_eq!(beside.mirrors(), Vec::<String>::new(), "by a reload");
    assert_eq!(beside.unit.dockerd().id(), restarted, "not by another restart");
    assert_eq!(beside.unit.container(), before, "and the container runs on");
    beside.unit.dockerd().must(&["rm", "--force", "sleeper"]);
}

/// Somebody edits the unit after dockerd was started; it then starts with the old file only.
async fn assert_taken_back(program: &str, config: &str, words: &str, within: Duration) {
    let beside = Beside::start(config);
    beside.unit.dockerd().edit_unit(program);
    let (engine, planned) = beside.planned(Action::Enable).await;
    let begun = Instant::now();
    let failed = beside.apply(&engine, &planned).await;
    let took = begun.elapsed();
    let Err(error) = &failed else { panic!("it does not start with the new file: {failed:?}") };
    let ApplyError::RolledBack { reason, steps } = error else { panic!("it is taken back: {failed:?}") };
    assert!(reason.contains(words), "why: {reason}");
    assert!(error.to_string().ends_with("Everything is as it was before."), "one clear message: {error}");
    assert_eq!(beside.config().as_deref(), Some(config), "byte for byte as it was: {steps:#?}");
    assert!(detect(&beside.env).await.found, "and Docker runs");
    assert!(took <= within, "up again after {took:?}");
    eprintln!("taken back, and up again, after {:.1} s", took.as_secs_f64());
    assert!(
        beside.apply(&engine, &planned).await.is_err(),
        "nothing is left half done that would be in the way"
    );
    assert_eq!(beside.config().as_deref(), Some(config), "byte for byte as it was, again");
}

#[tokio::test]
async fn real_restart_that_meets_a_new_flag_is_taken_back_to_the_byte() {
    let Some(_turn) = turn(&DOCKER) else { return };
    // dockerd does not start with mirrors in both places; the plan was made before the flag was there.
    let program = "exec dockerd --registry-mirror=https://mirror.example \"$@\"";
    assert_taken_back(program, ORIGINAL, "the unit failed", BACK_WITHIN / 2).await;
}

#[tokio::test]
async fn real_restart_that_hangs_is_taken_back_to_the_byte_within_45_s() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let program =
        "if grep -q registry-mirrors \"$0/etc/daemon.json\"; then exec sleep 1000; fi; exec dockerd \"$@\"";
    let beside = Beside::start(LIVE);
    beside.unit.dockerd().start_container("sleeper");
    let before = beside.unit.container();
    beside.unit.dockerd().edit_unit(program);
    let (engine, planned) = beside.planned(Action::Enable).await;
    let begun = Instant::now();
    let failed = beside.apply(&engine, &planned).await;
    let took = begun.elapsed();
    let Err(ApplyError::RolledBack { reason, steps }) = failed else { panic!("it hangs: {failed:?}") };
    assert!(reason.contains("within 30 s"), "{reason}");
    assert_eq!(beside.config().as_deref(), Some(LIVE), "byte for byte as it was: {steps:#?}");
    assert_eq!(beside.mirrors(), Vec::<String>::new(), "and Docker runs as before");
    assert!(took <= BACK_WITHIN, "up again after {took:?}");
    println!("hung: taken back, and up again, after {:.1} s", took.as_secs_f64());
    assert_eq!(beside.unit.container(), before, "the container ran on all the while");
    beside.unit.dockerd().must(&["rm", "--force", "sleeper"]);
}

#[tokio::test]
async fn real_restart_whose_way_back_fails_keeps_both_files_and_prints_the_commands() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let beside = Beside::start(ORIGINAL);
    let config = beside.unit.dockerd().config_file();
    // Neither the new file nor the old one helps: dockerd is gone for good.
    beside.unit.dockerd().edit_unit("exec false");
    let (engine, planned) = beside.planned(Action::Enable).await;
    let failed = beside.apply(&engine, &planned).await;
    let Err(ApplyError::RollbackFailed { reason, detail, commands }) = failed else { panic!("{failed:?}") };
    assert!(
        reason.contains("did not come back") && detail.contains("did not start again"),
        "{reason} {detail}"
    );
    assert_eq!(beside.config().as_deref(), Some(ORIGINAL), "the file is back all the same");
    let kept = backups(&config);
    assert_eq!(kept.len(), 1, "and so is its copy: {kept:?}");
    assert_eq!(std::fs::read_to_string(&kept[0]).expect("it can be read"), ORIGINAL);
    let [write, start] = &commands[..] else { panic!("two commands: {commands:#?}") };
    assert!(write.contains("daemon.json"), "{write}");
    assert!(
        start.contains("systemctl reset-failed docker.service && ") && start.contains("restart"),
        "{start}"
    );
    let written = std::process::Command::new("bash").arg("-c").arg(write.replace("sudo ", "")).status();
    assert!(written.is_ok_and(|status| status.success()), "the command works: {write}");
    assert_eq!(beside.config().as_deref(), Some(ORIGINAL), "and writes what was there");
}

#[tokio::test]
async fn real_dockerd_started_by_hand_is_not_restarted_and_the_survey_finds_it() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let beside = Beside::start(ORIGINAL);
    let engine = detect(&beside.env).await;
    let planned = plan(&engine, Action::Enable, PORT, &Choice::AsNow).expect("this Docker can be set up");
    let refused = planned.restarting(&engine);
    let Err(PlanError::NotRestartable { reason, commands }) = refused else { panic!("{refused:?}") };
    let pid = beside.unit.dockerd().id();
    assert!(reason.contains(&format!("process {pid}")), "{reason}");
    assert_eq!(commands[0], format!("kill {pid}"), "the commands for whoever started it");
    let endpoint = beside.unit.dockerd().endpoint();
    assert!(commands[1].starts_with("dockerd ") && commands[1].contains(&endpoint), "{commands:?}");
    assert_eq!(beside.config().as_deref(), Some(ORIGINAL), "nothing was touched");

    // Its socket is in no table and in no context; a context of another socket is beside it.
    let meta = beside.folder.path().join(".docker/contexts/meta/x");
    std::fs::create_dir_all(&meta).expect("a temporary folder can be written to");
    let gone = beside.folder.path().join("gone.sock");
    let described =
        format!(r#"{{"Name":"gone","Endpoints":{{"docker":{{"Host":"unix://{}"}}}}}}"#, gone.display());
    std::fs::write(meta.join("meta.json"), described).expect("a temporary folder can be written to");
    let env = Environment { docker_host: Some("tcp://10.0.0.1:2375".into()), ..beside.env.clone() };
    let begun = Instant::now();
    let found = survey(&env).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(4), "nobody is waited for: {took:?}");
    println!("survey: {} engines in {} ms", found.len(), took.as_millis());
    assert!(found[0].current && found[0].kind == Kind::Remote && !found[0].answers, "{:#?}", found[0]);
    let ours = found.iter().find(|engine| Path::new(&engine.endpoint) == Path::new(&endpoint));
    let ours = ours.unwrap_or_else(|| panic!("by its process: {found:#?}"));
    assert!(ours.answers && !ours.current && ours.kind == Kind::Linux, "{ours:#?}");
    assert!(ours.evidence.concat().contains(&format!("process {pid}")), "{:#?}", ours.evidence);
    let gone = found.iter().find(|engine| engine.contexts == ["gone"]).expect("every context is shown");
    assert!(!gone.answers && gone.version.is_none(), "{gone:#?}");
    let current = survey(&beside.env).await;
    assert!(current[0].current && current[0].endpoint == endpoint && current[0].answers, "{:#?}", current[0]);
}
