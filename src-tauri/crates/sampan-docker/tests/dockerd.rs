//! A real dockerd, started for each test with everything it owns in a temporary folder, and ended by its process id.
//! Left out, with the reason printed, where there is no dockerd or the test is not root; in CI that is a failure.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]
#![expect(clippy::print_stdout, reason = "a daemon that does not start says why")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sampan_docker::{
    Action, ApplyError, ApplyMethod, Choice, Direct, Engine, Environment, HelperReport, ImageStore, Kind,
    PlanError, ProbeError, apply, backups, detect, plan, pull_probe,
};
use sampan_oci::{Clock, Millis, RegistryName};
use sampan_testkit::cannot_run;

const PORT: u16 = 7267;
const OURS: &str = "http://127.0.0.1:7267/";

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Millis {
        Millis(1_795_000_000_000)
    }
}

struct Daemon {
    child: Child,
    lines: Receiver<String>,
    dir: tempfile::TempDir,
}

impl Daemon {
    /// Starts a dockerd that reads `config`; `None`, with the reason printed, where that cannot be.
    fn start(config: &str) -> Option<Self> {
        Self::start_as(config, false)
    }

    /// The same, as `systems` in mounts of its own where `/etc/docker` is its folder `etc`.
    fn start_as(config: &str, systems: bool) -> Option<Self> {
        let Some(dockerd) =
            ["/usr/bin/dockerd", "/usr/sbin/dockerd"].map(Path::new).into_iter().find(|p| p.exists())
        else {
            cannot_run("dockerd is not installed");
            return None;
        };
        if !rustix::process::getuid().is_root() {
            cannot_run("dockerd can be started by root only");
            return None;
        }
        // A socket's path holds at most 107 bytes, so not under a deep folder for temporary files.
        let dir = tempfile::Builder::new().prefix("sd").tempdir_in("/tmp").unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join(if systems { "etc/daemon.json" } else { "daemon.json" }), config)
            .unwrap();
        let at = |name: &str| dir.path().join(name).into_os_string();
        let mut command = Command::new(if systems { Path::new("unshare") } else { dockerd });
        if systems {
            let script = "mkdir -p /etc/docker && mount --bind \"$0/etc\" /etc/docker && exec \"$@\"";
            command.args(["-m", "sh", "-c", script]).arg(dir.path()).arg(dockerd);
        } else {
            command.arg("--config-file").arg(at("daemon.json"));
        }
        let mut child = command
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .arg("-H")
            .arg(format!("unix://{}", dir.path().join("s").display()))
            .args(["--storage-driver=vfs", "--bridge=none", "--iptables=false", "--ip-forward=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stderr = child.stderr.take().unwrap();
        // Read to its end, so that dockerd never waits for its own log.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let daemon = Self { child, lines, dir };
        assert!(daemon.says("API listen on"), "dockerd did not start");
        Some(daemon)
    }

    /// Waits for a line of its log.
    fn says(&self, text: &str) -> bool {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_mins(1)) {
            if line.contains(text) {
                return true;
            }
            seen.push(line);
        }
        println!("dockerd said:\n{}", seen.join("\n"));
        false
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("daemon.json")
    }

    fn content(&self) -> String {
        std::fs::read_to_string(self.config()).unwrap()
    }

    fn env(&self) -> Environment {
        Environment {
            docker_host: Some(format!("unix://{}", self.dir.path().join("s").display())),
            docker_context: None,
            docker_config_dir: None,
            buildx_config_dir: None,
            home: self.dir.path().into(),
            xdg_config_home: None,
            uid: 0,
            state_dir: self.dir.path().join("state"),
            system_state_dir: self.dir.path().join("system"),
            registries: vec![RegistryName::docker_hub()],
            clock: Arc::new(Stopped),
        }
    }

    /// Detects, plans and applies, as a person would by two clicks.
    async fn change(&self, action: Action) -> Result<Vec<String>, ApplyError> {
        let env = self.env();
        let engine = detect(&env).await;
        let planned = plan(&engine, action, PORT, &Choice::AsNow).unwrap();
        apply(&env, &engine, &planned, false, &Direct).await.map(|applied| applied.steps)
    }

    async fn mirrors(&self) -> Vec<String> {
        detect(&self.env()).await.mirrors
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // SIGTERM, so that it ends its own containerd too.
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let _ = self.child.wait();
    }
}

fn is_recent(engine: &Engine) -> bool {
    engine.version.as_deref().and_then(sampan_docker::Version::parse)
        >= Some(sampan_docker::Version(28, 0, 0))
}

#[tokio::test]
async fn a_real_docker_takes_the_mirror_by_reload_and_lets_go_of_it_byte_for_byte() {
    let original = "{\r\n  \"debug\": false,\r\n  \"max-concurrent-downloads\": 4\r\n}\r\n";
    let Some(daemon) = Daemon::start(original) else { return };
    let engine = detect(&daemon.env()).await;
    assert!(engine.found && engine.supported(), "it is found and can be set up: {engine:#?}");
    assert_eq!(
        (&engine.kind, engine.image_store),
        (&Kind::Linux, Some(ImageStore::Classic)),
        "{:#?}",
        engine.evidence
    );
    assert_eq!(engine.pid, Some(daemon.child.id()), "by the socket's peer: {:#?}", engine.evidence);
    let config = engine.config.as_ref().unwrap();
    assert_eq!((&config.path, engine.config_named), (&daemon.config(), true), "by its own command line");
    assert!(engine.evidence.len() >= 6, "every fact has its evidence: {:#?}", engine.evidence);
    if is_recent(&engine) {
        return;
    }
    let planned = plan(&engine, Action::Enable, PORT, &Choice::AsNow).unwrap();
    assert_eq!(planned.apply, ApplyMethod::Reload, "never a restart");
    assert_eq!(daemon.content(), original, "a plan changes nothing");

    let steps = daemon.change(Action::Enable).await.unwrap();
    assert_eq!(daemon.mirrors().await, [OURS], "the engine itself lists Sampan: {steps:#?}");
    assert!(detect(&daemon.env()).await.enabled(PORT), "and Sampan knows it");
    assert_eq!(
        detect(&daemon.env()).await.pid,
        Some(daemon.child.id()),
        "it is the same process: nothing restarted"
    );
    let backup = backups(&daemon.config()).pop().unwrap();
    assert_eq!(std::fs::read_to_string(backup).unwrap(), original, "the file as it was is beside it");
    let again = daemon.change(Action::Enable).await.unwrap();
    assert_eq!(again, ["Everything was as wanted already."], "enabling twice changes nothing");

    let steps = daemon.change(Action::Disable).await.unwrap();
    assert_eq!(daemon.mirrors().await, Vec::<String>::new(), "the running engine has let go: {steps:#?}");
    assert_eq!(daemon.content(), original, "byte for byte as it was");
    assert!(!detect(&daemon.env()).await.enabled(PORT), "and Sampan knows it");
}

#[tokio::test]
async fn a_real_docker_keeps_other_mirrors_through_enabling_and_disabling() {
    let original = r#"{"registry-mirrors": ["https://mirror.example"], "debug": false}"#;
    let Some(daemon) = Daemon::start(original) else { return };
    if is_recent(&detect(&daemon.env()).await) {
        return;
    }
    daemon.change(Action::Enable).await.unwrap();
    assert_eq!(daemon.mirrors().await, [OURS, "https://mirror.example/"], "ours first, theirs next");
    // Somebody edits the file meanwhile: the undo is by structure then, and their edit stays.
    let edited = daemon.content().replace("\"debug\": false", "\"debug\": true");
    std::fs::write(daemon.config(), &edited).unwrap();
    daemon.change(Action::Disable).await.unwrap();
    assert_eq!(daemon.mirrors().await, ["https://mirror.example/"], "theirs stays");
    assert_eq!(
        daemon.content(),
        original.replace("\"debug\": false", "\"debug\": true"),
        "and so does the edit"
    );
}

#[tokio::test]
async fn a_broken_file_is_refused_and_a_refused_change_is_taken_back() {
    let original = "{\"debug\": false}\n";
    let Some(daemon) = Daemon::start(original) else { return };
    if is_recent(&detect(&daemon.env()).await) {
        return;
    }
    let broken = "{\"debug\": false,}\n";
    std::fs::write(daemon.config(), broken).unwrap();
    let refused = plan(&detect(&daemon.env()).await, Action::Enable, PORT, &Choice::AsNow);
    let Err(PlanError::Refused { refusal, .. }) = refused else {
        panic!("broken JSON is not edited: {refused:?}")
    };
    assert_eq!((refusal.line, refusal.column), (Some(1), Some(17)), "with its place: {refusal}");
    assert_eq!(daemon.content(), broken, "untouched");

    // A key dockerd does not know makes every reload fail, ours too.
    let unknown = "{\"debug\": false, \"no-such-setting\": true}\n";
    std::fs::write(daemon.config(), unknown).unwrap();
    let can_be_asked = detect(&daemon.env()).await.validator.is_some();
    let failed = daemon.change(Action::Enable).await;
    if can_be_asked {
        let Err(ApplyError::Invalid(words)) = failed else { panic!("asked first, it says so: {failed:?}") };
        assert!(words.contains("no-such-setting"), "in its own words: {words}");
        assert_eq!(daemon.content(), unknown, "byte for byte as it was");
        assert!(backups(&daemon.config()).is_empty(), "nothing was edited");
        return;
    }
    let Err(ApplyError::RolledBack { reason, steps }) = failed else {
        panic!("dockerd refuses it: {failed:?}")
    };
    assert!(reason.contains("did not take"), "{reason} {steps:#?}");
    assert_eq!(daemon.content(), unknown, "byte for byte as it was");
    assert_eq!(daemon.mirrors().await, Vec::<String>::new(), "and the engine as it was");
}

#[tokio::test]
async fn a_probe_that_cannot_be_pulled_says_why() {
    let Some(daemon) = Daemon::start("{}") else { return };
    let engine = detect(&daemon.env()).await;
    let failed = pull_probe(&engine, "127.0.0.1:1/sampan/probe:1").await;
    assert!(
        matches!(&failed, Err(ProbeError::Pull(words)) if words.contains("refused")),
        "nobody listens on port 1, in the engine's own words: {failed:?}"
    );
}

/// A registry with one image of one empty layer, on a port of its own. Answers until the test ends.
fn tiny_registry() -> u16 {
    let digest = |bytes: &[u8]| sampan_oci::Digest::of(bytes).to_string();
    let layer = vec![0_u8; 1024];
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}},"history":[]}}"#,
        digest(&layer)
    );
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":{},"digest":"{}"}},"layers":[{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":{},"digest":"{}"}}]}}"#,
        config.len(),
        digest(config.as_bytes()),
        layer.len(),
        digest(&layer)
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            // dockerd tries TLS first: those bytes are no line of text, and the connection ends.
            while reader.read_line(&mut head).is_ok_and(|length| length > 2) {}
            let body: &[u8] = match head.split(' ').nth(1) {
                Some("/v2/") => b"{}",
                Some(path) if path.contains("/manifests/") => manifest.as_bytes(),
                Some(path) if path.ends_with(&digest(config.as_bytes())) => config.as_bytes(),
                Some(path) if path.ends_with(&digest(&layer)) => &layer,
                Some(_) | None => continue,
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nDocker-Content-Digest: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                digest(body),
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
            if !head.starts_with("HEAD") {
                let _ = stream.write_all(body);
            }
        }
    });
    port
}

#[tokio::test]
async fn a_probe_is_pulled_through_the_engine_and_leaves_nothing_behind() {
    let Some(daemon) = Daemon::start("{}") else { return };
    let engine = detect(&daemon.env()).await;
    let image = format!("127.0.0.1:{}/sampan/probe:1", tiny_registry());
    pull_probe(&engine, &image).await.unwrap();
    pull_probe(&engine, &image).await.unwrap();
    let images = daemon.dir.path().join("data/image/vfs/imagedb/content/sha256");
    assert_eq!(std::fs::read_dir(images).unwrap().count(), 0, "the probe's image is removed each time");
}

#[tokio::test]
async fn what_was_done_is_undone_byte_for_byte_with_the_daemon_and_without_it() {
    let original = "{\"debug\": false,\n \"max-concurrent-uploads\": 3}\n";
    for dies in [false, true] {
        let Some(mut daemon) = Daemon::start(original) else { return };
        let env = daemon.env();
        let engine = detect(&env).await;
        if is_recent(&engine) {
            return;
        }
        let planned = plan(&engine, Action::Enable, PORT, &Choice::AsNow).unwrap();
        let applied = apply(&env, &engine, &planned, false, &Direct).await.unwrap();
        assert_eq!(daemon.mirrors().await, [OURS], "it is in place");
        if dies {
            daemon.child.kill().unwrap();
            // Not waited for before the undo: a process that ended is gone although it still has its number.
        }
        let steps = sampan_docker::undo(&env, &engine, &planned, &applied, &Direct).await.unwrap();
        assert_eq!(daemon.content(), original, "byte for byte as it was: {steps:#?}");
        let says = steps.iter().any(|step| step.contains("does not run"));
        assert_eq!(says, dies, "a person is told: {steps:#?}");
        if dies {
            daemon.child.wait().unwrap();
        } else {
            assert_eq!(daemon.mirrors().await, Vec::<String>::new(), "the running engine has let go");
        }
    }
}

/// Runs the built helper as the system's: its Docker is `daemon`, and what it writes is in the daemon's folder.
fn real_helper(daemon: &Daemon, verb: &str) -> HelperReport {
    let script = "set -e; mount -t tmpfs none /run; touch /run/docker.sock; mount --bind \"$0/s\" /run/docker.sock; \
                  mount --bind \"$0/etc\" /etc/docker; mount --bind \"$0/var\" /var/lib; \
                  exec \"$0/sampan-helper\" \"$1\" \"$2\"";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(daemon.dir.path())
        .args([verb, &PORT.to_string()])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {words}"))
}

#[tokio::test]
async fn real_helper_enables_and_disables_the_systems_docker_byte_for_byte() {
    let original = "{\n\t\"debug\": false\n}\n";
    let Some(daemon) = Daemon::start_as(original, true) else { return };
    let at = |name: &str| daemon.dir.path().join(name);
    let config = at("etc/daemon.json");
    // The helper runs only from where nobody but root can have put it.
    std::fs::copy(env!("CARGO_BIN_EXE_sampan-helper"), at("sampan-helper")).unwrap();
    std::fs::create_dir_all(at("var/sampan")).unwrap();

    let report = real_helper(&daemon, "enable-restart.0123456789abcdef");
    assert!(
        !report.done && report.error.as_ref().unwrap().contains("by hand"),
        "nothing restarts it: {report:?}"
    );
    assert_eq!(std::fs::read_to_string(&config).unwrap(), original, "untouched");

    let report = real_helper(&daemon, "enable");
    assert!(report.done && report.commands.is_empty(), "{report:?}");
    assert_eq!(daemon.mirrors().await, [OURS], "the engine itself lists Sampan: {report:#?}");
    assert_ne!(std::fs::read_to_string(&config).unwrap(), original, "the system's own file names it");
    assert!(at("var/sampan/docker.json").exists(), "it is written down where only root writes");

    // As if it had been killed before it wrote down that it was done.
    let journal = at("var/sampan/docker.json");
    let written = std::fs::read_to_string(&journal).unwrap();
    let killed = written.replace("\"pending\"", "\"\"").replace("\"installed\"", "\"pending\"");
    std::fs::write(&journal, killed).unwrap();
    let report = real_helper(&daemon, "enable");
    assert!(report.done && report.steps.len() > 3, "settled, then done: {report:#?}");
    assert_eq!(daemon.mirrors().await, [OURS], "and in place: {report:#?}");
    let journal = std::fs::read_to_string(journal).unwrap();
    assert!(journal.contains("\"pending\": []"), "nothing is left half done: {journal}");

    let held = sampan_docker::hold(&at("var/sampan"), 0).unwrap();
    let report = real_helper(&daemon, "disable");
    assert!(!report.done, "one at a time: {report:?}");
    assert!(report.error.as_ref().unwrap().contains("under way"), "and it says so: {report:?}");
    assert_eq!(daemon.mirrors().await, [OURS], "nothing was changed");
    drop(held);

    let report = real_helper(&daemon, "disable");
    assert!(report.done, "{report:?}");
    assert_eq!(daemon.mirrors().await, Vec::<String>::new(), "the running engine has let go: {report:#?}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), original, "byte for byte as it was");
    assert!(!at("etc/certs.d").exists(), "no folder is left behind");

    let journal = at("var/sampan/docker.json");
    std::fs::set_permissions(&journal, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let report = real_helper(&daemon, "enable");
    assert!(!report.done, "a journal that others can write is no journal: {report:?}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), original, "nothing was changed");
}
