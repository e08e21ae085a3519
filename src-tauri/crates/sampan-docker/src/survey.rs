//! Every engine a person may have on this machine, not only the one the current context means. Changes nothing.
//!
//! Places come from the table in [`places`](crate::places()), from every Docker context, and from every dockerd that
//! runs. Each that exists is asked, all at the same time, and none for longer than [`ASK_AT_MOST`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;

use crate::context::{self, Reach, Sources, same_endpoint};
use crate::detect;
use crate::engine::{Engine, ImageStore, Kind};
use crate::environment::Environment;
use crate::files;
use crate::places::{Place, System, places};
use crate::process;

/// How long one engine may take to say who it is. One that sleeps is there all the same, and is shown as such.
pub const ASK_AT_MOST: Duration = Duration::from_secs(2);
/// How many folders a `*` of the table stands for at most.
const FOLDERS_MAX: usize = 64;

/// One engine of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSeen {
    /// What it is; where it does not answer, what is usually there.
    pub kind: Kind,
    /// Where it is reached.
    pub endpoint: String,
    /// The Docker contexts that name it, in order of their names.
    pub contexts: Vec<String>,
    /// Its version, as it says it.
    pub version: Option<String>,
    /// Where it keeps images.
    pub image_store: Option<ImageStore>,
    /// Whether it answers.
    pub answers: bool,
    /// Whether it is the one the `docker` command would speak to.
    pub current: bool,
    /// What was looked at and seen, one line each.
    pub evidence: Vec<String>,
}

/// A place to look at, before anybody was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where.
    pub endpoint: String,
    /// What is probably there.
    pub kind: Kind,
    /// The contexts that name it.
    pub contexts: Vec<String>,
    /// Whether the `docker` command would speak to it.
    pub current: bool,
    /// Why it is looked at.
    pub because: Vec<String>,
}

/// Looks for every engine. Takes [`ASK_AT_MOST`] and a moment; the current one is first, then those that answer.
pub async fn survey(env: &Environment) -> Vec<EngineSeen> {
    let found = candidates(System::HERE, env);
    let mut seen: Vec<EngineSeen> = join_all(found.into_iter().map(look)).await;
    seen.sort_by_key(|engine| (!engine.current, !engine.answers));
    seen
}

async fn look(candidate: Candidate) -> EngineSeen {
    let mut seen = EngineSeen {
        kind: candidate.kind,
        endpoint: candidate.endpoint,
        contexts: candidate.contexts,
        version: None,
        image_store: None,
        answers: false,
        current: candidate.current,
        evidence: candidate.because,
    };
    if context::reach(&seen.endpoint) == Reach::Remote {
        seen.kind = Kind::Remote;
        seen.evidence.push(format!("{} is not a local socket, so it was not asked", seen.endpoint));
        return seen;
    }
    let answer = tokio::time::timeout(ASK_AT_MOST, detect::ask(&seen.endpoint)).await;
    match answer {
        Err(_) => {
            let seconds = ASK_AT_MOST.as_secs();
            seen.evidence.push(format!("{} did not answer within {seconds} s", seen.endpoint));
        }
        Ok(Err(why)) => seen.evidence.push(why),
        Ok(Ok((info, version, containers))) => {
            // A link's target says more of whose it is than the usual place.
            let named = context::socket_of(&seen.endpoint)
                .and_then(|path| std::fs::canonicalize(path).ok())
                .map_or_else(|| seen.endpoint.clone(), |path| format!("unix://{}", path.display()));
            let mut engine = Engine::unknown(named);
            detect::learn(&mut engine, &info, &version, seen.contexts.first().map(String::as_str));
            // Where an engine in a virtual machine does not say whose it is, its place does.
            seen.kind = match (&seen.kind, engine.kind) {
                (Kind::OtherVm(place), Kind::Linux | Kind::Rootless) => Kind::OtherVm(place.clone()),
                (Kind::OtherVm(place), Kind::OtherVm(name)) if name == "This engine" => {
                    Kind::OtherVm(place.clone())
                }
                (_, kind) => kind,
            };
            seen.version = engine.version;
            seen.image_store = engine.image_store;
            seen.answers = true;
            seen.evidence.extend(engine.evidence.into_iter().skip(1));
            seen.evidence.push(match containers.len() {
                0 => "no container runs there".into(),
                1 => "1 container runs there".into(),
                many => format!("{many} containers run there"),
            });
        }
    }
    seen
}

/// Everything to look at: what the table names and exists, every context, every running dockerd, and the current one.
fn candidates(system: System, env: &Environment) -> Vec<Candidate> {
    let config_dir = env.docker_config();
    let mut found = Vec::new();
    let current = current(env, &config_dir);
    if let Some((endpoint, because)) = current.clone() {
        found.push(Candidate {
            kind: Kind::None,
            endpoint,
            contexts: Vec::new(),
            current: true,
            because: vec![because],
        });
    }
    for (name, host) in contexts(&config_dir) {
        found.push(Candidate {
            kind: Kind::None,
            because: vec![format!("the Docker context \"{name}\" names {host}")],
            endpoint: host,
            contexts: vec![name],
            current: false,
        });
    }
    for place in places(system, &env.home, env.uid).into_iter().flat_map(expanded) {
        let here = match context::reach(&place.endpoint) {
            Reach::Unix(path) => path.exists(),
            // Whether a pipe exists is known by asking it.
            Reach::Pipe(_) => true,
            Reach::Remote => false,
        };
        if here {
            let because = format!("{} is {}", place.endpoint, place.whose);
            found.push(Candidate {
                endpoint: place.endpoint,
                kind: place.kind,
                contexts: Vec::new(),
                current: false,
                because: vec![because],
            });
        }
    }
    for (socket, because) in process::sockets() {
        found.push(Candidate {
            endpoint: format!("unix://{}", socket.display()),
            kind: Kind::Linux,
            contexts: Vec::new(),
            current: false,
            because: vec![because],
        });
    }
    let real =
        |endpoint: &str| context::socket_of(endpoint).and_then(|path| std::fs::canonicalize(path).ok());
    merged(found, &real)
}

/// One candidate for each engine: two names of one socket are one engine, by the first of its names. `real` is where a
/// socket's path leads in the end. Pure.
pub fn merged(candidates: Vec<Candidate>, real: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        let target = real(&candidate.endpoint);
        let same = |other: &&mut Candidate| {
            same_endpoint(&other.endpoint, &candidate.endpoint)
                || (target.is_some() && real(&other.endpoint) == target)
        };
        match kept.iter_mut().find(same) {
            None => kept.push(candidate),
            Some(known) => {
                known.current |= candidate.current;
                // The usual place may be a link into any product: whoever owns the place knows better.
                let vague = matches!(&known.kind, Kind::None | Kind::Linux)
                    || known.kind == Kind::OtherVm("This engine".into());
                if vague && candidate.kind != Kind::None {
                    known.kind = candidate.kind;
                }
                let contexts: BTreeSet<String> = known.contexts.drain(..).chain(candidate.contexts).collect();
                known.contexts = contexts.into_iter().collect();
                known.because.extend(candidate.because);
            }
        }
    }
    kept
}

fn current(env: &Environment, config_dir: &Path) -> Option<(String, String)> {
    let config_json = files::read(&config_dir.join("config.json")).ok().flatten();
    let sources = Sources {
        docker_host: env.docker_host.as_deref(),
        docker_context: env.docker_context.as_deref(),
        config_json: config_json.as_deref(),
    };
    let name = sources.context().map(|(name, _)| name);
    let meta = name.and_then(|name| files::read(&context::meta_path(config_dir, &name)).ok().flatten());
    let endpoint = sources.endpoint(meta.as_deref()).ok()?;
    Some((endpoint.host, endpoint.because))
}

/// Every context that is described, by name.
fn contexts(config_dir: &Path) -> Vec<(String, String)> {
    let folders = std::fs::read_dir(config_dir.join("contexts").join("meta"));
    let mut found: Vec<(String, String)> = folders
        .into_iter()
        .flatten()
        .flatten()
        .take(FOLDERS_MAX)
        .filter_map(|entry| files::read(&entry.path().join("meta.json")).ok().flatten())
        .filter_map(|meta| context::described(&meta))
        .collect();
    found.sort();
    found
}

/// A place with a `*`, once for each folder there is.
fn expanded(place: Place) -> Vec<Place> {
    let Some((before, after)) = place.endpoint.split_once("/*/") else { return vec![place] };
    let folder = before.strip_prefix("unix://").unwrap_or(before);
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .take(FOLDERS_MAX)
        .collect();
    names.sort();
    let place_of = |name: String| Place { endpoint: format!("{before}/{name}/{after}"), ..place.clone() };
    names.into_iter().map(place_of).collect()
}
