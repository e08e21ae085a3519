//! Two Sampans on one machine, each with a port of its own, and one Docker: neither undoes in silence what the other one
//! set up. Which of them runs is a fact here; how it is found is tested where it is.

use sampan_docker::{
    Access, Action, Change, Choice, Engine, FileSeen, HostsSeen, ImageStore, Kind, Part, Remembered, drift,
    hosts_toml, plan,
};
use sampan_oci::{Digest, RegistryName};

const OWN: u16 = 7300;
const OTHERS: u16 = 7267;

fn seen(path: &str, bytes: Option<String>) -> FileSeen {
    FileSeen {
        path: path.into(),
        target: path.into(),
        bytes: bytes.map(String::into_bytes),
        access: Access::Writable,
        problem: None,
    }
}

fn listing(ports: &[u16]) -> String {
    let urls: Vec<String> = ports.iter().map(|port| format!("\"http://127.0.0.1:{port}\"")).collect();
    format!("{{\"registry-mirrors\": [{}]}}\n", urls.join(", "))
}

/// A Docker of that version which both files point at the Sampans at `ports`, by what the helper wrote down.
fn engine(version: &str, ports: &[u16], running: &[u16]) -> Engine {
    let hub = RegistryName::docker_hub();
    let mut engine = Engine::unknown("unix:///var/run/docker.sock".into());
    (engine.found, engine.kind, engine.pid) = (true, Kind::Linux, Some(4242));
    engine.version = Some(version.into());
    engine.image_store = Some(ImageStore::Classic);
    engine.may_signal = true;
    engine.config = Some(seen("/etc/docker/daemon.json", Some(listing(ports))));
    engine.mirrors = ports.iter().map(|port| format!("http://127.0.0.1:{port}/")).collect();
    let toml = ports.first().filter(|_| version.starts_with("29")).map(|port| hosts_toml(&hub, *port));
    let file = seen("/etc/docker/certs.d/docker.io/hosts.toml", toml);
    engine.hosts = vec![HostsSeen { registry: hub, served: true, beside: Vec::new(), file }];
    engine.running = running.to_vec();
    for port in ports {
        let change = Change {
            target: "/etc/docker/daemon.json".into(),
            part: Part::DaemonJson,
            endpoint: engine.endpoint.clone(),
            port: *port,
            before: Some(Digest::of(b"{}")),
            interim: None,
            going_back: None,
            after: Some(Digest::of(listing(ports).as_bytes())),
            backup: None,
            made_folders: Vec::new(),
            leaving: false,
        };
        engine.remembered.push(Remembered { change, original: Some(b"{}".to_vec()) });
    }
    engine
}

#[test]
fn disabling_leaves_what_belongs_to_another_sampan_that_runs_and_says_so() {
    for version in ["20.10.24", "29.7.2"] {
        let theirs = engine(version, &[OTHERS], &[OTHERS, OWN]);
        let planned = plan(&theirs, Action::Disable, OWN, &Choice::AsNow).unwrap();
        assert!(planned.is_nothing(), "{version}: {planned:#?}");
        let notes = planned.notes.join(" ");
        assert!(notes.contains("runs now on port 7267") && notes.contains("stays"), "{version}: {notes}");
        let by_that_one = plan(&theirs, Action::Disable, OTHERS, &Choice::AsNow).unwrap();
        assert!(!by_that_one.files.is_empty(), "{version}: its own it takes out");

        let gone = engine(version, &[OTHERS], &[OWN]);
        let planned = plan(&gone, Action::Disable, OWN, &Choice::AsNow).unwrap();
        assert!(!planned.files.is_empty(), "{version}: a port that nobody has is one Sampan had before");
    }
    let both = engine("20.10.24", &[OWN, OTHERS], &[OWN, OTHERS]);
    let planned = plan(&both, Action::Disable, OWN, &Choice::AsNow).unwrap();
    let after = String::from_utf8(planned.files[0].after.clone().unwrap()).unwrap();
    assert_eq!(after, listing(&[OTHERS]), "its own goes, the other one's stays");
    assert_eq!(planned.intended.unwrap(), ["http://127.0.0.1:7267"], "and Docker goes on asking it");
}

#[test]
fn enabling_in_anothers_place_is_said_before_anybody_agrees() {
    let theirs = engine("20.10.24", &[OTHERS], &[OTHERS]);
    let planned = plan(&theirs, Action::Enable, OWN, &Choice::AsNow).unwrap();
    let notes = planned.notes.join(" ");
    assert!(notes.contains("another Sampan, which runs now on port 7267"), "{notes}");
    assert!(notes.contains("on port 7300, takes its place"), "{notes}");
    let moved = plan(&engine("20.10.24", &[OTHERS], &[]), Action::Enable, OWN, &Choice::AsNow).unwrap();
    assert!(
        !moved.notes.join(" ").contains("another Sampan"),
        "one that changed its port: {:?}",
        moved.notes
    );
    let again = plan(&engine("20.10.24", &[OWN], &[OWN]), Action::Enable, OWN, &Choice::AsNow).unwrap();
    assert!(again.is_nothing() && !again.notes.join(" ").contains("another"), "itself: {:?}", again.notes);
}

#[test]
fn what_another_sampan_set_up_is_no_drift_of_this_one() {
    let theirs = engine("20.10.24", &[OTHERS], &[OTHERS]);
    assert_eq!(drift(&theirs, OWN), Some(Vec::new()), "it is as that one left it");
    let moved = drift(&engine("20.10.24", &[OTHERS], &[]), OWN).unwrap();
    assert!(moved[0].contains("set up for port 7267"), "one that changed its port: {moved:?}");
}
