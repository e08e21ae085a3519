//! The part of the contract that is about Docker: what was found, what would change, what was done, what was proved.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Which way to change Docker's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum DockerAction {
    /// Point Docker at Sampan.
    Enable,
    /// Take that back.
    Disable,
}

/// The engine the current Docker context means, and whether it uses Sampan. From evidence, which is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Docker {
    /// Whether an engine answered.
    pub found: bool,
    /// `Docker Engine`, `Docker Desktop`, `Docker Engine (rootless)` …
    pub engine: String,
    /// The engine's version.
    pub version: Option<String>,
    /// Where it was reached: `unix:///var/run/docker.sock`.
    pub endpoint: String,
    /// `classic` or `containerd`.
    pub image_store: Option<String>,
    /// The configuration file the engine reads.
    pub config_file: Option<String>,
    /// The mirrors the engine itself lists.
    pub mirrors: Vec<String>,
    /// Whether Sampan is among them (or its hosts.toml is in place).
    pub enabled: bool,
    /// The registries that can be set up: Docker Hub first, then those Sampan serves, where this engine can be told.
    pub registries: Vec<DockerRegistry>,
    /// Names of the running containers.
    pub containers: Vec<String>,
    /// Whether containers go on running while the engine is away.
    pub live_restore: bool,
    /// The builders of `docker build`, the engine's own first.
    pub builders: Vec<DockerBuilder>,
    /// Why an earlier set-up is no longer whole, after an update of Docker; enabling again repairs it.
    pub needs_repair: Option<String>,
    /// Files of a change of the privileged helper's that was cut short. Enabling or disabling settles it.
    #[serde(default)]
    pub cut_short: Vec<String>,
    /// Whether Sampan can set this engine up.
    pub supported: bool,
    /// Why not, or what to know; English sentences.
    pub notes: Vec<String>,
    /// What was looked at and seen, one line each: `socket /var/run/docker.sock answers as dockerd 28.5.2`.
    pub evidence: Vec<String>,
    /// When a container engine last asked Sampan for a manifest.
    #[ts(type = "number | null")]
    pub last_used: Option<i64>,
    /// What somebody else changed of what Sampan set up; `None`: nothing, or a person left it as it is.
    #[serde(default)]
    pub drift: Option<DockerDrift>,
}

/// What somebody else changed of Docker's set-up. Enabling again restores it, `docker_leave` leaves it as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct DockerDrift {
    /// One English sentence for each difference.
    pub what: Vec<String>,
    /// When it was noticed first.
    #[ts(type = "number")]
    pub since: i64,
}

/// A builder of `docker build`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct DockerBuilder {
    /// Its name.
    pub name: String,
    /// `docker`, `docker-container`, `kubernetes`, `remote` …
    pub driver: String,
    /// Whether `docker build` uses it now.
    pub current: bool,
    /// Whether builds with it ask Sampan.
    pub uses_mirror: bool,
    /// Why, or why not, one English sentence.
    pub why: String,
}

/// One engine of this machine, whether or not the current context means it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct EngineFound {
    /// `Docker Engine`, `Docker Desktop`, `Colima`, `Podman` …; where it does not answer, what is usually there.
    pub engine: String,
    /// Where it is reached.
    pub endpoint: String,
    /// The Docker contexts that name it.
    pub contexts: Vec<String>,
    /// Its version.
    pub version: Option<String>,
    /// `classic` or `containerd`.
    pub image_store: Option<String>,
    /// Whether it answers.
    pub answers: bool,
    /// Whether it is the one the `docker` command speaks to.
    pub current: bool,
    /// What was looked at and seen, one line each.
    pub evidence: Vec<String>,
}

/// One registry, as an engine is set up for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct DockerRegistry {
    /// Its name in image names: `ghcr.io`.
    pub registry: String,
    /// Whether the engine asks Sampan for it.
    pub active: bool,
    /// Its hosts.toml, where the engine reads one.
    pub path: Option<String>,
    /// Whether that file is somebody else's.
    pub foreign: bool,
    /// Whether a person can choose it, or no longer choose it.
    pub changeable: bool,
    /// Why not: one English sentence.
    #[serde(default)]
    pub note: Option<String>,
}

/// Exactly what will be changed, before it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct DockerPlan {
    /// Names this plan; apply takes it. A hash of everything the plan was based on.
    pub id: String,
    /// Which way.
    pub action: DockerAction,
    /// The files, in the order they are written. Empty: nothing to do.
    pub files: Vec<FileChange>,
    /// How the engine is told.
    pub apply: ApplyMethod,
    /// Containers that a restart would stop; empty where nothing restarts.
    pub stops: Vec<String>,
    /// Whether an administrator prompt will appear.
    pub needs_elevation: bool,
    /// Whether a change that was cut short is settled first: something to do, even where no file changes.
    #[serde(default)]
    pub settles: bool,
    /// The same by hand, one shell command a line.
    pub commands: Vec<String>,
    /// What else happens, and what does not: English sentences.
    pub notes: Vec<String>,
}

/// One file of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct FileChange {
    /// Its path.
    pub path: String,
    /// Whether it does not exist yet.
    pub created: bool,
    /// Whether it is removed.
    pub removed: bool,
    /// The difference, lines for showing.
    pub diff: Vec<DiffLine>,
}

/// One line of a difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct DiffLine {
    /// Whether it stays, is added or removed.
    pub kind: DiffKind,
    /// The line without its newline.
    pub text: String,
}

/// What happens to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum DiffKind {
    /// It stays.
    Same,
    /// It is added.
    Added,
    /// It is removed.
    Removed,
}

/// How an engine is told of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum ApplyMethod {
    /// It reads the file at each pull.
    Nothing,
    /// It is asked to read its configuration again; no container stops.
    Reload,
    /// It must be restarted; needs its own consent.
    Restart,
}

/// What applying did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct DockerApplied {
    /// What was done, in order, one English sentence each.
    pub steps: Vec<String>,
    /// The engine afterwards.
    pub docker: Docker,
    /// After enabling: the proof.
    pub proof: Option<DockerProof>,
}

/// Whether Docker really asks Sampan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct DockerProof {
    /// Whether a manifest request of the probe pull arrived at Sampan.
    pub arrived: bool,
    /// Milliseconds from asking the engine to the request's arrival.
    #[ts(type = "number | null")]
    pub millis: Option<u64>,
    /// One English sentence.
    pub detail: String,
}
