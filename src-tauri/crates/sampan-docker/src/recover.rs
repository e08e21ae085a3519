//! Takes back what an interrupted run left half done, or finishes it (`finish.rs`). What the journal says is checked, never believed.

use std::path::Path;

use sampan_oci::Digest;

use crate::apply::{ApplyError, tidy};
use crate::carry::Carrier;
use crate::context::same_endpoint;
use crate::daemon_json::{self, same_mirror};
use crate::engine::{Engine, FileSeen};
use crate::environment::Environment;
use crate::files;
use crate::finish;
use crate::journal::{Change, Journal};
use crate::plan::{ApplyMethod, FileChange, Part};
use crate::service::ByCommand;

/// Takes back changes of this engine that an earlier run began and did not end (a crash, a power cut); a disabling is
/// finished where that is safe. To be called
/// at start, and before a new change, with the engine as it is now. Returns what was done, one English sentence
/// each; empty: there was nothing to do. What was begun on another engine waits for that engine.
///
/// # Errors
/// [`ApplyError::RollbackFailed`] where a file could not be restored: it is tried again at the next start.
/// [`ApplyError::Unsettled`] where the journal names a file that is not this engine's: that one is left alone.
/// [`ApplyError::Untrusted`] where others could have written the journal, or a newer Sampan did.
pub async fn recover(env: &Environment, engine: &Engine) -> Result<Vec<String>, ApplyError> {
    let mut journal = Journal::load(&env.state_dir, env.uid).map_err(ApplyError::Untrusted)?;
    let damaged = Journal::set_aside(&env.state_dir)
        .map_err(|source| ApplyError::Io { path: env.state_dir.clone(), source })?;
    Journal::sweep(&env.state_dir);
    if journal.litter.iter().any(|litter| same_endpoint(&litter.endpoint, &engine.endpoint)) {
        // What cannot be tidied up now is in nobody's way, and still named.
        let _ = journal.save_and_tidy(&env.state_dir, &engine.endpoint, |target| may_be_of(target, engine));
    }
    let (mut files, mut strange) = (Vec::new(), Vec::new());
    let mut any = false;
    for change in journal.pending_on(&engine.endpoint) {
        match file_of(change, engine) {
            Some(seen) => {
                any = true;
                sweep(change)?;
                files.extend(unfinished(change, engine, seen, env.uid));
            }
            None => strange.push(change.target.clone()),
        }
    }
    let mut steps = Vec::new();
    if let Some(kept) = damaged {
        steps.push(format!(
            "Sampan's record of its changes was damaged and is kept as {}: what was set up before it can be taken out, but \
             not to the byte, and a change that was cut short is not known any more.",
            kept.display()
        ));
    }
    if any {
        steps.extend(match finish::rest(&journal, engine, env.uid) {
            Some(rest) => finish::finish(env, engine, journal, rest).await?,
            None => take_back(env, engine, journal, &files).await?,
        });
    }
    // An engine that does not run cannot say which files are its own.
    match strange.first().filter(|_| engine.found) {
        None => Ok(steps),
        Some(path) => Err(ApplyError::Unsettled(format!(
            "{} is not a file of this engine that can be edited. Look at it, then remove docker.json in {}.",
            path.display(),
            env.state_dir.display()
        ))),
    }
}

/// What an interrupted run left beside a file it was writing.
fn sweep(change: &Change) -> Result<(), ApplyError> {
    // Half of an object is no JSON; half of a list of hosts may well be one.
    let whole = |bytes: &[u8]| change.part == Part::DaemonJson && daemon_json::mirrors(bytes).is_ok();
    files::sweep(&change.target, |bytes| change.knows(bytes), |bytes| !bytes.is_empty() && whole(bytes))
        .map_err(|source| ApplyError::Io { path: change.target.clone(), source })
}

async fn take_back(
    env: &Environment,
    engine: &Engine,
    journal: Journal,
    files: &[FileChange],
) -> Result<Vec<String>, ApplyError> {
    let tells = files.iter().any(|file| file.part == Part::DaemonJson);
    let apply = if tells && engine.pid.is_some() { ApplyMethod::Reload } else { ApplyMethod::Nothing };
    let service = ByCommand::of(engine);
    let mut carrier = Carrier::new(env, engine, journal, Vec::new(), &service);
    carrier.resume(files);
    if !files.is_empty()
        && let Err(failed) = carrier.roll_back(files, apply).await
    {
        let commands = carrier.by_hand(files, apply);
        let reason = "An earlier change was interrupted.".into();
        return Err(ApplyError::RollbackFailed { reason, detail: failed.to_string(), commands });
    }
    let Carrier { mut journal, mut steps, kept, .. } = carrier;
    if tells && !engine.found {
        // It may be what kept the daemon from starting; whether it is to run is for a person to say.
        steps.push("Docker does not run: start it as usual, it reads the file as it was.".into());
    }
    let mut settled = Vec::new();
    for change in journal.take_pending(&engine.endpoint) {
        if file_of(&change, engine).is_none() {
            journal.pending.push(change);
        } else if kept.contains(&change.target) {
            // It is in place, beside the entry it belongs to; disabling takes both back.
            journal.installed.retain(|old| old.target != change.target);
            journal.installed.push(change);
        } else {
            settled.push(change);
        }
    }
    journal.litter_of(&settled);
    tidy(&mut journal, env, engine, &mut steps);
    Ok(steps)
}

/// The engine's own file that a change is about; `None`: it is none of this engine's, or not safe to edit.
pub(crate) fn file_of<'a>(change: &Change, engine: &'a Engine) -> Option<&'a FileSeen> {
    let file = match &change.part {
        Part::DaemonJson | Part::Client => engine.config.as_ref(),
        Part::Hosts(registry) => {
            let mut hosts = engine.hosts.iter().filter(|seen| seen.registry == *registry);
            hosts.find(|seen| seen.file.target == change.target).map(|seen| &seen.file)
        }
    };
    file.filter(|file| file.target == change.target && file.problem.is_none())
}

/// Whether `target` is where this engine has its files.
fn may_be_of(target: &Path, engine: &Engine) -> bool {
    let folder = |path: &Path| path.ancestors().nth(2).map(Path::to_owned);
    engine.config.as_ref().is_some_and(|file| file.target == target)
        || engine.hosts.iter().any(|seen| folder(&seen.file.target) == folder(target))
}

/// A begun change as a file change whose `after` is what is there now; `None`: everything is as before, or somebody
/// else changed the file since.
fn unfinished(change: &Change, engine: &Engine, seen: &FileSeen, uid: u32) -> Option<FileChange> {
    let now = files::read(&change.target).ok()?;
    let hash = now.as_deref().map(Digest::of);
    let before = match change.before {
        None => None,
        Some(_) if hash == change.before => now.clone(),
        Some(before) => {
            let backup = change.backup.as_deref().filter(|path| files::is_backup_of(path, &change.target))?;
            files::owned(backup, uid).ok()?;
            Some(files::read(backup).ok()?.filter(|bytes| before.names(bytes))?)
        }
    };
    if hash == change.before {
        // The file is back and the engine may not have heard of it.
        let listed = daemon_json::mirrors(before.as_deref().unwrap_or_default()).ok()?;
        let told = engine.mirrors.iter().all(|url| listed.iter().any(|other| same_mirror(url, other)));
        if change.part != Part::DaemonJson || told {
            return None;
        }
    } else {
        let on_the_way =
            [change.interim, change.going_back].into_iter().flatten().any(|way| hash == Some(way));
        if hash != change.after && !on_the_way {
            return None;
        }
    }
    Some(FileChange {
        path: seen.path.clone(),
        target: change.target.clone(),
        part: change.part.clone(),
        created: before.is_none(),
        removed: now.is_none(),
        before,
        interim: None,
        after: now,
        diff: Vec::new(),
    })
}
