//! Sampan's desktop shell: the tray icon with the engine inside, and the window on demand.
//!
//! One program, two roles. The *shell* (default) runs the engine and shows the tray; it never makes a webview, because
//! a process that ever had one stays heavy. The *window* (`--window`) is a process of its own that asks the shell over
//! its socket and ends when it is closed. Never decides anything about pulls, never touches Docker or the cache: all
//! of that is `sampan-app`. Start reading at [`shell::run`], then [`window::run`].
#![cfg_attr(all(windows, not(debug_assertions)), windows_subsystem = "windows")]

mod engine;
mod launch;
mod menu;
mod shell;
mod tray;
mod trouble;
mod window;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Sampan in the tray: a registry mirror for slow links.
#[derive(Parser, Debug)]
#[command(name = "sampan-desktop", version)]
struct Arguments {
    #[command(flatten)]
    flags: engine::Flags,
    /// Start in the tray without opening the window, as at login
    #[arg(long, conflicts_with = "window")]
    hidden: bool,
    /// Be the window of the Sampan that uses this state folder
    #[arg(long, hide = true)]
    window: bool,
    /// Open the window on this page
    #[arg(long, hide = true, requires = "window", value_enum)]
    page: Option<launch::Page>,
}

/// The desktop the process was started in.
#[derive(Debug)]
struct Desktop {
    /// Whether there is a screen to draw on.
    display: bool,
    /// Further folders of shared libraries, as the loader takes them.
    library_path: Option<OsString>,
    /// Where files of running programs belong.
    runtime_dir: PathBuf,
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
    tauri::async_runtime::set(runtime.handle().clone());
    let surroundings = engine::Surroundings::from_vars(std::env::vars_os());
    let code = match engine::configure(arguments.flags, surroundings) {
        Ok(setup) if arguments.window => window::run(setup.state_dir(), arguments.page)?,
        Ok(setup) => shell::run(&runtime, setup, arguments.hidden, desktop())?,
        Err(error) => {
            eprintln!("sampan-desktop: {error}");
            ExitCode::from(shell::CANNOT_START)
        }
    };
    // A notification still on its way to a hung notification server must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(code)
}

#[expect(clippy::disallowed_methods, reason = "main is where the environment is read")]
fn desktop() -> Desktop {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    Desktop {
        display: !cfg!(target_os = "linux") || set("DISPLAY").or_else(|| set("WAYLAND_DISPLAY")).is_some(),
        library_path: set("LD_LIBRARY_PATH"),
        runtime_dir: set("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from),
    }
}
