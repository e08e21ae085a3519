//! `cargo xtask run`: from a fresh clone to the tray app, or the headless mirror where there is no display.

use std::{path::Path, process::Command, time::Instant};

use anyhow::Result;

use crate::{environment::Environment, helper, node, packages, shell, system};

/// What `run` takes.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch on the command line")]
pub(crate) struct Options {
    /// Installs missing system packages without asking.
    #[arg(long)]
    yes: bool,
    /// Builds with optimisation: slower to build, quicker to run.
    #[arg(long)]
    release: bool,
    /// Starts the headless mirror even where there is a display.
    #[arg(long)]
    headless: bool,
    /// Builds everything and starts nothing.
    #[arg(long)]
    build_only: bool,
    /// Installs the privileged helper without asking (Linux).
    #[arg(long)]
    install_helper: bool,
    /// Flags for the app, after `--`: `--listen 127.0.0.1:7267`, `--cache-dir DIR`, ...
    #[arg(last = true)]
    app: Vec<String>,
}

impl Options {
    fn profile(&self) -> &'static str {
        if self.release { "release" } else { "debug" }
    }
}

/// Prepares and starts; on Unix the app takes the place of this process.
///
/// # Errors
/// Something is missing, does not build or does not start.
pub(crate) fn run(environment: &Environment, options: &Options) -> Result<()> {
    if environment.display && !options.headless {
        desktop(environment, options)
    } else {
        headless(environment, options)
    }
}

fn desktop(environment: &Environment, options: &Options) -> Result<()> {
    use packages::{DESKTOP_BUILD, DESKTOP_RUN, ENGINE};
    let begun = Instant::now();
    // Before anything is installed: a Node.js that is too old cannot be mended by a package.
    node::check_version(environment)?;
    system::require(environment, &[ENGINE, DESKTOP_BUILD, DESKTOP_RUN], options.yes)?;
    node::build(environment)?;
    // One command for all, so that they share one build of every dependency.
    build(environment, options, &["sampan-desktop", "sampan-docker", "sampan-cli"])?;
    let helper = environment.built(options.profile(), "sampan-helper");
    if options.install_helper {
        helper::install(environment, &helper)?;
    } else if !options.yes
        && let Err(error) = helper::offer(environment, &helper)
    {
        // The app works without it, and shows the commands instead.
        eprintln!("The helper is not installed: {error:#}");
    }
    let app = environment.built(options.profile(), "sampan-desktop");
    eprintln!(
        "Ready after {}. Starting Sampan; it stays in the tray when its window is closed.",
        shell::spent(begun.elapsed())
    );
    start(options, &app, &[])
}

fn headless(environment: &Environment, options: &Options) -> Result<()> {
    let begun = Instant::now();
    system::require(environment, &[packages::ENGINE], options.yes)?;
    build(environment, options, &["sampan-cli"])?;
    let sampan = environment.built(options.profile(), "sampan");
    let shown = sampan.strip_prefix(&environment.workspace).unwrap_or(&sampan).display().to_string();
    eprintln!(
        "Ready after {}. {}\n\
         Next, in another terminal:\n  \
           {shown} doctor     says what is in order and how to point Docker at this mirror\n  \
           {shown} status     what was served, fetched and saved; pulls as they happen\n\
         Ctrl-C ends the mirror; Docker then pulls from its registries as before.",
        shell::spent(begun.elapsed()),
        if options.headless {
            "Starting the headless mirror."
        } else {
            "There is no display here: starting the headless mirror."
        },
    );
    start(options, &sampan, &["serve"])
}

fn build(environment: &Environment, options: &Options, packages: &[&str]) -> Result<()> {
    let mut command = shell::cargo(environment, ["build", "--bins", "--locked"]);
    for package in packages {
        command.args(["--package", package]);
    }
    if options.release {
        command.arg("--release");
    }
    shell::run(&mut command)
}

fn start(options: &Options, program: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).args(&options.app);
    if options.build_only {
        eprintln!("Not started (--build-only): {}", program.display());
        return Ok(());
    }
    replace(&mut command)
}

/// Signals then reach the app itself, and a service manager sees its process.
#[cfg(unix)]
fn replace(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let error = command.exec();
    Err(anyhow::Error::from(error).context(format!("cannot start `{}`", shell::line(command))))
}

#[cfg(not(unix))]
fn replace(command: &mut Command) -> Result<()> {
    shell::run(command)
}
