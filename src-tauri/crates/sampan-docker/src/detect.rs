//! Looks for the engine the current Docker context means. Changes nothing and never fails: it says what it found.

use std::path::{Path, PathBuf};

use bollard::models::{LocalNodeState, SystemInfo, SystemVersion};
use sampan_oci::RegistryName;

use crate::builder;
use crate::client::{self, ANSWER};
use crate::context::{self, Reach, Sources};
use crate::engine::{Engine, HostsSeen, ImageStore, Kind, Version};
use crate::environment::Environment;
use crate::files;
use crate::journal::{cut_short, journals};
use crate::method::{Method, WSL_DESKTOP};
use crate::neighbours;
use crate::plan::{DEFAULT_PORT, Part};
use crate::process::{self, Daemon};
use crate::together;
use crate::trust;

/// How many folders of `certs.d` are looked into: a person has a handful of registries.
const CERTS_MAX: usize = 256;

/// Looks for the engine. Takes at most a few seconds: an engine that does not answer is not waited for.
pub async fn detect(env: &Environment) -> Engine {
    let config_dir = env.docker_config();
    let config_json = files::read(&config_dir.join("config.json")).ok().flatten();
    let sources = Sources {
        docker_host: env.docker_host.as_deref(),
        docker_context: env.docker_context.as_deref(),
        config_json: config_json.as_deref(),
    };
    let meta = sources
        .context()
        .and_then(|(name, _)| files::read(&context::meta_path(&config_dir, &name)).ok().flatten());
    let endpoint = match sources.endpoint(meta.as_deref()) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            let mut engine = Engine::unknown(String::new());
            engine.evidence.push(error.to_string());
            engine.notes.push(format!("{error}. Choose another with `docker context use`."));
            return engine;
        }
    };
    let mut engine = Engine::unknown(endpoint.host.clone());
    engine.evidence.push(endpoint.because);
    engine.context.clone_from(&endpoint.context);
    let builders = builder::look(&env.buildx_config(), engine.buildx_key());
    engine.builders = builder::builders(&builders, engine.context.as_deref(), engine.buildx_key());
    let socket = match context::reach(&endpoint.host) {
        Reach::Remote => {
            engine.kind = Kind::Remote;
            engine.evidence.push(format!("{} is not a local socket, so it was not asked", endpoint.host));
            note_support(&mut engine);
            return engine;
        }
        Reach::Unix(path) => Some(path),
        Reach::Pipe(_) => None,
    };
    match ask(&endpoint.host).await {
        Err(error) => {
            engine.evidence.push(error);
            engine.gone = socket.as_deref().is_some_and(nobody_listens);
            note_unanswered(&mut engine, env);
            locate_unanswered(&mut engine, env);
        }
        Ok((info, version, containers)) => {
            engine.found = true;
            engine.containers = containers;
            learn(&mut engine, &info, &version, endpoint.context.as_deref());
            let daemon = match &socket {
                Some(socket) => process::daemon(socket).await,
                None => Err("a named pipe does not say which process serves it".into()),
            };
            locate(&mut engine, env, daemon);
        }
    }
    engine.running = neighbours::running(&engine).await;
    note_support(&mut engine);
    engine
}

/// Asks the engine who it is, and what runs there.
///
/// # Errors
/// One line of evidence.
pub(crate) async fn ask(endpoint: &str) -> Result<(SystemInfo, SystemVersion, Vec<String>), String> {
    let docker = client::connect(endpoint, ANSWER).await?;
    let all = async {
        let info = docker.info().await?;
        let version = docker.version().await?;
        let containers = docker.list_containers(None).await?;
        Ok::<_, bollard::errors::Error>((info, version, containers))
    };
    let (info, version, containers) = tokio::time::timeout(ANSWER, all)
        .await
        .map_err(|_| format!("{endpoint} accepts connections and does not answer"))?
        .map_err(|error| format!("{endpoint}: {error}"))?;
    let mut names: Vec<String> = containers
        .into_iter()
        .filter_map(|c| c.names.and_then(|names| names.into_iter().next()).or(c.id))
        .map(|name| name.trim_start_matches('/').to_owned())
        .collect();
    names.sort();
    Ok((info, version, names))
}

/// Takes in what the engine says of itself.
pub(crate) fn learn(engine: &mut Engine, info: &SystemInfo, version: &SystemVersion, context: Option<&str>) {
    engine.version = info.server_version.clone().or_else(|| version.version.clone());
    engine.kind = kind(info, version, context, &engine.endpoint);
    if engine.kind == Kind::Desktop && is_wsl() {
        engine.kind = Kind::OtherVm(WSL_DESKTOP.into());
    }
    let driver_type = info.driver_status.iter().flatten().find_map(|pair| match pair.as_slice() {
        [name, value] if name == "driver-type" => Some(value.as_str()),
        _ => None,
    });
    engine.image_store = Some(match driver_type {
        Some("io.containerd.snapshotter.v1") => ImageStore::Containerd,
        Some(_) | None => ImageStore::Classic,
    });
    engine.live_restore = info.live_restore_enabled.unwrap_or(false);
    let state = info.swarm.as_ref().and_then(|swarm| swarm.local_node_state);
    engine.swarm_active =
        state.is_some_and(|state| !matches!(state, LocalNodeState::EMPTY | LocalNodeState::INACTIVE));
    engine.mirrors = info.registry_config.as_ref().and_then(|c| c.mirrors.clone()).unwrap_or_default();
    let registries = info.registry_config.iter();
    let insecure = registries.clone().flat_map(|all| all.index_configs.iter().flatten());
    let insecure = insecure.filter(|(_, index)| index.secure == Some(false)).map(|(name, _)| name.clone());
    let networks = registries.flat_map(|all| all.insecure_registry_cidrs.iter().flatten()).cloned();
    engine.insecure = insecure.chain(networks).collect();
    let shown = engine.version.as_deref().unwrap_or("of unknown version");
    let mut evidence = vec![format!("{} answers as {} {shown}", engine.endpoint, engine.kind)];
    if let Some(system) = &info.operating_system {
        evidence.push(format!("it runs on {system}"));
    }
    evidence.push(match (driver_type, &info.driver) {
        (Some(kind), _) => format!("/info says driver-type {kind}, so images are in containerd's store"),
        (None, driver) => {
            let driver = driver.as_deref().unwrap_or("unknown");
            format!(
                "/info says storage driver {driver} and no containerd snapshotter: the classic image store"
            )
        }
    });
    evidence.push(match engine.mirrors.as_slice() {
        [] => "/info lists no mirrors".into(),
        mirrors => format!("/info lists the mirrors {}", mirrors.join(", ")),
    });
    if engine.live_restore {
        evidence.push("/info says live-restore is on: containers run on while dockerd is away".into());
    }
    if engine.swarm_active {
        evidence.push("/info says it is part of a swarm".into());
    }
    if engine.kind == Kind::Linux && is_wsl() {
        evidence.push("this Linux runs inside Windows (WSL2)".into());
    }
    engine.evidence.extend(evidence);
}

/// Whether this Linux runs inside Windows.
fn is_wsl() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    cfg!(target_os = "linux") && release.to_ascii_lowercase().contains("microsoft")
}

fn kind(info: &SystemInfo, version: &SystemVersion, context: Option<&str>, endpoint: &str) -> Kind {
    let system = info.operating_system.as_deref().unwrap_or_default();
    let components = version.components.iter().flatten();
    let vm = info.name.as_deref().unwrap_or_default();
    let vm = match vm {
        "orbstack" | "colima" | "lima-rancher-desktop" => vm,
        // A profile's machine.
        _ if vm.starts_with("colima-") => "colima",
        _ => "",
    };
    let named = |text: &str| {
        [vm, system, context.unwrap_or_default(), endpoint]
            .iter()
            .any(|seen| seen.to_ascii_lowercase().contains(text))
    };
    if components.into_iter().any(|component| component.name.contains("Podman")) {
        Kind::Podman
    } else if info.os_type.as_deref() == Some("windows") {
        Kind::Windows
    } else if system == "Docker Desktop" {
        Kind::Desktop
    } else if let Some((_, name)) = [
        ("orbstack", "OrbStack"),
        ("rancher-desktop", "Rancher Desktop"),
        ("rancher desktop", "Rancher Desktop"),
        ("colima", "Colima"),
        ("lima", "Lima"),
    ]
    .into_iter()
    .find(|(text, _)| named(text))
    {
        Kind::OtherVm(name.into())
    } else if cfg!(not(target_os = "linux")) {
        Kind::OtherVm("This engine".into())
    } else if info.security_options.iter().flatten().any(|option| option.contains("name=rootless")) {
        Kind::Rootless
    } else {
        Kind::Linux
    }
}

/// What a process says of itself, where it may: any user can name a process dockerd, and root would change the file that
/// it names.
fn believed(uid: u32, daemon: Daemon) -> Result<Daemon, String> {
    if uid != 0 || daemon.uid == Some(0) {
        return Ok(daemon);
    }
    Err(format!("process {} does not run as root: its command line is not believed", daemon.pid))
}

/// Finds the daemon's process and the files it reads.
fn locate(engine: &mut Engine, env: &Environment, daemon: Result<Daemon, String>) {
    let daemon = daemon.and_then(|daemon| believed(env.uid, daemon));
    let daemon = match (daemon, &engine.kind) {
        (Ok(daemon), _) => Some(daemon),
        (Err(why), Kind::Linux | Kind::Rootless | Kind::Snap) => {
            engine.evidence.push(why);
            None
        }
        (Err(_), _) => None,
    };
    let flags = daemon.as_ref().map(|daemon| daemon.flags.clone()).unwrap_or_default();
    if let Some(daemon) = daemon {
        engine.pid = Some(daemon.pid);
        engine.may_signal = env.uid == 0 || daemon.uid == Some(env.uid);
        engine.unit = daemon.unit;
        engine.command_line = daemon.arguments;
        engine.evidence.push(daemon.because);
    }
    if engine.kind == Kind::Linux
        && flags.config_file.as_ref().is_some_and(|file| file.starts_with("/var/snap"))
    {
        engine.kind = Kind::Snap;
    }
    let (config, certs) = match engine.kind {
        Kind::Linux | Kind::Snap => (
            flags.config_file.clone().unwrap_or("/etc/docker/daemon.json".into()),
            Some("/etc/docker/certs.d".into()),
        ),
        Kind::Rootless => {
            let folder = env.rootless_config();
            (
                flags.config_file.clone().unwrap_or_else(|| folder.join("daemon.json")),
                Some(folder.join("certs.d")),
            )
        }
        Kind::Desktop => (env.home.join(".docker").join("daemon.json"), None),
        Kind::Podman | Kind::OtherVm(_) | Kind::Windows | Kind::Remote | Kind::None => return,
    };
    let seen = files::look(&config, env.uid);
    let state = if seen.bytes.is_some() { "exists" } else { "does not exist" };
    let by = if flags.config_file.is_some() { "its --config-file" } else { "the usual place" };
    engine.evidence.push(format!("{} ({by}) {state}", config.display()));
    engine.config_named = flags.config_file.is_some();
    engine.config = Some(seen);
    for mirror in &flags.mirrors {
        engine.evidence.push(format!("dockerd was started with --registry-mirror={mirror}"));
    }
    engine.flag_mirrors = flags.mirrors;
    if let Some(certs) = certs {
        engine.hosts = hosts(&certs, &env.registries, env.uid);
        for hosts in engine.hosts.iter().filter(|hosts| hosts.file.bytes.is_some()) {
            let whose =
                hosts.port().map_or("somebody else's".into(), |port| format!("Sampan's, port {port}"));
            engine.evidence.push(format!("{} is {whose}", hosts.file.path.display()));
        }
    }
    engine.validator = validator(engine, env);
    remember(engine, env);
}

/// What Sampan changed before, by its journals, and what the helper left unfinished.
fn remember(engine: &mut Engine, env: &Environment) {
    engine.cut_short = cut_short(env, engine);
    if let Some(path) = engine.cut_short.first() {
        engine
            .evidence
            .push(format!("a change of {} by the privileged helper was cut short", path.display()));
    }
    let mut settled = Vec::new();
    for journal in journals(env) {
        match journal {
            Ok(journal) => {
                let known = journal.remembered().into_iter().filter(|known| !settled.contains(&known.change));
                engine.remembered.extend(known);
                settled.extend(journal.settled);
            }
            Err(why) => engine.notes.push(why),
        }
    }
}

/// Whether no process has the socket open for others. One that is there and does not answer is another matter: it
/// keeps the mirrors it has.
#[cfg(unix)]
fn nobody_listens(socket: &Path) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    std::os::unix::net::UnixStream::connect(socket)
        .is_err_and(|error| matches!(error.kind(), NotFound | ConnectionRefused))
}

#[cfg(not(unix))]
fn nobody_listens(_socket: &Path) -> bool {
    false
}

/// The files a daemon that does not run will read when it starts, where Sampan changed them before or at the usual
/// places: a change that was interrupted may be why it does not run.
fn locate_unanswered(engine: &mut Engine, env: &Environment) {
    if !cfg!(target_os = "linux") {
        return;
    }
    remember(engine, env);
    let changed = engine.remembered.iter().map(|known| &known.change);
    let changed = changed.filter(|change| context::same_endpoint(&change.endpoint, &engine.endpoint));
    let known = changed.clone().find(|change| change.part == Part::DaemonJson).map(|c| c.target.clone());
    let rootless = format!("unix:///run/user/{}/docker.sock", env.uid);
    let folder = if context::is_the_systems(&engine.endpoint) {
        PathBuf::from("/etc/docker")
    } else if env.uid != 0 && context::same_endpoint(&engine.endpoint, &rootless) {
        env.rootless_config()
    } else {
        // How it is told of its file is not known: it may not start without it.
        engine.config_named = known.is_some();
        engine.config = known.map(|target| files::look(&target, env.uid));
        return;
    };
    let usual = folder.join("daemon.json");
    engine.config_named = known.as_ref().is_some_and(|known| *known != usual);
    engine.config = Some(files::look(&known.unwrap_or(usual), env.uid));
    engine.hosts = hosts(&folder.join("certs.d"), &env.registries, env.uid);
}

/// `hosts.toml` of the registries Sampan serves, Docker Hub first, then of every other registry that has one.
pub(crate) fn hosts(certs: &Path, served: &[RegistryName], uid: u32) -> Vec<HostsSeen> {
    let mut names: Vec<(RegistryName, bool)> = served.iter().map(|name| (name.clone(), true)).collect();
    names.sort_by_key(|(name, _)| !name.is_docker_hub());
    names.dedup();
    let mut others: Vec<RegistryName> = std::fs::read_dir(certs)
        .into_iter()
        .flatten()
        .take(CERTS_MAX)
        .flatten()
        .filter_map(|entry| {
            let folder = entry.file_name();
            let name: RegistryName = folder.to_str()?.parse().ok()?;
            // An alias of Docker Hub is another folder than docker.io, and not one Sampan writes.
            (folder.to_str() == Some(name.as_str()) && entry.path().join("hosts.toml").exists())
                .then_some(name)
        })
        .collect();
    others.sort();
    names.extend(others.into_iter().filter(|name| !served.contains(name)).map(|name| (name, false)));
    names
        .into_iter()
        .map(|(registry, served)| {
            let file = files::look(&certs.join(registry.as_str()).join("hosts.toml"), uid);
            let beside = beside(&certs.join(registry.as_str()));
            HostsSeen { registry, served, beside, file }
        })
        .collect()
}

/// Certificates and keys in a registry's folder.
fn beside(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().take(CERTS_MAX).flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let read = |name: &String| name.rsplit_once('.').is_some_and(|(_, end)| trust::ENDINGS.contains(&end));
    let mut names: Vec<String> = names.filter(read).collect();
    names.sort();
    names
}

/// A dockerd that knows `--validate` (since 23.0) and that nobody but its owner can have replaced.
fn validator(engine: &Engine, env: &Environment) -> Option<PathBuf> {
    if engine.version.as_deref().and_then(Version::parse)? < Version(23, 0, 0) {
        return None;
    }
    let running = std::fs::read_link(format!("/proc/{}/exe", engine.pid?)).ok();
    running
        .into_iter()
        .chain(["/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd"].map(PathBuf::from))
        .find(|path| path.is_file() && files::owned(path, env.uid).is_ok())
}

fn note_unanswered(engine: &mut Engine, env: &Environment) {
    let socket = match context::reach(&engine.endpoint) {
        Reach::Unix(path) => path,
        Reach::Pipe(_) | Reach::Remote => return,
    };
    if !socket.exists() {
        engine.evidence.push(format!("{} does not exist", socket.display()));
    } else if !may_open(&socket) {
        engine.notes.push(format!(
            "{} may not be opened by this user: add the user to the docker group and log in again.",
            socket.display()
        ));
    }
    let rootless = PathBuf::from(format!("/run/user/{}/docker.sock", env.uid));
    if rootless != socket && rootless.exists() {
        engine.notes.push(format!(
            "A rootless Docker is at {}: choose it with `docker context use rootless`.",
            rootless.display()
        ));
    }
}

#[cfg(unix)]
fn may_open(socket: &Path) -> bool {
    rustix::fs::access(socket, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(not(unix))]
fn may_open(_socket: &Path) -> bool {
    true
}

/// Says why the engine is not set up, or what stands in the way.
fn note_support(engine: &mut Engine) {
    match engine.method() {
        // That nothing answers is said already; what to do about it may be, too.
        Err(unsupported) if engine.kind == Kind::None => {
            if engine.notes.is_empty() {
                engine.notes.push(unsupported.advice);
            }
        }
        Err(unsupported) => engine.notes.extend([unsupported.reason, unsupported.advice]),
        Ok(method) => {
            let problem = engine.config.as_ref().and_then(|file| file.problem.clone());
            engine.notes.extend(problem.filter(|_| method != Method::HostsOnly));
            if matches!(method, Method::HostsOnly | Method::HostsAndMirrors) {
                let concerned = engine.hosts.iter().filter(|seen| seen.served && !seen.is_foreign());
                let obstacles = concerned.filter_map(|seen| {
                    let why = trust::obstacle(seen, &engine.insecure)?;
                    Some(format!("{} is not pointed at Sampan: {why}", seen.registry))
                });
                let obstacles: Vec<String> = obstacles.collect();
                engine.notes.extend(obstacles);
            }
            let hub = engine.hosts.iter().any(|h| h.registry.is_docker_hub() && h.file.bytes.is_some());
            let insecure = together::insecure(engine);
            let bare =
                engine.mirrors.iter().find(|mirror| together::belongs_beside(mirror, &insecure)).cloned();
            if let Some(repair) = engine.needs_repair(DEFAULT_PORT) {
                engine.notes.push(repair);
            } else if let Some(bare) =
                bare.filter(|_| matches!(method, Method::HostsOnly | Method::HostsAndMirrors) && !hub)
            {
                let config = engine.config.as_ref().map(|file| file.path.display().to_string());
                let config = config.unwrap_or_else(|| "Docker's configuration".into());
                engine.notes.push(format!(
                    "{config} lists the mirror {bare} and there is no hosts.toml for docker.io: from Docker 28 on \
                     both files belong together. Enabling Sampan writes both."
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Stopped;

    impl sampan_oci::Clock for Stopped {
        fn now(&self) -> sampan_oci::Millis {
            sampan_oci::Millis(0)
        }
    }

    #[test]
    fn root_believes_no_other_users_dockerd() {
        let daemon = |uid| Daemon {
            pid: 4242,
            flags: process::Flags::default(),
            arguments: Vec::new(),
            unit: None,
            uid,
            because: "a socket".into(),
        };
        for (who, runs_as, expected, why) in [
            (0, Some(0), true, "the system's"),
            (0, Some(1000), false, "a user's process of that name"),
            (0, None, false, "whose it is is not known"),
            (1000, Some(0), true, "a user only looks, and asks the helper for the rest"),
            (1000, Some(1000), true, "a user's own"),
        ] {
            assert_eq!(believed(who, daemon(runs_as)).is_ok(), expected, "{why}");
        }
    }

    #[test]
    fn a_users_process_leads_root_to_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let env = Environment {
            docker_host: None,
            docker_context: None,
            docker_config_dir: None,
            buildx_config_dir: None,
            home: dir.path().join("home"),
            xdg_config_home: None,
            uid: 0,
            state_dir: dir.path().join("state"),
            system_state_dir: dir.path().join("system"),
            registries: Vec::new(),
            clock: std::sync::Arc::new(Stopped),
        };
        let arguments = ["dockerd", "--config-file", "/tmp/evil/daemon.json"].map(str::to_owned).to_vec();
        let flags = process::Flags::parse(&arguments);
        let daemon =
            Daemon { pid: 4242, flags, arguments, unit: None, uid: Some(1000), because: "it runs".into() };
        let mut engine = Engine::unknown("unix:///var/run/docker.sock".into());
        engine.kind = Kind::Linux;
        locate(&mut engine, &env, Ok(daemon));
        let config = engine.config.unwrap().path;
        assert_eq!(config, PathBuf::from("/etc/docker/daemon.json"), "not the file that it names");
        assert!(engine.pid.is_none() && !engine.may_signal, "nor is it signalled");
    }
}
