//! What of the surroundings decides which engine is meant. Read once, in `main`, and passed in.

use std::path::PathBuf;
use std::sync::Arc;

use sampan_oci::{Clock, RegistryName};

/// The surroundings of this process, as far as they matter here.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `DOCKER_HOST`, if set.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`, if set.
    pub docker_context: Option<String>,
    /// `DOCKER_CONFIG`, if set: the folder of `config.json`, else `~/.docker`.
    pub docker_config_dir: Option<PathBuf>,
    /// `BUILDX_CONFIG`, if set: the folder of buildx's builders, else `buildx` in Docker's.
    pub buildx_config_dir: Option<PathBuf>,
    /// The person's home folder.
    pub home: PathBuf,
    /// `XDG_CONFIG_HOME`, if set, else `~/.config`.
    pub xdg_config_home: Option<PathBuf>,
    /// The user this process runs as (0: root). 0 on Windows, where it is not looked at.
    pub uid: u32,
    /// A folder for the journal, writable by this process.
    pub state_dir: PathBuf,
    /// The journal folder of the privileged helper, read only unless this process is the helper.
    pub system_state_dir: PathBuf,
    /// The registries Sampan serves: those it may write a `hosts.toml` for.
    pub registries: Vec<RegistryName>,
    /// Names backups.
    pub clock: Arc<dyn Clock>,
}

impl Environment {
    /// Where the helper keeps its journal: owned by root, readable by all.
    pub const SYSTEM_STATE_DIR: &'static str = "/var/lib/sampan";

    /// The folder of Docker's `config.json` and `daemon.json` of Docker Desktop.
    pub fn docker_config(&self) -> PathBuf {
        self.docker_config_dir.clone().unwrap_or_else(|| self.home.join(".docker"))
    }

    /// The folder of buildx's builders and of what it gives new ones.
    pub fn buildx_config(&self) -> PathBuf {
        self.buildx_config_dir.clone().unwrap_or_else(|| self.docker_config().join("buildx"))
    }

    /// The folder of a rootless engine's configuration.
    pub fn rootless_config(&self) -> PathBuf {
        self.xdg_config_home.clone().unwrap_or_else(|| self.home.join(".config")).join("docker")
    }
}
