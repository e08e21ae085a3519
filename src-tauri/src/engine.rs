//! The seam to `sampan-app`: the only module of shell and window that names its functions.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sampan_app::{App, Client, ClientError, Config, ConfigError, StartError};
use tokio::sync::watch;

pub use sampan_app::{Flags, Surroundings, api};

use api::{Command, Reply, Settings, Snapshot};

/// How long a Sampan that is running already may take to answer before it counts as not answering.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Everything a start needs, before anything was opened.
#[derive(Debug)]
pub struct Setup {
    config: Config,
    surroundings: Surroundings,
}

/// Puts flags and the configuration file together. Opens nothing else.
/// # Errors
/// What is wrong with them, and what to do.
pub fn configure(flags: Flags, surroundings: Surroundings) -> Result<Setup, ConfigError> {
    Ok(Setup { config: Config::load(flags)?, surroundings })
}

impl Setup {
    /// The folder that names this instance: whoever uses the same one talks to the same Sampan.
    pub fn state_dir(&self) -> PathBuf {
        self.config.state_dir.clone()
    }

    /// The system's language, as it names it: `vi_VN.UTF-8`.
    pub fn system_language(&self) -> Option<String> {
        self.surroundings.language()
    }

    /// What a person chose before this start.
    pub fn settings(&self) -> &Settings {
        &self.config.settings
    }
}

/// The running engine.
#[derive(Debug)]
pub struct Engine(App);

/// Why the engine did not start.
#[derive(Debug)]
pub struct StartFailure {
    /// One English sentence with what to do.
    pub message: String,
    /// Which notification fits, if one does.
    pub notice: Option<&'static str>,
}

impl Engine {
    /// Opens the cache and the port, and serves.
    /// # Errors
    /// [`StartFailure`]: nothing runs.
    pub async fn start(setup: Setup) -> Result<Self, StartFailure> {
        for warning in setup.config.warnings() {
            tracing::warn!("{warning}");
        }
        App::start(setup.config, &setup.surroundings).await.map(Self).map_err(|error| StartFailure {
            notice: matches!(error, StartError::PortTaken { .. }).then_some("port_taken"),
            message: error.to_string(),
        })
    }

    /// Carries out a command.
    pub async fn call(&self, command: Command) -> Reply {
        self.0.call(command).await
    }

    /// The state now and after each change.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.0.snapshots()
    }

    /// What [`Command::OpenWindow`] does, whoever sends it.
    pub fn on_open_window(&self, open: impl Fn() + Send + Sync + 'static) {
        self.0.on_open_window(open);
    }

    /// Lets running pulls end, within the engine's own deadline, and closes everything.
    pub async fn shutdown(&self) {
        self.0.shutdown().await;
    }
}

/// Asks the Sampan of `state_dir` one thing, on a connection of its own: a long answer keeps no other waiting.
/// # Errors
/// [`ClientError`]: nobody answers there.
pub async fn ask(state_dir: &Path, command: Command) -> Result<Reply, ClientError> {
    Client::connect(state_dir).await?.call(command).await
}

/// Whether a Sampan answers in `state_dir`; if so, its reply to `command`.
pub async fn ask_running(state_dir: &Path, command: Command) -> Option<Reply> {
    tokio::time::timeout(ANSWER_WITHIN, ask(state_dir, command)).await.ok()?.ok()
}

/// Snapshots of the Sampan of `state_dir`; `None` if it cannot be asked. They end when the connection is lost.
pub async fn watch(state_dir: &Path) -> Option<sampan_app::SnapshotStream> {
    Client::connect(state_dir).await.ok()?.watch().await.ok()
}

/// The language of the tray and of notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locale(&'static str);

impl Locale {
    /// Every language there is.
    pub const ALL: [Self; 2] = [Self("en"), Self("vi")];

    /// What the person chose, else what the system speaks, else English.
    pub fn choose(settings: &Settings, system: Option<&str>) -> Self {
        Self(sampan_app::i18n::locale(settings, system))
    }

    /// The text of `key` with `values` in the places of `%{name}`.
    pub fn text(self, key: &str, values: &[(&str, &str)]) -> String {
        sampan_app::i18n::text(self.0, key, values)
    }

    /// What stands between whole and part of a number.
    pub fn decimal_mark(self) -> char {
        if self.0 == "vi" { ',' } else { '.' }
    }
}

/// The time and the zone of the person at the tray.
pub fn now() -> jiff::Zoned {
    jiff::Zoned::now()
}
