//! The link simulator: found or built, and started with this program inside.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{environment::Environment, shell};

/// The program: the one given, else the one on the path, else built from source.
///
/// # Errors
/// None of the three, or its source does not build.
pub(crate) fn find(
    environment: &Environment,
    given: Option<&Path>,
    source: Option<&Path>,
) -> Result<PathBuf> {
    if let Some(program) = given {
        let program = std::path::absolute(program)?;
        if !program.is_file() {
            bail!("--simulator {}: there is no such program", program.display());
        }
        return Ok(program);
    }
    if let Some(program) = environment.find("linksim").filter(|_| source.is_none()) {
        return Ok(program);
    }
    let beside = environment.workspace.join("../shared/linksim");
    match source {
        Some(folder) => build(environment, folder),
        None if beside.join("Cargo.toml").is_file() => build(environment, &beside),
        None => bail!(
            "the link simulator is missing: no `linksim` in PATH and no source in {}. Say --simulator PROGRAM or \
             --simulator-source FOLDER",
            beside.display()
        ),
    }
}

/// Builds a copy: cargo writes its lock file beside the source, which may be read-only or somebody else's.
fn build(environment: &Environment, source: &Path) -> Result<PathBuf> {
    let copy = environment.target.join("linksim");
    fs::create_dir_all(copy.join("src"))?;
    for name in ["Cargo.toml", "src/main.rs"] {
        let (from, to) = (source.join(name), copy.join(name));
        let text =
            fs::read(&from).with_context(|| format!("{} is not the simulator's source", source.display()))?;
        // Untouched when equal, so that cargo has nothing to do.
        if fs::read(&to).ok().as_ref() != Some(&text) {
            fs::write(&to, text)?;
        }
    }
    shell::run(
        shell::cargo(environment, ["build", "--release", "--quiet", "--manifest-path"])
            .arg(copy.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(copy.join("target")),
    )?;
    Ok(copy.join("target/release/linksim"))
}

/// The link as its command line has it.
#[derive(Debug)]
pub(crate) struct Link<'a> {
    pub(crate) profile: &'a str,
    pub(crate) congestion_control: &'a str,
    pub(crate) seed: u32,
    pub(crate) more: &'a [String],
}

/// This program with the same arguments and these paths after `--inside`, in the near namespace of a new link. The simulator ends what is left in its
/// namespaces, whatever becomes of us.
pub(crate) fn again(simulator: &Path, link: &Link<'_>, paths: &[&Path; 3]) -> Command {
    let mut command = Command::new(simulator);
    command.args(["run", "--profile", link.profile, "--far-cc", link.congestion_control]);
    command.args(["--seed", &link.seed.to_string()]).args(link.more);
    // The simulator says in the environment what it made; the shell turns that into arguments.
    command.args([
        "--stats",
        "/dev/null",
        "--",
        "sh",
        "-c",
        r#"me=$1 a=$2 b=$3 c=$4; shift 4; exec "$me" "$@" --inside "$LINKSIM_FAR" "$LINKSIM_PID" "$a" "$b" "$c""#,
        "sh",
    ]);
    // Not by its path: cargo may replace the file while this runs.
    command.arg(format!("/proc/{}/exe", std::process::id())).args(paths);
    command.args(std::env::args_os().skip(1));
    // No way leads out of the namespaces, least of all one to a proxy.
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command
}
