//! Which builders there are, and whether they would ask Sampan: files as buildx writes them, tables.

#![expect(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

use sampan_docker::{BuildxFolder, Engine, ImageStore, Kind, builders, buildkit_mirrors};

const PORT: u16 = 7267;
const DESKTOP: &str = "http://host.docker.internal:7267/";

fn folder(instances: &[&str], current: &str, default: Option<&str>) -> BuildxFolder {
    BuildxFolder {
        instances: instances.iter().map(|text| text.as_bytes().to_vec()).collect(),
        current: (!current.is_empty()).then(|| current.as_bytes().to_vec()),
        default: default.map(|name| name.as_bytes().to_vec()),
    }
}

/// An engine that asks Sampan.
fn engine(kind: Kind) -> Engine {
    let mut engine = Engine::unknown("unix:///var/run/docker.sock".into());
    engine.found = true;
    engine.version = Some("27.5.1".into());
    engine.image_store = Some(ImageStore::Classic);
    engine.pid = Some(1);
    engine.mirrors = vec![if kind == Kind::Desktop { DESKTOP } else { "http://127.0.0.1:7267/" }.into()];
    engine.kind = kind;
    engine
}

#[test]
fn the_chosen_builder_is_found_as_buildx_finds_it() {
    let a = r#"{"Name":"a","Driver":"docker-container","Nodes":[{"Name":"a0","Endpoint":"unix:///var/run/docker.sock","Platforms":null,"Flags":null,"DriverOpts":{},"Files":null}],"Dynamic":false}"#;
    let b = r#"{"Name":"b","Driver":"remote","Nodes":[{"Name":"b0","Endpoint":"tcp://10.0.0.1:1234"}]}"#;
    let socket = "unix:///var/run/docker.sock";
    for (current, default, key, expected, why) in [
        ("", None, socket, "default", "nothing is chosen"),
        (
            r#"{"Key":"unix:///var/run/docker.sock","Name":"a","Global":false}"#,
            None,
            socket,
            "a",
            "for this engine",
        ),
        (r#"{"Key":"elsewhere","Name":"a","Global":false}"#, None, socket, "default", "for another engine"),
        (r#"{"Key":"elsewhere","Name":"b","Global":true}"#, None, socket, "b", "for all"),
        (
            r#"{"Key":"elsewhere","Name":"b","Global":false}"#,
            Some("a"),
            socket,
            "a",
            "the usual one of this engine",
        ),
        (r#"{"Key":"x","Name":"gone","Global":true}"#, None, socket, "default", "one that was removed"),
        (r#"{"Key":"","Name":"","Global":false}"#, None, socket, "default", "taken back"),
        ("not json", Some("b\n"), socket, "b", "a damaged file"),
    ] {
        let found = builders(&folder(&[a, b, "not json"], current, default), None, key);
        let names: Vec<&str> = found.iter().map(|builder| builder.name.as_str()).collect();
        assert_eq!(names, ["default", "a", "b"], "the engine's own is always there");
        let chosen: Vec<&str> = found.iter().filter(|b| b.current).map(|b| b.name.as_str()).collect();
        assert_eq!(chosen, [expected], "{why}");
    }
    let found = builders(&folder(&[a], "", None), Some("rootless"), "rootless");
    assert_eq!(found[0].name, "rootless", "a context has a builder of its name");
}

fn node(endpoint: &str, network: &str, config: &str) -> String {
    let options = if network.is_empty() { String::new() } else { format!("\"network\":\"{network}\"") };
    let files =
        if config.is_empty() { String::new() } else { format!("\"buildkitd.toml\":\"{}\"", base64(config)) };
    format!("{{\"Endpoint\":\"{endpoint}\",\"DriverOpts\":{{{options}}},\"Files\":{{{files}}}}}")
}

/// As Go writes it.
fn base64(text: &str) -> String {
    let letters: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bytes = [chunk[0], chunk.get(1).copied().unwrap_or(0), chunk.get(2).copied().unwrap_or(0)];
        let all = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        for place in 0..4 {
            let letter = letters[usize::try_from(all >> (18 - 6 * place) & 0x3f).unwrap()];
            encoded.push(if place <= chunk.len() { letter } else { '=' });
        }
    }
    encoded
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn every_builder_is_judged_by_what_it_would_ask_and_says_why() {
    let loopback = "[registry.\"docker.io\"]\n  mirrors = [\"127.0.0.1:7267\"]\n";
    let inside = "[registry.\"docker.io\"]\nmirrors = [\"host.docker.internal:7267\"]\n[registry.\"host.docker.internal:7267\"]\nhttp = true\n";
    let https = "[registry.\"docker.io\"]\nmirrors = [\"host.docker.internal:7267\"]\n";
    let other = "[registry.\"docker.io\"]\nmirrors = [\"mirror.example\"]\n";
    let ghcr = "[registry.\"ghcr.io\"]\nmirrors = [\"127.0.0.1:7267\"]\n";
    let container = "docker-container";
    let linux = || engine(Kind::Linux);
    let desktop = || engine(Kind::Desktop);
    let mut apart = engine(Kind::Linux);
    apart.mirrors.clear();
    for (engine, driver, nodes, expected, word, what) in [
        (linux(), "docker", vec![node("default", "", "")], true, "engine itself", "the engine's own"),
        (
            apart.clone(),
            "docker",
            vec![node("default", "", "")],
            false,
            "does not ask",
            "of an engine without Sampan",
        ),
        (linux(), "docker", vec![node("far", "", "")], false, "another", "of another engine"),
        (linux(), container, vec![node("default", "", "")], false, "buildkitd.toml", "as buildx makes it"),
        (
            apart,
            container,
            vec![node("default", "host", loopback)],
            true,
            "names Sampan",
            "its own file counts",
        ),
        (
            linux(),
            container,
            vec![node("default", "host", loopback)],
            true,
            "this machine's network",
            "with it",
        ),
        (
            linux(),
            container,
            vec![node("default", "", loopback)],
            false,
            "own container",
            "127.0.0.1 is itself",
        ),
        (
            linux(),
            container,
            vec![node("default", "", inside)],
            false,
            "does not lead",
            "no such name on Linux",
        ),
        (
            desktop(),
            container,
            vec![node("default", "", inside)],
            true,
            "names Sampan",
            "Docker Desktop's name",
        ),
        (
            desktop(),
            container,
            vec![node("default", "host", loopback)],
            false,
            "own container",
            "the VM is not this",
        ),
        (
            desktop(),
            container,
            vec![node("default", "", https)],
            false,
            "http = true",
            "https is not spoken here",
        ),
        (
            linux(),
            container,
            vec![node("default", "host", other)],
            false,
            "does not name",
            "somebody else's mirror",
        ),
        (
            linux(),
            container,
            vec![node("default", "host", ghcr)],
            false,
            "does not name",
            "of another registry",
        ),
        (
            linux(),
            container,
            vec![node("default", "host", loopback), node("far", "host", "")],
            false,
            "does not name",
            "every part must",
        ),
        (linux(), container, vec![], false, "no place", "without parts"),
        (linux(), "kubernetes", vec![node("k", "", loopback)], false, "Kubernetes", "a cluster"),
        (linux(), "remote", vec![node("tcp://x", "", "")], false, "elsewhere", "a remote one"),
        (linux(), "cloud", vec![node("x", "", "")], false, "elsewhere", "a cloud's"),
        (linux(), "new-driver", vec![node("x", "", "")], false, "new-driver", "one from the future"),
        (linux(), "", vec![node("default", "", "")], false, "buildkitd.toml", "a file without a driver"),
    ] {
        let text = format!("{{\"Name\":\"it\",\"Driver\":\"{driver}\",\"Nodes\":[{}]}}", nodes.join(","));
        let found = builders(&folder(&[&text], "", None), None, engine.buildx_key());
        let (uses, why) = found[1].uses_mirror(&engine, PORT);
        assert_eq!(uses, expected, "{driver}, {what}: {why}");
        assert!(why.contains(word), "{driver}, {what}: {why}");
    }
    let mut engine = linux();
    engine.builders = builders(&BuildxFolder::default(), None, engine.buildx_key());
    let [(own, true, _)] = &engine.builders_seen(PORT)[..] else { panic!("the engine's own builder") };
    assert_eq!((own.name.as_str(), own.driver.as_str(), own.current), ("default", "docker", true));
    let [(_, false, _)] = &engine.builders_seen(PORT + 1)[..] else { panic!("another port is not Sampan's") };
}

#[test]
fn mirrors_are_read_from_a_buildkitd_toml_as_people_write_it() {
    for (toml, expected, why) in [
        ("[registry.\"docker.io\"]\nmirrors = [\"a:1\", \"b:2/x\"]", &["a:1", "b:2/x"][..], "in order"),
        ("[registry.'docker.io']\n mirrors=['a:1']", &["a:1"], "single quotes"),
        (
            "[registry.\"docker.io\"]\nmirrors = [\n  \"a:1\", # mine\n  \"b:2\"\n]\n",
            &["a:1", "b:2"],
            "several lines",
        ),
        ("# [registry.\"docker.io\"]\n# mirrors = [\"a:1\"]", &[], "a comment"),
        ("[registry.\"ghcr.io\"]\nmirrors = [\"a:1\"]", &[], "another registry"),
        ("mirrors = [\"a:1\"]", &[], "outside of every registry"),
        ("[registry.\"docker.io\"]\nhttp = true\n[worker.oci]\nmirrors = [\"a:1\"]", &[], "another table"),
        ("", &[], "nothing"),
    ] {
        let found = buildkit_mirrors(toml, "docker.io");
        let addresses: Vec<&str> = found.iter().map(|mirror| mirror.address.as_str()).collect();
        assert_eq!(addresses, expected, "{why}");
    }
    let toml = "[registry.\"docker.io\"]\nmirrors=[\"a:1/x\",\"b:2\",\"127.0.0.1:3\"]\n[registry.\"a:1\"]\nhttp=true";
    let http: Vec<bool> = buildkit_mirrors(toml, "docker.io").iter().map(|mirror| mirror.http).collect();
    assert_eq!(http, [true, false, true], "told so, not told so, taken for granted on loopback");
}
