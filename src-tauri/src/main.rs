//! Sampan's desktop shell: the tray icon with the engine inside, and the window on demand.
//!
//! The program that runs all day. It links no web view: the window is a program of its own (`sampan-window`), which asks
//! the shell over its socket and ends when it is closed. Never decides anything about pulls, never touches Docker or
//! the cache: all of that is `sampan-app`. Start reading at [`shell::run`], then [`tray`].
#![cfg_attr(all(windows, not(debug_assertions)), windows_subsystem = "windows")]

mod launch;
mod menu;
mod shell;
mod tray;
mod trouble;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use sampan_desktop::engine;
use tracing_subscriber::EnvFilter;

/// Sampan in the tray: a registry mirror for slow links.
#[derive(Parser, Debug)]
#[command(name = "sampan-desktop", version)]
struct Arguments {
    #[command(flatten)]
    flags: engine::Flags,
    /// Start in the tray without opening the window, as at login
    #[arg(long)]
    hidden: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn")))
        .init();
    run(arguments).unwrap_or_else(|error| {
        eprintln!("sampan-desktop: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    // Two workers: the shell mostly waits, and each more costs memory for its whole life.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    #[cfg(not(target_os = "linux"))]
    tauri::async_runtime::set(runtime.handle().clone());
    let surroundings = engine::Surroundings::from_vars(std::env::vars_os());
    let code = match engine::configure(arguments.flags, surroundings) {
        Ok(setup) => shell::run(&runtime, setup, arguments.hidden, has_display())?,
        Err(error) => {
            eprintln!("sampan-desktop: {error}");
            ExitCode::from(shell::CANNOT_START)
        }
    };
    // A notification still on its way to a hung notification server must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(code)
}

/// Whether there is a screen to draw on.
#[expect(clippy::disallowed_methods, reason = "main is where the environment is read")]
fn has_display() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !cfg!(target_os = "linux") || set("DISPLAY") || set("WAYLAND_DISPLAY")
}
