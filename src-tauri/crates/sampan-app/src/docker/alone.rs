//! What can be done with Docker where no Sampan runs: look, plan, and take back. Whoever removed the app needs that.

use sampan_docker::{DEFAULT_PORT, Engine, Environment, detect};

use super::{Reach, Wish, again, elevation, failed, planned, shown, shown_plan};
use crate::api::{ApiError, Code, Docker, DockerAction, DockerApplied, DockerPlan};
use crate::{Config, Surroundings};

/// Docker as this process finds it, without a running Sampan.
#[derive(Debug)]
pub struct Alone {
    environment: Environment,
    config: Config,
}

impl Alone {
    /// With the folders and the port of `config`, on the engine that `surroundings` mean. Does nothing yet.
    pub fn new(config: &Config, surroundings: &Surroundings) -> Self {
        Self { environment: surroundings.docker(config), config: config.clone() }
    }

    /// The engine the current context means.
    pub async fn look(&self) -> Docker {
        let engine = detect(&self.environment).await;
        let port = self.port(&engine);
        let what = sampan_docker::drift(&engine, port).filter(|what| !what.is_empty());
        let since = self.environment.clock.now().0;
        let last_used = sampan_stats::last_used(&self.config.state_dir.join("stats.db")).map(|at| at.0);
        shown(&engine, port, last_used, what.map(|what| crate::api::DockerDrift { what, since }))
    }

    /// The port that counts. Unless this process is told of one, the Sampan that set Docker up may have been told of
    /// another than the usual one, which is nobody else's change.
    fn port(&self, engine: &Engine) -> u16 {
        match self.config.listen.port() {
            DEFAULT_PORT => sampan_docker::set_up_for(engine).unwrap_or(DEFAULT_PORT),
            told => told,
        }
    }

    /// What enabling or disabling would change; changes nothing. `registries`, `restart`: as in
    /// [`Command::DockerPlan`](crate::api::Command).
    ///
    /// # Errors
    /// Why there is no plan.
    pub async fn plan(
        &self,
        action: DockerAction,
        registries: Option<&[String]>,
        restart: bool,
    ) -> Result<DockerPlan, ApiError> {
        let wish = Wish { choice: crate::clients::choice(registries)?, restart };
        let engine = detect(&self.environment).await;
        planned(&engine, action, self.reach(), &wish).map(|plan| shown_plan(action, plan))
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Holds the state folder, which is made private first where there is none.
    pub(crate) fn hold(&self) -> Result<std::fs::File, ApiError> {
        crate::start::make_private(&self.environment.state_dir).map_err(|error| ApiError {
            code: Code::NotPermitted,
            message: error.to_string(),
            next_step: None,
        })?;
        super::alone_with_the_files(&self.environment)
    }

    pub(crate) fn reach(&self) -> Reach {
        let listen = self.config.listen;
        Reach { listen, fixed: listen.port() != 0 }
    }

    /// Carries out the plan of [`DockerAction::Disable`] that was shown as `id`. `restart`: the engine may restart.
    /// What an earlier run left half done is settled first.
    ///
    /// # Errors
    /// Why it was not done; [`Code::PlanOutdated`] if something changed since, which settling does too.
    pub async fn disable(&self, id: &str, restart: bool) -> Result<DockerApplied, ApiError> {
        let env = &self.environment;
        let engine = detect(env).await;
        let shown_again =
            |engine: &Engine| again(engine, &[DockerAction::Disable], self.reach(), id).map(|(_, plan)| plan);
        // Nothing to do leaves nothing behind, not even a folder.
        let interrupted = sampan_docker::interrupted(env, &engine);
        if !interrupted
            && engine.remembered.is_empty()
            && shown_again(&engine).is_some_and(|plan| plan.is_nothing())
        {
            let steps = vec!["Everything was as wanted already.".into()];
            return Ok(DockerApplied { steps, docker: self.look().await, proof: None });
        }
        let _alone = self.hold()?;
        let steps = sampan_docker::recover(env, &engine).await.map_err(|error| failed(&error, &[]))?;
        let engine = detect(env).await;
        // What was finished just now may be all that was wanted.
        let now = planned(&engine, DockerAction::Disable, self.reach(), &Wish::default());
        if interrupted && now.is_ok_and(|plan| plan.is_nothing()) {
            return Ok(DockerApplied { steps, docker: self.look().await, proof: None });
        }
        let plan = shown_again(&engine).ok_or_else(super::outdated)?;
        let applied = sampan_docker::apply(env, &engine, &plan, restart, &*elevation())
            .await
            .map_err(|error| failed(&error, &plan.commands))?;
        Ok(DockerApplied { steps: applied.steps, docker: self.look().await, proof: None })
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disabling_that_was_killed_is_finished_and_not_called_done() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let endpoint = format!("unix://{}", at("nobody.sock").display());
        let (before, after) =
            ("{\n  \"debug\": false\n}\n", "{\"registry-mirrors\": [\"http://127.0.0.1:7267\"]}");
        let empty = "{\n  \"debug\": false,\n  \"registry-mirrors\": []\n}\n";
        std::fs::create_dir(at("state")).unwrap();
        std::fs::write(at("daemon.json"), empty).unwrap();
        std::fs::write(at("daemon.json.sampan-backup-7"), before).unwrap();
        let digest = |text: &str| sampan_oci::Digest::of(text.as_bytes()).to_string();
        let change = |leaving: bool, one: &str, interim: Option<String>, other: &str| {
            serde_json::json!({
                "target": at("daemon.json"), "part": "DaemonJson", "endpoint": endpoint, "port": 7267,
                "before": digest(one), "interim": interim, "after": digest(other), "made_folders": [],
                "backup": at("daemon.json.sampan-backup-7"), "leaving": leaving,
            })
        };
        let journal = serde_json::json!({
            "pending": [change(true, after, Some(digest(empty)), before)],
            "installed": [change(false, before, None, after)],
        });
        std::fs::write(at("state/docker.json"), journal.to_string()).unwrap();
        let vars = [("DOCKER_HOST", endpoint.clone()), ("HOME", dir.path().display().to_string())];
        let surroundings =
            Surroundings::from_vars(vars.map(|(name, value)| (name.into(), std::ffi::OsString::from(value))));
        let flags = crate::Flags {
            state_dir: Some(at("state")),
            cache_dir: Some(at("cache")),
            ..crate::Flags::default()
        };
        let alone = Alone::new(&Config::load(flags).unwrap(), &surroundings);
        let plan = alone.plan(DockerAction::Disable, None, false).await.unwrap();
        alone.disable(&plan.id, false).await.unwrap();
        assert_eq!(std::fs::read_to_string(at("daemon.json")).unwrap(), before, "finished, byte for byte");
        let kept = std::fs::read_to_string(at("state/docker.json")).unwrap();
        assert!(!kept.contains("DaemonJson"), "the next start has nothing to bring back: {kept}");
    }
}
