//! Sampan's window: one web view, in a process of its own.
//!
//! The shell starts it on demand; it asks the shell over its socket and ends when it is closed, and everything a web
//! view costs is given back. Never runs the engine, never touches Docker or the cache. Start reading at [`page::run`].
#![cfg_attr(all(windows, not(debug_assertions)), windows_subsystem = "windows")]

mod page;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use sampan_desktop::engine::{self, Flags, Surroundings};
use sampan_desktop::orders::Page;
use tracing_subscriber::EnvFilter;

/// The window of a running Sampan. The tray's menu opens it; by hand only for tests.
#[derive(Parser, Debug)]
#[command(name = "sampan-window", version)]
struct Arguments {
    #[command(flatten)]
    flags: Flags,
    /// Open on this page
    #[arg(long, value_enum)]
    page: Option<Page>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn")))
        .init();
    run(arguments).unwrap_or_else(|error| {
        eprintln!("sampan-window: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    tauri::async_runtime::set(runtime.handle().clone());
    let setup = engine::configure(arguments.flags, Surroundings::from_vars(std::env::vars_os()))?;
    let code = page::run(setup.state_dir(), arguments.page)?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(code)
}
