//! Takes back exactly what a plan changed, whatever has become of the engine since.

use std::path::PathBuf;

use sampan_oci::Digest;

use crate::apply::{Applied, ApplyError, elevated, pending, save, settled_journal, tidy, unchanged};
use crate::carry::Carrier;
use crate::daemon_json::{self, same_mirror};
use crate::diff;
use crate::elevation::Elevation;
use crate::engine::Engine;
use crate::environment::Environment;
use crate::files;
use crate::hosts_toml;
use crate::journal::Litter;
use crate::manual;
use crate::plan::{self, Action, ApplyMethod, FileChange, Part, Plan};
use crate::service::{ByCommand, Service};

/// The lowest port the helper takes: those below are the system's.
const HELPER_PORT_MIN: u16 = 1024;

/// The plan that takes `plan` back: before and after swapped, last file first. `engine` is the one `plan` was made
/// from.
pub fn inverse(engine: &Engine, plan: &Plan) -> Plan {
    let back = |file: &FileChange| FileChange {
        before: file.after.clone(),
        interim: None,
        after: file.before.clone(),
        created: file.after.is_none(),
        removed: file.before.is_none(),
        diff: diff::lines(
            file.after.as_deref().unwrap_or_default(),
            file.before.as_deref().unwrap_or_default(),
        ),
        ..file.clone()
    };
    let files: Vec<FileChange> = plan.files.iter().rev().map(back).collect();
    // A restart was asked for once; a daemon that runs takes the way back by a reload.
    let apply = match plan.apply {
        ApplyMethod::Restart if engine.kind.is_local_daemon() => {
            let tells = files.iter().any(|file| file.part == Part::DaemonJson);
            if tells { ApplyMethod::Reload } else { ApplyMethod::Nothing }
        }
        ApplyMethod::Nothing | ApplyMethod::Reload | ApplyMethod::Restart => plan.apply,
    };
    Plan {
        id: format!("{}-back", plan.id),
        action: match plan.action {
            Action::Enable => Action::Disable,
            Action::Disable => Action::Enable,
        },
        commands: manual::commands(engine, &files, apply, plan.needs_elevation),
        stops: if apply == ApplyMethod::Restart { plan.stops.clone() } else { Vec::new() },
        apply,
        intended: plan.intended.as_ref().map(|_| engine.mirrors.clone()),
        verb: plan.back,
        back: plan.verb,
        files,
        notes: Vec::new(),
        settles: false,
        ..plan.clone()
    }
}

/// The other port that Sampan's entry named before `plan` replaced it, as far as the helper takes it.
pub(crate) fn port_before(plan: &Plan) -> Option<u16> {
    let of = |file: &FileChange| match &file.part {
        Part::DaemonJson => {
            let list = |bytes: &Option<Vec<u8>>| {
                daemon_json::mirrors(bytes.as_deref().unwrap_or_default()).unwrap_or_default()
            };
            let after = list(&file.after);
            let gone = list(&file.before);
            let mut gone = gone.iter().filter(|url| !after.iter().any(|other| same_mirror(url, other)));
            gone.find_map(|url| url.trim_end_matches('/').rsplit_once(':')?.1.parse().ok())
        }
        Part::Hosts(registry) => hosts_toml::port_of(registry, file.before.as_deref()?),
        Part::Client => None,
    };
    let mut before = plan.files.iter().filter_map(of);
    before.find(|port| *port != plan.port && *port >= HELPER_PORT_MIN)
}

/// Takes `plan` back, which was made from `engine` and carried out as `applied`. Neither needs the engine to answer
/// any more, but for the privileged helper, which looks for itself. A restart that `plan` needed is done again; one that
/// was asked for is not, unless the daemon does not run.
///
/// # Errors
/// An [`ApplyError`]; [`ApplyError::Outdated`] where a file is no longer as the plan left it.
pub async fn undo(
    env: &Environment,
    engine: &Engine,
    plan: &Plan,
    applied: &Applied,
    elevation: &dyn Elevation,
) -> Result<Vec<String>, ApplyError> {
    undo_with(env, engine, plan, applied, elevation, &ByCommand::of(engine)).await
}

/// [`undo`], for an engine that `service` restarts.
///
/// # Errors
/// As [`undo`].
pub async fn undo_with(
    env: &Environment,
    engine: &Engine,
    plan: &Plan,
    applied: &Applied,
    elevation: &dyn Elevation,
    service: &dyn Service,
) -> Result<Vec<String>, ApplyError> {
    let back = inverse(engine, plan);
    for file in &back.files {
        unchanged(file, env.uid)?;
    }
    let mut journal = settled_journal(env, engine)?;
    if plan.needs_elevation {
        // The helper takes a verb and a port: an entry for another port of Sampan's comes back by enabling that.
        let back = match (plan.action, port_before(plan)) {
            (Action::Enable, Some(port)) => {
                Plan { action: Action::Enable, port, verb: plan::set_up_again(engine, plan), ..back }
            }
            (Action::Enable | Action::Disable, _) => back,
        };
        return elevated(&back, elevation).await.map(|applied| applied.steps);
    }
    for file in &plan.files {
        let mut change = pending(file, plan.port, &engine.endpoint);
        let held = |path: &PathBuf| {
            let bytes = files::read(path).ok().flatten();
            bytes.is_some_and(|bytes| change.before == Some(Digest::of(&bytes)))
        };
        change.backup = files::backups(&file.target).into_iter().rev().find(held);
        if let Some(done) = journal.installed.iter().find(|done| done.target == file.target) {
            change.made_folders.clone_from(&done.made_folders);
        }
        journal.pending.push(change);
    }
    save(&journal, env)?;
    let mut carrier = Carrier::new(env, engine, journal, Vec::new(), service);
    carrier.reopen(&plan.files);
    if let Err(failed) = carrier.roll_back(&plan.files, plan.apply).await {
        let reason = "The change was to be taken back.".into();
        return Err(ApplyError::RollbackFailed {
            reason,
            detail: failed.to_string(),
            commands: back.commands,
        });
    }
    let Carrier { mut journal, mut steps, .. } = carrier;
    let undone = journal.take_pending(&engine.endpoint);
    journal.litter_of(&undone);
    // A file that only Sampan writes needs no second copy of what is in it again.
    let own = undone.iter().filter(|change| matches!(change.part, Part::Hosts(_) | Part::Client));
    let needed = |path: &PathBuf| applied.earlier.iter().any(|change| change.backup.as_ref() == Some(path));
    let backups =
        own.filter_map(|change| Some((change, change.backup.clone().filter(|path| !needed(path))?)));
    journal.litter.extend(backups.map(|(change, path)| Litter { backups: vec![path], ..Litter::of(change) }));
    journal.installed.retain(|done| !plan.files.iter().any(|file| file.target == done.target));
    journal.installed.extend(applied.earlier.iter().cloned());
    tidy(&mut journal, env, engine, &mut steps);
    Ok(steps)
}
