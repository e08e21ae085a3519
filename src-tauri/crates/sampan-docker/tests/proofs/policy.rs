//! R103: what polkit asks before the privileged step, each time, in the person's own language.

use sampan_docker::{Access, Action, Choice, Engine, FileSeen, HostsSeen, ImageStore, Kind, plan};
use sampan_oci::RegistryName;

const POLICY: &str = include_str!("../../polkit/org.sampan.docker.policy");

/// The texts of every element of that name, with its attributes.
fn elements(name: &str) -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    let mut rest = POLICY;
    while let Some((_, from)) = rest.split_once(&format!("<{name}")) {
        rest = from;
        let (attributes, body) = from.split_once('>').unwrap();
        if attributes.is_empty() || attributes.starts_with(' ') {
            found.push((attributes.trim(), body.split_once(&format!("</{name}>")).unwrap().0.trim()));
        }
    }
    found
}

#[test]
fn the_policy_has_one_action_which_asks_an_administrator_at_this_seat_each_time() {
    assert_eq!(elements("action").len(), 1, "one helper, one action");
    assert_eq!(elements("action")[0].0, "id=\"org.sampan.docker.change\"");
    for (who, may) in [("allow_any", "no"), ("allow_inactive", "no"), ("allow_active", "auth_admin")] {
        assert_eq!(elements(who), [("", may)], "{who}: nobody from afar, and no password that is remembered");
    }
    assert_eq!(elements("defaults").len(), 1);
}

#[test]
fn the_policy_runs_one_program_and_gives_it_no_display() {
    let annotations = elements("annotate");
    assert_eq!(
        annotations,
        [("key=\"org.freedesktop.policykit.exec.path\"", "/usr/lib/sampan/sampan-helper")],
        "no allow_gui, no other path"
    );
}

#[test]
fn the_prompt_names_the_files_in_english_and_vietnamese() {
    for (element, least) in [("message", 2), ("description", 0)] {
        let texts = elements(element);
        assert_eq!(texts.len(), 2, "{element}: {texts:?}");
        assert_eq!([texts[0].0, texts[1].0], ["", "xml:lang=\"vi\""], "English where nothing else fits");
        assert_ne!(texts[0].1, texts[1].1, "{element} is translated");
        for (_, text) in texts {
            let named = ["/etc/docker/daemon.json", "/etc/docker/certs.d"]
                .iter()
                .filter(|path| text.contains(**path));
            assert!(named.count() >= least, "the prompt names what changes: {text}");
            assert!(!text.contains("$("), "nothing in it comes from the caller: {text}");
        }
    }
}

/// A Docker of the system's whose files belong to root.
fn engine(kind: Kind, version: &str, store: ImageStore, config: &str) -> Engine {
    let file = |path: &str| FileSeen {
        path: path.into(),
        target: path.into(),
        bytes: None,
        access: Access::NeedsElevation,
        problem: None,
    };
    let mut engine = Engine::unknown("unix:///var/run/docker.sock".into());
    (engine.found, engine.kind, engine.pid) = (true, kind, Some(4242));
    (engine.version, engine.image_store) = (Some(version.into()), Some(store));
    engine.config = Some(file(config));
    for registry in [RegistryName::docker_hub(), "ghcr.io".parse().unwrap()] {
        let file = file(&format!("/etc/docker/certs.d/{registry}/hosts.toml"));
        engine.hosts.push(HostsSeen { registry, served: true, beside: Vec::new(), file });
    }
    engine
}

#[test]
fn the_prompt_names_every_file_that_the_helper_changes_by_whichever_method() {
    let usual = "/etc/docker/daemon.json";
    let snap = "/var/snap/docker/current/config/daemon.json";
    for (engine, registries, files) in [
        (engine(Kind::Linux, "20.10.24", ImageStore::Classic, usual), &[][..], 1),
        (engine(Kind::Linux, "27.5.1", ImageStore::Containerd, usual), &[], 1),
        (engine(Kind::Linux, "29.7.2", ImageStore::Classic, usual), &["ghcr.io"], 3),
        (engine(Kind::Linux, "29.7.2", ImageStore::Containerd, usual), &["ghcr.io"], 2),
        (engine(Kind::Snap, "24.0.5", ImageStore::Classic, snap), &[], 1),
    ] {
        let choice = Choice::only(registries.iter().map(|name| name.parse().unwrap()));
        let planned = plan(&engine, Action::Enable, 7267, &choice).unwrap();
        assert!(planned.needs_elevation && planned.files.len() == files, "{planned:#?}");
        for (_, message) in elements("message") {
            let words = || message.split([' ', ',', '(', ')']).filter(|word| word.starts_with('/'));
            for file in &planned.files {
                assert!(
                    words().any(|named| file.path.starts_with(named)),
                    "{}: {message}",
                    file.path.display()
                );
            }
        }
    }
}

#[test]
fn the_policy_is_xml_that_polkit_reads() {
    assert!(POLICY.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE policyconfig PUBLIC"));
    assert!(!POLICY.contains('&'), "no entity");
    let mut open = Vec::new();
    for tag in POLICY.split('<').skip(1).map(|tag| tag.split('>').next().unwrap()) {
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "each element ends where it should");
        } else if !tag.starts_with(['?', '!']) {
            open.push(tag.split(' ').next().unwrap());
        }
    }
    assert!(open.is_empty(), "every element ends: {open:?}");
}
