//! The commands about freshness.

use std::process::ExitCode;

use anyhow::bail;
use jiff::tz::TimeZone;
use sampan_app::Config;
use sampan_app::api::{Command, RefreshResult, Reply, Settings, SettingsChange};
use serde::Serialize;

use crate::arguments::{Format, FreshnessCommand, Names, Offline, Switch};
use crate::ask::{answer, ask, connect, unexpected};
use crate::show;

/// `sampan freshness`: changes a rule if told to, then shows them all.
pub(crate) async fn freshness(
    config: &Config,
    what: Option<&FreshnessCommand>,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let mut client = connect(config).await?;
    if let Some(change) = what.and_then(FreshnessCommand::change) {
        let change = SettingsChange { freshness: Some(change), ..SettingsChange::default() };
        ask(&mut client, Command::Configure { change }).await?;
    }
    let Settings { freshness, .. } = settings(&mut client).await?;
    let format = what.map_or(format, FreshnessCommand::format);
    answer(&freshness, format, || show::freshness(&freshness))?;
    Ok(ExitCode::SUCCESS)
}

/// What `sampan offline --json` prints.
#[derive(Serialize)]
struct OfflineNow {
    offline: bool,
}

/// `sampan offline`.
pub(crate) async fn offline(config: &Config, offline: Offline) -> anyhow::Result<ExitCode> {
    let mut client = connect(config).await?;
    if offline.switch != Switch::Status {
        let switched = Some(offline.switch == Switch::On);
        let change = SettingsChange { offline: switched, ..SettingsChange::default() };
        ask(&mut client, Command::Configure { change }).await?;
    }
    let Settings { offline: now, .. } = settings(&mut client).await?;
    answer(&OfflineNow { offline: now }, offline.format, || show::offline(now))?;
    Ok(ExitCode::SUCCESS)
}

async fn settings(client: &mut sampan_app::Client) -> anyhow::Result<Settings> {
    let Reply::Snapshot(snapshot) = ask(client, Command::Snapshot).await? else { bail!(unexpected()) };
    Ok(snapshot.settings)
}

/// `sampan refresh`: one after the other. Fails where a registry could not say.
pub(crate) async fn refresh(config: &Config, names: &Names) -> anyhow::Result<ExitCode> {
    let mut client = connect(config).await?;
    let mut all = Vec::new();
    for name in &names.names {
        let command = Command::Refresh { name: name.clone() };
        let Reply::Refreshed(refreshed) = ask(&mut client, command).await? else { bail!(unexpected()) };
        all.extend(refreshed);
    }
    answer(&all, names.format, || show::refreshed(&all))?;
    let failed = all.iter().any(|refreshed| refreshed.result == RefreshResult::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// `sampan freeze` and `sampan unfreeze`: one after the other, until one fails. Shows what they are now.
pub(crate) async fn freeze(config: &Config, names: &Names, frozen: bool) -> anyhow::Result<ExitCode> {
    let mut client = connect(config).await?;
    let mut all = Vec::new();
    for name in &names.names {
        ask(&mut client, Command::Freeze { name: name.clone(), frozen }).await?;
        let tagged = name.split_once('@').map_or(name.as_str(), |(tagged, _)| tagged).to_owned();
        let details = ask(&mut client, Command::ImageDetails { name: tagged }).await?;
        let Reply::ImageDetails(details) = details else { bail!(unexpected()) };
        all.extend(details.into_iter().map(|details| details.image));
    }
    answer(&all, names.format, || show::images(&all, &TimeZone::system()))?;
    Ok(ExitCode::SUCCESS)
}
