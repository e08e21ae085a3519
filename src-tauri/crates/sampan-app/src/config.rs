//! What Sampan was told: defaults in code, then the configuration file, then flags and their variables.
//!
//! Everything is checked here, once: whoever holds a [`Config`] need not check it again. What a person changes while
//! Sampan runs is [`Settings`], kept apart in `settings.toml` of the state folder.

mod file;
mod rules;
mod settings;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sampan_oci::RegistryName;
use url::{Host, Url};

use crate::api::Settings;
use crate::flags::Flags;

/// Where container engines find Sampan unless told otherwise.
const LISTEN: &str = "127.0.0.1:7267";
/// Where Docker Hub really is; `docker.io` itself is a web page.
const DOCKER_HUB: &str = "https://registry-1.docker.io";
/// How long a tag's check may take before the copy at hand is served.
const REVALIDATE_TIMEOUT: Duration = Duration::from_secs(3);
/// The most connections to one upstream. Who shares a lossy link with many needs many; few are used where few suffice.
const CONNECTIONS: usize = 32;
/// How long a download waits for its link to come back while somebody listens.
const OUTAGE_WAIT: Duration = Duration::from_mins(10);
/// More connections than this look like an attack to a registry.
const CONNECTIONS_MAX: usize = 64;
/// A client that listens for longer has been forgotten.
const OUTAGE_WAIT_MAX: Duration = Duration::from_hours(24);

/// Everything Sampan was told, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where container engines ask: one address and port. Port 0 means any free one.
    pub listen: SocketAddr,
    /// Where images are kept: an absolute path.
    pub cache_dir: PathBuf,
    /// Where statistics, settings and the socket are kept: an absolute path.
    pub state_dir: PathBuf,
    /// The configuration file that was read, if any.
    pub config_file: Option<PathBuf>,
    /// The registries that are mirrored: those that were told, then the well-known others. Each once, with the origin they are asked at: `http` or `https`, no path.
    pub upstreams: Vec<(RegistryName, Url)>,
    /// How long an upstream may take to say whether a tag has moved before the copy at hand is served.
    pub revalidate_timeout: Duration,
    /// The most connections to one upstream at once: 1 to 64.
    pub connections: usize,
    /// How long a download waits out an outage while a client listens: at most 24 h.
    pub outage_wait: Duration,
    /// New blobs are not kept when the disk would have less free bytes than this; `None`: 5 % of the
    /// disk, at least 1 GiB and at most 10 GiB.
    pub free_space_floor_bytes: Option<u64>,
    /// What is in force at the start: `unchanged`, and over it what a person changed while Sampan ran, as saved by
    /// [`Config::save_settings`].
    pub settings: Settings,
    /// What holds where a person changed nothing: the defaults, and what the configuration file says.
    pub unchanged: Settings,
}

/// Why Sampan cannot start with what it was told. Always the person's to mend; the text says how.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}: {source}. Check the path given by --config or SAMPAN_CONFIG.", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration file says something it cannot mean.
    #[error("{}:{line}:{column}: {message}. {advice}", file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The character in the line, from 1.
        column: usize,
        /// What is wrong.
        message: String,
        /// What to write instead: a sentence.
        advice: String,
    },
    /// An upstream is Sampan itself: every miss would ask itself for ever (SECURITY R29).
    #[error(
        "the upstream of {registry}, {url}, is the address Sampan itself listens at. \
         Give the registry's own address by --upstream {registry}=URL, or another port by --listen."
    )]
    UpstreamIsSelf {
        /// The registry.
        registry: RegistryName,
        /// Its address, which is ours.
        url: Url,
    },
    /// The system names no home folder, and the folders were not given.
    #[error("the system names no home folder. Give --cache-dir and --state-dir.")]
    NoHome,
    /// A folder's path cannot be made absolute.
    #[error("cannot use {} as a folder: {source}. Give an absolute path.", path.display())]
    Folder {
        /// The path as given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The settings file cannot be read or written.
    #[error("cannot use the settings file {}: {source}. Check the rights of the state folder.", file.display())]
    Settings {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The folders the system sets aside for a program of this name.
#[derive(Clone, Debug, Default)]
struct Folders {
    config: Option<PathBuf>,
    cache: Option<PathBuf>,
    state: Option<PathBuf>,
}

impl Folders {
    fn of_the_system() -> Self {
        directories::ProjectDirs::from("dev", "Sampan", "sampan").map_or_else(Self::default, |dirs| Self {
            config: Some(dirs.config_dir().to_owned()),
            cache: Some(dirs.cache_dir().to_owned()),
            // Only Linux sets a folder aside for state.
            state: Some(dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir()).to_owned()),
        })
    }
}

impl Config {
    /// Puts together what Sampan was told: defaults, then the file named by `flags` (or `config.toml` in Sampan's
    /// configuration folder, if there), then `flags`. Reads the file and the saved settings; creates nothing.
    /// # Errors
    /// [`ConfigError`]: what is wrong, where, and what to do about it.
    pub fn load(flags: Flags) -> Result<Self, ConfigError> {
        Self::load_from(flags, Folders::of_the_system())
    }

    fn load_from(flags: Flags, folders: Folders) -> Result<Self, ConfigError> {
        let config_file = flags
            .config
            .or_else(|| folders.config.map(|dir| dir.join("config.toml")).filter(|f| f.is_file()));
        let from_file = config_file.as_deref().map(file::read).transpose()?.unwrap_or_default();

        let mut upstreams = Vec::new();
        let default = Url::parse(DOCKER_HUB).ok().map(|url| (RegistryName::docker_hub(), url));
        for (registry, url) in default.into_iter().chain(from_file.upstreams).chain(flags.upstream) {
            match upstreams.iter_mut().find(|(known, _)| *known == registry) {
                Some(entry) => entry.1 = url,
                None => upstreams.push((registry, url)),
            }
        }
        // Asked only when somebody pulls from them: a person who ticks one need not configure it first.
        for (registry, url) in well_known() {
            if !upstreams.iter().any(|(known, _)| *known == registry) {
                upstreams.push((registry, url));
            }
        }
        let state_dir = folder(flags.state_dir.or(from_file.state_dir).or(folders.state))?;
        let unchanged = Settings {
            quota: from_file.quota.unwrap_or_default(),
            max_age_days: from_file.max_age_days,
            verify: from_file.verify.unwrap_or_default(),
            freshness: from_file.freshness,
            ..Settings::default()
        };
        let config = Self {
            listen: flags.listen.or(from_file.listen).unwrap_or_else(default_listen),
            cache_dir: folder(flags.cache_dir.or(from_file.cache_dir).or(folders.cache))?,
            settings: settings::load(&state_dir, &unchanged)?,
            unchanged,
            state_dir,
            config_file,
            upstreams,
            revalidate_timeout: from_file.revalidate_timeout.unwrap_or(REVALIDATE_TIMEOUT),
            connections: flags.connections.or(from_file.connections).unwrap_or(CONNECTIONS),
            outage_wait: flags.outage_wait.or(from_file.outage_wait).unwrap_or(OUTAGE_WAIT),
            free_space_floor_bytes: from_file.free_space_floor_bytes,
        };
        if let Some((registry, url)) = config.upstreams.iter().find(|(_, url)| is_self(url, config.listen)) {
            return Err(ConfigError::UpstreamIsSelf { registry: registry.clone(), url: url.clone() });
        }
        Ok(config)
    }

    /// What works as told, but is worth a person's second look: one English sentence each. For the log and `doctor`.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.listen.ip().is_loopback() {
            warnings.push(format!(
                "{} can be reached from other machines: everyone there can pull through Sampan.",
                self.listen
            ));
        }
        for (registry, url) in &self.upstreams {
            if url.scheme() == "http" && !is_loopback(url) {
                warnings.push(format!(
                    "{registry} is asked at {url} without encryption: whoever is on the way can change what a tag means."
                ));
            }
        }
        warnings
    }

    /// Saves what a person changed, at once and whole, in `settings.toml` of the state folder: only what differs from
    /// [`unchanged`](Self::unchanged). Keys this version does not know stay. Blocks on the disk.
    /// # Errors
    /// [`ConfigError::Settings`]; the file is as it was.
    pub fn save_settings(&self, settings: &Settings) -> Result<(), ConfigError> {
        settings::save(&self.state_dir, settings, &self.unchanged)
    }
}

fn default_listen() -> SocketAddr {
    // Parsed, not built, so that the text above is the one place it is written; a test holds that it parses.
    LISTEN.parse().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 7267)))
}

fn folder(path: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    let path = path.ok_or(ConfigError::NoHome)?;
    std::path::absolute(&path).map_err(|source| ConfigError::Folder { path, source })
}

/// Reads `ADDR:PORT`: an address of this machine, never a name, which could mean several.
/// # Errors
/// A sentence for the person who wrote it.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| {
        "write an IP address and a port up to 65535, such as 127.0.0.1:7267 or [::1]:7267".to_owned()
    })
}

/// Reads how many connections one upstream may see at most.
/// # Errors
/// A sentence for the person who wrote it.
pub(crate) fn parse_connections(text: &str) -> Result<usize, String> {
    let whole = text.trim().parse().ok().filter(|connections| (1..=CONNECTIONS_MAX).contains(connections));
    whole.ok_or_else(|| format!("write a whole number from 1 to {CONNECTIONS_MAX}, such as {CONNECTIONS}"))
}

/// Reads how long an outage is waited out: `10m`.
/// # Errors
/// A sentence for the person who wrote it.
pub(crate) fn parse_outage_wait(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|wait| *wait <= OUTAGE_WAIT_MAX)
        .ok_or_else(|| "write a time from 0s to 24h, such as 10m".into())
}

/// Reads a length of time: `5s`, `1500ms`, `10m`; `None` for anything else, a negative one included.
fn parse_duration(text: &str) -> Option<Duration> {
    text.trim().parse::<jiff::SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok())
}

/// Reads `REGISTRY=URL`: `docker.io=https://registry-1.docker.io`.
/// # Errors
/// A sentence for the person who wrote it.
pub(crate) fn parse_upstream(text: &str) -> Result<(RegistryName, Url), String> {
    let (registry, url) =
        text.split_once('=').ok_or("write REGISTRY=URL, such as docker.io=https://registry-1.docker.io")?;
    let registry = registry.trim().parse().map_err(|error: sampan_oci::InvalidName| error.to_string())?;
    Ok((registry, parse_url(url.trim())?))
}

/// Reads where a registry is asked: its origin. The path is always `/v2/…`, so one given is a misunderstanding.
pub(crate) fn parse_url(text: &str) -> Result<Url, String> {
    let with_scheme = text.starts_with("http://") || text.starts_with("https://");
    let url = Url::parse(text).ok().filter(|url| with_scheme && url.has_host()).ok_or_else(|| {
        format!("{text:?} is not an address: it begins with https:// (or http://), then the host")
    })?;
    if !url.username().is_empty() || url.password().is_some() {
        // The text is not repeated: it holds a password.
        return Err("leave out the user name and password: Sampan pulls anonymously".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("leave out what follows `?` or `#` in {text:?}"));
    }
    if url.path() != "/" {
        return Err(format!("leave out the path {:?}: registries always answer under /v2/", url.path()));
    }
    Ok(url)
}

fn ip_of(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
        Host::Ipv6(ip) => Some(IpAddr::V6(ip).to_canonical()),
        Host::Domain(_) => None,
    }
}

fn is_localhost(url: &Url) -> bool {
    url.domain().is_some_and(|name| {
        let name = name.trim_end_matches('.');
        name == "localhost" || name.ends_with(".localhost")
    })
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    is_localhost(url) || ip_of(url).is_some_and(|ip| ip.is_loopback())
}

/// Whether asking `url` would ask the listener at `listen`, as far as can be told without asking DNS.
pub(crate) fn is_self(url: &Url, listen: SocketAddr) -> bool {
    if listen.port() == 0 || url.port_or_known_default() != Some(listen.port()) {
        return false;
    }
    let ours = listen.ip().to_canonical();
    let local = is_localhost(url) && (ours.is_loopback() || ours.is_unspecified());
    local
        || ip_of(url).is_some_and(|ip| {
            // Connecting to the unspecified address reaches this machine's loopback.
            ip == ours
                || (ours.is_unspecified() && ip.is_loopback())
                || (ip.is_unspecified() && ours.is_loopback())
        })
}

/// The registries besides Docker Hub that are mirrored without being told, each at its own address.
pub(crate) fn well_known() -> impl Iterator<Item = (RegistryName, Url)> {
    sampan_docker::KNOWN
        .iter()
        .filter_map(|name| Some((name.parse().ok()?, Url::parse(&format!("https://{name}")).ok()?)))
}

/// Where a running Sampan with this state folder keeps the settings a person changed.
pub(crate) fn settings_file(state_dir: &Path) -> PathBuf {
    state_dir.join("settings.toml")
}

#[cfg(test)]
mod tests;
