//! Carries out a plan a person consented to, proves that the engine took it, and takes everything back if not.
//!
//! Order for each file: journal, backup, write, fsync, rename, fsync. Nothing is written over bytes that differ from
//! those shown.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sampan_oci::Digest;

use crate::carry::{Carrier, Failed};
use crate::context::same_endpoint;
use crate::elevation::{Elevation, ElevationError, HelperReport};
use crate::engine::Engine;
use crate::environment::Environment;
use crate::files;
use crate::journal::{Change, Journal, Litter, forget};
use crate::plan::{Action, ApplyMethod, FileChange, Part, Plan};
use crate::service::{ByCommand, Service};

/// `dockerd --validate` answers at once; a daemon that hangs is no judge.
const VALIDATE: Duration = Duration::from_secs(15);

/// What applying did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What was done, in order, one English sentence each.
    pub steps: Vec<String>,
    /// What was in place of these files before, for [`undo`](crate::undo).
    pub(crate) earlier: Vec<Change>,
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
    /// Other containers would stop than were agreed to, found after administrator rights were given; nothing was changed.
    #[error("other containers would stop now than were shown: {}", none_or(.0))]
    OtherContainers(Vec<String>),
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
    /// Sampan's record of its changes could have been written by others, or is a newer Sampan's; nothing was changed.
    #[error("{0}")]
    Untrusted(String),
    /// An earlier change was interrupted and could not be settled; nothing else was changed.
    #[error("An earlier change was interrupted and is not settled: {0}")]
    Unsettled(String),
    /// The privileged step failed, or did not say whether it was done; its own words.
    #[error("{reason}")]
    Helper {
        /// What failed.
        reason: String,
        /// The shell commands that finish it by hand, where it said some.
        commands: Vec<String>,
    },
}

fn none_or(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Carries out `plan`, which was made from `engine`. `consent_restart` is the second consent: the engine may restart.
/// After enabling or disabling through `daemon.json` the engine lists the intended mirrors when this returns.
///
/// # Errors
/// An [`ApplyError`]. Unless it is [`ApplyError::RollbackFailed`], every file then has the bytes it had before.
///
/// # Cancel safety
/// Dropping the future may leave the change half done; the journal lets [`recover`](crate::recover) take it back.
pub async fn apply(
    env: &Environment,
    engine: &Engine,
    plan: &Plan,
    consent_restart: bool,
    elevation: &dyn Elevation,
) -> Result<Applied, ApplyError> {
    apply_with(env, engine, plan, consent_restart, elevation, &ByCommand::of(engine)).await
}

/// [`apply`], for an engine that `service` restarts: for whoever started the daemon by hand.
///
/// # Errors
/// As [`apply`].
///
/// # Cancel safety
/// As [`apply`].
pub async fn apply_with(
    env: &Environment,
    engine: &Engine,
    plan: &Plan,
    consent_restart: bool,
    elevation: &dyn Elevation,
    service: &dyn Service,
) -> Result<Applied, ApplyError> {
    if plan.is_nothing() {
        if plan.action == Action::Disable {
            // It may have been done by hand: what is still remembered would look like somebody else's change.
            let known = engine.remembered.iter().map(|known| &known.change);
            let known = known.filter(|change| {
                same_endpoint(&change.endpoint, &engine.endpoint)
                    && !engine.is_anothers(change.port, plan.port)
            });
            let targets: Vec<&Path> = known.map(|change| change.target.as_path()).collect();
            if !targets.is_empty() {
                forget(env, &targets);
            }
        }
        let steps = vec!["Everything was as wanted already.".into()];
        return Ok(Applied { steps, earlier: Vec::new() });
    }
    if plan.apply == ApplyMethod::Restart && !consent_restart {
        return Err(ApplyError::RestartNotConsented);
    }
    for file in &plan.files {
        unchanged(file, env.uid)?;
    }
    let mut journal = settled_journal(env, engine)?;
    let paths: Vec<&Path> = plan.files.iter().map(|file| file.target.as_path()).collect();
    if plan.needs_elevation {
        let applied = elevated(plan, elevation).await?;
        if plan.action == Action::Enable && !journal.settled.is_empty() {
            journal.settled.clear();
            save(&journal, env)?;
        }
        if plan.action == Action::Disable {
            forget(env, &paths);
        }
        return Ok(applied);
    }
    let mut steps = Vec::new();
    for file in plan.files.iter().filter(|file| file.part == Part::DaemonJson) {
        for bytes in [&file.interim, &file.after].into_iter().flatten() {
            validate(env, engine, &file.path, bytes).await?;
        }
        steps.extend(
            engine.validator.as_ref().map(|dockerd| format!("{} finds it valid.", dockerd.display())),
        );
    }
    let leaving = plan.action == Action::Disable;
    let begun = plan.files.iter().map(|file| pending(file, plan.port, &engine.endpoint));
    journal.pending.extend(begun.map(|change| Change { leaving, ..change }));
    save(&journal, env)?;
    let mut carrier = Carrier::new(env, engine, journal, steps, service);
    let result = carry_out(&mut carrier, plan).await;
    match result {
        Ok(()) => {
            let Carrier { mut journal, mut steps, .. } = carrier;
            let targets = |change: &&Change| plan.files.iter().any(|file| file.target == change.target);
            let earlier = journal.installed.iter().filter(targets).cloned().collect();
            settle(&mut journal, plan.action, &engine.endpoint);
            if let Err(error) = journal.save_and_tidy(&env.state_dir, &engine.endpoint, |_| true) {
                steps.push(format!(
                    "It could not be written down that this is done ({error}): at its next start Sampan takes it back."
                ));
            }
            if plan.action == Action::Disable {
                forget(env, &paths);
            }
            Ok(Applied { steps, earlier })
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
    // Whoever ends this finds a way back, not a way on. Unsaved, the way on is as good.
    carrier.journal.pending.iter_mut().for_each(|change| change.leaving = false);
    let _ = carrier.journal.save(&carrier.env.state_dir);
    match carrier.roll_back(&plan.files, plan.apply).await {
        Ok(()) => {
            let touched = carrier.touched;
            let Carrier { mut journal, mut steps, env, engine, .. } = carrier;
            let taken = journal.take_pending(&engine.endpoint);
            journal.litter_of(&taken);
            tidy(&mut journal, env, engine, &mut steps);
            match failed {
                Failed::Changed(path) if !touched => ApplyError::Outdated(path),
                Failed::Io { path, source } if !touched => ApplyError::Io { path, source },
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

/// The file is still the one that was shown, reached by the same way.
pub(crate) fn unchanged(file: &FileChange, uid: u32) -> Result<(), ApplyError> {
    let seen = files::look(&file.path, uid);
    if seen.problem.is_some() || seen.target != file.target || seen.bytes != file.before {
        return Err(ApplyError::Outdated(file.path.clone()));
    }
    Ok(())
}

pub(crate) async fn elevated(plan: &Plan, elevation: &dyn Elevation) -> Result<Applied, ApplyError> {
    let report = elevation.run(plan.verb, plan.port).await.map_err(|error| match error {
        ElevationError::Unavailable(_) | ElevationError::Declined | ElevationError::NotGiven => {
            ApplyError::NotPermitted(error)
        }
        ElevationError::Unknown(_) | ElevationError::Failed(_) => {
            ApplyError::Helper { reason: error.to_string(), commands: Vec::new() }
        }
    })?;
    let HelperReport { done, rolled_back, mut steps, error, commands, stops } = report;
    if let Some(stops) = stops.filter(|_| !done) {
        return Err(ApplyError::OtherContainers(stops));
    }
    if !done {
        let reason = error.unwrap_or_else(|| "The privileged step failed.".into());
        return Err(if rolled_back {
            ApplyError::RolledBack { reason, steps }
        } else {
            ApplyError::Helper { reason, commands }
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
    Ok(Applied { steps, earlier: Vec::new() })
}

/// Asks a dockerd of the engine's version, where there is one that can answer. Its word is necessary, not enough.
async fn validate(env: &Environment, engine: &Engine, shown: &Path, bytes: &[u8]) -> Result<(), ApplyError> {
    let Some(dockerd) = &engine.validator else { return Ok(()) };
    let io = |source| ApplyError::Io { path: dockerd.clone(), source };
    // Where a killed run's is found again.
    std::fs::create_dir_all(&env.state_dir).map_err(io)?;
    let mut temp =
        tempfile::Builder::new().prefix(Journal::TRIAL_MARK).tempfile_in(&env.state_dir).map_err(io)?;
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
        .replace(&*temp.path().to_string_lossy(), &shown.display().to_string());
    Err(ApplyError::Invalid(last))
}

/// The journal, where nothing of this engine's is left half done.
pub(crate) fn settled_journal(env: &Environment, engine: &Engine) -> Result<Journal, ApplyError> {
    let journal = Journal::load(&env.state_dir, env.uid).map_err(ApplyError::Untrusted)?;
    if let Some(change) = journal.pending_on(&engine.endpoint).next() {
        let path = change.target.display();
        return Err(ApplyError::Unsettled(format!(
            "{path} is taken back first, which Sampan does at its start."
        )));
    }
    Ok(journal)
}

pub(crate) fn pending(file: &FileChange, port: u16, endpoint: &str) -> Change {
    Change {
        target: file.target.clone(),
        part: file.part.clone(),
        endpoint: endpoint.into(),
        port,
        before: file.before.as_deref().map(Digest::of),
        interim: file.interim.as_deref().map(Digest::of),
        going_back: None,
        after: file.after.as_deref().map(Digest::of),
        backup: None,
        made_folders: Vec::new(),
        leaving: false,
    }
}

/// Saves the journal, then removes what nobody needs any more.
pub(crate) fn tidy(journal: &mut Journal, env: &Environment, engine: &Engine, steps: &mut Vec<String>) {
    if let Err(error) = journal.save_and_tidy(&env.state_dir, &engine.endpoint, |_| true) {
        steps.push(format!("It could not be written down that this is done: {error}."));
    }
}

/// Moves what was begun to what is in place. Enabling twice keeps the bytes from before the first time.
pub(crate) fn settle(journal: &mut Journal, action: Action, endpoint: &str) {
    for mut change in journal.take_pending(endpoint) {
        let earlier = journal.installed.iter().position(|old| old.target == change.target);
        let earlier = earlier.map(|index| journal.installed.remove(index));
        // Enabling removes the files of registries that are no longer chosen.
        if action == Action::Disable || change.after.is_none() {
            let mut litter = Litter::of(&change);
            // A file that only Sampan wrote can be written again at any time: its backups are litter.
            if change.after.is_none() && matches!(change.part, Part::Hosts(_) | Part::Client) {
                litter.backups = files::backups(&change.target);
            }
            if let Some(earlier) = earlier.filter(|_| change.after.is_none()) {
                litter.folders = earlier.made_folders;
            }
            journal.litter.push(litter);
            continue;
        }
        if let Some(earlier) = earlier.filter(|earlier| earlier.after == change.before) {
            let Change { after, port, endpoint, .. } = change;
            change = Change { endpoint, port, after, ..earlier };
        }
        journal.installed.push(change);
    }
}

pub(crate) fn save(journal: &Journal, env: &Environment) -> Result<(), ApplyError> {
    journal.save(&env.state_dir).map_err(|source| ApplyError::Io { path: env.state_dir.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_journal_still_names_stays_when_it_cannot_be_saved() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        // A folder in the journal's place cannot be replaced by a file.
        std::fs::create_dir_all(state_dir.join("docker.json")).unwrap();
        let target = dir.path().join("made/docker.io/hosts.toml");
        let folders = vec![dir.path().join("made"), dir.path().join("made/docker.io")];
        let backup = dir.path().join("made/docker.io/hosts.toml.sampan-backup-1");
        let others = dir.path().join("else");
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::create_dir(&others).unwrap();
        std::fs::write(&backup, "held").unwrap();
        let endpoint = "unix:///var/run/docker.sock".to_owned();
        // What is named and is not beside the file is nobody's litter, whoever wrote it down.
        let named = [folders.clone(), vec![others.clone()]].concat();
        let litter =
            Litter { target, endpoint: endpoint.clone(), backups: vec![backup.clone()], folders: named };
        let mut journal = Journal { litter: vec![litter], ..Journal::default() };
        let refused = journal.save_and_tidy(&state_dir, &endpoint, |_| true);
        assert!(refused.is_err() && journal.litter.len() == 1, "a person is told: {refused:?}");
        assert!(backup.exists() && folders[1].exists(), "the journal on disk may still need them");
        std::fs::remove_dir(state_dir.join("docker.json")).unwrap();
        journal.save_and_tidy(&state_dir, "unix:///run/other.sock", |_| true).unwrap();
        assert!(backup.exists(), "another engine's");
        let saved = Journal::load(&state_dir, 0).unwrap_or_default();
        assert_eq!(saved.litter, journal.litter, "and still named, for a run that ends now");
        journal.save_and_tidy(&state_dir, "unix:///run/docker.sock", |_| true).unwrap();
        assert!(!folders[0].exists() && others.exists(), "afterwards they go, and nothing else");
        assert_eq!(Journal::load(&state_dir, 0).unwrap_or_default(), Journal::default(), "and are forgotten");
    }
}
