//! The part of the contract that is about other programs than Docker that pull images.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// A program that pulls images by a configuration of its own, and whether it asks Sampan. From evidence, which is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct ClientSetup {
    /// `podman`, `buildkit`, `containerd`, `nerdctl`, `k3s` or `kind`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Whether it seems to be on this machine.
    pub found: bool,
    /// Whether it is set up to ask Sampan for Docker Hub.
    pub enabled: bool,
    /// The registries for which it is.
    pub registries: Vec<String>,
    /// Whether Sampan can change it. Else its plan is there to be copied.
    pub can_apply: bool,
    /// What to know; English sentences.
    pub notes: Vec<String>,
    /// What was looked at and seen, one line each.
    pub evidence: Vec<String>,
    /// The files that Sampan writes for it, or shows.
    pub paths: Vec<String>,
}

/// What applying did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct ClientApplied {
    /// What was done, in order, one English sentence each.
    pub steps: Vec<String>,
    /// The client afterwards.
    pub client: ClientSetup,
}
