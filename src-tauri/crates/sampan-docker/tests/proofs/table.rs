//! R99: `daemon.json` as people have it, on real files: changed exactly as shown, or untouched.

use sampan_docker::{Action, ApplyError, ApplyMethod, Choice, Direct, PlanError, apply, detect, plan};

use crate::daemon::Daemon;
use crate::place::{environment, reads_config, tree};

/// Files dockerd takes, and what they are with Sampan in them (`OURS`: its address).
pub(crate) const EDITED: &[(&str, &str)] = &[
    ("{}", "{\n  \"registry-mirrors\": [\"OURS\"]\n}"),
    ("{}\n", "{\n  \"registry-mirrors\": [\"OURS\"]\n}\n"),
    ("", "{\n  \"registry-mirrors\": [\"OURS\"]\n}\n"),
    ("\n\n", "{\n  \"registry-mirrors\": [\"OURS\"]\n}\n"),
    (" \t\r\n", "{\r\n  \"registry-mirrors\": [\"OURS\"]\r\n}\r\n"),
    ("{ }", "{\n  \"registry-mirrors\": [\"OURS\"]\n}"),
    ("{\n}\n", "{\n  \"registry-mirrors\": [\"OURS\"]\n}\n"),
    ("{\"debug\"  :false}", "{\"debug\"  :false,\"registry-mirrors\":[\"OURS\"]}"),
    ("{\"debug\":false}", "{\"debug\":false,\"registry-mirrors\":[\"OURS\"]}"),
    ("{\"debug\": false}", "{\"debug\": false, \"registry-mirrors\": [\"OURS\"]}"),
    ("{\n    \"debug\": false\n}\n", "{\n    \"debug\": false,\n    \"registry-mirrors\": [\"OURS\"]\n}\n"),
    ("{\n\t\"debug\": false\n}\n", "{\n\t\"debug\": false,\n\t\"registry-mirrors\": [\"OURS\"]\n}\n"),
    (
        "{\r\n  \"debug\": false\r\n}\r\n",
        "{\r\n  \"debug\": false,\r\n  \"registry-mirrors\": [\"OURS\"]\r\n}\r\n",
    ),
    ("{\n\n  \"debug\": false\n\n}", "{\n\n  \"debug\": false,\n  \"registry-mirrors\": [\"OURS\"]\n\n}"),
    ("  {\"debug\": false}  \n", "  {\"debug\": false, \"registry-mirrors\": [\"OURS\"]}  \n"),
    (
        "{\"max-concurrent-uploads\": 3, \"debug\": false, \"max-concurrent-downloads\": 10}",
        "{\"max-concurrent-uploads\": 3, \"debug\": false, \"max-concurrent-downloads\": 10, \"registry-mirrors\": [\"OURS\"]}",
    ),
    (
        "{\"labels\": [\"registry-mirrors=x\"]}",
        "{\"labels\": [\"registry-mirrors=x\"], \"registry-mirrors\": [\"OURS\"]}",
    ),
    (
        "{\"labels\": [\"é=\\u00fc\\\"\"], \"debug\": false}",
        "{\"labels\": [\"é=\\u00fc\\\"\"], \"debug\": false, \"registry-mirrors\": [\"OURS\"]}",
    ),
    ("{\"registry-mirrors\": []}", "{\"registry-mirrors\": [\"OURS\"]}"),
    ("{\"registry-mirrors\": [ ]}", "{\"registry-mirrors\": [\"OURS\" ]}"),
    ("{\"registry-mirrors\": [\n  ]\n}", "{\"registry-mirrors\": [\"OURS\"\n  ]\n}"),
    (
        "{\"registry-mirrors\": [\"https://m.example\"]}",
        "{\"registry-mirrors\": [\"OURS\", \"https://m.example\"]}",
    ),
    (
        "{\"registry-mirrors\":[\"https://m.example\"]}",
        "{\"registry-mirrors\":[\"OURS\",\"https://m.example\"]}",
    ),
    (
        "{\"registry-mirrors\": [\"https://m.example/\"]}",
        "{\"registry-mirrors\": [\"OURS\", \"https://m.example/\"]}",
    ),
    (
        "{\"registry-mirrors\": [\"https:\\/\\/m.example\"]}",
        "{\"registry-mirrors\": [\"OURS\", \"https:\\/\\/m.example\"]}",
    ),
    (
        "{\n  \"registry-mirrors\": [\n    \"https://m.example\",\n    \"https://n.example\"\n  ]\n}\n",
        "{\n  \"registry-mirrors\": [\n    \"OURS\",\n    \"https://m.example\",\n    \"https://n.example\"\n  ]\n}\n",
    ),
    (
        "{\"registry-mirrors\": [\"https://m.example\",  \"https://n.example\"], \"debug\": false}",
        "{\"registry-mirrors\": [\"OURS\",  \"https://m.example\",  \"https://n.example\"], \"debug\": false}",
    ),
    (
        "{\"registry\\u002dmirrors\": [\"https://m.example\"]}",
        "{\"registry\\u002dmirrors\": [\"OURS\", \"https://m.example\"]}",
    ),
    (
        "{\"registry-mirrors\": [\"http://127.0.0.1:5100\"]}",
        "{\"registry-mirrors\": [\"OURS\", \"http://127.0.0.1:5100\"]}",
    ),
    (
        "{\"insecure-registries\": [\"10.0.0.1:5000\"],\n\"shutdown-timeout\": 15}",
        "{\"insecure-registries\": [\"10.0.0.1:5000\"],\n\"shutdown-timeout\": 15,\n\"registry-mirrors\": [\"OURS\"]}",
    ),
];

/// Files nobody edits, and what they are.
pub(crate) const REFUSED: &[(&[u8], &str)] = &[
    (b"{", "cut short"),
    (b"{\"a\": }", "no value"),
    (b"{\"a\" 1}", "no colon"),
    (b"{\"a\": 1 \"b\": 2}", "no comma"),
    (b"{\n  'a': 1\n}", "single quotes"),
    (b"{a: 1}", "a bare key"),
    (b"{\"a\": 01}", "a leading zero"),
    (b"{\"a\": +1}", "a plus sign"),
    (b"{\"a\": 0x1}", "a hexadecimal number"),
    (b"{\"a\": NaN}", "not a number"),
    (b"{\"a\": 1e999}", "a number nothing can hold"),
    (b"{\"a\": \"\x01\"}", "a control character"),
    (b"{\"a\": \"\\x41\"}", "an escape JSON does not have"),
    (b"{\"a\": \"\\ud800\"}", "half a character"),
    (b"{} {}", "two values"),
    (b"{}\n}", "a brace too many"),
    (b"{\"a\": [1, 2}", "brackets crossed"),
    (b"hello", "prose"),
    (b"debug: true\n", "YAML"),
    (b"[registry]\nmirrors = []\n", "TOML"),
    (b"\xc2\xa0{}", "a blank that is none in JSON"),
    (b"{} // note", "a comment after the end"),
    (b"{ // note\n}", "a comment"),
    (b"{ /* note */ }", "a block comment"),
    (b"# note\n{}", "a comment of another language"),
    (b"{\"a\": 1,}", "a comma before a brace"),
    (b"{\"registry-mirrors\": [\"https://m\",]}", "a comma before a bracket"),
    (b"{\"debug\": true, \"debug\": false}", "a key twice"),
    (b"{\"registry-mirrors\": [], \"registry-mirrors\": []}", "our key twice"),
    (b"{\"log-opts\": {\"a\": \"1\", \"a\": \"2\"}}", "a key twice, deeper"),
    (b"{\"debug\": true, \"\\u0064ebug\": false}", "a key twice, escaped once"),
    (b"{\"Registry-Mirrors\": []}", "our key in another spelling"),
    (b"[]", "a list"),
    (b"\"text\"", "a text"),
    (b"null", "nothing at all"),
    (b"42", "a number"),
    (b"{\"registry-mirrors\": null}", "null instead of a list"),
    (b"{\"registry-mirrors\": \"https://m\"}", "a text instead of a list"),
    (b"{\"registry-mirrors\": {}}", "an object instead of a list"),
    (b"{\"registry-mirrors\": [1]}", "a number in the list"),
    (b"{\"registry-mirrors\": [\"https://m\", null]}", "null in the list"),
    (b"\xff\xfe{\x00}\x00", "UTF-16"),
    (b"\xfe\xff\x00{\x00}", "UTF-16, big end first"),
    (b"{\x00}\x00", "UTF-16 without a mark"),
    (b"{\"a\": \"\xe9\"}", "Latin-1"),
    (b"{\"a\": \"\xff\"}", "no UTF-8"),
    (b"\0", "a zero byte"),
    (b"\x1f\x8b\x08\x00", "gzip"),
];

#[tokio::test]
async fn what_is_not_edited_with_certainty_stays_untouched_on_disk() {
    let mut files: Vec<(Vec<u8>, &str)> =
        REFUSED.iter().map(|(bytes, what)| (bytes.to_vec(), *what)).collect();
    let long = |length: usize| format!("{{\"a\": \"{}\"}}", "x".repeat(length)).into_bytes();
    files.push((long(1024 * 1024), "more than a MiB"));
    files.push((format!("{{\"a\": {}{}}}", "[".repeat(200), "]".repeat(200)).into_bytes(), "too deep"));
    assert!(files.len() + EDITED.len() >= 60, "{} and {}", files.len(), EDITED.len());
    for (bytes, what) in files {
        let dir = tempfile::tempdir().unwrap();
        let (config, hosts) = (dir.path().join("daemon.json"), dir.path().join("hosts.toml"));
        std::fs::write(&config, &bytes).unwrap();
        let before = tree(dir.path());
        let engine = reads_config(&config, &hosts);
        let refused = plan(&engine, Action::Enable, 7267, &Choice::AsNow);
        assert!(matches!(refused, Err(PlanError::Refused { .. })), "{what}: {refused:?}");
        // Nothing of Sampan's is to be seen in it, so there is nothing to take back either.
        let planned = plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap();
        apply(&environment(dir.path(), None), &engine, &planned, false, &Direct).await.unwrap();
        assert_eq!(tree(dir.path()), before, "{what}: byte for byte, and nothing beside it");
    }
}

#[tokio::test]
async fn real_docker_takes_30_kinds_of_files_exactly_as_shown_and_gets_them_back_byte_for_byte() {
    let Some(daemon) = Daemon::start("{}") else { return };
    let env = environment(daemon.folder(), Some(daemon.endpoint()));
    assert_eq!(EDITED.len(), 30);
    let pid = detect(&env).await.pid;
    for (original, shown) in EDITED {
        let shown = shown.replace("OURS", "http://127.0.0.1:7267");
        std::fs::write(daemon.config(), original).unwrap();
        let engine = detect(&env).await;
        let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
        assert_eq!(planned.apply, ApplyMethod::Reload, "never a restart");
        apply(&env, &engine, &planned, false, &Direct).await.unwrap();
        assert_eq!(daemon.content(), shown, "exactly as shown: {original:?}");
        let engine = detect(&env).await;
        assert_eq!(
            engine.mirrors.first().map(String::as_str),
            Some("http://127.0.0.1:7267/"),
            "{original:?}"
        );
        let planned = plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap();
        apply(&env, &engine, &planned, false, &Direct).await.unwrap();
        assert_eq!(daemon.content(), *original, "byte for byte as it was");
        let engine = detect(&env).await;
        assert!(!engine.enabled(7267), "dockerd has let go: {original:?}");
        assert_eq!(engine.pid, pid, "the same dockerd all along");
    }
    // What dockerd itself refuses is taken back: a key it does not know, a mirror that is no address, and a byte order
    // mark, which it takes since 23.0.
    let recent = detect(&env).await.version.and_then(|version| sampan_docker::Version::parse(&version))
        >= Some(sampan_docker::Version(23, 0, 0));
    let refused =
        ["{\"no-such-key\": 1}\n", "{\"registry-mirrors\": [\"ftp://m\"]}\n", "\u{feff}{\"debug\": false}"];
    for original in refused.into_iter().filter(|text| !(recent && text.starts_with('\u{feff}'))) {
        std::fs::write(daemon.config(), original).unwrap();
        let engine = detect(&env).await;
        let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
        let failed = apply(&env, &engine, &planned, false, &Direct).await;
        assert!(matches!(failed, Err(ApplyError::RolledBack { .. })), "{original:?}: {failed:?}");
        assert_eq!(daemon.content(), original, "byte for byte as it was");
    }
}
