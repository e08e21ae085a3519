//! The commands that take images elsewhere and in.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use sampan_app::Config;
use sampan_app::api::{Command, Reply, Task};
use serde::Serialize;

use crate::arguments::{Export, Format, Import};
use crate::ask::{answer, ask, connect, unexpected, until_interrupted};
use crate::{output, show};

/// `sampan export`.
pub(crate) async fn export(config: &Config, export: &Export) -> anyhow::Result<ExitCode> {
    let command = Command::Export { names: export.names.clone(), path: absolute(&export.to)? };
    let Reply::Exported(exported) = at_length(config, command).await? else { bail!(unexpected()) };
    answer(&exported, export.format, || show::exported(&exported))?;
    Ok(ExitCode::SUCCESS)
}

/// `sampan import`: fails where nothing came in.
pub(crate) async fn import(config: &Config, import: &Import) -> anyhow::Result<ExitCode> {
    let (path, trust_names, name) = (absolute(&import.path)?, import.trust_names, import.name.clone());
    let command = Command::Import { path, trust_names, name };
    let Reply::Imported(imported) = at_length(config, command).await? else { bail!(unexpected()) };
    answer(&imported, import.format, || show::imported(&imported, import.trust_names))?;
    Ok(if imported.images.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The same path for a process that was started elsewhere.
fn absolute(path: &Path) -> anyhow::Result<String> {
    let path =
        std::path::absolute(path).with_context(|| format!("cannot use the path {}", path.display()))?;
    match path.into_os_string().into_string() {
        Ok(path) => Ok(path),
        Err(path) => bail!("the path {} is not text: choose another name", path.display()),
    }
}

/// What `sampan cancel --json` prints.
#[derive(Serialize)]
struct Cancelled<'a> {
    /// What was stopped; `null`: nothing went on.
    task: Option<&'a Task>,
}

/// `sampan cancel`.
pub(crate) async fn cancel(config: &Config, format: Format) -> anyhow::Result<ExitCode> {
    let mut client = connect(config).await?;
    let Reply::Snapshot(snapshot) = ask(&mut client, Command::Snapshot).await? else { bail!(unexpected()) };
    ask(&mut client, Command::StopTask).await?;
    let task = snapshot.task.as_ref();
    answer(&Cancelled { task }, format, || show::cancelled(task))?;
    Ok(ExitCode::SUCCESS)
}

/// Asks, shows how far it is, and stops it at Ctrl-C.
async fn at_length(config: &Config, command: Command) -> anyhow::Result<Reply> {
    let mut client = connect(config).await?;
    let mut snapshots = connect(config).await?.watch().await?;
    let answered = async {
        let mut line = output::Progress::new();
        let answered = ask(&mut client, command);
        tokio::pin!(answered);
        let mut watches = true;
        loop {
            tokio::select! {
                reply = &mut answered => return reply,
                snapshot = snapshots.next(), if watches => match snapshot {
                    Some(snapshot) => if let Some(task) = &snapshot.task {
                        line.show(&show::task_progress(task));
                    },
                    None => watches = false,
                },
            }
        }
    };
    until_interrupted(config, Command::StopTask, answered).await
}
