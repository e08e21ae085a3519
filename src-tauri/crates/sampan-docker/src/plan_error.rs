//! Why nothing is planned, each with what a person has to know.

use std::path::PathBuf;

use sampan_oci::RegistryName;

use crate::daemon_json::Refusal;
use crate::method::Unsupported;

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Sampan does not set this engine up.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The file is not one Sampan edits; it is untouched.
    #[error("{path} is not edited: {refusal}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why, where, and what to do.
        refusal: Refusal,
    },
    /// A registry was chosen that Sampan does not serve.
    #[error("Sampan does not mirror {0}")]
    NotServed(RegistryName),
    /// A registry was chosen that would lose what a person set up for it.
    #[error("{registry} is not pointed at Sampan: {why}")]
    OwnTrust {
        /// The registry.
        registry: RegistryName,
        /// What it would lose, one English sentence.
        why: String,
    },
    /// The port is one of the system's, which the privileged helper does not set up either.
    #[error("port {0} is one of the system's: Docker is set up for ports from 1024 on")]
    LowPort(u16),
    /// A person's own entry for the registry would be replaced, or replace Sampan's.
    #[error("{path} has an entry for {registry}: only one counts, and it is left alone", path = path.display())]
    Taken {
        /// The registry.
        registry: RegistryName,
        /// The file with that entry.
        path: PathBuf,
    },
    /// A registry was chosen, and this engine asks mirrors for Docker Hub only.
    #[error("{registry} cannot be set up here. {why}")]
    HubOnly {
        /// The registry.
        registry: RegistryName,
        /// Why, and how its images get to Sampan all the same: one English sentence.
        why: String,
    },
    /// The file is there and is not Sampan's.
    #[error("{0} was written by somebody else and is left alone")]
    Foreign(PathBuf),
    /// Mirrors are on the daemon's command line, where dockerd does not allow them in the file as well.
    #[error(
        "dockerd is started with --registry-mirror={0}; it would not start with mirrors in its file as well"
    )]
    FlagConflict(String),
    /// The file must not be edited, for the reason given.
    #[error("{0}")]
    Unsafe(String),
    /// A mirror on this machine would be left without the `hosts.toml` that belongs beside it.
    #[error(
        "{0} would stay among Docker's mirrors without docker.io's hosts.toml; both files belong together"
    )]
    Together(String),
    /// Administrator rights are needed, and the helper that has them changes the system's Docker only.
    #[error("{endpoint} is not the system's Docker, the only one that Sampan's privileged helper changes")]
    NotTheSystems {
        /// The engine.
        endpoint: String,
        /// The same by hand, one shell command a line.
        commands: Vec<String>,
    },
    /// Nothing can restart the engine but a person.
    #[error("{reason}")]
    NotRestartable {
        /// Why, one English sentence.
        reason: String,
        /// What that person does, one shell command a line.
        commands: Vec<String>,
    },
    /// Not even an administrator can write the file.
    #[error("{0} cannot be written: it is read-only")]
    ReadOnly(PathBuf),
}
