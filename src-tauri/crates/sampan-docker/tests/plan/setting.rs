//! Engines and files as they may be found.

use sampan_docker::{Access, Engine, FileSeen, HostsSeen, ImageStore, Kind, Part, Plan};
use sampan_oci::RegistryName;

pub(crate) const CONFIG: &str = "/etc/docker/daemon.json";
pub(crate) const OURS: &str = "http://127.0.0.1:7267";

pub(crate) fn seen(path: &str, bytes: Option<&[u8]>) -> FileSeen {
    FileSeen {
        path: path.into(),
        target: path.into(),
        bytes: bytes.map(<[u8]>::to_vec),
        access: Access::Writable,
        problem: None,
    }
}

pub(crate) fn registry(name: &str) -> RegistryName {
    name.parse().unwrap()
}

pub(crate) fn hosts(name: &str, bytes: Option<&[u8]>) -> HostsSeen {
    let file = seen(&format!("/etc/docker/certs.d/{name}/hosts.toml"), bytes);
    HostsSeen { registry: registry(name), served: true, beside: Vec::new(), file }
}

pub(crate) fn engine(kind: Kind, version: &str, store: ImageStore, config: Option<&str>) -> Engine {
    let mut engine = Engine::unknown("unix:///var/run/docker.sock".into());
    engine.found = true;
    engine.kind = kind;
    engine.version = Some(version.into());
    engine.image_store = Some(store);
    engine.config = Some(seen(CONFIG, config.map(str::as_bytes)));
    engine.hosts = vec![hosts("docker.io", None)];
    engine.pid = Some(4242);
    engine.may_signal = true;
    engine.unit = Some("docker.service".into());
    engine
}

pub(crate) fn parts(plan: &Plan) -> Vec<&str> {
    plan.files
        .iter()
        .map(|file| match &file.part {
            Part::DaemonJson => "daemon.json",
            Part::Hosts(registry) => registry.as_str(),
            Part::Client => "a client's",
        })
        .collect()
}

pub(crate) fn text(bytes: Option<&Vec<u8>>) -> &str {
    std::str::from_utf8(bytes.unwrap()).unwrap()
}
