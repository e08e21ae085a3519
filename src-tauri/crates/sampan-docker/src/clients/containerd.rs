//! containerd: `certs.d/<registry>/hosts.toml`, the file that Docker 28 reads too, read at each pull.

use std::path::Path;

use sampan_oci::RegistryName;

use super::{ClientId, ClientSeen, Places};
use crate::detect;
use crate::files;

pub(super) fn look(places: &Places, served: &[RegistryName]) -> ClientSeen {
    let mut seen = ClientSeen::new(ClientId::Containerd);
    let folder = places.etc.join("containerd");
    seen.look(places, &["containerd", "nerdctl"], &[folder.join("config.toml")]);
    let certs = folder.join("certs.d");
    seen.hosts = detect::hosts(&certs, served, places.uid);
    seen.notes.push("The files are read at each pull: nothing restarts.".into());
    match registry_settings(&folder.join("config.toml")) {
        Settings::ConfigPath(line) => seen.evidence.push(format!("containerd's config.toml says {line}")),
        Settings::Inline => seen.notes.push(
            "containerd's config.toml has registry.mirrors of its own, with which Kubernetes (CRI) does not read these files."
                .into(),
        ),
        Settings::Nothing => seen.notes.push(format!(
            "Kubernetes (CRI) reads them from containerd 2.2 on. Before that config.toml needs config_path = \"{}\" in \
             [plugins.\"io.containerd.grpc.v1.cri\".registry], and containerd a restart.",
            certs.display()
        )),
    }
    seen.notes.push(format!("`ctr` reads them when told: ctr images pull --hosts-dir {} …", certs.display()));
    seen
}

/// A user's own containerd.
pub(super) fn look_rootless(places: &Places, served: &[RegistryName]) -> ClientSeen {
    let mut seen = ClientSeen::new(ClientId::Nerdctl);
    if places.uid == 0 {
        seen.evidence.push("root's nerdctl reads the system's files, as containerd does".into());
        seen.hands_off =
            Some("This is for users who run a containerd of their own: set up containerd instead.".into());
        return seen;
    }
    seen.look(places, &["nerdctl", "containerd-rootless.sh"], &[]);
    seen.hosts = detect::hosts(&places.config.join("containerd/certs.d"), served, places.uid);
    seen.notes.push("The files are read at each pull: nothing restarts.".into());
    seen.notes.push(
        "A rootless containerd often has a network of its own, in which 127.0.0.1 is not this machine: then it asks the \
         registries as ever."
            .into(),
    );
    seen
}

/// What containerd's own configuration says of registries, as far as it decides who reads `certs.d`.
enum Settings {
    /// Where the files are, as the line says it.
    ConfigPath(String),
    /// Mirrors in the file itself.
    Inline,
    /// Nothing.
    Nothing,
}

fn registry_settings(config: &Path) -> Settings {
    let bytes = files::read(config).ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines = || text.lines().map(str::trim);
    let named = lines().find(|line| {
        let value = line.strip_prefix("config_path").and_then(|rest| rest.trim_start().strip_prefix('='));
        value.is_some_and(|value| !matches!(value.trim(), "\"\"" | "''"))
    });
    match named {
        Some(line) => Settings::ConfigPath(line.to_owned()),
        None if lines().any(|line| line.starts_with('[') && line.contains("registry.mirrors")) => {
            Settings::Inline
        }
        None => Settings::Nothing,
    }
}
