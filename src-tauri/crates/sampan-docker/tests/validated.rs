//! What a dockerd that can be asked says of the new file, before anything is written (R107). The dockerd here is a script,
//! which keeps what it was asked; a real one is asked in `dockerd.rs`, where it is new enough.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use sampan_docker::{
    Action, ApplyError, Choice, Direct, Engine, Environment, ImageStore, Kind, apply, backups, look, plan,
    recover,
};
use sampan_oci::{Clock, Millis, RegistryName};

const BEFORE: &str = "{\r\n\t\"debug\": false,\r\n\t\"dns\": []\r\n}";

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
    /// With a dockerd that does `script` when it is asked about a file, which is its `$3`.
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("daemon.json"), BEFORE).unwrap();
        let dockerd = dir.path().join("dockerd");
        let asked = dir.path().join("asked").display().to_string();
        let keeps = format!("echo \"$1 $2\" >> {asked}.words; env >> {asked}.env; cat \"$3\" >> {asked}");
        std::fs::write(&dockerd, format!("#!/bin/sh\n{keeps}\n{script}\n")).unwrap();
        std::fs::set_permissions(&dockerd, std::fs::Permissions::from_mode(0o755)).unwrap();
        let env = Environment {
            docker_host: None,
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

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn engine(&self) -> Engine {
        let mut engine = Engine::unknown("unix:///nowhere.sock".into());
        (engine.found, engine.kind, engine.pid) = (true, Kind::Linux, Some(u32::MAX));
        engine.version = Some("23.0.18".into());
        engine.image_store = Some(ImageStore::Classic);
        engine.may_signal = true;
        engine.config = Some(look(&self.at("daemon.json"), self.env.uid));
        engine.validator = Some(self.at("dockerd"));
        engine
    }

    async fn enable(&self) -> Result<Vec<String>, ApplyError> {
        let engine = self.engine();
        let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
        apply(&self.env, &engine, &planned, false, &Direct).await.map(|applied| applied.steps)
    }
}

#[tokio::test]
async fn what_dockerd_itself_refuses_is_never_written_and_its_own_words_are_said() {
    for (script, says, why) in [
        (
            "echo warning >&2; echo \"unable to configure the Docker daemon with file $3: no such key\" >&2; exit 1",
            "unable to configure the Docker daemon with file <FILE>: no such key",
            "its last line, and the file that is meant",
        ),
        ("exit 1", "it did not say why", "a silent one"),
        ("kill -9 $$", "it did not say why", "one that crashes"),
    ] {
        let place = Place::new(script);
        let config = place.at("daemon.json");
        let inode = std::fs::metadata(&config).unwrap().ino();
        let refused = place.enable().await;
        let Err(ApplyError::Invalid(said)) = &refused else { panic!("{why}: {refused:?}") };
        assert_eq!(*said, says.replace("<FILE>", &config.display().to_string()), "{why}");
        assert_eq!(std::fs::read_to_string(&config).unwrap(), BEFORE, "byte for byte: {why}");
        assert_eq!(std::fs::metadata(&config).unwrap().ino(), inode, "not even written anew: {why}");
        assert!(backups(&config).is_empty(), "what was not edited has no backup: {why}");
        assert!(!place.at("state/docker.json").exists(), "nothing was begun: {why}");
        let left = std::fs::read_dir(place.at("state")).unwrap().count();
        assert_eq!(left, 0, "the file it was shown is gone: {why}");
        assert!(recover(&place.env, &place.engine()).await.unwrap().is_empty(), "nothing to settle: {why}");
        assert!(refused.unwrap_err().to_string().contains("dockerd refuses"), "{why}");
    }
}

#[tokio::test]
async fn dockerd_is_shown_exactly_what_will_be_written_and_nothing_of_the_surroundings() {
    let place = Place::new("exit 0");
    let planned = plan(&place.engine(), Action::Enable, 7267, &Choice::AsNow).unwrap();
    // No engine answers, so that it is taken back: after dockerd has been asked.
    let failed = place.enable().await;
    let Err(ApplyError::RolledBack { steps, .. }) = failed else { panic!("nobody answers: {failed:?}") };
    assert!(steps[0].ends_with("dockerd finds it valid."), "{steps:#?}");
    assert_eq!(std::fs::read(place.at("asked")).unwrap(), planned.files[0].after.clone().unwrap());
    assert_eq!(std::fs::read_to_string(place.at("asked.words")).unwrap(), "--validate --config-file\n");
    let env = std::fs::read_to_string(place.at("asked.env")).unwrap();
    assert!(!env.contains("HOME="), "no HOME, no PATH of the caller's: {env}");
    assert_eq!(std::fs::read_to_string(place.at("daemon.json")).unwrap(), BEFORE, "and back, byte for byte");
}

#[tokio::test]
async fn a_dockerd_that_cannot_be_asked_changes_nothing_either() {
    let place = Place::new("exit 0");
    std::fs::remove_file(place.at("dockerd")).unwrap();
    let refused = place.enable().await;
    assert!(
        matches!(&refused, Err(ApplyError::Io { path, .. }) if *path == place.at("dockerd")),
        "{refused:?}"
    );
    assert_eq!(std::fs::read_to_string(place.at("daemon.json")).unwrap(), BEFORE);
    assert!(!place.at("state/docker.json").exists(), "nothing was begun");
}
