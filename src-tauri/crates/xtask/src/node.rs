//! The page: Node's version, `npm ci` and the scripts of `ui/package.json`, each only when something changed.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};

use crate::{
    environment::Environment,
    shell,
    stamp::{self, Stamp},
};

/// Made by the steps below, or theirs alone: no reason to do them again.
const MADE: &[&str] = &["node_modules", "dist"];

/// Builds `ui/dist`, unless it was built from the same files already.
///
/// # Errors
/// Node is missing or too old (the error says how to get one), or npm failed.
pub(crate) fn build(environment: &Environment) -> Result<()> {
    let ui = environment.workspace.join("ui");
    let sources = stamp::hash(&[ui.clone(), environment.workspace.join("icons")], MADE)?;
    let built = Stamp::new(environment, "ui-built");
    if built.is(&sources) && ui.join("dist/index.html").is_file() {
        return Ok(());
    }
    eprintln!("Building the page (ui/) ...");
    install(environment)?;
    script(environment, "build")?;
    built.set(&sources)
}

/// Installs the page's dependencies, unless the lock file is the one they were installed from.
///
/// # Errors
/// As [`build`].
pub(crate) fn install(environment: &Environment) -> Result<()> {
    check_version(environment)?;
    let ui = environment.workspace.join("ui");
    let lock = stamp::hash(&[ui.join("package.json"), ui.join("package-lock.json")], &[])?;
    let installed = Stamp::new(environment, "ui-installed");
    if installed.is(&lock) && ui.join("node_modules").is_dir() {
        return Ok(());
    }
    npm(environment, &["ci", "--no-audit", "--no-fund"])?;
    installed.set(&lock)
}

/// `npm run <name>` in `ui/`.
///
/// # Errors
/// The script failed.
pub(crate) fn script(environment: &Environment, name: &str) -> Result<()> {
    npm(environment, &["run", "--silent", name])
}

fn npm(environment: &Environment, arguments: &[&str]) -> Result<()> {
    // On Windows npm is a batch file, which has to be named in full.
    let mut command = Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" });
    shell::run(command.args(arguments).current_dir(environment.workspace.join("ui")))
}

pub(crate) fn check_version(environment: &Environment) -> Result<()> {
    let advice = "Node.js 20.19 or newer (but not 21), or 22.12 or newer, builds the app's page. Where your distribution's is \
                  older: https://nodejs.org/en/download, or `nvm install 22`";
    let Some(node) = environment.find("node") else { bail!("there is no Node.js here. {advice}") };
    let version = shell::output(Command::new(node).arg("--version")).unwrap_or_default();
    if !parse(&version).is_some_and(is_enough) {
        bail!("this is Node.js {version}. {advice}");
    }
    let npm: PathBuf = if cfg!(windows) { "npm.cmd".into() } else { "npm".into() };
    if !cfg!(windows) && environment.find("npm").is_none() {
        bail!("there is Node.js but no {}. On Debian and Ubuntu: sudo apt-get install npm", npm.display());
    }
    Ok(())
}

/// `v20.20.2` as `(20, 20)`.
fn parse(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim().strip_prefix('v')?.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// What Vite declares: `^20.19.0 || >=22.12.0`.
fn is_enough((major, minor): (u32, u32)) -> bool {
    match major {
        20 => minor >= 19,
        22 => minor >= 12,
        _ => major > 22,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_vite_runs_on_are_accepted_and_no_others() {
        for (version, expected) in [
            ("v18.19.0", false),
            ("v20.18.3", false),
            ("v20.19.0", true),
            ("v20.20.2\n", true),
            ("v21.7.3", false),
            ("v22.11.0", false),
            ("v22.12.0", true),
            ("v24.0.0", true),
            ("", false),
            ("nonsense", false),
        ] {
            assert_eq!(parse(version).is_some_and(is_enough), expected, "{version:?}");
        }
    }
}
