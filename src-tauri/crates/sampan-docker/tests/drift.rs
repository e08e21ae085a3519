//! What is said of a set-up that somebody else changed: one table, no engine needed.

#![expect(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

use sampan_docker::{
    Access, Change, Engine, FileSeen, HostsSeen, ImageStore, Kind, Part, Remembered, drift, hosts_toml, mark,
};
use sampan_oci::{Digest, RegistryName};

/// What somebody does, and how.
type Edit = (&'static str, fn(&mut Engine));

const ENDPOINT: &str = "unix:///var/run/docker.sock";
const CONFIG: &str = "/etc/docker/daemon.json";
const HOSTS: &str = "/etc/docker/certs.d/docker.io/hosts.toml";
const PORT: u16 = 7267;
const OURS: &str = "http://127.0.0.1:7267";
const AS_LEFT: &str = "{\"registry-mirrors\": [\"http://127.0.0.1:7267\"]}\n";

fn seen(path: &str, bytes: Option<&str>) -> FileSeen {
    FileSeen {
        path: path.into(),
        target: path.into(),
        bytes: bytes.map(|text| text.as_bytes().to_vec()),
        access: Access::Writable,
        problem: None,
    }
}

fn remembered(file: Part, port: u16, after: Option<&str>) -> Remembered {
    let change = Change {
        target: if file == Part::DaemonJson { CONFIG.into() } else { HOSTS.into() },
        part: file,
        endpoint: ENDPOINT.into(),
        port,
        before: None,
        interim: None,
        going_back: None,
        after: after.map(|text| Digest::of(text.as_bytes())),
        backup: None,
        made_folders: Vec::new(),
        leaving: false,
    };
    Remembered { change, original: None }
}

/// An engine on which Sampan set up both files, everything as it was left.
fn engine() -> Engine {
    let hub = RegistryName::docker_hub();
    let toml = hosts_toml(&hub, PORT);
    let mut engine = Engine::unknown(ENDPOINT.into());
    engine.found = true;
    engine.kind = Kind::Linux;
    engine.version = Some("28.5.2".into());
    engine.image_store = Some(ImageStore::Classic);
    engine.config = Some(seen(CONFIG, Some(AS_LEFT)));
    engine.hosts = vec![HostsSeen {
        registry: hub.clone(),
        served: true,
        beside: Vec::new(),
        file: seen(HOSTS, Some(&toml)),
    }];
    engine.mirrors = vec![format!("{OURS}/")];
    engine.remembered = vec![
        remembered(Part::Hosts(hub), PORT, Some(&toml)),
        remembered(Part::DaemonJson, PORT, Some(AS_LEFT)),
    ];
    engine
}

fn config(engine: &mut Engine) -> &mut FileSeen {
    engine.config.as_mut().unwrap()
}

fn holds(engine: &mut Engine, text: &str) {
    config(engine).bytes = Some(text.as_bytes().to_vec());
}

fn lists(engine: &mut Engine, urls: &[&str]) {
    engine.mirrors = urls.iter().map(|url| format!("{url}/")).collect();
}

type Row = (&'static str, fn(&mut Engine), &'static [&'static str]);

/// What happens, and a part of each sentence about it, in order.
const TABLE: [Row; 24] = [
    ("nothing", |_| {}, &[]),
    (
        "another key is added and the file is formatted anew",
        |e| {
            holds(
                e,
                "{\n  \"debug\": true,\n  \"registry-mirrors\": [\n    \"http://127.0.0.1:7267/\"\n  ]\n}",
            );
        },
        &[],
    ),
    (
        "a mirror is added after ours",
        |e| {
            holds(e, "{\"registry-mirrors\": [\"http://127.0.0.1:7267\", \"https://corp\"]}");
            lists(e, &[OURS, "https://corp"]);
        },
        &[],
    ),
    (
        "a mirror is put before ours",
        |e| {
            holds(e, "{\"registry-mirrors\": [\"https://corp\", \"http://127.0.0.1:7267\"]}");
            lists(e, &["https://corp", OURS]);
        },
        &["https://corp now comes before Sampan in /etc/docker/daemon.json"],
    ),
    (
        "the entry is taken out",
        |e| holds(e, "{\"registry-mirrors\": []}"),
        &["Sampan was taken out of /etc/docker/daemon.json"],
    ),
    ("the key is deleted", |e| holds(e, "{}"), &["Sampan was taken out of"]),
    (
        "the entry is replaced by another mirror",
        |e| holds(e, "{\"registry-mirrors\": [\"https://corp\"]}"),
        &["Sampan was taken out of"],
    ),
    ("the file is removed", |e| config(e).bytes = None, &["/etc/docker/daemon.json was removed"]),
    ("the file is emptied", |e| holds(e, ""), &["Sampan was taken out of"]),
    (
        "the file is broken",
        |e| holds(e, "{\"registry-mirrors\": [\"http://127.0.0.1:7267\",]}"),
        &["/etc/docker/daemon.json was changed, and it"],
    ),
    (
        "the file becomes somebody else's",
        |e| config(e).problem = Some("It can be changed by other users.".into()),
        &["It can be changed by other users."],
    ),
    (
        "the engine was restarted with another configuration",
        |e| lists(e, &[]),
        &["Docker does not list Sampan among its mirrors"],
    ),
    (
        "the engine asks another mirror first, whatever its file says",
        |e| lists(e, &["https://corp", OURS]),
        &["Docker asks https://corp/ before Sampan"],
    ),
    (
        "the engine reads another file now, without Sampan",
        |e| e.config = Some(seen("/srv/daemon.json", Some("{}"))),
        &["Docker now reads /srv/daemon.json, not /etc/docker/daemon.json, and Sampan is not in it"],
    ),
    (
        "the engine reads another file now, which is not there",
        |e| e.config = Some(seen("/srv/daemon.json", None)),
        &["Docker now reads /srv/daemon.json, not /etc/docker/daemon.json"],
    ),
    (
        "the engine reads another file now, in which Sampan is first",
        |e| e.config = Some(seen("/srv/daemon.json", Some(AS_LEFT))),
        &[],
    ),
    ("which file it reads is not known any more, and it lists Sampan", |e| e.config = None, &[]),
    (
        "hosts.toml is removed",
        |e| e.hosts[0].file.bytes = None,
        &["/etc/docker/certs.d/docker.io/hosts.toml was removed"],
    ),
    (
        "hosts.toml is removed with its folder, of a registry Sampan no longer serves",
        |e| e.hosts.clear(),
        &["/etc/docker/certs.d/docker.io/hosts.toml was removed"],
    ),
    (
        "hosts.toml is edited",
        |e| e.hosts[0].file.bytes.as_mut().unwrap().extend(b"skip_verify = true\n"),
        &["/etc/docker/certs.d/docker.io/hosts.toml was changed by somebody else"],
    ),
    (
        "both go",
        |e| {
            e.hosts[0].file.bytes = None;
            config(e).bytes = None;
        },
        &["hosts.toml was removed", "daemon.json was removed"],
    ),
    (
        "Sampan's own port changed",
        |e| {
            let hub = RegistryName::docker_hub();
            let toml = hosts_toml(&hub, 7300);
            holds(e, "{\"registry-mirrors\": [\"http://127.0.0.1:7300\"]}");
            lists(e, &["http://127.0.0.1:7300"]);
            e.hosts[0].file.bytes = Some(toml.clone().into_bytes());
            e.remembered = vec![
                remembered(Part::Hosts(hub), 7300, Some(&toml)),
                remembered(Part::DaemonJson, 7300, Some("x")),
            ];
        },
        &["Docker is set up for port 7300, and Sampan listens on port 7267"],
    ),
    (
        "somebody else sets the new port by hand",
        |e| {
            e.remembered = vec![remembered(Part::DaemonJson, 7300, Some("x"))];
        },
        &[],
    ),
    (
        "another engine is meant now",
        |e| {
            e.endpoint = "unix:///run/user/1000/docker.sock".into();
            holds(e, "{}");
        },
        &[],
    ),
];

#[test]
fn what_somebody_else_changed_is_said_and_nothing_else() {
    for (what, happens, sentences) in TABLE {
        let mut engine = engine();
        happens(&mut engine);
        let said = drift(&engine, PORT).unwrap();
        assert_eq!(said.len(), sentences.len(), "{what}: {said:?}");
        for (said, part) in said.iter().zip(sentences) {
            assert!(said.contains(part) && said.ends_with('.'), "{what}: {said:?} says {part:?}");
        }
    }
}

#[test]
fn an_engine_that_does_not_answer_says_nothing_either_way() {
    let mut silent = engine();
    silent.found = false;
    silent.config = None;
    silent.mirrors.clear();
    assert_eq!(drift(&silent, PORT), None, "stopped is not changed");
}

#[test]
fn what_was_never_set_up_or_was_taken_back_cannot_differ() {
    let mut never = engine();
    never.remembered.clear();
    holds(&mut never, "{}");
    assert_eq!(drift(&never, PORT).unwrap(), Vec::<String>::new(), "never set up");
    never.remembered = vec![remembered(Part::DaemonJson, PORT, None)];
    assert_eq!(drift(&never, PORT).unwrap(), Vec::<String>::new(), "set up by taking something out");
}

#[test]
fn of_two_journals_the_one_that_knows_the_file_as_it_is_counts() {
    let mut engine = engine();
    engine.remembered.insert(0, remembered(Part::DaemonJson, 7300, Some("older")));
    assert_eq!(drift(&engine, PORT).unwrap(), Vec::<String>::new(), "the helper wrote it again since");
    engine.remembered.reverse();
    assert_eq!(drift(&engine, PORT).unwrap(), Vec::<String>::new(), "in whichever order they are read");
}

#[test]
fn the_mark_changes_with_the_files_and_the_port_and_with_nothing_else() {
    let first = mark(&engine(), PORT);
    assert_eq!(mark(&engine(), PORT), first, "the same state");
    let mut listing = engine();
    lists(&mut listing, &[]);
    listing.found = false;
    assert_eq!(mark(&listing, PORT), first, "what the engine does is not the files");
    assert_ne!(mark(&engine(), 7300), first, "the port");
    let changes: [Edit; 4] = [
        ("daemon.json is edited", |e| holds(e, "{}")),
        ("daemon.json is removed", |e| config(e).bytes = None),
        ("daemon.json is emptied", |e| holds(e, "")),
        ("hosts.toml is removed", |e| e.hosts[0].file.bytes = None),
    ];
    let marks: std::collections::BTreeSet<String> = changes
        .iter()
        .map(|(what, change)| {
            let mut engine = engine();
            change(&mut engine);
            let now = mark(&engine, PORT);
            assert_ne!(now, first, "{what}");
            now
        })
        .collect();
    assert_eq!(marks.len(), changes.len(), "each state has a mark of its own");
}
