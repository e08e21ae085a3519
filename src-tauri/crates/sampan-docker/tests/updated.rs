//! What an update of Docker leaves half set up: one table.

use sampan_docker::{
    Access, Action, Choice, Engine, FileSeen, HostsSeen, ImageStore, Kind, Part, hosts_toml, plan,
};
use sampan_oci::RegistryName;

const PORT: u16 = 7267;
const OURS: &str = "{\"registry-mirrors\": [\"http://127.0.0.1:7267\"]}\n";
const LISTED: &[&str] = &["http://127.0.0.1:7267/"];

fn seen(path: &str, bytes: Option<&str>) -> FileSeen {
    FileSeen {
        path: path.into(),
        target: path.into(),
        bytes: bytes.map(|text| text.as_bytes().to_vec()),
        access: Access::Writable,
        problem: None,
    }
}

fn engine(
    version: &str,
    store: ImageStore,
    config: Option<&str>,
    listed: &[&str],
    hosts: Option<&str>,
) -> Engine {
    let mut engine = Engine::unknown("unix:///var/run/docker.sock".into());
    engine.found = true;
    engine.kind = Kind::Linux;
    engine.version = Some(version.into());
    engine.image_store = Some(store);
    engine.config = Some(seen("/etc/docker/daemon.json", config));
    engine.mirrors = listed.iter().map(|url| (*url).to_owned()).collect();
    let file = seen("/etc/docker/certs.d/docker.io/hosts.toml", hosts);
    engine.hosts =
        vec![HostsSeen { registry: RegistryName::docker_hub(), served: true, beside: Vec::new(), file }];
    engine.pid = Some(4242);
    engine.may_signal = true;
    engine
}

#[test]
fn an_update_that_leaves_the_set_up_half_is_noticed_and_nothing_else_is() {
    use ImageStore::{Classic, Containerd};
    let toml = hosts_toml(&RegistryName::docker_hub(), PORT);
    let ours = Some(toml.as_str());
    let foreign = Some("server = \"https://mirror.example\"\n");
    let other = Some("{\"registry-mirrors\": [\"http://127.0.0.1:5000\"]}\n");
    for (version, store, config, listed, hosts, expected, why) in [
        ("27.5.1", Classic, Some(OURS), LISTED, None, None, "before the update: whole"),
        ("28.0.0", Classic, Some(OURS), LISTED, None, Some("is missing"), "updated"),
        ("29.7.2", Classic, Some(OURS), LISTED, None, Some("is missing"), "updated further"),
        ("29.7.2", Containerd, Some(OURS), LISTED, None, Some("is missing"), "updated, another store"),
        (
            "28.0.0",
            Classic,
            Some(OURS),
            &[],
            None,
            Some("is missing"),
            "not reloaded yet: the next start reads it",
        ),
        (
            "28.0.0",
            Classic,
            Some("{}"),
            LISTED,
            None,
            Some("is missing"),
            "listed still, whatever the file says",
        ),
        ("28.0.0", Classic, Some(OURS), LISTED, ours, None, "both files: whole"),
        ("28.0.0", Containerd, Some("{}"), &[], ours, None, "hosts.toml alone is enough there"),
        (
            "28.0.0",
            Classic,
            Some(OURS),
            LISTED,
            foreign,
            Some("somebody else"),
            "another's file is not overwritten",
        ),
        ("28.0.0", Classic, Some("{}"), &[], None, None, "never set up"),
        ("28.0.0", Classic, None, &[], None, None, "never set up, no file"),
        (
            "28.0.0",
            Classic,
            other,
            &["http://127.0.0.1:5000/"],
            None,
            None,
            "another's mirror is not Sampan's to repair",
        ),
        ("29.7.2", Classic, Some("{}"), &[], ours, Some("only builds"), "the store was changed back"),
        ("27.5.1", Classic, Some("{}"), &[], ours, Some("does not read"), "an older Docker than before"),
        ("27.5.1", Classic, Some(OURS), LISTED, ours, None, "older, and listed: whole"),
        ("28.0.0", Classic, Some("not json"), &[], None, None, "a broken file says nothing"),
    ] {
        let engine = engine(version, store, config, listed, hosts);
        let repair = engine.needs_repair(PORT);
        match (expected, &repair) {
            (None, found) => assert_eq!(found, &None, "{version} {store:?}: {why}"),
            (Some(words), Some(found)) => assert!(found.contains(words), "{version}: {why}: {found}"),
            (Some(_), None) => panic!("{version} {store:?}: {why}: nothing was noticed"),
        }
    }
}

#[test]
fn what_is_offered_repairs_it() {
    let engine = engine("28.0.0", ImageStore::Classic, Some(OURS), LISTED, None);
    assert!(engine.needs_repair(PORT).is_some() && !engine.enabled(PORT), "it is not whole");
    let Ok(repair) = plan(&engine, Action::Enable, PORT, &Choice::AsNow) else {
        panic!("enabling again is possible")
    };
    let [file] = &repair.files[..] else { panic!("one file is missing: {repair:#?}") };
    assert!(matches!(&file.part, Part::Hosts(registry) if registry.is_docker_hub()), "{file:?}");
    let mut after = engine;
    after.hosts[0].file.bytes.clone_from(&file.after);
    assert_eq!(after.needs_repair(PORT), None, "afterwards it is whole");
    assert!(after.enabled(PORT));
}

#[test]
fn a_set_up_for_another_port_is_recognised_by_that_port() {
    let config = "{\"registry-mirrors\": [\"http://127.0.0.1:7300\"]}";
    let engine = engine("28.0.0", ImageStore::Classic, Some(config), &["http://127.0.0.1:7300/"], None);
    assert!(engine.needs_repair(7300).is_some(), "it is this Sampan's");
    assert_eq!(engine.needs_repair(PORT), None, "not known to be another Sampan's");
}
