//! Looks at the machine for what `packages` names, and installs what is missing, with consent.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{
    environment::Environment,
    packages::{Consent, Manager, Need, Probe, consent, shopping},
    shell,
};

/// Makes sure that all needs are met: says what is missing and why, asks, installs, looks again.
/// Only Linux is looked at; elsewhere the needs are one sentence in the README.
///
/// # Errors
/// Something is missing and may not or cannot be installed; the error says what to run.
pub(crate) fn require(environment: &Environment, needs: &[&[Need]], yes: bool) -> Result<()> {
    if !cfg!(target_os = "linux") {
        return elsewhere(environment);
    }
    let missing = missing(environment, needs);
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("Missing on this system:");
    for need in &missing {
        eprintln!("  {:<22} {}", need.name, need.why);
    }
    let Some(manager) =
        Manager::ALL.into_iter().find(|manager| environment.find(manager.program()).is_some())
    else {
        let names: Vec<_> = missing.iter().flat_map(|need| need.apt).copied().collect();
        bail!("no apt, dnf or pacman here. Install the things above; Debian calls them: {}", names.join(" "));
    };
    let list = shopping(manager, &missing);
    if !list.packages.is_empty() {
        install(environment, manager, &list.packages, yes)?;
    }
    let still: Vec<_> = self::missing(environment, needs).iter().map(|need| need.name).collect();
    if still.is_empty() {
        return Ok(());
    }
    bail!("still missing: {}. Install by hand, then run this again", still.join(", "))
}

fn install(environment: &Environment, manager: Manager, packages: &[&str], yes: bool) -> Result<()> {
    let by_hand = || {
        let refresh =
            manager.refresh().map(|words| format!("sudo {} && ", words.join(" "))).unwrap_or_default();
        format!("{refresh}sudo {}", manager.install(packages).join(" "))
    };
    match consent(yes || environment.ci, environment.root, environment.terminal) {
        Consent::Given => {}
        Consent::Ask => {
            eprintln!("They come with these packages: {}", packages.join(" "));
            if !shell::ask("Install them with sudo now?", true) {
                bail!("not installed. To do it yourself:\n  {}", by_hand());
            }
        }
        Consent::Stop => bail!("nobody to ask here. Run this, or start again with --yes:\n  {}", by_hand()),
    }
    if !environment.root && environment.find("sudo").is_none() {
        bail!("there is no sudo here. As root, run:\n  {}", by_hand().replace("sudo ", ""));
    }
    if let Some(refresh) = manager.refresh() {
        // One broken third-party source fails the whole refresh, while the package may well be known.
        if let Err(error) = shell::run(&mut as_root(environment, &refresh)) {
            eprintln!("  {error:#}; trying with the package lists there are");
        }
    }
    shell::run(&mut as_root(environment, &manager.install(packages)))
}

/// The command, through sudo unless this is root already.
pub(crate) fn as_root(environment: &Environment, words: &[String]) -> Command {
    let mut line = Vec::new();
    if !environment.root {
        line.push("sudo".to_owned());
        if !environment.terminal {
            // Without a terminal sudo could only wait for a password that nobody types.
            line.push("-n".to_owned());
        }
    }
    line.extend_from_slice(words);
    let mut command = Command::new(line.first().map_or("false", String::as_str));
    command.args(line.iter().skip(1));
    command
}

/// The needs that are not met.
pub(crate) fn missing<'n>(environment: &Environment, needs: &[&'n [Need]]) -> Vec<&'n Need> {
    needs.iter().flat_map(|needs| needs.iter()).filter(|need| !is_met(environment, need.probe)).collect()
}

fn is_met(environment: &Environment, probe: Probe) -> bool {
    match probe {
        Probe::Program(names) => names.iter().any(|name| environment.find(name).is_some()),
        Probe::PkgConfig(module) => ["pkg-config", "pkgconf"]
            .iter()
            .find_map(|name| environment.find(name))
            .is_some_and(|program| shell::output(Command::new(program).args(["--exists", module])).is_some()),
        Probe::Header(name) => Path::new("/usr/include").join(name).is_file(),
        Probe::Font => font_folders(environment.home.as_deref()).iter().any(|folder| holds_font(folder, 5)),
    }
}

fn font_folders(home: Option<&Path>) -> Vec<PathBuf> {
    let mut folders: Vec<_> = ["/usr/share/fonts", "/usr/local/share/fonts"].map(PathBuf::from).to_vec();
    folders.extend(home.map(|home| home.join(".fonts")));
    folders.extend(home.map(|home| home.join(".local/share/fonts")));
    folders
}

fn holds_font(folder: &Path, depth: u32) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let is_font = |path: &PathBuf| {
        path.extension().is_some_and(|extension| {
            ["ttf", "ttc", "otf", "woff2"].iter().any(|font| extension.eq_ignore_ascii_case(font))
        })
    };
    files.iter().any(is_font) || folders.iter().any(|folder| holds_font(folder, depth))
}

/// What macOS and Windows need is not installed by a command line: it is only said.
fn elsewhere(environment: &Environment) -> Result<()> {
    if cfg!(target_os = "macos") && environment.find("cc").is_none() {
        bail!("the Xcode command line tools are missing (compiler and linker). Run: xcode-select --install");
    }
    if cfg!(windows) {
        eprintln!(
            "Sampan needs the MSVC build tools (Visual Studio Installer, \"Desktop development with C++\") to build, and \
             the WebView2 runtime (part of Windows 11) to run."
        );
    }
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_program_and_a_header_are_noticed_and_their_absence_too() {
        let environment = Environment::read();
        assert!(is_met(&environment, Probe::Program(&["no-such-program", "sh"])), "one of them is enough");
        assert!(!is_met(&environment, Probe::Program(&["no-such-program"])));
        assert!(is_met(&environment, Probe::Header("stdio.h")), "this test was linked with a C compiler");
        assert!(!is_met(&environment, Probe::Header("no-such-header.h")));
        assert!(!is_met(&environment, Probe::PkgConfig("no-such-module")));
    }

    #[test]
    fn a_font_is_found_in_a_nested_folder_only() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("truetype/dejavu")).unwrap();
        assert!(!holds_font(folder.path(), 5), "folders alone draw no text");
        fs::write(folder.path().join("truetype/dejavu/DejaVuSans.TTF"), "").unwrap();
        assert!(holds_font(folder.path(), 5));
        assert!(!holds_font(folder.path(), 2), "the search is bounded");
    }
}
