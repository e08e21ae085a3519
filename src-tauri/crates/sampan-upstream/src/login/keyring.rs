//! Logins of Sampan's own, in the system's keyring.

use sampan_oci::RegistryName;

use super::{Login, LoginTrouble, Secret};

/// The login a person put into the keyring for this registry.
pub(super) async fn read(registry: &RegistryName) -> Result<Login, LoginTrouble> {
    let _ = registry;
    Err(LoginTrouble::Keyring)
}

/// Puts a login for a registry into the system's keyring.
/// # Errors
/// [`LoginTrouble::Keyring`] where there is none, [`LoginTrouble::Unusable`] for a login no registry takes.
pub async fn keep(registry: &RegistryName, user: &str, secret: Secret) -> Result<(), LoginTrouble> {
    Login::password(user, secret).ok_or_else(|| LoginTrouble::Unusable(registry.clone()))?;
    Err(LoginTrouble::Keyring)
}

/// Takes it out again. Returns whether there was one.
/// # Errors
/// [`LoginTrouble::Keyring`] where there is no keyring.
pub async fn forget(registry: &RegistryName) -> Result<bool, LoginTrouble> {
    let _ = registry;
    Err(LoginTrouble::Keyring)
}
