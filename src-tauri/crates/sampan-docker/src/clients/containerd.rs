//! containerd: `certs.d/<registry>/hosts.toml`, the file that Docker 28 reads too, read at each pull.

use std::path::{Path, PathBuf};

use sampan_oci::RegistryName;

use super::{ClientId, ClientSeen, Places};
use crate::detect;
use crate::engine::HostsSeen;
use crate::files;

pub(super) fn look(places: &Places, served: &[RegistryName]) -> ClientSeen {
    let mut seen = ClientSeen::new(ClientId::Containerd);
    let folder = places.etc.join("containerd");
    seen.look(places, &["containerd", "nerdctl"], &[folder.join("config.toml")]);
    let usual = folder.join("certs.d");
    let mut certs = usual.clone();
    seen.notes.push("The files are read at each pull: nothing restarts.".into());
    match registry_settings(&folder.join("config.toml")) {
        Settings::ConfigPath(line, folders) => {
            seen.evidence.push(format!("containerd's config.toml says {line}"));
            // The first folder that knows a registry decides.
            match folders.first().filter(|first| first.is_absolute()) {
                Some(first) => {
                    certs.clone_from(first);
                    seen.taken = hidden(&folders, served, places.uid);
                }
                None => {
                    seen.hands_off = Some(format!(
                        "containerd's config.toml says {line}, which is no folder that Sampan can tell: put the files where \
                         containerd reads them."
                    ));
                }
            }
        }
        Settings::Several(lines) => {
            seen.hands_off = Some(format!(
                "containerd's config.toml names its registries' folder more than once ({}): put the files where it reads \
                 them.",
                lines.join("; ")
            ));
        }
        Settings::Inline => seen.notes.push(
            "containerd's config.toml has registry.mirrors of its own, with which Kubernetes (CRI) does not read these files."
                .into(),
        ),
        Settings::Nothing => seen.notes.push(format!(
            "Kubernetes (CRI) reads them from containerd 2.2 on. Before that config.toml needs config_path = \"{}\" in \
             [plugins.\"io.containerd.grpc.v1.cri\".registry], and containerd a restart.",
            certs.display()
        )),
    }
    seen.hosts = hosts(&certs, &usual, served, places);
    leave_to_docker(&mut seen, &certs, places);
    if let Some(others) = nerdctl_folders(&places.etc.join("nerdctl/nerdctl.toml"))
        && !others.contains(&certs)
    {
        seen.notes.push(format!(
            "nerdctl does not read them: nerdctl.toml has another hosts_dir than {}.",
            certs.display()
        ));
    }
    seen.notes.push(format!("`ctr` reads them when told: ctr images pull --hosts-dir {} …", certs.display()));
    seen.certs = Some(certs);
    seen
}

/// Leaves a folder that Docker reads too alone: what Sampan set up there is Docker's.
fn leave_to_docker(seen: &mut ClientSeen, certs: &Path, places: &Places) {
    if is_dockers(certs, places) {
        seen.hands_off = Some("Docker reads this folder too: set up Docker instead.".into());
        seen.hosts.clear();
    }
}

/// Whether that folder is Docker's own, by whichever name.
fn is_dockers(certs: &Path, places: &Places) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    [&places.etc, &places.config].iter().any(|folder| real(&folder.join("docker/certs.d")) == real(certs))
}

/// The registries that only a later one of `folders` knows, with what is not Sampan's own file alone: a file in the first
/// folder would hide that. Each with where it is.
fn hidden(folders: &[PathBuf], served: &[RegistryName], uid: u32) -> Vec<(String, PathBuf)> {
    let Some((first, later)) = folders.split_first() else { return Vec::new() };
    let somebodys = |certs: &PathBuf, name: &RegistryName| {
        let found =
            spellings(name).into_iter().map(|spelling| certs.join(spelling)).find(|path| path.exists())?;
        let ours = detect::hosts(certs, std::slice::from_ref(name), uid);
        let ours = ours.iter().any(|seen| seen.registry == *name && seen.port().is_some());
        let entries = std::fs::read_dir(&found).map_or(0, Iterator::count);
        (!ours || entries != 1).then_some((name.to_string(), found))
    };
    let unknown = served.iter().filter(|name| !spellings(name).iter().any(|name| first.join(name).exists()));
    unknown.filter_map(|name| later.iter().find_map(|certs| somebodys(certs, name))).collect()
}

/// The names that a registry's folder may have.
fn spellings(registry: &RegistryName) -> Vec<String> {
    let name = registry.to_string();
    let other = name.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    other.into_iter().chain([name]).collect()
}

/// The files in `certs`, which is read, then Sampan's own that were left in `usual`, which no longer is.
fn hosts(certs: &Path, usual: &Path, served: &[RegistryName], places: &Places) -> Vec<HostsSeen> {
    let mut found = detect::hosts(certs, served, places.uid);
    if certs != usual && !is_dockers(usual, places) {
        let left = detect::hosts(usual, served, places.uid).into_iter().filter(|seen| seen.port().is_some());
        found.extend(left.map(|seen| HostsSeen { served: false, ..seen }));
    }
    found
}

/// A user's own containerd.
pub(super) fn look_rootless(places: &Places, served: &[RegistryName]) -> ClientSeen {
    let mut seen = ClientSeen::new(ClientId::Nerdctl);
    if places.uid == 0 {
        seen.evidence.push("root's nerdctl reads the system's files, as containerd does".into());
        seen.hands_off =
            Some("This is for users who run a containerd of their own: set up containerd instead.".into());
        return seen;
    }
    seen.look(places, &["nerdctl", "containerd-rootless.sh"], &[]);
    let usual = places.config.join("containerd/certs.d");
    let told = nerdctl_folders(&places.config.join("nerdctl/nerdctl.toml"));
    let mut certs = usual.clone();
    if let Some(folders) = told {
        if let Some(first) = folders.first().filter(|first| first.is_absolute()) {
            certs.clone_from(first);
            seen.taken = hidden(&folders, served, places.uid);
        } else {
            let why = "nerdctl.toml has a hosts_dir that Sampan cannot tell: put the files where nerdctl reads them.";
            seen.hands_off = Some(why.into());
        }
    }
    seen.hosts = hosts(&certs, &usual, served, places);
    leave_to_docker(&mut seen, &certs, places);
    seen.certs = Some(certs);
    seen.notes.push("The files are read at each pull: nothing restarts.".into());
    seen.notes.push(
        "A rootless containerd often has a network of its own, in which 127.0.0.1 is not this machine: then it asks the \
         registries as ever."
            .into(),
    );
    seen
}

/// What containerd's own configuration says of registries, as far as it decides who reads which files.
enum Settings {
    /// Where the files are, as the line says it, and the folders in it.
    ConfigPath(String, Vec<PathBuf>),
    /// Several places, as the lines say them.
    Several(Vec<String>),
    /// Mirrors in the file itself.
    Inline,
    /// Nothing.
    Nothing,
}

fn registry_settings(config: &Path) -> Settings {
    let bytes = files::read(config).ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines = || text.lines().map(str::trim);
    let mut section = "";
    let mut named: Vec<(String, Vec<PathBuf>)> = Vec::new();
    for line in lines() {
        if line.starts_with('[') {
            section = line;
        }
        // Other plugins have a key of that name too.
        let here = section.split(']').next().is_some_and(|name| name.ends_with("registry"));
        let Some(value) = assigned(line, "config_path").filter(|_| here) else { continue };
        let folders = texts(value)
            .first()
            .map(|list| list.split(':').filter(|part| !part.is_empty()).map(PathBuf::from));
        let folders: Option<Vec<PathBuf>> = folders.map(Iterator::collect);
        // Nothing between the quotes is nothing said; what is no text is not known.
        match folders {
            Some(folders) if folders.is_empty() => {}
            folders => named.push((line.to_owned(), folders.unwrap_or_default())),
        }
    }
    named.dedup_by(|one, other| one.1 == other.1);
    match named.pop() {
        Some((line, folders)) if named.is_empty() => Settings::ConfigPath(line, folders),
        Some((line, _)) => Settings::Several(named.into_iter().map(|(line, _)| line).chain([line]).collect()),
        None if lines().any(|line| line.starts_with('[') && line.contains("registry.mirrors")) => {
            Settings::Inline
        }
        None => Settings::Nothing,
    }
}

/// The folders in which nerdctl looks, where its own configuration says so.
fn nerdctl_folders(config: &Path) -> Option<Vec<PathBuf>> {
    let bytes = files::read(config).ok().flatten()?;
    let text = String::from_utf8_lossy(&bytes);
    let value = text.lines().find_map(|line| assigned(line.trim(), "hosts_dir"))?;
    Some(texts(value).into_iter().map(PathBuf::from).collect())
}

/// The right side of `key = …`.
fn assigned<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.trim_start().strip_prefix('=').map(str::trim)
}

/// The texts in quotes of a value, up to a comment.
fn texts(value: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = value;
    while let Some(start) = rest.find(['"', '\'', '#']) {
        let (quote, after) = rest.split_at(start).1.split_at(1);
        let Some((text, next)) = after.split_once(quote).filter(|_| quote != "#") else { break };
        found.push(text);
        rest = next;
    }
    found
}
