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
const INSTALLED: &str = "/usr/lib/sampan/sampan-helper";
/// What polkit asks the person, by name of the file that changes.
const POLICY: &str = "/usr/share/polkit-1/actions/org.sampan.docker.policy";

/// Offers to install the helper just built, where someone can be asked and has not said no before. Root needs none.
///
/// # Errors
/// The person agreed and the installation failed.
pub(crate) fn offer(environment: &Environment, built: &Path) -> Result<()> {
    let pointless = environment.root || environment.find("pkexec").is_none();
    if !cfg!(target_os = "linux") || !environment.terminal || !built.is_file() || pointless {
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
        "Install it with sudo now? (Refusing is fine: Sampan then shows you the commands instead.)",
        true,
    ) {
        eprintln!("This is not asked again; `cargo xtask run --install-helper` installs it later.");
        return refused.set("yes");
    }
    install(environment, built)
}

/// Installs the helper: consent was given on the command line.
///
/// # Errors
/// sudo or install failed.
pub(crate) fn install(environment: &Environment, built: &Path) -> Result<()> {
    let policy = environment.workspace.join("src-tauri/crates/sampan-docker/polkit/org.sampan.docker.policy");
    for (from, mode, to) in [(built, "0755", INSTALLED), (&policy, "0644", POLICY)] {
        let words = ["install", "-D", "-o", "root", "-g", "root", "-m", mode, &from.to_string_lossy(), to];
        shell::run(&mut system::as_root(environment, &words.map(str::to_owned)))?;
    }
    Ok(())
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
