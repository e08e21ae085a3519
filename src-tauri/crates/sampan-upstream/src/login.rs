//! Logins: where a password comes from, and where alone it goes (SECURITY R19, R21, R78).
//!
//! A password is read when a token has to be asked for, kept in memory for some minutes, and overwritten when it is dropped.
//! It never leaves this crate. It goes to the registry's own server, or to the token server that [`realm`] says is meant,
//! by TLS or on this machine; never to where a redirect leads. What an [`Upstream`](crate::Upstream) with a login was told is
//! told to nobody who asks the one without: they share no token.

mod docker_config;
mod grant;
mod helper;
mod keyring;
pub(crate) mod realm;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::HeaderValue;
use sampan_oci::RegistryName;
use tokio::time::Instant;
use zeroize::{Zeroize as _, Zeroizing};

pub use docker_config::DockerLogins;
pub use keyring::{forget as forget_own_login, keep as keep_own_login};

/// How long a login is kept in memory before it is read again.
const KEPT: Duration = Duration::from_mins(5);
/// How long after a failure, or after the registry refused the login, it is not tried again: a password that is tried again
/// and again locks accounts.
const RESTS: Duration = Duration::from_mins(1);
/// The longest password or token that is believed.
const SECRET_BYTES_MAX: usize = 32 * 1024;
/// The longest name of a user.
const NAME_BYTES_MAX: usize = 1024;

/// A password, or what is as good as one. Shows itself to nobody, and is overwritten when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text over. `None` where it cannot be a password: it is empty, too long, or has control characters in it.
    pub fn new(text: String) -> Option<Self> {
        let secret = Self(Zeroizing::new(text));
        let good = !secret.0.is_empty()
            && secret.0.len() <= SECRET_BYTES_MAX
            && !secret.0.chars().any(char::is_control);
        good.then_some(secret)
    }

    /// The text itself: for whoever has to show it, once.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// What a registry is shown.
#[derive(Clone, Debug)]
pub(crate) enum Login {
    /// A user and a password, or a personal access token in its place.
    Password { user: String, secret: Secret },
    /// A refresh token of OAuth 2.0: `docker login` calls it an identity token.
    Identity(Secret),
}

impl Login {
    /// A user and a password. `None` where HTTP cannot carry them (RFC 7617: no colon in the name).
    fn password(user: &str, secret: Secret) -> Option<Self> {
        let good = !user.is_empty()
            && user.len() <= NAME_BYTES_MAX
            && !user.contains(':')
            && !user.chars().any(char::is_control);
        good.then(|| Self::Password { user: user.to_owned(), secret })
    }

    /// The value of `Authorization` for HTTP's own way of logging in; `None` for an identity token, which has none.
    pub(crate) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { user, secret } = self else { return None };
        let plain = Zeroizing::new(format!("{user}:{}", secret.reveal()));
        let mut text = format!("Basic {}", STANDARD.encode(plain.as_bytes()));
        let value = HeaderValue::from_str(&text);
        text.zeroize();
        let mut value = value.ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Where the login for a registry comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginSource {
    /// Docker's own configuration, and the helpers it names.
    Docker(DockerLogins),
    /// The system's keyring, where a person put one for Sampan.
    Keyring,
}

/// A login that an upstream may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginOptions {
    /// Where it comes from.
    pub source: LoginSource,
    /// The host (and port) of a token server other than the registry's own that a person said is meant.
    pub realm: Option<String>,
}

/// Why a login could not be used. Texts are for people, and hold nothing of a login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginTrouble {
    /// There is none for this registry.
    #[error("there is no login for {0}")]
    None(RegistryName),
    /// Docker's configuration cannot be read.
    #[error("Docker's configuration {0} cannot be read")]
    Unreadable(PathBuf),
    /// The program that keeps Docker's logins is not there.
    #[error("Docker keeps its logins with docker-credential-{0}, which is not found")]
    HelperMissing(String),
    /// It ended with an error.
    #[error("docker-credential-{0} failed")]
    HelperFailed(String),
    /// It did not answer in time.
    #[error("docker-credential-{0} did not answer in time")]
    HelperSlow(String),
    /// What it wrote is no login.
    #[error("docker-credential-{0} wrote something else than a login")]
    HelperOutput(String),
    /// The login has a form that no registry takes.
    #[error("the login for {0} is not one that can be sent")]
    Unusable(RegistryName),
    /// The registry does not take it.
    #[error("the registry refused the login: it is wrong, or no longer good")]
    Refused,
    /// The registry leads to a token server that is not known to be its own.
    #[error("the registry wants the login sent to {0}, which is not known to belong to it")]
    Realm(String),
    /// It would cross a network in the open.
    #[error("a login is not sent without TLS")]
    PlainHttp,
    /// What is asked for this registry is somebody else's server.
    #[error("the login for {0} is only for its own server, and another one is set up for it")]
    Elsewhere(RegistryName),
    /// This system has no keyring, or it is locked.
    #[error("the system's keyring cannot be used")]
    Keyring,
    /// The permission to use it was taken back.
    #[error("Sampan may no longer use this login")]
    Withdrawn,
}

/// The login of one upstream, as long as it may be used.
#[derive(Debug)]
pub(crate) struct Desk {
    registry: RegistryName,
    options: LoginOptions,
    /// Whoever holds it reads the login; the others wait.
    held: tokio::sync::Mutex<Held>,
    withdrawn: Mutex<bool>,
}

#[derive(Debug, Default)]
struct Held {
    login: Option<(Login, Instant)>,
    failed: Option<(LoginTrouble, Instant)>,
}

impl Desk {
    pub(crate) fn new(registry: RegistryName, options: LoginOptions) -> Self {
        Self { registry, options, held: tokio::sync::Mutex::default(), withdrawn: Mutex::default() }
    }

    /// From now on there is no login here.
    pub(crate) fn withdraw(&self) {
        *self.withdrawn.lock().unwrap_or_else(PoisonError::into_inner) = true;
        if let Ok(mut held) = self.held.try_lock() {
            *held = Held::default();
        }
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        *self.withdrawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token server a person said is meant.
    pub(crate) fn realm(&self) -> Option<&str> {
        self.options.realm.as_deref()
    }

    /// Whether the server at `upstream` may be shown what this login opens: it is the registry's own, by TLS or here.
    pub(crate) fn may_meet(&self, upstream: &Url) -> Result<(), LoginTrouble> {
        if self.is_withdrawn() {
            return Err(LoginTrouble::Withdrawn);
        }
        if !realm::is_own_server(&self.registry, upstream) {
            return Err(LoginTrouble::Elsewhere(self.registry.clone()));
        }
        if realm::is_sheltered(upstream) { Ok(()) } else { Err(LoginTrouble::PlainHttp) }
    }

    /// The login, read anew where it was not read lately.
    pub(crate) async fn login(&self) -> Result<Login, LoginTrouble> {
        let mut held = self.held.lock().await;
        if self.is_withdrawn() {
            return Err(LoginTrouble::Withdrawn);
        }
        if let Some((login, read)) = &held.login
            && read.elapsed() < KEPT
        {
            return Ok(login.clone());
        }
        if let Some((trouble, at)) = &held.failed
            && at.elapsed() < RESTS
        {
            return Err(trouble.clone());
        }
        match read(&self.options.source, &self.registry).await {
            Ok(login) => {
                *held = Held { login: Some((login.clone(), Instant::now())), failed: None };
                Ok(login)
            }
            Err(trouble) => {
                *held = Held { login: None, failed: Some((trouble.clone(), Instant::now())) };
                Err(trouble)
            }
        }
    }

    /// The registry refused the login: it is forgotten, and left alone for a while.
    pub(crate) async fn refused(&self) -> LoginTrouble {
        let refused = LoginTrouble::Refused;
        *self.held.lock().await = Held { login: None, failed: Some((refused.clone(), Instant::now())) };
        refused
    }

    /// Forgets that it failed: a person wants it tried now.
    pub(crate) async fn try_again(&self) {
        *self.held.lock().await = Held::default();
    }
}

async fn read(source: &LoginSource, registry: &RegistryName) -> Result<Login, LoginTrouble> {
    match source {
        LoginSource::Docker(logins) => logins.read(registry).await,
        LoginSource::Keyring => keyring::read(registry).await,
    }
}

/// Whether there is a login for this registry. What it is stays here.
/// # Errors
/// [`LoginTrouble`]: why there is none.
pub async fn has_login(source: &LoginSource, registry: &RegistryName) -> Result<(), LoginTrouble> {
    read(source, registry).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_does_not_show_itself() {
        let login = Login::password("somebody", Secret::new("canary".into()).unwrap()).unwrap();
        assert!(!format!("{login:?} {:?}", login.basic()).contains("canary"));
        let identity = Login::Identity(Secret::new("canary".into()).unwrap());
        assert!(!format!("{identity:?}").contains("canary"));
        assert_eq!(login.basic().unwrap(), "Basic c29tZWJvZHk6Y2FuYXJ5");
        assert_eq!(identity.basic(), None, "an identity token is no password");
    }

    #[test]
    fn what_http_cannot_carry_is_no_login() {
        for text in ["", "a\nb", "a\r\nx: y", "a\0b", &"x".repeat(SECRET_BYTES_MAX + 1)] {
            assert!(Secret::new(text.into()).is_none(), "{text:.20?}");
        }
        let secret = || Secret::new("s".into()).unwrap();
        for user in ["", "a:b", "a\nb", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(Login::password(user, secret()).is_none(), "{user:.20?}");
        }
        assert!(Login::password("người dùng", secret()).unwrap().basic().is_some(), "names are UTF-8");
    }
}
