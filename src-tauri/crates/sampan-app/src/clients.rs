//! Setting up other programs than Docker that pull images: looks, plans, applies after consent, takes back.

use sampan_docker::{Action, Choice, ClientId, ClientSeen, DEFAULT_PORT, Environment, Places, Plan};
use sampan_oci::RegistryName;

use crate::api::{ApiError, ClientApplied, ClientSetup, Code, DockerAction, DockerPlan};
use crate::app::{Inner, invalid};
use crate::docker::{self, Alone, Reach};

/// Whose clients they are, and where they would reach Sampan.
#[derive(Clone, Copy)]
struct Site<'a> {
    env: &'a Environment,
    reach: Reach,
}

impl<'a> Site<'a> {
    fn of(app: &'a Inner) -> Self {
        Self { env: &app.environment, reach: app.reach() }
    }

    fn port(&self) -> u16 {
        self.reach.listen.port()
    }
}

/// Every client there may be.
pub(crate) fn list(app: &Inner) -> Vec<ClientSetup> {
    let site = Site::of(app);
    look(site).iter().map(|seen| shown(seen, site.port())).collect()
}

/// What setting one up, or taking that back, would change.
pub(crate) fn plan(
    app: &Inner,
    client: &str,
    action: DockerAction,
    registries: Option<&[String]>,
) -> Result<DockerPlan, ApiError> {
    plan_at(Site::of(app), client, action, registries)
}

/// Applies the plan a person consented to.
pub(crate) async fn apply(app: &Inner, plan_id: &str) -> Result<ClientApplied, ApiError> {
    let _one_at_a_time = app.changing_docker.write().await;
    let _alone = docker::alone_with_the_files(&app.environment)?;
    apply_at(Site::of(app), plan_id).await
}

/// Where no Sampan runs this process does the same: whoever removed the app has to get rid of what it set up.
impl Alone {
    /// Every client there may be.
    pub fn clients(&self) -> Vec<ClientSetup> {
        let site = self.site();
        // Unless this process is told of a port, the Sampan that set a client up may have been told of another one.
        let port = |seen: &ClientSeen| match site.port() {
            DEFAULT_PORT => seen.set_up_for().unwrap_or(DEFAULT_PORT),
            told => told,
        };
        look(site).iter().map(|seen| shown(seen, port(seen))).collect()
    }

    /// What setting one up, or taking that back, would change; changes nothing. `registries`: as in
    /// [`Command::ClientPlan`](crate::api::Command).
    ///
    /// # Errors
    /// Why there is no plan.
    pub fn client_plan(
        &self,
        client: &str,
        action: DockerAction,
        registries: Option<&[String]>,
    ) -> Result<DockerPlan, ApiError> {
        plan_at(self.site(), client, action, registries)
    }

    /// Carries out the plan that was shown as `id`. What an earlier run left half done is settled first.
    ///
    /// # Errors
    /// Why it was not done; [`Code::PlanOutdated`] if something changed since.
    pub async fn client_apply(&self, id: &str) -> Result<ClientApplied, ApiError> {
        let _alone = self.hold()?;
        apply_at(self.site(), id).await
    }

    fn site(&self) -> Site<'_> {
        Site { env: self.environment(), reach: self.reach() }
    }
}

fn plan_at(
    site: Site<'_>,
    client: &str,
    action: DockerAction,
    registries: Option<&[String]>,
) -> Result<DockerPlan, ApiError> {
    let id: ClientId = client.parse().map_err(|error| invalid(format!("{error}")))?;
    let seen = of(site, id)?;
    let plan = planned(site, &seen, action, &choice(registries)?)?;
    Ok(docker::shown_plan(action, plan))
}

/// The caller holds everything else off.
async fn apply_at(site: Site<'_>, plan_id: &str) -> Result<ClientApplied, ApiError> {
    let outdated = || ApiError {
        code: Code::PlanOutdated,
        message: "something changed since the plan was shown".into(),
        next_step: Some("Look at the new plan and decide again. Nothing was changed.".into()),
    };
    let id = sampan_docker::client_of_plan(plan_id).ok_or_else(outdated)?;
    let choice = Choice::of_plan(plan_id).unwrap_or_default();
    let env = site.env;
    sampan_docker::recover_client(env, &of(site, id)?).await.map_err(|error| docker::failed(&error, &[]))?;
    let seen = of(site, id)?;
    let candidates = [DockerAction::Enable, DockerAction::Disable];
    let mut plans = candidates.into_iter().filter_map(|action| planned(site, &seen, action, &choice).ok());
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
    Ok(ClientApplied { steps: applied.steps, client: shown(&of(site, id)?, site.port()) })
}

/// Takes back what an earlier run of Sampan left half done. The caller holds everything else off.
pub(crate) async fn recover(app: &Inner) {
    for seen in look(Site::of(app)) {
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

fn look(site: Site<'_>) -> Vec<ClientSeen> {
    sampan_docker::look_for(site.env, &Places::of(site.env), site.port())
}

fn of(site: Site<'_>, id: ClientId) -> Result<ClientSeen, ApiError> {
    let missing = || invalid(format!("{id} is not known here"));
    look(site).into_iter().find(|seen| seen.id == id).ok_or_else(missing)
}

fn planned(
    site: Site<'_>,
    seen: &ClientSeen,
    action: DockerAction,
    choice: &Choice,
) -> Result<Plan, ApiError> {
    let action = match action {
        DockerAction::Enable => {
            docker::reachable(site.reach)?;
            Action::Enable
        }
        DockerAction::Disable => Action::Disable,
    };
    let plan = sampan_docker::plan_client(seen, action, site.port(), choice);
    plan.map_err(|error| docker::refused(&error))
}

fn shown(seen: &ClientSeen, port: u16) -> ClientSetup {
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
