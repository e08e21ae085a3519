//! The commands about what is in the cache.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::bail;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sampan_app::api::{
    ClearReport, ClearSelection, Command, Reply, ScrubRun, Settings, SettingsChange, Snapshot, Task,
};
use sampan_app::{Client, ClientError, Config};
use serde::Serialize;

use crate::arguments::{Cache, Clear, Format, Images, Names, NotAsked, Scrub};
use crate::ask::{answer, ask, connect, unexpected, until_interrupted};
use crate::{output, show};

/// `sampan images`.
pub(crate) async fn images(config: &Config, images: &Images) -> anyhow::Result<ExitCode> {
    let (mut client, zone) = (connect(config).await?, TimeZone::system());
    if let Some(name) = images.name.clone() {
        let Reply::ImageDetails(details) = ask(&mut client, Command::ImageDetails { name }).await? else {
            bail!(unexpected());
        };
        answer(&details, images.format, || {
            show::details(&details, Timestamp::now().as_millisecond(), &zone)
        })?;
    } else {
        let Reply::Images(list) = ask(&mut client, Command::Images).await? else { bail!(unexpected()) };
        answer(&list, images.format, || show::images(&list, &zone))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What `sampan pin --json` and `sampan unpin --json` print.
#[derive(Serialize)]
struct Pinned<'a> {
    names: &'a [String],
    pinned: bool,
}

/// `sampan pin` and `sampan unpin`: one after the other, until one fails.
pub(crate) async fn pin(config: &Config, names: &Names, pinned: bool) -> anyhow::Result<ExitCode> {
    let mut client = connect(config).await?;
    for name in &names.names {
        ask(&mut client, Command::Pin { name: name.clone(), pinned }).await?;
    }
    let names_now = Pinned { names: &names.names, pinned };
    answer(&names_now, names.format, || show::pinned(&names.names, pinned))?;
    Ok(ExitCode::SUCCESS)
}

/// `sampan clear`: shows what would go, asks unless told not to, removes it.
pub(crate) async fn clear(config: &Config, clear: &Clear) -> anyhow::Result<ExitCode> {
    let asks = !clear.yes && !clear.dry_run;
    if asks && !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        bail!(NotAsked::Clear);
    }
    let zone = TimeZone::system();
    let mut client = connect(config).await?;
    let selection = clear.selection();
    let Reply::ClearPreview(preview) =
        ask(&mut client, Command::ClearPreview { selection: selection.clone() }).await?
    else {
        bail!(unexpected());
    };
    if let ClearSelection::Images { names } = &selection {
        let unknown = unknown(&mut client, names, &preview).await?;
        if !unknown.is_empty() {
            let names = show::plain(&unknown.join(" or "));
            bail!("no image in the cache is named {names}; nothing was cleared. See `sampan images`.");
        }
    }
    if clear.dry_run {
        answer(&preview, clear.format, || show::clear(&preview, true, &zone))?;
        return Ok(ExitCode::SUCCESS);
    }
    if asks && !consents(&preview, &zone)? {
        output::complain("nothing was cleared.");
        return Ok(ExitCode::FAILURE);
    }
    let command = Command::Clear { selection, immediate: clear.now };
    let Reply::Cleared(report) = ask(&mut client, command).await? else { bail!(unexpected()) };
    answer(&report, clear.format, || show::clear(&report, false, &zone))?;
    Ok(ExitCode::SUCCESS)
}

/// Which of the names name nothing in the cache: a slip of the fingers, told before anything goes. `preview` is of them all.
async fn unknown(
    client: &mut Client,
    names: &[String],
    preview: &ClearReport,
) -> anyhow::Result<Vec<String>> {
    if names.len() == 1 || preview.images.is_empty() {
        return Ok(if preview.images.is_empty() { names.to_vec() } else { Vec::new() });
    }
    let mut unknown = Vec::new();
    for name in names {
        let selection = ClearSelection::Images { names: vec![name.clone()] };
        let Reply::ClearPreview(alone) = ask(client, Command::ClearPreview { selection }).await? else {
            bail!(unexpected());
        };
        if alone.images.is_empty() {
            unknown.push(name.clone());
        }
    }
    Ok(unknown)
}

/// Shows what would go, and asks. Only a clear yes is one.
fn consents(preview: &ClearReport, zone: &TimeZone) -> io::Result<bool> {
    output::ask(&format!("{}Clear? [y/N] ", show::clear(preview, true, zone)));
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// What `sampan undo --json` prints.
#[derive(Serialize)]
struct Undone {
    undone: bool,
}

/// `sampan undo`.
pub(crate) async fn undo(config: &Config, format: Format) -> anyhow::Result<ExitCode> {
    ask(&mut connect(config).await?, Command::ClearUndo { id: None }).await?;
    answer(&Undone { undone: true }, format, || "The image is back.\n".into())?;
    Ok(ExitCode::SUCCESS)
}

/// What `sampan cache --json` prints.
#[derive(Serialize)]
struct CacheNow<'a> {
    cache: &'a sampan_app::api::Cache,
    settings: &'a Settings,
    task: Option<&'a Task>,
}

/// `sampan cache`: changes what is told, then shows how it is.
pub(crate) async fn cache(config: &Config, told: Cache) -> anyhow::Result<ExitCode> {
    let mut client = connect(config).await?;
    let change = SettingsChange {
        quota: told.quota,
        max_age_days: told.max_age,
        verify: told.verify,
        ..SettingsChange::default()
    };
    let Reply::Snapshot(before) = ask(&mut client, Command::Snapshot).await? else { bail!(unexpected()) };
    let changes = change != SettingsChange::default();
    if changes {
        ask(&mut client, Command::Configure { change }).await?;
    }
    let Reply::Snapshot(snapshot) = ask(&mut client, Command::Snapshot).await? else { bail!(unexpected()) };
    let Snapshot { cache, settings, task, .. } = &*snapshot;
    let now = CacheNow { cache, settings, task: task.as_ref() };
    answer(&now, told.format, || {
        let text = show::cache(cache, settings, task.as_ref(), &TimeZone::system());
        text + &show::goes_soon(&before.settings, &snapshot)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What `sampan scrub --background --json` prints.
#[derive(Serialize)]
struct Begun {
    begun: bool,
}

/// `sampan scrub`: fails where damage was found, or where it did not come to its end.
pub(crate) async fn scrub(config: &Config, scrub: Scrub) -> anyhow::Result<ExitCode> {
    let mut client = connect(config).await?;
    ask(&mut client, Command::Scrub { start: true }).await?;
    if scrub.background {
        let told = "The scrub goes on in Sampan; `sampan cache` shows how far it is.\n";
        answer(&Begun { begun: true }, scrub.format, || told.into())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut snapshots = connect(config).await?.watch().await?;
    let ended = async {
        let mut line = output::Progress::new();
        loop {
            let Some(Snapshot { cache, .. }) = snapshots.next().await else { bail!(ClientError::Lost) };
            match cache.scrub.filter(|scrub| !scrub.background) {
                Some(scrub) => line.show(&show::scrub_progress(&scrub)),
                None => break,
            }
        }
        Ok(())
    };
    // It stops at the next piece; its end is awaited as any other.
    until_interrupted(config, Command::Scrub { start: false }, ended).await?;
    let Reply::Health(health) = ask(&mut client, Command::Health).await? else { bail!(unexpected()) };
    let run: ScrubRun = health.last_run.unwrap_or_default();
    answer(&run, scrub.format, || show::scrubbed(&run))?;
    Ok(if run.complete && run.damaged + run.unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
