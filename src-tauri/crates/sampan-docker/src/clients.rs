//! Other programs that pull images: what they read, exactly what would be written, and whose file it is.
//!
//! The same flow as for Docker: [`look_for`] gathers facts with their evidence, [`plan_client`] (pure) decides, and
//! [`apply_client`] carries out what a person consented to, with the same backups, journal and comparisons. What needs
//! root or a restart is only shown, never done. What the clients do is in CLIENTS.md 4 to 6.

mod buildkit;
mod containerd;
mod k3s;
mod kind;
mod podman;
mod registries_conf;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sampan_oci::{Algorithm, Hasher, RegistryName};

use crate::apply::{Applied, ApplyError, apply};
use crate::choice::Choice;
use crate::elevation::{Direct, Verb};
use crate::engine::{Access, Engine, FileSeen, HostsSeen};
use crate::environment::Environment;
use crate::hosts_toml;
use crate::manual;
use crate::plan::{Action, ApplyMethod, FileChange, Part, Plan, PlanError, change, checked};
use crate::trust;

/// A program that pulls images by a configuration of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientId {
    /// podman, buildah and skopeo: `registries.conf.d`.
    Podman,
    /// Builders of `docker buildx` in a container of their own: `buildkitd.toml`.
    Buildkit,
    /// containerd and whatever uses the system's one: `certs.d`.
    Containerd,
    /// A user's own containerd, by nerdctl: `certs.d`.
    Nerdctl,
    /// k3s: `registries.yaml`.
    K3s,
    /// Clusters made by kind.
    Kind,
}

impl ClientId {
    /// Every one, in the order in which they are shown.
    pub const ALL: [Self; 6] =
        [Self::Podman, Self::Buildkit, Self::Containerd, Self::Nerdctl, Self::K3s, Self::Kind];

    /// Its name for programs, and for people who type it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Buildkit => "buildkit",
            Self::Containerd => "containerd",
            Self::Nerdctl => "nerdctl",
            Self::K3s => "k3s",
            Self::Kind => "kind",
        }
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Podman => "Podman, Buildah, Skopeo",
            Self::Buildkit => "BuildKit (docker buildx builders)",
            Self::Containerd => "containerd, nerdctl, Kubernetes (CRI)",
            Self::Nerdctl => "nerdctl (rootless)",
            Self::K3s => "k3s",
            Self::Kind => "kind",
        }
    }

    /// Whether a change takes effect without a restart, so that Sampan may make it.
    fn is_written(self) -> bool {
        match self {
            Self::Podman | Self::Buildkit | Self::Containerd | Self::Nerdctl => true,
            Self::K3s | Self::Kind => false,
        }
    }

    /// How its one file is written; `None`: it has one file a registry.
    fn format(self) -> Option<Format> {
        match self {
            Self::Podman => Some(podman::FORMAT),
            Self::Buildkit => Some(buildkit::FORMAT),
            Self::K3s => Some(k3s::FORMAT),
            Self::Kind => Some(kind::FORMAT),
            Self::Containerd | Self::Nerdctl => None,
        }
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ClientId {
    type Err = UnknownClient;

    fn from_str(text: &str) -> Result<Self, UnknownClient> {
        Self::ALL.into_iter().find(|id| id.as_str() == text).ok_or(UnknownClient)
    }
}

/// The text names no client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the clients are podman, buildkit, containerd, nerdctl, k3s and kind")]
pub struct UnknownClient;

/// A file that is Sampan's alone, written whole and recognised whole.
#[derive(Clone, Copy)]
pub(crate) struct Format {
    /// Its content for these registries and Sampan's port.
    pub(crate) render: fn(&[RegistryName], u16) -> String,
    /// The registry that a line of it names.
    pub(crate) registry: fn(&str) -> Option<&str>,
}

impl Format {
    /// What a file of Sampan's sets up; `None`: somebody else's, or edited since.
    pub(crate) fn read(self, bytes: &[u8]) -> Option<(Vec<RegistryName>, u16)> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (_, rest) = text.split_once("127.0.0.1:")?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        let port: u16 = digits.parse().ok()?;
        let ours = format!("127.0.0.1:{port}");
        let names = text.lines().filter_map(self.registry).filter(|name| *name != ours);
        let names: Vec<RegistryName> = names.map(str::parse).collect::<Result<_, _>>().ok()?;
        ((self.render)(&names, port) == text).then_some((names, port))
    }
}

/// Where clients and their files are looked for.
#[derive(Clone, Debug)]
pub struct Places {
    /// The person's home folder.
    pub home: PathBuf,
    /// The person's folder of settings: `~/.config`.
    pub config: PathBuf,
    /// The folder of Docker's command line: `~/.docker`.
    pub docker: PathBuf,
    /// The folder of buildx: `~/.docker/buildx`.
    pub buildx: PathBuf,
    /// The system's folder of settings: `/etc`.
    pub etc: PathBuf,
    /// Folders of programs.
    pub programs: Vec<PathBuf>,
    /// The user (0: root).
    pub uid: u32,
}

impl Places {
    /// The usual ones.
    pub fn of(env: &Environment) -> Self {
        let system =
            ["/usr/bin", "/usr/local/bin", "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin", "/snap/bin"];
        let own = [".local/bin", "bin"].map(|folder| env.home.join(folder));
        Self {
            home: env.home.clone(),
            config: env.xdg_config_home.clone().unwrap_or_else(|| env.home.join(".config")),
            docker: env.docker_config(),
            buildx: env.buildx_config(),
            etc: "/etc".into(),
            programs: system.map(PathBuf::from).into_iter().chain(own).collect(),
            uid: env.uid,
        }
    }

    /// A program of that name.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        self.programs.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }
}

/// A client as it is set up now. Plain data.
#[derive(Clone, Debug)]
pub struct ClientSeen {
    /// Which one.
    pub id: ClientId,
    /// Whether it seems to be on this machine.
    pub found: bool,
    /// Its one file, where it has one.
    pub file: Option<FileSeen>,
    /// Its file for each registry, where it has those.
    pub hosts: Vec<HostsSeen>,
    /// The registries Sampan serves.
    pub served: Vec<RegistryName>,
    /// Commands that follow those that write the files; after enabling, after disabling.
    pub(crate) then: [Vec<String>; 2],
    /// What to know; English sentences.
    pub notes: Vec<String>,
    /// What was looked at and seen, one line each.
    pub evidence: Vec<String>,
    /// Registries that another file or folder of the client's has an entry for, and that one.
    pub(crate) taken: Vec<(String, PathBuf)>,
    /// The folder of its file for each registry that it reads; what is elsewhere was left there.
    pub(crate) certs: Option<PathBuf>,
    /// Why Sampan does not write its files, one English sentence, where that is not a matter of rights.
    pub(crate) hands_off: Option<String>,
}

impl ClientSeen {
    pub(crate) fn new(id: ClientId) -> Self {
        Self {
            id,
            found: false,
            file: None,
            hosts: Vec::new(),
            served: Vec::new(),
            then: [Vec::new(), Vec::new()],
            notes: Vec::new(),
            evidence: Vec::new(),
            taken: Vec::new(),
            certs: None,
            hands_off: None,
        }
    }

    /// Notes whether a program or folder is there, as evidence that the client is.
    pub(crate) fn look(&mut self, places: &Places, programs: &[&str], others: &[PathBuf]) {
        let found = programs.iter().filter_map(|name| places.program(name));
        let found: Vec<PathBuf> = found.chain(others.iter().filter(|path| path.exists()).cloned()).collect();
        self.found |= !found.is_empty();
        self.evidence.extend(found.iter().map(|path| format!("{} exists", path.display())));
        if found.is_empty() {
            self.evidence.push(format!("no program named {} was found", programs.join(" or ")));
        }
    }

    /// Whether that file is where the client looks.
    fn reads(&self, hosts: &HostsSeen) -> bool {
        self.certs.as_ref().is_none_or(|certs| hosts.file.path.starts_with(certs))
    }

    fn set_up(&self) -> Vec<(RegistryName, u16)> {
        let of_hosts = self.hosts.iter().filter(|seen| self.reads(seen));
        let of_hosts = of_hosts.filter_map(|seen| Some((seen.registry.clone(), seen.port()?)));
        let bytes = self.file.as_ref().and_then(|file| file.bytes.as_deref());
        let of_file = bytes.zip(self.id.format()).and_then(|(bytes, format)| format.read(bytes));
        let of_file =
            of_file.into_iter().flat_map(|(names, port)| names.into_iter().map(move |name| (name, port)));
        let taken = |name: &RegistryName| self.taken.iter().any(|(other, _)| other == name.as_str());
        of_hosts.chain(of_file).filter(|(name, _)| !taken(name)).collect()
    }

    /// The registries for which it is set up to ask Sampan on `port`.
    pub fn registries(&self, port: u16) -> Vec<RegistryName> {
        self.set_up().into_iter().filter(|(_, named)| *named == port).map(|(registry, _)| registry).collect()
    }

    /// The port of Sampan's for which it is set up; `None`: it is not.
    pub fn set_up_for(&self) -> Option<u16> {
        self.set_up().first().map(|(_, port)| *port)
    }

    /// Whether it is set up to ask Sampan on `port` for Docker Hub.
    pub fn enabled(&self, port: u16) -> bool {
        self.registries(port).iter().any(RegistryName::is_docker_hub)
    }

    /// Whether Sampan may write its files, once a person consents.
    pub fn can_apply(&self) -> bool {
        let writable = |file: &FileSeen| file.access == Access::Writable && file.problem.is_none();
        self.id.is_written() && self.hands_off.is_none() && self.seen().all(writable)
    }

    /// The files it reads, as far as Sampan writes them.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.seen().map(|file| file.path.clone()).collect()
    }

    fn seen(&self) -> impl Iterator<Item = &FileSeen> {
        let hosts = self.hosts.iter().filter(|seen| seen.served || seen.port().is_some());
        self.file.iter().chain(hosts.map(|seen| &seen.file))
    }

    /// The client as the shared code of applying and recovering knows engines: by its files alone.
    fn engine(&self) -> Engine {
        let mut engine = Engine::unknown(format!("client:{}", self.id));
        engine.found = true;
        engine.config.clone_from(&self.file);
        engine.hosts.clone_from(&self.hosts);
        engine
    }
}

/// Looks for every client. Reads files, asks nobody, never fails.
pub fn look_for(env: &Environment, places: &Places, port: u16) -> Vec<ClientSeen> {
    let looked = |id| {
        let served = &env.registries;
        let mut seen = match id {
            ClientId::Podman => podman::look(places),
            ClientId::Buildkit => buildkit::look(places),
            ClientId::Containerd => containerd::look(places, served),
            ClientId::Nerdctl => containerd::look_rootless(places, served),
            ClientId::K3s => k3s::look(places),
            ClientId::Kind => kind::look(places, port),
        };
        seen.served.clone_from(served);
        seen
    };
    let mut all: Vec<ClientSeen> = ClientId::ALL.into_iter().map(looked).collect();
    for seen in &mut all {
        let said: Vec<String> =
            seen.seen().filter(|file| file.bytes.is_some()).map(|file| whose(seen, file)).collect();
        let problems: Vec<String> = seen.seen().filter_map(|file| file.problem.clone()).collect();
        seen.evidence.extend(said);
        seen.notes.extend(problems);
    }
    all
}

fn whose(seen: &ClientSeen, file: &FileSeen) -> String {
    let bytes = file.bytes.as_deref().unwrap_or_default();
    let of_file = seen.id.format().and_then(|format| format.read(bytes)).map(|(_, port)| port);
    let of_hosts = seen.hosts.iter().find(|hosts| hosts.file.path == file.path).and_then(HostsSeen::port);
    match of_file.or(of_hosts) {
        Some(port) => format!("{} is Sampan's, port {port}", file.path.display()),
        None => format!("{} is somebody else's", file.path.display()),
    }
}

/// What to change so that a client asks Sampan on `port` for Docker Hub and the registries of `choice`, or no longer
/// does for any. Reads nothing. What Sampan may not write itself is in the plan all the same, to be copied.
///
/// # Errors
/// A [`PlanError`] where a file is somebody else's or must not be edited.
pub fn plan_client(seen: &ClientSeen, action: Action, port: u16, choice: &Choice) -> Result<Plan, PlanError> {
    if let Some(registry) = choice.named().iter().find(|name| !seen.served.contains(name)) {
        return Err(PlanError::NotServed(registry.clone()));
    }
    let mut notes = seen.notes.clone();
    let mut files = match seen.id.format() {
        Some(format) => one_file(seen, format, action, port, choice)?,
        None => host_files(seen, action, port, choice, &mut notes)?,
    };
    if !seen.id.is_written() {
        // What is only shown has no bytes to compare with: kind's file is made for the purpose.
        files.retain(|file| file.before != file.after);
    }
    let accesses = || seen.seen().filter(|file| files.iter().any(|change| change.target == file.target));
    if let Some(file) = accesses().find(|file| file.access == Access::ReadOnly) {
        return Err(PlanError::ReadOnly(file.path.clone()));
    }
    let needs_elevation = accesses().any(|file| file.access == Access::NeedsElevation);
    let sudo = if needs_elevation { "sudo " } else { "" };
    let mut commands: Vec<String> = files.iter().flat_map(|file| manual::file(file, sudo)).collect();
    if !files.is_empty() {
        let [enabled, disabled] = &seen.then;
        commands.extend_from_slice(match action {
            Action::Enable => enabled,
            Action::Disable => disabled,
        });
    }
    let restarts = !seen.id.is_written() && !files.is_empty();
    match (files.is_empty(), seen.can_apply()) {
        (true, _) => {
            // Where none of its files is Sampan's to look at, nothing is known to be as wanted.
            let why = seen.hands_off.clone().filter(|_| seen.file.is_none() && seen.hosts.is_empty());
            notes.push(why.unwrap_or_else(|| "Everything is as wanted already.".into()));
        }
        (false, true) => {}
        (false, false) => {
            let why = "These files belong to root: run the commands to change them.";
            notes.push(seen.hands_off.clone().unwrap_or_else(|| why.into()));
        }
    }
    Ok(Plan {
        id: id(seen, action, port, &files)
            + &if action == Action::Enable { choice.suffix() } else { String::new() },
        action,
        port,
        files,
        apply: if restarts { ApplyMethod::Restart } else { ApplyMethod::Nothing },
        intended: None,
        stops: Vec::new(),
        needs_elevation,
        settles: false,
        // Never asked: the helper changes Docker's files only.
        verb: Verb::Disable,
        back: Verb::Disable,
        commands,
        notes,
    })
}

fn one_file(
    seen: &ClientSeen,
    format: Format,
    action: Action,
    port: u16,
    choice: &Choice,
) -> Result<Vec<FileChange>, PlanError> {
    let Some(file) = &seen.file else { return Ok(Vec::new()) };
    let now = file.bytes.as_deref().map(|bytes| format.read(bytes));
    let after = match (action, &now) {
        (Action::Enable, Some(None)) => return Err(PlanError::Foreign(file.path.clone())),
        (Action::Disable, None | Some(None)) => return Ok(Vec::new()),
        (Action::Disable, Some(Some(_))) => None,
        (Action::Enable, now) => {
            let set_up = now.iter().flatten().flat_map(|(names, _)| names.iter());
            let wanted: Vec<&RegistryName> = match choice {
                Choice::AsNow => set_up.collect(),
                Choice::Only(list) => list.iter().collect(),
            };
            let others = wanted.into_iter().filter(|name| !name.is_docker_hub()).cloned();
            let all: Vec<RegistryName> = std::iter::once(RegistryName::docker_hub()).chain(others).collect();
            let taken = all.iter().find_map(|name| {
                let (_, path) = seen.taken.iter().find(|(other, _)| other == name.as_str())?;
                Some((name, path))
            });
            if let Some((registry, path)) = taken {
                return Err(PlanError::Taken { registry: registry.clone(), path: path.clone() });
            }
            Some((format.render)(&all, port).into_bytes())
        }
    };
    if file.bytes == after {
        return Ok(Vec::new());
    }
    Ok(vec![change(checked(file)?, Part::Client, None, after)])
}

fn host_files(
    seen: &ClientSeen,
    action: Action,
    port: u16,
    choice: &Choice,
    notes: &mut Vec<String>,
) -> Result<Vec<FileChange>, PlanError> {
    let mut files = Vec::new();
    for hosts in &seen.hosts {
        let mut wanted = action == Action::Enable && choice.takes(hosts) && seen.reads(hosts);
        if let Some(why) = trust::obstacle(hosts, &[]).filter(|_| wanted && !hosts.is_foreign()) {
            trust::allowed(hosts, choice, &why)?;
            notes.push(format!("{} no longer asks Sampan: {why}", hosts.registry));
            wanted = false;
        }
        let hidden = seen.taken.iter().find(|(name, _)| name == hosts.registry.as_str());
        if let Some((_, folder)) = hidden.filter(|_| wanted) {
            if hosts.registry.is_docker_hub() {
                return Err(PlanError::Foreign(folder.clone()));
            }
            notes.push(format!(
                "{} is left out: {}, which somebody else made, would no longer be read.",
                hosts.registry,
                folder.display()
            ));
            wanted = false;
        }
        let after = wanted.then(|| hosts_toml::render(&hosts.registry, port).into_bytes());
        if hosts.file.bytes == after || (!wanted && hosts.port().is_none()) {
            continue;
        }
        if hosts.is_foreign() {
            if hosts.registry.is_docker_hub() {
                return Err(PlanError::Foreign(hosts.file.path.clone()));
            }
            notes.push(format!(
                "{} was written by somebody else and stays as it is.",
                hosts.file.path.display()
            ));
            continue;
        }
        files.push(change(checked(&hosts.file)?, Part::Hosts(hosts.registry.clone()), None, after));
    }
    Ok(files)
}

/// The client's name, then a hash of everything the plan rests on.
fn id(seen: &ClientSeen, action: Action, port: u16, files: &[FileChange]) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut put = |part: Option<&[u8]>| {
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        hasher.update(&length.to_be_bytes());
        hasher.update(part.unwrap_or_default());
    };
    put(Some(format!("{} {action:?} {port}", seen.id).as_bytes()));
    for file in files {
        put(Some(file.target.as_os_str().as_encoded_bytes()));
        put(file.before.as_deref());
        put(file.after.as_deref());
    }
    format!("{}-{}", seen.id, hasher.finish().hex())
}

/// The client that a plan of this name is for; `None`: there is no such plan.
pub fn client_of_plan(id: &str) -> Option<ClientId> {
    id.split_once('-')?.0.parse().ok()
}

/// Carries out a plan made by [`plan_client`] from `seen`, which [`ClientSeen::can_apply`].
///
/// # Errors
/// An [`ApplyError`]; every file then has the bytes it had before, unless it is [`ApplyError::RollbackFailed`].
pub async fn apply_client(env: &Environment, seen: &ClientSeen, plan: &Plan) -> Result<Applied, ApplyError> {
    apply(env, &seen.engine(), plan, false, &Direct).await
}

/// Takes back what an interrupted run left half done of this client's files: see [`recover`](crate::recover()).
///
/// # Errors
/// As there.
pub async fn recover_client(env: &Environment, seen: &ClientSeen) -> Result<Vec<String>, ApplyError> {
    crate::recover::recover(env, &seen.engine()).await
}

/// `path`, looked at on behalf of the person.
pub(crate) fn look_at(places: &Places, path: &Path) -> FileSeen {
    crate::files::look(path, places.uid)
}
