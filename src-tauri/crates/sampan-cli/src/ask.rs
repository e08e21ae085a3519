//! The commands that ask a running Sampan.

use std::process::ExitCode;

use anyhow::bail;
use jiff::tz::TimeZone;
use sampan_app::api::{ApiError, Check, CheckStatus, Code, Command, Reply, SettingsChange};
use sampan_app::{Client, ClientError, Config, ConfigError, Surroundings};
use serde::Serialize;

use crate::arguments::{Format, Limit, Pause};
use crate::{output, show};

/// `sampan status`.
pub(crate) async fn status(config: &Config, format: Format) -> anyhow::Result<ExitCode> {
    let Reply::Snapshot(snapshot) = ask(&mut connect(config).await?, Command::Snapshot).await? else {
        bail!(unexpected());
    };
    answer(&snapshot, format, || show::status(&snapshot, &TimeZone::system()))?;
    Ok(ExitCode::SUCCESS)
}

/// What `sampan limit --json` prints.
#[derive(Serialize)]
struct LimitNow {
    /// Bytes per second; `null`: there is no limit.
    speed_limit: Option<u64>,
}

/// `sampan limit`: sets or lifts the limit if told to, then shows the one in force.
pub(crate) async fn limit(config: &Config, limit: Limit) -> anyhow::Result<ExitCode> {
    let mut client = connect(config).await?;
    if limit.speed.is_some() {
        let change = SettingsChange { speed_limit: limit.speed, ..SettingsChange::default() };
        ask(&mut client, Command::Configure { change }).await?;
    }
    let Reply::Snapshot(snapshot) = ask(&mut client, Command::Snapshot).await? else { bail!(unexpected()) };
    let speed_limit = snapshot.settings.speed_limit;
    answer(&LimitNow { speed_limit }, limit.format, || show::limit(speed_limit))?;
    Ok(ExitCode::SUCCESS)
}

/// `sampan allowance`.
pub(crate) async fn allowance(config: &Config, format: Format) -> anyhow::Result<ExitCode> {
    let Reply::Snapshot(snapshot) = ask(&mut connect(config).await?, Command::Snapshot).await? else {
        bail!(unexpected());
    };
    let allowances = snapshot.allowances;
    answer(&allowances, format, || show::allowances(&allowances, &TimeZone::system()))?;
    Ok(ExitCode::SUCCESS)
}

/// What `sampan pause --json` and `sampan resume --json` print.
#[derive(Serialize)]
struct PauseNow {
    paused: bool,
    /// Milliseconds since 1970; `null`: not paused, or until resumed.
    paused_until: Option<i64>,
}

/// `sampan pause`: begins a pause, or sets the end of the one that goes on.
pub(crate) async fn pause(config: &Config, pause: Pause) -> anyhow::Result<ExitCode> {
    let mut client = connect(config).await?;
    ask(&mut client, Command::Pause { seconds: pause.seconds }).await?;
    let Reply::Snapshot(snapshot) = ask(&mut client, Command::Snapshot).await? else { bail!(unexpected()) };
    let paused_until = snapshot.mirror.paused_until;
    let now = PauseNow { paused: true, paused_until };
    answer(&now, pause.format, || show::paused(paused_until, &TimeZone::system()))?;
    Ok(ExitCode::SUCCESS)
}

/// `sampan resume`.
pub(crate) async fn resume(config: &Config, format: Format) -> anyhow::Result<ExitCode> {
    ask(&mut connect(config).await?, Command::Resume).await?;
    let now = PauseNow { paused: false, paused_until: None };
    answer(&now, format, || "Sampan is not paused.\n".into())?;
    Ok(ExitCode::SUCCESS)
}

/// `sampan doctor`: asks the running Sampan, or looks itself as far as it can. Fails where a check does.
pub(crate) async fn doctor(
    config: Result<Config, ConfigError>,
    surroundings: &Surroundings,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let checks = match config {
        Ok(config) => diagnose(&config, surroundings).await?,
        Err(error) => vec![Check {
            name: "configuration".into(),
            status: CheckStatus::Bad,
            detail: error.to_string(),
            next_step: Some("Mend it, then run `sampan doctor` again for the rest.".into()),
        }],
    };
    answer(&checks, format, || show::checks(&checks))?;
    let bad = checks.iter().any(|check| check.status == CheckStatus::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn diagnose(config: &Config, surroundings: &Surroundings) -> anyhow::Result<Vec<Check>> {
    match Client::connect(&config.state_dir).await {
        Ok(mut client) => {
            let Reply::Doctor(checks) = ask(&mut client, Command::Doctor).await? else { bail!(unexpected()) };
            Ok(checks)
        }
        Err(ClientError::NotRunning { .. }) => Ok(sampan_app::examine(config, surroundings).await),
        Err(error) => Err(error.into()),
    }
}

pub(crate) async fn connect(config: &Config) -> Result<Client, ClientError> {
    Client::connect(&config.state_dir).await
}

/// Asks; an answer that the command failed becomes an error with its next step.
pub(crate) async fn ask(client: &mut Client, command: Command) -> anyhow::Result<Reply> {
    let reply = client.call(command).await?;
    if let Reply::Error(error) = reply {
        return Err(Refused::from(error).into());
    }
    Ok(reply)
}

/// What Sampan answers where a command fails, with its next step.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Refused {
    /// The closed reason.
    pub(crate) code: Code,
    text: String,
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        let message = error.message.trim_end_matches('.');
        let text = match error.next_step {
            Some(step) => format!("{message}. {step}"),
            None => format!("{message}."),
        };
        Self { code: error.code, text }
    }
}

/// Waits for `ended`. At the first Ctrl-C it asks Sampan to `stop` that and waits on, at the second it waits no longer.
pub(crate) async fn until_interrupted<T>(
    config: &Config,
    stop: Command,
    ended: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::pin!(ended);
    tokio::select! {
        // Looked at first, so that it is heard before anything is begun.
        biased;
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        ended = &mut ended => return ended,
    }
    let stopped = async {
        ask(&mut connect(config).await?, stop).await?;
        ended.await
    };
    tokio::select! {
        biased;
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            bail!("its end was not waited for. `sampan cache` shows whether it still goes on.")
        }
        ended = stopped => ended,
    }
}

pub(crate) fn unexpected() -> anyhow::Error {
    ClientError::Protocol("the answer is to another question".into()).into()
}

/// Prints the answer's value: as one JSON document, or as text.
pub(crate) fn answer(
    value: &impl Serialize,
    format: Format,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let text = if format.json { serde_json::to_string_pretty(value)? + "\n" } else { text() };
    Ok(output::print(&text)?)
}
