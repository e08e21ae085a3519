//! Other clients than Docker, and other registries than Docker Hub: what Sampan writes for them is read by the real
//! program, which then pulls through Sampan from the upstream of the registry that the image names.

#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::time::Duration;

use sampan_app::api::{ClientApplied, ClientSetup, Code, Command, DockerAction, DockerPlan};
use sampan_tests::{
    Dockerd, DockerdOptions, Images, Place, Process, Registry, Sampan, SampanOptions, bins, finish, turn,
};

/// Two registries with the same images: what each sends says which one was asked.
struct Upstreams {
    hub: Registry,
    ghcr: Registry,
}

impl Upstreams {
    fn start(images: &Images) -> Self {
        Self { hub: images.registry(), ghcr: images.registry() }
    }

    fn options(&self) -> String {
        // `--upstream` takes several, separated by commas.
        format!("{},ghcr.io={}", self.hub.url(), self.ghcr.url())
    }

    /// Waits until the one has sent an image, and says what the other has.
    fn assert_sent(&self, hub: u64, ghcr: u64, why: &str) {
        assert_eq!(self.hub.settled_bytes(hub), hub, "Docker Hub: {why}");
        assert_eq!(self.ghcr.settled_bytes(ghcr), ghcr, "ghcr.io: {why}");
    }
}

/// A dockerd whose mount namespace has `/etc` folders of the test's own, so that this machine's stay as they are.
fn namespace(folders: &[(&str, &Path)]) -> Dockerd {
    let dockerd = Dockerd::start(DockerdOptions { place: Place::Usual, ..DockerdOptions::default() });
    for (there, ours) in folders {
        std::fs::create_dir_all(ours).expect("a temporary folder can be written to");
        let mut mount = dockerd.beside(Path::new("mount"));
        let output = finish(mount.arg("--bind").arg(ours).arg(there));
        assert!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
    }
    dockerd
}

fn run(program: &mut Program) -> String {
    let output = finish(program);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?}: {words}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn state(sampan: &Sampan, id: &str) -> ClientSetup {
    let all: Vec<ClientSetup> = sampan.cli_json(&["clients"]);
    all.into_iter().find(|client| client.id == id).expect("every client is listed")
}

#[tokio::test]
async fn real_podman_reads_what_sampan_wrote_and_asks_it_for_two_registries() {
    let Some(_turn) = turn(&["podman", "dockerd", "docker-registry", "skopeo", "unshare", "nsenter"]) else {
        return;
    };
    let images = Images::prepare();
    let (image, upstreams) = (&images.small, Upstreams::start(&images));
    let folder = sampan_tests::scratch();
    let drop_ins = folder.path().join("registries.conf.d");
    let dockerd = namespace(&[("/etc/containers/registries.conf.d", &drop_ins)]);
    let options = SampanOptions { upstream: upstreams.options(), dockerd: Some(&dockerd), beside: true };
    let sampan = Sampan::start(&options);
    assert!(state(&sampan, "podman").found, "it is installed: {:?}", state(&sampan, "podman"));

    let plan: DockerPlan = sampan.cli_json(&["clients", "plan", "podman", "--registry", "ghcr.io"]);
    let [file] = &plan.files[..] else { panic!("one file: {plan:#?}") };
    assert_eq!(file.path, "/etc/containers/registries.conf.d/50-sampan.conf");
    assert_eq!(std::fs::read_dir(&drop_ins).unwrap().count(), 0, "a plan changes nothing");
    let enable = ["clients", "enable", "podman", "--registry", "ghcr.io", "--yes"];
    let applied: ClientApplied = sampan.cli_json(&enable);
    assert_eq!(applied.client.registries, ["docker.io", "ghcr.io"], "{applied:#?}");
    let written = std::fs::read_to_string(drop_ins.join("50-sampan.conf")).unwrap();
    let shown: Vec<&str> = file.diff.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(written.lines().collect::<Vec<_>>(), shown, "exactly what was shown");

    let podman = |arguments: &[&str]| {
        let mut podman = dockerd.beside(&bins::installed("podman").unwrap());
        podman.env("HOME", folder.path()).args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        for (flag, name) in [("--root", "data"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            podman.arg(flag).arg(folder.path().join(name));
        }
        run(podman.args(arguments))
    };
    podman(&["pull", "--quiet", &format!("ghcr.io/{}:1", image.repository)]);
    upstreams.assert_sent(0, image.total_bytes(), "the registry that the name says");
    podman(&["pull", "--quiet", &format!("docker.io/{}:1", image.repository)]);
    // The layers are on disk already, and podman has them too: only the manifests are Docker Hub's own.
    assert!(upstreams.hub.settled_bytes(1) > 0, "Docker Hub's was asked as well");
    sampan.idle().await;
    let mut pulled: Vec<String> = sampan.history().await.into_iter().map(|pull| pull.image).collect();
    pulled.sort();
    assert_eq!(pulled, [format!("docker.io/{}", image.repository), format!("ghcr.io/{}", image.repository)]);

    let undone: ClientApplied = sampan.cli_json(&["clients", "disable", "podman", "--yes"]);
    assert!(!undone.client.enabled && undone.client.registries.is_empty(), "{undone:#?}");
    assert_eq!(std::fs::read_dir(&drop_ins).unwrap().count(), 0, "no trace is left");
}

/// A containerd of the test's own.
struct Containerd {
    _process: Process,
    socket: PathBuf,
}

impl Containerd {
    fn start(folder: &Path) -> Self {
        let socket = folder.join("c.sock");
        let at = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  \
             address = \"{}\"\n",
            at("root"),
            at("state"),
            socket.display()
        );
        std::fs::write(folder.join("config.toml"), config).expect("a temporary folder can be written to");
        let mut command = Program::new(bins::installed("containerd").expect("the test asked for it"));
        command.arg("--config").arg(folder.join("config.toml"));
        let mut process = Process::start("containerd", folder, &mut command);
        process.wait_for_line(Duration::from_secs(30), |line| line.contains("successfully booted"));
        Self { _process: process, socket }
    }
}

#[tokio::test]
async fn real_containerd_reads_what_sampan_wrote_and_says_by_ns_which_registry_it_means() {
    let needed = ["containerd", "ctr", "dockerd", "docker-registry", "skopeo", "unshare", "nsenter"];
    let Some(_turn) = turn(&needed) else { return };
    let images = Images::prepare();
    let (image, upstreams) = (&images.small, Upstreams::start(&images));
    let folder = sampan_tests::scratch();
    let etc = folder.path().join("etc");
    // All of the system's containerd configuration, if there is any, is out of the way.
    let there = Path::new("/etc/containerd");
    if !there.is_dir() {
        sampan_testkit::cannot_run(&format!("{} does not exist", there.display()));
        return;
    }
    let dockerd = namespace(&[("/etc/containerd", &etc)]);
    let options = SampanOptions { upstream: upstreams.options(), dockerd: Some(&dockerd), beside: true };
    let sampan = Sampan::start(&options);
    let applied: ClientApplied =
        sampan.cli_json(&["clients", "enable", "containerd", "--registry", "ghcr.io", "--yes"]);
    assert_eq!(applied.client.registries, ["docker.io", "ghcr.io"], "{applied:#?}");
    let hosts = etc.join("certs.d/ghcr.io/hosts.toml");
    let text = std::fs::read_to_string(&hosts).unwrap();
    let parsed: toml::Table = text.parse().unwrap();
    assert_eq!(parsed["server"].as_str(), Some("https://ghcr.io"), "the registry stays the last resort");

    let containerd = Containerd::start(folder.path());
    let ctr = |arguments: &[&str]| {
        let mut ctr = dockerd.beside(&bins::installed("ctr").unwrap());
        run(ctr.arg("--address").arg(&containerd.socket).args(arguments))
    };
    let pull = |name: &str| {
        let certs = etc.join("certs.d").display().to_string();
        ctr(&["images", "pull", "--snapshotter", "native", "--hosts-dir", &certs, name])
    };
    // Both files name the same address: only `ns=` says whose image is meant.
    pull(&format!("ghcr.io/{}:1", image.repository));
    upstreams.assert_sent(0, image.total_bytes(), "ns=ghcr.io arrived");
    pull(&format!("docker.io/{}:1", images.big.repository));
    assert!(upstreams.hub.settled_bytes(images.big.manifest_bytes()) > 0, "ns=docker.io arrived");
    assert_eq!(upstreams.ghcr.sent_bytes(), image.total_bytes(), "and ghcr.io was not asked again");
    sampan.idle().await;
    let clients: Vec<String> = sampan.history().await.into_iter().map(|pull| pull.client).collect();
    assert!(clients.iter().all(|client| client == "containerd"), "{clients:?}");

    let undone: ClientApplied = sampan.cli_json(&["clients", "disable", "containerd", "--yes"]);
    assert!(!undone.client.enabled, "{undone:#?}");
    let left: Vec<_> = std::fs::read_dir(etc.join("certs.d")).into_iter().flatten().flatten().collect();
    assert!(!etc.join("certs.d").exists(), "no trace is left: {left:?}");
}

#[tokio::test]
async fn real_old_docker_pulls_other_registries_by_names_that_begin_with_sampan() {
    let Some(_turn) = turn(&["dockerd", "docker", "docker-registry", "skopeo", "unshare", "nsenter"]) else {
        return;
    };
    let images = Images::prepare();
    let (image, upstreams) = (&images.small, Upstreams::start(&images));
    let dockerd = Dockerd::start(DockerdOptions::default());
    let options = SampanOptions { upstream: upstreams.options(), dockerd: Some(&dockerd), beside: false };
    let sampan = Sampan::start(&options);
    let at = sampan.address().replace("127.0.0.1", "localhost");

    let applied = sampan.set_up(DockerAction::Enable).await;
    let registries: Vec<_> =
        applied.docker.registries.iter().map(|r| (r.registry.as_str(), r.active)).collect();
    assert_eq!(registries, [("docker.io", true)], "this Docker asks mirrors for Docker Hub only");
    let note = applied.docker.notes.iter().find(|note| note.contains(&format!("{at}/ghcr.io/")));
    assert!(note.is_some(), "the way is said: {:?}", applied.docker.notes);
    let command = Command::DockerPlan {
        action: DockerAction::Enable,
        registries: Some(vec!["ghcr.io".into()]),
        restart: false,
    };
    let refused = sampan.call(command).await.unwrap_err();
    assert_eq!(refused.code, Code::DockerUnsupported, "and what cannot be is not promised: {refused:?}");

    dockerd.pull(&format!("{at}/ghcr.io/{}:1", image.repository));
    upstreams.assert_sent(0, image.total_bytes(), "the registry that the name says");
    dockerd.pull(&format!("{at}/docker.io/{}", images.big.short_name()));
    assert!(upstreams.hub.settled_bytes(1) > 0, "Docker Hub's short names as well");
    assert!(dockerd.holds(&format!("{at}/ghcr.io/{}:1", image.repository)));
}
