//! Looks at everything that can be wrong, and says what to do about it.

mod store;

use crate::api::{Check, CheckStatus, DockerAction};
use crate::app::Inner;
use crate::config::well_known;
use crate::{Config, Surroundings, convert, docker, port, upstreams};

/// Looks from inside a running Sampan.
pub(crate) async fn of_running(app: &Inner) -> Vec<Check> {
    let mut checks = vec![good("mirror", format!("answers at {}", app.config.listen))];
    checks.extend(warnings(&app.config));
    checks.push(cache(&app.config));
    let health = app.store.health().await.map(|health| convert::health(&health).health);
    checks.extend(store::checks(&app.newest().cache, health.ok(), app.clock.now()));
    checks.extend(store::network(app.network));
    checks.extend(store::set_aside(&app.config.cache_dir));
    for upstream in app.mirror.upstreams() {
        // Nobody told Sampan of these, and nobody has pulled from them: an answer would say nothing about pulls.
        let told = (upstream.registry().clone(), upstream.url().clone());
        if upstream.health().reachable.is_none() && well_known().any(|known| known == told) {
            continue;
        }
        let name = format!("upstream {}", upstream.registry());
        checks.push(match upstream.ping().await {
            Ok(()) => good(name, format!("answers at {}", upstream.url())),
            Err(error) => bad(
                name,
                format!("{} does not answer: {error}", upstream.url()),
                "Check the connection. What is in the cache is served meanwhile.",
            ),
        });
    }
    checks.extend(upstreams::checks(&app.mirror));
    let plan = docker::plan(app, DockerAction::Enable, None, false).await;
    let by_hand = plan.map(|plan| plan.commands).unwrap_or_default();
    checks.push(docker_check(&docker::look(app).await, &by_hand));
    checks
}

/// Looks as far as one can while no Sampan runs with these folders.
pub async fn examine(config: &Config, surroundings: &Surroundings) -> Vec<Check> {
    let next = "Start it: `sampan serve`, or the desktop app.";
    let mut checks = vec![bad("mirror", format!("no Sampan runs with {}", config.state_dir.display()), next)];
    let free = tokio::net::TcpListener::bind(config.listen).await;
    checks.push(match free {
        Ok(_) => good("port", format!("{} is free", config.listen)),
        Err(error) => {
            let holder =
                port::holder(config.listen).map(|holder| format!(" by {holder}")).unwrap_or_default();
            let next = "End that program, or choose another address with --listen 127.0.0.1:PORT.";
            bad("port", format!("{} is taken{holder} ({error})", config.listen), next)
        }
    });
    checks.push(cache(config));
    checks.extend(store::network(sampan_store::network_of(&config.cache_dir)));
    checks.extend(store::set_aside(&config.cache_dir));
    let engine = sampan_docker::detect(&surroundings.docker(config)).await;
    let unfinished: Vec<String> = engine.cut_short.iter().map(|path| path.display().to_string()).collect();
    let detail = if !unfinished.is_empty() {
        cut_short(&unfinished)
    } else if engine.found {
        good(
            "docker",
            format!("{} {}", engine.kind, engine.version.as_deref().unwrap_or("of unknown version")),
        )
    } else {
        unasked(&engine.endpoint, &engine.notes)
    };
    checks.push(detail);
    checks
}

/// An engine that cannot be asked: the notes say why and what to do (it does not run, or this user may not).
fn unasked(endpoint: &str, notes: &[String]) -> Check {
    let next = if notes.is_empty() { "Start Docker, or choose its context.".into() } else { notes.join(" ") };
    bad("docker", format!("no engine can be asked at {endpoint}"), &next)
}

/// It may also be why no engine answers.
fn cut_short(files: &[String]) -> Check {
    bad(
        "docker",
        format!("a change of Docker's configuration was cut short: {}", files.join(", ")),
        "Finish it on the desktop app's Set-up page, or by `sampan docker enable` or `sampan docker disable`.",
    )
}

/// `by_hand`: the commands that would set it up.
fn docker_check(docker: &crate::api::Docker, by_hand: &[String]) -> Check {
    let engine = format!("{} {}", docker.engine, docker.version.as_deref().unwrap_or_default());
    if !docker.found && docker.cut_short.is_empty() {
        return unasked(&docker.endpoint, &docker.notes);
    }
    if !docker.cut_short.is_empty() {
        return cut_short(&docker.cut_short);
    }
    if docker.enabled {
        return good("docker", format!("{} asks Sampan first", engine.trim()));
    }
    Check {
        name: "docker".into(),
        status: CheckStatus::Warning,
        detail: format!("{} does not ask Sampan", engine.trim()),
        next_step: Some(match by_hand {
            [] => "Open the desktop app's Set-up page.".into(),
            commands => format!("Open the desktop app's Set-up page, or run: {}", commands.join("; ")),
        }),
    }
}

fn warnings(config: &Config) -> impl Iterator<Item = Check> {
    config.warnings().into_iter().map(|warning| Check {
        name: "configuration".into(),
        status: CheckStatus::Warning,
        detail: warning,
        next_step: Some("If that is not meant, change --listen or --upstream.".into()),
    })
}

/// Whether the cache folder can be written to.
fn cache(config: &Config) -> Check {
    let dir = &config.cache_dir;
    let name = "cache folder";
    if !dir.exists() {
        return good(name, format!("{} will be made at the first start", dir.display()));
    }
    match tempfile::Builder::new().prefix(".sampan-doctor-").tempfile_in(dir) {
        Ok(_) => good(name, format!("{} can be written to", dir.display())),
        Err(error) => bad(
            name,
            format!("{} cannot be written to: {error}", dir.display()),
            "Correct its rights or free some space; until then nothing new is kept.",
        ),
    }
}

fn good(name: impl Into<String>, detail: String) -> Check {
    Check { name: name.into(), status: CheckStatus::Good, detail, next_step: None }
}

fn warning(name: impl Into<String>, detail: String, next_step: &str) -> Check {
    Check { name: name.into(), status: CheckStatus::Warning, detail, next_step: Some(next_step.into()) }
}

fn bad(name: impl Into<String>, detail: String, next_step: &str) -> Check {
    Check { name: name.into(), status: CheckStatus::Bad, detail, next_step: Some(next_step.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sampan_docker::{Engine, ImageStore, Kind};

    #[test]
    fn a_change_that_was_cut_short_comes_before_whatever_else_is_said_of_docker() {
        let mut engine = Engine::unknown("unix:///var/run/docker.sock".into());
        let checked = |engine: &Engine| docker_check(&docker::shown(engine, 7267, None, None), &[]);
        assert!(checked(&engine).detail.contains("no engine can be asked"), "it does not run");
        engine.cut_short = vec!["/etc/docker/daemon.json".into()];
        let check = checked(&engine);
        assert_eq!(check.status, CheckStatus::Bad, "{check:?}");
        assert!(check.detail.contains("cut short: /etc/docker/daemon.json"), "and may be why: {check:?}");
        assert!(check.next_step.is_some_and(|next| next.contains("sampan docker enable")), "with a way out");
        (engine.found, engine.kind, engine.image_store) = (true, Kind::Linux, Some(ImageStore::Classic));
        assert_eq!(checked(&engine).status, CheckStatus::Bad, "also where it answers");
    }
}
