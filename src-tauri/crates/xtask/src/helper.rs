//! The privileged helper: one small program, owned by root, that applies a change of Docker's configuration after the
//! person typed their password. Installing it is offered once; without it the app shows the commands to run by hand.

use std::{fs, path::Path};

use anyhow::Result;

use crate::{
    environment::Environment,
    shell,
    stamp::{self, Stamp},
    system,
};

/// Where the app looks for it. Root owns the whole path, so no other program of the person's can change it.
const INSTALLED: &str = "/usr/local/libexec/sampan/sampan-helper";

/// Offers to install the helper just built, where someone can be asked and has not been before.
///
/// # Errors
/// The person agreed and the installation failed.
pub(crate) fn offer(environment: &Environment, built: &Path) -> Result<()> {
    if !cfg!(target_os = "linux") || !environment.terminal || !built.is_file() {
        return Ok(());
    }
    let refused = Stamp::new(environment, "helper-refused");
    if refused.is("yes") || is_same(built)? {
        return Ok(());
    }
    eprintln!(
        "To change Docker's configuration, Sampan can use a small helper owned by root ({INSTALLED}).\n\
         It knows two verbs (use this mirror, stop using it) and runs only after you typed your password."
    );
    if !shell::ask(
        "Install it with sudo now? (Refusing is fine: Sampan then shows you the commands instead, and this is not asked again.)",
        false,
    ) {
        return refused.set("yes");
    }
    install(environment, built)
}

/// Installs the helper: consent was given on the command line.
///
/// # Errors
/// sudo or install failed.
pub(crate) fn install(environment: &Environment, built: &Path) -> Result<()> {
    let words =
        ["install", "-D", "-o", "root", "-g", "root", "-m", "0755", &built.to_string_lossy(), INSTALLED];
    shell::run(&mut system::as_root(environment, &words.map(str::to_owned)))
}

fn is_same(built: &Path) -> Result<bool> {
    let installed = Path::new(INSTALLED);
    if fs::metadata(installed).map(|metadata| metadata.len()).ok()
        != fs::metadata(built).map(|metadata| metadata.len()).ok()
    {
        return Ok(false);
    }
    // `hash` covers names too: compare each alone by its bytes.
    Ok(stamp::bytes(installed)? == stamp::bytes(built)?)
}
