//! What is planned for which engine: one table a question, no engine needed.

#![expect(clippy::unwrap_used, reason = "a test: a plan that fails is a failed test")]

mod setting;
mod taking_back;

use sampan_docker::{
    Access, Action, ApplyMethod, Change, Choice, DEFAULT_PORT, Engine, ImageStore, Kind, Method, Part,
    PlanError, Remembered, hosts_toml, plan,
};
use sampan_oci::{Digest, RegistryName};

use setting::{CONFIG, OURS, engine, hosts, parts, registry, seen, text};

#[test]
fn every_engine_is_set_up_by_the_method_it_understands() {
    use ImageStore::{Classic, Containerd};
    use Kind::{Desktop, Linux, OtherVm, Podman, Remote, Rootless, Snap, Windows};
    for (kind, version, store, expected, why) in [
        (Linux, "20.10.24+dfsg1", Classic, Some(Method::Mirrors), "hosts.toml is unknown to it"),
        (Linux, "23.0.18", Classic, Some(Method::Mirrors), "as 20.10"),
        (Linux, "27.5.1", Classic, Some(Method::Mirrors), "the last before hosts.toml"),
        (Linux, "24.0.0", Containerd, Some(Method::Mirrors), "opted in, before hosts.toml"),
        (Linux, "27.5.1", Containerd, Some(Method::Mirrors), "opted in, before hosts.toml"),
        (Linux, "28.0.0", Classic, Some(Method::HostsAndMirrors), "both files belong together"),
        (Linux, "29.7.2", Classic, Some(Method::HostsAndMirrors), "an updated install"),
        (Linux, "28.0.0", Containerd, Some(Method::HostsOnly), "opted in"),
        (Linux, "29.7.2", Containerd, Some(Method::HostsOnly), "a fresh install"),
        (Rootless, "29.4.3", Containerd, None, "127.0.0.1 is not this machine there"),
        (Rootless, "20.10.24", Classic, None, "127.0.0.1 is not this machine there"),
        (Rootless, "29.5.0", Containerd, Some(Method::HostsOnly), "reaches this machine"),
        (Rootless, "29.5.0", Classic, Some(Method::HostsAndMirrors), "reaches this machine"),
        (Snap, "27.5.1", Classic, Some(Method::Mirrors), "a file in /var/snap"),
        (Snap, "28.4.0", Classic, None, "where it reads hosts.toml is not known"),
        (Desktop, "29.7.2", Containerd, Some(Method::Desktop), "its own file"),
        (Desktop, "20.10.24", Classic, Some(Method::Desktop), "its own file"),
        (Podman, "5.0.0", Classic, None, "another configuration"),
        (OtherVm("Colima".into()), "29.7.2", Containerd, None, "another configuration"),
        (
            OtherVm("Docker Desktop for Windows".into()),
            "29.7.2",
            Containerd,
            None,
            "its file is the Windows user's",
        ),
        (Windows, "29.7.2", Classic, None, "a service to restart"),
        (Remote, "29.7.2", Classic, None, "another machine"),
        (Linux, "dev", Classic, None, "a version that cannot be compared"),
        (Kind::None, "29.7.2", Classic, None, "nothing answers"),
    ] {
        let engine = engine(kind.clone(), version, store, None);
        assert_eq!(engine.method().ok(), expected, "{kind} {version} {store:?}: {why}");
        assert_eq!(engine.supported(), expected.is_some(), "{kind} {version}: {why}");
        let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow);
        match expected {
            None => {
                let Err(PlanError::Unsupported(unsupported)) = planned else { panic!("{why}: {planned:?}") };
                assert!(
                    !unsupported.advice.is_empty(),
                    "whoever is declined is told what to do: {unsupported}"
                );
            }
            Some(method) => {
                let (files, apply): (&[&str], _) = match method {
                    Method::HostsOnly => (&["docker.io"], ApplyMethod::Nothing),
                    Method::HostsAndMirrors => (&["docker.io", "daemon.json"], ApplyMethod::Reload),
                    Method::Mirrors => (&["daemon.json"], ApplyMethod::Reload),
                    Method::Desktop => (&["daemon.json"], ApplyMethod::Restart),
                };
                let planned = planned.unwrap();
                assert_eq!(parts(&planned), files, "the files and their order, {kind} {version}: {why}");
                assert_eq!(planned.apply, apply, "{kind} {version}: {why}");
            }
        }
    }
}

#[test]
fn a_daemon_that_is_no_process_of_this_system_is_declined() {
    let mut engine = engine(Kind::Linux, "28.5.2", ImageStore::Classic, None);
    engine.pid = None;
    assert!(!engine.supported(), "a socket mounted into a container leads to files that are not these");
}

#[test]
fn desktop_is_reached_by_its_own_name_for_this_machine_and_restarts_only_by_name() {
    let mut engine = engine(Kind::Desktop, "29.7.2", ImageStore::Containerd, Some("{}"));
    engine.containers = vec!["db".into(), "web".into()];
    let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
    assert!(
        text(planned.files[0].after.as_ref()).contains("http://host.docker.internal:7267"),
        "the VM's name for it"
    );
    assert!(!text(planned.files[0].after.as_ref()).contains("insecure"), "no other setting is needed");
    assert_eq!(planned.stops, ["db", "web"], "the second consent names what stops");
    assert_eq!(
        planned.commands.last().map(String::as_str),
        Some("docker desktop restart"),
        "by hand as well"
    );
}

#[test]
fn enabling_is_shown_as_files_differences_and_commands() {
    let engine = engine(Kind::Linux, "28.5.2", ImageStore::Classic, Some("{\"debug\": true}\n"));
    let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
    let [first, second] = planned.files.as_slice() else { panic!("two files: {planned:?}") };
    assert!(first.created && !second.created, "one is new, one is edited");
    assert_eq!(
        text(first.after.as_ref()),
        hosts_toml(&RegistryName::docker_hub(), 7267),
        "Sampan's whole file"
    );
    assert_eq!(
        text(second.after.as_ref()),
        format!("{{\"debug\": true, \"registry-mirrors\": [\"{OURS}\"]}}\n"),
        "one key"
    );
    assert_eq!(second.diff.len(), 2, "one line goes, one comes: {:?}", second.diff);
    assert!(!planned.needs_elevation, "both can be written");
    assert!(planned.stops.is_empty(), "a reload stops nothing");
    assert_eq!(planned.intended.as_deref(), Some([OURS.to_owned()].as_slice()), "what the engine must list");
    assert_eq!(planned.commands.len(), 4, "a folder, two files, a reload: {:?}", planned.commands);
    assert!(planned.commands[0].contains("mkdir -p /etc/docker/certs.d/docker.io"), "{:?}", planned.commands);
    assert!(planned.commands[3].contains("systemctl reload docker.service"), "{:?}", planned.commands);
}

#[test]
fn enabling_what_is_enabled_changes_nothing() {
    let ours = hosts_toml(&RegistryName::docker_hub(), 7267);
    let mut engine = engine(
        Kind::Linux,
        "28.5.2",
        ImageStore::Classic,
        Some(&format!("{{\"registry-mirrors\": [\"{OURS}\"]}}")),
    );
    engine.hosts = vec![hosts("docker.io", Some(ours.as_bytes()))];
    engine.mirrors = vec![format!("{OURS}/")];
    assert!(engine.enabled(7267) && !engine.enabled(7268), "for this port only");
    let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
    assert!(
        planned.is_nothing() && planned.commands.is_empty(),
        "nothing to write, nothing to tell: {planned:?}"
    );
    engine.mirrors.clear();
    let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
    assert!(
        planned.files.is_empty() && planned.apply == ApplyMethod::Reload,
        "written but never read: only a reload"
    );
}

#[test]
fn an_entry_of_sampans_is_replaced_and_any_other_stays() {
    let config =
        r#"{"registry-mirrors": ["https://corp", "http://127.0.0.1:7267", "http://127.0.0.1:5000"]}"#;
    let engine = engine(Kind::Linux, "27.5.1", ImageStore::Classic, Some(config));
    let planned = plan(&engine, Action::Enable, 7300, &Choice::AsNow).unwrap();
    assert_eq!(
        text(planned.files[0].after.as_ref()),
        r#"{"registry-mirrors": ["http://127.0.0.1:7300", "https://corp", "http://127.0.0.1:5000"]}"#,
        "the default port was Sampan's; 5000 may be anyone's"
    );
    assert!(
        planned.notes.iter().any(|note| note.contains("127.0.0.1:5000")),
        "it is reported: {:?}",
        planned.notes
    );
}

#[test]
fn a_foreign_hosts_file_is_never_overwritten_and_never_removed() {
    let foreign = b"server = \"https://registry-1.docker.io\"\n";
    let mut engine = engine(Kind::Linux, "29.7.2", ImageStore::Containerd, None);
    engine.hosts = vec![hosts("docker.io", None), hosts("ghcr.io", Some(foreign))];
    let planned = plan(&engine, Action::Enable, 7267, &Choice::only([registry("ghcr.io")])).unwrap();
    assert_eq!(parts(&planned), ["docker.io"], "ghcr.io stays as it is");
    assert!(planned.notes.iter().any(|note| note.contains("ghcr.io")), "and is named: {:?}", planned.notes);
    engine.hosts = vec![hosts("docker.io", Some(foreign))];
    assert!(
        matches!(plan(&engine, Action::Enable, 7267, &Choice::AsNow), Err(PlanError::Foreign(_))),
        "Docker Hub is what it is for"
    );
    assert!(
        plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap().is_nothing(),
        "what is not Sampan's is not taken back"
    );
}

#[test]
fn what_stands_in_the_way_is_said_before_anything_is_written() {
    let base = || engine(Kind::Linux, "27.5.1", ImageStore::Classic, Some("{}"));
    let refused = |engine: &Engine| plan(engine, Action::Enable, 7267, &Choice::AsNow).unwrap_err();
    let mut broken = base();
    broken.config = Some(seen(CONFIG, Some(b"{\n  \"a\": 1,\n}")));
    let Err(PlanError::Refused { refusal, .. }) = plan(&broken, Action::Enable, 7267, &Choice::AsNow) else {
        panic!("trailing comma")
    };
    assert_eq!((refusal.line, refusal.column), (Some(3), Some(1)), "with its place");
    assert!(
        plan(&broken, Action::Disable, 7267, &Choice::AsNow).unwrap().is_nothing(),
        "Docker does not list Sampan: nothing to undo"
    );
    broken.mirrors = vec![OURS.into()];
    assert!(
        plan(&broken, Action::Disable, 7267, &Choice::AsNow).is_err(),
        "it does, and the file cannot be edited"
    );
    let mut flagged = base();
    flagged.flag_mirrors = vec!["https://corp".into()];
    assert!(
        matches!(refused(&flagged), PlanError::FlagConflict(url) if url == "https://corp"),
        "dockerd would not start"
    );
    let mut linked = base();
    linked.config.as_mut().unwrap().problem = Some("It belongs to another user.".into());
    assert!(matches!(refused(&linked), PlanError::Unsafe(_)), "a file that is not safe to edit");
    let mut locked = base();
    locked.config.as_mut().unwrap().access = Access::ReadOnly;
    assert!(matches!(refused(&locked), PlanError::ReadOnly(_)), "no prompt that could not help");
    let mut rooted = base();
    rooted.config.as_mut().unwrap().access = Access::NeedsElevation;
    assert!(plan(&rooted, Action::Enable, 7267, &Choice::AsNow).unwrap().needs_elevation, "one prompt");
    let mut unsignalled = base();
    unsignalled.may_signal = false;
    assert!(
        plan(&unsignalled, Action::Enable, 7267, &Choice::AsNow).unwrap().needs_elevation,
        "a reload is a signal to root's process"
    );
}

#[test]
fn a_plans_name_changes_with_everything_it_rests_on() {
    let base = engine(Kind::Linux, "28.5.2", ImageStore::Classic, Some("{}"));
    let id = |engine: &Engine, action, port| plan(engine, action, port, &Choice::AsNow).unwrap().id;
    let first = id(&base, Action::Enable, DEFAULT_PORT);
    assert_eq!(first, id(&base, Action::Enable, DEFAULT_PORT), "the same plan has the same name");
    let mut edited = base.clone();
    edited.config = Some(seen(CONFIG, Some(b"{ }")));
    let mut moved = base.clone();
    moved.endpoint = "unix:///run/other.sock".into();
    let mut updated = base.clone();
    updated.version = Some("28.5.3".into());
    let mut listed = base.clone();
    listed.mirrors = vec!["https://corp".into()];
    let others = [
        id(&edited, Action::Enable, DEFAULT_PORT),
        id(&moved, Action::Enable, DEFAULT_PORT),
        id(&updated, Action::Enable, DEFAULT_PORT),
        id(&listed, Action::Enable, DEFAULT_PORT),
        id(&base, Action::Enable, 7268),
        id(&base, Action::Disable, DEFAULT_PORT),
    ];
    assert!(others.iter().all(|other| *other != first), "consent to one is not consent to another");
    let mut restarted = base.clone();
    restarted.pid = Some(1);
    restarted.containers = vec!["web".into()];
    assert_eq!(
        first,
        id(&restarted, Action::Enable, DEFAULT_PORT),
        "what a reload does not touch does not matter"
    );
}

#[test]
fn rights_are_asked_for_only_where_the_helper_changes_the_engine_that_was_shown() {
    for (endpoint, kind, allowed, why) in [
        ("unix:///var/run/docker.sock", Kind::Linux, true, "the system's"),
        ("unix:///run/docker.sock", Kind::Linux, true, "the same by its other name"),
        ("unix:///run/docker.sock", Kind::Snap, true, "the system's, from a snap"),
        ("unix:///run/other.sock", Kind::Linux, false, "a second daemon"),
        ("unix:///run/user/1000/docker.sock", Kind::Rootless, false, "a user's own"),
        ("unix:///var/run/docker.sock", Kind::Desktop, false, "Docker Desktop behind the usual name"),
    ] {
        let mut engine = engine(kind, "27.5.1", ImageStore::Containerd, Some("{}"));
        if engine.kind == Kind::Rootless {
            engine.version = Some("29.7.2".into());
        }
        engine.endpoint = endpoint.into();
        engine.config.as_mut().unwrap().access = Access::NeedsElevation;
        engine.hosts[0].file.access = Access::NeedsElevation;
        match plan(&engine, Action::Enable, 7267, &Choice::AsNow) {
            Ok(planned) => assert!(allowed && planned.needs_elevation, "{why}: {planned:?}"),
            Err(PlanError::NotTheSystems { commands, .. }) => {
                assert!(!allowed && commands.iter().any(|line| line.contains("sudo ")), "by hand: {why}");
            }
            Err(error) => panic!("{why}: {error:?}"),
        }
    }
}

#[test]
fn the_same_ports_are_sampans_in_both_files() {
    let listing = "{\"registry-mirrors\": [\"http://127.0.0.1:7300\"]}";
    let remembered = |after: &str| Remembered {
        change: Change {
            target: CONFIG.into(),
            part: Part::DaemonJson,
            endpoint: "unix:///var/run/docker.sock".into(),
            port: 7300,
            before: None,
            interim: None,
            going_back: None,
            after: Some(Digest::of(after.as_bytes())),
            backup: None,
            made_folders: Vec::new(),
            leaving: false,
        },
        original: None,
    };
    let hub = hosts_toml(&RegistryName::docker_hub(), 7300);
    let (mut of_another_engine, mut of_another_file) = (remembered("{}"), remembered("{}"));
    of_another_engine.change.endpoint = "unix:///run/other.sock".into();
    of_another_file.change.target = "/etc/other.json".into();
    for (hosts_file, journal, taken, why) in [
        (Some(hub.as_bytes()), None, true, "Sampan's own hosts.toml names the port"),
        (None, Some(remembered(listing)), true, "the file is as Sampan left it"),
        (
            None,
            Some(remembered("{}")),
            true,
            "the file was changed since, and the entry is the one Sampan wrote",
        ),
        (None, Some(of_another_engine), false, "another engine's file of that name"),
        (None, Some(of_another_file), false, "a file this engine does not read"),
        (None, None, false, "nobody says that 7300 is Sampan's"),
    ] {
        let mut engine = engine(Kind::Linux, "29.7.2", ImageStore::Classic, Some(listing));
        engine.hosts = vec![hosts("docker.io", hosts_file)];
        engine.mirrors = vec!["http://127.0.0.1:7300/".into()];
        engine.remembered = journal.into_iter().collect();
        let planned = plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap();
        assert_eq!(parts(&planned).contains(&"daemon.json"), taken, "{why}: {planned:?}");
    }
}

#[test]
fn a_registry_with_certificates_of_its_own_or_without_tls_gets_no_hosts_toml() {
    let ours = hosts_toml(&registry("corp:5000"), 7267);
    let named = || Choice::only([registry("corp:5000")]);
    for (which, beside, insecure, before, choice, expected, why) in [
        (1, None, None, None, named(), Ok(1), "nothing is lost"),
        (1, Some("ca.crt"), None, None, named(), Err("ca.crt"), "a company's CA"),
        (1, Some("client.key"), None, None, named(), Err("client.key"), "a client's key"),
        (1, None, Some("corp:5000"), None, named(), Err("insecure"), "no TLS"),
        (1, Some("ca.crt"), None, None, Choice::AsNow, Ok(0), "not asked for"),
        (
            1,
            Some("ca.crt"),
            None,
            Some(ours.as_str()),
            Choice::AsNow,
            Ok(1),
            "what an older Sampan wrote goes",
        ),
        (0, Some("ca.crt"), None, None, Choice::AsNow, Err("ca.crt"), "Docker Hub by a proxy's CA"),
    ] {
        let mut engine = engine(Kind::Linux, "29.7.2", ImageStore::Containerd, None);
        engine.hosts.push(hosts("corp:5000", before.map(str::as_bytes)));
        engine.hosts[which].beside = beside.map(str::to_owned).into_iter().collect();
        engine.insecure = insecure.map(str::to_owned).into_iter().collect();
        let offered = sampan_docker::registries(&engine, 7267).into_iter().any(|state| state.changeable);
        assert_eq!(offered, before.is_some() || which == 0 || (beside, insecure) == (None, None), "{why}");
        match (plan(&engine, Action::Enable, 7267, &choice), expected) {
            (Ok(planned), Ok(corp)) => {
                let of_corp = planned
                    .files
                    .iter()
                    .filter(|file| file.path.starts_with("/etc/docker/certs.d/corp:5000"));
                let of_corp: Vec<_> = of_corp.collect();
                assert_eq!(of_corp.len(), corp, "{why}");
                assert!(of_corp.iter().all(|file| file.removed == before.is_some()), "{why}");
            }
            (Err(error @ PlanError::OwnTrust { .. }), Err(says)) => {
                assert!(error.to_string().contains(says), "{why}: {error}");
            }
            (planned, _) => panic!("{why}: {planned:?}"),
        }
    }
}

#[test]
fn a_port_of_the_systems_is_refused_before_anybody_is_asked() {
    let engine = engine(Kind::Linux, "29.7.2", ImageStore::Containerd, None);
    for (port, refused) in [(80, true), (1023, true), (1024, false), (7267, false)] {
        let planned = plan(&engine, Action::Enable, port, &Choice::AsNow);
        assert_eq!(planned.is_err_and(|error| error == PlanError::LowPort(port)), refused, "port {port}");
    }
}
