//! Setting Docker up: looks, plans, applies after consent, proves, and takes back what could not be proved.

mod alone;
mod back;
mod drift;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sampan_docker::{Action, ApplyError, Choice, Elevation, Engine, Environment, Kind, Plan, PlanError};

use crate::api::{
    ApiError, ApplyMethod, Code, DiffKind, DiffLine, Docker, DockerAction, DockerApplied, DockerBuilder,
    DockerDrift, DockerPlan, DockerProof, DockerRegistry, EngineFound, FileChange,
};
use crate::app::Inner;
use crate::clients;

pub use alone::Alone;
pub(crate) use drift::{Watch, leave, watch};

/// How long an engine may take to ask for the probe. A dead DNS alone can cost it ten seconds (it resolves docker.io
/// before it asks its mirror).
const PROOF_WITHIN: Duration = Duration::from_secs(30);

const NO_HELPER: &str = "Sampan's privileged helper is not installed: run the commands below by hand, or install it \
                         with `cargo xtask run --install-helper`.";

/// The engine the current context means.
pub(crate) async fn look(app: &Inner) -> Docker {
    // A change under way is not somebody else's, however it looks half done.
    let alone = app.changing_docker.try_read();
    let engine = sampan_docker::detect(&app.environment).await;
    let drift = if alone.is_ok() { drift::judge(app, &engine) } else { app.drift.shown() };
    shown(&engine, app.config.listen.port(), app.last_used(), drift)
}

/// Every engine of this machine.
pub(crate) async fn engines(app: &Inner) -> Vec<EngineFound> {
    let found = sampan_docker::survey(&app.environment).await;
    found.into_iter().map(shown_engine).collect()
}

/// What enabling or disabling would change. `registries`, `restart`: as in
/// [`Command::DockerPlan`](crate::api::Command).
pub(crate) async fn plan(
    app: &Inner,
    action: DockerAction,
    registries: Option<&[String]>,
    restart: bool,
) -> Result<DockerPlan, ApiError> {
    let wish = Wish { choice: clients::choice(registries)?, restart };
    let engine = sampan_docker::detect(&app.environment).await;
    planned(&engine, action, app.reach(), &wish).map(|plan| shown_plan(action, plan))
}

/// Applies the plan a person consented to; after enabling, proves it or takes it back.
pub(crate) async fn apply(app: &Inner, id: &str, restart: bool) -> Result<DockerApplied, ApiError> {
    let _one_at_a_time = app.changing_docker.write().await;
    let _alone = alone_with_the_files(&app.environment)?;
    let mut engine = sampan_docker::detect(&app.environment).await;
    match sampan_docker::recover(&app.environment, &engine).await {
        Ok(steps) if steps.is_empty() => {}
        // The plan that was shown rests on what has just been taken back: it is outdated below.
        Ok(_) => engine = sampan_docker::detect(&app.environment).await,
        Err(error) => return Err(failed(&error, &[])),
    }
    let both = [DockerAction::Enable, DockerAction::Disable];
    let (action, plan) = again(&engine, &both, app.reach(), id).ok_or_else(outdated)?;
    let applied = sampan_docker::apply(&app.environment, &engine, &plan, restart, &*elevation())
        .await
        .map_err(|error| failed(&error, &plan.commands))?;
    let mut steps = applied.steps.clone();
    let proof = match action {
        DockerAction::Disable => None,
        DockerAction::Enable => {
            let changed = sampan_docker::detect(&app.environment).await;
            let proof = ask(app, &changed).await?;
            if !proof.arrived && !plan.is_nothing() {
                let error = back::taken_back(app, &engine, &plan, &applied, &proof).await;
                drift::judge(app, &sampan_docker::detect(&app.environment).await);
                app.refresh().await;
                return Err(error);
            }
            steps.push(proof.detail.clone());
            Some(proof)
        }
    };
    let engine = sampan_docker::detect(&app.environment).await;
    let drift = drift::judge(app, &engine);
    let docker = shown(&engine, app.config.listen.port(), app.last_used(), drift);
    app.refresh().await;
    Ok(DockerApplied { steps, docker, proof })
}

fn outdated() -> ApiError {
    ApiError {
        code: Code::PlanOutdated,
        message: "something changed since the plan was shown".into(),
        next_step: Some("Look at the new plan and decide again. Nothing was changed.".into()),
    }
}

/// Has the engine pull a probe and watches it arrive.
pub(crate) async fn prove(app: &Inner) -> Result<DockerProof, ApiError> {
    let _one_at_a_time = app.changing_docker.write().await;
    let engine = sampan_docker::detect(&app.environment).await;
    if !engine.found {
        return Err(not_found(&engine));
    }
    ask(app, &engine).await
}

async fn ask(app: &Inner, engine: &Engine) -> Result<DockerProof, ApiError> {
    let ticket = app.mirror.arm_probe();
    let asked = Instant::now();
    let pulled = sampan_docker::pull_probe(engine, &ticket.reference);
    let mut pulled = std::pin::pin!(pulled);
    let mut arrived = ticket.arrived;
    let mut seen = None;
    let mut deadline = std::pin::pin!(tokio::time::sleep(PROOF_WITHIN));
    let ended = loop {
        tokio::select! {
            at = &mut arrived, if seen.is_none() => match at {
                Ok(_) => seen = Some(asked.elapsed()),
                Err(_) => break None,
            },
            ended = &mut pulled => break Some(ended),
            () = &mut deadline => break None,
        }
    };
    // The request is what proves it; the pull may still be under way, or have ended in the same moment.
    let seen = seen.or_else(|| arrived.try_recv().ok().map(|_| asked.elapsed()));
    app.mirror.disarm_probe();
    let millis = seen.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    let detail = match (millis, ended) {
        (Some(millis), Some(Ok(()))) => {
            format!("Docker asked Sampan after {millis} ms and pulled the probe image.")
        }
        (Some(millis), Some(Err(error))) => {
            format!("Docker asked Sampan after {millis} ms, but the probe pull failed: {error}.")
        }
        (Some(millis), None) => {
            format!("Docker asked Sampan after {millis} ms; it still pulls the probe image.")
        }
        (None, Some(Ok(()))) => "Docker pulled without asking Sampan.".into(),
        (None, Some(Err(error))) => format!("Docker pulled without asking Sampan ({error})."),
        (None, None) => format!("Docker did not ask Sampan within {} s.", PROOF_WITHIN.as_secs()),
    };
    Ok(DockerProof { arrived: millis.is_some(), millis, detail })
}

/// Where engines would reach Sampan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Whether it will listen there at its next start too.
    pub(crate) fixed: bool,
}

/// What a person asks for besides the way.
#[derive(Debug, Default)]
struct Wish {
    choice: Choice,
    /// Whether the engine restarts where a reload would do.
    restart: bool,
}

/// The plan that was shown as `id`, made again: the id is a hash of everything a plan rests on. `None`: it is outdated.
fn again(engine: &Engine, actions: &[DockerAction], reach: Reach, id: &str) -> Option<(DockerAction, Plan)> {
    let choice = Choice::of_plan(id)?;
    let wishes = [false, true].map(|restart| Wish { choice: choice.clone(), restart });
    let candidates = wishes.iter().flat_map(|wish| actions.iter().map(move |action| (*action, wish)));
    let plans =
        candidates.filter_map(|(action, wish)| Some((action, planned(engine, action, reach, wish).ok()?)));
    let mut plans = plans.filter(|(_, plan)| plan.id == id);
    plans.next()
}

fn planned(engine: &Engine, action: DockerAction, reach: Reach, wish: &Wish) -> Result<Plan, ApiError> {
    let action = match action {
        DockerAction::Enable if !engine.found => return Err(not_found(engine)),
        DockerAction::Enable => {
            reachable(reach)?;
            Action::Enable
        }
        // Where no engine runs there may still be something to take back, or nothing, which is as good.
        DockerAction::Disable => Action::Disable,
    };
    let planned = sampan_docker::plan(engine, action, reach.listen.port(), &wish.choice);
    let planned = if wish.restart { planned.and_then(|plan| plan.restarting(engine)) } else { planned };
    let mut plan = planned.map_err(|error| {
        let unknown = !engine.found && matches!(error, PlanError::Unsupported(_));
        if unknown { not_found(engine) } else { refused(&error) }
    })?;
    if plan.needs_elevation && !has_helper() {
        plan.notes.push(NO_HELPER.into());
    }
    Ok(plan)
}

/// Holds the state folder against other processes of this user that change what pulls images.
pub(crate) fn alone_with_the_files(env: &Environment) -> Result<std::fs::File, ApiError> {
    sampan_docker::hold(&env.state_dir, env.uid).map_err(|message| ApiError {
        code: Code::Busy,
        message,
        next_step: Some("Nothing was changed.".into()),
    })
}

/// Engines are told `127.0.0.1` and a port: both must be Sampan's, at the next start too.
pub(crate) fn reachable(reach: Reach) -> Result<(), ApiError> {
    let Reach { listen, fixed } = reach;
    let named =
        listen.ip() == std::net::Ipv4Addr::LOCALHOST || listen.ip() == std::net::Ipv4Addr::UNSPECIFIED;
    if named && fixed {
        return Ok(());
    }
    Err(ApiError {
        code: Code::DockerUnsupported,
        message: format!("Sampan listens at {listen}, which Docker cannot be pointed at for good"),
        next_step: Some("Start Sampan with --listen 127.0.0.1:PORT and a port of your choice.".into()),
    })
}

/// How this system asks a person for administrator rights.
fn elevation() -> Box<dyn Elevation> {
    #[cfg(target_os = "linux")]
    return Box::new(sampan_docker::Pkexec::default());
    #[cfg(target_os = "macos")]
    return Box::new(sampan_docker::OsaScript);
    #[cfg(windows)]
    return Box::new(sampan_docker::RunAs);
    #[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
    return Box::new(sampan_docker::Direct);
}

/// Whether the program that has administrator rights is there and can be trusted.
#[cfg(target_os = "linux")]
fn has_helper() -> bool {
    sampan_docker::Pkexec::default().helper().is_ok()
}

/// Elsewhere that is known only when it is asked for.
#[cfg(not(target_os = "linux"))]
fn has_helper() -> bool {
    true
}

/// Finishes or takes back what an earlier run of Sampan left half done, of Docker and of other clients.
pub(crate) async fn recover(app: &Inner) {
    let _one_at_a_time = app.changing_docker.write().await;
    let Ok(_alone) = alone_with_the_files(&app.environment) else {
        tracing::warn!(
            "another process changes Docker's configuration: what it leaves is looked at next time"
        );
        return;
    };
    let engine = sampan_docker::detect(&app.environment).await;
    if let Some(repair) = engine.needs_repair(app.config.listen.port()) {
        tracing::warn!("docker set-up: {repair}");
    }
    match sampan_docker::recover(&app.environment, &engine).await {
        Ok(steps) => steps.iter().for_each(|step| tracing::info!("docker set-up: {step}")),
        Err(error) => {
            tracing::error!(%error, "an unfinished change of Docker's configuration could not be settled");
        }
    }
    clients::recover(app).await;
}

fn not_found(engine: &Engine) -> ApiError {
    let otherwise = "Start Docker, or choose its context with `docker context use`, and look again.";
    let next_step = match engine.method() {
        Err(unsupported) if engine.kind == Kind::Remote => unsupported.advice,
        Ok(_) | Err(_) => engine.notes.first().map_or(otherwise, String::as_str).to_owned(),
    };
    ApiError {
        code: Code::DockerNotFound,
        message: format!("the container engine at {} could not be asked", engine.endpoint),
        next_step: Some(next_step),
    }
}

pub(crate) fn refused(error: &PlanError) -> ApiError {
    let (code, next_step) = match error {
        PlanError::Unsupported(unsupported) => (Code::DockerUnsupported, Some(unsupported.advice.clone())),
        PlanError::Refused { refusal, .. } => (Code::ConfigInvalid, Some(refusal.advice.clone())),
        PlanError::NotServed(registry) => (
            Code::InvalidRequest,
            Some(format!("Start Sampan with --upstream {registry}=https://{registry}, and look again.")),
        ),
        PlanError::OwnTrust { registry, .. } => (
            Code::DockerUnsupported,
            Some(if registry.is_docker_hub() {
                "Where Docker Hub needs those, leave it as it is; else move them away, and look again.".into()
            } else {
                format!("Look again without {registry}.")
            }),
        ),
        PlanError::LowPort(_) => (
            Code::DockerUnsupported,
            Some("Start Sampan with --listen 127.0.0.1:PORT and a port from 1024 on.".into()),
        ),
        PlanError::Taken { registry, .. } => (
            Code::ConfigInvalid,
            Some(format!(
                "Add Sampan to that entry by hand as a [[registry.mirror]], or leave {registry} out."
            )),
        ),
        PlanError::HubOnly { registry, .. } => {
            (Code::DockerUnsupported, Some(format!("Look again without {registry}.")))
        }
        PlanError::Foreign(_) => (
            Code::ConfigInvalid,
            Some("Add Sampan to that file by hand, or move it away and look again.".into()),
        ),
        PlanError::FlagConflict(_) => (
            Code::DockerUnsupported,
            Some(
                "Take --registry-mirror out of the daemon's command line, restart it, and look again.".into(),
            ),
        ),
        PlanError::Together(url) => (
            Code::ConfigInvalid,
            Some(format!("Take {url} out of registry-mirrors, reload Docker, and look again.")),
        ),
        PlanError::NotTheSystems { commands, .. } | PlanError::NotRestartable { commands, .. } => {
            (Code::DockerUnsupported, Some(format!("Do it by hand: {}", commands.join(" && "))))
        }
        PlanError::Unsafe(_) => {
            (Code::DockerUnsupported, Some("Correct the rights of that file, and look again.".into()))
        }
        PlanError::ReadOnly(_) => (
            Code::DockerUnsupported,
            Some(
                "The file is managed elsewhere (an image, a read-only system): add the mirror there.".into(),
            ),
        ),
    };
    ApiError { code, message: error.to_string(), next_step }
}

/// `commands`: the plan's own.
pub(crate) fn failed(error: &ApplyError, commands: &[String]) -> ApiError {
    let by_hand = || (!commands.is_empty()).then(|| "Run the plan's commands by hand instead.".to_owned());
    let (code, next_step) = match error {
        ApplyError::Outdated(_) => (
            Code::PlanOutdated,
            Some("Look at the new plan and decide again. Nothing was changed.".to_owned()),
        ),
        ApplyError::OtherContainers(_) => (
            Code::PlanOutdated,
            Some("Look at the new plan, which names them, and decide again. Nothing was changed.".to_owned()),
        ),
        ApplyError::RestartNotConsented => {
            (Code::InvalidRequest, Some("Agree to the restart too, or leave everything as it is.".into()))
        }
        ApplyError::Invalid(_) => (Code::ConfigInvalid, by_hand()),
        ApplyError::NotPermitted(_) | ApplyError::Io { .. } | ApplyError::Untrusted(_) => {
            (Code::NotPermitted, by_hand())
        }
        ApplyError::RolledBack { .. } => (Code::RolledBack, by_hand()),
        ApplyError::RollbackFailed { commands, .. } => (Code::Internal, finish(commands)),
        ApplyError::Helper { commands, .. } => (Code::Internal, finish(commands).or_else(by_hand)),
        ApplyError::Unsettled(_) => {
            (Code::Internal, Some("Settle that first, then look at a new plan.".to_owned()))
        }
    };
    ApiError { code, message: error.to_string(), next_step }
}

fn finish(commands: &[String]) -> Option<String> {
    (!commands.is_empty()).then(|| format!("Finish by hand: {}", commands.join(" && ")))
}

fn shown_engine(engine: sampan_docker::EngineSeen) -> EngineFound {
    EngineFound {
        engine: engine.kind.to_string(),
        endpoint: engine.endpoint,
        contexts: engine.contexts,
        version: engine.version,
        image_store: engine.image_store.map(|store| store.as_str().to_owned()),
        answers: engine.answers,
        current: engine.current,
        evidence: engine.evidence,
    }
}

pub(crate) fn shown(
    engine: &Engine,
    port: u16,
    last_used: Option<i64>,
    drift: Option<DockerDrift>,
) -> Docker {
    let registry = |state: sampan_docker::RegistryState| DockerRegistry {
        registry: state.registry.to_string(),
        active: state.active,
        path: state.path.map(|path| path.display().to_string()),
        foreign: state.foreign,
        changeable: state.changeable,
        note: state.note,
    };
    let builders = engine.builders_seen(port);
    let builder = |(builder, uses_mirror, why): (&sampan_docker::Builder, bool, String)| DockerBuilder {
        name: builder.name.clone(),
        driver: builder.driver.clone(),
        current: builder.current,
        uses_mirror,
        why,
    };
    let by_name = sampan_docker::by_name(engine, port);
    let others = engine.others(port).into_iter();
    let others =
        others.map(|other| format!("Docker is set up for another Sampan, which runs now on port {other}."));
    Docker {
        found: engine.found,
        engine: engine.kind.to_string(),
        version: engine.version.clone(),
        endpoint: engine.endpoint.clone(),
        image_store: engine.image_store.map(|store| store.as_str().to_owned()),
        config_file: engine.config.as_ref().map(|file| file.path.display().to_string()),
        mirrors: engine.mirrors.clone(),
        enabled: engine.enabled(port),
        registries: sampan_docker::registries(engine, port).into_iter().map(registry).collect(),
        containers: engine.containers.clone(),
        live_restore: engine.live_restore,
        builders: builders.into_iter().map(builder).collect(),
        needs_repair: engine.needs_repair(port),
        cut_short: engine.cut_short.iter().map(|path| path.display().to_string()).collect(),
        supported: engine.supported(),
        notes: engine.notes.iter().cloned().chain(by_name).chain(others).collect(),
        evidence: engine.evidence.clone(),
        last_used,
        drift,
    }
}

pub(crate) fn shown_plan(action: DockerAction, plan: Plan) -> DockerPlan {
    let line = |line: sampan_docker::DiffLine| DiffLine {
        kind: match line.kind {
            sampan_docker::DiffKind::Same => DiffKind::Same,
            sampan_docker::DiffKind::Added => DiffKind::Added,
            sampan_docker::DiffKind::Removed => DiffKind::Removed,
        },
        text: line.text,
    };
    let file = |file: sampan_docker::FileChange| FileChange {
        path: file.path.display().to_string(),
        created: file.created,
        removed: file.removed,
        diff: file.diff.into_iter().map(line).collect(),
    };
    DockerPlan {
        id: plan.id,
        action,
        files: plan.files.into_iter().map(file).collect(),
        apply: match plan.apply {
            sampan_docker::ApplyMethod::Nothing => ApplyMethod::Nothing,
            sampan_docker::ApplyMethod::Reload => ApplyMethod::Reload,
            sampan_docker::ApplyMethod::Restart => ApplyMethod::Restart,
        },
        stops: plan.stops,
        needs_elevation: plan.needs_elevation,
        settles: plan.settles,
        commands: plan.commands,
        notes: plan.notes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_not_ask_the_engine_is_told_so_and_not_that_none_answers() {
        let mut engine = Engine::unknown("unix:///var/run/docker.sock".into());
        let nothing = not_found(&engine);
        assert!(nothing.next_step.unwrap().contains("Start Docker"), "nothing else is known");
        engine.notes = vec!["Add the user to the docker group.".into(), "Another.".into()];
        let denied = not_found(&engine);
        assert_eq!(denied.next_step.as_deref(), Some("Add the user to the docker group."), "the first note");
        assert!(denied.message.contains("could not be asked"), "{}", denied.message);
    }

    #[test]
    fn the_commands_of_a_failed_rollback_reach_the_person() {
        let commands = vec!["rm a".to_owned(), "kill -HUP 1".to_owned()];
        let stuck = ApplyError::Helper { reason: "Stuck.".into(), commands };
        let said = failed(&stuck, &["the plan's own".into()]);
        assert_eq!(said.next_step.as_deref(), Some("Finish by hand: rm a && kill -HUP 1"), "not the plan's");
        let silent = ApplyError::Helper { reason: "Stuck.".into(), commands: Vec::new() };
        let said = failed(&silent, &["the plan's own".into()]);
        assert_eq!(said.next_step.as_deref(), Some("Run the plan's commands by hand instead."), "else those");
    }

    const REACH: Reach = Reach {
        listen: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7267),
        fixed: true,
    };

    /// A dockerd of a service's, with a container.
    fn engine() -> Engine {
        let mut engine = Engine::unknown("unix:///var/run/docker.sock".into());
        engine.found = true;
        engine.kind = Kind::Linux;
        engine.version = Some("20.10.24".into());
        engine.image_store = Some(sampan_docker::ImageStore::Classic);
        engine.config = Some(sampan_docker::FileSeen {
            path: "/etc/docker/daemon.json".into(),
            target: "/etc/docker/daemon.json".into(),
            bytes: Some(b"{}".to_vec()),
            access: sampan_docker::Access::Writable,
            problem: None,
        });
        engine.pid = Some(4242);
        engine.may_signal = true;
        engine.unit = Some("docker.service".into());
        engine.containers = vec!["web".into()];
        engine
    }

    fn wish(restart: bool) -> Wish {
        Wish { choice: Choice::AsNow, restart }
    }

    #[test]
    fn a_plan_that_was_shown_is_found_again_and_is_a_restart_only_if_that_was_shown() {
        let (engine, both) = (engine(), [DockerAction::Enable, DockerAction::Disable]);
        for restart in [false, true] {
            let shown = planned(&engine, DockerAction::Enable, REACH, &wish(restart)).unwrap();
            let (action, found) = again(&engine, &both, REACH, &shown.id).unwrap();
            assert_eq!(action, DockerAction::Enable);
            assert_eq!(found.apply == sampan_docker::ApplyMethod::Restart, restart, "as it was shown");
            assert_eq!(found.stops, if restart { vec!["web".to_owned()] } else { Vec::new() });
            let mut other = engine.clone();
            other.containers.push("db".into());
            let outdated = again(&other, &both, REACH, &shown.id).is_none();
            assert_eq!(outdated, restart, "nobody consented to stopping another container");
            assert!(again(&engine, &[DockerAction::Disable], REACH, &shown.id).is_none(), "the other way");
        }
        let wanted = Wish { choice: Choice::only([]), restart: true };
        let shown = planned(&engine, DockerAction::Enable, REACH, &wanted).unwrap();
        assert!(shown.id.ends_with('+'), "the choice is still said: {}", shown.id);
        assert_eq!(again(&engine, &both, REACH, &shown.id).unwrap().1.id, shown.id);
        assert!(again(&engine, &both, REACH, "0a1b+Not A Name").is_none(), "no plan has that name");
    }

    #[test]
    fn what_nothing_can_restart_is_refused_with_the_commands_for_whoever_can() {
        let mut engine = engine();
        engine.unit = None;
        engine.command_line = vec!["dockerd".into(), "--debug".into()];
        assert!(planned(&engine, DockerAction::Enable, REACH, &wish(false)).is_ok(), "a reload is enough");
        let refused = planned(&engine, DockerAction::Enable, REACH, &wish(true)).unwrap_err();
        assert_eq!(refused.code, Code::DockerUnsupported);
        assert!(refused.message.contains("started by hand"), "{}", refused.message);
        assert_eq!(refused.next_step.as_deref(), Some("Do it by hand: kill 4242 && dockerd --debug"));
    }
}
