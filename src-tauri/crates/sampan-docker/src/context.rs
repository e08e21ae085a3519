//! Which engine the `docker` command would speak to. Pure: the files are handed in as bytes.
//!
//! Order, as in docker/cli (`cli/command/cli.go`, `resolveContextName`): `DOCKER_HOST`, `DOCKER_CONTEXT`,
//! `currentContext` of `config.json`, the default socket.

use std::path::{Path, PathBuf};

use sampan_oci::Digest;
use serde::Deserialize;

/// The default endpoint of this platform.
pub const DEFAULT_ENDPOINT: &str =
    if cfg!(windows) { "npipe:////./pipe/docker_engine" } else { "unix:///var/run/docker.sock" };

/// Where an engine is reached, and who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `unix:///var/run/docker.sock`.
    pub host: String,
    /// The context's name, where a context named it.
    pub context: Option<String>,
    /// Who said so, one line of evidence.
    pub because: String,
}

/// How far away an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A Unix socket on this machine.
    Unix(PathBuf),
    /// A named pipe on this machine.
    Pipe(String),
    /// Another machine, or one that cannot be told from another: TCP and SSH may lead anywhere.
    Remote,
}

/// Why no endpoint could be named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// The context is named and its description is missing or unreadable.
    #[error("the Docker context \"{0}\" is not known on this machine")]
    Unknown(String),
}

/// What names an engine, gathered from the environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// `DOCKER_HOST`.
    pub docker_host: Option<&'a str>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<&'a str>,
    /// The bytes of `config.json`, if it exists.
    pub config_json: Option<&'a [u8]>,
}

impl Sources<'_> {
    /// The name of the context that decides, if one does (`default` is none).
    pub fn context(&self) -> Option<(String, &'static str)> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Config {
            #[serde(default)]
            current_context: String,
        }
        if self.docker_host.is_some_and(|host| !host.is_empty()) {
            return None;
        }
        let named = |name: &str, by| (!name.is_empty() && name != "default").then(|| (name.to_owned(), by));
        if let Some(name) = self.docker_context.filter(|name| !name.is_empty()) {
            return named(name, "DOCKER_CONTEXT");
        }
        let config: Config = serde_json::from_slice(self.config_json?).ok()?;
        named(&config.current_context, "currentContext of config.json")
    }

    /// The endpoint. `meta` is the bytes of the context's `meta.json`, for the name [`Sources::context`] gave.
    ///
    /// # Errors
    /// [`ContextError::Unknown`] where the context's description is missing or not understood.
    pub fn endpoint(&self, meta: Option<&[u8]>) -> Result<Endpoint, ContextError> {
        if let Some(host) = self.docker_host.filter(|host| !host.is_empty()) {
            let because = format!("DOCKER_HOST names {host}");
            return Ok(Endpoint { host: host.into(), context: None, because });
        }
        let Some((name, by)) = self.context() else {
            let because = format!("no context is chosen, so the default endpoint {DEFAULT_ENDPOINT}");
            return Ok(Endpoint { host: DEFAULT_ENDPOINT.into(), context: None, because });
        };
        let host = meta.and_then(host_of).ok_or_else(|| ContextError::Unknown(name.clone()))?;
        let because = format!("{by} chooses the context \"{name}\", which names {host}");
        Ok(Endpoint { host, context: Some(name), because })
    }
}

/// Where a context is described, under Docker's configuration folder (docker/cli, `cli/context/store`).
pub fn meta_path(config_dir: &Path, name: &str) -> PathBuf {
    config_dir.join("contexts").join("meta").join(Digest::of(name.as_bytes()).hex()).join("meta.json")
}

/// How far away `host` is.
pub fn reach(host: &str) -> Reach {
    match host.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Reach::Unix(path.into()),
        Some(("npipe", _)) => Reach::Pipe(host.into()),
        None if host.starts_with('/') => Reach::Unix(host.into()),
        Some(_) | None => Reach::Remote,
    }
}

/// Whether two endpoints are one: `/var/run` is `/run`.
pub(crate) fn same_endpoint(one: &str, other: &str) -> bool {
    let plain = |endpoint: &str| match reach(endpoint) {
        Reach::Unix(path) => {
            path.strip_prefix("/run").map_or(path.clone(), |rest| Path::new("/var/run").join(rest))
        }
        Reach::Pipe(name) => name.into(),
        Reach::Remote => endpoint.into(),
    };
    plain(one) == plain(other)
}

/// Whether `endpoint` is the socket of the system's Docker.
pub(crate) fn is_the_systems(endpoint: &str) -> bool {
    same_endpoint(endpoint, "unix:///var/run/docker.sock")
}

/// The path of a Unix socket; `None` for everything else.
pub(crate) fn socket_of(endpoint: &str) -> Option<PathBuf> {
    match reach(endpoint) {
        Reach::Unix(path) => Some(path),
        Reach::Pipe(_) | Reach::Remote => None,
    }
}

fn host_of(meta: &[u8]) -> Option<String> {
    described(meta).map(|(_, host)| host)
}

/// The name and the endpoint of the context that a `meta.json` describes; `None`: it names no engine.
pub fn described(meta: &[u8]) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Meta {
        #[serde(rename = "Name", default)]
        name: String,
        #[serde(rename = "Endpoints")]
        endpoints: Endpoints,
    }
    #[derive(Deserialize)]
    struct Endpoints {
        docker: Docker,
    }
    #[derive(Deserialize)]
    struct Docker {
        #[serde(rename = "Host")]
        host: String,
    }
    let meta: Meta = serde_json::from_slice(meta).ok()?;
    let host = meta.endpoints.docker.host;
    (!host.is_empty()).then_some((meta.name, host))
}
