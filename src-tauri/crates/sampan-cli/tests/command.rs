//! The real program `sampan`, as a person or a script uses it.
//!
//! Unix only: it sends signals and speaks to the control socket.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use common::{Place, bare, text};

#[test]
fn the_help_names_every_command_flag_and_exit_code() {
    let help = text(&bare().arg("--help").output().unwrap().stdout);
    for word in [
        "serve",
        "status",
        "images",
        "pin",
        "unpin",
        "freeze",
        "unfreeze",
        "refresh",
        "freshness",
        "offline",
        "clear",
        "undo",
        "cache",
        "scrub",
        "export",
        "import",
        "cancel",
        "allowance",
        "pull",
        "queue",
        "keep",
        "verify-offline",
        "limit",
        "pause",
        "resume",
        "docker",
        "doctor",
        "--config <FILE>",
        "--listen <ADDR:PORT>",
        "--cache-dir <DIR>",
        "--state-dir <DIR>",
        "--upstream <REGISTRY=URL>",
        "--connections <N>",
        "--outage-wait <TIME>",
        "SAMPAN_STATE_DIR",
        "127.0.0.1:7267",
        "3 Sampan is not running",
    ] {
        assert!(help.contains(word), "{word:?} is missing in:\n{help}");
    }
}

#[test]
fn asking_when_nothing_runs_ends_with_3_and_advice() {
    let place = Place::new();
    for arguments in [
        &["status"][..],
        &["images"],
        &["images", "--json"],
        &["clear", "--all", "--yes"],
        &["pin", "nginx"],
        &["unpin", "nginx"],
        &["undo"],
        &["cache"],
        &["cache", "--quota", "20GB"],
        &["scrub"],
        &["scrub", "--background"],
        &["export", "nginx", "--to", "x.tar"],
        &["import", "x.tar"],
        &["limit"],
        &["limit", "off"],
        &["allowance"],
        &["pause"],
        &["resume"],
        &["docker", "enable", "--yes"],
        &["docker", "prove"],
        &["docker", "leave"],
    ] {
        let asked = place.run(arguments);
        assert_eq!(asked.status.code(), Some(3), "{arguments:?}: {}", text(&asked.stderr));
        assert!(text(&asked.stderr).contains("sampan serve"), "what to do: {}", text(&asked.stderr));
        assert!(asked.stdout.is_empty(), "no answer is no document");
    }
    assert!(!Path::new(&place.path("state")).exists(), "asking leaves nothing behind");
}

#[test]
fn an_uninstaller_that_finds_nothing_to_take_back_has_done_its_work() {
    let place = Place::new();
    let asked = |arguments: &[&str]| {
        let no_docker = format!("unix://{}", place.path("no-docker.sock"));
        place.sampan().env("DOCKER_HOST", no_docker).args(arguments).output().unwrap()
    };
    let undone = asked(&["docker", "disable", "--yes"]);
    assert_eq!(undone.status.code(), Some(0), "{}", text(&undone.stderr));
    assert!(text(&undone.stdout).contains("as wanted already"), "{}", text(&undone.stdout));
    let status = asked(&["docker", "status", "--json"]);
    assert_eq!(status.status.code(), Some(4), "not set up: {}", text(&status.stderr));
    assert!(text(&status.stdout).contains("\"found\": false"), "and a document all the same");
    assert_eq!(asked(&["docker", "plan"]).status.code(), Some(5), "there is nothing to set up");
    assert!(!Path::new(&place.path("state")).exists(), "it leaves nothing behind");
}

#[test]
fn the_help_of_docker_names_its_exit_codes() {
    let help = text(&bare().args(["docker", "--help"]).output().unwrap().stdout);
    for word in ["status", "plan", "enable", "disable", "prove", "leave", "4  status:", "7  not proved"] {
        assert!(help.contains(word), "{word:?} is missing in:\n{help}");
    }
}

#[test]
fn wrong_use_ends_with_2() {
    let place = Place::new();
    let config = place.path("config.toml");
    std::fs::write(&config, "lisen = \"127.0.0.1:1\"\n").unwrap();
    let table: [(&[&str], &str); 14] = [
        (&["dance"], "unrecognized"),
        (&["clear"], "IMAGE"),
        (&["serve", "--listen", "here"], "127.0.0.1:7267"),
        (
            &["serve", "--config", &config],
            "config.toml:1:1: `lisen` is not a setting. Did you mean `listen`?",
        ),
        (&["status", "--config", "/nonexistent.toml"], "--config"),
        (&["clear", "--all"], "--yes"),
        (&["limit", "fast"], "2MB/s"),
        (&["limit", "16 Mb/s"], "bits or bytes"),
        (&["pause", "long"], "15m"),
        (&["pin"], "IMAGE"),
        (&["cache", "--quota", "5MB"], "100 MB or more"),
        (&["cache", "--max-age", "0"], "1 to 3650"),
        (&["export", "nginx"], "--to"),
        (&["serve", "--connections", "65"], "1 to 64"),
    ];
    for (arguments, advice) in table {
        let refused = place.run(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains(advice), "{arguments:?}: {}", text(&refused.stderr));
    }
}

#[test]
fn files_that_name_no_images_end_with_2_and_their_line() {
    let place = Place::new();
    let file = place.path("compose.yaml");
    std::fs::write(&file, "services:\n  db:\n    image: 'postgres:${PG}'\n").unwrap();
    let refused = place.run(&["pull", "--file", &file]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("compose.yaml:3: service db"), "{said}");
    let missing = place.run(&["verify-offline", "--file", &place.path("none")]);
    assert_eq!(missing.status.code(), Some(2), "{}", text(&missing.stderr));
    let good = place.sampan().env("PG", "16").args(["pull", "--file", &file]).output().unwrap();
    assert_eq!(good.status.code(), Some(3), "it can be read, and nobody runs: {}", text(&good.stderr));
}

#[test]
fn the_queue_is_changed_and_shown_and_its_images_wait_while_the_registry_is_away() {
    let place = Place::new();
    let _serving = place.serve(&[]);
    let run = |arguments: &[&str]| {
        let output = place.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(run(&["queue"]).contains("No images wait"));
    assert!(
        run(&["queue", "--quiet-hours", "22:00-06:00", "--metered", "on"])
            .contains("Quiet hours: 22:00-06:00.")
    );
    assert!(run(&["queue", "--quiet-hours", "off", "--metered", "off"]).contains("Quiet hours: none"));
    assert!(run(&["queue", "pause"]).contains("The queue is paused"));
    assert!(run(&["pull", "alpine:3", "redis", "--background"]).contains("2 images are in the queue"));
    let list = run(&["queue"]);
    assert!(
        list.contains("docker.io/library/redis:latest") && list.contains("the queue is paused"),
        "{list}"
    );
    assert!(!run(&["queue", "cancel", "1"]).contains("alpine"));
    assert!(run(&["keep", "add", "alpine:3"]).contains("docker.io/library/alpine:3"));
    assert!(run(&["keep", "remove", "alpine:3"]).contains("Nothing is kept fresh"));
    assert!(run(&["queue", "cancel", "--all"]).contains("No images wait"));
    let offline = place.run(&["verify-offline", "alpine:3"]);
    let said = text(&offline.stdout);
    assert_eq!(offline.status.code(), Some(1), "{said}");
    assert!(
        said.contains("✗ tag 3: not in the cache") && said.contains("While the network is there"),
        "{said}"
    );
    let wrong = place.run(&["pull", "Not-A-Name"]);
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong.stderr));
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let place = Place::new();
    let config = place.path("config.toml");
    std::fs::write(&config, "listen = \"127.0.0.1:1\"\n[upstreams]\n\"quay.io\" = \"https://quay.io\"\n")
        .unwrap();
    let from_variable = place.serve(&["--config", &config]);
    assert!(
        !from_variable.address().ends_with(":1"),
        "SAMPAN_LISTEN wins over the file: {}",
        from_variable.ready
    );
    assert!(from_variable.ready.contains("docker.io, quay.io"), "the file adds: {}", from_variable.ready);
    drop(from_variable);
    let from_flag = place.serve(&["--listen", "127.0.0.2:0"]);
    assert!(from_flag.address().starts_with("127.0.0.2:"), "the flag wins: {}", from_flag.ready);
}

#[test]
fn serve_says_one_line_and_ends_cleanly_when_told() {
    for signal in ["TERM", "INT"] {
        let place = Place::new();
        let mut serving = place.serve(&[]);
        let expected = format!(
            "Sampan serves docker.io, ghcr.io, quay.io, gcr.io, registry.k8s.io, mcr.microsoft.com, public.ecr.aws at \
             http://{} (cache {})\n",
            serving.address(),
            place.path("cache")
        );
        assert_eq!(serving.ready, expected);
        let mode = |name: &str| std::fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("state"), mode("state/sampan.sock")), (0o700, 0o600), "for this person alone");
        serving.signal(signal);
        assert_eq!(serving.child.wait().unwrap().code(), Some(0), "SIG{signal} is a request, not a failure");
        let mut rest = String::new();
        serving.out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "nothing else on standard output");
        assert!(!Path::new(&place.path("state/sampan.sock")).exists(), "the socket is gone");
    }
}

#[test]
fn what_runs_can_be_asked() {
    let place = Place::new();
    let serving = place.serve(&[]);

    let status = place.run(&["status"]);
    assert_eq!(status.status.code(), Some(0), "{}", text(&status.stderr));
    assert!(text(&status.stdout).contains(&serving.address()), "{}", text(&status.stdout));
    let json: serde_json::Value = serde_json::from_slice(&place.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(json["mirror"]["listen"], serving.address());
    assert_eq!(json["cache"]["dir"], place.path("cache"));
    assert_eq!(json["today"]["served_bytes"], 0);

    assert_eq!(text(&place.run(&["images"]).stdout), "No images are in the cache yet.\n");
    let json: serde_json::Value =
        serde_json::from_slice(&place.run(&["allowance", "--json"]).stdout).unwrap();
    assert_eq!(json, serde_json::json!([]), "no registry was asked yet");
    assert!(text(&place.run(&["allowance"]).stdout).starts_with("No registry told"));
    let json: serde_json::Value = serde_json::from_slice(&place.run(&["images", "--json"]).stdout).unwrap();
    assert_eq!(json, serde_json::json!([]));

    let json: serde_json::Value =
        serde_json::from_slice(&place.run(&["clear", "--all", "--dry-run", "--json"]).stdout).unwrap();
    let nothing = serde_json::json!({
        "images": [], "blobs": 0, "freed_bytes": 0, "refetch_bytes": 0, "refetch_seconds": null, "undo": null,
        "undo_until": null,
    });
    assert_eq!(json, nothing);
    let cleared = place.run(&["clear", "--all", "--yes"]);
    assert_eq!(cleared.status.code(), Some(0), "{}", text(&cleared.stderr));
    let missing = place.run(&["clear", "nginx", "--yes"]);
    assert_eq!(missing.status.code(), Some(1), "a name that is not there is a slip of the fingers");
    assert!(text(&missing.stderr).contains("sampan images"), "{}", text(&missing.stderr));
    let nonsense = place.run(&["clear", "UPPER CASE", "--yes"]);
    assert_eq!(nonsense.status.code(), Some(1), "{}", text(&nonsense.stderr));
}

/// An OCI image layout of one image without layers, and the digests of its two blobs.
fn layout(folder: &Path) {
    const CONFIG: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    const MANIFEST: &str = "f20c43161d73848408ef247f0ec7111b19fe58ffebc0cbcaa0d2c8bda4967268";
    let config = format!(
        r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{CONFIG}","size":2}}"#
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{config},"layers":[]}}"#
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "digest":"sha256:{MANIFEST}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"alpine:3.20"}}}}]}}"#,
        manifest.len()
    );
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(CONFIG), "{}").unwrap();
    std::fs::write(blobs.join(MANIFEST), manifest).unwrap();
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    std::fs::write(folder.join("index.json"), index).unwrap();
}

#[test]
fn each_name_to_clear_that_names_nothing_is_told_before_anything_goes() {
    let place = Place::new();
    let _serving = place.serve(&[]);
    layout(&place.dir.path().join("layout"));
    let imported = place.run(&["import", &place.path("layout")]);
    assert_eq!(imported.status.code(), Some(0), "{}", text(&imported.stderr));
    let held = || text(&place.run(&["images"]).stdout).contains("alpine");
    assert!(held(), "{}", text(&imported.stdout));

    let slip = place.run(&["clear", "alpine", "apline", "nignx:1", "--now", "--yes"]);
    assert_eq!(slip.status.code(), Some(1), "{}", text(&slip.stdout));
    let told = text(&slip.stderr);
    assert!(told.contains("apline or nignx:1") && told.contains("nothing was cleared"), "{told}");
    assert!(!told.contains("alpine"), "what is there is not complained of: {told}");
    assert!(held());
    let cleared = place.run(&["clear", "alpine", "alpine:3.20", "--now", "--yes"]);
    assert_eq!(cleared.status.code(), Some(0), "{}", text(&cleared.stderr));
    assert!(!held());
}

#[test]
fn the_cache_is_asked_changed_and_read_again() {
    let place = Place::new();
    let _serving = place.serve(&[]);
    let run = |arguments: &[&str], code: i32| {
        let asked = place.run(arguments);
        assert_eq!(asked.status.code(), Some(code), "{arguments:?}: {}", text(&asked.stderr));
        (text(&asked.stdout), text(&asked.stderr))
    };
    let json = |arguments: &[&str]| serde_json::from_str::<serde_json::Value>(&run(arguments, 0).0).unwrap();

    assert!(run(&["cache"], 0).0.contains("chosen by the free disk space"));
    let changed = json(&["cache", "--quota", "20GB", "--max-age", "90", "--verify", "always", "--json"]);
    assert_eq!(changed["cache"]["quota_bytes"], 20_000_000_000_u64);
    assert_eq!(
        (&changed["settings"]["max_age_days"], &changed["settings"]["verify"]),
        (&90.into(), &"always".into())
    );
    let lifted = run(&["cache", "--quota", "off", "--max-age", "off"], 0).0;
    assert!(lifted.contains("none: as much as the disk has"), "{lifted}");

    assert!(run(&["scrub"], 0).0.contains("all as they should be"), "an empty cache is sound");
    assert_eq!(json(&["scrub", "--json"])["complete"], true);
    assert_eq!(json(&["scrub", "--background", "--json"]), serde_json::json!({"begun": true}));

    for arguments in [
        &["pin", "nginx"][..],
        &["unpin", "nginx"],
        &["images", "nginx"],
        &["undo"],
        &["export", "nginx", "--to", "x.tar"],
    ] {
        let (out, told) = run(arguments, 1);
        assert!(
            out.is_empty() && told.to_lowercase().contains("pull"),
            "{arguments:?} says what to do: {told}"
        );
    }
    let (_, told) = run(&["import", "nowhere.tar"], 1);
    let there = std::env::current_dir().unwrap().join("nowhere.tar");
    assert!(told.contains(&*there.to_string_lossy()), "relative to where it was asked: {told}");
}

#[test]
fn what_its_own_terminal_left_behind_can_be_cancelled() {
    let place = Place::new();
    let _serving = place.serve(&[]);
    assert_eq!(text(&place.run(&["cancel"]).stdout), "No export or import goes on.\n");
    assert_eq!(text(&place.run(&["cancel", "--json"]).stdout), "{\n  \"task\": null\n}\n");
}

#[test]
fn the_second_ctrl_c_waits_no_longer() {
    let place = Place::new();
    std::fs::create_dir(place.path("state")).unwrap();
    // A Sampan that takes every question and answers none.
    let socket = UnixListener::bind(place.path("state/sampan.sock")).unwrap();
    let (asked, questions) = mpsc::channel();
    std::thread::spawn(move || {
        for peer in socket.incoming().map_while(Result::ok) {
            let asked = asked.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(peer).lines().map_while(Result::ok) {
                    let _ = asked.send(line);
                }
            });
        }
    });
    let heard = |call: &str| {
        while !questions.recv_timeout(Duration::from_secs(20)).unwrap().contains(call) {}
    };
    let mut import = place.sampan();
    let import =
        import.args(["import", "x.tar"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let interrupt = || {
        assert!(
            Command::new("kill").args(["-s", "INT", &import.id().to_string()]).status().unwrap().success()
        );
    };
    heard("\"import\"");
    interrupt();
    heard("\"stop_task\"");
    interrupt();
    let ended = import.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(text(&ended.stderr).contains("was not waited for"), "{}", text(&ended.stderr));
}

#[test]
fn a_taken_port_is_named_with_its_holder_and_a_way_out() {
    let place = Place::new();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let refused = place.run(&["serve", "--listen", &address]);
    assert_eq!(refused.status.code(), Some(2));
    let told = text(&refused.stderr);
    assert!(told.contains(&address) && told.contains("--listen"), "{told}");
    if cfg!(target_os = "linux") {
        assert!(told.contains(&format!("pid {}", std::process::id())), "who holds it: {told}");
    }
    assert!(refused.stdout.is_empty(), "not ready, so no ready line");
}

#[test]
fn a_second_serve_with_the_same_folders_is_refused_and_others_run_side_by_side() {
    let (one, other) = (Place::new(), Place::new());
    let first = one.serve(&[]);
    let second = one.run(&["serve"]);
    assert_eq!(second.status.code(), Some(2));
    assert!(text(&second.stderr).contains("already"), "{}", text(&second.stderr));
    let beside = other.serve(&[]);
    assert_ne!(first.address(), beside.address());
    assert_eq!(one.run(&["status"]).status.code(), Some(0), "the first goes on");
}

#[test]
fn a_killed_serve_leaves_nothing_that_stops_the_next() {
    let place = Place::new();
    let mut first = place.serve(&[]);
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    assert!(Path::new(&place.path("state/sampan.sock")).exists(), "a killed process cannot clean up");
    assert_eq!(place.run(&["status"]).status.code(), Some(3), "its socket alone is not a Sampan");
    place.serve(&[]);
}

#[test]
fn doctor_looks_as_far_as_it_can_without_a_running_sampan() {
    let place = Place::new();
    let looked = place.run(&["doctor", "--json"]);
    let checks: Vec<serde_json::Value> = serde_json::from_slice(&looked.stdout).unwrap();
    assert!(checks.iter().any(|check| check["name"] == "port"), "{checks:?}");
    assert_eq!(looked.status.code(), Some(1), "not running is not good");

    let config = place.path("config.toml");
    std::fs::write(&config, "nonsense").unwrap();
    let looked = place.run(&["doctor", "--config", &config]);
    assert_eq!(looked.status.code(), Some(1));
    assert!(text(&looked.stdout).contains("config.toml:1:"), "{}", text(&looked.stdout));
}

#[test]
fn doctor_asks_the_running_sampan() {
    let place = Place::new();
    let _serving = place.serve(&[]);
    let looked = place.run(&["doctor", "--json"]);
    let checks: Vec<serde_json::Value> = serde_json::from_slice(&looked.stdout).unwrap();
    assert!(!checks.is_empty(), "{}", text(&looked.stderr));
    let bad = checks.iter().any(|check| check["status"] == "bad");
    assert_eq!(
        looked.status.code(),
        Some(i32::from(bad)),
        "the exit code says what the checks say: {checks:?}"
    );
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let place = Place::new();
    let _serving = place.serve(&[]);
    let mut child = place
        .sampan()
        .args(["status", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{told}");
    assert_eq!(told, "", "and nothing panics");
}

#[test]
fn the_log_is_on_standard_error_and_cannot_steer_a_terminal() {
    let place = Place::new();
    let state = place.path("state\u{1b}[31m\nforged");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(Path::new(&state).join("settings.toml"), "damaged").unwrap();
    let asked = place.sampan().env("SAMPAN_STATE_DIR", &state).arg("status").output().unwrap();
    let told = text(&asked.stderr);
    assert!(told.contains("settings file is damaged"), "{told}");
    assert!(!told.replace('\n', "").contains(|c: char| c.is_control()), "{told:?}");
    assert!(!told.lines().any(|line| line.starts_with("forged")), "a path cannot forge a line: {told:?}");
}

#[test]
fn other_clients_are_set_up_and_taken_back_where_no_sampan_runs() {
    let place = Place::new();
    let file = place.dir.path().join("buildx/buildkitd.default.toml");
    let run = |listen: Option<&str>, arguments: &[&str], code: i32| {
        let mut command = place.sampan();
        command
            .env_remove("SAMPAN_LISTEN")
            .env("BUILDX_CONFIG", place.path("buildx"))
            .arg("clients")
            .args(arguments);
        if let Some(listen) = listen {
            command.args(["--listen", listen]);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        said
    };
    let state = |said: &str| said.lines().find(|line| line.starts_with("buildkit")).unwrap().to_owned();
    let before = run(None, &["list"], 0);
    assert!(before.contains("Sampan is not running") && !state(&before).contains("asks Sampan"), "{before}");
    assert!(run(None, &["plan", "buildkit"], 0).contains("buildkitd.default.toml is made"), "shown");
    assert!(run(None, &["enable", "buildkit"], 2).contains("--yes"), "there is nobody to ask");
    assert!(!file.exists() && !place.dir.path().join("state").exists(), "looking leaves nothing behind");

    run(Some("127.0.0.1:7300"), &["enable", "buildkit", "--yes"], 0);
    assert!(std::fs::read_to_string(&file).unwrap().contains("127.0.0.1:7300"), "by the port it was told of");
    let during = run(None, &[], 0);
    assert!(state(&during).contains("asks Sampan for docker.io"), "whichever port that is: {during}");
    assert!(run(None, &["plan", "buildkit", "--disable"], 0).contains("is removed"), "shown first");
    assert!(file.exists(), "and only shown");
    run(None, &["disable", "buildkit", "--yes"], 0);
    assert!(!file.exists(), "taken back by the command alone, without being told of the port");
    assert!(
        run(None, &["disable", "buildkit", "--yes"], 0).contains("as wanted"),
        "an uninstaller may ask twice"
    );
    assert!(run(None, &["enable", "nothing", "--yes"], 1).contains("podman"), "the names there are");
}
