//! The command `sampan`: runs the mirror without a desktop, and asks a running one.
//!
//! Reads its arguments and the environment, hands them to `sampan-app` and shows the answers. Never touches the cache,
//! a registry or Docker itself: where no Sampan runs, `sampan-app` looks at Docker and takes its set-up back.
//! Start reading at [`arguments::Arguments`], then [`serve`] and [`ask`].

mod arguments;
mod ask;
mod cache;
mod carry;
mod clients;
mod docker;
mod freshness;
mod output;
mod pause;
mod prefetch;
mod private;
mod serve;
mod show;
mod speed;
mod upstreams;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use sampan_app::{ClientError, Config, ConfigError, StartError, Surroundings};
use tracing_subscriber::EnvFilter;

use arguments::{Arguments, Command};

/// Something is wrong with what Sampan was told: a flag, the file, a folder, the port.
const WRONG_USE: u8 = 2;
/// No Sampan runs with this state folder.
const NOT_RUNNING: u8 = 3;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let serves = matches!(arguments.command, Command::Serve);
    log(if serves { "info" } else { "warn" });
    let surroundings = Surroundings::from_vars(std::env::vars_os());
    run(arguments, &surroundings).unwrap_or_else(|error| {
        complain(&error);
        exit_code(&error)
    })
}

fn run(arguments: Arguments, surroundings: &Surroundings) -> anyhow::Result<ExitCode> {
    let runtime = match arguments.command {
        Command::Serve => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
        Command::Status(_)
        | Command::Images(_)
        | Command::Pin(_)
        | Command::Unpin(_)
        | Command::Freeze(_)
        | Command::Unfreeze(_)
        | Command::Refresh(_)
        | Command::Freshness { .. }
        | Command::Offline(_)
        | Command::Clear(_)
        | Command::Undo(_)
        | Command::Cache(_)
        | Command::Scrub(_)
        | Command::Export(_)
        | Command::Import(_)
        | Command::Cancel(_)
        | Command::Pull(_)
        | Command::Queue(_)
        | Command::Keep { .. }
        | Command::VerifyOffline(_)
        | Command::Limit(_)
        | Command::Allowance(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Private(_)
        | Command::Docker { .. }
        | Command::Clients(_)
        | Command::Upstreams(_)
        | Command::Doctor(_) => tokio::runtime::Builder::new_current_thread().enable_all().build(),
    };
    let runtime = runtime.context("cannot start")?;
    let config = Config::load(arguments.flags);
    let ended = runtime.block_on(async {
        match arguments.command {
            Command::Serve => serve::serve(config?, surroundings).await,
            Command::Status(format) => ask::status(&config?, format).await,
            Command::Images(images) => cache::images(&config?, &images).await,
            Command::Pin(names) => cache::pin(&config?, &names, true).await,
            Command::Unpin(names) => cache::pin(&config?, &names, false).await,
            Command::Freeze(names) => freshness::freeze(&config?, &names, true).await,
            Command::Unfreeze(names) => freshness::freeze(&config?, &names, false).await,
            Command::Refresh(names) => freshness::refresh(&config?, &names).await,
            Command::Freshness { what, format } => {
                freshness::freshness(&config?, what.as_ref(), format).await
            }
            Command::Offline(offline) => freshness::offline(&config?, offline).await,
            Command::Clear(clear) => cache::clear(&config?, &clear).await,
            Command::Undo(format) => cache::undo(&config?, format).await,
            Command::Cache(change) => cache::cache(&config?, change).await,
            Command::Scrub(scrub) => cache::scrub(&config?, scrub).await,
            Command::Export(export) => carry::export(&config?, &export).await,
            Command::Import(import) => carry::import(&config?, &import).await,
            Command::Cancel(format) => carry::cancel(&config?, format).await,
            Command::Pull(pull) => prefetch::pull(&config?, &pull, &variables()).await,
            Command::Queue(queue) => prefetch::queue(&config?, &queue).await,
            Command::Keep { what } => prefetch::keep(&config?, &what).await,
            Command::VerifyOffline(verify) => prefetch::verify_offline(&config?, &verify, &variables()).await,
            Command::Limit(limit) => ask::limit(&config?, limit).await,
            Command::Allowance(format) => ask::allowance(&config?, format).await,
            Command::Pause(pause) => ask::pause(&config?, pause).await,
            Command::Resume(format) => ask::resume(&config?, format).await,
            Command::Private(private) => private::private(&config?, &private).await,
            Command::Docker { what } => docker::docker(&config?, surroundings, what).await,
            Command::Clients(change) => clients::clients(&config?, surroundings, &change).await,
            Command::Upstreams(change) => upstreams::upstreams(&config?, change).await,
            Command::Doctor(format) => ask::doctor(config, surroundings, format).await,
        }
    });
    // What still runs on a blocking thread, such as a slow disk, must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// The environment, as far as it is text: what stands for variables in a compose file.
fn variables() -> sampan_app::list::Vars {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// Writes the log to standard error: what `SAMPAN_LOG`, else `RUST_LOG`, asks for.
fn log(default: &str) {
    #[expect(clippy::disallowed_methods, reason = "main is where the environment is read")]
    let asked = ["SAMPAN_LOG", "RUST_LOG"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|f| !f.is_empty());
    let filter = EnvFilter::new(asked.as_deref().unwrap_or(default));
    // No colours: their escapes would be indistinguishable from those that a name from outside brings.
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| output::LogLine).init();
}

/// Says what went wrong, with its causes, each once.
fn complain(error: &anyhow::Error) {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many texts name their cause already.
        if !text.contains(&cause) {
            text = format!("{}: {cause}", text.trim_end_matches('.'));
        }
    }
    output::complain(&text);
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    if let Some(refused) = error.downcast_ref::<docker::DockerRefused>() {
        return refused.exit_code();
    }
    let not_running = matches!(error.downcast_ref(), Some(ClientError::NotRunning { .. }));
    let told_wrong = error.is::<ConfigError>()
        || error.is::<StartError>()
        || error.is::<sampan_app::list::ListError>()
        || error.is::<arguments::NotAsked>()
        || error.is::<clients::NotAsked>();
    match (not_running, told_wrong) {
        (true, _) => ExitCode::from(NOT_RUNNING),
        (_, true) => ExitCode::from(WRONG_USE),
        _ => ExitCode::FAILURE,
    }
}
