//! Ends what a person consented to and a kill cut short: taking Sampan out is finished, not taken back.

use std::path::Path;

use sampan_oci::Digest;

use crate::apply::{ApplyError, settle};
use crate::carry::{Carrier, Failed};
use crate::daemon_json::{self, same_list};
use crate::engine::{Engine, FileSeen};
use crate::environment::Environment;
use crate::files;
use crate::journal::{Change, Journal, forget};
use crate::manual;
use crate::neighbours::taken_out;
use crate::plan::{Action, ApplyMethod, FileChange, Part};
use crate::recover::file_of;
use crate::service::ByCommand;

/// What is left to do of an interrupted disabling.
pub(crate) struct Rest {
    files: Vec<FileChange>,
    /// What the engine has to list before the files after `daemon.json` go; `None`: it does already, or does not run.
    tell: Option<Vec<String>>,
}

/// The rest of the changes begun on `engine`; `None`: they are not a disabling, or what they were to end with is not
/// known for sure, and they go back.
pub(crate) fn rest(journal: &Journal, engine: &Engine, uid: u32) -> Option<Rest> {
    let mut rest = Rest { files: Vec::new(), tell: None };
    for change in journal.pending_on(&engine.endpoint) {
        if !change.leaving || change.going_back.is_some() {
            return None;
        }
        let seen = file_of(change, engine)?;
        let now = files::read(&change.target).ok()?;
        let hash = now.as_deref().map(Digest::of);
        if change.part != Part::DaemonJson {
            // What somebody else wrote there since is theirs.
            if hash == change.before && change.after.is_none() && now.is_some() {
                rest.files.push(file(change, seen, now, None, None));
            }
            continue;
        }
        let after = after(change, journal, engine, now.as_deref(), uid).ok()?;
        let intended = daemon_json::mirrors(after.as_deref().unwrap_or_default()).ok()?;
        let told = engine.gone || same_list(&engine.mirrors, &intended);
        let able = engine.found && engine.kind.is_local_daemon() && engine.may_signal && engine.pid.is_some();
        if !told && !able {
            return None;
        }
        let mut interim = None;
        if hash == change.before && hash != change.after && !engine.gone && change.interim.is_some() {
            interim = Some(without_ours(engine, change.port, now.as_deref()?, true)?);
            if interim.as_deref().map(Digest::of) != change.interim {
                return None;
            }
        }
        rest.tell = (!told).then_some(intended);
        rest.files.push(file(change, seen, now, interim, after));
    }
    Some(rest)
}

/// Does the rest, and forgets what Sampan had set up there.
///
/// # Errors
/// [`ApplyError::RollbackFailed`] where the engine or the file system says no: it is tried again at the next start.
pub(crate) async fn finish(
    env: &Environment,
    engine: &Engine,
    journal: Journal,
    rest: Rest,
) -> Result<Vec<String>, ApplyError> {
    let service = ByCommand::of(engine);
    let mut carrier = Carrier::new(env, engine, journal, Vec::new(), &service);
    carrier.resume(&[]);
    if let Err(failed) = carry_out(&mut carrier, &rest).await {
        let apply = if rest.tell.is_some() { ApplyMethod::Reload } else { ApplyMethod::Nothing };
        let commands = manual::commands(engine, &rest.files, apply, env.uid == 0);
        let reason = "Disabling was interrupted.".into();
        return Err(ApplyError::RollbackFailed { reason, detail: failed.to_string(), commands });
    }
    let Carrier { mut journal, mut steps, kept, .. } = carrier;
    steps.push("Finished disabling, which had been interrupted.".into());
    let done = journal.pending_on(&engine.endpoint).filter(|change| !kept.contains(&change.target));
    let done: Vec<_> = done.map(|change| change.target.clone()).collect();
    let targets: Vec<&Path> = done.iter().map(std::path::PathBuf::as_path).collect();
    // What has to stay is still known by the change that wrote it.
    let stays = |change: &Change| !kept.contains(&change.target);
    journal.pending.retain(stays);
    settle(&mut journal, Action::Disable, &engine.endpoint);
    if let Err(error) = journal.save_and_tidy(&env.state_dir, &engine.endpoint, |_| true) {
        steps.push(format!("It could not be written down that this is done: {error}."));
    }
    forget(env, &targets);
    Ok(steps)
}

async fn carry_out(carrier: &mut Carrier<'_>, rest: &Rest) -> Result<(), Failed> {
    for file in &rest.files {
        match (&file.part, &rest.tell) {
            (Part::DaemonJson, Some(intended)) => {
                let first = match &file.interim {
                    None if is_interim(file) => &file.before,
                    None => &file.after,
                    interim @ Some(_) => interim,
                };
                carrier.write(file, first.as_deref())?;
                carrier.tell(ApplyMethod::Reload, std::slice::from_ref(intended)).await?;
                carrier.write(file, file.after.as_deref())?;
            }
            (Part::Hosts(registry), _) if registry.is_docker_hub() => match carrier.still_named().await {
                Some(why) => {
                    carrier.steps.push(format!("{} stays: {why}", file.path.display()));
                    carrier.kept.push(file.target.clone());
                }
                None => carrier.write(file, None)?,
            },
            (Part::DaemonJson | Part::Hosts(_) | Part::Client, _) => {
                carrier.write(file, file.after.as_deref())?;
            }
        }
    }
    Ok(())
}

/// Whether the file says already what the engine has to read first.
fn is_interim(file: &FileChange) -> bool {
    let list = |bytes: &Option<Vec<u8>>| daemon_json::mirrors(bytes.as_deref().unwrap_or_default());
    let has = daemon_json::has_list(file.before.as_deref().unwrap_or_default());
    has == Ok(true) && list(&file.before) == list(&file.after)
}

/// The file was changed since, or the bytes it was to end with are no longer held.
struct Unknown;

/// The bytes the file was to end with, found by their hash among what they can have been.
fn after(
    change: &Change,
    journal: &Journal,
    engine: &Engine,
    now: Option<&[u8]>,
    uid: u32,
) -> Result<Option<Vec<u8>>, Unknown> {
    let hash = now.map(Digest::of);
    if ![change.before, change.interim, change.after].contains(&hash) {
        return Err(Unknown);
    }
    let Some(after) = change.after else { return Ok(None) };
    let backup = change.backup.as_deref().filter(|path| files::is_backup_of(path, &change.target));
    let backup = backup.filter(|path| files::owned(path, uid).is_ok());
    let backup = backup.and_then(|path| files::read(path).ok().flatten());
    let mut candidates: Vec<Vec<u8>> = now.map(<[u8]>::to_vec).into_iter().chain(backup).collect();
    let edited: Vec<_> =
        candidates.iter().filter_map(|bytes| without_ours(engine, change.port, bytes, false)).collect();
    candidates.extend(edited);
    let known = journal.remembered();
    let known = known.iter().chain(&engine.remembered).filter(|known| known.change.target == change.target);
    candidates.extend(known.filter_map(|known| known.original.clone()));
    candidates.into_iter().find(|bytes| after.names(bytes)).map(Some).ok_or(Unknown)
}

fn without_ours(engine: &Engine, port: u16, bytes: &[u8], empty_list: bool) -> Option<Vec<u8>> {
    let mut edited = bytes.to_vec();
    if empty_list {
        edited = daemon_json::with_empty_list(&edited).ok()?;
    }
    for url in taken_out(engine, port) {
        edited = daemon_json::remove_mirror(&edited, &url, empty_list).ok()?;
    }
    Some(edited)
}

fn file(
    change: &Change,
    seen: &FileSeen,
    before: Option<Vec<u8>>,
    interim: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
) -> FileChange {
    FileChange {
        path: seen.path.clone(),
        target: change.target.clone(),
        part: change.part.clone(),
        created: before.is_none(),
        removed: after.is_none(),
        before,
        interim,
        after,
        diff: Vec::new(),
    }
}
