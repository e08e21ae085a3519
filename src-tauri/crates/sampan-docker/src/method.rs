//! Which engine is set up how: one table, pure. Source: the engine matrix of moby 20.10 to 29.

use crate::engine::{Engine, ImageStore, Kind, Version};

/// How an engine is pointed at a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `hosts.toml` alone, read at each pull.
    HostsOnly,
    /// `hosts.toml` first, then `registry-mirrors` and a reload: the two belong together.
    HostsAndMirrors,
    /// `registry-mirrors` and a reload.
    Mirrors,
    /// `registry-mirrors` in Docker Desktop's own file and a restart of the app.
    Desktop,
}

/// Why an engine is not set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unsupported {
    /// Why, one English sentence.
    pub reason: String,
    /// What a person can do instead, one English sentence.
    pub advice: String,
}

/// What Docker Desktop is called where it is seen from a Linux inside Windows.
pub(crate) const WSL_DESKTOP: &str = "Docker Desktop for Windows";

/// The table.
///
/// # Errors
/// [`Unsupported`] for engines Sampan does not set up, with the reason and an advice.
pub(crate) fn method(engine: &Engine) -> Result<Method, Unsupported> {
    let version = engine.version.as_deref().and_then(Version::parse);
    match &engine.kind {
        Kind::None => no("No container engine answers.", "Start Docker and try again."),
        Kind::Remote => no(
            "The current Docker context may lead to another machine, where a mirror on this one cannot be reached.",
            "Choose a local context with `docker context use default`, or unset DOCKER_HOST.",
        ),
        Kind::Podman => no(
            "This is Podman, which reads its own registries.conf.",
            "Set it up with `sampan clients enable podman`.",
        ),
        Kind::OtherVm(name) if name == WSL_DESKTOP => no(
            "Docker Desktop belongs to Windows here, and so does its daemon.json.",
            "Run Sampan on Windows, or add it to registry-mirrors in Docker Desktop's settings (Docker Engine).",
        ),
        Kind::OtherVm(name) => no(
            &format!("{name} runs Docker in a virtual machine with a configuration of its own."),
            "Add Sampan to registry-mirrors in that product's own settings.",
        ),
        Kind::Windows => no(
            "Docker for Windows containers cannot be set up by Sampan yet.",
            "Add Sampan to registry-mirrors in C:\\ProgramData\\docker\\config\\daemon.json and restart the service.",
        ),
        Kind::Desktop => Ok(Method::Desktop),
        Kind::Linux | Kind::Rootless | Kind::Snap if engine.pid.is_none() => no(
            "The daemon behind the socket is not a process that can be seen from here.",
            "Run Sampan on the machine and in the system that runs dockerd.",
        ),
        Kind::Linux | Kind::Rootless | Kind::Snap => {
            let (Some(version), Some(store)) = (version, engine.image_store) else {
                return no(
                    "The engine does not say its version or its image store.",
                    "Update Docker and try again.",
                );
            };
            if engine.kind == Kind::Rootless && version < Version(29, 5, 0) {
                return no(
                    "A rootless Docker before 29.5 cannot reach services on 127.0.0.1 of this machine.",
                    "Update to Docker 29.5, or set DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK=false for its \
                     service and use http://10.0.2.2 with Sampan's port.",
                );
            }
            if engine.kind == Kind::Snap && version >= Version(28, 0, 0) {
                return no(
                    "Where Docker 28 and later from the snap package reads hosts.toml is not known.",
                    "Install Docker Engine from docker.com, or set the mirror up by hand.",
                );
            }
            Ok(linux(version, store))
        }
    }
}

fn linux(version: Version, store: ImageStore) -> Method {
    match store {
        ImageStore::Containerd if version >= Version(28, 0, 0) => Method::HostsOnly,
        ImageStore::Classic if version >= Version(28, 0, 0) => Method::HostsAndMirrors,
        ImageStore::Containerd | ImageStore::Classic => Method::Mirrors,
    }
}

fn no(reason: &str, advice: &str) -> Result<Method, Unsupported> {
    Err(Unsupported { reason: reason.into(), advice: advice.into() })
}
