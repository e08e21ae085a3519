//! Podman, BuildKit, containerd, k3s and kind: exactly what is written for them, and that it is taken back.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sampan_docker::{
    Action, ApplyError, ApplyMethod, Choice, ClientId, ClientSeen, Environment, Places, PlanError,
    apply_client, backups, client_of_plan, hosts_toml, look_for, plan_client, recover_client,
};
use sampan_oci::{Clock, Millis, RegistryName};

const PORT: u16 = 7267;

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Millis {
        Millis(1_795_000_000_000)
    }
}

/// A home and a system of the test's own.
struct Place {
    dir: tempfile::TempDir,
    env: Environment,
    places: Places,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let names = ["docker.io", "ghcr.io", "quay.io", "r.example:5000"];
        let env = Environment {
            docker_host: None,
            docker_context: None,
            docker_config_dir: None,
            buildx_config_dir: None,
            home: at("home"),
            xdg_config_home: None,
            uid: rustix::process::getuid().as_raw(),
            state_dir: at("state"),
            system_state_dir: at("system"),
            registries: names.iter().map(|text| name(text)).collect(),
            clock: Arc::new(Stopped),
        };
        let mut places = Places::of(&env);
        (places.etc, places.programs) = (at("etc"), vec![at("bin")]);
        for folder in [&env.home, &places.etc, &at("bin")] {
            std::fs::create_dir(folder).unwrap();
        }
        Self { dir, env, places }
    }

    fn seen(&self, id: ClientId) -> ClientSeen {
        let all = look_for(&self.env, &self.places, PORT);
        all.into_iter().find(|seen| seen.id == id).unwrap()
    }

    /// Plans and applies; the content of the file that was written, if one was.
    async fn change(
        &self,
        id: ClientId,
        action: Action,
        choice: &Choice,
    ) -> Result<Option<String>, ApplyError> {
        let seen = self.seen(id);
        let plan = plan_client(&seen, action, PORT, choice).unwrap();
        apply_client(&self.env, &seen, &plan).await?;
        for file in &plan.files {
            assert_eq!(std::fs::read(&file.path).ok(), file.after, "exactly what was shown");
        }
        Ok(plan.files.first().and_then(|file| std::fs::read_to_string(&file.path).ok()))
    }

    fn tell_containerd(&self, folders: &str) {
        let text = format!("[plugins.cri.registry]\nconfig_path = \"{folders}\"\n");
        put(&self.places.etc.join("containerd/config.toml"), &text);
    }

    /// Every file below the test's folders, but for Sampan's own state.
    fn files(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.env.home.clone(), self.places.etc.clone()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                if entry.path().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
            }
        }
        files
    }
}

fn put(file: &Path, text: &str) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

fn name(text: &str) -> RegistryName {
    text.parse().unwrap()
}

fn only(names: &[&str]) -> Choice {
    Choice::only(names.iter().map(|text| name(text)))
}

fn parsed(text: &str) -> toml::Table {
    text.parse().unwrap_or_else(|error| panic!("strict TOML: {error}\n{text}"))
}

#[tokio::test]
async fn podmans_file_names_each_registry_and_its_path_at_sampan() {
    let place = Place::new();
    let text =
        place.change(ClientId::Podman, Action::Enable, &only(&["ghcr.io", "r.example:5000"])).await.unwrap();
    let file = parsed(&text.unwrap());
    let registries = file["registry"].as_array().unwrap();
    let rows: Vec<_> = registries
        .iter()
        .map(|row| {
            let mirror = &row["mirror"].as_array().unwrap()[0];
            assert_eq!(mirror["insecure"].as_bool(), Some(true), "Sampan speaks http on this machine");
            assert_eq!(row["prefix"], row["location"], "the registry itself stays the last resort");
            (row["prefix"].as_str().unwrap(), mirror["location"].as_str().unwrap())
        })
        .collect();
    let expected = [
        ("docker.io", "127.0.0.1:7267/docker.io"),
        ("ghcr.io", "127.0.0.1:7267/ghcr.io"),
        ("r.example:5000", "127.0.0.1:7267/r.example:5000"),
    ];
    assert_eq!(rows, expected, "podman sends no ns=");
    assert_eq!(file.len(), 1, "nothing else is set: not even where unqualified names are looked for");
}

#[tokio::test]
async fn buildkits_file_names_one_mirror_for_all_and_says_that_it_speaks_http() {
    let place = Place::new();
    let text = place.change(ClientId::Buildkit, Action::Enable, &only(&["ghcr.io"])).await.unwrap();
    let file = parsed(&text.unwrap());
    let registries = file["registry"].as_table().unwrap();
    for registry in ["docker.io", "ghcr.io"] {
        let mirrors = registries[registry]["mirrors"].as_array().unwrap();
        assert_eq!(
            mirrors.iter().filter_map(|m| m.as_str()).collect::<Vec<_>>(),
            ["127.0.0.1:7267"],
            "{registry}"
        );
    }
    assert_eq!(registries["127.0.0.1:7267"]["http"].as_bool(), Some(true));
    assert_eq!(registries.len(), 3, "and no other");
}

#[tokio::test]
async fn containerd_gets_the_file_that_docker_28_reads() {
    let place = Place::new();
    place.change(ClientId::Containerd, Action::Enable, &only(&["ghcr.io"])).await.unwrap();
    let certs = place.places.etc.join("containerd/certs.d");
    for registry in ["docker.io", "ghcr.io"] {
        let text = std::fs::read_to_string(certs.join(registry).join("hosts.toml")).unwrap();
        assert_eq!(text, hosts_toml(&name(registry), PORT), "{registry}");
    }
    place.change(ClientId::Containerd, Action::Enable, &only(&[])).await.unwrap();
    assert!(!certs.join("ghcr.io").exists(), "no longer chosen: gone, with the folder that was made for it");
    assert!(certs.join("docker.io/hosts.toml").exists(), "Docker Hub stays");
}

#[tokio::test]
async fn what_was_written_is_known_again_and_taken_back_without_a_trace() {
    for id in [ClientId::Podman, ClientId::Buildkit, ClientId::Containerd] {
        let place = Place::new();
        let before = place.seen(id);
        assert!(before.can_apply() && !before.enabled(PORT), "{id}: {before:?}");
        place.change(id, Action::Enable, &only(&["ghcr.io"])).await.unwrap();
        let seen = place.seen(id);
        assert!(seen.enabled(PORT) && !seen.enabled(7300), "{id}: {seen:?}");
        let mut registries = seen.registries(PORT);
        registries.sort();
        assert_eq!(registries, [name("docker.io"), name("ghcr.io")], "{id}");
        for choice in [Choice::AsNow, only(&["ghcr.io"])] {
            let again = plan_client(&seen, Action::Enable, PORT, &choice).unwrap();
            assert!(again.is_nothing(), "{id}: nothing is left to do: {again:?}");
        }
        place.change(id, Action::Disable, &Choice::AsNow).await.unwrap();
        assert_eq!(place.files(), Vec::<PathBuf>::new(), "{id}: no file, no backup");
        assert_eq!(std::fs::read_dir(&place.env.home).unwrap().count(), 0, "{id}: and no folder");
        let nothing = plan_client(&place.seen(id), Action::Disable, PORT, &Choice::AsNow).unwrap();
        assert!(nothing.is_nothing(), "{id}: once is enough");
    }
}

#[tokio::test]
async fn a_new_choice_or_port_replaces_the_old_and_keeps_a_backup() {
    let place = Place::new();
    place.change(ClientId::Podman, Action::Enable, &only(&["ghcr.io"])).await.unwrap();
    let seen = place.seen(ClientId::Podman);
    let moved = plan_client(&seen, Action::Enable, 7300, &Choice::AsNow).unwrap();
    let after = String::from_utf8(moved.files[0].after.clone().unwrap()).unwrap();
    assert!(after.contains("127.0.0.1:7300/ghcr.io") && !after.contains("7267"), "the choice stays: {after}");
    apply_client(&place.env, &seen, &moved).await.unwrap();
    assert_eq!(backups(&moved.files[0].path).len(), 1, "as it was before");
    assert!(place.seen(ClientId::Podman).enabled(7300));
}

#[tokio::test]
async fn a_file_that_somebody_wrote_or_edited_is_never_touched() {
    for id in [ClientId::Podman, ClientId::Buildkit, ClientId::Containerd, ClientId::K3s] {
        let place = Place::new();
        let seen = place.seen(id);
        let plan = plan_client(&seen, Action::Enable, PORT, &Choice::AsNow).unwrap();
        let (path, ours) = (plan.files[0].path.clone(), plan.files[0].after.clone().unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let ours = String::from_utf8(ours).unwrap();
        let edits = [
            ours.replace("7267", "07267"),
            format!("{ours}\n"),
            ours.replace("Written", "written"),
            String::new(),
        ];
        for edited in edits {
            std::fs::write(&path, &edited).unwrap();
            let seen = place.seen(id);
            assert!(!seen.enabled(PORT), "{id}: {edited}");
            let refused = plan_client(&seen, Action::Enable, PORT, &Choice::AsNow);
            assert!(
                matches!(refused, Err(PlanError::Foreign(ref foreign)) if *foreign == path),
                "{id}: {refused:?}"
            );
            assert!(plan_client(&seen, Action::Disable, PORT, &Choice::AsNow).unwrap().is_nothing(), "{id}");
            if id != ClientId::K3s {
                // A plan from before the edit is outdated.
                let stale = apply_client(&place.env, &seen, &plan).await;
                assert!(matches!(stale, Err(ApplyError::Outdated(_))), "{id}: {stale:?}");
            }
            assert_eq!(std::fs::read_to_string(&path).unwrap(), edited, "{id}: untouched");
        }
    }
}

#[tokio::test]
async fn what_takes_a_restart_is_shown_and_never_done() {
    let place = Place::new();
    for (id, restart) in [(ClientId::K3s, "systemctl restart k3s"), (ClientId::Kind, "kind create cluster")] {
        let seen = place.seen(id);
        assert!(!seen.can_apply(), "{id}");
        let plan = plan_client(&seen, Action::Enable, PORT, &Choice::AsNow).unwrap();
        assert_eq!(plan.apply, ApplyMethod::Restart, "{id}");
        assert!(plan.commands.iter().any(|line| line.contains(restart)), "{id}: {:?}", plan.commands);
        let refused = apply_client(&place.env, &seen, &plan).await;
        assert!(matches!(refused, Err(ApplyError::RestartNotConsented)), "{id}: {refused:?}");
        assert!(place.files().is_empty(), "{id}: nothing was written");
    }
}

#[test]
fn k3s_is_shown_its_mirrors_and_recognises_them() {
    let place = Place::new();
    let plan = plan_client(&place.seen(ClientId::K3s), Action::Enable, PORT, &only(&["ghcr.io"])).unwrap();
    let [file] = &plan.files[..] else { panic!("one file: {plan:?}") };
    let text = String::from_utf8(file.after.clone().unwrap()).unwrap();
    let expected = "mirrors:\n  \"docker.io\":\n    endpoint:\n      - \"http://127.0.0.1:7267\"\n  \"ghcr.io\":\n    \
                    endpoint:\n      - \"http://127.0.0.1:7267\"\n";
    assert_eq!(text.split_once('\n').unwrap().1, expected, "after a line that says whose it is");
    std::fs::create_dir_all(file.path.parent().unwrap()).unwrap();
    std::fs::write(&file.path, &text).unwrap();
    let seen = place.seen(ClientId::K3s);
    assert!(seen.enabled(PORT) && seen.found, "{seen:?}");
    let back = plan_client(&seen, Action::Disable, PORT, &Choice::AsNow).unwrap();
    assert!(back.files[0].removed && back.commands.len() == 2, "remove, restart: {:?}", back.commands);
}

#[tokio::test]
async fn builders_are_looked_for_where_buildx_is_told_to_keep_them() {
    let mut place = Place::new();
    let told = place.env.home.join("elsewhere");
    std::fs::create_dir_all(told.join("instances")).unwrap();
    let text = r#"{"Name":"alone","Driver":"docker-container","Nodes":[{"Name":"alone0"}]}"#;
    std::fs::write(told.join("instances/alone"), text).unwrap();
    place.env.docker_host = Some(format!("unix://{}/none.sock", place.env.home.display()));
    let names = async |env: &Environment| -> Vec<String> {
        sampan_docker::detect(env).await.builders.into_iter().map(|builder| builder.name).collect()
    };
    assert_eq!(names(&place.env).await.len(), 1, "the engine's own, in Docker's folder");
    place.env.buildx_config_dir = Some(told.clone());
    assert!(names(&place.env).await.contains(&"alone".to_owned()), "as BUILDX_CONFIG says");
    place.places.buildx = Places::of(&place.env).buildx;
    let seen = place.seen(ClientId::Buildkit);
    assert!(
        seen.evidence.iter().any(|line| line.contains("alone runs in a container")),
        "{:?}",
        seen.evidence
    );
    assert_eq!(
        seen.paths(),
        [told.join("buildkitd.default.toml")],
        "and what new builders are given is there"
    );
}

#[test]
fn builders_in_a_network_of_their_own_are_named_with_the_commands_that_make_them_anew() {
    let place = Place::new();
    let instances = place.env.home.join(".docker/buildx/instances");
    std::fs::create_dir_all(&instances).unwrap();
    let builder = |name: &str, driver: &str, options: &str| {
        let text = format!(
            r#"{{"Name":"{name}","Driver":"{driver}","Nodes":[{{"Name":"{name}0","DriverOpts":{options}}}]}}"#
        );
        std::fs::write(instances.join(name), text).unwrap();
    };
    builder("alone", "docker-container", "null");
    builder("onhost", "docker-container", r#"{"network":"host"}"#);
    builder("pods", "kubernetes", "{}");
    builder("$(evil)", "docker-container", "null");
    std::fs::write(instances.join("broken"), "{").unwrap();
    let seen = place.seen(ClientId::Buildkit);
    assert!(seen.found);
    let says = |text: &str| seen.evidence.iter().any(|line| line.contains(text));
    assert!(says("alone runs in a container with a network of its own"), "{:?}", seen.evidence);
    assert!(says("onhost runs in a container with the network of its machine"), "{:?}", seen.evidence);
    assert!(!says("pods") && !says("evil"), "{:?}", seen.evidence);
    let plan = plan_client(&seen, Action::Enable, PORT, &Choice::AsNow).unwrap();
    let anew = "docker buildx create --name alone --driver docker-container --driver-opt network=host \
                --buildkitd-config ";
    assert!(
        plan.commands.iter().all(|line| !line.contains("docker buildx")),
        "no builder goes: {:?}",
        plan.commands
    );
    let note = plan.notes.iter().find(|note| note.contains(anew)).unwrap();
    assert!(note.contains("rm --keep-state alone") && note.contains("loses"), "what that costs: {note}");
    assert!(plan.commands.iter().all(|line| !line.contains("evil")), "no name is run as a command");
    assert!(plan.notes.iter().any(|note| note.contains("network=host")), "{:?}", plan.notes);
}

#[test]
fn who_reads_containerds_files_is_said_from_its_configuration() {
    let place = Place::new();
    let config = place.places.etc.join("containerd/config.toml");
    let table = [
        ("", "config.toml needs config_path", false),
        ("[plugins.x.registry]\n  config_path = \"\"\n", "config.toml needs config_path", false),
        ("[plugins.x.registry]\n  config_path = \"/etc/containerd/certs.d\"\n", "config_path = \"/etc", true),
        (
            "[plugins.\"x\".registry.mirrors.\"docker.io\"]\n  endpoint = []\n",
            "registry.mirrors of its own",
            false,
        ),
    ];
    for (text, expected, as_evidence) in table {
        put(&config, text);
        let seen = place.seen(ClientId::Containerd);
        let lines = if as_evidence { &seen.evidence } else { &seen.notes };
        assert!(lines.iter().any(|line| line.contains(expected)), "{text}: {lines:?}");
    }
}

#[tokio::test]
async fn containerds_files_are_written_where_it_was_told_to_look() {
    let place = Place::new();
    let config = place.places.etc.join("containerd/config.toml");
    let usual = place.places.etc.join("containerd/certs.d");
    let other = place.dir.path().join("srv/certs");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    place.change(ClientId::Containerd, Action::Enable, &only(&["ghcr.io"])).await.unwrap();
    assert!(usual.join("docker.io/hosts.toml").exists() && usual.join("ghcr.io/hosts.toml").exists());

    let line = format!("config_path = \"{}:{}\" # ours\n", other.display(), usual.display());
    std::fs::write(
        &config,
        format!("[plugins.a]\n config_path = '/not/this'\n[plugins.cri.registry]\n  {line}"),
    )
    .unwrap();
    let moved = place.seen(ClientId::Containerd);
    assert!(!moved.enabled(PORT), "what it does not read counts for nothing");
    place.change(ClientId::Containerd, Action::Enable, &Choice::AsNow).await.unwrap();
    assert!(other.join("docker.io/hosts.toml").exists(), "the first folder decides");
    assert!(
        !usual.join("docker.io").exists() && !usual.join("ghcr.io").exists(),
        "and nothing is left elsewhere"
    );
    assert!(place.seen(ClientId::Containerd).enabled(PORT));
    place.change(ClientId::Containerd, Action::Disable, &Choice::AsNow).await.unwrap();
    assert!(!other.exists() && place.files() == [config.clone()], "nor afterwards: {:?}", place.files());

    for (text, words) in [
        ("config_path = \"certs.d\"", "no folder that Sampan can tell"),
        ("config_path = x", "no folder that Sampan can tell"),
        ("config_path = \"/a\"\n[plugins.y.registry]\nconfig_path = \"/b\"", "more than once"),
    ] {
        std::fs::write(&config, format!("[plugins.x.registry]\n{text}\n")).unwrap();
        let seen = place.seen(ClientId::Containerd);
        assert!(!seen.can_apply(), "{text}: nothing is written where nobody may look");
        let plan = plan_client(&seen, Action::Enable, PORT, &Choice::AsNow).unwrap();
        assert!(plan.notes.iter().any(|note| note.contains(words)), "{text}: {:?}", plan.notes);
    }
}

#[test]
fn what_a_later_folder_says_of_a_registry_is_never_hidden() {
    let place = Place::new();
    let [first, second] = ["a", "b"].map(|name| place.dir.path().join(name));
    place.tell_containerd(&format!("{}:{}", first.display(), second.display()));
    put(&second.join("quay.io/hosts.toml"), "server = \"https://quay.corp\"\n");
    put(&second.join("r.example_5000_/ca.crt"), "theirs");
    put(&second.join("ghcr.io/hosts.toml"), &hosts_toml(&name("ghcr.io"), PORT));
    let planned = || {
        let names = ["ghcr.io", "quay.io", "r.example:5000"];
        plan_client(&place.seen(ClientId::Containerd), Action::Enable, PORT, &only(&names))
    };
    let written = |plan: &sampan_docker::Plan| -> Vec<PathBuf> {
        plan.files.iter().filter_map(|file| Some(file.path.strip_prefix(&first).ok()?.to_owned())).collect()
    };
    let plan = planned().unwrap();
    let expected = ["docker.io/hosts.toml", "ghcr.io/hosts.toml"].map(PathBuf::from);
    assert_eq!(written(&plan), expected, "Sampan's own may go");
    for folder in ["quay.io", "r.example_5000_"] {
        let said = |note: &String| note.contains("left out") && note.contains(folder);
        assert!(plan.notes.iter().any(said), "{folder}: {:?}", plan.notes);
    }
    std::fs::create_dir_all(first.join("quay.io")).unwrap();
    assert!(written(&planned().unwrap()).contains(&PathBuf::from("quay.io/hosts.toml")), "not read now");
    put(&second.join("docker.io/ca.crt"), "theirs");
    put(&second.join("docker.io/hosts.toml"), &hosts_toml(&name("docker.io"), PORT));
    assert_eq!(
        planned().unwrap_err(),
        PlanError::Foreign(second.join("docker.io")),
        "nor a CA beside Sampan's own"
    );
}

#[tokio::test]
async fn a_folder_that_docker_reads_too_is_left_to_docker() {
    let place = Place::new();
    let dockers = [place.places.etc.join("docker/certs.d"), place.places.config.join("docker/certs.d")];
    let link = place.dir.path().join("link");
    std::os::unix::fs::symlink(&dockers[0], &link).unwrap();
    for folder in &dockers {
        put(&folder.join("docker.io/hosts.toml"), &hosts_toml(&name("docker.io"), PORT));
    }
    for told in [&dockers[0], &dockers[1], &link] {
        let path = told.display().to_string();
        place.tell_containerd(&path);
        let seen = place.seen(ClientId::Containerd);
        assert!(!seen.can_apply() && seen.paths().is_empty(), "{path}: {:?}", seen.paths());
        for action in [Action::Enable, Action::Disable] {
            let plan = plan_client(&seen, action, PORT, &Choice::AsNow).unwrap();
            assert!(plan.files.is_empty(), "{path}: Docker's set-up is not containerd's: {plan:?}");
            let said = plan.notes.join(" ");
            assert!(said.contains("set up Docker instead") && !said.contains("as wanted"), "{path}: {said}");
        }
    }
    // The usual folder, no longer read, may be Docker's by another name.
    std::os::unix::fs::symlink(&dockers[0], place.places.etc.join("containerd/certs.d")).unwrap();
    place.tell_containerd("/nowhere");
    let plan = plan_client(&place.seen(ClientId::Containerd), Action::Disable, PORT, &Choice::AsNow).unwrap();
    assert!(plan.files.is_empty(), "nothing was left there by containerd: {plan:?}");
}

#[test]
fn nerdctls_own_folders_are_known() {
    let mut place = Place::new();
    let toml = |folder: &Path| folder.join("nerdctl/nerdctl.toml");
    for folder in [&place.places.etc, &place.places.config] {
        put(&toml(folder), "debug = false\nhosts_dir = [\"/srv/hosts\", '/etc/containerd/certs.d']\n");
    }
    let said = place.seen(ClientId::Containerd).notes.join(" ");
    assert!(said.contains("nerdctl does not read them"), "{said}");
    place.places.uid = 1000;
    let paths = place.seen(ClientId::Nerdctl).paths();
    assert!(paths.iter().all(|path| path.starts_with("/srv/hosts")), "where it looks: {paths:?}");
    std::fs::write(toml(&place.places.config), "hosts_dir = []\n").unwrap();
    assert!(!place.seen(ClientId::Nerdctl).can_apply(), "nowhere");
}

#[test]
fn a_registry_that_sampan_does_not_serve_is_refused_for_every_client() {
    let place = Place::new();
    for id in ClientId::ALL {
        let refused = plan_client(&place.seen(id), Action::Enable, PORT, &only(&["gcr.io"]));
        assert_eq!(refused.unwrap_err(), PlanError::NotServed(name("gcr.io")), "{id}");
    }
}

#[test]
fn a_plan_says_by_its_name_what_it_is_for() {
    let place = Place::new();
    for id in ClientId::ALL {
        let choice = only(&["quay.io"]);
        let plan = plan_client(&place.seen(id), Action::Enable, PORT, &choice).unwrap();
        assert_eq!(client_of_plan(&plan.id), Some(id));
        assert_eq!(Choice::of_plan(&plan.id), Some(choice));
        assert_eq!(id.as_str().parse::<ClientId>(), Ok(id), "there and back");
    }
    assert_eq!(client_of_plan("docker-00"), None);
}

#[tokio::test]
async fn an_interrupted_change_is_taken_back_at_the_next_start() {
    for id in [ClientId::Podman, ClientId::Containerd] {
        let place = Place::new();
        place.change(id, Action::Enable, &Choice::AsNow).await.unwrap();
        let path = place.files()[0].clone();
        // As a crash between writing and settling leaves it.
        let journal = place.env.state_dir.join("docker.json");
        let text = std::fs::read_to_string(&journal).unwrap();
        let mut written: serde_json::Value = serde_json::from_str(&text).unwrap();
        written["pending"] = written["installed"].take();
        written["installed"] = serde_json::json!([]);
        std::fs::write(&journal, written.to_string()).unwrap();
        let steps = recover_client(&place.env, &place.seen(id)).await.unwrap();
        assert!(!steps.is_empty() && !path.exists(), "{id}: {steps:?}");
        let other = place.seen(ClientId::Buildkit);
        assert!(recover_client(&place.env, &other).await.unwrap().is_empty(), "{id}: each client's own");
    }
}

#[test]
fn what_is_on_this_machine_is_found_by_its_traces() {
    let place = Place::new();
    let found = |place: &Place| -> Vec<ClientId> {
        let all = look_for(&place.env, &place.places, PORT);
        all.into_iter().filter(|seen| seen.found).map(|seen| seen.id).collect()
    };
    let none: Vec<_> = found(&place).into_iter().filter(|id| *id != ClientId::Buildkit).collect();
    assert_eq!(none, [], "an empty machine has none");
    for program in ["podman", "k3s", "kind", "containerd"] {
        std::fs::write(place.dir.path().join("bin").join(program), "").unwrap();
    }
    let all = found(&place);
    for id in [ClientId::Podman, ClientId::Containerd, ClientId::K3s, ClientId::Kind] {
        assert!(all.contains(&id), "{id}: {all:?}");
    }
    let podman = place.seen(ClientId::Podman);
    let program = place.dir.path().join("bin/podman");
    assert!(
        podman.evidence.iter().any(|line| line == &format!("{} exists", program.display())),
        "{podman:?}"
    );
    assert!(Path::new(&podman.paths()[0]).ends_with("containers/registries.conf.d/50-sampan.conf"));
}

#[tokio::test]
async fn podmans_own_entries_are_never_replaced_and_never_hide_that_they_win() {
    for (file, text, refused) in [
        (
            "home/.config/containers/registries.conf",
            "[[registry]]\nlocation = \"docker.io\"\nblocked = true\n",
            true,
        ),
        ("etc/containers/registries.conf.d/00-corp.conf", "[[registry]]\nprefix = \"ghcr.io\"\n", true),
        (
            "home/.config/containers/registries.conf.d/99-own.conf",
            "[[registry]]\nprefix = \"docker.io\"\n",
            true,
        ),
        (
            "etc/containers/registries.conf.d/00-corp.conf",
            "[[registry]]\nprefix = \"other.example\"\n",
            false,
        ),
        ("etc/containers/registries.conf.d/00-corp.txt", "[[registry]]\nprefix = \"docker.io\"\n", false),
    ] {
        let place = Place::new();
        let path = place.dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        let planned = plan_client(&place.seen(ClientId::Podman), Action::Enable, PORT, &only(&["ghcr.io"]));
        match planned {
            Err(error @ PlanError::Taken { .. }) => {
                assert!(refused && error.to_string().contains(file), "{file}: {error}");
            }
            planned => assert!(!refused && planned.is_ok(), "{file}: {planned:?}"),
        }
        // An entry that was added after Sampan's.
        std::fs::remove_file(&path).unwrap();
        place.change(ClientId::Podman, Action::Enable, &only(&["ghcr.io"])).await.unwrap();
        std::fs::write(&path, text).unwrap();
        let now = place.seen(ClientId::Podman).registries(PORT).len();
        assert_eq!(now, if refused { 1 } else { 2 }, "{file}: what is not asked for is not called set up");
    }
}

#[test]
fn a_file_without_a_folder_needs_no_folder_and_a_builder_without_nodes_is_a_builder() {
    let place = Place::new();
    let instances = place.places.buildx.join("instances");
    std::fs::create_dir_all(&instances).unwrap();
    let text = r#"{"Name":"empty","Driver":"docker-container","Nodes":null}"#;
    std::fs::write(instances.join("empty"), text).unwrap();
    let kind = plan_client(&place.seen(ClientId::Kind), Action::Enable, PORT, &Choice::AsNow).unwrap();
    assert!(kind.commands.iter().all(|line| line.trim_end() != "mkdir -p"), "{:?}", kind.commands);
    let seen = place.seen(ClientId::Buildkit);
    assert!(seen.evidence.iter().any(|line| line.contains("empty")), "{:?}", seen.evidence);
}
