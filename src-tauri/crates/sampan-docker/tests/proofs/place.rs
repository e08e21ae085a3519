//! A folder that is a whole machine to Sampan: configuration, journal, clock.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sampan_docker::{Engine, Environment, HostsSeen, ImageStore, Kind, look};
use sampan_oci::{Clock, Millis, RegistryName};
use sampan_testkit::cannot_run;

/// A user of no importance, who would like to be root.
pub(crate) const STRANGER: u32 = 4321;

/// Each reading is a millisecond later.
#[derive(Debug, Default)]
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Millis {
        Millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Surroundings below `folder`, with the engine at `endpoint`.
pub(crate) fn environment(folder: &Path, endpoint: Option<String>) -> Environment {
    Environment {
        docker_host: endpoint,
        docker_context: None,
        docker_config_dir: None,
        buildx_config_dir: None,
        home: folder.into(),
        xdg_config_home: None,
        uid: rustix::process::getuid().as_raw(),
        state_dir: folder.join("state"),
        system_state_dir: folder.join("system"),
        registries: vec![RegistryName::docker_hub()],
        clock: Arc::new(Ticking::default()),
    }
}

/// A dockerd that answers nowhere and reads `config` and `hosts`: a new one that needs only the second, or an old one
/// that needs only the first.
pub(crate) fn engine(store: ImageStore, version: &str, config: &Path, hosts: &Path) -> Engine {
    let uid = rustix::process::getuid().as_raw();
    let mut engine = Engine::unknown("unix:///nowhere.sock".into());
    engine.kind = Kind::Linux;
    engine.found = true;
    engine.version = Some(version.into());
    engine.image_store = Some(store);
    engine.pid = Some(1);
    engine.may_signal = true;
    engine.config = Some(look(config, uid));
    engine.hosts = vec![HostsSeen {
        registry: RegistryName::docker_hub(),
        served: true,
        beside: Vec::new(),
        file: look(hosts, uid),
    }];
    engine
}

/// One that only reads `hosts.toml`, and needs not be told.
pub(crate) fn reads_hosts(config: &Path, hosts: &Path) -> Engine {
    engine(ImageStore::Containerd, "29.7.2", config, hosts)
}

/// One that only reads `daemon.json`.
pub(crate) fn reads_config(config: &Path, hosts: &Path) -> Engine {
    engine(ImageStore::Classic, "20.10.24+dfsg1", config, hosts)
}

/// Everything below `folder`: kind and mode, owner, and the content or where a link leads.
pub(crate) fn tree(folder: &Path) -> BTreeMap<PathBuf, (u32, u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_symlink() {
                std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if metadata.is_file() {
                std::fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            if metadata.is_dir() {
                folders.push(path.clone());
            }
            found.insert(path, (metadata.mode(), metadata.uid(), content));
        }
    }
    found
}

/// Sets the mode of what is there.
pub(crate) fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Whether the test may give files away; says so where it may not, and fails in CI.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::getuid().is_root();
    if !root {
        cannot_run("only root can give files away and act as another user");
    }
    root
}

/// Whether `program` is installed; says so where it is not, and fails in CI.
pub(crate) fn has(program: &str) -> bool {
    let found =
        ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|dir| Path::new(dir).join(program).exists());
    if !found {
        cannot_run(&format!("{program} is not installed"));
    }
    found
}
