//! `sampan serve`: the mirror in the foreground.

use std::process::ExitCode;

use sampan_app::{App, Config, Surroundings};

use crate::output;

/// Runs until it is told to end. The one line on standard output says that the port is open.
pub(crate) async fn serve(config: Config, surroundings: &Surroundings) -> anyhow::Result<ExitCode> {
    // Before anything starts: an early signal ends a start as cleanly as a later one ends the service.
    let end = Ends::listen()?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let app = App::start(config, surroundings).await?;
    output::print(&ready_line(&app))?;
    end.wait().await;
    tracing::info!("ending");
    app.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

fn ready_line(app: &App) -> String {
    let config = app.config();
    let registries: Vec<_> = config.upstreams.iter().map(|(registry, _)| registry.as_str()).collect();
    let dir = crate::show::plain(&config.cache_dir.display().to_string());
    format!("Sampan serves {} at http://{} (cache {dir})\n", registries.join(", "), app.listen())
}

/// The signals that mean "end": Ctrl-C, and what service managers send.
struct Ends {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Ends {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Ends {
    #[expect(clippy::unnecessary_wraps, reason = "on Unix it can fail")]
    fn listen() -> std::io::Result<Self> {
        Ok(Self {})
    }

    async fn wait(self) {
        if tokio::signal::ctrl_c().await.is_err() {
            // Nobody can tell it to end: it runs until it is killed.
            std::future::pending::<()>().await;
        }
    }
}
