//! Where engines are looked for on each system, and how several names of one are recognised. No engine is asked.

use std::path::{Path, PathBuf};

use sampan_docker::{Candidate, Kind, Place, System, context, merged_candidates, places};

fn vm(name: &str) -> Kind {
    Kind::OtherVm(name.into())
}

fn table(system: System, home: &str) -> Vec<(String, Kind)> {
    let found = places(system, Path::new(home), 1000);
    found.into_iter().map(|Place { endpoint, kind, .. }| (endpoint, kind)).collect()
}

#[test]
fn every_product_is_looked_for_where_it_listens_on_each_system() {
    let linux = [
        ("unix:///var/run/docker.sock", Kind::Linux),
        ("unix:///run/user/1000/docker.sock", Kind::Rootless),
        ("unix:///home/me/.docker/run/docker.sock", Kind::Rootless),
        ("unix:///home/me/.docker/desktop/docker.sock", Kind::Desktop),
        ("unix:///home/me/.colima/*/docker.sock", vm("Colima")),
        ("unix:///home/me/.config/colima/*/docker.sock", vm("Colima")),
        ("unix:///home/me/.colima/docker.sock", vm("Colima")),
        ("unix:///home/me/.lima/*/sock/docker.sock", vm("Lima")),
        ("unix:///home/me/.rd/docker.sock", vm("Rancher Desktop")),
        ("unix:///mnt/wsl/docker-desktop/shared-sockets/guest-services/docker.proxy.sock", Kind::Desktop),
        ("unix:///mnt/wsl/rancher-desktop/run/docker.sock", vm("Rancher Desktop")),
        ("unix:///run/user/1000/podman/podman.sock", Kind::Podman),
        ("unix:///run/podman/podman.sock", Kind::Podman),
    ];
    let mac = [
        ("unix:///var/run/docker.sock", vm("This engine")),
        ("unix:///Users/me/.docker/run/docker.sock", Kind::Desktop),
        ("unix:///Users/me/.orbstack/run/docker.sock", vm("OrbStack")),
        ("unix:///Users/me/.colima/*/docker.sock", vm("Colima")),
        ("unix:///Users/me/.config/colima/*/docker.sock", vm("Colima")),
        ("unix:///Users/me/.colima/docker.sock", vm("Colima")),
        ("unix:///Users/me/.lima/*/sock/docker.sock", vm("Lima")),
        ("unix:///Users/me/.rd/docker.sock", vm("Rancher Desktop")),
        ("unix:///Users/me/.local/share/containers/podman/machine/podman.sock", Kind::Podman),
        ("unix:///Users/me/.local/share/containers/podman/machine/*/podman.sock", Kind::Podman),
    ];
    let windows = [
        ("npipe:////./pipe/docker_engine", Kind::Windows),
        ("npipe:////./pipe/dockerDesktopLinuxEngine", Kind::Desktop),
        ("npipe:////./pipe/dockerDesktopWindowsEngine", Kind::Windows),
        ("npipe:////./pipe/podman-machine-default", Kind::Podman),
    ];
    let owned = |table: &[(&str, Kind)]| -> Vec<(String, Kind)> {
        table.iter().map(|(endpoint, kind)| ((*endpoint).to_owned(), kind.clone())).collect()
    };
    assert_eq!(table(System::Linux, "/home/me"), owned(&linux));
    assert_eq!(table(System::MacOs, "/Users/me"), owned(&mac));
    assert_eq!(table(System::Windows, "C:\\Users\\me"), owned(&windows));
    assert_eq!(table(System::Linux, "/")[3].0, "unix:///.docker/desktop/docker.sock", "a home at the root");
    for system in [System::Linux, System::MacOs, System::Windows] {
        for (endpoint, _) in table(system, "/home/me") {
            assert_ne!(context::reach(&endpoint), context::Reach::Remote, "{endpoint} is on this machine");
        }
    }
}

fn candidate(endpoint: &str, kind: Kind, contexts: &[&str]) -> Candidate {
    Candidate {
        endpoint: endpoint.into(),
        kind,
        contexts: contexts.iter().map(|name| (*name).to_owned()).collect(),
        current: false,
        because: vec![format!("because of {endpoint}")],
    }
}

#[test]
fn names_of_one_socket_are_one_engine_and_its_owner_knows_what_it_is() {
    let current = Candidate { current: true, ..candidate("unix:///var/run/docker.sock", Kind::None, &[]) };
    let found = vec![
        current,
        candidate("unix:///Users/me/.colima/default/docker.sock", Kind::None, &["colima"]),
        candidate("unix:///run/docker.sock", vm("This engine"), &[]),
        candidate("unix:///Users/me/.colima/default/docker.sock", vm("Colima"), &[]),
        candidate("tcp://10.0.0.1:2375", Kind::None, &["far"]),
        candidate("unix:///Users/me/.rd/docker.sock", vm("Rancher Desktop"), &[]),
    ];
    // The usual place is a link to Colima's.
    let real = |endpoint: &str| {
        let path = PathBuf::from(endpoint.strip_prefix("unix://")?);
        let linked = path.ends_with("run/docker.sock");
        Some(if linked { "/Users/me/.colima/default/docker.sock".into() } else { path })
    };
    let merged = merged_candidates(found, &real);
    let [one, far, rancher] = &merged[..] else { panic!("three engines: {merged:#?}") };
    assert_eq!(one.endpoint, "unix:///var/run/docker.sock", "by the name that is asked for");
    assert_eq!((one.current, &one.kind), (true, &vm("Colima")), "{one:#?}");
    assert_eq!(one.contexts, ["colima"], "the context names the same socket");
    assert_eq!(one.because.len(), 4, "and every reason is kept: {:#?}", one.because);
    assert!(!far.current && !rancher.current, "one is current");
    assert_eq!(far.contexts, ["far"], "another machine is shown too");
}

#[test]
fn sockets_that_do_not_exist_are_told_apart_by_their_names() {
    let found = vec![
        candidate("npipe:////./pipe/docker_engine", Kind::Windows, &[]),
        candidate("npipe:////./pipe/dockerDesktopLinuxEngine", Kind::Desktop, &["desktop-linux"]),
        candidate("npipe:////./pipe/dockerDesktopLinuxEngine", Kind::Desktop, &["another"]),
    ];
    let merged = merged_candidates(found, &|_| None);
    assert_eq!(merged.len(), 2, "{merged:#?}");
    assert_eq!(merged[1].contexts, ["another", "desktop-linux"], "both contexts, in order");
}

#[test]
fn a_context_is_read_with_its_name() {
    let meta = br#"{"Name":"rootless","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///run/user/1000/docker.sock"}}}"#;
    let (name, host) = context::described(meta).unwrap();
    assert_eq!((name.as_str(), host.as_str()), ("rootless", "unix:///run/user/1000/docker.sock"));
    for (meta, why) in [
        (&b"{\"Name\":\"k8s\",\"Endpoints\":{\"kubernetes\":{}}}"[..], "a context of something else"),
        (b"{\"Name\":\"x\",\"Endpoints\":{\"docker\":{\"Host\":\"\"}}}", "no endpoint"),
        (b"[]", "not a context"),
    ] {
        assert_eq!(context::described(meta), None, "{why}");
    }
}
