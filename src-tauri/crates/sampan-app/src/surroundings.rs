//! What Sampan takes from the process it runs in. Read once, in `main`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use sampan_docker::Environment;

use crate::{Config, SystemClock};

/// The environment variables of this process.
#[derive(Clone, Debug, Default)]
pub struct Surroundings(HashMap<OsString, OsString>);

impl Surroundings {
    /// Takes `std::env::vars_os()`.
    pub fn from_vars(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self(vars.into_iter().collect())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0
            .get(&OsString::from(name))
            .and_then(|value| value.to_str())
            .filter(|v| !v.is_empty())
            .map(Into::into)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.0.get(&OsString::from(name)).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// The system's language, as the first of the usual variables gives it: `vi_VN.UTF-8`.
    pub fn language(&self) -> Option<String> {
        ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().find_map(|name| self.text(name))
    }

    /// Where Docker keeps its logins.
    pub fn docker_logins(&self) -> sampan_upstream::DockerLogins {
        let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().join(".docker"));
        let folder = self.path("DOCKER_CONFIG").or(home).unwrap_or_else(|| PathBuf::from("/"));
        let search = self.0.get(&OsString::from("PATH")).cloned().unwrap_or_default();
        sampan_upstream::DockerLogins::new(folder, search)
    }

    /// What decides which container engine is meant.
    pub fn docker(&self, config: &Config) -> Environment {
        let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned());
        Environment {
            docker_host: self.text("DOCKER_HOST"),
            docker_context: self.text("DOCKER_CONTEXT"),
            docker_config_dir: self.path("DOCKER_CONFIG"),
            buildx_config_dir: self.path("BUILDX_CONFIG"),
            home: home.unwrap_or_else(|| PathBuf::from("/")),
            xdg_config_home: self.path("XDG_CONFIG_HOME"),
            uid: uid(),
            state_dir: config.state_dir.clone(),
            system_state_dir: PathBuf::from(Environment::SYSTEM_STATE_DIR),
            registries: config
                .upstreams
                .iter()
                .filter(|upstream| by_tls(upstream))
                .map(|(registry, _)| registry.clone())
                .collect(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// Whether clients ask that registry by TLS too: a `hosts.toml` names it as the last resort, and that is by `https`.
fn by_tls((registry, url): &(sampan_oci::RegistryName, url::Url)) -> bool {
    let authority = url.host_str().map(|host| match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    });
    url.scheme() != "http" || authority.as_deref() != Some(registry.as_str())
}

#[cfg(unix)]
fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

#[cfg(not(unix))]
fn uid() -> u32 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_clients_ask_without_tls_gets_no_file_that_names_it_by_https() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), "").unwrap();
        let table = [
            ("docker.io", "http://127.0.0.1:9", true, "clients ask Docker Hub itself by TLS"),
            ("r.example:5000", "http://r.example:5000", false, "it is the registry itself, without TLS"),
            ("plain.example", "http://plain.example", false, "the same without a port"),
            ("t.example:5000", "https://t.example:5000", true, "by TLS"),
            ("m.example", "http://mirror.lan:5000", true, "another machine stands in for it"),
        ];
        let upstream = |(name, url): (&str, &str)| (name.parse().unwrap(), url.parse().unwrap());
        let flags = crate::Flags {
            config: Some(dir.path().join("config.toml")),
            state_dir: Some(dir.path().join("state")),
            cache_dir: Some(dir.path().join("cache")),
            upstream: table.iter().map(|(name, url, _, _)| upstream((name, url))).collect(),
            ..crate::Flags::default()
        };
        let env = Surroundings::default().docker(&Config::load(flags).unwrap());
        for (name, _, expected, why) in table {
            assert_eq!(env.registries.iter().any(|known| known.as_str() == name), expected, "{name}: {why}");
        }
    }
}
