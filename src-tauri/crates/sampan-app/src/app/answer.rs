//! What each command does. Nothing is decided here: every arm asks whoever owns the matter.

use std::sync::Arc;

use super::{Inner, invalid, locked};
use crate::api::{ApiError, Code, Command, Reply, SettingsChange};
use crate::change::changed;
use crate::pause::Pause;
use crate::{clients, convert, docker, doctor, freshness};

impl Inner {
    async fn savings(&self, days: u32) -> Result<Reply, ApiError> {
        let days = within(days, 1, 366, "days")?;
        let report = self.read_stats(move |stats| stats.savings(days)).await?;
        Ok(Reply::Savings(convert::savings(&report)))
    }

    async fn history(&self, limit: u32) -> Result<Reply, ApiError> {
        let limit = within(limit, 1, 1000, "limit")?;
        let pulls = self.read_stats(move |stats| stats.history(limit)).await?;
        Ok(Reply::History(pulls.into_iter().map(convert::pull).collect()))
    }

    /// Answers one command.
    pub(super) async fn answer(self: Arc<Self>, command: Command) -> Result<Reply, ApiError> {
        match command {
            Command::Snapshot | Command::Watch => Ok(Reply::Snapshot(Box::new(self.snapshot().await))),
            Command::Savings { days } => self.savings(days).await,
            Command::History { limit } => self.history(limit).await,
            Command::Images => {
                let images = self.store.images().await.map_err(|error| convert::store_failed(&error))?;
                Ok(Reply::Images(images.into_iter().map(convert::image).collect()))
            }
            Command::ClearPreview { selection } => {
                self.clear_preview(&selection).await.map(Reply::ClearPreview)
            }
            Command::Clear { selection, immediate } => {
                self.clear(&selection, immediate).await.map(Reply::Cleared)
            }
            Command::ClearUndo { id } => self.clear_undo(id).await.map(|()| Reply::Done),
            Command::Pin { name, pinned } => self.pin(&name, pinned).await.map(|()| Reply::Done),
            Command::Refresh { name } => self.refresh_tags(&name).await.map(Reply::Refreshed),
            Command::Freeze { name, frozen } => self.freeze(&name, frozen).await.map(|()| Reply::Done),
            Command::ImageDetails { name } => self.image_details(&name).await.map(Reply::ImageDetails),
            Command::Scrub { start: true } => {
                self.begin_scrub(false);
                self.refresh().await;
                Ok(Reply::Done)
            }
            Command::Scrub { start: false } => {
                self.scrubs.stop();
                Ok(Reply::Done)
            }
            Command::Health => self.health_report().await.map(Reply::Health),
            Command::Export { names, path } => self.export(&names, &path).await.map(Reply::Exported),
            Command::Import { path, trust_names, name } => {
                self.import(&path, trust_names, name.as_deref()).await.map(Reply::Imported)
            }
            Command::StopTask => {
                self.task.stop();
                Ok(Reply::Done)
            }
            Command::Prefetch { change } => self.prefetch_change(&change).await,
            Command::VerifyOffline { name, platform } => {
                self.verify_offline(&name, platform.as_deref()).await.map(Reply::Offline)
            }
            Command::Pause { seconds } => {
                self.set_pause(Pause::begin(self.clock.now(), seconds));
                self.refresh().await;
                Ok(Reply::Done)
            }
            Command::Resume => {
                self.set_pause(Pause::Off);
                self.refresh().await;
                Ok(Reply::Done)
            }
            Command::Docker => Ok(Reply::Docker(docker::look(&self).await)),
            Command::Engines => Ok(Reply::Engines(docker::engines(&self).await)),
            Command::DockerPlan { action, registries, restart } => {
                docker::plan(&self, action, registries.as_deref(), restart).await.map(Reply::DockerPlan)
            }
            Command::DockerApply { plan, restart } => {
                docker::apply(&self, &plan, restart).await.map(Reply::DockerApplied)
            }
            Command::DockerLeave => docker::leave(&self).await.map(|()| Reply::Done),
            Command::DockerProve => docker::prove(&self).await.map(Reply::DockerProof),
            Command::Clients => Ok(Reply::Clients(clients::list(&self))),
            Command::ClientPlan { client, action, registries } => {
                clients::plan(&self, &client, action, registries.as_deref()).map(Reply::DockerPlan)
            }
            Command::ClientApply { plan } => clients::apply(&self, &plan).await.map(Reply::ClientApplied),
            Command::Upstreams => Ok(Reply::Upstreams(self.upstreams().await)),
            Command::UpstreamChange { change, registry, url } => {
                self.change_upstream(change, &registry, &url).await.map(Reply::Upstreams)
            }
            Command::Doctor => Ok(Reply::Doctor(doctor::of_running(&self).await)),
            Command::Configure { change } => self.configure(&change).await.map(|()| Reply::Done),
            Command::PrivateAllow { pattern, login, realm } => {
                self.private_allow(&pattern, login, realm.as_deref()).await.map(Reply::PrivateAllowed)
            }
            Command::PrivateRemove { pattern } => self.private_remove(&pattern).await.map(|()| Reply::Done),
            Command::PrivateRetry => {
                self.private_retry().await;
                Ok(Reply::Done)
            }
            Command::OpenWindow => {
                let open = locked(&self.open_window).clone();
                let no_desktop = || ApiError {
                    code: Code::NoDesktop,
                    message: "this Sampan runs without a desktop".into(),
                    next_step: Some("Use the commands `sampan status` and `sampan images`.".into()),
                };
                open.ok_or_else(no_desktop)?();
                Ok(Reply::Done)
            }
        }
    }

    async fn configure(&self, change: &SettingsChange) -> Result<(), ApiError> {
        // Read, saved and put in force as one: two changes at once would undo each other.
        let _one_at_a_time = self.changing_settings.lock().await;
        let settings = changed(&locked(&self.settings), change)?;
        let (config, saved) = (self.config.clone(), settings.clone());
        let written = tokio::task::spawn_blocking(move || config.save_settings(&saved)).await;
        if let Ok(Err(error)) = written {
            let next_step = Some("Check the rights and the free space of the state folder.".into());
            return Err(ApiError { code: Code::Store, message: error.to_string(), next_step });
        }
        // Once it is saved: what is in force is what the next start has.
        self.mirror.set_speed_limit(settings.speed_limit);
        self.mirror.set_freshness(freshness::rules(&settings.freshness));
        self.mirror.set_offline(settings.offline);
        *locked(&self.settings) = settings.clone();
        self.keep_by(&settings, Some(change)).await;
        self.prefetch_by(&settings);
        self.refresh().await;
        Ok(())
    }
}

fn within(value: u32, least: u32, most: u32, name: &str) -> Result<u32, ApiError> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(invalid(format!("`{name}` is {least} to {most}")))
    }
}
