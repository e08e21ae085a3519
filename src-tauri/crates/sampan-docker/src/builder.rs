//! Which builders `docker build` may use, and whether they would ask Sampan. Pure but for [`look`], which reads buildx's
//! folder.
//!
//! Sources: docker/buildx `store/store.go`, `store/nodegroup.go` (the files), `store/storeutil` (which one is current);
//! moby/buildkit `cmd/buildkitd/config` and `util/resolver` (what a builder's own configuration says of mirrors).

use std::collections::BTreeMap;
use std::path::Path;

use sampan_oci::Digest;
use serde::Deserialize;

use crate::context::same_endpoint;
use crate::engine::{Engine, Kind};
use crate::files;

/// How many builders are looked at: a person has a handful.
const BUILDERS_MAX: usize = 64;
/// The configuration of a builder, under the name buildx keeps it.
const CONFIG: &str = "buildkitd.toml";

/// One builder, as buildx describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Builder {
    /// Its name.
    pub name: String,
    /// `docker`, `docker-container`, `kubernetes`, `remote`, `cloud`.
    pub driver: String,
    /// Whether `docker build` uses it now.
    pub current: bool,
    /// Where its parts run: names of contexts, or endpoints.
    pub endpoints: Vec<String>,
    /// The mirrors of docker.io in its own configuration, in order: `host:port`, as each of its parts has them.
    pub mirrors: Vec<Vec<Mirror>>,
    /// Whether each of its containers has the network of the machine it runs on.
    pub host_network: bool,
}

/// A mirror in a builder's own configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// `host[:port][/path]`.
    pub address: String,
    /// Whether the builder is told to speak plain http to it.
    pub http: bool,
}

/// What buildx's folder says.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    /// The content of every file in `instances`.
    pub instances: Vec<Vec<u8>>,
    /// The content of `current`.
    pub current: Option<Vec<u8>>,
    /// The content of the file in `defaults` for the engine that is meant.
    pub default: Option<Vec<u8>>,
}

/// Reads buildx's folder, for the engine whose context or endpoint is `key`.
pub(crate) fn look(folder: &Path, key: &str) -> Folder {
    let file = |name: &str| files::read(&folder.join(name)).ok().flatten();
    let mut names: Vec<_> = std::fs::read_dir(folder.join("instances"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        // What is being written has a name with a dot in front.
        .filter(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')))
        .take(BUILDERS_MAX)
        .collect();
    names.sort();
    Folder {
        instances: names.iter().filter_map(|path| files::read(path).ok().flatten()).collect(),
        current: file("current"),
        default: file(&format!("defaults/{}", default_name(key))),
    }
}

/// The name of the file that says which builder is usual with an engine: the beginning of a hash.
fn default_name(key: &str) -> String {
    Digest::of(key.as_bytes()).hex().chars().take(20).collect()
}

/// Every builder: the engine's own first (it is always there), then those of the folder. `key` is what buildx calls the
/// engine: its context's name, or its endpoint. What is not understood is left out.
pub fn builders(folder: &Folder, context: Option<&str>, key: &str) -> Vec<Builder> {
    let own = context.unwrap_or("default");
    let mut found: Vec<Builder> = folder.instances.iter().filter_map(|bytes| parse(bytes)).collect();
    found.retain(|builder| builder.name != own);
    let chosen = chosen(folder, key).filter(|name| found.iter().any(|builder| builder.name == *name));
    for builder in &mut found {
        builder.current = chosen.as_deref() == Some(builder.name.as_str());
    }
    let engines = Builder {
        name: own.into(),
        driver: "docker".into(),
        current: chosen.is_none(),
        endpoints: vec![own.into()],
        mirrors: Vec::new(),
        host_network: false,
    };
    found.insert(0, engines);
    found
}

/// The builder that was chosen with `docker buildx use`, for this engine or for all.
fn chosen(folder: &Folder, key: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Current {
        #[serde(default)]
        key: String,
        #[serde(default)]
        name: String,
        #[serde(default)]
        global: bool,
    }
    let current = folder.current.as_deref().and_then(|bytes| serde_json::from_slice::<Current>(bytes).ok());
    if let Some(current) = current.filter(|current| !current.name.is_empty())
        && (current.global || current.key == key)
    {
        return Some(current.name);
    }
    let name = String::from_utf8(folder.default.clone()?).ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn parse(bytes: &[u8]) -> Option<Builder> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Group {
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
        endpoint: String,
        #[serde(default)]
        driver_opts: Option<BTreeMap<String, String>>,
        #[serde(default)]
        files: Option<BTreeMap<String, String>>,
    }
    let group: Group = serde_json::from_slice(bytes).ok()?;
    let nodes = group.nodes.unwrap_or_default();
    let option = |node: &Node, name: &str| node.driver_opts.as_ref()?.get(name).cloned();
    let mirrors = |node: &Node| {
        let text = node.files.as_ref().and_then(|files| unbase64(files.get(CONFIG)?));
        text.map(|text| mirrors_of(&String::from_utf8_lossy(&text), "docker.io")).unwrap_or_default()
    };
    Some(Builder {
        name: group.name,
        // Files older than the drivers' names are of the one driver there was.
        driver: if group.driver.is_empty() { "docker-container".into() } else { group.driver },
        current: false,
        endpoints: nodes.iter().map(|node| node.endpoint.clone()).collect(),
        mirrors: nodes.iter().map(mirrors).collect(),
        host_network: !nodes.is_empty()
            && nodes.iter().all(|node| option(node, "network").as_deref() == Some("host")),
    })
}

/// The mirrors of `registry` in a `buildkitd.toml`, each with whether it is spoken to in plain http.
///
/// Reads what BuildKit's documentation shows: a table for each registry, a list of texts. What is written in another way
/// is not found, so that nothing is claimed of it.
pub fn mirrors_of(toml: &str, registry: &str) -> Vec<Mirror> {
    let mut table = String::new();
    let mut open = false;
    let (mut found, mut http): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for line in toml.lines().map(uncommented) {
        let line = line.trim();
        if line.starts_with('[') && !open {
            table = registry_of(line).unwrap_or_default();
            continue;
        }
        let (key, value) = line.split_once('=').map_or(("", line), |(key, value)| (key.trim(), value.trim()));
        if open || (key == "mirrors" && table == registry) {
            found.extend(texts(if open { line } else { value }));
            open = !line.contains(']');
        } else if key == "http" && value == "true" {
            http.push(table.clone());
        }
    }
    let plain = |address: &str| {
        let host = address.split('/').next().unwrap_or_default();
        // BuildKit itself takes plain http for granted on a loopback address.
        is_loopback(host) || http.iter().any(|name| name == host)
    };
    found.into_iter().map(|address| Mirror { http: plain(&address), address }).collect()
}

/// `docker.io` of `[registry."docker.io"]`.
fn registry_of(header: &str) -> Option<String> {
    let name = header.strip_prefix("[registry.")?.strip_suffix(']')?.trim();
    Some(name.trim_matches(['"', '\'']).to_owned())
}

/// The line without its comment.
fn uncommented(line: &str) -> &str {
    let mut quote = None;
    for (at, letter) in line.char_indices() {
        match (quote, letter) {
            (None, '#') => return &line[..at],
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            (None | Some(_), _) => {}
        }
    }
    line
}

/// The quoted texts of a line.
fn texts(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.find(['"', '\'']) {
        let quote = &rest[start..=start];
        let Some((text, after)) = rest[start + 1..].split_once(quote) else { break };
        found.push(text.to_owned());
        rest = after;
    }
    found
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name == "[::1]" || name.starts_with("127.")
}

/// Standard base64 with padding, as Go writes bytes in JSON; `None`: it is not that.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut held, mut bits) = (0_u32, 0_u32);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = (held << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((held >> bits) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

impl Builder {
    /// Whether builds with it would ask Sampan on `port`, and why or why not, one English sentence. `engine` is the one
    /// the current context means.
    pub fn uses_mirror(&self, engine: &Engine, port: u16) -> (bool, String) {
        match self.driver.as_str() {
            "docker" if self.endpoints.iter().any(|endpoint| !is_of(endpoint, engine)) => {
                (false, "It builds in the engine of another Docker context.".into())
            }
            "docker" if engine.enabled(port) => {
                (true, "It builds in the engine itself, which asks Sampan.".into())
            }
            "docker" => (false, "It builds in the engine itself, which does not ask Sampan.".into()),
            "docker-container" => self.container(engine, port),
            "kubernetes" => {
                (false, "It builds in a Kubernetes cluster, which has a configuration of its own.".into())
            }
            "remote" | "cloud" => (false, "It builds elsewhere, with a configuration of its own.".into()),
            other => (false, format!("The driver {other} is not known to Sampan.")),
        }
    }

    fn container(&self, engine: &Engine, port: u16) -> (bool, String) {
        let first =
            |mirrors: &Vec<Mirror>| mirrors.iter().find(|mirror| ours(&mirror.address, port)).cloned();
        let Some(mirrors) = self.mirrors.iter().map(first).collect::<Option<Vec<Mirror>>>() else {
            let why =
                "It has a buildkitd.toml of its own, which does not name Sampan as a mirror of docker.io.";
            return (false, why.into());
        };
        let Some(mirror) = mirrors.first() else {
            return (false, "buildx describes no place where it runs.".into());
        };
        let host = mirror.address.rsplit_once(':').map_or(mirror.address.as_str(), |(host, _)| host);
        if let Some(https) = mirrors.iter().find(|mirror| !mirror.http) {
            let address = &https.address;
            return (false, format!("Its buildkitd.toml does not say http = true for {address}."));
        }
        if is_loopback(host) {
            return if self.host_network && engine.kind.is_local_daemon() {
                (true, "Its buildkitd.toml names Sampan, and it has this machine's network.".into())
            } else {
                (false, format!("{host} is the builder's own container there, not this machine."))
            };
        }
        match engine.kind {
            Kind::Desktop | Kind::OtherVm(_) => (true, "Its buildkitd.toml names Sampan.".into()),
            Kind::Linux
            | Kind::Rootless
            | Kind::Snap
            | Kind::Podman
            | Kind::Windows
            | Kind::Remote
            | Kind::None => (false, format!("{host} does not lead from its container to this machine.")),
        }
    }
}

/// Whether a builder's place is that engine.
fn is_of(place: &str, engine: &Engine) -> bool {
    place == engine.context.as_deref().unwrap_or("default") || same_endpoint(place, &engine.endpoint)
}

/// Whether a mirror's address is Sampan's on the machine the engine runs on.
fn ours(address: &str, port: u16) -> bool {
    let host = address.split('/').next().unwrap_or_default();
    let Some((name, at)) = host.rsplit_once(':') else { return false };
    at == port.to_string()
        && (is_loopback(host) || ["host.docker.internal", "host.lima.internal"].contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_go_writes_it() {
        for (text, bytes) in
            [("", ""), ("YQ==", "a"), ("YWI=", "ab"), ("YWJj", "abc"), ("Pz8/Pj4+", "???>>>")]
        {
            assert_eq!(unbase64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(unbase64("not base64"), None, "a blank is not in the alphabet");
    }

    #[test]
    fn the_file_of_the_usual_builder_is_named_by_a_hash() {
        // printf default | sha256sum | cut -c1-20
        assert_eq!(default_name("default"), "37a8eec1ce19687d132f");
    }
}
