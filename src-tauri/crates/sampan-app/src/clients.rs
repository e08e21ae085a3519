//! Setting up other programs than Docker that pull images: looks, plans, applies after consent, takes back.

use sampan_docker::{Action, Choice, ClientId, ClientSeen, Places, Plan};
use sampan_oci::RegistryName;

use crate::api::{ApiError, ClientApplied, ClientSetup, Code, DockerAction, DockerPlan};
use crate::app::{Inner, invalid};
use crate::docker;

/// Every client there may be.
pub(crate) fn list(app: &Inner) -> Vec<ClientSetup> {
    look(app).iter().map(|seen| shown(app, seen)).collect()
}

/// What setting one up, or taking that back, would change.
pub(crate) fn plan(
    app: &Inner,
    client: &str,
    action: DockerAction,
    registries: Option<&[String]>,
) -> Result<DockerPlan, ApiError> {
    let id: ClientId = client.parse().map_err(|error| invalid(format!("{error}")))?;
    let seen = of(app, id)?;
    let plan = planned(app, &seen, action, &choice(registries)?)?;
    Ok(docker::shown_plan(action, plan))
}

/// Applies the plan a person consented to.
pub(crate) async fn apply(app: &Inner, plan_id: &str) -> Result<ClientApplied, ApiError> {
    let _one_at_a_time = app.changing_docker.write().await;
    let _alone = docker::alone_with_the_files(&app.environment)?;
    let outdated = || ApiError {
        code: Code::PlanOutdated,
        message: "something changed since the plan was shown".into(),
        next_step: Some("Look at the new plan and decide again. Nothing was changed.".into()),
    };
    let id = sampan_docker::client_of_plan(plan_id).ok_or_else(outdated)?;
    let choice = Choice::of_plan(plan_id).unwrap_or_default();
    let env = &app.environment;
    sampan_docker::recover_client(env, &of(app, id)?).await.map_err(|error| docker::failed(&error, &[]))?;
    let seen = of(app, id)?;
    let candidates = [DockerAction::Enable, DockerAction::Disable];
    let mut plans = candidates.into_iter().filter_map(|action| planned(app, &seen, action, &choice).ok());
    let plan = plans.find(|plan| plan.id == plan_id).ok_or_else(outdated)?;
    if !seen.can_apply() && !plan.files.is_empty() {
        return Err(ApiError {
            code: Code::NotPermitted,
            message: format!("Sampan does not change {} itself", id.title()),
            next_step: Some("Run the plan's commands by hand instead.".into()),
        });
    }
    let applied = sampan_docker::apply_client(env, &seen, &plan).await;
    let applied = applied.map_err(|error| docker::failed(&error, &plan.commands))?;
    Ok(ClientApplied { steps: applied.steps, client: shown(app, &of(app, id)?) })
}

/// Takes back what an earlier run of Sampan left half done. The caller holds everything else off.
pub(crate) async fn recover(app: &Inner) {
    for seen in look(app) {
        match sampan_docker::recover_client(&app.environment, &seen).await {
            Ok(steps) => steps.iter().for_each(|step| tracing::info!("{} set-up: {step}", seen.id)),
            Err(error) => tracing::error!(%error, "an unfinished change of {} could not be settled", seen.id),
        }
    }
}

/// The registries a person chose, by their names.
pub(crate) fn choice(names: Option<&[String]>) -> Result<Choice, ApiError> {
    let Some(names) = names else { return Ok(Choice::AsNow) };
    let parsed = names.iter().map(|name| {
        let name: Result<RegistryName, _> = name.parse();
        name.map_err(|error| invalid(format!("{error}")))
    });
    parsed.collect::<Result<Vec<_>, _>>().map(Choice::only)
}

fn look(app: &Inner) -> Vec<ClientSeen> {
    let env = &app.environment;
    sampan_docker::look_for(env, &Places::of(env), app.config.listen.port())
}

fn of(app: &Inner, id: ClientId) -> Result<ClientSeen, ApiError> {
    let missing = || invalid(format!("{id} is not known here"));
    look(app).into_iter().find(|seen| seen.id == id).ok_or_else(missing)
}

fn planned(app: &Inner, seen: &ClientSeen, action: DockerAction, choice: &Choice) -> Result<Plan, ApiError> {
    let action = match action {
        DockerAction::Enable => {
            docker::reachable(app.reach())?;
            Action::Enable
        }
        DockerAction::Disable => Action::Disable,
    };
    let plan = sampan_docker::plan_client(seen, action, app.config.listen.port(), choice);
    plan.map_err(|error| docker::refused(&error))
}

fn shown(app: &Inner, seen: &ClientSeen) -> ClientSetup {
    let port = app.config.listen.port();
    ClientSetup {
        id: seen.id.to_string(),
        name: seen.id.title().into(),
        found: seen.found,
        enabled: seen.enabled(port),
        registries: seen.registries(port).iter().map(ToString::to_string).collect(),
        can_apply: seen.can_apply(),
        notes: seen.notes.clone(),
        evidence: seen.evidence.clone(),
        paths: seen.paths().iter().map(|path| path.display().to_string()).collect(),
    }
}
