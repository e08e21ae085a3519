//! The commands about Docker's set-up. The running Sampan does the work; where none runs, this process looks, plans and
//! takes back by itself.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::bail;
use jiff::tz::TimeZone;
use sampan_app::api::{ApplyMethod, Code, Command, Docker, DockerAction, DockerApplied, DockerPlan, Reply};
use sampan_app::{Alone, Client, ClientError, Config, Surroundings};
use serde::Serialize;

use crate::arguments::{Change, DockerCommand, Format, NotAsked, Plan};
use crate::ask::{Refused, answer, ask, connect, unexpected};
use crate::{output, show};

const NOT_SET_UP: u8 = 4;
const REFUSED: u8 = 5;
const NO_RIGHTS: u8 = 6;
const NOT_PROVED: u8 = 7;

/// A refusal, with the exit code that `sampan docker` has for it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct DockerRefused(Refused);

impl DockerRefused {
    /// See [`crate::arguments::EXIT_CODES`].
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self.0.code {
            Code::DockerNotFound | Code::DockerUnsupported | Code::ConfigInvalid => ExitCode::from(REFUSED),
            Code::NotPermitted => ExitCode::from(NO_RIGHTS),
            Code::RolledBack => ExitCode::from(NOT_PROVED),
            Code::InvalidRequest
            | Code::PlanOutdated
            | Code::Store
            | Code::Upstream
            | Code::NotHeld
            | Code::Busy
            | Code::Stopped
            | Code::NoDesktop
            | Code::Internal => ExitCode::FAILURE,
        }
    }
}

/// `sampan docker …`.
pub(crate) async fn docker(
    config: &Config,
    surroundings: &Surroundings,
    what: DockerCommand,
) -> anyhow::Result<ExitCode> {
    let done = match what {
        DockerCommand::Status(format) => status(config, surroundings, format).await,
        DockerCommand::Plan(told) => plan(config, surroundings, told).await,
        DockerCommand::Enable(told) => {
            let registries = told.registries.chosen();
            change(config, surroundings, DockerAction::Enable, registries, told.change).await
        }
        DockerCommand::Disable(told) => change(config, surroundings, DockerAction::Disable, None, told).await,
        DockerCommand::Prove(format) => prove(config, format).await,
        DockerCommand::Leave(format) => leave(config, format).await,
    };
    done.map_err(|error| match error.downcast::<Refused>() {
        Ok(refused) => DockerRefused(refused).into(),
        Err(error) => error,
    })
}

/// Who looks and changes: the running Sampan, or this process where none runs.
enum Whom {
    Running(Client),
    Alone(Box<Alone>),
}

impl Whom {
    async fn find(config: &Config, surroundings: &Surroundings) -> anyhow::Result<Self> {
        match connect(config).await {
            Ok(client) => Ok(Self::Running(client)),
            Err(ClientError::NotRunning { .. }) => {
                Ok(Self::Alone(Box::new(Alone::new(config, surroundings))))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn look(&mut self) -> anyhow::Result<Docker> {
        match self {
            Self::Running(client) => {
                let Reply::Docker(docker) = ask(client, Command::Docker).await? else { bail!(unexpected()) };
                Ok(docker)
            }
            Self::Alone(alone) => Ok(alone.look().await),
        }
    }

    async fn plan(
        &mut self,
        action: DockerAction,
        registries: Option<&[String]>,
        restart: bool,
    ) -> anyhow::Result<DockerPlan> {
        match self {
            Self::Running(client) => {
                let registries = registries.map(<[String]>::to_vec);
                let command = Command::DockerPlan { action, registries, restart };
                let Reply::DockerPlan(plan) = ask(client, command).await? else { bail!(unexpected()) };
                Ok(plan)
            }
            Self::Alone(alone) => Ok(alone.plan(action, registries, restart).await.map_err(Refused::from)?),
        }
    }

    /// Carries out a plan of [`DockerAction::Disable`], or any plan of a running Sampan's.
    async fn apply(&mut self, plan: &DockerPlan, restart: bool) -> anyhow::Result<DockerApplied> {
        match self {
            Self::Running(client) => {
                let command = Command::DockerApply { plan: plan.id.clone(), restart };
                let Reply::DockerApplied(applied) = ask(client, command).await? else { bail!(unexpected()) };
                Ok(applied)
            }
            Self::Alone(alone) => Ok(alone.disable(&plan.id, restart).await.map_err(Refused::from)?),
        }
    }
}

async fn status(config: &Config, surroundings: &Surroundings, format: Format) -> anyhow::Result<ExitCode> {
    let mut whom = Whom::find(config, surroundings).await?;
    let docker = whom.look().await?;
    let runs = matches!(whom, Whom::Running(_));
    answer(&docker, format, || show::docker(&docker, runs, &TimeZone::system()))?;
    let good = docker.enabled && docker.drift.is_none() && docker.cut_short.is_empty();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(NOT_SET_UP) })
}

async fn plan(config: &Config, surroundings: &Surroundings, told: Plan) -> anyhow::Result<ExitCode> {
    let mut whom = Whom::find(config, surroundings).await?;
    let plan = whom.plan(told.action(), told.registries.chosen(), told.restart).await?;
    answer(&plan, told.format, || show::plan(&plan))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the plan, asks unless told not to, carries it out.
async fn change(
    config: &Config,
    surroundings: &Surroundings,
    action: DockerAction,
    registries: Option<&[String]>,
    told: Change,
) -> anyhow::Result<ExitCode> {
    let mut whom = match action {
        // What nobody listens to cannot be proved.
        DockerAction::Enable => Whom::Running(connect(config).await?),
        DockerAction::Disable => Whom::find(config, surroundings).await?,
    };
    let mut plan = whom.plan(action, registries, told.restart).await?;
    let nothing = plan.files.is_empty() && plan.apply == ApplyMethod::Nothing && !plan.settles;
    if !told.yes && !nothing {
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            bail!(NotAsked::Docker);
        }
        output::ask(&show::plan(&plan));
        for question in show::questions(&plan) {
            if !consents(&question)? {
                output::complain("nothing was changed.");
                return Ok(ExitCode::FAILURE);
            }
        }
    } else if !told.format.json && !nothing {
        output::ask(&show::plan(&plan));
    }
    let restart = told.restart || (!told.yes && plan.apply == ApplyMethod::Restart);
    let applied = match whom.apply(&plan, restart).await {
        Err(error) if tries_again(told.yes, restart, &error) => {
            plan = whom.plan(action, registries, told.restart).await?;
            whom.apply(&plan, restart).await?
        }
        applied => applied?,
    };
    answer(&applied, told.format, || show::applied(action, &applied))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a plan is made anew and carried out at once. Settling what an earlier run left half done makes the first plan
/// old; nobody is asked who said --yes. A restart is not tried again: it may stop containers that were never shown.
fn tries_again(yes: bool, restart: bool, error: &anyhow::Error) -> bool {
    let outdated = error.downcast_ref::<Refused>().is_some_and(|refused| refused.code == Code::PlanOutdated);
    yes && !restart && outdated
}

/// Asks. Only a clear yes is one.
fn consents(question: &str) -> io::Result<bool> {
    output::ask(question);
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

async fn prove(config: &Config, format: Format) -> anyhow::Result<ExitCode> {
    let Reply::DockerProof(proof) = ask(&mut connect(config).await?, Command::DockerProve).await? else {
        bail!(unexpected());
    };
    answer(&proof, format, || format!("{}\n", show::plain(&proof.detail)))?;
    Ok(if proof.arrived { ExitCode::SUCCESS } else { ExitCode::from(NOT_PROVED) })
}

/// What `sampan docker leave --json` prints.
#[derive(Serialize)]
struct Left {
    left: bool,
}

async fn leave(config: &Config, format: Format) -> anyhow::Result<ExitCode> {
    ask(&mut connect(config).await?, Command::DockerLeave).await?;
    answer(&Left { left: true }, format, || "Docker's set-up is left as it is.\n".into())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use sampan_app::api::ApiError;

    use super::*;

    #[test]
    fn a_restart_is_never_tried_again_with_a_plan_that_was_not_shown() {
        let refused = |code| {
            anyhow::Error::from(Refused::from(ApiError { code, message: "refused".into(), next_step: None }))
        };
        let outdated = refused(Code::PlanOutdated);
        assert!(tries_again(true, false, &outdated), "a reload stops nothing");
        assert!(!tries_again(true, true, &outdated), "it may stop other containers than were shown");
        assert!(!tries_again(false, false, &outdated), "whoever is asked is asked again");
        assert!(!tries_again(true, false, &refused(Code::NotPermitted)), "nothing else passes by itself");
    }
}
