//! An engine's files and a person's journal in a temporary folder, and the states that a power cut leaves them in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use sampan_docker::{Change, Engine, Environment, HostsSeen, ImageStore, Kind, Part, hosts_toml, look};
use sampan_oci::{Clock, Digest, Millis, RegistryName};
use serde_json::json;

pub(crate) const ENDPOINT: &str = "unix:///nowhere.sock";
pub(crate) const BEFORE: &str = "{\n  \"debug\": false\n}\n";
pub(crate) const AFTER: &str =
    "{\n  \"debug\": false,\n  \"registry-mirrors\": [\"http://127.0.0.1:7267\"]\n}\n";

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Millis {
        Millis(1_795_000_000_000)
    }
}

pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) env: Environment,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
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
        std::fs::create_dir(&env.state_dir).unwrap();
        Self { dir, env }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.at("daemon.json")
    }

    pub(crate) fn hosts(&self) -> PathBuf {
        self.at("certs.d/docker.io/hosts.toml")
    }

    /// An engine that needs both files, as it would be detected now.
    pub(crate) fn engine(&self) -> Engine {
        let mut engine = Engine::unknown(ENDPOINT.into());
        engine.kind = Kind::Linux;
        engine.found = true;
        engine.version = Some("29.7.2".into());
        engine.image_store = Some(ImageStore::Classic);
        engine.pid = Some(1);
        engine.may_signal = true;
        engine.config = Some(look(&self.config(), self.env.uid));
        let file = look(&self.hosts(), self.env.uid);
        engine.hosts =
            vec![HostsSeen { registry: RegistryName::docker_hub(), served: true, beside: Vec::new(), file }];
        engine
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.env.state_dir.join("docker.json")
    }

    pub(crate) fn write_journal(&self, pending: &[Change]) {
        std::fs::write(self.journal(), json!({"pending": pending, "installed": []}).to_string()).unwrap();
    }

    pub(crate) fn read_journal(&self) -> (usize, usize) {
        let value: serde_json::Value =
            serde_json::from_slice(&std::fs::read(self.journal()).unwrap()).unwrap();
        let count = |key: &str| value[key].as_array().unwrap().len();
        (count("pending"), count("installed"))
    }

    /// The state in which a power cut leaves enabling, with `now` in daemon.json, and its journal.
    pub(crate) fn interrupted(&self, now: &str) -> Vec<Change> {
        std::fs::create_dir_all(self.hosts().parent().unwrap()).unwrap();
        let toml = hosts_toml(&RegistryName::docker_hub(), 7267);
        std::fs::write(self.hosts(), &toml).unwrap();
        std::fs::write(self.config(), now).unwrap();
        let backup = self.at("daemon.json.sampan-backup-7");
        std::fs::write(&backup, BEFORE).unwrap();
        let hosts = Change {
            target: self.hosts(),
            part: Part::Hosts(RegistryName::docker_hub()),
            endpoint: ENDPOINT.into(),
            port: 7267,
            before: None,
            interim: None,
            going_back: None,
            after: Some(Digest::of(toml.as_bytes())),
            backup: None,
            made_folders: vec![self.at("certs.d"), self.at("certs.d/docker.io")],
            leaving: false,
        };
        let config = Change {
            target: self.config(),
            part: Part::DaemonJson,
            before: Some(Digest::of(BEFORE.as_bytes())),
            going_back: Some(Digest::of(b"{\"registry-mirrors\": []}")),
            after: Some(Digest::of(AFTER.as_bytes())),
            backup: Some(backup),
            made_folders: Vec::new(),
            ..hosts.clone()
        };
        vec![hosts, config]
    }

    /// Every file here and its bytes, but for the journal's folder.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.dir.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    if path != self.env.state_dir {
                        folders.push(path);
                    }
                } else {
                    found.insert(path.clone(), std::fs::read(&path).unwrap());
                }
            }
        }
        found
    }
}
