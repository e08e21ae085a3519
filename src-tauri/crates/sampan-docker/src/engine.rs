//! What was found: facts about an engine, each with the evidence it rests on. Plain data, no I/O.

use std::fmt;
use std::path::PathBuf;

use sampan_oci::RegistryName;

use crate::builder::Builder;
use crate::daemon_json::same_mirror;
use crate::hosts_toml;
use crate::journal::Remembered;
use crate::method::{Method, Unsupported};

/// The engine the current Docker context means.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Engine {
    /// Whether an engine answered.
    pub found: bool,
    /// Whether nobody listens at its socket: no daemon has to be told of anything.
    pub gone: bool,
    /// Which kind it is; names it for people by its `Display`.
    pub kind: Kind,
    /// Its version, as it says it.
    pub version: Option<String>,
    /// Where it was reached: `unix:///var/run/docker.sock`.
    pub endpoint: String,
    /// Where it keeps images.
    pub image_store: Option<ImageStore>,
    /// The `daemon.json` it reads, and what is in it.
    pub config: Option<FileSeen>,
    /// Whether the daemon was told where that file is, so that it will not start without it.
    pub config_named: bool,
    /// `hosts.toml` of every registry Sampan serves, and of every other registry that has one.
    pub hosts: Vec<HostsSeen>,
    /// The mirrors the engine itself lists.
    pub mirrors: Vec<String>,
    /// Mirrors given on the daemon's command line; dockerd does not start with both those and the file's.
    pub flag_mirrors: Vec<String>,
    /// What it asks without TLS: registries by name, and networks as `10.0.0.0/8`.
    pub insecure: Vec<String>,
    /// Names of the running containers.
    pub containers: Vec<String>,
    /// Whether containers go on running while the daemon is away, as it says itself.
    pub live_restore: bool,
    /// Whether it is part of a swarm.
    pub swarm_active: bool,
    /// The Docker context that names it; `None`: it is the default, or `DOCKER_HOST` names it.
    pub context: Option<String>,
    /// The builders of `docker build`, the engine's own first.
    pub builders: Vec<Builder>,
    /// The command line the daemon was started with.
    pub command_line: Vec<String>,
    /// The daemon's process on this machine.
    pub pid: Option<u32>,
    /// Whether this process may signal it.
    pub may_signal: bool,
    /// The systemd unit that runs it.
    pub unit: Option<String>,
    /// A dockerd that can validate a configuration before it is used.
    pub validator: Option<PathBuf>,
    /// What Sampan changed before and has not taken back.
    pub remembered: Vec<Remembered>,
    /// Files of a change that the privileged helper began and did not end, and nobody is at now. Only the helper settles
    /// it, when it runs next.
    pub cut_short: Vec<PathBuf>,
    /// Ports in its configuration that are Sampan's and at which a Sampan answers now, this one or another.
    pub running: Vec<u16>,
    /// What to know; English sentences.
    pub notes: Vec<String>,
    /// What was looked at and seen, one line each.
    pub evidence: Vec<String>,
}

/// Kinds of engines, as far as they are set up differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// dockerd of this Linux system.
    Linux,
    /// dockerd of this user.
    Rootless,
    /// dockerd of the snap package.
    Snap,
    /// Docker Desktop.
    Desktop,
    /// Podman answering as Docker.
    Podman,
    /// An engine in another virtual machine, by its name.
    OtherVm(String),
    /// dockerd for Windows containers.
    Windows,
    /// An engine that may be on another machine.
    Remote,
    /// Nothing answered.
    None,
}

impl Kind {
    /// Whether it is a dockerd that runs as a process of this system.
    pub fn is_local_daemon(&self) -> bool {
        matches!(self, Self::Linux | Self::Rootless | Self::Snap)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linux => "Docker Engine",
            Self::Rootless => "Docker Engine (rootless)",
            Self::Snap => "Docker Engine (snap)",
            Self::Desktop => "Docker Desktop",
            Self::Podman => "Podman",
            Self::OtherVm(name) => name,
            Self::Windows => "Docker Engine (Windows)",
            Self::Remote => "Docker Engine (remote)",
            Self::None => "no engine",
        })
    }
}

/// Where an engine keeps images; decides how it treats mirrors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageStore {
    /// The graph drivers.
    Classic,
    /// containerd's snapshotters.
    Containerd,
}

impl ImageStore {
    /// `classic` or `containerd`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Containerd => "containerd",
        }
    }
}

/// An engine's version, as far as it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Reads `28.5.2`, `20.10.24+dfsg1`, `29.0.0-rc.1`; `None` where there is no leading number.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().trim_start_matches('v').split('.').map(|part| {
            let digits = part.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            digits.parse::<u32>().ok()
        });
        let major = parts.next()??;
        Some(Self(major, parts.next().flatten().unwrap_or(0), parts.next().flatten().unwrap_or(0)))
    }
}

/// A file as it was when it was looked at.
#[derive(Clone, PartialEq, Eq)]
pub struct FileSeen {
    /// As the engine names it.
    pub path: PathBuf,
    /// The file that is edited: `path`, or where its symbolic link leads.
    pub target: PathBuf,
    /// Its content; `None`: it does not exist.
    pub bytes: Option<Vec<u8>>,
    /// What this process may do with it.
    pub access: Access,
    /// Why it must not be edited, one English sentence, if so.
    pub problem: Option<String>,
}

impl fmt::Debug for FileSeen {
    // daemon.json may hold proxy passwords: sizes only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSeen")
            .field("path", &self.path)
            .field("target", &self.target)
            .field("bytes", &self.bytes.as_ref().map(Vec::len))
            .field("access", &self.access)
            .field("problem", &self.problem)
            .finish()
    }
}

/// What this process may do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Write it.
    Writable,
    /// Nothing; an administrator may.
    NeedsElevation,
    /// Nothing, and an administrator could not either.
    ReadOnly,
}

/// One registry's `hosts.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostsSeen {
    /// The registry.
    pub registry: RegistryName,
    /// Whether Sampan serves that registry; else the file is only looked at, to take back what was left there.
    pub served: bool,
    /// Certificates and keys beside it, by their file names; the engine reads them only while there is no `hosts.toml`.
    pub beside: Vec<String>,
    /// The file.
    pub file: FileSeen,
}

impl HostsSeen {
    /// The port of Sampan's that the file names; `None`: absent, or somebody else's.
    pub fn port(&self) -> Option<u16> {
        hosts_toml::port_of(&self.registry, self.file.bytes.as_deref()?)
    }

    /// Whether the file is somebody else's.
    pub fn is_foreign(&self) -> bool {
        self.file.bytes.is_some() && self.port().is_none()
    }
}

impl Engine {
    /// An engine nothing is known about but its endpoint.
    pub fn unknown(endpoint: String) -> Self {
        Self {
            found: false,
            gone: false,
            kind: Kind::None,
            version: None,
            endpoint,
            image_store: None,
            config: None,
            config_named: false,
            hosts: Vec::new(),
            mirrors: Vec::new(),
            flag_mirrors: Vec::new(),
            insecure: Vec::new(),
            containers: Vec::new(),
            live_restore: false,
            swarm_active: false,
            context: None,
            builders: Vec::new(),
            command_line: Vec::new(),
            pid: None,
            may_signal: false,
            unit: None,
            validator: None,
            remembered: Vec::new(),
            cut_short: Vec::new(),
            running: Vec::new(),
            notes: Vec::new(),
            evidence: Vec::new(),
        }
    }

    /// How this engine is set up.
    ///
    /// # Errors
    /// [`Unsupported`] with the reason and an advice, where Sampan does not set it up.
    pub fn method(&self) -> Result<Method, Unsupported> {
        crate::method::method(self)
    }

    /// Whether Sampan can set this engine up.
    pub fn supported(&self) -> bool {
        self.method().is_ok()
    }

    /// What buildx calls this engine: its context's name, or its endpoint.
    pub fn buildx_key(&self) -> &str {
        self.context.as_deref().unwrap_or(&self.endpoint)
    }

    /// The builders, each with whether it would ask Sampan on `port`, and why or why not (one English sentence).
    pub fn builders_seen(&self, port: u16) -> Vec<(&Builder, bool, String)> {
        let judged = |builder| {
            let (uses, why) = Builder::uses_mirror(builder, self, port);
            (builder, uses, why)
        };
        self.builders.iter().map(judged).collect()
    }

    /// Whether pulls from Docker Hub go to Sampan on `port`: it is among the mirrors the engine lists, or its
    /// `hosts.toml` is in place where the engine reads those for pulls.
    pub fn enabled(&self, port: u16) -> bool {
        let listed = |url: &str| self.mirrors.iter().any(|mirror| same_mirror(mirror, url));
        let in_hosts = self.hosts.iter().any(|h| h.registry.is_docker_hub() && h.port() == Some(port));
        match self.method() {
            Ok(Method::HostsOnly) => in_hosts,
            Ok(Method::HostsAndMirrors) => in_hosts && listed(&mirror_url(&self.kind, port)),
            Ok(Method::Mirrors | Method::Desktop) => listed(&mirror_url(&self.kind, port)),
            Err(_) => false,
        }
    }
}

/// The URL by which an engine of that kind reaches a service on 127.0.0.1 of the host.
pub fn mirror_url(kind: &Kind, port: u16) -> String {
    let host = if *kind == Kind::Desktop { "host.docker.internal" } else { "127.0.0.1" };
    format!("http://{host}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_engines_write_them() {
        for (text, expected) in [
            ("28.5.2", Some(Version(28, 5, 2))),
            ("20.10.24+dfsg1", Some(Version(20, 10, 24))),
            ("29.0.0-rc.1", Some(Version(29, 0, 0))),
            ("v27.1", Some(Version(27, 1, 0))),
            ("30", Some(Version(30, 0, 0))),
            ("dev", None),
            ("", None),
            (".1", None),
        ] {
            assert_eq!(Version::parse(text), expected, "{text}");
        }
        assert!(Version(29, 5, 0) > Version(29, 4, 9), "the minor part counts");
    }

    #[test]
    fn the_content_of_a_file_never_shows_in_debug_output() {
        let file = FileSeen {
            path: "/etc/docker/daemon.json".into(),
            target: "/etc/docker/daemon.json".into(),
            bytes: Some(b"password".to_vec()),
            access: Access::Writable,
            problem: None,
        };
        assert!(!format!("{file:?}").contains("password"), "daemon.json may hold a proxy's password");
        assert!(format!("{file:?}").contains("Some(8)"), "its size is enough for a log");
    }
}
