//! Logins as `docker login` leaves them: `config.json`, and the helpers it names (docker/cli, `cli/config/configfile`).

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sampan_oci::RegistryName;
use serde::Deserialize;
use zeroize::{Zeroize as _, Zeroizing};

use super::helper::{self, Given};
use super::{Login, LoginTrouble, Secret};

/// What Docker calls Docker Hub where it keeps logins (docker/cli, `registry.IndexServer`).
const HUB_SERVER: &str = "https://index.docker.io/v1/";
/// The largest `config.json`.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How long a helper may take: some ask a server, or a person for a fingerprint.
const HELPER_WITHIN: Duration = Duration::from_secs(10);

/// Where Docker keeps its logins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerLogins {
    /// The folder of `config.json`: `~/.docker`, or `DOCKER_CONFIG`.
    pub folder: PathBuf,
    /// Where helpers are looked for: `PATH`.
    pub search: OsString,
    /// How long a helper may take.
    pub helper_within: Duration,
}

impl DockerLogins {
    /// The logins of the `config.json` in `folder`; helpers are looked for along `search`.
    pub fn new(folder: PathBuf, search: OsString) -> Self {
        Self { folder, search, helper_within: HELPER_WITHIN }
    }

    /// The login for a registry, as Docker itself would find it.
    pub(super) async fn read(&self, registry: &RegistryName) -> Result<Login, LoginTrouble> {
        let file = self.folder.join("config.json");
        let path = file.clone();
        let found = tokio::task::spawn_blocking(move || load(&path)).await;
        let config = match found {
            Ok(Ok(Some(config))) => config,
            Ok(Ok(None)) => return Err(LoginTrouble::None(registry.clone())),
            Ok(Err(_)) | Err(_) => return Err(LoginTrouble::Unreadable(file)),
        };
        let server = if registry.as_str() == "docker.io" { HUB_SERVER } else { registry.as_str() };
        // One for this registry is asked before the one for all of them.
        let of_all = config.creds_store.as_deref().filter(|name| !name.is_empty());
        let Some(name) = config.cred_helpers.get(server).map(String::as_str).or(of_all) else {
            return config.kept_here(registry, server);
        };
        match helper::get(name, server, &self.search, self.helper_within).await? {
            Given::Password { user, secret } => {
                Login::password(&user, secret).ok_or_else(|| LoginTrouble::Unusable(registry.clone()))
            }
            Given::Identity(secret) => Ok(Login::Identity(secret)),
            Given::Nothing => Err(LoginTrouble::None(registry.clone())),
        }
    }
}

/// What of `config.json` is about logins; everything else in it is other programs' business.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    auths: HashMap<String, Entry>,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        for secret in [&mut self.auth, &mut self.password, &mut self.identitytoken] {
            secret.zeroize();
        }
    }
}

fn load(path: &Path) -> io::Result<Option<Config>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = file.metadata()?;
    if !found.is_file() || found.len() > FILE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let capacity = usize::try_from(found.len()).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|_| io::ErrorKind::InvalidData.into())
}

impl Config {
    /// The login in the file itself.
    fn kept_here(mut self, registry: &RegistryName, server: &str) -> Result<Login, LoginTrouble> {
        let entry = self.auths.remove(server).or_else(|| {
            // Older versions of Docker wrote addresses: `https://ghcr.io/v1/`.
            let wanted = host_of(server);
            let key = self.auths.keys().filter(|key| host_of(key) == wanted).min().cloned();
            key.and_then(|key| self.auths.remove(&key))
        });
        let nothing = || LoginTrouble::None(registry.clone());
        let mut entry = entry.ok_or_else(nothing)?;
        let unusable = || LoginTrouble::Unusable(registry.clone());
        if !entry.identitytoken.is_empty() {
            let token = Secret::new(std::mem::take(&mut entry.identitytoken)).ok_or_else(unusable)?;
            return Ok(Login::Identity(token));
        }
        if !entry.auth.is_empty() {
            let (user, secret) = pair(&entry.auth).ok_or_else(unusable)?;
            return Login::password(&user, secret).ok_or_else(unusable);
        }
        if entry.username.is_empty() || entry.password.is_empty() {
            return Err(nothing());
        }
        let secret = Secret::new(std::mem::take(&mut entry.password)).ok_or_else(unusable)?;
        Login::password(&entry.username, secret).ok_or_else(unusable)
    }
}

/// A user and a password, as `auth` holds them: joined by a colon, in base64.
fn pair(auth: &str) -> Option<(String, Secret)> {
    let bytes = Zeroizing::new(STANDARD.decode(auth.trim()).ok()?);
    let (user, secret) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    Some((user.to_owned(), Secret::new(secret.trim_end_matches('\0').to_owned())?))
}

/// The host that a key of `auths` means.
fn host_of(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &str, registry: &str) -> Result<(String, String), LoginTrouble> {
        let registry: RegistryName = registry.parse().unwrap();
        let server = if registry.as_str() == "docker.io" { HUB_SERVER } else { registry.as_str() };
        let config: Config = serde_json::from_str(config).unwrap();
        config.kept_here(&registry, server).map(|login| match login {
            Login::Password { user, secret } => (user, secret.reveal().to_owned()),
            Login::Identity(secret) => ("<identity>".into(), secret.reveal().to_owned()),
        })
    }

    #[test]
    fn a_login_in_the_file_is_found_as_docker_finds_it() {
        for (config, registry, user, secret) in [
            // "me:s3cret"
            (r#"{"auths":{"ghcr.io":{"auth":"bWU6czNjcmV0"}}}"#, "ghcr.io", "me", "s3cret"),
            (r#"{"auths":{"https://ghcr.io/v1/":{"auth":"bWU6czNjcmV0"}}}"#, "ghcr.io", "me", "s3cret"),
            (
                r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6czNjcmV0"}}}"#,
                "docker.io",
                "me",
                "s3cret",
            ),
            (r#"{"auths":{"127.0.0.1:5000":{"username":"me","password":"p"}}}"#, "127.0.0.1:5000", "me", "p"),
            (
                r#"{"auths":{"a.azurecr.io":{"auth":"bWU6","identitytoken":"i"}}}"#,
                "a.azurecr.io",
                "<identity>",
                "i",
            ),
            // "me:a:b": a password may have colons.
            (r#"{"auths":{"ghcr.io":{"auth":"bWU6YTpi"}}}"#, "ghcr.io", "me", "a:b"),
            (
                r#"{"auths":{"ghcr.io":{"auth":"bWU6czNjcmV0","email":"x"}},"proxies":{}}"#,
                "ghcr.io",
                "me",
                "s3cret",
            ),
        ] {
            assert_eq!(found(config, registry), Ok((user.into(), secret.into())), "{config}");
        }
    }

    #[test]
    fn the_login_of_another_registry_is_none() {
        for (config, registry) in [
            ("{}", "ghcr.io"),
            (r#"{"auths":{}}"#, "ghcr.io"),
            (r#"{"auths":{"ghcr.io":{}}}"#, "ghcr.io"),
            (r#"{"auths":{"quay.io":{"auth":"bWU6czNjcmV0"}}}"#, "ghcr.io"),
            (r#"{"auths":{"ghcr.io.evil.example":{"auth":"bWU6czNjcmV0"}}}"#, "ghcr.io"),
            (r#"{"auths":{"ghcr.io:8443":{"auth":"bWU6czNjcmV0"}}}"#, "ghcr.io"),
            (r#"{"auths":{"ghcr.io":{"auth":"bWU6czNjcmV0"}}}"#, "docker.io"),
        ] {
            assert!(matches!(found(config, registry), Err(LoginTrouble::None(_))), "{config}");
        }
        for auth in ["!", "bWU=", "bWU6", "OnM=", "bWUKOnM="] {
            let config = format!(r#"{{"auths":{{"ghcr.io":{{"auth":"{auth}"}}}}}}"#);
            assert!(matches!(found(&config, "ghcr.io"), Err(LoginTrouble::Unusable(_))), "{auth}");
        }
    }
}
