//! Logins of Sampan's own, in the system's keyring: the Secret Service, macOS's keychain, Windows' credential manager.
//!
//! One entry for each registry. A keyring that is locked asks the person to open it, and is not waited for much longer than a
//! client waits; one that is not there at the start is not looked for again.

use std::time::Duration;

use keyring::v1::{Entry, Error};
use sampan_oci::RegistryName;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Login, LoginTrouble, Secret};

/// What the entries are for, as the keyring shows it to a person.
const SERVICE: &str = "sampan";
/// How long the keyring may take.
const WITHIN: Duration = Duration::from_secs(12);

/// An entry's text.
#[derive(Serialize, Deserialize)]
struct Kept {
    user: String,
    secret: String,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// The login a person put into the keyring for this registry.
pub(super) async fn read(registry: &RegistryName) -> Result<Login, LoginTrouble> {
    let name = registry.to_string();
    let found = asked(move || match entry(&name)?.get_password() {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(Error::NoEntry) => Ok(None),
        Err(error) => Err(error),
    });
    let Some(text) = found.await? else { return Err(LoginTrouble::None(registry.clone())) };
    let unusable = || LoginTrouble::Unusable(registry.clone());
    let mut kept: Kept = serde_json::from_str(&text).map_err(|_| unusable())?;
    let secret = Secret::new(std::mem::take(&mut kept.secret)).ok_or_else(unusable)?;
    Login::password(&kept.user, secret).ok_or_else(unusable)
}

/// Puts a login for a registry into the system's keyring, in place of one that is there.
/// # Errors
/// [`LoginTrouble::Keyring`] where there is none, [`LoginTrouble::Unusable`] for a login no registry takes.
pub async fn keep(registry: &RegistryName, user: &str, secret: Secret) -> Result<(), LoginTrouble> {
    let unusable = || LoginTrouble::Unusable(registry.clone());
    let kept = Kept { user: user.to_owned(), secret: secret.reveal().to_owned() };
    Login::password(user, secret).ok_or_else(unusable)?;
    let text = Zeroizing::new(serde_json::to_string(&kept).map_err(|_| unusable())?);
    let name = registry.to_string();
    asked(move || entry(&name)?.set_password(&text)).await
}

/// Takes it out again. Returns whether there was one.
/// # Errors
/// [`LoginTrouble::Keyring`] where there is no keyring.
pub async fn forget(registry: &RegistryName) -> Result<bool, LoginTrouble> {
    let name = registry.to_string();
    let gone = asked(move || match entry(&name)?.delete_credential() {
        Ok(()) => Ok(true),
        Err(Error::NoEntry) => Ok(false),
        Err(error) => Err(error),
    });
    gone.await
}

fn entry(registry: &str) -> keyring::v1::Result<Entry> {
    Entry::new(SERVICE, registry)
}

/// Asks the keyring, off the threads that serve. What it says of a failure stays here: it may name what it holds.
async fn asked<T: Send + 'static>(
    work: impl FnOnce() -> keyring::v1::Result<T> + Send + 'static,
) -> Result<T, LoginTrouble> {
    let answer = tokio::time::timeout(WITHIN, tokio::task::spawn_blocking(work)).await;
    match answer {
        Ok(Ok(Ok(done))) => Ok(done),
        Ok(Ok(Err(_)) | Err(_)) | Err(_) => Err(LoginTrouble::Keyring),
    }
}
