//! Carries out a plan a person consented to, proves that the engine took it, and takes everything back if not.
//!
//! Order for each file: journal, backup, write, fsync, rename, fsync. Nothing is written over bytes that differ from
//! those shown.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sampan_oci::Digest;

use crate::carry::{Carrier, Failed};
use crate::elevation::{Elevation, ElevationError, HelperReport, Verb};
use crate::engine::Engine;
use crate::environment::Environment;
use crate::files;
use crate::journal::{Change, Journal};
use crate::plan::{Action, ApplyMethod, FileChange, Part, Plan};

/// `dockerd --validate` answers at once; a daemon that hangs is no judge.
const VALIDATE: Duration = Duration::from_secs(15);

/// What applying did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What was done, in order, one English sentence each.
    pub steps: Vec<String>,
}

/// Why a plan was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A file differs from what was shown; nothing was changed.
    #[error("{0} was changed since the plan was shown")]
    Outdated(PathBuf),
    /// The engine must restart and the person did not consent to that; nothing was changed.
    #[error("Docker must be restarted for this, which needs its own consent")]
    RestartNotConsented,
    /// dockerd itself refuses the new file; nothing was changed.
    #[error("dockerd refuses the new configuration: {0}")]
    Invalid(String),
    /// Administrator rights were needed and not given; nothing was changed.
    #[error(transparent)]
    NotPermitted(ElevationError),
    /// Something could not be read or written; nothing was changed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// The change was made, failed, and everything is as before.
    #[error("{reason} Everything is as it was before.")]
    RolledBack {
        /// What failed, one English sentence.
        reason: String,
        /// What was done, in order.
        steps: Vec<String>,
    },
    /// The change failed, and so did taking it back. The backups are kept.
    #[error("{reason} Taking the change back failed too: {detail}")]
    RollbackFailed {
        /// What failed first, one English sentence.
        reason: String,
        /// What failed then.
        detail: String,
        /// The shell commands that finish it by hand.
        commands: Vec<String>,
    },
    /// The privileged step failed; its own words.
    #[error("{0}")]
    Helper(String),
}

/// Carries out `plan`, which was made from `engine`. `consent_restart` is the second consent: the engine may restart.
/// After enabling or disabling through `daemon.json` the engine lists the intended mirrors when this returns.
///
/// # Errors
/// An [`ApplyError`]. Unless it is [`ApplyError::RollbackFailed`], every file then has the bytes it had before.
///
/// # Cancel safety
/// Dropping the future may leave the change half done; the journal lets [`recover`] take it back.
pub async fn apply(
    env: &Environment,
    engine: &Engine,
    plan: &Plan,
    consent_restart: bool,
    elevation: &dyn Elevation,
) -> Result<Applied, ApplyError> {
    if plan.is_nothing() {
        return Ok(Applied { steps: vec!["Everything was as wanted already.".into()] });
    }
    if plan.apply == ApplyMethod::Restart && !consent_restart {
        return Err(ApplyError::RestartNotConsented);
    }
    for file in &plan.files {
        unchanged(file, env.uid)?;
    }
    if plan.needs_elevation {
        return elevated(plan, elevation).await;
    }
    let mut steps = Vec::new();
    for file in plan.files.iter().filter(|file| file.part == Part::DaemonJson) {
        for bytes in [&file.interim, &file.after].into_iter().flatten() {
            validate(engine, bytes).await?;
        }
        steps.extend(
            engine.validator.as_ref().map(|dockerd| format!("{} finds it valid.", dockerd.display())),
        );
    }
    let mut journal = Journal::load(&env.state_dir);
    journal.pending = plan.files.iter().map(|file| pending(file, plan.port)).collect();
    save(&journal, env)?;
    let mut carrier = Carrier::new(env, engine, journal, steps);
    let result = carry_out(&mut carrier, plan).await;
    match result {
        Ok(()) => {
            let Carrier { mut journal, steps, .. } = carrier;
            settle(&mut journal, plan);
            save(&journal, env)?;
            Ok(Applied { steps })
        }
        Err(failed) => Err(take_back(carrier, plan, failed).await),
    }
}

async fn carry_out(carrier: &mut Carrier<'_>, plan: &Plan) -> Result<(), Failed> {
    let mut told = false;
    let intended: Vec<Vec<String>> = plan.intended.iter().cloned().collect();
    for file in &plan.files {
        carrier.prepare(file)?;
        let first = file.interim.as_ref().or(file.after.as_ref());
        carrier.write(file, first.map(Vec::as_slice))?;
        if file.part == Part::DaemonJson && plan.apply != ApplyMethod::Nothing {
            carrier.tell(plan.apply, &intended).await?;
            told = true;
        }
        if file.interim.is_some() {
            carrier.write(file, file.after.as_deref())?;
        }
    }
    if plan.apply != ApplyMethod::Nothing && !told {
        carrier.tell(plan.apply, &intended).await?;
    }
    Ok(())
}

async fn take_back(mut carrier: Carrier<'_>, plan: &Plan, failed: Failed) -> ApplyError {
    let reason = failed.to_string();
    match carrier.roll_back(&plan.files, plan.apply).await {
        Ok(()) => {
            carrier.journal.pending.clear();
            let saved = carrier.journal.save(&carrier.env.state_dir);
            let mut steps = carrier.steps;
            if let Err(error) = saved {
                steps.push(format!("The journal could not be written: {error}."));
            }
            match failed {
                Failed::Changed(path) if !carrier.touched => ApplyError::Outdated(path),
                Failed::Io { path, source } if !carrier.touched => ApplyError::Io { path, source },
                Failed::Changed(_) | Failed::Io { .. } | Failed::Engine(_) => {
                    ApplyError::RolledBack { reason, steps }
                }
            }
        }
        Err(failed) => {
            let commands = carrier.by_hand(&plan.files, plan.apply);
            ApplyError::RollbackFailed { reason, detail: failed.to_string(), commands }
        }
    }
}

/// Takes back changes that an earlier run began and did not end (a crash, a power cut). To be called at start with
/// the engine as it is now. Returns what was done, one English sentence each; empty: there was nothing to do.
///
/// # Errors
/// [`ApplyError::RollbackFailed`] where a file could not be restored; it is tried again at the next start.
pub async fn recover(env: &Environment, engine: &Engine) -> Result<Vec<String>, ApplyError> {
    let journal = Journal::load(&env.state_dir);
    if journal.pending.is_empty() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for change in &journal.pending {
        if let Some(file) = unfinished(change, engine) {
            files.push(file);
        }
    }
    let tells = files.iter().any(|file| file.part == Part::DaemonJson);
    let apply = if tells && engine.pid.is_some() { ApplyMethod::Reload } else { ApplyMethod::Nothing };
    let mut carrier = Carrier::new(env, engine, journal, Vec::new());
    carrier.resume(&files);
    if let Err(failed) = carrier.roll_back(&files, apply).await {
        let commands = carrier.by_hand(&files, apply);
        let reason = "An earlier change was interrupted.".into();
        return Err(ApplyError::RollbackFailed { reason, detail: failed.to_string(), commands });
    }
    carrier.journal.pending.clear();
    save(&carrier.journal, env)?;
    Ok(carrier.steps)
}

/// A begun change as a file change whose `after` is what is there now; `None`: the file is as before, or somebody
/// else changed it since.
fn unfinished(change: &Change, engine: &Engine) -> Option<FileChange> {
    let now = files::read(&change.target).ok()?;
    let hash = now.as_deref().map(Digest::of);
    if hash == change.before || !(hash == change.after || (hash.is_some() && hash == change.interim)) {
        return None;
    }
    let before = match change.before {
        None => None,
        Some(before) => {
            Some(files::read(change.backup.as_deref()?).ok()?.filter(|bytes| before.names(bytes))?)
        }
    };
    let part = match engine.hosts.iter().find(|hosts| hosts.file.target == change.target) {
        Some(hosts) => Part::Hosts(hosts.registry.clone()),
        None => Part::DaemonJson,
    };
    Some(FileChange {
        path: change.target.clone(),
        target: change.target.clone(),
        part,
        created: before.is_none(),
        removed: now.is_none(),
        before,
        interim: None,
        after: now,
        diff: Vec::new(),
    })
}

/// The file is still the one that was shown, reached by the same way.
fn unchanged(file: &FileChange, uid: u32) -> Result<(), ApplyError> {
    let seen = files::look(&file.path, uid);
    if seen.problem.is_some() || seen.target != file.target || seen.bytes != file.before {
        return Err(ApplyError::Outdated(file.path.clone()));
    }
    Ok(())
}

async fn elevated(plan: &Plan, elevation: &dyn Elevation) -> Result<Applied, ApplyError> {
    let verb = match plan.action {
        Action::Enable => Verb::Enable,
        Action::Disable => Verb::Disable,
    };
    let report = elevation.run(verb, plan.port).await.map_err(ApplyError::NotPermitted)?;
    let HelperReport { done, rolled_back, mut steps, error } = report;
    if !done {
        let reason = error.unwrap_or_else(|| "The privileged step failed.".into());
        return Err(if rolled_back {
            ApplyError::RolledBack { reason, steps }
        } else {
            ApplyError::Helper(reason)
        });
    }
    // The helper makes its own plan from the files as it finds them; what it did is compared with what was shown.
    for file in &plan.files {
        if files::read(&file.target).is_ok_and(|now| now != file.after) {
            steps.push(format!(
                "{} differs from what was shown: somebody else changes it too.",
                file.path.display()
            ));
        }
    }
    Ok(Applied { steps })
}

/// Asks a dockerd of the engine's version, where there is one that can answer. Its word is necessary, not enough.
async fn validate(engine: &Engine, bytes: &[u8]) -> Result<(), ApplyError> {
    let Some(dockerd) = &engine.validator else { return Ok(()) };
    let io = |source| ApplyError::Io { path: dockerd.clone(), source };
    let mut temp =
        tempfile::Builder::new().prefix("sampan-daemon-").suffix(".json").tempfile().map_err(io)?;
    io::Write::write_all(&mut temp, bytes).map_err(io)?;
    let mut command = tokio::process::Command::new(dockerd);
    command.env_clear().arg("--validate").arg("--config-file").arg(temp.path());
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(VALIDATE, command.output()).await {
        Err(_) => return Err(ApplyError::Invalid("it did not say whether it is valid".into())),
        Ok(output) => output.map_err(io)?,
    };
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words
        .lines()
        .last()
        .unwrap_or("it did not say why")
        .replace(&*temp.path().to_string_lossy(), "daemon.json");
    Err(ApplyError::Invalid(last))
}

fn pending(file: &FileChange, port: u16) -> Change {
    Change {
        target: file.target.clone(),
        port,
        before: file.before.as_deref().map(Digest::of),
        interim: file.interim.as_deref().map(Digest::of),
        after: file.after.as_deref().map(Digest::of),
        backup: None,
        made_folders: Vec::new(),
    }
}

/// Moves what was begun to what is in place. Enabling twice keeps the bytes from before the first time.
fn settle(journal: &mut Journal, plan: &Plan) {
    for mut change in std::mem::take(&mut journal.pending) {
        let earlier = journal.installed.iter().position(|old| old.target == change.target);
        let earlier = earlier.map(|index| journal.installed.remove(index));
        if plan.action == Action::Disable {
            let file = plan.files.iter().find(|file| file.target == change.target);
            // A file that only Sampan wrote can be written again at any time: its backups are litter.
            if file.is_some_and(|file| file.removed && matches!(file.part, Part::Hosts(_))) {
                for backup in files::backups(&change.target) {
                    let _ = std::fs::remove_file(backup);
                }
            }
            if let Some(earlier) = earlier.filter(|_| change.after.is_none()) {
                remove_folders(&earlier.made_folders);
            }
            continue;
        }
        if let Some(earlier) = earlier.filter(|earlier| earlier.after == change.before) {
            change = Change { after: change.after, port: change.port, ..earlier };
        }
        journal.installed.push(change);
    }
}

/// Folders that were made and are empty again go; others stay.
pub(crate) fn remove_folders(made: &[PathBuf]) {
    for folder in made.iter().rev() {
        if std::fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

fn save(journal: &Journal, env: &Environment) -> Result<(), ApplyError> {
    let path = |dir: &Path| dir.to_owned();
    journal.save(&env.state_dir).map_err(|source| ApplyError::Io { path: path(&env.state_dir), source })
}
