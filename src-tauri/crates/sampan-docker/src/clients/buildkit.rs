//! Builders of `docker buildx` that run in a container of their own (driver `docker-container`): `buildkitd.toml`, which
//! is copied into a builder when it is made. They send `ns=`, so one address does for every registry.

use std::fmt::Write as _;

use sampan_oci::RegistryName;
use serde::Deserialize;

use super::{ClientId, ClientSeen, Format, Places, look_at};
use crate::files;

/// How many builders are looked at: a person has a handful.
const BUILDERS_MAX: usize = 64;

pub(super) const FORMAT: Format = Format { render, registry };

fn render(registries: &[RegistryName], port: u16) -> String {
    let mut text =
        String::from("# Written by Sampan, which takes it back: `sampan clients disable buildkit`\n");
    for name in registries {
        let _ = write!(text, "[registry.\"{name}\"]\n  mirrors = [\"127.0.0.1:{port}\"]\n\n");
    }
    let _ = write!(text, "[registry.\"127.0.0.1:{port}\"]\n  http = true\n");
    text
}

fn registry(line: &str) -> Option<&str> {
    line.strip_prefix("[registry.\"")?.strip_suffix("\"]")
}

/// A builder as buildx writes it down (`instances/<name>`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Builder {
    name: String,
    #[serde(default)]
    driver: String,
    #[serde(default)]
    nodes: Option<Vec<Node>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    driver_opts: Option<std::collections::BTreeMap<String, String>>,
}

impl Builder {
    /// Whether all its nodes have the network of their machine.
    fn is_on_host(&self) -> bool {
        let host = |node: &Node| {
            node.driver_opts
                .as_ref()
                .and_then(|opts| opts.get("network"))
                .is_some_and(|network| network == "host")
        };
        self.nodes.iter().flatten().all(host)
    }

    /// Whether its name can stand in a command as it is.
    fn is_plain(&self) -> bool {
        !self.name.is_empty()
            && self.name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    }
}

pub(super) fn look(places: &Places) -> ClientSeen {
    let mut seen = ClientSeen::new(ClientId::Buildkit);
    let folder = &places.buildx;
    let plugins = [
        "/usr/libexec/docker/cli-plugins",
        "/usr/lib/docker/cli-plugins",
        "/usr/local/lib/docker/cli-plugins",
    ];
    let mut others = plugins.map(|folder| std::path::Path::new(folder).join("docker-buildx")).to_vec();
    others.extend([places.docker.join("cli-plugins/docker-buildx"), folder.clone()]);
    seen.look(places, &["buildctl"], &others);
    let path = folder.join("buildkitd.default.toml");
    let mut builders: Vec<Builder> = std::fs::read_dir(folder.join("instances"))
        .into_iter()
        .flatten()
        .flatten()
        .take(BUILDERS_MAX)
        .filter_map(|entry| serde_json::from_slice(&files::read(&entry.path()).ok()??).ok())
        .filter(|builder: &Builder| builder.driver == "docker-container" && builder.is_plain())
        .collect();
    builders.sort_by(|one, other| one.name.cmp(&other.name));
    for builder in &builders {
        let network =
            if builder.is_on_host() { "the network of its machine" } else { "a network of its own" };
        seen.evidence.push(format!("the builder {} runs in a container with {network}", builder.name));
    }
    seen.notes.push(
        "buildx 0.9 and later give this file to every builder they make from now on. Builders that exist keep what they \
         have."
            .into(),
    );
    seen.notes.push(
        "A builder with a network of its own cannot reach 127.0.0.1 of this machine: it asks the registries as ever. Make it \
         with --driver-opt network=host."
            .into(),
    );
    seen.notes.push("The default builder is in Docker itself and is set up with it.".into());
    let create = |name: &str| {
        format!(
            "docker buildx create --name {name} --driver docker-container --driver-opt network=host --buildkitd-config \
             {}",
            crate::manual::quoted_path(&path)
        )
    };
    // Making one anew loses what only its owner knows of: shown, and never among the commands of a plan.
    for Builder { name, .. } in &builders {
        seen.notes.push(format!(
            "The builder {name} would have to be made anew, which loses its other nodes, options, platforms and \
             configuration (its build cache stays by --keep-state): docker buildx rm --keep-state {name} && {}",
            create(name)
        ));
    }
    if builders.is_empty() {
        seen.then[0].push(create("sampan"));
    }
    seen.file = Some(look_at(places, &path));
    seen
}
