//! Exactly what will be changed, before it is. Pure: everything it rests on is in the [`Engine`].

use std::fmt;
use std::path::PathBuf;

use sampan_oci::{Algorithm, Hasher, RegistryName};
use serde::{Deserialize, Serialize};

use crate::choice::{self, Choice, KnownSet};
use crate::context::{self, same_endpoint};
use crate::daemon_json::{self, Refusal, same_list, same_mirror};
use crate::diff::{self, DiffLine};
use crate::elevation::Verb;
use crate::engine::{Access, Engine, FileSeen, HostsSeen, Kind, mirror_url};
use crate::hosts_toml;
use crate::manual;
use crate::method::Method;
use crate::neighbours::taken_out;
pub use crate::plan_error::PlanError;
use crate::repair::own_mirrors;
use crate::together::{self, is_loopback};
use crate::trust;

/// The port Sampan listens on unless told otherwise: an entry that names it is Sampan's.
pub const DEFAULT_PORT: u16 = 7267;

/// Observed with dockerd 20.10; those up to 27 are built alike.
pub(crate) const BUILDS_LATER: &str = "docker build (BuildKit) may go on as before until the mirrors are read anew, which is \
                                       when Docker next starts; docker pull asks Sampan at once.";

/// Which way to change an engine's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Point the engine at Sampan.
    Enable,
    /// Take that back.
    Disable,
}

/// How an engine is told of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyMethod {
    /// It reads the file at each pull.
    Nothing,
    /// It is asked to read its configuration again; no container stops.
    Reload,
    /// It must be restarted; needs its own consent.
    Restart,
}

/// What a person is shown and consents to.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Names this plan: a hash of everything it rests on, then the registries that were chosen ([`Choice::of_plan`]).
    pub id: String,
    /// Which way.
    pub action: Action,
    /// The port of Sampan's it is about.
    pub port: u16,
    /// The files, in the order they are written. Empty: none changes.
    pub files: Vec<FileChange>,
    /// How the engine is told.
    pub apply: ApplyMethod,
    /// The mirrors the engine must list afterwards; `None` where it lists none of what changes.
    pub intended: Option<Vec<String>>,
    /// Containers that a restart would stop; empty where nothing restarts.
    pub stops: Vec<String>,
    /// Whether an administrator's rights are needed.
    pub needs_elevation: bool,
    /// Whether the privileged helper first settles a change of its own that was cut short ([`Engine::cut_short`]).
    pub settles: bool,
    /// What the privileged helper is asked to do, where it is needed.
    pub verb: Verb,
    /// What it is asked to do to take that back.
    pub back: Verb,
    /// The same by hand, one shell command a line.
    pub commands: Vec<String>,
    /// What else happens, and what does not: English sentences.
    pub notes: Vec<String>,
}

impl Plan {
    /// Whether everything already is as wanted.
    pub fn is_nothing(&self) -> bool {
        self.files.is_empty() && self.apply == ApplyMethod::Nothing && !self.settles
    }
}

/// One file of a plan.
#[derive(Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Its path, as the engine names it.
    pub path: PathBuf,
    /// The file that is replaced: `path`, or where its symbolic link leads.
    pub target: PathBuf,
    /// Which file it is.
    pub part: Part,
    /// Its bytes as shown; `None`: it does not exist.
    pub before: Option<Vec<u8>>,
    /// Its bytes until the engine has let go of the mirror, where those are not the final ones.
    pub interim: Option<Vec<u8>>,
    /// Its bytes in the end; `None`: it is removed.
    pub after: Option<Vec<u8>>,
    /// Whether it does not exist yet.
    pub created: bool,
    /// Whether it is removed.
    pub removed: bool,
    /// The difference, lines for showing.
    pub diff: Vec<DiffLine>,
}

impl fmt::Debug for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileChange")
            .field("path", &self.path)
            .field("part", &self.part)
            .finish_non_exhaustive()
    }
}

/// Which file of an engine's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// `daemon.json`.
    DaemonJson,
    /// `hosts.toml` of a registry.
    Hosts(RegistryName),
    /// The file of another client than Docker, Sampan's alone.
    Client,
}

/// What to change so that `engine` asks Sampan on `port` for Docker Hub and the registries of `choice`, or no longer
/// does for any. Reads nothing.
///
/// # Errors
/// A [`PlanError`] where that cannot be done safely; nothing is changed either way.
pub fn plan(engine: &Engine, action: Action, port: u16, choice: &Choice) -> Result<Plan, PlanError> {
    if action == Action::Enable && port < 1024 {
        return Err(PlanError::LowPort(port));
    }
    let (files, notes) = (Vec::new(), Vec::new());
    let mut draft = Draft { engine, port, choice, files, intended: None, tell: false, notes };
    match action {
        Action::Enable => draft.enable()?,
        Action::Disable => draft.disable()?,
    }
    draft.finish(action)
}

struct Draft<'a> {
    engine: &'a Engine,
    port: u16,
    choice: &'a Choice,
    files: Vec<FileChange>,
    intended: Option<Vec<String>>,
    /// Whether the engine has to read `daemon.json` again.
    tell: bool,
    notes: Vec<String>,
}

impl<'a> Draft<'a> {
    fn enable(&mut self) -> Result<(), PlanError> {
        let method = self.engine.method()?;
        for other in self.engine.others(self.port) {
            self.notes.push(format!(
                "Docker is set up for another Sampan, which runs now on port {other}: this one, on port {}, takes its \
                 place.",
                self.port
            ));
        }
        // hosts.toml first, and last to go: the two files belong together.
        if matches!(method, Method::HostsOnly | Method::HostsAndMirrors) {
            self.write_hosts()?;
        } else if let (Some(registry), Some(why)) =
            (self.choice.named().first(), choice::by_name(self.engine, self.port))
        {
            return Err(PlanError::HubOnly { registry: registry.clone(), why });
        }
        if method == Method::HostsOnly {
            self.note_unused_mirrors();
        } else {
            self.list_mirror()?;
        }
        Ok(())
    }

    fn disable(&mut self) -> Result<(), PlanError> {
        // What was set up before an update made the engine unsupported can still be taken back.
        let visible = self.engine.pid.is_some() && self.engine.kind.is_local_daemon();
        if let Err(unsupported) = self.engine.method()
            && !visible
            && !self.engine.gone
        {
            return if self.has_none_of_ours() { Ok(()) } else { Err(unsupported.into()) };
        }
        for other in self.engine.others(self.port) {
            self.notes.push(format!(
                "What another Sampan set up, which runs now on port {other}, stays: take it out by that one, or with \
                 `sampan docker disable --listen 127.0.0.1:{other}`."
            ));
        }
        self.unlist_mirror()?;
        for seen in &self.engine.hosts {
            if self.is_to_go(seen) {
                let file = checked(&seen.file)?;
                self.files.push(change(file, Part::Hosts(seen.registry.clone()), None, None));
            }
        }
        Ok(())
    }

    /// Whether disabling removes that file: it is Sampan's, and not another one's that runs.
    fn is_to_go(&self, seen: &HostsSeen) -> bool {
        seen.port().is_some_and(|port| !self.engine.is_anothers(port, self.port))
    }

    /// Whether nothing that is known of the engine is this Sampan's to take out.
    fn has_none_of_ours(&self) -> bool {
        let (engine, ours) = (self.engine, taken_out(self.engine, self.port));
        let file = engine.config.as_ref().and_then(|file| file.bytes.as_deref()).unwrap_or_default();
        let Ok(in_file) = daemon_json::mirrors(file) else { return false };
        let mut listed = engine.mirrors.iter().chain(&in_file);
        let remembered = engine.remembered.iter().map(|known| &known.change);
        !listed.any(|url| ours.iter().any(|our| same_mirror(our, url)))
            && !engine.hosts.iter().any(|seen| self.is_to_go(seen))
            && !remembered.clone().any(|change| {
                same_endpoint(&change.endpoint, &engine.endpoint)
                    && !engine.is_anothers(change.port, self.port)
            })
    }

    /// Writes the chosen registries' files, Docker Hub's first, and removes Sampan's own of the others.
    fn write_hosts(&mut self) -> Result<(), PlanError> {
        let engine = self.engine;
        let known = |name: &&RegistryName| {
            let mut hosts = engine.hosts.iter();
            hosts.any(|seen| seen.registry == **name && (seen.served || seen.port().is_some()))
        };
        if let Some(registry) = self.choice.named().iter().find(|name| !known(name)) {
            return Err(PlanError::NotServed(registry.clone()));
        }
        let by_helper = choice::needs_helper(engine);
        for seen in &engine.hosts {
            let obstacle = trust::obstacle(seen, &engine.insecure);
            let (hub, ours) = (seen.registry.is_docker_hub(), seen.port().is_some());
            let custom = !hub && !KnownSet::knows(&seen.registry);
            // The helper takes a verb and a port: what is in no list of its own it can neither add nor take out.
            let stays = by_helper && custom && ours;
            let mut chosen = self.choice.takes(seen);
            if let Some(why) = obstacle.filter(|_| chosen && !seen.is_foreign()) {
                trust::allowed(seen, self.choice, &why)?;
                self.notes.push(format!("{} no longer asks Sampan: {why}", seen.registry));
                chosen = false;
            }
            if stays && !chosen {
                let gone = change(&seen.file, Part::Hosts(seen.registry.clone()), None, None);
                self.note_by_hand(&gone);
            }
            let after = (chosen || stays).then(|| hosts_toml::render(&seen.registry, self.port).into_bytes());
            if (!chosen && !ours) || seen.file.bytes == after {
                continue;
            }
            if seen.is_foreign() {
                if hub {
                    return Err(PlanError::Foreign(seen.file.path.clone()));
                }
                let path = seen.file.path.display();
                self.notes.push(format!("{path} was written by somebody else and stays as it is."));
                continue;
            }
            let change = change(checked(&seen.file)?, Part::Hosts(seen.registry.clone()), None, after);
            if by_helper && custom && !ours {
                self.note_by_hand(&change);
                continue;
            }
            self.files.push(change);
        }
        if !self.choice.named().is_empty() {
            self.notes.extend(choice::by_name(engine, self.port));
        }
        Ok(())
    }

    fn note_by_hand(&mut self, change: &FileChange) {
        let commands = manual::file(change, "sudo ").join(" && ");
        self.notes.push(format!("{} is not in this step. By hand: {commands}", change.path.display()));
    }

    /// What the helper is asked to do, and to take it back: each is one closed word.
    fn verbs(&self, action: Action) -> (Verb, Verb) {
        let engine = self.engine;
        match (action, self.choice) {
            (Action::Disable, _) => (Verb::Disable, as_now(engine)),
            (Action::Enable, choice) => {
                let chosen = match choice {
                    Choice::AsNow => Verb::Enable,
                    Choice::Only(list) => Verb::EnableOnly(KnownSet::of(list)),
                };
                (chosen, if engine.enabled(self.port) { as_now(engine) } else { Verb::Disable })
            }
        }
    }

    fn list_mirror(&mut self) -> Result<(), PlanError> {
        if let Some(flag) = self.engine.flag_mirrors.first() {
            return Err(PlanError::FlagConflict(flag.clone()));
        }
        let file = self.config()?;
        let ours = mirror_url(&self.engine.kind, self.port);
        let before = file.bytes.clone().unwrap_or_default();
        let mut edited = before.clone();
        for old in self.ours().iter().filter(|old| !same_mirror(old, &ours)) {
            edited = daemon_json::remove_mirror(&edited, old, true).map_err(|r| refused(file, r))?;
        }
        edited = daemon_json::add_mirror(&edited, &ours).map_err(|r| refused(file, r))?;
        let intended = daemon_json::mirrors(&edited).map_err(|r| refused(file, r))?;
        for foreign in intended.iter().filter(|url| is_loopback(url) && !same_mirror(url, &ours)) {
            self.notes.push(format!("{foreign} is another mirror on this machine; it stays, after Sampan."));
        }
        let changed = edited != before || file.bytes.is_none();
        self.tell = changed || !same_list(&intended, &self.engine.mirrors);
        if changed {
            self.files.push(change(file, Part::DaemonJson, None, Some(edited)));
        }
        self.intended = Some(intended);
        Ok(())
    }

    fn unlist_mirror(&mut self) -> Result<(), PlanError> {
        let ours = taken_out(self.engine, self.port);
        let is_ours = |url: &String| ours.iter().any(|our| same_mirror(our, url));
        let listed = self.engine.mirrors.iter().any(is_ours);
        // What the file says must be known before anything that belongs beside it goes.
        let matters = listed || self.engine.hosts.iter().any(|seen| self.is_to_go(seen));
        let file = match self.config() {
            Ok(file) => file,
            Err(error) if matters => return Err(error),
            Err(_) => return Ok(()),
        };
        let before = file.bytes.clone().unwrap_or_default();
        let in_file = match daemon_json::mirrors(&before) {
            Ok(mirrors) => mirrors.iter().any(is_ours),
            Err(refusal) if matters => return Err(refused(file, refusal)),
            Err(_) => false,
        };
        if !in_file && !listed {
            return Ok(());
        }
        if !in_file && self.engine.flag_mirrors.iter().any(is_ours) {
            let flag = self.engine.flag_mirrors.first().cloned().unwrap_or_default();
            return Err(PlanError::FlagConflict(flag));
        }
        let empty = self.without_ours(file, &before, true)?;
        let intended = daemon_json::mirrors(&empty).map_err(|r| refused(file, r))?;
        let after = self.undone(file, &before, &intended, in_file)?;
        // A running dockerd keeps its mirrors when the key is deleted: it must see a list without Sampan first.
        let runs = !self.engine.gone;
        let interim =
            (runs && self.engine.kind != Kind::Desktop && after.as_ref() != Some(&empty)).then_some(empty);
        self.tell = runs;
        self.intended = Some(intended);
        self.files.push(change(file, Part::DaemonJson, interim, after));
        Ok(())
    }

    /// The content undoing ends with: the exact bytes from before where they are known, else without the entry.
    fn undone(
        &self,
        file: &FileSeen,
        before: &[u8],
        intended: &[String],
        in_file: bool,
    ) -> Result<Option<Vec<u8>>, PlanError> {
        if !in_file {
            return Ok(file.bytes.clone());
        }
        let known = self.engine.remembered.iter().find(|known| known.change.target == file.target);
        match known.and_then(|known| known.exact_undo(before)) {
            Some(Some(original))
                if daemon_json::mirrors(original).is_ok_and(|list| same_list(&list, intended)) =>
            {
                Ok(Some(original.to_vec()))
            }
            // Told by name, dockerd does not start without its file.
            Some(None) if !self.engine.config_named && intended.is_empty() => Ok(None),
            Some(_) | None => self.without_ours(file, before, false).map(Some),
        }
    }

    fn without_ours(
        &self,
        file: &FileSeen,
        before: &[u8],
        leave_empty_list: bool,
    ) -> Result<Vec<u8>, PlanError> {
        let mut edited = before.to_vec();
        if leave_empty_list {
            edited = daemon_json::with_empty_list(&edited).map_err(|r| refused(file, r))?;
        }
        for url in &taken_out(self.engine, self.port) {
            edited =
                daemon_json::remove_mirror(&edited, url, leave_empty_list).map_err(|r| refused(file, r))?;
        }
        Ok(edited)
    }

    fn ours(&self) -> Vec<String> {
        own_mirrors(self.engine, self.port)
    }

    fn config(&self) -> Result<&'a FileSeen, PlanError> {
        let file = self.engine.config.as_ref();
        checked(
            file.ok_or_else(|| {
                PlanError::Unsafe("Which configuration file Docker reads is not known.".into())
            })?,
        )
    }

    fn note_unused_mirrors(&mut self) {
        let ours = self.ours();
        let others = self.engine.mirrors.iter().filter(|m| !ours.iter().any(|our| same_mirror(our, m)));
        let others: Vec<&str> = others.map(String::as_str).collect();
        if !others.is_empty() {
            let list = others.join(", ");
            self.notes.push(format!(
                "While Sampan's hosts.toml is in place Docker does not ask {list} for docker.io."
            ));
        }
    }

    fn finish(mut self, action: Action) -> Result<Plan, PlanError> {
        let engine = self.engine;
        let stay = together::check(engine, action, self.port, &self.files, self.intended.as_deref())?;
        self.notes.extend(stay);
        let apply = match (self.tell, &engine.kind) {
            (false, _) => ApplyMethod::Nothing,
            (true, Kind::Desktop) => ApplyMethod::Restart,
            (true, _) => ApplyMethod::Reload,
        };
        let stops = if apply == ApplyMethod::Restart { engine.containers.clone() } else { Vec::new() };
        let accesses = || self.files.iter().filter_map(|change| access_of(engine, change));
        if let Some((_, path)) = accesses().find(|(access, _)| *access == Access::ReadOnly) {
            return Err(PlanError::ReadOnly(path.clone()));
        }
        let settles = !engine.cut_short.is_empty();
        let needs_elevation = accesses().any(|(access, _)| access == Access::NeedsElevation)
            || (apply == ApplyMethod::Reload && !engine.may_signal)
            || settles;
        if settles {
            self.notes.push(
                "A change of Docker's configuration was cut short: the privileged helper settles that first."
                    .into(),
            );
        }
        match apply {
            ApplyMethod::Nothing if self.files.is_empty() && settles => {}
            ApplyMethod::Nothing if self.files.is_empty() => {
                self.notes.push("Everything is as wanted already.".into());
            }
            ApplyMethod::Nothing if engine.gone => {
                self.notes.push("Docker does not run: it finds the files like this when it starts.".into());
            }
            ApplyMethod::Nothing => {
                self.notes.push("Docker reads hosts.toml at each pull: nothing restarts.".into());
            }
            ApplyMethod::Reload => {
                if action == Action::Enable && engine.method() == Ok(Method::Mirrors) {
                    self.notes.push(BUILDS_LATER.into());
                }
                self.notes.push("Docker reads its configuration again: no container stops.".into());
            }
            ApplyMethod::Restart => {
                self.notes.push(
                    "Docker Desktop must restart: containers without a restart policy stay stopped.".into(),
                );
            }
        }
        let commands = manual::commands(engine, &self.files, apply, needs_elevation);
        let systems = context::is_the_systems(&engine.endpoint)
            && (engine.gone || matches!(engine.kind, Kind::Linux | Kind::Snap));
        if needs_elevation && !systems {
            return Err(PlanError::NotTheSystems { endpoint: engine.endpoint.clone(), commands });
        }
        let id = self.id(action, apply, &stops);
        let (verb, back) = self.verbs(action);
        Ok(Plan {
            id,
            action,
            port: self.port,
            files: self.files,
            apply,
            intended: self.intended,
            stops,
            needs_elevation,
            settles,
            verb,
            back,
            commands,
            notes: self.notes,
        })
    }

    fn id(&self, action: Action, apply: ApplyMethod, stops: &[String]) -> String {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut put = |part: Option<&[u8]>| {
            // Lengths keep neighbours apart; absent differs from empty.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hasher.update(&length.to_be_bytes());
            hasher.update(part.unwrap_or_default());
        };
        put(Some(format!("{action:?} {apply:?} {} {:?}", self.port, self.engine.kind).as_bytes()));
        put(Some(self.engine.endpoint.as_bytes()));
        put(self.engine.version.as_deref().map(str::as_bytes));
        self.engine.mirrors.iter().chain(stops).for_each(|text| put(Some(text.as_bytes())));
        for file in &self.files {
            put(Some(file.target.as_os_str().as_encoded_bytes()));
            for bytes in [&file.before, &file.interim, &file.after] {
                put(bytes.as_deref());
            }
        }
        for path in &self.engine.cut_short {
            put(Some(path.as_os_str().as_encoded_bytes()));
        }
        let choice = if action == Action::Enable { self.choice.suffix() } else { String::new() };
        hasher.finish().hex() + &choice
    }
}

/// The verb that sets up again what `engine` had before `plan` enabled something else.
pub(crate) fn set_up_again(engine: &Engine, plan: &Plan) -> Verb {
    match plan.verb.means() {
        // Nothing was chosen, and none was taken away.
        (_, None, _) => Verb::Enable,
        (_, Some(_), _) => as_now(engine),
    }
}

fn as_now(engine: &Engine) -> Verb {
    let set_up = engine.hosts.iter().filter(|seen| seen.port().is_some());
    Verb::EnableOnly(KnownSet::of(set_up.map(|seen| &seen.registry)))
}

fn access_of<'a>(engine: &'a Engine, change: &FileChange) -> Option<(Access, &'a PathBuf)> {
    let mut seen = engine.config.iter().chain(engine.hosts.iter().map(|hosts| &hosts.file));
    seen.find(|file| file.target == change.target).map(|file| (file.access, &file.path))
}

pub(crate) fn change(
    file: &FileSeen,
    part: Part,
    interim: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
) -> FileChange {
    let before = file.bytes.clone();
    FileChange {
        path: file.path.clone(),
        target: file.target.clone(),
        part,
        created: before.is_none(),
        removed: after.is_none(),
        diff: diff::lines(before.as_deref().unwrap_or_default(), after.as_deref().unwrap_or_default()),
        before,
        interim,
        after,
    }
}

pub(crate) fn checked(file: &FileSeen) -> Result<&FileSeen, PlanError> {
    file.problem.as_ref().map_or(Ok(file), |problem| Err(PlanError::Unsafe(problem.clone())))
}

pub(crate) fn refused(file: &FileSeen, refusal: Refusal) -> PlanError {
    PlanError::Refused { path: file.path.clone(), refusal }
}
