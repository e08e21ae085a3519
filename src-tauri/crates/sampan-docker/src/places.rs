//! Where engines answer, on each system: a table. Pure; `*` stands for any one folder, and is looked up by the survey.
//!
//! Sources: the products' own documentation and defaults (Docker Desktop, Colima, Lima, OrbStack, Rancher Desktop,
//! Podman), docker/cli for the default endpoints.

use std::path::Path;

use crate::engine::Kind;

/// Operating systems, as far as engines are elsewhere on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Linux, WSL2 included.
    Linux,
    /// macOS.
    MacOs,
    /// Windows.
    Windows,
}

impl System {
    /// The one this program was built for; what is neither Windows nor macOS is taken for Linux.
    pub const HERE: Self = if cfg!(windows) {
        Self::Windows
    } else if cfg!(target_os = "macos") {
        Self::MacOs
    } else {
        Self::Linux
    };
}

/// A place where an engine may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `unix:///run/docker.sock`, `npipe:////./pipe/docker_engine`; one folder of the path may be `*`.
    pub endpoint: String,
    /// What is usually there. An engine that answers says itself what it is.
    pub kind: Kind,
    /// Whose place it is, for the evidence: `Colima's place`.
    pub whose: &'static str,
}

/// The table, for a person with this home folder and user id.
pub fn places(system: System, home: &Path, uid: u32) -> Vec<Place> {
    let vm = |name: &str| Kind::OtherVm(name.into());
    let home = home.to_string_lossy();
    let own = |path: &str| format!("unix://{}/{path}", home.trim_end_matches('/'));
    let run = |path: &str| format!("unix:///run/user/{uid}/{path}");
    let pipe = |name: &str| format!("npipe:////./pipe/{name}");
    let place = |endpoint: String, kind: Kind, whose| Place { endpoint, kind, whose };
    let machines = [
        place(own(".colima/*/docker.sock"), vm("Colima"), "Colima's place"),
        place(own(".config/colima/*/docker.sock"), vm("Colima"), "Colima's place"),
        place(own(".colima/docker.sock"), vm("Colima"), "the place of a Colima before 0.4"),
        place(own(".lima/*/sock/docker.sock"), vm("Lima"), "Lima's place"),
        place(own(".rd/docker.sock"), vm("Rancher Desktop"), "Rancher Desktop's place"),
    ];
    match system {
        System::Linux => {
            let mut found = vec![
                place("unix:///var/run/docker.sock".into(), Kind::Linux, "the usual place"),
                place(run("docker.sock"), Kind::Rootless, "the place of a rootless Docker"),
                place(own(".docker/run/docker.sock"), Kind::Rootless, "the place of a rootless Docker"),
                place(own(".docker/desktop/docker.sock"), Kind::Desktop, "Docker Desktop's place"),
            ];
            found.extend(machines);
            let guest = "unix:///mnt/wsl/docker-desktop/shared-sockets/guest-services/docker.proxy.sock";
            found.extend([
                place(guest.into(), Kind::Desktop, "where Docker Desktop for Windows reaches into WSL2"),
                place(
                    "unix:///mnt/wsl/rancher-desktop/run/docker.sock".into(),
                    vm("Rancher Desktop"),
                    "where Rancher Desktop reaches into WSL2",
                ),
                place(run("podman/podman.sock"), Kind::Podman, "the place of this user's Podman"),
                place("unix:///run/podman/podman.sock".into(), Kind::Podman, "the place of root's Podman"),
            ]);
            found
        }
        System::MacOs => {
            let mut found = vec![
                place("unix:///var/run/docker.sock".into(), vm("This engine"), "the usual place"),
                place(own(".docker/run/docker.sock"), Kind::Desktop, "Docker Desktop's place"),
                place(own(".orbstack/run/docker.sock"), vm("OrbStack"), "OrbStack's place"),
            ];
            found.extend(machines);
            let podman = ".local/share/containers/podman/machine";
            found.extend([
                place(own(&format!("{podman}/podman.sock")), Kind::Podman, "Podman's place"),
                place(own(&format!("{podman}/*/podman.sock")), Kind::Podman, "Podman's place"),
            ]);
            found
        }
        System::Windows => vec![
            place(pipe("docker_engine"), Kind::Windows, "the usual place"),
            place(pipe("dockerDesktopLinuxEngine"), Kind::Desktop, "Docker Desktop's place"),
            place(
                pipe("dockerDesktopWindowsEngine"),
                Kind::Windows,
                "Docker Desktop's place for Windows containers",
            ),
            place(pipe("podman-machine-default"), Kind::Podman, "Podman's place"),
        ],
    }
}
