//! What is left when a daemon does not come back after a restart that was asked for. No engine answers here: its socket
//! does not exist, and the service that is to restart it says what the test wants.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use sampan_docker::{
    Action, ApplyError, Choice, Direct, Engine, Environment, HostsSeen, ImageStore, Kind, Plan, Service,
    apply_with, backups, look, plan,
};
use sampan_oci::{Clock, Millis, RegistryName};

const BEFORE: &str = "{\r\n  \"debug\": false\r\n}";

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Millis {
        Millis(1_795_000_000_000)
    }
}

/// What happens between the new file and the daemon's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    AnotherEdits,
    TheFolderGoes,
}

#[derive(Debug)]
struct Failing {
    folder: PathBuf,
    meanwhile: Meanwhile,
    started: AtomicUsize,
}

impl Service for Failing {
    fn restart(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async move {
            match self.meanwhile {
                Meanwhile::Nothing => {}
                Meanwhile::AnotherEdits => {
                    std::fs::write(self.folder.join("daemon.json"), "{\"debug\": true}").unwrap();
                }
                Meanwhile::TheFolderGoes => {
                    std::fs::rename(&self.folder, self.folder.with_extension("away")).unwrap();
                }
            }
            Err("`systemctl restart docker.service` failed: see its log.".into())
        })
    }

    fn start_anew(&self) -> BoxFuture<'_, Result<String, String>> {
        self.started.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Err("`systemctl restart docker.service` failed: see its log.".into()) })
    }
}

struct Place {
    _dir: tempfile::TempDir,
    env: Environment,
    engine: Engine,
    plan: Plan,
    service: Failing,
}

impl Place {
    fn new(meanwhile: Meanwhile) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("etc");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("daemon.json"), BEFORE).unwrap();
        let uid = rustix::process::getuid().as_raw();
        let env = Environment {
            docker_host: None,
            docker_context: None,
            docker_config_dir: None,
            buildx_config_dir: None,
            home: dir.path().into(),
            xdg_config_home: None,
            uid,
            state_dir: dir.path().join("state"),
            system_state_dir: dir.path().join("system"),
            registries: vec![RegistryName::docker_hub()],
            clock: Arc::new(Stopped),
        };
        let mut engine = Engine::unknown("unix:///nowhere.sock".into());
        engine.found = true;
        engine.kind = Kind::Linux;
        engine.version = Some("20.10.24".into());
        engine.image_store = Some(ImageStore::Classic);
        // No process has this number.
        engine.pid = Some(u32::MAX);
        engine.may_signal = true;
        engine.unit = Some("docker.service".into());
        engine.config = Some(look(&folder.join("daemon.json"), uid));
        let file = look(&folder.join("certs.d/docker.io/hosts.toml"), uid);
        engine.hosts =
            vec![HostsSeen { registry: RegistryName::docker_hub(), served: true, beside: Vec::new(), file }];
        let plan = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap().restarting(&engine).unwrap();
        let service = Failing { folder, meanwhile, started: AtomicUsize::new(0) };
        Self { _dir: dir, env, engine, plan, service }
    }

    async fn fail(&self) -> (String, String, Vec<String>) {
        match apply_with(&self.env, &self.engine, &self.plan, true, &Direct, &self.service).await {
            Err(ApplyError::RollbackFailed { reason, detail, commands }) => (reason, detail, commands),
            other => panic!("taking it back fails too: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_daemon_that_never_comes_back_is_started_anew_once_and_left_with_the_bytes_from_before() {
    let place = Place::new(Meanwhile::Nothing);
    let (reason, detail, commands) = place.fail().await;
    assert!(
        reason.contains("did not come back") && detail.contains("did not start again"),
        "{reason} {detail}"
    );
    assert_eq!(place.service.started.load(Ordering::Relaxed), 1, "never a loop");
    let config = place.service.folder.join("daemon.json");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), BEFORE, "byte for byte");
    assert_eq!(commands.len(), 2, "the file and the daemon: {commands:#?}");
    let start = "systemctl reset-failed docker.service && ";
    assert!(commands[1].contains(start), "{commands:#?}");
}

#[tokio::test]
async fn what_another_wrote_meanwhile_is_not_overwritten_and_both_files_are_kept() {
    let place = Place::new(Meanwhile::AnotherEdits);
    let (_, detail, commands) = place.fail().await;
    assert!(detail.contains("changed by somebody else"), "{detail}");
    let config = place.service.folder.join("daemon.json");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "{\"debug\": true}", "theirs");
    let kept = backups(&config);
    assert_eq!(std::fs::read_to_string(&kept[0]).unwrap(), BEFORE, "and the file from before beside it");
    assert_eq!(place.service.started.load(Ordering::Relaxed), 0, "nobody knows what it would start with");
    assert_eq!(commands.len(), 2, "a person decides: {commands:#?}");
}

#[tokio::test]
async fn a_file_that_cannot_be_put_back_leaves_both_files_and_the_commands() {
    let place = Place::new(Meanwhile::TheFolderGoes);
    let (reason, detail, commands) = place.fail().await;
    assert!(reason.contains("did not come back") && detail.contains("daemon.json"), "{reason} {detail}");
    let config = place.service.folder.with_extension("away").join("daemon.json");
    assert!(std::fs::read_to_string(&config).unwrap().contains("7267"), "the new one");
    assert_eq!(std::fs::read_to_string(&backups(&config)[0]).unwrap(), BEFORE, "and the old one");
    assert!(commands[0].contains("daemon.json") && commands[1].contains("reset-failed"), "{commands:#?}");
    assert_eq!(place.service.started.load(Ordering::Relaxed), 0, "it would meet the same file");
}
